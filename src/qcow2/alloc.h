/* SPDX-License-Identifier: MIT */
/*
 * Host clusters: finding free ones, covering them by the file, giving them back.
 *
 * A cluster is taken by raising its refcount in memory; that reaches the disk in stage 1 of the
 * next round, before anything that points to it (K1). It is given back through the quarantine
 * (R5): only when what pointed to it is durably gone, and I/O that had looked it up has finished,
 * is its refcount lowered.
 */
#ifndef ZQ_QCOW2_ALLOC_H
#define ZQ_QCOW2_ALLOC_H

#include "qcow2/host.h"

struct zq_found {
    uint64_t cluster;
    uint32_t count;
    uint32_t index;         /* in the slice */
    struct zq_slice *slice; /* pinned and writable */
};

struct zq_alloc_params {
    struct zq_cache *cache;
    uint32_t cluster_bits, refcount_order;
    uint64_t table_offset, table_entries; /* of the refcount table; 0 entries: for reading only */
    uint64_t file_size;
};

/* The refcount table's entries are all 0, and so are `fixed`: the caller fills them. -ENOMEM. */
int zq_alloc_open(struct zq_alloc *a, const struct zq_alloc_params *p);
/* Also after a failure, or where it was never opened. */
void zq_alloc_close(struct zq_alloc *a);

/*
 * Finds up to `want` free clusters in a row, at least one; a longer run is preferred when want > 1.
 * Cut at the end of a refcount slice (E3). 0, ZQ_WAIT, -EFBIG, or an I/O error. ECORRUPT: what
 * counts as free is a table that the image names; `corrupt` is set then, and stays so. A long
 * search is done in parts, between which other operations run.
 */
int zq_alloc_find(struct zq_alloc *a, struct zq_gather *g, uint32_t want, struct zq_found *f);
/* The same for n in a row and no fewer, in one slice. -EFBIG also: a slice cannot count so many. */
int zq_alloc_find_row(struct zq_alloc *a, struct zq_gather *g, uint32_t n, struct zq_found *f);
/* Takes the first n of what was found, in the same hold of the mutex. */
void zq_alloc_take(struct zq_alloc *a, const struct zq_found *f, uint32_t n);
/*
 * Room for a compressed cluster, in whole sectors and less than a cluster: behind the last one,
 * else in a new cluster of the file, or in both if they follow one another.
 */
struct zq_place {
    uint64_t host, bytes;
    struct zq_slice *shared; /* counts the cluster that has others already; NULL: there is none */
    uint32_t index;          /* in it */
    struct zq_found fresh;   /* count 0: no new cluster is needed */
};
/* 0, ZQ_WAIT, or an error, as of zq_alloc_find(); the file covers it then. */
int zq_packing_find(struct zq_alloc *a, struct zq_gather *g, uint64_t bytes, struct zq_place *p);
/* Counts it, in the same hold of the mutex. */
void zq_packing_take(struct zq_alloc *a, const struct zq_place *p);
/* The cluster may be somebody else's from now on. */
static inline void zq_packing_forget(struct zq_alloc *a)
{
    a->packing = (struct zq_packing){0, 0};
}
/* Lowers the refcounts of a ripe record, a slice a time: 0 when nothing is left, ZQ_WAIT, error. */
int zq_alloc_lower(struct zq_alloc *a, struct zq_gather *g, struct zq_freed *f);

#endif
