/* SPDX-License-Identifier: MIT */
/* A backend with a thread of its own, whose flush blocks: others must get their completions. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <zqcow2/backend.h>
#include <zqcow2/queue.h>

#define BYTES (64u << 20)
#define UNIT  4096u

struct held {
    struct zqcow2_backend *mem;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct zqcow2_io *head; /* linked by backend[0] */
    bool hold, holding, stop;
};

static int held_length(void *self, uint64_t *bytes)
{
    (void)self;
    *bytes = BYTES;
    return 0;
}

static int each(struct held *h, const struct iovec *iov, int cnt, uint64_t off, bool write)
{
    int rc = 0;

    for (int i = 0; i < cnt && rc == 0; off += iov[i++].iov_len)
        rc = write ? zqcow2_backend_write(h->mem, iov[i].iov_base, iov[i].iov_len, off) :
                     zqcow2_backend_read(h->mem, iov[i].iov_base, iov[i].iov_len, off);
    return rc;
}

static int held_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return each(self, iov, cnt, off, false);
}

static int held_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return each(self, iov, cnt, off, true);
}

static int held_flush(void *self)
{
    struct held *h = self;

    pthread_mutex_lock(&h->lock);
    h->holding = h->hold;
    pthread_cond_broadcast(&h->changed);
    while (h->hold)
        pthread_cond_wait(&h->changed, &h->lock);
    pthread_mutex_unlock(&h->lock);
    return 0;
}

static int held_truncate(void *self, uint64_t bytes)
{
    (void)self;
    return bytes <= BYTES ? 0 : -ENOSPC;
}

static int held_submit(void *self, struct zqcow2_io *io)
{
    struct held *h = self;

    if (io->kind > ZQCOW2_IO_WRITE)
        return -EOPNOTSUPP;
    pthread_mutex_lock(&h->lock);
    io->backend[0] = h->head;
    h->head = io;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
    return 0;
}

static void *serve(void *arg)
{
    struct held *h = arg;
    bool slow;

    pthread_mutex_lock(&h->lock);
    while (!h->stop || h->head) {
        struct zqcow2_io *io = h->head;

        if (!io) {
            pthread_cond_wait(&h->changed, &h->lock);
            continue;
        }
        h->head = io->backend[0];
        slow = h->hold;
        pthread_mutex_unlock(&h->lock);
        if (slow) /* the submitter has left the library by then */
            usleep(50000);
        zqcow2_io_done(io,
                       each(h, io->iov, (int)io->iovcnt, io->offset, io->kind == ZQCOW2_IO_WRITE));
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

static void held_close(void *self)
{
    struct held *h = self;

    pthread_mutex_lock(&h->lock);
    h->stop = true;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->thread, NULL);
    zqcow2_backend_close(h->mem);
}

static void *flush(void *img)
{
    return (void *)(intptr_t)zqcow2_flush(img);
}

static void on_done(void *arg, const struct zqcow2_result *res)
{
    *(int *)arg = res->ret;
}

static void let_go(struct held *h)
{
    pthread_mutex_lock(&h->lock);
    h->hold = false;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

static void await_hold(struct held *h)
{
    pthread_mutex_lock(&h->lock);
    while (!h->holding)
        pthread_cond_wait(&h->changed, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

static const struct zqcow2_backend_ops ops = {
    .size = sizeof(ops),
    .name = "held",
    .close = held_close,
    .length = held_length,
    .readv = held_readv,
    .writev = held_writev,
    .flush = held_flush,
    .truncate = held_truncate,
    .submit = held_submit,
};

/* One thread is held in flush(); another's read is complete, is heard of, and is delivered. */
static void test_others_go_on(void **state)
{
    struct held h = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct zqcow2_create_options how = {.size = sizeof(how),
                                        .virtual_size = 16 << 20,
                                        .zone_size = 4 << 20,
                                        .flags = ZQCOW2_CREATE_FORCE};
    struct zqcow2_open_options opt = {.size = sizeof(opt), .flags = ZQCOW2_OPEN_RDWR};
    static uint8_t buf[UNIT];
    struct iovec iov = {buf, UNIT};
    int ret = 1;
    struct zqcow2_request read = {.size = sizeof(read),
                                  .op = ZQCOW2_OP_READ,
                                  .iov = &iov,
                                  .iovcnt = 1,
                                  .done = on_done,
                                  .arg = &ret};
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    struct zqcow2_queue *q;
    struct pollfd p = {.events = POLLIN};
    uint64_t zone = 0;
    pthread_t flusher;
    void *rc;
    bool heard, delivered;

    (void)state;
    assert_int_equal(zqcow2_mem_open(BYTES, NULL, &h.mem), 0);
    assert_int_equal(pthread_create(&h.thread, NULL, serve, &h), 0);
    assert_int_equal(zqcow2_backend_new(&ops, &h, NULL, &be), 0);
    assert_int_equal(zqcow2_create(be, &how, NULL), 0);
    assert_int_equal(zqcow2_open(be, &opt, &img, NULL), 0);
    assert_int_equal(zqcow2_queue_open(img, 4, &q), 0);
    assert_int_equal(zqcow2_append(img, buf, UNIT, &zone, 0), 0);
    p.fd = zqcow2_queue_fd(q);

    h.hold = true;
    assert_int_equal(pthread_create(&flusher, NULL, flush, img), 0);
    await_hold(&h);
    zqcow2_queue_poll(q, 0);
    assert_int_equal(zqcow2_queue_submit(q, &read, 1), 1);
    heard = poll(&p, 1, 10000) == 1;
    zqcow2_queue_poll(q, 0);
    assert_int_equal(ret == 0, heard);
    if (heard) { /* the same by waiting */
        ret = 1;
        assert_int_equal(zqcow2_queue_submit(q, &read, 1), 1);
        zqcow2_queue_wait(q, 1, 10000);
    }
    delivered = ret == 0;
    let_go(&h);
    pthread_join(flusher, &rc);
    zqcow2_queue_wait(q, 1, -1);
    assert_true(heard);
    assert_true(delivered);
    assert_int_equal((intptr_t)rc, 0);
    assert_int_equal(zqcow2_queue_close(q), 0);
    assert_int_equal(zqcow2_close(img), 0);
}

/* A backend in use cannot be wrapped. */
static void test_wrap_in_use(void **state)
{
    struct zqcow2_create_options how = {
        .size = sizeof(how), .virtual_size = 16 << 20, .flags = ZQCOW2_CREATE_FORCE};
    struct zqcow2_open_options opt = {.size = sizeof(opt), .flags = ZQCOW2_OPEN_BORROW};
    struct zqcow2_backend *mem, *be;
    struct zqcow2_image *img;

    (void)state;
    assert_int_equal(zqcow2_mem_open(1 << 20, NULL, &mem), 0);
    assert_int_equal(zqcow2_create(mem, &how, NULL), 0);
    assert_int_equal(zqcow2_open(mem, &opt, &img, NULL), 0);
    assert_int_equal(zqcow2_threads_wrap(mem, 2, NULL, &be), -EBUSY);
    assert_int_equal(zqcow2_close(img), 0);
    assert_int_equal(zqcow2_threads_wrap(mem, 2, NULL, &be), 0);
    assert_int_equal(zqcow2_threads_wrap(mem, 2, NULL, &be), -EBUSY);
    zqcow2_backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_others_go_on),
        cmocka_unit_test(test_wrap_in_use),
    };

    return cmocka_run_group_tests_name("held", tests, NULL, NULL);
}
