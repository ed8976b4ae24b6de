/* SPDX-License-Identifier: MIT */
/* Finds the slice that holds a refcount, and keeps track of the table. */
#include "qcow2/refcount.h"

#include "base/report.h"

uint64_t zq_ref_slice(const struct zq_refs *r, uint64_t cluster, uint32_t *index)
{
    uint64_t block = cluster >> r->block_bits;
    uint64_t in_block = cluster & (((uint64_t)1 << r->block_bits) - 1);

    *index = (uint32_t)(in_block % r->slice_refs);
    if (block >= r->table.entries || !r->table.v[block])
        return 0;
    return r->table.v[block] + in_block / r->slice_refs * r->cache->slice_bytes;
}

void zq_refs_thaw(struct zq_refs *r)
{
    zq_memtable_thaw(&r->table);
    zq_wake(r->cache->ready, &r->cache->frozen_waiters);
}
