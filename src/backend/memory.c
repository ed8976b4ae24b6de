/* SPDX-License-Identifier: MIT */
/*
 * The memory backend: a sparse radix tree of pages, so that a huge virtual length costs nothing.
 *
 * Transfers hold the lock shared and install missing pages by compare-and-swap; what frees pages
 * holds it alone. Non-overlapping transfers therefore run side by side. A slot only ever changes
 * from NULL to a page or node while the lock is shared, so what a transfer has found stays valid.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <zqcow2/backend.h>

#include "base/bytes.h"
#include "base/mem.h"

#define PAGE_SHIFT 14u
#define PAGE_BYTES ((size_t)1 << PAGE_SHIFT)
#define FAN_SHIFT  10u
#define FAN        ((size_t)1 << FAN_SHIFT)
#define LEVELS     5u /* PAGE_SHIFT + LEVELS * FAN_SHIFT >= 63: every file offset has a place */

struct node {
    _Atomic(void *) slot[FAN]; /* struct node, or at level 0 a page; NULL: reads as zeros */
};

struct memory {
    struct zqcow2_hooks hooks; /* pages and nodes come from these */
    pthread_rwlock_t lock;     /* shared: pages may be added; alone: they may be freed */
    _Atomic uint64_t length;   /* writes beyond it raise it when their bytes are there */
    struct node root;          /* of level LEVELS - 1; lives as long as the backend */
};

/* Bytes under one slot of a node of this level. */
static uint64_t slot_bytes(unsigned level)
{
    return (uint64_t)1 << (PAGE_SHIFT + level * FAN_SHIFT);
}

/* The digit of off, to the base FAN, that belongs to the level. */
static _Atomic(void *) *slot_of(struct node *n, unsigned level, uint64_t off)
{
    return &n->slot[off / slot_bytes(level) % FAN];
}

/* What the slot holds, made on demand. Of two threads that make it the later gives its own back. */
static void *fill_slot(struct memory *m, _Atomic(void *) *slot, size_t size)
{
    /* Zeroed before it is published: another thread may read it at once. */
    void *old = NULL, *fresh = zq_zalloc(&m->hooks, size);

    if (!fresh)
        return NULL;
    if (atomic_compare_exchange_strong(slot, &old, fresh))
        return fresh;
    zq_free(&m->hooks, fresh, size);
    return old;
}

/* The page that holds off; NULL: none (make false), or out of memory. */
static uint8_t *find_page(struct memory *m, uint64_t off, bool make)
{
    struct node *n = &m->root;
    void *p = NULL;

    for (unsigned level = LEVELS; level-- > 0; n = p) {
        _Atomic(void *) *slot = slot_of(n, level, off);
        p = atomic_load(slot);
        if (!p && make)
            p = fill_slot(m, slot, level ? sizeof(struct node) : PAGE_BYTES);
        if (!p)
            return NULL;
    }
    return p;
}

/*
 * Clears [from, to) of the subtree whose first byte is `base`: pages inside are freed, others
 * zeroed in part. Nodes that lie inside as a whole go too.
 */
static void prune(struct memory *m, struct node *n, unsigned level, uint64_t base, uint64_t from,
                  uint64_t to)
{
    uint64_t span = slot_bytes(level);
    uint64_t first = from > base ? (from - base) / span : 0;

    for (uint64_t i = first; i < FAN && base + i * span < to; i++) {
        void *p = atomic_load(&n->slot[i]);
        uint64_t start = base + i * span;
        bool whole = from <= start && to - start >= span;

        if (!p)
            continue;
        if (level)
            prune(m, p, level - 1, start, from, to);
        else if (!whole)
            memset((uint8_t *)p + (zq_max(from, start) - start), 0,
                   (size_t)(zq_min(to, start + span) - zq_max(from, start)));
        if (whole) {
            atomic_store(&n->slot[i], NULL);
            zq_free(&m->hooks, p, level ? sizeof(struct node) : PAGE_BYTES);
        }
    }
}

/* The tree's end, beyond every offset that a transfer may name. */
#define TREE_END ((uint64_t)INT64_MAX + 1)

/* Discard and zero alike: both free the pages, so both read as zeros afterwards. */
static int mem_clear(void *self, uint64_t off, uint64_t len)
{
    struct memory *m = self;
    uint64_t end;

    if (zq_add_overflows(off, len, &end) || end > TREE_END)
        end = TREE_END;
    pthread_rwlock_wrlock(&m->lock);
    prune(m, &m->root, LEVELS - 1, 0, off, end);
    pthread_rwlock_unlock(&m->lock);
    return 0;
}

/* Clears before the length falls below: whatever grows it again must find zeros. */
static int mem_truncate(void *self, uint64_t bytes)
{
    struct memory *m = self;

    if (bytes > INT64_MAX)
        return -EFBIG;
    pthread_rwlock_wrlock(&m->lock);
    if (bytes < atomic_load(&m->length))
        prune(m, &m->root, LEVELS - 1, 0, bytes, TREE_END);
    atomic_store(&m->length, bytes);
    pthread_rwlock_unlock(&m->lock);
    return 0;
}

static int mem_length(void *self, uint64_t *bytes)
{
    struct memory *m = self;

    *bytes = atomic_load(&m->length);
    return 0;
}

static void read_range(struct memory *m, uint8_t *buf, size_t len, uint64_t off)
{
    while (len) {
        size_t in = off % PAGE_BYTES, n = (size_t)zq_min(len, PAGE_BYTES - in);
        const uint8_t *page = find_page(m, off, false);

        if (page)
            memcpy(buf, page + in, n);
        else
            memset(buf, 0, n);
        buf += n;
        off += n;
        len -= n;
    }
}

/*
 * May store a part before it fails: like a disk, it promises no more than whole transfers on
 * success.
 */
static int write_range(struct memory *m, const uint8_t *buf, size_t len, uint64_t off)
{
    while (len) {
        size_t in = off % PAGE_BYTES, n = (size_t)zq_min(len, PAGE_BYTES - in);
        uint8_t *page = find_page(m, off, true);

        if (!page)
            return -ENOMEM;
        memcpy(page + in, buf, n);
        buf += n;
        off += n;
        len -= n;
    }
    return 0;
}

/* Bytes of the whole transfer, or -EFBIG if it leaves the range of file offsets. */
static int transfer_end(const struct iovec *iov, int cnt, uint64_t off, uint64_t *end)
{
    *end = off;
    for (int i = 0; i < cnt; i++) {
        if (zq_add_overflows(*end, iov[i].iov_len, end))
            return -EFBIG;
    }
    return *end > INT64_MAX ? -EFBIG : 0;
}

/* Bytes beyond the length are never set (truncate clears them), so they read as zeros. */
static int mem_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct memory *m = self;
    uint64_t end;
    int rc = transfer_end(iov, cnt, off, &end);

    if (rc < 0)
        return rc;
    pthread_rwlock_rdlock(&m->lock);
    for (int i = 0; i < cnt; off += iov[i++].iov_len)
        read_range(m, iov[i].iov_base, iov[i].iov_len, off);
    pthread_rwlock_unlock(&m->lock);
    return 0;
}

/* A maximum: writers run side by side, and none may lower what another has raised. */
static void grow_to(struct memory *m, uint64_t end)
{
    uint64_t old = atomic_load(&m->length);

    while (old < end && !atomic_compare_exchange_weak(&m->length, &old, end))
        ;
}

static int mem_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct memory *m = self;
    uint64_t start = off, end;
    int rc = transfer_end(iov, cnt, off, &end);

    if (rc < 0)
        return rc;
    pthread_rwlock_rdlock(&m->lock);
    for (int i = 0; i < cnt && rc == 0; off += iov[i++].iov_len)
        rc = write_range(m, iov[i].iov_base, iov[i].iov_len, off);
    /* After a failure too: what was stored must lie below the length. */
    if (end > start)
        grow_to(m, end);
    pthread_rwlock_unlock(&m->lock);
    return rc;
}

/* Present, though it does nothing: zqcow2_backend_new() requires a flush of whatever can write. */
static int mem_flush(void *self)
{
    (void)self;
    return 0;
}

static void mem_close(void *self)
{
    struct memory *m = self;
    struct zqcow2_hooks hooks = m->hooks;

    prune(m, &m->root, LEVELS - 1, 0, 0, TREE_END);
    pthread_rwlock_destroy(&m->lock);
    zq_free(&hooks, m, sizeof(*m));
}

static const struct zqcow2_backend_ops mem_ops = {
    .size = sizeof(mem_ops),
    .name = "memory",
    .close = mem_close,
    .length = mem_length,
    .readv = mem_readv,
    .writev = mem_writev,
    .flush = mem_flush,
    .truncate = mem_truncate,
    .discard = mem_clear,
    .zero = mem_clear,
};

/* Costs one node whatever `bytes` is: pages are made when they are written. */
int zqcow2_mem_open(uint64_t bytes, const struct zqcow2_hooks *hooks, struct zqcow2_backend **be)
{
    struct zqcow2_hooks h;
    struct memory *m;
    int rc = be ? zq_hooks_init(&h, hooks) : -EINVAL;

    if (rc < 0)
        return rc;
    if (bytes > INT64_MAX)
        return -EFBIG;
    m = zq_zalloc(&h, sizeof(*m));
    if (!m)
        return -ENOMEM;
    m->hooks = h;
    atomic_store(&m->length, bytes);
    rc = -pthread_rwlock_init(&m->lock, NULL);
    if (rc < 0) {
        zq_free(&h, m, sizeof(*m));
        return rc;
    }
    rc = zqcow2_backend_new(&mem_ops, m, &h, be);
    if (rc < 0)
        mem_close(m);
    return rc;
}
