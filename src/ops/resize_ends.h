/* SPDX-License-Identifier: MIT */
/*
 * What a resize does at the end of the device besides the size: tables that map nothing any more,
 * and the data file. All while nothing else is in progress.
 */
#ifndef ZQ_OPS_RESIZE_ENDS_H
#define ZQ_OPS_RESIZE_ENDS_H

#include "loop/core.h"

/* Gives back L2 tables of what lies beyond the device. -ENOMEM. */
int zq_resize_drop_tables(struct zq_core *c);
/*
 * Without the mutex: the data file covers `size` bytes, durably, and what is behind the end of the
 * device reads as zeros.
 */
int zq_resize_grow_data(struct zq_core *c, uint64_t size);
/* Without the mutex: the data file ends with the device. */
int zq_resize_cut_data(struct zq_core *c);
/*
 * A step: maps clusters of a raw data file from *at up to `end` that nothing maps. A round has to
 * come before the device has them.
 */
int zq_resize_map_raw(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end);

#endif
