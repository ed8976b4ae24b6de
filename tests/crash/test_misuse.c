/* SPDX-License-Identifier: MIT */
/* The simulated disk holds its user to the contract of backends, and its caller to its own. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "simdisk/simdisk_int.h"

#define S 512u

/* What no backend has to take: refused, and counted. */
static void test_misuse(void **state)
{
    static _Alignas(64) uint8_t buf[8 * S];
    struct zqcow2_simdisk_options o = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_simdisk_counters c = ZQCOW2_SIMDISK_COUNTERS_INIT;
    struct iovec v[3] = {{buf, S}, {buf + S, S}, {buf + 2 * S, S}};
    struct iovec odd = {buf, 3}, empty[2] = {{buf, S}, {buf + S, 0}}, crooked = {buf + 8, S};
    struct iovec halves[2] = {{buf, 64}, {buf + 64, S - 64}}, large = {buf, 5 * S};
    const struct zqcow2_backend_ops *ops = sim_ops(false);
    struct sim_handle h = {0};
    struct zqcow2_simdisk *disk;
    (void)state;

    o.io_align = S;
    o.buf_align = 64;
    o.max_transfer = 4 * S;
    o.max_iov = 2;
    assert_int_equal(zqcow2_simdisk_new(&o, &disk), 0);
    h.disk = disk;
    assert_int_equal(ops->writev(&h, v, 2, 0), 0);
    assert_int_equal(ops->writev(&h, v, 3, 0), -EINVAL);
    assert_int_equal(ops->readv(&h, v, 3, 0), -EINVAL);
    assert_int_equal(ops->readv(&h, v, 0, 0), -EINVAL);
    assert_int_equal(ops->writev(&h, &odd, 1, 0), -EINVAL);
    assert_int_equal(ops->writev(&h, v, 1, 8), -EINVAL);
    assert_int_equal(ops->writev(&h, empty, 2, 0), -EINVAL);
    assert_int_equal(ops->writev(&h, &crooked, 1, 0), -EINVAL);
    assert_int_equal(ops->writev(&h, halves, 2, 0), -EINVAL);
    assert_int_equal(ops->writev(&h, &large, 1, 0), -EINVAL);
    assert_int_equal(ops->zero(&h, 0, 0), -EINVAL);
    assert_int_equal(ops->zero(&h, 0, 5 * S), -EINVAL);
    assert_int_equal(ops->discard(&h, 8, S), -EINVAL);
    assert_int_equal(ops->zero(&h, 0, 4 * S), 0);
    assert_int_equal(zqcow2_simdisk_get_counters(disk, &c), 0);
    assert_int_equal(c.misuse, 12);
    zqcow2_simdisk_free(disk);
}

static int make_with(void (*set)(struct zqcow2_simdisk_options *o, uint32_t v), uint32_t v)
{
    struct zqcow2_simdisk_options o = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_simdisk *disk;
    struct zqcow2_backend *be;
    int rc;

    set(&o, v);
    rc = zqcow2_simdisk_new(&o, &disk);
    if (rc == 0) {
        assert_int_equal(zqcow2_simdisk_backend(disk, &be), 0); /* a disk has one */
        zqcow2_backend_close(be);
        zqcow2_simdisk_free(disk);
    }
    return rc;
}

#define OPTION(m) \
    static void set_##m(struct zqcow2_simdisk_options *o, uint32_t v) \
    { \
        o->m = v; \
    }
OPTION(atomic_write)
OPTION(io_align)
OPTION(buf_align)
OPTION(max_transfer)
OPTION(discard)
OPTION(flags)
OPTION(reserved)

static void test_options(void **state)
{
    static const struct {
        void (*set)(struct zqcow2_simdisk_options *o, uint32_t v);
        uint32_t good, bad[3];
    } row[] = {{set_atomic_write, 4096, {3072, 256, 513}},
               {set_atomic_write, ZQCOW2_SIMDISK_ATOMIC, {1, 768, UINT32_MAX - 1}},
               {set_io_align, 4096, {3, 8192, UINT32_MAX}},
               {set_buf_align, 4096, {3, 8192, UINT32_MAX}},
               {set_max_transfer, 512, {1, 100, 511}},
               {set_discard, ZQCOW2_SIMDISK_DISCARD_SCRAMBLES, {3, 9, UINT32_MAX}},
               {set_flags, 15, {16, 1u << 31, 31}},
               {set_reserved, 0, {1, 2, UINT32_MAX}}};
    (void)state;

    for (unsigned i = 0; i < sizeof(row) / sizeof(*row); i++) {
        assert_int_equal(make_with(row[i].set, row[i].good), 0);
        for (unsigned k = 0; k < 3; k++) {
            if (make_with(row[i].set, row[i].bad[k]) != -EINVAL)
                fail_msg("option %u: %u is accepted", i, row[i].bad[k]);
        }
    }
}

static void test_fault_options(void **state)
{
    const struct zqcow2_simdisk_fault good = {sizeof(good), 1, 0x3f, 0xf, -4095, 0};
    struct zqcow2_simdisk_fault bad[9];
    struct zqcow2_simdisk *disk;
    (void)state;

    for (unsigned i = 0; i < 9; i++)
        bad[i] = good;
    bad[0].nth = 0;
    bad[1].kinds = 0;
    bad[2].kinds = 0x40;
    bad[3].flags = 0x10;
    bad[4].flags = 1u << 31;
    bad[5].error = 0;
    bad[6].error = 5;
    bad[7].error = -4096;
    bad[8].reserved = 1;
    assert_int_equal(zqcow2_simdisk_new(NULL, &disk), 0);
    assert_int_equal(zqcow2_simdisk_set_fault(disk, &good), 0);
    for (unsigned i = 0; i < 9; i++) {
        if (zqcow2_simdisk_set_fault(disk, &bad[i]) != -EINVAL)
            fail_msg("fault %u is accepted", i);
    }
    assert_int_equal(zqcow2_simdisk_set_fault(disk, NULL), 0);
    zqcow2_simdisk_free(disk);
}

/* A cut replays the log, so the log stays; a number that is none is an argument that is wrong. */
static void test_cuts(void **state)
{
    struct zqcow2_simdisk_options o = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_simdisk_op op = ZQCOW2_SIMDISK_OP_INIT;
    struct zqcow2_simdisk *disk, *image = NULL;
    struct zqcow2_simdisk_cut *cut[2];
    struct zqcow2_backend *be;
    uint8_t buf[S] = {1};
    (void)state;

    o.flags = ZQCOW2_SIMDISK_RECORD;
    assert_int_equal(zqcow2_simdisk_new(&o, &disk), 0);
    assert_int_equal(zqcow2_simdisk_backend(disk, &be), 0);
    assert_int_equal(zqcow2_backend_write(be, buf, S, 0), 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(zqcow2_simdisk_cut_new(disk, &cut[i]), 0);
        assert_int_equal(zqcow2_simdisk_cut_seek(cut[i], 2), 0);
    }
    assert_int_equal(zqcow2_simdisk_cut_op(cut[0], 0, &op), 0);
    assert_int_equal(zqcow2_simdisk_cut_op(cut[0], 1, &op), -EINVAL);
    assert_int_equal(zqcow2_simdisk_cut_image(cut[0], zqcow2_simdisk_cut_states(cut[0]), &image),
                     -EINVAL);
    assert_int_equal(zqcow2_simdisk_cut_seek(cut[0], 3), -ENOENT);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(zqcow2_simdisk_record(disk), -EBUSY);
        assert_int_equal(zqcow2_simdisk_cut_seek(cut[i], 1), 0);
        zqcow2_simdisk_cut_free(cut[i]);
    }
    assert_int_equal(zqcow2_simdisk_record(disk), 0);
    zqcow2_backend_close(be);
    zqcow2_simdisk_free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_misuse), cmocka_unit_test(test_options),
        cmocka_unit_test(test_fault_options), cmocka_unit_test(test_cuts)};

    return cmocka_run_group_tests_name("misuse", tests, NULL, NULL);
}
