/* SPDX-License-Identifier: MIT */
/* Repair: each fault repaired, twice; data, write pointers and marks afterwards. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/faults.h"

static void expect_clean(struct pic *p, const char *name, uint32_t cluster, uint32_t bits)
{
    /* where the only way to the data was lost, zone 3 reads as zeros, and check says so */
    uint64_t warnings = !strcmp(name, "L2 on L1");

    if (pic_check(p, 0) != 0 || p->res.corruptions || p->res.leaked_clusters ||
        p->res.warnings != warnings)
        fail_msg("%s, cluster_size %u, refcount_bits %u: not clean: %s%s", name, cluster, bits,
                 p->err.text, p->found);
}

static void expect_unchanged(struct pic *p, const char *name, unsigned flags)
{
    uint64_t before, after;
    uint8_t *a = pic_bytes(p, &before), *b;

    assert_int_equal(pic_check(p, flags), 0);
    b = pic_bytes(p, &after);
    if (before != after || memcmp(a, b, before) || strstr(p->found, "repaired"))
        fail_msg("%s: a second repair changes something: %s", name, p->found);
    free(a);
    free(b);
}

/* With less than it needs, a repair leaves a fault that is still the same one to a full repair. */
static void repair(const struct fault *f, uint32_t cluster, uint32_t bits, unsigned first)
{
    struct pic p;
    uint64_t found;

    fault_image(&p, cluster, bits);
    if (f->make)
        f->make(&p);
    assert_int_equal(pic_check(&p, 0), 0);
    found = p.res.corruptions + p.res.leaked_clusters + p.res.warnings;
    assert_true(!found == !f->make);
    if (pic_check(&p, first) != 0)
        fail_msg("%s: %s", f->name, p.err.text);
    pic_find(&p);
    if (first < f->flags)
        assert_int_equal(pic_check(&p, f->flags), 0);
    if (p.res.corruptions != p.res.corruptions_fixed || p.res.leaked_clusters != p.res.leaks_fixed)
        fail_msg("%s, cluster_size %u, refcount_bits %u: %d of %d, %d of %d repaired: %s", f->name,
                 cluster, bits, (int)p.res.corruptions_fixed, (int)p.res.corruptions,
                 (int)p.res.leaks_fixed, (int)p.res.leaked_clusters, p.found);
    expect_clean(&p, f->name, cluster, bits);
    expect_unchanged(&p, f->name, ALL);
    assert_int_equal(pic_get(&p, 72, 8), 0x20);
    assert_int_equal(pic_get(&p, p.mark, 1), 0);
    pic_free(&p);
}

static void test_every_fault(void **state)
{
    static const unsigned flags[] = {LEAKS, REPAIR, ALL};

    (void)state;
    for (size_t i = 0; i < nr_faults; i++) {
        for (uint32_t cluster = 4096; cluster <= 16384; cluster *= 4) {
            for (uint32_t bits = 2; bits <= 64; bits *= 2) {
                for (int k = 0; k < 3; k++)
                    repair(&faults[i], cluster, bits, flags[k]);
            }
        }
    }
}

/* ---- what a repair does ---- */

static void test_data_stays(void **state)
{
    (void)state;
    for (size_t i = 0; i < nr_faults; i++) {
        uint64_t entry, data;
        struct pic p;

        fault_image(&p, 4096, 16);
        entry = pic_get(&p, pic_l2(&p, KiB(320)), 8) & ~PIC_COPIED;
        if (faults[i].make)
            faults[i].make(&p);
        assert_int_equal(pic_check(&p, faults[i].flags), 0);
        pic_find(&p);
        if (faults[i].make == fault_l2_on_l1) { /* the only way to the data was lost */
            assert_int_equal(pic_get(&p, p.l1, 8), 0);
        } else {
            assert_int_equal(pic_get(&p, pic_l2(&p, KiB(320)), 8), entry | PIC_COPIED);
            data = pic_get(&p, entry, 8);
            assert_int_equal(data, 0xa5a5a5a5a5a5a5a5);
        }
        assert_int_equal(pic_get(&p, p.wp + 5 * 8, 8), KiB(384));
        pic_free(&p);
    }
}

static void test_write_pointers_corrected(void **state)
{
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    fault_wp_lost(&p);
    assert_int_equal(pic_check(&p, REPAIR), 0); /* not asked to */
    assert_int_equal(pic_get(&p, p.wp + 3 * 8, 8), 12345);
    assert_int_equal(p.res.corruptions_fixed, 0);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_non_null(strstr(p.found, "repaired: 3 write pointers corrected"));
    assert_int_equal(pic_get(&p, p.wp + 3 * 8, 8), KiB(192) + 3 * 4096);
    assert_int_equal(pic_get(&p, p.wp + 8, 8), KiB(64) | 1ull << 63);
    assert_int_equal(pic_get(&p, p.wp + 15 * 8, 8), KiB(960));
    pic_free(&p);
}

static void test_unmap_beyond_write_pointers(void **state)
{
    struct pic p;
    uint64_t host;

    (void)state;
    fault_image(&p, 4096, 16);
    host = pic_map(&p, KiB(196), 1);
    pic_map(&p, KiB(700), 1);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_int_equal(pic_get(&p, pic_l2(&p, KiB(196)), 8), host | PIC_COPIED);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_non_null(strstr(p.found, "repaired: 2 clusters beyond write pointers unmapped"));
    assert_int_equal(pic_get(&p, pic_l2(&p, KiB(196)), 8), 0);
    assert_int_equal(pic_get(&p, pic_l2(&p, KiB(700)), 8), 0);
    assert_int_equal(pic_refcount(&p, host), 0);
    assert_int_not_equal(pic_get(&p, pic_l2(&p, KiB(192)), 8), 0); /* holds the write pointer */
    expect_clean(&p, "unmapped", 4096, 16);
    pic_free(&p);
}

/* A count that the width cannot hold is not cut off: the image is closed to writers. */
static void test_width_too_narrow(void **state)
{
    uint64_t host;
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 1);
    host = pic_alloc(&p, 1); /* two clusters packed into one, which nothing can pull apart */
    pic_put(&p, pic_l2(&p, KiB(4)), 8, PIC_COMPRESSED | host);
    pic_put(&p, pic_l2(&p, KiB(8)), 8, PIC_COMPRESSED | (host + 2048));
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(p.res.corruptions_fixed, 0);
    assert_int_equal(pic_get(&p, 72, 8), 0x22);
    assert_int_equal(pic_get(&p, p.mark, 1), 0);
    assert_int_equal(pic_check(&p, 0), 0);
    assert_non_null(strstr(p.found, "refcount 1, references 2"));
    pic_set_refcount(&p, host, 0);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(pic_refcount(&p, host), 1);
    expect_unchanged(&p, "narrow", ALL);
    pic_free(&p);
}

/* Of entries with one cluster each but the first gets a copy, where the count was too low. */
static void test_shared_is_copied(void **state)
{
    (void)state;
    for (uint32_t bits = 1; bits <= 64; bits *= 2) {
        uint64_t host, at[3], to[3];
        struct pic p;

        fault_image(&p, 4096, bits);
        fault_shared(&p);
        for (int i = 0; i < 3; i++)
            at[i] = pic_l2(&p, KiB(4) * (uint64_t)(i + 1));
        host = pic_get(&p, at[0], 8) & ~PIC_COPIED;
        assert_int_equal(pic_check(&p, REPAIR), 0);
        assert_non_null(strstr(p.found, "refcount 1, references 3"));
        assert_non_null(strstr(p.found, "repaired: 2 shared clusters and tables copied"));
        for (int i = 0; i < 3; i++) {
            to[i] = pic_get(&p, at[i], 8);
            assert_true(to[i] & PIC_COPIED);
            to[i] &= ~PIC_COPIED;
            assert_int_equal(pic_refcount(&p, to[i]), 1);
            assert_int_equal(pic_get(&p, to[i] + 4088, 8), 0x0707070707070707);
        }
        assert_true(to[0] == host && to[1] != host && to[2] != host && to[1] != to[2]);
        expect_clean(&p, "shared", 4096, bits);
        expect_unchanged(&p, "shared", ALL);
        pic_free(&p);
    }
}

/* The same for tables, and then for what they map. */
static void test_shared_table_is_copied(void **state)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    (void)state;
    o.virtual_size = MiB(4);
    o.cluster_size = 4096;
    for (o.refcount_bits = 1; o.refcount_bits <= 16; o.refcount_bits *= 16) {
        uint64_t host, table, copy;
        struct pic p;

        pic_make(&p, &o);
        host = pic_map(&p, KiB(8), 3);
        table = pic_get(&p, p.l1, 8);
        pic_put(&p, p.l1 + 8, 8, table);
        assert_int_equal(pic_check(&p, REPAIR), 0);
        assert_int_equal(p.res.corruptions, p.res.corruptions_fixed);
        assert_int_equal(pic_get(&p, p.l1, 8), table);
        copy = pic_get(&p, p.l1 + 8, 8);
        assert_true(copy != table && copy & PIC_COPIED);
        copy = pic_get(&p, (copy & ~PIC_COPIED) + 16, 8);
        assert_true(copy & PIC_COPIED && (copy & ~PIC_COPIED) != host);
        assert_int_equal(pic_get(&p, copy & ~PIC_COPIED, 8), 0x0303030303030303);
        expect_clean(&p, "shared table", 4096, o.refcount_bits);
        pic_free(&p);
    }
}

/* No copy makes a small file large: beyond its own length sharing is counted instead. */
static void test_copies_are_bounded(void **state)
{
    uint64_t host, length;
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    host = pic_map(&p, 0, 1);
    for (uint64_t i = 1; i < 32; i++)
        pic_put(&p, pic_l2(&p, KiB(4) * i), 8, host | PIC_COPIED);
    length = pic_length(&p);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_true(pic_length(&p) > length && pic_length(&p) <= 2 * length);
    assert_true(pic_refcount(&p, host) > 1);
    expect_clean(&p, "bounded", 4096, 16);
    pic_free(&p);
}

/* A broken entry may hide who owns a cluster: nothing is freed while it is there. */
static void test_hidden_references(void **state)
{
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    pic_put(&p, p.l1, 8, pic_get(&p, p.l1, 8) ^ MiB(512));
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_true(p.res.leaked_clusters > 3);
    assert_int_equal(p.res.leaks_fixed, 0);
    pic_put(&p, p.l1, 8, pic_get(&p, p.l1, 8) ^ MiB(512));
    expect_clean(&p, "hidden", 4096, 16);
    pic_put(&p, pic_l2(&p, 0), 8, pic_get(&p, pic_l2(&p, 0), 8) ^ MiB(512));
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_int_equal(p.res.leaked_clusters, 1);
    assert_int_equal(p.res.leaks_fixed, 0);
    pic_put(&p, pic_l2(&p, 0), 8, pic_get(&p, pic_l2(&p, 0), 8) ^ MiB(512));
    expect_clean(&p, "hidden", 4096, 16);
    pic_free(&p);
}

static void test_unknown_owners(void **state)
{
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    fault_leak(&p);
    pic_put(&p, 112, 4, 0x12345678);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(p.res.leaked_clusters, 5);
    assert_int_equal(p.res.leaks_fixed, 0);
    pic_put(&p, 112, 4, 0x7a71326d);
    pic_put(&p, 88, 8, 0x80);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(p.res.leaks_fixed, 0);
    assert_int_equal(pic_get(&p, 88, 8), 0x80); /* nothing was written */
    pic_set_refcount(&p, 0, 0);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(p.res.corruptions_fixed, 1);
    assert_int_equal(pic_get(&p, 88, 8), 0); /* the format asks for it before a write */
    assert_int_equal(p.res.leaks_fixed, 5);  /* with the bit gone they belong to nobody */
    expect_unchanged(&p, "autoclear", ALL);
    pic_free(&p);
}

/* An extension of no model, by one flipped byte: its table is still not for repair to free. */
static void test_no_model(void **state)
{
    struct pic p;
    uint64_t ext = 104;

    (void)state;
    fault_image(&p, 4096, 16);
    while (pic_get(&p, ext, 4) != 0x007a6264)
        ext += 8;
    pic_put(&p, ext + 8, 1, 0);
    assert_int_equal(pic_check(&p, ALL), ZQCOW2_ECORRUPT);
    pic_put(&p, 72, 8, 0); /* bit 5, too */
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(p.res.leaks_fixed, 0);
    assert_int_equal(pic_get(&p, p.wp + 3 * 8, 8), KiB(192) + 512);
    pic_free(&p);
}

/* Freeing leaks alone sets flags only where a count comes down to 1. */
static void test_leaks_only(void **state)
{
    uint64_t l2, entry;
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    l2 = pic_get(&p, p.l1, 8) & ~PIC_COPIED;
    entry = pic_get(&p, pic_l2(&p, 0), 8) & ~PIC_COPIED;
    pic_set_refcount(&p, l2, 2);
    pic_put(&p, p.l1, 8, l2);
    pic_put(&p, pic_l2(&p, 0), 8, entry); /* COPIED is missing, which is no leak */
    assert_int_equal(pic_check(&p, LEAKS), 0);
    assert_int_equal(p.res.leaks_fixed, 1);
    assert_int_equal(p.res.corruptions_fixed, 0);
    assert_int_equal(pic_get(&p, p.l1, 8), l2 | PIC_COPIED);
    assert_int_equal(pic_get(&p, pic_l2(&p, 0), 8), entry);
    pic_free(&p);
}

/* A rebuild keeps what it may not free. */
static void test_rebuild_keeps_leaks(void **state)
{
    uint64_t host;
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    host = pic_alloc(&p, 3);
    pic_set_refcount(&p, host + 4096, 7);
    pic_put(&p, 112, 4, 0x12345678);
    pic_put(&p, p.rt + 8, 8, 1);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_non_null(strstr(p.found, "repaired: refcount table rebuilt"));
    pic_find(&p);
    assert_int_equal(pic_refcount(&p, host), 1);
    assert_int_equal(pic_refcount(&p, host + 4096), 7);
    pic_free(&p);
}

/* The new table and blocks begin where no block covered the file yet. */
static void test_rebuild_covers_itself(void **state)
{
    (void)state;
    for (uint32_t cluster = 512; cluster <= 4096; cluster *= 8) {
        uint64_t per_block = cluster * 8 / 64;
        struct pic p;

        fault_image(&p, cluster, 64);
        while (pic_length(&p) / cluster < per_block)
            pic_alloc(&p, 1);
        pic_put(&p, p.rt, 8, 0);
        assert_int_equal(pic_check(&p, REPAIR), 0);
        assert_non_null(strstr(p.found, "2 blocks"));
        assert_null(strstr(strstr(p.found, "rebuilt") + 1, "rebuilt")); /* at the first attempt */
        expect_clean(&p, "rebuilt", cluster, 64);
        pic_free(&p);
    }
}

static void test_marks_stay_while_corrupt(void **state)
{
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    fault_dirty(&p);
    fault_data_nowhere(&p);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_int_equal(pic_get(&p, 72, 8), 0x23);
    assert_int_equal(pic_get(&p, p.mark, 1), 1);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(pic_get(&p, 72, 8), 0x20);
    pic_free(&p);
}

/* Version 2 has no features to clear: what lies there is left alone. */
static void test_version2(void **state)
{
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    pic_put(&p, 4, 4, 2);
    pic_zero(&p, 72, 1024);
    pic_find(&p);
    fault_leak(&p);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(p.res.leaks_fixed, 6); /* the write-pointer table is none of version 2 */
    expect_clean(&p, "version 2", 4096, 16);
    pic_free(&p);
}

/* ---- what is shared with a snapshot ---- */

/* 4 zones of 512 KiB in a snapshot; the first three share an L2 table. */
static uint64_t snapshot_image(struct pic *p)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = MiB(2);
    o.zone_size = KiB(512);
    o.cluster_size = 4096;
    pic_make(p, &o);
    for (uint64_t z = 0; z < 4; z++) {
        pic_map(p, z * KiB(512), (int)z + 1);
        pic_map(p, z * KiB(512) + 4096, (int)z + 11);
        pic_put(p, p->wp + z * 8, 8, z * KiB(512) + 8192);
    }
    return pic_get(p, pic_snapshot(p), 8);
}

/* A full repair gives the active disk a table of its own before it takes anything out of it. */
static void test_snapshot_stays(void **state)
{
    uint64_t l1, table, entry[1024], at;
    struct pic p;

    (void)state;
    l1 = snapshot_image(&p);
    table = pic_get(&p, l1, 8);
    pic_put(&p, p.wp, 8, 4096);         /* one cluster less */
    pic_put(&p, p.wp + 8, 8, KiB(512)); /* reset */
    for (uint64_t i = 0; i < 512; i++)
        entry[i] = pic_get(&p, table + i * 8, 8);
    pic_finds(&p, 0, 0, 0, "", "");
    assert_int_equal(pic_check(&p, REPAIR), 0);
    expect_unchanged(&p, "nothing to do", REPAIR);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_non_null(strstr(p.found, "1 shared clusters and tables copied"));
    assert_non_null(strstr(p.found, "3 clusters beyond write pointers unmapped"));
    assert_int_equal(pic_get(&p, l1, 8), table);
    for (uint64_t i = 0; i < 512; i++)
        assert_int_equal(pic_get(&p, table + i * 8, 8), entry[i]);
    at = pic_get(&p, p.l1, 8);
    assert_true(at & PIC_COPIED && (at & ~PIC_COPIED) != table);
    assert_int_equal(pic_get(&p, (at & ~PIC_COPIED), 8), entry[0]);
    assert_int_equal(pic_get(&p, (at & ~PIC_COPIED) + 8, 8), 0);
    assert_int_equal(pic_refcount(&p, entry[0]), 2);
    assert_int_equal(pic_refcount(&p, entry[1]), 1);
    assert_int_equal(pic_refcount(&p, table), 1);
    expect_clean(&p, "with a snapshot", 4096, 16);
    expect_unchanged(&p, "with a snapshot", ALL);
    pic_free(&p);
}

/* An entry that is wrong in both is dropped in the active disk's table; the snapshot keeps it. */
static void test_snapshot_keeps_wrong_entries(void **state)
{
    uint64_t l1, table;
    struct pic p;

    (void)state;
    l1 = snapshot_image(&p);
    table = pic_get(&p, l1, 8);
    pic_put(&p, table + 8, 8, MiB(700));
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_int_equal(pic_get(&p, table + 8, 8), MiB(700));
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(p.res.corruptions - p.res.corruptions_fixed, 1);
    assert_int_equal(pic_get(&p, table + 8, 8), MiB(700));
    assert_int_equal(pic_get(&p, pic_l2(&p, 4096), 8), 0);
    pic_finds(&p, 1, p.res.leaked_clusters - p.res.leaks_fixed, 0, "a snapshot's L2 entry 1",
              "points past the end of the file");
    expect_unchanged(&p, "a snapshot's entry", ALL);
    assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), 0);
    pic_free(&p);
}

/* ---- what is said ---- */

/* The old table stays, for an extension may have something there; that is said. */
static void test_leaks_of_a_rebuild_are_told(void **state)
{
    uint64_t left;
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    pic_put(&p, 112, 4, 0x12345678);
    pic_put(&p, p.rt + 8, 8, 1);
    assert_int_equal(pic_check(&p, ALL), 0);
    assert_int_equal(p.res.corruptions, p.res.corruptions_fixed);
    left = p.res.leaked_clusters - p.res.leaks_fixed;
    assert_int_equal(left, 2);
    pic_finds(&p, 0, left, 0, "leak", "");
    expect_unchanged(&p, "rebuilt", ALL);
    pic_free(&p);
}

/* Refcounts that cannot be written stay as they are, and so do the flags that go with them. */
static void test_no_flag_without_its_refcount(void **state)
{
    uint64_t entry, at;
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    at = pic_l2(&p, 0);
    entry = pic_get(&p, at, 8) & ~PIC_COPIED;
    pic_put(&p, at, 8, entry);
    pic_set_refcount(&p, entry, 2);
    pic_put(&p, p.rt + 8, 8, 1); /* no place for refcounts: only a rebuild repairs that */
    assert_int_equal(pic_check(&p, LEAKS), 0);
    assert_int_equal(p.res.corruptions, 1);
    assert_int_equal(p.res.leaks_fixed, 0);
    assert_int_equal(pic_get(&p, at, 8), entry);
    pic_finds(&p, 1, 1, 0, "reserved bits", "refcount 2, references 1");
    pic_free(&p);
}

static void test_compressed_copied(void **state)
{
    uint64_t entry;
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    entry = PIC_COMPRESSED | pic_alloc(&p, 1);
    pic_put(&p, pic_l2(&p, KiB(4)), 8, entry | PIC_COPIED);
    pic_finds(&p, 1, 0, 0, "COPIED is set on a compressed cluster", "");
    assert_int_equal(pic_check(&p, LEAKS), 0);
    assert_int_equal(pic_get(&p, pic_l2(&p, KiB(4)), 8), entry | PIC_COPIED);
    assert_int_equal(pic_check(&p, REPAIR), 0);
    assert_int_equal(pic_get(&p, pic_l2(&p, KiB(4)), 8), entry);
    expect_clean(&p, "compressed", 4096, 16);
    pic_free(&p);
}

/* A write-pointer table that is counted twice is a leak: readable, and for writing once repaired.
 */
static void test_wp_table_counted_twice(void **state)
{
    struct pic p;

    (void)state;
    fault_image(&p, 4096, 16);
    pic_set_refcount(&p, p.wp, 2);
    pic_finds(&p, 0, 1, 0, "leak", "");
    assert_int_equal(pic_open(&p, 0), 0);
    assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(p.err.text, "refcount 2"));
    assert_int_equal(pic_check(&p, LEAKS), 0);
    assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), 0);
    pic_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_fault),
        cmocka_unit_test(test_data_stays),
        cmocka_unit_test(test_write_pointers_corrected),
        cmocka_unit_test(test_unmap_beyond_write_pointers),
        cmocka_unit_test(test_width_too_narrow),
        cmocka_unit_test(test_shared_is_copied),
        cmocka_unit_test(test_shared_table_is_copied),
        cmocka_unit_test(test_copies_are_bounded),
        cmocka_unit_test(test_hidden_references),
        cmocka_unit_test(test_unknown_owners),
        cmocka_unit_test(test_no_model),
        cmocka_unit_test(test_leaks_only),
        cmocka_unit_test(test_rebuild_keeps_leaks),
        cmocka_unit_test(test_rebuild_covers_itself),
        cmocka_unit_test(test_marks_stay_while_corrupt),
        cmocka_unit_test(test_version2),
        cmocka_unit_test(test_snapshot_stays),
        cmocka_unit_test(test_snapshot_keeps_wrong_entries),
        cmocka_unit_test(test_leaks_of_a_rebuild_are_told),
        cmocka_unit_test(test_no_flag_without_its_refcount),
        cmocka_unit_test(test_compressed_copied),
        cmocka_unit_test(test_wp_table_counted_twice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
