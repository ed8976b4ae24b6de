/* SPDX-License-Identifier: MIT */
/*
 * FULL zones that are compressed in place: the device reads as before at every position at which
 * the power can fail, after an error of every call of the backend and of the allocator, and after
 * an ordinary close. Then one of the zones is reset, written again and compressed again.
 *
 * ZQ_SEED: one world; ZQ_CUT: with it, one position; ZQ_SEEDS: how many worlds are cut
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

#include <zqcow2/change.h>
#include <zqcow2/simdisk.h>

#include "crash/cuts.h"
#include "rig/heap_fault.h"

#define ZONES     6u
#define MOST_ZONE (64u << 10) /* bytes of a zone, at most */
#define STATES    4u          /* per position */
#define SEEDS     6u          /* ZQ_SEEDS: more */
#define BELOW     0xbb
#define AGAIN     2u /* the zone that is written again */

struct shape {
    uint32_t cluster, zone, flags, bits;
    bool source, snapshot, unmarked, async;
};
static const struct shape shapes[] = {
    {4096, 16u << 10, 0, 0, false, false, false, false},
    {4096, 16u << 10, ZQCOW2_CREATE_ZSTD, 64, false, false, false, true},
    {1024, 8u << 10, 0, 2, true, false, false, false},
    {16384, 64u << 10, ZQCOW2_CREATE_EXTENDED_L2, 16, false, false, false, false},
    {4096, 16u << 10, 0, 1, false, false, true, false},
    {4096, 16u << 10, 0, 16, false, true, false, false},
};

struct world {
    const struct shape *shape;
    uint64_t seed, rng, cut, k, judged;
    uint64_t bytes; /* of the device */
    uint64_t reset,
        written; /* positions: of a zone, when it begins; of new content, when durable */
    struct zqcow2_simdisk *disk, *below;
    const struct zqcow2_hooks *hooks;
    struct zqcow2_image *img;
    uint8_t holds[ZONES * MOST_ZONE], again[MOST_ZONE];
    struct zqcow2_compact_result res; /* of all calls together */
};

static struct world world;

static uint64_t draw(struct world *w, uint64_t n)
{
    return cuts_draw(&w->rng, n);
}

static void must(const struct world *w, bool good, const char *what, long got)
{
    if (!good)
        fail_msg("%s: %ld\nreplay: ZQ_SEED=%llu ZQ_CUT=%llu test_compact # state %llu", what, got,
                 (unsigned long long)w->seed, (unsigned long long)w->cut, (unsigned long long)w->k);
}

static struct zqcow2_backend *backend(const struct world *w, struct zqcow2_simdisk *disk)
{
    struct zqcow2_backend *be;

    must(w, zqcow2_simdisk_backend(disk, &be) == 0, "backend", 0);
    return be;
}

static int resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    const struct world *w = arg;

    (void)name;
    (void)format;
    (void)depth;
    (void)err;
    *be = backend(w, w->below);
    return 0;
}

static int try_open(struct world *w, struct zqcow2_simdisk *disk, bool rw,
                    const struct zqcow2_hooks *hooks, struct zqcow2_image **img)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be = backend(w, disk);
    int rc;

    o.flags = ZQCOW2_OPEN_NOLOCK | (rw ? ZQCOW2_OPEN_RDWR : 0);
    o.cache_bytes = w->seed % 2 ? 0 : 1;
    o.hooks = hooks;
    o.resolve = resolve;
    o.resolve_arg = w;
    rc = zqcow2_open(be, &o, img, NULL);
    if (rc < 0)
        zqcow2_backend_close(be);
    return rc;
}

static struct zqcow2_image *open_on(struct world *w, struct zqcow2_simdisk *disk, bool rw)
{
    struct zqcow2_image *img = NULL;
    int rc = try_open(w, disk, rw, NULL, &img);

    must(w, rc == 0, "open", rc);
    return img;
}

/* ---- an image ---- */

/* Of one byte, of a few, or such as do not get smaller. */
static void make_content(struct world *w, uint8_t *to, uint64_t len)
{
    for (uint64_t at = 0, n; at < len; at += n) {
        unsigned kind = (unsigned)draw(w, 4);

        n = w->shape->cluster < len - at ? w->shape->cluster : len - at;
        for (uint64_t i = 0; i < n; i++)
            to[at + i] = kind == 0 ? 0 :
                         kind == 1 ? (uint8_t)(at / 512 + 1) :
                         kind == 2 ? (uint8_t)(1 + draw(w, 3)) :
                                     (uint8_t)draw(w, 256);
    }
}

static void create(struct world *w, struct zqcow2_simdisk *disk, bool top)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_backend *be = backend(w, disk);

    c.virtual_size = w->bytes;
    c.cluster_size = w->shape->cluster;
    c.refcount_bits = w->shape->bits;
    c.flags = w->shape->flags;
    c.zone_size = w->shape->zone;
    c.zone_capacity = w->shape->zone - 512 * (uint32_t)(w->seed % 3);
    c.conventional_zones = 1;
    if (top && w->shape->source) {
        c.backing_name = "below";
        c.backing_format = "qcow2";
        c.resolve = resolve;
        c.resolve_arg = w;
    }
    must(w, zqcow2_create(be, &c, &err) == 0, err.text, err.code);
    must(w, !top || !w->shape->unmarked || cuts_unmark(be) == 0, "take the mark away", 0);
    zqcow2_backend_close(be);
}

static uint64_t capacity(const struct world *w, struct zqcow2_image *img)
{
    struct zqcow2_info i = ZQCOW2_INFO_INIT;

    must(w, zqcow2_get_info(img, &i) == 0, "info", 0);
    return i.zone_capacity;
}

static void write_zone(struct world *w, struct zqcow2_image *img, uint64_t zone, uint64_t len)
{
    uint64_t at = zone * w->shape->zone;
    int rc;

    make_content(w, w->holds + at, len);
    rc = zqcow2_write(img, w->holds + at, (size_t)len, at, 0);
    must(w, rc == 0, "write", rc);
}

/* Zone 0 is conventional, zone 4 is open, zone 5 finished; what is below has zone 1. */
static void fill(struct world *w, struct zqcow2_image *img)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    uint64_t zone = w->shape->zone, most = capacity(w, img);

    write_zone(w, img, 0, zone / 2);
    for (uint64_t z = w->shape->source ? 2 : 1; z < 4; z++) {
        write_zone(w, img, z, most);
        s.name = "kept";
        if (w->shape->snapshot && z == 1)
            must(w, zqcow2_snapshot_take(img, &s, NULL) == 0, "snapshot", 0);
    }
    write_zone(w, img, 4, zone / 4);
    write_zone(w, img, 5, zone / 2 + 512);
    must(w, zqcow2_zone_finish(img, 5 * zone, zone, 0) == 0, "finish", 0);
}

static void begin(struct world *w, uint64_t seed, const struct zqcow2_hooks *hooks)
{
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_image *img;

    memset(w, 0, sizeof(*w));
    w->shape = &shapes[seed % (sizeof(shapes) / sizeof(*shapes))];
    w->seed = w->rng = d.seed = seed;
    w->cut = w->reset = w->written = UINT64_MAX;
    w->hooks = hooks;
    w->bytes = (uint64_t)ZONES * w->shape->zone;
    d.flags = w->shape->async ? ZQCOW2_SIMDISK_ASYNC : 0;
    must(w, zqcow2_simdisk_new(&d, &w->disk) == 0, "disk", 0);
    must(w, zqcow2_simdisk_new(NULL, &w->below) == 0, "disk", 0);
    if (w->shape->source) {
        create(w, w->below, false);
        img = open_on(w, w->below, true);
        write_zone(w, img, 1, capacity(w, img));
        must(w, zqcow2_close(img) == 0, "close", 0);
    }
    create(w, w->disk, true);
    img = open_on(w, w->disk, true);
    fill(w, img);
    must(w, zqcow2_close(img) == 0, "close", 0);
}

static void discard_world(struct world *w)
{
    zqcow2_simdisk_free(w->disk);
    zqcow2_simdisk_free(w->below);
}

/* ---- judging ---- */

/* What the zone has that is written again, at a position at which that is on its way. */
static bool may_be(const struct world *w, uint64_t at, uint8_t got)
{
    uint64_t from = AGAIN * (uint64_t)w->shape->zone;

    if (at < from || at >= from + w->shape->zone || w->cut < w->reset)
        return got == w->holds[at];
    if (w->cut >= w->written)
        return got == w->again[at - from];
    return got == w->holds[at] || got == w->again[at - from] || !got;
}

static void judge_content(struct world *w, struct zqcow2_image *img)
{
    static uint8_t data[ZONES * MOST_ZONE];
    int rc = zqcow2_read(img, data, (size_t)w->bytes, 0);

    must(w, rc == 0, "read", rc);
    for (uint64_t i = 0; i < w->bytes; i++)
        must(w, may_be(w, i, data[i]), "byte", (long)i);
}

static void check(const struct world *w, struct zqcow2_simdisk *disk, bool leaks)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be = backend(w, disk);

    o.flags = ZQCOW2_CHECK_NOLOCK;
    must(w, zqcow2_check(be, &o, &res, NULL) == 0, "check", 0);
    must(w, !res.corruptions, "corruptions", (long)res.corruptions);
    must(w, leaks || !res.leaked_clusters, "leaks", (long)res.leaked_clusters);
    zqcow2_backend_close(be);
}

/* The next writer compresses the rest, and the content stays what it was. */
static void judge(struct world *w, struct zqcow2_simdisk *disk)
{
    struct zqcow2_image *img = open_on(w, disk, false);

    judge_content(w, img);
    must(w, zqcow2_close(img) == 0, "close", 0);
    check(w, disk, true);
    img = open_on(w, disk, true);
    must(w, zqcow2_compact(img, NULL, NULL, NULL) == 0, "compact the rest", 0);
    judge_content(w, img);
    must(w, zqcow2_close(img) == 0, "close", 0);
    check(w, disk, w->shape->unmarked);
    w->judged++;
}

static void judge_cut(void *arg, uint64_t cut, uint64_t k, struct zqcow2_simdisk *image)
{
    struct world *w = arg;

    w->cut = cut;
    w->k = k;
    judge(w, image);
}

/* ---- the work ---- */

static int compact(struct world *w)
{
    struct zqcow2_compact_options o = ZQCOW2_COMPACT_OPTIONS_INIT;
    struct zqcow2_compact_result r = ZQCOW2_COMPACT_RESULT_INIT;
    int rc;

    o.level = (uint32_t)draw(w, 10);
    rc = zqcow2_compact(w->img, &o, &r, NULL);
    w->res.clusters += r.clusters;
    w->res.compressed += r.compressed;
    w->res.old_bytes += r.old_bytes;
    w->res.new_bytes += r.new_bytes;
    return rc;
}

static int write_again(struct world *w)
{
    uint64_t at = AGAIN * (uint64_t)w->shape->zone, len = capacity(w, w->img);
    int rc;

    make_content(w, w->again, len);
    w->reset = zqcow2_simdisk_position(w->disk);
    rc = zqcow2_zone_reset(w->img, at, w->shape->zone, 0);
    if (rc == 0)
        rc = zqcow2_write(w->img, w->again, (size_t)len, at, 0);
    if (rc == 0)
        rc = zqcow2_flush(w->img);
    if (rc == 0)
        w->written = zqcow2_simdisk_position(w->disk);
    return rc;
}

static int work(struct world *w)
{
    int rc = try_open(w, w->disk, true, w->hooks, &w->img), closed;

    if (rc < 0)
        return rc;
    rc = compact(w);
    if (rc == 0)
        rc = write_again(w);
    if (rc == 0)
        rc = compact(w);
    closed = zqcow2_close(w->img);
    return rc < 0 ? rc : closed;
}

/* ---- the tests ---- */

static bool wanted(uint64_t seed)
{
    const char *only = getenv("ZQ_SEED");

    return !only || strtoull(only, NULL, 10) == seed;
}

static unsigned kind_at(const struct world *w, uint64_t at)
{
    struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;

    must(w, zqcow2_block_status(w->img, at, 512, &e) == 0, "block status", 0);
    return e.kind;
}

/* Conventional and open zones, what a snapshot shares, and a cluster with units of no content. */
static void judge_kept(const struct world *w)
{
    uint64_t zone = w->shape->zone, at[] = {0, 4 * zone, 4 * zone, 4 * zone};

    if (w->shape->snapshot)
        at[2] = zone;
    if (w->shape->flags & ZQCOW2_CREATE_EXTENDED_L2)
        at[3] = 5 * zone + zone / 2;
    for (unsigned i = 0; i < 4; i++) {
        for (uint64_t n = 0; n < zone / 4; n += 512)
            must(w, kind_at(w, at[i] + n) != ZQCOW2_BLOCK_COMPRESSED, "compressed", (long)at[i]);
    }
}

static void every_shape(void **state)
{
    struct world *w = &world;
    uint64_t clusters = 0, compressed = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        int rc;

        if (!wanted(seed))
            continue;
        begin(w, seed, NULL);
        rc = work(w);
        must(w, rc == 0, "work", rc);
        check(w, w->disk, false);
        w->img = open_on(w, w->disk, false);
        judge_content(w, w->img);
        judge_kept(w);
        must(w, zqcow2_close(w->img) == 0, "close", 0);
        must(w, w->res.compressed > w->res.clusters / 3, "compressed", (long)w->res.compressed);
        must(w, w->res.new_bytes < w->res.old_bytes * 3 / 4, "bytes", (long)w->res.new_bytes);
        clusters += w->res.clusters;
        compressed += w->res.compressed;
        discard_world(w);
    }
    printf("compact: %llu of %llu clusters compressed\n", (unsigned long long)compressed,
           (unsigned long long)clusters);
}

static void every_cut(void **state)
{
    struct world *w = &world;
    const char *many = getenv("ZQ_SEEDS");
    uint64_t judged = 0, seeds = many ? strtoull(many, NULL, 10) : SEEDS;

    (void)state;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        const struct cuts c = {
            .states = STATES, .once = true, .rng = &w->rng, .judge = judge_cut, .arg = w};
        int rc;

        if (!wanted(seed))
            continue;
        begin(w, seed, NULL);
        must(w, zqcow2_simdisk_record(w->disk) == 0, "record", 0);
        rc = work(w);
        must(w, rc == 0, "work", rc);
        must(w, cuts_judge_all(&c, w->disk) == 0, "cut", 0);
        judged += w->judged;
        discard_world(w);
    }
    printf("compact: %llu crash states, 0 violations\n", (unsigned long long)judged);
}

/* What an error has left is what a power loss could have left there. */
static bool ends_in_error(struct world *w)
{
    int rc = work(w);

    must(w, zqcow2_simdisk_set_fault(w->disk, NULL) == 0, "fault", 0);
    w->cut = UINT64_MAX - 1;
    if (rc < 0 && w->written == UINT64_MAX && w->reset != UINT64_MAX)
        w->written = UINT64_MAX; /* the new content may be there in part */
    judge(w, w->disk);
    discard_world(w);
    return rc < 0;
}

static bool fail_at(struct world *w, uint64_t seed, uint64_t nth, int error)
{
    struct zqcow2_simdisk_fault f = ZQCOW2_SIMDISK_FAULT_INIT;

    begin(w, seed, NULL);
    f.nth = nth;
    f.kinds = 1u << ZQCOW2_IO_WRITE | 1u << ZQCOW2_IO_TRUNCATE;
    if (error == -EIO)
        f.kinds |= 1u << ZQCOW2_IO_FLUSH | 1u << ZQCOW2_IO_READ;
    f.error = error;
    must(w, zqcow2_simdisk_set_fault(w->disk, &f) == 0, "fault", 0);
    return ends_in_error(w);
}

static void every_error(void **state)
{
    struct world *w = &world;
    unsigned struck = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        for (uint64_t nth = 1; wanted(seed) && nth < 400; nth += 1 + nth / 12)
            struck += fail_at(w, seed, nth, -EIO) + fail_at(w, seed, nth, -ENOSPC);
    }
    must(w, getenv("ZQ_SEED") || struck > 60, "errors", struck);
    printf("compact: %u errors of the backend, 0 violations\n", struck);
}

static void every_allocation(void **state)
{
    struct world *w = &world;
    unsigned struck = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        for (uint64_t nth = 1; wanted(seed) && nth < 400; nth += 1 + nth / 12) {
            struct zqcow2_hooks hooks;
            struct heap h;

            heap_init(&h);
            hooks = heap_hooks(&h);
            begin(w, seed, &hooks);
            heap_plan(&h, nth, false);
            struck += ends_in_error(w);
            must(w, !heap_verdict(&h), "heap", 0);
            heap_destroy(&h);
        }
    }
    must(w, getenv("ZQ_SEED") || struck > 60, "errors", struck);
    printf("compact: %u allocations failed, 0 violations\n", struck);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_shape),
        cmocka_unit_test(every_cut),
        cmocka_unit_test(every_error),
        cmocka_unit_test(every_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
