/* SPDX-License-Identifier: MIT */
/*
 * A refcount table in a new place, against the format: every cluster has the count that it must
 * have, and no smaller table would do. ZQ_SEED, ZQ_SEEDS.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "format/reftable.h"
#include "rig/rig.h"

#define LIMIT (UINT64_C(8) << 20) /* bytes of a table */

struct world {
    uint64_t seed, rng;
    struct zq_reftable t;
    uint64_t least; /* entries that were asked for */
    uint64_t cluster, per_block;
};

#define expect(w, cond) \
    do { \
        if (!(cond)) \
            fail_msg("ZQ_SEED=%" PRIu64 " ZQ_SEEDS=1 (clusters of %" PRIu64 "): %s", (w)->seed, \
                     (w)->cluster, #cond); \
    } while (0)

static void begin(struct world *w, uint64_t seed)
{
    struct zq_reftable *t = &w->t;

    *w = (struct world){.seed = seed, .rng = seed};
    t->cluster_bits = 9 + (uint32_t)rng_below(&w->rng, 5);
    t->order = (uint32_t)rng_below(&w->rng, 7);
    w->cluster = UINT64_C(1) << t->cluster_bits;
    w->per_block = w->cluster * 8 >> t->order;
    t->base = rng_below(&w->rng, rng_below(&w->rng, 2) ? 4 : 3 * w->per_block);
    t->behind = rng_below(&w->rng, rng_below(&w->rng, 2) ? 3 : 2 * w->per_block);
    t->spare = rng_below(&w->rng, 3);
    t->entries = w->least = rng_below(&w->rng, 500);
}

static uint64_t clusters_for(const struct world *w, uint64_t entries)
{
    return (entries * 8 + w->cluster - 1) / w->cluster;
}

/* Would `own` blocks count themselves, the table and what is behind? */
static bool enough(const struct world *w, uint64_t own)
{
    const struct zq_reftable *t = &w->t;
    uint64_t first = t->base / w->per_block;
    uint64_t entries = first + own > w->least ? first + own : w->least;
    uint64_t end = t->base + clusters_for(w, entries) + t->others + own + t->behind + t->spare;

    return end <= (first + own) * w->per_block;
}

static uint64_t bits_at(const uint8_t *p, uint32_t order, uint64_t i)
{
    uint64_t v = 0;

    if (order < 3)
        return (uint64_t)p[(i << order) / 8] >> ((i << order) % 8) & ((1u << (1u << order)) - 1);
    for (unsigned k = 0; k < 1u << (order - 3); k++)
        v = v << 8 | p[(i << (order - 3)) + k];
    return v;
}

static uint64_t be64_at(const uint8_t *p)
{
    return bits_at(p, 6, 0);
}

/* In pieces of any size, into memory that is not zeros. */
static uint8_t *composed(struct world *w, const uint64_t *kept)
{
    uint64_t n = zq_reftable_bytes(&w->t), len;
    uint8_t *all = malloc((size_t)n);

    assert_non_null(all);
    memset(all, 0xa5, (size_t)n);
    for (uint64_t at = 0; at < n; at += len) {
        len = 512 * (1 + rng_below(&w->rng, 40));
        len = len < n - at ? len : n - at;
        zq_reftable_compose(&w->t, kept, at, all + at, len);
    }
    return all;
}

static void check_entries(const struct world *w, const uint8_t *all, const uint64_t *kept)
{
    const struct zq_reftable *t = &w->t;
    uint64_t at = (t->base + clusters_for(w, t->entries)) * w->cluster;

    for (uint64_t i = 0; i < t->entries; i++) {
        uint64_t v = be64_at(all + i * 8);

        if (i < t->first)
            expect(w, v == kept[i]);
        else if (i < t->first + t->own)
            expect(w, v == at + (i - t->first) * w->cluster);
        else
            expect(w, v == 0);
    }
}

/* 1 for every cluster from the first block's range to the end of what is in use, then 0. */
static void check_counts(const struct world *w, const uint8_t *all)
{
    const struct zq_reftable *t = &w->t;
    const uint8_t *blocks = all + clusters_for(w, t->entries) * w->cluster;
    uint64_t end = t->base + clusters_for(w, t->entries) + t->own + t->behind;

    for (uint64_t i = 0; i < t->own * w->per_block; i++) {
        uint64_t cluster = t->first * w->per_block + i;

        expect(w, bits_at(blocks, t->order, i) == (cluster < end));
    }
}

static void it_counts_itself(void **state)
{
    uint64_t first = rig_env("ZQ_SEED", 1), n = rig_env("ZQ_SEEDS", 300), grown = 0;
    uint64_t kept[2000];

    (void)state;
    for (uint64_t i = 0; i < 2000; i++)
        kept[i] = i % 3 ? i << 21 : 0;
    for (uint64_t seed = first; seed < first + n; seed++) {
        struct world w;
        uint8_t *all;

        begin(&w, seed);
        assert_int_equal(zq_reftable_plan(&w.t), 0);
        expect(&w, enough(&w, w.t.own) && w.t.first == w.t.base / w.per_block);
        for (uint64_t own = 1; own < w.t.own; own++)
            expect(&w, !enough(&w, own));
        expect(&w, w.t.entries >= w.least && w.t.entries * 8 % w.cluster == 0);
        expect(&w, zq_reftable_end(&w.t) == w.t.base + clusters_for(&w, w.t.entries) + w.t.own);
        grown += w.t.own > 1;
        all = composed(&w, kept);
        check_entries(&w, all, kept);
        check_counts(&w, all);
        free(all);
    }
    assert_true(n < 100 || grown > n / 8);
    printf("refcount tables: %" PRIu64 ", of more than one block: %" PRIu64 "\n", n, grown);
}

/* What is written for earlier ranges lies in front, and is counted by size only. */
static void others_lie_in_front(void **state)
{
    struct zq_reftable t = {9, 4, .base = 256 * 5 + 200, .others = 50};

    (void)state;
    assert_int_equal(zq_reftable_plan(&t), 0);
    assert_int_equal(t.first, 5);
    assert_int_equal(t.own, 1); /* 200 + 1 + 50 + 1 of 256 */
    assert_int_equal(zq_reftable_entry(&t, NULL, 5), (256 * 5 + 200 + 1 + 50) * 512);
    t.others = 55;
    t.entries = 0;
    assert_int_equal(zq_reftable_plan(&t), 0);
    assert_int_equal(t.own, 2);
    assert_int_equal(zq_reftable_end(&t), 256 * 5 + 200 + 1 + 55 + 2);
}

/* The largest table of the format, and one that would be larger. */
static void the_limit_of_the_format(void **state)
{
    const uint64_t most = LIMIT / 8;

    (void)state;
    for (uint32_t bits = 9; bits <= 21; bits++) {
        uint64_t per_block = UINT64_C(1) << (bits + 3 - 4);
        struct zq_reftable t = {bits, 4, .base = (most - 256) * per_block, .entries = most};

        assert_int_equal(zq_reftable_plan(&t), 0);
        assert_int_equal(t.entries, most);
        t = (struct zq_reftable){bits, 4, .base = (most - 1) * per_block, .spare = per_block};
        assert_int_equal(zq_reftable_plan(&t), -EFBIG);
        t = (struct zq_reftable){bits, 4, .base = most * per_block};
        assert_int_equal(zq_reftable_plan(&t), -EFBIG);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_counts_itself),
        cmocka_unit_test(others_lie_in_front),
        cmocka_unit_test(the_limit_of_the_format),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
