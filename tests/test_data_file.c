/* SPDX-License-Identifier: MIT */
/* Data files: what an image reads as, what the file holds, and which images are refused. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/rig.h"
#include "rig/rng.h"
#include "rig/twin.h"

#define MOST MiB(2)

static const struct kind kinds[] = {
    {"512", 512, 0, KiB(200), 0},
    {"4 KiB", 4096, 0, MiB(1) + 1536, 0},
    {"raw, 512", 512, ZQCOW2_CREATE_DATA_FILE_RAW, KiB(77), 0},
    {"raw, 64 KiB", 65536, ZQCOW2_CREATE_DATA_FILE_RAW, MiB(1) + 512, 0},
    {"subclusters", 16384, ZQCOW2_CREATE_EXTENDED_L2, MiB(1) + 1024, 0},
    {"raw, subclusters", 16384, ZQCOW2_CREATE_EXTENDED_L2 | ZQCOW2_CREATE_DATA_FILE_RAW, MiB(1), 0},
    {"zones", 4096, 0, KiB(512), KiB(64)},
    {"zones, subclusters", 16384, ZQCOW2_CREATE_EXTENDED_L2, KiB(512), KiB(64)},
};
#define NR_KINDS (sizeof(kinds) / sizeof(kinds[0]))

static bool is_raw(const struct kind *k)
{
    return k->flags & ZQCOW2_CREATE_DATA_FILE_RAW;
}

/* ---- what is written is read, and where it lies ---- */

static uint8_t want[MOST], got[MOST];

static void compare(const struct kind *k, const char *what, uint64_t seed)
{
    for (uint64_t i = 0; i < k->size; i++) {
        if (got[i] != want[i])
            fail_msg("%s, seed %llu: byte %#llx of %s is %02x, not %02x", k->name,
                     (unsigned long long)seed, (unsigned long long)i, what, got[i], want[i]);
    }
}

static void one_request(const struct kind *k, struct zqcow2_image *img, uint64_t *rng)
{
    static uint8_t data[KiB(48)];
    uint64_t end = k->zone ? k->zone : k->size;
    uint64_t off = rng_below(rng, end / 512) * 512, len = (1 + rng_below(rng, 96)) * 512;
    unsigned act = (unsigned)rng_below(rng, 4);

    len = len < end - off ? len : end - off;
    memset(data, act < 2 ? 1 + (int)rng_below(rng, 255) : 0, sizeof(data));
    if (act == 3) { /* whole clusters, and the last one */
        uint64_t stop = off + len == k->size ? k->size : (off + len) / k->cluster * k->cluster;

        off = (off + k->cluster - 1) / k->cluster * k->cluster;
        if (off >= stop)
            return;
        len = stop - off;
    }
    assert_int_equal(act < 2  ? zqcow2_write(img, data, len, off, 0) :
                     act == 2 ? zqcow2_write_zeroes(img, len, off, 0) :
                                zqcow2_discard(img, len, off, 0),
                     0);
    memcpy(want + off, data, len);
}

/* In the second zone: the model of a sequential one is its pointer. */
static void one_in_zone(const struct kind *k, struct zqcow2_image *img, uint64_t *rng, uint64_t *wp)
{
    static uint8_t data[KiB(24)];
    uint64_t at = k->zone, len = (1 + rng_below(rng, 40)) * 512, off = at;
    unsigned act = (unsigned)rng_below(rng, 8);

    if (act == 7 || *wp + len > k->zone) {
        assert_int_equal(zqcow2_zone_reset(img, at, k->zone, 0), 0);
        memset(want + at, 0, k->zone);
        *wp = 0;
        return;
    }
    if (act == 6) {
        assert_int_equal(zqcow2_zone_finish(img, at, k->zone, 0), 0);
        *wp = k->zone;
        return;
    }
    memset(data, act < 5 ? 1 + (int)rng_below(rng, 255) : 0, sizeof(data));
    assert_int_equal(act < 5 ? zqcow2_append(img, data, len, &off, 0) :
                               zqcow2_write_zeroes(img, len, at + *wp, 0),
                     0);
    memcpy(want + at + *wp, data, len);
    *wp += len;
}

static void content_is_where_it_lies(void **state)
{
    unsigned requests = 0;

    (void)state;
    for (unsigned i = 0; i < NR_KINDS * 4; i++) {
        const struct kind *k = &kinds[i % NR_KINDS];
        uint64_t rng = i + 1, wp = 0;
        struct zqcow2_image *img;
        struct world w;

        world_begin(&w, i);
        memset(want, 0, sizeof(want));
        memset(got, 0xee, sizeof(got)); /* what was there before is not read, but by a raw one */
        if (!is_raw(k))
            assert_int_equal(zqcow2_simdisk_import(w.disk[DATA], got, k->size, 0), 0);
        assert_int_equal(create(&w, k, 0), 0);
        for (unsigned round = 0; round < 3; round++) {
            img = must_open(&w, ZQCOW2_OPEN_RDWR);
            assert_int_equal(w.asked, ZQCOW2_RESOLVE_DATA_FILE | ZQCOW2_RESOLVE_WRITE);
            for (unsigned n = 0; n < 40; n++, requests++) {
                if (k->zone && n % 2)
                    one_in_zone(k, img, &rng, &wp);
                else
                    one_request(k, img, &rng);
                assert_int_equal(zqcow2_read(img, got, k->size, 0), 0);
                compare(k, "the image", i + 1);
            }
            assert_int_equal(zqcow2_close(img), 0);
            must_check(&w, false);
            img = must_open(&w, 0);
            assert_int_equal(w.asked, ZQCOW2_RESOLVE_DATA_FILE);
            assert_int_equal(zqcow2_read(img, got, k->size, 0), 0);
            compare(k, "the image", i + 1);
            assert_int_equal(zqcow2_close(img), 0);
            assert_int_equal(zqcow2_simdisk_length(w.disk[DATA]), k->size);
            assert_int_equal(zqcow2_simdisk_export(w.disk[DATA], got, k->size, 0), 0);
            if (is_raw(k))
                compare(k, "the data file", i + 1);
        }
        world_end(&w);
    }
    printf("data files: %zu kinds, %u requests\n", NR_KINDS, requests);
}

/* The device ends inside a cluster, of which a write leaves a part that becomes zeros. */
static void the_file_ends_with_the_device(void **state)
{
    const struct kind *k = &kinds[1];
    struct zqcow2_image *img;
    struct world w;

    (void)state;
    world_begin(&w, 1);
    assert_int_equal(create(&w, k, 0), 0);
    img = must_open(&w, ZQCOW2_OPEN_RDWR);
    memset(got, 7, 512);
    assert_int_equal(zqcow2_write(img, got, 512, MiB(1), 0), 0);
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(zqcow2_simdisk_length(w.disk[DATA]), k->size);
    world_end(&w);
}

/* Below a write pointer the file can be read without the image. */
static void zones_are_read_without_the_image(void **state)
{
    static uint8_t data[KiB(20)];
    const struct kind *k = &kinds[6];
    struct zqcow2_image *img;
    uint64_t at = 2 * KiB(64);
    struct world w;

    (void)state;
    world_begin(&w, 1);
    assert_int_equal(create(&w, k, 0), 0);
    img = must_open(&w, ZQCOW2_OPEN_RDWR);
    memset(data, 7, sizeof(data));
    assert_int_equal(zqcow2_append(img, data, sizeof(data), &at, 0), 0);
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(zqcow2_simdisk_export(w.disk[DATA], got, sizeof(data), at), 0);
    assert_memory_equal(got, data, sizeof(data));
    world_end(&w);
}

/* ---- two files, one image ---- */

/* A hole too small for a whole block of the backend is done at once, also in the data file. */
static void small_holes_do_not_hang(void **state)
{
    const struct kind *k = &kinds[1];
    struct zqcow2_image *img;
    struct world w;

    (void)state;
    rig_watch(20, "small_holes_do_not_hang: a drain behind a discard");
    world_begin(&w, 1);
    w.io_align = 4096;
    assert_int_equal(create(&w, k, 0), 0);
    img = must_open(&w, ZQCOW2_OPEN_RDWR);
    memset(got, 3, 1536);
    assert_int_equal(zqcow2_write(img, got, 1536, MiB(1), 0), 0);
    assert_int_equal(zqcow2_flush(img), 0);
    assert_int_equal(zqcow2_discard(img, 1536, MiB(1), 0), 0);
    assert_int_equal(zqcow2_flush(img), 0);
    assert_int_equal(zqcow2_drain(img), 0);
    assert_int_equal(zqcow2_close(img), 0);
    must_check(&w, false);
    world_end(&w);
    rig_watch(0, "over");
}

static void *overwrite_start(void *img)
{
    static uint8_t data[512] = {9};

    assert_int_equal(zqcow2_write(img, data, sizeof(data), 0, 0), 0);
    return NULL;
}

/* While the image has its first barrier, another thread writes to the data file. */
static void write_meanwhile(void *img, unsigned file)
{
    static unsigned calls;
    pthread_t other;

    if (file != IMAGE || calls++)
        return;
    assert_int_equal(pthread_create(&other, NULL, overwrite_start, img), 0);
    pthread_join(other, NULL);
}

/* D2: one barrier of the data file is enough in a round, and none follows that of the image. */
static void late_writes_get_no_barrier(void **state)
{
    uint64_t at = KiB(64);
    struct zqcow2_image *img;
    struct world w;

    (void)state;
    world_begin(&w, 1);
    assert_int_equal(create(&w, &kinds[6], 0), 0);
    img = must_open(&w, ZQCOW2_OPEN_RDWR);
    memset(got, 3, 4096);
    assert_int_equal(zqcow2_write(img, got, 4096, 0, 0), 0);
    assert_int_equal(zqcow2_append(img, got, 4096, &at, 0), 0);
    assert_int_equal(zqcow2_flush(img), 0);
    assert_int_equal(zqcow2_zone_reset(img, KiB(64), KiB(64), 0), 0);
    w.flushing = write_meanwhile;
    w.arg = img;
    w.flushes[DATA] = 0;
    assert_int_equal(zqcow2_flush(img), 0);
    assert_int_equal(w.flushes[DATA], 0);
    assert_int_equal(zqcow2_flush(img), 0);
    assert_int_equal(w.flushes[DATA], 1);
    assert_int_equal(zqcow2_close(img), 0);
    world_end(&w);
}

/* ---- create ---- */

static void create_keeps_what_there_is(void **state)
{
    struct kind k = kinds[3];
    struct zqcow2_image *img;
    struct world w;

    (void)state;
    world_begin(&w, 1);
    assert_int_equal(zqcow2_simdisk_import(w.disk[DATA], "QFI\xfb", 4, 0), 0);
    assert_int_equal(create(&w, &kinds[1], 0), -EEXIST); /* an image */
    memset(want, 5, k.size);
    assert_int_equal(zqcow2_simdisk_import(w.disk[DATA], want, k.size, 0), 0);
    assert_int_equal(create(&w, &k, 0), 0);
    assert_int_equal(w.asked,
                     ZQCOW2_RESOLVE_DATA_FILE | ZQCOW2_RESOLVE_WRITE | ZQCOW2_RESOLVE_CREATE);
    img = must_open(&w, 0);
    assert_int_equal(zqcow2_read(img, got, k.size, 0), 0);
    compare(&k, "the image", 0);
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(create(&w, &k, 0), -EEXIST);
    assert_int_equal(create(&w, &k, ZQCOW2_CREATE_FORCE), 0);
    memset(want, 0, k.size);
    assert_int_equal(zqcow2_simdisk_export(w.disk[DATA], got, k.size, 0), 0);
    compare(&k, "the data file", 0);
    world_end(&w);
}

static void create_refuses(void **state)
{
    static const struct {
        const char *data;
        uint32_t flags;
        uint64_t zone;
        bool resolver;
        const char *text;
    } cases[] = {
        {NULL, ZQCOW2_CREATE_DATA_FILE_RAW, 0, true, "data_file_raw 1: requires data_file"},
        {"", 0, 0, true, "data_file: must have 1 to 1023 bytes"},
        {NAME, 0, 0, false, "data_file: needs resolve"},
        {NAME, ZQCOW2_CREATE_DATA_FILE_RAW, KiB(64), true, "not with zones"},
    };
    struct world w;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct zqcow2_create_options opt = ZQCOW2_CREATE_OPTIONS_INIT;
        struct zqcow2_backend *be;

        world_begin(&w, 1);
        be = half_of(&w, IMAGE);
        opt.virtual_size = KiB(512);
        opt.zone_size = cases[i].zone;
        opt.flags = cases[i].flags;
        opt.data_file = cases[i].data;
        opt.resolve = cases[i].resolver ? twin_resolve : NULL;
        opt.resolve_arg = &w;
        assert_int_equal(zqcow2_create(be, &opt, &w.err), -EINVAL);
        if (!strstr(w.err.text, cases[i].text))
            fail_msg("case %zu: %s", i, w.err.text);
        assert_int_equal(zqcow2_simdisk_length(w.disk[IMAGE]), 0);
        assert_int_equal(zqcow2_simdisk_length(w.disk[DATA]), 0);
        zqcow2_backend_close(be);
        world_end(&w);
    }
}

/* ---- images that are refused ---- */

static uint64_t get64(struct world *w, uint64_t off)
{
    uint8_t b[8];
    uint64_t v = 0;

    assert_int_equal(zqcow2_simdisk_export(w->disk[IMAGE], b, 8, off), 0);
    for (unsigned i = 0; i < 8; i++)
        v = v << 8 | b[i];
    return v;
}

static void put(struct world *w, uint64_t off, unsigned bytes, uint64_t v)
{
    uint8_t b[8];

    for (unsigned i = 0; i < bytes; i++)
        b[i] = (uint8_t)(v >> 8 * (bytes - 1 - i));
    assert_int_equal(zqcow2_simdisk_import(w->disk[IMAGE], b, bytes, off), 0);
}

static uint64_t extension(struct world *w, uint32_t type)
{
    uint64_t at = get64(w, 96) & UINT32_MAX;

    while ((get64(w, at) >> 32) != type) {
        assert_int_not_equal(get64(w, at) >> 32, 0);
        at += 8 + ((get64(w, at) & UINT32_MAX) + 7) / 8 * 8;
    }
    return at;
}

/* Two clusters are written, and closed. */
static void begin_written(struct world *w, const struct kind *k)
{
    struct zqcow2_image *img;

    world_begin(w, 1);
    assert_int_equal(create(w, k, 0), 0);
    img = must_open(w, ZQCOW2_OPEN_RDWR);
    memset(got, 3, 2 * k->cluster);
    assert_int_equal(zqcow2_write(img, got, 2 * k->cluster, 0, 0), 0);
    assert_int_equal(zqcow2_close(img), 0);
}

static void refused(struct world *w, int rc, const char *text)
{
    struct zqcow2_image *img = NULL;

    assert_int_equal(open_it(w, 0, &img), rc);
    if (!strstr(w->err.text, text))
        fail_msg("\"%s\" does not have \"%s\"", w->err.text, text);
    assert_int_equal(open_it(w, ZQCOW2_OPEN_RDWR, &img), rc);
    world_end(w);
}

#define DATA_FILE 0x44415441u

/* The resolver is asked for an empty name. */
static void a_name_may_be_missing(void **state)
{
    struct zqcow2_image *img;
    struct world w;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        begin_written(&w, &kinds[1]);
        put(&w, extension(&w, DATA_FILE) + 4 * i, 4, i ? 0 : 0x12345678); /* unknown, or empty */
        w.name = "";
        img = must_open(&w, ZQCOW2_OPEN_RDWR);
        assert_int_equal(w.asked, ZQCOW2_RESOLVE_DATA_FILE | ZQCOW2_RESOLVE_WRITE);
        assert_int_equal(zqcow2_read(img, want, 2 * kinds[1].cluster, 0), 0);
        assert_memory_equal(got, want, 2 * kinds[1].cluster);
        assert_int_equal(zqcow2_close(img), 0);
        must_check(&w, false);
        w.answer = ZQCOW2_EFEATURE;
        refused(&w, ZQCOW2_EFEATURE, "data file: the image needs a feature");
    }
}

static void headers_are_refused(void **state)
{
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    struct world w;

    (void)state;
    begin_written(&w, &kinds[1]);
    put(&w, extension(&w, DATA_FILE) + 9, 1, 0);
    refused(&w, ZQCOW2_ECORRUPT, "contains a zero byte");
    begin_written(&w, &kinds[1]);
    put(&w, 72, 8, 0);
    refused(&w, ZQCOW2_ECORRUPT, "an external data file is named but its bit 2 is clear");
    begin_written(&w, &kinds[1]);
    put(&w, 60, 4, 1);
    put(&w, 64, 8, 4096);
    refused(&w, ZQCOW2_EFEATURE, "an external data file beside snapshots");
    begin_written(&w, &kinds[3]);
    put(&w, 8, 8, extension(&w, 0) + 8);
    put(&w, 16, 4, 1);
    put(&w, extension(&w, 0) + 8, 1, 'b');
    refused(&w, ZQCOW2_EFEATURE, "a raw external data file beside a backing file");
    begin_written(&w, &kinds[1]);
    w.answer = -EACCES;
    refused(&w, -EACCES, "data file \"data\": ");
    begin_written(&w, &kinds[1]);
    be = half_of(&w, DATA);
    assert_int_equal(zqcow2_backend_truncate(be, KiB(8)), 0);
    zqcow2_backend_close(be);
    refused(&w, ZQCOW2_ECORRUPT, "has 8192 bytes, fewer than the device (1050112)");
    begin_written(&w, &kinds[1]);
    be = half_of(&w, IMAGE);
    assert_int_equal(zqcow2_open(be, NULL, &img, &w.err), ZQCOW2_EFEATURE);
    assert_non_null(strstr(w.err.text, "data file \"data\": there is no resolver"));
    zqcow2_backend_close(be);
    world_end(&w);
}

/* Of entry number i of the first L2 table. */
static uint64_t entry_at(struct world *w, unsigned i)
{
    return (get64(w, get64(w, 40)) & 0x00fffffffffffe00ull) + i * 8;
}

/* An entry that is wrong is an error where it is used, and for check; a repair ends that. */
static void entry_is_found(uint64_t entry)
{
    struct zqcow2_check_options opt = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    struct world w;

    begin_written(&w, &kinds[1]);
    put(&w, entry_at(&w, 1), 8, entry);
    img = must_open(&w, ZQCOW2_OPEN_RDWR);
    assert_int_equal(zqcow2_read(img, got, 512, 0), 0);
    assert_int_equal(got[0], 3);
    assert_int_equal(zqcow2_read(img, got, 512, 4096), ZQCOW2_ECORRUPT);
    assert_int_equal(zqcow2_write(img, got, 512, 4096, 0), ZQCOW2_ECORRUPT);
    assert_int_equal(zqcow2_discard(img, 4096, 4096, 0), ZQCOW2_ECORRUPT);
    assert_int_equal(zqcow2_close(img), 0);
    be = half_of(&w, IMAGE);
    opt.flags = ZQCOW2_CHECK_REPAIR_ALL;
    assert_int_equal(zqcow2_check(be, &opt, &res, &w.err), 0);
    assert_int_equal(res.corruptions, 1);
    assert_int_equal(res.corruptions_fixed, 1);
    zqcow2_backend_close(be);
    must_check(&w, false);
    world_end(&w);
}

static void entries_are_found(void **state)
{
    (void)state;
    entry_is_found(1ull << 63 | 8192);         /* another place of the data file */
    entry_is_found(1ull << 63);                /* offset 0, which is that of cluster 0 */
    entry_is_found(1ull << 62 | 4096);         /* compressed */
    entry_is_found(1ull << 63 | 4096 | 2);     /* reserved bits */
    entry_is_found(1ull << 63 | (4096 + 512)); /* not a cluster */
}

/* Offset 0 is a place like any other; COPIED alone says that it is one. */
static void offset_0_is_valid(void **state)
{
    struct zqcow2_extent st = ZQCOW2_EXTENT_INIT;
    struct zqcow2_image *img;
    struct world w;

    (void)state;
    begin_written(&w, &kinds[1]);
    assert_int_equal(get64(&w, entry_at(&w, 0)), 1ull << 63);
    img = must_open(&w, 0);
    assert_int_equal(zqcow2_block_status(img, 0, 4096, &st), 0);
    assert_int_equal(st.kind, ZQCOW2_BLOCK_DATA);
    assert_int_equal(st.host, 0);
    assert_int_equal(zqcow2_close(img), 0);
    put(&w, entry_at(&w, 0), 8, 1ull << 63 | 1); /* zeros, which QEMU takes for none */
    img = must_open(&w, 0);
    assert_int_equal(zqcow2_block_status(img, 0, 4096, &st), 0);
    assert_int_equal(st.kind, ZQCOW2_BLOCK_ZERO);
    assert_true(st.host == UINT64_MAX);
    assert_int_equal(zqcow2_close(img), 0);
    world_end(&w);
    begin_written(&w, &kinds[4]);
    put(&w, entry_at(&w, 0) + 8, 8, 0); /* no subcluster has data: the place is still there */
    img = must_open(&w, 0);
    assert_int_equal(zqcow2_block_status(img, 0, 16384, &st), 0);
    assert_int_equal(st.kind, ZQCOW2_BLOCK_UNALLOCATED);
    assert_int_equal(st.host, 0);
    assert_int_equal(zqcow2_close(img), 0);
    world_end(&w);
}

/* Its clusters have no refcounts, so nothing can share them (D3). */
static void snapshots_are_refused(void **state)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    struct zqcow2_image *img;
    struct world w;

    (void)state;
    begin_written(&w, &kinds[1]);
    img = must_open(&w, ZQCOW2_OPEN_RDWR);
    s.name = "one";
    assert_int_equal(zqcow2_snapshot_take(img, &s, &w.err), ZQCOW2_EFEATURE);
    assert_non_null(strstr(w.err.text, "an image with a data file has no snapshots"));
    assert_int_equal(zqcow2_close(img), 0);
    must_check(&w, false);
    world_end(&w);
}

/* Without the file all but the data is there. */
static void what_works_without_it(void **state)
{
    struct zqcow2_backing named = ZQCOW2_BACKING_INIT;
    struct zqcow2_image *img;
    struct world w;

    (void)state;
    begin_written(&w, &kinds[1]);
    w.answer = -ENOENT;
    img = must_open(&w, ZQCOW2_OPEN_NO_BACKING);
    assert_int_equal(zqcow2_get_backing(img, &named), 0);
    assert_string_equal(named.data_file, NAME);
    assert_int_equal(zqcow2_read(img, got, 512, 0), ZQCOW2_EFEATURE);
    assert_int_equal(zqcow2_read(img, got, 512, KiB(64)), 0);
    assert_int_equal(zqcow2_close(img), 0);
    world_end(&w);
}

/* A write to an image with zones does not keep the file zeros beyond the pointers. */
static void zones_are_never_raw(void **state)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;
    struct zqcow2_image *img;
    struct world w;

    (void)state;
    begin_written(&w, &kinds[6]);
    put(&w, 88, 8, 2);
    img = must_open(&w, 0);
    assert_int_equal(zqcow2_get_info(img, &info), 0);
    assert_int_equal(info.autoclear_features, 2);
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(get64(&w, 88), 2);
    img = must_open(&w, ZQCOW2_OPEN_RDWR);
    assert_int_equal(get64(&w, 88), 0);
    assert_int_equal(zqcow2_close(img), 0);
    world_end(&w);
    begin_written(&w, &kinds[3]);
    assert_int_equal(get64(&w, 88), 2);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(content_is_where_it_lies),
        cmocka_unit_test(the_file_ends_with_the_device),
        cmocka_unit_test(zones_are_read_without_the_image),
        cmocka_unit_test(small_holes_do_not_hang),
        cmocka_unit_test(late_writes_get_no_barrier),
        cmocka_unit_test(create_keeps_what_there_is),
        cmocka_unit_test(create_refuses),
        cmocka_unit_test(a_name_may_be_missing),
        cmocka_unit_test(headers_are_refused),
        cmocka_unit_test(entries_are_found),
        cmocka_unit_test(offset_0_is_valid),
        cmocka_unit_test(snapshots_are_refused),
        cmocka_unit_test(what_works_without_it),
        cmocka_unit_test(zones_are_never_raw),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
