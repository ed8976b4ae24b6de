/* SPDX-License-Identifier: MIT */
/*
 * Every change makes a directory of its own, even one that only turns a flag: the directory may
 * have grown over a sector, and so all changes are one piece of code, and atomic in the same way.
 * A directory has a few entries, and changes of it are rare.
 */
#include "bitmap/edit.h"

#include <errno.h>

#include "base/report.h"

/* ---- the new directory ---- */

/* The next open would refuse to keep more. */
static int judge_kept(const struct zq_bitmap_edit *e)
{
    uint64_t bytes = e->r.flags & ZQ_BITMAP_AUTO ? zq_table_bytes(e->r.table_entries) : 0;

    for (uint32_t i = 0; i < e->s.b->nr; i++) {
        const struct zq_bitmap *m = &e->s.b->v[i];

        if (i != e->index && zq_bitmap_is_kept(m))
            bytes += zq_table_bytes(m->r.table_entries);
    }
    if (bytes > ZQ_MAX_KEPT_TABLES && e->kind != ZQ_BITMAP_REMOVE)
        return zq_fail(e->s.err, -EFBIG, "the tables of all enabled bitmaps take more than 64 MiB");
    return 0;
}

/* Of one bitmap: what it will be. */
static int plan_new(struct zq_bitmap_edit *e)
{
    struct zq_bitmaps *b = e->s.b;
    uint64_t entries = zq_bitmap_entries(zq_bitmap_bits(b->device, e->granularity_bits),
                                         b->bounds.form.cluster_bits);

    if (zq_bitmaps_find(b, e->name))
        return zq_fail(e->s.err, -EEXIST, "a bitmap has this name already");
    if (b->nr >= ZQ_MAX_BITMAPS)
        return zq_fail(e->s.err, -EFBIG, "no more bitmaps fit into the directory");
    if (!entries) /* a bitmap without a table is none to QEMU, which then refuses the image */
        return zq_fail(e->s.err, ZQCOW2_EFEATURE, "a device of size 0 cannot have bitmaps");
    if (zq_table_bytes(entries) > ZQ_MAX_BITMAP_IO)
        return zq_fail(e->s.err, -EFBIG, "the granularity is too fine for a device of this size");
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
    const struct zq_bitmap *m = zq_bitmaps_find(e->s.b, e->name);

    if (!m)
        return zq_fail(e->s.err, -ENOENT, "no bitmap has this name");
    e->index = (uint32_t)(m - e->s.b->v);
    e->nr = e->s.b->nr - (e->kind == ZQ_BITMAP_REMOVE);
    e->r = m->r;
    e->new_table = e->kind == ZQ_BITMAP_CLEAR;
    if (m->lost && e->kind != ZQ_BITMAP_REMOVE)
        return zq_fail(e->s.err, ZQCOW2_ECORRUPT,
                       "the bitmap is inconsistent, because the image was not closed: it can only "
                       "be removed");
    if (m->r.extra_bytes && !(m->r.flags & ZQ_BITMAP_EXTRA_OK) && e->kind != ZQ_BITMAP_REMOVE)
        return zq_fail(e->s.err, ZQCOW2_EFEATURE, "the bitmap has extra data of an unknown kind");
    if (e->kind == ZQ_BITMAP_ENABLE)
        e->r.flags |= ZQ_BITMAP_AUTO;
    if (e->kind == ZQ_BITMAP_DISABLE)
        e->r.flags &= ~ZQ_BITMAP_AUTO;
    return 0;
}

/* Everything but the places, which are not known yet. */
static void compose(struct zq_bitmap_edit *e)
{
    const struct zq_bitmaps *b = e->s.b;
    uint64_t pos = 0;

    for (uint32_t i = 0; i < b->nr; i++) {
        const struct zq_bitmap *m = &b->v[i];

        if (i == e->index && e->kind == ZQ_BITMAP_REMOVE)
            continue;
        memcpy(e->s.dir + pos, b->dir + m->at, (size_t)m->r.bytes);
        if (i == e->index)
            zq_bitmap_record_put(e->s.dir + pos, &e->r);
        pos += m->r.bytes;
    }
    if (e->kind == ZQ_BITMAP_ADD) {
        zq_bitmap_record_put(e->s.dir + pos, &e->r);
        memcpy(e->s.dir + pos + ZQ_BITMAP_FIXED, e->name, e->r.name_bytes);
        pos += e->r.bytes;
    }
    zq_assert_k(B3, pos == e->s.dir_bytes);
}

/* All of it, so that a lack of memory is a refusal. */
static int take_memory(struct zq_bitmap_edit *e)
{
    const struct zqcow2_hooks *h = e->s.b->hooks;
    uint64_t bytes = e->s.b->dir_bytes;
    int rc;

    if (e->kind == ZQ_BITMAP_ADD)
        bytes += e->r.bytes;
    if (e->kind == ZQ_BITMAP_REMOVE)
        bytes -= e->r.bytes;
    rc = zq_bitmap_switch_open(&e->s, e->nr, bytes);
    if (rc < 0)
        return rc;
    if (e->kind == ZQ_BITMAP_ADD)
        e->v = zq_zalloc_array(h, e->nr, sizeof(*e->v));
    if (e->kind == ZQ_BITMAP_ADD && !e->v)
        return -ENOMEM;
    /* A bitmap that is cleared gets a fresh set, one that was never kept its first. */
    return zq_dirty_open(&e->dirty, h, zq_bitmap_bits(e->s.b->device, e->r.granularity_bits),
                         e->s.b->bounds.form.cluster_bits);
}

/* Of the new one, in whole clusters. */
static uint64_t table_bytes(const struct zq_bitmap_edit *e)
{
    return e->new_table ? zq_bitmap_in_clusters(&e->s, zq_table_bytes(e->r.table_entries)) : 0;
}

/* Reads only, and may refuse: after it only I/O and a lack of space can end the change. */
int zq_bitmap_edit_prepare(struct zq_bitmap_edit *e)
{
    struct zq_bitmaps *b = e->s.b;
    int rc;

    if (e->s.h->version < 3)
        return zq_fail(e->s.err, ZQCOW2_EFEATURE, "an image of version 2 has no bitmaps");
    rc = e->kind == ZQ_BITMAP_ADD ? plan_new(e) : plan_old(e);
    if (rc == 0)
        rc = judge_kept(e);
    if (rc == 0)
        rc = take_memory(e);
    if (rc == 0 && (e->kind == ZQ_BITMAP_REMOVE || e->kind == ZQ_BITMAP_CLEAR))
        rc = zq_bitmap_gone_table(&e->s, &b->v[e->index].r);
    if (rc == 0)
        rc = zq_bitmap_gone(&e->s, b->dir_offset, b->dir_bytes);
    if (rc < 0)
        return rc;
    e->s.clusters = (table_bytes(e) + zq_bitmap_in_clusters(&e->s, e->s.dir_bytes)) >>
                    b->bounds.form.cluster_bits;
    return 0;
}

/* ---- the change ---- */

/* A new table is zeros, which no cluster is needed for. */
int zq_bitmap_edit_change(struct zq_bitmap_edit *e)
{
    uint64_t table = table_bytes(e);
    int rc = 0;

    zq_assert_k(B3, e->s.host || !e->s.clusters);
    if (e->new_table)
        e->r.table_offset = table ? e->s.host : 0;
    if (e->nr) {
        compose(e);
        e->s.dir_offset = e->s.host + table;
        rc = zq_bitmap_write_padded(&e->s, NULL, table, e->s.host);
    }
    return rc < 0 ? rc : zq_bitmap_switch_write(&e->s);
}

/* ---- memory ---- */

/* A bitmap that is added is not flagged: the next change of the device waits for that (B1). */
static void take_new_array(struct zq_bitmap_edit *e)
{
    struct zq_bitmaps *b = e->s.b;

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
    struct zq_bitmaps *b = e->s.b;

    if (e->kind == ZQ_BITMAP_ADD)
        take_new_array(e);
    else if (e->kind == ZQ_BITMAP_REMOVE)
        drop(b, e->index);
    else
        b->v[e->index].r = e->r;
    b->nr = e->nr;
    if (e->kind != ZQ_BITMAP_REMOVE)
        take_dirty(e, &b->v[e->index]);
    zq_bitmap_switch_adopt(&e->s);
}

void zq_bitmap_edit_free(struct zq_bitmap_edit *e)
{
    const struct zqcow2_hooks *h = e->s.b ? e->s.b->hooks : NULL;

    if (!h)
        return;
    zq_dirty_close(&e->dirty);
    if (e->v)
        zq_free(h, e->v, e->nr * sizeof(*e->v));
    e->v = NULL;
    zq_bitmap_switch_close(&e->s);
}
