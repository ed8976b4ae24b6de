/* SPDX-License-Identifier: MIT */
/* The only caller of an allocator; also copies size-led structs across the public boundary. */
#include "base/mem.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const uint8_t zq_zeros[ZQ_ZEROS_BYTES] __attribute__((aligned(4096)));

/* posix_memalign() only where malloc() does not align enough: it is slower, and wastes memory. */
static void *libc_alloc(void *ctx, size_t align, size_t size)
{
    void *p = NULL;

    (void)ctx;
    if (align <= _Alignof(max_align_t))
        return malloc(size);
    return posix_memalign(&p, align, size) ? NULL : p;
}

static void libc_free(void *ctx, void *ptr, size_t size)
{
    (void)ctx;
    (void)size;
    free(ptr);
}

/*
 * Memory from one allocator must never reach the other's free, so both hooks are given or neither.
 * The log may be absent: zq_log() checks.
 */
int zq_hooks_init(struct zqcow2_hooks *out, const struct zqcow2_hooks *in)
{
    struct zqcow2_hooks h = ZQCOW2_HOOKS_INIT;

    if (in) {
        int rc = zq_copy_sized(&h, sizeof(h), in, offsetof(struct zqcow2_hooks, log));
        if (rc < 0)
            return rc;
    }
    if (!h.alloc != !h.free || h.reserved || h.log_level < 0 || h.log_level > ZQCOW2_LOG_DEBUG)
        return -EINVAL;
    if (!h.alloc) {
        h.alloc = libc_alloc;
        h.free = libc_free;
    }
    if (!h.log_level)
        h.log_level = ZQCOW2_LOG_WARN;
    *out = h;
    return 0;
}

/*
 * A size of 0 returns NULL whatever the allocator would do, so callers treat it as they treat
 * failure.
 */
void *zq_alloc(const struct zqcow2_hooks *h, size_t align, uint64_t size)
{
    size_t bytes = (size_t)size;

    return bytes && bytes == size ? h->alloc(h->ctx, align, bytes) : NULL;
}

void *zq_zalloc(const struct zqcow2_hooks *h, uint64_t size)
{
    void *p = zq_alloc(h, _Alignof(max_align_t), size);

    if (p)
        memset(p, 0, (size_t)size);
    return p;
}

void *zq_zalloc_array(const struct zqcow2_hooks *h, uint64_t n, size_t size)
{
    uint64_t bytes;

    if (__builtin_mul_overflow(n, size, &bytes))
        return NULL;
    return zq_zalloc(h, bytes);
}

void zq_free(const struct zqcow2_hooks *h, void *p, uint64_t size)
{
    if (p)
        h->free(h->ctx, p, (size_t)size);
}

void *zq_stock_take(struct zq_stock *s, const struct zqcow2_hooks *h, size_t size)
{
    void *p = s->one;

    s->one = NULL;
    return p ? memset(p, 0, size) : zq_zalloc(h, size);
}

void zq_stock_put(struct zq_stock *s, const struct zqcow2_hooks *h, void *p, size_t size)
{
    if (s->one)
        zq_free(h, p, size);
    else
        s->one = p;
}

int zq_copy_sized(void *dst, size_t dst_size, const void *src, size_t min)
{
    size_t size;

    memcpy(&size, src, sizeof(size));
    if (size < min)
        return -EINVAL;
    /* A newer program asks for something that this library cannot do: refused, not ignored. */
    for (size_t i = dst_size; i < size; i++) {
        if (((const unsigned char *)src)[i])
            return -E2BIG;
    }
    memset(dst, 0, dst_size);
    memcpy(dst, src, size < dst_size ? size : dst_size);
    memcpy(dst, &dst_size, sizeof(dst_size));
    return 0;
}

int zq_return_sized(void *dst, const void *src, size_t src_size, size_t min)
{
    size_t size;

    memcpy(&size, dst, sizeof(size));
    if (size < min)
        return -EINVAL;
    memset(dst, 0, size);
    memcpy(dst, src, size < src_size ? size : src_size);
    memcpy(dst, &size, sizeof(size));
    return 0;
}
