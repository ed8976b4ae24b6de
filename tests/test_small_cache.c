/* SPDX-License-Identifier: MIT */
/*
 * The smallest cache and many requests at once (E2): every batch ends, after an amount of work that
 * its requests bound. The watchdog counts calls of the backend. ZQ_SEEDS: how many for each size of
 * clusters and each backend; ZQ_SEED: the first of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/ticket.h"

#define ZONES   10u
#define BATCHES 5u
#define MOST    32u

/* Oldest last: the I/O of who waits longest comes last, however much others do meanwhile. */
enum world { BLOCKING, SHUFFLED, OLDEST_LAST, NR_WORLDS };
static const char *const names[] = {"blocking", "shuffled", "oldest last"};

/*
 * What one gather may cost, by the argument of E2: the slices that it may load without the token
 * and with it, a new table, a new refcount block and a longer file, and two rounds; then its data.
 * A request takes one gather a cluster at most, and some for its ends.
 */
#define CALLS_A_GATHER 16u

struct crowd {
    struct rig r;
    struct geometry g;
    struct zqcow2_queue *q;
    enum world world;
    uint64_t seed, per; /* per: device bytes of an L2 slice */
    uint64_t wp[ZONES], life[ZONES], now;
    struct ticket *t[MOST];
    unsigned nr;
    uint64_t pieces, worst; /* worst: calls a piece, in hundredths */
};

static uint64_t below(struct crowd *c, uint64_t n)
{
    return rng_below(&c->r.rng, n);
}

/* Zones of eight slices each, so that the requests of a batch want more slices than there are. */
static void crowd_begin(struct crowd *c, uint32_t cluster, enum world world, uint64_t seed)
{
    uint64_t rng = seed;

    memset(c, 0, sizeof(*c));
    c->world = world;
    c->seed = seed;
    c->per = (cluster / 8 < 512 ? cluster / 8 : 512) * (uint64_t)cluster;
    c->g = (struct geometry){.name = "crowd",
                             .size = ZONES * 8 * c->per,
                             .zone_size = 8 * c->per,
                             .conventional = 1 + (uint32_t)rng_below(&rng, 3),
                             .cluster = cluster,
                             .refcount_bits = rng_below(&rng, 2) ? 64 : 16};
    ticket_begin();
    rig_init(&c->r, &c->g, world == BLOCKING ? RIG_PLAIN : RIG_SHUFFLED, seed);
    c->r.shuffle.oldest_last = world == OLDEST_LAST;
    c->r.open.cache_bytes = 1;
    c->r.open.extent_bytes = 512u << rng_below(&rng, 4);
    assert_int_equal(rig_create(&c->r), 0);
    assert_int_equal(rig_open(&c->r, true), 0);
    assert_int_equal(zqcow2_queue_open(c->r.img, MOST, &c->q), 0);
}

static struct ticket *conventional(struct crowd *c, uint64_t len)
{
    static const int ops[] = {ZQCOW2_OP_WRITE, ZQCOW2_OP_WRITE, ZQCOW2_OP_READ, ZQCOW2_OP_DISCARD,
                              ZQCOW2_OP_WRITE_ZEROES};
    uint64_t slices = c->g.conventional * 8ull;
    uint64_t at = below(c, slices - 1) * c->per + below(c, 64) * 512;
    int op = ops[below(c, 5)];

    if (op == ZQCOW2_OP_DISCARD && below(c, 2))
        len = 2 * c->per;
    if (at + len > slices * c->per)
        len = slices * c->per - at;
    c->pieces += len / c->g.cluster + 2;
    return ticket(op, at, len, ++c->now);
}

static struct ticket *sequential(struct crowd *c, uint32_t zone, uint64_t len)
{
    uint64_t start = rig_start(&c->r, zone), at = start + c->wp[zone];
    unsigned flags = below(c, 20) ? 0 : ZQCOW2_FUA;
    struct ticket *t;

    c->pieces += len / c->g.cluster + 2;
    if (c->wp[zone] + len > c->g.zone_size || !below(c, 30)) {
        c->wp[zone] = 0;
        c->life[zone] = ++c->now;
        t = ticket(ZQCOW2_OP_ZONE_RESET, start, c->g.zone_size, 0);
    } else {
        c->wp[zone] += len;
        t = ticket(ZQCOW2_OP_WRITE, at, len, c->life[zone]);
    }
    t->req.flags = (uint16_t)flags;
    return t;
}

static void draw(struct crowd *c)
{
    c->nr = 8 + (unsigned)below(c, MOST - 8);
    c->pieces = 0;
    for (unsigned i = 0; i < c->nr; i++) {
        uint32_t zone = (uint32_t)below(c, ZONES);
        uint64_t len = (1 + below(c, below(c, 3) ? 20 : 200)) * 512;

        c->t[i] = zone < c->g.conventional ? conventional(c, len) : sequential(c, zone, len);
    }
}

static void run_batch(struct crowd *c, unsigned n)
{
    struct zqcow2_request req[MOST];
    uint64_t calls = 0;

    draw(c);
    record_reset(&c->r.record);
    c->r.record.limit = c->pieces * CALLS_A_GATHER;
    snprintf(c->r.record.what, sizeof(c->r.record.what),
             "ZQ_SEED=%llu, clusters of %u, %s, batch %u", (unsigned long long)c->seed,
             c->g.cluster, names[c->world], n);
    for (unsigned i = 0; i < c->nr; i++)
        req[i] = c->t[i]->req;
    assert_int_equal(zqcow2_queue_submit(c->q, req, c->nr), c->nr);
    wait_all(c->q);
    c->r.record.limit = 0;
    for (unsigned i = 0; i < c->nr; i++) {
        if (c->t[i]->ret)
            fail_msg("%s: request %u, kind %u: %d", c->r.record.what, i, c->t[i]->req.op,
                     c->t[i]->ret);
        drop(c->t[i]);
    }
    for (unsigned k = 0; k <= ZQCOW2_IO_TRUNCATE; k++)
        calls += c->r.record.calls[k];
    if (calls * 100 / c->pieces > c->worst)
        c->worst = calls * 100 / c->pieces;
}

/* Nothing is lost in the crowd: every zone holds what its life has written. */
static void compare(struct crowd *c)
{
    static uint8_t want[MiB(1)], got[MiB(1)];

    for (uint32_t zone = c->g.conventional; zone < ZONES; zone++) {
        uint64_t n = c->wp[zone] < sizeof(got) ? c->wp[zone] : sizeof(got);
        uint64_t start = rig_start(&c->r, zone);

        assert_int_equal(rig_zone(&c->r, zone).write_pointer, start + c->wp[zone]);
        rig_pattern(want, n, start, c->life[zone]);
        assert_int_equal(n ? zqcow2_read(c->r.img, got, n, start) : 0, 0);
        if (memcmp(want, got, n))
            fail_msg("%s: zone %u", c->r.record.what, zone);
    }
}

static uint64_t crowd_run(uint32_t cluster, enum world world, uint64_t seed)
{
    static struct crowd c;

    rig_watch(300, "ZQ_SEED=%llu, clusters of %u, %s", (unsigned long long)seed, cluster,
              names[world]);
    crowd_begin(&c, cluster, world, seed);
    for (unsigned n = 0; n < BATCHES; n++)
        run_batch(&c, n);
    compare(&c);
    assert_int_equal(zqcow2_queue_close(c.q), 0);
    rig_end(&c.r);
    return c.worst;
}

/* Slices have one size from 32 KiB on: there the larger clusters only take more memory. */
static uint64_t seeds_for(uint32_t cluster, uint64_t seeds)
{
    return cluster <= KiB(32) ? seeds : (seeds + 9) / 10;
}

static void every_batch_ends(void **state)
{
    uint64_t first = rig_env("ZQ_SEED", 1), seeds = rig_env("ZQ_SEEDS", 100);

    (void)state;
    for (int world = 0; world < NR_WORLDS; world++) {
        uint64_t worst = 0, batches = 0;

        for (uint32_t cluster = 512; cluster <= MiB(2); cluster *= 2) {
            uint64_t end = first + seeds_for(cluster, seeds);

            for (uint64_t seed = first; seed < end; seed++, batches += BATCHES) {
                uint64_t w = crowd_run(cluster, (enum world)world, seed);
                worst = w > worst ? w : worst;
            }
        }
        rig_watch(0, "none");
        printf("small caches, %s: %llu batches, at most %llu.%02llu calls a piece\n", names[world],
               (unsigned long long)batches, (unsigned long long)worst / 100,
               (unsigned long long)worst % 100);
    }
}

/*
 * A request over more slices than the cache has, in a zone that is mapped already, and without
 * memory to remember where: what it has found once it need not find again.
 */
static void long_write_without_memory(void **state)
{
    struct geometry g = {.name = "long", .size = MiB(8), .zone_size = MiB(1), .cluster = 512};
    struct store image;
    struct ticket *t;
    struct zqcow2_queue *q;
    struct rig r;

    (void)state;
    rig_begin(&r, &g);
    assert_int_equal(rig_write(&r, 0, MiB(1), 1), 0);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_RESET, 0, MiB(1), NULL), 0);
    assert_int_equal(zqcow2_flush(r.img), 0); /* empty, and mapped */
    store_init(&image);
    store_copy(&image, &r.store);
    assert_int_equal(rig_close(&r), 0);
    store_copy(&r.store, &image); /* as a crash leaves it */
    store_free(&image);
    r.open.cache_bytes = 1;
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(zqcow2_queue_open(r.img, 1, &q), 0);
    ticket_begin();
    t = ticket(ZQCOW2_OP_WRITE, 0, KiB(384), 2);
    record_reset(&r.record);
    r.record.limit = 20 * (384 / 32);
    strcpy(r.record.what, "one write of 12 slices");
    heap_plan(&r.heap, 2, true); /* the zone itself may be used */
    assert_int_equal(submit(q, t), 1);
    wait_all(q);
    heap_plan(&r.heap, 0, false);
    assert_true(r.record.calls[ZQCOW2_IO_READ] >= 12); /* it was not in the cache */
    assert_int_equal(t->ret, 0);
    r.record.limit = 0;
    assert_true(rig_holds(&r, 0, KiB(384), 0, 2));
    drop(t);
    assert_int_equal(zqcow2_queue_close(q), 0);
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_batch_ends),
        cmocka_unit_test(long_write_without_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
