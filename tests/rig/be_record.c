/* SPDX-License-Identifier: MIT */
/* Counts backend calls by kind and keeps, on request, a log that can be replayed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rig/be_record.h"

void record_init(struct record *r, struct rig_be under)
{
    memset(r, 0, sizeof(*r));
    pthread_mutex_init(&r->lock, NULL);
    r->under = under;
}

void record_reset(struct record *r)
{
    for (size_t i = 0; i < r->nr; i++)
        free(r->log[i].data);
    r->nr = 0;
    memset(r->calls, 0, sizeof(r->calls));
    memset(r->bytes, 0, sizeof(r->bytes));
}

void record_free(struct record *r)
{
    record_reset(r);
    free(r->log);
    pthread_mutex_destroy(&r->lock);
    memset(r, 0, sizeof(*r));
}

static uint64_t total(const struct iovec *iov, int cnt)
{
    uint64_t sum = 0;

    for (int i = 0; i < cnt; i++)
        sum += iov[i].iov_len;
    return sum;
}

static uint8_t *gather(const struct iovec *iov, int cnt, uint64_t len)
{
    uint8_t *data = malloc(len ? (size_t)len : 1), *p = data;

    if (!data)
        abort();
    for (int i = 0; i < cnt; p += iov[i++].iov_len)
        memcpy(p, iov[i].iov_base, iov[i].iov_len);
    return data;
}

static void append(struct record *r, struct record_entry e)
{
    if (r->nr == r->room) {
        r->room = r->room ? 2 * r->room : 64;
        r->log = realloc(r->log, r->room * sizeof(*r->log));
        if (!r->log)
            abort();
    }
    r->log[r->nr++] = e;
}

/* What never ends is noticed by its work and not by the time that it takes. */
static void watch(const struct record *r)
{
    uint64_t sum = 0;

    for (unsigned kind = 0; kind <= ZQCOW2_IO_TRUNCATE; kind++)
        sum += r->calls[kind];
    if (!r->limit || sum <= r->limit)
        return;
    fprintf(stderr, "no end: more than %llu calls of the backend: %s\n",
            (unsigned long long)r->limit, r->what);
    exit(1);
}

static int note(struct record *r, uint32_t kind, uint64_t off, uint64_t len,
                const struct iovec *iov, int cnt, int ret)
{
    struct record_entry e = {.kind = kind, .ret = ret, .offset = off, .length = len};

    pthread_mutex_lock(&r->lock);
    r->calls[kind]++;
    r->bytes[kind] += len;
    watch(r);
    if (r->keep && kind != ZQCOW2_IO_READ) {
        if (kind == ZQCOW2_IO_WRITE)
            e.data = gather(iov, cnt, len);
        append(r, e);
    }
    pthread_mutex_unlock(&r->lock);
    return ret;
}

static int op_length(void *self, uint64_t *bytes)
{
    struct record *r = self;

    return r->under.ops->length(r->under.self, bytes);
}

static int op_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct record *r = self;
    int rc = r->under.ops->readv(r->under.self, iov, cnt, off);

    return note(r, ZQCOW2_IO_READ, off, total(iov, cnt), iov, cnt, rc);
}

static int op_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct record *r = self;
    int rc = r->under.ops->writev(r->under.self, iov, cnt, off);

    return note(r, ZQCOW2_IO_WRITE, off, total(iov, cnt), iov, cnt, rc);
}

static int op_flush(void *self)
{
    struct record *r = self;

    return note(r, ZQCOW2_IO_FLUSH, 0, 0, NULL, 0, r->under.ops->flush(r->under.self));
}

static int op_limits(void *self, struct zqcow2_limits *out)
{
    struct record *r = self;

    return r->under.ops->limits(r->under.self, out);
}

static int op_truncate(void *self, uint64_t bytes)
{
    struct record *r = self;
    int rc = r->under.ops->truncate(r->under.self, bytes);

    return note(r, ZQCOW2_IO_TRUNCATE, bytes, 0, NULL, 0, rc);
}

static int op_discard(void *self, uint64_t off, uint64_t len)
{
    struct record *r = self;
    int rc = r->under.ops->discard(r->under.self, off, len);

    return note(r, ZQCOW2_IO_DISCARD, off, len, NULL, 0, rc);
}

static int op_zero(void *self, uint64_t off, uint64_t len)
{
    struct record *r = self;
    int rc = r->under.ops->zero(r->under.self, off, len);

    return note(r, ZQCOW2_IO_ZERO, off, len, NULL, 0, rc);
}

static int op_lock(void *self, int mode)
{
    struct record *r = self;

    return r->under.ops->lock(r->under.self, mode);
}

struct rig_be record_be(struct record *r)
{
    static const struct zqcow2_backend_ops ops = {
        .size = sizeof(ops),
        .name = "record",
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

    return (struct rig_be){&ops, r};
}

static void redo(const struct record_entry *e, struct rig_be be)
{
    struct iovec v = {e->data, (size_t)e->length};

    if (e->kind == ZQCOW2_IO_WRITE)
        be.ops->writev(be.self, &v, 1, e->offset);
    else if (e->kind == ZQCOW2_IO_ZERO)
        be.ops->zero(be.self, e->offset, e->length);
    else if (e->kind == ZQCOW2_IO_DISCARD)
        be.ops->discard(be.self, e->offset, e->length);
    else if (e->kind == ZQCOW2_IO_TRUNCATE)
        be.ops->truncate(be.self, e->offset);
}

void record_replay(const struct record *r, size_t n, struct store *to)
{
    for (size_t i = 0; i < n && i < r->nr; i++) {
        if (!r->log[i].ret)
            redo(&r->log[i], store_be(to));
    }
}
