/* SPDX-License-Identifier: MIT */
/*
 * Open, close, finish and reset of zones.
 *
 * Each zone is judged when the operation has its turn and the zone has drained, and not before: the
 * writes in front of it may fill the zone or fail. A zone that is done is left before the next one
 * is entered, so an operation never stands in two queues at once (E1).
 */
#include <errno.h>
#include "ops/zone_manage.h"
#include "base/report.h"
#include "ops/flush.h"
#include "round/round.h"
#include "space/admit.h"
#include "space/fill.h"
#include "space/transfer.h"
#include "space/unmap.h"

/*
 * What is checked first; a zone at a time; the zeros that a finish writes behind the pointer (R3);
 * FUA for all of them.
 */
enum { M_BEGIN, M_ZONE, M_TAIL, M_FUA };

/* Actions and requests are enumerated in the same order. */
static enum zq_action action_of(const struct zq_op *op)
{
    return (enum zq_action)(ZQ_ACT_OPEN + (op->req.op - ZQCOW2_OP_ZONE_OPEN));
}

/* Whole zones; the last of the device may be short. */
static int check_zones(const struct zq_core *c, const struct zq_op *op)
{
    uint64_t mask = c->zones.g.zone_size - 1, end = op->req.offset + op->length;

    return (op->req.offset & mask) || ((end & mask) && end != c->size) ? -EINVAL : 0;
}

/* A device of one zone has no "all" form: there it is that zone. */
static bool is_all(const struct zq_core *c, const struct zq_op *op)
{
    return op->length == c->size && c->zones.g.nr_zones > 1;
}

/* The "all" forms act on some states only and pass over the others. */
static bool passes_over(const struct zq_core *c, const struct zq_op *op, uint32_t zone)
{
    const struct zq_zone *z = &c->zones.v[zone];
    uint8_t s = zq_zone_state(z);

    if (!is_all(c, op))
        return false;
    if (s == ZQCOW2_ZONE_NOT_WP || z->forced)
        return true;
    switch (action_of(op)) {
    case ZQ_ACT_OPEN: return s != ZQCOW2_ZONE_CLOSED || !z->opening;
    case ZQ_ACT_CLOSE: return !zq_state_is_open(s);
    case ZQ_ACT_FINISH: return !zq_state_is_active(s);
    default: return false;
    }
}

/*
 * R3, S4: a finish unmasks what lies beyond the write pointer, so that has to read as zeros on disk
 * first: whole units are unmapped, the rest of the pointer's unit is overwritten. What a source has
 * in front of the pointer stays: that cluster is copied. So is a compressed one, which has no
 * units.
 */
static int make_zero(struct zq_core *c, struct zq_op *op, uint32_t zone)
{
    struct zq_zone *z = &c->zones.v[zone];
    uint64_t size = (uint64_t)1 << c->cluster_bits, head = zq_align_down(z->wp, size);
    uint64_t end = zq_align_up(zq_zone_end(&c->zones, zone), size);
    uint64_t from = zq_align_up(z->wp, zq_l2_unit_bytes(&c->map.form));
    struct zq_extent e = {.type = ZQ_EXT_ZERO};
    int rc = head == z->wp ? 0 : zq_map_lookup(&c->map, &op->g, z->wp, 1, &e);
    bool zeros = from == z->wp || zq_map_reads_zeros(&c->map, head, e.type);

    /* Nothing is mapped here meanwhile: what is done stays done when this is entered again. */
    zq_assert_k(K6, zq_list_empty(&z->live->reserved) && z->wp == z->next);
    if (rc)
        return rc;
    if (e.type == ZQ_EXT_COMPRESSED || (!zeros && !zq_extent_in_place(&e))) {
        rc = zq_may_allocate(c, op);
        return rc ? rc : zq_fill_own(c, op, head, z->wp - head, &e);
    }
    op->own.manage.unmapped = zq_max(op->own.manage.unmapped, from);
    rc = zq_unmap(c, op, &op->own.manage.unmapped, end, ZQ_LEAVE_ZEROS);
    if (rc || zeros || op->own.manage.phase == M_TAIL)
        return rc;
    zq_cache_release(&c->cache, &op->g);
    op->own.manage.phase = M_TAIL;
    return zq_op_data_io(c, op, ZQCOW2_IO_ZERO, NULL, e.host, from - z->wp);
}

/* R2 first: a finish of an emptied zone would move the pointer over data of the old life. */
static int do_finish(struct zq_core *c, struct zq_op *op, uint32_t zone, const struct zq_verdict *v)
{
    uint32_t victim;
    uint64_t wp = c->zones.v[zone].wp;
    int rc = zq_may_change(c, op, wp, zq_zone_end(&c->zones, zone) - wp);

    if (rc == 0)
        rc = zq_await_reset(c, op, zone);
    if (rc == 0)
        rc = make_zero(c, op, zone);
    if (rc == 0)
        rc = zq_room_get(c, op, zone, v, &victim);
    if (rc)
        return rc;
    zq_room_use(c, op, victim);
    zq_zone_do_finish(&c->zones, zone);
    zq_assert_k(K6, zq_zones_valid(&c->zones, zone));
    return 0;
}

/* The zone reads as zeros afterwards, and where its pointer is changes, too. */
static int do_reset(struct zq_core *c, struct zq_op *op, uint32_t zone)
{
    uint64_t start = zq_geometry_start(&c->zones.g, zone);
    int rc = zq_may_change(c, op, start, zq_zone_end(&c->zones, zone) - start);

    if (rc)
        return rc;
    zq_zone_do_reset(&c->zones, zone, c->data->data_seq);
    zq_assert_k(K6, zq_zones_valid(&c->zones, zone));
    return 0;
}

static int act(struct zq_core *c, struct zq_op *op, uint32_t zone, const struct zq_verdict *v)
{
    uint32_t victim;
    int rc;

    zq_assert_k(E1, op->has_turn && op->zone == zone && zq_core_is_held(c));
    switch (action_of(op)) {
    case ZQ_ACT_FINISH: return do_finish(c, op, zone, v);
    case ZQ_ACT_OPEN:
        rc = zq_room_get(c, op, zone, v, &victim);
        if (rc)
            return rc;
        zq_room_use(c, op, victim);
        zq_zone_set_state(&c->zones, zone, v->state);
        return 0;
    case ZQ_ACT_CLOSE: zq_zone_do_close(&c->zones, zone); return 0;
    default: return do_reset(c, op, zone);
    }
}

/* True when *v is all there is to say: an error, or nothing to do. */
static bool judge(const struct zq_core *c, const struct zq_op *op, uint32_t zone,
                  struct zq_verdict *v)
{
    const struct zq_zone *z = &c->zones.v[zone];

    *v = zq_fsm(c->zones.rules, zq_zone_state(z), action_of(op),
                z->next == zq_geometry_start(&c->zones.g, zone));
    /* Other rules do not show what is stored of an empty zone; a reset ends it all the same. */
    v->changes |= v->rc == 0 && action_of(op) == ZQ_ACT_RESET && zq_zone_is_marked(z);
    if (passes_over(c, op, zone)) {
        v->rc = 0;
        return true;
    }
    return v->rc < 0 || !v->changes;
}

/* One zone: its turn, drained, judged as it is then. */
static int manage_zone(struct zq_core *c, struct zq_op *op, uint32_t zone)
{
    struct zq_zone *z = &c->zones.v[zone];
    struct zq_verdict v;
    uint32_t victim;
    int rc;

    /* An untouched zone needs no turn to see that there is nothing to do. */
    if (!z->live && judge(c, op, zone, &v))
        return v.rc;
    rc = zq_turn_take(c, op, zone);
    if (rc == 0)
        rc = zq_await_drained(c, op, zone);
    if (rc)
        return rc;
    if (judge(c, op, zone, &v))
        return v.rc;
    rc = zq_zones_room(&c->zones, zone, &v, &victim);
    return rc < 0 ? rc : act(c, op, zone, &v);
}

/*
 * done counts what is finished for good, so an error reports the zone after it and undoes nothing.
 * Here the operation holds nothing, and other requests may come between two zones (E7).
 */
static int next_zone(struct zq_core *c, struct zq_op *op, uint32_t zone)
{
    int32_t cost = op->has_turn ? ZQ_COST_ZONE : ZQ_COST_LOOK;

    if (op->has_turn)
        zq_turn_leave(c, op);
    zq_cache_release(&c->cache, &op->g);
    op->own.manage.done = zq_geometry_start(&c->zones.g, zone) +
                          zq_geometry_length(&c->zones.g, zone) - op->req.offset;
    op->own.manage.phase = M_ZONE;
    op->round = op->own.manage.unmapped = 0;
    return zq_op_pay(c, op, cost);
}

/* "Open all": the limit is checked for all of them before the first is opened. */
static int count_closed(struct zq_core *c, struct zq_op *op)
{
    uint32_t *i = &op->own.manage.seen, nr = c->zones.g.nr_zones;
    int rc = 0;

    for (; rc == 0 && *i < nr; ++*i) {
        op->own.manage.closed += zq_zone_begin_open(&c->zones, *i);
        rc = zq_op_pay(c, op, ZQ_COST_LOOK);
    }
    if (rc)
        return rc;
    return op->own.manage.closed + c->zones.in_state[ZQCOW2_ZONE_EXP_OPEN] > c->zones.max_open ?
               ZQCOW2_EZONE_OPEN :
               0;
}

static int begin(struct zq_core *c, struct zq_op *op)
{
    int rc = check_zones(c, op);

    if (rc == 0 && is_all(c, op) && action_of(op) == ZQ_ACT_OPEN)
        rc = count_closed(c, op);
    if (rc == 0)
        op->own.manage.phase = M_ZONE;
    return rc;
}

int zq_step_manage(struct zq_core *c, struct zq_op *op)
{
    int rc = op->own.manage.phase == M_BEGIN ? begin(c, op) : 0;

    while (rc == 0 && op->own.manage.phase != M_FUA && op->own.manage.done < op->length) {
        uint32_t zone = zq_zone_of(&c->zones, op->req.offset + op->own.manage.done);

        op->res.offset = zq_geometry_start(&c->zones.g, zone);
        if (zq_fill_is_pending(op))
            rc = zq_fill_replace(c, op);
        else
            rc = op->rc < 0 ? op->rc : c->dead ? ZQCOW2_EDEAD : 0;
        if (rc == 0)
            rc = manage_zone(c, op, zone);
        if (rc == 0)
            rc = next_zone(c, op, zone);
    }
    if (rc)
        return rc;
    op->own.manage.phase = M_FUA;
    return zq_step_fua(c, op);
}
