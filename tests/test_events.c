/* SPDX-License-Identifier: MIT */
/* Events of an open image: which there are, in which order, how many are kept. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/events.h>
#include <zqcow2/queue.h>
#include <zqcow2/simdisk.h>

#define KiB(n) ((uint64_t)(n) << 10)
#define MiB(n) ((uint64_t)(n) << 20)
#define ZONE   MiB(1)
#define ZONES  100u
#define CONV   1u
#define KEPT   256u

static uint8_t buf[MiB(1)];

struct world {
    struct zqcow2_simdisk *disk;
    struct zqcow2_image *img;
    struct zqcow2_event got[KEPT];
    unsigned n;
    int inside; /* atomic: handlers that run */
};

static void on_event(void *arg, const struct zqcow2_event *event)
{
    struct world *w = arg;

    assert_int_equal(__atomic_add_fetch(&w->inside, 1, __ATOMIC_SEQ_CST), 1);
    assert_true(w->n < KEPT);
    w->got[w->n++] = *event;
    __atomic_sub_fetch(&w->inside, 1, __ATOMIC_SEQ_CST);
}

static struct zqcow2_backend *backend_of(struct world *w)
{
    struct zqcow2_backend *be;

    assert_int_equal(zqcow2_simdisk_backend(w->disk, &be), 0);
    return be;
}

static void begin(struct world *w, uint32_t flags)
{
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;

    memset(w, 0, sizeof(*w));
    d.flags = flags;
    assert_int_equal(zqcow2_simdisk_new(&d, &w->disk), 0);
    be = backend_of(w);
    c.virtual_size = ZONES * ZONE;
    c.zone_size = ZONE;
    c.cluster_size = 4096;
    c.conventional_zones = CONV;
    c.max_open_zones = 2;
    c.max_active_zones = 3;
    assert_int_equal(zqcow2_create(be, &c, NULL), 0);
    zqcow2_backend_close(be);
    o.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_open(backend_of(w), &o, &w->img, NULL), 0);
    zqcow2_set_event_handler(w->img, on_event, w);
}

static void end(struct world *w, int rc)
{
    assert_int_equal(zqcow2_close(w->img), rc);
    zqcow2_simdisk_free(w->disk);
}

/* The next calls of these kinds fail, until it is disarmed by kinds 0. */
static void fail_calls(struct world *w, uint32_t kinds, int error)
{
    struct zqcow2_simdisk_fault f = ZQCOW2_SIMDISK_FAULT_INIT;

    f.kinds = kinds;
    f.flags = ZQCOW2_SIMDISK_FOREVER;
    f.error = error;
    assert_int_equal(zqcow2_simdisk_set_fault(w->disk, kinds ? &f : NULL), 0);
}

/* Exactly this one since the last call, once all are delivered. */
static struct zqcow2_event the_one(struct world *w, uint32_t kind)
{
    if (w->n != 1 || w->got[0].kind != kind)
        fail_msg("%u events, the first of kind %u, not one of kind %u", w->n, w->got[0].kind, kind);
    w->n = 0;
    return w->got[0];
}

static void expect_none(struct world *w)
{
    (void)zqcow2_flush(w->img);
    assert_int_equal(w->n, 0);
}

/* ---- which there are ---- */

static void expect_zone(struct world *w, uint32_t zone, uint32_t zone_state)
{
    struct zqcow2_event e;

    assert_int_equal(zqcow2_flush(w->img), 0);
    e = the_one(w, ZQCOW2_EVENT_ZONE);
    assert_int_equal(e.offset, zone * ZONE);
    assert_int_equal(e.state, zone_state);
    assert_int_equal(e.error | (int)e.length | (int)e.lost, 0);
}

static void zones_that_change_are_announced(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 0);
    assert_int_equal(zqcow2_write(w.img, buf, ZONE - 4096, 3 * ZONE, 0), 0);
    expect_none(&w);
    assert_int_equal(zqcow2_write(w.img, buf, 4096, 4 * ZONE - 4096, 0), 0);
    expect_zone(&w, 3, ZQCOW2_ZONE_FULL);
    assert_int_equal(zqcow2_write(w.img, buf, ZONE, 4 * ZONE, 0), 0);
    expect_zone(&w, 4, ZQCOW2_ZONE_FULL);
    assert_int_equal(zqcow2_zone_finish(w.img, 5 * ZONE, ZONE, 0), 0);
    expect_zone(&w, 5, ZQCOW2_ZONE_FULL);
    assert_int_equal(zqcow2_zone_finish(w.img, 5 * ZONE, ZONE, 0), 0);
    assert_int_equal(zqcow2_zone_reset(w.img, 5 * ZONE, ZONE, 0), 0);
    assert_int_equal(zqcow2_zone_open(w.img, 5 * ZONE, ZONE, 0), 0);
    assert_int_equal(zqcow2_zone_close(w.img, 5 * ZONE, ZONE, 0), 0);
    expect_none(&w);
    assert_int_equal(zqcow2_zone_set_state(w.img, 6 * ZONE, ZQCOW2_ZONE_RDONLY), 0);
    expect_zone(&w, 6, ZQCOW2_ZONE_RDONLY);
    assert_int_equal(zqcow2_zone_set_state(w.img, 6 * ZONE, ZQCOW2_ZONE_OFFLINE), 0);
    expect_zone(&w, 6, ZQCOW2_ZONE_OFFLINE);
    assert_int_equal(zqcow2_zone_set_state(w.img, 6 * ZONE, ZQCOW2_ZONE_NOT_WP), 0);
    expect_none(&w);
    end(&w, 0);
}

static void limits_are_announced(void **state)
{
    struct zqcow2_event e;
    struct world w;

    (void)state;
    begin(&w, 0);
    assert_int_equal(zqcow2_zone_open(w.img, 1 * ZONE, ZONE, 0), 0);
    assert_int_equal(zqcow2_zone_open(w.img, 2 * ZONE, ZONE, 0), 0);
    assert_int_equal(zqcow2_write(w.img, buf, 4096, 3 * ZONE, 0), ZQCOW2_EZONE_OPEN);
    (void)zqcow2_flush(w.img);
    e = the_one(&w, ZQCOW2_EVENT_LIMIT);
    assert_int_equal(e.error, ZQCOW2_EZONE_OPEN);
    assert_int_equal(e.offset, 3 * ZONE);
    assert_int_equal(zqcow2_write(w.img, buf, 4096, 1 * ZONE, 0), 0);
    assert_int_equal(zqcow2_zone_close(w.img, 1 * ZONE, ZONE, 0), 0);
    assert_int_equal(zqcow2_write(w.img, buf, 4096, 3 * ZONE, 0), 0);
    assert_int_equal(zqcow2_zone_open(w.img, 4 * ZONE, ZONE, 0), ZQCOW2_EZONE_ACTIVE);
    (void)zqcow2_flush(w.img);
    e = the_one(&w, ZQCOW2_EVENT_LIMIT);
    assert_int_equal(e.error, ZQCOW2_EZONE_ACTIVE);
    assert_int_equal(e.offset, 4 * ZONE);
    end(&w, 0);
}

static void writes_that_fail_are_announced(void **state)
{
    static const uint64_t offsets[] = {0, 8192, ZONE, ZONE + 4096};
    struct world w;

    (void)state;
    begin(&w, 0);
    assert_int_equal(zqcow2_write(w.img, buf, 4096, 0, 0), 0);
    assert_int_equal(zqcow2_flush(w.img), 0);
    for (unsigned i = 0; i < 4; i++) { /* in place, new, and the same in a zone */
        struct zqcow2_event e;

        if (i == 3)
            assert_int_equal(zqcow2_write(w.img, buf, 4096, ZONE, 0), 0);
        fail_calls(&w, 1u << ZQCOW2_IO_WRITE, -EIO);
        assert_int_equal(zqcow2_write(w.img, buf, 4096, offsets[i], 0), -EIO);
        fail_calls(&w, 0, 0);
        (void)zqcow2_flush(w.img);
        e = the_one(&w, ZQCOW2_EVENT_WRITE_ERROR);
        assert_int_equal(e.error, -EIO);
        assert_int_equal(e.offset, offsets[i]);
        assert_int_equal(e.length, 4096);
    }
    fail_calls(&w, 1u << ZQCOW2_IO_READ, -EIO);
    assert_int_equal(zqcow2_read(w.img, buf, 4096, 0), -EIO);
    fail_calls(&w, 0, 0);
    assert_int_equal(zqcow2_write(w.img, buf, 4096, 50 * ZONE + 4096, 0), ZQCOW2_EZONE_WP);
    assert_int_equal(zqcow2_write(w.img, buf, 4096, ZONES * ZONE, 0), -EINVAL);
    expect_none(&w);
    end(&w, 0);
}

static void space_comes_and_goes(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 0);
    for (unsigned round = 0; round < 3; round++) {
        uint64_t at = 32768 * (round + 1);

        fail_calls(&w, 1u << ZQCOW2_IO_WRITE | 1u << ZQCOW2_IO_ZERO | 1u << ZQCOW2_IO_TRUNCATE,
                   -ENOSPC);
        assert_int_equal(zqcow2_write(w.img, buf, 4096, at, 0), -ENOSPC);
        assert_int_equal(zqcow2_write(w.img, buf, 4096, at + 8192, 0), -ENOSPC);
        fail_calls(&w, 0, 0);
        assert_int_equal(zqcow2_read(w.img, buf, 4096, at), 0);
        assert_int_equal(the_one(&w, ZQCOW2_EVENT_NO_SPACE).error, -ENOSPC);
        assert_int_equal(zqcow2_write(w.img, buf, 4096, at, 0), 0);
        assert_int_equal(zqcow2_write(w.img, buf, 4096, at + 8192, 0), 0);
        (void)zqcow2_flush(w.img);
        assert_int_equal(the_one(&w, ZQCOW2_EVENT_SPACE).error, 0);
    }
    end(&w, 0);
}

static void death_is_announced_once(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 0);
    assert_int_equal(zqcow2_write(w.img, buf, 4096, ZONE, 0), 0);
    fail_calls(&w, 1u << ZQCOW2_IO_FLUSH, -EIO);
    assert_int_equal(zqcow2_flush(w.img), -EIO);
    fail_calls(&w, 0, 0);
    assert_int_equal(the_one(&w, ZQCOW2_EVENT_DEAD).error, -EIO);
    assert_int_equal(zqcow2_write(w.img, buf, 4096, 2 * ZONE, 0), ZQCOW2_EDEAD);
    expect_none(&w);
    end(&w, ZQCOW2_EDEAD);
}

/* ---- delivery ---- */

/* All zones at once: more than are kept. The next one says how many are missing. */
static void few_are_kept(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 0);
    assert_int_equal(zqcow2_zone_finish(w.img, CONV * ZONE, (ZONES - CONV) * ZONE, 0), 0);
    assert_int_equal(zqcow2_flush(w.img), 0);
    assert_int_equal(w.n, 64);
    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(w.got[i].offset, (CONV + i) * ZONE);
        assert_int_equal(w.got[i].lost, 0);
    }
    assert_int_equal(zqcow2_zone_set_state(w.img, ZONE, ZQCOW2_ZONE_RDONLY), 0);
    assert_int_equal(zqcow2_flush(w.img), 0);
    assert_int_equal(w.n, 65);
    assert_int_equal(w.got[64].lost, ZONES - CONV - 64);
    end(&w, 0);
}

static void without_a_handler_nothing_is_kept(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 0);
    zqcow2_set_event_handler(w.img, NULL, NULL);
    assert_int_equal(zqcow2_zone_finish(w.img, ZONE, ZONE, 0), 0);
    zqcow2_set_event_handler(w.img, on_event, &w);
    expect_none(&w);
    assert_int_equal(zqcow2_write(w.img, buf, ZONE - 4096, 3 * ZONE, 0), 0);
    assert_int_equal(zqcow2_write(w.img, buf, 4096, 4 * ZONE - 4096, 0), 0);
    zqcow2_set_event_handler(w.img, on_event, &w); /* for whom that is no news */
    w.n = 0;
    expect_none(&w);
    assert_int_equal(zqcow2_zone_finish(w.img, 2 * ZONE, ZONE, 0), 0);
    expect_zone(&w, 2, ZQCOW2_ZONE_FULL);
    end(&w, 0);
}

/* A queue polls for what its own requests have brought about. */
static void a_poll_delivers(void **state)
{
    struct iovec iov = {buf, ZONE};
    struct zqcow2_request r = {
        .size = sizeof(r), .op = ZQCOW2_OP_WRITE, .offset = 7 * ZONE, .iov = &iov, .iovcnt = 1};
    struct zqcow2_queue *q;
    struct world w;

    (void)state;
    begin(&w, ZQCOW2_SIMDISK_ASYNC);
    assert_int_equal(zqcow2_queue_open(w.img, 4, &q), 0);
    assert_int_equal(zqcow2_queue_submit(q, &r, 1), 1);
    while (zqcow2_queue_pending(q))
        (void)zqcow2_queue_wait(q, 1, -1);
    (void)zqcow2_queue_poll(q, 0);
    assert_int_equal(the_one(&w, ZQCOW2_EVENT_ZONE).offset, 7 * ZONE);
    assert_int_equal(zqcow2_queue_close(q), 0);
    end(&w, 0);
}

/* ---- threads ---- */

struct filler {
    pthread_t thread;
    struct world *w;
    uint32_t first;
};

static void *fill_zones(void *arg)
{
    struct filler *f = arg;

    for (uint32_t zone = f->first; zone < ZONES; zone += 2) {
        if (zqcow2_write(f->w->img, buf, ZONE, zone * ZONE, 0))
            return f;
    }
    return NULL;
}

/* One at a time, from either thread; each zone is announced once, or counted as lost. */
static void events_of_threads_come_one_at_a_time(void **state)
{
    struct filler f[2];
    bool seen[ZONES] = {false};
    unsigned lost = 0;
    struct world w;
    void *failed;

    (void)state;
    begin(&w, 0);
    for (unsigned i = 0; i < 2; i++) {
        f[i] = (struct filler){.w = &w, .first = CONV + i};
        assert_int_equal(pthread_create(&f[i].thread, NULL, fill_zones, &f[i]), 0);
    }
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(f[i].thread, &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(zqcow2_flush(w.img), 0);
    for (unsigned i = 0; i < w.n; i++) {
        assert_int_equal(w.got[i].kind, ZQCOW2_EVENT_ZONE);
        assert_false(seen[w.got[i].offset / ZONE]);
        seen[w.got[i].offset / ZONE] = true;
        lost += w.got[i].lost;
    }
    printf("events: %u zones by 2 threads, %u events, 0 missing\n", ZONES - CONV, w.n);
    assert_int_equal(w.n + lost, ZONES - CONV);
    end(&w, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zones_that_change_are_announced),
        cmocka_unit_test(limits_are_announced),
        cmocka_unit_test(writes_that_fail_are_announced),
        cmocka_unit_test(space_comes_and_goes),
        cmocka_unit_test(death_is_announced_once),
        cmocka_unit_test(few_are_kept),
        cmocka_unit_test(without_a_handler_nothing_is_kept),
        cmocka_unit_test(a_poll_delivers),
        cmocka_unit_test(events_of_threads_come_one_at_a_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
