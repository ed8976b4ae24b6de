/* SPDX-License-Identifier: MIT */
/* Checks calls against the limits that the store has declared, then passes them on. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "rig/be_strict.h"

void strict_init(struct strict *s, struct store *store)
{
    memset(s, 0, sizeof(*s));
    pthread_mutex_init(&s->lock, NULL);
    s->store = store;
}

void strict_free(struct strict *s)
{
    pthread_mutex_destroy(&s->lock);
    memset(s, 0, sizeof(*s));
}

static void complain(struct strict *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void complain(struct strict *s, const char *fmt, ...)
{
    va_list ap;

    pthread_mutex_lock(&s->lock);
    if (!s->broken++) {
        va_start(ap, fmt);
        vsnprintf(s->why, sizeof(s->why), fmt, ap);
        va_end(ap);
    }
    pthread_mutex_unlock(&s->lock);
}

static uint32_t align_of(const struct strict *s)
{
    return s->store->limits.io_align ? s->store->limits.io_align : 1;
}

static void check_range(struct strict *s, const char *what, uint64_t off, uint64_t len)
{
    const struct zqcow2_limits *l = &s->store->limits;

    pthread_mutex_lock(&s->lock);
    s->calls++;
    pthread_mutex_unlock(&s->lock);
    if (!len)
        complain(s, "%s of no bytes at %#llx", what, (unsigned long long)off);
    if (off % align_of(s) || len % align_of(s))
        complain(s, "%s at %#llx + %#llx breaks io_align %u", what, (unsigned long long)off,
                 (unsigned long long)len, align_of(s));
    if (l->max_transfer && len > l->max_transfer)
        complain(s, "%s of %llu bytes breaks max_transfer %u", what, (unsigned long long)len,
                 l->max_transfer);
}

static void check_vector(struct strict *s, const char *what, const struct iovec *iov, int cnt,
                         uint64_t off)
{
    const struct zqcow2_limits *l = &s->store->limits;
    uint32_t most = l->max_iov ? l->max_iov : 1024, memory = l->buf_align ? l->buf_align : 1;
    uint64_t len = 0;

    if (cnt < 1 || (uint32_t)cnt > most)
        complain(s, "%s of %d elements breaks max_iov %u", what, cnt, most);
    for (int i = 0; i < cnt; i++) {
        if (!iov[i].iov_base || !iov[i].iov_len)
            complain(s, "%s with an empty element", what);
        if ((uintptr_t)iov[i].iov_base % memory || (memory > 1 && iov[i].iov_len % align_of(s)))
            complain(s, "%s with an element of %zu bytes at %p breaks buf_align %u", what,
                     iov[i].iov_len, iov[i].iov_base, memory);
        len += iov[i].iov_len;
    }
    check_range(s, what, off, len);
    if (s->live && (off % 512 || len % 512) && what[0] == 'w')
        complain(s, "%s at %#llx + %#llx is not of whole sectors", what, (unsigned long long)off,
                 (unsigned long long)len);
}

static int op_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct strict *s = self;
    struct rig_be be = store_be(s->store);

    check_vector(s, "read", iov, cnt, off);
    return be.ops->readv(be.self, iov, cnt, off);
}

static int op_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct strict *s = self;
    struct rig_be be = store_be(s->store);

    check_vector(s, "write", iov, cnt, off);
    return be.ops->writev(be.self, iov, cnt, off);
}

static int op_discard(void *self, uint64_t off, uint64_t len)
{
    struct strict *s = self;
    struct rig_be be = store_be(s->store);

    check_range(s, "discard", off, len);
    return be.ops->discard(be.self, off, len);
}

static int op_zero(void *self, uint64_t off, uint64_t len)
{
    struct strict *s = self;
    struct rig_be be = store_be(s->store);

    check_range(s, "zero", off, len);
    return be.ops->zero(be.self, off, len);
}

static int op_length(void *self, uint64_t *bytes)
{
    struct strict *s = self;
    struct rig_be be = store_be(s->store);

    return be.ops->length(be.self, bytes);
}

static int op_truncate(void *self, uint64_t bytes)
{
    struct strict *s = self;
    struct rig_be be = store_be(s->store);

    if (bytes % align_of(s))
        complain(s, "truncate to %#llx breaks io_align %u", (unsigned long long)bytes, align_of(s));
    return be.ops->truncate(be.self, bytes);
}

static int op_flush(void *self)
{
    struct strict *s = self;
    struct rig_be be = store_be(s->store);

    return be.ops->flush(be.self);
}

static int op_limits(void *self, struct zqcow2_limits *out)
{
    struct strict *s = self;
    struct rig_be be = store_be(s->store);

    return be.ops->limits(be.self, out);
}

static int op_lock(void *self, int mode)
{
    struct strict *s = self;
    struct rig_be be = store_be(s->store);

    return be.ops->lock(be.self, mode);
}

struct rig_be strict_be(struct strict *s)
{
    static const struct zqcow2_backend_ops ops = {
        .size = sizeof(ops),
        .name = "strict",
        .length = op_length,
        .readv = op_readv,
        .writev = op_writev,
        .flush = op_flush,
        .limits = op_limits,
        .truncate = op_truncate,
        .discard = op_discard,
        .zero = op_zero,
        .lock = op_lock,
    };

    return (struct rig_be){&ops, s};
}
