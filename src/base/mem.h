/* SPDX-License-Identifier: MIT */
/* All memory of the library goes through the hooks of the image or backend that it belongs to. */
#ifndef ZQ_BASE_MEM_H
#define ZQ_BASE_MEM_H

#include <zqcow2/zqcow2.h>

/* Fills *out from the caller's hooks (NULL: the C library). -EINVAL, -E2BIG: they are wrong. */
int zq_hooks_init(struct zqcow2_hooks *out, const struct zqcow2_hooks *in);

/*
 * NULL when out of memory or when the size overflows. Sizes are of 64 bits, so that what does not
 * fit into a 32-bit size_t fails here instead of being cut short before.
 */
void *zq_alloc(const struct zqcow2_hooks *h, size_t align, uint64_t size);
void *zq_zalloc(const struct zqcow2_hooks *h, uint64_t size);
void *zq_zalloc_array(const struct zqcow2_hooks *h, uint64_t n, size_t size);
/* size must be what was asked for; p may be NULL. */
void zq_free(const struct zqcow2_hooks *h, void *p, uint64_t size);

/* What zeros are written from, aligned for every file. */
#define ZQ_ZEROS_BYTES (64u << 10)
extern const uint8_t zq_zeros[ZQ_ZEROS_BYTES];

/*
 * Memory for objects of one size of which most live as long as one request: the last one that was
 * put back is kept for the next. All 0 at first. The caller's mutex protects it.
 */
struct zq_stock {
    void *one;
};
void *zq_stock_take(struct zq_stock *s, const struct zqcow2_hooks *h, size_t size); /* zeroed */
void zq_stock_put(struct zq_stock *s, const struct zqcow2_hooks *h, void *p, size_t size);

/*
 * Copies a caller's size-led struct: min(sizes) bytes, the rest zero. -EINVAL: its size is below
 * min; -E2BIG: it holds non-zero bytes that this library does not know.
 */
int zq_copy_sized(void *dst, size_t dst_size, const void *src, size_t min);
/*
 * The way back: fills the caller's struct, whose first member is its size and stays as it is. What
 * this library does not know becomes 0. -EINVAL: its size is below min.
 */
int zq_return_sized(void *dst, const void *src, size_t src_size, size_t min);

#endif
