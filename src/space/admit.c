/* SPDX-License-Identifier: MIT */
/*
 * What stands between an operation and a zone: its turn in the zone's FIFO (E1), reservations that
 * must drain, room under the limits, a reset that must be durable first (R2). And what stands
 * between two operations where there is no write pointer (R14).
 */
#include <errno.h>
#include "space/admit.h"
#include "base/report.h"
#include "round/round.h"

/*
 * A reservation is not committed: closing the zone now would take its resources away from a write.
 */
static bool is_busy(const struct zq_zones *zs, uint32_t zone)
{
    return zs->v[zone].live && !zq_list_empty(&zs->v[zone].live->reserved);
}

/* For assertions. */
static bool has_turn(const struct zq_core *c, const struct zq_op *op, uint32_t zone)
{
    return op->has_turn && op->zone == zone && c->zones.v[zone].live->admission.next == &op->turn;
}

/* Taken once, kept until left. 0: it is this operation's turn. */
int zq_turn_take(struct zq_core *c, struct zq_op *op, uint32_t zone)
{
    struct zq_live *l = zq_zone_live(&c->zones, zone);

    if (!l)
        return -ENOMEM;
    zq_assert_k(E1, zq_core_is_held(c) && (!op->has_turn || op->zone == zone));
    if (!op->has_turn) {
        op->has_turn = true;
        op->zone = zone;
        zq_list_push(&l->admission, &op->turn);
    }
    zq_assert_k(K11, l->admission.next == &op->turn || zq_cache_holds_nothing(&op->g));
    /* Behind the head it is linked nowhere else: the one before it makes it ready. */
    return l->admission.next == &op->turn ? 0 : ZQ_WAIT;
}

/* An operation may also leave from behind the head, when it ends with an error. */
void zq_turn_leave(struct zq_core *c, struct zq_op *op)
{
    struct zq_list *fifo = &c->zones.v[op->zone].live->admission;
    bool head = fifo->next == &op->turn;

    zq_assert_k(E1, op->has_turn && !zq_list_empty(fifo));
    zq_list_del(&op->turn);
    op->has_turn = false;
    if (head && !zq_list_empty(fifo))
        zq_op_ready(zq_container(fifo->next, struct zq_op, turn));
}

/*
 * R8: a failed write has yet to drain. R6: a hole is being punched where this one would write.
 * Closing: the zone is the victim of an implicit close, and takes no write before it is closed.
 */
int zq_await_admissible(struct zq_core *c, struct zq_op *op, uint32_t zone)
{
    struct zq_zones *zs = &c->zones;
    struct zq_live *l = zs->v[zone].live;

    zq_assert_k(E1, has_turn(c, op, zone));
    if (l->failed || l->punching)
        return zq_op_park(c, op, &l->drained);
    if (l->closing && zs->closing_for != op)
        return zq_op_park(c, op, &zs->closing_waiters);
    return 0;
}

/* No reservation can come while this waits: new ones need the turn, which this operation has. */
int zq_await_drained(struct zq_core *c, struct zq_op *op, uint32_t zone)
{
    struct zq_live *l = c->zones.v[zone].live;

    if (!zq_list_empty(&l->reserved))
        return zq_op_park(c, op, &l->drained);
    return zq_await_admissible(c, op, zone);
}

/* ---- implicit close ---- */

void zq_closing_drop(struct zq_core *c, struct zq_op *op)
{
    struct zq_zones *zs = &c->zones;

    if (!c->zoned || zs->closing_for != op)
        return;
    zq_assert(zs->closing != ZQ_NO_ZONE && zs->v[zs->closing].live->closing);
    zs->v[zs->closing].live->closing = false;
    zs->closing = ZQ_NO_ZONE;
    zs->closing_for = NULL;
    zq_wake(&c->ready, &zs->closing_waiters);
}

/*
 * A victim with writes in flight is kept from taking new ones until it has drained, so that a
 * busy zone cannot keep its place forever. One at a time; the operation that waits does the close.
 */
int zq_room_get(struct zq_core *c, struct zq_op *op, uint32_t zone, const struct zq_verdict *v,
                uint32_t *victim)
{
    struct zq_zones *zs = &c->zones;
    int rc = zq_zones_room(zs, zone, v, victim);

    zq_assert_k(E1, has_turn(c, op, zone));
    if (rc < 0 || *victim == ZQ_NO_ZONE)
        return rc;
    /* Another operation may have closed ours meanwhile. */
    if (zs->closing_for == op && zs->v[zs->closing].state != ZQCOW2_ZONE_IMP_OPEN)
        zq_closing_drop(c, op);
    if (zs->closing_for == op)
        *victim = zs->closing;
    if (!is_busy(zs, *victim))
        return 0;
    if (!zs->closing_for) {
        zs->closing_for = op;
        zs->closing = *victim;
        zs->v[*victim].live->closing = true;
    }
    return zq_op_park(c, op, &zs->closing_waiters);
}

/* Also gives up a victim that is no longer needed: its writers go on. */
void zq_room_use(struct zq_core *c, struct zq_op *op, uint32_t victim)
{
    zq_assert_k(K6, victim == ZQ_NO_ZONE || !is_busy(&c->zones, victim));
    if (victim != ZQ_NO_ZONE)
        zq_zone_do_close(&c->zones, victim);
    c->zones.implicit_closes += victim != ZQ_NO_ZONE;
    zq_closing_drop(c, op);
}

/* ---- what must be durable first ---- */

/*
 * Only the first write of a life waits: next is at start. high is the highest value that the entry
 * may have on disk (R1); the descriptor extension of the old life is gone from there, too (R16).
 * Readers of the old life must end, because the new data takes the same
 * clusters.
 */
int zq_await_reset(struct zq_core *c, struct zq_op *op, uint32_t zone)
{
    struct zq_zone *z = &c->zones.v[zone];
    uint64_t start = zq_geometry_start(&c->zones.g, zone);

    zq_assert_k(R2, has_turn(c, op, zone));
    if (z->next != start)
        return 0;
    while (z->high != start || zq_zone_was_described(z)) {
        int rc = zq_round_wait(c, op);
        if (rc)
            return rc;
    }
    if (!zq_io_all_past(c->data, z->live->reset_io))
        return zq_op_park(c, op, &c->data->flight_waiters);
    return 0;
}

/*
 * Clusters, not bytes: an entry maps a whole cluster, and copying keeps the part that is not
 * written.
 */
static bool share_a_cluster(const struct zq_core *c, const struct zq_op *a, const struct zq_op *b)
{
    uint64_t size = (uint64_t)1 << c->cluster_bits;
    uint64_t from = zq_align_down(a->req.offset, size);

    return zq_ranges_overlap(b->req.offset, b->length, from,
                             zq_align_up(a->req.offset + a->length, size) - from);
}

/* All of the range at once, so two requests cannot each hold what the other waits for. */
int zq_range_take(struct zq_core *c, struct zq_op *op)
{
    zq_assert_k(R14, op->length && op->req.offset + op->length <= c->seq_start);
    if (op->range.held)
        return 0;
    for (const struct zq_list *n = c->owners.next; n != &c->owners; n = n->next) {
        if (share_a_cluster(c, op, zq_container(n, const struct zq_op, range.link)))
            return zq_op_park(c, op, &c->owner_waiters);
    }
    zq_list_push(&c->owners, &op->range.link);
    op->range.held = true;
    return 0;
}

void zq_range_leave(struct zq_core *c, struct zq_op *op)
{
    struct zq_owned_range *r = &op->range;

    if (!r->held)
        return;
    zq_list_del(&r->link);
    r->held = false;
    zq_wake(&c->ready, &c->owner_waiters);
}

/* The next operation that may allocate waits for the bit as it would for the mark. */
void zq_mark_by_dirty(struct zq_core *c)
{
    zq_assert_k(N9, c->exclusive && zq_core_is_held(c));
    if (c->hdr.mark_offset || c->marks_dirty || c->hdr.version < 3 || c->zoned)
        return;
    c->marks_dirty = true;
    c->marked = false;
}

/* After the first operation has waited, the mark is set until close: all others pass at once. */
int zq_may_allocate(struct zq_core *c, struct zq_op *op)
{
    zq_assert_k(R12, c->writable && zq_core_is_held(c));
    while (!c->marked) {
        int rc;

        c->want_mark = true;
        rc = zq_round_wait(c, op);
        if (rc)
            return rc;
    }
    return 0;
}

int zq_may_change(struct zq_core *c, struct zq_op *op, uint64_t from, uint64_t len)
{
    if (!c->bitmaps.keeps || !len)
        return 0;
    while (!c->bitmaps.ready) {
        int rc;

        c->want_flags = true;
        rc = zq_round_wait(c, op);
        if (rc)
            return rc;
    }
    zq_assert_k(B1, c->guarded && zq_core_is_held(c));
    return zq_bitmaps_mark(&c->bitmaps, from, len);
}
