/* SPDX-License-Identifier: MIT */
/*
 * Every change makes a directory of its own, even one that only turns a flag: the directory may
 * have grown over a sector, and so all changes are one piece of code, and atomic in the same way.
 * A directory has a few entries, and changes of it are rare.
 */
#include "bitmap/edit.h"

#include <errno.h>

#include "base/report.h"

static uint64_t in_clusters(const struct zq_bitmaps *b, uint64_t bytes)
{
    return zq_align_up(bytes, zq_bitmaps_cluster(b));
}

/* ---- what becomes free ---- */

/*
 * Tables and data mostly lie one behind another, so ranges are joined: each costs a record in the
 * quarantine.
 */
static int add_old(struct zq_bitmap_edit *e, uint64_t offset, uint64_t bytes)
{
    struct zq_bitmap_range *last = e->nr_old ? &e->old[e->nr_old - 1] : NULL;

    bytes = in_clusters(e->b, bytes);
    if (!bytes)
        return 0;
    if (last && last->offset + last->bytes == offset) {
        last->bytes += bytes;
        return 0;
    }
    if (e->nr_old == e->old_room) {
        uint64_t room = zq_max(16, e->old_room * 2);
        struct zq_bitmap_range *v = zq_zalloc_array(e->b->hooks, room, sizeof(*v));

        if (!v)
            return -ENOMEM;
        if (e->old)
            memcpy(v, e->old, (size_t)e->nr_old * sizeof(*v));
        zq_free(e->b->hooks, e->old, e->old_room * sizeof(*v));
        e->old = v;
        e->old_room = room;
    }
    e->old[e->nr_old++] = (struct zq_bitmap_range){offset, bytes};
    return 0;
}

static int wrong_entry(struct zq_bitmap_edit *e)
{
    return zq_fail(e->err, ZQCOW2_ECORRUPT,
                   "the table of the bitmap has a wrong entry: check and repair the image");
}

/* A table, and the clusters that its entries name. */
static int add_old_table(struct zq_bitmap_edit *e, const struct zq_bitmap_record *r)
{
    const struct zq_bitmaps *b = e->b;
    uint64_t cluster = zq_bitmaps_cluster(b), host;
    bool ones;
    int rc = add_old(e, r->table_offset, zq_table_bytes(r->table_entries));

    for (uint64_t i = 0; rc == 0 && i < r->table_entries; i++) {
        uint64_t in = zq_table_bytes(i) % cluster, raw;

        if (!in)
            rc = zq_be_read(b->be, e->buf,
                            (size_t)zq_min(cluster, zq_table_bytes(r->table_entries - i)),
                            r->table_offset + zq_table_bytes(i));
        raw = rc == 0 ? zq_table_get(e->buf, zq_table_count(in)) : 0;
        if (raw && (zq_bitmap_read(&b->bounds, raw, &host, &ones) ||
                    (host && b->is_table && b->is_table(b->arg, host, cluster))))
            return wrong_entry(e);
        if (raw && host)
            rc = add_old(e, host, cluster);
    }
    return rc;
}

/* ---- the new directory ---- */

/* The next open would refuse to keep more. */
static int judge_kept(const struct zq_bitmap_edit *e)
{
    uint64_t bytes = e->r.flags & ZQ_BITMAP_AUTO ? zq_table_bytes(e->r.table_entries) : 0;

    for (uint32_t i = 0; i < e->b->nr; i++) {
        const struct zq_bitmap *m = &e->b->v[i];

        if (i != e->index && zq_bitmap_is_kept(m))
            bytes += zq_table_bytes(m->r.table_entries);
    }
    if (bytes > ZQ_MAX_KEPT_TABLES && e->kind != ZQ_BITMAP_REMOVE)
        return zq_fail(e->err, -EFBIG, "the tables of all enabled bitmaps take more than 64 MiB");
    return 0;
}

/* Of one bitmap: what it will be. */
static int plan_new(struct zq_bitmap_edit *e)
{
    struct zq_bitmaps *b = e->b;
    uint64_t entries = zq_bitmap_entries(zq_bitmap_bits(b->device, e->granularity_bits),
                                         b->bounds.form.cluster_bits);

    if (zq_bitmaps_find(b, e->name))
        return zq_fail(e->err, -EEXIST, "a bitmap has this name already");
    if (b->nr >= ZQ_MAX_BITMAPS)
        return zq_fail(e->err, -EFBIG, "no more bitmaps fit into the directory");
    if (zq_table_bytes(entries) > ZQ_MAX_BITMAP_IO)
        return zq_fail(e->err, -EFBIG, "the granularity is too fine for a device of this size");
    e->index = b->nr;
    e->nr = b->nr + 1;
    e->new_table = true;
    e->r = (struct zq_bitmap_record){
        .table_entries = (uint32_t)entries,
        .flags = e->disabled ? 0 : ZQ_BITMAP_AUTO,
        .type = ZQ_BITMAP_TRACKING,
        .granularity_bits = e->granularity_bits,
        .name_bytes = (uint32_t)strlen(e->name),
    };
    e->r.bytes = zq_bitmap_record_bytes(0, e->r.name_bytes);
    return 0;
}

/*
 * A bitmap that does not hold has nothing that could be cleared or enabled. It must be removed
 * before its name can be used again, so that its user notices.
 */
static int plan_old(struct zq_bitmap_edit *e)
{
    const struct zq_bitmap *m = zq_bitmaps_find(e->b, e->name);

    if (!m)
        return zq_fail(e->err, -ENOENT, "no bitmap has this name");
    e->index = (uint32_t)(m - e->b->v);
    e->nr = e->b->nr - (e->kind == ZQ_BITMAP_REMOVE);
    e->r = m->r;
    e->new_table = e->kind == ZQ_BITMAP_CLEAR;
    if (m->lost && e->kind != ZQ_BITMAP_REMOVE)
        return zq_fail(e->err, ZQCOW2_ECORRUPT,
                       "the bitmap was in use when the image was not closed: it does not hold and "
                       "can only be removed");
    if (m->r.extra_bytes && !(m->r.flags & ZQ_BITMAP_EXTRA_OK) && e->kind != ZQ_BITMAP_REMOVE)
        return zq_fail(e->err, ZQCOW2_EFEATURE, "the bitmap has extra data of an unknown kind");
    if (e->kind == ZQ_BITMAP_ENABLE)
        e->r.flags |= ZQ_BITMAP_AUTO;
    if (e->kind == ZQ_BITMAP_DISABLE)
        e->r.flags &= ~ZQ_BITMAP_AUTO;
    return 0;
}

/* Everything but the places, which are not known yet. */
static void compose(struct zq_bitmap_edit *e)
{
    const struct zq_bitmaps *b = e->b;
    uint64_t pos = 0;

    for (uint32_t i = 0; i < b->nr; i++) {
        const struct zq_bitmap *m = &b->v[i];

        if (i == e->index && e->kind == ZQ_BITMAP_REMOVE)
            continue;
        memcpy(e->dir + pos, b->dir + m->at, (size_t)m->r.bytes);
        if (i == e->index)
            zq_bitmap_record_put(e->dir + pos, &e->r);
        pos += m->r.bytes;
    }
    if (e->kind == ZQ_BITMAP_ADD) {
        zq_bitmap_record_put(e->dir + pos, &e->r);
        memcpy(e->dir + pos + ZQ_BITMAP_FIXED, e->name, e->r.name_bytes);
        pos += e->r.bytes;
    }
    zq_assert_k(B3, pos == e->dir_bytes);
}

/* All of it, so that a lack of memory is a refusal. */
static int take_memory(struct zq_bitmap_edit *e)
{
    const struct zqcow2_hooks *h = e->b->hooks;

    e->dir_bytes = e->b->dir_bytes;
    if (e->kind == ZQ_BITMAP_ADD)
        e->dir_bytes += e->r.bytes;
    if (e->kind == ZQ_BITMAP_REMOVE)
        e->dir_bytes -= e->r.bytes;
    if (e->dir_bytes > ZQ_MAX_BITMAP_IO)
        return zq_fail(e->err, -EFBIG, "no more bitmaps fit into the directory");
    e->dir_room = zq_align_up(e->dir_bytes, ZQ_SECTOR);
    if (e->nr)
        e->dir = zq_zalloc(h, e->dir_room);
    e->buf = zq_alloc(h, 4096, zq_bitmaps_cluster(e->b));
    if (e->kind == ZQ_BITMAP_ADD)
        e->v = zq_zalloc_array(h, e->nr, sizeof(*e->v));
    if ((e->nr && !e->dir) || !e->buf || (e->kind == ZQ_BITMAP_ADD && !e->v))
        return -ENOMEM;
    /* A bitmap that is cleared gets a fresh set, one that was never kept its first. */
    return zq_dirty_open(&e->dirty, h, zq_bitmap_bits(e->b->device, e->r.granularity_bits),
                         e->b->bounds.form.cluster_bits);
}

/* Reads only, and may refuse: after it only I/O and a lack of space can end the change. */
int zq_bitmap_edit_prepare(struct zq_bitmap_edit *e)
{
    struct zq_bitmaps *b = e->b;
    uint64_t table;
    int rc;

    if (e->h->version < 3)
        return zq_fail(e->err, ZQCOW2_EFEATURE, "an image of version 2 has no bitmaps");
    rc = e->kind == ZQ_BITMAP_ADD ? plan_new(e) : plan_old(e);
    if (rc == 0)
        rc = judge_kept(e);
    if (rc == 0)
        rc = take_memory(e);
    if (rc == 0 && (e->kind == ZQ_BITMAP_REMOVE || e->kind == ZQ_BITMAP_CLEAR))
        rc = add_old_table(e, &b->v[e->index].r);
    if (rc == 0)
        rc = add_old(e, b->dir_offset, b->dir_bytes);
    if (rc < 0)
        return rc;
    table = e->new_table ? in_clusters(b, zq_table_bytes(e->r.table_entries)) : 0;
    e->clusters = (table + in_clusters(b, e->dir_bytes)) >> b->bounds.form.cluster_bits;
    return 0;
}

/* ---- the change ---- */

/* Whole clusters: other programs look at the padding of neither. */
static int write_padded(struct zq_bitmap_edit *e, const uint8_t *from, uint64_t bytes, uint64_t to)
{
    uint64_t cluster = zq_bitmaps_cluster(e->b);
    int rc = 0;

    for (uint64_t at = 0; rc == 0 && at < bytes; at += cluster) {
        memset(e->buf, 0, (size_t)cluster);
        if (from)
            memcpy(e->buf, from + at, (size_t)zq_min(cluster, bytes - at));
        rc = zq_be_write(e->b->be, e->buf, (size_t)cluster, to + at);
    }
    return rc;
}

/* The header as it will be, read back as any open will read it. */
static int compose_header(struct zq_bitmap_edit *e, const struct zq_bitmaps_place *p)
{
    const struct zq_bitmaps *b = e->b;
    size_t len = (size_t)zq_bitmaps_cluster(b);
    int rc = zq_be_read(b->be, e->buf, len, 0);

    if (rc < 0)
        return rc;
    memcpy(e->buf, e->sector0, ZQ_SECTOR);
    rc = zq_header_put_bitmaps(e->h, e->buf, p, &e->header, e->err);
    if (rc < 0)
        return rc;
    memcpy(e->buf, e->header.sector0, ZQ_SECTOR);
    if (e->header.name_at)
        memcpy(e->buf + e->header.name_at, e->header.name, strlen((char *)e->header.name));
    return zq_header_parse(&e->new_h, e->buf, len, b->bounds.file_size, true, e->err);
}

/* A name that has moved is there before the sector that points at it. */
static int write_header(struct zq_bitmap_edit *e)
{
    const struct zq_renaming *r = &e->header;
    size_t n = (size_t)zq_align_up(strlen((const char *)r->name), ZQ_SECTOR);
    int rc = r->name_at ? zq_be_write(e->b->be, r->name, n, r->name_at) : 0;

    if (rc == 0)
        rc = zq_be_flush(e->b->be);
    e->begun = rc == 0;
    if (rc == 0)
        rc = zq_be_write(e->b->be, r->sector0, ZQ_SECTOR, 0);
    return rc < 0 ? rc : zq_be_flush(e->b->be);
}

/*
 * B3. A new table is zeros, which no cluster is needed for. The flag "in use" of bitmaps that are
 * kept is in the new directory as it is in the old one: it was composed from the one in memory.
 */
int zq_bitmap_edit_change(struct zq_bitmap_edit *e)
{
    uint64_t table = e->new_table ? zq_table_bytes(e->r.table_entries) : 0;
    struct zq_bitmaps_place p = {.nr = e->nr, .bytes = e->dir_bytes};
    int rc = 0;

    zq_assert_k(B3, e->host || !e->clusters);
    if (e->new_table)
        e->r.table_offset = table ? e->host : 0;
    if (e->nr) {
        compose(e);
        p.offset = e->host + in_clusters(e->b, table);
        rc = write_padded(e, NULL, table, e->host);
    }
    if (rc == 0 && e->nr)
        rc = write_padded(e, e->dir, e->dir_bytes, p.offset);
    if (rc == 0)
        rc = compose_header(e, &p);
    return rc < 0 ? rc : write_header(e);
}

/* ---- memory ---- */

/* A bitmap that is added is not flagged: the next change of the device waits for that (B1). */
static void take_new_array(struct zq_bitmap_edit *e)
{
    struct zq_bitmaps *b = e->b;

    if (b->nr)
        memcpy(e->v, b->v, b->nr * sizeof(*e->v));
    if (b->v)
        zq_free(b->hooks, b->v, b->room * sizeof(*b->v));
    b->v = e->v;
    b->room = e->nr;
    b->v[e->index] = (struct zq_bitmap){.r = e->r};
    e->v = NULL;
}

static void drop(struct zq_bitmaps *b, uint32_t index)
{
    zq_dirty_close(&b->v[index].dirty);
    for (uint32_t i = index; i + 1 < b->nr; i++)
        b->v[i] = b->v[i + 1];
}

/*
 * What was marked goes with what is cleared. One that is disabled keeps it until it is stored, and
 * one that will be stored has a set, if only an empty one.
 */
static void take_dirty(struct zq_bitmap_edit *e, struct zq_bitmap *m)
{
    bool wanted = m->flagged || zq_bitmap_is_kept(m);

    if (e->kind == ZQ_BITMAP_CLEAR)
        zq_dirty_close(&m->dirty);
    if (!wanted || m->dirty.v)
        return;
    m->dirty = e->dirty;
    e->dirty.v = NULL;
}

/* Under the mutex, and nothing else has begun: nobody has a pointer to what goes. */
void zq_bitmap_edit_adopt(struct zq_bitmap_edit *e)
{
    struct zq_bitmaps *b = e->b;
    uint64_t pos = 0;

    if (e->kind == ZQ_BITMAP_ADD)
        take_new_array(e);
    else if (e->kind == ZQ_BITMAP_REMOVE)
        drop(b, e->index);
    else
        b->v[e->index].r = e->r;
    b->nr = e->nr;
    if (e->kind != ZQ_BITMAP_REMOVE)
        take_dirty(e, &b->v[e->index]);
    if (b->dir)
        zq_free(b->hooks, b->dir, b->dir_room);
    b->dir = e->dir;
    e->dir = NULL;
    b->dir_room = b->dir ? e->dir_room : 0;
    b->dir_bytes = b->dir ? e->dir_bytes : 0;
    b->dir_offset =
        b->dir ? e->host + (e->new_table ? in_clusters(b, zq_table_bytes(e->r.table_entries)) : 0) :
                 0;
    for (uint32_t i = 0; i < b->nr; i++) {
        b->v[i].at = pos;
        pos += b->v[i].r.bytes;
    }
    zq_bitmaps_count(b);
}

void zq_bitmap_edit_free(struct zq_bitmap_edit *e)
{
    const struct zqcow2_hooks *h = e->b ? e->b->hooks : NULL;

    if (!h)
        return;
    zq_dirty_close(&e->dirty);
    if (e->dir)
        zq_free(h, e->dir, e->dir_room);
    zq_free(h, e->buf, zq_bitmaps_cluster(e->b));
    if (e->v)
        zq_free(h, e->v, e->nr * sizeof(*e->v));
    zq_free(h, e->old, e->old_room * sizeof(*e->old));
    e->dir = e->buf = NULL;
    e->v = NULL;
    e->old = NULL;
}
