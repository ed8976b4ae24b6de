/* SPDX-License-Identifier: MIT */
/*
 * Snapshots under power loss: taken, deleted and applied between writes, and the power cut at every
 * position. A snapshot is there whole or not at all, and what it holds does not change, whatever is
 * written afterwards. A disk to which one is applied is the old one or the new one. It is read here
 * by the bytes of the file, as the specification describes them.
 *
 * Seeds above SEEDS are of images without our mark, as other programs make them: what a crash in
 * the middle of a snapshot leaves is gone after the next open for writing there, too (N9). Those
 * behind them are of version 2, where it is gone after a repair.
 *
 * ZQ_SEED: one workload; ZQ_CUT: with it, one position
 */
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

#define SECTOR 512u
#define SLOTS  12u /* places on the device that are written */
#define BYTES  2048u
#define STEPS  26u
#define STATES 6u /* per position */
#define SEEDS  12u
#define OTHERS 4u
#define OLD    2u

struct shape {
    uint32_t cluster, flags;
    uint64_t stride; /* of the slots */
};
static const struct shape shapes[] = {
    {512, 0, 16384},
    {4096, 0, 4096},
    {4096, ZQCOW2_SIMDISK_ASYNC, 1024 * 1024},
    {65536, 0, 65536},
};

enum kind { WRITE, DISCARD, FLUSH, TAKE, DELETE, APPLY };

struct step {
    enum kind kind;
    uint32_t slot;
    uint32_t which; /* to be deleted or applied: the step that has taken it */
    uint64_t begun, ended;
    uint8_t holds[SLOTS]; /* after it; of a snapshot what it holds */
};

struct world {
    const struct shape *shape;
    uint64_t seed, rng, cut, k, judged;
    bool unmarked, version2; /* version2: unmarked, too */
    struct zqcow2_simdisk *disk;
    struct zqcow2_image *img;
    struct step step[STEPS];
    bool taken[STEPS];
};

static uint64_t draw(struct world *w, uint64_t n)
{
    return cuts_draw(&w->rng, n);
}

static void must(const struct world *w, bool good, const char *what, long got)
{
    if (!good)
        fail_msg("%s: %ld\nreplay: ZQ_SEED=%llu ZQ_CUT=%llu test_snapshots # state %llu", what, got,
                 (unsigned long long)w->seed, (unsigned long long)w->cut, (unsigned long long)w->k);
}

static struct zqcow2_image *open_on(const struct world *w, struct zqcow2_simdisk *disk, bool rw)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img = NULL;
    struct zqcow2_error err = {0, ""};
    int rc;

    o.flags = ZQCOW2_OPEN_NOLOCK | (rw ? ZQCOW2_OPEN_RDWR : 0);
    must(w, zqcow2_simdisk_backend(disk, &be) == 0, "backend", 0);
    rc = zqcow2_open(be, &o, &img, &err);
    must(w, rc == 0, err.text, rc);
    return img;
}

static void create(struct world *w)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_backend *be;

    d.seed = w->seed;
    d.flags = w->shape->flags;
    must(w, zqcow2_simdisk_new(&d, &w->disk) == 0, "disk", 0);
    must(w, zqcow2_simdisk_backend(w->disk, &be) == 0, "backend", 0);
    c.virtual_size = w->shape->stride * SLOTS;
    c.cluster_size = w->shape->cluster;
    must(w, zqcow2_create(be, &c, NULL) == 0, "create", 0);
    must(w, !w->unmarked || cuts_unmark(be) == 0, "take the mark away", 0);
    must(w, !w->version2 || cuts_make_v2(be) == 0, "make version 2", 0);
    must(w, zqcow2_backend_flush(be) == 0, "flush", 0);
    zqcow2_backend_close(be);
    must(w, zqcow2_simdisk_record(w->disk) == 0, "record", 0);
}

/* ---- the workload ---- */

static int write_slot(struct world *w, struct zqcow2_image *img, uint32_t slot, uint8_t value)
{
    uint8_t buf[BYTES];

    memset(buf, value, sizeof(buf));
    return zqcow2_write(img, buf, sizeof(buf), slot * w->shape->stride, 0);
}

static int take(struct zqcow2_image *img, uint32_t number)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    char name[16];

    snprintf(name, sizeof(name), "step %u", number);
    s.name = name;
    s.date_sec = number;
    return zqcow2_snapshot_take(img, &s, NULL);
}

static int drop(struct zqcow2_image *img, uint32_t number)
{
    char name[16];

    snprintf(name, sizeof(name), "step %u", number);
    return zqcow2_snapshot_delete(img, name, NULL);
}

static int apply(struct zqcow2_image *img, uint32_t number)
{
    char name[16];

    snprintf(name, sizeof(name), "step %u", number);
    return zqcow2_snapshot_apply(img, name, NULL);
}

/* The nth snapshot from `from` on that there is; STEPS: none. */
static uint32_t some_snapshot(const struct world *w, uint32_t from)
{
    for (uint32_t i = 0; i < STEPS; i++) {
        if (w->taken[(from + i) % STEPS])
            return (from + i) % STEPS;
    }
    return STEPS;
}

static enum kind choose(struct world *w)
{
    static const enum kind kinds[] = {WRITE, WRITE, WRITE, WRITE,  DISCARD,
                                      FLUSH, TAKE,  TAKE,  DELETE, APPLY};

    return kinds[draw(w, sizeof(kinds) / sizeof(*kinds))];
}

static int act_on_one(struct world *w, struct step *s)
{
    s->which = some_snapshot(w, (uint32_t)draw(w, STEPS));
    if (s->which == STEPS)
        return 0;
    if (s->kind == APPLY) {
        memcpy(s->holds, w->step[s->which].holds, sizeof(s->holds));
        return apply(w->img, s->which);
    }
    w->taken[s->which] = false;
    return drop(w->img, s->which);
}

static int act(struct world *w, uint32_t i, struct step *s)
{
    switch (s->kind) {
    case WRITE:
        s->holds[s->slot] = (uint8_t)(i + 1);
        return write_slot(w, w->img, s->slot, (uint8_t)(i + 1));
    case DISCARD:
        if (BYTES % w->shape->cluster)
            return 0; /* a part of a cluster stays */
        s->holds[s->slot] = 0;
        return zqcow2_discard(w->img, BYTES, s->slot * w->shape->stride, 0);
    case FLUSH: return zqcow2_flush(w->img);
    case TAKE: w->taken[i] = true; return take(w->img, i);
    default: return act_on_one(w, s);
    }
}

/* Without the mark a crash costs what writes have taken, so nothing of theirs is left behind. */
static void settle(struct world *w)
{
    must(w, zqcow2_close(w->img) == 0, "close", 0);
    w->img = open_on(w, w->disk, true);
}

static void run_step(struct world *w, uint32_t i)
{
    struct step *s = &w->step[i];
    int rc;

    s->kind = choose(w);
    s->slot = (uint32_t)draw(w, SLOTS);
    s->which = STEPS;
    if (i)
        memcpy(s->holds, w->step[i - 1].holds, sizeof(s->holds));
    if (w->unmarked && s->kind >= TAKE)
        settle(w);
    s->begun = zqcow2_simdisk_position(w->disk);
    rc = act(w, i, s);
    must(w, rc == 0, "step", rc);
    s->ended = zqcow2_simdisk_position(w->disk);
}

/* ---- the file, by its bytes ---- */

struct file {
    const struct world *w;
    uint8_t *bytes;
    uint64_t len;
};

static uint64_t be(const struct file *f, uint64_t at, unsigned n)
{
    uint64_t v = 0;

    must(f->w, at + n <= f->len, "a place behind the end of the file", (long)at);
    for (unsigned i = 0; i < n; i++)
        v = v << 8 | f->bytes[at + i];
    return v;
}

static void load(const struct world *w, struct zqcow2_simdisk *disk, struct file *f)
{
    *f = (struct file){w, NULL, zqcow2_simdisk_length(disk)};
    f->bytes = calloc(1, f->len + 1);
    must(w, f->bytes && zqcow2_simdisk_export(disk, f->bytes, f->len, 0) == 0, "export", 0);
}

#define PLACE 0x00fffffffffffe00ull

/* What an L1 has at a byte of the device. */
static uint8_t mapped(const struct file *f, uint64_t l1, uint64_t at)
{
    uint64_t cluster = f->w->shape->cluster, span = cluster * cluster / 8;
    uint64_t l2 = be(f, l1 + at / span * 8, 8) & PLACE, entry;

    if (!l2)
        return 0;
    entry = be(f, l2 + at / cluster % (cluster / 8) * 8, 8);
    if (entry & 1 || !(entry & PLACE))
        return 0;
    return (uint8_t)be(f, (entry & PLACE) + at % cluster, 1);
}

static void judge_held(const struct world *w, const struct file *f, uint64_t l1, uint32_t number)
{
    const uint8_t *holds = w->step[number].holds;

    for (uint32_t i = 0; i < SLOTS; i++) {
        for (uint32_t at = 0; at < BYTES; at += SECTOR) {
            uint8_t got = mapped(f, l1, i * w->shape->stride + at);

            if (got != holds[i])
                printf("snapshot of step %u, slot %u: %u, not %u\n", number, i, got, holds[i]);
            must(w, got == holds[i], "a snapshot has changed", number);
        }
    }
}

/* Which snapshots the file has, by the numbers in their dates; each is what it was. */
static void judge_snapshots(const struct world *w, struct zqcow2_simdisk *disk, bool *there)
{
    uint64_t pos, nr;
    struct file f;

    load(w, disk, &f);
    nr = be(&f, 60, 4);
    pos = be(&f, 64, 8);
    memset(there, 0, STEPS * sizeof(*there));
    for (uint64_t i = 0; i < nr; i++) {
        uint64_t number = be(&f, pos + 16, 4);
        uint64_t bytes = 40 + be(&f, pos + 36, 4) + be(&f, pos + 12, 2) + be(&f, pos + 14, 2);

        if (number < STEPS) { /* else one that was taken to try the image */
            must(w, be(&f, pos + 48, 8) == w->shape->stride * SLOTS, "disk size", (long)number);
            judge_held(w, &f, be(&f, pos, 8), (uint32_t)number);
            there[number] = true;
        }
        pos += (bytes + 7) & ~7ull;
    }
    free(f.bytes);
}

/* ---- judging ---- */

/* Was it there before the cut, and in which step is that not certain? */
static void judge_list(const struct world *w, const bool *there)
{
    for (uint32_t i = 0; i < STEPS; i++) {
        bool must_be = false, may_be = false;

        for (uint32_t k = 0; k < STEPS && w->step[k].begun < w->cut; k++) {
            const struct step *s = &w->step[k];
            bool sure = s->ended <= w->cut;

            if (s->kind == TAKE && k == i) {
                may_be = true;
                must_be = sure;
            } else if (s->kind == DELETE && s->which == i) {
                must_be = false;
                may_be = !sure;
            }
        }
        must(w, there[i] ? may_be : !must_be, "snapshot there or not", i);
    }
}

static bool makes_durable(const struct step *s)
{
    return s->kind == FLUSH || s->kind == TAKE || s->which < STEPS;
}

/* One of the values since the last step that has made all durable, of the steps before `end`. */
static bool allowed(const struct world *w, uint32_t end, uint32_t slot, uint8_t got)
{
    bool any = got == 0;

    for (uint32_t i = 0; i < end; i++) {
        const struct step *s = &w->step[i];

        any |= s->holds[slot] == got;
        if (makes_durable(s) && s->ended <= w->cut)
            any = s->holds[slot] == got;
    }
    return any;
}

typedef uint8_t content[SLOTS][BYTES];

static void read_all(const struct world *w, struct zqcow2_image *img, content c)
{
    for (uint32_t i = 0; i < SLOTS; i++)
        must(w, zqcow2_read(img, c[i], BYTES, i * w->shape->stride) == 0, "read", i);
}

static bool is_all(const uint8_t holds[SLOTS], content c)
{
    for (uint32_t i = 0; i < SLOTS * BYTES; i++) {
        if (c[i / BYTES][i % BYTES] != holds[i / BYTES])
            return false;
    }
    return true;
}

/* A snapshot that was being applied is the whole disk, or nothing of it is there. */
static void judge_disk(const struct world *w, struct zqcow2_image *img)
{
    uint32_t end = 0;
    content c;

    while (end < STEPS && w->step[end].begun < w->cut)
        end++;
    read_all(w, img, c);
    if (end && w->step[end - 1].kind == APPLY && w->step[end - 1].which < STEPS) {
        if (is_all(w->step[end - 1].holds, c))
            return;
        end -= w->step[end - 1].ended > w->cut;
    }
    for (uint32_t i = 0; i < SLOTS * BYTES; i += SECTOR)
        must(w, allowed(w, end, i / BYTES, c[i / BYTES][i % BYTES]), "slot of the disk", i / BYTES);
}

/* Read without being applied, as a program that only reads the image does. */
static void look_at(const struct world *w, struct zqcow2_simdisk *disk, uint32_t number)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *b;
    struct zqcow2_image *img;
    char name[16];
    content c;

    snprintf(name, sizeof(name), "step %u", number);
    o.flags = ZQCOW2_OPEN_NOLOCK;
    o.snapshot = name;
    must(w, zqcow2_simdisk_backend(disk, &b) == 0, "backend", 0);
    must(w, zqcow2_open(b, &o, &img, NULL) == 0, "open a snapshot", number);
    read_all(w, img, c);
    must(w, is_all(w->step[number].holds, c), "a snapshot is not what it was", number);
    must(w, zqcow2_close(img) == 0, "close", 0);
}

static void apply_whole(const struct world *w, struct zqcow2_image *img, uint32_t number)
{
    content c;
    int rc = apply(img, number);

    must(w, rc == 0, "apply", rc);
    read_all(w, img, c);
    must(w, is_all(w->step[number].holds, c), "a snapshot, applied, is not what it was", number);
}

static void check(const struct world *w, struct zqcow2_simdisk *disk, bool clean)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *b;

    o.flags = ZQCOW2_CHECK_NOLOCK;
    must(w, zqcow2_simdisk_backend(disk, &b) == 0, "backend", 0);
    must(w, zqcow2_check(b, &o, &res, NULL) == 0, "check", 0);
    must(w, !res.corruptions, "corruptions", (long)res.corruptions);
    must(w, !clean || !res.leaked_clusters, "leaks", (long)res.leaked_clusters);
    zqcow2_backend_close(b);
}

/* Version 2 has neither mark nor bit: what a crash has left stays until then. */
static void repair(const struct world *w, struct zqcow2_simdisk *disk)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *b;

    o.flags = ZQCOW2_CHECK_NOLOCK | ZQCOW2_CHECK_REPAIR | ZQCOW2_CHECK_REPAIR_LEAKS;
    must(w, zqcow2_simdisk_backend(disk, &b) == 0, "backend", 0);
    must(w, zqcow2_check(b, &o, &res, NULL) == 0, "repair", 0);
    zqcow2_backend_close(b);
}

/* Written all over, with snapshots taken, applied and deleted: the others must not feel it. */
static void use(struct world *w, struct zqcow2_simdisk *disk, const bool *there)
{
    struct zqcow2_image *img = open_on(w, disk, true);
    uint32_t gone = STEPS;

    judge_disk(w, img);
    for (uint32_t i = 0; i < SLOTS; i++)
        must(w, write_slot(w, img, i, 0xee) == 0, "write", i);
    must(w, take(img, STEPS + 1) == 0, "take", 0);
    for (uint32_t i = 0; i < STEPS && gone == STEPS; i++)
        gone = there[i] && draw(w, 2) ? i : STEPS;
    if (gone < STEPS && draw(w, 2))
        apply_whole(w, img, gone);
    if (gone < STEPS)
        must(w, drop(img, gone) == 0, "delete", gone);
    for (uint32_t i = 0; i < SLOTS; i++)
        must(w, write_slot(w, img, i, 0xef) == 0, "write", i);
    must(w, zqcow2_close(img) == 0, "close", 0);
}

/* Whether what the crash has left must be found by the next writer. */
static bool is_guarded(const struct world *w)
{
    for (uint32_t i = 0; w->unmarked && i < STEPS; i++) {
        if (w->step[i].kind >= TAKE && w->step[i].begun <= w->cut && w->cut <= w->step[i].ended)
            return true;
    }
    return !w->unmarked;
}

static void judge(struct world *w, struct zqcow2_simdisk *disk)
{
    struct zqcow2_image *img = open_on(w, disk, false);
    bool there[STEPS], later[STEPS];

    judge_disk(w, img);
    must(w, zqcow2_close(img) == 0, "close", 0);
    judge_snapshots(w, disk, there);
    judge_list(w, there);
    for (uint32_t i = 0; i < STEPS; i++) {
        if (there[i])
            look_at(w, disk, i);
    }
    if (!w->version2) /* the mark, or the dirty bit, says that flags may differ (N9) */
        check(w, disk, false);
    use(w, disk, there);
    if (w->version2)
        repair(w, disk);
    if (w->version2 || is_guarded(w))
        check(w, disk, true);
    judge_snapshots(w, disk, later);
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
    const struct cuts c = {.states = STATES, .rng = &w->rng, .judge = judge_cut, .arg = w};

    must(w, cuts_judge_all(&c, w->disk) == 0, "cut", 0);
}

/* The bit stands for the mark: the close that would clear that clears it. */
static void is_not_dirty(const struct world *w)
{
    struct file f;

    load(w, w->disk, &f);
    must(w, !(be(&f, 79, 1) & 1), "the dirty bit behind a clean close", 0);
    free(f.bytes);
}

static void workload(uint64_t seed, uint64_t *judged)
{
    static struct world w;

    w = (struct world){.shape = &shapes[seed % 4], .seed = seed, .rng = seed, .judged = *judged};
    w.unmarked = seed > SEEDS;
    w.version2 = seed > SEEDS + OTHERS;
    create(&w);
    w.img = open_on(&w, w.disk, true);
    for (uint32_t i = 0; i < STEPS; i++)
        run_step(&w, i);
    must(&w, zqcow2_close(w.img) == 0, "close", 0);
    if (!w.version2)
        is_not_dirty(&w);
    judge_all(&w);
    zqcow2_simdisk_free(w.disk);
    *judged = w.judged;
}

static void try_seeds(uint64_t first, uint64_t last, const char *what)
{
    const char *only = getenv("ZQ_SEED");
    uint64_t judged = 0;

    for (uint64_t seed = first; seed <= last; seed++) {
        if (!only || strtoull(only, NULL, 10) == seed)
            workload(seed, &judged);
    }
    printf("snapshots%s: %llu crash states, 0 violations\n", what, (unsigned long long)judged);
}

static void every_cut(void **state)
{
    (void)state;
    try_seeds(1, SEEDS, "");
}

static void every_cut_without_the_mark(void **state)
{
    (void)state;
    try_seeds(SEEDS + 1, SEEDS + OTHERS, " without the mark");
}

static void every_cut_of_version_2(void **state)
{
    (void)state;
    try_seeds(SEEDS + OTHERS + 1, SEEDS + OTHERS + OLD, " in version 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut),
        cmocka_unit_test(every_cut_without_the_mark),
        cmocka_unit_test(every_cut_of_version_2),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
