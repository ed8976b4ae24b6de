/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "crash/bitmap_steps.h"
#include "crash/cuts.h"

#define STATES   5u   /* per position */
#define UNMARKED 201u /* the first of as many seeds again */

static const struct shape shapes[] = {
    {512, 0, false, false},
    {512, 0, true, true},
    {1024, ZQCOW2_CREATE_LAZY_REFCOUNTS, false, false},
    {1024, ZQCOW2_SIMDISK_ASYNC << 16, true, false},
    {4096, 0, false, true},
    {65536, 0, true, false},
};

static struct world world;
const char *const bitmap_names[BITMAPS] = {"a", "bitmap", "the third one of them"};

uint64_t bitmap_draw(struct world *w, uint64_t n)
{
    return cuts_draw(&w->rng, n);
}

static void must(const struct world *w, bool good, const char *what, long got)
{
    if (!good)
        fail_msg("%s: %ld\nreplay: ZQ_SEED=%llu ZQ_CUT=%llu test_%s # state %llu, step %u", what,
                 got, (unsigned long long)w->seed, (unsigned long long)w->cut, w->kind->name,
                 (unsigned long long)w->k, w->steps);
}

static struct zqcow2_backend *backend(const struct world *w, struct zqcow2_simdisk *disk)
{
    struct zqcow2_backend *be;

    must(w, zqcow2_simdisk_backend(disk, &be) == 0, "backend", 0);
    return be;
}

static int try_open(struct world *w, struct zqcow2_simdisk *disk, bool rw,
                    struct zqcow2_image **img, struct zqcow2_error *err)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be = backend(w, disk);
    int rc;

    o.flags = ZQCOW2_OPEN_NOLOCK | (rw ? ZQCOW2_OPEN_RDWR : 0);
    o.cache_bytes = w->seed % 3 ? 0 : 1;
    rc = zqcow2_open(be, &o, img, err);
    if (rc < 0)
        zqcow2_backend_close(be);
    return rc;
}

static struct zqcow2_image *open_on(struct world *w, struct zqcow2_simdisk *disk, bool rw)
{
    struct zqcow2_image *img = NULL;
    struct zqcow2_error err = {0, ""};
    int rc = try_open(w, disk, rw, &img, &err);

    must(w, rc == 0, err.text[0] ? err.text : "open", rc);
    return img;
}

static void create(struct world *w)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_backend *be;

    d.seed = w->seed;
    d.flags = w->shape->flags >> 16;
    must(w, zqcow2_simdisk_new(&d, &w->disk) == 0, "disk", 0);
    w->step[0].d.size = w->kind->size;
    c.virtual_size = w->step[0].d.size * SECTOR;
    c.cluster_size = w->shape->cluster;
    c.flags = w->shape->flags & 0xffff;
    if (w->shape->zoned) {
        c.zone_size = ZONE * SECTOR;
        c.conventional_zones = CONV;
    }
    for (unsigned z = 0; z < SECTORS / ZONE; z++)
        w->step[0].d.wp[z] = z * ZONE;
    be = backend(w, w->disk);
    must(w, zqcow2_create(be, &c, NULL) == 0, "create", 0);
    must(w, !w->unmarked || cuts_unmark(be) == 0, "take the mark away", 0);
    must(w, zqcow2_backend_flush(be) == 0, "flush", 0);
    zqcow2_backend_close(be);
}

static void begin(struct world *w, const struct kind *kind, uint64_t seed)
{
    memset(w, 0, sizeof(*w));
    w->kind = kind;
    w->shape = &shapes[seed % (sizeof(shapes) / sizeof(*shapes))];
    w->seed = w->rng = seed;
    w->cut = UINT64_MAX;
    w->unmarked = seed >= UNMARKED;
    create(w);
}

/* ---- the workload ---- */

void bitmap_ask(struct step *s, uint64_t at, uint64_t len)
{
    s->changes = true;
    bitmaps_ask(s->b, BITMAPS, at, len);
}

int bitmap_write(struct world *w, struct step *s, uint64_t at, uint64_t len, uint8_t value)
{
    static uint8_t data[SECTORS * SECTOR];

    memset(s->d.holds + at, value, (size_t)len);
    memset(data, value, (size_t)len * SECTOR);
    bitmap_ask(s, at, len);
    if (!value)
        return zqcow2_write_zeroes(w->img, len * SECTOR, at * SECTOR, 0);
    return zqcow2_write(w->img, data, (size_t)len * SECTOR, at * SECTOR, 0);
}

int bitmap_reset_zone(struct world *w, struct step *s, uint64_t zone)
{
    uint64_t start = zone * ZONE, *wp = &s->d.wp[zone];

    memset(s->d.holds + start, 0, ZONE);
    bitmap_ask(s, start, *wp - start);
    *wp = start;
    return zqcow2_zone_reset(w->img, start * SECTOR, ZONE * SECTOR, 0);
}

/* All that is in memory ends, and so do the changes that make a bitmap inconsistent. */
int bitmap_reopen(struct world *w, struct step *s)
{
    int rc = zqcow2_close(w->img);

    w->img = NULL;
    if (rc == 0)
        rc = try_open(w, w->disk, true, &w->img, NULL);
    s->changes = false;
    return rc;
}

static int run_step(struct world *w, struct step *s, const struct step *before)
{
    int rc;

    *s = *before;
    s->kind = w->kind->choose(w);
    s->begun = zqcow2_simdisk_position(w->disk);
    rc = w->kind->act(w, s);
    s->ended = zqcow2_simdisk_position(w->disk);
    return rc;
}

/* ---- judging ---- */

static void look(const struct world *w, struct zqcow2_image *img, struct found *f)
{
    int rc = bitmaps_look(img, bitmap_names, BITMAPS, f);

    must(w, rc == 0, "list", rc);
}

/* As the step has left them. */
static void is_as(const struct world *w, struct zqcow2_image *img, const struct step *s)
{
    static struct found f[BITMAPS];

    look(w, img, f);
    for (unsigned i = 0; i < BITMAPS; i++) {
        const struct bitmap *b = &s->b[i];

        must(w, f[i].exists == b->exists, "exists", i);
        if (!b->exists)
            continue;
        must(w, !f[i].lost && f[i].enabled == b->enabled, "flags", i);
        must(w, f[i].granularity == (uint64_t)SECTOR << b->bits, "granularity", i);
        for (uint64_t k = 0; k < s->d.size; k++)
            must(w, bitmap_asked(b, k) ? f[i].marked[k] : w->shape->zoned || !f[i].marked[k],
                 "mark", (long)k);
    }
}

static void check(const struct world *w, struct zqcow2_simdisk *disk, bool clean)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be = backend(w, disk);

    o.flags = ZQCOW2_CHECK_NOLOCK;
    must(w, zqcow2_check(be, &o, &res, NULL) == 0, "check", 0);
    must(w, !res.corruptions || (!clean && w->shape->flags & ZQCOW2_CREATE_LAZY_REFCOUNTS),
         "corruptions", (long)res.corruptions);
    must(w, !clean || !res.leaked_clusters, "leaks", (long)res.leaked_clusters);
    zqcow2_backend_close(be);
}

/* Each is as the last step that has ended left it, or as the one that was under way does. */
static void judge_bitmaps(struct world *w, struct zqcow2_image *img)
{
    static struct found f[BITMAPS];
    static uint8_t got[SECTORS];
    uint32_t last = 0, next;
    uint64_t n;

    must(w, bitmaps_content(img, got, &n) == 0, "read", 0);
    while (last < w->steps && w->step[last + 1].ended <= w->cut)
        last++;
    next = last < w->steps && w->step[last + 1].begun < w->cut ? last + 1 : last;
    look(w, img, f);
    for (unsigned i = 0; i < BITMAPS; i++) {
        must(w,
             bitmap_fits(&f[i], &w->step[last].b[i], got, n) ||
                 bitmap_fits(&f[i], &w->step[next].b[i], got, n),
             "a bitmap", i);
        must(w, !f[i].lost || w->step[last].changes || w->step[next].changes,
             "lost without a change", i);
        w->held += f[i].exists && !f[i].lost;
        w->lost += f[i].lost;
    }
}

/* What holds goes on being kept, and what does not can be removed. */
static void use(struct world *w, struct zqcow2_simdisk *disk)
{
    static struct found f[BITMAPS];
    struct zqcow2_image *img = open_on(w, disk, true);
    uint8_t sector[SECTOR] = {7};

    judge_bitmaps(w, img);
    look(w, img, f);
    for (unsigned i = 0; i < BITMAPS; i++) {
        if (f[i].lost)
            must(w,
                 zqcow2_bitmap_clear(img, bitmap_names[i], NULL) == ZQCOW2_ECORRUPT &&
                     zqcow2_bitmap_remove(img, bitmap_names[i], NULL) == 0,
                 "remove", i);
    }
    must(w, zqcow2_write(img, sector, SECTOR, w->kind->used * SECTOR, 0) == 0, "write", 0);
    must(w, zqcow2_close(img) == 0, "close", 0);
    img = open_on(w, disk, false);
    look(w, img, f);
    for (unsigned i = 0; i < BITMAPS; i++)
        must(w, !f[i].lost && (!f[i].exists || !f[i].enabled || f[i].marked[w->kind->used]), "kept",
             i);
    must(w, zqcow2_close(img) == 0, "close", 0);
}

static void judge(struct world *w, struct zqcow2_simdisk *disk)
{
    struct zqcow2_image *img = open_on(w, disk, false);

    judge_bitmaps(w, img);
    must(w, zqcow2_close(img) == 0, "close", 0);
    if (!w->unmarked)
        check(w, disk, false);
    use(w, disk);
    if (!w->unmarked) /* where there is no mark, what writes have taken may be lost */
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

/* ---- the tests ---- */

static bool wanted(uint64_t seed)
{
    const char *only = getenv("ZQ_SEED");
    return !only || strtoull(only, NULL, 10) == seed;
}

static void every_step(void **state)
{
    const struct kind *kind = *state;
    struct world *w = &world;
    unsigned compared = 0;

    for (uint64_t seed = 1; seed <= kind->longer; seed++) {
        if (!wanted(seed))
            continue;
        begin(w, kind, seed);
        w->img = open_on(w, w->disk, true);
        while (w->steps < STEPS) {
            struct step *s = &w->step[++w->steps];
            int rc = run_step(w, s, s - 1);

            must(w, rc == 0, "step", rc);
            is_as(w, w->img, s);
            compared++;
        }
        must(w, zqcow2_close(w->img) == 0, "close", 0);
        check(w, w->disk, true);
        w->img = open_on(w, w->disk, false);
        is_as(w, w->img, &w->step[STEPS]);
        must(w, zqcow2_close(w->img) == 0, "close", 0);
        zqcow2_simdisk_free(w->disk);
    }
    printf("%s: %u steps, 0 marks missing\n", kind->name, compared);
}

static void cut_seeds(const struct kind *kind, uint64_t first, const char *what)
{
    struct world *w = &world;
    uint64_t judged = 0, held = 0, lost = 0;

    for (uint64_t seed = first; seed < first + kind->seeds; seed++) {
        const struct cuts c = {
            .states = STATES, .once = true, .rng = &w->rng, .judge = judge_cut, .arg = w};

        if (!wanted(seed))
            continue;
        begin(w, kind, seed);
        must(w, zqcow2_simdisk_record(w->disk) == 0, "record", 0);
        w->img = open_on(w, w->disk, true);
        while (w->steps < STEPS) {
            struct step *s = &w->step[++w->steps];
            int rc = run_step(w, s, s - 1);

            must(w, rc == 0, "step", rc);
        }
        must(w, zqcow2_close(w->img) == 0, "close", 0);
        must(w, cuts_judge_all(&c, w->disk) == 0, "cut", 0);
        judged += w->judged;
        held += w->held;
        lost += w->lost;
        zqcow2_simdisk_free(w->disk);
    }
    printf("%s%s: %llu crash states, 0 violations; %llu held, %llu were inconsistent\n", kind->name,
           what, (unsigned long long)judged, (unsigned long long)held, (unsigned long long)lost);
}

static void every_cut(void **state)
{
    cut_seeds(*state, 1, "");
    cut_seeds(*state, UNMARKED, " without the mark");
}

/* Until the step after which the fault strikes; true: it has struck. */
static bool run_until_struck(struct world *w)
{
    while (w->steps < STEPS) {
        struct step *s = &w->step[++w->steps];

        if (run_step(w, s, s - 1) < 0)
            return true;
    }
    return false;
}

static void fail_at(struct world *w, const struct kind *kind, uint64_t seed, uint64_t nth,
                    int error, unsigned *struck)
{
    struct zqcow2_simdisk_fault f = ZQCOW2_SIMDISK_FAULT_INIT;

    begin(w, kind, seed);
    w->img = open_on(w, w->disk, true);
    f.nth = nth;
    f.kinds = error == -28 ? 1u << ZQCOW2_IO_WRITE | 1u << ZQCOW2_IO_TRUNCATE :
                             1u << ZQCOW2_IO_WRITE | 1u << ZQCOW2_IO_FLUSH |
                                 1u << ZQCOW2_IO_TRUNCATE | 1u << ZQCOW2_IO_READ;
    f.error = error;
    must(w, zqcow2_simdisk_set_fault(w->disk, &f) == 0, "fault", 0);
    *struck += run_until_struck(w);
    must(w, zqcow2_simdisk_set_fault(w->disk, NULL) == 0, "fault", 0);
    w->step[w->steps].ended = UINT64_MAX;
    if (w->img)
        (void)zqcow2_close(w->img);
    w->cut = UINT64_MAX - 1;
    judge(w, w->disk);
    zqcow2_simdisk_free(w->disk);
}

static void every_error(void **state)
{
    const struct kind *kind = *state;
    struct world *w = &world;
    unsigned struck = 0;

    for (uint64_t seed = 1; seed <= 6; seed++) {
        for (uint64_t nth = 1; wanted(seed) && nth < 300; nth += 1 + nth / 40) {
            fail_at(w, kind, seed, nth, -5, &struck);
            fail_at(w, kind, seed, nth, -28, &struck);
        }
    }
    printf("%s: %u errors struck a step\n", kind->name, struck);
}

int bitmap_steps_main(const struct kind *kind)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(every_step, (void *)(uintptr_t)kind),
        cmocka_unit_test_prestate(every_cut, (void *)(uintptr_t)kind),
        cmocka_unit_test_prestate(every_error, (void *)(uintptr_t)kind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
