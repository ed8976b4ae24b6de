/* SPDX-License-Identifier: MIT */
/* The zone state machine: a pure function (rules, state, action) -> new state, needs, or a reason.
 */
#ifndef ZQ_ZONE_FSM_H
#define ZQ_ZONE_FSM_H

#include <stdbool.h>
#include <zqcow2/zqcow2.h>

enum zq_action {
    ZQ_ACT_WRITE, /* and append, write zeroes */
    ZQ_ACT_OPEN,
    ZQ_ACT_CLOSE,
    ZQ_ACT_FINISH,
    ZQ_ACT_RESET,
    ZQ_ACTIONS
};

struct zq_verdict {
    int rc;        /* 0, or why not */
    uint8_t state; /* afterwards; of a write: while it is in flight */
    bool needs_active, needs_open;
    bool changes; /* false: success, nothing to do */
};

/* at_start: no byte of the zone is written or reserved. state: as reported, RDONLY too. */
struct zq_verdict zq_fsm(enum zqcow2_rules rules, uint8_t state, enum zq_action action,
                         bool at_start);
static inline bool zq_state_is_open(uint8_t s)
{
    return s == ZQCOW2_ZONE_IMP_OPEN || s == ZQCOW2_ZONE_EXP_OPEN;
}
static inline bool zq_state_is_active(uint8_t s)
{
    return zq_state_is_open(s) || s == ZQCOW2_ZONE_CLOSED;
}

#endif
