/* SPDX-License-Identifier: MIT */
/*
 * The runs of a zone: a cache of what L2 says. It may forget, it must never be wrong. Random
 * histories against an array; ZQ_SEED is the first, ZQ_SEEDS how many.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "qcow2/runs.h"
#include "rig/heap_fault.h"
#include "rig/rig.h"

#define UNIT  4096u
#define UNITS 192u /* of the zone */
#define BASE  (UINT64_C(7) << 40)
#define NONE  UINT64_MAX

struct world {
    uint64_t seed, rng;
    struct heap heap;
    struct zqcow2_hooks hooks;
    struct zq_runs runs;
    uint64_t truth[UNITS]; /* the host unit that L2 names, or NONE */
    bool known[UNITS];     /* what the cache has to remember */
    bool starved;          /* memory failed: it may have forgotten anything */
};

static uint64_t guest(unsigned u)
{
    return BASE + (uint64_t)u * UNIT;
}

static bool one_run(const struct world *w, unsigned u)
{
    return w->known[u] && w->known[u + 1] && w->truth[u] + 1 == w->truth[u + 1];
}

/* Where the longest known stretch around u ends that is one range in both spaces. */
static unsigned end_of_run(const struct world *w, unsigned u)
{
    while (u + 1 < UNITS && one_run(w, u))
        u++;
    return u + 1;
}

/* A run loses its part from `from` on, also what lies behind `to`. */
static void m_remove(struct world *w, unsigned from, unsigned to)
{
    unsigned until = to < UNITS && to && w->known[to - 1] ? end_of_run(w, to - 1) : to;

    for (unsigned u = from; u < to; u++)
        w->truth[u] = NONE;
    for (unsigned u = from; u < until; u++)
        w->known[u] = false;
}

static void check_unit(struct world *w, unsigned u)
{
    uint64_t at = guest(u) + rng_below(&w->rng, UNIT);
    const struct zq_run *r = zq_runs_find(&w->runs, at);

    if (!r) {
        if (w->known[u] && !w->starved)
            fail_msg("ZQ_SEED=%" PRIu64 " ZQ_SEEDS=1: unit %u is not found", w->seed, u);
        return;
    }
    if (at < r->guest || at >= r->guest + r->len ||
        r->host + (guest(u) - r->guest) != w->truth[u] * UNIT)
        fail_msg("ZQ_SEED=%" PRIu64 " ZQ_SEEDS=1: unit %u is said to lie at %" PRIu64
                 ", in a run of %" PRIu64 " bytes",
                 w->seed, u, r->host + (guest(u) - r->guest), r->len);
    if (!w->starved && guest(end_of_run(w, u)) != r->guest + r->len)
        fail_msg("ZQ_SEED=%" PRIu64 " ZQ_SEEDS=1: the run of unit %u ends at %" PRIu64, w->seed, u,
                 r->guest + r->len);
}

static void check(struct world *w)
{
    const struct zq_runs *r = &w->runs;

    for (unsigned u = 0; u < UNITS; u++)
        check_unit(w, u);
    for (uint32_t i = 1; i < r->n; i++) {
        if (r->v[i - 1].guest + r->v[i - 1].len > r->v[i].guest)
            fail_msg("ZQ_SEED=%" PRIu64 " ZQ_SEEDS=1: run %u is not behind the one before it",
                     w->seed, i);
    }
    assert_null(zq_runs_find(r, BASE - 1));
    assert_null(zq_runs_find(r, guest(UNITS)));
}

static void step(struct world *w)
{
    unsigned from = (unsigned)rng_below(&w->rng, UNITS), len;
    uint64_t host = 1 + rng_below(&w->rng, 1000);

    len = 1 + (unsigned)rng_below(&w->rng, rng_below(&w->rng, 4) ? 3 : 40);
    if (len > UNITS - from)
        len = UNITS - from;
    if (rng_below(&w->rng, 3) == 0) {
        m_remove(w, from, from + len);
        zq_runs_remove(&w->runs, guest(from), guest(from + len));
        return;
    }
    if (from && w->truth[from - 1] != NONE && rng_below(&w->rng, 2))
        host = w->truth[from - 1] + 1; /* goes on where the one before it ends */
    m_remove(w, from, from + len);
    zq_runs_add(&w->runs, &w->hooks, guest(from), host * UNIT, (uint64_t)len * UNIT);
    for (unsigned u = from; u < from + len; u++) {
        w->truth[u] = host + (u - from);
        w->known[u] = true;
    }
    w->starved |= w->heap.failed > 0;
}

static void begin(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof(*w));
    w->seed = w->rng = seed;
    for (unsigned u = 0; u < UNITS; u++)
        w->truth[u] = NONE;
    heap_init(&w->heap);
    w->hooks = heap_hooks(&w->heap);
}

static void end(struct world *w)
{
    zq_runs_free(&w->runs, &w->hooks);
    assert_null(heap_verdict(&w->heap));
    heap_destroy(&w->heap);
}

static void what_it_knows_is_what_l2_says(void **state)
{
    uint64_t first = rig_env("ZQ_SEED", 1), n = rig_env("ZQ_SEEDS", 60), longest = 0;
    static struct world w;

    (void)state;
    for (uint64_t seed = first; seed < first + n; seed++) {
        begin(&w, seed);
        if (seed % 3 == 0)
            heap_plan(&w.heap, 1 + seed % 4, seed & 1); /* once, or from then on */
        for (unsigned k = 0; k < 300; k++) {
            step(&w);
            check(&w);
            longest = w.runs.n > longest ? w.runs.n : longest;
        }
        end(&w);
    }
    printf("runs: %" PRIu64 " histories, at most %" PRIu64 " runs\n", n, longest);
}

/* A zone in very many pieces takes no more than 24 KiB: it is a cache. */
static void many_pieces_take_little_memory(void **state)
{
    static struct world w;

    (void)state;
    begin(&w, 1);
    for (uint64_t i = 0; i < 5000; i++) {
        const struct zq_run *r;

        zq_runs_add(&w.runs, &w.hooks, BASE + 2 * i * UNIT, 3 * i * UNIT, UNIT);
        r = zq_runs_find(&w.runs, BASE + 2 * i * UNIT);
        assert_true(r && r->host == 3 * i * UNIT); /* the last is remembered */
        assert_null(zq_runs_find(&w.runs, BASE + 2 * i * UNIT + UNIT));
    }
    assert_true(w.heap.live_bytes <= 1024 * 24 && w.heap.peak_bytes <= 1536 * 24);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_knows_is_what_l2_says),
        cmocka_unit_test(many_pieces_take_little_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
