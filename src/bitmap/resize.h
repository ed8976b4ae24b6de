/* SPDX-License-Identifier: MIT */
/*
 * The bitmaps of a device that gets another size, or another content. All that hold get tables of
 * the new size, in a new directory (switch.h), which the header names in the sector that says what
 * the device is. Nothing is marked in memory for that, so no bitmap has to be in use.
 *
 * A device that grows: each bit of which some byte is new is set. One that shrinks: bits behind the
 * end are gone. Another content: all bits of those that are enabled are set.
 */
#ifndef ZQ_BITMAP_RESIZE_H
#define ZQ_BITMAP_RESIZE_H

#include "bitmap/switch.h"

/* One bitmap, as it will be. */
struct zq_bitmap_resized {
    bool holds;      /* else it stays as it is */
    uint64_t *table; /* owned, `room` entries: as in the file */
    uint64_t room, entries;
    /* The node that the old or the new end lies in, if it needs a cluster. */
    bool edge;
    uint64_t node, host;   /* host: of its old cluster; 0: it had none */
    uint64_t first, end;   /* bits of it that are set; behind them none is */
    struct zq_dirty dirty; /* open where the old one is */
};

struct zq_bitmap_resize {
    struct zq_bitmap_switch s;   /* its first part is the caller's */
    uint64_t device;             /* the caller's: bytes that it will have */
    bool all;                    /* the caller's: its content will be another one */
    struct zq_bitmap_resized *v; /* owned, one for each bitmap */
};

/*
 * Takes all memory, and finds out what is needed: nothing changes. EFEATURE, EFBIG: a bitmap, which
 * the text names, cannot be kept; ECORRUPT; ENOMEM. Whatever it returns, x is to be freed.
 */
int zq_bitmap_resize_prepare(struct zq_bitmap_resize *x);
/* Writes the new tables; zq_bitmap_switch_write() goes on. */
int zq_bitmap_resize_write(struct zq_bitmap_resize *x);
/* The switch is durable: memory follows. Cannot fail. */
void zq_bitmap_resize_adopt(struct zq_bitmap_resize *x);
void zq_bitmap_resize_free(struct zq_bitmap_resize *x);

#endif
