/* SPDX-License-Identifier: MIT */
/*
 * Gives clusters and space back.
 *
 * The janitor is one operation of the core's own. It runs in whatever thread is inside a call, and
 * only while there is something that no round has to come first for; whatever fails in it costs
 * space and is never an error of a request.
 */
#ifndef ZQ_SPACE_RECLAIM_H
#define ZQ_SPACE_RECLAIM_H

#include "loop/core.h"

/* Lets the janitor run if there is work for it. True: it has begun. */
bool zq_janitor_kick(struct zq_core *c);
/*
 * Operations wait for clusters that others have given up, and nothing else can be done: takes the
 * next step to get some, or has an answer for a waiter (R4). True: there is something to do now.
 */
bool zq_make_room(struct zq_core *c);
/* Unmaps what lies beyond write pointers, zone by zone; *a, all 0 at first, is the place. ZQ_WAIT,
 * 0. */
int zq_unmap_ahead(struct zq_core *c, struct zq_op *op, struct zq_ahead *a);

#endif
