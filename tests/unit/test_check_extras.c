/* SPDX-License-Identifier: MIT */
/* What check finds in snapshots and bitmaps, which the library keeps but does not use. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/pic.h"

#define KiB(n) ((uint64_t)(n) << 10)

static void plain(struct pic *p)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = KiB(32768);
    o.cluster_size = 4096;
    pic_make(p, &o);
    pic_map(p, 0, 1);
    pic_map(p, 4096, 2);
}

static void test_snapshot(void **state)
{
    struct pic p;
    uint64_t table, l1;

    (void)state;
    plain(&p);
    table = pic_snapshot(&p);
    pic_finds(&p, 0, 0, 0, "", "");
    l1 = pic_get(&p, table, 8);
    pic_map(&p, KiB(512),
            9); /* its entry goes to a table that the snapshot has too: not allowed, */
    assert_int_equal(pic_check(&p, 0), 0);
    assert_int_equal(p.res.corruptions, 2); /* and seen by the count, with its flag */
    pic_free(&p);

    plain(&p);
    table = pic_snapshot(&p);
    l1 = pic_get(&p, table, 8);
    pic_put(&p, l1, 8, 0); /* the snapshot forgets everything */
    pic_finds(&p, 0, 3, 0, "refcount 2, references 1", "");
    pic_put(&p, table, 8, l1 + 512);
    pic_finds(&p, 1, 4, 0, "snapshot l1_table_offset", "not a valid");
    pic_put(&p, table, 8, table + 4096); /* at the very end, and so beyond it */
    pic_finds(&p, 1, 4, 0, "snapshot l1_table_offset", "not a valid");
    pic_put(&p, table, 8, p.l1);
    pic_finds(&p, 1, 4, 0, "L1 table of a snapshot at 0x3000 overlaps the L1 table", "");
    pic_put(&p, table, 8, l1);
    pic_put(&p, table + 8, 4, 4194305);
    pic_finds(&p, 1, 4, 0, "snapshot l1_size 4194305", "32 MiB");
    pic_put(&p, table + 8, 4, p.l1_entries);
    pic_put(&p, table + 36, 4, 8);
    pic_finds(&p, 1, 3, 0, "extra_data_size 8", "needs 16");
    pic_put(&p, table + 36, 4, 1025);
    pic_finds(&p, 1, 4, 0, "extra_data_size 1025", "1024");
    pic_put(&p, table + 36, 4, 16);
    pic_put(&p, table + 14, 2, 65535);
    pic_finds(&p, 1, 4, 0, "snapshot table entry", "past the file's end");
    pic_free(&p);
}

/* Without entries a table need not lie in the file; QEMU judges where it begins nevertheless. */
static void test_snapshot_without_entries(void **state)
{
    static const uint64_t sound[] = {0, 4096, KiB(1 << 20), 1ull << 62};
    struct pic p;
    uint64_t table;

    (void)state;
    plain(&p);
    table = pic_snapshot(&p);
    pic_put(&p, table + 8, 4, 0);
    for (size_t i = 0; i < sizeof(sound) / sizeof(sound[0]); i++) {
        pic_put(&p, table, 8, sound[i]);
        pic_finds(&p, 0, 4, 0, "refcount 2, references 1", "");
    }
    for (unsigned bit = 0; bit < 12; bit++) {
        pic_put(&p, table, 8, 1ull << bit);
        pic_finds(&p, 1, 4, 0, "snapshot l1_table_offset", "not a valid");
    }
    assert_int_equal(pic_check(&p, ZQCOW2_CHECK_REPAIR_LEAKS), 0);
    assert_int_equal(p.res.leaks_fixed, 0); /* which field is wrong is unknown */
    pic_free(&p);
}

/* COPIED means nothing in a table that only a snapshot has, but QEMU refuses it where it is wrong.
 */
static void test_snapshot_compressed_copied(void **state)
{
    static const uint32_t repairs[] = {0, ZQCOW2_CHECK_REPAIR_LEAKS, ZQCOW2_CHECK_REPAIR_ALL};
    uint64_t l2, entry;
    struct pic p;

    (void)state;
    plain(&p);
    l2 = pic_l2(&p, 0);
    entry = PIC_COMPRESSED | pic_alloc(&p, 1);
    pic_snapshot(&p);
    pic_set_refcount(&p, entry & ~PIC_COMPRESSED, 2);
    pic_put(&p, l2 + 16, 8, entry | PIC_COPIED);
    pic_finds(&p, 1, 0, 0, "L2 entry 2", "COPIED is set on a compressed cluster"); /* once */
    assert_int_equal(pic_check(&p, ZQCOW2_CHECK_REPAIR), 0);
    assert_int_equal(pic_get(&p, l2 + 16, 8), entry);
    pic_finds(&p, 0, 0, 0, "", "");

    pic_put(&p, p.l1, 8, 0); /* now the snapshot is alone */
    assert_int_equal(pic_check(&p, ZQCOW2_CHECK_REPAIR_LEAKS), 0);
    pic_put(&p, l2 + 16, 8, entry | PIC_COPIED);
    for (size_t i = 0; i < sizeof(repairs) / sizeof(repairs[0]); i++) {
        assert_int_equal(pic_check(&p, repairs[i]), 0);
        assert_int_equal(pic_get(&p, l2 + 16, 8), entry | PIC_COPIED);
        pic_finds(&p, 1, 0, 0, "a snapshot's L2 entry 2", "COPIED is set on a compressed cluster");
    }
    pic_free(&p);
}

static void add_bitmaps(struct pic *p, uint64_t *dir, uint64_t *table, uint64_t *data)
{
    *dir = pic_alloc(p, 1);
    *table = pic_alloc(p, 1);
    *data = pic_alloc(p, 1);
    pic_put(p, 112, 4, 0x23852875); /* in the mark's and the feature names' place */
    pic_put(p, 116, 4, 24);
    pic_put(p, 120, 4, 1);
    pic_put(p, 124, 4, 0);
    pic_put(p, 128, 8, 32);
    pic_put(p, 136, 8, *dir);
    pic_put(p, 144, 8, 0);
    pic_put(p, 88, 8, 1);
    pic_put(p, *dir, 8, *table);
    pic_put(p, *dir + 8, 4, 2);
    pic_put(p, *dir + 16, 4, 1 << 24 | 9 << 16 | 4);
    pic_put(p, *table, 8, *data);
    pic_put(p, *table + 8, 8, 1);
}

static void test_bitmaps(void **state)
{
    struct pic p;
    uint64_t dir, table, data;

    (void)state;
    plain(&p);
    add_bitmaps(&p, &dir, &table, &data);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_put(&p, table, 8, data | 1);
    pic_finds(&p, 1, 1, 0, "bitmap table entry", "reserved bits");
    pic_put(&p, table, 8, p.l1);
    pic_finds(&p, 1, 1, 0, "bitmap table entry", "points into the L1 table");
    pic_put(&p, table, 8, data);
    pic_put(&p, dir, 8, table + 8);
    pic_finds(&p, 1, 2, 0, "bitmap_table_offset", "");
    pic_put(&p, dir, 8, table);
    pic_put(&p, 120, 4, 2);
    pic_finds(&p, 1, 3, 0, "bitmap_directory_offset", "");
    pic_put(&p, 120, 4, 0);
    pic_finds(&p, 1, 3, 0, "nb_bitmaps 0", "");
    pic_put(&p, 120, 4, 1);
    pic_put(&p, 128, 8, 40); /* what the directory has beyond the first may own clusters */
    pic_finds(&p, 1, 0, 0, "nb_bitmaps 1", "fewer than the directory holds");
    pic_put(&p, 128, 8, 32);
    pic_put(&p, 120, 4, 1);
    pic_put(&p, 124, 4, 1);
    pic_finds(&p, 1, 3, 0, "reserved field", "");
    pic_put(&p, 124, 4, 0);
    pic_put(&p, 128, 8, KiB(65536) + 1);
    pic_finds(&p, 1, 3, 0, "bitmap_directory_size", "64 MiB");
    pic_put(&p, 128, 8, 32);
    pic_put(&p, dir + 8, 4, KiB(8192) + 1);
    pic_finds(&p, 1, 2, 0, "bitmap_table_size", "64 MiB");
    pic_put(&p, dir + 8, 4, 2);
    pic_put(&p, dir + 12, 4, 8);
    pic_finds(&p, 1, 2, 0, "bitmap flags and type", "");
    pic_put(&p, dir + 12, 4, 7);
    pic_put(&p, dir + 16, 1, 2);
    pic_finds(&p, 1, 2, 0, "bitmap flags and type", "");
    pic_put(&p, dir + 16, 1, 1);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_put(&p, dir + 20, 4, 4096);
    pic_finds(&p, 1, 2, 0, "bitmap directory entry", "");
    pic_free(&p);
}

/* What QEMU refuses, although the table can be followed. */
static void test_bitmap_constraints(void **state)
{
    static const struct {
        unsigned at, width, value;
        const char *text;
    } bad[] = {{17, 1, 8, "granularity_bits 8"},     {17, 1, 32, "granularity_bits 32"},
               {17, 1, 255, "granularity_bits 255"}, {18, 2, 0, "name_size 0"},
               {8, 4, 0, "bitmap_table_size 0"},     {8, 4, 1, "bitmap_table_size 1"},
               {8, 4, 3, "bitmap_table_size 3"},     {17, 1, 10, "bitmap_table_size 2"},
               {20, 4, 1, "extra_data_size 1"},      {20, 4, 4, "extra_data_size 4"}};
    struct pic p;
    uint64_t dir, table, data;

    (void)state;
    plain(&p);
    add_bitmaps(&p, &dir, &table, &data);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t old = pic_get(&p, dir + bad[i].at, bad[i].width);

        pic_put(&p, dir + bad[i].at, bad[i].width, bad[i].value);
        /* without its name an entry ends early, and the directory has more */
        pic_finds(&p, 1 + (bad[i].at == 18), bad[i].at == 8 && !bad[i].value ? 2 : 0, 0,
                  bad[i].text, "");
        pic_put(&p, dir + bad[i].at, bad[i].width, old);
    }
    pic_put(&p, dir + 12, 4, 1); /* in use: whatever it was made for */
    pic_put(&p, dir + 8, 4, 3);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_put(&p, dir + 8, 4, 0);
    pic_finds(&p, 1, 2, 0, "bitmap_table_size 0", "");
    pic_free(&p);
}

/*
 * A table named at the file's end, and a refcount table that must be made anew, which the file
 * grows for: what is named must not become a table of what the repair wrote there.
 */
static void grow_behind(unsigned which)
{
    struct pic p;
    uint64_t snap, dir, table, data, end, corruptions;

    plain(&p);
    snap = pic_snapshot(&p);
    add_bitmaps(&p, &dir, &table, &data);
    free(pic_bytes(&p, &end));
    end = (end + 4095) / 4096 * 4096;
    pic_put(&p, p.rt + 8, 8, 2);
    if (which == 0)
        pic_put(&p, snap, 8, end);
    else if (which == 1)
        pic_put(&p, 136, 8, end);
    else if (which == 2)
        pic_put(&p, dir, 8, end);
    else
        pic_put(&p, table, 8, end);
    assert_int_equal(pic_check(&p, 0), 0);
    corruptions = p.res.corruptions;
    assert_true(corruptions >= 2);
    assert_int_equal(pic_check(&p, ZQCOW2_CHECK_REPAIR), 0);
    assert_non_null(strstr(p.found, "refcount table"));
    assert_int_equal(pic_check(&p, 0), 0);
    if (p.res.corruptions > 1 || strstr(p.found, "overlaps") || strstr(p.found, "points into"))
        fail_msg("field %u: %llu corruptions before, then: %s", which,
                 (unsigned long long)corruptions, p.found);
    pic_free(&p);
}

static void test_grow_behind(void **state)
{
    (void)state;
    for (unsigned which = 0; which < 4; which++)
        grow_behind(which);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_snapshot),    cmocka_unit_test(test_snapshot_without_entries),
        cmocka_unit_test(test_bitmaps),     cmocka_unit_test(test_bitmap_constraints),
        cmocka_unit_test(test_grow_behind), cmocka_unit_test(test_snapshot_compressed_copied),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
