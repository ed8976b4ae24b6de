/* SPDX-License-Identifier: MIT */
/*
 * A refcount table in a new place: the table and, right behind it, new refcount blocks. The blocks
 * count the table and themselves, so the size depends on itself. Create, growth and the rebuild
 * plan and compose it here. Nothing in the file points to it until a header does (R9, R13).
 */
#ifndef ZQ_FORMAT_REFTABLE_H
#define ZQ_FORMAT_REFTABLE_H

#include "format/entry.h"
#include "format/refbits.h"

struct zq_reftable {
    uint32_t cluster_bits, order;
    uint64_t base;    /* the first cluster of the table */
    uint64_t others;  /* of the new blocks: how many are for ranges before that of `base` */
    uint64_t behind;  /* clusters behind the last block that are in use ... */
    uint64_t spare;   /* ... and behind those: free, but with a refcount */
    uint64_t entries; /* at least; the plan makes it more, and whole clusters */
    /* from the plan on */
    uint64_t first; /* entry of the first block that is not one of `others` */
    uint64_t own;   /* and how many there are */
};

static inline uint64_t zq_reftable_clusters(const struct zq_reftable *t)
{
    return zq_table_bytes(t->entries) >> t->cluster_bits;
}
/* The cluster of the first new block; the others come first. */
static inline uint64_t zq_reftable_blocks(const struct zq_reftable *t)
{
    return t->base + zq_reftable_clusters(t);
}
/* The cluster behind the last block. */
static inline uint64_t zq_reftable_end(const struct zq_reftable *t)
{
    return zq_reftable_blocks(t) + t->others + t->own;
}
static inline uint64_t zq_reftable_bytes(const struct zq_reftable *t)
{
    return (zq_reftable_end(t) - t->base) << t->cluster_bits;
}

/* -EFBIG: the table would exceed the limit of the format. */
int zq_reftable_plan(struct zq_reftable *t);
/* Entry number i; kept: the entries before t->first. */
uint64_t zq_reftable_entry(const struct zq_reftable *t, const uint64_t *kept, uint64_t i);
/*
 * len bytes from number `at` on of the table and the blocks behind it; both multiples of a sector.
 * Without others: blocks count every cluster up to the end, and those behind it, as 1.
 */
void zq_reftable_compose(const struct zq_reftable *t, const uint64_t *kept, uint64_t at,
                         uint8_t *buf, uint64_t len);

#endif
