/* SPDX-License-Identifier: MIT */
/* What an image with zones has to do with the one that it stands on, or is to stand on. */
#ifndef ZQ_API_ZONES_BELOW_H
#define ZQ_API_ZONES_BELOW_H

#include "image/image.h"

/* Are the bytes the image's own? Of a layer, whatever its backing file is. */
static inline bool zq_is_own(const struct zqcow2_extent *e)
{
    return !e->depth && e->kind != ZQCOW2_BLOCK_UNALLOCATED;
}
/* Have both the same zones, or neither any? */
bool zq_same_zones(const struct zqcow2_info *a, const struct zqcow2_info *b);
/* Up to where below its write pointer the image inherits in a zone; its start: nowhere. */
int zq_find_inherited(struct zqcow2_image *img, const struct zq_zone_view *z, uint64_t *end);

#endif
