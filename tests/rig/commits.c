/* SPDX-License-Identifier: MIT */
/* Commits that are stopped, that fail and that lose power, of whatever kind the images are. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/commits.h"

#define STATES 5u /* of an instant */

uint8_t commits_data[ROOM];

uint64_t commits_draw(struct commits *c, uint64_t n)
{
    return rng_below(&c->rng, n);
}

void commits_must(const struct commits *c, bool good, const char *what, long got)
{
    if (!good)
        fail_msg("%s: %ld\nreplay: ZQ_SEED=%llu %s # %s", what, got, (unsigned long long)c->seed,
                 c->kind->program, c->where);
}

struct zqcow2_backend *commits_backend(struct commits *c, unsigned which)
{
    struct zqcow2_backend *be;

    if (which != LOW)
        return half_of(&c->w, which);
    commits_must(c, zqcow2_simdisk_backend(c->low, &be) == 0, "backend", 0);
    return be;
}

/* The names are digits: which layer it is. */
int commits_resolve(void *arg, const char *name, const char *format, uint32_t depth,
                    struct zqcow2_backend **be, struct zqcow2_error *err)
{
    struct commits *c = arg;
    unsigned which = (unsigned)(name[0] - '0');

    (void)err;
    commits_must(c, c->moved || (depth & ~ZQCOW2_RESOLVE_WRITE) == which, "depth", (long)depth);
    commits_must(c, !(depth & ZQCOW2_RESOLVE_WRITE) || which == BASE, "for writing", (long)depth);
    commits_must(c, !strcmp(format, c->layer[which].format), "format", 0);
    *be = commits_backend(c, which);
    return 0;
}

/* The base's own view of the chain begins with itself. */
int commits_resolve_below(void *arg, const char *name, const char *format, uint32_t depth,
                          struct zqcow2_backend **be, struct zqcow2_error *err)
{
    return commits_resolve(arg, name, format, depth + 1, be, err);
}

struct zqcow2_image *commits_open(struct commits *c, unsigned which, uint32_t flags)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img = NULL;
    struct zqcow2_error err = {0, ""};
    int rc;

    o.flags = flags;
    o.resolve = which == TOP ? commits_resolve : commits_resolve_below;
    o.resolve_arg = c;
    rc = zqcow2_open(commits_backend(c, which), &o, &img, &err);
    commits_must(c, rc == 0, err.text, rc);
    return img;
}

void commits_begin(struct commits *c, const struct commits_kind *kind, uint64_t seed)
{
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;

    memset(c, 0, sizeof(*c));
    c->kind = kind;
    c->seed = c->rng = seed;
    world_begin(&c->w, seed);
    commits_must(c, zqcow2_simdisk_new(&d, &c->low) == 0, "disk", 0);
    kind->make(c);
}

void commits_end(struct commits *c)
{
    zqcow2_simdisk_free(c->low);
    world_end(&c->w);
}

bool commits_wanted(uint64_t seed)
{
    const char *only = getenv("ZQ_SEED");

    return !only || strtoull(only, NULL, 10) == seed;
}

static int progress(void *arg, uint64_t done, uint64_t total)
{
    struct commits *c = arg;

    commits_must(c, done <= total && total == c->layer[TOP].size, "progress", (long)done);
    commits_must(c, done >= c->done, "progress falls", (long)done);
    c->done = done;
    return ++c->calls == c->stop_at;
}

int commits_run(struct commits *c, struct zqcow2_error *err)
{
    struct zqcow2_commit_options o = ZQCOW2_COMMIT_OPTIONS_INIT;
    struct zqcow2_backend *be = commits_backend(c, TOP);
    int rc;

    o.flags = c->flags;
    o.resolve = commits_resolve;
    o.resolve_arg = c;
    o.progress = progress;
    o.progress_arg = c;
    c->calls = 0;
    c->done = 0;
    rc = zqcow2_commit(be, &o, err);
    commits_must(c, rc < 0 || c->done == c->layer[TOP].size, "progress ends early", (long)c->done);
    zqcow2_backend_close(be);
    return rc;
}

void commits_check(struct commits *c, unsigned which, bool clean)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be = commits_backend(c, which);

    commits_must(c, zqcow2_check(be, NULL, &res, NULL) == 0, "check", 0);
    commits_must(c, !res.corruptions, "corruptions", (long)res.corruptions);
    commits_must(c, !clean || !res.leaked_clusters, "leaks", (long)res.leaked_clusters);
    zqcow2_backend_close(be);
}

void commits_compare(struct commits *c, const char *what, const uint8_t *want, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i++)
        commits_must(c, commits_data[i] == want[i], what, (long)i);
}

bool commits_top_is_empty(struct commits *c)
{
    struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;
    struct zqcow2_image *img = commits_open(c, TOP, ZQCOW2_OPEN_NO_BACKING);
    uint64_t at = 0;

    while (at < c->layer[TOP].size) {
        commits_must(c, zqcow2_block_status(img, at, c->layer[TOP].size - at, &e) == 0, "status",
                     0);
        if (e.kind != ZQCOW2_BLOCK_UNALLOCATED)
            break;
        at += e.length;
    }
    commits_must(c, zqcow2_close(img) == 0, "close", 0);
    return at == c->layer[TOP].size;
}

void commits_again(struct commits *c)
{
    struct zqcow2_error err = {0, ""};
    int rc = commits_run(c, &err);

    commits_must(c, rc == 0, err.text, rc);
    c->kind->top_reads_as_before(c);
    c->kind->base_reads_as_top(c);
    commits_must(c, commits_top_is_empty(c), "empty", 0);
    commits_check(c, TOP, true);
    if (strcmp(c->layer[BASE].format, "raw"))
        commits_check(c, BASE, true);
}

/* A disk fails for good, at each of its calls; afterwards it works again. */
static unsigned fail_one(struct commits *c, const struct commits_kind *kind, uint64_t seed,
                         unsigned which, int error)
{
    struct zqcow2_simdisk_fault f = ZQCOW2_SIMDISK_FAULT_INIT;
    struct zqcow2_error err;
    unsigned failed = 0;
    int rc;

    f.flags = ZQCOW2_SIMDISK_FOREVER;
    f.kinds = 1u << ZQCOW2_IO_WRITE | 1u << ZQCOW2_IO_ZERO | 1u << ZQCOW2_IO_TRUNCATE |
              1u << ZQCOW2_IO_FLUSH;
    f.error = error;
    for (f.nth = 1;; f.nth++) {
        commits_begin(c, kind, seed);
        snprintf(c->where, sizeof(c->where), "disk %u fails at call %u", which, (unsigned)f.nth);
        commits_must(c, zqcow2_simdisk_set_fault(c->w.disk[which], &f) == 0, "fault", 0);
        rc = commits_run(c, &err);
        commits_must(c, zqcow2_simdisk_set_fault(c->w.disk[which], NULL) == 0, "fault", 0);
        commits_must(c, rc == 0 || rc == error || rc == -EIO || rc == ZQCOW2_EDEAD, err.text, rc);
        c->kind->top_reads_as_before(c);
        failed += rc != 0;
        commits_again(c);
        commits_end(c);
        if (rc == 0)
            return failed;
    }
}

unsigned commits_failed(struct commits *c, const struct commits_kind *kind, uint64_t seed)
{
    return fail_one(c, kind, seed, TOP, -EIO) +
           fail_one(c, kind, seed, BASE, seed % 2 ? -EIO : -ENOSPC);
}

unsigned commits_stopped(struct commits *c, const struct commits_kind *kind, uint64_t seed)
{
    struct zqcow2_error err;

    for (unsigned stop_at = 1;; stop_at++) {
        int rc;

        commits_begin(c, kind, seed);
        c->stop_at = stop_at;
        rc = commits_run(c, &err);
        commits_must(c, rc == 0 || (rc == -ECANCELED && !strcmp(err.text, "stopped")), err.text,
                     rc);
        commits_must(c, commits_top_is_empty(c) == !rc, "empty", rc);
        kind->top_reads_as_before(c);
        c->stop_at = 0;
        commits_again(c);
        commits_end(c);
        if (rc == 0)
            return stop_at - 1;
    }
}

/* Both files as one instant leaves them, each in any of its states. */
static void judge_instant(struct commits *c, struct zqcow2_simdisk_cut *cut[FILES], unsigned n)
{
    struct zqcow2_simdisk *disk[FILES];

    memcpy(disk, c->w.disk, sizeof(disk));
    for (unsigned s = 0; s < STATES; s++) {
        struct layer base = c->layer[BASE];

        snprintf(c->where, sizeof(c->where), "instant %u, state %u", n, s);
        for (unsigned i = 0; i < FILES; i++) {
            uint64_t states = zqcow2_simdisk_cut_states(cut[i]);
            uint64_t k = commits_draw(c, 3) ? commits_draw(c, states) : 0;

            commits_must(c, zqcow2_simdisk_cut_image(cut[i], k, &c->w.disk[i]) == 0, "cut",
                         (long)k);
        }
        commits_check(c, TOP, false);
        c->kind->top_reads_as_before(c);
        if (s % 2) { /* recovery */
            commits_must(c, zqcow2_close(commits_open(c, TOP, ZQCOW2_OPEN_RDWR)) == 0, "close", 0);
            commits_check(c, TOP, true);
        }
        commits_again(c);
        for (unsigned i = 0; i < FILES; i++)
            zqcow2_simdisk_free(c->w.disk[i]);
        memcpy(c->w.disk, disk, sizeof(disk));
        c->layer[BASE] = base;
    }
}

static unsigned cut_everywhere(struct commits *c)
{
    struct zqcow2_simdisk_cut *cut[FILES];

    for (unsigned i = 0; i < FILES; i++)
        commits_must(c, zqcow2_simdisk_cut_new(c->w.disk[i], &cut[i]) == 0, "cut", 0);
    for (unsigned n = 0; n < c->w.nr; n++) {
        for (unsigned i = 0; i < FILES; i++)
            commits_must(c, zqcow2_simdisk_cut_seek(cut[i], c->w.log[n].at[i]) == 0, "seek", 0);
        judge_instant(c, cut, n);
    }
    for (unsigned i = 0; i < FILES; i++)
        zqcow2_simdisk_cut_free(cut[i]);
    return c->w.nr * STATES;
}

unsigned commits_cut(struct commits *c, const struct commits_kind *kind, uint64_t seed)
{
    struct layer before;
    unsigned judged;

    commits_begin(c, kind, seed);
    before = c->layer[BASE];
    for (unsigned i = 0; i < FILES; i++)
        commits_must(c, zqcow2_simdisk_record(c->w.disk[i]) == 0, "record", 0);
    c->w.keeps = true;
    commits_must(c, commits_run(c, NULL) == 0, "commit", 0);
    c->w.keeps = false;
    c->layer[BASE] = before;
    judged = cut_everywhere(c);
    commits_end(c);
    return judged;
}
