/* SPDX-License-Identifier: MIT */
/*
 * A read of the mapping fails while a request over many slices changes it. All of it was read
 * beforehand, so with a cache that keeps it a failed request has changed nothing. A smaller cache
 * reads slices again as they change: a first part may be done then. The same request again does
 * the rest.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/raw.h"
#include "rig/rig.h"

#define SLICE KiB(32)      /* as much as a table maps */
#define AT    (SLICE / 2)  /* the request begins within one, */
#define LEN   (8 * SLICE)  /* and ends within another */
#define ALL   (10 * SLICE) /* what is looked at */

static const struct geometry conv = {
    .name = "conventional", .size = MiB(3), .zone_size = MiB(1), .conventional = 2, .cluster = 512};

static uint8_t was[ALL], want[ALL], got[ALL];
static unsigned points, parts;

struct run {
    int op;
    bool share, small, for_ever;
    unsigned n; /* the read that fails */
};

static void begin(struct rig *r, const struct run *run)
{
    struct raw raw = {.extra = NULL};

    rig_begin(r, &conv);
    for (uint64_t at = 0; at < ALL; at += 4096)
        assert_int_equal(rig_write(r, at, 512, 1), 0);
    assert_int_equal(rig_close(r), 0);
    assert_true(raw_find(&raw, &r->store));
    for (uint64_t at = 0; run->share && at < ALL; at += 4096)
        raw_share(&raw, at, false);
    free(raw.extra);
    r->open.cache_bytes = run->small;
    assert_int_equal(rig_open(r, true), 0);
    assert_int_equal(zqcow2_read(r->img, was, ALL, 0), 0);
    memcpy(want, was, ALL);
    if (run->op == ZQCOW2_OP_WRITE)
        rig_pattern(want + AT, LEN, AT, 2);
    else
        memset(want + AT, 0, LEN);
}

static int request(struct rig *r, int op)
{
    if (op == ZQCOW2_OP_WRITE)
        return zqcow2_write(r->img, want + AT, LEN, AT, 0);
    return op == ZQCOW2_OP_DISCARD ? zqcow2_discard(r->img, LEN, AT, 0) :
                                     zqcow2_write_zeroes(r->img, LEN, AT, 0);
}

/* part: each sector may be new, too. */
static void expect(struct rig *r, const struct run *run, bool part, const uint8_t *is)
{
    assert_int_equal(zqcow2_read(r->img, got, ALL, 0), 0);
    for (uint64_t at = 0; at < ALL; at += 512) {
        if (memcmp(got + at, is + at, 512) && !(part && !memcmp(got + at, want + at, 512)))
            fail_msg("op %d%s%s, read %u fails%s: 0x%llx is wrong", run->op,
                     run->share ? ", shared" : "", run->small ? ", small cache" : "", run->n,
                     run->for_ever ? " and all after" : "", (unsigned long long)at);
    }
    parts += part && memcmp(got, was, ALL) && memcmp(got, want, ALL);
}

/* True if there were so many reads. */
static bool strike(const struct run *run)
{
    struct rig r;
    bool struck;
    int rc;

    begin(&r, run);
    fault_plan(&r.fault, FAULT_READ, run->n, run->for_ever);
    rc = request(&r, run->op);
    struck = r.fault.failed;
    fault_plan(&r.fault, FAULT_NONE, 0, false);
    assert_true(!rc || (rc == -EIO && struck));
    expect(&r, run, rc && run->small, rc ? was : want);
    assert_int_equal(request(&r, run->op), 0);
    expect(&r, run, false, want);
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(rig_check(&r, 0), 0);
    assert_int_equal(r.check.corruptions, 0);
    assert_null(rig_free(&r));
    points += struck;
    return struck;
}

static void every_read(void **state)
{
    static const int ops[] = {ZQCOW2_OP_WRITE, ZQCOW2_OP_WRITE_ZEROES, ZQCOW2_OP_DISCARD};

    (void)state;
    for (unsigned i = 0; i < 24; i++) {
        struct run run = {ops[i % 3], i / 3 % 2, i / 6 % 2, i / 12, 1};

        while (strike(&run))
            run.n++;
    }
    assert_true(points && parts); /* else the small cache shows nothing */
    printf("reads that fail: %u points, %u requests done in part with the smallest cache\n", points,
           parts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_read),
    };

    return cmocka_run_group_tests_name("read_fails", tests, NULL, NULL);
}
