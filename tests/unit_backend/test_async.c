/* SPDX-License-Identifier: MIT */
/* The asynchronous backends by themselves: raw requests, without an image above. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "async_harness.h"
#include "count_hooks.h"

static uint8_t model[SLOTS * SLOT_BYTES];

/* The kinds of backend that every test runs on. */
struct world {
    const char *name;
    int (*open)(struct zqcow2_backend **be, unsigned flags);
    unsigned flags;
};

static char path[] = "zq-async-XXXXXX";

static int open_threads_file(struct zqcow2_backend **be, unsigned flags)
{
    struct zqcow2_backend *inner = NULL;
    int rc = zqcow2_file_open(path, flags, NULL, &inner);

    if (rc == 0)
        rc = zqcow2_threads_wrap(inner, 4, NULL, be);
    return rc;
}

static int open_threads_memory(struct zqcow2_backend **be, unsigned flags)
{
    struct zqcow2_backend *inner = NULL;
    int rc = zqcow2_mem_open(0, NULL, &inner);

    (void)flags;
    if (rc == 0)
        rc = zqcow2_threads_wrap(inner, 3, NULL, be);
    return rc;
}

static int open_uring(struct zqcow2_backend **be, unsigned flags)
{
    return zqcow2_uring_open(path, flags, NULL, be);
}

static struct zqcow2_backend *open_world(const struct world *w)
{
    struct zqcow2_backend *be = NULL;
    int rc;

    memset(requests, 0, sizeof(requests));
    atomic_store(&nr_done, 0);
    assert_int_equal(truncate(path, 0), 0);
    rc = w->open(&be, ZQCOW2_FILE_RDWR | w->flags);
    if (rc == -ENOSYS || (rc < 0 && w->flags)) {
        print_message("%s: not here (%s)\n", w->name, strerror(-rc));
        skip();
    }
    if (rc < 0)
        fail_msg("%s: %s", w->name, strerror(-rc));
    return be;
}

/* ---- tests on every kind ---- */

/* Rounds of requests, a slot each, in flight together: far more than the ring holds. */
static void test_against_array(void **state)
{
    const struct world *w = *state;
    struct zqcow2_backend *be = open_world(w);
    uint64_t s = 99;

    memset(model, 0, sizeof(model));
    assert_int_equal(zq_be_truncate(be, sizeof(model)), 0);
    for (unsigned round = 0; round < 30; round++) {
        unsigned kinds[SLOTS];
        atomic_store(&nr_done, 0);
        for (unsigned i = 0; i < SLOTS; i++) {
            kinds[i] = (unsigned)(next_random(&s) % 4);
            kinds[i] = kinds[i] == ZQCOW2_IO_FLUSH && i % 64 ? ZQCOW2_IO_READ : kinds[i];
            if (kinds[i] == ZQCOW2_IO_WRITE)
                memset(buffers[i], (int)(round * 7 + i), SLOT_BYTES);
            else
                memset(buffers[i], 0x5a, SLOT_BYTES);
            start(be, i, kinds[i], (uint64_t)i * SLOT_BYTES, SLOT_BYTES);
            if (next_random(&s) % 16 == 0)
                kick(be);
        }
        kick(be);
        wait_done(be, SLOTS);
        for (unsigned i = 0; i < SLOTS; i++) {
            uint8_t *m = model + (size_t)i * SLOT_BYTES;
            if (requests[i].done != 1 || requests[i].ret)
                fail_msg("%s, seed 99, round %u, slot %u: done %u times, ret %d", w->name, round, i,
                         requests[i].done, requests[i].ret);
            if (kinds[i] == ZQCOW2_IO_WRITE)
                memcpy(m, buffers[i], SLOT_BYTES);
            if (kinds[i] == ZQCOW2_IO_ZERO)
                memset(m, 0, SLOT_BYTES);
            if (kinds[i] == ZQCOW2_IO_READ && memcmp(m, buffers[i], SLOT_BYTES))
                fail_msg("%s, seed 99, round %u, slot %u: wrong bytes", w->name, round, i);
        }
    }
    static uint8_t all[sizeof(model)] __attribute__((aligned(4096)));
    assert_int_equal(zqcow2_backend_read(be, all, sizeof(all), 0), 0);
    assert_memory_equal(all, model, sizeof(model));
    zqcow2_backend_close(be);
}

/* Several buffers a request, and the end of the file in the midst of one. */
static void test_vectors_and_end(void **state)
{
    const struct world *w = *state;
    struct zqcow2_backend *be = open_world(w);
    static const size_t cut[4] = {512, 0, 1024, 2560};

    memset(buffers[0], 0x33, SLOT_BYTES);
    assert_int_equal(zqcow2_backend_write(be, buffers[0], SLOT_BYTES, 0), 0);
    for (uint64_t end = 0; end <= 4096; end += 512) {
        uint8_t *p = buffers[1];
        struct request *r = &requests[0];

        assert_int_equal(zq_be_truncate(be, end), 0);
        memset(r, 0, sizeof(*r));
        memset(buffers[1], 0xff, SLOT_BYTES);
        r->io =
            (struct zqcow2_io){.kind = ZQCOW2_IO_READ, .iovcnt = 4, .length = 4096, .iov = r->iov};
        for (int i = 0; i < 4; p += cut[i++])
            r->iov[i] = (struct iovec){p, cut[i]};
        atomic_store(&nr_done, 0);
        assert_int_equal(be->ops.submit(be->self, &r->io), 0);
        kick(be);
        wait_done(be, 1);
        assert_int_equal(r->ret, 0);
        for (unsigned i = 0; i < 4096; i++) {
            if (buffers[1][i] != (i < end ? 0x33 : 0))
                fail_msg("%s: file of %u bytes: byte %u is %d", w->name, (unsigned)end, i,
                         buffers[1][i]);
        }
        assert_int_equal(zq_be_truncate(be, 0), 0);
        assert_int_equal(zqcow2_backend_write(be, buffers[0], SLOT_BYTES, 0), 0);
    }
    zqcow2_backend_close(be);
}

/* Close with all of it in flight: every request is done, once, when close returns. */
static void test_close_drains(void **state)
{
    const struct world *w = *state;

    for (unsigned round = 0; round < 10; round++) {
        struct zqcow2_backend *be = open_world(w);
        for (unsigned i = 0; i < SLOTS; i++)
            start(be, i, i % 2 ? ZQCOW2_IO_WRITE : ZQCOW2_IO_READ, (uint64_t)i * SLOT_BYTES,
                  SLOT_BYTES);
        if (round % 2)
            kick(be);
        zqcow2_backend_close(be);
        assert_int_equal(atomic_load(&nr_done), SLOTS);
        for (unsigned i = 0; i < SLOTS; i++) {
            assert_int_equal(requests[i].done, 1);
            assert_int_equal(requests[i].ret, 0);
        }
    }
}

struct submitter {
    struct zqcow2_backend *be;
    unsigned from;
};

static void *submit_some(void *arg)
{
    struct submitter *s = arg;

    for (unsigned i = s->from; i < SLOTS; i += 4) {
        start(s->be, i, i % 8 == 7 ? ZQCOW2_IO_FLUSH : ZQCOW2_IO_WRITE, (uint64_t)i * SLOT_BYTES,
              SLOT_BYTES);
        if (i % 16 < 4)
            kick(s->be);
    }
    kick(s->be);
    return NULL;
}

/* Threads submit at once, and end while their requests run. That must not cancel any. */
static void test_submitters_end(void **state)
{
    const struct world *w = *state;
    struct zqcow2_backend *be = open_world(w);

    for (unsigned round = 0; round < 10; round++) {
        struct submitter s[4];
        pthread_t t[4];

        atomic_store(&nr_done, 0);
        for (unsigned i = 0; i < 4; i++) {
            s[i] = (struct submitter){be, i};
            assert_int_equal(pthread_create(&t[i], NULL, submit_some, &s[i]), 0);
        }
        for (unsigned i = 0; i < 4; i++)
            pthread_join(t[i], NULL);
        wait_done(be, SLOTS);
        for (unsigned i = 0; i < SLOTS; i++)
            assert_int_equal(requests[i].ret, 0);
    }
    zqcow2_backend_close(be);
}

static void test_blocking_calls(void **state)
{
    const struct world *w = *state;
    struct zqcow2_backend *be = open_world(w);
    uint64_t n = 0;
    char buf[600];

    assert_true(zq_be_writable(be));
    assert_int_equal(zqcow2_backend_write(be, "hello", 5, 1000), 0);
    assert_int_equal(zq_be_flush(be), 0);
    assert_int_equal(zqcow2_backend_read(be, buf, sizeof(buf), 900), 0);
    assert_memory_equal(buf + 100, "hello", 5);
    assert_int_equal(zq_be_truncate(be, 8192), 0);
    assert_int_equal(zqcow2_backend_length(be, &n), 0);
    assert_int_equal(n, 8192);
    assert_int_equal(zq_be_zero(be, 0, 8192), 0);
    assert_int_equal(zqcow2_backend_read(be, buf, sizeof(buf), 900), 0);
    assert_int_equal(buf[100] | buf[104], 0);
    if (be->ops.discard)
        assert_int_equal(be->ops.discard(be->self, 0, 4096), 0);
    if (be->ops.invalidate)
        be->ops.invalidate(be->self);
    zqcow2_backend_close(be);
}

/* A lock is free again at once: the next open of the same file must not find it. */
static void test_lock_ends_with_close(void **state)
{
    const struct world *w = *state;

    for (unsigned i = 0; i < 50; i++) {
        struct zqcow2_backend *be = open_world(w);
        if (zq_be_lock(be, ZQCOW2_LOCK_EXCLUSIVE))
            fail_msg("%s: attempt %u finds the lock of a closed backend", w->name, i);
        start(be, 0, ZQCOW2_IO_WRITE, 0, SLOT_BYTES);
        kick(be);
        zqcow2_backend_close(be);
    }
}

/* ---- threads alone ---- */

static unsigned no_more_threads; /* this one and those after it; 0: as many as one likes */

int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
                          void *arg)
{
    if (no_more_threads == 1)
        return EAGAIN;
    no_more_threads -= no_more_threads > 0;
    return __real_pthread_create(thread, attr, run, arg);
}

static void test_wrap_refuses(void **state)
{
    struct zqcow2_backend *inner, *be;
    struct count_hooks c;
    uint64_t n;

    (void)state;
    assert_int_equal(zqcow2_mem_open(4096, NULL, &inner), 0);
    assert_int_equal(zqcow2_threads_wrap(NULL, 1, NULL, &be), -EINVAL);
    assert_int_equal(zqcow2_threads_wrap(inner, 0, NULL, &be), -EINVAL);
    assert_int_equal(zqcow2_threads_wrap(inner, 257, NULL, &be), -EINVAL);
    assert_int_equal(zqcow2_threads_wrap(inner, 1, NULL, NULL), -EINVAL);
    for (int64_t i = 1; i <= 2; i++) {
        count_init(&c);
        c.fail_at = i;
        assert_int_equal(zqcow2_threads_wrap(inner, 2, &c.hooks, &be), -ENOMEM);
        assert_int_equal(c.bytes, 0);
    }
    /* EAGAIN would say that the file is locked. */
    for (unsigned i = 1; i <= 3; i++) {
        count_init(&c);
        no_more_threads = i;
        assert_int_equal(zqcow2_threads_wrap(inner, 3, &c.hooks, &be), -ENOMEM);
        assert_int_equal(c.bytes, 0);
    }
    no_more_threads = 0;
    /* A failed wrap leaves the inner backend with the caller, and in order. */
    assert_int_equal(zqcow2_backend_length(inner, &n), 0);
    c.fail_at = 0;
    assert_int_equal(zqcow2_threads_wrap(inner, 256, &c.hooks, &be), 0);
    zqcow2_backend_close(be);
    assert_int_equal(c.bytes, 0);
}

/* What the inner backend lacks, the wrapped one lacks too. */
static void test_wrap_shows_lacks(void **state)
{
    struct zqcow2_backend_ops few;
    struct zqcow2_backend *inner, *be, *reader;
    struct zqcow2_io io = {.kind = ZQCOW2_IO_WRITE};

    (void)state;
    assert_int_equal(zqcow2_mem_open(4096, NULL, &inner), 0);
    few = (struct zqcow2_backend_ops){
        .size = sizeof(few), .length = inner->ops.length, .readv = inner->ops.readv};
    assert_int_equal(zqcow2_backend_new(&few, inner->self, NULL, &reader), 0);
    assert_int_equal(zqcow2_threads_wrap(reader, 1, NULL, &be), 0);
    assert_null(be->ops.writev);
    assert_false(zq_be_writable(be));
    for (; io.kind <= ZQCOW2_IO_TRUNCATE + 1; io.kind++)
        assert_int_equal(be->ops.submit(be->self, &io), -EOPNOTSUPP);
    zqcow2_backend_close(be);
    zqcow2_backend_close(inner);
}

static int no_zero(void *self, uint64_t off, uint64_t len)
{
    (void)self;
    (void)off;
    (void)len;
    return -EOPNOTSUPP;
}

static void test_wrap_zeroes_by_writing(void **state)
{
    struct zqcow2_backend *be, *inner;
    static uint8_t back[400000];

    (void)state;
    assert_int_equal(zqcow2_mem_open(0, NULL, &inner), 0);
    inner->ops.zero = no_zero;
    assert_int_equal(zqcow2_threads_wrap(inner, 2, NULL, &be), 0);
    memset(back, 1, sizeof(back));
    assert_int_equal(zqcow2_backend_write(be, back, sizeof(back), 0), 0);
    atomic_store(&nr_done, 0);
    start(be, 0, ZQCOW2_IO_ZERO, 1000, 300000);
    wait_done(be, 1);
    assert_int_equal(requests[0].ret, 0);
    assert_int_equal(zqcow2_backend_read(be, back, sizeof(back), 0), 0);
    for (size_t i = 0; i < sizeof(back); i++)
        assert_int_equal(back[i], i < 1000 || i >= 301000);
    start(be, 0, ZQCOW2_IO_TRUNCATE, 12345, 0);
    wait_done(be, 2);
    uint64_t n;
    assert_int_equal(zqcow2_backend_length(be, &n), 0);
    assert_int_equal(n, 12345);
    zqcow2_backend_close(be);
}

static struct world threads_file = {"threads on a file", open_threads_file, 0};
static struct world threads_mem = {"threads on memory", open_threads_memory, 0};
static struct world ring = {"io_uring", open_uring, 0};
static struct world ring_direct = {"io_uring, O_DIRECT", open_uring, ZQCOW2_FILE_DIRECT};

#define ON(test, w) \
    { \
#test " on " #w, test, NULL, NULL, &(w) \
    }
#define ON_ALL(test) \
    ON(test, threads_file), ON(test, threads_mem), ON(test, ring), ON(test, ring_direct)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ALL(test_against_array),
        ON_ALL(test_vectors_and_end),
        ON_ALL(test_close_drains),
        ON_ALL(test_submitters_end),
        ON_ALL(test_blocking_calls),
        ON(test_lock_ends_with_close, threads_file),
        ON(test_lock_ends_with_close, ring),
        cmocka_unit_test(test_wrap_refuses),
        cmocka_unit_test(test_wrap_shows_lacks),
        cmocka_unit_test(test_wrap_zeroes_by_writing),
    };
    int fd = mkstemp(path), failed;

    if (fd < 0 || close(fd) < 0) {
        perror(path);
        return 1;
    }
    failed = cmocka_run_group_tests_name("async", tests, NULL, NULL);
    unlink(path);
    return failed;
}
