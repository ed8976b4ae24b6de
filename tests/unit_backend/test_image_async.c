/* SPDX-License-Identifier: MIT */
/* Images on the library's own asynchronous backends: no wake-up is lost, and the image is whole. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <zqcow2/backend.h>
#include <zqcow2/queue.h>

#include "count_hooks.h"

#define ZONE    (2u << 20)
#define ZONES   8u
#define THREADS 4u
#define DEPTH   16u
#define MOST    (32u << 10)

static char path[] = "zq-image-XXXXXX";

struct world {
    const char *name;
    int (*open)(struct zqcow2_backend **be, unsigned flags);
    unsigned flags;
};

static int open_uring(struct zqcow2_backend **be, unsigned flags)
{
    return zqcow2_uring_open(path, flags, NULL, be);
}

static int open_threads(struct zqcow2_backend **be, unsigned flags)
{
    struct zqcow2_backend *inner = NULL;
    int rc = zqcow2_file_open(path, flags, NULL, &inner);

    if (rc == 0)
        rc = zqcow2_threads_wrap(inner, 2, NULL, be);
    if (rc < 0)
        zqcow2_backend_close(inner);
    return rc;
}

static struct world threads = {"threads", open_threads, 0};
static struct world uring = {"io_uring", open_uring, 0};
static struct world uring_direct = {"io_uring, O_DIRECT", open_uring, ZQCOW2_FILE_DIRECT};

static struct zqcow2_image *open_image(const struct world *w)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be = NULL;
    struct zqcow2_image *img = NULL;
    struct zqcow2_error err;
    int rc = w->open(&be, ZQCOW2_FILE_RDWR | w->flags);

    if (rc == -ENOSYS || (rc == -EINVAL && w->flags)) {
        print_message("%s: not here (%s)\n", w->name, zqcow2_strerror(rc));
        skip();
    }
    assert_int_equal(rc, 0);
    how.virtual_size = ZONES * ZONE;
    how.zone_size = ZONE;
    how.flags = ZQCOW2_CREATE_FORCE;
    opt.flags = ZQCOW2_OPEN_RDWR;
    if (zqcow2_create(be, &how, &err) < 0 || zqcow2_open(be, &opt, &img, &err) < 0)
        fail_msg("%s: %s", w->name, err.text);
    return img;
}

static void check_file(const struct world *w)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be = NULL;

    assert_int_equal(zqcow2_file_open(path, 0, NULL, &be), 0);
    assert_int_equal(zqcow2_check(be, NULL, &res, NULL), 0);
    if (res.corruptions || res.leaked_clusters)
        fail_msg("%s: %llu corruptions, %llu leaks", w->name, (unsigned long long)res.corruptions,
                 (unsigned long long)res.leaked_clusters);
    zqcow2_backend_close(be);
}

static double seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void slow_done(void *arg, const struct zqcow2_result *res)
{
    *(int *)arg = res->ret;
    usleep(30000);
}

/*
 * While a callback takes its time the backend completes the other requests, and there is nobody
 * that it could wake. The waiting thread must find them by itself when the callback returns.
 */
static void test_completions_during_a_callback(void **state)
{
    const struct world *w = *state;
    struct zqcow2_image *img = open_image(w);
    struct zqcow2_queue *q;
    static char data[4096];
    struct iovec iov = {data, sizeof(data)};
    int ret[ZONES];

    assert_int_equal(zqcow2_queue_open(img, ZONES, &q), 0);
    for (unsigned round = 0; round < 5; round++) {
        double start = seconds();

        for (unsigned i = 0; i < ZONES; i++) {
            struct zqcow2_request r = {.size = sizeof(r),
                                       .op = ZQCOW2_OP_APPEND,
                                       .iov = &iov,
                                       .iovcnt = 1,
                                       .offset = i * (uint64_t)ZONE,
                                       .done = slow_done,
                                       .arg = &ret[i]};
            ret[i] = 1;
            assert_int_equal(zqcow2_queue_submit(q, &r, 1), 1);
        }
        assert_int_equal(zqcow2_queue_wait(q, ZONES, 20000), ZONES);
        for (unsigned i = 0; i < ZONES; i++)
            assert_int_equal(ret[i], 0);
        /* Eight callbacks of 30 ms; a lost wake-up costs the time-out of 20 s. */
        if (seconds() - start > 15)
            fail_msg("%s, round %u: a wake-up was lost", w->name, round);
    }
    assert_int_equal(zqcow2_queue_close(q), 0);
    assert_int_equal(zqcow2_close(img), 0);
    check_file(w);
}

/* ---- threads, each with zones of its own, which make calls and have a queue ---- */

struct worker {
    struct zqcow2_image *img;
    unsigned id;
    int rc;
    uint64_t seed;
    struct slot {
        struct worker *w;
        struct iovec iov;
        unsigned op;
        bool busy;
    } slots[DEPTH];
    uint8_t bytes[DEPTH][MOST] __attribute__((aligned(4096)));
};

static void slot_done(void *arg, const struct zqcow2_result *res)
{
    struct slot *s = arg;
    const uint8_t *p = s->iov.iov_base;

    s->busy = false;
    if (res->ret && !s->w->rc)
        s->w->rc = res->ret;
    for (size_t i = 0; s->op == ZQCOW2_OP_READ && i < s->iov.iov_len && !s->w->rc; i++)
        s->w->rc = p[i] == s->w->id + 1 ? 0 : -EILSEQ;
}

static struct slot *free_slot(struct worker *w, struct zqcow2_queue *q)
{
    for (;;) {
        for (unsigned i = 0; i < DEPTH; i++) {
            if (!w->slots[i].busy)
                return &w->slots[i];
        }
        zqcow2_queue_wait(q, 1, -1);
    }
}

/* The same without the queue. */
static void call(struct worker *w, const struct zqcow2_request *r)
{
    struct zqcow2_result res;

    (void)zqcow2_run(w->img, r, &res);
    slot_done(r->arg, &res);
}

/* Appends to a zone from its start on; what a wait has seen done is read back in between. */
static void fill_zone(struct worker *w, struct zqcow2_queue *q, uint64_t zone)
{
    uint64_t sent = 0, stored = 0;

    w->rc = zqcow2_zone_reset(w->img, zone, ZONE, 0);
    while (!w->rc) {
        struct slot *s = free_slot(w, q);
        struct zqcow2_request r = {.size = sizeof(r),
                                   .iov = &s->iov,
                                   .iovcnt = 1,
                                   .done = slot_done,
                                   .arg = s,
                                   .offset = zone};
        size_t len = 512 * (1 + next_random(&w->seed) % (MOST / 512));

        if (sent + len > ZONE)
            break;
        s->op = next_random(&w->seed) % 16 ? ZQCOW2_OP_APPEND : ZQCOW2_OP_FLUSH;
        if (s->op == ZQCOW2_OP_APPEND && stored > MOST && next_random(&w->seed) % 3 == 0) {
            s->op = ZQCOW2_OP_READ;
            r.offset += next_random(&w->seed) % ((stored - len) / 512) * 512;
        }
        s->iov = (struct iovec){w->bytes[s - w->slots], len};
        memset(s->iov.iov_base, (int)w->id + 1, len);
        r.op = (uint16_t)s->op;
        r.iovcnt = s->op != ZQCOW2_OP_FLUSH;
        sent += s->op == ZQCOW2_OP_APPEND ? len : 0;
        s->busy = true;
        if (next_random(&w->seed) % 4 == 0)
            call(w, &r);
        else if (zqcow2_queue_submit(q, &r, 1) != 1)
            w->rc = -EPROTO;
        if (next_random(&w->seed) % 8 == 0) {
            zqcow2_queue_wait(q, zqcow2_queue_pending(q), -1);
            stored = sent;
        }
    }
    zqcow2_queue_wait(q, zqcow2_queue_pending(q), -1);
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct zqcow2_queue *q;
    int rc = zqcow2_queue_open(w->img, DEPTH, &q);

    w->rc = rc;
    if (rc < 0)
        return NULL;
    for (unsigned i = 0; i < 4 && !w->rc; i++)
        fill_zone(w, q, (w->id * (ZONES / THREADS) + i % 2) * (uint64_t)ZONE);
    rc = zqcow2_queue_close(q);
    w->rc = w->rc ? w->rc : rc;
    return NULL;
}

static void test_queues_in_threads(void **state)
{
    static struct worker workers[THREADS];
    const struct world *w = *state;
    struct zqcow2_image *img = open_image(w);
    pthread_t t[THREADS];

    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.img = img, .id = i, .seed = i + 1};
        for (unsigned j = 0; j < DEPTH; j++)
            workers[i].slots[j].w = &workers[i];
        assert_int_equal(pthread_create(&t[i], NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(t[i], NULL);
        if (workers[i].rc)
            fail_msg("%s: worker %u: %s", w->name, i, zqcow2_strerror(workers[i].rc));
    }
    assert_int_equal(zqcow2_close(img), 0);
    check_file(w);
}

#define ON(test, w) \
    { \
#test " on " #w, test, NULL, NULL, &(w) \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON(test_completions_during_a_callback, threads),
        ON(test_completions_during_a_callback, uring),
        ON(test_queues_in_threads, threads),
        ON(test_queues_in_threads, uring),
        ON(test_queues_in_threads, uring_direct),
    };
    int fd = mkstemp(path), failed;

    if (fd < 0 || close(fd) < 0) {
        perror(path);
        return 1;
    }
    alarm(240); /* a hang is a failure too */
    failed = cmocka_run_group_tests_name("image_async", tests, NULL, NULL);
    unlink(path);
    return failed;
}
