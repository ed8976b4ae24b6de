/* SPDX-License-Identifier: MIT */
/*
 * Internal snapshots, as one piece of work on the file: nothing else reads or writes it meanwhile,
 * nothing in memory is dirty, and the in-use mark is durable, or the dirty bit in its place (N2,
 * N8, N9). The engine sees to that; it also takes the clusters for new tables, and afterwards drops
 * what it remembered of refcounts and flags.
 *
 * What can be refused is refused by zq_snap_load() and zq_snap_prepare(), which change nothing
 * (N10). From zq_snap_change() on an error leaves a state that recovery sets right: counts that are
 * too high, never one that is too low, and flags that are missing.
 */
#ifndef ZQ_SNAPSHOT_SNAPSHOT_H
#define ZQ_SNAPSHOT_SNAPSHOT_H

#include "device/backend.h"
#include "format/l2entry.h"
#include "format/snapshot.h"

#define ZQ_SNAP_BATCH 32768u /* references that are counted at a time */

enum zq_snap_kind { ZQ_SNAP_LIST, ZQ_SNAP_TAKE, ZQ_SNAP_DELETE, ZQ_SNAP_APPLY };

/* How refcounts change, and whether they do: a trial only finds out if they can. */
struct zq_snap_count {
    int by; /* +1 or -1 for each reference */
    bool trial;
};

struct zq_snap {
    /* the caller's, and fixed: what is to be done */
    enum zq_snap_kind kind;
    const char *name; /* of the new one; or the name or id of one that there is */
    struct zq_snapshot_facts facts;
    struct zqcow2_error *err;
    /* of the image, whose tables in memory are the same as on disk */
    struct zqcow2_backend *be;
    const struct zqcow2_hooks *hooks;
    struct zq_bounds bounds;
    uint64_t disk_bytes;
    uint64_t *l1; /* decoded; flags are changed here and on disk together */
    uint64_t l1_offset, l1_entries;
    const uint64_t *rt; /* the refcount table, decoded */
    uint64_t rt_entries;
    uint32_t refcount_order;
    uint8_t *sector0;          /* of the header, as on disk */
    uint64_t table_offset, nr; /* of the snapshot table */
    /* Is there something that no snapshot may refer to? data: an L2 table counts, too. */
    bool (*is_table)(const void *arg, uint64_t host, uint64_t len, bool data);
    const void *arg;
    /* what load and prepare have found; owned, freed by zq_snap_free() */
    uint8_t *table; /* the snapshot table as it is, and room for one more record */
    uint64_t table_bytes, table_room;
    uint64_t record, record_bytes; /* the one to be deleted or applied, in the table */
    uint64_t *other;               /* its L1, decoded and judged */
    uint64_t other_offset, other_entries;
    uint64_t other_room;  /* entries of other; what is applied has so many, and no flags */
    uint64_t other_bytes; /* of its disk */
    uint8_t *l2, *l2_other, *block; /* a cluster each */
    uint64_t block_at;              /* what `block` holds; 0: nothing */
    uint64_t *batch;                /* clusters that are referred to, to be counted */
    size_t nr_batch;
    struct zq_snap_count count; /* how */
    uint64_t clusters;          /* how many new ones the change needs, in a row */
    /* what the engine adds, and what became of it */
    uint64_t host;   /* where these clusters are */
    bool begun;      /* something on disk has changed */
    bool switched;   /* the header may name the new table, or the new L1 */
    uint64_t lowest; /* cluster that got free; UINT64_MAX: none */
};

static inline uint64_t zq_snap_cluster(const struct zq_snap *s)
{
    return (uint64_t)1 << s->bounds.form.cluster_bits;
}

/* Reads the snapshot table. ECORRUPT: it cannot be followed. */
int zq_snap_load(struct zq_snap *s);
/* Each record of a table that has been read, one after the other; *pos is 0 at first. */
const uint8_t *zq_snap_next(const struct zq_snap *s, uint64_t *pos);
/* By its name, else by its id; *pos is its place in the table. */
bool zq_snap_find(const struct zq_snap *s, const char *name, uint64_t *pos);
/* Takes memory, and finds out whether anything can hinder the change. */
int zq_snap_prepare(struct zq_snap *s);
int zq_snap_change(struct zq_snap *s);
void zq_snap_free(struct zq_snap *s);

/* ---- table.c: what the table will be ---- */

uint64_t zq_snap_new_table_bytes(const struct zq_snap *s);
/* Makes it so in memory, in place. */
void zq_snap_edit_table(struct zq_snap *s);

/* ---- refs.c ---- */

/* One more reference to be counted, of those that zq_snap_count_end() ends. */
int zq_snap_count_one(struct zq_snap *s, uint64_t cluster);
int zq_snap_count_end(struct zq_snap *s);
int zq_snap_count_range(struct zq_snap *s, uint64_t host, uint64_t bytes);
int zq_snap_refcount(struct zq_snap *s, uint64_t cluster, uint64_t *refcount);

/* ---- walk.c ---- */

/* Counts all that an L1 refers to, L2 tables too. */
int zq_snap_count_all(struct zq_snap *s, const uint64_t *l1, uint64_t entries);
/* Takes COPIED from all that the active L1 refers to. */
int zq_snap_clear_copied(struct zq_snap *s);
/* From what the L2 tables of the snapshot refer to. */
int zq_snap_clear_other(struct zq_snap *s);
/* Sets COPIED where only the active L1 will refer to. trial: finds out if anything is wrong. */
int zq_snap_set_copied(struct zq_snap *s, bool trial);

#endif
