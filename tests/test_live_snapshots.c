/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of an image that other threads write. Each writer counts up in two places, first in A
 * and then in B: whatever moment a snapshot shows, B is not ahead of A, nor more than one behind.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <errno.h>
#include <zqcow2/backend.h>
#include <zqcow2/queue.h>
#include <zqcow2/simdisk.h>
#include <zqcow2/zqcow2.h>

#define WRITERS 3u
#define ROUNDS  40u
#define CLUSTER 4096u
#define PLACE   0x00fffffffffffe00ull

static struct zqcow2_image *img;
static struct zqcow2_backend *backend;
static atomic_bool stop;
static atomic_uint counted[WRITERS];

static uint64_t place(unsigned writer, unsigned b)
{
    return (2 * writer + b) * (1024 * 1024u);
}

static void put(unsigned writer, unsigned b, uint32_t n)
{
    uint8_t sector[512];

    memset(sector, 0, sizeof(sector));
    memcpy(sector, &n, sizeof(n));
    assert_int_equal(zqcow2_write(img, sector, sizeof(sector), place(writer, b), 0), 0);
}

static void *count_up(void *arg)
{
    unsigned me = *(unsigned *)arg;

    for (uint32_t n = 1; !stop; n++) {
        put(me, 0, n);
        put(me, 1, n);
        counted[me] = n;
    }
    return NULL;
}

static uint64_t be(uint64_t at, unsigned n)
{
    uint8_t raw[8];
    uint64_t v = 0;

    assert_int_equal(zqcow2_backend_read(backend, raw, n, at), 0);
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | raw[i];
    return v;
}

/* By the bytes of the file: L1, L2, cluster. */
static uint32_t held(uint64_t l1, uint64_t at)
{
    uint64_t span = (uint64_t)CLUSTER * CLUSTER / 8, l2 = be(l1 + at / span * 8, 8) & PLACE;
    uint64_t data = l2 ? be(l2 + at / CLUSTER % (CLUSTER / 8) * 8, 8) & PLACE : 0;
    uint32_t n = 0;

    if (data)
        assert_int_equal(zqcow2_backend_read(backend, &n, sizeof(n), data + at % CLUSTER), 0);
    return n;
}

/* Of the first snapshot, which nothing can change while it is there. */
static void judge(unsigned round)
{
    uint64_t l1 = be(be(64, 8), 8);

    assert_int_equal(be(60, 4), 1);
    for (unsigned i = 0; i < WRITERS; i++) {
        uint32_t a = held(l1, place(i, 0)), b = held(l1, place(i, 1));

        if (a != b && a != b + 1)
            fail_msg("round %u, writer %u: A %u, B %u", round, i, a, b);
    }
}

static void check(void)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;

    assert_int_equal(zqcow2_check(backend, NULL, &res, NULL), 0);
    assert_int_equal(res.corruptions, 0);
    assert_int_equal(res.leaked_clusters, 0);
}

/* Until every writer has got on: each must write behind the gate, and in new clusters. */
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

static void take_and_delete(unsigned round)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;

    s.name = "now";
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), 0);
    let_them_write();
    judge(round);
    assert_int_equal(zqcow2_snapshot_delete(img, "now", NULL), 0);
    let_them_write();
}

static void a_snapshot_is_of_one_moment(void **state)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    unsigned number[WRITERS];
    pthread_t thread[WRITERS];

    (void)state;
    how.virtual_size = 8u << 20;
    how.cluster_size = CLUSTER;
    opt.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_BORROW;
    assert_int_equal(zqcow2_mem_open(0, NULL, &backend), 0);
    assert_int_equal(zqcow2_create(backend, &how, NULL), 0);
    assert_int_equal(zqcow2_open(backend, &opt, &img, NULL), 0);
    for (unsigned i = 0; i < WRITERS; i++) {
        number[i] = i;
        assert_int_equal(pthread_create(&thread[i], NULL, count_up, &number[i]), 0);
    }
    for (unsigned i = 0; i < ROUNDS; i++)
        take_and_delete(i);
    stop = true;
    for (unsigned i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    assert_int_equal(zqcow2_close(img), 0);
    check();
    zqcow2_backend_close(backend);
}

/* Whose disk would they change? An asynchronous backend does nothing before it is asked. */
static void none_is_applied_under_requests(void **state)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    static uint8_t bytes[2 * CLUSTER];
    struct iovec iov = {bytes, CLUSTER};
    struct zqcow2_request req = {.size = sizeof(req), .op = ZQCOW2_OP_WRITE, .iov = &iov};
    struct zqcow2_simdisk *disk;
    struct zqcow2_queue *q;
    struct zqcow2_error err;

    (void)state;
    how.virtual_size = 1u << 20;
    how.cluster_size = CLUSTER;
    d.flags = ZQCOW2_SIMDISK_ASYNC;
    opt.flags = ZQCOW2_OPEN_RDWR;
    s.name = "zeros";
    assert_int_equal(zqcow2_simdisk_new(&d, &disk), 0);
    assert_int_equal(zqcow2_simdisk_backend(disk, &backend), 0);
    assert_int_equal(zqcow2_create(backend, &how, NULL), 0);
    assert_int_equal(zqcow2_open(backend, &opt, &img, NULL), 0);
    assert_int_equal(zqcow2_queue_open(img, 4, &q), 0);
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), 0);
    memset(bytes, 0xaa, CLUSTER);
    req.iovcnt = 1;
    assert_int_equal(zqcow2_queue_submit(q, &req, 1), 1);
    assert_int_equal(zqcow2_snapshot_apply(img, "zeros", &err), -EBUSY);
    assert_string_equal(err.text, "requests are in progress");
    while (zqcow2_queue_pending(q))
        assert_true(zqcow2_queue_wait(q, 1, -1) >= 0);
    assert_int_equal(zqcow2_read(img, bytes + CLUSTER, CLUSTER, 0), 0);
    assert_memory_equal(bytes, bytes + CLUSTER, CLUSTER);
    assert_int_equal(zqcow2_snapshot_apply(img, "zeros", &err), 0);
    assert_int_equal(zqcow2_read(img, bytes + CLUSTER, CLUSTER, 0), 0);
    memset(bytes, 0, CLUSTER);
    assert_memory_equal(bytes, bytes + CLUSTER, CLUSTER);
    assert_int_equal(zqcow2_queue_close(q), 0);
    assert_int_equal(zqcow2_close(img), 0);
    zqcow2_simdisk_free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_snapshot_is_of_one_moment),
        cmocka_unit_test(none_is_applied_under_requests),
    };

    return cmocka_run_group_tests_name("live_snapshots", tests, NULL, NULL);
}
