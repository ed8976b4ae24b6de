/* SPDX-License-Identifier: MIT */
/*
 * Images with persistent bitmaps that get other sizes, and of which snapshots are applied, between
 * writes. A model knows what was asked of each sector, and what the device held.
 *
 * After each step a bitmap marks exactly what was asked for, all that is new of a device that has
 * grown, and, where it is enabled, all of a device that a snapshot was applied to. In what a power
 * loss leaves, at every position, a bitmap that is not said to be inconsistent marks every sector
 * that is not as it was when the bitmap was added or cleared. A change of the size or a snapshot
 * that is applied makes no bitmap inconsistent.
 *
 * ZQ_SEED: one world; ZQ_CUT: with it, one position
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <zqcow2/bitmap.h>
#include <zqcow2/simdisk.h>
#include <zqcow2/zqcow2.h>

#include "crash/bitmaps.h"
#include "crash/cuts.h"

#define ZONE     64u /* sectors */
#define STEPS    24u
#define STATES   5u /* per position */
#define SEEDS    12u
#define UNMARKED 201u /* the first of as many seeds again */
#define LONGER   120u /* seeds whose steps are compared only */
#define BITMAPS  3u

struct shape {
    uint32_t cluster, flags;
    bool source, zoned;
};
static const struct shape shapes[] = {
    {512, 0, false, false},
    {512, 0, true, true},
    {1024, ZQCOW2_CREATE_LAZY_REFCOUNTS, false, false},
    {1024, ZQCOW2_SIMDISK_ASYNC << 16, true, false},
    {4096, 0, false, true},
    {65536, 0, true, false},
};

enum kind { WRITE, ZEROES, RESET, REOPEN, GROW, SHRINK, TAKE, APPLY, ADD, CLEAR, TURN };

/* What the device is. */
struct device {
    uint64_t size; /* sectors */
    uint8_t holds[SECTORS];
    uint64_t wp[SECTORS / ZONE];
};

struct step {
    enum kind kind;
    uint64_t begun, ended; /* positions */
    bool changes;          /* of the device, since the image was opened */
    bool taken;
    struct device d, kept; /* kept: by the snapshot */
    struct bitmap b[BITMAPS];
};

struct world {
    const struct shape *shape;
    uint64_t seed, rng, cut, k, judged, held, lost;
    struct zqcow2_simdisk *disk;
    struct zqcow2_image *img;
    bool unmarked;
    struct step step[STEPS + 1]; /* the first one is create */
    unsigned steps;
};

static struct world world;
static const char *const names[BITMAPS] = {"a", "bitmap", "the third one of them"};

static uint64_t draw(struct world *w, uint64_t n)
{
    return cuts_draw(&w->rng, n);
}

static void must(const struct world *w, bool good, const char *what, long got)
{
    if (!good)
        fail_msg(
            "%s: %ld\nreplay: ZQ_SEED=%llu ZQ_CUT=%llu test_bitmap_sizes # state %llu, step %u",
            what, got, (unsigned long long)w->seed, (unsigned long long)w->cut,
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
    w->step[0].d.size = SECTORS / 2;
    c.virtual_size = w->step[0].d.size * SECTOR;
    c.cluster_size = w->shape->cluster;
    c.flags = w->shape->flags & 0xffff;
    if (w->shape->zoned) {
        c.zone_size = ZONE * SECTOR;
        c.conventional_zones = 3;
    }
    for (unsigned z = 0; z < SECTORS / ZONE; z++)
        w->step[0].d.wp[z] = z * ZONE;
    be = backend(w, w->disk);
    must(w, zqcow2_create(be, &c, NULL) == 0, "create", 0);
    must(w, !w->unmarked || cuts_unmark(be) == 0, "take the mark away", 0);
    must(w, zqcow2_backend_flush(be) == 0, "flush", 0);
    zqcow2_backend_close(be);
}

static void begin(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof(*w));
    w->shape = &shapes[seed % (sizeof(shapes) / sizeof(*shapes))];
    w->seed = w->rng = seed;
    w->cut = UINT64_MAX;
    w->unmarked = seed >= UNMARKED;
    create(w);
}

/* ---- the workload ---- */

static void ask(struct step *s, uint64_t at, uint64_t len)
{
    s->changes = true;
    bitmaps_ask(s->b, BITMAPS, at, len);
}

static int write_at(struct world *w, struct step *s, uint64_t at, uint64_t len, uint8_t value)
{
    static uint8_t data[SECTORS * SECTOR];

    memset(s->d.holds + at, value, (size_t)len);
    memset(data, value, (size_t)len * SECTOR);
    ask(s, at, len);
    if (!value)
        return zqcow2_write_zeroes(w->img, len * SECTOR, at * SECTOR, 0);
    return zqcow2_write(w->img, data, (size_t)len * SECTOR, at * SECTOR, 0);
}

static int change(struct world *w, struct step *s)
{
    uint64_t zone = draw(w, s->d.size / ZONE + !w->shape->zoned), end = (zone + 1) * ZONE;
    bool sequential = w->shape->zoned && zone >= 3;
    uint64_t len = 1 + draw(w, draw(w, 4) ? 12 : 200), at;
    int rc;

    if (!w->shape->zoned)
        end = s->d.size;
    at = sequential ? s->d.wp[zone] : draw(w, w->shape->zoned ? end : s->d.size);
    len = len < end - at ? len : end - at;
    if (!len)
        return 0;
    rc = write_at(w, s, at, len, s->kind == WRITE ? (uint8_t)(w->steps % 100 + 1) : 0);
    if (sequential)
        s->d.wp[zone] += len;
    return rc;
}

static int reset(struct world *w, struct step *s, uint64_t zone)
{
    uint64_t start = zone * ZONE, *wp = &s->d.wp[zone];

    memset(s->d.holds + start, 0, ZONE);
    ask(s, start, *wp - start);
    *wp = start;
    return zqcow2_zone_reset(w->img, start * SECTOR, ZONE * SECTOR, 0);
}

/* What is new is marked, also by bitmaps that are disabled, and what is cut off is forgotten. */
static void model_size(struct step *s, uint64_t to)
{
    uint64_t from = s->d.size;

    for (unsigned i = 0; i < BITMAPS; i++) {
        struct bitmap *b = &s->b[i];
        uint64_t gone = (to + (1u << b->bits) - 1) >> b->bits << b->bits;

        for (uint64_t k = from; k < to; k++)
            b->asked[k] = b->exists;
        for (uint64_t k = gone; k < SECTORS; k++)
            b->asked[k] = b->free[k] = false;
    }
    s->d.size = to;
    for (uint64_t k = to < from ? to : from; k < SECTORS; k++)
        s->d.holds[k] = 0;
    for (uint64_t z = 0; z < SECTORS / ZONE; z++) {
        if (z * ZONE >= to)
            s->d.wp[z] = z * ZONE;
    }
}

static int resize(struct world *w, struct step *s)
{
    uint64_t from = s->d.size, most = SECTORS - from, to;
    int rc = 0;

    to = s->kind == GROW ? from + draw(w, most + 1) : 1 + draw(w, from);
    if (w->shape->zoned) {
        to = (to + ZONE - 1) / ZONE * ZONE;
        to = to < 4 * ZONE ? 4 * ZONE : to;
    }
    for (uint64_t z = to / ZONE; rc == 0 && w->shape->zoned && z < from / ZONE; z++)
        rc = reset(w, s, z);
    model_size(s, to);
    s->changes |= to > from && !w->shape->zoned; /* zeros are written */
    return rc < 0 ? rc : zqcow2_resize(w->img, to * SECTOR, ZQCOW2_RESIZE_SHRINK, NULL);
}

static int snapshot(struct world *w, struct step *s)
{
    struct zqcow2_snapshot n = ZQCOW2_SNAPSHOT_INIT;
    int rc = 0;

    n.name = "kept";
    if (s->kind == TAKE) {
        if (s->taken)
            rc = zqcow2_snapshot_delete(w->img, n.name, NULL);
        s->taken = true;
        s->kept = s->d;
        return rc < 0 ? rc : zqcow2_snapshot_take(w->img, &n, NULL);
    }
    if (!s->taken)
        return 0;
    model_size(s, s->kept.size);
    s->d = s->kept;
    bitmaps_ask(s->b, BITMAPS, 0, s->d.size);
    return zqcow2_snapshot_apply(w->img, n.name, NULL);
}

/* What is not there yet is as nothing that is written. */
static void rebase(struct bitmap *b, const struct device *d)
{
    uint8_t holds[SECTORS];

    memset(holds, 255, sizeof(holds));
    memcpy(holds, d->holds, (size_t)d->size);
    bitmap_rebase(b, holds);
}

static int edit(struct world *w, struct step *s)
{
    unsigned i = (unsigned)draw(w, BITMAPS);
    struct bitmap *b = &s->b[i];

    if (!b->exists) {
        *b = (struct bitmap){.exists = true, .bits = (unsigned)draw(w, 4)};
        b->enabled = draw(w, 4);
        rebase(b, &s->d);
        return zqcow2_bitmap_add(w->img, names[i], (uint64_t)SECTOR << b->bits,
                                 b->enabled ? 0 : ZQCOW2_BITMAP_ADD_DISABLED, NULL);
    }
    if (s->kind == TURN) {
        b->enabled = !b->enabled;
        return b->enabled ? zqcow2_bitmap_enable(w->img, names[i], NULL) :
                            zqcow2_bitmap_disable(w->img, names[i], NULL);
    }
    rebase(b, &s->d);
    return zqcow2_bitmap_clear(w->img, names[i], NULL);
}

static int act(struct world *w, struct step *s)
{
    int rc;

    switch (s->kind) {
    case WRITE:
    case ZEROES: return change(w, s);
    case RESET:
        return w->shape->zoned ? reset(w, s, 3 + draw(w, s->d.size / ZONE - 3)) :
                                 zqcow2_flush(w->img);
    case REOPEN:
        rc = zqcow2_close(w->img);
        w->img = NULL;
        if (rc == 0)
            rc = try_open(w, w->disk, true, &w->img, NULL);
        s->changes = false;
        return rc;
    case GROW:
    case SHRINK: return resize(w, s);
    case TAKE:
    case APPLY: return snapshot(w, s);
    default: return edit(w, s);
    }
}

static enum kind choose(struct world *w)
{
    static const enum kind kinds[] = {WRITE,  WRITE, WRITE, WRITE, ZEROES, RESET, REOPEN, GROW,
                                      SHRINK, GROW,  TAKE,  APPLY, ADD,    CLEAR, TURN};

    return kinds[draw(w, sizeof(kinds) / sizeof(*kinds))];
}

static int run_step(struct world *w, struct step *s, const struct step *before)
{
    int rc;

    *s = *before;
    s->kind = w->steps == 1 && w->seed % 2 ? ADD : choose(w);
    s->begun = zqcow2_simdisk_position(w->disk);
    rc = act(w, s);
    s->ended = zqcow2_simdisk_position(w->disk);
    return rc;
}

/* ---- judging ---- */

static void look(const struct world *w, struct zqcow2_image *img, struct found *f)
{
    int rc = bitmaps_look(img, names, BITMAPS, f);

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
                 zqcow2_bitmap_clear(img, names[i], NULL) == ZQCOW2_ECORRUPT &&
                     zqcow2_bitmap_remove(img, names[i], NULL) == 0,
                 "remove", i);
    }
    must(w, zqcow2_write(img, sector, SECTOR, 0, 0) == 0, "write", 0);
    must(w, zqcow2_close(img) == 0, "close", 0);
    img = open_on(w, disk, false);
    look(w, img, f);
    for (unsigned i = 0; i < BITMAPS; i++)
        must(w, !f[i].lost && (!f[i].exists || !f[i].enabled || f[i].marked[0]), "kept", i);
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
    struct world *w = &world;
    unsigned compared = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= LONGER; seed++) {
        if (!wanted(seed))
            continue;
        begin(w, seed);
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
    printf("bitmap_sizes: %u steps, 0 marks missing\n", compared);
}

static void cut_seeds(uint64_t first, uint64_t last, const char *what)
{
    struct world *w = &world;
    uint64_t judged = 0, held = 0, lost = 0;

    for (uint64_t seed = first; seed <= last; seed++) {
        const struct cuts c = {
            .states = STATES, .once = true, .rng = &w->rng, .judge = judge_cut, .arg = w};

        if (!wanted(seed))
            continue;
        begin(w, seed);
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
    printf("bitmap_sizes%s: %llu crash states, 0 violations; %llu held, %llu were inconsistent\n",
           what, (unsigned long long)judged, (unsigned long long)held, (unsigned long long)lost);
}

static void every_cut(void **state)
{
    (void)state;
    cut_seeds(1, SEEDS, "");
    cut_seeds(UNMARKED, UNMARKED + SEEDS - 1, " without the mark");
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

static void fail_at(struct world *w, uint64_t seed, uint64_t nth, int error, unsigned *struck)
{
    struct zqcow2_simdisk_fault f = ZQCOW2_SIMDISK_FAULT_INIT;

    begin(w, seed);
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
    struct world *w = &world;
    unsigned struck = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        for (uint64_t nth = 1; wanted(seed) && nth < 300; nth += 1 + nth / 40) {
            fail_at(w, seed, nth, -5, &struck);
            fail_at(w, seed, nth, -28, &struck);
        }
    }
    printf("bitmap_sizes: %u errors struck a step\n", struck);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_step),
        cmocka_unit_test(every_cut),
        cmocka_unit_test(every_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
