/* SPDX-License-Identifier: MIT */
/* Counts what an image asks of its backend. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "counts/tally.h"

static uint64_t count(struct tally *t, unsigned kind, const struct iovec *iov, int cnt)
{
    uint64_t sum = 0;

    for (int i = 0; i < cnt; i++)
        sum += iov[i].iov_len;
    t->calls[kind]++;
    t->bytes[kind] += sum;
    return sum;
}

static int op_length(void *self, uint64_t *bytes)
{
    struct rig_be s = store_be(&((struct tally *)self)->store);

    return s.ops->length(s.self, bytes);
}

static int op_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct tally *t = self;
    struct rig_be s = store_be(&t->store);
    uint64_t n = t->calls[ZQCOW2_IO_READ], len = count(t, ZQCOW2_IO_READ, iov, cnt);

    if (n < TALLY_READS) {
        t->read[n].off = off;
        t->read[n].len = len;
    }
    return s.ops->readv(s.self, iov, cnt, off);
}

static int op_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct tally *t = self;
    struct rig_be s = store_be(&t->store);
    uint64_t len = count(t, ZQCOW2_IO_WRITE, iov, cnt);

    if (t->forget && len >= t->forget) {
        t->data += len;
        return 0;
    }
    return s.ops->writev(s.self, iov, cnt, off);
}

static int op_flush(void *self)
{
    count(self, ZQCOW2_IO_FLUSH, NULL, 0);
    return 0;
}

static int op_truncate(void *self, uint64_t bytes)
{
    struct tally *t = self;
    struct rig_be s = store_be(&t->store);

    count(t, ZQCOW2_IO_TRUNCATE, NULL, 0);
    return s.ops->truncate(s.self, bytes);
}

static int op_discard(void *self, uint64_t off, uint64_t len)
{
    struct tally *t = self;
    struct rig_be s = store_be(&t->store);

    count(t, ZQCOW2_IO_DISCARD, NULL, 0);
    return s.ops->discard(s.self, off, len);
}

static int op_zero(void *self, uint64_t off, uint64_t len)
{
    struct tally *t = self;
    struct rig_be s = store_be(&t->store);

    count(t, ZQCOW2_IO_ZERO, NULL, 0);
    return s.ops->zero(s.self, off, len);
}

/* As the file backend does: no bytes are moved. */
static int op_allocate(void *self, uint64_t off, uint64_t len)
{
    struct tally *t = self;
    struct rig_be s = store_be(&t->store);

    t->allocates++;
    return s.ops->zero(s.self, off, len);
}

static const struct zqcow2_backend_ops ops = {
    .size = sizeof(ops),
    .name = "tally",
    .length = op_length,
    .readv = op_readv,
    .writev = op_writev,
    .flush = op_flush,
    .truncate = op_truncate,
    .discard = op_discard,
    .zero = op_zero,
    .allocate = op_allocate,
};

/* ---- asynchronous ---- */

static int op_submit(void *self, struct zqcow2_io *io)
{
    struct tally *t = self;

    if (io->kind > ZQCOW2_IO_WRITE || t->nr_held == TALLY_HELD)
        return -EOPNOTSUPP;
    t->held[t->nr_held++] = io;
    return 0;
}

static void op_kick(void *self)
{
    ((struct tally *)self)->kicks++;
}

static void op_wake(void *self)
{
    (void)self;
}

static int op_poll(void *self, int timeout_ms)
{
    struct tally *t = self;
    unsigned n = t->nr_held;

    (void)timeout_ms;
    t->nr_held = 0;
    for (unsigned i = 0; i < n; i++) {
        struct zqcow2_io *io = t->held[i];
        int (*call)(void *, const struct iovec *, int, uint64_t) =
            io->kind == ZQCOW2_IO_READ ? op_readv : op_writev;
        zqcow2_io_done(io, call(t, io->iov, (int)io->iovcnt, io->offset));
    }
    return (int)n;
}

static int op_fd(void *self)
{
    (void)self;
    return -1;
}

void tally_init(struct tally *t)
{
    memset(t, 0, sizeof(*t));
    store_init(&t->store);
    heap_init(&t->heap);
    t->hooks = heap_hooks(&t->heap);
}

void tally_free(struct tally *t)
{
    const char *verdict = heap_verdict(&t->heap);

    if (verdict)
        fail_msg("memory: %s", verdict);
    store_free(&t->store);
    heap_destroy(&t->heap);
}

void tally_reset(struct tally *t)
{
    memset(t->calls, 0, sizeof(t->calls));
    memset(t->bytes, 0, sizeof(t->bytes));
    t->data = 0;
    t->kicks = 0;
    t->allocates = 0;
}

uint64_t tally_calls(const struct tally *t)
{
    uint64_t sum = t->allocates;

    for (unsigned i = 0; i <= ZQCOW2_IO_TRUNCATE; i++)
        sum += t->calls[i];
    return sum;
}

struct zqcow2_backend *tally_backend(struct tally *t)
{
    struct zqcow2_backend_ops table = ops;
    struct zqcow2_backend *be = NULL;

    if (t->async) {
        table.submit = op_submit;
        table.kick = op_kick;
        table.wake = op_wake;
        table.poll = op_poll;
        table.fd = op_fd;
    }
    assert_int_equal(zqcow2_backend_new(&table, t, &t->hooks, &be), 0);
    return be;
}

void tally_create(struct tally *t, const struct zqcow2_create_options *o)
{
    struct zqcow2_backend *be = tally_backend(t);
    struct zqcow2_create_options with = *o;
    struct zqcow2_error err;

    with.hooks = &t->hooks;
    if (zqcow2_create(be, &with, &err))
        fail_msg("create: %s", err.text);
    zqcow2_backend_close(be);
}

void tally_open(struct tally *t, const struct zqcow2_open_options *o)
{
    struct zqcow2_open_options with = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_error err;

    if (o)
        with = *o;
    with.hooks = &t->hooks;
    with.flags |= ZQCOW2_OPEN_RDWR;
    if (zqcow2_open(tally_backend(t), &with, &t->img, &err))
        fail_msg("open: %s", err.text);
}

void tally_close(struct tally *t)
{
    assert_int_equal(zqcow2_close(t->img), 0);
}

void tally_judge(const struct tally *t, uint64_t writes, uint64_t flushes, const char *file,
                 int line)
{
    uint64_t other = tally_calls(t) - t->calls[ZQCOW2_IO_WRITE] - t->calls[ZQCOW2_IO_FLUSH];

    if (t->calls[ZQCOW2_IO_WRITE] == writes && t->calls[ZQCOW2_IO_FLUSH] == flushes && !other)
        return;
    fail_msg("%s:%d: %llu writes, %llu flushes, %llu other calls; expected %llu, %llu, 0", file,
             line, (unsigned long long)t->calls[ZQCOW2_IO_WRITE],
             (unsigned long long)t->calls[ZQCOW2_IO_FLUSH], (unsigned long long)other,
             (unsigned long long)writes, (unsigned long long)flushes);
}
