/* SPDX-License-Identifier: MIT */
/*
 * Cuts the end of the file.
 *
 * What a refcount says in memory it says in the file, durably, and no I/O is under way: so no crash
 * brings back a reference to what is cut off (R5). Refcount blocks that count nothing go first, and
 * a round has to come behind that; the search is done again then, for one of them may have been the
 * last cluster of another's range.
 *
 * The cut itself needs no barrier. If a crash undoes it the file is longer than it need be, and the
 * next barrier comes before anything is believed of what is written there again.
 */
#include "ops/truncate.h"

#include "base/report.h"
#include "ops/flush.h"
#include "ops/request.h"
#include "space/admit.h"
#include "space/transfer.h"
#include "space/unmap.h"

enum { T_BEGIN, T_FIND, T_SETTLE, T_CUT, T_DONE };

/* Refcounts that may be wrong say nothing of what can go. */
static bool is_wanted(const struct zq_core *c)
{
    return !c->sealed && c->alloc.slack && !c->alloc.corrupt && !c->dead;
}

static int cut(struct zq_core *c, struct zq_op *op, struct zq_truncation *t)
{
    t->phase = T_DONE;
    if (!zq_tail_is_loose(&c->alloc, t->tail.end))
        return 0;
    zq_assert_k(R5, !zq_cache_has_dirty(&c->cache) && !c->alloc.refs.table.is_dirty);
    zq_tail_cut(&c->alloc, t->tail.end);
    return zq_op_io(c, op, ZQCOW2_IO_TRUNCATE, NULL, t->tail.end, 0);
}

/* What a search that fails has dropped is settled, too. */
static int find(struct zq_core *c, struct zq_op *op, struct zq_truncation *t)
{
    int rc = op->rc < 0 ? op->rc : zq_tail_find(&c->alloc, &op->g, &t->tail);

    if (rc == ZQ_WAIT)
        return rc;
    zq_cache_release(&c->cache, &op->g);
    op->rc = 0;
    c->alloc.slack = false;
    t->failed = rc < 0;
    t->phase = t->tail.gone ? T_SETTLE : t->failed ? T_DONE : T_CUT;
    return 0;
}

static int settle(struct zq_core *c, struct zq_op *op, struct zq_truncation *t)
{
    int rc = zq_settle(c, op);

    if (rc)
        return rc;
    t->phase = t->failed ? T_DONE : T_FIND;
    t->tail = (struct zq_tail){0};
    return 0;
}

static int begin(struct zq_core *c, struct zq_op *op, struct zq_truncation *t)
{
    int rc = is_wanted(c) ? zq_may_allocate(c, op) : 0;

    if (rc == 0)
        t->phase = is_wanted(c) ? T_FIND : T_DONE;
    return rc;
}

int zq_truncate_step(struct zq_core *c, struct zq_op *op, struct zq_truncation *t)
{
    int rc = 0;

    while (rc == 0 && t->phase != T_DONE) {
        switch (t->phase) {
        case T_BEGIN: rc = begin(c, op, t); break;
        case T_FIND: rc = find(c, op, t); break;
        case T_SETTLE: rc = settle(c, op, t); break;
        default: rc = cut(c, op, t);
        }
    }
    if (rc == 0)
        op->rc = 0; /* of the cut */
    return rc == 0 && c->dead ? ZQCOW2_EDEAD : rc;
}

/* ---- as an operation ---- */

struct truncate {
    struct zq_op op;
    bool holds; /* nothing else is admitted because of it */
    bool drained;
    struct zq_drain drain;
    struct zq_truncation t;
};

static struct truncate *self(struct zq_op *op)
{
    return zq_container(op, struct truncate, op);
}

static int step(struct zq_core *c, struct zq_op *op)
{
    struct truncate *x = self(op);
    int rc = 0;

    if (!x->holds) {
        rc = zq_op_admit(c, op);
        if (rc)
            return rc;
        c->exclusive = x->holds = true;
    }
    if (!x->drained)
        rc = op->rc < 0 ? op->rc : zq_drain(c, op, &x->drain);
    if (rc == 0 && !x->drained)
        rc = zq_settle(c, op);
    if (rc)
        return rc;
    x->drained = true;
    return zq_truncate_step(c, op, &x->t);
}

static void release(struct zq_core *c, struct zq_op *op)
{
    struct truncate *x = self(op);

    zq_drain_leave(c, &x->drain);
    zq_release_mapping(c, op);
    if (!x->holds)
        return;
    c->exclusive = false;
    zq_wake(&c->ready, &c->gate_waiters);
}

void zq_truncate_run(struct zq_core *c)
{
    struct truncate x = {.op.core = c};
    bool wanted;

    zq_core_lock(c);
    wanted = is_wanted(c);
    zq_core_unlock(c);
    if (wanted)
        (void)zq_op_run_alone(c, &x.op, step, release, NULL);
}
