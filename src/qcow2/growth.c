/* SPDX-License-Identifier: MIT */
/*
 * Growth of the refcount table (R9): the new table, and the refcount blocks that describe it, are
 * written whole into the first range that the old table cannot describe, in gather, so that a lack
 * of space (R10) fails only requests that need it; a round switches one sector of the header; then
 * the old table is freed. Until the switch the old table does not change.
 */
#include "qcow2/growth.h"

#include <errno.h>
#include "base/report.h"
#include "format/header.h"

/* Blocks at the front describe themselves and the table behind them: how many does that take? */
static uint64_t blocks_for(const struct zq_refs *r, uint64_t table_clusters)
{
    uint64_t b = 1;

    while ((b << r->block_bits) < b + table_clusters)
        b++;
    return b;
}

/* Where the table goes, and how large it is. */
static int plan(const struct zq_alloc *a, struct zq_growth *gr, uint64_t *blocks)
{
    const struct zq_refs *r = &a->refs;
    uint64_t size = (uint64_t)1 << r->cluster_bits;
    uint64_t clusters = zq_div_up(zq_table_bytes(r->table.entries * 2), size);

    *blocks = blocks_for(r, clusters);
    if (zq_table_bytes(r->table.entries) >= ZQ_MAX_RT_BYTES)
        return -EFBIG;
    clusters = zq_min(clusters, ZQ_MAX_RT_BYTES / size);
    if (zq_table_count(clusters * size) < r->table.entries + *blocks)
        return -EFBIG;
    gr->next.entries = zq_table_count(clusters * size);
    gr->start = r->table.entries << r->block_bits << r->cluster_bits;
    gr->next.offset = gr->start + (*blocks << r->cluster_bits);
    gr->len = (*blocks + clusters) << r->cluster_bits;
    return 0;
}

static int take_memory(const struct zqcow2_hooks *h, struct zq_growth *gr)
{
    int rc = zq_memtable_open(&gr->next, h, gr->next.entries, gr->next.offset);

    gr->bytes = zq_alloc(h, 4096, gr->len);
    gr->freed = zq_zalloc(h, sizeof(*gr->freed));
    return rc == 0 && gr->bytes && gr->freed ? 0 : -ENOMEM;
}

void zq_growth_drop(struct zq_alloc *a)
{
    const struct zqcow2_hooks *h = a->cache->x->hooks;
    struct zq_growth *gr = &a->growth;

    zq_memtable_close(&gr->next);
    zq_free(h, gr->bytes, gr->len);
    zq_free(h, gr->freed, sizeof(*gr->freed));
    gr->bytes = NULL;
    gr->freed = NULL;
    gr->whole = gr->switching = false;
}

static void compose(const struct zq_refs *r, struct zq_growth *gr, uint64_t blocks)
{
    uint64_t used = gr->len >> r->cluster_bits;

    memset(gr->bytes, 0, (size_t)gr->len);
    memcpy(gr->next.v, r->table.v, (size_t)r->table.entries * sizeof(*r->table.v));
    /* A block's refcounts are contiguous, and so are the blocks: one array. */
    for (uint64_t i = 0; i < used; i++)
        zq_ref_set(r, gr->bytes, (uint32_t)i, 1);
    for (uint64_t b = 0; b < blocks; b++)
        gr->next.v[r->table.entries + b] = gr->start + (b << r->cluster_bits);
    for (uint64_t i = 0; i < gr->next.entries; i++)
        zq_table_put(gr->bytes + (gr->next.offset - gr->start), i, gr->next.v[i]);
}

/* ---- in gather ---- */

static void write_next(struct zq_alloc *a)
{
    struct zq_growth *gr = &a->growth;
    uint64_t n = zq_min(gr->len - gr->written, 1u << 20);

    zq_assert(n && n % ZQ_SECTOR == 0);
    zq_io_prep_buf(&gr->io, ZQCOW2_IO_WRITE, gr->bytes + gr->written, gr->start + gr->written, n);
    gr->written += n;
    zq_io_start(a->cache->x, &gr->io);
}

/* Nothing points to it yet: any error concerns only the waiters. */
static void write_done(struct zq_io *io, int ret)
{
    struct zq_alloc *a = zq_container(io, struct zq_alloc, growth.io);
    struct zq_growth *gr = &a->growth;

    zq_assert_k(R9, gr->next.v && !gr->whole && !gr->switching);
    if (ret == 0 && gr->written < gr->len) {
        write_next(a);
        return;
    }
    gr->whole = a->want_switch = ret == 0;
    if (ret == 0)
        return;
    zq_growth_drop(a);
    zq_wake_with(a->cache->ready, &gr->waiters, ret);
}

static int start(struct zq_alloc *a, struct zq_gather *g)
{
    struct zq_growth *gr = &a->growth;
    uint64_t blocks;
    int rc = plan(a, gr, &blocks);

    if (rc == 0 && zq_alloc_is_known(a, gr->start, gr->len))
        rc = ZQCOW2_ECORRUPT;
    if (rc == 0) /* first, so that no truncate cuts off what is written */
        rc = zq_alloc_cover(a, g, gr->start + gr->len);
    if (rc)
        return rc;
    rc = take_memory(a->cache->x->hooks, gr);
    if (rc < 0) {
        zq_growth_drop(a);
        return rc;
    }
    compose(&a->refs, gr, blocks);
    rc = zq_memtable_index(&gr->next);
    if (rc < 0) {
        zq_growth_drop(a);
        return rc;
    }
    zq_alloc_touch(a, gr->start, gr->len);
    gr->written = 0;
    gr->io.complete = write_done;
    write_next(a);
    return 0;
}

int zq_growth_wait(struct zq_alloc *a, struct zq_gather *g)
{
    struct zq_growth *gr = &a->growth;
    int rc = gr->next.v ? 0 : start(a, g);

    if (rc)
        return rc;
    a->want_switch |= gr->whole;
    return zq_cache_park(a->cache, g, &gr->waiters);
}

/* ---- in a round ---- */

void zq_growth_patch(const struct zq_alloc *a, uint8_t *sector0)
{
    const struct zq_growth *gr = &a->growth;

    zq_assert_k(R9, gr->whole && gr->switching); /* all that it will point to is written */
    zq_header_put_rt(sector0 + ZQ_HDR_RT_OFFSET, gr->next.offset,
                     (uint32_t)(zq_table_bytes(gr->next.entries) >> a->refs.cluster_bits));
}

void zq_growth_switch(struct zq_alloc *a)
{
    struct zq_growth *gr = &a->growth;
    struct zq_refs *r = &a->refs;

    zq_assert_k(R9, gr->whole && gr->switching && gr->written == gr->len);
    gr->freed->cluster = r->table.offset >> r->cluster_bits;
    gr->freed->count = zq_div_up(zq_table_bytes(r->table.entries), (uint64_t)1 << r->cluster_bits);
    gr->freed->punch = true;
    zq_alloc_quarantine(a, gr->freed, false);
    gr->freed = NULL;
    gr->next.frozen = r->table.frozen; /* until the round thaws it */
    zq_memtable_close(&r->table);
    r->table = gr->next;
    gr->next = (struct zq_memtable){0};
    a->fixed[ZQ_FIXED_REFCOUNTS] =
        (struct zq_host_range){r->table.offset, zq_table_bytes(r->table.entries)};
    a->tables++;
    zq_growth_drop(a);
    a->want_switch = false;
    zq_wake(a->cache->ready, &gr->waiters);
}

void zq_growth_stop(struct zq_alloc *a, int rc)
{
    a->growth.switching = a->want_switch = false;
    zq_wake_with(a->cache->ready, &a->growth.waiters, rc);
}
