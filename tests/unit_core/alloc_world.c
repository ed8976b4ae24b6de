/* SPDX-License-Identifier: MIT */
/* Refcounts by the format, gathers that go on until they are done, an image's fixed tables. */
#include "unit_core/alloc_world.h"

#define OLD 300u /* what was once in use, and is no zeros: clusters */

/* ---- refcounts as the format describes them ---- */

uint64_t count_at(const struct world *w, const uint8_t *block, uint64_t i)
{
    uint64_t v = 0;

    if (w->order < 3)
        return (uint64_t)block[(i << w->order) / 8] >> ((i << w->order) % 8) &
               ((1u << (1u << w->order)) - 1);
    for (unsigned k = 0; k < 1u << (w->order - 3); k++)
        v = v << 8 | block[(i << (w->order - 3)) + k];
    return v;
}

void set_count(const struct world *w, uint8_t *block, uint64_t i, uint64_t v)
{
    unsigned shift = (unsigned)((i << w->order) % 8);

    if (w->order < 3) {
        uint8_t *p = &block[(i << w->order) / 8];

        *p = (uint8_t)((*p & ~(((1u << (1u << w->order)) - 1) << shift)) | (unsigned)v << shift);
        return;
    }
    for (unsigned k = 1u << (w->order - 3); k--; v >>= 8)
        block[(i << (w->order - 3)) + k] = (uint8_t)v;
}

/* ---- a gather that goes on until it is done ---- */

void write_back(struct world *w)
{
    struct zq_slice *s;

    zq_cache_capture(&w->cache);
    for (int k = 0; k < ZQ_SLICE_KINDS; k++) {
        while ((s = zq_cache_next_frozen(&w->cache, (enum zq_slice_kind)k))) {
            memcpy(w->dev.file + s->host, s->data, w->cache.slice_bytes);
            zq_cache_thaw(&w->cache, s);
        }
    }
    zq_cache_round_done(&w->cache);
}

void wait_for(struct world *w, struct zq_gather *g)
{
    fake_run(&w->dev, &w->x);
    if (zq_list_empty(&w->ready) && w->cache.want_round)
        write_back(w);
    expect(w, w->ready.next == &g->wait.link);
    zq_list_del(&g->wait.link);
    zq_cache_reenter(g);
}

int find(struct world *w, struct zq_gather *g, uint32_t want, struct zq_found *f)
{
    int rc;

    zq_list_init(&g->wait.link);
    for (;;) {
        rc = zq_alloc_find(&w->alloc, g, want, f);
        if (rc == 0)
            rc = zq_alloc_cover(&w->alloc, g, (f->cluster + f->count) << w->bits);
        if (rc != ZQ_WAIT)
            return rc;
        wait_for(w, g);
        if (g->wait.rc < 0)
            return g->wait.rc;
    }
}

/* ---- what must hold ---- */

void check_new_blocks(struct world *w)
{
    const struct zq_refs *r = &w->alloc.refs;

    for (uint64_t b = 0; b < r->table.entries; b++) {
        const uint8_t *bytes = w->dev.file + r->table.v[b];

        if (r->table.v[b] == w->known_table[b])
            continue;
        expect(w, !w->known_table[b] && r->table.v[b] == b * w->block_refs << w->bits);
        expect(w, r->table.dirty[b * 8 / 512] == ZQ_SECTOR_DIRTY && r->table.is_dirty);
        for (uint64_t i = 0; i < w->block_refs; i++)
            expect(w, count_at(w, bytes, i) == (i == 0));
        expect(w, r->table.v[b] + ((uint64_t)1 << w->bits) <= w->dev.length);
        w->refs[b * w->block_refs] = 1;
        w->known_table[b] = r->table.v[b];
    }
}

void check_refs(struct world *w)
{
    const struct zq_refs *r = &w->alloc.refs;

    for (uint64_t c = 0; c < CLUSTERS; c++) {
        uint64_t block = r->table.v[c / w->block_refs], i = c % w->block_refs, at, got;
        const struct zq_slice *s;

        if (!block) {
            expect(w, !w->refs[c]);
            continue;
        }
        at = block + (i << w->order) / 8;
        s = zq_cache_peek(&w->cache, at / w->cache.slice_bytes * w->cache.slice_bytes);
        got = count_at(w, s ? s->data : w->dev.file + block, s ? i % r->slice_refs : i);
        if (got != w->refs[c])
            fail_msg("ZQ_SEED=%" PRIu64 " ZQ_SEEDS=1: cluster %" PRIu64 " has refcount %" PRIu64
                     ", and must have %" PRIu32,
                     w->seed, c, got, w->refs[c]);
    }
}

/* ---- begin and end ---- */

static void open_tables(struct world *w, uint64_t cluster)
{
    const struct zq_alloc_params p = {.cache = &w->cache,
                                      .cluster_bits = w->bits,
                                      .refcount_order = w->order,
                                      .table_offset = cluster,
                                      .table_entries = cluster / 8,
                                      .file_size = w->dev.length};
    struct zq_memtable *t = &w->alloc.refs.table;

    assert_int_equal(zq_alloc_open(&w->alloc, &p), 0);
    t->v[0] = (uint64_t)(USED - 1) << w->bits;
    w->known_table[0] = t->v[0];
    assert_int_equal(zq_memtable_open(&w->l1, &w->hooks, 4, 0), 0);
    w->l1.v[1] = (uint64_t)L2_TABLE << w->bits | UINT64_C(1) << 63;
    w->alloc.l1 = &w->l1;
    assert_int_equal(zq_memtable_index(t), 0);
    assert_int_equal(zq_memtable_index(&w->l1), 0);
}

void alloc_begin(struct world *w, uint64_t seed)
{
    static const uint32_t bits[] = {9, 12, 14};
    uint64_t cluster;
    uint32_t slice;

    memset(w, 0, sizeof(*w));
    w->seed = w->rng = seed;
    w->bits = bits[seed % 3];
    w->order = (uint32_t)(seed / 3 % 7);
    w->block_refs = (8u << w->bits) >> w->order;
    cluster = (uint64_t)1 << w->bits;
    slice = cluster < 4096 ? (uint32_t)cluster : 4096;
    heap_init(&w->heap);
    w->hooks = heap_hooks(&w->heap);
    fake_init(&w->dev, CLUSTERS * cluster + MiB(2), (seed & 1 ? OLD : USED) * cluster);
    memset(w->dev.file + USED * cluster, 0xa5, (size_t)((OLD - USED) * cluster));
    w->x.be = &w->dev.be;
    w->x.hooks = &w->hooks;
    w->x.ready = &w->ready;
    zq_list_init(&w->ready);
    assert_int_equal(zq_iox_init(&w->x), 0);
    assert_int_equal(zq_cache_init(&w->cache, &w->x, &w->ready, slice, 1), 0);
    open_tables(w, cluster);
    for (unsigned i = 0; i < ZQ_FIXED; i++) {
        static const unsigned at[ZQ_FIXED] = {0, 2, 1, 4, 5, 5};

        w->alloc.fixed[i] = (struct zq_host_range){at[i] * cluster, cluster};
    }
    for (unsigned c = 0; c < USED; c++) {
        w->refs[c] = 1;
        set_count(w, w->dev.file + w->known_table[0], c, 1);
    }
}

void alloc_end(struct world *w)
{
    zq_alloc_close(&w->alloc);
    zq_memtable_close(&w->l1);
    zq_cache_fini(&w->cache);
    zq_iox_fini(&w->x);
    fake_free(&w->dev);
    assert_null(heap_verdict(&w->heap));
    heap_destroy(&w->heap);
}
