/* SPDX-License-Identifier: MIT */
/*
 * Descriptor extensions under power loss: zones get one, are written, finished and reset, and get
 * the next one, and the power is cut at every position. What was acknowledged is there; what was
 * not is one of those that the zone went through since, with the pointer that it had then: an
 * extension is never torn, never that of another zone or of another life.
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

#define USED   6u /* zones */
#define STEPS  40u
#define STATES 10u /* per position */
#define MOST   576u
#define TORN   99u

struct shape {
    uint64_t zone_size;
    uint32_t zones, stride, cluster, described, flags;
};
/* Some share a sector, and some lie in two. */
static const struct shape shapes[] = {
    {65536, 8, 1, 4096, 64, 0},
    {65536, 8, 1, 65536, 192, ZQCOW2_SIMDISK_ASYNC},
    {4096, 1100, 180, 512, 64, ZQCOW2_SIMDISK_ASYNC},
    {4096, 1100, 1, 1024, MOST, 0},
};

struct shown {
    uint8_t state, tag; /* tag: of the extension; 0: it has none */
    uint64_t written;
};

/* zone: USED for a flush. barrier: what came before is durable when it is acknowledged. */
struct step {
    uint32_t zone;
    bool barrier;
    uint64_t begun, ended;
    struct shown after;
};

struct world {
    const struct shape *shape;
    uint64_t seed, rng, cut, k, judged;
    struct zqcow2_simdisk *disk;
    struct zqcow2_image *img;
    struct shown now[USED];
    struct step step[STEPS];
};

static uint64_t draw(struct world *w, uint64_t n)
{
    return cuts_draw(&w->rng, n);
}

static uint64_t start_of(const struct world *w, uint32_t zone)
{
    return w->shape->zone_size * zone * w->shape->stride;
}

static void must(const struct world *w, bool good, const char *what, long got)
{
    if (!good)
        fail_msg("%s: %ld\nreplay: ZQ_SEED=%llu ZQ_CUT=%llu test_described # state %llu", what, got,
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
    o.rules = ZQCOW2_RULES_ZNS;
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
    c.virtual_size = w->shape->zone_size * w->shape->zones;
    c.zone_size = w->shape->zone_size;
    c.cluster_size = w->shape->cluster;
    c.descriptor_extension = w->shape->described;
    must(w, zqcow2_create(be, &c, NULL) == 0, "create", 0);
    must(w, zqcow2_backend_flush(be) == 0, "flush", 0);
    zqcow2_backend_close(be);
    must(w, zqcow2_simdisk_record(w->disk) == 0, "record", 0);
}

/* ---- the workload ---- */

/* No byte of it is that of another zone, of another step, or 0. */
static void compose(uint8_t *buf, uint32_t size, uint32_t zone, uint8_t tag)
{
    for (uint32_t i = 0; i < size; i++)
        buf[i] = tag ? (uint8_t)(1 + (tag * USED + zone + i * 3) % 255) : 0;
}

static int describe(const struct world *w, struct zqcow2_image *img, uint32_t zone, uint8_t tag)
{
    uint8_t buf[MOST];

    compose(buf, w->shape->described, zone, tag);
    return zqcow2_zone_set_descriptor(img, start_of(w, zone), buf, w->shape->described);
}

static int reset(struct world *w, struct step *s)
{
    s->after = (struct shown){ZQCOW2_ZONE_EMPTY, 0, 0};
    return zqcow2_zone_reset(w->img, start_of(w, s->zone), w->shape->zone_size, 0);
}

static int write_some(struct world *w, struct step *s)
{
    static const uint8_t data[512] = {1};
    uint64_t at = start_of(w, s->zone) + s->after.written;

    s->after.written += sizeof(data);
    s->after.state = s->after.written < w->shape->zone_size ? ZQCOW2_ZONE_CLOSED : ZQCOW2_ZONE_FULL;
    return zqcow2_write(w->img, data, sizeof(data), at, 0);
}

static int finish(struct world *w, struct step *s)
{
    s->after.state = ZQCOW2_ZONE_FULL;
    s->after.written = w->shape->zone_size;
    return zqcow2_zone_finish(w->img, start_of(w, s->zone), w->shape->zone_size, 0);
}

static int change(struct world *w, struct step *s)
{
    uint64_t chance = draw(w, 8);

    if (s->after.state == ZQCOW2_ZONE_EMPTY && chance < 6) {
        s->barrier = true;
        s->after.state = ZQCOW2_ZONE_CLOSED;
        s->after.tag = (uint8_t)(1 + (s - w->step));
        return describe(w, w->img, s->zone, s->after.tag);
    }
    if (s->after.state == ZQCOW2_ZONE_FULL || chance < 3)
        return reset(w, s);
    return chance == 7 ? finish(w, s) : write_some(w, s);
}

static void run_step(struct world *w, struct step *s)
{
    int rc;

    s->zone = (uint32_t)draw(w, USED + 1);
    s->begun = zqcow2_simdisk_position(w->disk);
    if (s->zone == USED) {
        s->barrier = true;
        rc = zqcow2_flush(w->img);
    } else {
        s->after = w->now[s->zone];
        rc = change(w, s);
        w->now[s->zone] = s->after;
    }
    must(w, rc == 0, "step", rc);
    s->ended = zqcow2_simdisk_position(w->disk);
}

/* ---- judging ---- */

static bool same_shown(struct shown a, struct shown b)
{
    return a.state == b.state && a.written == b.written && a.tag == b.tag;
}

/* Is it one of those since the last that a barrier before the cut has made durable? */
static bool allowed(const struct world *w, uint32_t z, struct shown got)
{
    struct shown last = {ZQCOW2_ZONE_EMPTY, 0, 0}, durable = last;
    bool any = false;

    for (unsigned i = 0; i < STEPS; i++) {
        const struct step *s = &w->step[i];

        if (s->begun >= w->cut)
            break;
        if (s->zone == z) {
            last = s->after;
            any |= same_shown(last, got);
        }
        if (s->barrier && s->ended <= w->cut) {
            durable = last;
            any = false;
        }
    }
    return any || same_shown(durable, got);
}

/* Which of all that were ever set: what is not the whole of one is torn. */
static uint8_t tag_of(const struct world *w, uint32_t zone, const uint8_t *got, bool described)
{
    uint8_t want[MOST];

    for (uint8_t tag = described; tag <= (described ? STEPS + 1 : 0); tag++) {
        compose(want, w->shape->described, zone, tag);
        if (!memcmp(got, want, w->shape->described))
            return tag;
    }
    return TORN;
}

static void look(const struct world *w, struct zqcow2_image *img, struct shown *shown)
{
    for (uint32_t z = 0; z < USED; z++) {
        struct zqcow2_zone r;
        uint8_t buf[MOST];
        uint32_t nr = 1;

        must(w, zqcow2_zone_report(img, start_of(w, z), &r, &nr) == 0, "report", z);
        must(w, zqcow2_zone_get_descriptors(img, start_of(w, z), buf, &nr) == 0, "get", z);
        shown[z] = (struct shown){r.state, tag_of(w, z, buf, r.attributes & ZQCOW2_ZONE_DESCRIBED),
                                  r.write_pointer - r.start};
    }
}

static void check(const struct world *w, struct zqcow2_simdisk *disk, bool clean)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;

    o.flags = ZQCOW2_CHECK_NOLOCK;
    must(w, zqcow2_simdisk_backend(disk, &be) == 0, "backend", 0);
    must(w, zqcow2_check(be, &o, &res, NULL) == 0, "check", 0);
    must(w, !res.corruptions, "corruptions", (long)res.corruptions);
    must(w, !clean || !res.leaked_clusters, "leaks", (long)res.leaked_clusters);
    zqcow2_backend_close(be);
}

static void same(const struct world *w, struct zqcow2_image *img, const struct shown *before)
{
    struct shown now[USED];

    look(w, img, now);
    for (uint32_t z = 0; z < USED; z++)
        must(w, same_shown(now[z], before[z]), "zone changed", z);
}

/* Used again: what a zone has had does not come back in its next life. */
static void use(const struct world *w, struct zqcow2_image *img, struct shown *shown)
{
    for (uint32_t z = 0; z < 2; z++) {
        must(w, zqcow2_zone_reset(img, start_of(w, z), w->shape->zone_size, 0) == 0, "reset", z);
        shown[z] = (struct shown){ZQCOW2_ZONE_EMPTY, 0, 0};
    }
    same(w, img, shown);
    must(w, describe(w, img, 1, STEPS + 1) == 0, "describe", 1);
    shown[1] = (struct shown){ZQCOW2_ZONE_CLOSED, STEPS + 1, 0};
}

/* Shown, recovered, used, and found again. */
static void judge(struct world *w, struct zqcow2_simdisk *disk)
{
    struct zqcow2_image *img = open_on(w, disk, false);
    struct shown shown[USED];

    look(w, img, shown);
    for (uint32_t z = 0; z < USED; z++) {
        if (!allowed(w, z, shown[z])) {
            printf("zone %u: state %u, 0x%llx bytes, extension %u\n", z, shown[z].state,
                   (unsigned long long)shown[z].written, shown[z].tag);
            must(w, false, "not allowed", z);
        }
    }
    must(w, zqcow2_close(img) == 0, "close", 0);
    check(w, disk, false);
    img = open_on(w, disk, true);
    same(w, img, shown);
    use(w, img, shown);
    must(w, zqcow2_close(img) == 0, "close", 0);
    check(w, disk, true);
    img = open_on(w, disk, false);
    same(w, img, shown);
    must(w, zqcow2_close(img) == 0, "close", 0);
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

static void workload(uint64_t seed, uint64_t *judged)
{
    static struct world w;

    w = (struct world){.shape = &shapes[seed % 4], .seed = seed, .rng = seed, .judged = *judged};
    for (uint32_t z = 0; z < USED; z++)
        w.now[z].state = ZQCOW2_ZONE_EMPTY;
    create(&w);
    w.img = open_on(&w, w.disk, true);
    for (unsigned i = 0; i < STEPS; i++)
        run_step(&w, &w.step[i]);
    must(&w, zqcow2_close(w.img) == 0, "close", 0);
    judge_all(&w);
    zqcow2_simdisk_free(w.disk);
    *judged = w.judged;
}

static void every_cut(void **state)
{
    const char *only = getenv("ZQ_SEED");
    uint64_t judged = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 24; seed++) {
        if (!only || strtoull(only, NULL, 10) == seed)
            workload(seed, &judged);
    }
    printf("descriptor extensions: %llu crash states, 0 violations\n", (unsigned long long)judged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_cut)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
