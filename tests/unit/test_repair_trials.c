/* SPDX-License-Identifier: MIT */
/*
 * Counts that a repair raises only if the image then is better: they are tried in memory. What is
 * not good is never in the file, not even for a moment that a power cut could end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/faults.h"

#define L1_SIZE      36
#define NR_SNAPSHOTS 60
#define SNAPSHOTS    64

/* ---- a backend that counts writes to a field ---- */

struct watch {
    struct zqcow2_backend *be;
    uint64_t at;
    unsigned writes;
};

static int watch_length(void *self, uint64_t *bytes)
{
    return zqcow2_backend_length(((struct watch *)self)->be, bytes);
}

static int watch_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return zqcow2_backend_readv(((struct watch *)self)->be, iov, cnt, off);
}

static int watch_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct watch *w = self;
    uint64_t end = off;

    for (int i = 0; i < cnt; i++)
        end += iov[i].iov_len;
    w->writes += off < w->at + 4 && end > w->at;
    return zqcow2_backend_writev(w->be, iov, cnt, off);
}

static int watch_truncate(void *self, uint64_t bytes)
{
    return zqcow2_backend_truncate(((struct watch *)self)->be, bytes);
}

static int watch_flush(void *self)
{
    return zqcow2_backend_flush(((struct watch *)self)->be);
}

static const struct zqcow2_backend_ops watch_ops = {.size = sizeof(watch_ops),
                                                    .name = "watch",
                                                    .length = watch_length,
                                                    .readv = watch_readv,
                                                    .writev = watch_writev,
                                                    .flush = watch_flush,
                                                    .truncate = watch_truncate};

/* How often a repair of all writes the field of 32 bits. */
static unsigned writes_to(struct pic *p, uint64_t at, int rc)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct watch w = {p->be, at, 0};
    struct zqcow2_backend *be;

    o.flags = ALL;
    assert_int_equal(zqcow2_backend_new(&watch_ops, &w, NULL, &be), 0);
    assert_int_equal(zqcow2_check(be, &o, &res, &p->err), rc);
    zqcow2_backend_close(be);
    return w.writes;
}

/* ---- the size of L1 ---- */

/* An entry that names nothing in the file shows that more than the size is wrong. */
static void test_l1_size(void **state)
{
    struct pic p;
    uint64_t at, was;

    (void)state;
    fault_image(&p, 4096, 16);
    at = pic_l2(&p, 0);
    was = pic_get(&p, at, 8);
    pic_put(&p, at, 8, MiB(900) | PIC_COPIED);
    pic_put(&p, L1_SIZE, 4, 0);
    assert_int_equal(writes_to(&p, L1_SIZE, ZQCOW2_ECORRUPT), 0);
    assert_int_equal(pic_get(&p, L1_SIZE, 4), 0);
    pic_put(&p, at, 8, was);
    assert_int_equal(writes_to(&p, L1_SIZE, 0), 1);
    assert_int_equal(pic_get(&p, L1_SIZE, 4), 1);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

/* ---- snapshots of another program, which was stopped while it deleted one ---- */

/* Two snapshots that share all with the disk. */
static void make(struct pic *p)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = MiB(3);
    o.cluster_size = 4096;
    pic_make(p, &o);
    pic_map(p, 0, 0x44);
    pic_map(p, MiB(2), 0x45);
    pic_take(p, "a");
    pic_take(p, "b");
    pic_finds(p, 0, 0, 0, "", "");
}

static void expect_stays(struct pic *p, uint64_t at)
{
    uint64_t was = pic_get(p, at, 4), corruptions;

    assert_int_equal(pic_check(p, 0), 0);
    corruptions = p->res.corruptions;
    assert_true(corruptions > 0);
    assert_int_equal(writes_to(p, at, 0), 0);
    assert_int_equal(pic_get(p, at, 4), was);
    assert_int_equal(pic_check(p, 0), 0);
    if (p->res.corruptions > corruptions || !p->res.leaked_clusters)
        fail_msg("byte %llu: %s", (unsigned long long)at, p->found);
}

static void expect_raised(struct pic *p, uint64_t at, uint64_t value)
{
    assert_int_equal(writes_to(p, at, 0), 1);
    assert_int_equal(pic_get(p, at, 4), value);
    pic_finds(p, 0, 0, 0, "", "");
}

/* The deleted snapshot fits, or one of its clusters has a count already that is lower. */
static void test_deleted_record(void **state)
{
    uint64_t host;
    struct pic p;

    (void)state;
    make(&p);
    host = pic_get(&p, pic_l2(&p, 0), 8) & ~PIC_COPIED;
    assert_int_equal(pic_refcount(&p, host), 3);
    pic_put(&p, NR_SNAPSHOTS, 4, 1);
    pic_set_refcount(&p, host, 2);
    expect_stays(&p, NR_SNAPSHOTS);
    assert_int_equal(pic_refcount(&p, host), 2);
    pic_set_refcount(&p, host, 3);
    expect_raised(&p, NR_SNAPSHOTS, 2);
    pic_free(&p);
}

/* The same for what lies behind the end of the table of a snapshot. */
static void test_cut_table(void **state)
{
    uint64_t at, l1, table, good;
    struct pic p;

    (void)state;
    make(&p);
    at = pic_get(&p, SNAPSHOTS, 8);
    l1 = pic_get(&p, at, 8);
    good = pic_get(&p, l1 + 8, 8);
    assert_int_equal(pic_get(&p, at + 8, 4), 2);
    table = pic_alloc(&p, 1);
    pic_put(&p, table, 8, MiB(900));
    pic_put(&p, l1 + 8, 8, table);
    pic_put(&p, at + 8, 4, 1);
    expect_stays(&p, at + 8);
    pic_zero(&p, table, 8);
    pic_put(&p, table, 8, pic_get(&p, good, 8));
    assert_int_equal(writes_to(&p, at + 8, 0), 1);
    assert_int_equal(pic_get(&p, at + 8, 4), 2);
    pic_finds(&p, 0, 0, 0, "", "");
    pic_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_l1_size),
        cmocka_unit_test(test_deleted_record),
        cmocka_unit_test(test_cut_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
