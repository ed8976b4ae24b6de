/* SPDX-License-Identifier: MIT */
/*
 * What a repair keeps (docs/SPEC.md, section 8): all that a reader can read that ignores reserved
 * bits, in the active disk and in snapshots; and over a backing file what is dropped reads as
 * zeros. The bits and the tables are this file's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/faults.h"

#define HOST 0x00fffffffffffe00ull

enum { L1, L2, L2_OLD, L2_EXTENDED, BITMAP, RT, KINDS }; /* L2_OLD: version 2 */

/* Bits that mean nothing; COPIED does if there is no offset. */
static const uint64_t reserved[KINDS] = {
    0x7f000000000001ff, 0x3f000000000001fe, 0x3f000000000001fe,
    0x3f000000000001ff, UINT64_MAX,         0xff000000000001ff,
};

/* 4 MiB without zones; an L2 table of clusters of 4 KiB maps 2 MiB of them. */
static void make(struct pic *p, int kind)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = MiB(4);
    o.cluster_size = kind == L2_EXTENDED || kind == BITMAP ? 16384 : 4096;
    o.flags = kind == L2_EXTENDED || kind == BITMAP ? ZQCOW2_CREATE_EXTENDED_L2 : 0;
    pic_make(p, &o);
    if (kind == L2_OLD) {
        pic_put(p, 4, 4, 2);
        pic_zero(p, 72, 400);
    }
}

static void expect_bytes(struct pic *p, const uint8_t *want, uint64_t len, const char *what,
                         uint64_t bits)
{
    uint64_t now;
    uint8_t *b = pic_bytes(p, &now);

    if (now != len || memcmp(b, want, len))
        fail_msg("%s, bits 0x%llx: not as it was before: %s", what, (unsigned long long)bits,
                 p->found);
    free(b);
}

/* Found, counted all the same, left alone by the least repair, and cleared by the next. */
static void expect_cleared(struct pic *p, uint64_t at, uint64_t bits, const char *what)
{
    uint64_t len, old = pic_get(p, at, 8);
    uint8_t *want = pic_bytes(p, &len);

    pic_put(p, at, 8, old | bits);
    assert_int_equal(pic_check(p, LEAKS), 0);
    if (p->res.corruptions != 1 || p->res.leaked_clusters || p->res.corruptions_fixed)
        fail_msg("%s, bits 0x%llx: not the one finding: %s", what, (unsigned long long)bits,
                 p->found);
    assert_int_equal(pic_get(p, at, 8), old | bits);
    assert_int_equal(pic_check(p, REPAIR), 0);
    assert_int_equal(p->res.corruptions_fixed, 1);
    expect_bytes(p, want, len, what, bits);
    free(want);
}

static void each_bit(struct pic *p, uint64_t at, uint64_t bits, const char *what)
{
    for (uint64_t bit = 1; bit; bit <<= 1) {
        if (bits & bit)
            expect_cleared(p, at, bit, what);
    }
    expect_cleared(p, at, bits, what);
}

static void test_reserved_bits(void **state)
{
    static const char *const names[] = {"L1", "L2", "L2 of version 2", "extended L2"};

    (void)state;
    for (int kind = L1; kind <= L2_EXTENDED; kind++) {
        uint64_t host, at;
        struct pic p;

        make(&p, kind);
        host = pic_map(&p, 0, 7);
        at = kind == L1 ? p.l1 : pic_l2(&p, 0);
        if (kind == L2_EXTENDED) /* without subclusters: of a cluster that holds nothing */
            pic_put(&p, at + 8, 8, UINT32_MAX);
        assert_int_equal(pic_get(&p, host, 8), 0x0707070707070707);
        each_bit(&p, at, reserved[kind], names[kind]);
        /* of an entry that has nothing else */
        at = kind == L1 ? p.l1 + 8 : at + (kind == L2_EXTENDED ? 16 : 8);
        each_bit(&p, at, reserved[kind] | PIC_COPIED, names[kind]);
        pic_free(&p);
    }
}

/* Where freeing a leak brings a refcount to 1, the least repair writes entries: their flags alone.
 */
static void test_leaks_beside_bits(void **state)
{
    uint64_t host, at;
    struct pic p;

    (void)state;
    make(&p, L2);
    host = pic_map(&p, 0, 7);
    pic_map(&p, KiB(4), 8);
    at = pic_l2(&p, 0);
    pic_put(&p, at, 8, host);
    pic_set_refcount(&p, host, 2);
    pic_put(&p, at + 8, 8, pic_get(&p, at + 8, 8) | 4);
    pic_put(&p, p.l1, 8, pic_get(&p, p.l1, 8) | 4);
    assert_int_equal(pic_check(&p, LEAKS), 0);
    assert_int_equal(p.res.leaks_fixed, 1);
    assert_int_equal(pic_get(&p, at, 8), host | PIC_COPIED);
    assert_int_equal(pic_get(&p, at + 8, 8) & 4, 4);
    assert_int_equal(pic_get(&p, p.l1, 8) & 4, 4);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

/* To a compressed cluster the second half of an extended entry says nothing. */
static void test_packed_subclusters(void **state)
{
    uint64_t host, at;
    struct pic p;

    (void)state;
    make(&p, BITMAP);
    host = pic_alloc(&p, 1);
    at = pic_l2(&p, 0);
    pic_put(&p, at, 8, PIC_COMPRESSED | host);
    pic_put(&p, host, 8, 0x1122334455667788);
    each_bit(&p, at + 8, reserved[BITMAP], "compressed");
    pic_free(&p);
}

/* Both what the disk shares with a snapshot and what the snapshot has alone. */
static void test_snapshots(void **state)
{
    uint64_t record, l1, table;
    struct pic p;

    (void)state;
    make(&p, L1);
    pic_map(&p, 0, 7);
    pic_map(&p, MiB(2), 8);
    record = pic_snapshot(&p);
    l1 = pic_get(&p, record, 8);
    each_bit(&p, pic_l2(&p, 0), reserved[L2], "a shared table");
    pic_zero(&p, p.l1, 16); /* the disk has nothing any more */
    assert_int_equal(pic_check(&p, REPAIR), 0);
    pic_finds(&p, 0, 0, 0, "", "");
    table = pic_get(&p, l1 + 8, 8) & HOST;
    each_bit(&p, l1, reserved[L1], "a snapshot's L1");
    each_bit(&p, l1 + 8, reserved[L1], "a snapshot's L1");
    each_bit(&p, table, reserved[L2], "a snapshot's L2");
    pic_free(&p);
}

/* What could not be followed is protected by its refcounts alone: they are believed. */
static void test_refcount_table(void **state)
{
    (void)state;
    for (uint64_t bit = 1; bit; bit <<= 1) {
        uint64_t hidden;
        struct pic p;

        if (!(reserved[RT] & bit))
            continue;
        make(&p, RT);
        pic_map(&p, 0, 7);
        hidden = pic_alloc(&p, 1);
        pic_put(&p, p.l1 + 8, 8, MiB(700));
        pic_put(&p, p.rt, 8, pic_get(&p, p.rt, 8) | bit);
        assert_int_equal(pic_check(&p, 0), 0);
        assert_int_equal(p.res.corruptions, 2);
        assert_int_equal(pic_check(&p, REPAIR), 0);
        assert_int_equal(p.res.corruptions - p.res.corruptions_fixed, 1);
        p.rt = pic_get(&p, 48, 8);
        assert_int_equal(pic_refcount(&p, hidden), 1);
        pic_free(&p);
    }
}

/*
 * Two packed clusters in the cluster that an entry of L1 names, too: whichever is wrong, the table
 * moves with all that it names, and what is packed stays.
 */
static void test_packed_on_a_table(void **state)
{
    (void)state;
    for (unsigned flags = REPAIR; flags <= ALL; flags *= 2) {
        uint64_t host, table, a, b, before;
        struct pic p;

        make(&p, L1);
        table = pic_l2(&p, MiB(2)) / p.cluster * p.cluster;
        host = pic_map(&p, MiB(2), 7);
        a = pic_l2(&p, 0);
        b = pic_l2(&p, KiB(4));
        pic_put(&p, a, 8, PIC_COMPRESSED | table);
        pic_put(&p, b, 8, PIC_COMPRESSED | (table + 1024));
        pic_set_refcount(&p, table, 2);
        assert_int_equal(pic_check(&p, 0), 0);
        before = p.res.corruptions;
        assert_int_equal(pic_check(&p, flags), 0);
        assert_int_equal(pic_get(&p, a, 8), PIC_COMPRESSED | table);
        assert_int_equal(pic_get(&p, b, 8), PIC_COMPRESSED | (table + 1024));
        assert_int_equal(pic_get(&p, table, 8) & ~PIC_COPIED, host);
        assert_int_not_equal(pic_get(&p, p.l1 + 8, 8) & HOST, table);
        assert_int_equal(pic_get(&p, pic_l2(&p, MiB(2)), 8), host | PIC_COPIED);
        assert_true(before > 0);
        pic_finds(&p, 0, 0, 0, "", "");
        pic_free(&p);
    }
}

/* Each of two tables names the other one as data. Both move; nothing is dropped. */
static void test_tables_that_name_one_another(void **state)
{
    uint64_t host, one, other;
    struct pic p;

    (void)state;
    make(&p, L1);
    host = pic_map(&p, 0, 7);
    pic_map(&p, MiB(2), 8);
    one = pic_get(&p, p.l1, 8) & HOST;
    other = pic_get(&p, p.l1 + 8, 8) & HOST;
    pic_put(&p, one + 8, 8, other | PIC_COPIED);
    pic_put(&p, other + 8, 8, one | PIC_COPIED);
    assert_int_equal(pic_check(&p, ALL), 0);
    pic_finds(&p, 0, 0, 0, "", "");
    assert_int_equal(pic_get(&p, pic_l2(&p, 0), 8), host | PIC_COPIED);
    assert_int_equal(pic_get(&p, pic_l2(&p, KiB(4)), 8), other | PIC_COPIED);
    assert_int_equal(pic_get(&p, pic_l2(&p, MiB(2) + KiB(4)), 8), one | PIC_COPIED);
    pic_free(&p);
}

/* ---- over a backing file ---- */

static void put_below(struct pic *p)
{
    pic_put(p, 8, 8, 2048);
    pic_put(p, 16, 4, 4);
    pic_put(p, 2048, 4, 0x62617365);
}

/* Every entry of the table, the last ones behind the end of the disk. */
static bool is_zeros(struct pic *p, uint64_t table, int kind)
{
    for (uint64_t at = 0; at < p->cluster; at += kind == L2_EXTENDED ? 16 : 8) {
        if (kind == L2_EXTENDED ?
                pic_get(p, table + at, 8) || pic_get(p, table + at + 8, 8) != 0xffffffff00000000 :
                pic_get(p, table + at, 8) != 1)
            return false;
    }
    return true;
}

static void test_l1_over_a_source(void **state)
{
    /* 0: L1 itself */
    static const uint64_t wrong[] = {MiB(700), 4096 + 512, 0xffffffffffc000, 0};

    (void)state;
    for (int kind = L2; kind <= L2_EXTENDED; kind++) {
        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
            uint64_t entry, table, at;
            struct pic p;

            make(&p, kind);
            put_below(&p);
            at = p.l1 + (kind == L2_EXTENDED ? 0 : 8);
            entry = (wrong[i] ? wrong[i] : p.l1) | PIC_COPIED;
            pic_put(&p, at, 8, entry);
            assert_int_equal(pic_check(&p, REPAIR), 0);
            assert_int_equal(pic_get(&p, at, 8), entry);
            assert_int_equal(pic_check(&p, ALL), 0);
            if (kind == L2_OLD) { /* which has no entry for zeros */
                assert_int_equal(pic_get(&p, at, 8), entry);
            } else {
                table = pic_get(&p, at, 8);
                assert_true(table & PIC_COPIED && table != entry);
                assert_true(is_zeros(&p, table & HOST, kind));
                pic_finds(&p, 0, 0, 0, "", "");
            }
            pic_free(&p);
        }
    }
}

/* Nothing of what is below is hidden for a bit, nor where the disk has nothing. */
static void test_nothing_hidden(void **state)
{
    struct pic p;

    (void)state;
    make(&p, L2);
    put_below(&p);
    pic_map(&p, MiB(2), 7);
    pic_put(&p, p.l1, 8, 4);
    pic_put(&p, pic_l2(&p, MiB(2) + KiB(4)), 8, PIC_COPIED | 4);
    pic_put(&p, pic_l2(&p, MiB(2) + KiB(8)), 8, MiB(700));
    assert_int_equal(pic_check(&p, ALL), 0);
    pic_finds(&p, 0, 0, 0, "", "");
    assert_int_equal(pic_get(&p, p.l1, 8), 0);
    assert_int_equal(pic_get(&p, pic_l2(&p, MiB(2) + KiB(4)), 8), 0);
    assert_int_equal(pic_get(&p, pic_l2(&p, MiB(2) + KiB(8)), 8), 1);
    pic_put(&p, 36, 4, 3); /* an entry that the disk does not need */
    pic_put(&p, p.l1 + 16, 8, MiB(700));
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(pic_get(&p, p.l1 + 16, 8), 0);
    pic_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reserved_bits),
        cmocka_unit_test(test_packed_subclusters),
        cmocka_unit_test(test_snapshots),
        cmocka_unit_test(test_refcount_table),
        cmocka_unit_test(test_l1_over_a_source),
        cmocka_unit_test(test_nothing_hidden),
        cmocka_unit_test(test_leaks_beside_bits),
        cmocka_unit_test(test_tables_that_name_one_another),
        cmocka_unit_test(test_packed_on_a_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
