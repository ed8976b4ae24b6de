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
#include "format/copies.h"
#include "format/l2entry.h"
#include "format/states.h"

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
    uint8_t *sector0; /* of the header, as on disk */
    /* Writes it with more than the snapshots change, between barriers. NULL: nothing more changes.
     */
    int (*write_header)(void *header_arg);
    void *header_arg;
    const struct zq_header *hdr;
    const struct zq_geometry *zones; /* NULL: a plain image */
    uint64_t states_offset;          /* of the table of persistent zone states; 0: there is none */
    uint64_t table_offset, nr;       /* of the snapshot table */
    bool nowhere;                    /* a reader: there can be none */
    bool partial; /* what lies before a record that is wrong will do; err says what is wrong */
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
    struct zq_geometry other_zones; /* and its copy of the write pointers; layout NONE: none */
    uint8_t *pointers;              /* these, when they are applied: zq_pointers_bytes() */
    uint8_t *l2, *l2_other, *block; /* a cluster each */
    uint64_t block_at;              /* what `block` holds; 0: nothing */
    uint64_t *batch; /* clusters that are referred to, to be counted; as much room to sort them */
    size_t nr_batch;
    struct zq_snap_count count; /* how */
    uint64_t clusters;          /* how many new ones the change needs, in a row */
    /* what the engine adds, and what became of it */
    uint64_t host; /* where these clusters are: of L1, of tables of zones, of snapshots */
    uint64_t new_pointers, new_states; /* of the disk that is applied, there */
    uint8_t *states; /* what it says, zq_states_bytes(); freed by zq_snap_free() */
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
/* By its name, else by its id, or the other way round; *pos is its place in the table. */
bool zq_snap_find(const struct zq_snap *s, const char *name, bool id_first, uint64_t *pos);
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

/* ---- pointers.c ---- */

/* From `from` to whole clusters; behind the bytes there are zeros. */
int zq_snap_write_padded(struct zq_snap *s, const uint8_t *from, uint64_t bytes, uint64_t host);

/* Of a table of write pointers, in whole clusters. */
static inline uint64_t zq_snap_pointer_bytes(const struct zq_snap *s, const struct zq_geometry *g)
{
    return zq_align_up(zq_entries_bytes(g->nr_zones), zq_snap_cluster(s));
}
/*
 * Of a plain image those below do nothing. This sets other_zones if the record names a copy that
 * may be believed: in its place, and with clusters that are counted once each.
 */
int zq_snap_find_copy(struct zq_snap *s);
/* Reads and judges it. ECORRUPT: there is none. */
int zq_snap_load_pointers(struct zq_snap *s);
/*
 * EFEATURE: the header cannot switch to what is taken or applied, because that does not lie in its
 * first sector, and a crash could leave one half of it.
 */
int zq_snap_judge_header(struct zq_snap *s);
/* From the table that the image has now. */
int zq_snap_copy_pointers(struct zq_snap *s, uint64_t to);
/* Of all the tables of zones that an applied disk needs. */
uint64_t zq_snap_zone_bytes(const struct zq_snap *s);
/* Before the switch, in its sector, and behind it: then the old ones are given up. */
int zq_snap_write_zones(struct zq_snap *s);
void zq_snap_switch_zones(struct zq_snap *s);
int zq_snap_lower_zones(struct zq_snap *s);

#endif
