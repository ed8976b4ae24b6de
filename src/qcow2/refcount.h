/* SPDX-License-Identifier: MIT */
/*
 * Refcounts: the refcount table in memory, its blocks through the cache. Reference: the qcow2
 * specification, section "Host cluster management".
 */
#ifndef ZQ_QCOW2_REFCOUNT_H
#define ZQ_QCOW2_REFCOUNT_H

#include "base/bytes.h"
#include "cache/cache.h"
#include "format/refbits.h"
#include "qcow2/memtable.h"

struct zq_refs {
    struct zq_cache *cache;
    uint32_t cluster_bits, order; /* fixed: refcounts are 1 << order bits wide */
    uint32_t block_bits;          /* fixed: log2(refcounts in a block) */
    uint32_t slice_refs;          /* fixed: refcounts in a slice */
    struct zq_memtable table;     /* entries: offsets of blocks; 0: none */
};

/* Refcount number i of a slice. */
static inline uint64_t zq_ref_get(const struct zq_refs *r, const uint8_t *slice, uint32_t i)
{
    return zq_refbits_get(slice, r->order, i);
}
static inline void zq_ref_set(const struct zq_refs *r, uint8_t *slice, uint32_t i, uint64_t v)
{
    zq_refbits_set(slice, r->order, i, v);
}

/* Which slice of the file holds the refcount of a cluster; 0: no block covers it. */
uint64_t zq_ref_slice(const struct zq_refs *r, uint64_t cluster, uint32_t *index);
/* The round has written the table, and its barrier has completed. Wakes those who wait to change
 * it. */
void zq_refs_thaw(struct zq_refs *r);

#endif
