/* SPDX-License-Identifier: MIT */
/* Entries of L1, L2, refcount and bitmap tables: every bit is in the value, or refused. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "format/entry.h"

#define BIT(n) ((uint64_t)1 << (n))
#define HOST   ((uint64_t)5 << 16)

/* No offset is past the end of this file: what is refused is refused for its bits. */
static const struct zq_bounds huge = {UINT64_MAX, 9, 3};
static const struct zq_bounds small = {1 << 20, 16, 3};

static bool in_offset(unsigned bit)
{
    return bit >= 9 && bit < 56;
}

static void expect(const char *table, unsigned bit, bool ok, const char *why)
{
    if (ok != !why)
        fail_msg("%s entry, bit %u: %s", table, bit, why ? why : "taken");
}

static void test_every_bit(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t raw = HOST ^ BIT(bit), host;
        struct zq_bounds v2 = huge;
        struct zq_l2_entry e;
        bool ones;

        v2.version = 2;
        expect("L1", bit, in_offset(bit) || bit == 63, zq_l1_read(&huge, raw, &host));
        assert_true(host == (raw & ~BIT(63)) || !in_offset(bit));
        expect("refcount table", bit, in_offset(bit), zq_rt_read(&huge, raw, &host));
        assert_true(host == raw); /* nothing is masked */
        expect("bitmap", bit, in_offset(bit), zq_bitmap_read(&huge, raw, &host, &ones));
        if (bit == 62)
            continue; /* compressed */
        expect("L2", bit, in_offset(bit) || bit == 63 || bit == 0, zq_l2_read(&huge, raw, &e));
        assert_true(e.zero == (bit == 0) && e.copied == (bit == 63) && !e.compressed);
        expect("L2 of version 2", bit, in_offset(bit) || bit == 63, zq_l2_read(&v2, raw, &e));
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
    assert_non_null(zq_l2_read(&small, 0x100000, &e));
    assert_non_null(zq_l2_read(&small, 0x10200, &e));
    assert_non_null(zq_l2_read(&small, BIT(63), &e));
    assert_non_null(zq_l2_read(&small, BIT(63) | 1, &e));
    assert_null(zq_l2_read(&small, 1, &e));
    assert_true(e.zero && !e.len);
    assert_null(zq_l2_read(&small, 0x10001, &e));
    assert_true(e.zero && e.len == 65536);
    assert_null(zq_bitmap_read(&small, 1, &host, &ones));
    assert_true(ones && !host);
    assert_non_null(zq_bitmap_read(&small, 0x10001, &host, &ones));
    assert_non_null(zq_bitmap_read(&small, 0x100000, &host, &ones));
}

/* Clusters of 64 KiB: bits 0 to 53 are the offset, 54 to 61 the number of further sectors. */
static void test_compressed(void **state)
{
    struct zq_l2_entry e;

    (void)state;
    assert_null(zq_l2_read(&small, BIT(62) | 2ull << 54 | 0x10123, &e));
    assert_true(e.compressed && !e.copied && !e.zero);
    assert_int_equal(e.host, 0x10123);
    assert_int_equal(e.len, 3 * 512 - 0x123);
    assert_null(zq_l2_read(&small, BIT(63) | BIT(62) | 2ull << 54 | 0x10123, &e));
    assert_true(e.compressed && !e.copied);
    assert_null(zq_l2_read(&small, BIT(62) | (0x100000 - 1), &e));
    assert_non_null(zq_l2_read(&small, BIT(62) | 1ull << 54 | (0x100000 - 1), &e));
    assert_non_null(zq_l2_read(&small, BIT(62) | 0x100000, &e));
    /* beyond 2^56 no file reaches, whatever its length says */
    assert_non_null(zq_l2_read(&huge, BIT(62) | BIT(57), &e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_compressed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
