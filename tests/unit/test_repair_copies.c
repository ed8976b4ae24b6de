/* SPDX-License-Identifier: MIT */
/* What a repair copies, what it does not, and that what it leaves is never more than it found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/faults.h"

/* No refcount structure at all: everything that is referred to has to be counted anew. */
static void lose_refcounts(struct pic *p)
{
    pic_put(p, p->rt, 8, p->l1);
}

static void expect_left(struct pic *p, uint64_t corruptions)
{
    assert_int_equal(pic_check(p, 0), 0);
    if (p->res.corruptions != corruptions || p->res.leaked_clusters)
        fail_msg("%d corruptions and %d leaks are left, expected %d: %s", (int)p->res.corruptions,
                 (int)p->res.leaked_clusters, (int)corruptions, p->found);
    assert_int_equal(pic_check(p, REPAIR), 0);
    assert_null(strstr(p->found, "repaired"));
}

/* One cluster each, with the same content. */
static void expect_apart(struct pic *p, const uint64_t *at, int n)
{
    for (int i = 0; i < n; i++) {
        uint64_t e = pic_get(p, at[i], 8);

        assert_true(e & PIC_COPIED);
        e &= ~PIC_COPIED;
        assert_int_equal(pic_refcount(p, e), 1);
        assert_int_equal(pic_get(p, e + 4088, 8), 0x0707070707070707);
        for (int k = 0; k < i; k++)
            assert_int_not_equal(pic_get(p, at[k], 8), pic_get(p, at[i], 8));
    }
}

/* A rebuild counts both references; that they were counted once can be seen only before. */
static void test_copied_after_a_rebuild(void **state)
{
    (void)state;
    for (uint32_t bits = 1; bits <= 64; bits *= 2) {
        struct pic p;
        uint64_t at[3];

        fault_image(&p, 4096, bits);
        fault_shared(&p);
        for (int i = 0; i < 3; i++)
            at[i] = pic_l2(&p, KiB(4) * (uint64_t)(i + 1));
        lose_refcounts(&p);
        assert_int_equal(pic_check(&p, REPAIR), 0);
        assert_non_null(strstr(p.found, "repaired: refcount table rebuilt"));
        assert_non_null(strstr(p.found, "repaired: 2 shared clusters and tables copied"));
        pic_find(&p);
        expect_apart(&p, at, 3);
        expect_left(&p, 0);
        pic_free(&p);
    }
}

static void pack(struct pic *p, uint64_t at, uint64_t host)
{
    pic_put(p, at, 8, PIC_COMPRESSED | 1ull << 58 | (host + 512));
}

/* Packed data is never copied, so what else lies on it is, even where it is alone. */
static void test_packed_beside_normal(void **state)
{
    (void)state;
    for (int rebuild = 0; rebuild < 2; rebuild++) {
        for (uint32_t bits = 1; bits <= 64; bits *= 4) {
            struct pic p;
            uint64_t at, host;

            fault_image(&p, 4096, bits);
            host = pic_map(&p, KiB(4), 7);
            at = pic_l2(&p, KiB(4));
            pack(&p, pic_l2(&p, KiB(8)), host);
            if (rebuild)
                lose_refcounts(&p);
            assert_int_equal(pic_check(&p, REPAIR), 0);
            assert_non_null(strstr(p.found, "repaired: 1 shared clusters and tables copied"));
            pic_find(&p);
            assert_int_not_equal(pic_get(&p, at, 8) & ~PIC_COPIED, host);
            expect_apart(&p, &at, 1);
            assert_int_equal(pic_get(&p, pic_l2(&p, KiB(8)), 8),
                             PIC_COMPRESSED | 1ull << 58 | (host + 512));
            expect_left(&p, 0);
            pic_free(&p);
        }
    }
}

/* Packed pieces may share a cluster, and so may snapshots and the disk: no reason to copy. */
static void test_rightly_shared_stays(void **state)
{
    struct pic p;
    uint64_t host, table;

    (void)state;
    fault_image(&p, 4096, 16);
    host = pic_alloc(&p, 1);
    pack(&p, pic_l2(&p, KiB(4)), host);
    pack(&p, pic_l2(&p, KiB(8)), host + 1024);
    pic_set_refcount(&p, host, 2);
    pic_snapshot(&p);
    table = pic_get(&p, p.l1, 8);
    lose_refcounts(&p);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_null(strstr(p.found, "copied"));
    pic_find(&p);
    assert_int_equal(pic_get(&p, p.l1, 8), table);
    assert_int_equal(pic_refcount(&p, host), 4);
    expect_left(&p, 0);
    pic_free(&p);
}

/* Two L1 entries, one table with wrong entries: a copy would hold them, too. */
static void test_no_copy_of_wrong_entries(void **state)
{
    struct pic p;

    (void)state;
    fault_image(&p, 512, 16); /* a table covers 32 KiB */
    pic_map(&p, 512, 1);
    pic_put(&p, pic_l2(&p, KiB(1)), 8, PIC_COPIED | MiB(512));
    pic_put(&p, pic_l2(&p, KiB(2)), 8, MiB(700));
    pic_put(&p, p.l1 + 8, 8, pic_get(&p, p.l1, 8));
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_non_null(strstr(p.found, "refcounts raised"));
    assert_null(strstr(p.found, "copied"));
    assert_int_equal(pic_get(&p, p.l1, 8), pic_get(&p, p.l1 + 8, 8));
    expect_left(&p, 2);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(pic_get(&p, pic_l2(&p, KiB(1)), 8), 0);
    assert_int_not_equal(pic_get(&p, p.l1, 8), pic_get(&p, p.l1 + 8, 8));
    expect_left(&p, 0);
    pic_free(&p);
}

/*
 * What lies on the refcounts is what is left when these have moved away, with all that is wrong in
 * it: check counts it before.
 */
static void test_on_refcounts(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct pic p;
        uint64_t table, before, block;

        fault_image(&p, 4096, 16);
        table = pic_snapshot(&p);
        block = pic_get(&p, p.rt, 8);
        if (k)
            pic_put(&p, table, 8, p.rt); /* a snapshot's L1 */
        else
            pic_put(&p, pic_get(&p, table, 8), 8, block); /* its first L2 table */
        assert_int_equal(pic_check(&p, 0), 0);
        before = p.res.corruptions;
        assert_non_null(strstr(p.found, "a snapshot's L2 entry 0"));
        assert_int_equal(pic_check(&p, REPAIR), 0);
        assert_non_null(strstr(p.found, "repaired: refcount table rebuilt"));
        assert_int_equal(pic_check(&p, 0), 0);
        assert_in_range(p.res.corruptions, 1, before - 1);
        pic_free(&p);
    }
}

/* A snapshot's entry points to data that cannot be counted twice: the disk does not make room. */
static void test_no_room_for_wrong_entries(void **state)
{
    struct pic p;
    uint64_t host, l1, at, before;

    (void)state;
    fault_image(&p, 512, 2); /* a table covers 32 KiB */
    l1 = pic_get(&p, pic_snapshot(&p), 8);
    at = pic_l2(&p, KiB(512)); /* in a table that the snapshot does not have */
    host = pic_map(&p, KiB(512), 7);
    pic_put(&p, p.wp + 8 * 8, 8, KiB(513));
    for (int i = 0; i < 8; i++)
        pic_put(&p, l1 + (uint64_t)i * 8, 8, host);
    assert_int_equal(pic_check(&p, 0), 0);
    before = p.res.corruptions;
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(pic_get(&p, at, 8) & ~PIC_COPIED, host);
    assert_int_equal(pic_check(&p, 0), 0);
    assert_in_range(p.res.corruptions, 1, before);
    pic_free(&p);
}

/* ---- the disk has something where a snapshot has something else ---- */

/* Where a snapshot's record, L1, the first of its L2 tables and the data of that lie. */
enum { RECORD, L1, L2, DATA, PLACES };

/* Clusters of 512 bytes, of which the disk has none that the snapshot has. */
static void snapshot_alone(struct pic *p, uint64_t at[PLACES])
{
    fault_image(p, 512, 16);
    at[RECORD] = pic_snapshot(p);
    at[L1] = pic_get(p, at[RECORD], 8);
    at[L2] = pic_get(p, at[L1], 8) & ~PIC_COPIED;
    at[DATA] = pic_get(p, at[L2], 8) & ~PIC_COPIED;
    pic_zero(p, p->l1, 8 * p->l1_entries);
    pic_put(p, p->wp + 3 * 8, 8, KiB(192));
    pic_put(p, p->wp + 5 * 8, 8, KiB(320));
    assert_int_equal(pic_check(p, LEAKS), 0);
    pic_finds(p, 0, 0, 0, "", "");
}

static void expect_places(struct pic *p, const uint64_t at[PLACES], const uint8_t *before,
                          const char *what)
{
    uint64_t len;
    uint8_t *b = pic_bytes(p, &len);

    for (int i = 0; i < PLACES; i++) {
        for (uint64_t k = 0; (i == L1 || i == L2) && k < 512; k += 8)
            b[at[i] + k] ^= (b[at[i] + k] ^ before[at[i] + k]) & 0x80; /* COPIED is the disk's */
        if (memcmp(b + at[i], before + at[i], 512))
            fail_msg("%s: what a snapshot has at 0x%llx was changed: %s", what,
                     (unsigned long long)at[i], p->found);
    }
    free(b);
}

/* Neither is right for certain, so that what both read stays; and it stays after one more repair.
 */
static uint64_t expect_untouched(struct pic *p, const uint64_t at[PLACES], unsigned flags,
                                 const char *what)
{
    uint64_t len, found;
    uint8_t *before = pic_bytes(p, &len);

    assert_int_equal(pic_check(p, 0), 0);
    found = p->res.corruptions;
    assert_int_not_equal(found, 0);
    assert_int_equal(pic_check(p, flags), 0);
    expect_places(p, at, before, what);
    assert_int_equal(pic_check(p, flags), 0);
    expect_places(p, at, before, what);
    assert_null(strstr(p->found, "repaired"));
    assert_true(p->res.corruptions <= found);
    found = p->res.corruptions;
    free(before);
    pic_free(p);
    return found;
}

static void test_disk_on_a_snapshot(void **state)
{
    static const char *const names[] = {"a record", "an L1 table", "an L2 table", "data"};

    (void)state;
    for (unsigned flags = LEAKS; flags <= ALL; flags *= 2) {
        uint64_t at[PLACES], left;
        struct pic p;

        for (int i = 0; i < PLACES; i++) { /* an L1 entry of the disk points there */
            snapshot_alone(&p, at);
            pic_put(&p, at[L1] + 8, 8, MiB(700)); /* wrong in any table */
            pic_put(&p, at[L2] + 8, 8, MiB(700));
            pic_put(&p, p.l1, 8, at[i]);
            left = expect_untouched(&p, at, flags, names[i]);
            if (i == DATA && flags == ALL) /* the disk has a copy, and only the snapshot's stay */
                assert_int_equal(left, 2);
        }
        snapshot_alone(&p, at); /* the L1 table is the snapshot's, and more of it wrong */
        pic_put(&p, at[L1] + 8, 8, MiB(700));
        pic_put(&p, 40, 8, at[L1]);
        expect_untouched(&p, at, flags, "L1 moved");
        snapshot_alone(&p, at);              /* it has more entries than the disk needs */
        pic_put(&p, at[DATA] + 8, 8, 0x123); /* in an L1 table, reserved bits */
        pic_put(&p, 36, 4, (at[L1] - p.l1) / 8 + 1);
        expect_untouched(&p, at, flags, "L1 too large");
        snapshot_alone(&p, at); /* the same up to an L2 table, which nothing leads to any more */
        pic_put(&p, at[L2] + 8, 8, MiB(700));
        pic_put(&p, at[RECORD], 8, p.wp);
        pic_put(&p, 36, 4, (at[L2] + 512 - p.l1) / 8);
        expect_untouched(&p, at, flags, "L1 too large, record broken");
        snapshot_alone(&p, at); /* so are the write pointers, and all are lost */
        pic_put(&p, p.zoned + (pic_get(&p, p.zoned - 4, 4) == 44 ? 24 : 40), 8, at[DATA]);
        expect_untouched(&p, at, flags, "write pointers moved");
    }
}

/*
 * An L2 table of the disk that others claim as a table of theirs stays, wrong entries and all: in a
 * place that was the disk's no longer, its data would be taken for tables.
 */
static void test_table_under_a_table(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct pic p;
        uint64_t table, at;

        fault_image(&p, 4096, 16);
        at = pic_snapshot(&p);
        table = pic_get(&p, p.l1, 8) & ~PIC_COPIED;
        if (k)
            pic_put(&p, at, 8, table); /* a snapshot's L1 table */
        else
            pic_put(&p, 64, 8, table); /* the table of snapshots */
        pic_put(&p, pic_l2(&p, KiB(4)), 8, MiB(700));
        assert_int_equal(pic_check(&p, 0), 0);
        at = p.res.corruptions;
        assert_int_equal(pic_check(&p, ALL), 0);
        assert_int_equal(pic_get(&p, p.l1, 8) & ~PIC_COPIED, table);
        assert_int_equal(pic_get(&p, table + 8, 8), MiB(700));
        assert_int_equal(pic_check(&p, ALL), 0);
        assert_null(strstr(p.found, "repaired"));
        assert_in_range(p.res.corruptions, 1, at);
        pic_free(&p);
    }
}

/*
 * Which tables a snapshot has whose record is broken is not known. Where refcount or flag say that
 * somebody else has one, the disk gets a copy before an entry is dropped or unmapped.
 */
static void test_tables_of_a_lost_snapshot(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        uint64_t record, table, entry, at, beyond;
        struct pic p;

        fault_image(&p, 4096, 16);
        at = pic_map(&p, KiB(128), 3); /* an earlier life's */
        record = pic_snapshot(&p);
        entry = pic_get(&p, p.l1, 8);
        table = entry & ~PIC_COPIED;
        beyond = pic_l2(&p, KiB(128));
        assert_int_equal(pic_get(&p, beyond, 8) & ~PIC_COPIED, at);
        if (k == 1)
            pic_put(&p, p.l1, 8, table | PIC_COPIED); /* the refcount alone says it */
        else if (k == 2)
            pic_set_refcount(&p, table, 1); /* the flag */
        pic_put(&p, record, 8, MiB(700));
        assert_int_equal(pic_check(&p, ALL), 0);
        assert_int_not_equal(pic_get(&p, p.l1, 8) & ~PIC_COPIED, table);
        assert_int_equal(pic_get(&p, beyond, 8) & ~PIC_COPIED, at);
        assert_int_equal(pic_get(&p, pic_l2(&p, KiB(128)), 8), 0);
        assert_int_equal(pic_check(&p, ALL), 0);
        assert_null(strstr(p.found, "repaired"));
        pic_free(&p);
    }
}

/* An entry of L1 points to data. Whichever is wrong, what could be read before can be read after.
 */
static void test_data_on_a_table(void **state)
{
    (void)state;
    for (unsigned flags = REPAIR; flags <= ALL; flags *= 2) {
        uint64_t at, host, before;
        struct pic p;

        fault_image(&p, 512, 16);
        at = pic_l2(&p, 0);
        host = pic_get(&p, at, 8) & ~PIC_COPIED;
        pic_put(&p, p.l1 + 8, 8, host | PIC_COPIED);
        assert_int_equal(pic_check(&p, 0), 0);
        before = p.res.corruptions;
        assert_int_equal(pic_check(&p, flags), 0);
        assert_int_equal(pic_get(&p, at, 8), host | PIC_COPIED);
        assert_int_not_equal(pic_get(&p, p.l1 + 8, 8), host | PIC_COPIED);
        for (uint64_t k = 0; k < 512; k += 8)
            assert_int_equal(pic_get(&p, host + k, 8), 0xa0a0a0a0a0a0a0a0);
        assert_int_equal(pic_check(&p, 0), 0);
        assert_in_range(p.res.corruptions, 0, flags == ALL ? 0 : before - 1);
        pic_free(&p);
    }
}

/* A table that a snapshot has, too, does not move: the data gets a copy of what it reads there. */
static void test_data_on_a_shared_table(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        unsigned flags = k & 1 ? ALL : REPAIR;
        uint64_t at, table, copy;
        struct pic p;

        fault_image(&p, 512, 16);
        pic_snapshot(&p);
        table = pic_get(&p, p.l1, 8) & ~PIC_COPIED;
        at = pic_l2(&p, KiB(32)); /* in a table that the snapshot does not have */
        pic_put(&p, at, 8, table);
        if (k & 2)
            pic_set_refcount(&p, table, 3);
        assert_int_equal(pic_check(&p, 0), 0);
        assert_non_null(strstr(p.found, "points into the L2 table"));
        assert_int_equal(pic_check(&p, flags), 0);
        copy = pic_get(&p, at, 8) & ~PIC_COPIED;
        assert_int_not_equal(copy, 0);
        assert_int_not_equal(copy, table);
        for (uint64_t i = 0; i < 512; i += 8)
            assert_int_equal(pic_get(&p, copy + i, 8), pic_get(&p, table + i, 8));
        assert_int_equal(pic_get(&p, p.l1, 8), table);
        pic_finds(&p, 0, 0, 0, "", "");
        pic_free(&p);
    }
}

/*
 * A refcount below its references is raised also where the flags that go with it stay as they are:
 * for a snapshot's table lies on L1. These were wrong before, and then no less than after.
 */
static void test_flags_of_a_raise(void **state)
{
    (void)state;
    for (int k = 0; k < 3; k++) {
        uint64_t table, host;
        struct pic p;

        fault_image(&p, 4096, 16);
        table = pic_get(&p, p.l1, 8) & ~PIC_COPIED;
        host = pic_get(&p, table, 8) & ~PIC_COPIED;
        if (k == 0) { /* a second reference to the table, of an entry in it */
            pic_put(&p, table, 8, table | PIC_COPIED);
        } else if (k == 1) { /* data that is not counted, without the flag */
            pic_put(&p, table, 8, host);
            pic_set_refcount(&p, host, 0);
        } else { /* a table */
            pic_put(&p, p.l1, 8, table);
            pic_set_refcount(&p, table, 0);
        }
        pic_put(&p, 60, 4, 1); /* one snapshot */
        pic_put(&p, 64, 8, p.l1);
        assert_int_equal(pic_check(&p, 0), 0);
        host = p.res.corruptions;
        assert_int_equal(pic_check(&p, REPAIR), 0);
        assert_non_null(strstr(p.found, "repaired: 1 refcounts raised"));
        assert_int_equal(p.res.corruptions, host);
        assert_true(p.res.corruptions_fixed > 0);
        pic_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copied_after_a_rebuild),
        cmocka_unit_test(test_packed_beside_normal),
        cmocka_unit_test(test_rightly_shared_stays),
        cmocka_unit_test(test_no_copy_of_wrong_entries),
        cmocka_unit_test(test_on_refcounts),
        cmocka_unit_test(test_no_room_for_wrong_entries),
        cmocka_unit_test(test_disk_on_a_snapshot),
        cmocka_unit_test(test_table_under_a_table),
        cmocka_unit_test(test_tables_of_a_lost_snapshot),
        cmocka_unit_test(test_data_on_a_table),
        cmocka_unit_test(test_data_on_a_shared_table),
        cmocka_unit_test(test_flags_of_a_raise),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
