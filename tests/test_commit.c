/* SPDX-License-Identifier: MIT */
/*
 * Images that are committed into their backing files. What they read as is compared with a model of
 * plain bytes: when all goes well, when it is stopped or a disk fails, and in what a power loss
 * leaves of both files at every instant of it. Then the commit is begun again.
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
#include <zqcow2/chain.h>
#include "rig/rig.h"
#include "rig/rng.h"
#include "rig/twin.h"

#define ROOM   KiB(512)
#define WRITES 8u
#define STATES 5u /* of an instant */

enum { TOP = IMAGE, BASE = DATA, LOW = FILES, LAYERS };

/* A layer: its disk is one of the world's, or for the lowest one, which nothing changes, c->low. */
struct layer {
    const char *format; /* NULL: there is none */
    uint64_t size;
    uint8_t want[ROOM]; /* what it reads as, with all that is below it */
};

struct commits {
    struct world w;
    struct zqcow2_simdisk *low;
    struct layer layer[LAYERS];
    uint64_t seed, rng;
    char where[80];
    unsigned calls, stop_at; /* of progress(); 0: none */
    uint32_t flags;          /* of the commit */
};

static uint64_t draw(struct commits *c, uint64_t n)
{
    return rng_below(&c->rng, n);
}

static void must(const struct commits *c, bool good, const char *what, long got)
{
    if (!good)
        fail_msg("%s: %ld\nreplay: ZQ_SEED=%llu test_commit # %s", what, got,
                 (unsigned long long)c->seed, c->where);
}

static struct zqcow2_backend *backend(struct commits *c, unsigned which)
{
    struct zqcow2_backend *be;

    if (which != LOW)
        return half_of(&c->w, which);
    must(c, zqcow2_simdisk_backend(c->low, &be) == 0, "backend", 0);
    return be;
}

/* The names are digits: which layer it is. */
static int resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    struct commits *c = arg;
    unsigned which = (unsigned)(name[0] - '0');

    (void)err;
    must(c, (depth & ~ZQCOW2_RESOLVE_WRITE) == which, "depth", (long)depth);
    must(c, !(depth & ZQCOW2_RESOLVE_WRITE) || which == BASE, "for writing", (long)depth);
    must(c, !strcmp(format, c->layer[which].format), "format", 0);
    *be = backend(c, which);
    return 0;
}

/* The base's own view of the chain begins with itself. */
static int resolve_below_base(void *arg, const char *name, const char *format, uint32_t depth,
                              struct zqcow2_backend **be, struct zqcow2_error *err)
{
    return resolve(arg, name, format, depth + 1, be, err);
}

static struct zqcow2_image *open_layer(struct commits *c, unsigned which, uint32_t flags)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img = NULL;
    struct zqcow2_error err = {0, ""};
    int rc;

    o.flags = flags;
    o.resolve = which == TOP ? resolve : resolve_below_base;
    o.resolve_arg = c;
    rc = zqcow2_open(backend(c, which), &o, &img, &err);
    must(c, rc == 0, err.text, rc);
    return img;
}

/* ---- making the files ---- */

static uint8_t data[ROOM];

/* Some bytes of one value: two layers have bytes in common. */
static void write_some(struct commits *c, unsigned which)
{
    struct layer *l = &c->layer[which];
    struct zqcow2_image *img =
        strcmp(l->format, "raw") ? open_layer(c, which, ZQCOW2_OPEN_RDWR) : NULL;
    struct zqcow2_backend *be = img ? NULL : backend(c, which);

    for (unsigned i = 0; i < WRITES; i++) {
        uint64_t off = draw(c, l->size / 512) * 512, len = (1 + draw(c, 60)) * 512;
        int rc;

        len = len < l->size - off ? len : l->size - off;
        memset(data, (int)draw(c, 4), len);
        memcpy(l->want + off, data, len);
        rc = !img     ? zqcow2_backend_write(be, data, len, off) :
             !data[0] ? zqcow2_write_zeroes(img, len, off, 0) :
                        zqcow2_write(img, data, len, off, 0);
        must(c, rc == 0, "write", rc);
    }
    if (img) {
        must(c, zqcow2_close(img) == 0, "close", 0);
        return;
    }
    must(c, zqcow2_backend_flush(be) == 0, "flush", 0);
    zqcow2_backend_close(be);
}

/* Lies on `below`, if that is a layer. */
static void make_qcow2(struct commits *c, unsigned which, unsigned below)
{
    static const uint32_t clusters[] = {512, 4096, 65536, 16384};
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be = backend(c, which);
    struct layer *l = &c->layer[which], *b = &c->layer[below];
    char name[2] = {(char)('0' + below), '\0'};
    int rc;

    l->format = "qcow2";
    o.virtual_size = l->size;
    o.cluster_size = clusters[draw(c, 4)];
    o.flags = o.cluster_size == 16384 ? ZQCOW2_CREATE_EXTENDED_L2 : 0;
    o.flags |= draw(c, 4) ? 0 : ZQCOW2_CREATE_LAZY_REFCOUNTS;
    if (below < LAYERS) {
        o.backing_name = name;
        o.backing_format = b->format;
        memcpy(l->want, b->want, b->size < l->size ? b->size : l->size);
    }
    rc = zqcow2_create(be, &o, NULL);
    zqcow2_backend_close(be);
    must(c, rc == 0, "create", rc);
    write_some(c, which);
}

static void make_raw(struct commits *c, unsigned which)
{
    struct zqcow2_backend *be = backend(c, which);

    c->layer[which].format = "raw";
    must(c, zqcow2_backend_truncate(be, c->layer[which].size) == 0, "raw", 0);
    zqcow2_backend_close(be);
    write_some(c, which);
}

static void make(struct commits *c, uint64_t seed)
{
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;

    memset(c, 0, sizeof(*c));
    c->seed = c->rng = seed;
    world_begin(&c->w, seed);
    must(c, zqcow2_simdisk_new(&d, &c->low) == 0, "disk", 0);
    for (unsigned i = 0; i < LAYERS; i++)
        c->layer[i].size = (1 + draw(c, ROOM / 512)) * 512;
    make_raw(c, LOW);
    if (draw(c, 3)) {
        if (c->layer[BASE].size < c->layer[TOP].size)
            c->layer[BASE].size = c->layer[TOP].size;
        make_qcow2(c, BASE, draw(c, 3) ? LOW : LAYERS);
    } else {
        make_raw(c, BASE);
    }
    make_qcow2(c, TOP, BASE);
}

static void discard_world(struct commits *c)
{
    zqcow2_simdisk_free(c->low);
    world_end(&c->w);
}

/* ---- judging ---- */

static int progress(void *arg, uint64_t done, uint64_t total)
{
    struct commits *c = arg;

    must(c, done <= total && total == c->layer[TOP].size, "progress", (long)done);
    return ++c->calls == c->stop_at;
}

static int commit(struct commits *c, struct zqcow2_error *err)
{
    struct zqcow2_commit_options o = ZQCOW2_COMMIT_OPTIONS_INIT;
    struct zqcow2_backend *be = backend(c, TOP);
    int rc;

    o.flags = c->flags;
    o.resolve = resolve;
    o.resolve_arg = c;
    o.progress = progress;
    o.progress_arg = c;
    c->calls = 0;
    rc = zqcow2_commit(be, &o, err);
    zqcow2_backend_close(be);
    return rc;
}

static void check(struct commits *c, unsigned which, bool clean)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be = backend(c, which);

    must(c, zqcow2_check(be, NULL, &res, NULL) == 0, "check", 0);
    must(c, !res.corruptions, "corruptions", (long)res.corruptions);
    must(c, !clean || !res.leaked_clusters, "leaks", (long)res.leaked_clusters);
    zqcow2_backend_close(be);
}

static void compare(struct commits *c, const char *what, const uint8_t *got, uint64_t from,
                    const uint8_t *want, uint64_t to)
{
    for (uint64_t i = from; i < to; i++)
        must(c, got[i] == want[i], what, (long)i);
}

static void top_reads_as_before(struct commits *c)
{
    struct zqcow2_image *img = open_layer(c, TOP, 0);

    must(c, zqcow2_read(img, data, c->layer[TOP].size, 0) == 0, "read", 0);
    compare(c, "byte", data, 0, c->layer[TOP].want, c->layer[TOP].size);
    must(c, zqcow2_close(img) == 0, "close", 0);
}

/* As the top does, and behind its end as before. */
static void base_reads_as_top(struct commits *c)
{
    struct layer *base = &c->layer[BASE], *top = &c->layer[TOP];

    memcpy(base->want, top->want, top->size);
    if (strcmp(base->format, "raw")) {
        struct zqcow2_image *img = open_layer(c, BASE, 0);

        must(c, zqcow2_read(img, data, base->size, 0) == 0, "read", 0);
        must(c, zqcow2_close(img) == 0, "close", 0);
    } else {
        uint64_t bytes = zqcow2_simdisk_length(c->w.disk[BASE]);

        base->size = base->size < top->size ? top->size : base->size;
        must(c, bytes == base->size, "length", (long)bytes);
        must(c, zqcow2_simdisk_export(c->w.disk[BASE], data, base->size, 0) == 0, "export", 0);
    }
    compare(c, "byte of the base", data, 0, base->want, base->size);
}

static bool top_is_empty(struct commits *c)
{
    struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;
    struct zqcow2_image *img = open_layer(c, TOP, ZQCOW2_OPEN_NO_BACKING);
    uint64_t at = 0;

    while (at < c->layer[TOP].size) {
        must(c, zqcow2_block_status(img, at, c->layer[TOP].size - at, &e) == 0, "status", 0);
        if (e.kind != ZQCOW2_BLOCK_UNALLOCATED)
            break;
        at += e.length;
    }
    must(c, zqcow2_close(img) == 0, "close", 0);
    return at == c->layer[TOP].size;
}

static void commit_again(struct commits *c)
{
    struct zqcow2_error err = {0, ""};
    int rc = commit(c, &err);

    must(c, rc == 0, err.text, rc);
    top_reads_as_before(c);
    base_reads_as_top(c);
    must(c, top_is_empty(c), "empty", 0);
    check(c, TOP, true);
    if (strcmp(c->layer[BASE].format, "raw"))
        check(c, BASE, true);
}

static bool wanted(uint64_t seed)
{
    const char *only = getenv("ZQ_SEED");

    return !only || strtoull(only, NULL, 10) == seed;
}

static struct commits world;

/* ---- tests ---- */

/* Written and committed in turn; once what was committed is kept as well. */
static void the_base_reads_as_the_image_did(void **state)
{
    struct commits *c = &world;
    unsigned done = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        if (!wanted(seed))
            continue;
        make(c, seed);
        for (unsigned i = 0; i < 3; i++, done++) {
            snprintf(c->where, sizeof(c->where), "commit %u", i);
            c->flags = i == 1 ? ZQCOW2_COMMIT_KEEP : 0;
            must(c, commit(c, NULL) == 0, "commit", i);
            top_reads_as_before(c);
            base_reads_as_top(c);
            must(c, top_is_empty(c) == !c->flags, "empty", i);
            must(c, c->flags || zqcow2_simdisk_length(c->w.disk[TOP]) <= 6u * 65536, "bytes",
                 (long)zqcow2_simdisk_length(c->w.disk[TOP]));
            check(c, TOP, true);
            write_some(c, TOP);
        }
        discard_world(c);
    }
    printf("commit: %u, none reads otherwise\n", done);
}

static void one_that_is_stopped_changes_nothing_that_is_read(void **state)
{
    struct zqcow2_error err;
    struct commits *c = &world;
    unsigned stopped = 0, stop_at = 0;
    int rc;

    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++, stop_at = 0) {
        do {
            make(c, seed);
            c->stop_at = ++stop_at;
            rc = commit(c, &err);
            must(c, rc == 0 || (rc == -ECANCELED && !strcmp(err.text, "stopped")), err.text, rc);
            must(c, top_is_empty(c) == !rc, "empty", rc);
            top_reads_as_before(c);
            stopped += rc != 0;
            c->stop_at = 0;
            commit_again(c);
            discard_world(c);
        } while (rc);
    }
    assert_true(stopped > 40);
    printf("commit: stopped %u times\n", stopped);
}

/* A disk fails for good, at each of its calls; afterwards it works again. */
static unsigned fail_one(struct commits *c, uint64_t seed, unsigned which, int error)
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
        make(c, seed);
        snprintf(c->where, sizeof(c->where), "disk %u fails at call %u", which, (unsigned)f.nth);
        must(c, zqcow2_simdisk_set_fault(c->w.disk[which], &f) == 0, "fault", 0);
        rc = commit(c, &err);
        must(c, zqcow2_simdisk_set_fault(c->w.disk[which], NULL) == 0, "fault", 0);
        must(c, rc == 0 || rc == error || rc == -EIO || rc == ZQCOW2_EDEAD, err.text, rc);
        top_reads_as_before(c);
        failed += rc != 0;
        commit_again(c);
        discard_world(c);
        if (rc == 0)
            return failed;
    }
}

static void a_disk_that_fails_leaves_what_is_read(void **state)
{
    unsigned failed = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        if (!wanted(seed))
            continue;
        failed += fail_one(&world, seed, TOP, -EIO);
        failed += fail_one(&world, seed, BASE, seed % 2 ? -EIO : -ENOSPC);
    }
    printf("commit: failed %u times\n", failed);
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
            uint64_t k = draw(c, 3) ? draw(c, states) : 0;

            must(c, zqcow2_simdisk_cut_image(cut[i], k, &c->w.disk[i]) == 0, "cut", (long)k);
        }
        check(c, TOP, false);
        top_reads_as_before(c);
        if (s % 2) { /* recovery */
            must(c, zqcow2_close(open_layer(c, TOP, ZQCOW2_OPEN_RDWR)) == 0, "close", 0);
            check(c, TOP, true);
        }
        commit_again(c);
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
        must(c, zqcow2_simdisk_cut_new(c->w.disk[i], &cut[i]) == 0, "cut", 0);
    for (unsigned n = 0; n < c->w.nr; n++) {
        for (unsigned i = 0; i < FILES; i++)
            must(c, zqcow2_simdisk_cut_seek(cut[i], c->w.log[n].at[i]) == 0, "seek", 0);
        judge_instant(c, cut, n);
    }
    for (unsigned i = 0; i < FILES; i++)
        zqcow2_simdisk_cut_free(cut[i]);
    return c->w.nr * STATES;
}

static void every_instant(void **state)
{
    struct commits *c = &world;
    unsigned judged = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 16; seed++) {
        struct layer before;

        if (!wanted(seed))
            continue;
        make(c, seed);
        before = c->layer[BASE];
        for (unsigned i = 0; i < FILES; i++)
            must(c, zqcow2_simdisk_record(c->w.disk[i]) == 0, "record", 0);
        c->w.keeps = true;
        must(c, commit(c, NULL) == 0, "commit", 0);
        c->w.keeps = false;
        c->layer[BASE] = before;
        judged += cut_everywhere(c);
        discard_world(c);
    }
    printf("commit: %u states of two files, 0 violations\n", judged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_base_reads_as_the_image_did),
        cmocka_unit_test(one_that_is_stopped_changes_nothing_that_is_read),
        cmocka_unit_test(a_disk_that_fails_leaves_what_is_read),
        cmocka_unit_test(every_instant),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
