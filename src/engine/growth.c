/* SPDX-License-Identifier: MIT */
/*
 * Growth of the refcount table (R9): the new table, and the refcount blocks that describe it, are
 * written whole into the first range that the old table cannot describe; one sector of the header
 * switches; then the old table is freed.
 */
#include <errno.h>
#include "base/report.h"
#include "engine/core.h"

/* Blocks at the front describe themselves and the table behind them: how many does that take? */
static uint64_t blocks_for(const struct zq_refs *r, uint64_t table_clusters)
{
    uint64_t b = 1;

    while ((b << r->block_bits) < b + table_clusters)
        b++;
    return b;
}

static int take_memory(struct zq_core *c, struct zq_growth *g)
{
    g->table = zq_zalloc_array(&c->hooks, g->entries, 8);
    g->dirty = zq_zalloc(&c->hooks, zq_div_up(g->entries * 8, ZQ_SECTOR));
    g->bytes = zq_alloc(&c->hooks, 4096, g->len);
    g->freed = zq_zalloc(&c->hooks, sizeof(*g->freed));
    return g->table && g->dirty && g->bytes && g->freed ? 0 : -ENOMEM;
}

void zq_growth_drop(struct zq_core *c)
{
    struct zq_growth *g = &c->round.growth;

    zq_free(&c->hooks, g->table, g->entries * 8);
    zq_free(&c->hooks, g->dirty, zq_div_up(g->entries * 8, ZQ_SECTOR));
    zq_free(&c->hooks, g->bytes, g->len);
    zq_free(&c->hooks, g->freed, sizeof(*g->freed));
    memset(g, 0, sizeof(*g));
}

static void compose(struct zq_core *c, struct zq_growth *g, uint64_t blocks)
{
    struct zq_refs *r = &c->alloc.refs;
    uint64_t used = g->len >> c->cluster_bits;

    memset(g->bytes, 0, g->len);
    memcpy(g->table, r->table, r->entries * 8);
    /* A block's refcounts are contiguous, and so are the blocks: one array. */
    for (uint64_t i = 0; i < used; i++)
        zq_ref_set(r, g->bytes, (uint32_t)i, 1);
    for (uint64_t b = 0; b < blocks; b++)
        g->table[r->entries + b] = g->start + (b << c->cluster_bits);
    for (uint64_t i = 0; i < g->entries; i++)
        zq_put_be64(g->bytes + (g->offset - g->start) + i * 8, g->table[i]);
}

int zq_growth_prepare(struct zq_core *c)
{
    struct zq_growth *g = &c->round.growth;
    struct zq_refs *r = &c->alloc.refs;
    uint64_t size = (uint64_t)1 << c->cluster_bits;
    uint64_t clusters = zq_div_up(r->entries * 16, size), blocks = blocks_for(r, clusters);
    int rc;

    if (r->entries * 8 >= ZQ_MAX_RT_BYTES)
        return -EFBIG;
    clusters = zq_min(clusters, ZQ_MAX_RT_BYTES / size);
    if (clusters * size / 8 < r->entries + blocks)
        return -EFBIG;
    g->entries = clusters * size / 8;
    g->start = r->entries << r->block_bits << c->cluster_bits;
    g->offset = g->start + (blocks << c->cluster_bits);
    g->len = (blocks + clusters) << c->cluster_bits;
    g->written = 0;
    rc = take_memory(c, g);
    if (rc < 0) {
        zq_growth_drop(c);
        return rc;
    }
    compose(c, g, blocks);
    zq_cache_forget(&c->cache, g->start, g->len);
    c->alloc.virgin = zq_max(c->alloc.virgin, g->start + g->len);
    c->alloc.file_size = zq_max(c->alloc.file_size, g->start + g->len);
    g->active = true;
    return 0;
}

bool zq_growth_next(struct zq_core *c, struct zq_io *io)
{
    struct zq_growth *g = &c->round.growth;
    struct iovec v;
    uint64_t n;

    if (!g->active || g->written == g->len)
        return false;
    v.iov_base = g->bytes + g->written;
    v.iov_len = n = zq_min(g->len - g->written, 1u << 20);
    n = zq_io_piece(&c->x, g->start + g->written, n, &v, 1);
    zq_io_prep_buf(io, ZQCOW2_IO_WRITE, g->bytes + g->written, g->start + g->written, n);
    g->written += n;
    return true;
}

void zq_growth_patch(struct zq_core *c, uint8_t *sector0)
{
    struct zq_growth *g = &c->round.growth;

    zq_put_be64(sector0 + ZQ_HDR_RT_OFFSET, g->offset);
    zq_put_be32(sector0 + ZQ_HDR_RT_CLUSTERS, (uint32_t)((g->entries * 8) >> c->cluster_bits));
}

/* The header points to the new table for good. */
void zq_growth_switch(struct zq_core *c)
{
    struct zq_growth *g = &c->round.growth;
    struct zq_refs *r = &c->alloc.refs;

    g->freed->cluster = r->offset >> c->cluster_bits;
    g->freed->count = zq_div_up(r->entries * 8, (uint64_t)1 << c->cluster_bits);
    g->freed->punch = true;
    zq_alloc_quarantine(&c->alloc, g->freed, false);
    g->freed = NULL;
    zq_free(&c->hooks, r->table, r->entries * 8);
    zq_free(&c->hooks, r->dirty, zq_refs_sector_count(r));
    r->table = g->table;
    r->dirty = g->dirty;
    r->entries = g->entries;
    r->offset = g->offset;
    c->map.fixed[2][0] = g->offset;
    c->map.fixed[2][1] = g->entries * 8;
    c->alloc.file_size = zq_max(c->alloc.file_size, g->start + g->len);
    zq_free(&c->hooks, g->bytes, g->len);
    memset(g, 0, sizeof(*g));
    c->alloc.want_growth = false;
    zq_wake(&c->ready, &c->alloc.growth_waiters);
}
