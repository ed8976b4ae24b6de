/* SPDX-License-Identifier: MIT */
/*
 * Persistent dirty bitmaps: which parts of a device have changed since a bitmap was added or
 * cleared. They are stored in the image as the qcow2 specification says, and other programs can
 * read them. See zqcow2_bitmap_list(3).
 *
 * While an image is open for writing, each enabled bitmap is kept right: what changes is marked
 * before it is written. The file gets the marks when the image is closed. If that does not happen,
 * because of a power failure, the bitmap is *inconsistent* from then on: it says nothing about the
 * device, and can only be removed. A caller that finds its bitmap so takes a full backup.
 *
 * All calls may be made from any thread on an open image. Those that change bitmaps wait until
 * the requests in progress are done; requests that are submitted meanwhile begin when the call
 * returns. What such a call did is durable when it returns; after power loss during the call it
 * has happened or not. A call that fails with EDEAD or EIO may have taken effect: reopen the image.
 */
#ifndef ZQCOW2_BITMAP_H
#define ZQCOW2_BITMAP_H

#include <zqcow2/zqcow2.h>

#ifdef __cplusplus
extern "C" {
#endif

enum zqcow2_bitmap_flag {
    ZQCOW2_BITMAP_ENABLED = 1 << 0,     /* changes are marked in it */
    ZQCOW2_BITMAP_INCONSISTENT = 1 << 1 /* it was not stored: see above */
};

struct zqcow2_bitmap {
    size_t size;
    const char *name;     /* valid during the callback */
    uint64_t granularity; /* bytes of the device for each bit; a power of two */
    uint64_t dirty_bytes; /* of the device; 0 if it is inconsistent */
    uint32_t flags;       /* zqcow2_bitmap_flag */
    uint32_t reserved;
};

typedef void zqcow2_bitmap_fn(void *arg, const struct zqcow2_bitmap *bitmap);

/*
 * Calls each() for each bitmap, in the order in which they are stored, in the calling thread and
 * with no lock held. ECORRUPT: what the image says of its bitmaps is wrong.
 */
ZQCOW2_API int zqcow2_bitmap_list(struct zqcow2_image *img, zqcow2_bitmap_fn *each, void *arg,
                                  struct zqcow2_error *err);

enum zqcow2_bitmap_add_flag {
    ZQCOW2_BITMAP_ADD_DISABLED = 1 << 0 /* nothing is marked in it until it is enabled */
};

/*
 * Adds a bitmap without marks. name: 1 to 1023 bytes. granularity: a power of two from 512 to
 * 2^31; 0: 64 KiB. EFEATURE: the image has version 2, or its header has no room. EEXIST: another
 * bitmap has the name. EFBIG: there are too many, or the granularity is too fine for the device.
 */
ZQCOW2_API int zqcow2_bitmap_add(struct zqcow2_image *img, const char *name, uint64_t granularity,
                                 uint32_t flags, struct zqcow2_error *err);
/* Also one that is inconsistent. ENOENT, here and below: there is none of that name. */
ZQCOW2_API int zqcow2_bitmap_remove(struct zqcow2_image *img, const char *name,
                                    struct zqcow2_error *err);
/* Takes all marks away. ECORRUPT, here and below: it is inconsistent. */
ZQCOW2_API int zqcow2_bitmap_clear(struct zqcow2_image *img, const char *name,
                                   struct zqcow2_error *err);
/* From now on changes are marked. What changed while it was disabled is not. */
ZQCOW2_API int zqcow2_bitmap_enable(struct zqcow2_image *img, const char *name,
                                    struct zqcow2_error *err);
/* From now on changes are not marked; it keeps its marks. */
ZQCOW2_API int zqcow2_bitmap_disable(struct zqcow2_image *img, const char *name,
                                     struct zqcow2_error *err);

/* Bytes of the device, which are marked. */
struct zqcow2_dirty_range {
    uint64_t offset, length;
};

/*
 * Fills in up to *nr ranges that are marked, in order, from the byte `offset` of the device on, and
 * sets *nr to how many it filled in. If that is fewer than there was room for, there are no more;
 * else call again from the end of the last range. Ranges end at the end of the device. What is
 * marked during the call may be missing.
 */
ZQCOW2_API int zqcow2_bitmap_ranges(struct zqcow2_image *img, const char *name, uint64_t offset,
                                    struct zqcow2_dirty_range *ranges, uint32_t *nr,
                                    struct zqcow2_error *err);

#ifdef __cplusplus
}
#endif
#endif
