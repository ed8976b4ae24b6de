/* SPDX-License-Identifier: MIT */
/* Big- and little-endian access, checked and rounding arithmetic. */
#ifndef ZQ_BASE_BYTES_H
#define ZQ_BASE_BYTES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define ZQ_SECTOR 512u

/* Tables of qcow2 are big-endian, write-pointer entries have either order. p needs no alignment. */
static inline uint16_t zq_be16(const void *p)
{
    const uint8_t *b = p;
    return (uint16_t)((unsigned)b[0] << 8 | b[1]);
}

static inline uint32_t zq_be32(const void *p)
{
    const uint8_t *b = p;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static inline uint64_t zq_be64(const void *p)
{
    uint64_t v;

    memcpy(&v, p, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    return v;
}

static inline void zq_put_be16(void *p, uint16_t v)
{
    uint8_t *b = p;
    b[0] = (uint8_t)(v >> 8);
    b[1] = (uint8_t)v;
}

static inline void zq_put_be32(void *p, uint32_t v)
{
    uint8_t *b = p;
    for (int i = 0; i < 4; i++)
        b[i] = (uint8_t)(v >> (24 - 8 * i));
}

static inline void zq_put_be64(void *p, uint64_t v)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    memcpy(p, &v, 8);
}

static inline uint64_t zq_le64(const void *p)
{
    return __builtin_bswap64(zq_be64(p));
}

static inline void zq_put_le64(void *p, uint64_t v)
{
    zq_put_be64(p, __builtin_bswap64(v));
}

static inline bool zq_is_zeros(const uint8_t *p, size_t n)
{
    return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/*
 * n must be a power of two. align_up wraps to 0 for v within n of 2^64: offsets in files end at
 * 2^63, so callers that have checked theirs need no further check.
 */
static inline uint64_t zq_align_down(uint64_t v, uint64_t n)
{
    return v & ~(n - 1);
}

static inline uint64_t zq_align_up(uint64_t v, uint64_t n)
{
    return (v + n - 1) & ~(n - 1);
}

static inline bool zq_is_pow2(uint64_t v)
{
    return v && !(v & (v - 1));
}

/* Cannot overflow, unlike (v + n - 1) / n. */
static inline uint64_t zq_div_up(uint64_t v, uint64_t n)
{
    return v / n + (v % n != 0);
}

static inline uint64_t zq_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t zq_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* v is not 0: the number of its lowest / highest set bit. */
static inline unsigned zq_ctz(uint64_t v)
{
    return (unsigned)__builtin_ctzll(v);
}

static inline unsigned zq_log2(uint64_t v)
{
    return 63u - (unsigned)__builtin_clzll(v);
}

/* True when a + b overflows; the sum otherwise goes to *sum. */
static inline bool zq_add_overflows(uint64_t a, uint64_t b, uint64_t *sum)
{
    return __builtin_add_overflow(a, b, sum);
}

/* An empty range overlaps nothing. Neither end may exceed 2^64. */
static inline bool zq_ranges_overlap(uint64_t a, uint64_t alen, uint64_t b, uint64_t blen)
{
    return alen && blen && a < b + blen && b < a + alen;
}

#endif
