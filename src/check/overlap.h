/* SPDX-License-Identifier: MIT */
/* Where an image's fixed tables lie, and whether any two of them share a byte. */
#ifndef ZQ_CHECK_OVERLAP_H
#define ZQ_CHECK_OVERLAP_H

#include "format/zone_ext.h"

struct zq_area {
    const char *name;       /* constant, for messages */
    uint64_t offset, bytes; /* of the file; whole clusters, unless it is the caller's */
};

/*
 * ECORRUPT naming both when two of {header, L1, refcount table, write-pointer table, table of zone
 * states, snapshot table} overlap. All were checked by zq_header_parse() and zq_zone_ext_parse().
 * g: NULL or layout NONE for a plain image.
 */
int zq_overlap_check(const struct zq_header *h, const struct zq_geometry *g,
                     struct zqcow2_error *err);
/*
 * The same for one more area, such as a refcount block: ECORRUPT when it overlaps one of them.
 */
int zq_overlap_check_area(const struct zq_header *h, const struct zq_geometry *g,
                          const struct zq_area *area, struct zqcow2_error *err);

#endif
