/* SPDX-License-Identifier: MIT */
/*
 * The write-pointer table on disk: rounds over random histories, with stops and power cuts at every
 * step. The test keeps its own picture of the disk: each sector is what was durable last, or any of
 * the writes since. Held against it: R1, R2, R10, K3, I1, I7, and that what has not changed goes
 * back as it was read. ZQ_SEED is the first history, ZQ_SEEDS how many.
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
#define ZONES      140u /* three sectors, the last one in part */
#define SECTORS    3u
#define CONV       2u
#define ZONE_BYTES (16u * SECTOR)
#define CAPACITY   (12u * SECTOR)
#define LAST_BYTES (5u * SECTOR)
#define TABLE      65536u
#define STEPS      300u
#define PENDING    24u
#define BUSY       10u /* most of a history happens in so many zones, spread over the table */

struct world {
    uint64_t seed, rng;
    bool little; /* layout 56: little-endian, and FULL by finish is the next zone's start */
    struct heap heap;
    struct zqcow2_hooks hooks;
    struct zq_list ready;
    struct zq_zones zs;
    struct zq_reservation r[ZONES];
    bool reserved[ZONES];
    /* the disk */
    uint8_t durable[SECTORS][SECTOR], latest[SECTORS][SECTOR];
    struct {
        uint32_t sector;
        uint8_t bytes[SECTOR];
    } pending[PENDING];
    unsigned nr_pending;
    /* the round: what it took, by the model's own eyes */
    uint64_t snap[ZONES], life[ZONES], snap_life[ZONES];
    bool finished[ZONES], snap_finished[ZONES];
    int composed[ZONES]; /* by which stage of this round; -1: none */
    uint64_t rounds, stops, full_first, states;
};

#define expect(w, i, cond) \
    do { \
        if (!(cond)) \
            fail_msg("ZQ_SEED=%" PRIu64 " ZQ_SEEDS=1: zone %u: %s", (w)->seed, (unsigned)(i), \
                     #cond); \
    } while (0)

/* ---- entries, by the format's description ---- */

static uint64_t start_of(unsigned i)
{
    return (uint64_t)i * ZONE_BYTES;
}

static uint64_t end_of(unsigned i)
{
    return start_of(i) + (i + 1 == ZONES ? LAST_BYTES : CAPACITY);
}

static void put(const struct world *w, uint8_t *entry, uint64_t v)
{
    for (int k = 0; k < 8; k++)
        entry[w->little ? k : 7 - k] = (uint8_t)(v >> 8 * k);
}

static uint64_t get(const struct world *w, const uint8_t *entry)
{
    uint64_t v = 0;

    for (int k = 0; k < 8; k++)
        v |= (uint64_t)entry[w->little ? k : 7 - k] << 8 * k;
    return v;
}

/* The pointer that an entry of a sequential zone means. */
static uint64_t meant(const struct world *w, const uint8_t *entry, unsigned i)
{
    uint64_t v = get(w, entry);

    return v > end_of(i) ? end_of(i) : v;
}

static uint64_t encoded(const struct world *w, unsigned i, uint64_t wp, bool finished)
{
    bool next = w->little && wp == end_of(i) && (finished || i + 1 == ZONES);

    return next ? start_of(i) + ZONE_BYTES : wp;
}

static bool active(unsigned i, uint64_t wp)
{
    return i >= CONV && wp > start_of(i) && wp < end_of(i);
}

/* ---- what a power cut may leave ---- */

static unsigned active_in(const struct world *w, unsigned s, const uint8_t *bytes)
{
    unsigned n = 0;

    for (unsigned i = s * 64; i < s * 64 + 64 && i < ZONES; i++)
        n += active(i, meant(w, bytes + (i - s * 64) * 8, i));
    return n;
}

/* R1: high covers what an entry may be. R2: a zone that need not wait has nothing but its start. */
static void check_content(struct world *w, unsigned s, const uint8_t *bytes)
{
    w->states++;
    for (unsigned i = s * 64; i < s * 64 + 64 && i < ZONES; i++) {
        const struct zq_zone *z = &w->zs.v[i];
        uint64_t v = meant(w, bytes + (i - s * 64) * 8, i);

        if (i < CONV)
            continue;
        expect(w, i, v <= z->high);
        expect(w, i, !(z->next == start_of(i) && z->high == start_of(i)) || v == start_of(i));
    }
}

static void check_disk(struct world *w)
{
    unsigned most = 0;

    for (unsigned s = 0; s < SECTORS; s++) {
        unsigned here = active_in(w, s, w->durable[s]);

        check_content(w, s, w->durable[s]);
        for (unsigned k = 0; k < w->nr_pending; k++) {
            if (w->pending[k].sector != s)
                continue;
            check_content(w, s, w->pending[k].bytes);
            if (active_in(w, s, w->pending[k].bytes) > here)
                here = active_in(w, s, w->pending[k].bytes);
        }
        most += here;
    }
    if (w->zs.g.max_active && most > w->zs.g.max_active) /* I7 */
        fail_msg("ZQ_SEED=%" PRIu64 " ZQ_SEEDS=1: %u active zones after a power cut", w->seed,
                 most);
}

static void barrier(struct world *w)
{
    for (unsigned k = 0; k < w->nr_pending; k++)
        memcpy(w->durable[w->pending[k].sector], w->pending[k].bytes, SECTOR);
    w->nr_pending = 0;
}

/* ---- what happens to zones meanwhile ---- */

static unsigned pick(struct world *w)
{
    unsigned n = (unsigned)rng_below(&w->rng, BUSY + 1);

    if (n < BUSY)
        return ZONES - 1 - n * 13;
    return w->seed % 3 ? CONV + (unsigned)rng_below(&w->rng, ZONES - CONV) : ZONES - 1;
}

/* R2 in the operations: an operation that begins a new life waits until the old one cannot come
 * back. */
static bool must_wait(const struct world *w, unsigned i)
{
    return w->zs.v[i].next == start_of(i) && w->zs.v[i].high != start_of(i);
}

static bool enter(struct world *w, unsigned i, enum zq_action action)
{
    struct zq_verdict v = zq_fsm(ZQCOW2_RULES_LINUX, zq_zone_state(&w->zs.v[i]), action, false);
    uint32_t victim;

    if (v.rc || must_wait(w, i) || zq_zones_room(&w->zs, i, &v, &victim) < 0)
        return false;
    if (victim != ZQ_NO_ZONE && w->reserved[victim])
        return false;
    if (victim != ZQ_NO_ZONE)
        zq_zone_do_close(&w->zs, victim);
    expect(w, i, zq_zone_live(&w->zs, i));
    if (action == ZQ_ACT_WRITE)
        zq_zone_set_state(&w->zs, i, v.state);
    return true;
}

static void commit(struct world *w, unsigned i)
{
    if (w->reserved[i])
        assert_true(zq_zone_commit_first(&w->zs, i, &w->r[i]));
    w->reserved[i] = false;
}

static void one_operation(struct world *w)
{
    unsigned i = pick(w), what = (unsigned)rng_below(&w->rng, 8);
    uint64_t left = (end_of(i) - w->zs.v[i].next) / SECTOR;

    if (w->reserved[i]) {
        commit(w, i);
    } else if (what < 5) {
        if (left && enter(w, i, ZQ_ACT_WRITE)) {
            uint64_t n = rng_below(&w->rng, 2) ? 1 + rng_below(&w->rng, left) : left;
            zq_zone_reserve(&w->zs, i, &w->r[i], n * SECTOR);
            w->reserved[i] = true;
        }
    } else if (what == 5) {
        if (w->zs.v[i].state != ZQCOW2_ZONE_FULL && enter(w, i, ZQ_ACT_FINISH)) {
            zq_zone_do_finish(&w->zs, i);
            w->finished[i] = true;
        }
    } else if (w->zs.v[i].state != ZQCOW2_ZONE_EMPTY) {
        expect(w, i, zq_zone_live(&w->zs, i));
        zq_zone_do_reset(&w->zs, i, 0);
        w->finished[i] = false;
        w->life[i]++;
    }
    check_disk(w);
}

static void operations(struct world *w, unsigned most)
{
    for (uint64_t n = rng_below(&w->rng, most + 1); n; n--)
        one_operation(w);
}

/* ---- a round ---- */

/* What stage `stage` may make of an entry that was `old`; false: it must stay as it is. */
static void check_entry(struct world *w, unsigned i, enum zq_table_stage stage, const uint8_t *old,
                        const uint8_t *now)
{
    bool again = w->snap_life[i] != w->life[i]; /* reset since the capture */
    uint64_t wp = again ? start_of(i) : w->snap[i];

    if (!memcmp(old, now, 8))
        return;
    expect(w, i, i >= CONV);
    w->composed[i] = (int)stage;
    expect(w, i, get(w, now) == encoded(w, i, wp, !again && w->snap_finished[i]));
    expect(w, i, stage != ZQ_TABLE_RESETS || wp == start_of(i));
    expect(w, i, stage != ZQ_TABLE_FULL || !active(i, wp));
}

/* Writes the stage, some sectors at a time. False: the host had no space for one of them. */
static bool write_stage(struct world *w, enum zq_table_stage stage, bool *wrote)
{
    uint8_t buf[SECTORS * SECTOR];
    int32_t left = INT32_MAX;
    uint32_t cursor = 0, n;
    uint64_t at;

    *wrote = false;
    for (;;) {
        uint32_t most = (1 + (uint32_t)rng_below(&w->rng, SECTORS)) * SECTOR;

        n = zq_table_compose(&w->zs, stage, &cursor, buf, most, &at, &left);
        if (!n)
            break;
        *wrote = true;
        expect(w, 0, n <= most && at >= TABLE && at + n <= TABLE + sizeof(w->durable));
        for (uint32_t done = 0; done < n; done += SECTOR) {
            unsigned s = (unsigned)((at + done - TABLE) / SECTOR);

            for (unsigned i = s * 64; i < s * 64 + 64; i++) {
                const uint8_t *old = &w->latest[s][(i - s * 64) * 8];
                const uint8_t *now = &buf[done + (i - s * 64) * 8];

                if (i < ZONES)
                    check_entry(w, i, stage, old, now);
                else
                    expect(w, i, !memcmp(old, now, 8)); /* behind the entries */
            }
            memcpy(w->latest[s], buf + done, SECTOR);
            assert_true(w->nr_pending < PENDING);
            w->pending[w->nr_pending].sector = s;
            memcpy(w->pending[w->nr_pending++].bytes, buf + done, SECTOR);
        }
        check_disk(w);
        if (rng_below(&w->rng, 6) == 0) {
            if (rng_below(&w->rng, 2))
                w->nr_pending -= n / SECTOR; /* nothing of it is there, nor ever will be */
            return false;
        }
        operations(w, 2);
    }
    return true;
}

static void take_snapshot(struct world *w)
{
    for (unsigned i = CONV; i < ZONES; i++) {
        w->snap[i] = w->zs.v[i].wp;
        w->snap_life[i] = w->life[i];
        w->snap_finished[i] = w->finished[i];
        w->composed[i] = -1;
    }
    zq_table_capture(&w->zs);
}

/*
 * I1: what the round took is durable, unless a reset was asked for since. R1: nothing higher may be
 * on disk now, and it is known.
 */
static void check_durable(struct world *w)
{
    for (unsigned i = CONV; i < ZONES; i++) {
        uint64_t v = meant(w, &w->durable[i / 64][i % 64 * 8], i);

        expect(w, i, v == w->snap[i] || (w->snap_life[i] != w->life[i] && v == start_of(i)));
        expect(w, i, w->zs.v[i].high == v);
    }
}

/* A waiter for a durable reset (R2) need not wait for the rest of the round. */
static void check_resets(struct world *w)
{
    for (unsigned i = CONV; i < ZONES; i++) {
        if (w->snap[i] == start_of(i) && w->snap_life[i] == w->life[i])
            expect(w, i, w->zs.v[i].high == start_of(i));
    }
}

/* R10: what an earlier stage has made durable is known, whatever became of this one. */
static void check_stop(struct world *w, int stage)
{
    for (unsigned i = CONV; i < ZONES; i++) {
        if (w->composed[i] >= 0 && w->composed[i] < stage)
            expect(w, i, w->zs.v[i].doubt == ZQ_SURE);
    }
    expect(w, 0, w->zs.is_dirty);
}

static bool run_stages(struct world *w, int *stage)
{
    int32_t left = INT32_MAX;
    bool wrote;

    *stage = ZQ_TABLE_RESETS;
    if (!write_stage(w, ZQ_TABLE_RESETS, &wrote))
        return false;
    operations(w, 2);
    barrier(w);
    zq_table_resets_durable(&w->zs, 0, &left);
    check_resets(w);
    check_disk(w);
    operations(w, 2);
    zq_table_weigh(&w->zs, 0, &left);
    if (zq_table_full_first(&w->zs)) {
        w->full_first++;
        *stage = ZQ_TABLE_FULL;
        if (!write_stage(w, ZQ_TABLE_FULL, &wrote))
            return false;
        barrier(w);
        if (wrote)
            zq_table_full_durable(&w->zs, 0, &left);
        check_disk(w);
    }
    operations(w, 2);
    *stage = ZQ_TABLE_REST;
    if (!write_stage(w, ZQ_TABLE_REST, &wrote))
        return false;
    operations(w, 2);
    barrier(w);
    return true;
}

static void one_round(struct world *w)
{
    int32_t left = INT32_MAX;
    int stage;

    take_snapshot(w);
    check_disk(w);
    if (run_stages(w, &stage)) {
        zq_table_round_done(&w->zs, 0, &left);
        check_durable(w);
        w->rounds++;
    } else {
        zq_table_round_stop(&w->zs, 0, &left);
        w->stops++;
        if (rng_below(&w->rng, 2))
            barrier(w); /* somebody else's */
        check_stop(w, stage);
    }
    check_disk(w);
}

/* ---- worlds ---- */

/* As another program may have left it: full zones in either form, and bytes behind the entries. */
static void fill(struct world *w)
{
    unsigned nr_active = 0;

    for (unsigned s = 0; s < SECTORS; s++) {
        for (unsigned k = 0; k < SECTOR; k++)
            w->durable[s][k] = (uint8_t)rng_next(&w->rng);
    }
    for (unsigned i = 0; i < ZONES; i++) {
        uint64_t v = start_of(i), what = rng_below(&w->rng, 8);

        if (i < CONV)
            v |= (uint64_t)1 << (w->little ? 59 : 63);
        else if (what == 0)
            v = rng_below(&w->rng, 2) ? end_of(i) : start_of(i) + ZONE_BYTES;
        else if (what == 1 && nr_active++ < 3)
            v += 2 * SECTOR;
        put(w, &w->durable[i / 64][i % 64 * 8], v);
        w->finished[i] = i >= CONV && v == start_of(i) + ZONE_BYTES;
    }
    memcpy(w->latest, w->durable, sizeof(w->latest));
}

static void begin(struct world *w, uint64_t seed)
{
    struct zq_geometry g;
    static const uint32_t limits[][2] = {{2, 4}, {3, 3}, {0, 5}, {4, 0}, {1, 3}};

    memset(w, 0, sizeof(*w));
    w->seed = w->rng = seed;
    w->little = seed & 1;
    fill(w);
    heap_init(&w->heap);
    w->hooks = heap_hooks(&w->heap);
    zq_list_init(&w->ready);
    g = (struct zq_geometry){.device_size = (ZONES - 1) * ZONE_BYTES + LAST_BYTES,
                             .zone_size = ZONE_BYTES,
                             .capacity = CAPACITY,
                             .table_offset = TABLE,
                             .nr_zones = ZONES,
                             .conventional = CONV,
                             .max_open = limits[seed % 5][0],
                             .max_active = limits[seed % 5][1],
                             .layout = w->little ? ZQCOW2_LAYOUT_56 : ZQCOW2_LAYOUT_44,
                             .zone_bits = 13};
    g.code.big_endian = !w->little;
    g.code.flag_bit = w->little ? 59 : 63;
    assert_int_equal(
        zq_zones_open(&w->zs, &(struct zq_zones_params){&g, &w->hooks, &w->ready, w->durable[0],
                                                        ZQCOW2_RULES_LINUX, NULL}),
        0);
    check_disk(w);
}

static void end(struct world *w)
{
    zq_zones_close(&w->zs);
    assert_null(heap_verdict(&w->heap));
    heap_destroy(&w->heap);
}

static void rounds_over_random_histories(void **state)
{
    uint64_t first = rig_env("ZQ_SEED", 1), n = rig_env("ZQ_SEEDS", 400), rounds = 0, stops = 0,
             full_first = 0, states = 0;
    static struct world w;

    (void)state;
    for (uint64_t seed = first; seed < first + n; seed++) {
        begin(&w, seed);
        for (unsigned k = 0; k < STEPS / 4; k++) {
            operations(&w, 12);
            one_round(&w);
            if (w.nr_pending > PENDING - 4 * SECTORS)
                barrier(&w);
        }
        rounds += w.rounds;
        stops += w.stops;
        full_first += w.full_first;
        states += w.states;
        end(&w);
    }
    printf("write-pointer table: %" PRIu64 " rounds, %" PRIu64 " stops, %" PRIu64
           " with FULL first, %" PRIu64 " contents of sectors\n",
           rounds, stops, full_first, states);
    assert_true(n < 100 || (rounds && stops && full_first));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounds_over_random_histories),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
