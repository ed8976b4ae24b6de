/* SPDX-License-Identifier: MIT */
/*
 * Images with zones that are put on other images with the same zones, or on none: they read as
 * before, also when it is stopped and in what a power loss leaves at each position of it, and may
 * be committed afterwards.
 *
 * ZQ_SEED: one world; ZQ_CUT: with it, one position
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "crash/cuts.h"
#include "rig/zoned_layers.h"

static struct commits world;
static const char *target; /* "1": BASE, "2": LOW, NULL: none */

static int progress(void *arg, uint64_t done, uint64_t total)
{
    struct commits *c = arg;

    commits_must(c, done <= total && total == ROOM, "progress", (long)done);
    return ++c->calls == c->stop_at;
}

static int rebase(struct commits *c, const char *to, uint32_t flags, struct zqcow2_error *err)
{
    struct zqcow2_rebase_options o = ZQCOW2_REBASE_OPTIONS_INIT;
    struct zqcow2_backend *be = commits_backend(c, TOP);
    int rc;

    o.flags = flags;
    o.backing_name = to;
    o.backing_format = to ? "qcow2" : NULL;
    o.resolve = commits_resolve;
    o.resolve_arg = c;
    o.progress = progress;
    o.progress_arg = c;
    c->calls = 0;
    rc = zqcow2_rebase(be, &o, err);
    zqcow2_backend_close(be);
    return rc;
}

/* It reads as before; on what does it stand? */
static char stands_on(struct commits *c)
{
    struct zqcow2_backing b = ZQCOW2_BACKING_INIT;
    struct zqcow2_image *img;

    zoned_reads_as(c, TOP, "byte", &c->layer[TOP]);
    img = commits_open(c, TOP, 0);
    commits_must(c, zqcow2_get_backing(img, &b) == 0, "backing", 0);
    commits_must(c, zqcow2_close(img) == 0, "close", 0);
    return b.name[0];
}

static void must_rebase(struct commits *c, const char *to, uint32_t flags)
{
    struct zqcow2_error err = {0, ""};
    int rc = rebase(c, to, flags, &err);

    commits_must(c, rc == 0, err.text, rc);
    commits_must(c, stands_on(c) == (to ? to[0] : '\0'), "name", 0);
    commits_check(c, TOP, true);
}

static void as_before(struct commits *c)
{
    (void)stands_on(c);
}

static void base_as_top(struct commits *c)
{
    zoned_reads_as(c, BASE, "byte of the base", &c->layer[TOP]);
}

static void make(struct commits *c)
{
    zoned_make(c);
    c->moved = true;
}

static const struct commits_kind kind = {"test_rebase_zones", make, as_before, base_as_top};

/* ---- tests ---- */

/* Back and forth, written on the way, and at last committed into what it stands on. */
static void an_image_reads_as_before(void **state)
{
    static const char *const stops[] = {"2", "1", NULL, NULL, "2", "1"};
    struct commits *c = &world;
    unsigned done = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 80; seed++) {
        if (!commits_wanted(seed))
            continue;
        commits_begin(c, &kind, seed);
        for (unsigned i = 0; i < sizeof(stops) / sizeof(stops[0]); i++, done++) {
            snprintf(c->where, sizeof(c->where), "rebase %u", i);
            must_rebase(c, stops[i], 0);
            if (commits_draw(c, 2))
                zoned_write_some(c, TOP, 1);
        }
        commits_again(c);
        commits_end(c);
    }
    printf("rebase: %u, none reads otherwise\n", done);
}

static void one_that_is_stopped_changes_nothing(void **state)
{
    struct commits *c = &world;
    unsigned stopped = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct zqcow2_error err = {0, ""};
        int rc = -ECANCELED;

        if (!commits_wanted(seed))
            continue;
        commits_begin(c, &kind, seed);
        while (rc) {
            c->stop_at++;
            rc = rebase(c, "2", 0, &err);
            commits_must(c, rc == 0 || rc == -ECANCELED, err.text, rc);
            commits_must(c, stands_on(c) == (rc ? '1' : '2'), "name", rc);
            commits_check(c, TOP, true);
            stopped += rc != 0;
        }
        c->stop_at = 0;
        commits_end(c);
    }
    printf("rebase: stopped %u times\n", stopped);
}

static void judge_cut(void *arg, uint64_t cut, uint64_t k, struct zqcow2_simdisk *image)
{
    struct commits *c = arg;
    struct zqcow2_simdisk *disk = c->w.disk[TOP];

    snprintf(c->where, sizeof(c->where), "ZQ_CUT=%llu, state %llu", (unsigned long long)cut,
             (unsigned long long)k);
    c->w.disk[TOP] = image;
    commits_check(c, TOP, false);
    (void)stands_on(c);
    must_rebase(c, target, 0);
    c->w.disk[TOP] = disk;
    c->calls++;
}

static void every_cut(void **state)
{
    struct commits *c = &world;
    unsigned judged = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        const struct cuts cuts = {
            .states = 5, .once = true, .rng = &c->rng, .judge = judge_cut, .arg = c};

        if (!commits_wanted(seed))
            continue;
        target = seed % 3 ? "2" : NULL;
        commits_begin(c, &kind, seed);
        commits_must(c, zqcow2_simdisk_record(c->w.disk[TOP]) == 0, "record", 0);
        commits_must(c, rebase(c, target, 0, NULL) == 0, "rebase", 0);
        commits_must(c, cuts_judge_all(&cuts, c->w.disk[TOP]) == 0, "cut", 0);
        judged++;
        commits_end(c);
    }
    printf("rebase: every cut of %u, 0 violations\n", judged);
}

/* Does the image inherit anything in a sequential zone? */
static bool inherits(struct commits *c)
{
    struct zqcow2_image *img = commits_open(c, TOP, 0);
    bool found = false;

    for (unsigned z = 1; z < ZONES; z++) {
        uint64_t at = z * COMMIT_ZONE, wp = c->layer[TOP].wp[z];
        uint64_t end = at + (wp == COMMIT_ZONE ? CAPACITY : wp);
        struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;

        for (; at < end; at += e.length) {
            commits_must(c, zqcow2_block_status(img, at, end - at, &e) == 0, "status", 0);
            found |= e.depth > 0 || e.kind == ZQCOW2_BLOCK_UNALLOCATED;
        }
    }
    commits_must(c, zqcow2_close(img) == 0, "close", 0);
    return found;
}

/* A name alone is changed only if no zone would lose what it inherits. */
static void a_name_is_changed_if_pointers_agree(void **state)
{
    struct commits *c = &world;
    unsigned refused = 0, moved = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct zqcow2_error err = {0, ""};
        bool inherited;
        int rc;

        if (!commits_wanted(seed))
            continue;
        commits_begin(c, &kind, seed);
        must_rebase(c, "1", ZQCOW2_REBASE_NAME_ONLY);
        inherited = inherits(c);
        rc = rebase(c, NULL, ZQCOW2_REBASE_NAME_ONLY, &err);
        commits_must(c, rc == (inherited ? ZQCOW2_EFEATURE : 0), err.text, rc);
        refused += inherited;
        if (inherited) {
            commits_must(c, strstr(err.text, "its write pointer") != NULL, err.text, rc);
            commits_must(c, stands_on(c) == '1', "name", 0);
            must_rebase(c, NULL, 0);
            commits_must(c, !inherits(c), "inherits", 0);
            must_rebase(c, "2", 0);
            moved++;
        }
        commits_end(c);
    }
    assert_true(getenv("ZQ_SEED") || refused > 20);
    printf("rebase: %u names refused, %u images moved after that\n", refused, moved);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_image_reads_as_before),
        cmocka_unit_test(one_that_is_stopped_changes_nothing),
        cmocka_unit_test(every_cut),
        cmocka_unit_test(a_name_is_changed_if_pointers_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
