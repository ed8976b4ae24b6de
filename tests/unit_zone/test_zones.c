/* SPDX-License-Identifier: MIT */
/*
 * Zones in memory against a model that knows the documents only: the order of checks, resources and
 * who is closed for them, reservations that fail and commit in order (K4-K7, R7, R8), reports.
 * Random histories; ZQ_SEED is the first, ZQ_SEEDS how many.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/heap_fault.h"
#include "rig/rig.h"
#include "zone/zones.h"

#define SECTOR     512u
#define ZONES      9u
#define ZONE_BYTES (64u * SECTOR)
#define CAPACITY   (48u * SECTOR)
#define LAST_BYTES (20u * SECTOR) /* the short last zone */
#define MAX_APPEND (8u * SECTOR)
#define IN_FLIGHT  6u
#define STEPS      400u

/* One reservation of the code under test, and what the model knows of it. */
struct slot {
    struct zq_reservation r;
    uint64_t end;
    bool used, done, failed;
};

struct m_zone {
    uint64_t start, length, end; /* end: of the capacity */
    uint64_t wp, next;
    enum { SHUT, IMPLICITLY, EXPLICITLY } open;
    uint8_t forced;
    bool failed;
    uint64_t written; /* when, to find the least recently written */
    struct slot slot[IN_FLIGHT];
    unsigned n; /* reservations, oldest first: slot[0 .. n) by `order` */
    struct slot *order[IN_FLIGHT];
};

struct world {
    uint64_t seed, rng, clock;
    uint32_t max_open, max_active; /* 0: none */
    struct m_zone z[ZONES];        /* zone 0 is conventional */
    struct heap heap;
    struct zqcow2_hooks hooks;
    struct zq_list ready;
    struct zq_zones zs;
    uint64_t commits, refusals, closed, failures;
};

#define expect(w, cond) \
    do { \
        if (!(cond)) \
            fail_msg("ZQ_SEED=%" PRIu64 " ZQ_SEEDS=1: %s", (w)->seed, #cond); \
    } while (0)

/* ---- the model ---- */

static bool m_full(const struct m_zone *z)
{
    return z->wp == z->end;
}

static uint8_t m_state(const struct m_zone *z)
{
    if (z->forced)
        return z->forced;
    if (m_full(z))
        return ZQCOW2_ZONE_FULL;
    if (z->open)
        return z->open == EXPLICITLY ? ZQCOW2_ZONE_EXP_OPEN : ZQCOW2_ZONE_IMP_OPEN;
    return z->wp == z->start ? ZQCOW2_ZONE_EMPTY : ZQCOW2_ZONE_CLOSED;
}

static bool m_active(const struct m_zone *z)
{
    return !m_full(z) && (z->open || z->wp > z->start); /* also a forced one */
}

static uint32_t m_count(const struct world *w, bool active)
{
    uint32_t n = 0;

    for (unsigned i = 1; i < ZONES; i++)
        n += active ? m_active(&w->z[i]) : w->z[i].open && !m_full(&w->z[i]);
    return n;
}

/* The rules' order for a write of len bytes; room for it is another question. */
static int m_check_write(const struct world *w, unsigned i, uint64_t off, uint64_t len, bool append)
{
    const struct m_zone *z = &w->z[i];

    if (i == 0)
        return ZQCOW2_EZONE_STATE;
    if (z->forced)
        return z->forced == ZQCOW2_ZONE_OFFLINE ? ZQCOW2_EZONE_OFFLINE : ZQCOW2_EZONE_RDONLY;
    if (z->next == z->end)
        return ZQCOW2_EZONE_FULL;
    if (off + len > z->start + z->length)
        return ZQCOW2_EZONE_BOUNDARY;
    if (!append && off != z->next)
        return ZQCOW2_EZONE_WP;
    if (z->next + len > z->end)
        return ZQCOW2_EZONE_BOUNDARY;
    return append && len > MAX_APPEND ? -EINVAL : 0;
}

static unsigned m_victim(const struct world *w, unsigned target)
{
    unsigned best = 0;

    for (unsigned i = 1; i < ZONES; i++) {
        const struct m_zone *z = &w->z[i];

        if (i != target && z->open == IMPLICITLY && !m_full(z) &&
            (!best || z->written < w->z[best].written))
            best = i;
    }
    return best;
}

/* May zone i become open (or FULL, as by a write)? *victim: 0, or who must be closed. */
static int m_room(const struct world *w, unsigned i, unsigned *victim)
{
    const struct m_zone *z = &w->z[i];

    *victim = 0;
    if (!m_active(z) && w->max_active && m_count(w, true) >= w->max_active)
        return ZQCOW2_EZONE_ACTIVE;
    if (z->open || !w->max_open || m_count(w, false) < w->max_open)
        return 0;
    *victim = m_victim(w, i);
    return *victim ? 0 : ZQCOW2_EZONE_OPEN;
}

/* ---- both, compared ---- */

static void same_report(struct world *w, unsigned i)
{
    const struct m_zone *z = &w->z[i];
    uint8_t state = i ? m_state(z) : ZQCOW2_ZONE_NOT_WP;
    struct zqcow2_zone got;
    uint64_t wp = z->wp;

    zq_zone_fill_report(&w->zs, i, &got);
    if (z->forced)
        wp = UINT64_MAX;
    else if (state == ZQCOW2_ZONE_FULL)
        wp = z->start + z->length;
    if (got.start != z->start || got.length != z->length || got.capacity != z->end - z->start ||
        got.state != state || got.write_pointer != wp ||
        got.type != (i ? ZQCOW2_ZONE_SEQWRITE_REQ : ZQCOW2_ZONE_CONVENTIONAL))
        fail_msg("ZQ_SEED=%" PRIu64 " ZQ_SEEDS=1: zone %u: state %u, wp %" PRIu64 ", %" PRIu64
                 " long, capacity %" PRIu64 "; the model has state %u, wp %" PRIu64,
                 w->seed, i, got.state, got.write_pointer, got.length, got.capacity, state, wp);
}

static void same(struct world *w)
{
    uint32_t in_state[ZQ_NR_STATES] = {[ZQCOW2_ZONE_NOT_WP] = 1};

    for (unsigned i = 0; i < ZONES; i++) {
        const struct m_zone *z = &w->z[i];

        same_report(w, i);
        if (!i)
            continue;
        in_state[m_state(z)]++;
        expect(w, w->zs.v[i].wp == z->wp && w->zs.v[i].next == z->next); /* K4, K7 */
        expect(w, zq_zones_valid(&w->zs, i));
        expect(w, !w->zs.v[i].live || w->zs.v[i].live->failed == z->failed);
        expect(w, zq_zone_begin_open(&w->zs, i) == (m_state(z) == ZQCOW2_ZONE_CLOSED));
    }
    expect(w, w->zs.nr_open == m_count(w, false) && w->zs.nr_active == m_count(w, true)); /* K5 */
    expect(w, zq_zones_counted(&w->zs) && !memcmp(in_state, w->zs.in_state, sizeof(in_state)));
    expect(w, !w->max_open || w->zs.nr_open <= w->max_open);
}

/* ---- the operations ---- */

/* Closes whom the limit says, as an operation would. False: refused, or it would have to wait. */
static bool make_room(struct world *w, unsigned i, const struct zq_verdict *v)
{
    unsigned want;
    uint32_t victim = 0;
    int rc = zq_zones_room(&w->zs, i, v, &victim), m_rc = m_room(w, i, &want);

    expect(w, rc == m_rc);
    expect(w, victim == (want ? want : ZQ_NO_ZONE));
    w->refusals += rc < 0;
    if (rc < 0 || !want)
        return rc == 0;
    if (w->z[want].n)
        return false; /* it would be waited for */
    zq_zone_do_close(&w->zs, victim);
    w->z[want].open = SHUT;
    w->closed++;
    same(w);
    return true;
}

static struct slot *free_slot(struct m_zone *z)
{
    for (unsigned k = 0; k < IN_FLIGHT; k++) {
        if (!z->slot[k].used)
            return &z->slot[k];
    }
    return NULL;
}

static void write_zone(struct world *w, unsigned i)
{
    struct m_zone *z = &w->z[i];
    bool append = rng_below(&w->rng, 2), wild = rng_below(&w->rng, 8) == 0;
    uint64_t len = (1 + rng_below(&w->rng, wild ? 70 : 12)) * SECTOR, off = z->next;
    struct slot *s = free_slot(z);
    struct zq_verdict v;
    int rc;

    if (z->failed || !s)
        return; /* R8: nothing is admitted until all have drained */
    if (append)
        off = z->start;
    else if (wild)
        off = z->start + rng_below(&w->rng, z->length / SECTOR) * SECTOR;
    if (!wild && z->end - z->next)
        len = len < z->end - z->next ? len : z->end - z->next;
    rc = zq_zone_check_write(&w->zs, i, off, len, append);
    expect(w, rc == m_check_write(w, i, off, len, append));
    w->refusals += rc < 0;
    if (rc < 0)
        return;
    v = zq_fsm(ZQCOW2_RULES_LINUX, zq_zone_state(&w->zs.v[i]), ZQ_ACT_WRITE, z->next == z->start);
    expect(w, v.rc == 0);
    if (!make_room(w, i, &v))
        return;
    expect(w, zq_zone_live(&w->zs, i));
    zq_zone_set_state(&w->zs, i, v.state);
    zq_zone_reserve(&w->zs, i, &s->r, len);
    z->open = z->open ? z->open : IMPLICITLY;
    z->written = ++w->clock;
    z->next += len;
    *s = (struct slot){s->r, z->next, true, false, false};
    expect(w, s->r.end == z->next);
    z->order[z->n++] = s;
}

static void m_pop(struct m_zone *z)
{
    z->order[0]->used = false;
    memmove(z->order, z->order + 1, --z->n * sizeof(z->order[0]));
}

/* What is answered now, oldest first: all that nothing unfinished stands before. */
static void m_commit(struct world *w, struct m_zone *z, struct zq_list *out)
{
    while (z->n && z->order[0]->done) {
        struct slot *s = z->order[0];

        expect(w, zq_list_pop(out) == &s->r.link);
        expect(w, s->r.rc == (s->failed ? -EIO : 0));
        if (!s->failed) {
            z->wp = s->end;
            w->commits++;
        }
        m_pop(z);
    }
    if (z->n)
        return;
    if (z->failed)
        z->next = z->wp;
    z->failed = false;
    if (m_full(z))
        z->open = SHUT;
}

static void complete(struct world *w, unsigned i)
{
    struct m_zone *z = &w->z[i];
    struct zq_waiter waiter = {.rc = 0};
    struct zq_list out;
    unsigned k;
    bool bad, single;

    if (!z->n)
        return;
    k = (unsigned)rng_below(&w->rng, z->n);
    bad = rng_below(&w->rng, 8) == 0;
    if (z->order[k]->done)
        return;
    zq_list_init(&out);
    zq_list_push(&w->zs.v[i].live->drained, &waiter.link);
    if (!bad && rng_below(&w->rng, 2)) {
        /* Alone: it is the oldest, and nobody is answered with it. */
        single = k == 0 && !z->failed && !(z->n > 1 && z->order[1]->done);
        expect(w, zq_zone_commit_first(&w->zs, i, &z->order[k]->r) == single);
        if (single)
            zq_list_push(&out, &z->order[k]->r.link);
        else
            zq_zone_data_done(&w->zs, i, &z->order[k]->r, 0, &out);
    } else {
        zq_zone_data_done(&w->zs, i, &z->order[k]->r, bad ? -EIO : 0, &out);
    }
    z->order[k]->done = true;
    for (unsigned j = k; bad && j < z->n; j++)
        z->order[j]->failed = true;
    z->failed |= bad;
    w->failures += bad;
    m_commit(w, z, &out);
    expect(w, zq_list_empty(&out));
    expect(w, zq_list_empty(&w->ready) == (z->n > 0)); /* who waits for the zone to drain */
    zq_list_del(&waiter.link);
}

/* Opens or finishes: both need what a write would need. */
static void take(struct world *w, unsigned i, enum zq_action action)
{
    struct m_zone *z = &w->z[i];
    struct zq_verdict v = zq_fsm(ZQCOW2_RULES_LINUX, m_state(z), action, z->next == z->start);

    if (v.rc || !v.changes || (action == ZQ_ACT_FINISH && z->n) || z->failed)
        return;
    expect(w, zq_zone_live(&w->zs, i));
    if (!make_room(w, i, &v))
        return;
    if (action == ZQ_ACT_OPEN) {
        zq_zone_set_state(&w->zs, i, v.state);
        z->open = EXPLICITLY;
    } else {
        zq_zone_do_finish(&w->zs, i);
        z->wp = z->next = z->end;
        z->open = SHUT;
    }
}

/* Gives back; all of these wait for the zone to drain. */
static void give(struct world *w, unsigned i, unsigned what)
{
    struct m_zone *z = &w->z[i];

    if (z->n || (what < 2 && z->forced))
        return;
    expect(w, zq_zone_live(&w->zs, i));
    if (what == 0) {
        zq_zone_do_reset(&w->zs, i, 0);
        expect(w, w->zs.punch.prev == &w->zs.v[i].live->punch);
        z->wp = z->next = z->start;
        z->open = SHUT;
    } else if (what == 1) {
        if (z->open)
            zq_zone_do_close(&w->zs, i);
        z->open = SHUT;
    } else {
        uint8_t state = what == 2 ? ZQCOW2_ZONE_RDONLY : ZQCOW2_ZONE_OFFLINE;

        zq_zone_force(&w->zs, i, state);
        z->forced = z->forced == state ? 0 : state;
        z->open = SHUT;
    }
}

static void step(struct world *w)
{
    unsigned i = 1 + (unsigned)rng_below(&w->rng, ZONES - 1), what;

    what = (unsigned)rng_below(&w->rng, 128);
    if (w->z[i].forced && what < 16)
        give(w, i, w->z[i].forced == ZQCOW2_ZONE_RDONLY ? 2 : 3); /* back to what it was */
    else if (what < 48)
        write_zone(w, i);
    else if (what < 96)
        complete(w, i);
    else if (what < 108)
        take(w, i, ZQ_ACT_OPEN);
    else if (what < 110)
        take(w, i, ZQ_ACT_FINISH);
    else if (what < 116)
        give(w, i, 0);
    else if (what < 126)
        give(w, i, 1);
    else
        give(w, i, what - 124);
    if (rng_below(&w->rng, 64) == 0) /* an append to a conventional zone */
        expect(w, zq_zone_check_write(&w->zs, 0, 0, SECTOR, true) == ZQCOW2_EZONE_STATE);
    same(w);
}

/* ---- worlds ---- */

static void put(uint8_t *entry, uint64_t v, bool conventional)
{
    v |= (uint64_t)conventional << 63;
    for (int k = 0; k < 8; k++)
        entry[k] = (uint8_t)(v >> (56 - 8 * k));
}

/* A table of big-endian offsets, with some zones partly written, perhaps more than the limit. */
static void fill(struct world *w, uint8_t *table)
{
    for (unsigned i = 0; i < ZONES; i++) {
        struct m_zone *z = &w->z[i];
        uint64_t n;

        z->start = (uint64_t)i * ZONE_BYTES;
        z->length = i + 1 == ZONES ? LAST_BYTES : ZONE_BYTES;
        z->end = z->start + (i && z->length > CAPACITY ? CAPACITY : z->length);
        n = i && rng_below(&w->rng, 3) == 0 ? rng_below(&w->rng, (z->end - z->start) / SECTOR) : 0;
        if (i && rng_below(&w->rng, 8) == 0)
            n = (z->end - z->start) / SECTOR;
        z->wp = z->next = z->start + n * SECTOR;
        put(table + 8 * i, z->wp, i == 0);
    }
}

static void begin(struct world *w, uint64_t seed)
{
    static const uint32_t limits[][2] = {{0, 0}, {1, 2}, {2, 4}, {3, 3}, {2, 0}, {1, 1}};
    uint8_t table[SECTOR] = {0};
    struct zq_geometry g;

    memset(w, 0, sizeof(*w));
    w->seed = w->rng = seed;
    w->max_open = limits[seed % 6][0];
    w->max_active = limits[seed % 6][1];
    fill(w, table);
    heap_init(&w->heap);
    w->hooks = heap_hooks(&w->heap);
    zq_list_init(&w->ready);
    g = (struct zq_geometry){.device_size = (ZONES - 1) * ZONE_BYTES + LAST_BYTES,
                             .zone_size = ZONE_BYTES,
                             .capacity = CAPACITY,
                             .nr_zones = ZONES,
                             .conventional = 1,
                             .max_open = w->max_open,
                             .max_active = w->max_active,
                             .max_append = MAX_APPEND,
                             .layout = ZQCOW2_LAYOUT_44,
                             .zone_bits = 15,
                             .code = {.big_endian = true, .flag_bit = 63}};
    assert_int_equal(
        zq_zones_open(&w->zs, &(struct zq_zones_params){&g, &w->hooks, &w->ready, table,
                                                        ZQCOW2_RULES_LINUX, NULL}),
        0);
    same(w);
}

static void end(struct world *w)
{
    zq_zones_close(&w->zs);
    assert_null(heap_verdict(&w->heap));
    heap_destroy(&w->heap);
}

static void random_histories(void **state)
{
    uint64_t first = rig_env("ZQ_SEED", 1), n = rig_env("ZQ_SEEDS", 600), commits = 0, refusals = 0,
             closed = 0, failures = 0;
    static struct world w;

    (void)state;
    for (uint64_t seed = first; seed < first + n; seed++) {
        begin(&w, seed);
        for (unsigned k = 0; k < STEPS; k++)
            step(&w);
        commits += w.commits;
        refusals += w.refusals;
        closed += w.closed;
        failures += w.failures;
        end(&w);
    }
    printf("zones: %" PRIu64 " histories, %" PRIu64 " commits, %" PRIu64 " failed writes, %" PRIu64
           " refusals, %" PRIu64 " implicit closes\n",
           n, commits, failures, refusals, closed);
    assert_true(n < 100 || (commits && refusals && closed && failures));
}

/* A table that memory ends in leaves nothing behind; so does a zone's live part. */
static void without_memory(void **state)
{
    static struct world w;
    uint8_t table[SECTOR] = {0};

    (void)state;
    begin(&w, 1);
    fill(&w, table);
    heap_plan(&w.heap, 1, false);
    assert_null(zq_zone_live(&w.zs, 3));
    assert_non_null(zq_zone_live(&w.zs, 3));
    for (uint64_t n = 1;; n++) {
        const struct zq_zones_params p = {&w.zs.g, &w.hooks,           &w.ready,
                                          table,   ZQCOW2_RULES_LINUX, NULL};
        struct zq_zones other = {0};
        int rc;

        heap_plan(&w.heap, n, false);
        rc = zq_zones_open(&other, &p);
        zq_zones_close(&other);
        if (rc == 0)
            break;
        assert_int_equal(rc, -ENOMEM);
    }
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_histories),
        cmocka_unit_test(without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
