/* SPDX-License-Identifier: MIT */
/* Hooks that count what is held, and let the n-th allocation fail. For the backends' unit tests. */
#ifndef COUNT_HOOKS_H
#define COUNT_HOOKS_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include <zqcow2/zqcow2.h>

struct count_hooks {
    struct zqcow2_hooks hooks;
    _Atomic int64_t bytes; /* asked for and not given back */
    _Atomic int64_t calls;
    int64_t fail_at; /* this call and those after it fail; 0: none */
};

static inline void *count_alloc(void *ctx, size_t align, size_t size)
{
    struct count_hooks *c = ctx;
    int64_t n = atomic_fetch_add(&c->calls, 1) + 1;
    void *p = NULL;

    if (c->fail_at && n >= c->fail_at)
        return NULL;
    if (posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size))
        return NULL;
    atomic_fetch_add(&c->bytes, (int64_t)size);
    return p;
}

static inline void count_free(void *ctx, void *ptr, size_t size)
{
    struct count_hooks *c = ctx;

    atomic_fetch_sub(&c->bytes, (int64_t)size);
    free(ptr);
}

static inline void count_init(struct count_hooks *c)
{
    *c = (struct count_hooks){.hooks = ZQCOW2_HOOKS_INIT};
    c->hooks.ctx = c;
    c->hooks.alloc = count_alloc;
    c->hooks.free = count_free;
}

/* xorshift64*: the tests' random numbers, from a seed that is never 0. */
static inline uint64_t next_random(uint64_t *s)
{
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return *s * 0x2545F4914F6CDD1Dull;
}

#endif
