/* SPDX-License-Identifier: MIT */
/*
 * What was marked goes to the file when the image is closed (B2).
 *
 * While a bitmap is flagged nobody believes what it has in the file, so its clusters are written
 * where they lie, and entries of its table as they come: bits and tables; barrier; the flags;
 * barrier. What the file lacks has been taken and counted before.
 */
#include <errno.h>

#include "base/report.h"
#include "bitmap/bitmap.h"

/* Also one that nothing was marked in: the file says that it is in use. */
static bool must_store(const struct zq_bitmap *m)
{
    return m->flagged;
}

bool zq_bitmaps_must_store(const struct zq_bitmaps *b)
{
    for (uint32_t i = 0; i < b->nr; i++) {
        if (must_store(&b->v[i]))
            return true;
    }
    return false;
}

/* ---- what is needed ---- */

/* An entry that is used is judged: its cluster is written. */
static int judge_entry(const struct zq_bitmaps *b, uint64_t raw, uint64_t *host, bool *ones)
{
    if (!raw) {
        *host = 0;
        *ones = false;
        return 0;
    }
    if (zq_bitmap_read(&b->bounds, raw, host, ones))
        return ZQCOW2_ECORRUPT;
    if (*host && b->is_table && b->is_table(b->arg, *host, zq_bitmaps_cluster(b)))
        return ZQCOW2_ECORRUPT;
    return 0;
}

/* All of it: its size was judged by the open. */
static int load_table(struct zq_bitmaps *b, struct zq_bitmap *m)
{
    uint64_t bytes = zq_table_bytes(m->r.table_entries);

    if (!bytes)
        return 0;
    m->table = zq_alloc(b->hooks, 8, bytes);
    return m->table ? zq_be_read(b->be, m->table, (size_t)bytes, m->r.table_offset) : -ENOMEM;
}

/* Room doubles: a device of 16 TiB with marks of 512 bytes has 65,536 clusters of them. */
static int add_hole(struct zq_bitmaps *b, uint32_t bitmap, uint64_t node)
{
    if (b->nr_holes == b->holes_room) {
        uint64_t room = zq_max(64, b->holes_room * 2);
        struct zq_bitmap_hole *v = zq_zalloc_array(b->hooks, room, sizeof(*v));

        if (!v)
            return -ENOMEM;
        if (b->holes) {
            memcpy(v, b->holes, (size_t)b->nr_holes * sizeof(*v));
            zq_free(b->hooks, b->holes, b->holes_room * sizeof(*v));
        }
        b->holes = v;
        b->holes_room = room;
    }
    b->holes[b->nr_holes++] = (struct zq_bitmap_hole){bitmap, node, 0};
    return 0;
}

/* Where all bits are set an entry says so, and needs no cluster. */
static int prepare_node(struct zq_bitmaps *b, uint32_t i, uint64_t node)
{
    struct zq_bitmap *m = &b->v[i];
    uint64_t host;
    bool ones, all;
    int rc;

    if (!zq_dirty_any(&m->dirty, node, &all))
        return 0;
    rc = judge_entry(b, zq_table_get(m->table, node), &host, &ones);
    if (rc < 0 || host || ones)
        return rc;
    if (!all)
        return add_hole(b, i, node);
    zq_table_put(m->table, node, 1);
    m->new_entries = true;
    return 0;
}

/* Nothing in the file changes here. */
int zq_bitmaps_prepare_store(struct zq_bitmaps *b)
{
    int rc = 0;

    zq_assert_k(B2, !b->nr_holes);
    for (uint32_t i = 0; rc == 0 && i < b->nr; i++) {
        struct zq_bitmap *m = &b->v[i];

        if (!must_store(m))
            continue;
        rc = load_table(b, m);
        for (uint64_t k = 0; rc == 0 && k < m->dirty.nodes; k++)
            rc = prepare_node(b, i, k);
    }
    return rc;
}

void zq_bitmaps_fill(struct zq_bitmaps *b, uint64_t host)
{
    zq_assert_k(B2, b->filled < b->nr_holes && host);
    b->holes[b->filled++].host = host;
}

/* ---- writing ---- */

/* What the file has, and what was marked. */
static int write_node(struct zq_bitmaps *b, const struct zq_bitmap *m, uint64_t node, uint8_t *buf)
{
    size_t cluster = (size_t)zq_bitmaps_cluster(b);
    uint64_t host;
    bool ones, all;
    int rc;

    if (!zq_dirty_any(&m->dirty, node, &all))
        return 0;
    rc = judge_entry(b, zq_table_get(m->table, node), &host, &ones);
    if (rc == 0 && host)
        rc = zq_be_read(b->be, buf, cluster, host);
    if (rc < 0 || !host)
        return rc;
    zq_dirty_join(&m->dirty, node, buf);
    return zq_be_write(b->be, buf, cluster, host);
}

static int write_bitmap(struct zq_bitmaps *b, const struct zq_bitmap *m, uint8_t *buf)
{
    int rc = 0;

    for (uint64_t k = 0; rc == 0 && k < m->dirty.nodes; k++)
        rc = write_node(b, m, k, buf);
    return rc;
}

/* New clusters have no old bits: whatever the file holds there. */
static int write_hole(struct zq_bitmaps *b, const struct zq_bitmap_hole *h, uint8_t *buf)
{
    struct zq_bitmap *m = &b->v[h->bitmap];

    zq_assert_k(B2, h->host);
    memset(buf, 0, (size_t)zq_bitmaps_cluster(b));
    zq_dirty_join(&m->dirty, h->node, buf);
    zq_table_put(m->table, h->node, h->host);
    m->new_entries = true;
    return zq_be_write(b->be, buf, (size_t)zq_bitmaps_cluster(b), h->host);
}

/* Bits and tables in any order: the flag in the file covers both. */
static int write_bits(struct zq_bitmaps *b, uint8_t *buf)
{
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < b->nr; i++) {
        if (must_store(&b->v[i]))
            rc = write_bitmap(b, &b->v[i], buf);
    }
    for (uint64_t i = 0; rc == 0 && i < b->nr_holes; i++)
        rc = write_hole(b, &b->holes[i], buf);
    for (uint32_t i = 0; rc == 0 && i < b->nr; i++) {
        const struct zq_bitmap *m = &b->v[i];

        if (m->new_entries)
            rc = zq_be_write(b->be, m->table, (size_t)zq_table_bytes(m->r.table_entries),
                             m->r.table_offset);
    }
    return rc;
}

/* An entry's flags lie in one sector: each bitmap holds from some write on, or does not. */
static int write_flags(struct zq_bitmaps *b)
{
    for (uint32_t i = 0; i < b->nr; i++) {
        struct zq_bitmap *m = &b->v[i];

        if (!must_store(m))
            continue;
        m->r.flags &= ~ZQ_BITMAP_IN_USE;
        zq_bitmap_record_put(b->dir + m->at, &m->r);
    }
    return zq_be_write(b->be, b->dir, (size_t)b->dir_room, b->dir_offset);
}

/* After an error the flags in the file stay as they are, and so the bitmaps do not hold. */
int zq_bitmaps_store(struct zq_bitmaps *b)
{
    uint8_t *buf = zq_alloc(b->hooks, 4096, zq_bitmaps_cluster(b));
    int rc = buf ? 0 : -ENOMEM;

    zq_assert_k(B2, b->filled == b->nr_holes);
    if (rc == 0)
        rc = write_bits(b, buf);
    if (rc == 0)
        rc = zq_be_flush(b->be);
    if (rc == 0)
        rc = write_flags(b);
    if (rc == 0)
        rc = zq_be_flush(b->be);
    zq_free(b->hooks, buf, zq_bitmaps_cluster(b));
    for (uint32_t i = 0; rc == 0 && i < b->nr; i++)
        b->v[i].flagged = false;
    return rc;
}
