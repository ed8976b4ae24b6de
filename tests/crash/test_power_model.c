/* SPDX-License-Identifier: MIT */
/* Proves that the model of power loss refuses what breaks I1-I8 and takes what does not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "power_model.h"

/* One conventional zone and three sequential ones of 8 sectors, of which 6 can be written. */
static const struct shape shape = {4 * 4096, 4096, 3072, 4, 1, 2};

struct device {
    struct power_model o;
    struct act acts[32];
    unsigned n;
    struct zqcow2_zone zones[4];
    uint8_t data[4 * 4096];
};

static int setup(void **state)
{
    struct device *d = calloc(1, sizeof(*d));

    power_init(&d->o, &shape);
    for (uint32_t z = 0; z < 4; z++)
        d->zones[z] = (struct zqcow2_zone){.start = z * 4096,
                                           .length = 4096,
                                           .capacity = z ? 3072 : 4096,
                                           .write_pointer = z * 4096,
                                           .type = z ? ZQCOW2_ZONE_SEQWRITE_REQ : 1,
                                           .state = z ? ZQCOW2_ZONE_EMPTY : ZQCOW2_ZONE_NOT_WP};
    *state = d;
    return 0;
}

static int teardown(void **state)
{
    struct device *d = *state;

    for (unsigned i = 0; i < d->n; i++)
        free(d->acts[i].snapshot);
    power_fini(&d->o);
    free(d);
    return 0;
}

static struct act *begin(struct device *d, enum act_kind kind, uint64_t sector, uint64_t sectors,
                         uint32_t req)
{
    struct act *a = &d->acts[d->n++];

    *a = (struct act){.kind = kind,
                      .off = sector * SECTOR,
                      .len = sectors * SECTOR,
                      .req = req,
                      .zone = (uint32_t)(sector / 8),
                      .stamped = sector * SECTOR};
    power_submit(&d->o, a);
    return a;
}

static void did(struct device *d, enum act_kind kind, uint64_t sector, uint64_t sectors,
                uint32_t req)
{
    power_ack(&d->o, begin(d, kind, sector, sectors, req));
}

/* What the disk holds. */
static void holds(struct device *d, uint64_t sector, uint64_t sectors, uint32_t req)
{
    stamp(d->data + sector * SECTOR, sectors * SECTOR, (uint32_t)(sector / 8), 0, sector * SECTOR,
          req);
}

static void zone_is(struct device *d, uint32_t z, uint64_t sectors, uint8_t what)
{
    d->zones[z].state = what;
    d->zones[z].write_pointer =
        what == ZQCOW2_ZONE_FULL ? (z + 1) * 4096 : z * 4096 + sectors * SECTOR;
}

static bool allows(struct device *d)
{
    struct seen seen[MAX_ZONES];
    char why[256] = "";

    return power_judge(&d->o, d->zones, d->data, seen, why, sizeof(why)) == 0;
}

static void test_prefix(void **state)
{
    struct device *d = *state;

    did(d, ACT_WRITE, 8, 2, 1);
    did(d, ACT_WRITE, 10, 2, 2);
    assert_true(allows(d));
    holds(d, 8, 2, 1);
    assert_false(allows(d)); /* I5: beyond the write pointer */
    zone_is(d, 1, 2, ZQCOW2_ZONE_CLOSED);
    assert_true(allows(d));
    zone_is(d, 1, 3, ZQCOW2_ZONE_CLOSED);
    holds(d, 10, 1, 2);
    assert_false(allows(d)); /* half a request */
    zone_is(d, 1, 4, ZQCOW2_ZONE_CLOSED);
    assert_false(allows(d)); /* a hole */
    holds(d, 10, 2, 2);
    assert_true(allows(d));
    holds(d, 9, 1, 7);
    assert_false(allows(d)); /* foreign */
    holds(d, 8, 2, 1);
    zone_is(d, 1, 4, ZQCOW2_ZONE_IMP_OPEN);
    assert_false(allows(d)); /* I6 */
    zone_is(d, 1, 4, ZQCOW2_ZONE_FULL);
    assert_false(allows(d));
}

static void test_flush(void **state)
{
    struct device *d = *state;
    struct act *late;

    did(d, ACT_WRITE, 8, 2, 1);
    late = begin(d, ACT_WRITE, 10, 2, 2);
    did(d, ACT_FLUSH, 0, 0, 0);
    power_ack(&d->o, late);
    assert_false(allows(d)); /* I1 */
    holds(d, 8, 2, 1);
    zone_is(d, 1, 2, ZQCOW2_ZONE_CLOSED);
    assert_true(allows(d)); /* what ended after the flush began may be gone */
    did(d, ACT_FLUSH, 0, 0, 0);
    assert_false(allows(d));
    late = begin(d, ACT_FLUSH, 0, 0, 0);
    did(d, ACT_RESET, 8, 8, 0);
    power_ack(&d->o, late);
    zone_is(d, 1, 0, ZQCOW2_ZONE_EMPTY);
    memset(d->data, 0, sizeof(d->data));
    assert_true(allows(d));
}

static void test_lives(void **state)
{
    struct device *d = *state;

    did(d, ACT_WRITE, 8, 4, 1);
    did(d, ACT_FLUSH, 0, 0, 0);
    did(d, ACT_RESET, 8, 8, 0);
    did(d, ACT_WRITE, 8, 2, 2);
    holds(d, 8, 2, 2);
    holds(d, 10, 2, 1);
    zone_is(d, 1, 4, ZQCOW2_ZONE_CLOSED);
    assert_false(allows(d)); /* I4: a mix */
    holds(d, 8, 4, 1);
    assert_true(allows(d)); /* the old life whole */
    did(d, ACT_FLUSH, 0, 0, 0);
    assert_false(allows(d)); /* I3 */
    memset(d->data + 4096, 0, 4096);
    holds(d, 8, 2, 2);
    zone_is(d, 1, 2, ZQCOW2_ZONE_CLOSED);
    assert_true(allows(d));
}

static void test_finish(void **state)
{
    struct device *d = *state;

    did(d, ACT_WRITE, 16, 1, 1);
    did(d, ACT_FLUSH, 0, 0, 0);
    did(d, ACT_FINISH, 16, 8, 0);
    holds(d, 16, 1, 1);
    zone_is(d, 2, 1, ZQCOW2_ZONE_CLOSED);
    assert_true(allows(d));
    zone_is(d, 2, 0, ZQCOW2_ZONE_FULL);
    assert_true(allows(d));
    holds(d, 18, 1, 1);
    assert_false(allows(d)); /* I5: unwritten bytes of a finished zone */
    memset(d->data + 18 * SECTOR, 0, SECTOR);
    did(d, ACT_FLUSH, 0, 0, 0);
    assert_true(allows(d));
    zone_is(d, 2, 1, ZQCOW2_ZONE_CLOSED);
    assert_false(allows(d)); /* FULL stays */
}

static void failed(struct device *d, enum act_kind kind, uint64_t sector, uint64_t sectors,
                   uint32_t req)
{
    struct act *a = &d->acts[d->n++];

    *a = (struct act){.kind = kind,
                      .fua = kind == ACT_FINISH,
                      .result = -ENOSPC,
                      .off = sector * SECTOR,
                      .len = sectors * SECTOR,
                      .req = req,
                      .zone = (uint32_t)(sector / 8),
                      .stamped = sector * SECTOR};
    power_submit(&d->o, a);
    power_ack(&d->o, a);
}

/* A write that failed is there or not; a finish behind it, whose round failed, came or did not. */
static void test_failed_finish(void **state)
{
    struct device *d = *state;

    did(d, ACT_WRITE, 16, 1, 1);
    failed(d, ACT_WRITE, 17, 2, 2);
    failed(d, ACT_FINISH, 16, 8, 0);
    did(d, ACT_FLUSH, 0, 0, 0);
    holds(d, 16, 1, 1);
    zone_is(d, 2, 1, ZQCOW2_ZONE_CLOSED);
    assert_true(allows(d));
    zone_is(d, 2, 0, ZQCOW2_ZONE_FULL);
    assert_true(allows(d));
    holds(d, 17, 1, 2);
    assert_false(allows(d)); /* half of it */
    did(d, ACT_FINISH, 16, 8, 0);
    did(d, ACT_FLUSH, 0, 0, 0);
    memset(d->data + 17 * SECTOR, 0, SECTOR);
    assert_true(allows(d));
    memset(d->data + 16 * SECTOR, 0, SECTOR);
    assert_false(allows(d)); /* what was acknowledged stays */
}

/* One that was sent before it was answered, and fails for a write in front of both. */
static void test_failed_behind_a_finish(void **state)
{
    struct device *d = *state;
    struct act *finish;

    failed(d, ACT_WRITE, 16, 2, 1);
    finish = begin(d, ACT_FINISH, 16, 8, 0);
    failed(d, ACT_WRITE, 16, 1, 2);
    power_ack(&d->o, finish);
    did(d, ACT_FLUSH, 0, 0, 0);
    assert_false(allows(d));
    zone_is(d, 2, 0, ZQCOW2_ZONE_FULL);
    assert_true(allows(d));
    holds(d, 16, 2, 1);
    assert_false(allows(d));
}

static void test_conventional(void **state)
{
    struct device *d = *state;

    did(d, ACT_WRITE, 2, 2, 1);
    did(d, ACT_WRITE, 2, 2, 2);
    assert_true(allows(d));
    holds(d, 2, 1, 1);
    holds(d, 3, 1, 2);
    assert_true(allows(d)); /* I8 is by the sector */
    did(d, ACT_FLUSH, 0, 0, 0);
    assert_false(allows(d));
    holds(d, 2, 2, 2);
    assert_true(allows(d));
    d->data[2 * SECTOR + 100] ^= 1;
    assert_false(allows(d));
    d->data[2 * SECTOR + 100] ^= 1;
    did(d, ACT_ZERO, 3, 1, 3);
    memset(d->data + 3 * SECTOR, 0, SECTOR);
    assert_true(allows(d));
    holds(d, 5, 1, 2);
    assert_false(allows(d));
}

static void test_limits(void **state)
{
    struct device *d = *state;

    for (uint32_t z = 1; z < 4; z++) {
        did(d, ACT_WRITE, z * 8, 1, z);
        holds(d, z * 8, 1, z);
        zone_is(d, z, 1, ZQCOW2_ZONE_CLOSED);
        assert_int_equal(allows(d), z < 3); /* I7: two may be active */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_prefix, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lives, setup, teardown),
        cmocka_unit_test_setup_teardown(test_finish, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_finish, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failed_behind_a_finish, setup, teardown),
        cmocka_unit_test_setup_teardown(test_conventional, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
    };

    return cmocka_run_group_tests_name("power_model", tests, NULL, NULL);
}
