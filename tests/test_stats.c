/* SPDX-License-Identifier: MIT */
/*
 * Statistics, against a count of the test's own: random requests, blocking and in queues, good and
 * refused; flushes against those that the simulated disk has seen.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/simdisk.h>
#include <zqcow2/stats.h>
#include "rig/rng.h"

#define KiB(n) ((uint64_t)(n) << 10)
#define MiB(n) ((uint64_t)(n) << 20)
#define ZONE   MiB(1)
#define ZONES  8u
#define CONV   2u
#define KINDS  (ZQCOW2_OP_ZONE_GET_DESCRIPTORS + 1)

static uint8_t buf[MiB(2)];

struct expected {
    uint64_t requests, errors, bytes;
};

struct world {
    struct zqcow2_simdisk *disk;
    struct zqcow2_image *img;
    struct expected of[KINDS], of_queue[2][KINDS];
};

static struct zqcow2_backend *backend_of(struct zqcow2_simdisk *disk)
{
    struct zqcow2_backend *be;

    assert_int_equal(zqcow2_simdisk_backend(disk, &be), 0);
    return be;
}

static void begin(struct world *w, uint32_t flags, uint32_t zones)
{
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;

    memset(w, 0, sizeof(*w));
    d.flags = flags;
    assert_int_equal(zqcow2_simdisk_new(&d, &w->disk), 0);
    be = backend_of(w->disk);
    c.virtual_size = zones * ZONE;
    c.zone_size = ZONE;
    c.cluster_size = 4096;
    c.conventional_zones = CONV;
    c.max_open_zones = 2;
    assert_int_equal(zqcow2_create(be, &c, NULL), 0);
    zqcow2_backend_close(be);
    o.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_open(backend_of(w->disk), &o, &w->img, NULL), 0);
}

static void end(struct world *w)
{
    assert_int_equal(zqcow2_close(w->img), 0);
    zqcow2_simdisk_free(w->disk);
}

static uint64_t flushes(struct zqcow2_simdisk *disk)
{
    struct zqcow2_simdisk_counters n = ZQCOW2_SIMDISK_COUNTERS_INIT;

    assert_int_equal(zqcow2_simdisk_get_counters(disk, &n), 0);
    return n.calls[ZQCOW2_IO_FLUSH];
}

static struct zqcow2_stats stats_of(struct zqcow2_image *img)
{
    struct zqcow2_stats s = {.size = sizeof(s)};

    assert_int_equal(zqcow2_get_stats(img, &s), 0);
    assert_int_equal(s.size, sizeof(s));
    return s;
}

static void expect(const struct zqcow2_stats *s, const struct expected *e, uint64_t seed)
{
    for (unsigned k = 0; k < ZQCOW2_STATS_OPS; k++) {
        struct expected none = {0, 0, 0}, want = k < KINDS ? e[k] : none;

        if (s->op[k].requests != want.requests || s->op[k].errors != want.errors ||
            s->op[k].bytes != want.bytes)
            fail_msg("seed %" PRIu64 ", operation %u: %" PRIu64 " requests, %" PRIu64
                     " errors, %" PRIu64 " bytes; expected %" PRIu64 ", %" PRIu64 ", %" PRIu64,
                     seed, k, s->op[k].requests, s->op[k].errors, s->op[k].bytes, want.requests,
                     want.errors, want.bytes);
    }
}

/* ---- random requests ---- */

struct ask {
    struct zqcow2_request req;
    struct iovec iov;
    struct expected *to[2];
};

static void note(struct ask *a, int rc)
{
    bool buffers = a->req.op <= ZQCOW2_OP_APPEND;
    uint64_t length = buffers ? a->iov.iov_len : a->req.length;

    if (a->req.op == ZQCOW2_OP_FLUSH || a->req.op == ZQCOW2_OP_DRAIN ||
        a->req.op == ZQCOW2_OP_ZONE_SET_STATE)
        length = 0;
    for (unsigned i = 0; i < 2 && a->to[i]; i++) {
        struct expected *e = &a->to[i][a->req.op];

        e->requests++;
        e->errors += rc < 0;
        e->bytes += rc < 0 ? 0 : length;
    }
}

static void on_done(void *arg, const struct zqcow2_result *res)
{
    note(arg, res->ret);
}

/* Some of them misaligned, out of range, or not where the write pointer is. */
static void choose(struct ask *a, uint64_t *rng)
{
    static const uint16_t kinds[] = {
        ZQCOW2_OP_READ,         ZQCOW2_OP_WRITE,      ZQCOW2_OP_APPEND,
        ZQCOW2_OP_WRITE_ZEROES, ZQCOW2_OP_DISCARD,    ZQCOW2_OP_FLUSH,
        ZQCOW2_OP_DRAIN,        ZQCOW2_OP_ZONE_OPEN,  ZQCOW2_OP_ZONE_CLOSE,
        ZQCOW2_OP_ZONE_FINISH,  ZQCOW2_OP_ZONE_RESET, ZQCOW2_OP_ZONE_SET_STATE,
        ZQCOW2_OP_BLOCK_STATUS};
    uint64_t zone = rng_below(rng, ZONES + 1) * ZONE;
    struct zqcow2_request *r = &a->req;

    *a = (struct ask){.req = {.size = sizeof(*r)}};
    r->op = kinds[rng_below(rng, sizeof(kinds) / sizeof(*kinds))];
    a->iov = (struct iovec){buf, 512 * rng_below(rng, 16) + (rng_below(rng, 10) == 0)};
    r->iov = &a->iov;
    r->iovcnt = 1;
    r->offset = r->op == ZQCOW2_OP_APPEND || r->op >= ZQCOW2_OP_ZONE_OPEN ?
                    zone :
                    zone + 512 * rng_below(rng, 64);
    r->length = 512 * rng_below(rng, 16);
    if (r->op >= ZQCOW2_OP_ZONE_OPEN && r->op <= ZQCOW2_OP_ZONE_RESET)
        r->length = ZONE * rng_below(rng, 3);
    if (r->op == ZQCOW2_OP_ZONE_SET_STATE)
        r->length = rng_below(rng, 2) ? ZQCOW2_ZONE_EMPTY : 99;
    if (r->op == ZQCOW2_OP_BLOCK_STATUS) {
        static struct zqcow2_extent extent;

        extent = (struct zqcow2_extent)ZQCOW2_EXTENT_INIT;
        a->iov = (struct iovec){&extent, sizeof(extent)};
    }
    r->done = on_done;
    r->arg = a;
}

static void random_requests(struct world *w, uint64_t seed, unsigned n)
{
    struct zqcow2_queue *q[2];
    struct ask asks[8];
    uint64_t rng = seed;

    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(zqcow2_queue_open(w->img, 8, &q[i]), 0);
    for (unsigned i = 0; i < n; i++) {
        unsigned where = (unsigned)rng_below(&rng, 3), batch = 1 + (unsigned)rng_below(&rng, 8);

        for (unsigned k = 0; k < batch; k++) {
            choose(&asks[k], &rng);
            asks[k].to[0] = w->of;
            if (where == 2) {
                note(&asks[k], zqcow2_run(w->img, &asks[k].req, NULL));
                continue;
            }
            asks[k].to[1] = w->of_queue[where];
            assert_int_equal(zqcow2_queue_submit(q[where], &asks[k].req, 1), 1);
        }
        if (where < 2)
            assert_int_equal(zqcow2_queue_wait(q[where], batch, -1), batch);
    }
    for (unsigned i = 0; i < 2; i++) {
        struct zqcow2_stats s = {.size = sizeof(s)};

        assert_int_equal(zqcow2_queue_get_stats(q[i], &s), 0);
        expect(&s, w->of_queue[i], seed);
        assert_int_equal(zqcow2_queue_close(q[i]), 0);
    }
}

static void count_of_random_requests(void **state)
{
    uint64_t requests = 0, errors = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct zqcow2_stats s;
        struct world w;
        uint64_t before;

        begin(&w, seed % 2 ? ZQCOW2_SIMDISK_ASYNC : 0, ZONES);
        before = flushes(w.disk) - stats_of(w.img).flushes; /* of create and open */
        random_requests(&w, seed, 100);
        s = stats_of(w.img);
        expect(&s, w.of, seed); /* the queues are closed */
        assert_int_equal(s.flushes, flushes(w.disk) - before);
        assert_true(s.rounds > 0);
        for (unsigned k = 0; k < KINDS; k++) {
            requests += s.op[k].requests;
            errors += s.op[k].errors;
            assert_int_equal(s.op[k].nanoseconds, 0); /* nobody asked for it */
        }
        end(&w);
    }
    printf("statistics: 40 images, %" PRIu64 " requests, %" PRIu64 " refused, 0 miscounted\n",
           requests, errors);
}

/* ---- time ---- */

static uint64_t timed(const struct zqcow2_op_stats *s)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < ZQCOW2_STATS_BUCKETS; i++)
        n += s->latency[i];
    return n;
}

/* What the buckets say the sum of the times is, at least; and at most double. */
static void expect_sum(const struct zqcow2_op_stats *s)
{
    uint64_t least = 0;

    for (unsigned i = 0; i < ZQCOW2_STATS_BUCKETS; i++)
        least += s->latency[i] * (i ? (uint64_t)1 << i : 0);
    assert_in_range(s->nanoseconds, least, 2 * least + 2 * s->requests);
}

static void time_is_measured_on_request(void **state)
{
    struct iovec iov = {buf, 4096};
    struct zqcow2_request r = {.size = sizeof(r), .op = ZQCOW2_OP_WRITE, .iov = &iov, .iovcnt = 1};
    struct zqcow2_queue *q;
    struct zqcow2_stats s;
    struct world w;

    (void)state;
    begin(&w, ZQCOW2_SIMDISK_ASYNC, ZONES);
    assert_int_equal(zqcow2_queue_open(w.img, 4, &q), 0);
    for (unsigned i = 0; i < 30; i++) {
        if (i % 10 == 0)
            zqcow2_measure_time(w.img, i == 10);
        assert_int_equal(zqcow2_write(w.img, buf, 4096, i * 4096, 0), 0);
        r.offset = ZONE + i * 4096;
        assert_int_equal(zqcow2_queue_submit(q, &r, 1), 1);
        assert_int_equal(zqcow2_queue_wait(q, 1, -1), 1);
    }
    s = stats_of(w.img);
    assert_int_equal(s.op[ZQCOW2_OP_WRITE].requests, 60);
    assert_int_equal(timed(&s.op[ZQCOW2_OP_WRITE]), 20);
    expect_sum(&s.op[ZQCOW2_OP_WRITE]);
    assert_int_equal(zqcow2_queue_close(q), 0);
    end(&w);
}

/* A request that is submitted while time is measured, and completes when it no longer is. */
static void time_of_what_is_under_way(void **state)
{
    struct iovec iov = {buf, 4096};
    struct zqcow2_request r = {.size = sizeof(r), .op = ZQCOW2_OP_WRITE, .iov = &iov, .iovcnt = 1};
    struct zqcow2_queue *q;
    struct zqcow2_stats s;
    struct world w;

    (void)state;
    begin(&w, ZQCOW2_SIMDISK_ASYNC, ZONES);
    assert_int_equal(zqcow2_queue_open(w.img, 4, &q), 0);
    zqcow2_measure_time(w.img, true);
    assert_int_equal(zqcow2_queue_submit(q, &r, 1), 1);
    zqcow2_measure_time(w.img, false);
    assert_int_equal(zqcow2_queue_wait(q, 1, -1), 1);
    s = stats_of(w.img);
    assert_int_equal(timed(&s.op[ZQCOW2_OP_WRITE]), 1);
    assert_int_equal(zqcow2_queue_close(q), 0);
    end(&w);
}

/* ---- what the library does ---- */

static void implicit_closes_and_states(void **state)
{
    struct zqcow2_stats s;
    struct world w;

    (void)state;
    begin(&w, 0, ZONES);
    for (unsigned i = CONV; i < ZONES; i++) /* two may be open */
        assert_int_equal(zqcow2_write(w.img, buf, 4096, i * ZONE, 0), 0);
    assert_int_equal(zqcow2_zone_finish(w.img, (ZONES - 1) * ZONE, ZONE, 0), 0);
    s = stats_of(w.img);
    assert_int_equal(s.implicit_closes, ZONES - CONV - 2);
    assert_int_equal(s.zones[ZQCOW2_ZONE_NOT_WP], CONV);
    assert_int_equal(s.zones[ZQCOW2_ZONE_IMP_OPEN], 1);
    assert_int_equal(s.zones[ZQCOW2_ZONE_CLOSED], ZONES - CONV - 2);
    assert_int_equal(s.zones[ZQCOW2_ZONE_FULL], 1);
    assert_int_equal(zqcow2_zone_set_state(w.img, CONV * ZONE, ZQCOW2_ZONE_OFFLINE), 0);
    s = stats_of(w.img);
    assert_int_equal(s.zones[ZQCOW2_ZONE_OFFLINE], 1);
    assert_int_equal(s.zones[ZQCOW2_ZONE_CLOSED], ZONES - CONV - 3);
    assert_int_equal(zqcow2_zone_set_state(w.img, CONV * ZONE, ZQCOW2_ZONE_OFFLINE), 0);
    s = stats_of(w.img);
    assert_int_equal(s.zones[ZQCOW2_ZONE_OFFLINE], 0);
    assert_int_equal(s.zones[ZQCOW2_ZONE_CLOSED], ZONES - CONV - 2);
    end(&w);
}

/* The same at once, however many there are. */
static void many_zones(void **state)
{
    struct zqcow2_stats s;
    struct world w;

    (void)state;
    begin(&w, 0, 10000);
    assert_int_equal(zqcow2_write(w.img, buf, 4096, 9999 * ZONE, 0), 0);
    s = stats_of(w.img);
    assert_int_equal(s.zones[ZQCOW2_ZONE_NOT_WP], CONV);
    assert_int_equal(s.zones[ZQCOW2_ZONE_EMPTY], 10000 - CONV - 1);
    assert_int_equal(s.zones[ZQCOW2_ZONE_IMP_OPEN], 1);
    end(&w);
}

static void look_ups(void **state)
{
    struct zqcow2_stats before, s;
    struct world w;

    (void)state;
    begin(&w, 0, ZONES);
    assert_int_equal(zqcow2_write(w.img, buf, 4096, 0, 0), 0);
    assert_int_equal(zqcow2_flush(w.img), 0);
    assert_int_equal(zqcow2_close(w.img), 0);
    assert_int_equal(zqcow2_open(backend_of(w.disk), NULL, &w.img, NULL), 0);
    before = stats_of(w.img);
    assert_int_equal(zqcow2_read(w.img, buf, 4096, 0), 0);
    s = stats_of(w.img);
    assert_int_equal(s.cache_loads, before.cache_loads + 1);
    assert_int_equal(zqcow2_read(w.img, buf, 4096, 0), 0);
    assert_int_equal(stats_of(w.img).cache_loads, s.cache_loads);
    assert_true(stats_of(w.img).cache_hits > s.cache_hits);
    end(&w);
}

/* Of no kind: it is in no count. */
static void unknown_operations(void **state)
{
    struct zqcow2_request r = {.size = sizeof(r), .op = KINDS};
    struct zqcow2_result res = {.ret = 1};
    struct expected none[KINDS] = {{0, 0, 0}};
    struct zqcow2_stats s;
    struct world w;

    (void)state;
    begin(&w, 0, ZONES);
    assert_int_equal(zqcow2_run(w.img, &r, &res), -EINVAL);
    r.op = UINT16_MAX;
    assert_int_equal(zqcow2_run(w.img, &r, &res), -EINVAL);
    assert_int_equal(res.ret, 1);
    s = stats_of(w.img);
    expect(&s, none, 0);
    end(&w);
}

static void the_size_decides(void **state)
{
    struct zqcow2_stats s = {.size = 16};
    struct world w;

    (void)state;
    begin(&w, 0, ZONES);
    assert_int_equal(zqcow2_get_stats(w.img, &s), -EINVAL);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(count_of_random_requests),
        cmocka_unit_test(time_is_measured_on_request),
        cmocka_unit_test(time_of_what_is_under_way),
        cmocka_unit_test(implicit_closes_and_states),
        cmocka_unit_test(many_zones),
        cmocka_unit_test(look_ups),
        cmocka_unit_test(unknown_operations),
        cmocka_unit_test(the_size_decides),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
