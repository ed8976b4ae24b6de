/* SPDX-License-Identifier: MIT */
/*
 * Is a table where the header says? Where two overlap, one of the two fields is wrong, and what the
 * other one names must not be taken for what it is not.
 */
#ifndef ZQ_CHECK_GENUINE_H
#define ZQ_CHECK_GENUINE_H

#include "device/backend.h"
#include "format/entry.h"
#include "format/snapshot.h"

/* The refcount of a cluster that the block at an offset describes; reads one sector of it. */
int zq_block_count(struct zqcow2_backend *be, const struct zq_header *h, uint64_t block,
                   uint64_t cluster, uint64_t *v);
/*
 * *yes: the refcount table counts itself, its first block and the header, each once, as in every
 * image that is sound. Returns -errno of a read that failed.
 */
int zq_rt_is_genuine(struct zqcow2_backend *be, const struct zq_header *h, uint64_t file_size,
                     bool *yes);
/* *yes: a block that the refcount table names is counted once, by itself or by another one. */
int zq_block_is_genuine(struct zqcow2_backend *be, const struct zq_header *h, uint64_t file_size,
                        uint64_t block, bool *yes);
/* *yes: a part of a table reads as entries of L1, and not all of them are 0. */
int zq_l1_is_genuine(struct zqcow2_backend *be, const struct zq_bounds *b, uint64_t at,
                     uint64_t bytes, bool *yes);
/* Whether bytes may be a record of a snapshot, whatever else they could be. */
bool zq_record_is_genuine(const struct zq_bounds *b, const struct zq_snapshot *r);
/* *yes: the first one in the snapshot table is. */
int zq_snapshots_are_genuine(struct zqcow2_backend *be, const struct zq_header *h,
                             uint64_t file_size, bool *yes);

#endif
