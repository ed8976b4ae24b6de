/* SPDX-License-Identifier: MIT */
/*
 * Tables are whole in memory, and all of them are bounded together, as those that a close stores.
 * Clusters of bits stay where they are, except one that the end lies in: it is written anew, since
 * the old bitmap needs the old one until the switch.
 */
#include "bitmap/resize.h"

#include <errno.h>

#include "base/report.h"

static uint64_t in_node(const struct zq_bitmaps *b)
{
    return zq_bitmaps_cluster(b) * 8;
}

/* ---- what may be refused ---- */

static int refuse(const struct zq_bitmap_resize *x, const struct zq_bitmap *m, int rc,
                  const char *why)
{
    char name[ZQ_BITMAP_SHOWN];

    zq_bitmap_show_name(x->s.b, m, name);
    return zq_fail(x->s.err, rc, "bitmap \"%s\" %s: remove it", name, why);
}

static int judge(const struct zq_bitmap_resize *x, const struct zq_bitmap *m,
                 const struct zq_bitmap_resized *t, uint64_t *bytes)
{
    *bytes += zq_table_bytes(t->entries);
    if (!t->entries)
        return refuse(x, m, ZQCOW2_EFEATURE, "cannot be kept on a device of size 0");
    if (m->r.extra_bytes && !(m->r.flags & ZQ_BITMAP_EXTRA_OK))
        return refuse(x, m, ZQCOW2_EFEATURE, "has extra data of an unknown kind");
    if (*bytes > ZQ_MAX_KEPT_TABLES)
        return refuse(x, m, -EFBIG, "and those before it would have tables of more than 64 MiB");
    return 0;
}

/* ---- the new entries ---- */

/* Of entry `node`, which is judged, in the table that was read. */
static int take_entry(struct zq_bitmap_resize *x, const struct zq_bitmap_resized *t, uint64_t node,
                      uint64_t *host, bool *ones)
{
    return zq_bitmap_judge_entry(&x->s, zq_table_get(t->table, node), host, ones);
}

/* Every bit of it is set, or it has none any more: its cluster is not needed. */
static int replace_entry(struct zq_bitmap_resize *x, struct zq_bitmap_resized *t, uint64_t node,
                         uint64_t raw)
{
    uint64_t host;
    bool ones;
    int rc = take_entry(x, t, node, &host, &ones);

    if (rc == 0 && host)
        rc = zq_bitmap_gone(&x->s, host, zq_bitmaps_cluster(x->s.b));
    zq_table_put(t->table, node, raw);
    return rc;
}

/*
 * Bits [first, end) of the node are to be set, and none behind. A cluster that has none is needed
 * only if there is something to set.
 */
static int cut_entry(struct zq_bitmap_resize *x, struct zq_bitmap_resized *t)
{
    bool ones;
    int rc = take_entry(x, t, t->node, &t->host, &ones);

    t->edge = rc == 0 && !ones && (t->host || t->first < t->end);
    if (t->edge && t->host)
        rc = zq_bitmap_gone(&x->s, t->host, zq_bitmaps_cluster(x->s.b));
    return rc;
}

/* From the node on in which the first bit lies that changes. */
static int make_entries(struct zq_bitmap_resize *x, const struct zq_bitmap *m,
                        struct zq_bitmap_resized *t)
{
    const struct zq_bitmaps *b = x->s.b;
    uint32_t granularity = m->r.granularity_bits;
    uint64_t bits = zq_bitmap_bits(x->device, granularity), per = in_node(b), node;
    uint64_t first = x->device > b->device ? b->device >> granularity : bits;
    int rc = 0;

    if (x->all && zq_bitmap_is_kept(m))
        first = 0;
    node = t->node = first / per;
    t->first = first % per;
    t->end = zq_min(per, bits - node * per);
    if (t->first) {
        rc = cut_entry(x, t);
        node++;
    }
    for (uint64_t i = 0; rc == 0 && i < m->r.table_entries; i++) { /* all of them are judged */
        uint64_t host;
        bool ones;

        rc = i < node ? take_entry(x, t, i, &host, &ones) : replace_entry(x, t, i, 0);
    }
    for (; rc == 0 && node < t->entries; node++)
        zq_table_put(t->table, node, 1);
    return rc;
}

static int load_table(struct zq_bitmap_resize *x, const struct zq_bitmap *m,
                      struct zq_bitmap_resized *t)
{
    uint64_t bytes = zq_table_bytes(m->r.table_entries);

    t->room = zq_max(t->entries, m->r.table_entries);
    t->table = zq_zalloc(x->s.b->hooks, zq_table_bytes(t->room));
    if (!t->table)
        return -ENOMEM;
    return bytes ? zq_be_read(x->s.b->be, t->table, (size_t)bytes, m->r.table_offset) : 0;
}

static int prepare_one(struct zq_bitmap_resize *x, uint32_t i, uint64_t *bytes)
{
    const struct zq_bitmaps *b = x->s.b;
    const struct zq_bitmap *m = &b->v[i];
    struct zq_bitmap_resized *t = &x->v[i];
    uint64_t bits = zq_bitmap_bits(x->device, m->r.granularity_bits);
    int rc;

    t->entries = zq_bitmap_entries(bits, b->bounds.form.cluster_bits);
    rc = judge(x, m, t, bytes);
    if (rc == 0)
        rc = load_table(x, m, t);
    if (rc == 0)
        rc = make_entries(x, m, t);
    if (rc == 0)
        rc = zq_bitmap_gone(&x->s, m->r.table_offset, zq_table_bytes(m->r.table_entries));
    if (rc == 0 && m->dirty.v)
        rc = zq_dirty_open(&t->dirty, b->hooks, bits, b->bounds.form.cluster_bits);
    x->s.clusters += t->edge + zq_div_up(zq_table_bytes(t->entries), zq_bitmaps_cluster(b));
    return rc;
}

int zq_bitmap_resize_prepare(struct zq_bitmap_resize *x)
{
    const struct zq_bitmaps *b = x->s.b;
    int rc = zq_bitmap_switch_open(&x->s, b->nr, b->dir_bytes);
    uint64_t bytes = 0;

    if (rc == 0)
        rc = zq_bitmap_switch_judge(&x->s);
    x->v = zq_zalloc_array(b->hooks, b->nr, sizeof(*x->v));
    if (rc == 0 && !x->v)
        rc = -ENOMEM;
    x->s.clusters = zq_div_up(b->dir_bytes, zq_bitmaps_cluster(b));
    for (uint32_t i = 0; rc == 0 && i < b->nr; i++) {
        x->v[i].holds = !b->v[i].lost;
        rc = x->v[i].holds ? prepare_one(x, i, &bytes) : 0;
    }
    return rc < 0 ? rc : zq_bitmap_gone(&x->s, b->dir_offset, b->dir_bytes);
}

/* ---- the change ---- */

static int write_edge(struct zq_bitmap_resize *x, struct zq_bitmap_resized *t, uint64_t to)
{
    size_t cluster = (size_t)zq_bitmaps_cluster(x->s.b);
    int rc = 0;

    memset(x->s.buf, 0, cluster);
    if (t->host)
        rc = zq_be_read(x->s.b->be, x->s.buf, cluster, t->host);
    if (rc < 0)
        return rc;
    zq_bits_set(x->s.buf, t->first, t->end);
    zq_bits_clear(x->s.buf, t->end, in_node(x->s.b));
    zq_table_put(t->table, t->node, to);
    return zq_be_write(x->s.b->be, x->s.buf, cluster, to);
}

/* Flags are as they are in memory now: a round may have set them since the preparation. */
int zq_bitmap_resize_write(struct zq_bitmap_resize *x)
{
    const struct zq_bitmaps *b = x->s.b;
    uint64_t at = x->s.host;
    int rc = 0;

    memcpy(x->s.dir, b->dir, (size_t)b->dir_bytes);
    for (uint32_t i = 0; rc == 0 && i < b->nr; i++) {
        struct zq_bitmap_resized *t = &x->v[i];
        struct zq_bitmap_record r = b->v[i].r;
        uint64_t bytes = zq_table_bytes(t->entries);

        if (!t->holds)
            continue;
        r.table_entries = (uint32_t)t->entries;
        r.table_offset = bytes ? at : 0;
        zq_bitmap_record_put(x->s.dir + b->v[i].at, &r);
        at += zq_bitmap_in_clusters(&x->s, bytes);
        if (t->edge)
            rc = write_edge(x, t, at);
        at += t->edge ? zq_bitmaps_cluster(b) : 0;
        if (rc == 0)
            rc = zq_bitmap_write_padded(&x->s, t->table, bytes, r.table_offset);
    }
    x->s.dir_offset = at;
    at += zq_bitmap_in_clusters(&x->s, b->dir_bytes);
    zq_assert_k(B4, rc < 0 || (at - x->s.host) >> b->bounds.form.cluster_bits == x->s.clusters);
    return rc;
}

/* What was marked stays marked; behind the end nothing is. */
void zq_bitmap_resize_adopt(struct zq_bitmap_resize *x)
{
    struct zq_bitmaps *b = x->s.b;

    zq_assert_k(B4, x->s.begun);
    for (uint32_t i = 0; i < b->nr; i++) {
        struct zq_bitmap_resized *t = &x->v[i];
        struct zq_bitmap *m = &b->v[i];

        if (!t->holds)
            continue;
        zq_bitmap_record_read(x->s.dir + m->at, &m->r);
        if (!m->dirty.v)
            continue;
        zq_dirty_take(&t->dirty, &m->dirty);
        m->dirty = t->dirty;
        t->dirty.v = NULL;
    }
    b->device = x->device;
    zq_bitmap_switch_adopt(&x->s);
}

void zq_bitmap_resize_free(struct zq_bitmap_resize *x)
{
    const struct zq_bitmaps *b = x->s.b;

    if (!b)
        return;
    for (uint32_t i = 0; x->v && i < b->nr; i++) {
        zq_dirty_close(&x->v[i].dirty);
        if (x->v[i].table)
            zq_free(b->hooks, x->v[i].table, zq_table_bytes(x->v[i].room));
    }
    if (x->v)
        zq_free(b->hooks, x->v, b->nr * sizeof(*x->v));
    x->v = NULL;
    zq_bitmap_switch_close(&x->s);
}
