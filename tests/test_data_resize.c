/* SPDX-License-Identifier: MIT */
/*
 * Images with a data file that grow and shrink, compared with a model of sectors after every step,
 * and in what a power loss leaves of the two files at every instant. A raw data file by itself has
 * the bytes of the device.
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
#include "rig/rig.h"
#include "rig/rng.h"
#include "rig/twin.h"

#define SECTOR  512u
#define SECTORS 640u /* the largest device */
#define STEPS   18u
#define STATES  2u /* per instant */
#define SEEDS   12u

static const struct kind kinds[] = {
    {"plain", 4096, 0, 200 * SECTOR, 0},
    {"raw", 4096, ZQCOW2_CREATE_DATA_FILE_RAW, 200 * SECTOR, 0},
    {"raw, small clusters", 512, ZQCOW2_CREATE_DATA_FILE_RAW, 100 * SECTOR, 0},
    {"zones", 4096, 0, KiB(192), KiB(64)},
    {"subclusters", 16384, ZQCOW2_CREATE_EXTENDED_L2, 200 * SECTOR, 0},
    {"raw, subclusters", 16384, ZQCOW2_CREATE_EXTENDED_L2 | ZQCOW2_CREATE_DATA_FILE_RAW,
     200 * SECTOR, 0},
};

struct step {
    unsigned begun, ended; /* instants */
    bool lasts;            /* makes all durable that came before it */
    uint64_t size;         /* after it, in sectors */
    uint8_t holds[SECTORS];
};

struct story {
    const struct kind *kind;
    uint64_t seed, rng;
    struct step step[STEPS + 1]; /* the first one is create */
    unsigned steps, cut, state, resized;
};

static uint8_t data[SECTORS * SECTOR];

static void must(const struct story *t, bool good, const char *what, uint64_t got)
{
    if (!good)
        fail_msg("%s: %llu (%s)\nreplay: ZQ_SEED=%llu test_data_resize # instant %u, state %u, "
                 "step %u",
                 what, (unsigned long long)got, t->kind->name, (unsigned long long)t->seed, t->cut,
                 t->state, t->steps);
}

/* ---- steps ---- */

static int change(struct story *t, struct step *s, struct zqcow2_image *img)
{
    uint64_t most = t->kind->zone ? t->kind->zone / SECTOR : s->size;
    uint64_t at = rng_below(&t->rng, most), n = 1 + rng_below(&t->rng, 40);
    uint8_t value = (uint8_t)t->steps;

    n = n < most - at ? n : most - at;
    if (rng_below(&t->rng, 4) == 0) {
        memset(s->holds + at, 0, n);
        return zqcow2_write_zeroes(img, n * SECTOR, at * SECTOR, 0);
    }
    memset(s->holds + at, value, n);
    memset(data, value, n * SECTOR);
    return zqcow2_write(img, data, n * SECTOR, at * SECTOR, 0);
}

/* To the end of a sequential zone, which all have the bytes of one step. */
static int append(struct story *t, struct step *s, struct zqcow2_image *img)
{
    uint64_t zone = t->kind->zone / SECTOR, z = 1 + rng_below(&t->rng, s->size / zone - 1);
    uint64_t at = z * zone, n = 1 + rng_below(&t->rng, zone);

    while (at < (z + 1) * zone && s->holds[at])
        at++;
    n = n < (z + 1) * zone - at ? n : (z + 1) * zone - at;
    if (!n)
        return 0;
    memset(s->holds + at, (int)t->steps, n);
    memset(data, (int)t->steps, n * SECTOR);
    return zqcow2_append(img, data, n * SECTOR, (uint64_t[]){z * t->kind->zone}, 0);
}

static int resize(struct story *t, struct step *s, struct zqcow2_image *img)
{
    uint64_t unit = t->kind->zone ? t->kind->zone / SECTOR : 1;
    uint64_t least = t->kind->zone ? 2 : 1;
    uint64_t to = (least + rng_below(&t->rng, SECTORS / unit - least + 1)) * unit;

    if (to < s->size)
        memset(s->holds + to, 0, SECTORS - to);
    s->size = to;
    s->lasts = true;
    t->resized++;
    return zqcow2_resize(img, to * SECTOR, ZQCOW2_RESIZE_SHRINK | ZQCOW2_RESIZE_DISCARD, NULL);
}

static int act(struct story *t, struct step *s, struct zqcow2_image *img)
{
    switch (rng_below(&t->rng, 6)) {
    case 0: s->lasts = true; return zqcow2_flush(img);
    case 1:
    case 2: return resize(t, s, img);
    case 3: return t->kind->zone ? append(t, s, img) : change(t, s, img);
    default: return change(t, s, img);
    }
}

static void is_as(struct story *t, struct zqcow2_image *img, const struct step *s)
{
    struct zqcow2_info i = ZQCOW2_INFO_INIT;

    assert_int_equal(zqcow2_get_info(img, &i), 0);
    must(t, i.virtual_size == s->size * SECTOR, "size", i.virtual_size);
    must(t, zqcow2_read(img, data, s->size * SECTOR, 0) == 0, "read", 0);
    for (uint64_t b = 0; b < s->size * SECTOR; b++)
        must(t, data[b] == s->holds[b / SECTOR], "byte", b);
}

/* ---- what a crash leaves ---- */

static bool has_begun(const struct story *t, unsigned i)
{
    return i <= t->steps && (i == 0 || t->step[i].begun < t->cut);
}

static bool allowed(const struct story *t, uint64_t sector, uint8_t is)
{
    bool any = false;

    for (unsigned i = 0; has_begun(t, i); i++) {
        if (t->step[i].lasts && t->step[i].ended <= t->cut)
            any = false;
        any |= is == t->step[i].holds[sector];
    }
    return any;
}

static bool size_allowed(const struct story *t, uint64_t bytes)
{
    bool any = false;

    for (unsigned i = 0; has_begun(t, i); i++) {
        if (t->step[i].ended <= t->cut)
            any = false;
        any |= bytes == t->step[i].size * SECTOR;
    }
    return any;
}

/* Sector by sector, and the raw file beside the image. */
static uint64_t judge(struct story *t, struct world *left, uint32_t flags)
{
    static uint8_t alone[SECTORS * SECTOR];
    struct zqcow2_image *img = must_open(left, flags);
    struct zqcow2_info i = ZQCOW2_INFO_INIT;
    struct zqcow2_backend *be;
    uint64_t bytes;

    assert_int_equal(zqcow2_get_info(img, &i), 0);
    must(t, size_allowed(t, i.virtual_size), "size", i.virtual_size);
    must(t, zqcow2_read(img, data, i.virtual_size, 0) == 0, "read", 0);
    for (uint64_t b = 0; b < i.virtual_size; b++)
        must(t, data[b] == data[b / SECTOR * SECTOR] && allowed(t, b / SECTOR, data[b]), "byte", b);
    assert_int_equal(zqcow2_close(img), 0);
    be = half_of(left, DATA);
    assert_int_equal(zqcow2_backend_length(be, &bytes), 0);
    must(t, bytes >= i.virtual_size, "length of the data file", bytes);
    assert_int_equal(zqcow2_backend_read(be, alone, i.virtual_size, 0), 0);
    zqcow2_backend_close(be);
    must(t, !(t->kind->flags & ZQCOW2_CREATE_DATA_FILE_RAW) || !memcmp(alone, data, i.virtual_size),
         "the raw file differs", 0);
    return i.virtual_size;
}

/* What grows behind it is zeros, and a raw file then has a place for each cluster. */
static void use(struct story *t, struct world *left)
{
    struct zqcow2_image *img = must_open(left, ZQCOW2_OPEN_RDWR);
    struct zqcow2_info i = ZQCOW2_INFO_INIT;
    uint64_t size;

    assert_int_equal(zqcow2_get_info(img, &i), 0);
    size = i.virtual_size;
    must(t, zqcow2_resize(img, (uint64_t)SECTORS * SECTOR, 0, NULL) == 0, "grow", size);
    if (size < SECTORS * SECTOR)
        must(t, zqcow2_read(img, data, SECTORS * SECTOR - size, size) == 0, "read", size);
    for (uint64_t b = 0; b < SECTORS * SECTOR - size; b++)
        must(t, !data[b], "a new byte", size + b);
    if (t->kind->flags & ZQCOW2_CREATE_DATA_FILE_RAW) {
        struct zqcow2_extent e = ZQCOW2_EXTENT_INIT;

        must(t, zqcow2_block_status(img, (uint64_t)SECTORS * SECTOR - SECTOR, SECTOR, &e) == 0,
             "status", 0);
        must(t, size == SECTORS * SECTOR || e.kind == ZQCOW2_BLOCK_DATA, "not mapped", e.kind);
    }
    assert_int_equal(zqcow2_close(img), 0);
    must_check(left, false);
}

static unsigned crash_everywhere(struct story *t, struct world *w)
{
    struct zqcow2_simdisk_cut *cut[FILES];
    unsigned states = 0;

    for (unsigned i = 0; i < FILES; i++)
        assert_int_equal(zqcow2_simdisk_cut_new(w->disk[i], &cut[i]), 0);
    for (t->cut = 0; t->cut < w->nr; t->cut++) {
        for (t->state = 0; t->state < STATES; t->state++, states++) {
            struct world left = {.nr = 0};

            for (unsigned i = 0; i < FILES; i++) {
                uint64_t k;

                assert_int_equal(zqcow2_simdisk_cut_seek(cut[i], w->log[t->cut].at[i]), 0);
                k = zqcow2_simdisk_cut_states(cut[i]);
                k = t->state ? rng_below(&t->rng, k) : 0;
                assert_int_equal(zqcow2_simdisk_cut_image(cut[i], k, &left.disk[i]), 0);
            }
            must_check(&left, true);
            (void)judge(t, &left, 0);
            (void)judge(t, &left, ZQCOW2_OPEN_RDWR);
            use(t, &left);
            world_end(&left);
        }
    }
    for (unsigned i = 0; i < FILES; i++)
        zqcow2_simdisk_cut_free(cut[i]);
    return states;
}

/* ---- the tests ---- */

static void begin(struct story *t, struct world *w, uint64_t seed)
{
    memset(t, 0, sizeof(*t));
    t->seed = t->rng = seed;
    t->kind = &kinds[seed % (sizeof(kinds) / sizeof(*kinds))];
    t->step[0] = (struct step){.lasts = true, .size = t->kind->size / SECTOR};
    world_begin(w, seed);
    assert_int_equal(create(w, t->kind, 0), 0);
    for (unsigned i = 0; i < FILES; i++)
        assert_int_equal(zqcow2_simdisk_record(w->disk[i]), 0);
    w->keeps = true;
}

static uint64_t data_length(struct world *w)
{
    struct zqcow2_backend *be = half_of(w, DATA);
    uint64_t bytes;

    assert_int_equal(zqcow2_backend_length(be, &bytes), 0);
    zqcow2_backend_close(be);
    return bytes;
}

static void every_instant(void **state)
{
    const char *only = getenv("ZQ_SEED");
    unsigned states = 0, resized = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct zqcow2_image *img;
        struct world w;
        struct story t;

        if (only && strtoull(only, NULL, 10) != seed)
            continue;
        begin(&t, &w, seed);
        img = must_open(&w, ZQCOW2_OPEN_RDWR);
        while (t.steps < STEPS) {
            struct step *s = &t.step[++t.steps];
            int rc;

            *s = s[-1];
            s->lasts = false;
            s->begun = w.nr;
            rc = act(&t, s, img);
            s->ended = w.nr;
            must(&t, rc == 0, "step", (uint64_t)-rc);
            is_as(&t, img, s);
            must(&t, data_length(&w) == s->size * SECTOR, "length", data_length(&w));
        }
        assert_int_equal(zqcow2_close(img), 0);
        w.keeps = false;
        states += crash_everywhere(&t, &w);
        resized += t.resized;
        world_end(&w);
    }
    printf("data file resize: %u times, %u states of two files, 0 violations\n", resized, states);
}

/* Not a byte of either file changes, and no table moves. */
static void to_the_same_size(void **state)
{
    static uint8_t before[SECTORS * SECTOR], after[SECTORS * SECTOR];

    (void)state;
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        struct zqcow2_backend *be;
        struct zqcow2_image *img;
        struct world w;

        world_begin(&w, 2);
        assert_int_equal(create(&w, &kinds[i], 0), 0);
        be = half_of(&w, IMAGE);
        assert_int_equal(zqcow2_backend_read(be, before, sizeof(before), 0), 0);
        img = must_open(&w, ZQCOW2_OPEN_RDWR);
        assert_int_equal(zqcow2_resize(img, kinds[i].size, 0, NULL), 0);
        assert_int_equal(zqcow2_close(img), 0);
        assert_int_equal(zqcow2_backend_read(be, after, sizeof(after), 0), 0);
        assert_memory_equal(before, after, sizeof(before));
        zqcow2_backend_close(be);
        world_end(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(to_the_same_size),
        cmocka_unit_test(every_instant),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
