/* SPDX-License-Identifier: MIT */
/*
 * Writes, appends and writes of zeroes to sequential zones. They are checked and reserved in turn
 * (E1), move their data side by side, and are answered in the order of their reservations (K7).
 */
#ifndef ZQ_OPS_ZONE_WRITE_H
#define ZQ_OPS_ZONE_WRITE_H

#include "loop/core.h"

zq_step zq_step_zone_write;
/* The data of a reserved write of fast.c is there, or failed: commits as the slow path does. */
void zq_write_done(struct zq_core *c, struct zq_op *op, int rc);
/*
 * A write to a zone ended with rc. True: it has committed alone, and may be answered at once. Else
 * it continues in order: operations that are ready may have committed earlier, and are answered
 * earlier (K7).
 */
static inline bool zq_write_commits_now(struct zq_core *c, struct zq_op *op, int rc)
{
    return rc == 0 && zq_list_empty(&c->ready) && zq_zone_commit_first(&c->zones, op->zone, &op->r);
}

#endif
