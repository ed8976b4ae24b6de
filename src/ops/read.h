/* SPDX-License-Identifier: MIT */
/*
 * Reads. They take no turn: what lies below a write pointer does not change while the zone lives,
 * and what a reset sets free waits for readers that have looked it up (R5).
 */
#ifndef ZQ_OPS_READ_H
#define ZQ_OPS_READ_H

#include "loop/core.h"

zq_step zq_step_read;
/* How many of the next len bytes are committed data; 0: as many as *zeros lie beyond a pointer. */
uint64_t zq_readable(const struct zq_core *c, uint64_t at, uint64_t len, uint64_t *zeros);

#endif
