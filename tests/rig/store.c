/* SPDX-License-Identifier: MIT */
/* A sparse file in memory: pages appear when written; what was discarded is poisoned. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rig/store.h"

#define STORE_MAX (1ull << 42)

void store_init(struct store *s)
{
    memset(s, 0, sizeof(*s));
    pthread_mutex_init(&s->lock, NULL);
}

void store_free(struct store *s)
{
    for (uint64_t i = 0; i < s->nr_pages; i++)
        free(s->page[i]);
    free(s->page);
    pthread_mutex_destroy(&s->lock);
    memset(s, 0, sizeof(*s));
}

/* A test without memory has nothing to say. */
static void *must(void *p)
{
    if (!p) {
        fprintf(stderr, "the rig is out of memory\n");
        abort();
    }
    return p;
}

static void reserve(struct store *s, uint64_t bytes)
{
    uint64_t need = bytes / STORE_PAGE + 1, room = need + need / 2;

    if (need <= s->nr_pages)
        return;
    s->page = must(realloc(s->page, room * sizeof(*s->page)));
    memset(s->page + s->nr_pages, 0, (room - s->nr_pages) * sizeof(*s->page));
    s->nr_pages = room;
}

void store_copy(struct store *to, const struct store *from)
{
    struct zqcow2_limits limits = to->limits;

    store_free(to);
    store_init(to);
    to->limits = limits;
    reserve(to, from->nr_pages * STORE_PAGE); /* it may have been longer */
    to->length = from->length;
    for (uint64_t i = 0; i < from->nr_pages; i++) {
        if (!from->page[i])
            continue;
        to->page[i] = must(malloc(STORE_PAGE));
        memcpy(to->page[i], from->page[i], STORE_PAGE);
    }
}

/* One step of a walk over [off, off + len): how much of it lies in the page that holds off. */
static size_t piece(uint64_t off, uint64_t len)
{
    uint64_t room = STORE_PAGE - off % STORE_PAGE;

    return (size_t)(len < room ? len : room);
}

static void get(struct store *s, uint8_t *buf, uint64_t len, uint64_t off)
{
    for (size_t n; len; buf += n, off += n, len -= n) {
        uint64_t i = off / STORE_PAGE;

        n = piece(off, len);
        if (i < s->nr_pages && s->page[i])
            memcpy(buf, s->page[i] + off % STORE_PAGE, n);
        else
            memset(buf, 0, n);
    }
}

static void put(struct store *s, const uint8_t *buf, uint64_t len, uint64_t off)
{
    reserve(s, off + len);
    if (off + len > s->length)
        s->length = off + len;
    for (size_t n; len; buf += n, off += n, len -= n) {
        uint8_t **p = &s->page[off / STORE_PAGE];

        n = piece(off, len);
        if (!*p)
            *p = must(calloc(1, STORE_PAGE));
        memcpy(*p + off % STORE_PAGE, buf, n);
    }
}

static void fill(struct store *s, int byte, uint64_t len, uint64_t off)
{
    for (size_t n; len; off += n, len -= n) {
        uint64_t i = off / STORE_PAGE;

        n = piece(off, len);
        if (i < s->nr_pages && s->page[i])
            memset(s->page[i] + off % STORE_PAGE, byte, n);
    }
}

void store_get(struct store *s, void *buf, size_t len, uint64_t off)
{
    pthread_mutex_lock(&s->lock);
    get(s, buf, len, off);
    pthread_mutex_unlock(&s->lock);
}

void store_put(struct store *s, const void *buf, size_t len, uint64_t off)
{
    pthread_mutex_lock(&s->lock);
    put(s, buf, len, off);
    pthread_mutex_unlock(&s->lock);
}

void store_zero(struct store *s, uint64_t len, uint64_t off)
{
    pthread_mutex_lock(&s->lock);
    for (size_t n; len; off += n, len -= n) {
        uint64_t i = off / STORE_PAGE;

        n = piece(off, len);
        if (i >= s->nr_pages || !s->page[i])
            continue;
        memset(s->page[i] + off % STORE_PAGE, 0, n);
        if (n == STORE_PAGE) {
            free(s->page[i]);
            s->page[i] = NULL;
        }
    }
    pthread_mutex_unlock(&s->lock);
}

static void enter(struct store *s)
{
    if (s->yields)
        sched_yield();
    pthread_mutex_lock(&s->lock);
}

static int op_length(void *self, uint64_t *bytes)
{
    struct store *s = self;

    enter(s);
    *bytes = s->length;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static int op_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct store *s = self;

    enter(s);
    for (int i = 0; i < cnt; off += iov[i++].iov_len)
        get(s, iov[i].iov_base, iov[i].iov_len, off);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static int op_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct store *s = self;
    int rc = off >= STORE_MAX ? -EFBIG : 0;

    enter(s);
    for (int i = 0; !rc && i < cnt; off += iov[i++].iov_len)
        put(s, iov[i].iov_base, iov[i].iov_len, off);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static int op_flush(void *self)
{
    (void)self;
    return 0;
}

static int op_limits(void *self, struct zqcow2_limits *out)
{
    struct store *s = self;
    size_t size = out->size;

    *out = s->limits;
    out->size = size;
    return 0;
}

static int op_truncate(void *self, uint64_t bytes)
{
    struct store *s = self;

    if (bytes > STORE_MAX)
        return -EFBIG;
    enter(s);
    if (bytes < s->length)
        fill(s, 0, s->length - bytes, bytes);
    s->length = bytes;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static int op_discard(void *self, uint64_t off, uint64_t len)
{
    struct store *s = self;

    enter(s);
    fill(s, STORE_HOLE, len, off);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static int op_zero(void *self, uint64_t off, uint64_t len)
{
    struct store *s = self;

    if (off + len > STORE_MAX)
        return -EFBIG;
    enter(s);
    fill(s, 0, len, off);
    if (off + len > s->length)
        s->length = off + len;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static int op_lock(void *self, int mode)
{
    struct store *s = self;

    enter(s);
    s->lock_mode = mode;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

struct rig_be store_be(struct store *s)
{
    static const struct zqcow2_backend_ops ops = {
        .size = sizeof(ops),
        .name = "store",
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
