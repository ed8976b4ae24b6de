/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "crash/cuts.h"
#include "crash/zone_steps.h"

#define STATES 10u /* per position */

uint64_t draw(struct world *w, uint64_t n)
{
    return cuts_draw(&w->rng, n);
}

uint64_t start_of(const struct world *w, uint32_t zone)
{
    return w->shape->zone_size * zone * w->shape->stride;
}

void must(const struct world *w, bool good, const char *what, long got)
{
    if (!good)
        fail_msg("%s: %ld\nreplay: ZQ_SEED=%llu ZQ_CUT=%llu %s # state %llu", what, got,
                 (unsigned long long)w->seed, (unsigned long long)w->cut, w->kind->program,
                 (unsigned long long)w->k);
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

int step_reset(struct world *w, struct step *s)
{
    s->after = (struct shown){ZQCOW2_ZONE_EMPTY, 0, 0};
    return zqcow2_zone_reset(w->img, start_of(w, s->zone), w->shape->zone_size, 0);
}

int step_write(struct world *w, struct step *s)
{
    static const uint8_t data[512] = {1};
    uint64_t at = start_of(w, s->zone) + s->after.written;

    s->after.written += sizeof(data);
    s->after.state = s->after.written < w->shape->zone_size ? ZQCOW2_ZONE_CLOSED : ZQCOW2_ZONE_FULL;
    return zqcow2_write(w->img, data, sizeof(data), at, 0);
}

static void run_step(struct world *w, struct step *s)
{
    int rc;

    s->zone = (uint32_t)draw(w, w->kind->used + 1);
    s->begun = zqcow2_simdisk_position(w->disk);
    if (s->zone == w->kind->used) {
        s->barrier = true;
        rc = zqcow2_flush(w->img);
    } else {
        s->after = w->now[s->zone];
        rc = w->kind->change(w, s);
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

/* What is read-only or offline has no write pointer. */
static void look(const struct world *w, struct zqcow2_image *img, struct shown *shown)
{
    for (uint32_t z = 0; z < w->kind->used; z++) {
        struct zqcow2_zone r;
        uint32_t nr = 1;

        must(w, zqcow2_zone_report(img, start_of(w, z), &r, &nr) == 0, "report", z);
        shown[z] = (struct shown){r.state, 0, 0};
        if (r.state != ZQCOW2_ZONE_RDONLY && r.state != ZQCOW2_ZONE_OFFLINE)
            shown[z].written = r.write_pointer - r.start;
        if (w->kind->tag)
            shown[z].tag = w->kind->tag(w, img, z, r.attributes & ZQCOW2_ZONE_DESCRIBED);
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

void same(const struct world *w, struct zqcow2_image *img, const struct shown *shown)
{
    struct shown now[MOST_USED];

    look(w, img, now);
    for (uint32_t z = 0; z < w->kind->used; z++)
        must(w, same_shown(now[z], shown[z]), "zone changed", z);
}

/* Shown, recovered, used, and found again. */
static void judge(struct world *w, struct zqcow2_simdisk *disk)
{
    struct zqcow2_image *img = open_on(w, disk, false);
    struct shown shown[MOST_USED];

    look(w, img, shown);
    for (uint32_t z = 0; z < w->kind->used; z++) {
        if (!allowed(w, z, shown[z])) {
            printf("zone %u: state %u, 0x%llx bytes, tag %u\n", z, shown[z].state,
                   (unsigned long long)shown[z].written, shown[z].tag);
            must(w, false, "not allowed", z);
        }
    }
    must(w, zqcow2_close(img) == 0, "close", 0);
    check(w, disk, false);
    img = open_on(w, disk, true);
    same(w, img, shown);
    w->kind->use(w, img, shown);
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

static void workload(const struct kind *kind, uint64_t seed, uint64_t *judged)
{
    static struct world w;

    w = (struct world){.kind = kind,
                       .shape = &kind->shapes[seed % 4],
                       .seed = seed,
                       .rng = seed,
                       .judged = *judged};
    for (uint32_t z = 0; z < kind->used; z++)
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

void every_cut_of(const struct kind *kind)
{
    const char *only = getenv("ZQ_SEED");
    uint64_t judged = 0;

    for (uint64_t seed = 1; seed <= 24; seed++) {
        if (!only || strtoull(only, NULL, 10) == seed)
            workload(kind, seed, &judged);
    }
    printf("%s: %llu crash states, 0 violations\n", kind->figure, (unsigned long long)judged);
}
