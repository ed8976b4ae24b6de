/* SPDX-License-Identifier: MIT */
/*
 * An allocator by itself: refcounts in a cache on a fake device, and an array of what each has to
 * be. The seed chooses the size of clusters and the width of refcounts.
 */
#ifndef UNIT_CORE_ALLOC_WORLD_H
#define UNIT_CORE_ALLOC_WORLD_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "qcow2/alloc.h"
#include "rig/heap_fault.h"
#include "rig/rig.h"
#include "unit_core/fake_device.h"

#define CLUSTERS 4000u /* that the file has room for */
#define USED     8u    /* clusters 0 .. USED-1: header, refcount table, L1, an L2 table, write */
#define L2_TABLE 3u    /* pointers, snapshots, data, and the first refcount block */

struct world {
    uint64_t seed, rng;
    uint32_t bits, order, block_refs;
    struct heap heap;
    struct zqcow2_hooks hooks;
    struct fake_device dev;
    struct zq_iox x;
    struct zq_list ready;
    struct zq_cache cache;
    struct zq_alloc alloc;
    struct zq_memtable l1;
    uint64_t known_table[2048]; /* the refcount table as last seen */
    uint32_t refs[CLUSTERS];    /* what each refcount has to be */
};

#define expect(w, cond) \
    do { \
        if (!(cond)) \
            fail_msg("ZQ_SEED=%" PRIu64 " ZQ_SEEDS=1 (clusters of %u, refcounts of %u bits): %s", \
                     (w)->seed, 1u << (w)->bits, 1u << (w)->order, #cond); \
    } while (0)

/* Of 3: 512 bytes, 4 KiB, 16 KiB; refcounts of 1 << order bits. */
static inline uint64_t seed_of(unsigned size, uint32_t order)
{
    return 3 * order + size;
}

void alloc_begin(struct world *w, uint64_t seed);
void alloc_end(struct world *w);

/* Refcount i of a block, as the format describes it. */
uint64_t count_at(const struct world *w, const uint8_t *block, uint64_t i);
void set_count(const struct world *w, uint8_t *block, uint64_t i, uint64_t v);

/* All that is dirty goes to the file, as by a round. */
void write_back(struct world *w);
/* Everything that was started completes; the gather must then be ready, and enters again. */
void wait_for(struct world *w, struct zq_gather *g);
static inline struct zq_gather fresh(void)
{
    return (struct zq_gather){.npins = 0};
}
/* Finds, and makes the file cover it: the way of every operation that needs clusters. */
int find(struct world *w, struct zq_gather *g, uint32_t want, struct zq_found *f);

/* K2, R10: each block that was linked since the last call was whole in the file, counting itself.
 */
void check_new_blocks(struct world *w);
/* Every refcount is what it has to be, read from the cache or from the file. */
void check_refs(struct world *w);

#endif
