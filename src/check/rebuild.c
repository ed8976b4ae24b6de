/* SPDX-License-Identifier: MIT */
/*
 * Builds a whole refcount structure out of place and switches to it in one sector.
 *
 * Until the switch the old structure stays as it was, so a crash before it loses only the bytes
 * that were appended. The new one counts itself, and every cluster at least as high as the old one
 * did where that could be read: what looks free by the scan may be data that it could not see.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/report.h"
#include "format/refbits.h"
#include "check/repair.h"

struct rebuild {
    uint64_t base; /* first cluster of the new structure: the table, then the blocks */
    uint64_t rt_clusters, blocks;
    uint64_t room;    /* clusters behind the structure that the blocks cover, too */
    uint64_t entries; /* of the new table; a whole number of clusters */
    uint8_t *need;    /* a byte for each possible entry: which blocks there will be */
    uint8_t *out;     /* a cluster */
};

static uint64_t region_end(const struct rebuild *r)
{
    return r->base + r->rt_clusters + r->blocks;
}

/* Marks one block as needed; false: the table would get too large. */
static bool need_block(const struct zq_scan *s, struct rebuild *r, uint64_t index)
{
    if (index >= zq_table_count(ZQ_MAX_RT_BYTES))
        return false;
    r->blocks += !r->need[index];
    r->need[index] = 1;
    r->entries = zq_max(r->entries, index + 1);
    r->rt_clusters = zq_div_up(zq_table_bytes(r->entries), zq_scan_cluster(s));
    return r->rt_clusters << s->h.cluster_bits <= ZQ_MAX_RT_BYTES;
}

/* The new structure must cover itself; each block added may make it longer, up to the limit. */
static bool need_region(const struct zq_scan *s, struct rebuild *r)
{
    unsigned bits = zq_scan_block_bits(s);

    for (uint64_t c = r->base; c < region_end(r) + r->room; c = ((c >> bits) + 1) << bits) {
        if (!need_block(s, r, c >> bits))
            return false;
    }
    return true;
}

static bool plan(struct zq_scan *s, struct rebuild *r)
{
    unsigned bits = zq_scan_block_bits(s);
    const struct zq_ref *ref;
    uint64_t next;

    r->base = zq_scan_new_end(s);
    for (uint64_t i = 0; i < s->rt_entries; i++) {
        if (s->rt[i] && !need_block(s, r, i))
            return false;
    }
    for (ref = zq_counts_next(&s->counts, 0); ref; ref = zq_counts_next(&s->counts, next)) {
        uint64_t index = zq_ref_cluster(ref) >> bits;

        if (!need_block(s, r, index))
            return false;
        next = (index + 1) << bits;
    }
    return need_region(s, r);
}

static void fill_block(struct zq_scan *s, const struct rebuild *r, uint64_t index)
{
    unsigned bits = zq_scan_block_bits(s), order = s->h.refcount_order;

    for (uint64_t i = 0; i < 1ull << bits; i++) {
        uint64_t cluster = (index << bits) + i;
        uint64_t v = zq_refbits_get(r->out, order, i);
        uint64_t count = zq_counts_get(&s->counts, cluster);

        if (cluster >= r->base && cluster < region_end(r))
            v = 1;
        else if (count > v)
            v = zq_min(count, zq_refbits_max(order));
        zq_refbits_set(r->out, order, i, v);
    }
}

/* Composes and writes every block; the table's entries go to `table`. */
static int write_blocks(struct zq_scan *s, const struct rebuild *r, uint64_t *table)
{
    uint64_t at = (r->base + r->rt_clusters) << s->h.cluster_bits;
    size_t cluster = (size_t)zq_scan_cluster(s);

    for (uint64_t i = 0; i < r->entries; i++) {
        int rc = 0;

        if (!r->need[i])
            continue;
        memset(r->out, 0, cluster);
        if (i < s->rt_entries && s->rt[i])
            rc = zq_be_read(s->be, r->out, cluster, s->rt[i]);
        if (rc < 0)
            return rc;
        fill_block(s, r, i);
        if ((rc = zq_scan_write(s, r->out, cluster, at)) < 0)
            return rc;
        zq_table_put(table, i, at);
        at += cluster;
    }
    return 0;
}

/* Table offset and length lie side by side: one write, inside one sector. */
static int switch_over(struct zq_scan *s, const struct rebuild *r)
{
    uint8_t raw[ZQ_HDR_RT_BYTES];
    int rc = zq_be_flush(s->be);

    if (rc < 0)
        return rc;
    zq_header_put_rt(raw, r->base << s->h.cluster_bits, (uint32_t)r->rt_clusters);
    rc = zq_scan_write(s, raw, sizeof(raw), ZQ_HDR_RT_OFFSET);
    return rc < 0 ? rc : zq_be_flush(s->be);
}

static int write_all(struct zq_scan *s, const struct rebuild *r)
{
    size_t bytes = (size_t)(r->rt_clusters << s->h.cluster_bits);
    uint64_t *table = zq_zalloc(s->hooks, bytes);
    int rc;

    if (!table)
        return -ENOMEM;
    rc = zq_be_truncate(s->be, region_end(r) << s->h.cluster_bits);
    if (rc == 0)
        rc = write_blocks(s, r, table);
    if (rc == 0)
        rc = zq_scan_write(s, table, bytes, r->base << s->h.cluster_bits);
    zq_free(s->hooks, table, bytes);
    return rc < 0 ? rc : switch_over(s, r);
}

int zq_rebuild_refcounts(struct zq_scan *s, uint64_t room, bool *changed)
{
    struct rebuild r = {.room = room};
    size_t cluster = (size_t)zq_scan_cluster(s);
    int rc = 0;

    r.need = zq_zalloc(s->hooks, zq_table_count(ZQ_MAX_RT_BYTES));
    r.out = zq_zalloc(s->hooks, cluster);
    if (!r.need || !r.out) {
        rc = -ENOMEM;
    } else if (!plan(s, &r)) {
        zq_found(s, ZQCOW2_FOUND_WARNING, 1,
                 "the refcount table cannot be rebuilt: it would exceed 8 MiB");
    } else if ((rc = write_all(s, &r)) == 0) {
        *changed = s->run.rebuilt = true;
        zq_found(s, ZQCOW2_FOUND_REPAIRED, 1,
                 "refcount table rebuilt at 0x%" PRIx64 ", %" PRIu64 " blocks",
                 r.base << s->h.cluster_bits, r.blocks);
    }
    zq_free(s->hooks, r.need, zq_table_count(ZQ_MAX_RT_BYTES));
    zq_free(s->hooks, r.out, cluster);
    return rc;
}
