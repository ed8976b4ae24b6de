/* SPDX-License-Identifier: MIT */
/* The simulated disk holds its user to the contract of backends. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_misuse)};

    return cmocka_run_group_tests_name("misuse", tests, NULL, NULL);
}
