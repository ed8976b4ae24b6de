/* SPDX-License-Identifier: MIT */
/*
 * Host clusters, one rule each: what is never handed out, in what order a refcount block comes into
 * being (K1, K2, R9, R10), where runs begin, how long a search keeps the mutex.
 */
#include <errno.h>
#include "unit_core/alloc_world.h"

/* A search without a wait: everything that it needs is in the cache. */
static int find_now(struct world *w, uint32_t want, struct zq_found *f)
{
    struct zq_gather g = fresh();
    int rc = find(w, &g, want, f);

    zq_cache_release(&w->cache, &g);
    return rc;
}

/*
 * Refcount 0 is not enough: what the image names is no free cluster. The search says so where it
 * meets it, takes nothing, and goes on saying so.
 */
static void what_is_a_table_is_never_handed_out(void **state)
{
    static struct world w;

    (void)state;
    for (unsigned victim = 0; victim < USED; victim++) {
        struct zq_found f;
        bool table = victim != USED - 2; /* that one is data, and simply free */

        alloc_begin(&w, seed_of(1, 4));
        set_count(&w, w.dev.file + w.known_table[0], victim, 0);
        if (find_now(&w, 1, &f) == 0) {
            assert_false(table);
            assert_int_equal(f.cluster, victim);
            assert_false(w.alloc.corrupt);
        } else {
            assert_true(table && w.alloc.corrupt);
            assert_int_equal(w.alloc.corrupt_at, victim << w.bits);
            w.alloc.next_one = w.alloc.next_run = USED; /* behind what was wrong */
            assert_int_equal(find_now(&w, 1, &f), ZQCOW2_ECORRUPT);
            assert_int_equal(find_now(&w, 9, &f), ZQCOW2_ECORRUPT);
        }
        alloc_end(&w);
    }
}

/* Where records of snapshots say that tables lie: no error, and nobody gets them. */
static void tables_of_snapshots_are_passed_over(void **state)
{
    static struct world w;
    const uint64_t from = 20, to = 27;

    (void)state;
    for (uint32_t want = 1; want < 40; want += 19) {
        alloc_begin(&w, seed_of(0, 4));
        assert_int_equal(zq_alloc_open_areas(&w.alloc, 1), 0);
        zq_alloc_add_area(&w.alloc, from << w.bits, (to - from) << w.bits);
        zq_alloc_sort_areas(&w.alloc);
        for (unsigned k = 0; k < 80; k++) {
            struct zq_gather g = fresh();
            struct zq_found f;

            assert_int_equal(find(&w, &g, want, &f), 0);
            check_new_blocks(&w);
            if (f.cluster < to && f.cluster + f.count > from)
                fail_msg("a run of %u begins at %" PRIu64, f.count, f.cluster);
            zq_alloc_take(&w.alloc, &f, f.count);
            zq_cache_release(&w.cache, &g);
        }
        assert_false(w.alloc.corrupt);
        alloc_end(&w);
    }
}

/* Takes single clusters until the next one needs a block that is not there. */
static void fill_first_block(struct world *w)
{
    for (uint32_t c = USED; c < w->block_refs; c++) {
        struct zq_gather g = fresh();
        struct zq_found f;

        assert_int_equal(find(w, &g, 1, &f), 0);
        zq_alloc_take(&w->alloc, &f, 1);
        zq_cache_release(&w->cache, &g);
    }
    assert_null(w->alloc.refs.table.v[1]);
}

/* A block of 16 KiB is four slices, and each cluster is counted in the one where its count lies. */
static void every_slice_of_a_block_serves(void **state)
{
    static struct world w;

    (void)state;
    alloc_begin(&w, seed_of(2, 6));
    fill_first_block(&w);
    for (uint32_t c = USED; c < w.block_refs; c++)
        w.refs[c] = 1;
    check_refs(&w);
    write_back(&w);
    for (uint64_t c = 0; c < w.block_refs; c++)
        assert_int_equal(count_at(&w, w.dev.file + w.known_table[0], c), 1);
    alloc_end(&w);
}

/* Which I/O a search has started: the file made longer, zeros, then the sector that counts. */
static void a_block_is_whole_before_it_counts(void **state)
{
    static struct world w;
    struct zq_gather g = fresh(), other = fresh();
    struct zq_found f;
    uint64_t host;

    (void)state;
    alloc_begin(&w, seed_of(1, 6));
    fill_first_block(&w);
    host = (uint64_t)w.block_refs << w.bits;
    zq_list_init(&g.wait.link);
    zq_list_init(&other.wait.link);
    assert_int_equal(zq_alloc_find(&w.alloc, &g, 1, &f), ZQ_WAIT);
    assert_int_equal(fake_io(&w.x, 0)->pub.kind, ZQCOW2_IO_TRUNCATE);
    fake_complete(&w.dev, &w.x, 0, 0);
    assert_true(w.dev.length >= host + 4096);
    zq_list_del(&g.wait.link);
    zq_cache_reenter(&g);
    assert_int_equal(zq_alloc_find(&w.alloc, &g, 1, &f), ZQ_WAIT);
    assert_int_equal(zq_alloc_find(&w.alloc, &other, 1, &f), ZQ_WAIT);
    assert_int_equal(fake_started(&w.x), 1); /* one block for both */
    assert_true(fake_io(&w.x, 0)->pub.offset == host && fake_io(&w.x, 0)->pub.length == 4096);
    fake_complete(&w.dev, &w.x, 0, 0);
    assert_null(w.alloc.refs.table.v[1]);
    assert_true(zq_list_empty(&w.ready)); /* nobody may use it yet */
    assert_int_equal(count_at(&w, w.dev.file + host, 0), 0);
    assert_true(fake_io(&w.x, 0)->pub.offset == host && fake_io(&w.x, 0)->pub.length == 512);
    fake_complete(&w.dev, &w.x, 0, 0);
    assert_int_equal(count_at(&w, w.dev.file + host, 0), 1);
    zq_list_del(&g.wait.link);
    zq_list_del(&other.wait.link);
    assert_int_equal(find_now(&w, 1, &f), 0);
    assert_int_equal(f.cluster, w.block_refs + 1);
    check_new_blocks(&w);
    zq_cache_release(&w.cache, &g);
    zq_cache_release(&w.cache, &other);
    alloc_end(&w);
}

/* No space for a new block fails who waits for it, links nothing, and the next search tries again.
 */
static void a_block_without_space_is_not_linked(void **state)
{
    static struct world w;

    (void)state;
    for (unsigned at = 0; at < 3; at++) { /* the length, the zeros, the sector */
        struct zq_gather g = fresh();
        struct zq_found f;

        alloc_begin(&w, seed_of(1, 6));
        fill_first_block(&w);
        zq_list_init(&g.wait.link);
        for (unsigned k = 0; g.wait.rc == 0; k++) { /* a length is asked for until none is left */
            assert_in_range(k, 0, 20);
            if (zq_list_empty(&g.wait.link))
                assert_int_equal(zq_alloc_find(&w.alloc, &g, 1, &f), ZQ_WAIT);
            fake_complete(&w.dev, &w.x, 0, k >= at ? -ENOSPC : 0);
            if (w.ready.next == &g.wait.link) {
                zq_list_del(&g.wait.link);
                zq_cache_reenter(&g);
            }
        }
        assert_int_equal(g.wait.rc, -ENOSPC);
        zq_cache_release(&w.cache, &g);
        assert_null(w.alloc.refs.table.v[1]);
        assert_int_equal(fake_started(&w.x), 0);
        assert_int_equal(find_now(&w, 1, &f), 0);
        assert_int_equal(f.cluster, w.block_refs + 1);
        check_new_blocks(&w);
        alloc_end(&w);
    }
}

/* A round that writes the refcount table has it as it was: no block is linked meanwhile (R9). */
static void no_block_is_linked_while_the_table_is_frozen(void **state)
{
    static struct world w;
    struct zq_gather g = fresh();
    struct zq_found f;

    (void)state;
    alloc_begin(&w, seed_of(1, 6));
    fill_first_block(&w);
    zq_list_init(&g.wait.link);
    w.alloc.refs.table.frozen = true;
    assert_int_equal(zq_alloc_find(&w.alloc, &g, 1, &f), ZQ_WAIT);
    fake_run(&w.dev, &w.x);
    assert_true(zq_list_empty(&w.ready));
    assert_null(w.alloc.refs.table.v[1]);
    zq_refs_thaw(&w.alloc.refs);
    assert_ptr_equal(w.ready.next, &g.wait.link);
    zq_list_del(&g.wait.link);
    zq_cache_release(&w.cache, &g);
    assert_int_equal(find_now(&w, 1, &f), 0);
    check_new_blocks(&w);
    alloc_end(&w);
}

static void take_lowest(struct world *w)
{
    struct zq_gather g = fresh();
    struct zq_found f;

    assert_int_equal(find(w, &g, 1, &f), 0);
    for (uint64_t c = 0; c < f.cluster; c++)
        assert_int_not_equal(w->refs[c], 0);
    zq_alloc_take(&w->alloc, &f, 1);
    zq_cache_release(&w->cache, &g);
    w->refs[f.cluster] = 1;
}

/* Runs begin at a multiple of their size; little is left out for it, and serves single clusters. */
static void runs_are_aligned(void **state)
{
    static struct world w;
    uint64_t end_of_runs = 0, left = 0;

    (void)state;
    alloc_begin(&w, seed_of(1, 4));
    for (unsigned k = 0; k < 40; k++) {
        struct zq_gather g = fresh();
        struct zq_found f;

        assert_int_equal(find(&w, &g, 64, &f), 0);
        check_new_blocks(&w);
        assert_int_equal(f.count, 64);
        assert_int_equal(f.cluster % 64, 0);
        zq_alloc_take(&w.alloc, &f, 64);
        zq_cache_release(&w.cache, &g);
        for (unsigned i = 0; i < 64; i++)
            w.refs[f.cluster + i] = 1;
        end_of_runs = f.cluster + 64;
    }
    for (uint64_t c = 0; c < end_of_runs; c++)
        left += !w.refs[c];
    assert_true(left && left <= (MiB(2) >> w.bits) + end_of_runs / 16);
    for (; left; left--)
        take_lowest(&w);
    check_refs(&w);
    alloc_end(&w);
}

/* A search that finds everything taken lets others get on after 64 slices, and then goes on. */
static void a_long_search_rests(void **state)
{
    static struct world w;
    struct zq_gather g = fresh();
    struct zq_found f;
    const unsigned blocks = 100;

    (void)state;
    alloc_begin(&w, seed_of(1, 6));
    w.cache.max_slices = blocks + ZQ_MIN_SLICES;
    for (unsigned b = 0; b < blocks; b++) {
        uint64_t host = (uint64_t)(USED + b) << w.bits;

        for (unsigned i = 0; i < w.block_refs; i++)
            set_count(&w, w.dev.file + host, i, 1);
        zq_index_set(&w.alloc.refs.table.index, w.alloc.refs.table.v, b, host);
    }
    set_count(&w, w.dev.file + ((uint64_t)(USED + blocks - 1) << w.bits), 5, 0);
    w.dev.length = w.alloc.file_size = (uint64_t)w.block_refs * blocks << w.bits;
    assert_int_equal(find_now(&w, 1, &f), 0); /* loads them all */
    assert_int_equal(f.cluster, (blocks - 1) * w.block_refs + 5);
    w.alloc.next_one = 0;
    zq_list_init(&g.wait.link);
    assert_int_equal(zq_alloc_find(&w.alloc, &g, 1, &f), ZQ_WAIT);
    assert_int_equal(w.alloc.next_one, 64 * w.block_refs);
    assert_int_equal(fake_started(&w.x), 1);
    assert_int_equal(fake_io(&w.x, 0)->pub.kind, ZQ_IO_WORK);
    fake_run(&w.dev, &w.x);
    assert_ptr_equal(w.ready.next, &g.wait.link);
    zq_list_del(&g.wait.link);
    zq_cache_reenter(&g);
    assert_int_equal(zq_alloc_find(&w.alloc, &g, 1, &f), 0);
    assert_int_equal(f.cluster, (blocks - 1) * w.block_refs + 5);
    zq_cache_release(&w.cache, &g);
    alloc_end(&w);
}

/* Nothing is below 0: a count that is wrong already stays as it is. */
static void a_count_of_zero_is_not_lowered(void **state)
{
    static struct world w;
    struct zq_gather g = fresh();
    struct zq_freed f = {.cluster = USED - 2, .count = 4}; /* counted: two of them */

    (void)state;
    alloc_begin(&w, seed_of(0, 0));
    zq_list_init(&g.wait.link);
    while (zq_alloc_lower(&w.alloc, &g, &f) == ZQ_WAIT)
        wait_for(&w, &g);
    zq_cache_release(&w.cache, &g);
    w.refs[USED - 2] = w.refs[USED - 1] = 0;
    check_refs(&w);
    alloc_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_a_table_is_never_handed_out),
        cmocka_unit_test(tables_of_snapshots_are_passed_over),
        cmocka_unit_test(every_slice_of_a_block_serves),
        cmocka_unit_test(a_block_is_whole_before_it_counts),
        cmocka_unit_test(a_block_without_space_is_not_linked),
        cmocka_unit_test(no_block_is_linked_while_the_table_is_frozen),
        cmocka_unit_test(runs_are_aligned),
        cmocka_unit_test(a_long_search_rests),
        cmocka_unit_test(a_count_of_zero_is_not_lowered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
