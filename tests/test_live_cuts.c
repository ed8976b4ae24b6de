/* SPDX-License-Identifier: MIT */
/*
 * Faults on a live disk: images that lose power again and again while they are in use;
 * threads; failing memory.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <zqcow2/faults.h>
#include "rig/heap_fault.h"
#include "rig/rng.h"

#define BLOCK  512u
#define KiB(n) ((uint64_t)(n) << 10)
#define ZONE   KiB(64)
#define ZONES  16u
#define SIZE   (ZONES * ZONE)

/* ---- images ---- */

static uint8_t data[40 * BLOCK];

static void stamp(uint64_t blocks, uint64_t value)
{
    for (uint64_t i = 0; i < blocks * BLOCK; i += 8)
        memcpy(data + i, &value, 8);
}

/* The stamp of a block; UINT64_MAX: it is torn. */
static uint64_t stamp_at(const uint8_t *p)
{
    uint64_t value;

    memcpy(&value, p, 8);
    return memcmp(p, p + 8, BLOCK - 8) ? UINT64_MAX : value;
}

/* In blocks. */
struct change {
    uint64_t from, to, stamp;
};

static uint64_t cuts_wanted(void)
{
    const char *n = getenv("ZQ_CUTS");

    return n ? strtoull(n, NULL, 0) : 1000;
}

struct image {
    uint64_t seed, rng;
    bool zoned;
    struct zqcow2_faults *f;
    uint64_t fresh[SIZE / BLOCK], flushed[SIZE / BLOCK]; /* stamps: last written, and flushed */
    uint64_t wp[ZONES], flushed_wp[ZONES];               /* in blocks, from the zone's start */
    struct change since[16];                             /* writes that were not flushed */
    unsigned nr_since;
    uint64_t stamps, stopped, kept, lost; /* blocks that were written and not flushed */
};

static void must_i(const struct image *i, bool good, const char *what, int rc)
{
    if (!good)
        fail_msg("seed %" PRIu64 ", %s: %s: %d", i->seed, i->zoned ? "zoned" : "plain", what, rc);
}

static struct zqcow2_backend *image_backend(struct image *i)
{
    struct zqcow2_backend *be;

    assert_int_equal(zqcow2_faults_backend(i->f, &be), 0);
    return be;
}

static void image_begin(struct image *i, struct zqcow2_backend *inner, uint64_t seed, bool zoned)
{
    struct zqcow2_faults_options o = ZQCOW2_FAULTS_OPTIONS_INIT;
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be;

    memset(i, 0, sizeof(*i));
    i->seed = i->rng = seed;
    i->zoned = zoned;
    o.max_held = seed % 4 ? 0 : KiB(40);
    assert_int_equal(zqcow2_faults_wrap(inner, &o, &i->f), 0);
    c.virtual_size = SIZE;
    c.cluster_size = 4096;
    if (zoned) {
        c.zone_size = ZONE;
        c.conventional_zones = 2;
    }
    be = image_backend(i);
    assert_int_equal(zqcow2_create(be, &c, NULL), 0);
    zqcow2_backend_close(be);
}

/* In a sequential zone at the write pointer; elsewhere anywhere. What fails may still have landed.
 */
static int image_write(struct image *i, struct zqcow2_image *img)
{
    uint64_t z = rng_below(&i->rng, ZONES), per = ZONE / BLOCK, off = rng_below(&i->rng, per), n;
    bool sequential = i->zoned && z >= 2;

    if (sequential)
        off = i->wp[z];
    if (off == per)
        return 0;
    n = 1 + rng_below(&i->rng, per - off < 40 ? per - off : 40);
    stamp(n, ++i->stamps);
    i->since[i->nr_since++] =
        (struct change){.from = z * per + off, .to = z * per + off + n, .stamp = i->stamps};
    for (uint64_t b = 0; b < n; b++)
        i->fresh[z * per + off + b] = i->stamps;
    if (sequential)
        i->wp[z] = off + n;
    return zqcow2_write(img, data, n * BLOCK, z * ZONE + off * BLOCK, 0);
}

static struct zqcow2_image *image_open(struct image *i)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;
    int rc;

    o.flags = ZQCOW2_OPEN_RDWR;
    rc = zqcow2_open(image_backend(i), &o, &img, NULL);
    must_i(i, rc == 0, "open", rc);
    return img;
}

static void image_settle(struct image *i)
{
    memcpy(i->flushed, i->fresh, sizeof(i->fresh));
    memcpy(i->flushed_wp, i->wp, sizeof(i->wp));
    i->nr_since = 0;
}

/* A flush of the backend fails: the pass over the metadata stops in its middle. */
static bool arm(struct image *i)
{
    struct zqcow2_faults_rule r = ZQCOW2_FAULTS_RULE_INIT;

    if (rng_below(&i->rng, 2))
        return false;
    r.kinds = 1u << ZQCOW2_IO_FLUSH;
    r.nth = 1 + rng_below(&i->rng, 6);
    r.error = -EIO;
    assert_int_equal(zqcow2_faults_add_rule(i->f, &r), 0);
    return true;
}

/* Some writes and flushes, and a cut while the image is open, at rest or in a pass. */
static void image_use(struct image *i)
{
    struct zqcow2_image *img = image_open(i);
    bool armed = arm(i);
    uint64_t n = rng_below(&i->rng, 12);
    uint32_t how = (uint32_t)rng_below(&i->rng, ZQCOW2_FAULTS_TORN_4096 + 1);
    int rc = 0;

    while (n-- && rc == 0) {
        rc = image_write(i, img);
        if (rc < 0 || rng_below(&i->rng, 3))
            continue;
        rc = zqcow2_flush(img);
        if (rc == 0)
            image_settle(i);
    }
    must_i(i, rc == 0 || armed, "a write or flush", rc);
    i->stopped += rc < 0;
    zqcow2_faults_clear_rules(i->f);
    rc = zqcow2_faults_cut(i->f, rng_next(&i->rng), how | (uint32_t)rng_below(&i->rng, 2) << 8);
    must_i(i, rc == 0, "cut", rc);
    rc = zqcow2_write(img, data, BLOCK, 0, 0);
    must_i(i, rc < 0, "a write without power", rc);
    zqcow2_close(img);
    zqcow2_faults_restore(i->f);
}

static void image_check(struct image *i)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be = image_backend(i);
    int rc = zqcow2_check(be, NULL, &res, NULL);

    must_i(i, rc == 0, "check", rc);
    must_i(i, res.corruptions == 0, "corruptions", (int)res.corruptions);
    zqcow2_backend_close(be);
}

static bool was_written(struct image *i, uint64_t b, uint64_t value)
{
    for (unsigned k = 0; k < i->nr_since; k++)
        if (b >= i->since[k].from && b < i->since[k].to && i->since[k].stamp == value)
            return true;
    return false;
}

/* Below its write pointer a sequential zone holds what was written to it, and beyond it zeros. */
static void judge_zones(struct image *i, struct zqcow2_image *img, const uint64_t *found)
{
    struct zqcow2_zone zone[ZONES];
    uint32_t n = ZONES;

    assert_int_equal(zqcow2_zone_report(img, 0, zone, &n), 0);
    for (uint64_t z = 2; z < ZONES; z++) {
        uint64_t per = ZONE / BLOCK, wp = zone[z].write_pointer / BLOCK - z * per;

        must_i(i, wp >= i->flushed_wp[z] && wp <= i->wp[z], "write pointer of zone", (int)z);
        for (uint64_t b = 0; b < per; b++)
            must_i(i, found[z * per + b] == (b < wp ? i->fresh[z * per + b] : 0),
                   "write pointer and content of zone", (int)z);
        i->wp[z] = wp;
    }
}

/* What was flushed is there; what was not is old or new, block by block. */
static void image_compare(struct image *i)
{
    struct zqcow2_image *img = image_open(i);
    static uint8_t got[SIZE];
    uint64_t found[SIZE / BLOCK];

    assert_int_equal(zqcow2_read(img, got, SIZE, 0), 0);
    for (uint64_t b = 0; b < SIZE / BLOCK; b++) {
        found[b] = stamp_at(got + b * BLOCK);
        must_i(i, found[b] == i->flushed[b] || was_written(i, b, found[b]), "block", (int)b);
        i->kept += found[b] != i->flushed[b];
        i->lost += found[b] == i->flushed[b] && found[b] != i->fresh[b];
    }
    if (i->zoned)
        judge_zones(i, img, found);
    memcpy(i->fresh, found, sizeof(found));
    image_settle(i);
    assert_int_equal(zqcow2_close(img), 0);
}

/* As many cuts as asked for, ten for each image: in memory, and in every twentieth in a file. */
static void images_lose_power(void **state)
{
    uint64_t n = cuts_wanted(), kept = 0, lost = 0, stopped = 0;
    char path[] = "/tmp/zqcow2-live-faults-XXXXXX";
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    for (uint64_t seed = 1; seed <= n / 10; seed++) {
        static struct image i;
        struct zqcow2_backend *inner;

        if (seed % 20)
            assert_int_equal(zqcow2_mem_open(0, NULL, &inner), 0);
        else
            assert_int_equal(zqcow2_file_open(path, ZQCOW2_FILE_RDWR, NULL, &inner), 0);
        assert_int_equal(zqcow2_backend_truncate(inner, 0), 0);
        image_begin(&i, inner, seed, seed % 2);
        for (unsigned k = 0; k < 10; k++) {
            image_use(&i);
            image_check(&i);
            image_compare(&i);
        }
        stopped += i.stopped;
        kept += i.kept;
        lost += i.lost;
        zqcow2_faults_free(i.f);
    }
    close(fd);
    unlink(path);
    printf("live_cuts: %" PRIu64 " cuts of images, %" PRIu64 " in a pass, %" PRIu64
           " blocks kept and %" PRIu64 " lost that were not flushed, 0 wrong\n",
           n / 10 * 10, stopped, kept, lost);
    assert_true(stopped && kept && lost);
}

/* ---- threads, memory ---- */

static void *crowd(void *arg)
{
    static const uint8_t bytes[KiB(4)] = {1};
    struct zqcow2_backend *be = arg;
    static _Atomic uint64_t seeds;
    uint64_t rng = ++seeds;

    for (unsigned k = 0; k < 300; k++) {
        uint8_t got[KiB(4)];
        uint64_t off = rng_below(&rng, 64) * sizeof(bytes);
        int rc = zqcow2_backend_write(be, bytes, sizeof(bytes), off);

        rc = rc ? rc : zqcow2_backend_read(be, got, sizeof(got), off);
        if (k % 20 == 0)
            rc = rc ? rc : zqcow2_backend_flush(be);
        if (rc == 0 && memcmp(got, bytes, sizeof(got)))
            return "other bytes";
        if (rc && rc != -EIO)
            return "another error";
    }
    return NULL;
}

/* Under threads_wrap(), as a server would have it, while the power goes off and on. */
static void threads_use_it(void **state)
{
    struct zqcow2_backend *inner, *be, *top_be;
    struct zqcow2_faults *f;
    pthread_t t[3];
    void *bad;

    (void)state;
    assert_int_equal(zqcow2_mem_open(0, NULL, &inner), 0);
    assert_int_equal(zqcow2_faults_wrap(inner, NULL, &f), 0);
    assert_int_equal(zqcow2_faults_backend(f, &be), 0);
    assert_int_equal(zqcow2_threads_wrap(be, 2, NULL, &top_be), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&t[i], NULL, crowd, top_be), 0);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(zqcow2_faults_cut(f, i, ZQCOW2_FAULTS_KEEP_ALL), 0);
        zqcow2_faults_restore(f);
    }
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(t[i], &bad);
        assert_null(bad);
    }
    zqcow2_backend_close(top_be);
    zqcow2_faults_free(f);
}

/* Each allocation fails in turn: the write fails with ENOMEM and has not happened. */
static void memory_fails(void **state)
{
    static const uint8_t old[] = "old", fresh[] = "new";
    struct zqcow2_faults_options o = ZQCOW2_FAULTS_OPTIONS_INIT;
    struct heap heap;
    struct zqcow2_hooks hooks;
    unsigned refused = 0;

    (void)state;
    heap_init(&heap);
    hooks = heap_hooks(&heap);
    o.hooks = &hooks;
    for (uint64_t n = 1; n < 20; n++) {
        struct zqcow2_backend *inner, *be = NULL;
        struct zqcow2_faults_rule r = ZQCOW2_FAULTS_RULE_INIT;
        struct zqcow2_faults *f = NULL;
        uint8_t got[4];
        int rc;

        assert_int_equal(zqcow2_mem_open(0, NULL, &inner), 0);
        heap_plan(&heap, n, false);
        rc = zqcow2_faults_wrap(inner, &o, &f);
        if (rc < 0) {
            assert_int_equal(rc, -ENOMEM);
            assert_int_equal(zqcow2_backend_claim(inner), 0);
            zqcow2_backend_close(inner);
            refused++;
            continue;
        }
        rc = zqcow2_faults_backend(f, &be);
        if (rc < 0) {
            assert_int_equal(rc, -ENOMEM);
            assert_int_equal(zqcow2_faults_backend(f, &be), 0);
            refused++;
        }
        r.kinds = 1;
        rc = zqcow2_faults_add_rule(f, &r);
        refused += rc == -ENOMEM;
        assert_true(rc == 0 || rc == -ENOMEM);
        for (unsigned k = 0; k < 2; k++) {
            const uint8_t *want;

            rc = zqcow2_backend_write(be, k ? fresh : old, 4, 0);
            assert_true(rc == 0 || rc == -ENOMEM);
            assert_int_equal(zqcow2_backend_read(be, got, 4, 0), 0);
            want = rc == 0 ? (k ? fresh : old) : k ? old : (const uint8_t *)"";
            assert_string_equal((const char *)got, (const char *)want);
            refused += rc == -ENOMEM;
        }
        assert_int_equal(zqcow2_backend_flush(be), 0);
        zqcow2_backend_close(be);
        zqcow2_faults_free(f);
    }
    assert_in_range(refused, 6, 10);
    assert_null(heap_verdict(&heap));
    heap_destroy(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(images_lose_power),
        cmocka_unit_test(threads_use_it),
        cmocka_unit_test(memory_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
