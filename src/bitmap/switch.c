/* SPDX-License-Identifier: MIT */
/* What all changes of bitmaps have in common: what goes, what is written, and in which order. */
#include "bitmap/switch.h"

#include <errno.h>

#include "base/report.h"

/* ---- memory ---- */

int zq_bitmap_switch_open(struct zq_bitmap_switch *s, uint32_t nr, uint64_t dir_bytes)
{
    const struct zqcow2_hooks *h = s->b->hooks;

    if (dir_bytes > ZQ_MAX_BITMAP_IO)
        return zq_fail(s->err, -EFBIG, "no more bitmaps fit into the directory");
    s->nr = nr;
    s->dir_bytes = dir_bytes;
    s->dir_room = zq_align_up(dir_bytes, ZQ_SECTOR);
    if (nr)
        s->dir = zq_zalloc(h, s->dir_room);
    s->buf = zq_alloc(h, 4096, zq_bitmaps_cluster(s->b));
    return (nr && !s->dir) || !s->buf ? -ENOMEM : 0;
}

void zq_bitmap_switch_close(struct zq_bitmap_switch *s)
{
    const struct zqcow2_hooks *h = s->b ? s->b->hooks : NULL;

    if (!h)
        return;
    if (s->dir)
        zq_free(h, s->dir, s->dir_room);
    zq_free(h, s->buf, zq_bitmaps_cluster(s->b));
    zq_free(h, s->old, s->old_room * sizeof(*s->old));
    s->dir = s->buf = NULL;
    s->old = NULL;
}

/* ---- what becomes free ---- */

/*
 * Tables and data mostly lie one behind another, so ranges are joined: each costs a record in the
 * quarantine.
 */
int zq_bitmap_gone(struct zq_bitmap_switch *s, uint64_t offset, uint64_t bytes)
{
    struct zq_bitmap_range *last = s->nr_old ? &s->old[s->nr_old - 1] : NULL;

    bytes = zq_bitmap_in_clusters(s, bytes);
    if (!bytes)
        return 0;
    if (last && last->offset + last->bytes == offset) {
        last->bytes += bytes;
        return 0;
    }
    if (s->nr_old == s->old_room) {
        uint64_t room = zq_max(16, s->old_room * 2);
        struct zq_bitmap_range *v = zq_zalloc_array(s->b->hooks, room, sizeof(*v));

        if (!v)
            return -ENOMEM;
        if (s->old)
            memcpy(v, s->old, (size_t)s->nr_old * sizeof(*v));
        zq_free(s->b->hooks, s->old, s->old_room * sizeof(*v));
        s->old = v;
        s->old_room = room;
    }
    s->old[s->nr_old++] = (struct zq_bitmap_range){offset, bytes};
    return 0;
}

int zq_bitmap_judge_entry(const struct zq_bitmap_switch *s, uint64_t raw, uint64_t *host,
                          bool *ones)
{
    const struct zq_bitmaps *b = s->b;

    *host = 0;
    *ones = false;
    if (!raw || (!zq_bitmap_read(&b->bounds, raw, host, ones) &&
                 !(*host && b->is_table && b->is_table(b->arg, *host, zq_bitmaps_cluster(b)))))
        return 0;
    return zq_fail(s->err, ZQCOW2_ECORRUPT,
                   "the table of the bitmap has a wrong entry: check and repair the image");
}

int zq_bitmap_gone_table(struct zq_bitmap_switch *s, const struct zq_bitmap_record *r)
{
    const struct zq_bitmaps *b = s->b;
    uint64_t cluster = zq_bitmaps_cluster(b), host;
    bool ones;
    int rc = zq_bitmap_gone(s, r->table_offset, zq_table_bytes(r->table_entries));

    for (uint64_t i = 0; rc == 0 && i < r->table_entries; i++) {
        uint64_t in = zq_table_bytes(i) % cluster;

        if (!in)
            rc = zq_be_read(b->be, s->buf,
                            (size_t)zq_min(cluster, zq_table_bytes(r->table_entries - i)),
                            r->table_offset + zq_table_bytes(i));
        if (rc == 0)
            rc = zq_bitmap_judge_entry(s, zq_table_get(s->buf, zq_table_count(in)), &host, &ones);
        if (rc == 0 && host)
            rc = zq_bitmap_gone(s, host, cluster);
    }
    return rc;
}

/* ---- writing ---- */

/* Whole clusters: other programs look at the padding of neither. */
int zq_bitmap_write_padded(struct zq_bitmap_switch *s, const void *from, uint64_t bytes,
                           uint64_t to)
{
    uint64_t cluster = zq_bitmaps_cluster(s->b);
    int rc = 0;

    for (uint64_t at = 0; rc == 0 && at < bytes; at += cluster) {
        memset(s->buf, 0, (size_t)cluster);
        if (from)
            memcpy(s->buf, (const uint8_t *)from + at, (size_t)zq_min(cluster, bytes - at));
        rc = zq_be_write(s->b->be, s->buf, (size_t)cluster, to + at);
    }
    return rc;
}

/* The header as it will be, read back as any open will read it. */
static int compose_header(struct zq_bitmap_switch *s)
{
    const struct zq_bitmaps_place p = {.nr = s->nr, .bytes = s->dir_bytes, .offset = s->dir_offset};
    const struct zq_bitmaps *b = s->b;
    size_t len = (size_t)zq_bitmaps_cluster(b);
    int rc = zq_be_read(b->be, s->buf, len, 0);

    if (rc < 0)
        return rc;
    memcpy(s->buf, s->sector0, ZQ_SECTOR);
    rc = zq_header_put_bitmaps(s->h, s->buf, &p, &s->header, s->err);
    if (rc < 0)
        return rc;
    memcpy(s->buf, s->header.sector0, ZQ_SECTOR);
    if (s->header.name_at)
        memcpy(s->buf + s->header.name_at, s->header.name, strlen((char *)s->header.name));
    return zq_header_parse(&s->new_h, s->buf, len, b->bounds.file_size, true, s->err);
}

/* As if the directory stayed where it is: its place takes as many bytes as any other. */
int zq_bitmap_switch_judge(struct zq_bitmap_switch *s)
{
    int rc;

    zq_assert_k(B3, s->nr && s->b->dir_offset);
    s->dir_offset = s->b->dir_offset;
    rc = compose_header(s);
    s->dir_offset = 0;
    return rc;
}

/* A name that has moved is there before the sector that points at it. */
static int write_header(struct zq_bitmap_switch *s)
{
    const struct zq_renaming *r = &s->header;
    size_t n = (size_t)zq_align_up(strlen((const char *)r->name), ZQ_SECTOR);
    int rc = r->name_at ? zq_be_write(s->b->be, r->name, n, r->name_at) : 0;

    if (rc == 0)
        rc = zq_be_flush(s->b->be);
    s->begun = rc == 0;
    if (rc == 0)
        rc = zq_be_write(s->b->be, r->sector0, ZQ_SECTOR, 0);
    return rc < 0 ? rc : zq_be_flush(s->b->be);
}

/*
 * B3. The flag "in use" of bitmaps that are kept is in the new directory as it is in the old one:
 * it was composed from the one in memory.
 */
int zq_bitmap_switch_write(struct zq_bitmap_switch *s)
{
    int rc = 0;

    zq_assert_k(B3, !s->nr == !s->dir_offset);
    if (s->nr)
        rc = zq_bitmap_write_padded(s, s->dir, s->dir_bytes, s->dir_offset);
    if (rc == 0)
        rc = compose_header(s);
    return rc < 0 ? rc : write_header(s);
}

/* ---- memory follows ---- */

/* Under the mutex, and nothing else has begun: nobody has a pointer to what goes. */
void zq_bitmap_switch_adopt(struct zq_bitmap_switch *s)
{
    struct zq_bitmaps *b = s->b;
    uint64_t pos = 0;

    zq_assert_k(B3, s->begun && b->nr == s->nr);
    if (b->dir)
        zq_free(b->hooks, b->dir, b->dir_room);
    b->dir = s->dir;
    s->dir = NULL;
    b->dir_room = b->dir ? s->dir_room : 0;
    b->dir_bytes = b->dir ? s->dir_bytes : 0;
    b->dir_offset = s->dir_offset;
    for (uint32_t i = 0; i < b->nr; i++) {
        b->v[i].at = pos;
        pos += b->v[i].r.bytes;
    }
    zq_bitmaps_count(b);
}
