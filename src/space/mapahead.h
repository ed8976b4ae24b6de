/* SPDX-License-Identifier: MIT */
/*
 * Maps what a write to a sequential zone needs, and more ahead of it.
 */
#ifndef ZQ_SPACE_MAPAHEAD_H
#define ZQ_SPACE_MAPAHEAD_H

#include "loop/core.h"

int zq_zone_map(struct zq_core *c, struct zq_op *op, uint64_t at, uint64_t len);

#endif
