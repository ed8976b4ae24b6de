/* SPDX-License-Identifier: MIT */
/*
 * The write pointers that a snapshot of a zoned image has: when they hold, what comes with them and
 * what does not, and what is refused. Offsets in the file are those of SPEC.md.
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

#define COPIES  0x7a713270u /* the type of the extension */
#define BIT     ((uint64_t)1 << 62)
#define RECORD  64u /* in a record: where its copy is; its length follows */
#define CLUSTER 4096u

static const struct geometry plain_zones = {.name = "zones",
                                            .size = KiB(512),
                                            .zone_size = ZONE,
                                            .capacity = KiB(48),
                                            .conventional = 1,
                                            .max_open = 3,
                                            .max_active = 3,
                                            .cluster = CLUSTER};

static int take(struct rig *r, const char *name)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;

    s.name = name;
    return zqcow2_snapshot_take(r->img, &s, &r->err);
}

static int apply(struct rig *r, const char *name)
{
    return zqcow2_snapshot_apply(r->img, name, &r->err);
}

static int drop(struct rig *r, const char *name)
{
    return zqcow2_snapshot_delete(r->img, name, &r->err);
}

static unsigned state(struct rig *r, uint32_t zone)
{
    return rig_zone(r, zone).state;
}

static uint64_t written(struct rig *r, uint32_t zone)
{
    return rig_zone(r, zone).write_pointer - rig_start(r, zone);
}

/* Where the record of a snapshot begins. */
static uint64_t record(struct rig *r, unsigned number)
{
    uint64_t at = be(r, 64, 8);

    for (; number; number--)
        at += (40 + be(r, at + 36, 4) + be(r, at + 12, 2) + be(r, at + 14, 2) + 7) / 8 * 8;
    return at;
}

static bool has_ext(struct rig *r)
{
    uint64_t at = be(r, 100, 4);

    while (be(r, at, 4) && be(r, at, 4) != COPIES)
        at += 8 + (be(r, at + 4, 4) + 7) / 8 * 8;
    return be(r, at, 4) == COPIES && at + 48 <= 512;
}

/* The image is closed and sound. */
static void is_sound(struct rig *r)
{
    assert_int_equal(rig_close(r), 0);
    assert_int_equal(rig_check(r, 0), 0);
    assert_int_equal(r->check.corruptions, 0);
    assert_int_equal(r->check.leaked_clusters, 0);
}

/* ---- what a snapshot has ---- */

static void it_has_the_pointers_of_its_moment(void **state_)
{
    static struct rig r;
    uint64_t at;

    (void)state_;
    rig_begin(&r, &plain_zones);
    assert_int_equal(rig_write(&r, ZONE, 5 * 512, 1), 0);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_FINISH, 2 * ZONE, ZONE, NULL), 0);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_OPEN, 3 * ZONE, ZONE, NULL), 0);
    assert_int_equal(take(&r, "a"), 0);
    assert_int_equal(state(&r, 3), ZQCOW2_ZONE_EXP_OPEN); /* the device goes on as it was */
    assert_true(has_ext(&r));
    assert_true(be(&r, 88, 8) & BIT);
    at = record(&r, 0);
    assert_int_equal(be(&r, at + 36, 4), 40);
    assert_int_equal(be(&r, at + RECORD + 8, 8), 8 * 8);
    assert_int_equal(be(&r, at + RECORD, 8) % CLUSTER, 0);
    assert_int_equal(rig_write(&r, ZONE + 5 * 512, 3 * 512, 2), 0);
    assert_int_equal(reset(&r, 2), 0);
    assert_int_equal(rig_write(&r, 3 * ZONE, 512, 2), 0);
    assert_int_equal(apply(&r, "a"), 0);
    assert_int_equal(written(&r, 1), 5 * 512);
    assert_int_equal(state(&r, 1), ZQCOW2_ZONE_CLOSED);
    assert_int_equal(state(&r, 2), ZQCOW2_ZONE_FULL);
    assert_int_equal(state(&r, 3), ZQCOW2_ZONE_EMPTY);
    assert_int_equal(rig_info(&r).open_zones, 0);
    assert_int_equal(rig_info(&r).active_zones, 1);
    assert_true(rig_holds(&r, ZONE, 5 * 512, ZONE, 1));
    assert_int_equal(rig_write(&r, ZONE + 5 * 512, 512, 3), 0); /* in a cluster that it shares */
    rig_reopen(&r);
    assert_true(rig_holds(&r, ZONE, 5 * 512, ZONE, 1));
    assert_true(rig_holds(&r, ZONE + 5 * 512, 512, ZONE + 5 * 512, 3));
    assert_int_equal(apply(&r, "1"), 0);
    assert_int_equal(written(&r, 1), 5 * 512);
    assert_int_equal(drop(&r, "a"), 0);
    is_sound(&r);
    assert_int_equal(rig_open(&r, true), 0);
    rig_end(&r);
}

/* READ_ONLY and OFFLINE are the device's; extensions and marks are those of lives that end. */
static void stored_states_are_the_devices(void **state_)
{
    static struct rig r;

    (void)state_;
    rig_begin(&r, &small);
    assert_int_equal(describe(&r, 2, 1), 0);
    assert_int_equal(rig_write(&r, 3 * ZONE, 512, 1), 0);
    assert_int_equal(rig_write(&r, 4 * ZONE, 512, 1), 0);
    assert_int_equal(take(&r, "a"), 0);
    assert_true(has(&r, 2, 1));
    assert_int_equal(set(&r, 3, ZQCOW2_ZONE_RDONLY | PERSIST), 0);
    assert_int_equal(set(&r, 5, ZQCOW2_ZONE_OFFLINE | PERSIST), 0);
    assert_int_equal(reset(&r, 4), 0);
    assert_int_equal(apply(&r, "a"), 0);
    for (int again = 0; again < 2; again++) {
        assert_true(has(&r, 2, NONE));
        assert_int_equal(state(&r, 2), ZQCOW2_ZONE_EMPTY);
        assert_int_equal(state(&r, 3), ZQCOW2_ZONE_RDONLY);
        assert_int_equal(state(&r, 4), ZQCOW2_ZONE_CLOSED);
        assert_int_equal(state(&r, 5), ZQCOW2_ZONE_OFFLINE);
        rig_reopen(&r);
    }
    assert_int_equal(describe(&r, 6, 4), 0); /* the new table is in use */
    rig_reopen(&r);
    assert_true(has(&r, 6, 4));
    is_sound(&r);
    r.open.snapshot = "a"; /* a reader of it is kept from nothing */
    assert_int_equal(rig_open(&r, false), 0);
    assert_int_equal(state(&r, 3), ZQCOW2_ZONE_CLOSED);
    assert_int_equal(state(&r, 5), ZQCOW2_ZONE_EMPTY);
    assert_true(rig_holds(&r, 3 * ZONE, 512, 3 * ZONE, 1));
    rig_end(&r);
}

/* ---- when it holds ---- */

static int read_it(struct rig *r, const char *name)
{
    int rc;

    r->open.snapshot = name;
    rc = rig_open(r, false);
    r->open.snapshot = NULL;
    if (rc == 0)
        assert_int_equal(rig_close(r), 0);
    return rc;
}

/* Another program has written: it has cleared the bit, and may have used the clusters. */
static void without_the_bit_there_are_none(void **state_)
{
    static struct rig r;
    uint64_t old;

    (void)state_;
    rig_begin(&r, &plain_zones);
    assert_int_equal(rig_write(&r, ZONE, 512, 1), 0);
    assert_int_equal(take(&r, "a"), 0);
    assert_int_equal(take(&r, "b"), 0);
    assert_int_equal(rig_close(&r), 0);
    put(&r, 88, 8, 0);
    assert_int_equal(rig_check(&r, 0), 0);
    assert_int_equal(r.check.corruptions, 0);
    assert_int_equal(r.check.leaked_clusters, 2);
    assert_int_equal(read_it(&r, "a"), ZQCOW2_ECORRUPT);
    assert_int_equal(rig_check(&r, ZQCOW2_CHECK_REPAIR_LEAKS), 0);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(apply(&r, "a"), ZQCOW2_ECORRUPT);
    assert_int_equal(be(&r, 88, 8), 0);
    assert_int_equal(take(&r, "c"), 0); /* the bit is back, and does not bring back the others */
    assert_true(be(&r, 88, 8) & BIT);
    old = record(&r, 0);
    assert_int_equal(be(&r, old + 36, 4), 40);
    assert_int_equal(be(&r, old + RECORD, 8), 0);
    assert_int_equal(be(&r, record(&r, 1) + RECORD, 8), 0);
    assert_int_equal(apply(&r, "a"), ZQCOW2_ECORRUPT);
    assert_int_equal(apply(&r, "c"), 0);
    assert_int_equal(drop(&r, "a"), 0);
    is_sound(&r);
    assert_int_equal(read_it(&r, "b"), ZQCOW2_ECORRUPT);
    assert_int_equal(read_it(&r, "c"), 0);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(drop(&r, "b"), 0);
    assert_int_equal(drop(&r, "c"), 0);
    rig_end(&r);
}

struct damage {
    const char *name;
    unsigned at; /* in the record */
    uint64_t value;
};

/* Of a record: what it names is no copy. */
static const struct damage damages[] = {
    {"none", RECORD, 0},
    {"unaligned", RECORD, 4096 + 512},
    {"past the end", RECORD, (uint64_t)1 << 40},
    {"far", RECORD, (uint64_t)1 << 56},
    {"on L1", RECORD, UINT64_MAX},
    {"not counted", RECORD, UINT64_MAX - 1},
    {"short", RECORD + 8, 7 * 8},
    {"long", RECORD + 8, 9 * 8},
    {"of other zones", 48, KiB(512) + ZONE},
};

static void damage(const struct damage *d)
{
    static struct rig r;
    uint64_t value = d->value, at;

    rig_begin(&r, &plain_zones);
    assert_int_equal(rig_write(&r, ZONE, 512, 1), 0);
    assert_int_equal(take(&r, "a"), 0);
    assert_int_equal(rig_close(&r), 0);
    at = record(&r, 0);
    if (value == UINT64_MAX)
        value = be(&r, 40, 8);
    if (value == UINT64_MAX - 1) {
        value = be(&r, at + RECORD, 8) + 32 * CLUSTER;
        for (unsigned i = 0; i < 8 * 8; i += 8) /* it would be valid */
            put(&r, value + i, 8, be(&r, be(&r, at + RECORD, 8) + i, 8));
    }
    put(&r, at + d->at, 8, value);
    if (value && (rig_check(&r, 0) != 0 || !r.check.corruptions))
        fail_msg("%s: check finds nothing", d->name);
    assert_int_equal(rig_open(&r, true), 0);
    if (apply(&r, "a") != ZQCOW2_ECORRUPT)
        fail_msg("%s: it is applied", d->name);
    assert_int_equal(rig_write(&r, ZONE + 512, 512, 1), 0);
    assert_int_equal(drop(&r, "a"), 0); /* what it named is a leak */
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(rig_check(&r, ZQCOW2_CHECK_REPAIR_LEAKS), 0);
    assert_int_equal(r.check.corruptions, 0);
    assert_int_equal(rig_open(&r, true), 0);
    assert_true(rig_holds(&r, ZONE, 512, ZONE, 1));
    rig_end(&r);
}

static void damaged_records(void **state_)
{
    unsigned n = sizeof(damages) / sizeof(*damages);

    (void)state_;
    for (unsigned i = 0; i < n; i++)
        damage(&damages[i]);
    printf("pointers of snapshots: %u damaged records\n", n);
}

/* Its clusters are its own: it is deleted as a whole. */
static void entries_that_are_wrong(void **state_)
{
    static struct rig r;

    (void)state_;
    rig_begin(&r, &plain_zones);
    assert_int_equal(take(&r, "a"), 0);
    assert_int_equal(rig_close(&r), 0);
    put(&r, be(&r, record(&r, 0) + RECORD, 8) + 8, 8, 0x1234567);
    assert_int_equal(rig_check(&r, 0), 0);
    assert_int_equal(r.check.corruptions, 1);
    assert_int_equal(r.check.leaked_clusters, 0);
    assert_int_equal(read_it(&r, "a"), ZQCOW2_ECORRUPT);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(apply(&r, "a"), ZQCOW2_ECORRUPT);
    assert_int_equal(drop(&r, "a"), 0);
    is_sound(&r);
    assert_int_equal(rig_open(&r, true), 0);
    rig_end(&r);
}

/* ---- limits ---- */

/* N7: as many as the image may have, unless it has too many itself. */
static void active_zones_are_limited(void **state_)
{
    static struct rig r;
    uint64_t limit;

    (void)state_;
    rig_begin(&r, &plain_zones);
    for (uint32_t i = 1; i < 4; i++)
        assert_int_equal(rig_write(&r, i * ZONE, 512, 1), 0);
    assert_int_equal(take(&r, "three"), 0);
    for (uint32_t i = 1; i < 4; i++)
        assert_int_equal(reset(&r, i), 0);
    assert_int_equal(rig_close(&r), 0);
    for (limit = be(&r, 100, 4); be(&r, limit, 4) != 0x7a6264;)
        limit += 8 + (be(&r, limit + 4, 4) + 7) / 8 * 8;
    limit += 8 + 36; /* layout 44: max_active_zones, then max_open_zones */
    put(&r, limit, 4, 2);
    put(&r, limit + 4, 4, 2);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(apply(&r, "three"), ZQCOW2_EZONE_ACTIVE);
    assert_non_null(strstr(r.err.text, "3 active zones, max_active_zones is 2"));
    assert_int_equal(state(&r, 1), ZQCOW2_ZONE_EMPTY);
    is_sound(&r);
    put(&r, limit, 8, 0);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(apply(&r, "three"), 0);
    assert_int_equal(rig_close(&r), 0);
    put(&r, limit, 4, 2);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(apply(&r, "three"), 0); /* it has three, too */
    assert_int_equal(rig_info(&r).active_zones, 3);
    rig_end(&r);
}

/* In clusters of 512 bytes the name of a backing file lies there; it makes room. */
static void a_name_makes_room(void **state_)
{
    static const struct geometry tiny = {
        .name = "tiny", .size = 32 * 512, .zone_size = 2048, .cluster = 512};
    static struct rig r;
    uint64_t was;

    (void)state_;
    rig_init(&r, &tiny, RIG_PLAIN, 1);
    assert_int_equal(rig_create(&r), 0);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(rig_write(&r, 2048, 512, 1), 0);
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(rig_stack(&r), 0);
    was = be(&r, 8, 8);
    assert_true(was && was < 512);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(take(&r, "a"), 0);
    assert_int_equal(be(&r, 8, 8), was + 48);
    assert_int_equal(rig_write(&r, 2048 + 512, 512, 2), 0);
    assert_int_equal(take(&r, "b"), 0);
    assert_int_equal(be(&r, 8, 8), was + 48);
    rig_reopen(&r);
    assert_int_equal(apply(&r, "a"), 0);
    assert_true(rig_holds(&r, 2048, 512, 2048, 1));
    assert_int_equal(written(&r, 1), 512);
    rig_end(&r);
}

/* What must change with one write does not lie in one sector. */
static void no_room_in_the_header(void **state_)
{
    static struct rig r;
    uint64_t at;

    (void)state_;
    rig_begin(&r, &plain_zones);
    assert_int_equal(rig_close(&r), 0);
    for (at = be(&r, 100, 4); be(&r, at, 4) != 0x6803f857;)
        at += 8 + (be(&r, at + 4, 4) + 7) / 8 * 8;
    put(&r, at, 4, 0x12345678); /* nobody's, and no list of names */
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(take(&r, "a"), ZQCOW2_EFEATURE);
    assert_non_null(strstr(r.err.text, "no room"));
    assert_int_equal(rig_close(&r), 0);
    put(&r, at, 4, 0x6803f857);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(take(&r, "a"), 0);
    assert_int_equal(apply(&r, "a"), 0);
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_has_the_pointers_of_its_moment),
        cmocka_unit_test(stored_states_are_the_devices),
        cmocka_unit_test(without_the_bit_there_are_none),
        cmocka_unit_test(damaged_records),
        cmocka_unit_test(entries_that_are_wrong),
        cmocka_unit_test(active_zones_are_limited),
        cmocka_unit_test(a_name_makes_room),
        cmocka_unit_test(no_room_in_the_header),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
