/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of a zoned image that other threads write, append to and reset. Each writer counts in
 * two zones, first in A by writes, then in B by appends. When both are full, it resets B, then A,
 * and begins the next life. So whatever moment a snapshot shows, B has as much of the same life as
 * A, or one less, or nothing behind a full A. Another thread reads and asks for reports meanwhile.
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
#include <zqcow2/backend.h>
#include <zqcow2/zqcow2.h>

#define WRITERS  3u
#define ROUNDS   40u
#define CLUSTER  4096u
#define ZONE     65536u
#define CAPACITY 20u /* sectors */
#define ZONES    (2 * WRITERS)
#define SECTOR   512u
#define PLACE    0x00fffffffffffe00ull

static struct zqcow2_image *img;
static struct zqcow2_backend *backend;
static atomic_bool stop;
static atomic_uint counted[WRITERS];
static unsigned resets;

struct cell {
    uint32_t life, n;
};

static void put(uint32_t zone, uint32_t life, uint32_t n)
{
    const struct cell cell = {life, n};
    uint8_t sector[SECTOR] = {0};
    uint64_t at = (uint64_t)zone * ZONE;

    memcpy(sector, &cell, sizeof(cell));
    if (zone % 2)
        assert_int_equal(zqcow2_append(img, sector, SECTOR, &at, 0), 0);
    else
        assert_int_equal(zqcow2_write(img, sector, SECTOR, at + n * SECTOR, 0), 0);
}

static void *count_up(void *arg)
{
    uint32_t a = 2 * *(unsigned *)arg, b = a + 1;

    for (uint32_t life = 1; !stop; life++) {
        for (uint32_t n = 0; n < CAPACITY; n++) {
            put(a, life, n);
            put(b, life, n);
            counted[a / 2]++;
        }
        assert_int_equal(zqcow2_zone_reset(img, b * ZONE, ZONE, 0), 0);
        assert_int_equal(zqcow2_zone_reset(img, a * ZONE, ZONE, 0), 0);
    }
    return NULL;
}

static void *look(void *arg)
{
    struct zqcow2_zone zone[ZONES];
    uint8_t sector[SECTOR];

    (void)arg;
    for (uint32_t i = 0; !stop; i++) {
        uint32_t nr = ZONES;

        assert_int_equal(zqcow2_zone_report(img, 0, zone, &nr), 0);
        assert_int_equal(nr, ZONES);
        assert_int_equal(zqcow2_read(img, sector, SECTOR, i % ZONES * ZONE), 0);
    }
    return NULL;
}

/* ---- a snapshot, by the bytes of the file ---- */

static uint64_t be(uint64_t at, unsigned n)
{
    uint8_t raw[8];
    uint64_t v = 0;

    assert_int_equal(zqcow2_backend_read(backend, raw, n, at), 0);
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | raw[i];
    return v;
}

static struct cell held(uint64_t l1, uint64_t at)
{
    uint64_t span = (uint64_t)CLUSTER * CLUSTER / 8, l2 = be(l1 + at / span * 8, 8) & PLACE;
    uint64_t data = l2 ? be(l2 + at / CLUSTER % (CLUSTER / 8) * 8, 8) & PLACE : 0;
    struct cell c = {0, 0};

    if (data)
        assert_int_equal(zqcow2_backend_read(backend, &c, sizeof(c), data + at % CLUSTER), 0);
    return c;
}

/* How much the zone has, all of one life, which is *life; 0: nothing. */
static uint32_t length(uint64_t record, uint32_t zone, uint32_t *life)
{
    uint64_t l1 = be(record, 8), table = be(record + 64, 8);
    uint64_t n = (be(table + zone * 8, 8) - zone * ZONE) / SECTOR;

    *life = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct cell c = held(l1, zone * ZONE + i * SECTOR);

        if (c.n != i || (*life && c.life != *life))
            fail_msg("zone %u, sector %u of %u: number %u of life %u", zone, i, (uint32_t)n, c.n,
                     c.life);
        *life = c.life;
    }
    return (uint32_t)n;
}

static void judge(unsigned round)
{
    uint64_t record = be(64, 8);

    for (uint32_t i = 0; i < ZONES; i += 2) {
        uint32_t life_a, life_b, a = length(record, i, &life_a), b = length(record, i + 1, &life_b);
        bool behind = a == b || a == b + 1 || (a == CAPACITY && b == 0);

        if (!behind || (b && life_a != life_b))
            fail_msg("round %u, writer %u: %u of life %u, %u of life %u", round, i / 2, a, life_a,
                     b, life_b);
        resets += a == CAPACITY;
    }
}

/* ---- */

/* Each has written behind the gate, and beside what the snapshot has. */
static void let_them_write(void)
{
    unsigned before[WRITERS];

    for (unsigned i = 0; i < WRITERS; i++)
        before[i] = counted[i];
    for (unsigned i = 0; i < WRITERS; i++) {
        while (counted[i] - before[i] < CAPACITY)
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

static void check(void)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;

    assert_int_equal(zqcow2_check(backend, NULL, &res, NULL), 0);
    assert_int_equal(res.corruptions, 0);
    assert_int_equal(res.leaked_clusters, 0);
}

/* The last one is applied when all have come to rest. */
static void apply_at_rest(void)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    struct zqcow2_zone was[ZONES], is[ZONES];
    uint32_t nr = ZONES;

    s.name = "last";
    assert_int_equal(zqcow2_zone_close(img, 0, ZONES * ZONE, 0), 0);
    assert_int_equal(zqcow2_zone_report(img, 0, was, &nr), 0);
    assert_int_equal(zqcow2_snapshot_take(img, &s, NULL), 0);
    assert_int_equal(zqcow2_zone_reset(img, 0, ZONES * ZONE, 0), 0);
    assert_int_equal(zqcow2_snapshot_apply(img, "last", NULL), 0);
    assert_int_equal(zqcow2_zone_report(img, 0, is, &nr), 0);
    assert_memory_equal(was, is, sizeof(was));
}

static void a_snapshot_is_of_one_moment(void **state)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    unsigned number[WRITERS];
    pthread_t thread[WRITERS + 1];

    (void)state;
    how.virtual_size = ZONES * ZONE;
    how.zone_size = ZONE;
    how.zone_capacity = CAPACITY * SECTOR;
    how.cluster_size = CLUSTER;
    opt.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_BORROW;
    assert_int_equal(zqcow2_mem_open(0, NULL, &backend), 0);
    assert_int_equal(zqcow2_create(backend, &how, NULL), 0);
    assert_int_equal(zqcow2_open(backend, &opt, &img, NULL), 0);
    for (unsigned i = 0; i < WRITERS; i++) {
        number[i] = i;
        assert_int_equal(pthread_create(&thread[i], NULL, count_up, &number[i]), 0);
    }
    assert_int_equal(pthread_create(&thread[WRITERS], NULL, look, NULL), 0);
    for (unsigned i = 0; i < ROUNDS; i++)
        take_and_delete(i);
    stop = true;
    for (unsigned i = 0; i <= WRITERS; i++)
        assert_int_equal(pthread_join(thread[i], NULL), 0);
    apply_at_rest();
    assert_int_equal(zqcow2_close(img), 0);
    check();
    zqcow2_backend_close(backend);
    printf("live zoned snapshots: %u, of full zones %u, 0 torn\n", ROUNDS, resets);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_snapshot_is_of_one_moment)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
