/* SPDX-License-Identifier: MIT */
/* Writing to images that stand on others: copy-up, nothing unmasked, whole or not at all. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/chain.h"

/* What a discard makes zeros of: whole clusters, and the device's last one. */
static void discarded(const struct chain *c, uint64_t *off, uint64_t *len)
{
    uint64_t end = *off + *len;

    if (end != c->size[0])
        end = end / c->cluster * c->cluster;
    *off = (*off + c->cluster - 1) / c->cluster * c->cluster;
    *len = end > *off ? end - *off : 0;
}

/* One request, in which an allocation may fail: then nothing has changed (I13). */
static bool write_one(struct chain *c, struct zqcow2_image *img, unsigned fail_at)
{
    static uint8_t data[KiB(64)];
    uint64_t off = (uint64_t)chain_below((uint32_t)(c->size[0] / 512)) * 512;
    uint64_t len = (uint64_t)(1 + chain_below(chain_below(2) ? 8 : 128)) * 512;
    unsigned kind = chain_below(4);
    int rc;

    len = len < c->size[0] - off ? len : c->size[0] - off;
    memset(data, 0, sizeof(data));
    if (kind < 2)
        chain_bytes(data, len);
    heap_plan(&c->heap, fail_at, true);
    rc = kind < 2  ? zqcow2_write(img, data, len, off, 0) :
         kind == 2 ? zqcow2_write_zeroes(img, len, off, 0) :
                     zqcow2_discard(img, len, off, 0);
    heap_plan(&c->heap, 0, false);
    if (rc != 0 && (rc != -ENOMEM || !fail_at))
        fail_msg("request: %d", rc);
    if (kind == 3)
        discarded(c, &off, &len);
    if (rc == 0)
        memcpy(c->want + off, data, len);
    return rc == 0;
}

static void must_check(struct chain *c)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be = chain_backend(&c->store[0]);

    assert_int_equal(zqcow2_check(be, NULL, &res, &c->err), 0);
    assert_int_equal(res.corruptions + res.leaked_clusters, 0);
    zqcow2_backend_close(be);
}

static void overlays_are_written(void **state)
{
    static uint8_t buf[SIZE];
    unsigned failed = 0;

    (void)state;
    for (unsigned seed = 1; seed <= 24; seed++) {
        struct zqcow2_open_options opt;
        struct zqcow2_image *img;
        struct chain c;

        chain_rng = seed + 100;
        chain_make(&c, 2 + chain_below(LAYERS - 1), chain_below(2));
        c.threads = seed % 3;
        opt = chain_options(&c);
        opt.flags = ZQCOW2_OPEN_RDWR;
        opt.cache_bytes = 1;
        for (unsigned round = 0; round < 3; round++) {
            assert_int_equal(chain_open(&c, &opt, &img), 0);
            for (unsigned i = 0; i < 40; i++) {
                failed += !write_one(&c, img, i % 4 ? 0 : 1 + chain_below(6));
                assert_int_equal(zqcow2_read(img, buf, c.size[0], 0), 0);
                chain_compare(&c, buf, 0, c.size[0], seed);
            }
            assert_int_equal(zqcow2_close(img), 0);
            must_check(&c);
        }
        chain_read(&c, 1, seed);
        chain_free(&c);
    }
    assert_true(failed > 100);
    printf("overlays: 24, 2880 requests, %u of them without memory\n", failed);
}

/* Open for writing, on a raw source of 64 KiB whose first n bytes are 1. */
static struct zqcow2_image *over_raw(struct chain *c, size_t n, uint32_t cluster, uint32_t flags)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    static uint8_t ones[16384];

    assert_true(n <= sizeof(ones));
    chain_make(c, 2, true);
    memset(ones, 1, sizeof(ones));
    store_put(&c->store[1], ones, n, 0);
    how.virtual_size = c->size[0] = c->size[1] = KiB(64);
    how.cluster_size = cluster;
    how.flags = ZQCOW2_CREATE_FORCE | flags;
    how.backing_name = "1";
    how.backing_format = "raw";
    be = chain_backend(&c->store[0]);
    assert_int_equal(zqcow2_create(be, &how, &c->err), 0);
    zqcow2_backend_close(be);
    opt = chain_options(c);
    opt.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(chain_open(c, &opt, &img), 0);
    return img;
}

/* Where there is no L2 table yet, one is made to hide what is below. */
static void the_first_request_masks(void **state)
{
    struct zqcow2_image *img;
    uint8_t buf[4096];
    struct chain c;

    (void)state;
    for (unsigned discards = 0; discards < 2; discards++) {
        chain_rng = 23;
        img = over_raw(&c, sizeof(buf), 4096, 0);
        assert_int_equal(zqcow2_read(img, buf, sizeof(buf), 0), 0);
        assert_int_equal(buf[0], 1);
        assert_int_equal(
            discards ? zqcow2_discard(img, 4096, 0, 0) : zqcow2_write_zeroes(img, 4096, 0, 0), 0);
        assert_int_equal(zqcow2_read(img, buf, sizeof(buf), 0), 0);
        assert_int_equal(buf[0], 0);
        assert_int_equal(zqcow2_close(img), 0);
        must_check(&c);
        chain_free(&c);
    }
}

/* A write begins in one subcluster and ends in another: what is kept of each is its own. */
static void ends_differ(void **state)
{
    static const uint32_t zeros[] = {0, 4096};
    struct zqcow2_image *img;
    uint8_t got[16384], want[16384], data[4096];
    struct chain c;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        chain_rng = 31;
        img = over_raw(&c, sizeof(want), 0, ZQCOW2_CREATE_EXTENDED_L2);
        memset(want, 1, sizeof(want));
        memset(data, 5, sizeof(data));
        assert_int_equal(zqcow2_write_zeroes(img, 4096, zeros[i], 0), 0);
        assert_int_equal(zqcow2_write(img, data, sizeof(data), 1024, 0), 0);
        memset(want + zeros[i], 0, 4096);
        memset(want + 1024, 5, sizeof(data));
        assert_int_equal(zqcow2_read(img, got, sizeof(got), 0), 0);
        assert_memory_equal(got, want, sizeof(got));
        assert_int_equal(zqcow2_close(img), 0);
        must_check(&c);
        chain_free(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlays_are_written),
        cmocka_unit_test(the_first_request_masks),
        cmocka_unit_test(ends_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
