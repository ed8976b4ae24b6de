/* SPDX-License-Identifier: MIT */
/*
 * Copy-up: brings into memory what the sources have of a guest range that the image does not map,
 * for a new cluster that is written in part (S5).
 */
#ifndef ZQ_SPACE_COPYUP_H
#define ZQ_SPACE_COPYUP_H

#include "loop/core.h"

/* All the memory that it may need, so that it cannot fail for lack of it (I13): -ENOMEM. The caller
 * frees buf and packed. */
int zq_copyup_alloc(struct zq_core *c, struct zq_kept *u);
/* Brings [from, to), less than a cluster, into u->buf: 0, ZQ_WAIT (then again), or an error. */
int zq_copyup_step(struct zq_core *c, struct zq_op *op, uint64_t from, uint64_t to);
/* It has failed: op->g holds nothing for it any more. */
void zq_copyup_drop(struct zq_op *op);

#endif
