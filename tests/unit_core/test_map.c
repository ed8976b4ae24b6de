/* SPDX-License-Identifier: MIT */
/*
 * The mapping alone, on an allocator and a cache on a fake device: what is linked, looked up and
 * unlinked is what an array says, and what is written back is what the format says.
 */
#include <errno.h>
#include "qcow2/map.h"
#include "unit_core/alloc_world.h"

#define TABLES 3u
#define MOST   (TABLES * 512u)
#define ZONES  12u

struct map_world {
    struct world w;
    struct zq_map m;
    unsigned clusters, per_zone; /* of the device; of a zone */
    uint64_t host[MOST];         /* the cluster of the file for each; 0: none */
    uint64_t links, unlinks;
};

static void begin(struct map_world *mw, uint64_t seed)
{
    struct world *w = &mw->w;
    struct zq_map_params p = {.cache = &w->cache, .alloc = &w->alloc, .l1_entries = TABLES};

    memset(mw, 0, sizeof(*mw));
    alloc_begin(w, seed);
    mw->clusters = TABLES << (w->bits - 3);
    mw->per_zone = mw->clusters / ZONES;
    p.form = (struct zq_form){w->bits, 3, false, false};
    p.l1_offset = 2u << w->bits;
    p.nr_zones = ZONES;
    p.first_seq_zone = ZONES / 3;
    for (p.zone_bits = w->bits; 1u << (p.zone_bits - w->bits) < mw->per_zone;)
        p.zone_bits++;
    assert_int_equal(zq_map_open(&mw->m, &p), 0);
    assert_int_equal(zq_memtable_index(&mw->m.l1), 0);
}

static void end(struct map_world *mw)
{
    zq_map_drop_fresh(&mw->m);
    zq_map_close(&mw->m);
    zq_map_close(&mw->m); /* again: nothing */
    alloc_end(&mw->w);
}

static uint64_t guest_of(const struct map_world *mw, unsigned c)
{
    return (uint64_t)c << mw->w.bits;
}

/* Clusters from c on, of at most n, that are in c's zone. */
static unsigned in_zone(const struct map_world *mw, unsigned c, unsigned n)
{
    unsigned rest = mw->per_zone - c % mw->per_zone;

    return n < rest ? n : rest;
}

/* The slice of c, to be changed. The table must exist unless it is to be made. */
static struct zq_slice *writable(struct map_world *mw, struct zq_gather *g, unsigned c, bool make)
{
    struct zq_slice *s;
    int rc;

    zq_list_init(&g->wait.link);
    for (;;) {
        rc = make ? zq_map_table(&mw->m, g, guest_of(mw, c)) : 0;
        if (rc == 0)
            rc = zq_map_slice(&mw->m, g, guest_of(mw, c), &s);
        if (rc == 0)
            rc = zq_cache_writable(&mw->w.cache, g, s, NULL);
        if (rc != ZQ_WAIT)
            break;
        wait_for(&mw->w, g);
    }
    assert_int_equal(rc, 0);
    return s;
}

static void link_some(struct map_world *mw, unsigned c, unsigned n)
{
    struct world *w = &mw->w;
    struct zq_gather g = fresh();
    struct zq_found f;
    struct zq_slice *s;

    for (unsigned k = 0; k < n; k++) {
        if (mw->host[c + k])
            return;
    }
    assert_int_equal(find(w, &g, n, &f), 0);
    n = n < f.count ? n : f.count;
    zq_alloc_take(&w->alloc, &f, n);
    zq_cache_release(&w->cache, &g);
    g = fresh();
    s = writable(mw, &g, c, true);
    expect(w, zq_map_count_empty(&mw->m, s, guest_of(mw, c), n) == n);
    zq_map_link(&mw->m, s, guest_of(mw, c), f.cluster << w->bits, n);
    zq_cache_release(&w->cache, &g);
    for (unsigned k = 0; k < n; k++)
        mw->host[c + k] = f.cluster + k;
    mw->links++;
}

/* Each call frees one contiguous range of the file, and each cluster is freed once. */
static void unlink_some(struct map_world *mw, unsigned c, unsigned n)
{
    struct world *w = &mw->w;
    uint64_t at = guest_of(mw, c), to = guest_of(mw, c + n);
    struct zq_gather g = fresh();
    struct zq_slice *s;
    uint32_t calls;

    if (!mw->m.l1.v[c / (mw->clusters / TABLES)])
        return;
    s = writable(mw, &g, c, false);
    expect(w, zq_map_check(&mw->m, s, at, to) == 0);
    for (calls = zq_map_count_runs(&mw->m, s, at, to, ZQ_LEAVE_ZEROS); at < to; calls--) {
        struct zq_freed freed = {.count = 0};
        uint64_t next = zq_map_unlink(&mw->m, s, at, to, ZQ_LEAVE_ZEROS, &freed), found = 0;

        expect(w, calls && next > at && next <= to);
        for (uint64_t k = at >> w->bits; k < next >> w->bits; k++) {
            expect(w, !mw->host[k] || mw->host[k] == freed.cluster + found);
            found += mw->host[k] != 0;
            mw->host[k] = 0;
        }
        expect(w, found == freed.count);
        at = next;
    }
    zq_cache_release(&w->cache, &g);
    mw->unlinks++;
}

static void check_extent(const struct map_world *mw, uint64_t at, uint64_t len,
                         const struct zq_extent *e)
{
    const struct world *w = &mw->w;
    uint64_t mask = ((uint64_t)1 << w->bits) - 1, first = mw->host[at >> w->bits];

    expect(w, e->len && e->len <= len);
    expect(w, e->type == (first ? ZQ_EXT_DATA : ZQ_EXT_UNALLOC));
    expect(w, !first || (e->host == (first << w->bits) + (at & mask) && zq_extent_in_place(e)));
    for (uint64_t k = at >> w->bits; k <= (at + e->len - 1) >> w->bits; k++)
        expect(w, mw->host[k] == (first ? first + (k - (at >> w->bits)) : 0));
}

/* From any byte, for any length. What is known without I/O is the same. */
static void look_up(struct map_world *mw, unsigned c, unsigned n)
{
    struct world *w = &mw->w;
    uint64_t size = (uint64_t)1 << w->bits, skew = rng_below(&w->rng, size);
    uint64_t at = guest_of(mw, c) + skew, len = 1 + rng_below(&w->rng, n * size - skew);
    struct zq_gather g = fresh();
    struct zq_extent e;
    int rc;

    zq_list_init(&g.wait.link);
    if (zq_map_peek(&mw->m, at, len, &e))
        check_extent(mw, at, len, &e);
    while ((rc = zq_map_lookup(&mw->m, &g, at, len, &e)) == ZQ_WAIT)
        wait_for(w, &g);
    assert_int_equal(rc, 0);
    check_extent(mw, at, len, &e);
    zq_cache_release(&w->cache, &g);
}

/* The bytes of the L2 tables: an offset and COPIED (bit 63), or 0. */
static void check_file(struct map_world *mw)
{
    struct world *w = &mw->w;
    unsigned per_table = mw->clusters / TABLES;

    write_back(w);
    for (unsigned c = 0; c < mw->clusters; c++) {
        uint64_t table = mw->m.l1.v[c / per_table] & ~(UINT64_C(1) << 63), v = 0;

        expect(w, table || !mw->host[c]);
        for (unsigned k = 0; table && k < 8; k++)
            v = v << 8 | w->dev.file[table + (uint64_t)c % per_table * 8 + k];
        expect(w, v == (mw->host[c] ? mw->host[c] << w->bits | UINT64_C(1) << 63 : 0));
    }
}

static void step(struct map_world *mw)
{
    unsigned c = (unsigned)rng_below(&mw->w.rng, mw->clusters);
    unsigned n = in_zone(mw, c, 1 + (unsigned)rng_below(&mw->w.rng, 9));

    switch (rng_below(&mw->w.rng, 8)) {
    case 0:
    case 1: link_some(mw, c, n); break;
    case 2: unlink_some(mw, c, n); break;
    default: look_up(mw, c, n);
    }
}

static void it_maps_what_was_linked(void **state)
{
    uint64_t first = rig_env("ZQ_SEED", 1), n = rig_env("ZQ_SEEDS", 42), links = 0, unlinks = 0;
    static struct map_world mw;

    (void)state;
    for (uint64_t seed = first; seed < first + n; seed++) {
        if (seed % 3 == 2)
            continue; /* clusters of 16 KiB: nothing new, only slow */
        begin(&mw, seed);
        for (unsigned k = 0; k < 400; k++)
            step(&mw);
        check_file(&mw);
        links += mw.links;
        unlinks += mw.unlinks;
        end(&mw);
    }
    assert_true(links && unlinks);
    printf("map: %" PRIu64 " links, %" PRIu64 " unlinks\n", links, unlinks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_maps_what_was_linked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
