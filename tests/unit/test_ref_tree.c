/* SPDX-License-Identifier: MIT */
/* check's counts of references: against a plain array, by their memory, without memory. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "check/counts.h"
#include "rig/heap_fault.h"

#define MANY    100000u
#define ALLOWED 16u /* bytes of memory for each cluster */

/* Where clusters lie: number i of a pattern, all of them different. */
typedef uint64_t pattern(uint32_t i);

static uint64_t side_by_side(uint32_t i)
{
    return i;
}
static uint64_t far_apart(uint32_t i)
{
    return (uint64_t)i * 512;
}
static uint64_t far_apart_downwards(uint32_t i)
{
    return (uint64_t)(MANY - i) << 27;
}
static uint64_t groups(uint32_t i)
{
    return (uint64_t)(i / 300) << 22 | i % 300;
}
static uint64_t end_of_everything(uint32_t i)
{
    return ((uint64_t)1 << 47) - 1 - i;
}

/* An odd factor permutes the numbers below 2^47. */
static uint64_t anywhere(uint32_t i)
{
    return (uint64_t)i * 0x5851f42d4c957f2dull & (((uint64_t)1 << 47) - 1);
}

static const struct {
    const char *name;
    pattern *at;
} patterns[] = {
    {"side by side", side_by_side},
    {"far apart", far_apart},
    {"far apart, last first", far_apart_downwards},
    {"groups", groups},
    {"from the end", end_of_everything},
    {"anywhere", anywhere},
};
#define NR_PATTERNS (sizeof(patterns) / sizeof(patterns[0]))

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Every cluster once more for each third, of a kind of its own; in the order of the pattern. */
static void add_all(struct zq_counts *c, pattern *at)
{
    for (uint32_t i = 0; i < MANY; i++) {
        unsigned before = 1234;

        assert_int_equal(zq_counts_add(c, at(i), 1 + i % 5, ZQ_KIND_L2, &before), 0);
        assert_int_equal(before, 0);
        if (i % 3)
            continue;
        assert_int_equal(zq_counts_add(c, at(i), 7, ZQ_KIND_DATA, &before), 0);
        assert_int_equal(before, ZQ_KIND_L2);
    }
}

static void expect_all(struct zq_counts *c, pattern *at, const char *name)
{
    for (uint32_t i = 0; i < MANY; i++) {
        uint32_t want = 1 + i % 5 + (i % 3 ? 0 : 7), got = zq_counts_get(c, at(i));
        unsigned kinds = i % 3 ? ZQ_KIND_L2 : ZQ_KIND_L2 | ZQ_KIND_DATA;

        if (got != want || zq_counts_kind(c, at(i)) != kinds)
            fail_msg("%s: cluster %" PRIu64 " has %" PRIu32 " references instead of %" PRIu32, name,
                     at(i), got, want);
    }
}

/* In ascending order, none twice, none left out. */
static void expect_order(struct zq_counts *c, pattern *at, const char *name)
{
    uint64_t *all = calloc(MANY, sizeof(*all)), from = 0;

    assert_non_null(all);
    for (uint32_t i = 0; i < MANY; i++)
        all[i] = at(i);
    qsort(all, MANY, sizeof(*all), compare);
    for (uint32_t i = 0; i < MANY; i++) {
        const struct zq_ref *r = zq_counts_next(c, from);

        if (!r || zq_ref_cluster(r) != all[i])
            fail_msg("%s: number %" PRIu32 " is not cluster %" PRIu64, name, i, all[i]);
        from = all[i] + 1;
    }
    assert_null(zq_counts_next(c, from));
    free(all);
}

static void test_patterns(void **state)
{
    (void)state;
    for (size_t p = 0; p < NR_PATTERNS; p++) {
        struct zq_counts c = {0};
        struct zqcow2_hooks hooks;
        struct heap heap;

        heap_init(&heap);
        hooks = heap_hooks(&heap);
        assert_int_equal(zq_hooks_init(&hooks, &hooks), 0);
        c.hooks = &hooks;
        assert_null(zq_counts_next(&c, 0));
        assert_int_equal(zq_counts_get(&c, 0), 0);
        add_all(&c, patterns[p].at);
        expect_all(&c, patterns[p].at, patterns[p].name);
        expect_order(&c, patterns[p].at, patterns[p].name);
        printf("ref tree, %s: %.1f bytes per cluster, %.2f allocations\n", patterns[p].name,
               (double)heap.peak_bytes / MANY, (double)heap.calls / MANY);
        if (heap.peak_bytes > (uint64_t)ALLOWED * MANY)
            fail_msg("%s: %" PRIu64 " bytes for %u clusters", patterns[p].name, heap.peak_bytes,
                     MANY);
        zq_counts_free(&c);
        if (heap_verdict(&heap))
            fail_msg("%s: %s", patterns[p].name, heap_verdict(&heap));
        heap_destroy(&heap);
    }
}

static void test_saturates(void **state)
{
    struct zq_counts c = {0};
    struct zqcow2_hooks hooks;

    (void)state;
    assert_int_equal(zq_hooks_init(&hooks, NULL), 0);
    c.hooks = &hooks;
    for (int i = 0; i < 3; i++)
        assert_int_equal(zq_counts_add(&c, 5, UINT32_MAX / 2, ZQ_KIND_DATA, NULL), 0);
    assert_int_equal(zq_counts_get(&c, 5), UINT32_MAX);
    zq_counts_free(&c);
}

/* Out of memory at any point: what was there stays right, nothing is lost or freed twice. */
static void test_no_memory(void **state)
{
    (void)state;
    for (uint64_t at = 1; at < 1000; at += 9) {
        struct zq_counts c = {0};
        struct zqcow2_hooks hooks;
        struct heap heap;
        uint32_t n = 0;

        heap_init(&heap);
        hooks = heap_hooks(&heap);
        assert_int_equal(zq_hooks_init(&hooks, &hooks), 0);
        c.hooks = &hooks;
        heap_plan(&heap, at, true);
        while (n < MANY && zq_counts_add(&c, anywhere(n), 1, ZQ_KIND_L2, NULL) == 0)
            n++;
        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(zq_counts_get(&c, anywhere(i)), 1);
        assert_true(n < MANY);
        zq_counts_free(&c);
        if (heap_verdict(&heap))
            fail_msg("allocation %" PRIu64 ": %s", at, heap_verdict(&heap));
        heap_destroy(&heap);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_saturates),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
