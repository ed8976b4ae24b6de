/* SPDX-License-Identifier: MIT */
/* How often each host cluster is referred to, and as what; memory only where there is something. */
#ifndef ZQ_IMAGE_COUNTS_H
#define ZQ_IMAGE_COUNTS_H

#include <stdbool.h>
#include "base/mem.h"

/* What refers to a cluster; a cluster may have several. */
enum zq_kind {
    ZQ_KIND_HEADER = 1 << 0,
    ZQ_KIND_REFCOUNTS = 1 << 1, /* refcount table and blocks */
    ZQ_KIND_L1 = 1 << 2,
    ZQ_KIND_ZONES = 1 << 3, /* the write-pointer table */
    ZQ_KIND_SNAPSHOTS = 1 << 4,
    ZQ_KIND_BITMAPS = 1 << 5, /* bitmap directory and tables */
    ZQ_KIND_L2 = 1 << 6,
    ZQ_KIND_DATA = 1 << 7
};
/* What has one owner and is written in place, so that no refcount makes sharing it safe. */
#define ZQ_KINDS_FIXED 0x3f

#define ZQ_CHUNK_BITS     9
#define ZQ_CHUNK_CLUSTERS (1u << ZQ_CHUNK_BITS)

struct zq_chunk {
    uint64_t number;                   /* of its first cluster >> ZQ_CHUNK_BITS */
    uint32_t count[ZQ_CHUNK_CLUSTERS]; /* references; stays at its maximum */
    uint8_t kind[ZQ_CHUNK_CLUSTERS];
    uint8_t once[ZQ_CHUNK_CLUSTERS]; /* zq_once */
};

/*
 * Whether the refcount is exactly 1: as it is on disk, and as a repair will leave it. TOO_LOW: it
 * is wrong itself, so that nothing can be said about COPIED yet.
 */
enum zq_once { ZQ_ONCE_NOW = 1 << 0, ZQ_ONCE_AFTER = 1 << 1, ZQ_ONCE_TOO_LOW = 1 << 2 };

struct zq_counts {
    const struct zqcow2_hooks *hooks;
    struct zq_chunk **chunks; /* by number, ascending */
    size_t nr, room, last;    /* last: where the search before ended */
};

/* Adds n references of a kind. -ENOMEM. *before: the kinds that were there (may be NULL). */
int zq_counts_add(struct zq_counts *c, uint64_t cluster, uint32_t n, enum zq_kind kind,
                  unsigned *before);
uint32_t zq_counts_get(struct zq_counts *c, uint64_t cluster);
unsigned zq_counts_kind(struct zq_counts *c, uint64_t cluster);
unsigned zq_counts_once(struct zq_counts *c, uint64_t cluster);
/* The index of the first chunk whose clusters reach `cluster` or beyond. */
size_t zq_counts_from(const struct zq_counts *c, uint64_t cluster);
void zq_counts_free(struct zq_counts *c);

/* "L2 table": the most telling of several kinds. */
const char *zq_kind_name(unsigned kinds);

#endif
