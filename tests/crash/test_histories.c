/* SPDX-License-Identifier: MIT */
/*
 * Many changes of one image in one history (history.h), most while requests are in flight, and the
 * power cut at every position. Every snapshot that is there then has the content of one moment; the
 * disk holds what was flushed; a bitmap that is not inconsistent marks what has changed. Then the
 * image is used, closed, and found again.
 *
 * ZQ_SEED: one history; ZQ_CUT, ZQ_STATE: with it, one position, one state there. ZQ_STATES: all
 * states of histories from the seed ZQ_FIRST on, of which each is ZQ_EVERY more than the last,
 * until there are so many. Else some states of a few histories.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "crash/cuts.h"
#include "crash/history.h"

#define STATES 3u  /* per position */
#define A_FEW  22u /* histories, and one of so many states: */
#define ONE_OF 8u
#define TO_DO  12u /* calls in a history */

static struct history history;
static bool every_state;

static void check(const struct history *h, struct zqcow2_simdisk *disk, bool clean)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;

    o.flags = ZQCOW2_CHECK_NOLOCK;
    o.resolve = resolve_below;
    o.resolve_arg = (void *)(uintptr_t)h;
    must(h, zqcow2_simdisk_backend(disk, &be) == 0, "backend", 0);
    must(h, zqcow2_check(be, &o, &res, NULL) == 0, "check", 0);
    must(h, !res.corruptions || (!clean && h->lazy), "corruptions", (long)res.corruptions);
    must(h, !clean || !res.leaked_clusters, "leaks", (long)res.leaked_clusters);
    zqcow2_backend_close(be);
}

static void note(void *arg, const struct zqcow2_snapshot *s)
{
    bool *there = arg;

    if (s->date_sec < ACTS)
        there[s->date_sec] = true;
}

/* Each that is there is what it was. */
static void judge_snapshots(const struct history *h, struct zqcow2_simdisk *disk, bool *there)
{
    struct zqcow2_image *img = open_plainly(h, disk, false, NULL);
    struct content got;
    char text[16];

    memset(there, 0, ACTS * sizeof(*there));
    must(h, zqcow2_snapshot_list(img, note, there, NULL) == 0, "list", 0);
    must(h, zqcow2_close(img) == 0, "close", 0);
    for (uint32_t i = 1; i < ACTS; i++) {
        if (!there[i])
            continue;
        img = open_plainly(h, disk, false, name_of(i, text));
        read_content(h, img, &got);
        must(h, is_same(&got, &h->act[i].content), "a snapshot is not what it was", (long)i);
        must(h, zqcow2_close(img) == 0, "close", 0);
    }
}

/* ---- use ---- */

static void write_all(struct history *h, struct zqcow2_image *img, uint8_t value)
{
    uint8_t data[3 * SECTOR];
    struct content c;
    int rc = 0;

    memset(data, value, sizeof(data));
    read_content(h, img, &c);
    for (uint32_t at = 0; rc == 0 && at + 3 <= c.size; at += ZONE) {
        uint32_t wp = c.wp[at / ZONE];

        if (is_sequential(h, at) && (wp + 3 > h->shape->capacity || draw(h, 3) == 0)) {
            rc = zqcow2_zone_reset(img, (uint64_t)at * SECTOR, ZONE * SECTOR, 0);
            wp = 0;
        }
        if (rc == 0)
            rc = zqcow2_write(img, data, sizeof(data), (uint64_t)(at + wp) * SECTOR, 0);
    }
    must(h, rc == 0, "write", rc);
}

static void use_snapshots(struct history *h, struct zqcow2_image *img, const bool *there)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    uint32_t one = 0;
    struct content c;
    char text[16];
    int rc;

    s.name = "more";
    s.date_sec = ACTS;
    rc = zqcow2_snapshot_take(img, &s, NULL);
    must(h, rc == 0 || rc == -EOVERFLOW, "take", rc);
    for (uint32_t i = 1; i < ACTS && !one; i++)
        one = there[i] && draw(h, 2) ? i : 0;
    if (!one)
        return;
    if (draw(h, 2)) {
        rc = zqcow2_snapshot_apply(img, name_of(one, text), NULL);
        must(h, rc == 0 || rc == -EOVERFLOW, "apply", rc);
        read_content(h, img, &c);
        must(h, rc < 0 || is_same(&c, &h->act[one].content), "applied, but not what it was",
             (long)one);
    } else {
        rc = zqcow2_snapshot_delete(img, name_of(one, text), NULL);
        must(h, rc == 0, "delete", rc);
    }
}

/* What is lost can be removed; what holds goes on being kept. */
static void use_bitmaps(struct history *h, struct zqcow2_image *img)
{
    struct found f[BITMAPS];

    must(h, bitmaps_look(img, history_bitmaps, BITMAPS, f) == 0, "list bitmaps", 0);
    for (unsigned i = 0; i < BITMAPS; i++) {
        if (f[i].lost)
            must(h, zqcow2_bitmap_remove(img, history_bitmaps[i], NULL) == 0, "remove", (long)i);
    }
}

static void use(struct history *h, struct zqcow2_simdisk *disk, const bool *there,
                const struct content *shown)
{
    struct zqcow2_image *img = open_plainly(h, disk, true, NULL);
    struct content got, again;

    read_content(h, img, &got);
    must(h, is_same(&got, shown), "recovery has changed the disk", 0);
    use_bitmaps(h, img);
    write_all(h, img, 252);
    use_snapshots(h, img, there);
    write_all(h, img, 253);
    read_content(h, img, &got);
    must(h, zqcow2_close(img) == 0, "close", 0);
    img = open_plainly(h, disk, false, NULL);
    read_content(h, img, &again);
    must(h, is_same(&got, &again), "closed, and not what it was", 0);
    must(h, zqcow2_close(img) == 0, "close", 0);
}

static void judge(void *arg, uint64_t cut, uint64_t k, struct zqcow2_simdisk *disk)
{
    struct history *h = arg;
    struct zqcow2_image *img;
    bool there[ACTS], later[ACTS];
    struct content got;

    h->cut = cut;
    h->k = k;
    h->rng = (h->seed << 40 ^ cut << 16 ^ k) * 0x9e3779b97f4a7c15u; /* as in a replay */
    if (!every_state && draw(h, ONE_OF))
        return;
    img = open_plainly(h, disk, false, NULL);
    read_content(h, img, &got);
    judge_content(h, &got, 0);
    judge_bitmaps(h, img, &got);
    must(h, zqcow2_close(img) == 0, "close", 0);
    judge_snapshots(h, disk, there);
    judge_list(h, there);
    check(h, disk, false);
    use(h, disk, there, &got);
    check(h, disk, true);
    judge_snapshots(h, disk, later);
    h->judged++;
}

/* ---- the test ---- */

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 10) : otherwise;
}

struct figures {
    uint64_t histories, judged, among, held, done[NR_KINDS];
};

static void one_history(uint64_t seed, struct figures *sum)
{
    struct history *h = &history;
    uint64_t rng = seed;
    const struct cuts c = {.states = STATES, .once = true, .rng = &rng, .judge = judge, .arg = h};

    history_begin(h, seed);
    history_run(h, TO_DO);
    check(h, h->disk, true);
    must(h, cuts_judge_all(&c, h->disk) == 0, "cut", 0);
    history_end(h);
    sum->histories++;
    sum->judged += h->judged;
    sum->among += h->among;
    sum->held += h->held;
    for (unsigned i = 0; i < NR_KINDS; i++)
        sum->done[i] += h->done[i];
}

static void print(const struct figures *s)
{
    static const char *const names[] = {"writes",    "resets",  "finishes", "flushes",
                                        "taken",     "deleted", "applied",  "resized",
                                        "compacted", "bitmaps", "reopened", "amended"};

    printf("histories: %llu, ", (unsigned long long)s->histories);
    for (unsigned i = 0; i < NR_KINDS; i++)
        printf("%s %llu, ", names[i], (unsigned long long)s->done[i]);
    printf("%llu requests during calls, %llu bitmaps held; %llu crash states, 0 violations\n",
           (unsigned long long)s->among, (unsigned long long)s->held,
           (unsigned long long)s->judged);
}

static void every_cut(void **state)
{
    uint64_t only = number_from("ZQ_SEED", 0), states = number_from("ZQ_STATES", 0),
             first = only ? only : number_from("ZQ_FIRST", 1), every = number_from("ZQ_EVERY", 1);
    struct figures sum = {.histories = 0};

    (void)state;
    every_state = only || states;
    for (uint64_t seed = first; only   ? seed == only :
                                states ? sum.judged < states :
                                         sum.histories < A_FEW;
         seed += every)
        one_history(seed, &sum);
    print(&sum);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
