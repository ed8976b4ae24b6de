/* SPDX-License-Identifier: MIT */
/*
 * Zoned images that get more zones and fewer, between appends, resets and finishes, and the power
 * cut at every position. The device has the old size or the new one, zones that both have are as
 * they were, and new ones are empty. A last zone that was short and FULL goes on from its old end.
 *
 * ZQ_SEED: one workload; ZQ_CUT: with it, one position; ZQ_SEEDS: how many workloads
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
#include <zqcow2/stats.h>

#include "crash/cuts.h"
#include "crash/resize_model.h"

#define STATES 3u /* per position */
#define SEEDS  16u

/* ---- judging ---- */

/* What lies behind the pointer reads as zeros. */
static bool is_beginning(const struct zone *got, const struct zone *of)
{
    static const uint8_t zeros[MOST];

    return got->wp <= of->wp && memcmp(got->v, of->v, got->wp) == 0 &&
           memcmp(got->v + got->wp, zeros, MOST - got->wp) == 0;
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

static bool makes_durable(const struct step *s, const struct step *before)
{
    return s->kind == FLUSH || s->kind == GROW || s->size != before->size;
}

static uint64_t judge_zones(const struct world *w, struct zqcow2_image *img, struct zone got[ZONES])
{
    uint64_t size = read_zones(w, img, got);
    uint32_t end = 1, low = 0;

    must(w, size_allowed(w, size), "size", (long)size);
    while (end <= w->steps && w->step[end].begun < w->cut)
        end++;
    for (uint32_t k = 1; k < end; k++) {
        if (makes_durable(&w->step[k], &w->step[k - 1]) && w->step[k].ended <= w->cut)
            low = k;
    }
    for (uint32_t i = 1; i < zones_of(w, size); i++)
        must(w, allowed(w, low, end, i, &got[i]), "zone", i);
    return size;
}

static void check(const struct world *w, struct zqcow2_simdisk *disk, bool clean)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be = backend(w, disk);

    o.flags = ZQCOW2_CHECK_NOLOCK;
    must(w, zqcow2_check(be, &o, &res, NULL) == 0, "check", 0);
    must(w, !res.corruptions, "corruptions", (long)res.corruptions);
    must(w, !clean || !res.leaked_clusters, "leaks", (long)res.leaked_clusters);
    zqcow2_backend_close(be);
}

/* It grows once more, and every zone takes another append behind what it has. */
static void use(struct world *w, struct zqcow2_simdisk *disk)
{
    struct zqcow2_image *img = open_on(w, disk, true);
    struct zone was[ZONES];
    struct step s = {.size = start_of(w, ZONES) / SECTOR};
    uint64_t size = judge_zones(w, img, was);
    int rc = size == s.size ? 0 : zqcow2_resize(img, s.size * SECTOR, 0, NULL);

    must(w, rc == 0, "grow", rc);
    memcpy(s.zone, was, sizeof(was));
    is_as(w, img, &s);
    for (uint32_t i = 1; i < ZONES; i++) {
        uint32_t most = capacity(w, s.size, i), n = most - s.zone[i].wp < 3 ? 0 : 3;

        rc = append(w, img, i, n, 0xee);
        must(w, rc == 0, "append", rc);
        memset(s.zone[i].v + s.zone[i].wp, 0xee, n);
        s.zone[i].wp += n;
    }
    is_as(w, img, &s);
    must(w, zqcow2_close(img) == 0, "close", 0);
    img = open_on(w, disk, false);
    is_as(w, img, &s);
    must(w, zqcow2_close(img) == 0, "close", 0);
}

static void judge(void *arg, uint64_t cut, uint64_t k, struct zqcow2_simdisk *disk)
{
    struct world *w = arg;
    struct zqcow2_image *img;
    struct zone got[ZONES];

    w->cut = cut;
    w->k = k;
    img = open_on(w, disk, false);
    judge_zones(w, img, got);
    must(w, zqcow2_close(img) == 0, "close", 0);
    check(w, disk, false);
    use(w, disk);
    check(w, disk, true);
    w->judged++;
}

/* ---- the tests ---- */

static uint64_t seeds(void)
{
    const char *many = getenv("ZQ_SEEDS");

    return many ? strtoull(many, NULL, 10) : SEEDS;
}

static bool wanted(uint64_t seed)
{
    const char *only = getenv("ZQ_SEED");

    return !only || strtoull(only, NULL, 10) == seed;
}

/* Each step is read back, and nothing is left over when the image is closed. */
static void run_all(struct world *w)
{
    w->img = open_as(w, true);
    while (w->steps < STEPS) {
        int rc = run_step(w);

        must(w, rc == 0, "step", rc);
        is_as(w, w->img, &w->step[w->steps]);
    }
    must(w, zqcow2_close(w->img) == 0, "close", 0);
    check(w, w->disk, true);
    w->img = open_as(w, false);
    is_as(w, w->img, &w->step[w->steps]);
    must(w, zqcow2_close(w->img) == 0, "close", 0);
}

static void every_cut(void **state)
{
    static struct world w;
    const struct cuts c = {
        .states = STATES, .once = true, .rng = &w.rng, .judge = judge, .arg = &w};
    uint64_t judged = 0, resized = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= seeds(); seed++) {
        if (!wanted(seed))
            continue;
        start(&w, seed);
        must(&w, zqcow2_simdisk_record(w.disk) == 0, "record", 0);
        run_all(&w);
        must(&w, cuts_judge_all(&c, w.disk) == 0, "cut", 0);
        judged += w.judged;
        resized += w.resized;
        end(&w);
    }
    printf("zones resized: %llu times, %llu crash states, 0 violations\n",
           (unsigned long long)resized, (unsigned long long)judged);
}

/* A step that failed may have done anything to what it was about, as a power cut there might. */
static void fail_at(struct world *w, uint64_t seed, uint64_t nth, int error, unsigned *struck)
{
    struct zqcow2_simdisk_fault f = ZQCOW2_SIMDISK_FAULT_INIT;
    int rc = 0;

    start(w, seed);
    w->img = open_as(w, true);
    f.nth = nth;
    f.kinds = 1u << ZQCOW2_IO_WRITE | 1u << ZQCOW2_IO_TRUNCATE;
    if (error != -ENOSPC)
        f.kinds |= 1u << ZQCOW2_IO_FLUSH | 1u << ZQCOW2_IO_READ;
    f.error = error;
    must(w, zqcow2_simdisk_set_fault(w->disk, &f) == 0, "fault", 0);
    while (w->steps < STEPS && rc == 0)
        rc = run_step(w);
    *struck += rc < 0;
    must(w, zqcow2_simdisk_set_fault(w->disk, NULL) == 0, "fault", 0);
    w->step[w->steps].ended = UINT64_MAX;
    (void)zqcow2_close(w->img);
    judge(w, UINT64_MAX - 1, nth, w->disk);
    end(w);
}

static void every_error(void **state)
{
    static struct world w;
    unsigned struck = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SHAPES; seed++) {
        for (uint64_t nth = 1; wanted(seed) && nth < 300; nth += 1 + nth / 20) {
            fail_at(&w, seed, nth, -EIO, &struck);
            fail_at(&w, seed, nth, -ENOSPC, &struck);
        }
    }
    printf("zones resized: %u errors struck a step\n", struck);
}

static void refused(struct world *w, uint64_t size, uint32_t flags, int with)
{
    int rc = zqcow2_resize(w->img, size, flags, NULL);

    must(w, rc == with, "refused", rc);
    is_as(w, w->img, &w->step[0]);
}

/* A last zone that was FULL is active when it has grown: not where too many are. */
static void nothing_changes_when_refused(void **state)
{
    static struct world w;
    struct step *s = &w.step[0];
    uint64_t size;

    (void)state;
    start_with(&w, 1, &tight);
    size = start_of(&w, 4);
    w.img = open_as(&w, true);
    must(&w, append(&w, w.img, 3, 9, 3) == 0, "append", 0);
    must(&w, append(&w, w.img, 1, 4, 1) == 0, "append", 0);
    memset(s->zone[3].v, 3, 9);
    memset(s->zone[1].v, 1, 4);
    s->zone[3].wp = 9;
    s->zone[1].wp = 4;
    refused(&w, size, 0, ZQCOW2_EZONE_ACTIVE);
    refused(&w, size + SECTOR, 0, -EINVAL);
    refused(&w, start_of(&w, 1), ZQCOW2_RESIZE_SHRINK, -EINVAL);
    refused(&w, start_of(&w, 2), ZQCOW2_RESIZE_SHRINK, ZQCOW2_EZONE_STATE);
    refused(&w, start_of(&w, 2), 0, -EINVAL);
    refused(&w, start_of(&w, 2), ZQCOW2_RESIZE_DISCARD, -EINVAL);
    refused(&w, start_of(&w, (1u << 20) + 1), 0, -EFBIG);
    must(&w, zqcow2_zone_finish(w.img, start_of(&w, 1), zone_size(&w), 0) == 0, "finish", 0);
    must(&w, zqcow2_resize(w.img, size, 0, NULL) == 0, "grow", 0);
    s->zone[1].wp = 20;
    s->size = size / SECTOR;
    is_as(&w, w.img, s);
    must(&w, append(&w, w.img, 2, 1, 2) == ZQCOW2_EZONE_ACTIVE, "one more is active", 0);
    must(&w, zqcow2_close(w.img) == 0, "close", 0);
    end(&w);
}

/* What is counted as zones change is what a report finds. */
static void counts_them(const struct world *w, struct zqcow2_image *img,
                        const struct zqcow2_zone *z, uint32_t nr)
{
    uint32_t zones[ZQCOW2_STATS_STATES] = {0};
    struct zqcow2_stats s = {.size = sizeof(s)};

    for (uint32_t i = 0; i < nr; i++)
        zones[z[i].state]++;
    must(w, zqcow2_get_stats(img, &s) == 0, "stats", 0);
    must(w, !memcmp(s.zones, zones, sizeof(zones)), "counts of zones", 0);
}

static void has_kept(const struct world *w, struct zqcow2_image *img, uint32_t zones)
{
    struct zqcow2_zone z[ZONES];
    uint8_t got[ZONES * 64];
    uint32_t nr = ZONES;

    must(w, zqcow2_zone_report(img, 0, z, &nr) == 0 && nr == zones, "report", nr);
    must(w, z[1].state == ZQCOW2_ZONE_RDONLY, "state", z[1].state);
    must(w, z[2].state == ZQCOW2_ZONE_CLOSED, "state", z[2].state);
    counts_them(w, img, z, nr);
    for (uint32_t i = 3; i < nr; i++)
        must(w, z[i].state == ZQCOW2_ZONE_EMPTY, "state of a new zone", z[i].state);
    must(w, zqcow2_zone_get_descriptors(img, 0, got, &nr) == 0, "get", 0);
    for (uint32_t i = 0; i < zones * 64; i++)
        must(w, got[i] == (i / 64 == 2 ? 0x5a : 0), "descriptor", (long)i);
}

static void states_and_descriptors_stay(void **state)
{
    static struct world w;
    uint8_t text[64];

    (void)state;
    start(&w, 1);
    w.img = open_as(&w, true);
    memset(text, 0x5a, sizeof(text));
    must(&w, zqcow2_zone_set_descriptor(w.img, start_of(&w, 2), text, sizeof(text)) == 0, "set", 0);
    must(&w,
         zqcow2_zone_set_state(w.img, start_of(&w, 1), ZQCOW2_ZONE_RDONLY | ZQCOW2_ZONE_PERSIST) ==
             0,
         "set state", 0);
    must(&w, zqcow2_resize(w.img, start_of(&w, 9), 0, NULL) == 0, "grow", 0);
    has_kept(&w, w.img, 9);
    must(&w, zqcow2_resize(w.img, start_of(&w, 5), ZQCOW2_RESIZE_SHRINK, NULL) == 0, "shrink", 0);
    must(&w, zqcow2_close(w.img) == 0, "close", 0);
    check(&w, w.disk, true);
    w.img = open_as(&w, false);
    has_kept(&w, w.img, 5);
    must(&w, zqcow2_close(w.img) == 0, "close", 0);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut),
        cmocka_unit_test(every_error),
        cmocka_unit_test(nothing_changes_when_refused),
        cmocka_unit_test(states_and_descriptors_stay),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
