/* SPDX-License-Identifier: MIT */
/* Allocator hooks that fail on demand and notice leaks, double frees and wrong sizes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rig/heap_fault.h"

#define MAGIC 0x7a71626c6f636b21ull
#define JUNK  0xa5

/* Stands before each block. `base` is what malloc gave. */
struct block {
    uint64_t magic;
    struct block *next, *prev;
    void *base;
    size_t size;
};

void heap_init(struct heap *h)
{
    memset(h, 0, sizeof(*h));
    pthread_mutex_init(&h->lock, NULL);
}

void heap_destroy(struct heap *h)
{
    while (h->blocks) {
        struct block *b = h->blocks;

        h->blocks = b->next;
        free(b->base);
    }
    pthread_mutex_destroy(&h->lock);
    memset(h, 0, sizeof(*h));
}

void heap_plan(struct heap *h, uint64_t fail_at, bool for_ever)
{
    pthread_mutex_lock(&h->lock);
    h->calls = h->failed = 0;
    h->fail_at = fail_at;
    h->for_ever = for_ever;
    pthread_mutex_unlock(&h->lock);
}

static bool must_fail(struct heap *h)
{
    h->calls++;
    if (!h->fail_at || h->calls < h->fail_at || (h->calls > h->fail_at && !h->for_ever))
        return false;
    h->failed++;
    return true;
}

static void link_block(struct heap *h, struct block *b)
{
    b->prev = NULL;
    b->next = h->blocks;
    if (b->next)
        b->next->prev = b;
    h->blocks = b;
    h->live++;
    h->live_bytes += b->size;
    if (h->live_bytes > h->peak_bytes)
        h->peak_bytes = h->live_bytes;
}

static void unlink_block(struct heap *h, struct block *b)
{
    if (b->prev)
        b->prev->next = b->next;
    else
        h->blocks = b->next;
    if (b->next)
        b->next->prev = b->prev;
    h->live--;
    h->live_bytes -= b->size;
}

/* New memory holds junk, so that nobody lives on lucky zeros. */
static void *hook_alloc(void *ctx, size_t align, size_t size)
{
    struct heap *h = ctx;
    struct block *b = NULL;
    void *base;
    uintptr_t at;

    if (align < _Alignof(max_align_t))
        align = _Alignof(max_align_t);
    base = malloc(size + align + sizeof(*b));
    pthread_mutex_lock(&h->lock);
    if (!must_fail(h) && base) {
        at = ((uintptr_t)base + sizeof(*b) + align - 1) & ~(uintptr_t)(align - 1);
        b = (struct block *)at - 1;
        *b = (struct block){.magic = MAGIC, .base = base, .size = size};
        link_block(h, b);
    }
    pthread_mutex_unlock(&h->lock);
    if (!b) {
        free(base);
        return NULL;
    }
    return memset(b + 1, JUNK, size);
}

static void complain(struct heap *h, const char *what, size_t was, size_t said)
{
    if (!h->error[0])
        snprintf(h->error, sizeof(h->error), "free %s: block of %zu bytes, freed as %zu", what, was,
                 said);
}

static void hook_free(void *ctx, void *ptr, size_t size)
{
    struct heap *h = ctx;
    struct block *b = (struct block *)ptr - 1;
    void *base = NULL;

    pthread_mutex_lock(&h->lock);
    if (!ptr) {
        complain(h, "of NULL", 0, size);
    } else if (b->magic != MAGIC) {
        complain(h, "of a block that is not live", 0, size);
    } else {
        if (b->size != size)
            complain(h, "with the wrong size", b->size, size);
        b->magic = 0;
        unlink_block(h, b);
        base = b->base;
    }
    pthread_mutex_unlock(&h->lock);
    if (base)
        memset(ptr, JUNK, size < b->size ? size : b->size);
    free(base);
}

struct zqcow2_hooks heap_hooks(struct heap *h)
{
    struct zqcow2_hooks hooks = ZQCOW2_HOOKS_INIT;

    hooks.ctx = h;
    hooks.alloc = hook_alloc;
    hooks.free = hook_free;
    return hooks;
}

const char *heap_verdict(struct heap *h)
{
    if (!h->error[0] && h->live)
        snprintf(h->error, sizeof(h->error), "leak: %llu blocks, %llu bytes, one of %zu",
                 (unsigned long long)h->live, (unsigned long long)h->live_bytes, h->blocks->size);
    return h->error[0] ? h->error : NULL;
}
