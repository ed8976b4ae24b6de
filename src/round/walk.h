/* SPDX-License-Identifier: MIT */
/* How a round goes over the zones: see round.c, which calls this. */
#ifndef ZQ_ROUND_WALK_H
#define ZQ_ROUND_WALK_H

#include "loop/core.h"

/* Of a stage: first a pass, then writes and their barrier, then a pass; the last one is the end. */
enum { ZQ_PH_ENTER, ZQ_PH_WRITE, ZQ_PH_LEAVE, ZQ_PH_END };

/* From the first sector on. */
void zq_round_enter(struct zq_round *r, uint8_t phase);
/* The operations that are ready come in between, and then the round's. False. */
bool zq_round_pause(struct zq_core *c);
/* The pass of this phase, or what is left of it. True: it is over. */
bool zq_round_walk(struct zq_core *c);

#endif
