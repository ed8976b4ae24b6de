/* SPDX-License-Identifier: MIT */
/*
 * Reads a bitmap as it is: what the file has, joined with what was marked since the open. A node at
 * a time: zq_bitmap_walk_read() does the I/O, and zq_bitmap_walk_join() looks at memory, under the
 * mutex, at one moment.
 */
#ifndef ZQ_BITMAP_WALK_H
#define ZQ_BITMAP_WALK_H

#include "bitmap/bitmap.h"

/* Of a node whose bits are all the same buf has nothing: a look costs what the file has. */
enum zq_node_bits { ZQ_NODE_ZEROS, ZQ_NODE_ONES, ZQ_NODE_MIXED };

struct zq_bitmap_walk {
    const struct zq_bitmaps *b;
    const struct zq_bitmap *m;
    uint64_t node, nodes;
    enum zq_node_bits has;
    uint8_t *buf, *table; /* owned: the cluster of a mixed node; a piece of the table */
    uint64_t first;       /* the piece's first entry */
    bool has_piece;
};

/* Begins with the node of bit `bit`; used again for another bitmap. -ENOMEM. */
int zq_bitmap_walk_begin(struct zq_bitmap_walk *w, const struct zq_bitmaps *b,
                         const struct zq_bitmap *m, uint64_t bit);
void zq_bitmap_walk_end(struct zq_bitmap_walk *w);
/* Passes over nodes that are known to have no bit, here and in the file. */
void zq_bitmap_walk_skip(struct zq_bitmap_walk *w);
/* True: the table in memory says what the file has of the node. Else it has to be read. */
bool zq_bitmap_walk_is_known(struct zq_bitmap_walk *w);
/* ECORRUPT: the node's entry is wrong. */
int zq_bitmap_walk_read(struct zq_bitmap_walk *w);
/* The walk is then at the node, which has bits [*from, *to) of the bitmap. */
void zq_bitmap_walk_join(struct zq_bitmap_walk *w, uint64_t *from, uint64_t *to);
/* The next bit in [from, to) that is `set`; else to. Both are the bitmap's, in this node. */
uint64_t zq_bitmap_walk_find(const struct zq_bitmap_walk *w, uint64_t from, uint64_t to, bool set);
/* How many are set of all that the bitmap has in this node. */
uint64_t zq_bitmap_walk_count(const struct zq_bitmap_walk *w);

#endif
