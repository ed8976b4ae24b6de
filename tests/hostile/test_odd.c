/* SPDX-License-Identifier: MIT */
/*
 * Images that are odd and sound all the same: what other programs leave, and read. They open, keep
 * every byte, and go on working.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>
#include <zqcow2/bitmap.h>

#include "unit/pic.h"

#define KiB(n)  ((uint64_t)(n) << 10)
#define MiB(n)  ((uint64_t)(n) << 20)
#define CLUSTER 4096u
#define X       (62 - (12 - 8)) /* of a compressed entry: where the number of sectors begins */
#define ZONE    KiB(256)
#define RDWR    (ZQCOW2_OPEN_BORROW | ZQCOW2_OPEN_RDWR)

static uint8_t data[ZONE];

static void make(struct pic *p, uint64_t zone_size)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = MiB(1);
    o.cluster_size = CLUSTER;
    o.zone_size = zone_size;
    pic_make(p, &o);
}

static struct zqcow2_image *open_image(struct pic *p, uint32_t flags)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;

    o.flags = flags;
    if (zqcow2_open(p->be, &o, &img, &p->err) != 0)
        fail_msg("open: %s", p->err.text);
    return img;
}

static void expect(struct zqcow2_image *img, uint64_t off, size_t len, int fill)
{
    static uint8_t want[ZONE];

    memset(want, fill, len);
    memset(data, 0x77, len);
    assert_int_equal(zqcow2_read(img, data, len, off), 0);
    if (memcmp(data, want, len))
        fail_msg("0x%llx + %zu does not read as 0x%x", (unsigned long long)off, len,
                 (unsigned)fill);
}

static void put(struct zqcow2_image *img, uint64_t off, size_t len, int fill)
{
    memset(data, fill, len);
    assert_int_equal(zqcow2_write(img, data, len, off, 0), 0);
}

/* Maps a guest cluster to a host cluster with a deflated one in it; flags: of the entry. */
static void map_compressed(struct pic *p, uint64_t guest, int fill, uint64_t flags)
{
    uint64_t at = pic_l2(p, guest), host = pic_alloc(p, 1);
    uint8_t in[CLUSTER], out[CLUSTER];
    z_stream z = {.next_in = in, .avail_in = CLUSTER, .next_out = out, .avail_out = CLUSTER};

    memset(in, fill, sizeof(in));
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, -12, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    assert_int_equal(zqcow2_backend_write(p->be, out, sizeof(out) - z.avail_out, host), 0);
    pic_put(p, at, 8, flags | PIC_COMPRESSED | (uint64_t)(z.total_out / 512) << X | host);
}

/* ---- compressed clusters beyond a write pointer: what a reset and a power cut leave ---- */

static void make_ahead(struct pic *p)
{
    make(p, ZONE);
    for (uint64_t at = 0; at < KiB(64); at += CLUSTER)
        map_compressed(p, at, 1 + (int)(at / CLUSTER), 0);
    pic_put(p, p->mark, 1, 1); /* not closed cleanly: opening walks it */
}

static void end_ahead(struct pic *p, struct zqcow2_image *img)
{
    assert_int_equal(zqcow2_close(img), 0);
    pic_finds(p, 0, 0, 0, "", "");
    pic_free(p);
}

static void test_ahead_reads_as_zeros(void **state)
{
    struct zqcow2_image *img;
    struct pic p;

    (void)state;
    make_ahead(&p);
    img = open_image(&p, ZQCOW2_OPEN_BORROW);
    expect(img, 0, ZONE, 0);
    assert_int_equal(zqcow2_close(img), 0);
    img = open_image(&p, RDWR);
    expect(img, 0, ZONE, 0);
    end_ahead(&p, img);
}

static void test_ahead_is_written_over(void **state)
{
    struct zqcow2_image *img;
    struct pic p;

    (void)state;
    make_ahead(&p);
    img = open_image(&p, RDWR);
    put(img, 0, KiB(18), 0x61); /* ends in the middle of a cluster */
    expect(img, 0, KiB(18), 0x61);
    expect(img, KiB(18), KiB(100), 0);
    assert_int_equal(zqcow2_flush(img), 0);
    put(img, KiB(18), KiB(30), 0x62);
    expect(img, 0, KiB(18), 0x61);
    expect(img, KiB(18), KiB(30), 0x62);
    expect(img, KiB(48), KiB(100), 0);
    end_ahead(&p, img);
}

static void test_ahead_is_finished(void **state)
{
    struct zqcow2_image *img;
    struct pic p;

    (void)state;
    make_ahead(&p);
    pic_put(&p, p.wp, 8, KiB(6)); /* within the second compressed cluster */
    img = open_image(&p, RDWR);
    expect(img, 0, KiB(4), 1);
    expect(img, KiB(4), KiB(2), 2);
    expect(img, KiB(6), KiB(100), 0);
    assert_int_equal(zqcow2_zone_finish(img, 0, ZONE, 0), 0);
    expect(img, 0, KiB(4), 1);
    expect(img, KiB(4), KiB(2), 2);
    expect(img, KiB(6), KiB(250), 0);
    end_ahead(&p, img);
}

static void test_ahead_is_reset(void **state)
{
    struct zqcow2_image *img;
    struct pic p;

    (void)state;
    make_ahead(&p);
    pic_put(&p, p.wp, 8, KiB(64));
    img = open_image(&p, RDWR);
    expect(img, KiB(60), KiB(4), 16);
    assert_int_equal(zqcow2_zone_reset(img, 0, ZONE, ZQCOW2_FUA), 0);
    expect(img, 0, ZONE, 0);
    put(img, 0, KiB(4), 0x63);
    expect(img, 0, KiB(4), 0x63);
    expect(img, KiB(4), KiB(100), 0);
    end_ahead(&p, img);
}

/* ---- COPIED on a compressed cluster ---- */

static void test_compressed_copied(void **state)
{
    struct zqcow2_image *img;
    struct pic p;

    (void)state;
    make(&p, 0);
    map_compressed(&p, 0, 0x41, PIC_COPIED);
    map_compressed(&p, KiB(4), 0x42, PIC_COPIED);
    img = open_image(&p, ZQCOW2_OPEN_BORROW);
    expect(img, 0, KiB(4), 0x41);
    assert_int_equal(zqcow2_close(img), 0);
    pic_finds(&p, 2, 0, 0, "COPIED is set", "L2 entry 1");
    img = open_image(&p, RDWR);
    put(img, 512, 512, 0x43); /* unpacked, and not written where it lies */
    expect(img, 0, 512, 0x41);
    expect(img, 512, 512, 0x43);
    expect(img, 1024, KiB(3), 0x41);
    expect(img, KiB(4), KiB(4), 0x42);
    assert_int_equal(zqcow2_close(img), 0);
    pic_finds(&p, 1, 0, 0, "COPIED is set", "L2 entry 1");
    assert_int_equal(pic_check(&p, ZQCOW2_CHECK_REPAIR), 0);
    pic_finds(&p, 0, 0, 0, "", "");
    img = open_image(&p, ZQCOW2_OPEN_BORROW);
    expect(img, KiB(4), KiB(4), 0x42);
    assert_int_equal(zqcow2_close(img), 0);
    pic_free(&p);
}

/* ---- sizes and names ---- */

static uint32_t info_of(struct zqcow2_image *img, uint64_t size)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;

    assert_int_equal(zqcow2_get_info(img, &info), 0);
    assert_int_equal(info.virtual_size, size);
    return info.flags & (ZQCOW2_INFO_SIZE_CUT | ZQCOW2_INFO_EMPTY_BACKING);
}

static void test_odd_size(void **state)
{
    struct zqcow2_image *img;
    struct pic p;

    (void)state;
    make(&p, 0);
    pic_map(&p, 0, 0x51);
    pic_put(&p, 24, 8, 1024 + 511);
    img = open_image(&p, RDWR);
    assert_int_equal(info_of(img, 1024), ZQCOW2_INFO_SIZE_CUT);
    expect(img, 0, 1024, 0x51);
    put(img, 512, 512, 0x52);
    assert_int_equal(zqcow2_read(img, data, 512, 1024), -EINVAL);
    assert_int_equal(zqcow2_write(img, data, 1024, 512, 0), -EINVAL);
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(pic_get(&p, 24, 8), 1024 + 511); /* nobody's business to change it */
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

/* A size below a sector, and 0, with and without an L1 table: a device without sectors. */
static void test_no_size(void **state)
{
    static const struct {
        uint64_t size, l1_size;
    } cases[] = {{0, 1}, {0, 0}, {1, 1}, {511, 1}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct zqcow2_image *img;
        struct pic p;

        make(&p, 0);
        pic_put(&p, 24, 8, cases[i].size);
        pic_put(&p, 36, 4, cases[i].l1_size);
        if (!cases[i].l1_size) {
            pic_set_refcount(&p, p.l1, 0);
            pic_put(&p, 40, 8, 0);
        }
        for (int flags = ZQCOW2_OPEN_BORROW; flags <= RDWR; flags += RDWR - ZQCOW2_OPEN_BORROW) {
            img = open_image(&p, (uint32_t)flags);
            assert_int_equal(info_of(img, 0), cases[i].size ? ZQCOW2_INFO_SIZE_CUT : 0);
            assert_int_equal(zqcow2_read(img, data, 512, 0), -EINVAL);
            assert_int_equal(zqcow2_flush(img), 0);
            assert_int_equal(zqcow2_bitmap_add(img, "b", 0, 0, NULL),
                             flags == RDWR ? ZQCOW2_EFEATURE : -EROFS);
            assert_int_equal(zqcow2_close(img), 0);
        }
        pic_finds(&p, 0, 0, 0, "", "");
        pic_free(&p);
    }
}

/* A snapshot of such a device cannot be applied beside a bitmap, which QEMU would then refuse. */
static void test_snapshot_of_no_size(void **state)
{
    struct zqcow2_error err = {0, ""};
    struct zqcow2_image *img;
    struct pic p;

    (void)state;
    make(&p, 0);
    pic_put(&p, 24, 8, 511);
    pic_snapshot(&p);
    pic_put(&p, 24, 8, MiB(1));
    img = open_image(&p, RDWR);
    assert_int_equal(zqcow2_bitmap_add(img, "b", 0, 0, NULL), 0);
    assert_int_equal(zqcow2_snapshot_apply(img, "s", &err), ZQCOW2_EFEATURE);
    assert_non_null(strstr(err.text, "bitmap \"b\" cannot be kept on a device of size 0"));
    assert_int_equal(info_of(img, MiB(1)), 0);
    assert_int_equal(zqcow2_bitmap_remove(img, "b", NULL), 0);
    assert_int_equal(zqcow2_snapshot_apply(img, "s", NULL), 0);
    assert_int_equal(info_of(img, 0), ZQCOW2_INFO_SIZE_CUT);
    assert_int_equal(zqcow2_close(img), 0);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

static void test_backing_without_name(void **state)
{
    struct zqcow2_image *img;
    struct pic p;

    (void)state;
    make(&p, 0);
    pic_map(&p, 0, 0x51);
    pic_put(&p, 8, 8, 2048);
    pic_put(&p, 16, 4, 0);
    img = open_image(&p, RDWR);
    assert_int_equal(info_of(img, MiB(1)), ZQCOW2_INFO_EMPTY_BACKING);
    expect(img, 0, KiB(4), 0x51);
    expect(img, KiB(4), KiB(64), 0);
    put(img, KiB(4), 512, 0x52);
    assert_int_equal(zqcow2_close(img), 0);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

/* ---- a bitmaps extension whose autoclear bit is clear ---- */

static void put_bitmaps(struct pic *p, uint64_t dir, uint64_t bytes, unsigned n)
{
    pic_put(p, 112, 4, 0x23852875); /* in the mark's and the feature names' place */
    pic_put(p, 116, 4, 24);
    pic_put(p, 120, 4, n);
    pic_put(p, 124, 4, 0);
    pic_put(p, 128, 8, bytes);
    pic_put(p, 136, 8, dir);
    pic_put(p, 144, 8, 0);
}

/* It names clusters that are somebody's data by now: it says nothing about them. */
static void test_stale_bitmaps_on_data(void **state)
{
    static const uint32_t repairs[] = {0, ZQCOW2_CHECK_REPAIR_LEAKS, ZQCOW2_CHECK_REPAIR,
                                       ZQCOW2_CHECK_REPAIR_ALL};
    struct zqcow2_image *img;
    struct pic p;

    (void)state;
    make(&p, 0);
    put_bitmaps(&p, pic_map(&p, 0, 0x51), 32, 1);
    pic_put(&p, 72, 8, 1); /* not closed cleanly: opening for writing repairs */
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pic_check(&p, repairs[i]), 0);
        assert_int_equal(p.res.corruptions + p.res.leaked_clusters, 0);
    }
    img = open_image(&p, RDWR);
    expect(img, 0, KiB(4), 0x51);
    put(img, KiB(8), 512, 0x52);
    assert_int_equal(zqcow2_close(img), 0);
    pic_finds(&p, 0, 0, 0, "", "");
    assert_int_equal(pic_get(&p, 112, 4), 0x23852875); /* kept, as every unknown extension */
    pic_free(&p);
}

/* What it owned while the bit was set is a leak, found and freed. */
static void test_stale_bitmaps_leak(void **state)
{
    uint64_t dir, table;
    struct pic p;

    (void)state;
    make(&p, 0);
    dir = pic_alloc(&p, 1);
    table = pic_alloc(&p, 1);
    put_bitmaps(&p, dir, 32, 1);
    pic_put(&p, dir, 8, table);
    pic_put(&p, dir + 8, 4, 1);
    pic_put(&p, dir + 16, 4, 1 << 24 | 16 << 16 | 4);
    pic_put(&p, table, 8, 1);
    pic_put(&p, 88, 8, 1);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_put(&p, 88, 8, 0);
    pic_finds(&p, 0, 2, 0, "leak", "");
    assert_int_equal(pic_check(&p, ZQCOW2_CHECK_REPAIR_LEAKS), 0);
    pic_finds(&p, 0, 0, 0, "", "");
    assert_int_equal(pic_refcount(&p, dir) + pic_refcount(&p, table), 0);
    pic_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ahead_reads_as_zeros),
        cmocka_unit_test(test_ahead_is_written_over),
        cmocka_unit_test(test_ahead_is_finished),
        cmocka_unit_test(test_ahead_is_reset),
        cmocka_unit_test(test_compressed_copied),
        cmocka_unit_test(test_odd_size),
        cmocka_unit_test(test_no_size),
        cmocka_unit_test(test_snapshot_of_no_size),
        cmocka_unit_test(test_backing_without_name),
        cmocka_unit_test(test_stale_bitmaps_on_data),
        cmocka_unit_test(test_stale_bitmaps_leak),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
