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
#include "rig/commits.h"

static uint32_t most_active; /* below the top; 0: no limit */

#define ACTS     24u
#define CAPACITY KiB(60)

/* ---- making the files ---- */

static int change_zone(struct commits *c, struct layer *l, struct zqcow2_image *img, unsigned z)
{
    uint64_t start = z * COMMIT_ZONE, at = start + l->wp[z], len = 512 * (1 + commits_draw(c, 40));
    unsigned act = (unsigned)commits_draw(c, 10);
    int rc;

    if (act == 9) {
        rc = zqcow2_zone_reset(img, start, COMMIT_ZONE, 0);
        memset(l->want + start, 0, COMMIT_ZONE);
        l->wp[z] = 0;
        return rc;
    }
    if (act == 8) {
        rc = zqcow2_zone_finish(img, start, COMMIT_ZONE, 0);
        l->wp[z] = rc == 0 ? COMMIT_ZONE : l->wp[z];
        return rc;
    }
    if (l->wp[z] + len > CAPACITY)
        return 0;
    memset(commits_data, act < 5 ? 1 + (int)commits_draw(c, 250) : 0, len);
    rc = act < 6 ? zqcow2_write(img, commits_data, len, at, 0) :
                   zqcow2_write_zeroes(img, len, at, 0);
    if (rc == 0) {
        memcpy(l->want + at, commits_data, len);
        l->wp[z] = l->wp[z] + len == CAPACITY ? COMMIT_ZONE : l->wp[z] + len;
    }
    return rc;
}

static void act_on_zone(struct commits *c, struct layer *l, struct zqcow2_image *img, unsigned z)
{
    int rc = change_zone(c, l, img, z);

    commits_must(c, rc == 0 || (rc == ZQCOW2_EZONE_ACTIVE && most_active), "act", rc);
}

static void write_anywhere(struct commits *c, struct layer *l, struct zqcow2_image *img)
{
    uint64_t at = 512 * commits_draw(c, 100), len = 512 * (1 + commits_draw(c, 28));

    memset(commits_data, (int)commits_draw(c, 4), len);
    memcpy(l->want + at, commits_data, len);
    commits_must(c, zqcow2_write(img, commits_data, len, at, 0) == 0, "write", 0);
}

/*
 * At most one zone with a state of its own. What is below the top always has one that the layer
 * above inherits: a table that is there from the beginning needs no room in a header later.
 */
static void store_state(struct commits *c, struct layer *l, struct zqcow2_image *img)
{
    static const unsigned states[] = {ZQCOW2_ZONE_RDONLY, ZQCOW2_ZONE_OFFLINE, ZQCOW2_ZONE_CLOSED};
    unsigned z = 1 + (unsigned)commits_draw(c, ZONES - 1), state = states[commits_draw(c, 3)];
    int rc;

    for (unsigned i = 1; i < ZONES; i++) {
        if (!l->state[i])
            continue;
        rc = zqcow2_zone_set_state(img, i * COMMIT_ZONE, ZQCOW2_ZONE_PERSIST);
        commits_must(c, rc == 0, "normal", rc);
        l->state[i] = 0;
    }
    if (l == &c->layer[TOP] && !commits_draw(c, 3))
        return;
    if (state == ZQCOW2_ZONE_CLOSED && (l->wp[z] || l != &c->layer[TOP]))
        state = ZQCOW2_ZONE_RDONLY;
    rc = zqcow2_zone_set_state(img, z * COMMIT_ZONE, state | ZQCOW2_ZONE_PERSIST);
    commits_must(c, rc == 0, "state", rc);
    l->state[z] = (uint8_t)state;
}

static struct zqcow2_image *open_zns(struct commits *c, unsigned which, uint32_t flags)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img = NULL;
    struct zqcow2_error err = {0, ""};
    int rc;

    o.flags = flags;
    o.rules = ZQCOW2_RULES_ZNS;
    o.extent_bytes = KiB(8);
    o.resolve = which == TOP ? commits_resolve : commits_resolve_below;
    o.resolve_arg = c;
    rc = zqcow2_open(commits_backend(c, which), &o, &img, &err);
    commits_must(c, rc == 0, err.text, rc);
    return img;
}

static void write_some(struct commits *c, unsigned which, unsigned sessions)
{
    struct layer *l = &c->layer[which];

    while (sessions--) {
        struct zqcow2_image *img = open_zns(c, which, ZQCOW2_OPEN_RDWR);

        for (unsigned i = 0; i < ACTS; i++) {
            unsigned z = (unsigned)commits_draw(c, ZONES);

            if (z && l->state[z])
                continue;
            if (!z)
                write_anywhere(c, l, img);
            else if (z != ZONES - 1) /* that one stays as it is below, or empty */
                act_on_zone(c, l, img, z);
        }
        if (c->seed % 2 && (which != TOP || !commits_draw(c, 2)))
            store_state(c, l, img);
        commits_must(c, zqcow2_close(img) == 0, "close", 0);
    }
}

static void make_layer(struct commits *c, unsigned which)
{
    static const uint32_t clusters[] = {512, 4096, 8192, 16384};
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be = commits_backend(c, which);
    struct layer *l = &c->layer[which];
    int rc;

    l->format = "qcow2";
    l->size = o.virtual_size = ROOM;
    o.cluster_size = clusters[commits_draw(c, 4)];
    o.flags = o.cluster_size == 16384 ? ZQCOW2_CREATE_EXTENDED_L2 : 0;
    o.zone_size = COMMIT_ZONE;
    o.zone_capacity = CAPACITY;
    o.conventional_zones = 1;
    o.max_active_zones = which == TOP && most_active ? ZONES : most_active;
    if (which != LOW) {
        struct layer *b = &c->layer[which + 1];

        o.backing_name = which == TOP ? "1" : "2";
        o.backing_format = "qcow2";
        o.resolve = which == TOP ? commits_resolve : commits_resolve_below;
        o.resolve_arg = c;
        memcpy(l->want, b->want, ROOM);
        memcpy(l->wp, b->wp, sizeof(l->wp));
        memcpy(l->state, b->state, sizeof(l->state));
    }
    rc = zqcow2_create(be, &o, NULL);
    zqcow2_backend_close(be);
    commits_must(c, rc == 0, "create", rc);
    write_some(c, which, which == TOP ? 2 : 1);
}

static void make(struct commits *c)
{
    make_layer(c, LOW);
    make_layer(c, BASE);
    make_layer(c, TOP);
}

/* ---- judging ---- */

static void zone_is(struct commits *c, const struct layer *l, const struct zqcow2_zone *r,
                    unsigned z)
{
    unsigned state = l->state[z]             ? l->state[z] :
                     !l->wp[z]               ? ZQCOW2_ZONE_EMPTY :
                     l->wp[z] == COMMIT_ZONE ? ZQCOW2_ZONE_FULL :
                                               ZQCOW2_ZONE_CLOSED;

    commits_must(c, r->state == state, "state of a zone", r->state);
    if (state != ZQCOW2_ZONE_RDONLY && state != ZQCOW2_ZONE_OFFLINE)
        commits_must(c, r->write_pointer - r->start == l->wp[z], "write pointer",
                     (long)r->write_pointer);
}

/* An OFFLINE zone does not show its bytes: they are seen when it is normal for a moment. */
static void reads_as(struct commits *c, unsigned which, const char *what, const struct layer *want)
{
    struct zqcow2_image *img = open_zns(c, which, 0);
    struct zqcow2_zone zones[ZONES];
    uint32_t nr = ZONES;
    int rc;

    commits_must(c, zqcow2_zone_report(img, 0, zones, &nr) == 0 && nr == ZONES, "report", nr);
    for (unsigned z = 1; z < ZONES; z++) {
        zone_is(c, want, &zones[z], z);
        rc = zqcow2_zone_set_state(img, zones[z].start, ZQCOW2_ZONE_NOT_WP);
        commits_must(c, rc == 0, "normal", rc);
    }
    rc = zqcow2_read(img, commits_data, ROOM, 0);
    commits_must(c, rc == 0, "read", rc);
    commits_compare(c, what, want->want, ROOM);
    commits_must(c, zqcow2_close(img) == 0, "close", 0);
}

static void top_reads_as_before(struct commits *c)
{
    reads_as(c, TOP, "byte", &c->layer[TOP]);
}

static void base_reads_as_top(struct commits *c)
{
    reads_as(c, BASE, "byte of the base", &c->layer[TOP]);
}

static const struct commits_kind zoned = {"test_commit_zones", make, top_reads_as_before,
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
            write_some(c, TOP, 1 + i % 2);
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
        most_active = 3;
        commits_begin(c, &zoned, seed);
        most_active = 0;
        before = zqcow2_simdisk_hash(c->w.disk[TOP]);
        rc = commits_run(c, &err);
        commits_must(c, rc == 0 || rc == ZQCOW2_EZONE_ACTIVE, err.text, rc);
        commits_must(c, rc == 0 || strstr(err.text, "max_active_zones is 3"), err.text, rc);
        commits_must(c, rc == 0 || zqcow2_simdisk_hash(c->w.disk[TOP]) == before, "changed", rc);
        top_reads_as_before(c);
        if (rc == 0)
            base_reads_as_top(c);
        else
            reads_as(c, BASE, "byte of the base", &c->layer[BASE]);
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
