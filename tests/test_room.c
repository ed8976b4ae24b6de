/* SPDX-License-Identifier: MIT */
/*
 * A host of fixed size (R4): who would get ENOSPC first gets what a discard, a reset or an idle
 * zone has given up, without a flush by the caller. The oracle asks again: what fails for space
 * still does behind a drain, which makes everything that was given up usable.
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
#include <zqcow2/queue.h>
#include <zqcow2/simdisk.h>
#include "rig/rig.h"

#define CLUSTER 4096u
#define PIECE   KiB(64)

static uint8_t buf[MiB(1)], got[MiB(1)];

struct host {
    struct zqcow2_simdisk *disk;
    struct zqcow2_image *img;
};

struct shape {
    uint64_t zone; /* 0: a plain image */
    uint64_t room; /* beside what create takes */
    uint32_t flags, extent;
    uint64_t seed, cache; /* cache in bytes; 0: the default */
};

static struct zqcow2_simdisk *new_disk(const struct shape *s, uint64_t max_length)
{
    struct zqcow2_simdisk_options o = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_simdisk *disk;

    o.seed = s->seed;
    o.flags = s->flags;
    o.max_length = max_length;
    assert_int_equal(zqcow2_simdisk_new(&o, &disk), 0);
    return disk;
}

static struct zqcow2_backend *backend_of(struct zqcow2_simdisk *disk)
{
    struct zqcow2_backend *be;

    assert_int_equal(zqcow2_simdisk_backend(disk, &be), 0);
    return be;
}

static uint64_t create_on(struct zqcow2_simdisk *disk, uint64_t zone)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be = backend_of(disk);

    c.virtual_size = MiB(16);
    c.zone_size = zone;
    c.cluster_size = CLUSTER;
    c.refcount_bits = 16;
    assert_int_equal(zqcow2_create(be, &c, NULL), 0);
    zqcow2_backend_close(be);
    return zqcow2_simdisk_length(disk);
}

static struct host begin(const struct shape *s)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_simdisk *probe = new_disk(s, 0);
    uint64_t made = create_on(probe, s->zone);
    struct host h;

    zqcow2_simdisk_free(probe);
    h.disk = new_disk(s, made + s->room);
    create_on(h.disk, s->zone);
    o.flags = ZQCOW2_OPEN_RDWR;
    o.extent_bytes = s->extent;
    o.cache_bytes = s->cache;
    assert_int_equal(zqcow2_open(backend_of(h.disk), &o, &h.img, NULL), 0);
    return h;
}

static void end(struct host *h)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;

    assert_int_equal(zqcow2_close(h->img), 0);
    be = backend_of(h->disk);
    assert_int_equal(zqcow2_check(be, NULL, &res, NULL), 0);
    assert_int_equal(res.corruptions + res.leaked_clusters, 0);
    zqcow2_backend_close(be);
    zqcow2_simdisk_free(h->disk);
}

static uint64_t calls(const struct host *h, unsigned kind)
{
    struct zqcow2_simdisk_counters n = ZQCOW2_SIMDISK_COUNTERS_INIT;

    assert_int_equal(zqcow2_simdisk_get_counters(h->disk, &n), 0);
    return n.calls[kind];
}

/* Bytes from `at` on that there was room for, in pieces. */
static uint64_t fill(struct host *h, uint64_t at, uint64_t end_at, uint64_t piece)
{
    uint64_t from = at;
    int rc = 0;

    for (; rc == 0 && at < end_at; at += rc == 0 ? piece : 0)
        rc = zqcow2_write(h->img, buf, piece, at, 0);
    assert_true(rc == 0 || rc == -ENOSPC);
    return at - from;
}

/* ---- one story for each way to give space up ---- */

static const uint32_t ways[] = {0, ZQCOW2_SIMDISK_ASYNC};

/* The L2 tables of all that is written are there before the host is full. */
static void a_discard_makes_room(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        struct shape s = {0, MiB(1), ways[k], 0, k, 0};
        struct host h = begin(&s);
        uint64_t n;

        assert_int_equal(zqcow2_write(h.img, buf, CLUSTER, MiB(8), 0), 0);
        n = fill(&h, 0, MiB(2), PIECE) + fill(&h, MiB(1), MiB(2), CLUSTER);
        assert_true(n > KiB(800));
        assert_int_equal(zqcow2_discard(h.img, KiB(512), 0, 0), 0);
        memset(buf, 7, KiB(512));
        assert_int_equal(zqcow2_write(h.img, buf, KiB(512), MiB(8) + KiB(4), 0), 0);
        assert_int_equal(zqcow2_read(h.img, got, KiB(512), MiB(8) + KiB(4)), 0);
        assert_memory_equal(got, buf, KiB(512));
        end(&h);
    }
}

static void a_reset_makes_room(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        struct shape s = {MiB(1), MiB(2), ways[k], KiB(4), k, 0};
        struct host h = begin(&s);
        uint64_t n = 0;

        for (uint64_t zone = 0; zone < MiB(4); zone += MiB(1))
            n += fill(&h, zone, zone + MiB(1), CLUSTER);
        assert_true(n > MiB(1) && n < MiB(2));
        assert_int_equal(zqcow2_zone_reset(h.img, 0, MiB(1), 0), 0);
        assert_int_equal(fill(&h, MiB(8), MiB(9), PIECE), KiB(960)); /* L2 tables, too */
        assert_int_equal(zqcow2_read(h.img, got, MiB(1), 0), 0);
        assert_int_equal(got[0] | memcmp(got, got + 1, MiB(1) - 1), 0);
        end(&h);
    }
}

/* A zone that has little data, and a run of its own for more. */
static void an_idle_zone_makes_room(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        struct shape s = {MiB(1), MiB(1) + KiB(64), ways[k], MiB(1), k, 0};
        struct host h = begin(&s);
        uint64_t at = MiB(1);

        assert_int_equal(zqcow2_write(h.img, buf, CLUSTER, 0, 0), 0);
        assert_int_equal(zqcow2_write(h.img, buf, KiB(960), at, 0), 0);
        assert_int_equal(zqcow2_write(h.img, buf, CLUSTER, CLUSTER, 0), 0);
        end(&h);
    }
}

/*
 * Where room is short, a zone maps no more than it writes: what two have mapped ahead they would
 * take from one another again and again, each time at the price of a round.
 */
static void none_maps_ahead(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        struct shape s = {MiB(1), MiB(1), ways[k], KiB(64), k, 0};
        struct host h = begin(&s);
        uint64_t given, flushes;

        for (uint64_t zone = 0; zone < MiB(2); zone += MiB(1))
            assert_int_equal(zqcow2_write(h.img, buf, CLUSTER, zone, 0), 0);
        given = fill(&h, MiB(2), MiB(3), CLUSTER);
        assert_true(given > KiB(512) && given < MiB(1));
        assert_int_equal(zqcow2_zone_reset(h.img, MiB(2), MiB(1), 0), 0);
        assert_int_equal(zqcow2_drain(h.img), 0);
        flushes = calls(&h, ZQCOW2_IO_FLUSH);
        for (uint64_t at = CLUSTER; at <= given / 2; at += CLUSTER) {
            assert_int_equal(zqcow2_write(h.img, buf, CLUSTER, at, 0), 0);
            assert_int_equal(zqcow2_write(h.img, buf, CLUSTER, MiB(1) + at, 0), 0);
        }
        assert_int_equal(calls(&h, ZQCOW2_IO_FLUSH), flushes);
        end(&h);
    }
}

/* ---- when nothing is left ---- */

struct flight {
    struct iovec v;
    int ret;
};

static void note(void *arg, const struct zqcow2_result *r)
{
    ((struct flight *)arg)->ret = r->ret;
}

/* n writes at once, each of len bytes: how many succeed. */
static unsigned crowd(struct host *h, unsigned n, uint64_t at, uint64_t stride, uint64_t len)
{
    struct zqcow2_queue *q;
    struct flight f[64];
    unsigned good = 0;

    assert_true(n <= 64);
    assert_int_equal(zqcow2_queue_open(h->img, 64, &q), 0);
    for (unsigned i = 0; i < n; i++) {
        struct zqcow2_request r = {.size = sizeof(r),
                                   .op = ZQCOW2_OP_WRITE,
                                   .offset = at + i * stride,
                                   .iov = &f[i].v,
                                   .iovcnt = 1,
                                   .done = note,
                                   .arg = &f[i]};

        f[i] = (struct flight){{buf, len}, 1};
        assert_int_equal(zqcow2_queue_submit(q, &r, 1), 1);
    }
    while (zqcow2_queue_pending(q))
        assert_true(zqcow2_queue_wait(q, 1, 20000) > 0);
    assert_int_equal(zqcow2_queue_close(q), 0);
    for (unsigned i = 0; i < n; i++) {
        assert_true(f[i].ret == 0 || f[i].ret == -ENOSPC);
        good += f[i].ret == 0;
    }
    return good;
}

/* No matter how many ask: each gets its answer, and asks little of the host. */
static void full_is_full(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 4; k++) {
        struct shape s = {k & 2 ? MiB(1) : 0, KiB(256), ways[k & 1], KiB(4), k, 0};
        struct host h = begin(&s);
        uint64_t flushes, lengths;

        for (uint64_t at = 0; at < MiB(16); at += MiB(1))
            fill(&h, at, at + MiB(1), CLUSTER);
        assert_int_equal(zqcow2_drain(h.img), 0);
        flushes = calls(&h, ZQCOW2_IO_FLUSH);
        lengths = calls(&h, ZQCOW2_IO_TRUNCATE);
        assert_int_equal(crowd(&h, 14, MiB(1), MiB(1), CLUSTER), 0);
        if (calls(&h, ZQCOW2_IO_FLUSH) != flushes ||
            calls(&h, ZQCOW2_IO_TRUNCATE) > lengths + 3 * 14)
            fail_msg("shape %u: %" PRIu64 " flushes, %" PRIu64 " lengths for nothing", k,
                     calls(&h, ZQCOW2_IO_FLUSH) - flushes, calls(&h, ZQCOW2_IO_TRUNCATE) - lengths);
        end(&h);
    }
}

/*
 * Each needs two clusters, of two tables, and may have one when the last is gone: then it waits for
 * what others have. They fail one by one, and what they had serves the rest. With room for `pairs`
 * as many succeed. The smallest cache lets them take turns.
 */
static void rivals_share(void **state)
{
    unsigned runs = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++, runs++) {
        struct shape s = {0, KiB(512), ZQCOW2_SIMDISK_ASYNC, 0, seed, 1};
        struct host h = begin(&s);
        unsigned pairs = 1 + (unsigned)seed % 5, good;
        uint64_t n;

        for (uint64_t i = 0; i < 8; i++) /* the tables, of 2 MiB each */
            assert_int_equal(zqcow2_write(h.img, buf, CLUSTER, i * MiB(2) + MiB(1), 0), 0);
        n = fill(&h, 0, MiB(1), CLUSTER);
        assert_true(n > KiB(256));
        for (unsigned i = 0; i < 2 * pairs; i++) /* scattered: runs of one */
            assert_int_equal(zqcow2_discard(h.img, CLUSTER, i * 8192, 0), 0);
        good = crowd(&h, 7, MiB(2) - CLUSTER, MiB(2), 2 * CLUSTER);
        if (good != pairs)
            fail_msg("seed %" PRIu64 ": room for %u writes, and %u succeed", seed, pairs, good);
        end(&h);
    }
    printf("rivals: %u crowds, each used all the room\n", runs);
}

/* The round that would make room finds none for itself, or its barrier fails. */
static void the_round_fails(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 4; k++) {
        struct shape s = {0, KiB(512), ways[k & 1], 0, k, 0};
        struct zqcow2_simdisk_fault f = ZQCOW2_SIMDISK_FAULT_INIT;
        struct host h = begin(&s);
        bool dies = k & 2;

        fill(&h, 0, MiB(1), CLUSTER);
        assert_int_equal(zqcow2_discard(h.img, KiB(64), 0, 0), 0);
        f.kinds = 1u << (dies ? ZQCOW2_IO_FLUSH : ZQCOW2_IO_WRITE);
        f.error = dies ? -EIO : -ENOSPC;
        assert_int_equal(zqcow2_simdisk_set_fault(h.disk, &f), 0);
        assert_int_equal(zqcow2_write(h.img, buf, CLUSTER, MiB(1), 0),
                         dies ? ZQCOW2_EDEAD : -ENOSPC);
        if (dies) {
            assert_int_equal(zqcow2_close(h.img), ZQCOW2_EDEAD);
            zqcow2_simdisk_free(h.disk);
            continue;
        }
        assert_int_equal(zqcow2_write(h.img, buf, CLUSTER, MiB(1), 0), 0);
        end(&h);
    }
}

/* ---- anything, in any order ---- */

static void give_up(struct host *h, uint64_t *g, bool zoned)
{
    uint64_t zone = rng_below(g, 8) * MiB(1), at = rng_below(g, 240) * CLUSTER;

    if (zoned)
        assert_int_equal(zqcow2_zone_reset(h->img, zone, MiB(1), 0), 0);
    else
        assert_int_equal(zqcow2_discard(h->img, (1 + rng_below(g, 32)) * CLUSTER, zone + at, 0), 0);
}

static int write_some(struct host *h, bool zoned, uint64_t zone, uint64_t at, uint64_t len)
{
    return zoned ? zqcow2_append(h->img, buf, len, &zone, 0) :
                   zqcow2_write(h->img, buf, len, zone + at, 0);
}

/* True if it failed for space; then it is asked again. */
static bool one_step(struct host *h, uint64_t *g, bool zoned, uint64_t seed, unsigned step)
{
    uint64_t zone = rng_below(g, 8) * MiB(1), at = rng_below(g, 220) * CLUSTER;
    uint64_t len = (1 + rng_below(g, 24)) * CLUSTER;
    int rc;

    if (rng_below(g, 6) == 0) {
        give_up(h, g, zoned);
        return false;
    }
    rc = write_some(h, zoned, zone, at, len);
    if (rc != -ENOSPC) {
        if (rc && rc != ZQCOW2_EZONE_FULL && rc != ZQCOW2_EZONE_BOUNDARY)
            fail_msg("seed %" PRIu64 ", step %u: %d", seed, step, rc);
        return false;
    }
    assert_int_equal(zqcow2_drain(h->img), 0);
    rc = write_some(h, zoned, zone, at, len);
    if (rc != -ENOSPC)
        fail_msg("seed %" PRIu64 ", step %u: ENOSPC, and behind a drain %d", seed, step, rc);
    return true;
}

static void only_when_nothing_is_left(void **state)
{
    unsigned failed = 0, runs = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++, runs++) {
        struct shape s = {seed & 1 ? MiB(1) : 0,       MiB(1), ways[seed >> 1 & 1],
                          seed & 4 ? KiB(64) : KiB(4), seed,   0};
        struct host h = begin(&s);
        uint64_t g = seed;

        for (unsigned i = 0; i < 120; i++)
            failed += one_step(&h, &g, seed & 1, seed, i);
        end(&h);
    }
    assert_true(failed > 100);
    printf("asked again: %u full hosts, %u requests without space, 0 of them wrongly\n", runs,
           failed);
}

/* Many at once, also with the smallest cache, where who waits must hold nothing: all get an answer.
 */
static void send_one(struct zqcow2_queue *q, uint64_t *g, bool zoned, struct flight *f)
{
    uint64_t zone = rng_below(g, 8) * MiB(1), at = rng_below(g, 240) * CLUSTER;
    struct zqcow2_request r = {.size = sizeof(r),
                               .op = zoned ? ZQCOW2_OP_APPEND : ZQCOW2_OP_WRITE,
                               .offset = zone + (zoned ? 0 : at),
                               .iov = &f->v,
                               .iovcnt = 1,
                               .done = note,
                               .arg = f};

    *f = (struct flight){{buf, (1 + rng_below(g, 16)) * CLUSTER}, 1};
    r.length = f->v.iov_len;
    if (rng_below(g, 5) == 0) {
        r.op = zoned ? ZQCOW2_OP_ZONE_RESET : ZQCOW2_OP_DISCARD;
        r.offset = zone + (zoned ? 0 : at);
        r.length = zoned ? MiB(1) : r.length;
    }
    assert_int_equal(zqcow2_queue_submit(q, &r, 1), 1);
}

/* How many of them found no space. */
static unsigned one_crowd(struct host *h, uint64_t *g, bool zoned, uint64_t seed)
{
    struct zqcow2_queue *q;
    struct flight f[16];
    unsigned full = 0;

    assert_int_equal(zqcow2_queue_open(h->img, 16, &q), 0);
    for (unsigned i = 0; i < 16; i++)
        send_one(q, g, zoned, &f[i]);
    while (zqcow2_queue_pending(q)) {
        if (zqcow2_queue_wait(q, 1, 60000) <= 0)
            fail_msg("seed %" PRIu64 ": %u requests get no answer", seed, zqcow2_queue_pending(q));
    }
    assert_int_equal(zqcow2_queue_close(q), 0);
    for (unsigned i = 0; i < 16; i++)
        full += f[i].ret == -ENOSPC;
    return full;
}

static void crowds_end(void **state)
{
    unsigned full = 0, runs = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 24; seed++, runs++) {
        struct shape s = {seed & 1 ? MiB(1) : 0, MiB(1), ZQCOW2_SIMDISK_ASYNC, KiB(64), seed,
                          seed & 2 ? 1 : 0};
        struct host h = begin(&s);
        uint64_t g = seed;

        for (unsigned i = 0; i < 20; i++)
            full += one_crowd(&h, &g, seed & 1, seed);
        end(&h);
    }
    assert_true(full > 100);
    printf("crowds: %u full hosts, %u requests without space, 0 without an answer\n", runs, full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_discard_makes_room),
        cmocka_unit_test(a_reset_makes_room),
        cmocka_unit_test(an_idle_zone_makes_room),
        cmocka_unit_test(none_maps_ahead),
        cmocka_unit_test(full_is_full),
        cmocka_unit_test(rivals_share),
        cmocka_unit_test(the_round_fails),
        cmocka_unit_test(only_when_nothing_is_left),
        cmocka_unit_test(crowds_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
