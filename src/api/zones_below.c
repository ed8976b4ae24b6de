/* SPDX-License-Identifier: MIT */
/* Compares an image with zones with the one below it, as far as pointers and mappings say. */
#include "api/zones_below.h"

bool zq_same_zones(const struct zqcow2_info *a, const struct zqcow2_info *b)
{
    if (!(a->flags & b->flags & ZQCOW2_INFO_ZONED))
        return !((a->flags ^ b->flags) & ZQCOW2_INFO_ZONED);
    return a->zone_size == b->zone_size && a->zone_capacity == b->zone_capacity &&
           a->nr_conventional == b->nr_conventional && a->virtual_size == b->virtual_size;
}

/* One look-up for each run of like bytes: nothing is read. */
int zq_find_inherited(struct zqcow2_image *img, const struct zq_zone_view *z, uint64_t *end)
{
    struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;
    int rc = 0;

    *end = z->start;
    for (uint64_t at = z->start; rc == 0 && at < z->wp; at += e.length) {
        rc = zqcow2_block_status(img, at, z->wp - at, &e);
        if (rc == 0 && !zq_is_own(&e))
            *end = at + e.length;
    }
    return rc;
}
