/* SPDX-License-Identifier: MIT */
/* What check finds: each kind of fault, made by hand, is found and distinguished. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/pic.h"

#define MiB(n) ((uint64_t)(n) << 20)
#define KiB(n) ((uint64_t)(n) << 10)

/* 16 zones of 64 KiB, 2 conventional, clusters of 4 KiB; a little data in zones 0, 3 and 5. */
static void zoned(struct pic *p)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = MiB(1);
    o.zone_size = KiB(64);
    o.conventional_zones = 2;
    o.max_active_zones = 4;
    o.cluster_size = 4096;
    pic_make(p, &o);
    pic_map(p, 0, 0xa0);
    pic_map(p, KiB(192), 0xa3);
    pic_map(p, KiB(196), 0xa4);
    pic_put(p, p->wp + 3 * 8, 8, KiB(192) + 4096 + 512);
    pic_map(p, KiB(320), 0xa5);
    pic_put(p, p->wp + 5 * 8, 8, KiB(384));
}

static void plain(struct pic *p, uint32_t cluster, uint32_t refcount_bits)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = MiB(1);
    o.cluster_size = cluster;
    o.refcount_bits = refcount_bits;
    pic_make(p, &o);
    pic_map(p, 0, 1);
    pic_map(p, cluster, 2);
}

static void test_clean(void **state)
{
    struct pic p;

    (void)state;
    zoned(&p);
    pic_finds(&p, 0, 0, 0, "", "");
    assert_int_equal(p.res.total_clusters, 256);
    assert_int_equal(p.res.allocated_clusters, 4);
    assert_int_equal(p.res.fragmented_clusters, 0); /* they follow each other, with holes between */
    assert_int_equal(p.res.image_end_offset, pic_length(&p));
    pic_free(&p);
}

static void test_widths(void **state)
{
    (void)state;
    for (uint32_t bits = 1; bits <= 64; bits *= 2) {
        for (uint32_t cluster = 512; cluster <= 65536; cluster *= 128) {
            struct pic p;
            uint64_t host;

            plain(&p, cluster, bits);
            pic_finds(&p, 0, 0, 0, "", "");
            host = pic_alloc(&p, 3);
            pic_finds(&p, 0, 3, 0, "leak", "(3 clusters): refcount 1, references 0");
            pic_set_refcount(&p, host, 0);
            pic_finds(&p, 0, 2, 0, "leak", "(2 clusters)");
            pic_free(&p);
        }
    }
}

/* ---- refcounts ---- */

static void test_refcounts(void **state)
{
    struct pic p;
    uint64_t host;

    (void)state;
    plain(&p, 4096, 16);
    host = pic_map(&p, KiB(64), 3);
    pic_set_refcount(&p, host, 0);
    pic_finds(&p, 1, 0, 0, "refcount too low", "refcount 0, references 1");
    pic_set_refcount(&p, host, 2);
    pic_finds(&p, 1, 1, 0, "refcount 2, references 1", "COPIED is set");
    pic_set_refcount(&p, host, 1);
    pic_set_refcount(&p, 0, 0);
    pic_finds(&p, 1, 0, 0, "refcount too low at 0x0-0xfff", "");
    pic_set_refcount(&p, 0, 1);
    pic_set_refcount(&p, p.l1, 3);
    pic_finds(&p, 0, 1, 0, "refcount 3, references 1", "");
    pic_free(&p);
}

static void test_refcounts_beyond_file(void **state)
{
    struct pic p;

    (void)state;
    plain(&p, 4096, 16);
    pic_set_refcount(&p, MiB(6), 1);
    pic_finds(&p, 0, 1, 0, "leak at 0x600000-0x600fff", "");
    pic_free(&p);
}

static void test_shared_cluster(void **state)
{
    struct pic p;
    uint64_t host;

    (void)state;
    plain(&p, 4096, 16);
    host = pic_map(&p, KiB(64), 3);
    pic_put(&p, pic_l2(&p, KiB(68)), 8, host | PIC_COPIED);
    pic_finds(&p, 3, 0, 0, "refcount 1, references 2", "although the refcount should be above 1");
    pic_set_refcount(&p, host, 2); /* now sharing is right, COPIED is not */
    pic_finds(&p, 2, 0, 0, "COPIED is set although the refcount is not 1", "");
    pic_put(&p, pic_l2(&p, KiB(64)), 8, host);
    pic_put(&p, pic_l2(&p, KiB(68)), 8, host);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

static void test_refcount_table(void **state)
{
    struct pic p;
    uint64_t block;

    (void)state;
    plain(&p, 4096, 16);
    block = pic_get(&p, p.rt, 8);
    pic_put(&p, p.rt + 8, 8, block); /* the same block twice */
    pic_finds(&p, 2, 0, 0, "refcount block", "overlaps the refcount table or block");
    pic_put(&p, p.rt + 8, 8, block | 1);
    pic_finds(&p, 1, 0, 0, "refcount table entry 1 at 0x1008", "reserved");
    pic_put(&p, p.rt + 8, 8, block + 512);
    pic_finds(&p, 1, 0, 0, "refcount table entry 1 at 0x1008", "aligned");
    pic_put(&p, p.rt + 8, 8, MiB(512));
    pic_finds(&p, 1, 0, 0, "refcount table entry 1", "past the end of the file");
    pic_put(&p, p.rt + 8, 8, 0xfffffffffffff000);
    pic_finds(&p, 1, 0, 0, "refcount table entry 1", "reserved bits are set");
    pic_put(&p, p.rt + 8, 8, 0);
    pic_put(&p, p.rt, 8, 0); /* no refcounts at all */
    pic_finds(&p, 6, 0, 0, "refcount 0, references 1", "(2 clusters)");
    pic_free(&p);
}

static void test_block_on_l1(void **state)
{
    struct pic p;

    (void)state;
    plain(&p, 4096, 16);
    pic_put(&p, p.rt, 8, p.l1);
    assert_int_equal(pic_check(&p, 0), 0);
    assert_true(p.res.corruptions > 2);
    assert_non_null(strstr(p.found, "refcount block at 0x3000 overlaps the L1 table at 0x3000"));
    pic_free(&p);
}

/* ---- L1 and L2 ---- */

static void test_l1_entries(void **state)
{
    static const struct {
        uint64_t entry;
        const char *text;
    } cases[] = {
        {1ull << 56, "reserved"},         {PIC_COPIED, "without a table"},
        {0x4200 | PIC_COPIED, "aligned"}, {MiB(9), "past the end"},
        {0x00fffffffffff000, "past the"}, {0x4200 | 2, "aligned"},
    };
    struct pic p;
    uint64_t at;

    (void)state;
    zoned(&p);
    at = pic_get(&p, p.l1, 8);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        pic_put(&p, p.l1, 8, cases[i].entry);
        assert_int_equal(pic_check(&p, 0), 0);
        if (p.res.corruptions != 1 || !strstr(p.found, "corruption: L1 entry 0 at 0x4000") ||
            !strstr(p.found, cases[i].text))
            fail_msg("entry 0x%llx: %s", (unsigned long long)cases[i].entry, p.found);
    }
    pic_put(&p, p.l1, 8, at | 2); /* the table is the image's all the same */
    pic_finds(&p, 1, 0, 0, "corruption: L1 entry 0 at 0x4000", "reserved bits are set");
    pic_put(&p, p.l1, 8, at);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

static void test_l1_points_into_metadata(void **state)
{
    struct pic p;

    (void)state;
    zoned(&p);
    pic_put(&p, p.l1, 8, p.l1 | PIC_COPIED);
    assert_int_equal(pic_check(&p, 0), 0);
    assert_non_null(
        strstr(p.found, "L1 entry 0 at 0x4000 is 0x8000000000004000: points into the L1"));
    pic_put(&p, p.l1, 8, p.wp | PIC_COPIED);
    assert_int_equal(pic_check(&p, 0), 0);
    assert_non_null(strstr(p.found, "points into the write-pointer table"));
    pic_free(&p);
}

static void test_l2_entries(void **state)
{
    static const struct {
        uint64_t entry;
        const char *text;
        uint64_t leaks;
    } cases[] = {
        {1ull << 56, "reserved", 0},
        {0x8000 | 2, "reserved", 0},
        {PIC_COPIED, "without a cluster", 0},
        {0x8200 | PIC_COPIED, "aligned", 0},
        {MiB(9) | PIC_COPIED, "past the end", 0},
        {PIC_COPIED | 0x1000, "points into the refcount table", 0},
        {PIC_COPIED | 0x2000, "points into the refcount table or block", 0},
        {PIC_COPIED | 0x3000, "points into the write-pointer table", 0},
        {PIC_COPIED | 0x4000, "points into the L1 table", 0},
        {PIC_COPIED | 0x5000, "points into the L2 table", 0},
        {PIC_COMPRESSED | MiB(9), "compressed data runs past the end", 0},
        {PIC_COMPRESSED | 0x3ull << 58 | 0x9e00, "compressed data runs past the end", 0},
    };
    struct pic p;

    (void)state;
    zoned(&p);
    assert_int_equal(pic_l2(&p, 0), 0x5000);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        pic_put(&p, pic_l2(&p, KiB(4)), 8, cases[i].entry);
        assert_int_equal(pic_check(&p, 0), 0);
        if (p.res.corruptions < 1 || p.res.corruptions > 4 || /* count and flags, too */
            !strstr(p.found, "corruption: L2 entry 1 at 0x5008") || !strstr(p.found, cases[i].text))
            fail_msg("entry 0x%llx: %s", (unsigned long long)cases[i].entry, p.found);
    }
    pic_free(&p);
}

/* Version 2 knows no zero flag. */
static void test_zero_flag(void **state)
{
    struct pic p;

    (void)state;
    plain(&p, 65536, 16);
    pic_put(&p, pic_l2(&p, KiB(256)), 8, 1);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_put(&p, pic_l2(&p, 0), 8, pic_get(&p, pic_l2(&p, 0), 8) | 1);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_put(&p, 4, 4, 2);
    pic_zero(&p, 72, 1024);
    assert_int_equal(pic_check(&p, 0), 0);
    assert_non_null(strstr(p.found, "L2 entry 0"));
    assert_non_null(strstr(p.found, "L2 entry 4 at"));
    assert_non_null(strstr(p.found, "reserved"));
    pic_free(&p);
}

/* ---- fragments ---- */

/* As qemu-img counts them: what does not follow the cluster before it, in each L2 table anew. */
static void test_fragments(void **state)
{
    struct pic p;

    (void)state;
    plain(&p, 512, 16);
    pic_map(&p, KiB(2), 3); /* 0 and 1, 4, and 3 behind these: 3 and 4 stand apart */
    pic_map(&p, 512 * 3, 4);
    pic_finds(&p, 0, 0, 0, "", "");
    assert_int_equal(p.res.fragmented_clusters, 2);
    pic_map(&p, KiB(32), 5); /* the first of another table */
    pic_finds(&p, 0, 0, 0, "", "");
    assert_int_equal(p.res.fragmented_clusters, 2);
    pic_free(&p);
}

/* ---- compressed ---- */

static void test_compressed(void **state)
{
    struct pic p;
    uint64_t host;

    (void)state;
    plain(&p, 4096, 16);
    host = pic_alloc(&p, 2);
    /* x = 58: from the last sector of one cluster, 2 more, into the next */
    pic_put(&p, pic_l2(&p, KiB(64)), 8, PIC_COMPRESSED | 2ull << 58 | (host + 4096 - 500));
    pic_finds(&p, 0, 0, 0, "", "");
    assert_int_equal(p.res.fragmented_clusters, 1);
    assert_int_equal(p.res.compressed_clusters, 1);
    /* its neighbour shares the second cluster */
    pic_put(&p, pic_l2(&p, KiB(68)), 8, PIC_COMPRESSED | 1ull << 58 | (host + 4096 + 600));
    pic_finds(&p, 1, 0, 0, "refcount 1, references 2", "");
    pic_set_refcount(&p, host + 4096, 2);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_put(&p, pic_l2(&p, KiB(68)), 8,
            PIC_COPIED | PIC_COMPRESSED | 1ull << 58 | (host + 4096 + 600));
    pic_finds(&p, 1, 0, 0, "COPIED is set", "");
    pic_free(&p);
}

/* The last sector need not be there in full. */
static void test_compressed_at_the_end(void **state)
{
    struct pic p;
    uint64_t host;

    (void)state;
    plain(&p, 4096, 16);
    host = pic_alloc(&p, 1);
    pic_put(&p, pic_l2(&p, KiB(64)), 8, PIC_COMPRESSED | 1ull << 58 | host);
    pic_cut(&p, host + 513);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_cut(&p, host + 512);
    pic_finds(&p, 1, 1, 0, "past the end of the file", "");
    pic_free(&p);
}

static void test_compressed_beyond_wp(void **state)
{
    struct pic p;
    uint64_t host;

    (void)state;
    zoned(&p);
    host = pic_alloc(&p, 1);
    pic_put(&p, pic_l2(&p, KiB(256)), 8, PIC_COMPRESSED | host); /* zone 4 is empty */
    pic_finds(&p, 0, 0, 0, "", "");                              /* a reset leaves this */
    pic_put(&p, p.wp + 4 * 8, 8, KiB(260));
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

/* ---- zones ---- */

static void test_write_pointers(void **state)
{
    static const uint64_t wrong[] = {KiB(448) + 1,          KiB(448) + 1024, 0,
                                     KiB(384) | 1ull << 63, UINT64_MAX,      KiB(384) - 512};
    struct pic p;

    (void)state;
    zoned(&p);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        pic_put(&p, p.wp + 6 * 8, 8, wrong[i]);
        pic_finds(&p, 1, 0, 0, "write-pointer table: zone 6 at 0x3030",
                  "not a position in this zone");
    }
    pic_put(&p, p.wp + 6 * 8, 8, KiB(384));
    pic_put(&p, p.wp + 8, 8, KiB(64)); /* a conventional zone without its flag */
    pic_finds(&p, 1, 0, 0, "write-pointer table: zone 1", "");
    pic_free(&p);
}

static void test_zone_warnings(void **state)
{
    struct pic p;

    (void)state;
    zoned(&p);
    pic_put(&p, p.wp + 7 * 8, 8, KiB(448) + 512);
    pic_finds(&p, 0, 0, 1, "zone 7 has nothing mapped below its write pointer 0x70200", "");
    pic_put(&p, p.wp + 7 * 8, 8, KiB(512)); /* a finished zone looks like this */
    pic_finds(&p, 0, 0, 0, "", "");
    pic_map(&p, KiB(832), 1); /* mapped ahead of the write pointer: nothing to say */
    pic_finds(&p, 0, 0, 0, "", "");
    for (uint64_t z = 8; z < 12; z++) {
        pic_finds(&p, 0, 0, 0, "", ""); /* zone 3 and as many more as there may be */
        pic_map(&p, KiB(64) * z, 1);
        pic_put(&p, p.wp + z * 8, 8, KiB(64) * z + 512);
    }
    pic_finds(&p, 0, 0, 1, "5 zones are active, max_active_zones is 4", "");
    pic_free(&p);
}

static void test_marks(void **state)
{
    struct pic p;

    (void)state;
    zoned(&p);
    pic_put(&p, p.mark, 1, 1);
    pic_finds(&p, 0, 0, 1, "not closed cleanly", "");
    pic_put(&p, p.mark, 1, 0);
    pic_put(&p, 72, 8, 0x21);
    pic_finds(&p, 0, 0, 1, "not closed cleanly", "");
    pic_put(&p, 72, 8, 0x22);
    pic_finds(&p, 0, 0, 1, "marked corrupt", "");
    pic_put(&p, 72, 8, 0x20);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

/* N9: a crash may leave flag and refcount apart; with one reference recovery repairs that. */
static void test_flags_under_the_mark(void **state)
{
    uint64_t host, other, entry;
    struct pic p;

    (void)state;
    zoned(&p);
    host = pic_map(&p, KiB(12), 1);
    entry = pic_l2(&p, KiB(12));
    pic_put(&p, entry, 8, host);
    pic_finds(&p, 1, 0, 0, "COPIED is clear although the refcount is 1", "");
    pic_put(&p, p.mark, 1, 1);
    pic_finds(&p, 0, 1, 1, "leak", "COPIED is clear although the refcount is 1");
    assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), 0);
    assert_int_equal(pic_get(&p, entry, 8), host | PIC_COPIED);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_put(&p, p.mark, 1, 1);
    pic_set_refcount(&p, host, 2); /* a snapshot that is gone; nobody else refers to it */
    pic_finds(&p, 0, 2, 1, "refcount 2, references 1",
              "COPIED is set although the refcount is not 1");
    assert_int_equal(pic_open(&p, ZQCOW2_OPEN_RDWR), 0);
    pic_finds(&p, 0, 0, 0, "", "");
    other = pic_l2(&p, KiB(16));
    pic_put(&p, other, 8, host | PIC_COPIED);
    pic_set_refcount(&p, host, 2);
    pic_put(&p, p.mark, 1, 1);
    pic_finds(&p, 2, 0, 1, "COPIED is set although the refcount is not 1", "");
    pic_free(&p);
}

static void test_wp_table_counts(void **state)
{
    struct pic p;

    (void)state;
    zoned(&p);
    pic_set_refcount(&p, p.wp, 0);
    pic_finds(&p, 1, 0, 0, "refcount too low at 0x3000-0x3fff", "");
    pic_set_refcount(&p, p.wp, 1);
    pic_put(&p, p.zoned + 24, 8, 0x4000); /* on the L1 table */
    assert_int_equal(pic_check(&p, 0), 0);
    assert_non_null(strstr(p.found, "L1 table at 0x4000 overlaps the write-pointer table"));
    pic_free(&p);
}

/* ---- work is bounded ---- */

/* 4,096 entries of the L1 point to one L2 table, whose entries point to one cluster. */
static void test_fan_in(void **state)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct pic p;
    uint64_t l2, host;

    (void)state;
    o.virtual_size = 1ull << 46;
    o.cluster_size = 2u << 20;
    o.refcount_bits = 64;
    pic_make(&p, &o);
    l2 = pic_alloc(&p, 1);
    host = pic_alloc(&p, 1);
    for (uint64_t i = 0; i < p.l1_entries; i++)
        pic_put(&p, p.l1 + i * 8, 8, l2);
    for (uint64_t i = 0; i < o.cluster_size / 8; i += 64)
        pic_put(&p, l2 + i * 8, 8, host);
    pic_set_refcount(&p, l2, p.l1_entries);
    pic_set_refcount(&p, host, (uint64_t)p.l1_entries * o.cluster_size / 8 / 64);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

static void put_array(struct pic *p, uint64_t off, uint64_t n, uint64_t entry)
{
    uint8_t *b = malloc(n * 8);

    assert_non_null(b);
    for (uint64_t i = 0; i < n * 8; i++)
        b[i] = (uint8_t)(entry >> (56 - i % 8 * 8));
    assert_int_equal(zqcow2_backend_write(p->be, b, n * 8, off), 0);
    free(b);
}

/* 2^14 times 2^18 ways to one cluster: the count stays at its end and does not start anew. */
static void test_count_saturates(void **state)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct pic p;
    uint64_t l2, host;

    (void)state;
    o.virtual_size = 1ull << 53;
    o.cluster_size = 2u << 20;
    o.refcount_bits = 64;
    pic_make(&p, &o);
    l2 = pic_alloc(&p, 1);
    host = pic_alloc(&p, 1);
    assert_int_equal(p.l1_entries, 16384);
    put_array(&p, p.l1, 16384, l2);
    put_array(&p, l2, 262144, host);
    pic_set_refcount(&p, l2, 16384);
    pic_set_refcount(&p, host, 5);
    pic_finds(&p, 1, 0, 0, "refcount 5, references 4294967295", "");
    pic_free(&p);
}

static void test_not_an_image(void **state)
{
    struct pic p;

    (void)state;
    plain(&p, 4096, 16);
    pic_put(&p, 0, 4, 0);
    assert_int_equal(pic_check(&p, 0), ZQCOW2_ENOTQCOW2);
    assert_int_equal(p.err.code, ZQCOW2_ENOTQCOW2);
    pic_cut(&p, 0);
    assert_int_equal(pic_check(&p, 0), ZQCOW2_ENOTQCOW2);
    pic_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clean),
        cmocka_unit_test(test_widths),
        cmocka_unit_test(test_refcounts),
        cmocka_unit_test(test_refcounts_beyond_file),
        cmocka_unit_test(test_shared_cluster),
        cmocka_unit_test(test_refcount_table),
        cmocka_unit_test(test_block_on_l1),
        cmocka_unit_test(test_l1_entries),
        cmocka_unit_test(test_l1_points_into_metadata),
        cmocka_unit_test(test_l2_entries),
        cmocka_unit_test(test_zero_flag),
        cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_compressed),
        cmocka_unit_test(test_compressed_at_the_end),
        cmocka_unit_test(test_compressed_beyond_wp),
        cmocka_unit_test(test_write_pointers),
        cmocka_unit_test(test_zone_warnings),
        cmocka_unit_test(test_marks),
        cmocka_unit_test(test_flags_under_the_mark),
        cmocka_unit_test(test_wp_table_counts),
        cmocka_unit_test(test_fan_in),
        cmocka_unit_test(test_count_saturates),
        cmocka_unit_test(test_not_an_image),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
