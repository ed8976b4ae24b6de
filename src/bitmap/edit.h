/* SPDX-License-Identifier: MIT */
/*
 * A bitmap that is added, removed, cleared, enabled or disabled: another directory (switch.h).
 * zq_bitmap_edit_prepare() refuses, and changes nothing.
 */
#ifndef ZQ_BITMAP_EDIT_H
#define ZQ_BITMAP_EDIT_H

#include "bitmap/switch.h"

enum zq_bitmap_change {
    ZQ_BITMAP_ADD,
    ZQ_BITMAP_REMOVE,
    ZQ_BITMAP_CLEAR,
    ZQ_BITMAP_ENABLE,
    ZQ_BITMAP_DISABLE
};

struct zq_bitmap_edit {
    struct zq_bitmap_switch s; /* its first part is the caller's */
    /* the caller's */
    enum zq_bitmap_change kind;
    const char *name;
    uint32_t granularity_bits; /* of a new one */
    bool disabled;             /* a new one */
    /* what prepare has found; owned, freed by zq_bitmap_edit_free() */
    uint32_t index; /* of the bitmap; where a new one goes */
    struct zq_bitmap_record r;
    uint32_t nr; /* afterwards */
    bool new_table;
    struct zq_bitmap *v;   /* room for one more, of a new one */
    struct zq_dirty dirty; /* of one that becomes enabled */
};

int zq_bitmap_edit_prepare(struct zq_bitmap_edit *e);
int zq_bitmap_edit_change(struct zq_bitmap_edit *e);
/* The new directory is the image's: memory follows. Cannot fail. */
void zq_bitmap_edit_adopt(struct zq_bitmap_edit *e);
void zq_bitmap_edit_free(struct zq_bitmap_edit *e);

#endif
