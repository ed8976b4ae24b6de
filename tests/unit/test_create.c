/* SPDX-License-Identifier: MIT */
/* Creating images: options, layout, the order of writes, an interrupted or failing create. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "unit/pic.h"

#define MiB(n) ((uint64_t)(n) << 20)
#define TiB(n) ((uint64_t)(n) << 40)

static struct zqcow2_create_options opt(uint64_t size, uint64_t zone)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = size;
    o.zone_size = zone;
    return o;
}

/* ---- a memory backend that records and fails ---- */

struct spy {
    uint8_t *data;
    uint64_t length, room;
    int calls, fail_at;    /* the call with this number fails; 0: none */
    int last_header_write; /* number of the last call that wrote to byte 0 */
    int last_write, flushes_after_header, flushes_before_header, truncates;
    bool unflushed_at_header;
    bool dirty;
    bool read_only;
    int lock;
};

static int spy_call(struct spy *s)
{
    return ++s->calls == s->fail_at ? -EIO : 0;
}

static int spy_length(void *self, uint64_t *bytes)
{
    *bytes = ((struct spy *)self)->length;
    return spy_call(self);
}

static void spy_grow(struct spy *s, uint64_t end)
{
    if (end > s->room) {
        s->data = realloc(s->data, end);
        assert_non_null(s->data);
        memset(s->data + s->room, 0, end - s->room);
        s->room = end;
    }
    s->length = end > s->length ? end : s->length;
}

static int spy_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct spy *s = self;

    for (int i = 0; i < cnt; off += iov[i++].iov_len) {
        memset(iov[i].iov_base, 0, iov[i].iov_len);
        for (size_t j = 0; j < iov[i].iov_len && off + j < s->length; j++)
            ((uint8_t *)iov[i].iov_base)[j] = s->data[off + j];
    }
    return spy_call(s);
}

static int spy_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct spy *s = self;

    if (spy_call(s) < 0)
        return -EIO;
    s->last_write = s->calls;
    if (off == 0) {
        s->last_header_write = s->calls;
        s->unflushed_at_header = s->dirty;
    }
    s->dirty = true;
    for (int i = 0; i < cnt; off += iov[i++].iov_len) {
        spy_grow(s, off + iov[i].iov_len);
        memcpy(s->data + off, iov[i].iov_base, iov[i].iov_len);
    }
    return 0;
}

static int spy_flush(void *self)
{
    struct spy *s = self;

    if (spy_call(s) < 0)
        return -EIO;
    s->dirty = false;
    if (s->last_header_write)
        s->flushes_after_header++;
    return 0;
}

static int spy_truncate(void *self, uint64_t bytes)
{
    struct spy *s = self;

    if (spy_call(s) < 0)
        return -EIO;
    s->truncates++;
    s->dirty = true;
    if (bytes < s->length)
        memset(s->data + bytes, 0, s->length - bytes);
    spy_grow(s, bytes);
    s->length = bytes;
    return 0;
}

static int spy_limits(void *self, struct zqcow2_limits *out)
{
    out->caps = ((struct spy *)self)->read_only ? ZQCOW2_CAP_READ_ONLY : 0;
    return 0;
}

static int spy_lock(void *self, int mode)
{
    ((struct spy *)self)->lock = mode;
    return 0;
}

static const struct zqcow2_backend_ops spy_ops = {.size = sizeof(spy_ops),
                                                  .name = "spy",
                                                  .length = spy_length,
                                                  .readv = spy_readv,
                                                  .writev = spy_writev,
                                                  .flush = spy_flush,
                                                  .limits = spy_limits,
                                                  .truncate = spy_truncate,
                                                  .lock = spy_lock};

static int spy_create(struct spy *s, const struct zqcow2_create_options *o,
                      struct zqcow2_error *err)
{
    struct zqcow2_backend *be;
    int rc;

    assert_int_equal(zqcow2_backend_new(&spy_ops, s, NULL, &be), 0);
    rc = zqcow2_create(be, o, err);
    zqcow2_backend_close(be);
    assert_int_equal(s->lock, ZQCOW2_LOCK_NONE);
    return rc;
}

/* ---- options ---- */

static void refused(const struct zqcow2_create_options *o, const char *option)
{
    struct zqcow2_error err = {0};
    struct spy s = {0};
    int rc = spy_create(&s, o, &err);

    if (rc != -EINVAL || err.code != rc || !strstr(err.text, option) || s.length || s.last_write)
        fail_msg("%s: %d \"%s\", file of %llu bytes", option, rc, err.text,
                 (unsigned long long)s.length);
    assert_int_equal(spy_create(&s, o, NULL), -EINVAL);
}

#define REFUSED(text, change) \
    do { \
        struct zqcow2_create_options o = opt(MiB(64), MiB(4)); \
        change; \
        refused(&o, text); \
    } while (0)

static void test_options_refused(void **state)
{
    (void)state;
    REFUSED("size 0", o.virtual_size = 0);
    REFUSED("size 1000", o.virtual_size = 1000);
    REFUSED("size 67108864", (o.zone_size = 0, o.flags = ZQCOW2_CREATE_EMPTY));
    REFUSED("size 0", (o.virtual_size = 0, o.flags = ZQCOW2_CREATE_EMPTY));
    REFUSED("size", o.virtual_size = (1ull << 62) + 512);
    REFUSED("size", (o.virtual_size = 1ull << 62, o.zone_size = 1ull << 61)); /* L1 too large */
    REFUSED("cluster_size 256", o.cluster_size = 256);
    REFUSED("cluster_size 1000", o.cluster_size = 1000);
    REFUSED("cluster_size 4194304", o.cluster_size = 4u << 20);
    REFUSED("cluster_size 8192", (o.cluster_size = 8192, o.flags = ZQCOW2_CREATE_EXTENDED_L2));
    REFUSED("refcount_bits 3", o.refcount_bits = 3);
    REFUSED("refcount_bits 128", o.refcount_bits = 128);
    REFUSED("zone.size", o.zone_size = MiB(3));
    REFUSED("zone.size", o.zone_size = 32768);
    REFUSED("zone.capacity", o.zone_capacity = MiB(5));
    REFUSED("zone.capacity", o.zone_capacity = 1000);
    REFUSED("zone.conventional_zones", o.conventional_zones = 16);
    REFUSED("zone.max_open_zones", (o.max_open_zones = 9, o.max_active_zones = 8));
    REFUSED("zone.max_append_bytes", o.max_append_bytes = 65536);
    REFUSED("zone.layout", o.layout = 3);
    REFUSED("zone.layout", o.layout = 1);
    REFUSED("zone.size", (o.layout = 7, o.virtual_size = o.zone_size = 1ull << 32));
    REFUSED("lazy_refcounts", o.flags = ZQCOW2_CREATE_LAZY_REFCOUNTS);
    REFUSED("flags", o.flags = 1u << 7);
    REFUSED("preallocation", o.preallocation = 4);
    REFUSED("zone.capacity", (o.zone_size = 0, o.zone_capacity = 512));
    REFUSED("zone.conventional_zones", (o.zone_size = 0, o.conventional_zones = 1));
    REFUSED("zone.max_open_zones", (o.zone_size = 0, o.max_open_zones = 1));
    REFUSED("zone.max_active_zones", (o.zone_size = 0, o.max_active_zones = 1));
    REFUSED("zone.max_append_bytes", (o.zone_size = 0, o.max_append_bytes = 512));
    REFUSED("zone.layout", (o.zone_size = 0, o.layout = 44));
}

static void test_options_struct(void **state)
{
    struct {
        struct zqcow2_create_options o;
        uint64_t newer;
    } later = {opt(MiB(64), MiB(4)), 0};
    struct spy s = {0};

    (void)state;
    later.o.size = sizeof(later);
    assert_int_equal(spy_create(&s, &later.o, NULL), 0);
    later.newer = 1;
    assert_int_equal(spy_create(&s, &later.o, NULL), -E2BIG);
    later.o.size = 8;
    assert_int_equal(spy_create(&s, &later.o, NULL), -EINVAL);
    free(s.data);
}

static void test_backend_refused(void **state)
{
    struct zqcow2_create_options o = opt(MiB(64), MiB(4));
    struct zqcow2_error err;
    struct spy s = {.read_only = true};

    (void)state;
    assert_int_equal(spy_create(&s, &o, &err), -EROFS);
    assert_int_equal(err.code, -EROFS);
    s = (struct spy){0};
    spy_grow(&s, 1);
    assert_int_equal(spy_create(&s, &o, &err), -EEXIST);
    assert_int_equal(s.last_write, 0);
    o.flags = ZQCOW2_CREATE_FORCE;
    assert_int_equal(spy_create(&s, &o, &err), 0);
    free(s.data);
}

/* ---- bytes ---- */

static void test_bytes(void **state)
{
    struct zqcow2_create_options o = opt(MiB(61) + 512, MiB(4));
    struct pic p;

    (void)state;
    o.conventional_zones = 2;
    o.zone_capacity = MiB(3);
    o.max_open_zones = 6;
    o.max_active_zones = 8;
    pic_make(&p, &o);
    assert_int_equal(pic_length(&p), 5 * 65536);
    assert_int_equal(pic_get(&p, 24, 8), MiB(61) + 512);
    assert_int_equal(pic_get(&p, 36, 4), 1);
    assert_int_equal(p.rt, 0x10000);
    assert_int_equal(pic_get(&p, p.rt, 8), 0x20000);
    assert_int_equal(p.wp, 0x30000);
    assert_int_equal(p.l1, 0x40000);
    assert_int_equal(pic_get(&p, 72, 8), 32);
    assert_int_equal(p.mark, 120);
    assert_int_equal(pic_get(&p, p.mark, 8), 0);
    assert_int_equal(pic_get(&p, p.zoned - 4, 4), 44);
    assert_int_equal(pic_get(&p, p.zoned + 36, 8), 8ull << 32 | 6);
    for (uint64_t i = 0; i < 16; i++)
        assert_int_equal(pic_get(&p, p.wp + i * 8, 8), i * MiB(4) | (i < 2 ? 1ull << 63 : 0));
    for (uint64_t i = 0; i < 5; i++)
        assert_int_equal(pic_refcount(&p, i << 16), 1);
    assert_int_equal(pic_get(&p, 0x20000 + 10, 8), 0);
    assert_int_equal(pic_get(&p, p.l1, 8), 0);
    pic_free(&p);
}

static void test_max_append_default(void **state)
{
    static const struct {
        uint32_t layout;
        uint64_t zone;
        uint32_t want, at;
    } cases[] = {{7, MiB(4), 65536, 28}, {48, MiB(4), 65536, 36}, {56, MiB(4), 65536, 36},
                 {7, 65536, 64512, 28},  {56, 512, 0, 36},        {48, 1024, 0, 36},
                 {48, 2048, 1024, 36}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct zqcow2_create_options o = opt(cases[i].zone * 4, cases[i].zone);
        struct pic p;

        o.layout = cases[i].layout;
        o.cluster_size = cases[i].zone < 65536 ? 512 : 0;
        pic_make(&p, &o);
        assert_int_equal(pic_get(&p, p.zoned + cases[i].at, 4), cases[i].want);
        pic_free(&p);
    }
}

static void test_lazy(void **state)
{
    struct zqcow2_create_options o = opt(MiB(64), 0);
    struct pic p;

    (void)state;
    o.flags = ZQCOW2_CREATE_LAZY_REFCOUNTS;
    pic_make(&p, &o);
    assert_int_equal(pic_get(&p, 80, 8), 1);
    assert_int_equal(pic_get(&p, 72, 8), 0);
    assert_int_equal(p.zoned, 0);
    assert_int_equal(p.mark, 120);
    pic_free(&p);
}

/* Half as many clusters to a table: the second GiB begins the fifth of 256 MiB. */
static void test_extended(void **state)
{
    static const uint64_t zones[] = {0, MiB(4)};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct zqcow2_create_options o = opt(MiB(1024) + 512, zones[i]);
        struct pic p;

        o.flags = ZQCOW2_CREATE_EXTENDED_L2;
        pic_make(&p, &o);
        assert_int_equal(pic_get(&p, 72, 8), zones[i] ? 0x30 : 0x10);
        assert_int_equal(pic_get(&p, 36, 4), 5);
        pic_free(&p);
    }
}

/* A device without bytes has no L1 either, and so has one that stands on nothing but that. */
static void test_empty(void **state)
{
    struct zqcow2_create_options o = opt(0, 0);
    struct pic p;

    (void)state;
    o.flags = ZQCOW2_CREATE_EMPTY;
    for (o.cluster_size = 512; o.cluster_size <= 2u << 20; o.cluster_size *= 2) {
        pic_make(&p, &o);
        assert_int_equal(pic_get(&p, 24, 8), 0);
        assert_int_equal(pic_get(&p, 36, 4), 0);
        assert_int_equal(pic_check(&p, 0), 0);
        assert_int_equal(p.res.corruptions + p.res.leaked_clusters + p.res.warnings, 0);
        assert_int_equal(p.res.image_end_offset, pic_length(&p));
        pic_free(&p);
    }
}

/* Every cluster size, refcount width and layout, small and as large as the L1 allows. */
static void test_every_shape(void **state)
{
    static const uint32_t layouts[] = {0, 7, 44, 48, 56};

    (void)state;
    for (uint32_t cluster = 512; cluster <= 2u << 20; cluster *= 2) {
        for (uint32_t bits = 1; bits <= 64; bits *= 2) {
            for (size_t l = 0; l < 5; l++) {
                struct zqcow2_create_options o = opt(MiB(100) + 512, layouts[l] ? MiB(4) : 0);
                struct pic p;

                o.cluster_size = cluster;
                o.refcount_bits = bits;
                o.layout = layouts[l];
                pic_make(&p, &o);
                if (pic_check(&p, 0) != 0 || p.res.corruptions || p.res.leaked_clusters ||
                    p.res.warnings)
                    fail_msg("cluster_size %u, refcount_bits %u, layout %u: %s%s", cluster, bits,
                             layouts[l], p.err.text, p.found);
                assert_int_equal(p.res.image_end_offset, pic_length(&p));
                pic_free(&p);
            }
        }
    }
}

static void test_largest(void **state)
{
    (void)state;
    for (uint32_t cluster = 512; cluster <= 2u << 20; cluster *= 4) {
        uint64_t most = (uint64_t)cluster * (cluster / 8) * ((32u << 20) / 8);
        struct zqcow2_create_options o = opt(most < 1ull << 62 ? most : 1ull << 62, 0);
        struct zqcow2_error err;
        struct pic p;

        o.cluster_size = cluster;
        o.refcount_bits = 64;
        pic_make(&p, &o);
        assert_int_equal(p.l1_entries, (32u << 20) / 8);
        if (pic_check(&p, 0) != 0 || p.res.corruptions || p.res.leaked_clusters)
            fail_msg("cluster_size %u: %s%s", cluster, p.err.text, p.found);
        pic_free(&p);
        o.virtual_size += 512;
        assert_int_equal(spy_create(&(struct spy){0}, &o, &err), -EINVAL);
    }
}

static void test_16_tib(void **state)
{
    struct zqcow2_create_options o = opt(TiB(16), MiB(256));
    struct timespec a, b;
    struct pic p;
    double s;

    (void)state;
    clock_gettime(CLOCK_MONOTONIC, &a);
    pic_make(&p, &o);
    clock_gettime(CLOCK_MONOTONIC, &b);
    s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
    printf("16 TiB, 65,536 zones: %llu bytes in %.3f s\n", (unsigned long long)pic_length(&p), s);
    assert_true(pic_length(&p) < 10u << 20);
    assert_true(s < 1);
    assert_int_equal(pic_get(&p, p.wp + 65535 * 8, 8), 65535ull << 28);
    assert_int_equal(pic_check(&p, 0), 0);
    assert_int_equal(p.res.corruptions + p.res.leaked_clusters, 0);
    pic_free(&p);
}

/* ---- order and failure ---- */

static void test_header_comes_last(void **state)
{
    static const uint32_t clusters[] = {512, 65536};

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct zqcow2_create_options o = opt(MiB(1), 65536);
        struct spy s = {0};

        o.cluster_size = clusters[i];
        assert_int_equal(spy_create(&s, &o, NULL), 0);
        assert_int_equal(s.last_write, s.last_header_write);
        assert_false(s.unflushed_at_header);
        assert_int_equal(s.flushes_after_header, 1);
        assert_false(s.dirty);
        free(s.data);
    }
}

static bool is_image(const struct spy *s)
{
    return s->length >= 4 && !memcmp(s->data, "QFI\xfb", 4);
}

/* Whichever call fails: an error, and no image unless only the last flush was lost. */
static void fail_each(uint64_t old_bytes)
{
    struct zqcow2_create_options o = opt(MiB(64), MiB(4));
    int rc = -1, n;

    o.flags = ZQCOW2_CREATE_FORCE;
    for (n = 1; rc; n++) {
        struct spy s = {.fail_at = n};
        struct zqcow2_error err = {0};

        if (old_bytes)
            spy_grow(&s, old_bytes);
        rc = spy_create(&s, &o, &err);
        if (rc && (rc != -EIO || err.code != -EIO))
            fail_msg("call %d fails: %d \"%s\"", n, rc, err.text);
        if (rc && is_image(&s) && s.calls != s.fail_at)
            fail_msg("call %d fails: an image is left", n);
        if (!rc && n <= s.calls)
            fail_msg("call %d failed, and nobody saw it", n);
        free(s.data);
    }
    assert_true(n > 7);
}

static void test_every_call_fails(void **state)
{
    (void)state;
    fail_each(0);
    fail_each(1000000);
}

/* Over an old image: it is gone, durably, before anything else is written. */
static void test_force(void **state)
{
    struct zqcow2_create_options o = opt(MiB(64), MiB(4));
    struct spy s = {0};

    (void)state;
    assert_int_equal(spy_create(&s, &o, NULL), 0);
    memset(s.data + 0x40000, 0xff, 512);
    o.flags = ZQCOW2_CREATE_FORCE;
    s.fail_at = s.calls + 4; /* length, truncate, flush, truncate */
    assert_int_equal(spy_create(&s, &o, NULL), -EIO);
    assert_int_equal(s.length, 0);
    assert_false(s.dirty);
    assert_int_equal(spy_create(&s, &o, NULL), 0);
    assert_int_equal(s.data[0x40000], 0);
    free(s.data);
}

static void *no_alloc(void *ctx, size_t align, size_t size)
{
    (void)ctx;
    (void)align;
    (void)size;
    return NULL;
}

static void no_free(void *ctx, void *p, size_t size)
{
    (void)ctx;
    (void)p;
    (void)size;
}

static void test_no_memory(void **state)
{
    struct zqcow2_hooks h = ZQCOW2_HOOKS_INIT;
    struct zqcow2_create_options o = opt(MiB(64), MiB(4));
    struct zqcow2_error err = {0};
    struct spy s = {0};

    (void)state;
    h.alloc = no_alloc;
    h.free = no_free;
    o.hooks = &h;
    assert_int_equal(spy_create(&s, &o, &err), -ENOMEM);
    assert_int_equal(err.code, -ENOMEM);
    assert_int_equal(s.length, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_refused),
        cmocka_unit_test(test_options_struct),
        cmocka_unit_test(test_backend_refused),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_max_append_default),
        cmocka_unit_test(test_lazy),
        cmocka_unit_test(test_extended),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_every_shape),
        cmocka_unit_test(test_largest),
        cmocka_unit_test(test_16_tib),
        cmocka_unit_test(test_header_comes_last),
        cmocka_unit_test(test_every_call_fails),
        cmocka_unit_test(test_force),
        cmocka_unit_test(test_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
