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

bool zq_bitmap_walk_is_known(struct zq_bitmap_walk *w)
{
    zq_assert(w->node < w->nodes);
    if (!in_piece(w) || zq_table_get(w->table, w->node - w->first))
        return false;
    memset(w->buf, 0, (size_t)zq_bitmaps_cluster(w->b));
    return true;
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
    size_t cluster = (size_t)zq_bitmaps_cluster(w->b);
    uint64_t raw, host;
    bool ones;
    int rc = 0;

    if (w->node >= w->m->r.table_entries) /* the device has become larger */
        raw = 0;
    else if (!in_piece(w) && (rc = load_piece(w)) < 0)
        return rc;
    else
        raw = zq_table_get(w->table, w->node - w->first);
    if (!raw || raw == 1) {
        memset(w->buf, raw ? 0xff : 0, cluster);
        return 0;
    }
    if (zq_bitmap_read(&w->b->bounds, raw, &host, &ones))
        return ZQCOW2_ECORRUPT;
    return zq_be_read(w->b->be, w->buf, cluster, host);
}

void zq_bitmap_walk_join(struct zq_bitmap_walk *w, uint64_t *from, uint64_t *to)
{
    if (w->m->dirty.v)
        zq_dirty_join(&w->m->dirty, w->node, w->buf);
    *from = w->node * in_node(w);
    *to = zq_min(*from + in_node(w), zq_bitmap_size(w->b, w->m));
}

/* Bytes that have no such bit are passed over as a whole. */
uint64_t zq_bitmap_walk_find(const struct zq_bitmap_walk *w, uint64_t from, uint64_t to, bool set)
{
    uint64_t base = w->node * in_node(w);
    uint8_t none = set ? 0 : 0xff;

    while (from < to) {
        uint64_t at = from - base;

        if (at % 8 == 0 && w->buf[at / 8] == none)
            from = zq_min(to, from + 8);
        else if ((w->buf[at / 8] >> at % 8 & 1) == set)
            return from;
        else
            from++;
    }
    return to;
}
