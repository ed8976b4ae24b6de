/* SPDX-License-Identifier: MIT */
/* Bitmaps of an image in use: what the work on the file needs around it. */
#ifndef ZQ_OPS_BITMAP_H
#define ZQ_OPS_BITMAP_H

#include <zqcow2/bitmap.h>
#include "bitmap/edit.h"
#include "loop/core.h"

/* Does *e, whose first members, and err, the caller has set; and frees it. */
int zq_bitmap_edit_run(struct zq_core *c, struct zq_bitmap_edit *e);

/* What one of them is, as it was at one moment. */
struct zq_bitmap_facts {
    struct zq_bitmap_record r;
    uint64_t name; /* where its name is, in the list's names */
    bool lost;
    uint64_t dirty; /* bytes of the device */
};

struct zq_bitmap_list {
    struct zqcow2_error *err;
    struct zq_bitmap_facts *v; /* owned */
    uint32_t nr;
    char *names; /* owned; each with an end */
    uint64_t names_bytes;
};

/* Ends with zq_bitmap_list_free(). */
int zq_bitmap_list_run(struct zq_core *c, struct zq_bitmap_list *l);
void zq_bitmap_list_free(struct zq_core *c, struct zq_bitmap_list *l);

/* Ranges of one of them, from a byte of the device on. */
struct zq_bitmap_look {
    struct zqcow2_error *err;
    const char *name;
    uint64_t from;
    struct zqcow2_dirty_range *out; /* the caller's, max of them */
    uint32_t max, nr;
};

int zq_bitmap_look_run(struct zq_core *c, struct zq_bitmap_look *l);

#endif
