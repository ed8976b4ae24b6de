/* SPDX-License-Identifier: MIT */
/*
 * States that the embedding program sets: in memory, or to stay (R15). One that is to stay is
 * stored in a table, which the first one gives the image.
 */
#include <errno.h>
#include "ops/set_state.h"
#include "base/report.h"
#include "ops/state_table.h"
#include "round/round.h"
#include "space/admit.h"
#include "space/unmap.h"

enum { S_SET, S_DURABLE };

static bool persists(const struct zq_op *op)
{
    return op->req.length & ZQCOW2_ZONE_PERSIST;
}

/* A request has no member for the state: it is in length, with PERSIST as a flag beside it. */
static uint64_t state_of(const struct zq_op *op)
{
    return op->req.length & ~(uint64_t)ZQCOW2_ZONE_PERSIST;
}

/*
 * CLOSED is for empty zones under the rules of ZNS: elsewhere no zone can be closed at its start.
 */
static int check(const struct zq_core *c, const struct zq_op *op, uint32_t zone)
{
    switch (state_of(op)) {
    case ZQCOW2_ZONE_RDONLY:
    case ZQCOW2_ZONE_OFFLINE:
    case ZQCOW2_ZONE_NOT_WP: break;
    case ZQCOW2_ZONE_CLOSED:
        if (persists(op) && c->zones.rules == ZQCOW2_RULES_ZNS)
            break;
        return -EINVAL;
    default: return -EINVAL;
    }
    return zone < c->zones.g.conventional ? ZQCOW2_EZONE_STATE : 0;
}

/* Of a zone that holds nothing: it counts as active from now on. */
static int close_empty(struct zq_core *c, uint32_t zone)
{
    const struct zq_verdict needs = {0, ZQCOW2_ZONE_CLOSED, true, false, true};
    struct zq_zone *z = &c->zones.v[zone];
    uint32_t victim;
    int rc = 0;

    if (z->forced || z->next != zq_geometry_start(&c->zones.g, zone))
        return ZQCOW2_EZONE_STATE;
    if (zq_state_is_open(z->state))
        zq_zone_do_close(&c->zones, zone);
    if (z->state == ZQCOW2_ZONE_EMPTY)
        rc = zq_zones_room(&c->zones, zone, &needs, &victim);
    if (rc < 0)
        return rc;
    zq_zone_set_state(&c->zones, zone, ZQCOW2_ZONE_CLOSED);
    zq_zone_store(&c->zones, zone, (z->stored & ZQ_STORED_DESCRIBED) | ZQ_STORED_CLOSED);
    return 0;
}

/* As the write pointer says, now and after the next open. An empty zone has no extension (R16). */
static void normal(struct zq_core *c, uint32_t zone)
{
    struct zq_zone *z = &c->zones.v[zone];
    bool at_start = z->next == zq_geometry_start(&c->zones.g, zone);

    if (z->forced)
        zq_zone_force(&c->zones, zone, z->forced);
    if (z->state == ZQCOW2_ZONE_CLOSED && at_start)
        zq_zone_set_state(&c->zones, zone, ZQCOW2_ZONE_EMPTY);
    zq_zone_store(&c->zones, zone, at_start ? 0 : z->stored & ZQ_STORED_DESCRIBED);
}

/*
 * The states in memory and those to be stored change in one hold of the mutex; a round writes them.
 */
static int store(struct zq_core *c, uint32_t zone, uint8_t state)
{
    struct zq_zone *z = &c->zones.v[zone];

    if (state == ZQCOW2_ZONE_CLOSED)
        return close_empty(c, zone);
    if (state == ZQCOW2_ZONE_NOT_WP) {
        normal(c, zone);
        return 0;
    }
    if (z->forced != state)
        zq_zone_force(&c->zones, zone, state);
    zq_zone_store(&c->zones, zone, (uint8_t)((z->stored & ~ZQ_STORED_FORCED) | state));
    return 0;
}

/* The guest has not asked for it, and cannot know. */
static void note_change(struct zq_core *c, uint32_t zone, uint8_t was)
{
    uint8_t state = zq_zone_state(&c->zones.v[zone]);
    const struct zqcow2_event event = {.kind = ZQCOW2_EVENT_ZONES_CHANGED,
                                       .offset = zq_geometry_start(&c->zones.g, zone),
                                       .state = state};

    zq_assert(zone >= c->zones.g.conventional && state != ZQCOW2_ZONE_NOT_WP);
    if (state != was && zq_changes_add(&c->changes, &c->hooks, zone))
        zq_event_add(&c->events, &event);
}

/*
 * In its turn and drained, like any change of a zone: writes that were submitted before still see
 * the zone as it was. A dead image still takes states that are not to stay.
 */
static int set(struct zq_core *c, struct zq_op *op, uint32_t zone)
{
    uint8_t state = (uint8_t)state_of(op), was;
    int rc = zq_turn_take(c, op, zone); /* even if nothing is forced now: an earlier one may wait */

    if (rc == 0 && !c->dead)
        rc = zq_await_drained(c, op, zone);
    was = zq_zone_state(&c->zones.v[zone]);
    if (rc == 0 && persists(op))
        rc = c->dead ? ZQCOW2_EDEAD : store(c, zone, state);
    else if (rc == 0 && (state != ZQCOW2_ZONE_NOT_WP || c->zones.v[zone].forced))
        zq_zone_force(&c->zones, zone, state);
    if (rc)
        return rc;
    note_change(c, zone, was);
    zq_turn_leave(c, op);
    op->round = 0;
    op->own.state.phase = S_DURABLE;
    return 0;
}

/* Where nothing is stored, there is nothing to remove. */
static bool needs_table(const struct zq_core *c, const struct zq_op *op)
{
    return persists(op) && op->own.state.phase < S_DURABLE &&
           (c->zones.states_at || c->new_states.maker || state_of(op) != ZQCOW2_ZONE_NOT_WP);
}

int zq_step_set_state(struct zq_core *c, struct zq_op *op)
{
    uint32_t zone = zq_zone_of(&c->zones, op->req.offset);
    int rc = check(c, op, zone);

    if (rc == 0 && needs_table(c, op))
        rc = zq_state_table_have(c, op, &op->own.state.making);
    if (rc == 0 && op->own.state.phase < S_DURABLE)
        rc = set(c, op, zone);
    return rc || !persists(op) ? rc : zq_round_wait(c, op);
}

void zq_release_set_state(struct zq_core *c, struct zq_op *op)
{
    zq_state_table_leave(c, op, &op->own.state.making);
    zq_release_mapping(c, op);
}
