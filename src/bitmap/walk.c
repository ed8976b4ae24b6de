/* SPDX-License-Identifier: MIT */
/*
 * The table is read in pieces and the bits a cluster at a time, so that a look at a bitmap needs
 * little memory however large the device is. What was marked since the open is read under the
 * mutex, one node at a time: a list is of one moment for each node, and not for the whole device.
 */
#include "bitmap/walk.h"

#include <errno.h>

#include "base/report.h"

#define PIECE   4096u /* bytes of the table */
#define ENTRIES (PIECE / ZQ_TABLE_ENTRY)

static uint64_t in_node(const struct zq_bitmap_walk *w)
{
    return zq_bitmaps_cluster(w->b) * 8;
}

int zq_bitmap_walk_begin(struct zq_bitmap_walk *w, const struct zq_bitmaps *b,
                         const struct zq_bitmap *m, uint64_t bit)
{
    w->b = b;
    w->m = m;
    w->node = bit / in_node(w);
    w->nodes = zq_div_up(zq_bitmap_size(b, m), in_node(w));
    w->has_piece = false;
    if (!w->buf)
        w->buf = zq_alloc(b->hooks, 4096, zq_bitmaps_cluster(b));
    if (!w->table)
        w->table = zq_alloc(b->hooks, 8, PIECE);
    return w->buf && w->table ? 0 : -ENOMEM;
}

void zq_bitmap_walk_end(struct zq_bitmap_walk *w)
{
    if (!w->b)
        return;
    zq_free(w->b->hooks, w->buf, zq_bitmaps_cluster(w->b));
    zq_free(w->b->hooks, w->table, PIECE);
    w->buf = w->table = NULL;
}

/* Is the node's entry in memory? */
static bool in_piece(const struct zq_bitmap_walk *w)
{
    return w->has_piece && w->node >= w->first && w->node < w->first + ENTRIES;
}

/* Most nodes of a large device have nothing, and none of these is worth a buffer or a read. */
void zq_bitmap_walk_skip(struct zq_bitmap_walk *w)
{
    bool all;

    while (w->node < w->nodes && in_piece(w) && !zq_table_get(w->table, w->node - w->first) &&
           !(w->m->dirty.v && zq_dirty_any(&w->m->dirty, w->node, &all)))
        w->node++;
}

/* Whether the entry, which is in memory, says it without a cluster. */
static bool is_same_bits(struct zq_bitmap_walk *w)
{
    uint64_t raw = zq_table_get(w->table, w->node - w->first);

    w->has = !raw ? ZQ_NODE_ZEROS : raw == 1 ? ZQ_NODE_ONES : ZQ_NODE_MIXED;
    return w->has != ZQ_NODE_MIXED;
}

bool zq_bitmap_walk_is_known(struct zq_bitmap_walk *w)
{
    zq_assert(w->node < w->nodes);
    return in_piece(w) && is_same_bits(w);
}

static int load_piece(struct zq_bitmap_walk *w)
{
    uint64_t bytes;
    int rc;

    w->first = zq_align_down(w->node, ENTRIES);
    bytes = zq_min(PIECE, zq_table_bytes(w->m->r.table_entries - w->first));
    memset(w->table, 0, PIECE);
    rc = zq_be_read(w->b->be, w->table, (size_t)bytes,
                    w->m->r.table_offset + zq_table_bytes(w->first));
    w->has_piece = rc == 0;
    return rc;
}

/* The entry is judged each time: what another program has written is never taken for granted. */
int zq_bitmap_walk_read(struct zq_bitmap_walk *w)
{
    uint64_t host;
    bool ones;
    int rc = 0;

    w->has = ZQ_NODE_ZEROS;
    if (w->node >= w->m->r.table_entries) /* the device has become larger */
        return 0;
    if (!in_piece(w))
        rc = load_piece(w);
    if (rc < 0 || is_same_bits(w))
        return rc;
    if (zq_bitmap_read(&w->b->bounds, zq_table_get(w->table, w->node - w->first), &host, &ones))
        return ZQCOW2_ECORRUPT;
    return zq_be_read(w->b->be, w->buf, (size_t)zq_bitmaps_cluster(w->b), host);
}

/* What was marked since the open. */
static void join_marks(struct zq_bitmap_walk *w)
{
    bool all;

    if (!zq_dirty_any(&w->m->dirty, w->node, &all))
        return;
    if (all)
        w->has = ZQ_NODE_ONES;
    if (w->has == ZQ_NODE_ZEROS)
        memset(w->buf, 0, (size_t)zq_bitmaps_cluster(w->b));
    if (w->has == ZQ_NODE_ONES)
        return;
    w->has = ZQ_NODE_MIXED;
    zq_dirty_join(&w->m->dirty, w->node, w->buf);
}

/* Bits behind the end of the device, if there are any, are not the caller's. */
void zq_bitmap_walk_join(struct zq_bitmap_walk *w, uint64_t *from, uint64_t *to)
{
    if (w->m->dirty.v)
        join_marks(w);
    *from = w->node * in_node(w);
    *to = zq_min(*from + in_node(w), zq_bitmap_size(w->b, w->m));
}

static uint64_t load_word(const uint8_t *p)
{
    uint64_t word;

    memcpy(&word, p, sizeof(word));
    return word;
}

/* Words and bytes that have no such bit are passed over as a whole. */
uint64_t zq_bitmap_walk_find(const struct zq_bitmap_walk *w, uint64_t from, uint64_t to, bool set)
{
    uint64_t base = w->node * in_node(w), none = set ? 0 : UINT64_MAX;

    if (w->has != ZQ_NODE_MIXED)
        return (w->has == ZQ_NODE_ONES) == set ? zq_min(from, to) : to;
    while (from < to) {
        uint64_t at = from - base;

        if (at % 64 == 0 && load_word(w->buf + at / 8) == none)
            from = zq_min(to, from + 64);
        else if (at % 8 == 0 && w->buf[at / 8] == (uint8_t)none)
            from = zq_min(to, from + 8);
        else if ((w->buf[at / 8] >> at % 8 & 1) == set)
            return from;
        else
            from++;
    }
    return to;
}

/* Pairs, then fours, then bytes, whose sum comes into the highest. */
static uint64_t count_ones(uint64_t v)
{
    v -= v >> 1 & 0x5555555555555555u;
    v = (v & 0x3333333333333333u) + (v >> 2 & 0x3333333333333333u);
    v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return v * 0x0101010101010101u >> 56;
}

uint64_t zq_bitmap_walk_count(const struct zq_bitmap_walk *w)
{
    uint64_t base = w->node * in_node(w), n = 0, at = 0;
    uint64_t bits = zq_min(in_node(w), zq_bitmap_size(w->b, w->m) - base);

    if (w->has != ZQ_NODE_MIXED)
        return w->has == ZQ_NODE_ONES ? bits : 0;
    for (; at + 64 <= bits; at += 64)
        n += count_ones(load_word(w->buf + at / 8));
    for (; at < bits; at++)
        n += w->buf[at / 8] >> at % 8 & 1;
    return n;
}
