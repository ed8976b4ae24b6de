/* SPDX-License-Identifier: MIT */
/* Requests in flight together: what keeps its order, and what must not care about it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/ticket.h"

#define Z    KiB(256)
#define UNIT 4096u

static const struct geometry shape = {
    .name = "queue", .size = 8 * Z, .zone_size = Z, .conventional = 1, .cluster = 65536};
static const enum rig_world worlds[] = {RIG_PLAIN, RIG_SHUFFLED, RIG_THREADED};
#define NR_WORLDS 3

static struct zqcow2_queue *begin(struct rig *r, enum rig_world world, uint64_t seed,
                                  uint32_t depth)
{
    struct zqcow2_queue *q = NULL;

    ticket_begin();
    rig_begin_in(r, &shape, world, seed);
    assert_int_equal(zqcow2_queue_open(r->img, depth, &q), 0);
    assert_non_null(q);
    return q;
}

static void end(struct rig *r, struct zqcow2_queue *q)
{
    assert_int_equal(called_outside, 0);
    assert_int_equal(zqcow2_queue_close(q), 0);
    rig_end(r);
}

/*
 * Appends of one zone commit in the order of submission, whatever the backend does. In zones that
 * are open and mapped before, most take the fast path.
 */
static void appends_keep_their_order(void **state)
{
    struct ticket *t[32];
    struct rig r;

    (void)state;
    for (uint64_t seed = 1; seed <= 120; seed++) {
        enum rig_world world = worlds[seed % NR_WORLDS];
        struct zqcow2_queue *q = begin(&r, world, seed, 32);
        uint64_t before = seed / NR_WORLDS % 2 * UNIT;

        for (unsigned zone = 1; before && zone <= 2; zone++) {
            uint64_t off = Z * zone;
            assert_int_equal(zqcow2_append(r.img, (uint8_t[UNIT]){0}, UNIT, &off, 0), 0);
        }

        for (unsigned i = 0; i < 32; i++) {
            t[i] = ticket(ZQCOW2_OP_APPEND, Z * (1 + i % 2), UNIT, i + 1);
            assert_int_equal(submit(q, t[i]), 1);
            if (i % 5 == 0)
                poll_queue(q, 2);
        }
        wait_all(q);
        for (unsigned i = 0; i < 32; i++) {
            uint64_t want = Z * (1 + i % 2) + before + i / 2 * UNIT;

            if (t[i]->ret || t[i]->offset != want)
                fail_msg("seed %llu: append %u: %d at %#llx, expected %#llx",
                         (unsigned long long)seed, i, t[i]->ret, (unsigned long long)t[i]->offset,
                         (unsigned long long)want);
            if (i >= 2 && t[i]->order < t[i - 2]->order)
                fail_msg("seed %llu: append %u acknowledged before %u", (unsigned long long)seed, i,
                         i - 2);
            assert_true(rig_holds(&r, want, UNIT, Z * (1 + i % 2), i + 1));
        }
        for (unsigned i = 0; i < 32; i++)
            drop(t[i]);
        end(&r, q);
    }
}

/* Sequential writes submitted back to back: none sees a false "not at the write pointer". */
static void writes_back_to_back(void **state)
{
    struct ticket *t[16];
    struct rig r;

    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct zqcow2_queue *q = begin(&r, worlds[seed % NR_WORLDS], seed, 16);

        for (unsigned i = 0; i < 16; i++) {
            t[i] = ticket(ZQCOW2_OP_WRITE, Z + i * UNIT, UNIT, i + 1);
            assert_int_equal(submit(q, t[i]), 1);
        }
        wait_all(q);
        for (unsigned i = 0; i < 16; i++) {
            if (t[i]->ret)
                fail_msg("seed %llu: write %u: %d", (unsigned long long)seed, i, t[i]->ret);
            assert_true(rig_holds(&r, Z + i * UNIT, UNIT, Z + i * UNIT, i + 1));
            drop(t[i]);
        }
        end(&r, q);
    }
}

/* Zones 1 and 2 are open and mapped, so that what follows takes the fast path. */
static struct zqcow2_queue *begin_open(struct rig *r, uint64_t seed)
{
    struct zqcow2_queue *q = begin(r, RIG_SHUFFLED, seed, 16);

    assert_int_equal(rig_append(r, 1, UNIT, 100, NULL), 0);
    assert_int_equal(rig_append(r, 2, UNIT, 100, NULL), 0);
    assert_int_equal(zqcow2_flush(r->img), 0);
    return q;
}

/* A failed write fails those behind it; nothing new comes before all of them have drained (R8). */
static void a_failed_write_leaves_no_hole(void **state)
{
    struct ticket *t[12];
    struct rig r;
    unsigned late = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct zqcow2_queue *q = begin_open(&r, seed);
        unsigned n = 0, good = 0;

        fault_plan(&r.fault, FAULT_EIO, 1 + seed % 5, false);
        for (; n < 6; n++) {
            t[n] = ticket(ZQCOW2_OP_APPEND, Z, UNIT, n + 1);
            assert_int_equal(submit(q, t[n]), 1);
        }
        while (!r.fault.failed)
            poll_queue(q, 0);
        late += zqcow2_queue_pending(q) > 1;
        for (; n < 12; n++) {
            t[n] = ticket(ZQCOW2_OP_APPEND, Z, UNIT, n + 1);
            assert_int_equal(submit(q, t[n]), 1);
        }
        wait_all(q);
        for (unsigned i = 0; i < n; i++) {
            if (t[i]->ret == 0 && !rig_holds(&r, t[i]->offset, UNIT, Z, i + 1))
                fail_msg("seed %llu: append %u is not there", (unsigned long long)seed, i);
            good += t[i]->ret == 0;
            drop(t[i]);
        }
        if (rig_zone(&r, 1).write_pointer != Z + (good + 1) * UNIT)
            fail_msg("seed %llu: %u good appends, pointer at %#llx", (unsigned long long)seed, good,
                     (unsigned long long)rig_zone(&r, 1).write_pointer);
        end(&r, q);
    }
    assert_true(late > 20);
}

/* When a flush has failed, nothing that was under way is acknowledged any more (R11). */
static void a_dead_image_acknowledges_nothing(void **state)
{
    struct ticket *t[9];
    struct rig r;
    unsigned refused = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct zqcow2_queue *q = begin_open(&r, seed);
        struct ticket *flush = t[8] = ticket(ZQCOW2_OP_FLUSH, 0, 0, 0);

        assert_int_equal(rig_append(&r, 1, UNIT, 50, NULL), 0);
        assert_int_equal(submit(q, flush), 1);
        for (unsigned i = 0; i < 8; i++) {
            t[i] = ticket(ZQCOW2_OP_APPEND, Z * (1 + i % 2), UNIT, i + 1);
            assert_int_equal(submit(q, t[i]), 1);
        }
        fault_plan(&r.fault, FAULT_EIO, 1, true); /* what was performed at once is good still */
        wait_all(q);
        assert_true(flush->ret < 0);
        for (unsigned i = 0; i < 8; i++) {
            if (t[i]->ret == 0 && t[i]->order > flush->order)
                fail_msg("seed %llu: append %u acknowledged by a dead image",
                         (unsigned long long)seed, i);
            refused += t[i]->ret == ZQCOW2_EDEAD;
        }
        for (unsigned i = 0; i < 9; i++)
            drop(t[i]);
        fault_plan(&r.fault, FAULT_NONE, 0, false);
        assert_int_equal(zqcow2_queue_close(q), 0);
        assert_int_equal(rig_close(&r), ZQCOW2_EDEAD);
        assert_null(rig_free(&r));
    }
    assert_true(refused > 50);
}

/* A chain on one zone, all in flight at once: each step finds what the one before it left. */
static void a_zone_takes_turns(void **state)
{
    static const int ops[] = {ZQCOW2_OP_WRITE,      ZQCOW2_OP_ZONE_CLOSE,  ZQCOW2_OP_APPEND,
                              ZQCOW2_OP_ZONE_OPEN,  ZQCOW2_OP_ZONE_FINISH, ZQCOW2_OP_WRITE,
                              ZQCOW2_OP_ZONE_RESET, ZQCOW2_OP_WRITE};
    static const int want[] = {0, 0, 0, 0, 0, ZQCOW2_EZONE_FULL, 0, 0};
    struct ticket *t[8];
    struct rig r;

    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct zqcow2_queue *q = begin(&r, worlds[seed % NR_WORLDS], seed, 8);

        for (unsigned i = 0; i < 8; i++) {
            t[i] = ticket(ops[i], 2 * Z, ops[i] >= ZQCOW2_OP_ZONE_OPEN ? Z : UNIT, i + 1);
            assert_int_equal(submit(q, t[i]), 1);
        }
        wait_all(q);
        for (unsigned i = 0; i < 8; i++) {
            if (t[i]->ret != want[i])
                fail_msg("seed %llu: step %u: %d, expected %d", (unsigned long long)seed, i,
                         t[i]->ret, want[i]);
            drop(t[i]);
        }
        assert_int_equal(rig_zone(&r, 2).write_pointer, 2 * Z + UNIT);
        assert_true(rig_holds(&r, 2 * Z, UNIT, 2 * Z, 8));
        end(&r, q);
    }
}

/* A flush among writes, FUA, drain: all complete, and what was acknowledged is there afterwards. */
static void flushes_among_writes(void **state)
{
    struct ticket *t[30];
    struct rig r;

    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct zqcow2_queue *q = begin(&r, worlds[seed % NR_WORLDS], seed, 32);

        for (unsigned i = 0; i < 30; i++) {
            int op = i % 7 == 3  ? ZQCOW2_OP_FLUSH :
                     i % 13 == 5 ? ZQCOW2_OP_DRAIN :
                                   ZQCOW2_OP_APPEND;

            t[i] = ticket(op, op == ZQCOW2_OP_APPEND ? Z * (1 + i % 3) : 0,
                          op == ZQCOW2_OP_APPEND ? UNIT : 0, i + 1);
            t[i]->req.flags = i % 5 == 0 && op == ZQCOW2_OP_APPEND ? ZQCOW2_FUA : 0;
            assert_int_equal(submit(q, t[i]), 1);
        }
        wait_all(q);
        assert_int_equal(zqcow2_queue_close(q), 0);
        rig_reopen(&r);
        for (unsigned i = 0; i < 30; i++) {
            assert_int_equal(t[i]->ret, 0);
            if (t[i]->req.op == ZQCOW2_OP_APPEND)
                assert_true(rig_holds(&r, t[i]->offset, UNIT, t[i]->req.offset, i + 1));
            drop(t[i]);
        }
        rig_end(&r);
    }
}

/* Waiting on one queue moves the other one's requests, too, but leaves their callbacks alone. */
static void two_queues_of_one_image(void **state)
{
    struct rig r;

    (void)state;
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct zqcow2_queue *q = begin(&r, worlds[seed % NR_WORLDS], seed, 4), *p = NULL;
        struct ticket *a = ticket(ZQCOW2_OP_APPEND, Z, UNIT, 1);
        struct ticket *b = ticket(ZQCOW2_OP_APPEND, Z, UNIT, 2);

        assert_int_equal(zqcow2_queue_open(r.img, 4, &p), 0);
        assert_int_equal(submit(q, a), 1);
        assert_int_equal(submit(p, b), 1);
        wait_all(p); /* b commits after a, so a's data has to be moved */
        assert_int_equal(a->calls, 0);
        assert_int_equal(b->calls, 1);
        assert_int_equal(b->offset, Z + UNIT);
        wait_all(q);
        assert_int_equal(a->offset, Z);
        assert_int_equal(zqcow2_queue_close(p), 0);
        drop(a);
        drop(b);
        end(&r, q);
    }
}

/* Neighbours in one cluster of a conventional zone, all in flight. */
static void conventional_neighbours(void **state)
{
    struct ticket *t[32];
    struct rig r;

    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct zqcow2_queue *q = begin(&r, worlds[seed % NR_WORLDS], seed, 32);

        for (unsigned i = 0; i < 32; i++) {
            t[i] = ticket(ZQCOW2_OP_WRITE, i * 1536u, 1536, i + 1);
            assert_int_equal(submit(q, t[i]), 1);
        }
        wait_all(q);
        for (unsigned i = 0; i < 32; i++) {
            assert_int_equal(t[i]->ret, 0);
            if (!rig_holds(&r, i * 1536u, 1536, i * 1536u, i + 1))
                fail_msg("seed %llu: write %u is not there", (unsigned long long)seed, i);
            drop(t[i]);
        }
        assert_true(rig_zeros(&r, 32 * 1536, KiB(64) - 32 * 1536));
        end(&r, q);
    }
}

/* Reads in flight with appends, over bytes of an earlier life: each sector is new, or zeros. */
static void look_at_reads(struct ticket *const *t, unsigned n, uint64_t seed)
{
    static const uint8_t zeros[512];
    uint8_t want[8 * UNIT];

    for (unsigned i = 0; i < 8; i++)
        rig_pattern(want + i * UNIT, UNIT, Z, i + 1);
    for (unsigned k = 0; k < n; k++) {
        assert_int_equal(t[k]->ret, 0);
        for (uint64_t b = 0; t[k]->req.op == ZQCOW2_OP_READ && b < 8 * UNIT; b += 512) {
            if (memcmp(t[k]->buf + b, zeros, 512) && memcmp(t[k]->buf + b, want + b, 512))
                fail_msg("seed %llu: read %u shows old bytes at +%#llx", (unsigned long long)seed,
                         k, (unsigned long long)b);
        }
    }
}

static void reads_beyond_the_pointer(void **state)
{
    struct ticket *t[24];
    struct rig r;

    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct zqcow2_queue *q = begin(&r, worlds[seed % NR_WORLDS], seed, 24);

        assert_int_equal(rig_write(&r, Z, 8 * UNIT, 99), 0);
        assert_int_equal(zqcow2_flush(r.img), 0);
        assert_int_equal(zqcow2_zone_reset(r.img, Z, Z, 0), 0);
        for (unsigned k = 0; k < 24; k++) {
            t[k] = k % 3 ? ticket(ZQCOW2_OP_READ, Z, 8 * UNIT, 0) :
                           ticket(ZQCOW2_OP_APPEND, Z, UNIT, k / 3 + 1);
            assert_int_equal(submit(q, t[k]), 1);
            if (k % 4 == 0)
                poll_queue(q, 0);
        }
        wait_all(q);
        look_at_reads(t, 24, seed);
        for (unsigned k = 0; k < 24; k++)
            drop(t[k]);
        end(&r, q);
    }
}

/* ---- limits, everything in flight: who may fail is open, nobody may be forgotten ---- */

static const struct geometry narrow[] = {
    {.name = "1 of 2",
     .size = 8 * Z,
     .zone_size = Z,
     .max_open = 1,
     .max_active = 2,
     .cluster = 65536},
    {.name = "2 of 4",
     .size = 8 * Z,
     .zone_size = Z,
     .max_open = 2,
     .max_active = 4,
     .cluster = 4096},
    {.name = "3 open", .size = 8 * Z, .zone_size = Z, .max_open = 3, .cluster = 4096},
};

static bool may_be(int op, int ret)
{
    if (!ret || ret == ZQCOW2_EZONE_ACTIVE || ret == ZQCOW2_EZONE_OPEN)
        return !ret || op != ZQCOW2_OP_ZONE_CLOSE;
    return op == ZQCOW2_OP_APPEND ? ret == ZQCOW2_EZONE_FULL : ret == ZQCOW2_EZONE_STATE;
}

static struct ticket *draw(uint64_t *rng, unsigned i)
{
    static const int ops[] = {ZQCOW2_OP_ZONE_OPEN, ZQCOW2_OP_ZONE_CLOSE, ZQCOW2_OP_ZONE_FINISH,
                              ZQCOW2_OP_ZONE_RESET};
    uint64_t start = Z * rng_below(rng, 6);
    uint64_t pick = rng_below(rng, 12);

    return pick < 4 ? ticket(ops[pick], start, Z, 0) : ticket(ZQCOW2_OP_APPEND, start, UNIT, i + 1);
}

/* Limits kept, counts true. */
static void weigh(struct rig *r, uint64_t seed)
{
    struct zqcow2_info info = rig_info(r);
    uint32_t open = 0, active = 0;

    for (uint32_t i = 0; i < 8; i++) {
        unsigned s = rig_zone(r, i).state;

        open += s == ZQCOW2_ZONE_IMP_OPEN || s == ZQCOW2_ZONE_EXP_OPEN;
        active += s >= ZQCOW2_ZONE_IMP_OPEN && s <= ZQCOW2_ZONE_CLOSED;
    }
    if (info.open_zones != open || info.active_zones != active ||
        (r->g->max_open && open > r->g->max_open) ||
        (r->g->max_active && active > r->g->max_active))
        fail_msg("%s, seed %llu: %u open, %u active; info says %u and %u", r->g->name,
                 (unsigned long long)seed, open, active, info.open_zones, info.active_zones);
}

static void fight(const struct geometry *g, uint64_t seed)
{
    struct ticket *t[40];
    struct zqcow2_queue *q;
    uint64_t rng = seed;
    struct rig r;

    rig_watch(60, "test_order: %s, seed %llu", g->name, (unsigned long long)seed);
    ticket_begin();
    rig_begin_in(&r, g, worlds[1 + seed % 2], seed);
    assert_int_equal(zqcow2_queue_open(r.img, 40, &q), 0);
    for (unsigned i = 0; i < 40; i++) {
        t[i] = draw(&rng, i);
        assert_int_equal(submit(q, t[i]), 1);
        if (rng_below(&rng, 4) == 0)
            poll_queue(q, 0);
    }
    wait_all(q);
    for (unsigned i = 0; i < 40; i++) {
        if (t[i]->calls != 1 || !may_be(t[i]->req.op, t[i]->ret))
            fail_msg("%s, seed %llu: request %u (%s): %d", g->name, (unsigned long long)seed, i,
                     rig_op_name(t[i]->req.op), t[i]->ret);
        drop(t[i]);
    }
    weigh(&r, seed);
    assert_int_equal(zqcow2_queue_close(q), 0);
    rig_end(&r);
    rig_watch(0, "over");
}

static void limits_with_everything_in_flight(void **state)
{
    uint64_t n = rig_env("ZQ_ROUNDS", 400), base = rig_env("ZQ_SEED", 0);

    (void)state;
    for (uint64_t seed = 1; seed <= n; seed++)
        fight(&narrow[seed % 3], base + seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_keep_their_order),
        cmocka_unit_test(writes_back_to_back),
        cmocka_unit_test(a_failed_write_leaves_no_hole),
        cmocka_unit_test(a_dead_image_acknowledges_nothing),
        cmocka_unit_test(a_zone_takes_turns),
        cmocka_unit_test(flushes_among_writes),
        cmocka_unit_test(two_queues_of_one_image),
        cmocka_unit_test(conventional_neighbours),
        cmocka_unit_test(reads_beyond_the_pointer),
        cmocka_unit_test(limits_with_everything_in_flight),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
