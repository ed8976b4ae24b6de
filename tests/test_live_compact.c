/* SPDX-License-Identifier: MIT */
/*
 * Zones that are compressed while other threads fill them, read them and reset them. The owner of a
 * zone always reads what it wrote in the zone's present life. A reader of zones that are only
 * compressed always reads the same.
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
#include <zqcow2/change.h>
#include <zqcow2/backend.h>

#define OWNERS  3u /* each has one zone */
#define COLD    2u /* zones that nobody resets */
#define PACKERS 2u
#define LIVES   40u
#define READS   12u
#define CLUSTER 4096u
#define ZONE    (16u * CLUSTER)

static struct zqcow2_image *img;
static struct zqcow2_backend *backend;
static atomic_bool stop;
static atomic_uint lives, reads;
static atomic_ullong compressed;

/* What sector number i of a zone has in its life n; one cluster in four does not get smaller. */
static void fill_sector(uint8_t *sector, uint64_t i, uint32_t n)
{
    uint32_t x = n * 2654435761u + (uint32_t)i;

    memset(sector, (int)(n + i / 8), 512);
    for (unsigned k = 0; i / 8 % 4 == 3 && k < 512; k++)
        sector[k] = (uint8_t)((x = x * 1664525u + 1013904223u) >> 24);
    memcpy(sector, &n, sizeof(n));
}

static void fill(uint8_t *buf, uint32_t n)
{
    for (uint64_t i = 0; i < ZONE / 512; i++)
        fill_sector(buf + i * 512, i, n);
}

static void reads_as(uint32_t zone, const uint8_t *want)
{
    static _Thread_local uint8_t got[ZONE];

    assert_int_equal(zqcow2_read(img, got, ZONE, (uint64_t)zone * ZONE), 0);
    assert_memory_equal(got, want, ZONE);
    reads++;
}

static void *live(void *arg)
{
    static _Thread_local uint8_t want[ZONE];
    uint32_t zone = *(uint32_t *)arg;

    for (uint32_t n = 1; n <= LIVES; n++) {
        fill(want, n * 8 + zone);
        assert_int_equal(zqcow2_zone_reset(img, (uint64_t)zone * ZONE, ZONE, 0), 0);
        if (n % 4 == 0) { /* not to its end: it is finished */
            memset(want + ZONE / 2, 0, ZONE / 2);
            assert_int_equal(zqcow2_write(img, want, ZONE / 2, (uint64_t)zone * ZONE, 0), 0);
            assert_int_equal(zqcow2_zone_finish(img, (uint64_t)zone * ZONE, ZONE, 0), 0);
        } else {
            assert_int_equal(zqcow2_write(img, want, ZONE, (uint64_t)zone * ZONE, 0), 0);
        }
        for (unsigned i = 0; i < READS; i++)
            reads_as(zone, want);
        lives++;
    }
    return NULL;
}

static void *look(void *arg)
{
    static _Thread_local uint8_t want[COLD][ZONE];

    (void)arg;
    for (uint32_t i = 0; i < COLD; i++)
        fill(want[i], 1000 + i);
    for (uint32_t i = 0; !stop; i++)
        reads_as(OWNERS + i % COLD, want[i % COLD]);
    return NULL;
}

static void *pack(void *arg)
{
    (void)arg;
    while (!stop) {
        struct zqcow2_compact_result r = ZQCOW2_COMPACT_RESULT_INIT;

        assert_int_equal(zqcow2_compact(img, NULL, &r, NULL), 0);
        compressed += r.compressed;
    }
    return NULL;
}

static void make(bool threads)
{
    static uint8_t want[ZONE];
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *memory;

    how.virtual_size = (uint64_t)(OWNERS + COLD) * ZONE;
    how.cluster_size = CLUSTER;
    how.zone_size = ZONE;
    opt.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_BORROW;
    assert_int_equal(zqcow2_mem_open(0, NULL, &memory), 0);
    backend = memory;
    if (threads)
        assert_int_equal(zqcow2_threads_wrap(memory, 2, NULL, &backend), 0);
    assert_int_equal(zqcow2_create(backend, &how, NULL), 0);
    assert_int_equal(zqcow2_open(backend, &opt, &img, NULL), 0);
    for (uint32_t i = 0; i < COLD; i++) {
        fill(want, 1000 + i);
        assert_int_equal(zqcow2_write(img, want, ZONE, (uint64_t)(OWNERS + i) * ZONE, 0), 0);
    }
}

static void is_sound(void)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;

    assert_int_equal(zqcow2_check(backend, NULL, &res, NULL), 0);
    assert_int_equal(res.corruptions, 0);
    assert_int_equal(res.leaked_clusters, 0);
    assert_true(res.compressed_clusters > 0);
}

static void zones_live_on(bool threads)
{
    pthread_t owner[OWNERS], packer[PACKERS], reader;
    uint32_t zone[OWNERS];

    make(threads);
    stop = false;
    lives = reads = 0;
    compressed = 0;
    assert_int_equal(pthread_create(&reader, NULL, look, NULL), 0);
    for (unsigned i = 0; i < PACKERS; i++)
        assert_int_equal(pthread_create(&packer[i], NULL, pack, NULL), 0);
    for (uint32_t i = 0; i < OWNERS; i++) {
        zone[i] = i;
        assert_int_equal(pthread_create(&owner[i], NULL, live, &zone[i]), 0);
    }
    for (unsigned i = 0; i < OWNERS; i++)
        assert_int_equal(pthread_join(owner[i], NULL), 0);
    stop = true;
    for (unsigned i = 0; i < PACKERS; i++)
        assert_int_equal(pthread_join(packer[i], NULL), 0);
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_int_equal(zqcow2_compact(img, NULL, NULL, NULL), 0);
    assert_int_equal(zqcow2_close(img), 0);
    is_sound();
    zqcow2_backend_close(backend);
    assert_true(compressed > 24); /* more than there was at the beginning */
    printf("live compact: %u lives, %u reads, %llu clusters compressed, 0 differences\n",
           (unsigned)lives, (unsigned)reads, (unsigned long long)compressed);
}

static void by_calls(void **state)
{
    (void)state;
    zones_live_on(false);
}

static void by_threads(void **state)
{
    (void)state;
    zones_live_on(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_calls),
        cmocka_unit_test(by_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
