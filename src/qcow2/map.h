/* SPDX-License-Identifier: MIT */
/*
 * The mapping: guest ranges to typed extents. L1 lies in memory, L2 tables in the cache's slices,
 * and each sequential zone has its runs. Nothing else of the engine reads or writes an L2 entry.
 * Reference: the qcow2 specification, section "Cluster mapping".
 */
#ifndef ZQ_QCOW2_MAP_H
#define ZQ_QCOW2_MAP_H

#include "format/l2entry.h"
#include "qcow2/alloc.h"
#include "qcow2/runs.h"

struct zq_extent {
    enum zq_extent_type type;
    bool own;              /* DATA: refcount 1, may be written in place */
    uint64_t host;         /* where the asked offset lies, if the entry has a cluster; else 0. In a
                              data file 0 is valid */
    uint64_t len;          /* bytes from the asked offset on */
    struct zq_l2_entry l2; /* of its first cluster; not set where the extent is own */
};

/* May it be written where it lies? */
static inline bool zq_extent_in_place(const struct zq_extent *e)
{
    return e->type == ZQ_EXT_DATA && e->own;
}

/* An L2 table being written to the file; linked by the first operation that needs it. */
struct zq_new_l2 {
    struct zq_io io;
    uint64_t index, host;   /* of L1; in the file */
    uint8_t *copy;          /* cluster-sized, when a shared table is being copied */
    struct zq_freed *freed; /* takes back the new cluster, or the old table */
    bool busy, ready;
    struct zq_list waiters;
};

struct zq_map {
    struct zq_cache *cache;
    struct zq_alloc *alloc;
    const struct zqcow2_hooks *hooks;
    struct zq_form form;              /* fixed: of L2 entries */
    uint32_t cluster_bits, span_bits; /* fixed; span_bits: log2(bytes that a table maps) */
    uint32_t slice_bits;              /* fixed: log2(entries in a slice) */
    struct zq_memtable l1;
    uint8_t *untouched; /* a bit for each slice: of a table made since the open, and still zeros */
    struct zq_new_l2 fresh;
    struct zq_runs *runs; /* per zone; NULL: a device without zones */
    uint32_t zone_bits, first_seq_zone;
    uint32_t nr_runs;
    uint64_t masked_below; /* up to here a source may have what is not mapped (S4) */
};

struct zq_map_params {
    struct zq_cache *cache;
    struct zq_alloc *alloc; /* opened before, closed behind */
    struct zq_form form;
    uint64_t l1_offset, l1_entries;
    uint32_t nr_zones, zone_bits, first_seq_zone; /* nr_zones 0: a device without zones */
};

/* The entries of L1 are all 0: the caller fills them. -ENOMEM. */
int zq_map_open(struct zq_map *m, const struct zq_map_params *p);
/* Also after a failure, or where it was never opened. */
void zq_map_close(struct zq_map *m);

/*
 * The extent at guest, at most len bytes long; the slice that says so is pinned. 0, ZQ_WAIT,
 * ECORRUPT, or an I/O error.
 */
int zq_map_lookup(struct zq_map *m, struct zq_gather *g, uint64_t guest, uint64_t len,
                  struct zq_extent *e);
/* The same, if it is known without I/O and not wrong; else false. */
bool zq_map_peek(struct zq_map *m, uint64_t guest, uint64_t len, struct zq_extent *e);
/* The run of a sequential zone that holds guest; NULL: not known, use zq_map_lookup. */
const struct zq_run *zq_map_run(const struct zq_map *m, uint64_t guest);
/* The zone forgets its runs there: look-ups ask L2. */
static inline void zq_map_forget(struct zq_map *m, uint64_t guest, uint64_t end)
{
    uint64_t zone = guest >> m->zone_bits;

    if (m->runs && zone >= m->first_seq_zone)
        zq_runs_remove(&m->runs[zone], guest, end);
}
/* Makes sure that guest has an L2 table of its own, to be changed: 0, ZQ_WAIT, error. */
int zq_map_table(struct zq_map *m, struct zq_gather *g, uint64_t guest);
/* Gives back a table that was made for an operation which then did not need it. At close. */
void zq_map_drop_fresh(struct zq_map *m);
/* Pins the slice that holds guest's entry. The table must exist. */
int zq_map_slice(struct zq_map *m, struct zq_gather *g, uint64_t guest, struct zq_slice **s);
/* Would bytes of a source be seen at guest if nothing were mapped there? */
static inline bool zq_map_masks(const struct zq_map *m, uint64_t guest)
{
    return guest < m->masked_below;
}
/* Does what an entry of this type maps guest to read as zeros, without a look into the file? */
static inline bool zq_map_reads_zeros(const struct zq_map *m, uint64_t guest,
                                      enum zq_extent_type type)
{
    return type == ZQ_EXT_ZERO || (type == ZQ_EXT_UNALLOC && !zq_map_masks(m, guest));
}
/* From guest on clusters can be given back, and read as zeros then. */
static inline bool zq_map_may_unlink(const struct zq_map *m, uint64_t guest)
{
    return !zq_map_masks(m, guest) || zq_l2_has_zero(&m->form);
}
/* How many clusters from guest on, at most n, are in the slice and have no entry at all. */
uint32_t zq_map_count_empty(const struct zq_map *m, const struct zq_slice *s, uint64_t guest,
                            uint32_t n);
/* Points n clusters from guest on at host: refcount 1. The slice is pinned and writable. */
void zq_map_link(struct zq_map *m, struct zq_slice *s, uint64_t guest, uint64_t host, uint32_t n);
/*
 * The clusters from guest on are those at host, refcount 1, and have the bytes [from, to), whole
 * units, beside those that their entries had content for. The slice is pinned and writable.
 */
void zq_map_link_part(struct zq_map *m, struct zq_slice *s, uint64_t guest, uint64_t host,
                      uint64_t from, uint64_t to);
/* The cluster at guest is compressed, in `bytes` from host on. The slice is pinned and writable. */
void zq_map_link_packed(struct zq_map *m, struct zq_slice *s, uint64_t guest, uint64_t host,
                        uint64_t bytes);
/*
 * What unmapping leaves behind. ZEROS: the range will be read, as zeros; where it would show the
 * bytes of a source, it gets an entry for zeros, also where nothing was mapped (S4). PLACE: the
 * same, but a cluster of the image's own keeps its place in the file, under an entry for zeros,
 * which the version must have. NOTHING: it lies at or beyond a write pointer, and is not read.
 */
enum zq_unlink { ZQ_LEAVE_ZEROS, ZQ_LEAVE_PLACE, ZQ_LEAVE_NOTHING };
/*
 * Unmaps the first host run in [guest, end), units that lie in the slice: *freed takes its clusters
 * (count 0: there was nothing, or a part of a cluster, which keeps it). Returns where to go on. The
 * slice is pinned and writable, and zq_map_check() has passed: else what is freed could be
 * anything.
 */
uint64_t zq_map_unlink(struct zq_map *m, struct zq_slice *s, uint64_t guest, uint64_t end,
                       enum zq_unlink leave, struct zq_freed *freed);
/* Is [guest, end), in the slice, as zq_map_unlink() leaves it? */
bool zq_map_is_unlinked(const struct zq_map *m, const struct zq_slice *s, uint64_t guest,
                        uint64_t end, enum zq_unlink leave);
/* ECORRUPT: an entry of [guest, end), in the slice, is not one that may be unlinked. */
int zq_map_check(const struct zq_map *m, struct zq_slice *s, uint64_t guest, uint64_t end);
/* How many zq_map_unlink calls with a result does [guest, end), in the slice, take at most? */
uint32_t zq_map_count_runs(const struct zq_map *m, const struct zq_slice *s, uint64_t guest,
                           uint64_t end, enum zq_unlink leave);
/* What an L2 entry holds on to, for giving it back; count 0: nothing. */
void zq_map_owned(const struct zq_map *m, const struct zq_l2_entry *l2, struct zq_freed *freed);
/* May anything be mapped there, as far as is known without a look? If not, not until *next. */
bool zq_map_may_hold(const struct zq_map *m, uint64_t guest, uint64_t *next);
/* Guest bytes up to the end of the slice that holds guest. */
uint64_t zq_map_slice_end(const struct zq_map *m, uint64_t guest);
/*
 * Slices of tables made since the open are known to be zeros until they are loaded: watched from
 * now on; all of the table of L1's entry `index`.
 */
void zq_map_watch_untouched(struct zq_map *m);
void zq_map_set_untouched(struct zq_map *m, uint64_t index);
/* l1, taken over, takes the place of L1; the cache knows nothing that l1 does not name. */
void zq_map_replace_l1(struct zq_map *m, struct zq_memtable *l1);
/* The same for the runs of n zones, which are empty. */
void zq_map_replace_runs(struct zq_map *m, struct zq_runs *runs, uint32_t n);
/* The round has written L1, and its barrier has completed. */
void zq_map_thaw(struct zq_map *m);

#endif
