/* SPDX-License-Identifier: MIT */
/*
 * The bitmaps of an image that is opened for writing. A reader has no use for them: the calls that
 * show them load them then, and what is wrong with them does not keep anybody from reading the
 * disk.
 */
#include "image/opening.h"

static bool is_table(const void *arg, uint64_t host, uint64_t len)
{
    return zq_alloc_is_fixed(arg, host, len) || zq_alloc_is_named(arg, host, len);
}

/* Those that are enabled are kept from now on, or the image is not opened for writing (B1). */
int zq_opening_bitmaps(struct opening *o, struct zq_core *c)
{
    struct zq_bitmaps *b = &c->bitmaps;
    int rc;

    b->is_table = is_table;
    rc = zq_bitmaps_load(b, c->hdr.bitmaps_offset, true, o->err);
    c->alloc.fixed[ZQ_FIXED_BITMAPS] =
        (struct zq_host_range){b->dir_offset, zq_align_up(b->dir_bytes, zq_bitmaps_cluster(b))};
    zq_core_guard(c);
    return rc;
}
