/* SPDX-License-Identifier: MIT */
/* Reads and writes one reference count of 1 to 64 bits in a refcount block. */
#ifndef ZQ_FORMAT_REFBITS_H
#define ZQ_FORMAT_REFBITS_H

#include "base/bytes.h"

/* The largest count that 1 << order bits hold. */
static inline uint64_t zq_refbits_max(uint32_t order)
{
    return order >= 6 ? UINT64_MAX : ((uint64_t)1 << (1u << order)) - 1;
}

/* log2(counts in a block) */
static inline uint32_t zq_block_bits(uint32_t cluster_bits, uint32_t order)
{
    return cluster_bits + 3 - order;
}

/* Below a byte, the first count of a byte is in its lowest bits. */
static inline uint64_t zq_refbits_get(const uint8_t *block, uint32_t order, uint64_t index)
{
    switch (order) {
    case 3: return block[index];
    case 4: return zq_be16(block + index * 2);
    case 5: return zq_be32(block + index * 4);
    case 6: return zq_be64(block + index * 8);
    default: {
        uint64_t bit = index << order;
        return (unsigned)block[bit / 8] >> (bit % 8) & (unsigned)zq_refbits_max(order);
    }
    }
}

/* value <= zq_refbits_max(order) */
static inline void zq_refbits_set(uint8_t *block, uint32_t order, uint64_t index, uint64_t value)
{
    switch (order) {
    case 3: block[index] = (uint8_t)value; return;
    case 4: zq_put_be16(block + index * 2, (uint16_t)value); return;
    case 5: zq_put_be32(block + index * 4, (uint32_t)value); return;
    case 6: zq_put_be64(block + index * 8, value); return;
    default: {
        uint64_t bit = index << order;
        unsigned mask = (unsigned)zq_refbits_max(order) << (bit % 8);
        block[bit / 8] = (uint8_t)((block[bit / 8] & ~mask) | ((unsigned)value << (bit % 8)));
    }
    }
}

/* The same for n counts from index on. The usual width has a loop of its own: runs are long. */
static inline void zq_refbits_fill(uint8_t *block, uint32_t order, uint64_t index, uint32_t n,
                                   uint64_t value)
{
    for (uint32_t i = 0; order == 4 && i < n; i++)
        zq_put_be16(block + (index + i) * 2, (uint16_t)value);
    for (uint32_t i = 0; order != 4 && i < n; i++)
        zq_refbits_set(block, order, index + i, value);
}

/* How many of the first n counts there are up to the last that is not 0. Long stretches are 0. */
static inline uint32_t zq_refbits_used(const uint8_t *block, uint32_t order, uint32_t n)
{
    uint32_t word = 64u >> order;

    while (n && !zq_refbits_get(block, order, n - 1)) {
        n--;
        while (n >= word && n % word == 0 && !zq_be64(block + (n / word - 1) * 8))
            n -= word;
    }
    return n;
}

#endif
