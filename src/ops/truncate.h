/* SPDX-License-Identifier: MIT */
/*
 * Cuts the end of the file, where nothing is in use. It follows what gives clusters back: the end
 * of an image's use, and calls that free many. What fails in it only costs space.
 */
#ifndef ZQ_OPS_TRUNCATE_H
#define ZQ_OPS_TRUNCATE_H

#include "loop/core.h"

/*
 * A step of an operation that has the image for itself. Before it memory has nothing that is newer
 * than the file, and behind it, too; the new length becomes durable with the next barrier. ZQ_WAIT,
 * 0, or the error of a round, which leaves refcount blocks to be written by the next one.
 */
int zq_truncate_step(struct zq_core *c, struct zq_op *op, struct zq_truncation *t);
/* As an operation of its own. Blocks. Nothing has become free since the last one: does nothing. */
void zq_truncate_run(struct zq_core *c);

#endif
