/* SPDX-License-Identifier: MIT */
/*
 * Writes, appends and writes of zeros to sequential zones. Keeps K7 and R8.
 *
 * The turn is held from the first check to the reservation and no longer, so the zone's queue moves
 * on while data does. After that only the reservation ties the write to its zone: it is ended by
 * commit alone, whatever the I/O came to, and a failed write stays linked until the earlier ones
 * are done.
 */
#include <errno.h>
#include "ops/zone_write.h"
#include "base/report.h"
#include "ops/flush.h"
#include "space/admit.h"
#include "space/fill.h"
#include "space/mapahead.h"
#include "space/transfer.h"
#include "space/unmap.h"

enum { W_GATHER, W_MOVE, W_COMMIT, W_FUA };

static bool writes_zone(const struct zq_op *op)
{
    return op->req.op == ZQCOW2_OP_WRITE || op->req.op == ZQCOW2_OP_APPEND ||
           op->req.op == ZQCOW2_OP_WRITE_ZEROES;
}

static bool compresses(const struct zq_op *op)
{
    return op->req.flags & ZQCOW2_COMPRESS;
}

/*
 * R8: a write has failed with rc. Those that were submitted behind it, and wait for their turn, end
 * with the same error when they have it; zone calls among them are carried out, and a reset begins
 * the zone anew.
 */
static void fail_behind(struct zq_core *c, const struct zq_op *op, uint32_t zone, int rc)
{
    struct zq_list *fifo = &c->zones.v[zone].live->admission;

    zq_assert_k(R8, rc < 0);
    for (struct zq_list *n = op->has_turn ? op->turn.next : fifo->next; n != fifo; n = n->next) {
        struct zq_op *behind = zq_container(n, struct zq_op, turn);

        if (behind->req.op == ZQCOW2_OP_ZONE_RESET)
            return;
        if (writes_zone(behind) && !behind->r.rc)
            behind->r.rc = rc;
    }
}

/*
 * Everything that can fail or wait. In the last pass nothing parks: reserve follows at once.
 * *allowed: what fails is the host's or for memory, the request itself was right.
 */
static int gather(struct zq_core *c, struct zq_op *op, uint32_t zone, struct zq_verdict *v,
                  uint32_t *victim, bool *allowed)
{
    struct zq_zone *z = &c->zones.v[zone];
    bool append = op->req.op == ZQCOW2_OP_APPEND;
    uint64_t at;
    int rc = zq_turn_take(c, op, zone);

    if (rc == 0 && op->r.rc < 0)
        return op->r.rc;
    if (rc == 0)
        rc = zq_await_admissible(c, op, zone);
    if (rc)
        return rc;
    rc = zq_zone_check_write(&c->zones, zone, op->req.offset, op->length, append);
    if (rc < 0)
        return rc;
    *v = zq_fsm(c->zones.rules, z->state, ZQ_ACT_WRITE, false);
    rc = zq_zones_room(&c->zones, zone, v, victim);
    if (rc < 0)
        return rc;
    *allowed = true;
    at = append ? z->next : op->req.offset;
    rc = zq_may_change(c, op, at, op->length);
    if (rc == 0)
        rc = zq_await_reset(c, op, zone);
    if (rc == 0)
        rc = compresses(op) ? zq_compress_ahead(c, op, at, op->length) :
                              zq_map_ahead(c, op, at, op->length);
    if (rc == 0)
        rc = zq_room_get(c, op, zone, v, victim);
    return rc;
}

/*
 * In the hold of the mutex of the last gather, so what that has found still holds, and nothing here
 * can fail: the victim is closed before the zone opens, or the limit would be exceeded in between.
 * The turn ends here: the next write of the zone is checked while this one moves its data.
 */
static void reserve(struct zq_core *c, struct zq_op *op, uint32_t zone, const struct zq_verdict *v,
                    uint32_t victim)
{
    zq_assert_k(K7, op->has_turn && c->zones.v[zone].live->admission.next == &op->turn);
    op->res.offset = c->zones.v[zone].next;
    zq_room_use(c, op, victim);
    zq_zone_set_state(&c->zones, zone, v->state);
    zq_zone_reserve(&c->zones, zone, &op->r, op->length);
    zq_assert_k(K4 - K6, zq_zones_valid(&c->zones, zone));
    zq_turn_leave(c, op);
    op->round = 0;
    zq_cache_release(&c->cache, &op->g);
}

/* Bytes go to the run that holds them; a run that the cache of runs forgot is looked up again. */
static int move(struct zq_core *c, struct zq_op *op)
{
    uint32_t kind = op->req.op == ZQCOW2_OP_WRITE_ZEROES ? ZQCOW2_IO_ZERO : ZQCOW2_IO_WRITE;
    int rc = zq_transfer_step(c, op);

    while (rc == 0 && op->pos < op->length) {
        uint64_t at = op->res.offset + op->pos;
        struct zq_extent e;

        rc = zq_map_lookup(&c->map, &op->g, at, op->length - op->pos, &e);
        zq_assert_k(R4, rc || zq_extent_in_place(&e)); /* gather has mapped all of it */
        if (rc)
            return rc;
        zq_cache_release(&c->cache, &op->g);
        zq_transfer_begin(op, kind, e.host, e.len);
        rc = zq_transfer_step(c, op);
    }
    return rc;
}

/* All that the zone commits with it is answered in order, through the ready list. */
static void commit_in_order(struct zq_core *c, struct zq_op *op, int rc)
{
    struct zq_list out, *n;

    zq_list_init(&out);
    zq_assert(zq_core_is_held(c) && op->own.zone_write.phase <= W_MOVE);
    op->own.zone_write.phase = W_COMMIT;
    if (rc < 0)
        fail_behind(c, op, op->zone, rc);
    zq_zone_data_done(&c->zones, op->zone, &op->r, rc, &out);
    while ((n = zq_list_pop(&out)))
        zq_op_ready(zq_container(n, struct zq_op, r.link));
}

/* r.rc is what the zone made of the write: its own error, or that of an earlier write (R8). */
static int after_commit(struct zq_core *c, struct zq_op *op)
{
    if (op->r.rc < 0)
        return op->r.rc;
    op->own.zone_write.phase = W_FUA;
    return zq_step_fua(c, op);
}

void zq_write_done(struct zq_core *c, struct zq_op *op, int rc)
{
    uint64_t length = op->length, at = op->r.end - length;

    zq_assert_k(K7, at >= c->zones.v[op->zone].wp && op->r.end <= c->zones.v[op->zone].next);
    zq_op_reset(c, op, zq_step_zone_write, zq_release_mapping);
    op->length = length;
    op->res.offset = at;
    commit_in_order(c, op, rc);
}

int zq_step_zone_write(struct zq_core *c, struct zq_op *op)
{
    uint32_t zone = zq_zone_of(&c->zones, op->req.offset), victim;
    struct zq_verdict v;
    bool allowed;
    int rc;

    switch (op->own.zone_write.phase) {
    case W_GATHER:
        if (op->req.op == ZQCOW2_OP_APPEND &&
            op->req.offset != zq_geometry_start(&c->zones.g, zone))
            return -EINVAL;
        rc = zq_fill_is_pending(op) ? zq_fill_replace(c, op) :
             op->rc < 0             ? op->rc :
             c->dead                ? ZQCOW2_EDEAD :
                                      0;
        allowed = rc < 0;
        if (rc == 0)
            rc = gather(c, op, zone, &v, &victim, &allowed);
        if (allowed && op->has_turn && zq_answer(rc) == rc && rc < 0)
            fail_behind(c, op, zone, rc);
        if (rc)
            return rc;
        reserve(c, op, zone, &v, victim);
        op->own.zone_write.phase = W_MOVE;
        /* fall through */
    case W_MOVE:
        rc = move(c, op);
        if (rc == ZQ_WAIT)
            return rc;
        zq_cache_release(&c->cache, &op->g);
        rc = zq_acknowledged(c, rc);
        if (!zq_write_commits_now(c, op, rc)) {
            commit_in_order(c, op, rc);
            return ZQ_WAIT;
        }
        /* fall through */
    case W_COMMIT: return after_commit(c, op);
    default: return zq_step_fua(c, op);
    }
}
