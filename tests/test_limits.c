/* SPDX-License-Identifier: MIT */
/*
 * Limits of backends where random operations do not get: vectors of a certain shape, compressed
 * clusters, tables that grow, check and repair. The strict backend looks at every call.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zlib.h>
#include "rig/limits.h"
#include "rig/rig.h"

#define CLUSTER 4096u

static const struct geometry zoned = {.name = "limits",
                                      .size = MiB(4),
                                      .zone_size = MiB(1),
                                      .conventional = 1,
                                      .cluster = 512,
                                      .refcount_bits = 64};
static const struct geometry packed = {
    .name = "packed", .size = MiB(2), .zone_size = MiB(1), .conventional = 1, .cluster = CLUSTER};
static uint8_t buf[MiB(1)], back[MiB(1)];

static void begin(struct rig *r, const struct geometry *g, enum rig_world world,
                  const struct limits *l)
{
    rig_init(r, g, world, 1);
    if (l)
        r->store.limits = l->l;
    assert_int_equal(rig_create(r), 0);
    assert_int_equal(rig_open(r, true), 0);
}

static void end(struct rig *r, const struct limits *l)
{
    const char *verdict = rig_free(r);

    if (verdict)
        fail_msg("limits %s: %s", l ? l->name : "none", verdict);
}

/* ---- vectors ---- */

static int run(struct rig *r, int op, uint64_t off, const struct iovec *iov, uint32_t n)
{
    struct zqcow2_request q = {
        .size = sizeof(q), .op = (uint16_t)op, .offset = off, .iov = iov, .iovcnt = n};

    return zqcow2_run(r->img, &q, NULL);
}

/* Elements of these lengths over and over, until there are `len` bytes. */
static uint32_t shape(struct iovec *iov, uint8_t *from, size_t len, size_t first, size_t then)
{
    size_t at = 0;
    uint32_t n = 0;

    for (; at < len; at += iov[n++].iov_len) {
        size_t want = n ? then : first;
        iov[n] = (struct iovec){from + at, want < len - at ? want : len - at};
    }
    return n;
}

static void one_shape(const struct limits *l, enum rig_world world, size_t len, size_t first,
                      size_t then)
{
    static struct iovec out[66000], in[66000];
    struct rig r;
    uint32_t n = shape(out, buf, len, first, then), m = shape(in, back, len, then + 1, first);

    begin(&r, &zoned, world, l);
    for (uint64_t base = 0; base <= MiB(1); base += MiB(1)) {
        rig_pattern(buf, len, base, first);
        memset(back, 0xee, len);
        if (run(&r, ZQCOW2_OP_WRITE, base, out, n) || run(&r, ZQCOW2_OP_READ, base, in, m) ||
            memcmp(buf, back, len))
            fail_msg("%s, limits %s: %zu bytes in elements of %zu, %zu at %#llx", "vectors",
                     l ? l->name : "none", len, first, then, (unsigned long long)base);
    }
    end(&r, l);
}

static void vectors_of_any_shape(void **state)
{
    static const size_t shapes[][3] = {
        {65536, 1001, 4096}, /* 17 pages, the first one from its middle on */
        {512, 1, 1},         {1024, 100, 200},    {65536, 1, 1},   {65536, 511, 513},
        {65536, 4096, 3},    {300032, 12, 70000}, {4096, 4095, 1}, {131072, 512, 512},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
        for (unsigned w = RIG_PLAIN; w <= RIG_SHUFFLED; w++) {
            one_shape(NULL, w, shapes[i][0], shapes[i][1], shapes[i][2]);
            for (unsigned l = 0; l < rig_nr_limits; l++)
                one_shape(&rig_limits[l], w, shapes[i][0], shapes[i][1], shapes[i][2]);
        }
    }
}

/* What counts is the sum. */
static void only_the_sum_counts(void **state)
{
    struct iovec iov[20];
    struct rig r;

    (void)state;
    begin(&r, &zoned, RIG_PLAIN, NULL);
    for (unsigned i = 0; i < 20; i++)
        iov[i] = (struct iovec){buf + i, 0};
    assert_int_equal(run(&r, ZQCOW2_OP_READ, 0, iov, 20), -EINVAL);
    iov[3].iov_len = 300;
    iov[19].iov_len = 211;
    assert_int_equal(run(&r, ZQCOW2_OP_READ, 0, iov, 20), -EINVAL);
    iov[7].iov_len = 1;
    assert_int_equal(run(&r, ZQCOW2_OP_READ, 0, iov, 20), 0);
    iov[0].iov_len = SIZE_MAX;
    assert_int_equal(run(&r, ZQCOW2_OP_READ, 0, iov, 20), -EINVAL);
    end(&r, NULL);
}

/* Seventeen pages are no reason for a copy, nor for a second call. */
static void a_transfer_is_one_call(void **state)
{
    struct iovec iov[20];
    struct rig r;
    uint32_t n = shape(iov, buf, 65536, 1001, 4096);

    (void)state;
    begin(&r, &packed, RIG_PLAIN, NULL);
    assert_int_equal(n, 17);
    assert_int_equal(run(&r, ZQCOW2_OP_WRITE, MiB(1), iov, n), 0);
    record_reset(&r.record);
    assert_int_equal(run(&r, ZQCOW2_OP_READ, MiB(1), iov, n), 0);
    assert_int_equal(r.record.calls[ZQCOW2_IO_READ], 1);
    end(&r, NULL);
}

/* ---- compressed clusters ---- */

static uint64_t get64(struct rig *r, uint64_t at)
{
    uint8_t b[8];
    uint64_t v = 0;

    store_get(&r->store, b, 8, at);
    for (int i = 0; i < 8; i++)
        v = v << 8 | b[i];
    return v;
}

static void put64(struct rig *r, uint64_t at, uint64_t v)
{
    uint8_t b[8];

    for (int i = 7; i >= 0; i--, v >>= 8)
        b[i] = (uint8_t)v;
    store_put(&r->store, b, 8, at);
}

static size_t deflate_cluster(const uint8_t *from, uint8_t *to)
{
    z_stream z = {0};

    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (uint8_t *)(uintptr_t)from;
    z.avail_in = CLUSTER;
    z.next_out = to;
    z.avail_out = CLUSTER;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return CLUSTER - z.avail_out;
}

/* The first n clusters, one behind the other at the file's end, each where the last one ended. */
static void compress_clusters(struct rig *r, unsigned n)
{
    uint64_t l2 = get64(r, get64(r, 40)) & 0xfffffffffffe00ull, at = r->store.length + 100;
    uint8_t out[CLUSTER];

    for (unsigned i = 0; i < n; i++) {
        size_t len = deflate_cluster(buf + i * CLUSTER, out);
        uint64_t more = (at + len - 1) / 512 - at / 512;

        store_put(&r->store, out, len, at);
        put64(r, l2 + i * 8, 1ull << 62 | more << 58 | at);
        at += len;
    }
    r->store.length = (at + 511) / 512 * 512;
}

static void one_compressed(const struct limits *l, enum rig_world world)
{
    struct rig r;

    begin(&r, &packed, world, l);
    for (size_t i = 0; i < 16 * CLUSTER; i++)
        buf[i] = (uint8_t)(i / 7 * (i / 100 % 5));
    assert_int_equal(zqcow2_write(r.img, buf, 16 * CLUSTER, 0, 0), 0);
    assert_int_equal(rig_close(&r), 0);
    compress_clusters(&r, 16);
    assert_int_equal(rig_open(&r, true), 0);
    memset(back, 0xee, sizeof(back));
    assert_int_equal(zqcow2_read(r.img, back, 16 * CLUSTER, 0), 0);
    assert_memory_equal(buf, back, 16 * CLUSTER);
    memset(buf + 3 * CLUSTER + 512, 1, 1024); /* what surrounds it is unpacked */
    assert_int_equal(zqcow2_write(r.img, buf + 3 * CLUSTER + 512, 1024, 3 * CLUSTER + 512, 0), 0);
    assert_int_equal(zqcow2_read(r.img, back, 16 * CLUSTER, 0), 0);
    assert_memory_equal(buf, back, 16 * CLUSTER);
    end(&r, l);
}

static void compressed_clusters(void **state)
{
    (void)state;
    for (unsigned l = 0; l < rig_nr_limits; l++) {
        one_compressed(&rig_limits[l], RIG_PLAIN);
        one_compressed(&rig_limits[l], RIG_SHUFFLED);
    }
}

/* ---- tables that grow, check, repair ---- */

/* 2 MiB are all that the first refcount table describes. */
static void one_growth(const struct limits *l, enum rig_world world)
{
    struct rig r;

    begin(&r, &zoned, world, l);
    for (uint64_t at = 0; at < MiB(4); at += KiB(64))
        assert_int_equal(rig_write(&r, at, KiB(64), 7), 0);
    for (uint64_t zone = 2; zone < 4; zone++)
        assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_RESET, MiB(zone), MiB(1), NULL), 0);
    assert_int_equal(rig_close(&r), 0);
    put64(&r, get64(&r, get64(&r, 48)) + 63 * 8, 9); /* counted too often, whatever owns it */
    assert_int_equal(rig_check(&r, ZQCOW2_CHECK_REPAIR_ALL), 0);
    r.why[0] = 0;
    assert_int_equal(rig_check(&r, 0), 0);
    if (r.check.corruptions || r.check.leaked_clusters)
        fail_msg("limits %s: %s", l->name, r.why);
    assert_int_equal(rig_open(&r, true), 0);
    for (uint64_t at = 0; at < MiB(2); at += KiB(64))
        assert_true(rig_holds(&r, at, KiB(64), at, 7));
    end(&r, l);
}

static void growth_and_repair(void **state)
{
    unsigned n = 0;

    (void)state;
    for (unsigned l = 0; l < rig_nr_limits; l++, n += 2) {
        one_growth(&rig_limits[l], RIG_PLAIN);
        one_growth(&rig_limits[l], RIG_SHUFFLED);
    }
    printf("limits: %u worlds, none broken\n", n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_of_any_shape),   cmocka_unit_test(only_the_sum_counts),
        cmocka_unit_test(a_transfer_is_one_call), cmocka_unit_test(compressed_clusters),
        cmocka_unit_test(growth_and_repair),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
