/* SPDX-License-Identifier: MIT */
/* Fields of the header that stand for nothing, and flags that an interrupted change leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/faults.h"

#define AUTOCLEAR 88
#define INCOMPAT  72
#define SNAPSHOTS 64

static void expect_idle(struct pic *p, unsigned flags)
{
    uint64_t before, after;
    uint8_t *a = pic_bytes(p, &before), *b;

    assert_int_equal(pic_check(p, flags), 0);
    b = pic_bytes(p, &after);
    if (before != after || memcmp(a, b, before) || strstr(p->found, "repaired"))
        fail_msg("a second repair changes something: %s", p->found);
    free(a);
    free(b);
}

/* ---- what stands for nothing ---- */

/* Without snapshots the offset of their table means nothing, and QEMU refuses some all the same. */
static void test_offset_of_no_snapshots(void **state)
{
    static const uint64_t bad[] = {512, 4095, 1ull << 63, UINT64_MAX};
    static const uint64_t good[] = {0, 4096, 1ull << 56, 1ull << 40};
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    for (int i = 0; i < 4; i++) {
        pic_put(&p, SNAPSHOTS, 8, good[i]);
        pic_finds(&p, 0, 0, 0, "", "");
        pic_put(&p, SNAPSHOTS, 8, bad[i]);
        pic_finds(&p, 1, 0, 0, "snapshots_offset", "byte 64");
        expect_idle(&p, LEAKS);
        assert_int_equal(pic_check(&p, REPAIR), 0);
        assert_int_equal(p.res.corruptions_fixed, 1);
        assert_int_equal(pic_get(&p, SNAPSHOTS, 8), 0);
        pic_finds(&p, 0, 0, 0, "", "");
        expect_idle(&p, ALL);
    }
    pic_free(&p);
}

static void test_raw_data_bit(void **state)
{
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    pic_put(&p, AUTOCLEAR, 8, 2);
    pic_finds(&p, 1, 0, 0, "autoclear_features 0x2 at byte 88", "no external data file");
    expect_idle(&p, LEAKS);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_int_equal(pic_get(&p, AUTOCLEAR, 8), 0);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_put(&p, AUTOCLEAR, 8, 2);
    assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), 0); /* any writer clears it */
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

/* QEMU opens such an image, and so does this library; a writer clears the bit. */
static void test_bitmaps_bit_alone(void **state)
{
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    for (int i = 0; i < 2; i++) {
        pic_put(&p, AUTOCLEAR, 8, 1);
        assert_int_equal(pic_open(&p, 0), 0);
        pic_finds(&p, 0, 0, 1, "autoclear_features 0x1 at byte 88", "no bitmaps extension");
        assert_int_equal(i ? pic_open(&p, ZQCOW2_OPEN_RDWR) : pic_check(&p, REPAIR), 0);
        assert_int_equal(pic_get(&p, AUTOCLEAR, 8), 0);
        pic_finds(&p, 0, 0, 0, "", "");
        expect_idle(&p, ALL);
    }
    pic_free(&p);
}

/*
 * While an unknown bit is set, nothing is freed. Where the repair ends with a write, this clears
 * the bit, so that what may be freed without it has to be freed before.
 */
static void test_unknown_bits_beside_marks(void **state)
{
    static const unsigned flags[] = {LEAKS, REPAIR, ALL};

    (void)state;
    for (int mark = 0; mark < 4; mark++) {
        for (int k = 0; k < 3; k++) {
            struct pic p;

            fault_image(&p, 4096, 16);
            fault_leak(&p);
            pic_put(&p, AUTOCLEAR, 8, 1ull << 63 | 1 << 5);
            if (mark == 1)
                pic_put(&p, p.mark, 1, 1);
            else if (mark)
                pic_put(&p, INCOMPAT, 8, 0x20 | (uint64_t)(mark - 1));
            assert_int_equal(pic_check(&p, flags[k]), 0);
            assert_int_equal(p.res.leaked_clusters - p.res.leaks_fixed, mark ? 0 : 5);
            assert_int_equal(pic_get(&p, AUTOCLEAR, 8), mark ? 0 : 1ull << 63 | 1 << 5);
            pic_finds(&p, 0, mark ? 0 : 5, 0, "", "");
            expect_idle(&p, flags[k]);
            pic_free(&p);
        }
    }
}

/* ---- flags ---- */

/* A crash between the flag and the refcount: with the mark the next writer makes it right. */
static void test_loose_flags(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        bool lowered = k & 1, table = k & 2;
        struct pic p;
        uint64_t at, host;

        fault_image(&p, 4096, 16);
        at = table ? p.l1 : pic_l2(&p, 0);
        host = pic_get(&p, at, 8) & ~PIC_COPIED;
        pic_set_refcount(&p, host, lowered ? 1 : 2);
        pic_put(&p, at, 8, lowered ? host : host | PIC_COPIED);
        pic_finds(&p, 1, !lowered, 0, "COPIED", ""); /* nobody can have been at it */
        assert_int_equal(pic_check(&p, LEAKS), 0);
        pic_put(&p, at, 8, lowered ? host : host | PIC_COPIED);
        pic_set_refcount(&p, host, lowered ? 1 : 2);
        pic_put(&p, p.mark, 1, 1);
        pic_finds(&p, 0, lowered ? 1 : 2, 1, "COPIED", "not closed cleanly");
        assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), 0);
        assert_int_equal(pic_get(&p, at, 8), host | PIC_COPIED);
        assert_int_equal(pic_refcount(&p, host), 1);
        pic_finds(&p, 0, 0, 0, "", "");
        pic_free(&p);
    }
}

/* The flag on what has two owners is damage whatever the mark is: a write would reach both. */
static void test_flag_on_shared(void **state)
{
    struct pic p;
    uint64_t host, at;

    (void)state;
    fault_image(&p, 4096, 16);
    at = pic_l2(&p, KiB(4));
    host = pic_map(&p, KiB(4), 7);
    pic_put(&p, pic_l2(&p, KiB(8)), 8, host);
    pic_set_refcount(&p, host, 2);
    pic_put(&p, p.mark, 1, 1);
    pic_finds(&p, 1, 0, 1, "COPIED is set", "");
    assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), ZQCOW2_ECORRUPT);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_int_equal(pic_get(&p, at, 8), host);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

/* ---- counts that hide what is there ---- */

/* The greatest repair brings it back byte by byte; a lesser one leaves it as it is. */
static void expect_fixed(struct pic *p, uint64_t at, uint64_t value)
{
    uint64_t len, now;
    uint8_t *want = pic_bytes(p, &len), *b;

    pic_put(p, at, 4, value);
    (void)pic_check(p, REPAIR);
    assert_int_equal(pic_get(p, at, 4), value);
    if (pic_check(p, ALL) != 0 || !p->res.corruptions ||
        p->res.corruptions != p->res.corruptions_fixed)
        fail_msg("%llu at byte %llu: %s%s", (unsigned long long)value, (unsigned long long)at,
                 p->err.text, p->found);
    b = pic_bytes(p, &now);
    if (now != len || memcmp(b, want, len))
        fail_msg("%llu at byte %llu: other bytes: %s", (unsigned long long)value,
                 (unsigned long long)at, p->found);
    free(b);
    free(want);
}

static void expect_stays(struct pic *p, uint64_t at, uint64_t value)
{
    uint64_t old = pic_get(p, at, 4);

    pic_put(p, at, 4, value);
    (void)pic_check(p, ALL);
    assert_int_equal(pic_get(p, at, 4), value);
    pic_put(p, at, 4, old);
}

static void test_too_many_snapshots(void **state)
{
    uint64_t record, behind;
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    expect_fixed(&p, 60, 7); /* there is no table at all */
    record = pic_snapshot(&p);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    pic_finds(&p, 0, 0, 0, "", "");
    expect_fixed(&p, 60, 2);
    expect_fixed(&p, 60, 4000);
    expect_fixed(&p, 60, 70000);
    expect_fixed(&p, 60, UINT32_MAX);
    expect_stays(&p, 60, 1);
    behind = record + (40 + pic_get(&p, record + 36, 4) + pic_get(&p, record + 12, 2) +
                       pic_get(&p, record + 14, 2) + 7) /
                          8 * 8;
    pic_put(&p, behind + 36, 4, 1 << 20); /* a record, and none that could be followed */
    expect_stays(&p, 60, 2);
    expect_stays(&p, 60, 3);
    pic_put(&p, behind + 36, 4, 0);
    pic_zero(&p, record, 40); /* its place may be what is wrong */
    expect_stays(&p, 60, 1);
    pic_free(&p);
}

static void test_size_of_l1(void **state)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    uint64_t l1, need = 5;
    struct pic p;

    (void)state;
    o.virtual_size = MiB(9);
    o.cluster_size = 4096;
    pic_make(&p, &o);
    for (uint64_t i = 0; i < need; i++)
        pic_map(&p, i * MiB(2), 3);
    l1 = pic_get(&p, 36, 4);
    assert_int_equal(l1, need);
    expect_fixed(&p, 36, 0);
    expect_fixed(&p, 36, 1);
    expect_fixed(&p, 36, need - 1);
    expect_fixed(&p, 36, (4u << 20) + 1);
    expect_fixed(&p, 36, UINT32_MAX);
    expect_fixed(&p, 36, pic_length(&p) / 8); /* past the end of the file */
    expect_fixed(&p, 36, need + 1024);        /* over tables and data */
    expect_stays(&p, 36, need + 1);           /* more than the disk needs is no fault */
    pic_put(&p, 72, 8, (uint64_t)1 << 40);    /* an image that we do not know */
    expect_stays(&p, 36, 1);
    pic_put(&p, 72, 8, 0);
    pic_put(&p, 24, 8, MiB(2) * 513); /* a table of two clusters, and only one is known */
    expect_stays(&p, 36, 5);
    pic_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offset_of_no_snapshots),    cmocka_unit_test(test_raw_data_bit),
        cmocka_unit_test(test_bitmaps_bit_alone),         cmocka_unit_test(test_loose_flags),
        cmocka_unit_test(test_unknown_bits_beside_marks), cmocka_unit_test(test_flag_on_shared),
        cmocka_unit_test(test_too_many_snapshots),        cmocka_unit_test(test_size_of_l1),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
