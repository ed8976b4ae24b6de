/* SPDX-License-Identifier: MIT */
/*
 * Another directory of bitmaps, as one piece of work on the file: nothing else uses the image
 * meanwhile, and what the file lacks has been taken by the engine.
 *
 *   the new table, if there is one, and the new directory are written; barrier; one sector of the
 *   header names the directory; barrier; what nobody names any more is given back (B3)
 *
 * So a crash finds the old bitmaps or the new ones. zq_bitmap_edit_prepare() refuses, and changes
 * nothing.
 */
#ifndef ZQ_BITMAP_EDIT_H
#define ZQ_BITMAP_EDIT_H

#include "bitmap/bitmap.h"
#include "format/renaming.h"

enum zq_bitmap_change {
    ZQ_BITMAP_ADD,
    ZQ_BITMAP_REMOVE,
    ZQ_BITMAP_CLEAR,
    ZQ_BITMAP_ENABLE,
    ZQ_BITMAP_DISABLE
};

/* Clusters in a row. */
struct zq_bitmap_range {
    uint64_t offset, bytes;
};

struct zq_bitmap_edit {
    /* the caller's */
    enum zq_bitmap_change kind;
    const char *name;
    uint32_t granularity_bits; /* of a new one */
    bool disabled;             /* a new one */
    struct zqcow2_error *err;
    struct zq_bitmaps *b;
    const struct zq_header *h;
    const uint8_t *sector0; /* of the header, as on disk */
    /* what prepare has found; owned, freed by zq_bitmap_edit_free() */
    uint32_t index; /* of the bitmap; where a new one goes */
    struct zq_bitmap_record r;
    uint32_t nr; /* afterwards */
    bool new_table;
    uint8_t *dir; /* the new one, whole sectors */
    uint64_t dir_room, dir_bytes;
    uint8_t *buf;                /* a cluster */
    struct zq_bitmap *v;         /* room for one more, of a new one */
    struct zq_dirty dirty;       /* of one that becomes enabled */
    struct zq_bitmap_range *old; /* what is not needed afterwards */
    uint64_t nr_old, old_room;
    uint64_t clusters; /* that are needed, in a row */
    /* the engine's answer */
    uint64_t host;
    /* what the change has made */
    struct zq_renaming header;
    struct zq_header new_h; /* of it */
    bool begun;             /* the header in the file may be the new one */
};

int zq_bitmap_edit_prepare(struct zq_bitmap_edit *e);
int zq_bitmap_edit_change(struct zq_bitmap_edit *e);
/* The new directory is the image's: memory follows. Cannot fail. */
void zq_bitmap_edit_adopt(struct zq_bitmap_edit *e);
void zq_bitmap_edit_free(struct zq_bitmap_edit *e);

#endif
