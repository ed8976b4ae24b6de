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
#include <stdlib.h>
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

/* Behind an allocation lies nonsense, so a look beyond the last zone does not find old bytes. */
static size_t behind;

static void *alloc(void *ctx, size_t align, size_t size)
{
    void *p = NULL;

    (void)ctx;
    if (posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size + behind))
        return NULL;
    memset((uint8_t *)p + size, 0xa5, behind);
    return p;
}

static void release(void *ctx, void *ptr, size_t size)
{
    (void)ctx;
    memset(ptr, 0xa5, size);
    free(ptr);
}

static void make(bool threads)
{
    static uint8_t want[ZONE];
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_hooks hooks = ZQCOW2_HOOKS_INIT;
    struct zqcow2_backend *memory;

    how.virtual_size = (uint64_t)(OWNERS + COLD) * ZONE;
    how.cluster_size = CLUSTER;
    how.zone_size = ZONE;
    hooks.alloc = alloc;
    hooks.free = release;
    opt.hooks = &hooks;
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

/* ---- a device that shrinks ---- */

static void resize(uint32_t zones)
{
    const uint32_t both = ZQCOW2_RESIZE_SHRINK | ZQCOW2_RESIZE_DISCARD;

    assert_int_equal(zqcow2_resize(img, (uint64_t)zones * ZONE, both, NULL), 0);
}

static int cut_off(void *arg, uint64_t done, uint64_t total)
{
    unsigned *cuts = arg;

    assert_int_equal(total, (OWNERS + COLD) * ZONE);
    if (done >= OWNERS * ZONE && !(*cuts)++)
        resize(1);
    return 0;
}

/* What is left of the range is nobody's: neither an error nor touched. */
static void beyond_the_end(void **state)
{
    struct zqcow2_compact_options opt = ZQCOW2_COMPACT_OPTIONS_INIT;
    struct zqcow2_compact_result res = ZQCOW2_COMPACT_RESULT_INIT;
    struct zqcow2_check_result check = ZQCOW2_CHECK_RESULT_INIT;
    unsigned cuts = 0;

    (void)state;
    make(false);
    opt.progress = cut_off;
    opt.progress_arg = &cuts;
    assert_int_equal(zqcow2_compact(img, &opt, &res, NULL), 0);
    assert_int_equal(cuts, 1);
    assert_int_equal(res.clusters, 0);
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(zqcow2_check(backend, NULL, &check, NULL), 0);
    assert_int_equal(check.corruptions, 0);
    zqcow2_backend_close(backend);
}

#define FEW   4u
#define MANY  2000u
#define SIZES 150u

/* Each report is of one moment: all zones, or those of the small device. */
static void *report(void *arg)
{
    static struct zqcow2_zone zones[MANY];
    uint64_t at = (uint64_t)(FEW / 2) * ZONE;

    (void)arg;
    while (!stop) {
        uint32_t n = MANY;

        assert_int_equal(zqcow2_zone_report(img, at, zones, &n), 0);
        assert_true(n == FEW - FEW / 2 || n == MANY - FEW / 2);
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(zones[i].start, at + (uint64_t)i * ZONE);
            assert_int_equal(zones[i].state, ZQCOW2_ZONE_EMPTY);
        }
        reads++;
    }
    return NULL;
}

static void reports_of_one_moment(void **state)
{
    pthread_t reader, packer;

    (void)state;
    behind = 256u << 10; /* more than the zones of the large device take */
    make(false);
    stop = false;
    reads = 0;
    resize(1);
    resize(FEW);
    assert_int_equal(zqcow2_zone_reset(img, 0, FEW * ZONE, 0), 0);
    assert_int_equal(pthread_create(&reader, NULL, report, NULL), 0);
    assert_int_equal(pthread_create(&packer, NULL, pack, NULL), 0);
    for (unsigned i = 0; i < SIZES; i++)
        resize(i % 2 ? FEW : MANY);
    stop = true;
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_int_equal(pthread_join(packer, NULL), 0);
    assert_int_equal(zqcow2_close(img), 0);
    zqcow2_backend_close(backend);
    behind = 0;
    printf("reports: %u resizes, %u reports, 0 differences\n", SIZES, (unsigned)reads);
}

/* ---- images that cannot be compacted ---- */

static int data_in_memory(void *arg, const char *name, const char *format, uint32_t depth,
                          struct zqcow2_backend **be, struct zqcow2_error *err)
{
    (void)arg, (void)name, (void)format, (void)depth, (void)err;
    return zqcow2_mem_open(FEW * ZONE, NULL, be);
}

/* As any zone operation on an image without zones, and as a compressed write to a data file. */
static int compact_of(uint64_t zone_size, const char *data_file)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    int rc;

    how.virtual_size = FEW * ZONE;
    how.zone_size = zone_size;
    how.data_file = data_file;
    how.resolve = opt.resolve = data_in_memory;
    opt.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_mem_open(0, NULL, &backend), 0);
    assert_int_equal(zqcow2_create(backend, &how, NULL), 0);
    assert_int_equal(zqcow2_open(backend, &opt, &img, NULL), 0);
    rc = zqcow2_compact(img, NULL, NULL, NULL);
    assert_int_equal(zqcow2_close(img), 0);
    return rc;
}

static void refused(void **state)
{
    (void)state;
    assert_int_equal(compact_of(ZONE, NULL), 0);
    assert_int_equal(compact_of(0, NULL), ZQCOW2_ENOTZONED);
    assert_int_equal(compact_of(ZONE, "data"), -EOPNOTSUPP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_calls),       cmocka_unit_test(by_threads),
        cmocka_unit_test(beyond_the_end), cmocka_unit_test(reports_of_one_moment),
        cmocka_unit_test(refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
