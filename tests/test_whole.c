/* SPDX-License-Identifier: MIT */
/*
 * Whole or nothing (I13): a request that fails for lack of space has changed nothing, whatever its
 * length, with the smallest cache too. Every call that takes space fails once, and from there on.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/raw.h"
#include "rig/rig.h"
#include "rig/ticket.h"

/*
 * What is mapped when the request comes: nothing, clusters of its own, shared ones, tables; or in a
 * sequential zone what an earlier life has left beyond the pointer.
 */
enum before { EMPTY, OWN, ONE_IN_PLACE, AHEAD, SHARED_DATA, SHARED_TABLES };
static const char *const befores[] = {"empty", "own",         "one in place",
                                      "ahead", "shared data", "shared tables"};

static const struct geometry plain = {.name = "plain", .size = MiB(2), .cluster = 512};
static const struct geometry conv = {.name = "conventional",
                                     .size = MiB(3),
                                     .zone_size = MiB(1),
                                     .conventional = 2,
                                     .cluster = 512,
                                     .refcount_bits = 64};
static const struct geometry large = {
    .name = "1 KiB", .size = MiB(4), .zone_size = MiB(2), .conventional = 1, .cluster = 1024};

static const struct geometry seq = {
    .name = "zone", .size = MiB(8), .zone_size = MiB(4), .conventional = 1, .cluster = 1024};

struct world {
    const struct geometry *g;
    enum before before;
    int op;
    uint64_t at, len; /* of the request */
    uint64_t slice;   /* guest bytes of one: no two tables share one here */
    uint64_t cache;
    bool dirty; /* other slices are, as many as may be */
    enum fault_kind kind;
    bool for_ever;
    unsigned n; /* the call that fails */
    struct rig r;
    uint8_t *was, *want, *got;
};

static void complain(struct world *w, const char *what, int rc)
{
    fail_msg("%s, %s, op %d at %llu for %llu, fault %d, call %u fails%s: %d: %s", w->g->name,
             befores[w->before], w->op, (unsigned long long)w->at, (unsigned long long)w->len,
             w->kind, w->n, w->for_ever ? " and all behind it" : "", rc, what);
}

/* ---- before ---- */

static void put(struct world *w, uint64_t at, uint64_t len)
{
    assert_int_equal(rig_write(&w->r, at, len, 1), 0);
}

/* One cluster in eight, so that what must be copied comes in pieces. */
static void fill(struct world *w)
{
    uint64_t c = w->g->cluster, end = w->at + w->len + w->slice;

    if (w->before == ONE_IN_PLACE)
        put(w, w->at / c * c + w->len / 2, 4 * c);
    else if (w->before == OWN)
        put(w, c, end - c);
    for (uint64_t at = c; w->before > AHEAD && at < end; at += 8 * c)
        put(w, at, c);
}

static void share(struct world *w)
{
    bool tables = w->before == SHARED_TABLES;
    uint64_t step = tables ? w->slice : 8 * w->g->cluster;
    struct raw raw = {.extra = NULL};

    if (w->before < SHARED_DATA)
        return;
    assert_true(raw_find(&raw, &w->r.store));
    for (uint64_t at = w->g->cluster; at < w->at + w->len + w->slice; at += step)
        raw_share(&raw, at, tables);
    free(raw.extra);
}

static uint64_t looked_at(const struct world *w)
{
    return w->at + w->len + w->slice;
}

static void look(struct world *w, uint8_t *buf)
{
    assert_int_equal(zqcow2_read(w->r.img, buf, looked_at(w), 0), 0);
}

static void world_begin(struct world *w)
{
    uint64_t all = looked_at(w);

    rig_init(&w->r, w->g, RIG_PLAIN, 1);
    assert_int_equal(rig_create(&w->r), 0);
    assert_int_equal(rig_open(&w->r, true), 0);
    fill(w);
    assert_int_equal(rig_close(&w->r), 0);
    share(w);
    w->r.open.cache_bytes = w->cache;
    assert_int_equal(rig_open(&w->r, true), 0);
    for (uint64_t at = all; w->dirty && at < w->g->size; at += w->slice)
        assert_int_equal(rig_write(&w->r, at, w->g->cluster, 3), 0);
    w->was = malloc(all);
    w->want = malloc(all);
    w->got = malloc(all);
    assert_true(w->was && w->want && w->got);
    look(w, w->was);
    memcpy(w->want, w->was, all);
    if (w->op == ZQCOW2_OP_WRITE)
        rig_pattern(w->want + w->at, w->len, w->at, 2);
    else if (w->op == ZQCOW2_OP_WRITE_ZEROES)
        memset(w->want + w->at, 0, w->len);
    else
        memset(w->want + w->at, 0, w->len / w->g->cluster * w->g->cluster);
}

static void world_end(struct world *w)
{
    free(w->was);
    free(w->want);
    free(w->got);
    assert_null(rig_free(&w->r));
}

/* ---- and after ---- */

static int request(struct world *w)
{
    if (w->op == ZQCOW2_OP_ZONE_FINISH)
        return rig_manage(&w->r, w->op, MiB(4), MiB(4), NULL);
    if (w->op == ZQCOW2_OP_WRITE)
        return zqcow2_write(w->r.img, w->want + w->at, w->len, w->at, 0);
    return w->op == ZQCOW2_OP_DISCARD ? zqcow2_discard(w->r.img, w->len, w->at, 0) :
                                        zqcow2_write_zeroes(w->r.img, w->len, w->at, 0);
}

static void compare(struct world *w, int rc, const char *when)
{
    look(w, w->got);
    if (memcmp(w->got, rc ? w->was : w->want, looked_at(w)))
        complain(w, when, rc);
}

/* What it was holds, or is there, when the image is opened again, too. */
static void reopen(struct world *w, int rc)
{
    if (zqcow2_flush(w->r.img) || rig_close(&w->r))
        complain(w, "flush or close", rc);
    assert_int_equal(rig_open(&w->r, true), 0);
    compare(w, rc, "not the same when it is opened again");
    assert_int_equal(rig_close(&w->r), 0);
    assert_int_equal(rig_check(&w->r, 0), 0);
    if (w->r.check.corruptions || (w->before < SHARED_DATA && w->r.check.leaked_clusters))
        complain(w, "check", rc);
}

/* True if the n-th call that takes space was met. */
static bool strike(struct world *w)
{
    bool struck, barrier;
    int rc;

    world_begin(w);
    fault_plan(&w->r.fault, w->kind, w->n, w->for_ever);
    rc = request(w);
    struck = w->r.fault.failed;
    barrier = w->r.fault.failed_flushes; /* then the image is dead, which is another matter (I12) */
    fault_plan(&w->r.fault, FAULT_NONE, 0, false);
    if (barrier ? rc != -EIO && rc != ZQCOW2_EDEAD :
                  rc != (struck ? -ENOSPC : 0) && (rc || w->for_ever)) /* else it did with less */
        complain(w, "another answer", rc);
    compare(w, rc, "done in part");
    if (barrier)
        assert_int_equal(rig_close(&w->r), ZQCOW2_EDEAD);
    else
        reopen(w, rc);
    world_end(w);
    return struck;
}

/* With the smallest cache, and with one that has room for all. */
static unsigned every_call(struct world w)
{
    unsigned points = 0;

    for (unsigned k = 0; k < 6; k++) {
        w.kind = k % 3 ? FAULT_NO_ROOM : FAULT_ENOSPC;
        w.for_ever = k % 3 == 2;
        w.cache = k < 3;
        for (w.n = 1; strike(&w); w.n++)
            points++;
    }
    return points;
}

/* ---- sequential zones ---- */

/* A tail within a cluster, which a snapshot shares if that is asked for. */
static void zone_begin(struct world *w)
{
    struct raw raw = {.extra = NULL};

    rig_init(&w->r, w->g, RIG_PLAIN, 1);
    assert_int_equal(rig_create(&w->r), 0);
    assert_int_equal(rig_open(&w->r, true), 0);
    if (w->before != EMPTY && w->before != AHEAD)
        put(w, MiB(4), w->at - MiB(4));
    assert_int_equal(rig_close(&w->r), 0);
    assert_true(raw_find(&raw, &w->r.store));
    if (w->before == SHARED_DATA)
        raw_share(&raw, w->at - 512, false);
    free(raw.extra);
    w->r.open.cache_bytes = w->cache;
    assert_int_equal(rig_open(&w->r, true), 0);
    if (w->before == AHEAD) {
        put(w, MiB(4), w->at - MiB(4) + w->len);
        assert_int_equal(rig_manage(&w->r, ZQCOW2_OP_ZONE_RESET, MiB(4), MiB(4), NULL), 0);
        assert_int_equal(zqcow2_flush(w->r.img), 0);
        put(w, MiB(4), w->at - MiB(4));
    }
}

/* The pointer stands where it stood, or behind all of it; what lies beyond reads as zeros. */
static void compare_zone(struct world *w, int rc, const char *when)
{
    bool finish = w->op == ZQCOW2_OP_ZONE_FINISH;
    uint64_t end = rc || finish ? w->at : w->at + w->len;
    struct zqcow2_zone z = rig_zone(&w->r, 1);

    if (finish && !rc ? z.state != ZQCOW2_ZONE_FULL :
                        z.state == ZQCOW2_ZONE_FULL || z.write_pointer != end)
        complain(w, when, rc);
    if (w->at > MiB(4) && !rig_holds(&w->r, MiB(4), w->at - MiB(4), MiB(4), 1))
        complain(w, when, rc);
    if (w->op == ZQCOW2_OP_WRITE && !rc && !rig_holds(&w->r, w->at, w->len, w->at, 2))
        complain(w, when, rc);
    if (w->op != ZQCOW2_OP_WRITE && !rig_zeros(&w->r, w->at, end - w->at + w->slice))
        complain(w, when, rc);
    if (!rig_zeros(&w->r, end, w->slice))
        complain(w, when, rc);
}

/* True if the n-th call that takes space was met. */
static bool strike_zone(struct world *w)
{
    bool struck;
    int rc;

    zone_begin(w);
    fault_plan(&w->r.fault, FAULT_NO_ROOM, w->n, w->for_ever);
    rc = w->op == ZQCOW2_OP_WRITE ? rig_write(&w->r, w->at, w->len, 2) : request(w);
    struck = w->r.fault.failed;
    fault_plan(&w->r.fault, FAULT_NONE, 0, false);
    if (rc != (struck ? -ENOSPC : 0) && (rc || w->for_ever)) /* else it did with less */
        complain(w, "another answer", rc);
    compare_zone(w, rc, "done in part");
    if (rc && (w->op == ZQCOW2_OP_WRITE ? rig_write(&w->r, w->at, w->len, 2) : request(w)))
        complain(w, "not done when there is space", rc);
    compare_zone(w, 0, "done in part when there is space");
    assert_int_equal(rig_close(&w->r), 0);
    assert_int_equal(rig_open(&w->r, true), 0);
    compare_zone(w, 0, "not the same when it is opened again");
    assert_int_equal(rig_close(&w->r), 0);
    assert_int_equal(rig_check(&w->r, 0), 0);
    if (w->r.check.corruptions || (w->before < SHARED_DATA && w->r.check.leaked_clusters))
        complain(w, "check", rc);
    assert_null(rig_free(&w->r));
    return struck;
}

static void sequential_zones(void **state)
{
    static const int ops[] = {ZQCOW2_OP_WRITE, ZQCOW2_OP_WRITE_ZEROES, ZQCOW2_OP_ZONE_FINISH};
    static const enum before before[] = {EMPTY, OWN, AHEAD, SHARED_DATA};
    unsigned points = 0;

    (void)state;
    for (unsigned i = 0; i < 48; i++) {
        struct world w = {.g = &seq, .op = ops[i % 3], .before = before[i / 3 % 4]};

        w.slice = w.g->cluster / 8 * w.g->cluster;
        w.at = MiB(4) + (w.before == EMPTY ? 0 : 3584);
        w.len = 9 * w.slice;
        w.cache = i / 12 % 2;
        w.for_ever = i / 24;
        for (w.n = 1; strike_zone(&w); w.n++)
            points++;
    }
    printf("sequential zones without space: %u points, whole or nothing\n", points);
}

/* More than the smallest cache has slices, from within a table to within another. */
static struct world spread(const struct geometry *g, int op, enum before before)
{
    struct world w = {.g = g, .op = op, .before = before};

    w.slice = g->cluster / 8ull * g->cluster;
    w.at = w.slice / 2;
    w.len = 8 * w.slice + (op == ZQCOW2_OP_WRITE ? 0 : g->cluster - 512);
    return w;
}

static void writes(void **state)
{
    static const struct geometry *const on[] = {&plain, &conv};
    static const enum before before[] = {EMPTY, ONE_IN_PLACE, SHARED_DATA, SHARED_TABLES};
    unsigned points = 0;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned k = 0; k < 4; k++)
            points += every_call(spread(on[i], ZQCOW2_OP_WRITE, before[k]));
    }
    printf("writes without space: %u points, whole or nothing\n", points);
}

/* Room for one slice, with nothing else to change: not when bytes have been overwritten already. */
static void within_a_slice(void **state)
{
    unsigned points = 0;

    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        struct world w = spread(&plain, ZQCOW2_OP_WRITE, k ? ONE_IN_PLACE : SHARED_DATA);

        w.dirty = true;
        w.at = w.slice + w.slice / 4;
        w.len = w.slice / 2;
        points += every_call(w);
    }
    printf("writes of one slice without space: %u points, whole or nothing\n", points);
}

static void zeroes_and_discards(void **state)
{
    static const struct geometry *const on[] = {&plain, &conv, &large};
    static const int ops[] = {ZQCOW2_OP_WRITE_ZEROES, ZQCOW2_OP_DISCARD};
    static const enum before before[] = {OWN, SHARED_DATA, SHARED_TABLES};
    unsigned points = 0;

    (void)state;
    for (unsigned i = 0; i < 18; i++)
        points += every_call(spread(on[i / 6], ops[i / 3 % 2], before[i % 3]));
    printf("zeroes and discards without space: %u points, whole or nothing\n", points);
}

/* ---- many at once ---- */

#define CROWD 8u

struct crowd {
    struct rig r;
    uint64_t slice, each; /* each: bytes of a request; no two have a cluster in common */
    struct ticket *t[CROWD];
};

static void crowd_submit(struct crowd *c, uint64_t rng)
{
    static const int ops[] = {ZQCOW2_OP_WRITE, ZQCOW2_OP_WRITE_ZEROES, ZQCOW2_OP_DISCARD};
    struct zqcow2_request req[CROWD];
    struct zqcow2_queue *q;

    ticket_begin();
    assert_int_equal(zqcow2_queue_open(c->r.img, CROWD, &q), 0);
    for (unsigned i = 0; i < CROWD; i++) {
        c->t[i] = ticket(ops[rng_below(&rng, 3)], i * c->each, c->each, 2);
        req[i] = c->t[i]->req;
    }
    assert_int_equal(zqcow2_queue_submit(q, req, CROWD), CROWD);
    wait_all(q);
    assert_int_equal(zqcow2_queue_close(q), 0);
}

/* Each by itself: all of it, or what was there before. */
static unsigned crowd_compare(struct crowd *c, const char *what)
{
    unsigned failed = 0;

    for (unsigned i = 0; i < CROWD; i++) {
        uint64_t at = i * c->each;
        bool right = c->t[i]->ret                       ? rig_holds(&c->r, at, c->each, at, 1) :
                     c->t[i]->req.op == ZQCOW2_OP_WRITE ? rig_holds(&c->r, at, c->each, at, 2) :
                                                          rig_zeros(&c->r, at, c->each);

        failed += c->t[i]->ret != 0;
        if (!right || (c->t[i]->ret && c->t[i]->ret != -ENOSPC))
            fail_msg("%s, request %u, op %d: %d", what, i, c->t[i]->req.op, c->t[i]->ret);
    }
    return failed;
}

static unsigned crowd_run(uint64_t seed, unsigned n, bool for_ever)
{
    struct crowd c;
    struct raw raw = {.extra = NULL};
    unsigned failed;
    char what[80];

    memset(&c, 0, sizeof(c));
    c.slice = plain.cluster / 8 * plain.cluster;
    c.each = 3 * c.slice - plain.cluster;
    snprintf(what, sizeof(what), "seed %u, call %u%s", (unsigned)seed, n, for_ever ? " on" : "");
    rig_begin_in(&c.r, &plain, RIG_SHUFFLED, seed);
    assert_int_equal(rig_write(&c.r, 0, CROWD * c.each, 1), 0);
    assert_int_equal(rig_close(&c.r), 0);
    assert_true(raw_find(&raw, &c.r.store)); /* nothing is to be overwritten in place */
    for (uint64_t at = 0; at < CROWD * c.each; at += c.slice)
        raw_share(&raw, at, true);
    free(raw.extra);
    c.r.open.cache_bytes = 1;
    assert_int_equal(rig_open(&c.r, true), 0);
    fault_plan(&c.r.fault, FAULT_NO_ROOM, n, for_ever);
    crowd_submit(&c, seed);
    fault_plan(&c.r.fault, FAULT_NONE, 0, false);
    failed = crowd_compare(&c, what);
    assert_int_equal(zqcow2_flush(c.r.img), 0);
    assert_int_equal(rig_close(&c.r), 0);
    assert_int_equal(rig_open(&c.r, true), 0);
    crowd_compare(&c, what);
    for (unsigned i = 0; i < CROWD; i++)
        drop(c.t[i]);
    assert_int_equal(rig_close(&c.r), 0);
    assert_null(rig_free(&c.r));
    return failed;
}

static void many_at_once(void **state)
{
    uint64_t first = rig_env("ZQ_SEED", 1), seeds = rig_env("ZQ_SEEDS", 60);
    unsigned failed = 0;

    (void)state;
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        rig_watch(120, "ZQ_SEED=%llu", (unsigned long long)seed);
        failed += crowd_run(seed, 1 + (unsigned)(seed * 37 % 400), seed % 2);
    }
    rig_watch(0, "none");
    assert_true(failed);
    printf("many at once without space: %u requests failed, each alone\n", failed);
}

/* ---- without memory ---- */

/* True if the n-th allocation was met, from which on there is no memory. */
static bool starve(struct world *w)
{
    bool met;
    int rc;

    world_begin(w);
    heap_plan(&w->r.heap, w->n, true);
    rc = request(w);
    met = w->r.heap.failed;
    heap_plan(&w->r.heap, 0, false);
    if (rc && (rc != -ENOMEM || !met))
        complain(w, "another answer", rc);
    compare(w, rc, "done in part");
    reopen(w, rc);
    world_end(w);
    return met;
}

static void without_memory(void **state)
{
    static const int ops[] = {ZQCOW2_OP_WRITE, ZQCOW2_OP_WRITE_ZEROES, ZQCOW2_OP_DISCARD};
    static const enum before before[] = {EMPTY, OWN, SHARED_DATA, SHARED_TABLES};
    unsigned points = 0;

    (void)state;
    for (unsigned i = 0; i < 24; i++) {
        struct world w = spread(&conv, ops[i % 3], before[i / 3 % 4]);

        w.cache = i / 12;
        for (w.n = 1; starve(&w); w.n++)
            points++;
    }
    printf("requests without memory: %u points, whole or nothing\n", points);
}

/* ---- longer than what may be reserved ---- */

#define TABLES 6000u /* of one slice each; 1 MiB is 2048 of them */

static const struct geometry wide = {.name = "wide", .size = TABLES * KiB(32), .cluster = 512};

static void map_all(struct rig *r)
{
    rig_begin(r, &wide);
    for (unsigned i = 0; i < TABLES; i++)
        assert_int_equal(rig_write(r, i * KiB(32), 512, 1), 0);
    assert_int_equal(rig_close(r), 0);
    r->open.cache_bytes = 1;
    assert_int_equal(rig_open(r, true), 0);
}

/* The memory for a request has a bound, and is given back when what it has changed is written. */
static void the_reserve_has_a_bound(void **state)
{
    uint64_t before, most;
    struct rig r;

    (void)state;
    map_all(&r);
    assert_int_equal(zqcow2_write_zeroes(r.img, KiB(64), 0, 0), 0);
    assert_int_equal(zqcow2_drain(r.img), 0);
    before = r.heap.peak_bytes = r.heap.live_bytes;
    assert_int_equal(zqcow2_discard(r.img, wide.size, 0, 0), 0);
    most = r.heap.peak_bytes - before;
    assert_int_equal(zqcow2_drain(r.img), 0);
    printf("a discard of %u slices: %llu KiB of memory, %llu bytes left\n", TABLES,
           (unsigned long long)most / 1024, (unsigned long long)(r.heap.live_bytes - before));
    assert_true(most < 2 * MiB(1) + TABLES * 64);
    assert_true(r.heap.live_bytes <= before);
    rig_end(&r);
}

/* Then a first part may be done, a table at a time; the same request again does the rest. */
static void what_is_longer_is_done_in_order(void **state)
{
    static const unsigned calls[] = {1, 20, 200, 2000};
    bool part = false;

    (void)state;
    for (unsigned k = 0; k < 4; k++) {
        unsigned done = 0;
        struct rig r;
        int rc;

        map_all(&r);
        fault_plan(&r.fault, FAULT_NO_ROOM, calls[k], true);
        rc = zqcow2_discard(r.img, wide.size, 0, 0);
        assert_int_equal(rc, r.fault.failed ? -ENOSPC : 0);
        fault_plan(&r.fault, FAULT_NONE, 0, false);
        while (done < TABLES && rig_zeros(&r, done * KiB(32), 512))
            done++;
        for (unsigned i = done; i < TABLES; i++)
            assert_true(rig_holds(&r, i * KiB(32), 512, i * KiB(32), 1));
        assert_true(rc || done == TABLES);
        part |= done && done < TABLES;
        assert_int_equal(zqcow2_discard(r.img, wide.size, 0, 0), 0);
        assert_true(rig_zeros(&r, 0, KiB(64)) && rig_zeros(&r, wide.size - KiB(64), KiB(64)));
        r.why[0] = 0;
        rig_end(&r);
    }
    assert_true(part); /* else it is not longer, and this test shows nothing */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes),
        cmocka_unit_test(within_a_slice),
        cmocka_unit_test(zeroes_and_discards),
        cmocka_unit_test(sequential_zones),
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(without_memory),
        cmocka_unit_test(the_reserve_has_a_bound),
        cmocka_unit_test(what_is_longer_is_done_in_order),
    };

    return cmocka_run_group_tests_name("whole", tests, NULL, NULL);
}
