/* SPDX-License-Identifier: MIT */
/*
 * Unmaps whole clusters.
 */
#ifndef ZQ_SPACE_UNMAP_H
#define ZQ_SPACE_UNMAP_H

#include "loop/core.h"

/* Takes all that zq_unmap() of the same range will need. ZQ_WAIT, 0, error. */
int zq_unmap_prepare(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end,
                     enum zq_unlink leave);
/* Unmaps whole clusters of [*at, end), a slice at a time; *at: how far. ZQ_WAIT, 0, error. */
int zq_unmap(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end, enum zq_unlink leave);
/* All that space/ keeps for an operation: its turn, room, new clusters, records. */
zq_release zq_release_mapping;

#endif
