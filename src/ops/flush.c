/* SPDX-License-Identifier: MIT */
/*
 * Flush, drain and FUA: operations that wait for rounds.
 *
 * A drain waits until it is alone, except for other drains and the janitor: each counts itself, so
 * that two of them do not wait for one another. Giving clusters back makes refcounts dirty again,
 * which is why a drain may need more than one round.
 */
#include "ops/flush.h"
#include "round/round.h"
#include "space/reclaim.h"
#include "space/unmap.h"

enum { D_BEGIN, D_ALONE, D_AHEAD, D_FLUSH, D_EMPTY };

int zq_step_fua(struct zq_core *c, struct zq_op *op)
{
    return op->req.flags & ZQCOW2_FUA ? zq_round_wait(c, op) : 0;
}

/* An image that is only read has nothing of its own to make durable. */
int zq_step_flush(struct zq_core *c, struct zq_op *op)
{
    if (!c->writable)
        return 0;
    return zq_round_wait(c, op);
}

/*
 * Alone first, since what lies ahead may only be unmapped when no write needs it. An error of
 * zq_unmap_ahead() costs space and is not reported.
 */
int zq_drain(struct zq_core *c, struct zq_op *op, struct zq_drain *d)
{
    if (d->phase == D_BEGIN) {
        c->nr_drains++;
        d->counted = true;
        d->phase = D_ALONE;
    }
    /* Other drains wait for the same, and the janitor ends by itself. */
    if (d->phase == D_ALONE && c->nr_ops > c->nr_drains + c->janitor_running)
        return zq_op_park(c, op, &c->drain_waiters);
    if (d->phase <= D_AHEAD) {
        d->phase = D_AHEAD;
        if (zq_unmap_ahead(c, op, &d->ahead))
            return ZQ_WAIT;
        d->phase = D_FLUSH;
    }
    for (;;) {
        int rc = d->phase == D_FLUSH ? zq_step_flush(c, op) : 0;

        if (rc)
            return rc;
        /* What the round set free is given back now, which makes refcounts dirty once more. */
        d->phase = D_EMPTY;
        zq_janitor_kick(c);
        if (c->janitor_running)
            return zq_op_park(c, op, &c->drain_waiters);
        if (c->dead || !zq_cache_has_dirty(&c->cache))
            return 0;
        d->phase = D_FLUSH;
    }
}

int zq_step_drain(struct zq_core *c, struct zq_op *op)
{
    return zq_drain(c, op, &op->own.drain);
}

void zq_drain_leave(struct zq_core *c, struct zq_drain *d)
{
    c->nr_drains -= d->counted;
    d->counted = false;
}

void zq_release_drain(struct zq_core *c, struct zq_op *op)
{
    zq_drain_leave(c, &op->own.drain);
    zq_release_mapping(c, op);
}

int zq_settle(struct zq_core *c, struct zq_op *op)
{
    zq_assert_k(N8, c->exclusive && zq_core_is_held(c));
    for (;;) {
        int rc;

        zq_map_drop_fresh(&c->map); /* a copy of an L2 table would be out of date soon */
        (void)zq_janitor_kick(c);
        if (c->janitor_running || c->nr_ops > 1)
            return zq_op_park(c, op, &c->drain_waiters);
        if (c->dead)
            return ZQCOW2_EDEAD;
        if (!op->round && !zq_round_is_running(c) && !zq_cache_has_dirty(&c->cache) &&
            !c->map.l1.is_dirty && !c->alloc.refs.table.is_dirty)
            return 0;
        rc = zq_round_wait(c, op);
        if (rc)
            return rc;
    }
}
