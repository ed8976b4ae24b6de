/* SPDX-License-Identifier: MIT */
/*
 * Extensions of zone descriptors in damaged images and on failing hosts: which headers are refused,
 * what does not come back, and what a request that failed has left. Offsets are those of SPEC.md.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/described.h"

/* ---- damage ---- */

/* An extension of a zone that is empty and not closed was reset: it does not come back. */
static void a_void_one_does_not_come_back(void **state)
{
    static struct rig r;
    uint64_t table;

    (void)state;
    rig_begin(&r, &small);
    assert_int_equal(describe(&r, 1, 1), 0);
    assert_int_equal(reset(&r, 1), 0);
    assert_int_equal(rig_close(&r), 0);
    table = be(&r, find_ext(&r), 8);
    assert_int_equal(be(&r, table + 1, 1), 0);
    put(&r, table + 1, 1, 0x20);
    assert_int_equal(rig_open(&r, false), 0);
    assert_true(has(&r, 1, NONE));
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(be(&r, table + 1, 1), 0x20); /* a reader leaves it */
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(be(&r, table + 1, 1), 0); /* a writer does not */
    assert_int_equal(rig_write(&r, ZONE, 512, 1), 0);
    assert_true(has(&r, 1, NONE));
    rig_end(&r);
}

struct damage {
    const char *name;
    unsigned at, bytes; /* in the extension's data */
    uint64_t value;
    int rc;
    const char *text;
};

static const struct damage damages[] = {
    {"odd size", 12, 4, 65, ZQCOW2_ECORRUPT, "descriptor extension size 65 "},
    {"large size", 12, 4, MOST + 64, ZQCOW2_ECORRUPT, "descriptor extension size 16384 "},
    {"no size", 12, 4, 0, ZQCOW2_EFEATURE, "which is unknown"},
    {"no offset", 16, 8, 0, ZQCOW2_ECORRUPT, "descriptor extensions 0 "},
    {"unaligned", 16, 8, 4608, ZQCOW2_ECORRUPT, "descriptor extensions 4608 "},
    {"far", 16, 8, (uint64_t)1 << 56, ZQCOW2_ECORRUPT, "must be that of a cluster"},
    {"past the end", 16, 8, (uint64_t)1 << 40, ZQCOW2_ECORRUPT, "runs past the end of the file"},
    {"on the header", 16, 8, 0x1000, ZQCOW2_ECORRUPT, "overlaps"},
    {"newer", 24, 4, 64, ZQCOW2_EFEATURE, "is 0x40, which is unknown"},
};

static void damage(const struct damage *d)
{
    static struct rig r;
    uint64_t ext, was;

    rig_begin(&r, &small);
    assert_int_equal(describe(&r, 2, 1), 0);
    assert_int_equal(rig_close(&r), 0);
    ext = find_ext(&r);
    was = be(&r, ext + d->at, d->bytes);
    put(&r, ext + d->at, d->bytes, d->value);
    for (int writable = 0; writable < 2; writable++) {
        int rc = rig_open(&r, writable);

        if (rc != d->rc || !strstr(r.err.text, d->text))
            fail_msg("%s: open: %d \"%s\", expected %d \"%s\"", d->name, rc, r.err.text, d->rc,
                     d->text);
    }
    if (rig_check(&r, 0) != d->rc && !r.check.corruptions)
        fail_msg("%s: check finds nothing", d->name);
    put(&r, 88, 8, 0); /* what does not hold is not believed */
    assert_int_equal(rig_open(&r, false), 0);
    assert_true(rig_info(&r).flags & ZQCOW2_INFO_STATES_VOID);
    assert_int_equal(rig_close(&r), 0);
    put(&r, 88, 8, (uint64_t)1 << 63);
    put(&r, ext + d->at, d->bytes, was);
    assert_int_equal(rig_open(&r, true), 0);
    assert_true(has(&r, 2, 1));
    rig_end(&r);
}

static void damaged_extensions(void **state)
{
    unsigned n = sizeof(damages) / sizeof(*damages);

    (void)state;
    for (unsigned i = 0; i < n; i++)
        damage(&damages[i]);
    printf("zone descriptors: %u damaged headers\n", n);
}

/* Two owners of a cluster of the table: the second is the one that is wrong. */
static void a_cluster_of_the_table_is_nobody_elses(void **state)
{
    static struct rig r;
    struct raw w;
    uint64_t table;

    (void)state;
    rig_begin(&r, &small);
    assert_int_equal(describe(&r, 1, 1), 0);
    assert_int_equal(rig_write(&r, 0, 4096, 1), 0);
    assert_int_equal(rig_close(&r), 0);
    table = be(&r, find_ext(&r) + 16, 8);
    assert_true(raw_find(&w, &r.store));
    raw_put(&w, raw_l2_at(&w, 0), 8, table | RAW_COPIED);
    assert_int_equal(rig_check(&r, 0), 0);
    assert_true(r.check.corruptions > 0);
    assert_int_equal(rig_check(&r, ZQCOW2_CHECK_REPAIR | ZQCOW2_CHECK_REPAIR_ALL), 0);
    assert_int_equal(rig_check(&r, 0), 0);
    assert_int_equal(r.check.corruptions, 0);
    assert_int_equal(rig_open(&r, true), 0);
    assert_true(has(&r, 1, 1));
    rig_end(&r);
}

/* ---- faults ---- */

/* The n-th allocation (kind NONE) or call fails. False: there was no such one. */
static bool describe_under_fault(enum fault_kind kind, uint64_t n, bool for_ever)
{
    static struct rig r;
    bool struck;
    int rc;

    rig_begin_in(&r, &small, n % 2 ? RIG_SHUFFLED : RIG_PLAIN, n);
    assert_int_equal(describe(&r, 2, 1), 0);
    assert_int_equal(describe(&r, 3, 1), 0);
    assert_int_equal(reset(&r, 2), 0);
    heap_plan(&r.heap, kind == FAULT_NONE ? n : 0, for_ever);
    fault_plan(&r.fault, kind, kind == FAULT_NONE ? 0 : n, for_ever);
    rc = describe(&r, 2, 2);
    struck = r.heap.failed + r.fault.failed > 0;
    heap_plan(&r.heap, 0, false);
    fault_plan(&r.fault, FAULT_NONE, 0, false);
    if (rc < 0 && !struck)
        fail_msg("fault %d at %llu: %d", kind, (unsigned long long)n, rc);
    (void)rig_close(&r);
    assert_int_equal(rig_check(&r, 0), 0);
    assert_int_equal(r.check.corruptions, 0);
    assert_int_equal(rig_open(&r, true), 0);
    if (rc == 0 && !has(&r, 2, 2))
        fail_msg("fault %d at %llu: acknowledged, and not there", kind, (unsigned long long)n);
    if (!has(&r, 2, 2) && !has(&r, 2, 1) && !has(&r, 2, NONE))
        fail_msg("fault %d at %llu: torn", kind, (unsigned long long)n);
    assert_true(has(&r, 3, 1));
    assert_int_equal(reset(&r, 2), 0);
    assert_int_equal(describe(&r, 2, 3), 0);
    rig_reopen(&r);
    assert_true(has(&r, 2, 3) && has(&r, 3, 1));
    rig_end(&r);
    return struck;
}

static void under_every_fault(void **state)
{
    static const enum fault_kind kinds[] = {FAULT_NONE, FAULT_EIO, FAULT_ENOSPC, FAULT_SHORT};
    unsigned points = 0;

    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        for (uint64_t n = 1; describe_under_fault(kinds[i / 2], n, i % 2); n++)
            points++;
    }
    assert_true(points > 40);
    printf("zone descriptors: %u faults\n", points);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_void_one_does_not_come_back),
                                       cmocka_unit_test(damaged_extensions),
                                       cmocka_unit_test(a_cluster_of_the_table_is_nobody_elses),
                                       cmocka_unit_test(under_every_fault)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
