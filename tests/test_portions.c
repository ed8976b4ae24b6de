/* SPDX-License-Identifier: MIT */
/*
 * A call of an event loop does a portion of work, about 1 ms, however long a request is (E7).
 * Portions are counted, so this test counts, too: what a call has done at most, by figures that
 * were worked out by hand; and no clock is asked.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/stats.h>
#include "rig/ticket.h"
#include "zone/zones.h"

#define Z     KiB(64)
#define ZONES 32768u
#define UNIT  4096u

/* A portion is 100,000 units: a zone that changes has 30, a KiB of zeros 16, a slice 500. */
#define MOST_ZONES 3334u
#define MOST_ZEROS (KiB(6250) + MiB(1)) /* a piece is begun if anything is left */
#define SLICES     2048u
#define SLICE      MiB(2) /* of the device: 512 clusters of 4 KiB */

static const struct geometry zoned = {
    .name = "zoned", .size = ZONES * Z, .zone_size = Z, .conventional = 1, .cluster = 65536};
static const struct geometry many = {
    .name = "many", .size = 262144 * Z, .zone_size = Z, .conventional = 1, .cluster = 65536};
static const struct geometry holes = {.name = "holes", .size = GiB(1), .cluster = 65536};
static const struct geometry plain = {.name = "plain", .size = SLICES * SLICE, .cluster = 4096};
static const enum rig_world worlds[] = {RIG_PLAIN, RIG_SHUFFLED, RIG_THREADED};
#define NR_WORLDS 3

static struct zqcow2_queue *begin(struct rig *r, const struct geometry *g, enum rig_world world)
{
    struct zqcow2_queue *q = NULL;

    ticket_begin();
    rig_begin_in(r, g, world, 7);
    assert_int_equal(zqcow2_queue_open(r->img, 8, &q), 0);
    return q;
}

static void end(struct rig *r, struct zqcow2_queue *q)
{
    assert_int_equal(called_outside, 0);
    assert_int_equal(zqcow2_queue_close(q), 0);
    rig_end(r);
}

static uint64_t empty_zones(struct rig *r)
{
    struct zqcow2_stats s = {.size = sizeof(s)};

    assert_int_equal(zqcow2_get_stats(r->img, &s), 0);
    return s.zones[ZQCOW2_ZONE_EMPTY];
}

/* All of them hold data, as far as a reset is concerned. In two calls: that is no "all". */
static void fill(struct rig *r)
{
    assert_int_equal(zqcow2_zone_finish(r->img, Z, Z, 0), 0);
    assert_int_equal(zqcow2_zone_finish(r->img, 2 * Z, (ZONES - 2) * Z, 0), 0);
    assert_int_equal(empty_zones(r), 0);
}

/* Where data is, unless a thread reads it, for which a busy machine may have no time; or a hole. */
static struct ticket *short_read(enum rig_world world, uint64_t data)
{
    return ticket(ZQCOW2_OP_READ, world == RIG_THREADED ? data + KiB(64) : data, UNIT, 0);
}

static bool readable(struct zqcow2_queue *q)
{
    struct pollfd p = {.fd = zqcow2_queue_fd(q), .events = POLLIN};

    return p.fd < 0 || poll(&p, 1, 0) == 1;
}

/* ---- requests for many zones ---- */

static void check_portion(struct rig *r, uint64_t *last, const char *call)
{
    uint64_t now = empty_zones(r);

    if (now - *last > MOST_ZONES)
        fail_msg("%s: one %s has reset %u zones, more than %u", r->g->name, call,
                 (unsigned)(now - *last), MOST_ZONES);
    *last = now;
}

/* Requests behind it end before it does, and the descriptor says that there is more to do. */
static void a_reset_of_all_zones(void **state)
{
    struct rig r;

    (void)state;
    for (int w = 0; w < NR_WORLDS; w++) {
        struct zqcow2_queue *q = begin(&r, &zoned, worlds[w]);
        struct ticket *all = ticket(ZQCOW2_OP_ZONE_RESET, 0, 0, 0);
        struct ticket *one = short_read(worlds[w], 0);
        uint64_t last = 0;
        unsigned calls = 1;

        all->req.length = zoned.size;
        assert_int_equal(rig_write(&r, 0, UNIT, 1), 0);
        fill(&r);
        (void)zqcow2_queue_fd(q);
        assert_int_equal(submit(q, all), 1);
        check_portion(&r, &last, "submit");
        assert_true(last > 0);
        assert_int_equal(submit(q, one), 1);
        check_portion(&r, &last, "submit");
        for (; !all->calls; calls++) {
            assert_true(RIG_JOINTS ? readable(q) : true);
            poll_queue(q, 0);
            check_portion(&r, &last, "poll");
        }
        wait_all(q);
        assert_true(one->calls == 1 && one->ret == 0 && all->calls == 1 && all->ret == 0);
        assert_true(one->order < all->order);
        assert_int_equal(last, ZONES - 1);
        assert_true(calls >= ZONES / MOST_ZONES);
        drop(all);
        drop(one);
        end(&r, q);
    }
}

/* One whose request it is not goes on with it; who has the request hears of it, and of its end. */
static void another_queue_goes_on(void **state)
{
    struct rig r;

    (void)state;
    if (!RIG_JOINTS)
        skip();
    for (int w = 0; w < NR_WORLDS; w++) {
        struct zqcow2_queue *q = begin(&r, &zoned, worlds[w]), *other;
        struct ticket *all = ticket(ZQCOW2_OP_ZONE_RESET, 0, 0, 0);
        uint64_t last = 0;

        all->req.length = zoned.size;
        fill(&r);
        assert_int_equal(zqcow2_queue_open(r.img, 8, &other), 0);
        assert_true(zqcow2_queue_fd(q) >= 0 && zqcow2_queue_fd(other) >= 0);
        assert_int_equal(submit(q, all), 1);
        check_portion(&r, &last, "submit");
        for (int i = 0; i < 3; i++) {
            assert_int_equal(poll_queue(other, 0), 0);
            assert_true(readable(q));
            check_portion(&r, &last, "poll of another");
        }
        assert_int_equal(zqcow2_queue_close(other), 0);
        assert_true(last > 2 * MOST_ZONES && readable(q));
        while (!all->calls && readable(q))
            poll_queue(q, 0);
        assert_int_equal(all->calls, 1);
        drop(all);
        end(&r, q);
    }
}

/* It does its own, and does not stay for work that another thread has heard of. */
static void a_blocking_call_comes_between(void **state)
{
    uint8_t buf[UNIT];
    struct rig r;

    (void)state;
    if (!RIG_JOINTS)
        skip();
    for (int w = 0; w < NR_WORLDS; w++) {
        struct zqcow2_queue *q = begin(&r, &zoned, worlds[w]);
        struct ticket *all = ticket(ZQCOW2_OP_ZONE_RESET, 0, 0, 0);

        all->req.length = zoned.size;
        fill(&r);
        assert_int_equal(rig_write(&r, 0, UNIT, 1), 0);
        (void)zqcow2_queue_fd(q);
        assert_int_equal(submit(q, all), 1);
        /* In a thread's world a hole, or it goes on with the reset until the thread has read. */
        assert_int_equal(zqcow2_read(r.img, buf, UNIT, worlds[w] == RIG_THREADED ? Z : 0), 0);
        assert_in_range(empty_zones(&r), 1, ZONES / 2);
        assert_true(readable(q));
        while (!all->calls && readable(q))
            poll_queue(q, 0);
        assert_int_equal(all->calls, 1);
        drop(all);
        end(&r, q);
    }
}

/* Zones that need nothing cost something, too. */
static void zones_are_passed_over(void **state)
{
    static const int ops[] = {ZQCOW2_OP_ZONE_RESET, ZQCOW2_OP_ZONE_OPEN, ZQCOW2_OP_ZONE_CLOSE,
                              ZQCOW2_OP_READ, ZQCOW2_OP_DRAIN};
    struct rig r;
    struct zqcow2_queue *q = begin(&r, &many, RIG_PLAIN);

    (void)state;
    for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        struct ticket *t = ticket(ops[i], 0, ops[i] == ZQCOW2_OP_READ ? UNIT : 0, 0);
        unsigned calls = 1;

        t->req.length = many.size;
        if (ops[i] == ZQCOW2_OP_READ)
            t->iov.iov_len = UNIT;
        assert_int_equal(submit(q, t), 1);
        for (; !t->calls; calls++)
            poll_queue(q, 0);
        assert_int_equal(t->ret, 0);
        /* Three portions, the first of which is the submit's. */
        if (ops[i] != ZQCOW2_OP_READ && calls <= 262144 / 100000)
            fail_msg("operation %d on 262144 zones: %u calls", ops[i], calls);
        drop(t);
    }
    end(&r, q);
}

/* ---- bytes ---- */

static void zeros_are_read(void **state)
{
    uint64_t bytes = MiB(64);
    struct rig r;

    (void)state;
    for (int w = 0; w < NR_WORLDS; w++) {
        struct zqcow2_queue *q = begin(&r, &holes, worlds[w]);
        struct ticket *t = ticket(ZQCOW2_OP_READ, 0, bytes, 0);
        struct ticket *one = short_read(worlds[w], MiB(128));
        uint64_t at = 0, last = 0;

        assert_int_equal(rig_write(&r, MiB(128), UNIT, 1), 0);
        memset(t->buf, 0xff, (size_t)bytes);
        assert_int_equal(submit(q, t), 1);
        assert_int_equal(submit(q, one), 1);
        do {
            poll_queue(q, 0);
            while (at < bytes && !t->buf[at])
                at += UNIT;
            if (at - last > (last ? MOST_ZEROS : 3 * MOST_ZEROS))
                fail_msg("world %d: %u KiB in one call", w, (unsigned)((at - last) >> 10));
            last = at;
        } while (!t->calls);
        wait_all(q);
        assert_true(at == bytes && t->ret == 0 && one->ret == 0 && one->order < t->order);
        for (at = 0; at < bytes; at++)
            if (t->buf[at])
                fail_msg("world %d: not zero at %u", w, (unsigned)at);
        drop(one);
        drop(t);
        end(&r, q);
    }
}

/* Each slice of L2 is looked at beforehand, and then changed. */
static void much_is_unmapped(void **state)
{
    static const int ops[] = {ZQCOW2_OP_DISCARD, ZQCOW2_OP_WRITE_ZEROES};
    struct rig r;

    (void)state;
    for (unsigned i = 0; i < 2 * NR_WORLDS; i++) {
        struct zqcow2_queue *q = begin(&r, &plain, worlds[i / 2]);
        struct ticket *t = ticket(ops[i % 2], 0, 0, 0), *one = short_read(worlds[i / 2], 0);
        unsigned calls = 1;

        t->req.length = plain.size;
        for (uint64_t at = 0; at < plain.size; at += SLICE)
            assert_int_equal(rig_write(&r, at, UNIT, 1), 0);
        assert_int_equal(submit(q, t), 1);
        assert_int_equal(submit(q, one), 1);
        for (; !t->calls; calls++)
            poll_queue(q, 0);
        wait_all(q);
        assert_true(t->ret == 0 && one->ret == 0 && one->order < t->order);
        if (calls < 2 * SLICES * 500 / 100000)
            fail_msg("operation %d on %u slices: %u calls", ops[i % 2], SLICES, calls);
        drop(one);
        drop(t);
        end(&r, q);
    }
}

/* ---- the passes of a round: what they look at is counted in between (-Wl,--wrap) ---- */

#define MILLION    1048576u
#define SECTOR     64u                  /* entries */
#define MOST_LOOKS (100000 + 2 * 4096u) /* a piece is begun if anything is left */

static const struct geometry million = {
    .name = "million", .size = MILLION * Z, .zone_size = Z, .conventional = 1, .cluster = 65536};
static uint64_t looks;

static void count(const struct zq_zones *zs, uint32_t from, uint32_t to)
{
    for (uint32_t s = from; s < to && s < zs->nr_sectors; s++)
        looks += zs->in_round[s] ? SECTOR : 0;
}

uint32_t __real_zq_table_compose(struct zq_zones *zs, enum zq_table_stage stage, uint32_t *sector,
                                 uint8_t *buf, uint32_t max, uint64_t *at, int32_t *left);
uint32_t __wrap_zq_table_compose(struct zq_zones *zs, enum zq_table_stage stage, uint32_t *sector,
                                 uint8_t *buf, uint32_t max, uint64_t *at, int32_t *left);

uint32_t __wrap_zq_table_compose(struct zq_zones *zs, enum zq_table_stage stage, uint32_t *sector,
                                 uint8_t *buf, uint32_t max, uint64_t *at, int32_t *left)
{
    uint32_t from = *sector;
    uint32_t n = __real_zq_table_compose(zs, stage, sector, buf, max, at, left);

    count(zs, from, *sector);
    return n;
}

#define PASS(name) \
    zq_table_pass __real_##name, __wrap_##name; \
    void __wrap_##name(struct zq_zones *zs, uint32_t from, int32_t *left) \
    { \
        count(zs, from, from + ZQ_TABLE_CHUNK); \
        __real_##name(zs, from, left); \
    }
PASS(zq_table_weigh)
PASS(zq_table_resets_durable)
PASS(zq_table_round_done)

/* A zone of each sector has changed: all entries of the table are looked at, several times. */
static void a_round_over_a_million_pointers(void **state)
{
    struct rig r;
    struct zqcow2_queue *q = begin(&r, &million, RIG_PLAIN);
    struct ticket *flush = ticket(ZQCOW2_OP_FLUSH, 0, 0, 0);
    uint64_t most = 0, all = 0;

    (void)state;
    for (uint64_t zone = 1; zone < MILLION; zone += SECTOR)
        assert_int_equal(zqcow2_zone_finish(r.img, zone * Z, Z, 0), 0);
    looks = 0;
    assert_int_equal(submit(q, flush), 1);
    for (;;) {
        most = looks > most ? looks : most;
        all += looks;
        looks = 0;
        if (flush->calls)
            break;
        poll_queue(q, 0);
    }
    assert_int_equal(flush->ret, 0);
    assert_true(all >= 4 * (uint64_t)MILLION);
    if (most > MOST_LOOKS)
        fail_msg("one call looks at %u write pointers", (unsigned)most);
    printf("round: %u write pointers, %u looks at one, 0 calls with more than %u (most: %u)\n",
           MILLION, (unsigned)(all / MILLION), MOST_LOOKS, (unsigned)most);
    drop(flush);
    end(&r, q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reset_of_all_zones),
        cmocka_unit_test(another_queue_goes_on),
        cmocka_unit_test(a_blocking_call_comes_between),
        cmocka_unit_test(zones_are_passed_over),
        cmocka_unit_test(zeros_are_read),
        cmocka_unit_test(much_is_unmapped),
        cmocka_unit_test(a_round_over_a_million_pointers),
    };

    return cmocka_run_group_tests_name("portions", tests, NULL, NULL);
}
