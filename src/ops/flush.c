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
int zq_step_drain(struct zq_core *c, struct zq_op *op)
{
    if (op->own.drain.phase == D_BEGIN) {
        c->nr_drains++;
        op->own.drain.counted = true;
        op->own.drain.phase = D_ALONE;
    }
    /* Other drains wait for the same, and the janitor ends by itself. */
    if (op->own.drain.phase == D_ALONE && c->nr_ops > c->nr_drains + c->janitor_running)
        return zq_op_park(c, op, &c->drain_waiters);
    if (op->own.drain.phase <= D_AHEAD) {
        op->own.drain.phase = D_AHEAD;
        if (zq_unmap_ahead(c, op, &op->own.drain.ahead))
            return ZQ_WAIT;
        op->own.drain.phase = D_FLUSH;
    }
    for (;;) {
        int rc = op->own.drain.phase == D_FLUSH ? zq_step_flush(c, op) : 0;

        if (rc)
            return rc;
        /* What the round set free is given back now, which makes refcounts dirty once more. */
        op->own.drain.phase = D_EMPTY;
        zq_janitor_kick(c);
        if (c->janitor_running)
            return zq_op_park(c, op, &c->drain_waiters);
        if (c->dead || !zq_cache_has_dirty(&c->cache))
            return 0;
        op->own.drain.phase = D_FLUSH;
    }
}

void zq_release_drain(struct zq_core *c, struct zq_op *op)
{
    c->nr_drains -= op->own.drain.counted;
    zq_release_mapping(c, op);
}
