/* SPDX-License-Identifier: MIT */
/* Entries of L1, L2, refcount and bitmap tables: every bit is in the value, or refused. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "format/l2entry.h"

#define BIT(n) ((uint64_t)1 << (n))
#define HOST   ((uint64_t)5 << 16)

/* No offset is past the end of this file: what is refused is refused for its bits. */
static const struct zq_bounds huge = {{9, 3, false, false}, UINT64_MAX};
static const struct zq_bounds small = {{16, 3, false, false}, 1 << 20};

static bool in_offset(unsigned bit)
{
    return bit >= 9 && bit < 56;
}

static void expect(const char *table, unsigned bit, bool ok, const char *why)
{
    if (ok != !why)
        fail_msg("%s entry, bit %u: %s", table, bit, why ? why : "taken");
}

/* An entry is read where it lies in a table. */
static const char *l2_read(const struct zq_bounds *b, uint64_t raw, struct zq_l2_entry *e)
{
    uint8_t table[8];

    for (int i = 0; i < 8; i++)
        table[i] = (uint8_t)(raw >> (56 - 8 * i));
    return zq_l2_read(b, table, e);
}

static void test_every_bit(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t raw = HOST ^ BIT(bit), host;
        struct zq_bounds v2 = huge;
        struct zq_l2_entry e;
        bool ones;

        v2.form.version = 2;
        expect("L1", bit, in_offset(bit) || bit == 63, zq_l1_read(&huge, raw, &host));
        assert_true(host == (raw & ~BIT(63)) || !in_offset(bit));
        expect("refcount table", bit, in_offset(bit), zq_rt_read(&huge, raw, &host));
        assert_true(host == raw); /* nothing is masked */
        expect("bitmap", bit, in_offset(bit), zq_bitmap_read(&huge, raw, &host, &ones));
        if (bit == 62)
            continue; /* compressed */
        expect("L2", bit, in_offset(bit) || bit == 63 || bit == 0, l2_read(&huge, raw, &e));
        assert_int_equal(e.type, bit == 0 ? ZQ_EXT_ZERO : ZQ_EXT_DATA);
        assert_true(e.copied == (bit == 63));
        expect("L2 of version 2", bit, in_offset(bit) || bit == 63, l2_read(&v2, raw, &e));
    }
}

static void test_places(void **state)
{
    struct zq_l2_entry e;
    uint64_t host;
    bool ones;

    (void)state;
    assert_null(zq_l1_read(&small, 0xf0000 | BIT(63), &host));
    assert_int_equal(host, 0xf0000);
    assert_non_null(zq_l1_read(&small, 0x100000, &host));
    assert_non_null(zq_l1_read(&small, 0x10200, &host));
    assert_non_null(zq_l1_read(&small, BIT(63), &host));
    assert_non_null(zq_rt_read(&small, 0x100000, &host));
    assert_non_null(zq_rt_read(&small, 0x10200, &host));
    assert_non_null(l2_read(&small, 0x100000, &e));
    assert_non_null(l2_read(&small, 0x10200, &e));
    assert_non_null(l2_read(&small, BIT(63), &e));
    assert_non_null(l2_read(&small, BIT(63) | 1, &e));
    assert_null(l2_read(&small, 1, &e));
    assert_true(e.type == ZQ_EXT_ZERO && !e.len);
    assert_null(l2_read(&small, 0x10001, &e));
    assert_true(e.type == ZQ_EXT_ZERO && e.len == 65536);
    assert_null(zq_bitmap_read(&small, 1, &host, &ones));
    assert_true(ones && !host);
    assert_non_null(zq_bitmap_read(&small, 0x10001, &host, &ones));
    assert_non_null(zq_bitmap_read(&small, 0x100000, &host, &ones));
}

static bool has_place(bool external, uint64_t raw)
{
    const struct zq_form f = {16, 3, false, external};
    uint8_t entry[8];

    for (int i = 0; i < 8; i++)
        entry[i] = (uint8_t)(raw >> (56 - 8 * i));
    return zq_l2_has_place(&f, entry);
}

/* Without a data file the flag says whose a cluster is; with one, each is the disk's own. */
static void test_own_place(void **state)
{
    (void)state;
    assert_true(has_place(false, BIT(63) | HOST));
    assert_true(has_place(false, BIT(63) | HOST | 1));
    assert_false(has_place(false, HOST));
    assert_false(has_place(false, HOST | 1));
    assert_false(has_place(false, BIT(63) | BIT(62) | HOST));
    assert_true(has_place(true, HOST));
    assert_true(has_place(true, BIT(63) | HOST | 1));
    assert_false(has_place(true, BIT(63) | 1)); /* at offset 0 */
    assert_false(has_place(true, 1));
}

/* Clusters of 64 KiB: bits 0 to 53 are the offset, 54 to 61 the number of further sectors. */
static void test_compressed(void **state)
{
    struct zq_l2_entry e;

    (void)state;
    assert_null(l2_read(&small, BIT(62) | 2ull << 54 | 0x10123, &e));
    assert_true(e.type == ZQ_EXT_COMPRESSED && !e.copied);
    assert_int_equal(e.host, 0x10123);
    assert_int_equal(e.len, 3 * 512 - 0x123);
    assert_null(l2_read(&small, BIT(63) | BIT(62) | 2ull << 54 | 0x10123, &e));
    assert_true(e.type == ZQ_EXT_COMPRESSED && !e.copied);
    assert_null(l2_read(&small, BIT(62) | (0x100000 - 1), &e));
    assert_non_null(l2_read(&small, BIT(62) | 1ull << 54 | (0x100000 - 1), &e));
    assert_non_null(l2_read(&small, BIT(62) | 0x100000, &e));
    /* beyond 2^56 no file reaches, whatever its length says */
    assert_non_null(l2_read(&huge, BIT(62) | BIT(57), &e));
}

static void range(uint64_t raw, uint32_t bits, uint64_t want_host, uint64_t want_len)
{
    const struct zq_bounds b = {{bits, 3, false, false}, UINT64_MAX};
    struct zq_l2_entry e;

    (void)l2_read(&b, raw, &e); /* a place that no file has is said all the same */
    if (e.type != ZQ_EXT_COMPRESSED || e.host != want_host || e.len != want_len)
        fail_msg("entry 0x%" PRIx64 ", cluster_bits %u: 0x%" PRIx64 " + %" PRIu64, raw, bits,
                 e.host, e.len);
}

static void test_range(void **state)
{
    const uint64_t c = 1ull << 62;

    (void)state;
    range(c | 0x50000, 16, 0x50000, 512);
    range(c | 1ull << 54 | 0x50000, 16, 0x50000, 1024);      /* x = 54: one sector more */
    range(c | 0xffull << 54 | 0x50000, 16, 0x50000, 131072); /* all there can be */
    range(c | 2ull << 54 | 0x501ff, 16, 0x501ff, 3 * 512 - 511);
    range(c | 1ull << 61 | 0x1000, 9, 0x1000, 1024); /* x = 61 */
    range(c | 1ull << 60 | 0x1000, 9, 1ull << 60 | 0x1000, 512);
    range(c | 0x1fffull << 49 | 0x200000, 21, 0x200000, 4ull << 20); /* x = 49 */
    range(0xc000000000000000ull, 16, 0, 512);                        /* bit 63 belongs to neither */
}

/* ---- stretches, in tables of clusters of 64 KiB ---- */

#define C       65536ull
#define OWN(n)  (BIT(63) | (n)*C)
#define N(list) (sizeof(list) / sizeof((list)[0]))

static void stretch(const char *what, const uint64_t *entries, size_t n, uint64_t skew,
                    uint64_t max, enum zq_extent_type type, uint64_t bytes)
{
    const struct zq_bounds b = {{16, 3, false, false}, 100 * C};
    struct zq_l2_entry first;
    struct zq_l2_stretch s = {.first = &first};
    uint8_t table[64];
    const char *why;

    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < 8; k++)
            table[i * 8 + (size_t)k] = (uint8_t)(entries[i] >> (56 - 8 * k));
    }
    why = zq_l2_stretch(&b, table, skew, max, &s);
    if (why || s.first->type != type || s.before != skew || s.bytes != bytes)
        fail_msg("%s: %s, type %d, %" PRIu64 " before, %" PRIu64 " bytes", what,
                 why ? why : "taken", s.first->type, s.before, s.bytes);
}

static void test_stretch(void **state)
{
    const uint64_t run[] = {OWN(5), OWN(6), OWN(7), OWN(9)};
    const uint64_t shared[] = {OWN(5), 6 * C}, behind[] = {OWN(98), OWN(99), OWN(100)};
    const uint64_t holes[] = {0, 0, 1, 1}, packed[] = {BIT(62) | C, BIT(62) | C};
    const uint64_t zeros[] = {OWN(5) | 1, OWN(6) | 1, 1}, data[] = {OWN(5), OWN(6) | 1};
    const uint64_t last[] = {OWN(99) | 1, OWN(100) | 1}, twice[] = {OWN(5), OWN(5)};
    const uint64_t odd[] = {OWN(5), OWN(6) | 2};

    (void)state;
    stretch("a run", run, N(run), 0, 4 * C, ZQ_EXT_DATA, 3 * C);
    stretch("the middle of a run", run, N(run), 512, 2 * C, ZQ_EXT_DATA, 2 * C);
    stretch("part of a cluster", run, N(run), 512, 512, ZQ_EXT_DATA, 512);
    stretch("up to what is shared", shared, N(shared), 0, 2 * C, ZQ_EXT_DATA, C);
    stretch("up to the file's end", behind, N(behind), 0, 3 * C, ZQ_EXT_DATA, 2 * C);
    stretch("up to zeros", data, N(data), 0, 2 * C, ZQ_EXT_DATA, C);
    stretch("holes", holes, N(holes), 1024, 4 * C - 1024, ZQ_EXT_UNALLOC, 2 * C - 1024);
    stretch("zeros without clusters", holes + 2, 2, 0, 2 * C, ZQ_EXT_ZERO, 2 * C);
    stretch("zeros with clusters", zeros, N(zeros), 0, 3 * C, ZQ_EXT_ZERO, 2 * C);
    stretch("zeros up to the file's end", last, N(last), 0, 2 * C, ZQ_EXT_ZERO, C);
    stretch("up to zeros without a cluster", zeros + 1, 2, 0, 2 * C, ZQ_EXT_ZERO, C);
    stretch("a cluster named twice", twice, N(twice), 0, 2 * C, ZQ_EXT_DATA, C);
    stretch("up to what is no entry", odd, N(odd), 0, 2 * C, ZQ_EXT_DATA, C);
    stretch("one compressed cluster", packed, N(packed), 512, C, ZQ_EXT_COMPRESSED, C - 512);
}

/* ---- written ---- */

static void test_written(void **state)
{
    const struct zq_bounds b = {{16, 3, false, false}, 100 * C};
    uint8_t table[48] = {0};
    struct zq_l2_entry e;

    (void)state;
    assert_int_equal(zq_l2_count_empty(&b.form, table, 3), 3);
    zq_l2_link(&b.form, table + 8, 7 * C, 2);
    assert_int_equal(zq_l2_count_empty(&b.form, table, 3), 1);
    assert_memory_equal(table + 8, "\x80\0\0\0\0\7\0\0\x80\0\0\0\0\x8\0\0", 16);
    zq_l2_set_own(&b.form, table + 8, false);
    assert_memory_equal(table + 8, "\0\0\0\0\0\7\0\0", 8);
    table[15] = 1; /* zeros, with a cluster */
    zq_l2_set_host(&b.form, table + 8, 9 * C);
    assert_memory_equal(table + 8, "\x80\0\0\0\0\x9\0\1", 8);
    assert_null(zq_l2_read(&b, table + 8, &e));
    assert_true(e.type == ZQ_EXT_ZERO && e.copied && e.host == 9 * C && e.len == C);
    zq_l2_clear(&b.form, table + 16);
    assert_true(zq_l2_is_empty(&b.form, table + 16));
}

/* ---- 128 bits: 32 subclusters of 2 KiB ---- */

#define S    (C / 32)
#define Z(n) BIT(32 + (n))

static const struct zq_bounds wide = {{16, 3, true, false}, 100 * C};

/* Entries as pairs of words. */
static void put_wide(uint8_t *table, const uint64_t *words, size_t n)
{
    for (size_t i = 0; i < 2 * n; i++) {
        for (int k = 0; k < 8; k++)
            table[i * 8 + (size_t)k] = (uint8_t)(words[i] >> (56 - 8 * k));
    }
}

static void wide_is(const char *what, uint64_t word, uint64_t bitmap, const char *why)
{
    const uint64_t words[2] = {word, bitmap};
    uint8_t entry[16];
    struct zq_l2_entry e;
    const char *got;

    put_wide(entry, words, 1);
    got = zq_l2_read(&wide, entry, &e);
    if (!got != !why || (why && !strstr(got, why)))
        fail_msg("%s: %s", what, got ? got : "taken");
}

static void test_wide_judged(void **state)
{
    (void)state;
    wide_is("empty", 0, 0, NULL);
    wide_is("zeros without a cluster", 0, Z(0) | Z(31), NULL);
    wide_is("data and zeros", OWN(5), BIT(0) | BIT(31) | Z(1), NULL);
    wide_is("a cluster of nothing", OWN(5), 0, NULL);
    wide_is("both of one", OWN(5), BIT(7) | Z(7), "both allocated and zero");
    wide_is("both of the last", OWN(5), BIT(31) | Z(31), "both allocated and zero");
    wide_is("data without a cluster", 0, BIT(3), "allocated without a cluster");
    wide_is("the old flag for zeros", OWN(5) | 1, BIT(0), "reserved");
    wide_is("compressed", BIT(62) | C, 0, NULL);
    wide_is("compressed, with data", BIT(62) | C, BIT(0), "compressed");
    wide_is("compressed, with zeros", BIT(62) | C, Z(31), "compressed");
    wide_is("behind the file's end", OWN(100), BIT(0), "past the end");
}

static void wide_stretch(const char *what, const uint64_t *words, size_t n, uint64_t skew,
                         uint64_t max, enum zq_extent_type type, uint64_t before, uint64_t bytes)
{
    uint8_t table[128];
    struct zq_l2_entry first;
    struct zq_l2_stretch s = {.first = &first};
    const char *why;

    put_wide(table, words, n);
    why = zq_l2_stretch(&wide, table, skew, max, &s);
    if (why || s.first->type != type || s.before != before || s.bytes != bytes)
        fail_msg("%s: %s, type %d, %" PRIu64 " before, %" PRIu64 " bytes", what,
                 why ? why : "taken", s.first->type, s.before, s.bytes);
}

static void test_wide_stretch(void **state)
{
    const uint64_t all = 0xffffffff, low = 0xffff; /* all subclusters, the first 16 */
    const uint64_t mixed[] = {OWN(5), BIT(2) | BIT(3) | Z(4)};
    const uint64_t run[] = {OWN(5), all & ~BIT(0), OWN(6), all, OWN(7), low};
    const uint64_t apart[] = {OWN(5), all, OWN(7), all}, shared[] = {OWN(5), all, 6 * C, all};
    const uint64_t zeros[] = {0, all << 32, 0, low << 32}, own_zeros[] = {OWN(5), Z(31), 0, Z(0)};
    const uint64_t holes[] = {0, Z(0), 0, 0, 0, 0, 0, Z(31)}, packed[] = {BIT(62) | C, 0, 0, 0};

    (void)state;
    wide_stretch("below", mixed, 1, 0, C, ZQ_EXT_UNALLOC, 0, 2 * S);
    wide_stretch("two of data", mixed, 1, 3 * S + 512, C, ZQ_EXT_DATA, S + 512, S - 512);
    wide_stretch("one of zeros", mixed, 1, 4 * S, C, ZQ_EXT_ZERO, 0, S);
    wide_stretch("the rest", mixed, 1, 5 * S, C, ZQ_EXT_UNALLOC, 0, 27 * S);
    wide_stretch("some of it", mixed, 1, 5 * S, S, ZQ_EXT_UNALLOC, 0, S);
    wide_stretch("data, on and on", run, 3, S, 3 * C, ZQ_EXT_DATA, 0, 2 * C + C / 2 - S);
    wide_stretch("up to another place", apart, 2, 0, 2 * C, ZQ_EXT_DATA, 0, C);
    wide_stretch("up to what is shared", shared, 2, 0, 2 * C, ZQ_EXT_DATA, 0, C);
    wide_stretch("zeros, on and on", zeros, 2, S, 2 * C, ZQ_EXT_ZERO, S, C + C / 2 - S);
    wide_stretch("zeros of a cluster", own_zeros, 2, 31 * S, 2 * C, ZQ_EXT_ZERO, 0, S);
    wide_stretch("holes, whole clusters", holes, 4, S, 4 * C, ZQ_EXT_UNALLOC, 0, 3 * C - S);
    wide_stretch("compressed", packed, 2, 512, 2 * C, ZQ_EXT_COMPRESSED, 512, C - 512);
}

static void bytes_are(const uint8_t *entry, uint64_t word, uint64_t bitmap)
{
    const uint64_t words[2] = {word, bitmap};
    uint8_t want[16];

    put_wide(want, words, 1);
    assert_memory_equal(entry, want, sizeof(want));
}

static void test_wide_written(void **state)
{
    const uint64_t packed[2] = {BIT(62) | C, 0};
    uint8_t table[48] = {0};
    struct zq_l2_entry e;

    (void)state;
    assert_int_equal(zq_l2_count_empty(&wide.form, table, 3), 3);
    zq_l2_unlink_part(&wide.form, table + 16, 2 * S, 4 * S, true);
    bytes_are(table + 16, 0, Z(2) | Z(3));
    assert_int_equal(zq_l2_count_empty(&wide.form, table, 3), 1);
    assert_false(zq_l2_is_empty(&wide.form, table + 16));
    zq_l2_link_part(&wide.form, table + 16, 7 * C, 3 * S, 5 * S);
    bytes_are(table + 16, OWN(7), BIT(3) | BIT(4) | Z(2));
    assert_null(zq_l2_read(&wide, table + 16, &e));
    assert_true(e.used && e.copied && e.data == 3 * S && e.data_end == 5 * S);
    zq_l2_set_own(&wide.form, table + 16, false);
    zq_l2_link_part(&wide.form, table + 16, 9 * C, 2 * S, 3 * S);
    bytes_are(table + 16, OWN(9), BIT(2) | BIT(3) | BIT(4));
    assert_false(zq_l2_is_unlinked_part(&wide.form, table + 16, 4 * S, 6 * S, false));
    zq_l2_unlink_part(&wide.form, table + 16, 4 * S, 6 * S, false);
    assert_true(zq_l2_is_unlinked_part(&wide.form, table + 16, 4 * S, 6 * S, false));
    assert_false(zq_l2_is_unlinked_part(&wide.form, table + 16, 4 * S, 6 * S, true));
    zq_l2_set_host(&wide.form, table + 16, 8 * C);
    bytes_are(table + 16, OWN(8), BIT(2) | BIT(3));
    zq_l2_set_zero(&wide.form, table + 16);
    bytes_are(table + 16, 0, 0xffffffffull << 32);
    assert_true(zq_l2_is_zero(&wide.form, table + 16));
    zq_l2_clear(&wide.form, table + 16);
    bytes_are(table + 16, 0, 0);
    put_wide(table + 16, packed, 1);
    zq_l2_link_part(&wide.form, table + 16, 7 * C, 0, S);
    bytes_are(table + 16, OWN(7), 0xffffffff);
    zq_l2_link(&wide.form, table + 16, 5 * C, 2);
    bytes_are(table + 16, OWN(5), 0xffffffff);
    bytes_are(table + 32, OWN(6), 0xffffffff);
    assert_int_equal(zq_l2_span_bits(&wide.form), 16 + 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_bit),    cmocka_unit_test(test_places),
        cmocka_unit_test(test_own_place),    cmocka_unit_test(test_compressed),
        cmocka_unit_test(test_range),        cmocka_unit_test(test_stretch),
        cmocka_unit_test(test_written),      cmocka_unit_test(test_wide_judged),
        cmocka_unit_test(test_wide_stretch), cmocka_unit_test(test_wide_written),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
