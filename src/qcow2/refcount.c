/* SPDX-License-Identifier: MIT */
/* Finds the slice that holds a refcount, and keeps track of the table. */
#include "qcow2/refcount.h"

#include "base/report.h"

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
    zq_assert_k(K2, index < r->entries && !r->frozen); /* the round writes it as it was */
    r->dirty[zq_table_sector(index)] = ZQ_SECTOR_DIRTY;
    r->is_dirty = true;
}

void zq_sectors_settle(uint8_t *sectors, uint64_t n, enum zq_sector to)
{
    for (uint64_t i = 0; i < n; i++) {
        if (sectors[i] == ZQ_SECTOR_WRITTEN)
            sectors[i] = (uint8_t)to;
    }
}

void zq_refs_stop(struct zq_refs *r)
{
    if (!r->frozen)
        return;
    zq_sectors_settle(r->dirty, zq_refs_sector_count(r), ZQ_SECTOR_DIRTY);
    r->is_dirty = true;
    r->frozen = false;
}

void zq_refs_thaw(struct zq_refs *r)
{
    zq_assert_k(K2, r->frozen);
    zq_sectors_settle(r->dirty, zq_refs_sector_count(r), ZQ_SECTOR_CLEAN);
    r->frozen = false;
    zq_wake(r->cache->ready, &r->cache->frozen_waiters);
}
