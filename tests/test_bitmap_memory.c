/* SPDX-License-Identifier: MIT */
/*
 * A lack of memory at every allocation of a call that concerns bitmaps: another size, a snapshot
 * that is applied, a bitmap that is cleared, added or removed, and the calls that read them. What
 * fails leaves the device and its bitmaps as they were; nothing is lost, and no cluster leaks.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/backend.h>
#include <zqcow2/bitmap.h>
#include <zqcow2/zqcow2.h>

#define CLUSTER 512u
#define SIZE    (3u << 20) /* of nodes of 2 MiB: the end lies within the second one */
#define ZONE    (1u << 20)

enum change { GROW, SHRINK, APPLY, CLEAR, LIST, RANGES, ADD, REMOVE, DISABLE, CHANGES };

static struct zqcow2_backend *backend;
static struct zqcow2_image *img;
static uint64_t held; /* bytes */
static unsigned left; /* allocations until one fails; 0: none does */
static bool struck;

static void *take(void *ctx, size_t align, size_t size)
{
    (void)ctx;
    if (left && --left == 0) {
        struck = true;
        return NULL;
    }
    held += size;
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void give(void *ctx, void *p, size_t size)
{
    (void)ctx;
    held -= p ? size : 0;
    free(p);
}

static void open_image(void)
{
    struct zqcow2_hooks hooks = ZQCOW2_HOOKS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;

    hooks.alloc = take;
    hooks.free = give;
    opt.hooks = &hooks;
    opt.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_BORROW;
    assert_int_equal(zqcow2_open(backend, &opt, &img, NULL), 0);
}

/* Two bitmaps, one of which is disabled, with marks in the file and in memory. */
static void make(bool zoned)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    static const uint8_t data[512];

    how.virtual_size = SIZE;
    how.cluster_size = CLUSTER;
    how.zone_size = zoned ? ZONE : 0;
    s.name = "s";
    assert_int_equal(zqcow2_mem_open(0, NULL, &backend), 0);
    assert_int_equal(zqcow2_create(backend, &how, NULL), 0);
    open_image();
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), 0);
    assert_int_equal(zqcow2_bitmap_add(img, "a", 512, 0, NULL), 0);
    assert_int_equal(zqcow2_bitmap_add(img, "b", 4096, 0, NULL), 0);
    assert_int_equal(zqcow2_write(img, data, 512, 0, 0), 0);
    assert_int_equal(zqcow2_close(img), 0);
    open_image();
    assert_int_equal(zqcow2_bitmap_disable(img, "b", NULL), 0);
    assert_int_equal(zqcow2_write(img, data, 512, 512, 0), 0);
}

static void ignore(void *arg, const struct zqcow2_bitmap *b)
{
    (void)arg;
    (void)b;
}

static int change(enum change what)
{
    struct zqcow2_dirty_range r[4];
    uint32_t nr = 4;

    switch (what) {
    case LIST: return zqcow2_bitmap_list(img, ignore, NULL, NULL);
    case RANGES: return zqcow2_bitmap_ranges(img, "b", 0, r, &nr, NULL);
    case ADD: return zqcow2_bitmap_add(img, "c", 0, ZQCOW2_BITMAP_ADD_DISABLED, NULL);
    case REMOVE: return zqcow2_bitmap_remove(img, "a", NULL);
    case DISABLE: return zqcow2_bitmap_disable(img, "a", NULL);
    case GROW: return zqcow2_resize(img, 8u << 20, 0, NULL);
    case SHRINK: return zqcow2_resize(img, 2u << 20, ZQCOW2_RESIZE_SHRINK, NULL);
    case APPLY: return zqcow2_snapshot_apply(img, "s", NULL);
    default: return zqcow2_bitmap_clear(img, "a", NULL);
    }
}

static void add(void *sum, const struct zqcow2_bitmap *b)
{
    assert_false(b->flags & ZQCOW2_BITMAP_INCONSISTENT);
    *(uint64_t *)sum += b->name[0] == 'a' ? b->dirty_bytes : b->dirty_bytes << 32;
}

/* What of both is marked, in one number. */
static uint64_t marked(void)
{
    uint64_t sum = 0;

    assert_int_equal(zqcow2_bitmap_list(img, add, &sum, NULL), 0);
    return sum;
}

static uint64_t wanted(enum change what, bool before)
{
    uint64_t b = (uint64_t)4096 << 32, all = SIZE;

    if (before)
        return b + 1024;
    switch (what) {
    case GROW: return b + 1024 + ((uint64_t)(5u << 20) << 32) + (5u << 20);
    case SHRINK: return b + 1024;
    case APPLY: return b + all;
    case LIST:
    case RANGES:
    case ADD:
    case DISABLE: return b + 1024;
    default: return b;
    }
}

/* True: an allocation has failed. */
static bool fail_at(bool zoned, enum change what, unsigned nth)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    int rc;

    make(zoned);
    left = nth;
    struck = false;
    rc = change(what);
    left = 0;
    if (rc != 0 && rc != -ENOMEM)
        fail_msg("change %u of a %s image, allocation %u: %d", what, zoned ? "zoned" : "plain", nth,
                 rc);
    assert_true(rc == 0 || struck);
    assert_true(marked() == wanted(what, rc != 0));
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(held, 0);
    open_image();
    assert_true(marked() == wanted(what, rc != 0));
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(zqcow2_check(backend, NULL, &res, NULL), 0);
    assert_int_equal(res.corruptions, 0);
    assert_int_equal(res.leaked_clusters, 0);
    zqcow2_backend_close(backend);
    return struck;
}

static void every_allocation(void **state)
{
    unsigned failed = 0;

    (void)state;
    for (unsigned i = 0; i < 2 * CHANGES; i++) {
        for (unsigned nth = 1; fail_at(i % 2, (enum change)(i / 2), nth); nth++)
            failed++;
    }
    assert_true(failed > 2 * CHANGES);
    printf("bitmap_memory: %u allocations failed, 0 marks lost\n", failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
