/* SPDX-License-Identifier: MIT */
/*
 * The state of allocation, and the file as a place for clusters: how long it is, what in it is
 * never free, what is on its way out of it (R5).
 */
#ifndef ZQ_QCOW2_HOST_H
#define ZQ_QCOW2_HOST_H

#include "device/move.h"
#include "format/reftable.h"
#include "qcow2/refcount.h"

/* Clusters on their way back; memory comes from the operation's gather. */
struct zq_freed {
    struct zq_list link;
    uint64_t cluster, count;
    uint64_t after_round; /* ripe when this round is done ... */
    uint64_t after_io;    /* ... and every I/O numbered up to this has finished */
    bool punch;           /* refcount is 1: give the space to the host */
    bool external;        /* places of a data file, which have no refcounts (D3) */
};

/*
 * A refcount table on its way to becoming larger (R9): first written beside the old one, in
 * gather; then a round switches to it in one sector of the header.
 */
struct zq_growth {
    struct zq_reftable plan;
    struct zq_memtable next; /* v NULL: none is under way */
    struct zq_move move;     /* of the table, and the blocks behind it */
    uint8_t *buf;            /* owned: a piece of them as it goes to the file */
    bool whole;              /* all is written: the next round switches */
    bool switching;          /* the running round does */
    struct zq_freed *freed;  /* the old table */
    struct zq_io io;
    struct zq_list waiters;
};

/*
 * The free end of the cluster of the file that compressed clusters were put into last: from `at` up
 * to `end`, the cluster's. at == end: there is none. No count stands for it: the cluster is that of
 * those who are in it.
 */
struct zq_packing {
    uint64_t at, end;
};

/* Where the file has what there is one of. */
enum zq_fixed {
    ZQ_FIXED_HEADER,
    ZQ_FIXED_L1,
    ZQ_FIXED_REFCOUNTS, /* the table */
    ZQ_FIXED_POINTERS,  /* the write-pointer table */
    ZQ_FIXED_STATES,    /* the table of persistent zone states */
    ZQ_FIXED_DESCRIBED, /* the table of zone descriptor extensions */
    ZQ_FIXED_SNAPSHOTS, /* the table */
    ZQ_FIXED_BITMAPS,   /* their directory */
    ZQ_FIXED            /* how many */
};

struct zq_host_range {
    uint64_t offset, bytes;
};

struct zq_alloc {
    struct zq_refs refs;
    /* What is never free, whatever a refcount says: of the map, and of snapshots. */
    struct zq_host_range fixed[ZQ_FIXED]; /* the last bytes of each cluster, too */
    uint32_t tables;                      /* changes with what they name; never 0 */
    const struct zq_memtable *l1;         /* the map's */
    struct zq_host_range *areas;          /* owned, passed over: by offset; none touches another */
    uint32_t nr_areas, areas_room;
    bool corrupt; /* a free run was found to be one of these: no more is taken */
    uint64_t corrupt_at;
    struct zq_cache *cache;
    uint64_t file_size;          /* the file covers at least this */
    uint64_t virgin;             /* from here on nothing was ever written: reads as zeros */
    uint64_t next_one, next_run; /* where searches for one cluster, for a run begin */
    uint64_t left_out;           /* clusters that runs have left free in front, for alignment */
    struct zq_growth growth;
    bool want_switch;             /* an operation waits for a round to switch to the grown table */
    struct zq_list quarantine[2]; /* [linked], each in the order in which it gets ripe */
    struct zq_stock records;
    struct zq_packing packing;
    uint64_t rounds;              /* how many rounds have begun */
    struct zq_io cover;           /* extends the file ... */
    uint64_t covering, cover_end; /* ... to here, 0: it does not; and at least to here */
    uint64_t refused;             /* the host does not let the file end here or behind;
                                     UINT64_MAX: it has refused nothing */
    struct zq_list cover_waiters;
    struct zq_list room_waiters; /* for clusters that others have given up (R4) */
    int shortage;                /* what they get if there are none */
    bool gained;                 /* clusters have become free since they were last woken */
    bool slack;                  /* and since the file's end was last looked at */
    struct zq_io block;          /* writes a new refcount block, up to block_end */
    uint64_t block_host, block_end;
    uint8_t block_first[ZQ_SECTOR];
    uint64_t block_index;
    bool block_busy, block_ready;
    bool block_counted; /* its first sector, the last to be written, is on its way */
    struct zq_list block_waiters;
    struct zq_io rest; /* between the parts of a long search */
    bool resting;
    struct zq_list rest_waiters;
};

/* Does the header or a table of which there is one lie here? */
static inline bool zq_alloc_is_fixed(const struct zq_alloc *a, uint64_t host, uint64_t len)
{
    for (int i = 0; len && i < ZQ_FIXED; i++) {
        if (zq_ranges_overlap(host, len, a->fixed[i].offset, a->fixed[i].bytes))
            return true;
    }
    return false;
}
/* Does an L2 table or a refcount block lie in these clusters? */
bool zq_alloc_is_named(const struct zq_alloc *a, uint64_t host, uint64_t len);
/* The same for whatever zq_alloc_is_known() looks for. */
bool zq_alloc_is_table(const struct zq_alloc *a, uint64_t host, uint64_t len);
/* True, and it is known to be corrupt from now on: these clusters are not free. */
bool zq_alloc_is_known(struct zq_alloc *a, uint64_t host, uint64_t len);
/*
 * Makes the file cover its first `end` bytes: 0, ZQ_WAIT, or an error. ENOSPC shows here, but only
 * to those whose search has known of it: others enter again, and find what there is. A patient one
 * waits in room_waiters first, holding no slices, until zq_make_room() has an answer.
 */
int zq_alloc_cover(struct zq_alloc *a, struct zq_gather *g, uint64_t end);
/* Something is written there: zeros no longer count. */
void zq_alloc_touch(struct zq_alloc *a, uint64_t host, uint64_t len);
/* A run at this host offset reads as zeros, as nothing was written there. Ask before taking. */
bool zq_alloc_is_virgin(const struct zq_alloc *a, uint64_t host);
/* A record, empty. NULL: there is no memory. */
struct zq_freed *zq_record_new(struct zq_alloc *a);
/* It is in no list. Or NULL. */
void zq_record_drop(struct zq_alloc *a, struct zq_freed *f);
/*
 * Into the quarantine, which takes the record. linked: a table pointed to it until now, so its
 * removal must first be durable; else it was never linked. Only then may it be taken again.
 */
void zq_alloc_quarantine(struct zq_alloc *a, struct zq_freed *f, bool linked);
/*
 * The same for clusters of a data file, until every I/O there numbered up to after_io has finished.
 * They stay the device's: who punches them asks the map once more.
 */
void zq_alloc_quarantine_external(struct zq_alloc *a, struct zq_freed *f, uint64_t after_io);
/* How many clusters from this one on the host may have room for. */
uint64_t zq_alloc_before_refused(const struct zq_alloc *a, uint64_t cluster);
/* The host has said that there is little room left: whatever is free is good enough. */
static inline bool zq_alloc_is_tight(const struct zq_alloc *a)
{
    return a->refused != UINT64_MAX;
}
static inline bool zq_alloc_has_quarantined(const struct zq_alloc *a)
{
    return !zq_list_empty(&a->quarantine[0]) || !zq_list_empty(&a->quarantine[1]);
}
/*
 * How much of [host, host + len) lies before the first area in it. Areas are where the records of
 * snapshots say that their tables lie: if these are damaged, that is no reason to stop writing.
 */
uint64_t zq_alloc_before_areas(const struct zq_alloc *a, uint64_t host, uint64_t len);
/* Where len bytes have room between them, from host on. */
uint64_t zq_alloc_behind_areas(const struct zq_alloc *a, uint64_t host, uint64_t len);
/* Room for n areas, then each of them in any order, then all are sorted. -ENOMEM. */
int zq_alloc_open_areas(struct zq_alloc *a, uint32_t n);
void zq_alloc_add_area(struct zq_alloc *a, uint64_t offset, uint64_t bytes);
void zq_alloc_sort_areas(struct zq_alloc *a);

#endif
