/* SPDX-License-Identifier: MIT */
/*
 * Snapshots on failing hosts: each call and each allocation of a take, a delete or an apply fails
 * once, or from then on, in images with zones and without. The call has happened or it has not, no
 * other snapshot changes, and nothing worse than leaks is left, which the next open gives back.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/rig.h"

#define ZONE KiB(64)

static const struct geometry zoned = {.name = "zones",
                                      .size = KiB(512),
                                      .zone_size = ZONE,
                                      .capacity = KiB(48),
                                      .conventional = 1,
                                      .cluster = 4096};
static const struct geometry described = {.name = "zones with extensions",
                                          .size = KiB(512),
                                          .zone_size = ZONE,
                                          .capacity = KiB(48),
                                          .conventional = 1,
                                          .cluster = 512,
                                          .rules = ZQCOW2_RULES_ZNS,
                                          .described = 64};
static const struct geometry plain = {.name = "plain", .size = KiB(512), .cluster = 4096};

enum act { TAKE, DELETE, APPLY, NR_ACTS };

static int take(struct rig *r, const char *name)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;

    s.name = name;
    return zqcow2_snapshot_take(r->img, &s, NULL);
}

static int act(struct rig *r, enum act what)
{
    if (what == TAKE)
        return take(r, "new");
    if (what == DELETE)
        return zqcow2_snapshot_delete(r->img, "old", NULL);
    return zqcow2_snapshot_apply(r->img, "old", NULL);
}

/* What is written at first is in all snapshots; then a second sector, in the newer ones and now. */
static void prepare(struct rig *r)
{
    assert_int_equal(rig_write(r, ZONE, 512, 1), 0);
    assert_int_equal(take(r, "other"), 0);
    assert_int_equal(take(r, "old"), 0);
    assert_int_equal(rig_write(r, ZONE + 512, 512, 2), 0);
    assert_int_equal(rig_write(r, 2 * ZONE, 4096, 2), 0);
    assert_int_equal(zqcow2_flush(r->img), 0);
}

static bool is_old(struct rig *r)
{
    return rig_holds(r, ZONE, 512, ZONE, 1) && rig_zeros(r, ZONE + 512, 512) &&
           rig_zeros(r, 2 * ZONE, 4096) &&
           (!r->g->zone_size || rig_zone(r, 1).write_pointer == ZONE + 512);
}

static bool is_now(struct rig *r)
{
    return rig_holds(r, ZONE, 512, ZONE, 1) && rig_holds(r, ZONE + 512, 512, ZONE + 512, 2) &&
           rig_holds(r, 2 * ZONE, 4096, 2 * ZONE, 2) &&
           (!r->g->zone_size || rig_zone(r, 1).write_pointer == ZONE + 1024);
}

static int read_it(struct rig *r, const char *name, bool (*judge)(struct rig *r))
{
    int rc;

    r->open.snapshot = name;
    rc = rig_open(r, false);
    r->open.snapshot = NULL;
    if (rc < 0)
        return rc;
    rc = judge(r) ? 0 : -EBADMSG;
    assert_int_equal(rig_close(r), 0);
    return rc;
}

struct trial {
    const struct geometry *g;
    enum act what;
    enum fault_kind kind;
    uint64_t n;
    bool for_ever;
};

static void complain(const struct trial *t, const char *what, int rc)
{
    fail_msg("%s, act %d, fault %d at %llu%s: %s: %d", t->g->name, t->what, t->kind,
             (unsigned long long)t->n, t->for_ever ? " and later" : "", what, rc);
}

/* The image is closed, by a close that may have failed. */
static void judge(struct rig *r, const struct trial *t, int rc)
{
    int new = read_it(r, "new", is_now), old = read_it(r, "old", is_old);

    if (new != -ENOENT && (new || t->what != TAKE))
        complain(t, "the new snapshot", new);
    if (t->what == TAKE && rc == 0 && new)
        complain(t, "was taken, and is not there", new);
    if (old && (old != -ENOENT || t->what != DELETE))
        complain(t, "the old snapshot", old);
    if (t->what == DELETE && rc == 0 && old != -ENOENT)
        complain(t, "was deleted, and is there", old);
    if (read_it(r, "other", is_old))
        complain(t, "the other snapshot", 0);
    assert_int_equal(rig_open(r, true), 0);
    if (t->what == APPLY && rc == 0 ? !is_old(r) : !is_now(r) && (t->what != APPLY || !is_old(r)))
        complain(t, "the disk", rc);
}

/* It goes on as if nothing had been. */
static void use(struct rig *r, const struct trial *t)
{
    uint64_t to = rig_holds(r, 2 * ZONE, 4096, 2 * ZONE, 2) ? 2 * ZONE + 4096 : 2 * ZONE;

    assert_int_equal(rig_write(r, to, 4096, 3), 0);
    assert_int_equal(take(r, "last"), 0);
    assert_int_equal(zqcow2_snapshot_apply(r->img, "other", NULL), 0);
    if (!is_old(r))
        complain(t, "another one, applied", 0);
    assert_int_equal(zqcow2_snapshot_apply(r->img, "last", NULL), 0);
    assert_true(rig_holds(r, to, 4096, to, 3));
    assert_int_equal(zqcow2_snapshot_delete(r->img, "other", NULL), 0);
}

/* The n-th allocation (kind NONE) or call fails. False: there was no such one. */
static bool try(const struct trial *t)
{
    static struct rig r;
    bool struck, memory = t->kind == FAULT_NONE;
    int rc;

    rig_begin_in(&r, t->g, t->n % 2 ? RIG_SHUFFLED : RIG_PLAIN, t->n);
    prepare(&r);
    heap_plan(&r.heap, memory ? t->n : 0, t->for_ever);
    fault_plan(&r.fault, t->kind, memory ? 0 : t->n, t->for_ever);
    rc = act(&r, t->what);
    struck = r.heap.failed + r.fault.failed > 0;
    heap_plan(&r.heap, 0, false);
    fault_plan(&r.fault, FAULT_NONE, 0, false);
    if (rc < 0 && !struck)
        complain(t, "failed", rc);
    if (memory && rc == -ENOMEM && !is_now(&r))
        complain(t, "a refusal has changed the disk", rc);
    (void)rig_close(&r);
    assert_int_equal(rig_check(&r, 0), 0);
    if (r.check.corruptions)
        complain(t, "corruptions", (int)r.check.corruptions);
    judge(&r, t, rc);
    use(&r, t);
    rig_end(&r); /* and nothing is leaked */
    return struck;
}

static void under_every_fault(void **state)
{
    static const enum fault_kind kinds[] = {FAULT_NONE, FAULT_EIO, FAULT_ENOSPC, FAULT_NO_ROOM,
                                            FAULT_SHORT};
    static const struct geometry *const shapes[] = {&zoned, &described, &plain};
    unsigned points = 0;

    (void)state;
    for (unsigned i = 0; i < 3 * NR_ACTS * 5 * 2; i++) {
        struct trial t = {shapes[i % 3], i / 3 % NR_ACTS, kinds[i / 9 % 5], 1, i / 45};

        for (; try(&t); t.n++)
            points++;
    }
    assert_true(points > 500);
    printf("snapshots: %u faults, 0 violations\n", points);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(under_every_fault)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
