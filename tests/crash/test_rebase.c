/* SPDX-License-Identifier: MIT */
/*
 * Images put on other backing files: what they read as is compared with a model of plain bytes,
 * when all goes well, when it is stopped, and in what a power loss leaves at every position of it.
 * Each such file is opened, checked, and the rebase begun again.
 *
 * ZQ_SEED: one world; ZQ_CUT: with it, one position
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <zqcow2/chain.h>
#include <zqcow2/simdisk.h>

#include "crash/cuts.h"

#define ROOM   (512u << 10)
#define FILES  4u /* the image; the old backing file and the one below that; the new one */
#define STATES 6u /* per position */
#define WRITES 8u
#define LONG   340u /* of a name: there is room for it in clusters of 512 bytes */

enum { IMAGE, OLD, LOWEST, NEW };

struct file {
    struct zqcow2_simdisk *disk;
    const char *format;
    uint64_t size;
    uint8_t want[ROOM]; /* what it reads as, with all that is below it */
};

struct world {
    struct file file[FILES];
    uint64_t seed, rng, cut, k, judged;
    const char *to; /* the new backing file, or NULL */
    long stop_at;   /* this call of progress() stops it; 0: none does */
    long calls;
    char name[4][LONG + 1]; /* in turn */
    unsigned named;
};

static uint64_t draw(struct world *w, uint64_t n)
{
    return cuts_draw(&w->rng, n);
}

/* The first character names the file. A long name does not fit beside all extensions. */
static const char *long_name(struct world *w, unsigned file, size_t len)
{
    char *name = w->name[w->named++ % 4];

    memset(name, 'x', len);
    name[0] = (char)('0' + file);
    name[len] = '\0';
    return name;
}

static const char *name_of(struct world *w, unsigned file)
{
    return long_name(w, file, draw(w, 2) ? 1 : LONG - draw(w, 100));
}

static void must(const struct world *w, bool good, const char *what, long got)
{
    if (!good)
        fail_msg("%s: %ld\nreplay: ZQ_SEED=%llu ZQ_CUT=%llu test_rebase # state %llu", what, got,
                 (unsigned long long)w->seed, (unsigned long long)w->cut, (unsigned long long)w->k);
}

static struct zqcow2_backend *backend(const struct world *w, struct zqcow2_simdisk *disk)
{
    struct zqcow2_backend *be;

    must(w, zqcow2_simdisk_backend(disk, &be) == 0, "backend", 0);
    return be;
}

static int resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    struct world *w = arg;
    const struct file *f = &w->file[name[0] - '0'];

    (void)depth;
    (void)err;
    must(w, !strcmp(format, f->format), "format", 0);
    *be = backend(w, f->disk);
    return 0;
}

static struct zqcow2_image *open_on(struct world *w, struct zqcow2_simdisk *disk, bool rw)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img = NULL;
    struct zqcow2_error err = {0, ""};
    int rc;

    o.flags = rw ? ZQCOW2_OPEN_RDWR : 0;
    o.resolve = resolve;
    o.resolve_arg = w;
    rc = zqcow2_open(backend(w, disk), &o, &img, &err);
    must(w, rc == 0, err.text, rc);
    return img;
}

/* ---- making the files ---- */

/* Some bytes of one value, so that two files have bytes in common. */
static void write_some(struct world *w, struct file *f, struct zqcow2_image *img)
{
    static uint8_t data[ROOM];

    for (unsigned i = 0; i < WRITES; i++) {
        uint64_t off = draw(w, f->size / 512) * 512, len = (1 + draw(w, 60)) * 512;
        int rc;

        len = len < f->size - off ? len : f->size - off;
        memset(data, (int)draw(w, 3), sizeof(data));
        memcpy(f->want + off, data, len);
        if (!img) {
            struct zqcow2_backend *be = backend(w, f->disk);

            rc = zqcow2_backend_write(be, data, len, off);
            zqcow2_backend_close(be);
        } else if (!data[0]) {
            rc = zqcow2_write_zeroes(img, len, off, 0);
        } else {
            rc = zqcow2_write(img, data, len, off, 0);
        }
        must(w, rc == 0, "write", rc);
    }
}

static void make_disk(struct world *w, struct file *f)
{
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;

    d.seed = w->seed;
    must(w, zqcow2_simdisk_new(&d, &f->disk) == 0, "disk", 0);
    f->size = (1 + draw(w, ROOM / 512)) * 512;
}

static void make_raw(struct world *w, struct file *f)
{
    static const uint8_t end[512];
    struct zqcow2_backend *be;

    make_disk(w, f);
    f->format = "raw";
    be = backend(w, f->disk);
    must(w, zqcow2_backend_write(be, end, 512, f->size - 512) == 0, "raw", 0);
    zqcow2_backend_close(be);
    write_some(w, f, NULL);
}

static void make_qcow2(struct world *w, struct file *f, const char *below)
{
    static const uint32_t clusters[] = {512, 4096, 65536, 16384};
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_image *img;
    struct zqcow2_backend *be;
    int rc;

    make_disk(w, f);
    f->format = "qcow2";
    c.virtual_size = f->size;
    c.cluster_size = clusters[draw(w, 4)];
    c.flags = c.cluster_size == 16384 ? ZQCOW2_CREATE_EXTENDED_L2 : 0;
    if (below) {
        const struct file *b = &w->file[below[0] - '0'];

        c.backing_name = below;
        c.backing_format = b->format;
        memcpy(f->want, b->want, b->size < f->size ? b->size : f->size);
    }
    be = backend(w, f->disk);
    rc = zqcow2_create(be, &c, NULL);
    zqcow2_backend_close(be);
    must(w, rc == 0, "create", rc);
    img = open_on(w, f->disk, true);
    write_some(w, f, img);
    must(w, zqcow2_close(img) == 0, "close", 0);
}

static void make(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof(*w));
    w->seed = w->rng = seed;
    make_raw(w, &w->file[LOWEST]);
    make_qcow2(w, &w->file[OLD], draw(w, 2) ? "2" : NULL);
    if (draw(w, 3))
        make_qcow2(w, &w->file[NEW], draw(w, 2) ? "2" : NULL);
    else
        make_raw(w, &w->file[NEW]);
    make_qcow2(w, &w->file[IMAGE], draw(w, 5) ? name_of(w, OLD) : NULL);
    w->to = draw(w, 3) ? name_of(w, NEW) : NULL;
}

static void discard(struct world *w)
{
    for (unsigned i = 0; i < FILES; i++)
        zqcow2_simdisk_free(w->file[i].disk);
}

/* ---- judging ---- */

static int progress(void *arg, uint64_t done, uint64_t total)
{
    struct world *w = arg;

    must(w, done <= total && total == w->file[IMAGE].size, "progress", (long)done);
    return ++w->calls == w->stop_at;
}

static int rebase(struct world *w, struct zqcow2_simdisk *disk, const char *to)
{
    struct zqcow2_rebase_options o = ZQCOW2_REBASE_OPTIONS_INIT;
    struct zqcow2_backend *be = backend(w, disk);
    struct zqcow2_error err = {0, ""};
    int rc;

    o.backing_name = to;
    o.backing_format = to ? w->file[to[0] - '0'].format : NULL;
    o.resolve = resolve;
    o.resolve_arg = w;
    o.progress = progress;
    o.progress_arg = w;
    rc = zqcow2_rebase(be, &o, &err);
    zqcow2_backend_close(be);
    must(w, rc == 0 || (rc == -ECANCELED && !strcmp(err.text, "stopped")), err.text, rc);
    return rc;
}

static void check(struct world *w, struct zqcow2_simdisk *disk, bool clean)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be = backend(w, disk);

    must(w, zqcow2_check(be, NULL, &res, NULL) == 0, "check", 0);
    must(w, !res.corruptions, "corruptions", (long)res.corruptions);
    must(w, !clean || !res.leaked_clusters, "leaks", (long)res.leaked_clusters);
    zqcow2_backend_close(be);
}

/* Reads as before. Is it on the new backing file? */
static bool is_moved(struct world *w, struct zqcow2_simdisk *disk)
{
    static uint8_t got[ROOM];
    const struct file *f = &w->file[IMAGE];
    struct zqcow2_backing b = ZQCOW2_BACKING_INIT;
    struct zqcow2_image *img = open_on(w, disk, false);

    must(w, zqcow2_read(img, got, f->size, 0) == 0, "read", 0);
    for (uint64_t i = 0; i < f->size; i++)
        must(w, got[i] == f->want[i], "byte", (long)i);
    must(w, zqcow2_get_backing(img, &b) == 0, "backing", 0);
    must(w, zqcow2_close(img) == 0, "close", 0);
    return !strcmp(b.name, w->to ? w->to : "");
}

static void judge(struct world *w, struct zqcow2_simdisk *disk)
{
    check(w, disk, false);
    is_moved(w, disk);
    must(w, rebase(w, disk, w->to) == 0, "again", 0);
    must(w, is_moved(w, disk), "moved", 0);
    check(w, disk, true);
    w->judged++;
}

static void judge_cut(void *arg, uint64_t cut, uint64_t k, struct zqcow2_simdisk *image)
{
    struct world *w = arg;

    w->cut = cut;
    w->k = k;
    judge(w, image);
}

static void judge_all(struct world *w)
{
    const struct cuts c = {
        .states = STATES, .once = true, .rng = &w->rng, .judge = judge_cut, .arg = w};

    must(w, cuts_judge_all(&c, w->file[IMAGE].disk) == 0, "cut", 0);
}

static bool wanted(uint64_t seed)
{
    const char *only = getenv("ZQ_SEED");

    return !only || strtoull(only, NULL, 10) == seed;
}

static struct world world;

/* There and back again, and at last on nothing. */
static void an_image_reads_as_before(void **state)
{
    struct world *w = &world;
    unsigned rebased = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        static const unsigned stops[] = {NEW, OLD, LOWEST, IMAGE, NEW, IMAGE}; /* IMAGE: none */

        if (!wanted(seed))
            continue;
        make(w, seed);
        for (unsigned i = 0; i < sizeof(stops) / sizeof(stops[0]); i++) {
            w->to = stops[i] == IMAGE ? NULL : name_of(w, stops[i]);
            must(w, rebase(w, w->file[IMAGE].disk, w->to) == 0, "rebase", i);
            must(w, is_moved(w, w->file[IMAGE].disk), "moved", i);
            check(w, w->file[IMAGE].disk, true);
            rebased++;
        }
        discard(w);
    }
    printf("rebase: %u, none reads otherwise\n", rebased);
}

static void one_that_is_stopped_changes_nothing(void **state)
{
    struct world *w = &world;
    unsigned stopped = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        int rc;

        make(w, seed);
        w->to = name_of(w, NEW);
        do {
            w->calls = 0;
            w->stop_at++;
            rc = rebase(w, w->file[IMAGE].disk, w->to);
            must(w, is_moved(w, w->file[IMAGE].disk) == !rc, "moved", w->stop_at);
            check(w, w->file[IMAGE].disk, true);
            stopped += rc != 0;
        } while (rc);
        discard(w);
    }
    assert_true(stopped > 40);
    printf("rebase: stopped %u times\n", stopped);
}

static void every_cut(void **state)
{
    struct world *w = &world;
    uint64_t judged = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 18; seed++) {
        if (!wanted(seed))
            continue;
        make(w, seed);
        for (unsigned i = 0; i < seed % 3; i++) /* then the new name has to make way for the old */
            must(w, rebase(w, w->file[IMAGE].disk, long_name(w, OLD, LONG)) == 0, "before", i);
        must(w, zqcow2_simdisk_record(w->file[IMAGE].disk) == 0, "record", 0);
        must(w, rebase(w, w->file[IMAGE].disk, w->to) == 0, "rebase", 0);
        judge_all(w);
        judged += w->judged;
        discard(w);
    }
    printf("rebase: %llu crash states, 0 violations\n", (unsigned long long)judged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_image_reads_as_before),
        cmocka_unit_test(one_that_is_stopped_changes_nothing),
        cmocka_unit_test(every_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
