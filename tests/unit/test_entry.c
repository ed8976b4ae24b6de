/* SPDX-License-Identifier: MIT */
/* Entries of the write-pointer table: every revision's bytes, both ways, and their detection. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "format/zone_ext.h"

#define MiB(n) ((uint64_t)(n) << 20)
#define BIT(n) (1ull << (n))

enum order { BIG, LITTLE };

/* 16 zones of 4 MiB with 3 MiB usable, 2 conventional; the last is 1 MiB + 512 bytes long. */
static struct zq_geometry geometry(uint32_t layout, enum order order, unsigned flag, bool states)
{
    return (struct zq_geometry){.device_size = MiB(61) + 512,
                                .zone_size = MiB(4),
                                .zone_bits = 22,
                                .capacity = MiB(3),
                                .nr_zones = 16,
                                .conventional = 2,
                                .table_offset = 0x30000,
                                .layout = layout,
                                .code = {order == BIG, states, flag}};
}

static void raw(uint8_t out[8], enum order order, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        out[order == BIG ? 7 - i : i] = (uint8_t)(v >> (8 * i));
}

#define START(z) ((uint64_t)(z)*MiB(4))
#define BAD      UINT64_MAX

static const struct decode {
    uint32_t zone;
    uint64_t stored; /* without flag and state */
    uint64_t wp;     /* BAD: refused */
    bool full, finished;
} decodes[] = {
    {5, START(5), START(5), false, false},
    {5, START(5) + 512, START(5) + 512, false, false},
    {5, START(5) + MiB(3) - 512, START(5) + MiB(3) - 512, false, false},
    {5, START(5) + MiB(3), START(5) + MiB(3), true, false},
    {5, START(5) + MiB(3) + 512, START(5) + MiB(3), true, false},
    {5, START(6), START(5) + MiB(3), true, true},
    {5, START(6) + 512, BAD, false, false},
    {5, START(5) - 512, BAD, false, false},
    {5, START(5) + 1, BAD, false, false},
    {5, 0, BAD, false, false},
    {5, START(7), BAD, false, false},
    {5, BIT(58), BAD, false, false},
    /* the short last zone is full at its end, whichever end was meant */
    {15, START(15) + MiB(1), START(15) + MiB(1), false, false},
    {15, START(15) + MiB(1) + 512, START(15) + MiB(1) + 512, true, false},
    {15, START(15) + MiB(3), START(15) + MiB(1) + 512, true, false},
    {15, START(16), START(15) + MiB(1) + 512, true, true},
    {15, START(16) + 512, BAD, false, false},
};

static void decode(const struct zq_geometry *g, enum order order, uint64_t stored,
                   const struct decode *d)
{
    struct zq_entry e;
    uint8_t b[8];
    int rc;

    raw(b, order, stored);
    rc = zq_entry_decode(g, d->zone, b, &e);
    if (rc != (d->wp == BAD ? ZQCOW2_ECORRUPT : 0) ||
        (rc == 0 && (e.wp != d->wp || e.full != d->full || e.finished != d->finished)))
        fail_msg("layout %u, zone %u, 0x%" PRIx64 ": %d, wp 0x%" PRIx64 " full %d finished %d",
                 g->layout, d->zone, stored, rc, e.wp, e.full, e.finished);
}

static const struct {
    uint32_t layout;
    enum order order;
    unsigned flag;
    bool states;
} codes[] = {
    {44, BIG, 63, false},   {48, BIG, 63, false}, {56, LITTLE, 59, false}, {56, BIG, 59, false},
    {7, LITTLE, 59, false}, {7, BIG, 59, false},  {3, LITTLE, 59, false},  {3, BIG, 59, false},
    {3, LITTLE, 59, true},  {3, BIG, 59, true},
};
#define NR_CODES (sizeof(codes) / sizeof(codes[0]))

static void test_decode(void **state)
{
    (void)state;
    for (size_t c = 0; c < NR_CODES; c++) {
        struct zq_geometry g =
            geometry(codes[c].layout, codes[c].order, codes[c].flag, codes[c].states);

        for (size_t i = 0; i < sizeof(decodes) / sizeof(decodes[0]); i++) {
            struct decode d = decodes[i];

            decode(&g, codes[c].order, d.stored, &d);
            for (uint64_t s = 0; g.code.state_bits && s < 16; s++) {
                struct decode with = d;
                if (s > 4 && s != 14)
                    with.wp = BAD;
                decode(&g, codes[c].order, d.stored | s << 60, &with);
            }
            d.wp = BAD; /* a sequential zone has no type flag */
            decode(&g, codes[c].order, d.stored | BIT(codes[c].flag), &d);
        }
    }
}

static void test_conventional(void **state)
{
    (void)state;
    for (size_t c = 0; c < NR_CODES; c++) {
        struct zq_geometry g =
            geometry(codes[c].layout, codes[c].order, codes[c].flag, codes[c].states);
        uint64_t flag = BIT(codes[c].flag);

        decode(&g, codes[c].order, START(1) | flag, &(struct decode){1, 0, START(1), false, false});
        decode(&g, codes[c].order, flag, &(struct decode){0, 0, 0, false, false});
        decode(&g, codes[c].order, START(1), &(struct decode){1, 0, BAD, false, false});
        decode(&g, codes[c].order, START(3) | flag, &(struct decode){1, 0, BAD, false, false});
    }
}

/* Layout v7 only: a first entry above 4 GiB was computed in 32 bits. */
static void test_wrapped(void **state)
{
    struct zq_geometry g = geometry(7, LITTLE, 59, false);
    const uint64_t start = 12 * MiB(512);

    (void)state;
    g.zone_size = g.capacity = MiB(512);
    g.zone_bits = 29;
    g.device_size = 16 * MiB(512);
    decode(&g, LITTLE, start, &(struct decode){12, 0, start, false, false});
    decode(&g, LITTLE, start - BIT(32), &(struct decode){12, 0, start, false, false});
    decode(&g, LITTLE, start - BIT(32) + 512, &(struct decode){12, 0, BAD, false, false});
    decode(&g, LITTLE, 0, &(struct decode){8, 0, BIT(32), false, false});
    decode(&g, LITTLE, 0, &(struct decode){7, 0, BAD, false, false});
    g.layout = 56;
    decode(&g, LITTLE, start - BIT(32), &(struct decode){12, 0, BAD, false, false});
    g.layout = 44;
    decode(&g, LITTLE, 0, &(struct decode){8, 0, BAD, false, false});
}

/* ---- writing ---- */

static void encode(const struct zq_geometry *g, enum order order, uint32_t zone, uint64_t wp,
                   bool finished, uint64_t want)
{
    struct zq_entry e;
    uint8_t b[8], w[8];

    raw(w, order, want);
    zq_entry_encode(g, zone, wp, finished, b);
    if (memcmp(b, w, 8))
        fail_msg("layout %u, zone %u, wp 0x%" PRIx64 ": 0x%" PRIx64 " instead of 0x%" PRIx64,
                 g->layout, zone, wp, zq_be64(b), zq_be64(w));
    assert_int_equal(zq_entry_decode(g, zone, b, &e), 0);
    if (zone >= g->conventional)
        assert_int_equal(e.wp, finished ? START(zone) + zq_geometry_capacity(g, zone) : wp);
}

static void test_encode_new(void **state)
{
    (void)state;
    for (uint32_t layout = 44; layout <= 48; layout += 4) {
        struct zq_geometry g = geometry(layout, BIG, 63, false);

        encode(&g, BIG, 1, START(1), false, START(1) | BIT(63));
        encode(&g, BIG, 5, START(5), false, START(5));
        encode(&g, BIG, 5, START(5) + 512, false, START(5) + 512);
        encode(&g, BIG, 5, START(5) + MiB(3), false, START(5) + MiB(3));
        encode(&g, BIG, 5, START(5) + 512, true, START(5) + MiB(3));
        encode(&g, BIG, 15, START(15) + MiB(1) + 512, false, START(15) + MiB(1) + 512);
        encode(&g, BIG, 15, START(15), true, START(15) + MiB(1) + 512);
    }
}

static void test_encode_old(void **state)
{
    (void)state;
    for (size_t c = 2; c < NR_CODES; c++) {
        enum order order = codes[c].order;
        struct zq_geometry g = geometry(codes[c].layout, order, 59, codes[c].states);
        bool s = codes[c].states;
        uint64_t empty = s ? BIT(60) : 0, closed = s ? 4ull << 60 : 0, full = s ? 14ull << 60 : 0;

        encode(&g, order, 1, START(1), false, START(1) | BIT(59));
        encode(&g, order, 5, START(5), false, START(5) | empty);
        encode(&g, order, 5, START(5) + 512, false, (START(5) + 512) | closed);
        encode(&g, order, 5, START(5) + MiB(3), false, (START(5) + MiB(3)) | full);
        encode(&g, order, 5, START(5) + 512, true, START(6) | full);
        encode(&g, order, 15, START(15) + MiB(1), false, (START(15) + MiB(1)) | closed);
        encode(&g, order, 15, START(15) + MiB(1) + 512, false, START(16) | full);
        encode(&g, order, 15, START(15), true, START(16) | full);
    }
}

static void test_code_new(void **state)
{
    (void)state;
    for (uint32_t layout = 0; layout <= 56; layout++) {
        struct zq_geometry g = {.layout = layout};
        bool big = layout == 44 || layout == 48;

        if (!big && layout != 7 && layout != 56)
            continue;
        zq_entry_code_new(&g);
        assert_int_equal(g.code.big_endian, big);
        assert_int_equal(g.code.flag_bit, big ? 63 : 59);
        assert_false(g.code.state_bits);
    }
}

/* ---- detection ---- */

static uint8_t table[16 * 8];

static void fill(const struct zq_geometry *g)
{
    for (uint32_t i = 0; i < g->nr_zones; i++)
        zq_entry_encode(g, i, START(i) + (i == 5 ? 512 : 0), false, table + i * 8);
}

static void test_detect(void **state)
{
    (void)state;
    for (size_t c = 0; c < NR_CODES; c++) {
        struct zq_geometry g =
            geometry(codes[c].layout, codes[c].order, codes[c].flag, codes[c].states);
        struct zq_geometry got = g;

        fill(&g);
        memset(&got.code, 0xff, sizeof(got.code));
        assert_int_equal(zq_entry_code_detect(&got, table, NULL), 0);
        if (got.code.big_endian != g.code.big_endian || got.code.flag_bit != g.code.flag_bit ||
            got.code.state_bits != g.code.state_bits)
            fail_msg("layout %u, %s, bit %u, states %d: taken for %s, bit %u, states %d", g.layout,
                     codes[c].order == BIG ? "big" : "little", codes[c].flag, codes[c].states,
                     got.code.big_endian ? "big" : "little", got.code.flag_bit,
                     got.code.state_bits);
    }
}

/* One zone at 0 says nothing: the order of preference decides. */
static void test_detect_one_zone(void **state)
{
    struct zq_geometry g = geometry(7, BIG, 59, false);

    (void)state;
    memset(table, 0, sizeof(table));
    g.nr_zones = 1;
    g.conventional = 0;
    g.device_size = MiB(4);
    assert_int_equal(zq_entry_code_detect(&g, table, NULL), 0);
    assert_false(g.code.big_endian);
    table[5] = 0x40; /* 0x400000 from the left: only big-endian stays in the zone */
    assert_int_equal(zq_entry_code_detect(&g, table, NULL), 0);
    assert_true(g.code.big_endian);
}

/* A symmetric value fits both ways; little-endian is taken. */
static void test_detect_both_fit(void **state)
{
    struct zq_geometry g = geometry(7, LITTLE, 59, false);
    const uint64_t both = 0x0000020000020000ull;

    (void)state;
    memset(table, 0, sizeof(table));
    g.nr_zones = 1;
    g.conventional = 0;
    g.zone_bits = 48;
    g.device_size = g.zone_size = g.capacity = BIT(48);
    raw(table, BIG, both);
    assert_int_equal(zq_entry_code_detect(&g, table, NULL), 0);
    assert_false(g.code.big_endian);
}

/* v4 has v3's layout without states; only the content shows which. */
static void test_detect_v4(void **state)
{
    struct zq_geometry g = geometry(3, LITTLE, 59, false);

    (void)state;
    fill(&g);
    assert_int_equal(zq_entry_code_detect(&g, table, NULL), 0);
    assert_false(g.code.state_bits);
    raw(table + 9 * 8, LITTLE, START(9) | 1ull << 60);
    assert_int_equal(zq_entry_code_detect(&g, table, NULL), 0);
    assert_true(g.code.state_bits);
    g.layout = 7; /* not there */
    assert_int_equal(zq_entry_code_detect(&g, table, NULL), ZQCOW2_ECORRUPT);
}

static void test_detect_none(void **state)
{
    struct zqcow2_error err;
    struct zq_geometry g = geometry(44, BIG, 63, false);

    (void)state;
    fill(&g);
    raw(table + 11 * 8, BIG, START(12) + 512);
    assert_int_equal(zq_entry_code_detect(&g, table, &err), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "zone 11 has 0x0000000003000200 at byte 196696"));
    g = geometry(7, LITTLE, 59, false);
    fill(&g);
    raw(table + 11 * 8, LITTLE, START(11) | BIT(59));
    assert_int_equal(zq_entry_code_detect(&g, table, &err), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "zone 11 has 0x0800000002c00000"));
    assert_false(g.code.big_endian); /* the reading that got furthest stays */
    assert_int_equal(g.code.flag_bit, 59);
    g = geometry(7, BIG, 59, false);
    fill(&g);
    raw(table + 13 * 8, BIG, 1);
    assert_int_equal(zq_entry_code_detect(&g, table, &err), ZQCOW2_ECORRUPT);
    assert_non_null(strstr(err.text, "zone 13 has 0x0000000000000001"));
    assert_true(g.code.big_endian);
    g = geometry(44, BIG, 63, false); /* a table of another layout's code */
    fill(&(struct zq_geometry){.zone_bits = 22,
                               .zone_size = MiB(4),
                               .capacity = MiB(3),
                               .nr_zones = 16,
                               .device_size = MiB(64),
                               .layout = 7,
                               .code = {false, false, 59}});
    assert_int_equal(zq_entry_code_detect(&g, table, &err), ZQCOW2_ECORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode),          cmocka_unit_test(test_conventional),
        cmocka_unit_test(test_wrapped),         cmocka_unit_test(test_encode_new),
        cmocka_unit_test(test_encode_old),      cmocka_unit_test(test_code_new),
        cmocka_unit_test(test_detect),          cmocka_unit_test(test_detect_one_zone),
        cmocka_unit_test(test_detect_both_fit), cmocka_unit_test(test_detect_v4),
        cmocka_unit_test(test_detect_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
