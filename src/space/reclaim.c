/* SPDX-License-Identifier: MIT */
/*
 * Takes back what is no longer used: empties the quarantine (R5), punches holes where a durable
 * reset left data (R6), and unmaps what lies beyond write pointers (R4).
 *
 * A record in the quarantine goes through the janitor alone: once it has been taken from its list
 * it belongs to the janitor, until its refcounts are lowered and it is freed. The space is punched
 * before the refcount falls, for after that the cluster may be somebody's again.
 */
#include <errno.h>
#include "space/reclaim.h"
#include "base/report.h"
#include "round/round.h"
#include "space/admit.h"
#include "space/transfer.h"
#include "space/unmap.h"

/* ---- what lies ahead ---- */

/* Of one zone, in its turn and drained: a write that fails would move the pointer back (R8). */
static int unmap_zone(struct zq_core *c, struct zq_op *op, struct zq_ahead *a)
{
    struct zq_zone *z = &c->zones.v[a->zone];
    uint64_t size = (uint64_t)1 << c->cluster_bits;
    int rc = op->rc < 0 ? op->rc : zq_turn_take(c, op, a->zone);

    if (rc == 0)
        rc = zq_await_drained(c, op, a->zone);
    if (rc)
        return rc;
    a->at = zq_max(a->at, zq_align_up(z->wp, size));
    rc = zq_unmap(c, op, &a->at, zq_align_up(zq_zone_end(&c->zones, a->zone), size),
                  ZQ_LEAVE_NOTHING);
    if (rc == 0)
        z->ahead = 0;
    return rc;
}

/* No operation changes the zone or waits to, so its turn is free, and what is ahead is nobody's. */
static bool is_idle(const struct zq_zone *z)
{
    const struct zq_live *l = z->live;

    return !l || (zq_list_empty(&l->admission) && zq_list_empty(&l->reserved) && !l->failed &&
                  !l->punching && !l->closing);
}

/* Of a zone whose turn it has, another one may have been faster. */
static bool passes_over(const struct zq_op *op, const struct zq_ahead *a, const struct zq_zone *z)
{
    return !op->has_turn && (!z->ahead || (a->idle_only && !is_idle(z)));
}

/* What is mapped beyond write pointers goes, zone by zone. */
int zq_unmap_ahead(struct zq_core *c, struct zq_op *op, struct zq_ahead *a)
{
    struct zq_zones *zs = &c->zones;

    while (c->zoned && !c->sealed && a->zone < zs->g.nr_zones) {
        bool pass = passes_over(op, a, &zs->v[a->zone]);
        int rc = pass ? 0 : unmap_zone(c, op, a);

        if (rc == ZQ_WAIT)
            return rc;
        zq_cache_release(&c->cache, &op->g);
        if (op->has_turn)
            zq_turn_leave(c, op);
        if (rc < 0) { /* it stays mapped, which is no error; without space so do the others */
            op->rc = 0;
            a->zone = zq_is_no_space(rc) ? zs->g.nr_zones - 1 : a->zone;
        }
        a->zone++;
        a->at = 0;
        rc = zq_op_pay(c, op, pass ? ZQ_COST_LOOK : ZQ_COST_ZONE);
        if (rc)
            return rc;
    }
    if (op->has_turn)
        zq_turn_leave(c, op);
    op->round = 0;
    return 0;
}

/* ---- the janitor ---- */

enum { J_NEXT, J_PUNCH_FREED, J_PUNCHED, J_LOWER, J_PUNCH_EXTERNAL, J_PUNCH_ZONE, J_AHEAD, J_DONE };

/* R5: the unmapping is durable, and nobody who looked the cluster up before is still at it. */
static bool is_ripe(const struct zq_core *c, const struct zq_freed *f)
{
    return f->after_round <= c->round.done &&
           zq_io_all_past(f->external ? c->data : &c->x, f->after_io);
}

/*
 * The next record that only waits for its turn; *io_only: one waits for readers and writers. None
 * is ripe before the one in front of it.
 */
static struct zq_freed *next_ripe(struct zq_core *c, bool *io_only)
{
    *io_only = false;
    for (int i = 0; i < 2; i++) {
        const struct zq_list *q = &c->alloc.quarantine[i];
        struct zq_freed *f = zq_container(q->next, struct zq_freed, link);

        if (zq_list_empty(q))
            continue;
        if (is_ripe(c, f))
            return f;
        *io_only |= f->after_round <= c->round.done;
    }
    return NULL;
}

/* What the reset zone in front of the list waits for. */
enum punch { P_NONE, P_USED, P_RIPE, P_IO, P_ROUND };

/*
 * The first one only: those behind it were reset later, and what they wait for seldom ends before.
 * So a look costs the same, however many there are.
 */
static enum punch first_punch(const struct zq_core *c, uint32_t *zone)
{
    const struct zq_zones *zs = &c->zones;
    const struct zq_live *l;
    uint64_t start;

    if (!c->zoned || c->dead || zq_list_empty(&zs->punch))
        return P_NONE;
    l = zq_container(zs->punch.next, const struct zq_live, punch);
    *zone = l->index;
    start = zq_geometry_start(&zs->g, *zone);
    if (zs->v[*zone].next != start || !zq_list_empty(&l->admission))
        return P_USED;
    if (zs->v[*zone].high != start)
        return P_ROUND;
    return zq_io_all_past(c->data, l->reset_io) ? P_RIPE : P_IO;
}

/* It has completed before the count is lowered (R6). */
static int punch_freed(struct zq_core *c, struct zq_op *op, const struct zq_freed *f)
{
    return zq_op_io(c, op, ZQCOW2_IO_DISCARD, NULL, f->cluster << c->cluster_bits,
                    f->count << c->cluster_bits);
}

/*
 * What of the zone is the next to be punched, from `at` on: all of its places in a data file,
 * mapped or not; else the next run that L2 maps. *len 0: not that.
 */
static int next_of_zone(struct zq_core *c, struct zq_op *op, uint64_t end, uint64_t *host,
                        uint64_t *len)
{
    uint64_t at = op->own.janitor.at;
    struct zq_extent e;
    int rc;

    *host = at;
    *len = end - at;
    if (c->map.form.external) {
        op->own.janitor.at = end;
        return 0;
    }
    rc = zq_map_lookup(&c->map, &op->g, at, end - at, &e);
    if (rc)
        return rc;
    zq_cache_release(&c->cache, &op->g);
    op->own.janitor.at += e.len;
    *host = e.host;
    *len = zq_extent_in_place(&e) ? e.len : 0;
    return 0;
}

/*
 * Gives the zone's runs to the host, one a call; what L2 maps stays mapped. Each has completed
 * before the zone takes a write (R6).
 */
static int punch_zone(struct zq_core *c, struct zq_op *op)
{
    struct zq_live *l = c->zones.v[op->own.janitor.zone].live;
    uint64_t end = zq_zone_end(&c->zones, op->own.janitor.zone);

    while (op->own.janitor.at < end) {
        uint64_t host, len;
        int rc = op->rc < 0 ? op->rc : next_of_zone(c, op, end, &host, &len);

        if (rc == ZQ_WAIT)
            return rc;
        if (rc < 0)
            break; /* it only costs space */
        if (len)
            return zq_op_data_io(c, op, ZQCOW2_IO_DISCARD, NULL, host, len);
    }
    zq_cache_release(&c->cache, &op->g);
    l->punching = false;
    zq_wake(&c->ready, &l->drained);
    op->own.janitor.phase = J_NEXT;
    return 0;
}

/* Its part of the device has to be the janitor's (R14): a write could map it while it is punched.
 */
static void begin_record(const struct zq_core *c, struct zq_op *op, struct zq_freed *f)
{
    op->own.janitor.freed = f;
    op->own.janitor.phase = f->external ? J_PUNCH_EXTERNAL : f->punch ? J_PUNCH_FREED : J_LOWER;
    if (!f->external)
        return;
    op->own.janitor.at = op->req.offset = f->cluster << c->cluster_bits;
    op->length = 0; /* a device that has become smaller has cut its file */
    if (op->req.offset < c->seq_start)
        op->length = zq_min(f->count << c->cluster_bits, c->seq_start - op->req.offset);
}

/*
 * What is unmapped from `at` on, in *e; then its entries on disk say so, too. Else it was mapped
 * and unmapped again since the record was made, and a crash could take the second back: *again, and
 * the record waits for another round.
 */
static int look_up_external(struct zq_core *c, struct zq_op *op, struct zq_extent *e, bool *again)
{
    uint64_t at = op->own.janitor.at, next;
    struct zq_slice *s;
    int rc = zq_map_lookup(&c->map, &op->g, at, op->req.offset + op->length - at, e);

    *again = false;
    if (rc || !zq_map_may_hold(&c->map, at, &next))
        return rc;
    rc = zq_map_slice(&c->map, &op->g, at, &s);
    *again = rc == 0 && (s->dirty || s->in_round);
    return rc;
}

/* The clusters of a record, or what is left of them. */
static void end_external(struct zq_core *c, struct zq_op *op, bool again)
{
    struct zq_freed *f = op->own.janitor.freed;

    zq_cache_release(&c->cache, &op->g);
    zq_range_leave(c, op);
    op->own.janitor.freed = NULL;
    op->own.janitor.phase = J_NEXT;
    if (!again) {
        zq_record_drop(&c->alloc, f);
        return;
    }
    f->count -= (op->own.janitor.at >> c->cluster_bits) - f->cluster;
    f->cluster = op->own.janitor.at >> c->cluster_bits;
    zq_alloc_quarantine_external(&c->alloc, f, c->data->data_seq);
}

/* Gives places of a data file to the host that nothing maps; what fails only costs space. */
static int punch_external(struct zq_core *c, struct zq_op *op)
{
    uint64_t end = op->req.offset + op->length;
    bool again = false;
    int rc = c->dead ? ZQCOW2_EDEAD : op->length ? zq_range_take(c, op) : 0;

    if (rc == ZQ_WAIT)
        return rc;
    while (rc == 0 && op->rc == 0 && op->own.janitor.at < end) {
        uint64_t at = op->own.janitor.at;
        struct zq_extent e;

        rc = look_up_external(c, op, &e, &again);
        if (rc == ZQ_WAIT)
            return rc;
        if (rc < 0 || again)
            break;
        zq_cache_release(&c->cache, &op->g);
        op->own.janitor.at += e.len;
        if (e.type != ZQ_EXT_DATA && !e.l2.len)
            return zq_op_data_io(c, op, ZQCOW2_IO_DISCARD, NULL, at, e.len);
    }
    end_external(c, op, again);
    return 0;
}

/* The zone is punched, or it is in use again. */
static void leave_punch_list(struct zq_core *c, struct zq_op *op, bool ripe)
{
    uint32_t zone = op->own.janitor.zone;

    zq_list_del(&c->zones.v[zone].live->punch);
    c->zones.v[zone].live->punching = ripe;
    if (!ripe)
        return;
    op->own.janitor.at = zq_geometry_start(&c->zones.g, zone);
    op->own.janitor.phase = J_PUNCH_ZONE;
}

/*
 * Records before zones: they hold clusters that others could use. A zone that is punched takes no
 * write until it is done (zq_await_admissible()).
 */
static int janitor_next(struct zq_core *c, struct zq_op *op)
{
    bool io_only;
    struct zq_freed *f = next_ripe(c, &io_only);
    enum punch punch = first_punch(c, &op->own.janitor.zone);

    op->rc = 0;
    if (f) {
        zq_list_del(&f->link);
        begin_record(c, op, f);
        return 0;
    }
    if (punch == P_USED || punch == P_RIPE) {
        leave_punch_list(c, op, punch == P_RIPE);
        return 0;
    }
    if (io_only || punch == P_IO)
        return zq_op_park(c, op, &c->data->flight_waiters);
    op->own.janitor.phase = J_DONE; /* nothing left to do now */
    return 0;
}

static int lower(struct zq_core *c, struct zq_op *op)
{
    struct zq_freed *f = op->own.janitor.freed;
    int rc = c->dead ? ZQCOW2_EDEAD : op->rc < 0 ? op->rc : zq_alloc_lower(&c->alloc, &op->g, f);

    if (rc == ZQ_WAIT)
        return rc;
    zq_cache_release(&c->cache, &op->g);
    if (zq_is_no_space(rc)) { /* the round for it stopped: not ripe before the next one is done */
        f->after_round = c->alloc.rounds + 1;
        zq_list_push_front(&c->alloc.quarantine[1], &f->link);
        op->own.janitor.freed = NULL;
        return rc;
    }
    /* Another error leaves a leak: then the mark stays, and the next writable open finds it. */
    c->leaked |= rc < 0;
    zq_record_drop(&c->alloc, f);
    op->own.janitor.freed = NULL;
    op->own.janitor.phase = J_NEXT;
    return 0;
}

/* What idle zones have ahead, for those who wait for room; a round has to come behind it. */
static int unmap_idle_ahead(struct zq_core *c, struct zq_op *op)
{
    int rc;

    op->own.janitor.ahead.idle_only = true;
    rc = zq_unmap_ahead(c, op, &op->own.janitor.ahead);
    if (rc == 0)
        op->own.janitor.phase = J_NEXT;
    return rc;
}

static int janitor_phase(struct zq_core *c, struct zq_op *op)
{
    struct zq_freed *f = op->own.janitor.freed;

    switch (op->own.janitor.phase) {
    case J_NEXT: return janitor_next(c, op);
    case J_PUNCH_FREED:
        op->own.janitor.phase = J_PUNCHED;
        return c->dead ? 0 : punch_freed(c, op, f);
    case J_PUNCHED: /* whether the host could or not (R6) */
        op->rc = 0;
        op->own.janitor.phase = J_LOWER;
        return 0;
    case J_LOWER: return lower(c, op);
    case J_PUNCH_EXTERNAL: return punch_external(c, op);
    case J_AHEAD: return unmap_idle_ahead(c, op);
    default: return punch_zone(c, op);
    }
}

/* Where a phase has ended, the janitor holds nothing in the cache. */
static int step_janitor(struct zq_core *c, struct zq_op *op)
{
    int rc = 0;

    while (rc == 0 && op->own.janitor.phase != J_DONE) {
        rc = janitor_phase(c, op);
        if (rc == 0 && op->own.janitor.phase != J_DONE)
            rc = zq_op_pay(c, op, ZQ_COST_STEP);
    }
    return rc == ZQ_WAIT ? rc : 0;
}

static void janitor_finish(struct zq_op *op)
{
    op->core->janitor_running = false;
}

/* Something is ripe, or waits only for I/O: what waits for a round would keep only us busy.
 */
static bool has_work(struct zq_core *c)
{
    enum punch punch;
    bool record_io;
    uint32_t zone;

    if (next_ripe(c, &record_io) || record_io)
        return true;
    punch = first_punch(c, &zone);
    return punch != P_NONE && punch != P_ROUND;
}

/* It counts in nr_ops like any operation, so drains and close can wait for it. */
static void start_janitor(struct zq_core *c, uint8_t phase)
{
    struct zq_op *op = &c->janitor;

    zq_assert(zq_core_is_held(c) && !c->janitor_running);
    c->janitor_running = true;
    c->nr_ops++;
    zq_op_reset(c, op, step_janitor, zq_release_mapping);
    op->g.patient = false; /* it makes what others wait for */
    op->own.janitor.phase = phase;
    op->finish = janitor_finish;
    zq_op_ready(op);
}

bool zq_janitor_kick(struct zq_core *c)
{
    if (c->janitor_running || !has_work(c))
        return false;
    start_janitor(c, J_NEXT);
    return true;
}

/* ---- room for those who would get ENOSPC ---- */

/*
 * Once for the same waiters: what could not be unmapped then would keep them waiting forever. The
 * janitor looks for zones that have something ahead, in portions.
 */
static bool sweep(struct zq_core *c)
{
    if (c->swept || !c->zoned || c->sealed || c->exclusive)
        return false;
    c->swept = true;
    start_janitor(c, J_AHEAD);
    return true;
}

/*
 * Nothing can be gained: the one that came last gets its error. What it had taken, and the zone
 * that it leaves, may be enough for the others.
 */
static void fail_last(struct zq_core *c)
{
    struct zq_list *n = c->alloc.room_waiters.prev;

    zq_list_del(n);
    zq_container(n, struct zq_waiter, link)->rc = c->alloc.shortage;
    zq_list_push(&c->ready, n);
    c->swept = false;
}

/*
 * Each turn of this but the one sweep ends with a waiter fewer, or with clusters free that were
 * not. Not with a data file: what is given up there serves nobody else, and the janitor may wait
 * for a waiter's range.
 */
bool zq_make_room(struct zq_core *c)
{
    struct zq_alloc *a = &c->alloc;

    zq_assert_k(R4, zq_core_is_held(c) && !zq_list_empty(&a->room_waiters));
    if (c->dead || c->map.form.external) {
        zq_wake_with(&c->ready, &a->room_waiters, c->dead ? ZQCOW2_EDEAD : a->shortage);
        return true;
    }
    if (c->janitor_running) /* it ends by itself, as a round does */
        return false;
    if (a->gained) {
        a->gained = c->swept = false;
        zq_wake(&c->ready, &a->room_waiters);
        return true;
    }
    if (zq_janitor_kick(c))
        return true;
    if (zq_round_is_running(c))
        return false;
    if (zq_alloc_has_quarantined(a)) {
        c->round.wanted = true;
        return false;
    }
    if (!sweep(c))
        fail_last(c);
    return true;
}
