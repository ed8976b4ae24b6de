/* SPDX-License-Identifier: MIT */
/* How often each host cluster is referred to, and as what; memory only where there is something. */
#ifndef ZQ_CHECK_COUNTS_H
#define ZQ_CHECK_COUNTS_H

#include <stdbool.h>
#include "base/mem.h"

/* What refers to a cluster; a cluster may have several. */
enum zq_kind {
    ZQ_KIND_NONE = 0, /* a reference that is wrong, and counted all the same */
    ZQ_KIND_HEADER = 1 << 0,
    ZQ_KIND_REFCOUNTS = 1 << 1, /* refcount table and blocks */
    ZQ_KIND_L1 = 1 << 2,
    ZQ_KIND_ZONES = 1 << 3, /* the write-pointer table, and that of persistent zone states */
    ZQ_KIND_SNAPSHOTS = 1 << 4,
    ZQ_KIND_BITMAPS = 1 << 5, /* bitmap directory and tables */
    ZQ_KIND_L2 = 1 << 6,
    ZQ_KIND_DATA = 1 << 7
};
/* What has one owner and is written in place, so that no refcount makes sharing it safe. */
#define ZQ_KINDS_FIXED 0x3fu
/* Of these, such as no repair moves. */
#define ZQ_KINDS_IN_PLACE 0x3du

/*
 * Whether the refcount is exactly 1: as it is on disk, and as a repair will leave it. TOO_LOW: it
 * is wrong itself, so both are of what it should be. TOO_HIGH: others may refer to it, too.
 */
enum zq_once {
    ZQ_ONCE_NOW = 1 << 0,
    ZQ_ONCE_AFTER = 1 << 1,
    ZQ_ONCE_TOO_LOW = 1 << 2,
    ZQ_ONCE_TOO_HIGH = 1 << 7
};
/*
 * In the same byte, who else is there: a reference that is counted and wrong; packed data of an
 * active entry; on a table, what a lower rank has there, too: a table of its own, and something of
 * which every bit counts, not only all but COPIED.
 */
enum zq_by {
    ZQ_BY_WRONG = 1 << 3,
    ZQ_BY_PACKED = 1 << 4,
    ZQ_BY_LOWER = 1 << 5,
    ZQ_BY_LOWER_TABLE = 1 << 6,
    ZQ_BY_LOWERS = ZQ_BY_LOWER | ZQ_BY_LOWER_TABLE
};

/* One cluster that something refers to. Twelve bytes: there may be very many. */
struct zq_ref {
    uint32_t low;   /* of the cluster's number */
    uint32_t count; /* references; stays at its maximum */
    uint16_t high;
    uint8_t kind; /* zq_kind */
    uint8_t once; /* zq_once, zq_by */
};

static inline uint64_t zq_ref_cluster(const struct zq_ref *r)
{
    return (uint64_t)r->high << 32 | r->low;
}

/*
 * How many references there are, beside a refcount that is stored. A count at its maximum stands
 * for any number above it: there the refcount is believed.
 */
static inline uint64_t zq_count_beside(uint32_t count, uint64_t refcount)
{
    return count == UINT32_MAX && refcount > count ? refcount : count;
}

/*
 * A radix tree over the clusters' numbers whose leaves are sorted bags; one with more than 256
 * becomes a node. A cluster costs 12 bytes, and less than 4 of bags and nodes, wherever it lies;
 * adding and finding take a few steps whatever came before.
 */
struct zq_bag;
struct zq_counts {
    const struct zqcow2_hooks *hooks;
    void *root;          /* a node, once anything was added */
    struct zq_bag *last; /* where the search before ended, and the numbers that belong there */
    uint64_t last_first, last_end;
};

/* Adds n references of a kind. -ENOMEM. *before: the kinds that were there (may be NULL). */
int zq_counts_add(struct zq_counts *c, uint64_t cluster, uint32_t n, enum zq_kind kind,
                  unsigned *before);
/* Notes something of a cluster that was added. */
void zq_counts_note(struct zq_counts *c, uint64_t cluster, enum zq_by by);
uint32_t zq_counts_get(struct zq_counts *c, uint64_t cluster);
unsigned zq_counts_kind(struct zq_counts *c, uint64_t cluster);
unsigned zq_counts_once(struct zq_counts *c, uint64_t cluster);
/* The first cluster at or behind `from` that something refers to, until the next add; or NULL. */
struct zq_ref *zq_counts_next(struct zq_counts *c, uint64_t from);
void zq_counts_free(struct zq_counts *c);

/* "L2 table": the most specific of several kinds. */
const char *zq_kind_name(unsigned kinds);

#endif
