/* SPDX-License-Identifier: MIT */
/*
 * Flush, drain and FUA. None of them writes anything: they want a round that captures after they
 * came, and wait for it.
 */
#ifndef ZQ_OPS_FLUSH_H
#define ZQ_OPS_FLUSH_H

#include "loop/core.h"

/* FUA, or nothing more: the last step of an operation that changed something. */
int zq_step_fua(struct zq_core *c, struct zq_op *op);
/* As a part of another operation, which no drain waits for until zq_drain_leave(). */
int zq_drain(struct zq_core *c, struct zq_op *op, struct zq_drain *d);
void zq_drain_leave(struct zq_core *c, struct zq_drain *d);
/*
 * For an operation that has the image for itself (N8): 0 once nothing is on its way, and nothing in
 * memory is newer than the file; until then ZQ_WAIT.
 */
int zq_settle(struct zq_core *c, struct zq_op *op);
zq_step zq_step_flush, zq_step_drain;
zq_release zq_release_drain;

#endif
