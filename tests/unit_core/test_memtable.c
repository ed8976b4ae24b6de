/* SPDX-License-Identifier: MIT */
/*
 * A table in memory against an array and a file: what a round that ends well has written is what
 * the table holds, and what a stopped one took is written by the next. ZQ_SEED, ZQ_SEEDS.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "qcow2/memtable.h"
#include "rig/heap_fault.h"
#include "rig/rig.h"

#define MOST    1000u
#define AT      UINT64_C(0x30000)
#define SECTORS (MOST * 8 / 512 + 1)

struct world {
    uint64_t seed, rng, written;
    struct heap heap;
    struct zqcow2_hooks hooks;
    struct zq_memtable t;
    uint64_t holds[MOST];  /* what each entry has to be */
    bool changed[SECTORS]; /* since the last round that ended well */
    uint8_t file[SECTORS * 512];
};

#define expect(w, cond) \
    do { \
        if (!(cond)) \
            fail_msg("ZQ_SEED=%" PRIu64 " ZQ_SEEDS=1: %s", (w)->seed, #cond); \
    } while (0)

static uint64_t in_file(const struct world *w, uint64_t i)
{
    uint64_t v = 0;

    for (unsigned k = 0; k < 8; k++)
        v = v << 8 | w->file[i * 8 + k];
    return v;
}

static void begin(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof(*w));
    w->seed = w->rng = seed;
    heap_init(&w->heap);
    w->hooks = heap_hooks(&w->heap);
    assert_int_equal(
        zq_memtable_open(&w->t, &w->hooks, 1 + rng_below(&w->rng, seed % 2 ? 9 : MOST), AT), 0);
    assert_int_equal(zq_memtable_index(&w->t), 0);
}

static void end(struct world *w)
{
    zq_memtable_close(&w->t);
    zq_memtable_close(&w->t); /* again: nothing */
    assert_null(heap_verdict(&w->heap));
    heap_destroy(&w->heap);
}

/* No two entries name the same cluster, so that the index has one answer. */
static void change_one(struct world *w)
{
    uint64_t i = rng_below(&w->rng, w->t.entries);
    uint64_t v = rng_below(&w->rng, 4) ? (rng_below(&w->rng, 1000) * MOST + i + 1) << 16 : 0;
    uint64_t old = w->holds[i];
    uint32_t hit = UINT32_MAX;

    zq_memtable_set(&w->t, i, v);
    w->holds[i] = v;
    w->changed[i / 64] = true;
    expect(w, w->t.is_dirty && w->t.v[i] == v);
    expect(w, !v || (zq_index_hit(&w->t.index, w->t.v, v, 65536, &hit) && hit == i));
    expect(w, !old || old == v || !zq_index_hit(&w->t.index, w->t.v, old, 65536, NULL));
}

/* One piece: contiguous, only sectors that have changed. False: there is none left. */
static bool write_piece(struct world *w, uint64_t *cursor)
{
    uint8_t buf[2048];
    uint32_t max = 512u << rng_below(&w->rng, 3);
    uint64_t at, n = zq_memtable_compose(&w->t, cursor, buf, max, &at);

    if (!n)
        return false;
    expect(w, n <= max && n % 512 == 0 && at >= AT && at % 512 == 0);
    expect(w, at + n <= AT + (w->t.entries * 8 + 511) / 512 * 512);
    for (uint64_t s = (at - AT) / 512; s < (at - AT + n) / 512; s++)
        expect(w, w->changed[s]);
    memcpy(w->file + (at - AT), buf, (size_t)n);
    w->written++;
    return true;
}

static void check_file(const struct world *w)
{
    for (uint64_t i = 0; i < w->t.entries; i++)
        expect(w, in_file(w, i) == w->holds[i]);
    for (uint64_t i = w->t.entries; i % 64; i++)
        expect(w, in_file(w, i) == 0);
}

/* Writes all of it, or stops before, between or behind the pieces. */
static void one_round(struct world *w, bool stops)
{
    uint64_t cursor = 0, pieces = stops ? rng_below(&w->rng, 6) : UINT64_MAX;
    bool dirty = w->t.is_dirty;

    zq_memtable_freeze(&w->t);
    expect(w, w->t.frozen == dirty && !w->t.is_dirty);
    while (dirty && pieces-- && write_piece(w, &cursor))
        ;
    if (stops) {
        zq_memtable_stop(&w->t);
        expect(w, !w->t.frozen && w->t.is_dirty == dirty);
        return;
    }
    if (dirty)
        zq_memtable_thaw(&w->t);
    memset(w->changed, 0, sizeof(w->changed));
    expect(w, !w->t.frozen && !w->t.is_dirty);
    check_file(w);
}

static void the_file_has_what_the_table_holds(void **state)
{
    uint64_t first = rig_env("ZQ_SEED", 1), n = rig_env("ZQ_SEEDS", 60), pieces = 0;
    static struct world w;

    (void)state;
    for (uint64_t seed = first; seed < first + n; seed++) {
        begin(&w, seed);
        for (unsigned k = 0; k < 60; k++) {
            for (uint64_t c = rng_below(&w.rng, 12); c; c--)
                change_one(&w);
            one_round(&w, rng_below(&w.rng, 3) == 0);
        }
        one_round(&w, false);
        pieces += w.written;
        end(&w);
    }
    assert_true(pieces > n);
    printf("memtable: %" PRIu64 " histories, %" PRIu64 " pieces written\n", n, pieces);
}

/* Without memory there is no table, and nothing is left behind. */
static void no_memory(void **state)
{
    (void)state;
    for (unsigned k = 1; k <= 3; k++) {
        struct zq_memtable t;
        struct zqcow2_hooks hooks;
        struct heap heap;
        int rc;

        heap_init(&heap);
        hooks = heap_hooks(&heap);
        heap_plan(&heap, k, false);
        rc = zq_memtable_open(&t, &hooks, 100, AT);
        if (rc == 0)
            rc = zq_memtable_index(&t);
        assert_int_equal(rc, -ENOMEM);
        zq_memtable_close(&t);
        assert_null(heap_verdict(&heap));
        heap_destroy(&heap);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_has_what_the_table_holds),
        cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
