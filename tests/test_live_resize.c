/* SPDX-License-Identifier: MIT */
/*
 * An image that grows and shrinks while other threads write it. Each writer has one place that is
 * never cut off, which always holds what was last written, and one that comes and goes: what it
 * reads there is what it wrote, or zeros, or that no such place exists. A bitmap has a mark for
 * each place that was written since it was cleared, and for all that is new of the device.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/backend.h>
#include <zqcow2/bitmap.h>
#include <zqcow2/zqcow2.h>

#define WRITERS 3u
#define ROUNDS  60u
#define CLUSTER 1024u /* a table of L2 maps 128 KiB */
#define SMALL   (64u * 1024)
#define LARGE   (640u * 1024)

static struct zqcow2_image *img;
static struct zqcow2_backend *backend;
static atomic_bool stop;
static atomic_uint counted[WRITERS], refused;

static uint32_t get(uint64_t at, int *rc)
{
    uint8_t sector[512];
    uint32_t n;

    *rc = zqcow2_read(img, sector, sizeof(sector), at);
    memcpy(&n, sector, sizeof(n));
    return *rc == 0 ? n : 0;
}

static int put(uint64_t at, uint32_t n)
{
    uint8_t sector[512];

    memset(sector, 0, sizeof(sector));
    memcpy(sector, &n, sizeof(n));
    return zqcow2_write(img, sector, sizeof(sector), at, 0);
}

/* Where the device ends now; refused where it ends before. */
static void try_upper(uint64_t at, uint32_t n)
{
    int rc = put(at, n);
    uint32_t got;

    if (rc == -EINVAL) {
        refused++;
        return;
    }
    assert_int_equal(rc, 0);
    got = get(at, &rc);
    assert_true(rc == -EINVAL || (rc == 0 && (got == n || got == 0)));
}

static void *count_up(void *arg)
{
    unsigned me = *(unsigned *)arg;
    uint64_t low = me * 4 * CLUSTER, up = SMALL + 512 + me * 150 * 1024;
    int rc;

    for (uint32_t n = 1; !stop; n++) {
        assert_int_equal(put(low, n), 0);
        try_upper(up + n % 40 * CLUSTER, n);
        assert_int_equal(get(low, &rc), n);
        assert_int_equal(rc, 0);
        counted[me] = n;
    }
    return NULL;
}

/* Until every writer has got on. */
static void let_them_write(void)
{
    unsigned before[WRITERS];

    for (unsigned i = 0; i < WRITERS; i++)
        before[i] = counted[i];
    for (unsigned i = 0; i < WRITERS; i++) {
        while (counted[i] == before[i])
            assert_int_equal(zqcow2_flush(img), 0);
    }
}

static void is_marked(uint64_t from, uint64_t end)
{
    struct zqcow2_dirty_range r;
    uint32_t nr = 1;

    assert_int_equal(zqcow2_bitmap_ranges(img, "b", from, &r, &nr, NULL), 0);
    assert_int_equal(nr, 1);
    assert_int_equal(r.offset, from);
    assert_true(r.length >= end - from);
}

/* Whatever the writers do meanwhile, as they do while the bitmap is cleared. */
static void resize(uint64_t size)
{
    struct zqcow2_info before = ZQCOW2_INFO_INIT, info = ZQCOW2_INFO_INIT;

    assert_int_equal(zqcow2_get_info(img, &before), 0);
    assert_int_equal(zqcow2_bitmap_clear(img, "b", NULL), 0);
    assert_int_equal(zqcow2_resize(img, size, ZQCOW2_RESIZE_SHRINK, NULL), 0);
    if (size > before.virtual_size)
        is_marked(before.virtual_size, size);
    assert_int_equal(zqcow2_get_info(img, &info), 0);
    assert_int_equal(info.virtual_size, size);
    let_them_write();
    let_them_write(); /* the first one may have been under way before the bitmap was cleared */
    for (unsigned i = 0; i < WRITERS; i++)
        is_marked(i * 4 * CLUSTER, i * 4 * CLUSTER + 512);
}

static void make(bool threads)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *memory;

    how.virtual_size = SMALL;
    how.cluster_size = CLUSTER;
    opt.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_BORROW;
    assert_int_equal(zqcow2_mem_open(0, NULL, &memory), 0);
    backend = memory;
    if (threads)
        assert_int_equal(zqcow2_threads_wrap(memory, 2, NULL, &backend), 0);
    assert_int_equal(zqcow2_create(backend, &how, NULL), 0);
    assert_int_equal(zqcow2_open(backend, &opt, &img, NULL), 0);
    assert_int_equal(zqcow2_bitmap_add(img, "b", 512, 0, NULL), 0);
}

static void sizes_come_and_go(bool threads)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    unsigned number[WRITERS];
    pthread_t thread[WRITERS];

    make(threads);
    stop = false;
    refused = 0;
    for (unsigned i = 0; i < WRITERS; i++) {
        number[i] = i;
        assert_int_equal(pthread_create(&thread[i], NULL, count_up, &number[i]), 0);
    }
    for (unsigned i = 0; i < ROUNDS; i++)
        resize(i % 2 ? SMALL + i * 512 : LARGE - i * 512);
    stop = true;
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(zqcow2_check(backend, NULL, &res, NULL), 0);
    assert_int_equal(res.corruptions, 0);
    assert_int_equal(res.leaked_clusters, 0);
    zqcow2_backend_close(backend);
    assert_true(refused > 0);
    printf("live resize: %u sizes, every writer wrote at each of them\n", ROUNDS);
}

static void by_calls(void **state)
{
    (void)state;
    sizes_come_and_go(false);
}

static void by_threads(void **state)
{
    (void)state;
    sizes_come_and_go(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_calls),
        cmocka_unit_test(by_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
