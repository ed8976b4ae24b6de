/* SPDX-License-Identifier: MIT */
/*
 * Images with zones that are committed into images with the same zones. A model has the bytes, the
 * write pointers and the stored states of each layer, and random histories of both make zones of
 * every kind: untouched, appended to, reset and written again, finished, emptied.
 *
 * ZQ_SEED: one world
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/zoned_layers.h"

static void top_reads_as_before(struct commits *c)
{
    zoned_reads_as(c, TOP, "byte", &c->layer[TOP]);
}

static void base_reads_as_top(struct commits *c)
{
    zoned_reads_as(c, BASE, "byte of the base", &c->layer[TOP]);
}

static const struct commits_kind zoned = {"test_commit_zones", zoned_make, top_reads_as_before,
                                          base_reads_as_top};
static struct commits world;

/* ---- tests ---- */

/* Written and committed in turn, once kept as well; at last the base is committed, too. */
static void the_base_reads_as_the_image_did(void **state)
{
    struct commits *c = &world;
    unsigned done = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        if (!commits_wanted(seed))
            continue;
        commits_begin(c, &zoned, seed);
        for (unsigned i = 0; i < 4; i++, done++) {
            struct zqcow2_error err = {0, ""};
            int rc;

            snprintf(c->where, sizeof(c->where), "commit %u", i);
            c->flags = i % 2 ? ZQCOW2_COMMIT_KEEP : 0;
            rc = commits_run(c, &err);
            commits_must(c, rc == 0, err.text, rc);
            top_reads_as_before(c);
            base_reads_as_top(c);
            commits_must(c, c->flags || commits_top_is_empty(c), "empty", i);
            commits_check(c, TOP, true);
            commits_check(c, BASE, true);
            zoned_write_some(c, TOP, 1 + i % 2);
        }
        commits_end(c);
    }
    printf("zones: %u commits, none reads otherwise\n", done);
}

/* What the image below would have to be on the way is asked before anything changes. */
static void what_cannot_be_is_refused_first(void **state)
{
    struct commits *c = &world;
    unsigned refused = 0, done = 0;

    (void)state;
    for (uint64_t seed = 2; seed <= 120; seed += 2) { /* without stored states */
        struct zqcow2_error err = {0, ""};
        uint64_t before;
        int rc;

        if (!commits_wanted(seed))
            continue;
        zoned_most_active = 3;
        commits_begin(c, &zoned, seed);
        zoned_most_active = 0;
        before = zqcow2_simdisk_hash(c->w.disk[TOP]);
        rc = commits_run(c, &err);
        commits_must(c, rc == 0 || rc == ZQCOW2_EZONE_ACTIVE, err.text, rc);
        commits_must(c, rc == 0 || strstr(err.text, "max_active_zones is 3"), err.text, rc);
        commits_must(c, rc == 0 || zqcow2_simdisk_hash(c->w.disk[TOP]) == before, "changed", rc);
        top_reads_as_before(c);
        if (rc == 0)
            base_reads_as_top(c);
        else
            zoned_reads_as(c, BASE, "byte of the base", &c->layer[BASE]);
        refused += rc != 0;
        done += rc == 0;
        commits_end(c);
    }
    printf("zones: %u commits within a limit of active zones, %u beyond\n", done, refused);
    assert_true(getenv("ZQ_SEED") || (refused > 3 && done > 3));
}

/* A zone that has data, and has been left alone since the top was made; 0: there is none. */
static unsigned find_inherited(struct commits *c)
{
    const struct layer *top = &c->layer[TOP], *base = &c->layer[BASE];

    for (unsigned z = 1; z < ZONES; z++) {
        if (top->wp[z] && top->wp[z] < CAPACITY && top->wp[z] == base->wp[z] && !top->state[z] &&
            !memcmp(top->want + z * COMMIT_ZONE, base->want + z * COMMIT_ZONE, COMMIT_ZONE))
            return z;
    }
    return 0;
}

/* Its write pointer moves in the base, to and fro: the top has not seen that. */
static void change_base(struct commits *c, unsigned z)
{
    struct zqcow2_image *img = commits_open(c, BASE, ZQCOW2_OPEN_RDWR);
    uint64_t start = z * COMMIT_ZONE;
    int rc = c->seed % 4 ? zqcow2_zone_reset(img, start, COMMIT_ZONE, 0) :
                           zqcow2_write_zeroes(img, 512, start + c->layer[BASE].wp[z], 0);

    commits_must(c, rc == 0, "change", rc);
    commits_must(c, zqcow2_close(img) == 0, "close", 0);
}

static void a_base_that_has_changed_is_left_alone(void **state)
{
    struct commits *c = &world;
    unsigned refused = 0;

    (void)state;
    for (uint64_t seed = 2; seed <= 160; seed += 2) {
        struct zqcow2_error err = {0, ""};
        unsigned z;

        if (!commits_wanted(seed))
            continue;
        commits_begin(c, &zoned, seed);
        z = find_inherited(c);
        if (z) {
            uint64_t before;
            int rc;

            change_base(c, z);
            before = zqcow2_simdisk_hash(c->w.disk[TOP]);
            rc = commits_run(c, &err);
            commits_must(c, rc == ZQCOW2_ECORRUPT && strstr(err.text, "has changed"), err.text, rc);
            commits_must(c, zqcow2_simdisk_hash(c->w.disk[TOP]) == before, "top", rc);
            refused++;
        }
        commits_end(c);
    }
    printf("zones: %u bases that have changed\n", refused);
    assert_true(getenv("ZQ_SEED") || refused > 4);
}

static void one_that_is_stopped_changes_nothing_that_is_read(void **state)
{
    unsigned stopped = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++)
        stopped += commits_wanted(seed) ? commits_stopped(&world, &zoned, seed) : 0;
    printf("zones: stopped %u times\n", stopped);
}

static void a_disk_that_fails_leaves_what_is_read(void **state)
{
    unsigned failed = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++)
        failed += commits_wanted(seed) ? commits_failed(&world, &zoned, seed) : 0;
    printf("zones: failed %u times\n", failed);
}

static void every_instant(void **state)
{
    unsigned judged = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++)
        judged += commits_wanted(seed) ? commits_cut(&world, &zoned, seed) : 0;
    printf("zones: %u states of two files, 0 violations\n", judged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_base_reads_as_the_image_did),
        cmocka_unit_test(what_cannot_be_is_refused_first),
        cmocka_unit_test(a_base_that_has_changed_is_left_alone),
        cmocka_unit_test(one_that_is_stopped_changes_nothing_that_is_read),
        cmocka_unit_test(a_disk_that_fails_leaves_what_is_read),
        cmocka_unit_test(every_instant),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
