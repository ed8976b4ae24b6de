/* SPDX-License-Identifier: MIT */
/*
 * The zone state table. It knows no image, no I/O and no lock. It knows no limits either: a verdict
 * says what the action needs, and the caller finds out whether that is free, so that a refusal for
 * the state always comes before one for resources.
 */
#include "zone/fsm.h"

static struct zq_verdict refuse(uint8_t state, int rc)
{
    return (struct zq_verdict){rc, state, false, false, false};
}

static struct zq_verdict stay(uint8_t state)
{
    return refuse(state, 0);
}

/* The needs of becoming open: an EMPTY zone takes both resources, a CLOSED one is active. */
static struct zq_verdict enter(uint8_t from, uint8_t to)
{
    bool empty = from == ZQCOW2_ZONE_EMPTY, closed = from == ZQCOW2_ZONE_CLOSED;

    return (struct zq_verdict){0, to, empty, empty || closed, from != to};
}

static struct zq_verdict on_write(uint8_t state)
{
    switch (state) {
    case ZQCOW2_ZONE_EMPTY:
    case ZQCOW2_ZONE_CLOSED: return enter(state, ZQCOW2_ZONE_IMP_OPEN);
    case ZQCOW2_ZONE_IMP_OPEN:
    case ZQCOW2_ZONE_EXP_OPEN: return stay(state);
    case ZQCOW2_ZONE_FULL: return refuse(state, ZQCOW2_EZONE_FULL);
    case ZQCOW2_ZONE_RDONLY: return refuse(state, ZQCOW2_EZONE_RDONLY);
    case ZQCOW2_ZONE_OFFLINE: return refuse(state, ZQCOW2_EZONE_OFFLINE);
    default: return refuse(state, ZQCOW2_EZONE_STATE);
    }
}

/* ZNS: a zone stays active until it is written full, finished or reset, written or not. */
static struct zq_verdict on_close(enum zqcow2_rules rules, uint8_t state, bool at_start)
{
    bool zns = rules == ZQCOW2_RULES_ZNS;
    uint8_t to = at_start && !zns ? ZQCOW2_ZONE_EMPTY : ZQCOW2_ZONE_CLOSED;

    if (zns && !zq_state_is_active(state))
        return refuse(state, ZQCOW2_EZONE_STATE);
    if (!zq_state_is_open(state))
        return stay(state);
    return (struct zq_verdict){0, to, false, false, true};
}

/* ZNS: on its way to FULL a zone is never open, so it needs no resource. */
static struct zq_verdict on_finish(enum zqcow2_rules rules, uint8_t state)
{
    struct zq_verdict v = enter(state, ZQCOW2_ZONE_FULL);

    if (rules == ZQCOW2_RULES_ZNS)
        v.needs_active = v.needs_open = false;
    return v;
}

struct zq_verdict zq_fsm(enum zqcow2_rules rules, uint8_t state, enum zq_action action,
                         bool at_start)
{
    if (action == ZQ_ACT_WRITE)
        return on_write(state);
    if (state == ZQCOW2_ZONE_NOT_WP || state == ZQCOW2_ZONE_RDONLY || state == ZQCOW2_ZONE_OFFLINE)
        return refuse(state, ZQCOW2_EZONE_STATE);
    switch (action) {
    case ZQ_ACT_OPEN:
        if (state == ZQCOW2_ZONE_FULL)
            return refuse(state, ZQCOW2_EZONE_STATE);
        return enter(state, ZQCOW2_ZONE_EXP_OPEN);
    case ZQ_ACT_CLOSE: return on_close(rules, state, at_start);
    case ZQ_ACT_FINISH: return on_finish(rules, state);
    default:
        return (struct zq_verdict){0, ZQCOW2_ZONE_EMPTY, false, false, state != ZQCOW2_ZONE_EMPTY};
    }
}
