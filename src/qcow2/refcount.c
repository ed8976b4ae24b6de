/* SPDX-License-Identifier: MIT */
/* Reads and sets refcounts of every width, and finds the slice that holds one. */
#include "qcow2/refcount.h"

uint64_t zq_ref_get(const struct zq_refs *r, const uint8_t *slice, uint32_t i)
{
    unsigned bits = 1u << r->order;

    switch (r->order) {
    case 6:
        return zq_be64(slice + (size_t)i * 8);
    case 5:
        return zq_be32(slice + (size_t)i * 4);
    case 4:
        return zq_be16(slice + (size_t)i * 2);
    case 3:
        return slice[i];
    default: /* the first refcount of a byte is in its lowest bits */
        return ((unsigned)slice[i * bits / 8] >> (i * bits % 8)) & ((1u << bits) - 1);
    }
}

void zq_ref_set(const struct zq_refs *r, uint8_t *slice, uint32_t i, uint64_t v)
{
    unsigned bits = 1u << r->order, mask, shift;

    switch (r->order) {
    case 6:
        zq_put_be64(slice + (size_t)i * 8, v);
        return;
    case 5:
        zq_put_be32(slice + (size_t)i * 4, (uint32_t)v);
        return;
    case 4:
        zq_put_be16(slice + (size_t)i * 2, (uint16_t)v);
        return;
    case 3:
        slice[i] = (uint8_t)v;
        return;
    default:
        shift = i * bits % 8;
        mask = ((1u << bits) - 1) << shift;
        slice += i * bits / 8;
        *slice = (uint8_t)(((unsigned)*slice & ~mask) | ((unsigned)v << shift));
    }
}

uint64_t zq_ref_slice(const struct zq_refs *r, uint64_t cluster, uint32_t *index)
{
    uint64_t block = cluster >> r->block_bits;
    uint64_t in_block = cluster & (((uint64_t)1 << r->block_bits) - 1);

    *index = (uint32_t)(in_block % r->slice_refs);
    if (block >= r->entries || !r->table[block])
        return 0;
    return r->table[block] + in_block / r->slice_refs * r->cache->slice_bytes;
}

void zq_refs_mark(struct zq_refs *r, uint64_t index)
{
    r->dirty[index * 8 / ZQ_SECTOR] = 1;
    r->is_dirty = true;
}

void zq_refs_thaw(struct zq_refs *r)
{
    r->frozen = false;
    zq_wake(r->cache->ready, &r->cache->frozen_waiters);
}
