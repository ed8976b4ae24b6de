/* SPDX-License-Identifier: MIT */
/*
 * Images whose features change, several times in a row: what they read as, their zones and what
 * check says of them are the same after every call, in what a power loss leaves at every position,
 * and after an error of every call of the backend and of the allocator. The features are those of
 * before the call or those of after it, never some of both.
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

#include <zqcow2/change.h>
#include <zqcow2/simdisk.h>

#include "crash/cuts.h"
#include "rig/heap_fault.h"

#define BYTES    (512u << 10) /* of the device; of zones of 64 KiB */
#define ZONE     (64u << 10)
#define STEPS    5u
#define STATES   6u /* per position */
#define SEEDS    24u
#define LONGER   200u /* seeds whose steps are compared only */
#define BELOW    0xbb
#define SNAPSHOT "kept"

struct shape {
    uint32_t cluster, flags, layout;
    bool source, snapshot, unmarked;
};
static const struct shape shapes[] = {
    {512, 0, 0, false, false, false},
    {4096, 0, 0, true, false, false},
    {512, 0, 0, false, true, true},
    {4096, ZQCOW2_CREATE_LAZY_REFCOUNTS, 0, false, false, true},
    {512, 0, ZQCOW2_LAYOUT_V7, false, false, false},
    {4096, 0, ZQCOW2_LAYOUT_48B, false, false, false},
    {4096, 0, ZQCOW2_LAYOUT_56, false, false, true},
    {65536, 0, ZQCOW2_LAYOUT_56, false, false, false},
};

/* What amend may change. */
struct form {
    uint32_t version, bits, layout;
    bool lazy;
};
struct step {
    uint64_t begun, ended; /* positions */
    struct form form;      /* after it */
};

struct world {
    const struct shape *shape;
    uint64_t seed, rng, cut, k, judged;
    struct zqcow2_simdisk *disk, *below;
    const struct zqcow2_hooks *hooks;
    uint8_t holds[BYTES];
    struct zqcow2_zone zone[BYTES / ZONE];
    struct step step[STEPS + 1];
    unsigned steps, refused;
};

static struct world world;

static uint64_t draw(struct world *w, uint64_t n)
{
    return cuts_draw(&w->rng, n);
}

static void must(const struct world *w, bool good, const char *what, long got)
{
    if (!good)
        fail_msg("%s: %ld\nreplay: ZQ_SEED=%llu ZQ_CUT=%llu test_amend # state %llu, step %u", what,
                 got, (unsigned long long)w->seed, (unsigned long long)w->cut,
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
    (void)format;
    (void)depth;
    (void)err;
    *be = backend(w, w->below);
    return 0;
}

static struct zqcow2_image *open_on(struct world *w, struct zqcow2_simdisk *disk, bool rw)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_image *img = NULL;

    o.flags = ZQCOW2_OPEN_NOLOCK | (rw ? ZQCOW2_OPEN_RDWR : 0);
    o.resolve = resolve;
    o.resolve_arg = w;
    must(w, zqcow2_open(backend(w, disk), &o, &img, &err) == 0, err.text, err.code);
    return img;
}

/* ---- an image ---- */

static void create(struct world *w)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be;

    must(w, zqcow2_simdisk_new(NULL, &w->disk) == 0, "disk", 0);
    must(w, zqcow2_simdisk_new(NULL, &w->below) == 0, "disk", 0);
    be = backend(w, w->below);
    memset(w->holds, BELOW, BYTES);
    must(w, zqcow2_backend_write(be, w->holds, BYTES, 0) == 0, "write below", 0);
    zqcow2_backend_close(be);
    memset(w->holds, w->shape->source ? BELOW : 0, BYTES);
    c.virtual_size = BYTES;
    c.cluster_size = w->shape->cluster;
    c.flags = w->shape->flags;
    c.layout = w->shape->layout;
    c.zone_size = c.layout ? ZONE : 0;
    c.zone_capacity = c.layout ? ZONE - 4096 : 0;
    c.conventional_zones = c.layout ? 2 : 0;
    c.backing_name = w->shape->source ? "below" : NULL;
    c.backing_format = w->shape->source ? "raw" : NULL;
    be = backend(w, w->disk);
    must(w, zqcow2_create(be, &c, NULL) == 0, "create", 0);
    must(w, !w->shape->unmarked || cuts_unmark(be) == 0, "take the mark away", 0);
    zqcow2_backend_close(be);
}

/* Anywhere in plain images and conventional zones; three zones partly or wholly, one finished. */
static void fill(struct world *w, struct zqcow2_image *img)
{
    uint64_t end = w->shape->layout ? 2 * ZONE : BYTES;
    uint32_t nr = BYTES / ZONE;

    for (unsigned i = 0; i < 20; i++) {
        uint64_t at = draw(w, end / 512) * 512, len = (1 + draw(w, 30)) * 512;
        bool zeros = draw(w, 3) == 0;

        len = at + len < end ? len : end - at;
        memset(w->holds + at, zeros ? 0 : (int)(i + 1), (size_t)len);
        must(w,
             (zeros ? zqcow2_write_zeroes(img, len, at, 0) :
                      zqcow2_write(img, w->holds + at, (size_t)len, at, 0)) == 0,
             "write", 0);
    }
    for (uint64_t z = 2; w->shape->layout && z < 5; z++) {
        uint64_t at = z * ZONE, len = z == 4 ? ZONE - 4096 : (1 + draw(w, 90)) * 512;

        memset(w->holds + at, (int)(z + 100), (size_t)len);
        must(w, zqcow2_write(img, w->holds + at, (size_t)len, at, 0) == 0, "write a zone", 0);
    }
    if (w->shape->layout) {
        must(w, zqcow2_zone_finish(img, 3 * ZONE, ZONE, 0) == 0, "finish", 0);
        must(w, zqcow2_zone_close(img, 0, BYTES, 0) == 0, "close zones", 0);
        must(w, zqcow2_zone_report(img, 0, w->zone, &nr) == 0, "report", 0);
    }
}

static struct form form_of(const struct world *w, struct zqcow2_image *img)
{
    struct zqcow2_info i = ZQCOW2_INFO_INIT;

    must(w, zqcow2_get_info(img, &i) == 0, "info", 0);
    must(w, w->cut != UINT64_MAX || !(i.flags & ZQCOW2_INFO_DIRTY), "in use", 0);
    return (struct form){i.version, i.refcount_bits, i.layout,
                         i.flags & ZQCOW2_INFO_LAZY_REFCOUNTS};
}

static void begin(struct world *w, uint64_t seed, const struct zqcow2_hooks *hooks)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    struct zqcow2_image *img;

    memset(w, 0, sizeof(*w));
    w->shape = &shapes[seed % (sizeof(shapes) / sizeof(*shapes))];
    w->seed = w->rng = seed;
    w->cut = UINT64_MAX;
    w->hooks = hooks;
    s.name = SNAPSHOT;
    create(w);
    img = open_on(w, w->disk, true);
    fill(w, img);
    if (w->shape->snapshot)
        must(w, zqcow2_snapshot_take(img, &s, NULL) == 0, "snapshot", 0);
    if (!w->shape->layout)
        fill(w, img);
    w->step[0].form = form_of(w, img);
    must(w, zqcow2_close(img) == 0, "close", 0);
}

static void discard_world(struct world *w)
{
    zqcow2_simdisk_free(w->disk);
    zqcow2_simdisk_free(w->below);
}

/* ---- amending ---- */

static bool same(const struct form *a, const struct form *b)
{
    return a->version == b->version && a->bits == b->bits && a->layout == b->layout &&
           a->lazy == b->lazy;
}

/* May the image have it? */
static bool may_have(const struct world *w, const struct form *f)
{
    bool zoned = w->shape->layout;

    if (f->version == 2 && (zoned || f->bits != 16 || f->lazy))
        return false;
    if (f->lazy && zoned)
        return false;
    return f->bits > 1 || !w->shape->snapshot; /* which shares clusters */
}

static void choose(struct world *w, struct zqcow2_amend_options *o, struct form *f)
{
    if (draw(w, 2)) {
        o->version = f->version = 2 + (uint32_t)draw(w, 2);
        f->lazy &= f->version == 3;
    }
    if (draw(w, 2))
        o->refcount_bits = f->bits = 1u << draw(w, 7);
    else if (f->version == 2)
        o->refcount_bits = f->bits = 16;
    if (w->shape->layout && draw(w, 3) == 0)
        o->layout = f->layout = ZQCOW2_LAYOUT_44;
    if (draw(w, 3) == 0) {
        f->lazy = draw(w, 2);
        o->flags = f->lazy ? ZQCOW2_AMEND_LAZY_REFCOUNTS : ZQCOW2_AMEND_NO_LAZY_REFCOUNTS;
    }
}

/* 0, or an error that was injected. */
static int amend(struct world *w)
{
    struct step *s = &w->step[w->steps + 1];
    struct zqcow2_amend_options o = ZQCOW2_AMEND_OPTIONS_INIT;
    struct zqcow2_backend *be = backend(w, w->disk);
    uint64_t before = zqcow2_simdisk_hash(w->disk);
    int rc;

    w->steps++;
    s->form = s[-1].form;
    choose(w, &o, &s->form);
    o.hooks = w->hooks;
    o.resolve = resolve;
    o.resolve_arg = w;
    s->begun = zqcow2_simdisk_position(w->disk);
    rc = zqcow2_amend(be, &o, NULL);
    s->ended = zqcow2_simdisk_position(w->disk);
    zqcow2_backend_close(be);
    must(w, rc || may_have(w, &s->form), "not refused", rc);
    if (rc != ZQCOW2_EFEATURE)
        return rc;
    must(w, !may_have(w, &s->form) || (w->shape->snapshot && s->form.version == 2), "refused", rc);
    must(w, may_have(w, &s->form) || zqcow2_simdisk_hash(w->disk) == before, "changed all the same",
         rc);
    w->refused++;
    s->form = s[-1].form;
    return 0;
}

/* ---- judging ---- */

static void check(const struct world *w, struct zqcow2_simdisk *disk, bool leaks)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be = backend(w, disk);

    o.flags = ZQCOW2_CHECK_NOLOCK;
    must(w, zqcow2_check(be, &o, &res, NULL) == 0, "check", 0);
    must(w, !res.corruptions, "corruptions", (long)res.corruptions);
    must(w, leaks || !res.leaked_clusters, "leaks", (long)res.leaked_clusters);
    zqcow2_backend_close(be);
}

static void same_zones(const struct world *w, struct zqcow2_image *img)
{
    struct zqcow2_zone zone[BYTES / ZONE];
    uint32_t nr = BYTES / ZONE;

    must(w, zqcow2_zone_report(img, 0, zone, &nr) == 0, "report", 0);
    for (uint32_t i = 0; i < nr; i++) {
        must(w, zone[i].write_pointer == w->zone[i].write_pointer, "write pointer of zone",
             (long)i);
        must(w, zone[i].state == w->zone[i].state, "state of zone", (long)i);
    }
}

static void same_content(struct world *w, struct zqcow2_image *img)
{
    static uint8_t data[BYTES];
    int rc = zqcow2_read(img, data, BYTES, 0);

    must(w, rc == 0, "read", rc);
    for (uint64_t i = 0; i < BYTES; i++)
        must(w, data[i] == w->holds[i], "byte", (long)i);
    if (w->shape->layout)
        same_zones(w, img);
}

/* As after the last call that has ended, or after one that has begun. */
static void judge_form(const struct world *w, struct zqcow2_image *img)
{
    struct form f = form_of(w, img);
    bool any = same(&f, &w->step[0].form);

    for (unsigned i = 1; i <= w->steps && w->step[i].begun < w->cut; i++) {
        if (w->step[i].ended <= w->cut)
            any = false;
        any |= same(&f, &w->step[i].form);
    }
    must(w, any, "form: version * 1000 + bits", (long)(f.version * 1000 + f.bits));
}

static void must_be_clean(struct world *w, struct zqcow2_simdisk *disk)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;
    struct zqcow2_image *img = open_on(w, disk, false);

    must(w, zqcow2_get_info(img, &info) == 0, "info", 0);
    must(w, !(info.flags & ZQCOW2_INFO_DIRTY), "in use after a close: version", info.version);
    must(w, zqcow2_close(img) == 0, "close", 0);
}

/* Zeros of version 3 may be on their way to others: only then anything is left to be recovered. */
static void judge(struct world *w, struct zqcow2_simdisk *disk)
{
    struct zqcow2_image *img = open_on(w, disk, false);

    judge_form(w, img);
    same_content(w, img);
    must(w, zqcow2_close(img) == 0, "close", 0);
    check(w, disk, !w->shape->layout && !w->shape->snapshot);
    img = open_on(w, disk, true);
    judge_form(w, img);
    must(w, w->shape->layout || zqcow2_write(img, w->holds, 512, 0, 0) == 0, "write", 0);
    must(w, zqcow2_close(img) == 0, "close", 0);
    check(w, disk, w->shape->unmarked);
    must_be_clean(w, disk);
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
    unsigned amended = 0, refused = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= LONGER; seed++) {
        if (!wanted(seed))
            continue;
        begin(w, seed, NULL);
        while (w->steps < STEPS) {
            struct zqcow2_image *img;
            struct form f;
            int rc = amend(w);

            must(w, rc == 0, "amend", rc);
            img = open_on(w, w->disk, false);
            f = form_of(w, img);
            must(w, same(&f, &w->step[w->steps].form), "form", (long)f.bits);
            same_content(w, img);
            must(w, zqcow2_close(img) == 0, "close", 0);
            check(w, w->disk, false);
        }
        amended += w->steps - w->refused;
        refused += w->refused;
        discard_world(w);
    }
    must(w, getenv("ZQ_SEED") || amended > refused, "refused too often", refused);
    printf("amend: %u times, each read back; %u refused\n", amended, refused);
}

static void every_cut(void **state)
{
    struct world *w = &world;
    uint64_t judged = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        const struct cuts c = {
            .states = STATES, .once = true, .rng = &w->rng, .judge = judge_cut, .arg = w};

        if (!wanted(seed))
            continue;
        begin(w, seed, NULL);
        must(w, zqcow2_simdisk_record(w->disk) == 0, "record", 0);
        while (w->steps < STEPS) {
            int rc = amend(w);

            must(w, rc == 0, "amend", rc);
        }
        must(w, cuts_judge_all(&c, w->disk) == 0, "cut", 0);
        judged += w->judged;
        discard_world(w);
    }
    printf("amend: %llu crash states, 0 violations\n", (unsigned long long)judged);
}

/* True: the fault has struck. What it left is what a power loss there could have left. */
static bool ends_in_error(struct world *w)
{
    int rc = 0;

    while (rc == 0 && w->steps < STEPS)
        rc = amend(w);
    must(w, zqcow2_simdisk_set_fault(w->disk, NULL) == 0, "fault", 0);
    if (rc < 0)
        w->step[w->steps].ended = UINT64_MAX;
    w->cut = UINT64_MAX - 1;
    judge(w, w->disk);
    discard_world(w);
    return rc < 0;
}

static bool fail_at(struct world *w, uint64_t seed, uint64_t nth, int error)
{
    struct zqcow2_simdisk_fault f = ZQCOW2_SIMDISK_FAULT_INIT;

    begin(w, seed, NULL);
    f.nth = nth;
    f.kinds = 1u << ZQCOW2_IO_WRITE | 1u << ZQCOW2_IO_TRUNCATE;
    if (error == -EIO)
        f.kinds |= 1u << ZQCOW2_IO_FLUSH | 1u << ZQCOW2_IO_READ;
    f.error = error;
    must(w, zqcow2_simdisk_set_fault(w->disk, &f) == 0, "fault", 0);
    return ends_in_error(w);
}

static void every_error(void **state)
{
    struct world *w = &world;
    unsigned struck = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        for (uint64_t nth = 1; wanted(seed) && nth < 1000; nth += 1 + nth / 20)
            struck += fail_at(w, seed, nth, -EIO) + fail_at(w, seed, nth, -ENOSPC);
    }
    must(w, getenv("ZQ_SEED") || struck > 100, "errors", struck);
    printf("amend: %u errors of the backend, 0 violations\n", struck);
}

static void every_allocation(void **state)
{
    struct world *w = &world;
    unsigned struck = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        for (uint64_t nth = 1; wanted(seed) && nth < 200; nth += 1 + nth / 20) {
            struct zqcow2_hooks hooks;
            struct heap h;

            heap_init(&h);
            hooks = heap_hooks(&h);
            begin(w, seed, &hooks);
            heap_plan(&h, nth, false);
            struck += ends_in_error(w);
            must(w, !heap_verdict(&h), "heap", 0);
            heap_destroy(&h);
        }
    }
    must(w, getenv("ZQ_SEED") || struck > 50, "errors", struck);
    printf("amend: %u allocations failed, 0 violations\n", struck);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_step),
        cmocka_unit_test(every_cut),
        cmocka_unit_test(every_error),
        cmocka_unit_test(every_allocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
