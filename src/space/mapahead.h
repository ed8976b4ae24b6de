/* SPDX-License-Identifier: MIT */
/*
 * Maps what a write to a sequential zone needs, and more ahead of it.
 */
#ifndef ZQ_SPACE_MAPAHEAD_H
#define ZQ_SPACE_MAPAHEAD_H

#include "loop/core.h"

/*
 * Until [at, at + len) is mapped to clusters that may be written in place, all of them remembered
 * in the zone's runs: 0, ZQ_WAIT, or an error. The caller has the zone's turn, which keeps anybody
 * else from unmapping what an earlier step has mapped.
 */
int zq_map_ahead(struct zq_core *c, struct zq_op *op, uint64_t at, uint64_t len);

/* The same for a write of whole clusters that are to be compressed; their data has moved then. */
int zq_compress_ahead(struct zq_core *c, struct zq_op *op, uint64_t at, uint64_t len);

#endif
