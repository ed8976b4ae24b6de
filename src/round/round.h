/* SPDX-License-Identifier: MIT */
/*
 * Rounds: metadata goes to the disk as it was at one capture, in one hold of the mutex.
 *
 * A round is nobody's operation: whatever waits for one parks on the core's list, and a round that
 * is wanted begins when the loop is idle. So one round serves all that came before its capture,
 * and whatever comes later waits for the next: there is no way to join a round that runs.
 */
#ifndef ZQ_ROUND_ROUND_H
#define ZQ_ROUND_ROUND_H

#include "loop/core.h"

/* Asks for a round whose capture is yet to come, and parks until it is done; its error. */
int zq_round_wait(struct zq_core *c, struct zq_op *op);
/* Is one wanted, by a waiter or by the cache or the growing table, and may it begin now? */
bool zq_round_needed(const struct zq_core *c);
/* Captures in this hold of the mutex, and starts the first writes. None runs. */
void zq_round_start(struct zq_core *c);
static inline bool zq_round_is_running(const struct zq_core *c)
{
    return c->round.stage != ZQ_ST_IDLE;
}

#endif
