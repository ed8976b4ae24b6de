/* SPDX-License-Identifier: MIT */
/*
 * Every scenario under every fault: the n-th allocation or backend call fails, for each n until a
 * run sees none. No crash, no leak, no false success, nothing lost that was flushed, and afterwards
 * an image that works.
 *
 * Each again with the device's bytes in a data file: then a call of either file fails.
 *
 * ZQ_SCENARIO, ZQ_FAULT (name), ZQ_N (one point), ZQ_STEP (every so many points), ZQ_FILES (one,
 * two)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "scenario/scenario.h"

struct plan {
    const char *name;
    bool memory;
    enum fault_kind kind;
    bool for_ever;
};

static const struct plan plans[] = {
    {"oom-once", true, FAULT_NONE, false},       {"oom-for-ever", true, FAULT_NONE, true},
    {"eio-once", false, FAULT_EIO, false},       {"eio-for-ever", false, FAULT_EIO, true},
    {"enospc-once", false, FAULT_ENOSPC, false}, {"enospc-for-ever", false, FAULT_ENOSPC, true},
    {"short-once", false, FAULT_SHORT, false},
};
#define NR_PLANS (sizeof(plans) / sizeof(*plans))

static const struct scenario_set *const sets[] = {&scenarios_zones, &scenarios_data,
                                                  &scenarios_crowd, &scenarios_file};
#define NR_SETS (sizeof(sets) / sizeof(*sets))

/* The image that a scenario begins with, made once; data: of its data file. */
struct bench {
    const struct scenario *sc;
    struct geometry g;
    struct store fresh, data;
    unsigned bad;
    uint64_t points;
};

static void arm(struct rig *r, const struct plan *p, uint64_t n)
{
    heap_plan(&r->heap, p && p->memory ? n : 0, p && p->for_ever);
    fault_plan(&r->fault, p ? p->kind : FAULT_NONE, p && !p->memory ? n : 0, p && p->for_ever);
}

static void disarm(struct rig *r)
{
    arm(r, NULL, 0);
}

/* A create that failed leaves nothing that opens, or all of it; a second try has to do. */
static void create_anew(struct rig *r)
{
    int rc;

    disarm(r);
    rc = rig_open(r, false);
    if (!rc) {
        rig_close(r);
        if (rig_check(r, 0) || r->check.corruptions || r->check.leaked_clusters)
            rig_say(r, "a failed create left an image that opens, but is not sound");
    }
    store_free(&r->store);
    store_init(&r->store);
    if (r->g->data_file)
        store_zero(&r->data.store, r->data.store.length, 0);
    rc = rig_create(r);
    if (rc)
        rig_say(r, "create again: %d %s", rc, r->err.text);
}

/* True if a fault has struck and was dealt with. */
static bool begin(struct rig *r, const struct bench *b, const struct plan *p, uint64_t n)
{
    int rc;

    if (!b->sc->creates)
        store_copy(&r->store, &b->fresh);
    if (!b->sc->creates && b->g.data_file)
        store_copy(&r->data.store, &b->data);
    arm(r, p, n);
    if (b->sc->creates) {
        rc = rig_create(r);
        if (!st_judge_durable(r, rc, "create", 0)) {
            r->story->gone = true;
            create_anew(r);
            return true;
        }
    }
    r->story->gone = !st_judge_durable(r, rig_open(r, true), "open", 0);
    return false;
}

/* Corruption never; leaks only where something failed, and only until the next writable open. */
static void check(struct rig *r, bool clean)
{
    int rc = rig_check(r, 0);

    if (rc)
        rig_say(r, "check: %d %s", rc, r->err.text);
    else if (r->check.corruptions || (clean && r->check.leaked_clusters))
        rig_say(r, "check: %llu corruptions, %llu leaks", (unsigned long long)r->check.corruptions,
                (unsigned long long)r->check.leaked_clusters);
    else
        r->why[0] = 0; /* leaks that are allowed are reported, too */
}

/* Every zone can be written, finished and reset: without faults all of it has to succeed. */
static void live_on(struct rig *r)
{
    uint32_t nr = r->story->oracle.nr_zones, conv = r->story->oracle.g.conventional;

    st_open(r);
    for (uint32_t i = conv; i < nr && !r->story->gone; i++) {
        struct zqcow2_zone z = rig_zone(r, i);

        if (z.state == ZQCOW2_ZONE_CLOSED)
            st_append(r, i, 512, 0);
    }
    if (conv)
        st_write(r, 1024, KiB(5), 0);
    if (conv < nr) {
        st_manage(r, ZQCOW2_OP_ZONE_RESET, conv, 1, 0);
        st_all(r, ZQCOW2_OP_ZONE_RESET);
        st_append(r, conv, KiB(2), 0);
        st_manage(r, ZQCOW2_OP_ZONE_FINISH, conv, 1, 0);
        st_append(r, nr - 1, 512, 0);
    }
    st_flush(r);
    st_reopen(r);
    st_close(r);
}

/* A host without space does not kill (R10): with room again a flush keeps all that was answered. */
static void room_again(struct rig *r)
{
    int rc;

    disarm(r);
    if (rig_info(r).flags & ZQCOW2_INFO_DEAD)
        rig_say(r, "want of space has killed the image");
    rc = zqcow2_flush(r->img);
    if (rc)
        rig_say(r, "a flush with room again: %d", rc);
    else
        oracle_flushed(&r->story->oracle);
}

/* True if a fault has struck the scenario or its end. */
static bool finish(struct rig *r, const struct plan *p)
{
    bool struck = false;

    if (r->img && p && p->kind == FAULT_ENOSPC && st_struck(r) && !r->fault.failed_flushes) {
        struck = true;
        room_again(r);
    }
    if (r->img) {
        int rc = rig_close(r);

        if (st_judge_durable(r, rc, "close", 0))
            oracle_flushed(&r->story->oracle);
    }
    r->story->gone = true;
    struck |= st_struck(r);
    disarm(r);
    if (!r->why[0])
        check(r, !struck);
    if (!r->why[0])
        live_on(r);
    if (!r->why[0])
        check(r, true);
    return struck;
}

static const char *files(const struct bench *b)
{
    return b->g.data_file ? "two" : "one";
}

static bool one_run(struct bench *b, const struct plan *p, uint64_t n, char *why, size_t room)
{
    const struct scenario *sc = b->sc;
    struct story story = {.tag = 0};
    const char *verdict;
    struct rig r;
    bool struck;

    rig_watch(60, "ZQ_FILES=%s ZQ_SCENARIO=%s ZQ_FAULT=%s ZQ_N=%llu test_faults", files(b),
              sc->name, p ? p->name : "none", (unsigned long long)n);
    rig_init(&r, &b->g, sc->world, n + 1);
    r.story = &story;
    r.open.cache_bytes = sc->cache_bytes;
    r.open.extent_bytes = sc->extent_bytes;
    oracle_init(&story.oracle, &b->g);
    struck = begin(&r, b, p, n);
    sc->run(&r);
    struck |= finish(&r, p);
    oracle_free(&story.oracle);
    verdict = rig_free(&r);
    if (verdict)
        rig_say(&r, "memory: %s", verdict);
    snprintf(why, room, "%s", r.why);
    rig_watch(0, "over");
    return struck;
}

static void complain(struct bench *b, const struct plan *p, uint64_t n, const char *why)
{
    if (b->bad++ < 12)
        printf("  ZQ_FILES=%s ZQ_SCENARIO=%s ZQ_FAULT=%s ZQ_N=%llu test_faults: %s\n", files(b),
               b->sc->name, p ? p->name : "none", (unsigned long long)n, why);
}

/* Until a run sees no fault; that one is the proof that all points were met. */
static void sweep(struct bench *b, const struct plan *p)
{
    uint64_t only = rig_env("ZQ_N", 0), step = rig_env("ZQ_STEP", 1), n = only ? only : 1;
    char why[400];
    bool struck;

    do {
        struck = one_run(b, p, n, why, sizeof(why));
        if (why[0])
            complain(b, p, n, why);
        b->points += struck;
        n += step;
    } while (struck && !only && b->bad < 50);
}

static void make_fresh(struct bench *b)
{
    struct rig r;
    int rc;

    rig_init(&r, &b->g, RIG_PLAIN, 1);
    rc = rig_create(&r);
    if (rc)
        fail_msg("%s: create: %d %s", b->sc->name, rc, r.err.text);
    store_init(&b->fresh);
    store_copy(&b->fresh, &r.store);
    store_init(&b->data);
    if (b->g.data_file)
        store_copy(&b->data, &r.data.store);
    rig_free(&r);
}

static unsigned one_scenario(const struct scenario *sc, bool data_file, bool memory,
                             uint64_t *points)
{
    struct bench b = {.sc = sc, .g = *sc->g};
    char why[400];

    b.g.data_file = data_file;
    make_fresh(&b);
    one_run(&b, NULL, 0, why, sizeof(why));
    if (why[0])
        complain(&b, NULL, 0, why);
    for (size_t p = 0; !why[0] && p < NR_PLANS; p++) {
        if (plans[p].memory == memory && rig_wanted("ZQ_FAULT", plans[p].name))
            sweep(&b, &plans[p]);
    }
    store_free(&b.fresh);
    store_free(&b.data);
    *points += b.points;
    return b.bad;
}

static void all_scenarios(const char *what, bool data_file, bool memory)
{
    unsigned ran = 0, bad = 0;
    uint64_t points = 0;

    if (!rig_wanted("ZQ_FILES", data_file ? "two" : "one"))
        return;
    for (size_t s = 0; s < NR_SETS; s++) {
        for (unsigned k = 0; k < sets[s]->nr; k++) {
            if (!rig_wanted("ZQ_SCENARIO", sets[s]->list[k].name))
                continue;
            bad += one_scenario(&sets[s]->list[k], data_file, memory, &points);
            ran++;
        }
    }
    printf("%s: %u scenarios, %llu fault points, %u violations\n", what, ran,
           (unsigned long long)points, bad);
    if (bad)
        fail_msg("%u violations under %s", bad, what);
}

static void without_memory(void **state)
{
    (void)state;
    all_scenarios("allocation faults", false, true);
}

static void without_io(void **state)
{
    (void)state;
    all_scenarios("I/O faults", false, false);
}

static void data_file_without_memory(void **state)
{
    (void)state;
    all_scenarios("allocation faults, data file", true, true);
}

static void data_file_without_io(void **state)
{
    (void)state;
    all_scenarios("I/O faults, data file", true, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_memory),
        cmocka_unit_test(without_io),
        cmocka_unit_test(data_file_without_memory),
        cmocka_unit_test(data_file_without_io),
    };

    setvbuf(stdout, NULL, _IOLBF, 0);
    return rig_exit(cmocka_run_group_tests(tests, NULL, NULL));
}
