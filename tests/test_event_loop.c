/* SPDX-License-Identifier: MIT */
/*
 * The thread of an event loop submits and polls, and never calls a blocking function of the
 * backend, whatever calls another thread makes meanwhile (E6).
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <zqcow2/bitmap.h>
#include <zqcow2/change.h>

#include "rig/be_shuffle.h"
#include "rig/ticket.h"

#define ZONE   KiB(256)
#define ZONES  16u
#define UNIT   4096u
#define ROUNDS 12

/*
 * An asynchronous backend that is polled, whose blocking functions note in which thread they are
 * called. shuffle: first, for its functions get this.
 */
struct noted {
    struct shuffle shuffle;
    struct store store;
    const struct zqcow2_backend_ops *inner;
    struct zqcow2_image *img;
    pthread_t loop;
    bool zoned;
    atomic_bool begun, met, over;
    atomic_uint in_loop, elsewhere; /* blocking calls since the loop has begun */
    atomic_int kind;                /* the last in the loop: a letter */
};

static const struct zqcow2_backend_ops *note(void *self, int kind)
{
    struct noted *n = self;

    if (n->begun && pthread_equal(pthread_self(), n->loop)) {
        n->in_loop++;
        n->kind = kind;
    } else if (n->begun) {
        n->elsewhere++;
    }
    return n->inner;
}

static int op_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return note(self, 'r')->readv(self, iov, cnt, off);
}

static int op_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return note(self, 'w')->writev(self, iov, cnt, off);
}

static int op_flush(void *self)
{
    return note(self, 'f')->flush(self);
}

static int op_truncate(void *self, uint64_t bytes)
{
    return note(self, 't')->truncate(self, bytes);
}

static int op_discard(void *self, uint64_t off, uint64_t len)
{
    return note(self, 'd')->discard(self, off, len);
}

static int op_zero(void *self, uint64_t off, uint64_t len)
{
    return note(self, 'z')->zero(self, off, len);
}

static int op_allocate(void *self, uint64_t off, uint64_t len)
{
    return note(self, 'a')->zero(self, off, len);
}

static void begin(struct noted *n, enum shuffle_mode mode, uint32_t caps, bool zoned)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    static struct zqcow2_backend_ops ops;
    struct zqcow2_backend *be;

    memset(n, 0, sizeof(*n));
    n->zoned = zoned;
    store_init(&n->store);
    shuffle_init(&n->shuffle, store_be(&n->store), mode, 7);
    n->shuffle.caps = caps;
    n->inner = shuffle_be(&n->shuffle).ops;
    ops = *n->inner;
    ops.readv = op_readv;
    ops.writev = op_writev;
    ops.flush = op_flush;
    ops.truncate = op_truncate;
    ops.discard = op_discard;
    ops.zero = op_zero;
    ops.allocate = op_allocate;
    how.virtual_size = ZONES * ZONE;
    how.cluster_size = 16384;
    if (zoned) {
        how.zone_size = ZONE;
        how.conventional_zones = 2;
    }
    opt.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_backend_new(&ops, n, NULL, &be), 0);
    assert_int_equal(zqcow2_create(be, &how, NULL), 0);
    assert_int_equal(zqcow2_open(be, &opt, &n->img, NULL), 0);
}

static void end(struct noted *n)
{
    assert_int_equal(zqcow2_close(n->img), 0);
    shuffle_free(&n->shuffle);
    store_free(&n->store);
}

/* ---- the calls of another thread ---- */

/* cmocka's assertions are for its own thread. */
static void must(int rc, const char *what, int line)
{
    if (rc == 0)
        return;
    fprintf(stderr, "line %d: %s: %s\n", line, what, zqcow2_strerror(rc));
    abort();
}
#define MUST(call) must((call), #call, __LINE__)

static void each_snapshot(void *arg, const struct zqcow2_snapshot *s)
{
    (void)arg;
    (void)s;
}

static void each_bitmap(void *arg, const struct zqcow2_bitmap *b)
{
    (void)arg;
    (void)b;
}

static void snapshots(struct zqcow2_image *img)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    int rc;

    s.name = "one";
    MUST(zqcow2_snapshot_take(img, &s, NULL));
    MUST(zqcow2_snapshot_list(img, each_snapshot, NULL, NULL));
    rc = zqcow2_snapshot_apply(img, "one", NULL);
    if (rc != -EBUSY) /* requests are in progress */
        must(rc, "apply", __LINE__);
    MUST(zqcow2_snapshot_delete(img, "one", NULL));
}

static void bitmaps(struct zqcow2_image *img)
{
    struct zqcow2_dirty_range ranges[4];
    uint32_t nr = 4;

    MUST(zqcow2_bitmap_add(img, "b", 65536, 0, NULL));
    MUST(zqcow2_bitmap_list(img, each_bitmap, NULL, NULL));
    MUST(zqcow2_bitmap_ranges(img, "b", 0, ranges, &nr, NULL));
    MUST(zqcow2_bitmap_disable(img, "b", NULL));
    MUST(zqcow2_resize(img, (ZONES + 1) * ZONE, 0, NULL));
    MUST(zqcow2_bitmap_remove(img, "b", NULL));
}

static void *call(void *arg)
{
    struct noted *n = arg;

    while (!n->met)
        usleep(100);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t size = (ZONES + 2048u * (unsigned)(i % 2 + 1)) * ZONE;

        snapshots(n->img);
        MUST(zqcow2_resize(n->img, size, 0, NULL));
        MUST(zqcow2_resize(n->img, ZONES * ZONE, ZQCOW2_RESIZE_SHRINK | ZQCOW2_RESIZE_DISCARD,
                           NULL));
        bitmaps(n->img);
        MUST(zqcow2_resize(n->img, ZONES * ZONE, ZQCOW2_RESIZE_SHRINK, NULL));
        if (n->zoned)
            MUST(zqcow2_compact(n->img, NULL, NULL, NULL));
    }
    n->over = true;
    return NULL;
}

/* ---- the event loop ---- */

/* Conventional zones, or anywhere; a device of half that size has these offsets, too. */
static uint64_t somewhere(unsigned i)
{
    return i * 7919u % (2 * ZONE / UNIT) * (uint64_t)UNIT;
}

static uint64_t run_loop(struct noted *n)
{
    struct zqcow2_queue *q;
    struct ticket *t[8];
    uint64_t requests = 0;

    assert_int_equal(zqcow2_queue_open(n->img, 8, &q), 0);
    while (!n->over) {
        struct pollfd p = {zqcow2_queue_fd(q), POLLIN, 0};

        ticket_begin();
        for (unsigned i = 0; i < 8; i++, requests++) {
            int op = i == 7 ? ZQCOW2_OP_FLUSH :
                     i == 5 ? ZQCOW2_OP_DISCARD :
                     i % 2  ? ZQCOW2_OP_READ :
                              ZQCOW2_OP_WRITE;

            t[i] = ticket(op, i == 7 ? 0 : somewhere((unsigned)requests), i == 7 ? 0 : UNIT, i);
            assert_int_equal(submit(q, t[i]), 1);
        }
        while (zqcow2_queue_pending(q)) {
            poll(&p, 1, 20); /* spurious wake-ups are allowed; a lost one costs time */
            poll_queue(q, 0);
        }
        for (unsigned i = 0; i < 8; i++) {
            assert_int_equal(t[i]->ret, 0);
            drop(t[i]);
        }
        n->met = true;
    }
    n->begun = false;
    assert_int_equal(zqcow2_queue_close(q), 0);
    return requests;
}

static void it_never_blocks(uint32_t caps, bool zoned)
{
    static struct noted n;
    pthread_t other;
    uint64_t requests;

    begin(&n, SHUFFLE_POLLED, caps, zoned);
    n.loop = pthread_self();
    n.begun = true;
    assert_int_equal(pthread_create(&other, NULL, call, &n), 0);
    requests = run_loop(&n);
    pthread_join(other, NULL);
    printf("event loop: %llu requests, %u blocking calls in the other thread, %u in the loop\n",
           (unsigned long long)requests, n.elsewhere, n.in_loop);
    if (n.in_loop)
        printf("the last one in the loop: '%c'\n", n.kind);
    assert_int_equal(n.in_loop, 0);
    assert_true(n.elsewhere > 20 * ROUNDS && requests > 8);
    end(&n);
}

static void where_calls_submit(void **state)
{
    (void)state;
    it_never_blocks(0, false);
    it_never_blocks(0, true);
}

static void where_calls_block(void **state)
{
    (void)state;
    it_never_blocks(ZQCOW2_CAP_BLOCKING_CALLS, false);
    it_never_blocks(ZQCOW2_CAP_BLOCKING_CALLS, true);
}

/* ---- a thread that waits for requests, and not for a descriptor ---- */

static void *call_often(void *arg)
{
    struct noted *n = arg;

    for (int i = 0; i < ROUNDS; i++) {
        MUST(zqcow2_bitmap_add(n->img, "b", 65536, 0, NULL));
        MUST(zqcow2_bitmap_remove(n->img, "b", NULL));
        snapshots(n->img);
    }
    n->over = true;
    return NULL;
}

/*
 * Nothing is polled. A completion wakes one of the two threads, which also goes on with the call up
 * to its next step that blocks; unless it then wakes the thread of the call, both wait forever.
 */
static void the_caller_is_woken(void **state)
{
    static struct noted n;
    struct zqcow2_queue *q;
    pthread_t other;

    (void)state;
    begin(&n, SHUFFLE_THREADED, 0, false);
    assert_int_equal(zqcow2_queue_open(n.img, 1, &q), 0);
    n.loop = pthread_self();
    n.begun = true;
    assert_int_equal(pthread_create(&other, NULL, call_often, &n), 0);
    while (!n.over) {
        struct ticket *t;

        ticket_begin();
        t = ticket(ZQCOW2_OP_WRITE, 0, UNIT, 0);
        assert_int_equal(submit(q, t), 1);
        wait_all(q);
        assert_int_equal(t->ret, 0);
        drop(t);
    }
    pthread_join(other, NULL);
    assert_int_equal(n.in_loop, 0);
    assert_int_equal(zqcow2_queue_close(q), 0);
    end(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(where_calls_submit),
        cmocka_unit_test(where_calls_block),
        cmocka_unit_test(the_caller_is_woken),
    };

    rig_watch(20, "event_loop");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
