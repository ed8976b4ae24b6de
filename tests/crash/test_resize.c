/* SPDX-License-Identifier: MIT */
/*
 * Plain images that grow and shrink between writes, with and without a backing file that is longer
 * than they are, and with snapshots: what they read as is compared with a model of sectors after
 * every step, in what a power loss leaves at every position, and after an error of every call.
 *
 * Seeds from UNMARKED on are cut in images without our mark, as other programs make them: what a
 * resize leaves is found by the next open for writing there, too (N9).
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

#include <zqcow2/simdisk.h>
#include <zqcow2/zqcow2.h>

#include "crash/cuts.h"

#define SECTOR   512u
#define SECTORS  640u /* the largest device: of 512-byte clusters, ten entries of L1 */
#define STEPS    24u
#define STATES   5u /* per position */
#define SEEDS    16u
#define UNMARKED 201u /* the first of as many seeds again */
#define LONGER   120u /* seeds whose steps are compared only */
#define BELOW    0xbb
#define FAULT    (UINT64_MAX - 1) /* for the cut: the file may keep what is free at its end */

struct shape {
    uint32_t cluster, flags;
    bool source;
};
static const struct shape shapes[] = {
    {512, 0, false},
    {512, 0, true},
    {1024, ZQCOW2_CREATE_LAZY_REFCOUNTS, false},
    {1024, ZQCOW2_SIMDISK_ASYNC << 16, true},
    {4096, 0, true},
    {65536, 0, false},
};

enum kind { WRITE, ZEROES, DISCARD, FLUSH, GROW, SHRINK, TAKE, DELETE };

struct step {
    enum kind kind;
    uint64_t begun, ended; /* positions */
    uint64_t size;         /* after it, in sectors */
    uint8_t holds[SECTORS];
};

struct world {
    const struct shape *shape;
    uint64_t seed, rng, cut, k, judged;
    struct zqcow2_simdisk *disk, *below;
    struct zqcow2_image *img;
    bool taken, unmarked;
    struct step step[STEPS + 1]; /* the first one is create */
    unsigned steps, resized;
};

static struct world world;

static uint64_t draw(struct world *w, uint64_t n)
{
    return cuts_draw(&w->rng, n);
}

static void must(const struct world *w, bool good, const char *what, long got)
{
    if (!good)
        fail_msg("%s: %ld\nreplay: ZQ_SEED=%llu ZQ_CUT=%llu test_resize # state %llu, step %u",
                 what, got, (unsigned long long)w->seed, (unsigned long long)w->cut,
                 (unsigned long long)w->k, w->steps);
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
    const struct world *w = arg;

    (void)name;
    (void)depth;
    (void)err;
    must(w, !strcmp(format, "raw"), "format", 0);
    *be = backend(w, w->below);
    return 0;
}

static int try_open(struct world *w, struct zqcow2_simdisk *disk, bool rw,
                    struct zqcow2_image **img)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be = backend(w, disk);
    int rc;

    o.flags = ZQCOW2_OPEN_NOLOCK | (rw ? ZQCOW2_OPEN_RDWR : 0);
    o.cache_bytes = w->seed % 3 ? 0 : 1;
    o.resolve = resolve;
    o.resolve_arg = w;
    rc = zqcow2_open(be, &o, img, NULL);
    if (rc < 0)
        zqcow2_backend_close(be);
    return rc;
}

static struct zqcow2_image *open_on(struct world *w, struct zqcow2_simdisk *disk, bool rw)
{
    struct zqcow2_image *img = NULL;
    int rc = try_open(w, disk, rw, &img);

    must(w, rc == 0, "open", rc);
    return img;
}

static void make_below(struct world *w)
{
    static uint8_t data[SECTORS * SECTOR];
    struct zqcow2_backend *be;

    must(w, zqcow2_simdisk_new(NULL, &w->below) == 0, "disk", 0);
    be = backend(w, w->below);
    memset(data, BELOW, sizeof(data));
    must(w, zqcow2_backend_write(be, data, sizeof(data), 0) == 0, "write below", 0);
    zqcow2_backend_close(be);
}

static void create(struct world *w)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct step *first = &w->step[0];
    struct zqcow2_backend *be;

    d.seed = w->seed;
    d.flags = w->shape->flags >> 16;
    must(w, zqcow2_simdisk_new(&d, &w->disk) == 0, "disk", 0);
    make_below(w);
    first->size = 1 + draw(w, SECTORS / 2);
    memset(first->holds, w->shape->source ? BELOW : 0, (size_t)first->size);
    c.virtual_size = first->size * SECTOR;
    c.cluster_size = w->shape->cluster;
    c.flags = w->shape->flags & 0xffff;
    c.backing_name = w->shape->source ? "below" : NULL;
    c.backing_format = w->shape->source ? "raw" : NULL;
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

static void discard_world(struct world *w)
{
    zqcow2_simdisk_free(w->disk);
    zqcow2_simdisk_free(w->below);
}

/* ---- the workload ---- */

/* A range of the device; long ones now and then. */
static uint64_t range(struct world *w, const struct step *s, uint64_t *len)
{
    uint64_t at = draw(w, s->size), most = s->size - at;

    *len = 1 + draw(w, draw(w, 4) ? 12 : 200);
    *len = *len < most ? *len : most;
    return at;
}

/* Clusters that are covered whole; the last one may be short. */
static void model_discard(const struct world *w, struct step *s, uint64_t at, uint64_t len)
{
    uint64_t per = w->shape->cluster / SECTOR;

    for (uint64_t c = (at + per - 1) / per * per; c < at + len; c += per) {
        uint64_t end = c + per < s->size ? c + per : s->size;

        if (end <= at + len)
            memset(s->holds + c, 0, (size_t)(end - c));
    }
}

static int change(struct world *w, struct step *s, uint8_t value)
{
    static uint8_t data[SECTORS * SECTOR];
    uint64_t len, at = range(w, s, &len);

    if (s->kind == DISCARD) {
        model_discard(w, s, at, len);
        return zqcow2_discard(w->img, len * SECTOR, at * SECTOR, 0);
    }
    memset(s->holds + at, s->kind == WRITE ? value : 0, (size_t)len);
    if (s->kind == ZEROES)
        return zqcow2_write_zeroes(w->img, len * SECTOR, at * SECTOR, 0);
    memset(data, value, (size_t)len * SECTOR);
    return zqcow2_write(w->img, data, (size_t)len * SECTOR, at * SECTOR, 0);
}

/* What is cut off is gone, what is new is zeros; 3 of 4 that grow are preallocated. */
static int resize(struct world *w, struct step *s)
{
    uint64_t to = s->kind == GROW ? s->size + draw(w, SECTORS - s->size + 1) : 1 + draw(w, s->size);

    s->size = to;
    memset(s->holds + to, 0, (size_t)(SECTORS - to));
    w->resized++;
    return zqcow2_resize(w->img, to * SECTOR,
                         s->kind == SHRINK ? ZQCOW2_RESIZE_SHRINK : 2u << draw(w, 4) & 0x1c, NULL);
}

static int snapshot(struct world *w, const struct step *s)
{
    struct zqcow2_snapshot n = ZQCOW2_SNAPSHOT_INIT;

    if ((s->kind == TAKE) == w->taken)
        return 0;
    w->taken = s->kind == TAKE;
    n.name = "kept";
    return w->taken ? zqcow2_snapshot_take(w->img, &n, NULL) :
                      zqcow2_snapshot_delete(w->img, "kept", NULL);
}

static int act(struct world *w, struct step *s)
{
    switch (s->kind) {
    case WRITE:
    case ZEROES:
    case DISCARD: return change(w, s, (uint8_t)(w->steps % 100 + 1));
    case FLUSH: return zqcow2_flush(w->img);
    case TAKE:
    case DELETE: return snapshot(w, s);
    default: return resize(w, s);
    }
}

static enum kind choose(struct world *w)
{
    static const enum kind kinds[] = {WRITE, WRITE, WRITE,  WRITE,  ZEROES, DISCARD, FLUSH,
                                      GROW,  GROW,  SHRINK, SHRINK, TAKE,   DELETE};

    return kinds[draw(w, sizeof(kinds) / sizeof(*kinds))];
}

/* The next step, of a step buffer that may be used again. */
static int run_step(struct world *w, struct step *s, const struct step *before)
{
    int rc;

    *s = *before;
    s->kind = choose(w);
    if (w->unmarked && s->kind >= GROW) { /* or a crash costs what writes have taken */
        must(w, zqcow2_close(w->img) == 0, "close", 0);
        w->img = open_on(w, w->disk, true);
    }
    s->begun = zqcow2_simdisk_position(w->disk);
    rc = act(w, s);
    s->ended = zqcow2_simdisk_position(w->disk);
    return rc;
}

/* ---- judging ---- */

static uint64_t size_of(const struct world *w, struct zqcow2_image *img)
{
    struct zqcow2_info i = ZQCOW2_INFO_INIT;

    must(w, zqcow2_get_info(img, &i) == 0, "info", 0);
    must(w, i.virtual_size % SECTOR == 0, "size", (long)i.virtual_size);
    return i.virtual_size / SECTOR;
}

static const uint8_t *content(const struct world *w, struct zqcow2_image *img, uint64_t size)
{
    static uint8_t data[SECTORS * SECTOR], one[SECTORS];
    int rc = zqcow2_read(img, data, (size_t)size * SECTOR, 0);

    must(w, rc == 0, "read", rc);
    for (uint64_t i = 0; i < size * SECTOR; i++)
        must(w, data[i] == data[i / SECTOR * SECTOR], "a torn sector", (long)i);
    for (uint64_t i = 0; i < size; i++)
        one[i] = data[i * SECTOR];
    return one;
}

/* All of it is as the step has left it. */
static void is_as(const struct world *w, struct zqcow2_image *img, const struct step *s)
{
    const uint8_t *got;

    must(w, size_of(w, img) == s->size, "size", (long)size_of(w, img));
    got = content(w, img, s->size);
    for (uint64_t i = 0; i < s->size; i++)
        must(w, got[i] == s->holds[i], "sector", (long)i);
    must(w, zqcow2_read(img, (uint8_t[SECTOR]){0}, SECTOR, s->size * SECTOR) == -EINVAL,
         "read behind the end", 0);
}

static void check(const struct world *w, struct zqcow2_simdisk *disk, bool clean)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be = backend(w, disk);
    uint64_t bytes;

    o.flags = ZQCOW2_CHECK_NOLOCK;
    must(w, zqcow2_check(be, &o, &res, NULL) == 0, "check", 0);
    /* Under the dirty bit of lazy refcounts counts may be low until the next open. */
    must(w, !res.corruptions || (!clean && w->shape->flags & ZQCOW2_CREATE_LAZY_REFCOUNTS),
         "corruptions", (long)res.corruptions);
    must(w, !clean || !res.leaked_clusters, "leaks", (long)res.leaked_clusters);
    must(w, zqcow2_backend_length(be, &bytes) == 0, "length", 0);
    must(w, !clean || w->cut == FAULT || bytes <= res.image_end_offset, "length", (long)bytes);
    zqcow2_backend_close(be);
}

/* One of the values since the last step that has made all durable. */
static bool allowed(const struct world *w, uint64_t sector, uint8_t got)
{
    bool any = got == w->step[0].holds[sector];

    for (uint32_t i = 1; i <= w->steps && w->step[i].begun < w->cut; i++) {
        const struct step *s = &w->step[i];

        if (s->kind >= FLUSH && s->kind <= SHRINK && s->ended <= w->cut)
            any = false;
        any |= got == s->holds[sector];
    }
    return any;
}

/* That of the last resize that has ended, or of one that had begun. */
static bool size_allowed(const struct world *w, uint64_t size)
{
    bool any = size == w->step[0].size;

    for (uint32_t i = 1; i <= w->steps && w->step[i].begun < w->cut; i++) {
        if (w->step[i].ended <= w->cut)
            any = false;
        any |= size == w->step[i].size;
    }
    return any;
}

/* Sectors of a device that has not shrunk yet are as before. */
static void judge_content(struct world *w, struct zqcow2_image *img)
{
    uint64_t size = size_of(w, img);
    const uint8_t *got;

    must(w, size_allowed(w, size), "size", (long)size);
    got = content(w, img, size);
    for (uint64_t i = 0; i < size; i++)
        must(w, allowed(w, i, got[i]), "sector", (long)i);
}

/* It can be used, resized and closed; nothing of what it had is seen again. */
static void use(struct world *w, struct zqcow2_simdisk *disk)
{
    struct zqcow2_image *img = open_on(w, disk, true);
    uint64_t size = size_of(w, img), half = (size + 1) / 2;
    const uint8_t *got;

    judge_content(w, img);
    must(w, zqcow2_resize(img, half * SECTOR, ZQCOW2_RESIZE_SHRINK, NULL) == 0, "shrink", 0);
    must(w, zqcow2_resize(img, SECTORS * SECTOR, 0, NULL) == 0, "grow", 0);
    got = content(w, img, SECTORS);
    for (uint64_t i = half; i < SECTORS; i++)
        must(w, !got[i], "a new sector is not zeros", (long)i);
    must(w, zqcow2_close(img) == 0, "close", 0);
}

/* Whether what the crash has left must be found by the next writer. */
static bool is_guarded(const struct world *w)
{
    for (uint32_t i = 1; w->unmarked && i <= w->steps; i++) {
        if (w->step[i].kind >= GROW && w->step[i].begun <= w->cut && w->cut <= w->step[i].ended)
            return true;
    }
    return !w->unmarked;
}

static void judge(struct world *w, struct zqcow2_simdisk *disk)
{
    struct zqcow2_image *img = open_on(w, disk, false);

    judge_content(w, img);
    must(w, zqcow2_close(img) == 0, "close", 0);
    if (!w->unmarked) /* the dirty bit does not say that flags may differ: recovery sets them */
        check(w, disk, false);
    use(w, disk);
    if (is_guarded(w))
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
    unsigned resized = 0;

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
        }
        must(w, zqcow2_close(w->img) == 0, "close", 0);
        check(w, w->disk, true);
        w->img = open_on(w, w->disk, false);
        is_as(w, w->img, &w->step[STEPS]);
        must(w, zqcow2_close(w->img) == 0, "close", 0);
        resized += w->resized;
        discard_world(w);
    }
    printf("resize: %u times, each read back\n", resized);
}

static void cut_seeds(uint64_t first, uint64_t last, const char *what)
{
    struct world *w = &world;
    uint64_t judged = 0;

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
        discard_world(w);
    }
    printf("resize%s: %llu crash states, 0 violations\n", what, (unsigned long long)judged);
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
        int rc = run_step(w, s, s - 1);

        if (rc == 0 && w->steps > 1)
            continue;
        if (rc < 0)
            return true;
    }
    return false;
}

/*
 * The step that failed may have done anything to what it was about, and so may rounds to what is
 * not durable: a reopened image has what a power cut there would have left.
 */
static void fail_at(struct world *w, uint64_t seed, uint64_t nth, int error, unsigned *struck)
{
    struct zqcow2_simdisk_fault f = ZQCOW2_SIMDISK_FAULT_INIT;

    begin(w, seed);
    w->img = open_on(w, w->disk, true);
    f.nth = nth;
    f.kinds = error == -ENOSPC ? 1u << ZQCOW2_IO_WRITE | 1u << ZQCOW2_IO_TRUNCATE :
                                 1u << ZQCOW2_IO_WRITE | 1u << ZQCOW2_IO_FLUSH |
                                     1u << ZQCOW2_IO_TRUNCATE | 1u << ZQCOW2_IO_READ;
    f.error = error;
    must(w, zqcow2_simdisk_set_fault(w->disk, &f) == 0, "fault", 0);
    *struck += run_until_struck(w);
    must(w, zqcow2_simdisk_set_fault(w->disk, NULL) == 0, "fault", 0);
    w->step[w->steps].ended = UINT64_MAX;
    (void)zqcow2_close(w->img);
    w->cut = FAULT;
    judge(w, w->disk);
    discard_world(w);
}

static void every_error(void **state)
{
    struct world *w = &world;
    unsigned struck = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        for (uint64_t nth = 1; wanted(seed) && nth < 400; nth += 1 + nth / 40) {
            fail_at(w, seed, nth, -EIO, &struck);
            fail_at(w, seed, nth, -ENOSPC, &struck);
        }
    }
    printf("resize: %u errors struck a step\n", struck);
}

/* Neither clusters nor tables are left, by the entries of L1 that the file has. */
static void what_is_cut_off_is_freed(void **state)
{
    static uint8_t data[SECTORS * SECTOR], raw[512];
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct world *w = &world;
    struct zqcow2_backend *be;
    uint64_t l1;

    (void)state;
    begin(w, 12); /* clusters of 512 bytes, of which an entry of L1 maps 32 KiB */
    w->img = open_on(w, w->disk, true);
    must(w, zqcow2_resize(w->img, sizeof(data), 0, NULL) == 0, "grow", 0);
    memset(data, 1, sizeof(data));
    must(w, zqcow2_write(w->img, data, sizeof(data), 0, 0) == 0, "write", 0);
    must(w, zqcow2_resize(w->img, 3 * SECTOR, ZQCOW2_RESIZE_SHRINK, NULL) == 0, "shrink", 0);
    must(w, zqcow2_close(w->img) == 0, "close", 0);
    be = backend(w, w->disk);
    must(w, zqcow2_check(be, &o, &res, NULL) == 0, "check", 0);
    must(w, res.allocated_clusters == 3, "clusters", (long)res.allocated_clusters);
    must(w, zqcow2_backend_read(be, data, 512, 0) == 0, "header", 0);
    must(w, data[39] == 10, "entries of L1", data[39]);
    l1 = (uint64_t)data[45] << 16 | (uint64_t)data[46] << 8;
    must(w, zqcow2_backend_read(be, raw, 80, l1) == 0, "L1", 0);
    for (unsigned i = 0; i < 80; i++)
        must(w, i < 8 || !raw[i], "byte of L1", (long)i);
    zqcow2_backend_close(be);
    discard_world(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_step),
        cmocka_unit_test(every_cut),
        cmocka_unit_test(every_error),
        cmocka_unit_test(what_is_cut_off_is_freed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
