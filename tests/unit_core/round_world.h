/* SPDX-License-Identifier: MIT */
/*
 * An image's core without operations, on a fake device. There are CHAINS chains: for each a slice
 * of refcounts, an entry of the refcount table, an entry of L1, a slice of an L2 table, and a zone.
 * All of one chain carry version numbers, so that "what points may not be newer on disk than what
 * it points to" (K1-K3) is a comparison of numbers.
 */
#ifndef UNIT_CORE_ROUND_WORLD_H
#define UNIT_CORE_ROUND_WORLD_H

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "rig/heap_fault.h"
#include "rig/rig.h"
#include "round/round.h"
#include "unit_core/fake_device.h"

#define CHAINS       20u /* more than a round writes at once */
#define CLUSTER      4096u
#define ZONE_BITS    20u
#define ZONE_SECTORS ((1u << ZONE_BITS) / 512)
#define AT_TABLE     (1u * CLUSTER) /* refcount table; its entry 64 + i is of chain i */
#define AT_L1        (2u * CLUSTER)
#define AT_WP        (3u * CLUSTER)
#define AT_REFS      (8u * CLUSTER)
#define AT_L2        (32u * CLUSTER)
#define FILE_SIZE    (64u * CLUSTER)
#define MARK_AT      300u /* in the header's sector */

enum part { REFS, TABLE, L1, L2, WP, PARTS };

struct round_world {
    uint64_t seed, rng;
    struct heap heap;
    struct zqcow2_hooks hooks;
    struct fake_device dev;
    struct zq_core core;
    uint64_t memory[PARTS][CHAINS]; /* versions; of a zone: sectors up to its write pointer */
    uint64_t snap[PARTS][CHAINS];   /* at the running round's capture */
    uint32_t lives[CHAINS], snap_lives[CHAINS];
    uint64_t low[PARTS][CHAINS], high[PARTS][CHAINS];  /* what a power cut may leave */
    uint64_t data, data_of[CHAINS], snap_data[CHAINS]; /* numbers of data writes, all completed */
    bool in_barrier;
    uint64_t data_asked, data_durable; /* covered by a barrier that has begun; that has completed */
};

#define expect(w, cond) \
    do { \
        if (!(cond)) \
            fail_msg("ZQ_SEED=%" PRIu64 " ZQ_SEEDS=1: %s", (w)->seed, #cond); \
    } while (0)

/* pointers: of the zones, in sectors; NULL: all at start. What is written is mapped to its end. */
void round_begin(struct round_world *w, uint64_t seed, uint32_t max_active,
                 const uint64_t *pointers);
void round_end_world(struct round_world *w);

/* A new version of all but the zone. False: the round holds one of them, nothing has changed. */
bool map_chain(struct round_world *w, unsigned i);
/* n sectors of data are written and committed. */
void write_chain(struct round_world *w, unsigned i, uint64_t n);
void reset_chain(struct round_world *w, unsigned i);
void finish_chain(struct round_world *w, unsigned i);

void start_round(struct round_world *w);
/* I/O number k completes; the picture of the disk follows. A write that fails may be there or not.
 */
void complete(struct round_world *w, unsigned k, int ret);
/* K1-K3 for whatever a power cut may leave now. */
void check_disk(struct round_world *w);

#endif
