/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of zoned images under power loss: taken, deleted and applied between appends, resets
 * and finishes, and the power cut at every position. A snapshot has the write pointers and the data
 * of one moment, and neither changes. After a crash a zone holds the beginning of what was written
 * to it since a reset, at least up to what was durable. When a snapshot is applied, all zones are
 * those of the snapshot, or none is.
 *
 * The model below knows nothing of the file. Seeds choose the shape by their remainder.
 *
 * ZQ_SEED: one workload; ZQ_CUT: with it, one position
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <zqcow2/simdisk.h>
#include <zqcow2/zqcow2.h>

#include "crash/cuts.h"

#define SECTOR 512u
#define ZONES  4u  /* the first one is conventional, and is not written */
#define MOST   40u /* sectors of a zone's capacity */
#define STEPS  22u
#define STATES 3u /* per position */
#define SEEDS  9u

#define STATED 0x100u /* a table of v3 with states */

struct shape {
    uint32_t cluster, layout, refcount_bits, capacity, flags, descriptor; /* capacity: sectors */
    bool over; /* it stands on another image */
};
static const struct shape shapes[] = {
    {512, ZQCOW2_LAYOUT_44, 16, 20, 0, 0, false},
    {4096, ZQCOW2_LAYOUT_44, 8, 40, ZQCOW2_SIMDISK_ASYNC, 64, false},
    {4096, ZQCOW2_LAYOUT_48B, 16, 28, 0, 0, true},
    {65536, ZQCOW2_LAYOUT_44, 64, 40, 0, 0, false},
    {2048, ZQCOW2_LAYOUT_56, 32, 37, ZQCOW2_SIMDISK_ASYNC, 0, true},
    {1024, ZQCOW2_LAYOUT_V7, 16, 24, 0, 128, false},
    {16384, ZQCOW2_LAYOUT_V3, 4, 40, 0, 0, false},
    {512, ZQCOW2_LAYOUT_44, 16, 16, ZQCOW2_SIMDISK_ASYNC, 0, true},
    {1024, ZQCOW2_LAYOUT_V3 | STATED, 16, 30, 0, 0, false},
};
#define SHAPES (sizeof(shapes) / sizeof(*shapes))

enum kind { APPEND, RESET, FINISH, FLUSH, TAKE, DELETE, APPLY };

/* What a zone holds: `fill` sectors that were written, up to its pointer, and zeros if finished. */
struct zone {
    uint32_t life, wp;
    uint8_t v[MOST];
};

struct step {
    enum kind kind;
    uint32_t which;
    uint64_t begun, ended;
    struct zone zone[ZONES]; /* after it; of a snapshot what it holds */
};

struct world {
    const struct shape *shape;
    uint64_t seed, rng, cut, k, judged;
    uint32_t lives;
    struct zqcow2_simdisk *disk, *base;
    struct zqcow2_image *img;
    struct step step[STEPS + 1]; /* the first: as created */
    bool taken[STEPS + 1];
};

static uint64_t draw(struct world *w, uint64_t n)
{
    return cuts_draw(&w->rng, n);
}

static void must(const struct world *w, bool good, const char *what, long got)
{
    if (!good)
        fail_msg("%s: %ld\nreplay: ZQ_SEED=%llu ZQ_CUT=%llu test_zoned_snapshots # state %llu",
                 what, got, (unsigned long long)w->seed, (unsigned long long)w->cut,
                 (unsigned long long)w->k);
}

static uint64_t zone_size(const struct world *w)
{
    uint64_t size = 32768;

    return size < w->shape->cluster ? w->shape->cluster : size;
}

static uint64_t start_of(const struct world *w, uint32_t zone)
{
    return zone * zone_size(w);
}

static int resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    const struct world *w = arg;

    (void)name;
    (void)format;
    (void)depth;
    (void)err;
    return zqcow2_simdisk_backend(w->base, be);
}

static struct zqcow2_image *open_as(const struct world *w, struct zqcow2_simdisk *disk, bool rw,
                                    const char *snapshot)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_image *img = NULL;
    struct zqcow2_error err = {0, ""};
    int rc;

    o.flags = ZQCOW2_OPEN_NOLOCK | (rw ? ZQCOW2_OPEN_RDWR : 0);
    o.snapshot = snapshot;
    o.resolve = resolve;
    o.resolve_arg = (void *)(uintptr_t)w;
    must(w, zqcow2_simdisk_backend(disk, &be) == 0, "backend", 0);
    rc = zqcow2_open(be, &o, &img, &err);
    must(w, rc == 0, err.text, rc);
    return img;
}

static int append(const struct world *w, struct zqcow2_image *img, uint32_t zone, uint32_t n,
                  uint8_t value)
{
    uint8_t buf[MOST * SECTOR];
    uint64_t at = start_of(w, zone);

    memset(buf, value, n * SECTOR);
    return zqcow2_append(img, buf, n * SECTOR, &at, 0);
}

static void set_shape(const struct world *w, struct zqcow2_create_options *c)
{
    bool v3 = (w->shape->layout & ~STATED) == ZQCOW2_LAYOUT_V3;

    c->zone_size = zone_size(w);
    c->virtual_size = c->zone_size * ZONES;
    c->zone_capacity = w->shape->capacity * SECTOR;
    c->conventional_zones = 1;
    c->cluster_size = w->shape->cluster;
    c->layout = v3 ? ZQCOW2_LAYOUT_V7 : w->shape->layout;
    c->refcount_bits = w->shape->refcount_bits;
    c->descriptor_extension = w->shape->descriptor;
}

static struct zqcow2_backend *new_disk(struct world *w, uint32_t flags,
                                       struct zqcow2_simdisk **disk)
{
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_backend *be;

    d.seed = w->seed;
    d.flags = flags;
    must(w, zqcow2_simdisk_new(&d, disk) == 0, "disk", 0);
    must(w, zqcow2_simdisk_backend(*disk, &be) == 0, "backend", 0);
    return be;
}

/* One zone in part, which ends inside a cluster, one full, one empty. */
static void make_base(struct world *w)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be = new_disk(w, 0, &w->base);
    struct zqcow2_image *img;

    set_shape(w, &c);
    must(w, zqcow2_create(be, &c, NULL) == 0, "create", 0);
    zqcow2_backend_close(be);
    img = open_as(w, w->base, true, NULL);
    must(w, append(w, img, 1, 11, 0xb1) == 0 && append(w, img, 2, 3, 0xb2) == 0, "append", 0);
    must(w, zqcow2_zone_finish(img, start_of(w, 2), zone_size(w), 0) == 0, "finish", 0);
    must(w, zqcow2_close(img) == 0, "close", 0);
    w->step[0].zone[1].wp = 11;
    w->step[0].zone[2].wp = w->shape->capacity;
    memset(w->step[0].zone[1].v, 0xb1, 11);
    memset(w->step[0].zone[2].v, 0xb2, 3);
}

static void create(struct world *w)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_backend *be;

    for (uint32_t i = 0; i < ZONES; i++)
        w->step[0].zone[i] = (struct zone){.life = w->lives++};
    if (w->shape->over) {
        make_base(w);
        c.backing_name = "base";
        c.backing_format = "qcow2";
        c.resolve = resolve;
        c.resolve_arg = w;
    }
    set_shape(w, &c);
    be = new_disk(w, w->shape->flags, &w->disk);
    must(w, zqcow2_create(be, &c, &err) == 0, err.text, 0);
    if ((w->shape->layout & ~STATED) == ZQCOW2_LAYOUT_V3)
        must(w, cuts_make_v3(be, ZONES, w->shape->layout & STATED) == 0, "make v3", 0);
    must(w, zqcow2_backend_flush(be) == 0, "flush", 0);
    zqcow2_backend_close(be);
    must(w, zqcow2_simdisk_record(w->disk) == 0, "record", 0);
}

/* ---- the workload ---- */

static const char *name_of(uint32_t number, char text[16])
{
    snprintf(text, 16, "step %u", number);
    return text;
}

static int take(struct zqcow2_image *img, uint32_t number)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    char text[16];

    s.name = name_of(number, text);
    s.date_sec = number;
    return zqcow2_snapshot_take(img, &s, NULL);
}

static uint32_t some_snapshot(const struct world *w, uint32_t from)
{
    for (uint32_t i = 0; i <= STEPS; i++) {
        if (w->taken[(from + i) % (STEPS + 1)])
            return (from + i) % (STEPS + 1);
    }
    return 0;
}

static int act_on_one(struct world *w, struct step *s)
{
    char text[16];

    s->which = some_snapshot(w, (uint32_t)draw(w, STEPS + 1));
    if (!s->which)
        return 0;
    name_of(s->which, text);
    if (s->kind == DELETE) {
        w->taken[s->which] = false;
        return zqcow2_snapshot_delete(w->img, text, NULL);
    }
    memcpy(s->zone, w->step[s->which].zone, sizeof(s->zone));
    for (uint32_t i = 0; i < ZONES; i++)
        s->zone[i].life = w->lives++;
    return zqcow2_snapshot_apply(w->img, text, NULL);
}

static int act_on_zone(struct world *w, uint32_t i, struct step *s)
{
    uint32_t number = 1 + (uint32_t)draw(w, ZONES - 1), capacity = w->shape->capacity, n;
    uint64_t at = start_of(w, number), size = zone_size(w);
    struct zone *z = &s->zone[number];

    switch (s->kind) {
    case RESET:
        *z = (struct zone){.life = w->lives++};
        return zqcow2_zone_reset(w->img, at, size, 0);
    case FINISH: z->wp = capacity; return zqcow2_zone_finish(w->img, at, size, 0);
    default:
        n = 1 + (uint32_t)draw(w, 12);
        if (n > capacity - z->wp)
            n = capacity - z->wp;
        memset(z->v + z->wp, (int)(i + 1), n);
        z->wp += n;
        return n ? append(w, w->img, number, n, (uint8_t)(i + 1)) : 0;
    }
}

static void run_step(struct world *w, uint32_t i)
{
    static const enum kind kinds[] = {APPEND, APPEND, APPEND, APPEND, APPEND, RESET, FINISH,
                                      FLUSH,  TAKE,   TAKE,   TAKE,   DELETE, APPLY, APPLY};
    struct step *s = &w->step[i];
    int rc;

    s->kind = kinds[draw(w, sizeof(kinds) / sizeof(*kinds))];
    memcpy(s->zone, w->step[i - 1].zone, sizeof(s->zone));
    s->begun = zqcow2_simdisk_position(w->disk);
    switch (s->kind) {
    case FLUSH: rc = zqcow2_flush(w->img); break;
    case TAKE:
        w->taken[i] = true;
        rc = take(w->img, i);
        break;
    case DELETE:
    case APPLY: rc = act_on_one(w, s); break;
    default: rc = act_on_zone(w, i, s);
    }
    must(w, rc == 0, "step", rc);
    s->ended = zqcow2_simdisk_position(w->disk);
}

/* ---- judging ---- */

static void read_zones(const struct world *w, struct zqcow2_image *img, struct zone got[ZONES])
{
    struct zqcow2_zone z[ZONES];
    uint8_t buf[SECTOR], same[SECTOR];
    uint32_t nr = ZONES;

    must(w, zqcow2_zone_report(img, 0, z, &nr) == 0 && nr == ZONES, "report", nr);
    memset(got, 0, ZONES * sizeof(*got));
    for (uint32_t i = 1; i < ZONES; i++) {
        got[i].wp = (uint32_t)((z[i].write_pointer - z[i].start) / SECTOR);
        if (z[i].state == ZQCOW2_ZONE_FULL)
            got[i].wp = w->shape->capacity;
        must(w, z[i].state != ZQCOW2_ZONE_EXP_OPEN && z[i].state != ZQCOW2_ZONE_IMP_OPEN, "open",
             i);
        for (uint32_t k = 0; k < w->shape->capacity; k++) {
            must(w, zqcow2_read(img, buf, SECTOR, start_of(w, i) + k * SECTOR) == 0, "read", i);
            got[i].v[k] = buf[0];
            memset(same, buf[0], SECTOR);
            must(w, memcmp(buf, same, SECTOR) == 0, "a torn sector", i);
        }
    }
}

static bool is_same(const struct zone a[ZONES], const struct zone b[ZONES])
{
    for (uint32_t i = 1; i < ZONES; i++) {
        if (a[i].wp != b[i].wp || memcmp(a[i].v, b[i].v, MOST) != 0)
            return false;
    }
    return true;
}

/* What lies behind the pointer reads as zeros. */
static bool is_beginning(const struct zone *got, const struct zone *of)
{
    static const uint8_t zeros[MOST];

    return got->wp <= of->wp && memcmp(got->v, of->v, got->wp) == 0 &&
           memcmp(got->v + got->wp, zeros, MOST - got->wp) == 0;
}

static bool makes_durable(const struct step *s)
{
    return s->kind == FLUSH || s->kind == TAKE || s->which;
}

/* Of the steps from `low`, the last one that was durable, up to before `end`. */
static bool allowed(const struct world *w, uint32_t low, uint32_t end, uint32_t i,
                    const struct zone *got)
{
    const struct zone *least = &w->step[low].zone[i];

    for (uint32_t k = low; k < end; k++) {
        const struct zone *of = &w->step[k].zone[i];

        if (is_beginning(got, of) && (of->life != least->life || got->wp >= least->wp))
            return true;
    }
    return false;
}

static void judge_zones(const struct world *w, struct zqcow2_image *img)
{
    struct zone got[ZONES];
    uint32_t end = 1, low = 0;

    while (end <= STEPS && w->step[end].begun < w->cut)
        end++;
    read_zones(w, img, got);
    if (w->step[end - 1].kind == APPLY && w->step[end - 1].which) {
        if (is_same(got, w->step[end - 1].zone))
            return;
        must(w, w->step[end - 1].ended > w->cut, "a snapshot that was applied", end - 1);
        end--;
    }
    for (uint32_t k = 1; k < end; k++) {
        if (makes_durable(&w->step[k]) && w->step[k].ended <= w->cut)
            low = k;
    }
    for (uint32_t i = 1; i < ZONES; i++)
        must(w, allowed(w, low, end, i, &got[i]), "zone", i);
}

static void note(void *arg, const struct zqcow2_snapshot *s)
{
    bool *there = arg;

    if (s->date_sec <= STEPS)
        there[s->date_sec] = true;
}

static void judge_snapshots(const struct world *w, struct zqcow2_simdisk *disk, bool *there)
{
    struct zqcow2_image *img = open_as(w, disk, false, NULL);
    struct zone got[ZONES];
    char text[16];

    memset(there, 0, (STEPS + 1) * sizeof(*there));
    must(w, zqcow2_snapshot_list(img, note, there, NULL) == 0, "list", 0);
    must(w, zqcow2_close(img) == 0, "close", 0);
    for (uint32_t i = 1; i <= STEPS; i++) {
        if (!there[i])
            continue;
        img = open_as(w, disk, false, name_of(i, text));
        read_zones(w, img, got);
        must(w, is_same(got, w->step[i].zone), "a snapshot is not what it was", i);
        must(w, zqcow2_close(img) == 0, "close", 0);
    }
}

/* Was it there before the cut, and in which step is that not certain? */
static void judge_list(const struct world *w, const bool *there)
{
    for (uint32_t i = 1; i <= STEPS; i++) {
        bool must_be = false, may_be = false;

        for (uint32_t k = 1; k <= STEPS && w->step[k].begun < w->cut; k++) {
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

static void check(const struct world *w, struct zqcow2_simdisk *disk, bool clean)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *b;

    o.flags = ZQCOW2_CHECK_NOLOCK;
    o.resolve = resolve;
    o.resolve_arg = (void *)(uintptr_t)w;
    must(w, zqcow2_simdisk_backend(disk, &b) == 0, "backend", 0);
    must(w, zqcow2_check(b, &o, &res, NULL) == 0, "check", 0);
    must(w, !res.corruptions, "corruptions", (long)res.corruptions);
    must(w, !clean || !res.leaked_clusters, "leaks", (long)res.leaked_clusters);
    zqcow2_backend_close(b);
}

/* Each zone gets another life, or more of the one that it has. */
static void write_all(struct world *w, struct zqcow2_image *img, uint8_t value)
{
    struct zone got[ZONES];
    uint32_t n;

    read_zones(w, img, got);
    for (uint32_t i = 1; i < ZONES; i++) {
        if (got[i].wp == w->shape->capacity || draw(w, 3) == 0) {
            must(w, zqcow2_zone_reset(img, start_of(w, i), zone_size(w), 0) == 0, "reset", i);
            got[i].wp = 0;
        }
        n = 1 + (uint32_t)draw(w, 12);
        if (n > w->shape->capacity - got[i].wp)
            n = w->shape->capacity - got[i].wp;
        must(w, append(w, img, i, n, value) == 0, "append", i);
    }
}

static void apply_whole(const struct world *w, struct zqcow2_image *img, uint32_t number)
{
    struct zone got[ZONES];
    char text[16];
    int rc = zqcow2_snapshot_apply(img, name_of(number, text), NULL);

    must(w, rc == 0, "apply", rc);
    read_zones(w, img, got);
    must(w, is_same(got, w->step[number].zone), "a snapshot, applied, is not what it was", number);
}

static void close_all(const struct world *w, struct zqcow2_image *img)
{
    for (uint32_t i = 1; i < ZONES; i++)
        must(w, zqcow2_zone_close(img, start_of(w, i), zone_size(w), 0) == 0, "close", i);
}

/* Written all over, with snapshots taken, applied and deleted: the others must not feel it. */
static void use(struct world *w, struct zqcow2_simdisk *disk, const bool *there)
{
    struct zqcow2_image *img = open_as(w, disk, true, NULL);
    uint32_t gone = 0;
    char text[16];

    judge_zones(w, img);
    write_all(w, img, 0xee);
    must(w, take(img, STEPS + 1) == 0, "take", 0);
    for (uint32_t i = 1; i <= STEPS && !gone; i++)
        gone = there[i] && draw(w, 2) ? i : 0;
    close_all(w, img);
    if (gone && draw(w, 2))
        apply_whole(w, img, gone);
    if (gone)
        must(w, zqcow2_snapshot_delete(img, name_of(gone, text), NULL) == 0, "delete", gone);
    close_all(w, img);
    write_all(w, img, 0xef);
    must(w, zqcow2_close(img) == 0, "close", 0);
}

static void judge(void *arg, uint64_t cut, uint64_t k, struct zqcow2_simdisk *disk)
{
    struct world *w = arg;
    struct zqcow2_image *img;
    bool there[STEPS + 1], later[STEPS + 1];

    w->cut = cut;
    w->k = k;
    img = open_as(w, disk, false, NULL);
    judge_zones(w, img);
    must(w, zqcow2_close(img) == 0, "close", 0);
    judge_snapshots(w, disk, there);
    judge_list(w, there);
    check(w, disk, false);
    if (draw(w, 3) == 0) { /* an open for writing sets all right, and changes nothing else */
        must(w, zqcow2_close(open_as(w, disk, true, NULL)) == 0, "close", 0);
        check(w, disk, true);
        judge_snapshots(w, disk, later);
    }
    use(w, disk, there);
    check(w, disk, true);
    judge_snapshots(w, disk, later);
    w->judged++;
}

static void workload(uint64_t seed, uint64_t *judged)
{
    static struct world w;
    const struct cuts c = {
        .states = STATES, .once = true, .rng = &w.rng, .judge = judge, .arg = &w};

    w = (struct world){
        .shape = &shapes[seed % SHAPES], .seed = seed, .rng = seed, .judged = *judged};
    create(&w);
    w.img = open_as(&w, w.disk, true, NULL);
    for (uint32_t i = 1; i <= STEPS; i++)
        run_step(&w, i);
    must(&w, zqcow2_close(w.img) == 0, "close", 0);
    must(&w, cuts_judge_all(&c, w.disk) == 0, "cut", 0);
    zqcow2_simdisk_free(w.disk);
    zqcow2_simdisk_free(w.base);
    *judged = w.judged;
}

static void every_cut(void **state)
{
    const char *only = getenv("ZQ_SEED"), *many = getenv("ZQ_SEEDS");
    uint64_t judged = 0, seeds = many ? strtoull(many, NULL, 10) : SEEDS;

    (void)state;
    for (uint64_t seed = 1; seed <= seeds || only; seed++) {
        if (only && strtoull(only, NULL, 10) < seed)
            break;
        if (!only || strtoull(only, NULL, 10) == seed)
            workload(seed, &judged);
    }
    printf("zoned snapshots: %llu crash states, 0 violations\n", (unsigned long long)judged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
