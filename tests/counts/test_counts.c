/* SPDX-License-Identifier: MIT */
/* Exact figures: host calls, flushes, bytes of metadata, allocations and heap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/queue.h>
#include "counts/tally.h"

#define KiB(n) ((uint64_t)(n) << 10)
#define MiB(n) ((uint64_t)(n) << 20)
#define GiB(n) ((uint64_t)(n) << 30)

static uint8_t buf[MiB(1)];

static struct zqcow2_create_options shape(uint64_t size, uint64_t zone, uint32_t active)
{
    return (struct zqcow2_create_options){.size = sizeof(struct zqcow2_create_options),
                                          .virtual_size = size,
                                          .zone_size = zone,
                                          .max_active_zones = active};
}

static void begin(struct tally *t, struct zqcow2_create_options o)
{
    tally_init(t);
    tally_create(t, &o);
    tally_open(t, NULL);
}

static void end(struct tally *t)
{
    tally_close(t);
    tally_free(t);
}

static void append(struct tally *t, uint64_t zone, size_t len)
{
    assert_int_equal(zqcow2_append(t->img, buf, len, &zone, 0), 0);
}

static void flush(struct tally *t)
{
    assert_int_equal(zqcow2_flush(t->img), 0);
}

/* ---- calls ---- */

static void append_is_one_write(void **state)
{
    static const size_t lengths[] = {512, 4096, 65536, MiB(1)};
    struct tally t;

    (void)state;
    begin(&t, shape(MiB(256), MiB(64), 0));
    append(&t, 0, 4096);
    for (unsigned k = 0; k < 4; k++) {
        for (unsigned i = 0; i < 8; i++) {
            tally_reset(&t);
            append(&t, 0, lengths[k]);
            tally_expect(&t, 1, 0);
            assert_int_equal(t.bytes[ZQCOW2_IO_WRITE], lengths[k]);
        }
    }
    end(&t);
}

static void read_is_one_read(void **state)
{
    struct tally t;

    (void)state;
    begin(&t, shape(MiB(256), MiB(64), 0));
    for (unsigned i = 0; i < 8; i++)
        append(&t, 0, MiB(1));
    tally_reset(&t);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(zqcow2_read(t.img, buf, 4096, i * 7919 % 2048 * 4096), 0);
    assert_int_equal(t.calls[ZQCOW2_IO_READ], 100);
    assert_int_equal(tally_calls(&t), 100);
    end(&t);
}

/* Steady state 2, after new extents 3: the two figures of a flush. */
static void flushes_of_a_flush(void **state)
{
    struct tally t;

    (void)state;
    begin(&t, shape(MiB(256), MiB(64), 0));
    append(&t, 0, 4096);
    flush(&t); /* the mark that the image is in use, too */
    for (unsigned i = 0; i < 4; i++) {
        append(&t, 0, 4096);
        tally_reset(&t);
        flush(&t);
        tally_expect(&t, 1, 2); /* the pointer's sector */
    }
    append(&t, MiB(64), 4096); /* another zone: new extents */
    tally_reset(&t);
    flush(&t);
    assert_int_equal(t.calls[ZQCOW2_IO_FLUSH], 3);
    tally_reset(&t);
    flush(&t);
    tally_expect(&t, 0, 0); /* nothing to make durable */
    end(&t);
}

/* One more for a new refcount block: with clusters of 4 KiB it covers 8 MiB of the file. */
static void flushes_with_a_new_refcount_block(void **state)
{
    struct zqcow2_create_options o = shape(MiB(64), MiB(4), 0);
    struct tally t;
    unsigned seen[8] = {0};

    (void)state;
    o.cluster_size = 4096;
    begin(&t, o);
    append(&t, 0, 4096);
    flush(&t);
    for (unsigned zone = 1; zone < 12; zone++) {
        append(&t, MiB(4) * zone, 4096);
        tally_reset(&t);
        flush(&t);
        assert_true(t.calls[ZQCOW2_IO_FLUSH] < 8);
        seen[t.calls[ZQCOW2_IO_FLUSH]]++;
    }
    assert_int_equal(seen[3] + seen[4], 11);
    assert_int_equal(seen[4], 2); /* each zone takes 2 MiB, what an L2 table maps */
    end(&t);
}

/* One more where a zone that became FULL has to precede one that becomes active (I7). */
static void flushes_with_a_full_zone_first(void **state)
{
    struct tally t;

    (void)state;
    begin(&t, shape(MiB(8), MiB(1), 1));
    append(&t, MiB(1), 4096); /* its clusters are there before, so that only pointers change */
    assert_int_equal(zqcow2_zone_reset(t.img, MiB(1), MiB(1), 0), 0);
    append(&t, 0, MiB(1) - 4096);
    flush(&t);
    append(&t, 0, 4096);
    append(&t, MiB(1), 4096);
    tally_reset(&t);
    flush(&t);
    tally_expect(&t, 2, 3);
    end(&t);
}

static void metadata_of_a_gibibyte(void **state)
{
    struct tally t;
    uint64_t meta;

    (void)state;
    begin(&t, shape(GiB(2), MiB(256), 0));
    t.forget = MiB(1);
    append(&t, GiB(1), 4096); /* so that the mark is set */
    flush(&t);
    tally_reset(&t);
    for (uint64_t at = 0; at < GiB(1); at += MiB(1))
        append(&t, at / MiB(256) * MiB(256), MiB(1));
    flush(&t);
    meta = t.bytes[ZQCOW2_IO_WRITE] - t.data;
    printf("metadata of 1 GiB appended: %llu bytes\n", (unsigned long long)meta);
    assert_int_equal(t.data, GiB(1));
    assert_in_range(meta, 1, KiB(256));
    end(&t);
}

static void reset_of_a_full_zone(void **state)
{
    struct tally t;

    (void)state;
    begin(&t, shape(GiB(1), MiB(256), 0));
    t.forget = MiB(1);
    for (uint64_t at = 0; at < MiB(256); at += MiB(1))
        append(&t, 0, MiB(1));
    flush(&t);
    tally_reset(&t);
    assert_int_equal(zqcow2_zone_reset(t.img, 0, MiB(256), 0), 0);
    flush(&t);
    printf("reset of 256 MiB with its flush: %llu host calls\n",
           (unsigned long long)tally_calls(&t));
    assert_int_equal(t.calls[ZQCOW2_IO_DISCARD], 1); /* the space goes back: it lies in one piece */
    assert_int_equal(tally_calls(&t), 3);
    end(&t);
}

/*
 * The cache keeps what is used: one slice of L2 is read in turn with more others than have room.
 * With clusters of 64 KiB a slice of 4 KiB maps 32 MiB.
 */
static void cache_keeps_what_is_used(void **state)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_create_options c = shape(GiB(1), 0, 0);
    struct tally t;

    (void)state;
    tally_init(&t);
    tally_create(&t, &c);
    tally_open(&t, NULL);
    for (uint64_t at = 0; at < GiB(1); at += MiB(32))
        assert_int_equal(zqcow2_write(t.img, buf, 4096, at, 0), 0);
    tally_close(&t);
    o.cache_bytes = KiB(32); /* 8 slices */
    tally_open(&t, &o);
    assert_int_equal(zqcow2_read(t.img, buf, 4096, 0), 0);
    tally_reset(&t);
    for (uint64_t i = 0; i < 93; i++) {
        assert_int_equal(zqcow2_read(t.img, buf, 4096, MiB(32) * (1 + i % 31)), 0);
        assert_int_equal(zqcow2_read(t.img, buf, 4096, 0), 0);
    }
    assert_int_equal(t.calls[ZQCOW2_IO_READ], 2 * 93 + 93); /* data; slices of the others */
    end(&t);
}

/* A zone's run begins where the host's pages and blocks do, whatever lies in front of it. */
static void runs_are_aligned(void **state)
{
    struct tally t;

    (void)state;
    begin(&t, shape(MiB(256), MiB(64), 0));
    for (unsigned zone = 0; zone < 4; zone++)
        append(&t, zone * MiB(64), 4096);
    tally_reset(&t);
    for (unsigned zone = 0; zone < 4; zone++) {
        assert_int_equal(zqcow2_read(t.img, buf, 4096, zone * MiB(64)), 0);
        assert_int_equal(t.read[zone].off % MiB(2), 0);
    }
    end(&t);
}

static uint64_t close_and_find_end(struct tally *t)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;

    tally_close(t);
    be = tally_backend(t);
    assert_int_equal(zqcow2_check(be, NULL, &res, NULL), 0);
    zqcow2_backend_close(be);
    return res.image_end_offset;
}

/*
 * Odd sizes leave clusters out in front of each run: a sixteenth of the file, and a little. The
 * file itself is longer than it need be by as much at most.
 */
static void alignment_leaves_little_out(void **state)
{
    static const unsigned clusters[] = {3, 5, 17, 33};
    struct tally t;

    (void)state;
    for (unsigned k = 0; k < 4; k++) {
        uint64_t len = clusters[k] * KiB(64), at = 0, used;
        uint8_t *data = calloc(1, len);

        begin(&t, shape(GiB(1), 0, 0));
        t.forget = KiB(128);
        for (; at + len <= MiB(400); at += len)
            assert_int_equal(zqcow2_write(t.img, data, len, at, 0), 0);
        used = close_and_find_end(&t);
        assert_in_range(used, at, at + at / 16 + MiB(6));
        assert_in_range(t.store.length, used, used + used / 16 + MiB(1));
        tally_free(&t);
        free(data);
    }
}

/* ---- memory ---- */

static unsigned answered;

static void done(void *arg, const struct zqcow2_result *res)
{
    (void)arg;
    answered += res->ret == 0;
}

static void queue_round(struct tally *t, struct zqcow2_queue *q, unsigned op)
{
    struct iovec iov = {buf, 4096};
    struct zqcow2_request req[16];

    for (unsigned i = 0; i < 16; i++) {
        req[i] = (struct zqcow2_request){.size = sizeof(req[i]), .op = (uint16_t)op, .done = done};
        req[i].offset = i % 4 * MiB(64);
        req[i].iov = &iov, req[i].iovcnt = 1;
    }
    answered = 0;
    assert_int_equal(zqcow2_queue_submit(q, req, 16), 16);
    zqcow2_queue_wait(q, 16, -1);
    assert_int_equal(answered, 16);
    assert_non_null(t->img);
}

struct again {
    struct zqcow2_queue *q;
    struct zqcow2_request req;
    unsigned left;
};

static void submit_again(void *arg, const struct zqcow2_result *res)
{
    struct again *a = arg;

    assert_int_equal(res->ret, 0);
    if (a->left && a->left--)
        assert_int_equal(zqcow2_queue_submit(a->q, &a->req, 1), 1);
}

/* One call of kick() for a batch, also when each callback submits the next request by itself. */
static void one_kick_a_batch(void **state)
{
    struct zqcow2_queue *q;
    struct again a[32];
    struct iovec iov = {buf, 4096};
    struct tally t;

    (void)state;
    tally_init(&t);
    t.async = true;
    {
        struct zqcow2_create_options c = shape(MiB(256), MiB(64), 0);
        tally_create(&t, &c);
    }
    tally_open(&t, NULL);
    append(&t, 0, MiB(1));
    assert_int_equal(zqcow2_queue_open(t.img, 64, &q), 0);
    tally_reset(&t);
    for (unsigned i = 0; i < 32; i++) {
        a[i] = (struct again){.q = q, .left = 10, .req.size = sizeof(a[i].req), .req.arg = &a[i]};
        a[i].req.op = i % 2 ? ZQCOW2_OP_READ : ZQCOW2_OP_APPEND;
        a[i].req.iov = &iov, a[i].req.iovcnt = 1;
        a[i].req.done = submit_again;
    }
    for (unsigned i = 0; i < 32; i += 8) {
        struct zqcow2_request r[8];
        for (unsigned k = 0; k < 8; k++)
            r[k] = a[i + k].req;
        assert_int_equal(zqcow2_queue_submit(q, r, 8), 8);
    }
    assert_int_equal(t.kicks, 4);
    for (unsigned round = 1; round <= 10; round++) {
        assert_int_equal(zqcow2_queue_poll(q, 0), 32);
        assert_int_equal(t.kicks, 4 + round);
    }
    assert_int_equal(zqcow2_queue_poll(q, 0), 32);
    assert_int_equal(t.kicks, 14);
    assert_int_equal(t.calls[ZQCOW2_IO_READ], 16 * 11);
    assert_int_equal(t.calls[ZQCOW2_IO_WRITE], 16 * 11);
    assert_int_equal(zqcow2_queue_close(q), 0);
    end(&t);
}

static void steady_state_allocates_nothing(void **state)
{
    struct zqcow2_queue *q;
    struct tally t;
    uint64_t before;

    (void)state;
    begin(&t, shape(MiB(256), MiB(64), 0));
    assert_int_equal(zqcow2_queue_open(t.img, 16, &q), 0);
    for (unsigned zone = 0; zone < 4; zone++)
        append(&t, zone * MiB(64), MiB(1));
    flush(&t);
    before = t.heap.calls;
    for (unsigned i = 0; i < 50; i++) {
        append(&t, i % 4 * MiB(64), 4096);
        assert_int_equal(zqcow2_read(t.img, buf, 65536, i % 4 * MiB(64)), 0);
        queue_round(&t, q, ZQCOW2_OP_APPEND);
        queue_round(&t, q, ZQCOW2_OP_READ);
        flush(&t);
    }
    assert_int_equal(t.heap.calls, before);
    assert_int_equal(zqcow2_queue_close(q), 0);
    end(&t);
}

/* Each the first to its cluster: what they need for a while is taken once. */
static void first_writes_allocate_nothing(void **state)
{
    struct zqcow2_create_options o = shape(MiB(256), MiB(64), 0);
    struct tally t;
    uint64_t before;

    (void)state;
    o.conventional_zones = 1;
    begin(&t, o);
    assert_int_equal(zqcow2_write(t.img, buf, 4096, 0, 0), 0);
    before = t.heap.calls;
    for (uint64_t i = 1; i < 500; i++)
        assert_int_equal(zqcow2_write(t.img, buf, 4096, i * KiB(64), 0), 0);
    assert_int_equal(t.heap.calls, before);
    end(&t);
}

static uint64_t be64_at(struct tally *t, uint64_t off)
{
    uint8_t b[8];
    uint64_t v = 0;

    store_get(&t->store, b, 8, off);
    for (unsigned i = 0; i < 8; i++)
        v = v << 8 | b[i];
    return v;
}

/* How many of the noted reads touch the cluster at host. */
static unsigned reads_of(const struct tally *t, uint64_t host)
{
    unsigned n = 0;

    for (uint64_t i = 0; i < t->calls[ZQCOW2_IO_READ]; i++)
        n += t->read[i].off < host + 65536 && host < t->read[i].off + t->read[i].len;
    return n;
}

static void open_reads_no_l2(void **state)
{
    struct tally t;
    uint64_t l1, nr_l1;
    unsigned tables = 0;

    (void)state;
    begin(&t, shape(GiB(4), MiB(64), 0));
    for (uint64_t at = 0; at < GiB(4); at += MiB(64))
        append(&t, at, 4096);
    tally_close(&t);
    tally_reset(&t);
    tally_open(&t, NULL);
    assert_in_range(t.calls[ZQCOW2_IO_READ], 1, TALLY_READS);
    nr_l1 = be64_at(&t, 36) >> 32;
    l1 = be64_at(&t, 40);
    for (uint64_t i = 0; i < nr_l1; i++) {
        uint64_t host = be64_at(&t, l1 + i * 8) & 0x00fffffffffffe00ull;
        tables += host != 0;
        assert_int_equal(host ? reads_of(&t, host) : 0, 0);
    }
    assert_int_equal(tables, 8);
    append(&t, 0, 4096); /* and this is how such a read shows */
    assert_int_not_equal(reads_of(&t, be64_at(&t, l1) & 0x00fffffffffffe00ull), 0);
    end(&t);
}

static void open_and_report_of_many_zones(void **state)
{
    uint32_t nr = 65536;
    struct zqcow2_zone *zones = calloc(nr, sizeof(*zones));
    struct tally t;

    (void)state;
    begin(&t, shape(MiB(16) * nr, MiB(16), 0));
    tally_close(&t);
    t.heap.peak_bytes = 0;
    tally_open(&t, NULL);
    assert_int_equal(zqcow2_zone_report(t.img, 0, zones, &nr), 0);
    assert_int_equal(nr, 65536);
    printf("open and report of 65536 zones: %llu KiB of heap at most, %llu KiB at rest\n",
           (unsigned long long)t.heap.peak_bytes / 1024,
           (unsigned long long)t.heap.live_bytes / 1024);
    assert_in_range(t.heap.peak_bytes, 1, MiB(8));
    end(&t);
    free(zones);
}

static void heap_at_rest(void **state)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct tally t;

    (void)state;
    tally_init(&t);
    o.extent_bytes = KiB(256);
    {
        struct zqcow2_create_options c = shape(GiB(1024), MiB(256), 0);
        tally_create(&t, &c);
    }
    tally_open(&t, &o);
    for (uint64_t zone = 0; zone < 4096; zone++)
        append(&t, zone * MiB(256), 4096);
    flush(&t);
    printf("1 TiB, 4096 zones, all in use: %llu KiB of heap at rest\n",
           (unsigned long long)t.heap.live_bytes / 1024);
    assert_in_range(t.heap.live_bytes, 1, MiB(10));
    end(&t);
}

/* ---- the smallest cache ---- */

static void stamp(uint8_t *to, uint64_t off)
{
    for (unsigned i = 0; i < 4096; i += 8)
        memcpy(to + i, &(uint64_t){off + i}, 8);
}

static void smallest_cache(void **state)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_create_options c = shape(MiB(32), MiB(1), 0);
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;
    uint8_t want[4096];
    struct tally t;

    (void)state;
    c.cluster_size = 512; /* 64 entries in a slice: every write wants another */
    c.conventional_zones = 2;
    tally_init(&t);
    tally_create(&t, &c);
    o.cache_bytes = 1;
    o.extent_bytes = 512;
    tally_open(&t, &o);
    for (uint64_t i = 0; i < 4000; i++) {
        uint64_t at = i < 3840 ? MiB(2 + i % 30) + i / 30 * 4096 : (i - 3840) * 12288;
        stamp(buf, at);
        assert_int_equal(zqcow2_write(t.img, buf, 4096, at, i % 97 ? 0 : ZQCOW2_FUA), 0);
    }
    for (uint64_t i = 0; i < 4000; i++) {
        uint64_t at = i < 3840 ? MiB(2 + i % 30) + i / 30 * 4096 : (i - 3840) * 12288;
        stamp(want, at);
        assert_int_equal(zqcow2_read(t.img, buf, 4096, at), 0);
        assert_memory_equal(buf, want, 4096);
    }
    for (uint64_t zone = 2; zone < 32; zone += 3)
        assert_int_equal(zqcow2_zone_reset(t.img, MiB(zone), MiB(1), 0), 0);
    tally_close(&t);
    be = tally_backend(&t);
    assert_int_equal(zqcow2_check(be, NULL, &res, NULL), 0);
    assert_int_equal(res.corruptions + res.leaked_clusters, 0);
    zqcow2_backend_close(be);
    tally_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(append_is_one_write),
        cmocka_unit_test(read_is_one_read),
        cmocka_unit_test(flushes_of_a_flush),
        cmocka_unit_test(flushes_with_a_new_refcount_block),
        cmocka_unit_test(flushes_with_a_full_zone_first),
        cmocka_unit_test(metadata_of_a_gibibyte),
        cmocka_unit_test(reset_of_a_full_zone),
        cmocka_unit_test(cache_keeps_what_is_used),
        cmocka_unit_test(runs_are_aligned),
        cmocka_unit_test(alignment_leaves_little_out),
        cmocka_unit_test(one_kick_a_batch),
        cmocka_unit_test(steady_state_allocates_nothing),
        cmocka_unit_test(first_writes_allocate_nothing),
        cmocka_unit_test(open_reads_no_l2),
        cmocka_unit_test(open_and_report_of_many_zones),
        cmocka_unit_test(heap_at_rest),
        cmocka_unit_test(smallest_cache),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
