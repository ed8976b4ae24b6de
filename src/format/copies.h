/* SPDX-License-Identifier: MIT */
/*
 * Copies of the write-pointer table, one for each snapshot of a zoned image (N1). The record of the
 * snapshot names its copy. That holds only while a private autoclear bit is set beside a private
 * header extension: a program that does not know them clears the bit when it writes, and from then
 * on no record names a copy (P1). No I/O, no allocation. The bytes: docs/SPEC.md.
 */
#ifndef ZQ_FORMAT_COPIES_H
#define ZQ_FORMAT_COPIES_H

#include "format/snapshot.h"
#include "format/zone_ext.h"

#define ZQ_COPIES_EXT 40u /* bytes of the extension's data, as of that of zone states */

/* The extension's data, at byte `at` of the file: sets h->copies if it holds, else copies_stale. */
int zq_copies_take(struct zq_header *h, const uint8_t *data, uint32_t len, uint64_t at,
                   struct zqcow2_error *err);
/*
 * Sets the bit in the header's first sector, and puts the extension there, as zq_states_put() does.
 * False: there is no room.
 */
bool zq_copies_put(uint8_t sector0[ZQ_SECTOR], const struct zq_header *h);
/*
 * What the record of a snapshot names: where the copy begins, whole clusters for the zones that the
 * disk had, and these zones, whose entries are not judged yet. False: no copy, or no place for one.
 */
bool zq_copy_of(const struct zq_header *h, const struct zq_geometry *g, uint64_t file_size,
                const struct zq_snapshot_facts *f, struct zq_geometry *zones);

#endif
