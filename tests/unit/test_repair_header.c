/* SPDX-License-Identifier: MIT */
/* Fields of the header that are wrong, and flags that an interrupted change leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/faults.h"

#define AUTOCLEAR 88
#define BACKING   8
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

static void expect_cleared(struct pic *p, uint64_t at, uint64_t bad, const char *name)
{
    char where[32];

    snprintf(where, sizeof(where), "byte %u", (unsigned)at);
    pic_put(p, at, 8, bad);
    pic_finds(p, 1, 0, 0, name, where);
    expect_idle(p, LEAKS);
    assert_int_equal(pic_check(p, REPAIR), 0);
    assert_int_equal(p->res.corruptions_fixed, 1);
    assert_int_equal(pic_get(p, at, 8), 0);
    pic_finds(p, 0, 0, 0, "", "");
    expect_idle(p, ALL);
}

/*
 * Without snapshots the offset of their table means nothing, and QEMU refuses some all the same.
 * With an offset of no name in front of them, QEMU reads no extensions.
 */
static void test_offset_of_nothing(void **state)
{
    static const uint64_t bad[] = {512, 4095, 1ull << 63, UINT64_MAX};
    static const uint64_t good[] = {0, 4096, 1ull << 56, 1ull << 40};
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    for (int i = 0; i < 4; i++) {
        pic_put(&p, SNAPSHOTS, 8, good[i]);
        pic_finds(&p, 0, 0, 0, "", "");
        expect_cleared(&p, SNAPSHOTS, bad[i], "snapshots_offset");
    }
    expect_cleared(&p, BACKING, 1, "backing_file_offset");
    expect_cleared(&p, BACKING, 103, "backing_file_offset");
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
    pic_put(&p, behind + 36, 4, 1 << 20); /* a record that cannot be followed, and had nothing */
    expect_fixed(&p, 60, 2);
    fault_leak(&p); /* or this */
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
    expect_stays(&p, 36, UINT32_MAX);
    pic_put(&p, 72, 8, 0);
    pic_put(&p, 24, 8, MiB(2) * 513); /* a table of two clusters, and only one is known */
    expect_stays(&p, 36, 5);
    pic_free(&p);
}

/* A table that ends with the file need not be padded. */
static void test_too_many_at_the_end(void **state)
{
    uint64_t record;
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    record = pic_snapshot(&p);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    pic_cut(&p, record + 40 + 16 + 2);
    pic_finds(&p, 0, 0, 0, "", "");
    expect_fixed(&p, 60, 2);
    expect_fixed(&p, 60, 7);
    expect_fixed(&p, 60, 65537);
    pic_free(&p);
}

/* ---- tables that the header misplaces ---- */

/* snapshot NULL: the disk. */
static struct zqcow2_image *open_to_read(struct pic *p, const char *snapshot)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;

    o.flags = ZQCOW2_OPEN_BORROW;
    o.snapshot = snapshot;
    if (zqcow2_open(p->be, &o, &img, &p->err) != 0)
        fail_msg("%s", p->err.text);
    return img;
}

static void expect_content(struct pic *p, const char *snapshot)
{
    struct zqcow2_image *img = open_to_read(p, snapshot);
    uint8_t b[512];

    for (int i = 0; i < 3; i++) {
        assert_int_equal(zqcow2_read(img, b, sizeof(b), fault_data[i].guest), 0);
        assert_int_equal(b[0], fault_data[i].fill);
        assert_int_equal(b[511], fault_data[i].fill);
    }
    assert_int_equal(zqcow2_close(img), 0);
}

/* Of the faults of this kind: who reads needs no refcounts, and a repair makes them anew. */
static void misplace(const struct fault *f, uint32_t cluster, uint32_t bits)
{
    struct pic p;

    fault_image(&p, cluster, bits);
    f->make(&p);
    expect_content(&p, NULL);
    assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), ZQCOW2_ECORRUPT);
    if (!strstr(p.err.text, "refcount") || !strstr(p.err.text, "check and repair the image"))
        fail_msg("%s: %s", f->name, p.err.text);
    assert_int_equal(pic_check(&p, 0), 0);
    if (!p.res.corruptions || !strstr(p.found, "refcount"))
        fail_msg("%s: %s", f->name, p.found);
    expect_idle(&p, LEAKS);
    assert_int_equal(pic_check(&p, f->flags), 0);
    pic_find(&p);
    pic_finds(&p, 0, 0, 0, "", "");
    expect_idle(&p, ALL);
    expect_content(&p, NULL);
    assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), 0);
    pic_free(&p);
}

static void test_misplaced_refcounts(void **state)
{
    static const uint32_t clusters[] = {512, 4096, 65536}, bits[] = {1, 16, 64};
    unsigned n = 0;

    (void)state;
    for (size_t i = 0; i < nr_faults; i++) {
        for (int k = 0; k < 9 && strstr(faults[i].name, "refcount table "); k++, n++)
            misplace(&faults[i], clusters[k / 3], bits[k % 3]);
    }
    printf("misplaced refcount tables: %u, each read and made anew\n", n);
    assert_int_equal(n, 99);
}

/* What a snapshot has that cannot be followed is not free because the refcounts are lost. */
static void test_lost_beside_hidden(void **state)
{
    uint64_t record, host;
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    host = pic_get(&p, pic_l2(&p, KiB(320)), 8) & ~PIC_COPIED;
    record = pic_snapshot(&p);
    pic_put(&p, pic_l2(&p, KiB(320)), 8, 0); /* the snapshot alone has it */
    pic_put(&p, record + 36, 4, UINT32_MAX);
    pic_put(&p, 48, 8, 0);
    assert_int_equal(pic_check(&p, ALL), 0);
    pic_find(&p);
    assert_int_equal(pic_refcount(&p, host), 1);
    assert_int_equal(pic_refcount(&p, record), 1);
    expect_idle(&p, ALL);
    pic_free(&p);
}

/* The greatest repair changes no more than one bit. */
static void expect_marked(struct pic *p)
{
    uint64_t before, after;
    uint8_t *a = pic_bytes(p, &before), *b;

    assert_int_equal(pic_check(p, ALL), 0);
    b = pic_bytes(p, &after);
    a[INCOMPAT + 7] |= 2; /* corrupt: refcounts stay too low */
    assert_int_equal(before, after);
    assert_memory_equal(a, b, before);
    free(a);
    free(b);
}

/* The refcounts are right: it is L1 whose place is wrong, and nothing may act on what it is not. */
static void test_tables_on_refcounts(void **state)
{
    (void)state;
    for (int zones = 0; zones < 2; zones++) {
        uint64_t at, was;
        struct pic p;

        fault_image(&p, 4096, 16);
        at = zones ? p.zoned + 24 : 40;
        was = pic_get(&p, at, 8);
        pic_put(&p, at, 8, p.rt);
        assert_int_equal(pic_open(&p, 0), ZQCOW2_ECORRUPT);
        assert_non_null(strstr(p.err.text, "overlaps"));
        assert_int_equal(pic_check(&p, 0), 0);
        assert_true(p.res.corruptions);
        expect_idle(&p, LEAKS);
        expect_marked(&p);
        pic_put(&p, at, 8, was);
        assert_int_equal(pic_check(&p, ALL), 0);
        pic_finds(&p, 0, 0, 0, "", "");
        expect_content(&p, NULL);
        pic_free(&p);
    }
}

static void test_misplaced_snapshots(void **state)
{
    static const uint64_t places[] = {0, 520, 1ull << 40, 1ull << 62, 0x3000};
    uint64_t nr;
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    (void)pic_snapshot(&p);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    for (int i = 0; i < 6; i++) {
        uint64_t place = i < 5 ? places[i] : p.l1, len, now;
        uint8_t *was, *is;

        nr = pic_get(&p, 64, 8);
        pic_put(&p, 64, 8, place);
        was = pic_bytes(&p, &len);
        expect_content(&p, NULL);
        assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), ZQCOW2_ECORRUPT);
        assert_int_equal(pic_check(&p, REPAIR), 0);
        assert_true(p.res.corruptions > p.res.corruptions_fixed);
        is = pic_bytes(&p, &now);
        if (len != now || memcmp(is, was, len))
            fail_msg("snapshots_offset 0x%llx: repair changes something: %s",
                     (unsigned long long)place, p.found);
        free(was);
        free(is);
        if (place)
            expect_stays(&p, 60, 65537); /* there is no record that could be counted */
        pic_put(&p, 64, 8, nr);
    }
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

/* ---- an entry of L1 ---- */

/* Of five spans, each with its number: all but one can be read. */
static void expect_all_but(struct pic *p, const char *snapshot, uint64_t lost)
{
    struct zqcow2_image *img = open_to_read(p, snapshot);
    uint8_t b[512];

    for (uint64_t i = 0; i < 5; i++) {
        int rc = zqcow2_read(img, b, sizeof(b), i * MiB(2));

        assert_int_equal(rc, i == lost ? ZQCOW2_ECORRUPT : 0);
        assert_true(i == lost || b[0] == 3 + i);
        assert_int_equal(zqcow2_read(img, b, sizeof(b), i * MiB(2)), rc);
    }
    assert_int_equal(zqcow2_close(img), 0);
}

static void test_wrong_l1_entry(void **state)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    uint64_t l1, record;
    struct pic p;

    (void)state;
    o.virtual_size = MiB(9);
    o.cluster_size = 4096;
    pic_make(&p, &o);
    for (uint64_t i = 0; i < 5; i++)
        pic_map(&p, i * MiB(2), 3 + (int)i);
    record = pic_snapshot(&p);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    l1 = pic_get(&p, record, 8);
    for (uint64_t i = 0; i < 10; i++) {
        uint64_t table = i < 5 ? l1 : p.l1, at = table + i % 5 * 8, was = pic_get(&p, at, 8);
        const uint64_t bad[] = {0x1200, 1ull << 40, 1ull << 60 | 0x5000, PIC_COPIED, table};

        pic_put(&p, at, 8, bad[i % 5]);
        expect_all_but(&p, "s", i < 5 ? i : UINT64_MAX);
        expect_all_but(&p, NULL, i < 5 ? UINT64_MAX : i - 5);
        assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), i < 5 ? 0 : ZQCOW2_ECORRUPT);
        pic_put(&p, at, 8, was);
    }
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

/* A wrong entry for a block names them: they read as what they are, so the refcounts are at fault.
 */
static void test_block_on_tables(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct pic p;

        fault_image(&p, 4096, 16);
        pic_put(&p, p.rt + 8, 8, i ? p.wp : p.l1);
        assert_int_equal(pic_check(&p, REPAIR), 0);
        pic_find(&p);
        pic_finds(&p, 0, 0, 0, "", "");
        expect_content(&p, NULL);
        assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), 0);
        pic_free(&p);
    }
}

/* ---- a deletion that a crash has cut short ---- */

/*
 * The new table fills its cluster, and the old one follows, with a record whose L1 has its refcount
 * still: these are leaks. Behind a table that does not, such a record is one that is not counted.
 */
static void test_full_table_before_the_old(void **state)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    uint64_t old, at, table, bytes, first;
    struct pic p;

    (void)state;
    o.virtual_size = KiB(64);
    o.cluster_size = 512;
    pic_make(&p, &o);
    pic_map(&p, 0, 0x44);
    for (char name[] = "a"; *name < 'h'; ++*name)
        pic_take(&p, name);
    pic_take(&p, "a-longer");
    pic_finds(&p, 0, 0, 0, "", "");
    old = pic_get(&p, SNAPSHOTS, 8);
    first = 40 + (pic_get(&p, old + 36, 4) + pic_get(&p, old + 12, 2) + 1 + 7) / 8 * 8;
    bytes = 6 * first + 40 + (pic_get(&p, old + 36, 4) + 1 + 8 + 7) / 8 * 8;
    assert_int_equal(bytes, 512);
    table = pic_alloc(&p, 3);
    for (at = 0; at < first + bytes; at++)
        pic_put(&p, table + 512 + at, 1, pic_get(&p, old + at, 1));
    for (at = 0; at < bytes; at++)
        pic_put(&p, table + at, 1, pic_get(&p, old + first + at, 1));
    pic_put(&p, SNAPSHOTS, 8, table);
    pic_put(&p, SNAPSHOTS - 4, 4, 6);
    pic_finds(&p, 1, 8, 0, "nb_snapshots", "fewer than the table holds");
    pic_put(&p, SNAPSHOTS - 4, 4, 7);
    assert_int_equal(pic_check(&p, LEAKS), 0);
    if (p.res.corruptions || !p.res.leaked_clusters)
        fail_msg("a full table: %s", p.found);
    pic_finds(&p, 0, 0, 0, "", "");
    assert_int_equal(pic_get(&p, SNAPSHOTS - 4, 4), 7);
    pic_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offset_of_nothing),
        cmocka_unit_test(test_raw_data_bit),
        cmocka_unit_test(test_bitmaps_bit_alone),
        cmocka_unit_test(test_loose_flags),
        cmocka_unit_test(test_unknown_bits_beside_marks),
        cmocka_unit_test(test_flag_on_shared),
        cmocka_unit_test(test_too_many_snapshots),
        cmocka_unit_test(test_size_of_l1),
        cmocka_unit_test(test_too_many_at_the_end),
        cmocka_unit_test(test_misplaced_refcounts),
        cmocka_unit_test(test_lost_beside_hidden),
        cmocka_unit_test(test_tables_on_refcounts),
        cmocka_unit_test(test_misplaced_snapshots),
        cmocka_unit_test(test_wrong_l1_entry),
        cmocka_unit_test(test_full_table_before_the_old),
        cmocka_unit_test(test_block_on_tables),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
