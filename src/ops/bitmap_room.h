/* SPDX-License-Identifier: MIT */
/*
 * What a change of bitmaps needs of the engine: clusters before it, and the quarantine behind it.
 * All under the image's mutex, by an operation that has the image for itself (N8).
 */
#ifndef ZQ_OPS_BITMAP_ROOM_H
#define ZQ_OPS_BITMAP_ROOM_H

#include "bitmap/switch.h"
#include "space/row.h"

struct zq_bitmap_room {
    struct zq_list freed; /* records: of each range that becomes free */
    struct zq_row row;    /* the clusters at s->host: a table, and a directory, is in one piece */
};

void zq_bitmap_room_init(struct zq_bitmap_room *r);
/* For a change that is prepared; a round has to count what it takes. As a step: may wait. */
int zq_bitmap_room_take(struct zq_core *c, struct zq_op *op, struct zq_bitmap_room *r,
                        struct zq_bitmap_switch *s);
/* The header names the new directory, which is in memory, too. */
void zq_bitmap_room_adopt(struct zq_core *c, struct zq_bitmap_room *r,
                          const struct zq_bitmap_switch *s);
/* However it has ended. */
void zq_bitmap_room_leave(struct zq_core *c, struct zq_bitmap_room *r,
                          const struct zq_bitmap_switch *s);

#endif
