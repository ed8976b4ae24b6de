/* SPDX-License-Identifier: MIT */
/*
 * Rounds: metadata goes to the disk as it was in one snapshot.
 */
#ifndef ZQ_ROUND_ROUND_H
#define ZQ_ROUND_ROUND_H

#include "loop/core.h"

/* Asks for a round whose snapshot is taken from now on, and parks until it is done; its error. */
int zq_round_wait(struct zq_core *c, struct zq_op *op);
bool zq_round_needed(const struct zq_core *c);
void zq_round_start(struct zq_core *c);
static inline bool zq_round_runs(const struct zq_core *c)
{
    return c->round.stage != ZQ_ST_IDLE;
}

#endif
