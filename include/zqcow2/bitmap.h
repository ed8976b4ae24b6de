/* SPDX-License-Identifier: MIT */
/*
 * Persistent dirty bitmaps. A bitmap records which parts of a device have changed since the bitmap
 * was added or cleared. Bitmaps are stored in the image in the format of the qcow2 specification,
 * so other programs can read them. See zqcow2_bitmap_list(3).
 *
 * While an image is open for writing, every change to the device is marked in each enabled bitmap
 * before the change is written. zqcow2_resize() marks the new part of a device that grows, also in
 * disabled bitmaps; zqcow2_snapshot_apply() marks the whole device. Closing the image stores the
 * marks in the file. If the image is not closed, for example because of a power failure, every
 * bitmap that was enabled when the device changed becomes *inconsistent*: it says nothing about the
 * device, and can only be removed. A backup program that finds its bitmap inconsistent must make a
 * full backup.
 *
 * Any thread may make these calls on an open image. A call that changes bitmaps waits until the
 * requests in progress are done; requests submitted during the call begin when it returns. Its
 * effect is durable on return. After a power loss during the call, the effect is complete or
 * absent. A call that fails with EDEAD or an error of the backend may have taken effect: reopen the
 * image.
 */
#ifndef ZQCOW2_BITMAP_H
#define ZQCOW2_BITMAP_H

#include <zqcow2/zqcow2.h>

#ifdef __cplusplus
extern "C" {
#endif

enum zqcow2_bitmap_flag {
    ZQCOW2_BITMAP_ENABLED = 1 << 0,     /* changes of the device are marked */
    ZQCOW2_BITMAP_INCONSISTENT = 1 << 1 /* its marks were not stored: see above */
};

struct zqcow2_bitmap {
    size_t size;
    const char *name;     /* valid during the callback */
    uint64_t granularity; /* bytes of the device per bit; a power of two */
    uint64_t dirty_bytes; /* marked bytes of the device; 0 if inconsistent */
    uint32_t flags;       /* zqcow2_bitmap_flag */
    uint32_t reserved;
};

typedef void zqcow2_bitmap_fn(void *arg, const struct zqcow2_bitmap *bitmap);

/*
 * Calls each() for each bitmap, in the order in which they are stored, in the calling thread and
 * with no library lock held. ECORRUPT: the metadata of the bitmaps is wrong.
 */
ZQCOW2_API int zqcow2_bitmap_list(struct zqcow2_image *img, zqcow2_bitmap_fn *each, void *arg,
                                  struct zqcow2_error *err);

enum zqcow2_bitmap_add_flag {
    ZQCOW2_BITMAP_ADD_DISABLED = 1 << 0 /* nothing is marked until it is enabled, except
                                           space that zqcow2_resize() adds */
};

/*
 * Adds a bitmap without marks. name: 1 to 1023 bytes. granularity: a power of two from 512 to
 * 2^31; 0: 64 KiB. EFEATURE: the image has version 2, its header has no room, or the size of the
 * device is 0. -EEXIST: another bitmap has this name. -EFBIG: there are too many bitmaps, the
 * granularity is too fine for the device, or the tables of all enabled bitmaps would exceed 64 MiB.
 */
ZQCOW2_API int zqcow2_bitmap_add(struct zqcow2_image *img, const char *name, uint64_t granularity,
                                 uint32_t flags, struct zqcow2_error *err);
/* Removes a bitmap, even an inconsistent one. -ENOENT, here and below: no bitmap has this name. */
ZQCOW2_API int zqcow2_bitmap_remove(struct zqcow2_image *img, const char *name,
                                    struct zqcow2_error *err);
/* Removes all marks. ECORRUPT, here and below: the bitmap is inconsistent. */
ZQCOW2_API int zqcow2_bitmap_clear(struct zqcow2_image *img, const char *name,
                                   struct zqcow2_error *err);
/*
 * Makes the bitmap record changes from now on. Changes made while it was disabled stay unmarked,
 * except space that zqcow2_resize() has added.
 * -EFBIG: as in zqcow2_bitmap_add().
 */
ZQCOW2_API int zqcow2_bitmap_enable(struct zqcow2_image *img, const char *name,
                                    struct zqcow2_error *err);
/* Stops recording changes in the bitmap. The bitmap keeps its marks. */
ZQCOW2_API int zqcow2_bitmap_disable(struct zqcow2_image *img, const char *name,
                                     struct zqcow2_error *err);

/* A marked range of the device, in bytes. */
struct zqcow2_dirty_range {
    uint64_t offset, length;
};

/*
 * Reports marked ranges at or after the byte `offset` of the device, in ascending order. On entry
 * *nr is the number of elements in ranges[]; on return it is the number written (0 after an error).
 * If fewer ranges are written than there are elements, no marked range follows. Otherwise call
 * again with the end of the last range as `offset`. No range extends beyond the device. Changes
 * made during the call may be missing.
 */
ZQCOW2_API int zqcow2_bitmap_ranges(struct zqcow2_image *img, const char *name, uint64_t offset,
                                    struct zqcow2_dirty_range *ranges, uint32_t *nr,
                                    struct zqcow2_error *err);

#ifdef __cplusplus
}
#endif
#endif
