/* SPDX-License-Identifier: MIT */
/*
 * The short way of a blocking request over a blocking backend: a read of committed data, or the
 * next write of an open zone, whose mapping is one run that is known. It needs no operation: the
 * rules are those of read.c and write.c, and whatever is not plain takes the long way.
 */
#include "base/report.h"
#include "engine/core.h"

/* One buffer, no flags, sectors; a sequential zone. Else false. */
static inline bool is_plain(const struct zq_core *c, struct zq_op *op)
{
    const struct zqcow2_request *r = &op->req;

    if (r->flags || r->iovcnt != 1 || c->be->ops.submit || !c->zoned || r->offset >= c->size)
        return false;
    op->length = r->iov->iov_len;
    op->zone = zq_zone_of(&c->zones, r->offset);
    return op->length && !((op->length | r->offset) % ZQ_SECTOR) &&
           op->zone >= c->zones.g.conventional;
}

/* Where the host has the bytes at guest, if one I/O can carry them all. */
static inline bool find_host(const struct zq_core *c, const struct zq_op *op, uint64_t guest,
                             uint64_t *host)
{
    const struct zq_run *run = zq_runs_find(&c->map.runs[op->zone], guest);

    if (!run || op->length > run->guest + run->len - guest)
        return false;
    *host = run->host + (guest - run->guest);
    return zq_io_is_whole(&c->x, op->length);
}

static bool may_read(const struct zq_core *c, const struct zq_op *op)
{
    const struct zq_zone *z = &c->zones.v[op->zone];

    return op->req.offset < z->wp && op->length <= z->wp - op->req.offset &&
           z->forced != ZQCOW2_ZONE_OFFLINE;
}

/* Nobody before it (E1), nothing to open, close, wait for (R2, R6, R8) or refuse. */
static inline bool may_write(const struct zq_core *c, const struct zq_op *op)
{
    const struct zq_zone *z = &c->zones.v[op->zone];
    const struct zq_live *l = z->live;
    uint64_t start = zq_zone_start(&c->zones.g, op->zone);
    bool append = op->req.op == ZQCOW2_OP_APPEND;

    if (c->dead || !c->writable || !zq_state_is_open(z->state) || z->next == start || !l)
        return false;
    if (!zq_list_empty(&l->admission) || l->failed || l->punching || l->closing)
        return false;
    if (append && op->req.offset != start)
        return false;
    return !zq_zone_check_write(&c->zones, op->zone, op->req.offset, op->length, append);
}

/* The mutex is dropped for it. */
static inline int transfer(struct zq_core *c, struct zq_op *op, uint32_t kind, uint64_t host)
{
    int rc;

    op->io.pub.kind = kind;
    op->io.pub.offset = host;
    op->io.pub.length = op->length;
    op->io.pub.iov = op->req.iov;
    op->io.pub.iovcnt = 1;
    c->nr_ops++;
    zq_io_alone_begin(&c->x, &op->io);
    zq_core_unlock(c);
    rc = zq_io_alone_run(&c->x, &op->io);
    zq_core_lock(c);
    zq_io_alone_end(&c->x, &op->io);
    c->nr_ops--;
    if (!zq_list_empty(&c->drain_waiters))
        zq_wake(&c->ready, &c->drain_waiters);
    return rc;
}

/* True: committed, and answered by us; others that committed with it are made ready. */
static inline bool commit(struct zq_core *c, struct zq_op *op, int rc)
{
    struct zq_list out, *n;
    bool mine = false;

    if (rc == 0 && !c->dead && zq_zone_commit_alone(&c->zones, op->zone, &op->r))
        return true;
    zq_list_init(&out);
    zq_zone_data_done(&c->zones, op->zone, &op->r, rc == 0 && c->dead ? ZQCOW2_EDEAD : rc, &out);
    if (out.next == &op->r.link && out.prev == &op->r.link)
        return true;
    while ((n = zq_list_pop(&out))) {
        if (n == &op->r.link)
            mine = true;
        else
            zq_op_ready(zq_container(n, struct zq_op, r.link));
    }
    return mine;
}

static inline void answer(struct zq_core *c, struct zq_op *op, int rc, uint64_t offset)
{
    op->res = (struct zqcow2_result){rc, 0, offset};
    op->finished = true;
    if (!zq_list_empty(&c->ready))
        zq_engine_run(c);
}

static inline bool write_directly(struct zq_core *c, struct zq_op *op)
{
    uint64_t at = c->zones.v[op->zone].next, host;
    int rc;

    if (!may_write(c, op) || !find_host(c, op, at, &host))
        return false;
    zq_zone_reserve(&c->zones, op->zone, &op->r, op->length);
    rc = transfer(c, op, ZQCOW2_IO_WRITE, host);
    if (commit(c, op, rc)) {
        rc = op->r.rc;
        answer(c, op, rc, rc == 0 && op->req.op == ZQCOW2_OP_APPEND ? at : 0);
    } else { /* an earlier one is still under way, and answers for us */
        zq_zone_write_await(c, op, at);
    }
    return true;
}

bool zq_op_run_directly(struct zq_core *c, struct zq_op *op)
{
    uint64_t host;

    if (op->req.op > ZQCOW2_OP_APPEND || !is_plain(c, op))
        return false;
    if (op->req.op != ZQCOW2_OP_READ)
        return write_directly(c, op);
    if (!may_read(c, op) || !find_host(c, op, op->req.offset, &host))
        return false;
    answer(c, op, transfer(c, op, ZQCOW2_IO_READ, host), 0);
    return true;
}
