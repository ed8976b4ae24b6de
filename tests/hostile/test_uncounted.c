/* SPDX-License-Identifier: MIT */
/*
 * Tables with refcount 0, as a crash of another program leaves them: the space that they take looks
 * free. No write may land there; the image is marked corrupt and can still be read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/pic.h"

#define KiB(n)  ((uint64_t)(n) << 10)
#define MiB(n)  ((uint64_t)(n) << 20)
#define CLUSTER 4096u
#define RDWR    (ZQCOW2_OPEN_BORROW | ZQCOW2_OPEN_RDWR)
#define SEEN    KiB(64) /* so much is written before, at 0 */

static uint8_t data[MiB(1)];

/* Clusters of 4 KiB; a refcount block covers 8 MiB, an L2 table 2 MiB. */
static void make(struct pic *p, uint64_t zone_size, uint32_t refcount_bits)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = MiB(16);
    o.cluster_size = CLUSTER;
    o.zone_size = zone_size;
    o.refcount_bits = refcount_bits;
    pic_make(p, &o);
    for (uint64_t at = 0; at < SEEN; at += CLUSTER)
        pic_map(p, at, 0x51);
    if (zone_size)
        pic_put(p, p->wp, 8, SEEN);
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

static void expect_seen(struct zqcow2_image *img, const char *what)
{
    memset(data, 0, SEEN);
    assert_int_equal(zqcow2_read(img, data, SEEN, 0), 0);
    for (size_t i = 0; i < SEEN; i++) {
        if (data[i] != 0x51)
            fail_msg("%s: byte %zu is 0x%x", what, i, data[i]);
    }
}

/* Writes all over the device until one is refused; returns what that one got. */
static int write_until_refused(struct zqcow2_image *img)
{
    int rc = 0;

    memset(data, 0x66, sizeof(data));
    for (uint64_t at = MiB(2); rc == 0 && at < MiB(16); at += MiB(2)) {
        rc = zqcow2_write(img, data, KiB(4), at, 0);
        if (rc == 0)
            rc = zqcow2_write(img, data, KiB(256), at + KiB(4), 0);
    }
    return rc;
}

/* Only the corrupt bit, and what the mark and growth of the file need, may have changed. */
static void expect_untouched(struct pic *p, const uint8_t *before, uint64_t len, const char *what)
{
    uint64_t now;
    uint8_t *after = pic_bytes(p, &now);

    assert_true(now >= len);
    after[79] &= (uint8_t)~2u;
    if (p->mark)
        after[p->mark] = before[p->mark];
    for (uint64_t i = 0; i < len; i++) {
        if (after[i] != before[i])
            fail_msg("%s: byte 0x%llx of the file was changed", what, (unsigned long long)i);
    }
    free(after);
}

static void expect_refused(struct pic *p, uint64_t table, const char *what)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;
    struct zqcow2_image *img;
    uint8_t *before;
    uint64_t len;
    int rc;

    pic_set_refcount(p, table, 0);
    before = pic_bytes(p, &len);
    img = open_image(p, RDWR);
    rc = write_until_refused(img);
    if (rc != ZQCOW2_ECORRUPT)
        fail_msg("%s: writes give %d", what, rc);
    assert_int_equal(zqcow2_write(img, data, 512, 0, 0), ZQCOW2_ECORRUPT);
    assert_int_equal(zqcow2_write_zeroes(img, MiB(15), 512, 0), ZQCOW2_ECORRUPT);
    expect_seen(img, what);
    assert_int_equal(zqcow2_get_info(img, &info), 0);
    assert_true(info.flags & ZQCOW2_INFO_READ_ONLY);
    assert_int_equal(zqcow2_flush(img), 0);
    assert_int_equal(zqcow2_get_info(img, &info), 0);
    assert_true(info.incompatible_features & 2);
    assert_int_equal(zqcow2_close(img), 0);
    expect_untouched(p, before, len, what);
    free(before);
    assert_int_equal(pic_get(p, 79, 1) & 2, 2);
    assert_int_equal(pic_open(p, ZQCOW2_OPEN_RDWR), ZQCOW2_ECORRUPT);
    img = open_image(p, ZQCOW2_OPEN_BORROW);
    expect_seen(img, what);
    assert_int_equal(zqcow2_close(img), 0);
}

/* And a repair makes it what it was. */
static void expect_repaired(struct pic *p, const char *what)
{
    struct zqcow2_image *img;

    if (pic_check(p, ZQCOW2_CHECK_REPAIR) != 0)
        fail_msg("%s: repair: %s", what, p->err.text);
    pic_finds(p, 0, 0, 0, "", "");
    img = open_image(p, RDWR);
    assert_int_equal(write_until_refused(img), 0);
    expect_seen(img, what);
    assert_int_equal(zqcow2_close(img), 0);
    pic_finds(p, 0, 0, 0, "", "");
    pic_free(p);
}

static void test_l2(void **state)
{
    (void)state;
    for (int zoned = 0; zoned < 2; zoned++) {
        struct pic p;

        make(&p, zoned ? MiB(2) : 0, 16);
        expect_refused(&p, pic_get(&p, p.l1, 8) & ~PIC_COPIED, zoned ? "zoned, L2" : "plain, L2");
        expect_repaired(&p, "L2");
    }
}

static void test_block(void **state)
{
    (void)state;
    for (uint32_t bits = 8; bits <= 64; bits *= 2) {
        struct pic p;

        make(&p, MiB(2), bits);
        expect_refused(&p, pic_get(&p, p.rt, 8), "refcount block");
        expect_repaired(&p, "refcount block");
    }
}

static void test_snapshot_table(void **state)
{
    struct pic p;

    (void)state;
    make(&p, 0, 16);
    expect_refused(&p, pic_snapshot(&p), "snapshot table");
    expect_repaired(&p, "snapshot table");
}

/* Where a snapshot's record says that its L1 table lies: no find, but passed over. */
static void test_snapshot_l1(void **state)
{
    struct zqcow2_image *img;
    uint64_t table, l1, entry;
    struct pic p;

    (void)state;
    make(&p, 0, 16);
    table = pic_snapshot(&p);
    l1 = pic_get(&p, table, 8);
    entry = pic_get(&p, l1, 8);
    pic_set_refcount(&p, l1, 0);
    img = open_image(&p, RDWR);
    assert_int_equal(write_until_refused(img), 0);
    expect_seen(img, "L1 table of a snapshot");
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(pic_get(&p, l1, 8), entry);
    pic_finds(&p, 1, 0, 0, "refcount too low", "");
    expect_repaired(&p, "L1 table of a snapshot");
}

/* No block covers the L2 table: the place of a new block, and of a growing table, looks free. */
static void test_no_block(void **state)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_image *img;
    uint8_t *before;
    uint64_t len, l2, far;
    struct pic p;
    int rc = 0;

    (void)state;
    for (int beyond_table = 0; beyond_table < 2; beyond_table++) {
        o.virtual_size = MiB(16);
        o.cluster_size = 512;
        o.refcount_bits = 64; /* a block covers 32 KiB, the table's cluster 2 MiB */
        pic_make(&p, &o);
        far = beyond_table ? MiB(2) : KiB(512);
        l2 = pic_l2(&p, 0);
        pic_cut(&p, far + 512);
        pic_put(&p, far, 8, 0); /* an empty L2 table, at the first cluster that is not covered */
        pic_put(&p, p.l1, 8, far | PIC_COPIED);
        pic_set_refcount(&p, l2, 0);
        before = pic_bytes(&p, &len);
        img = open_image(&p, RDWR);
        memset(data, 0x66, sizeof(data));
        for (uint64_t at = MiB(1); rc == 0 && at < MiB(5); at += KiB(16))
            rc = zqcow2_write(img, data, KiB(16), at, 0);
        assert_int_equal(rc, ZQCOW2_ECORRUPT);
        assert_int_equal(zqcow2_close(img), 0); /* what was written before is kept */
        assert_int_equal(pic_get(&p, 79, 1) & 2, 2);
        for (uint64_t i = far; i < far + 512; i += 8)
            assert_int_equal(pic_get(&p, i, 8), 0);
        free(before);
        pic_free(&p);
        rc = 0;
    }
}

/* The same of a snapshot's L1 table: its record may be wrong, and new tables have room behind it.
 */
static void test_no_block_snapshot(void **state)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    (void)state;
    o.virtual_size = MiB(16);
    o.cluster_size = 512;
    o.refcount_bits = 64; /* as above */
    for (int beyond_table = 0; beyond_table < 2; beyond_table++) {
        uint64_t far = beyond_table ? MiB(2) : KiB(512), table, l1, bytes;
        struct zqcow2_image *img;
        struct pic p;
        int rc = 0;

        pic_make(&p, &o);
        pic_map(&p, 0, 0x51);
        table = pic_snapshot(&p);
        l1 = pic_get(&p, table, 8);
        bytes = 8 * p.l1_entries;
        pic_cut(&p, far + bytes);
        for (uint64_t i = 0; i < bytes; i += 8)
            pic_put(&p, far + i, 8, pic_get(&p, l1 + i, 8));
        pic_put(&p, table, 8, far);
        img = open_image(&p, RDWR);
        memset(data, 0x66, sizeof(data));
        for (uint64_t at = MiB(1); rc == 0 && at < MiB(5); at += KiB(16))
            rc = zqcow2_write(img, data, KiB(16), at, 0);
        assert_int_equal(rc, 0);
        assert_int_equal(zqcow2_close(img), 0);
        assert_int_equal(pic_get(&p, 79, 1) & 2, 0);
        assert_true(pic_length(&p) > far + bytes);
        for (uint64_t i = 0; i < bytes; i += 8)
            assert_int_equal(pic_get(&p, far + i, 8), i ? 0 : pic_get(&p, l1, 8));
        pic_find(&p);
        assert_int_equal(pic_refcount(&p, pic_get(&p, p.rt + far / KiB(32) * 8, 8)), 1);
        assert_int_equal(pic_check(&p, ZQCOW2_CHECK_REPAIR), 0);
        if (p.res.corruptions > (beyond_table ? 0 : bytes / 512)) /* its own refcounts, as before */
            fail_msg("check: %s", p.found);
        pic_finds(&p, 0, 0, 0, "", "");
        pic_free(&p);
    }
}

/* Header, L1, refcount table and write-pointer table: not even opened for writing. */
static void test_fixed(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct zqcow2_image *img;
        struct pic p;

        make(&p, MiB(2), 16);
        pic_set_refcount(&p, i == 0 ? 0 : i == 1 ? p.l1 : i == 2 ? p.rt : p.wp, 0);
        assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), ZQCOW2_ECORRUPT);
        assert_non_null(strstr(p.err.text, "has refcount 0"));
        img = open_image(&p, ZQCOW2_OPEN_BORROW);
        expect_seen(img, "fixed table");
        assert_int_equal(zqcow2_close(img), 0);
        expect_repaired(&p, "fixed table");
    }
}

/* More references than there are: a leak; only write pointers are then not written. */
static void test_counted_twice(void **state)
{
    struct zqcow2_image *img;
    struct pic p;

    (void)state;
    make(&p, MiB(2), 16);
    pic_set_refcount(&p, p.wp, 2);
    img = open_image(&p, ZQCOW2_OPEN_BORROW);
    expect_seen(img, "counted twice");
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(p.err.text, "write-pointer table"));
    assert_int_equal(pic_check(&p, ZQCOW2_CHECK_REPAIR_LEAKS), 0);
    pic_set_refcount(&p, p.l1, 3);
    img = open_image(&p, ZQCOW2_OPEN_BORROW);
    expect_seen(img, "counted twice");
    assert_int_equal(zqcow2_close(img), 0);
    img = open_image(&p, RDWR);
    assert_int_equal(write_until_refused(img), 0);
    expect_seen(img, "counted twice");
    assert_int_equal(zqcow2_close(img), 0);
    pic_finds(&p, 0, 1, 0, "leak", "");
    pic_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_l2),
        cmocka_unit_test(test_block),
        cmocka_unit_test(test_snapshot_table),
        cmocka_unit_test(test_snapshot_l1),
        cmocka_unit_test(test_no_block),
        cmocka_unit_test(test_no_block_snapshot),
        cmocka_unit_test(test_fixed),
        cmocka_unit_test(test_counted_twice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
