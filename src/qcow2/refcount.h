/* SPDX-License-Identifier: MIT */
/*
 * Refcounts: the refcount table in memory, its blocks through the cache. Reference: the qcow2
 * specification, section "Host cluster management".
 */
#ifndef ZQ_QCOW2_REFCOUNT_H
#define ZQ_QCOW2_REFCOUNT_H

#include "base/bytes.h"
#include "cache/cache.h"
#include "format/entry.h"
#include "format/refbits.h"
#include "qcow2/index.h"

/* A sector of a table that is kept in memory. */
enum zq_sector { ZQ_SECTOR_CLEAN, ZQ_SECTOR_DIRTY, ZQ_SECTOR_WRITTEN /* by the running round */ };

struct zq_refs {
    struct zq_cache *cache;
    uint32_t cluster_bits, order; /* fixed: refcounts are 1 << order bits wide */
    uint32_t block_bits;          /* fixed: log2(refcounts in a block) */
    uint32_t slice_refs;          /* fixed: refcounts in a slice */
    uint64_t *table;              /* offsets of blocks; 0: none */
    struct zq_index index;        /* of the table */
    uint64_t entries, offset;     /* of the table: how many, where in the file */
    uint8_t *dirty;               /* a zq_sector for each 512-byte sector of the table */
    bool is_dirty, frozen;        /* frozen: the running round has still to write it */
};

static inline uint64_t zq_refs_sector_count(const struct zq_refs *r)
{
    return zq_table_sectors(r->entries);
}

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
/* The round has written the table, and its barrier has completed; wakes those that wait to change
 * it. */
void zq_refs_thaw(struct zq_refs *r);
/* It stopped before that: what it took is dirty again. */
void zq_refs_stop(struct zq_refs *r);
/* What becomes of the sectors that the round has written. */
void zq_sectors_settle(uint8_t *sectors, uint64_t n, enum zq_sector to);
void zq_refs_mark(struct zq_refs *r, uint64_t index);

#endif
