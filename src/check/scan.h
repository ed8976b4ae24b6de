/* SPDX-License-Identifier: MIT */
/*
 * One scan over everything that refers to a host cluster: shared by check and repair.
 *
 * Work and memory are bounded by the file: a table is read once however often it is pointed to,
 * its references then count that many times; tables that overlap one another are not entered.
 */
#ifndef ZQ_CHECK_SCAN_H
#define ZQ_CHECK_SCAN_H

#include "base/bytes.h"
#include "format/l2entry.h"
#include "format/refbits.h"
#include "format/states.h"
#include "check/check.h"
#include "check/counts.h"
#include "check/names.h"

#define ZQ_PIECE    65536u
#define ZQ_NO_INDEX UINT32_MAX

/*
 * What claims clusters. The higher ranks (lower numbers) are scanned first and in full, so that
 * what is claimed twice stays with the highest: a later claim that contradicts an earlier one is
 * the one that is wrong.
 */
enum zq_rank { ZQ_RANK_ACTIVE, ZQ_RANK_SNAPSHOT, ZQ_RANK_BITMAP };

struct zq_l1 {
    uint64_t offset;
    uint32_t entries;
};

/* An L2 table and how often L1 entries of one rank point to it. */
struct zq_l2 {
    uint64_t offset;
    uint32_t refs;
    uint32_t index; /* the first entry of the active L1 that points to it, or ZQ_NO_INDEX */
    bool shared;    /* an active one that snapshots have, too */
    bool flagged;   /* the entries of the active L1 say that nobody else has it */
    uint8_t lower;  /* zq_by: what else lower ranks have in an active one */
};

/* Which part of a zone has L2 entries, as guest offsets; low > top: none. */
struct zq_zone_use {
    uint64_t low, top;
    /* of an image over another: which clusters it must have by itself, and how many it has */
    uint64_t own, own_end, own_mapped;
    uint64_t whole; /* from the zone's start to here all have one; only zq_repair_pointers() */
};

/* What the table of snapshots shows of the header's fields, and of its records. */
struct zq_snap_list {
    uint64_t found;      /* corruptions that these fields are */
    uint64_t end;        /* behind the last record that was followed; 0: there can be no table */
    uint32_t nr;         /* records that were followed */
    uint32_t beyond;     /* more records behind them, which the header does not count */
    uint64_t short_at;   /* of a record whose l1_size is too small; 0: none */
    uint64_t looked;     /* entries behind the ends of such tables that were looked at */
    uint32_t l1_entries; /* what it should be */
};

/* A field of 32 bits at a place in the file, and what a scan reads there instead. */
struct zq_trial {
    uint64_t at; /* 0: none */
    uint32_t value;
};

/* What a repair knows from one of its scans to the next. */
struct zq_repair {
    bool raise;      /* it raises refcounts, not only frees leaks */
    bool begun;      /* the first write is done */
    bool marked;     /* the in-use mark is set by this repair, and was not before */
    bool grown;      /* the refcounts were rebuilt to have room for copies */
    bool rebuilt;    /* which refcounts were too low shows no longer */
    uint64_t copies; /* clusters that may still be copied: as many as the file had */
};

struct zq_scan {
    struct zqcow2_backend *be;
    const struct zqcow2_hooks *hooks;
    const struct zqcow2_check_options *opt;
    struct zqcow2_check_result *res;
    struct zqcow2_error *err;
    bool quiet; /* only repairs are reported to the caller */

    uint64_t file_size;
    struct zq_header h;
    struct zq_geometry g;         /* g.layout NONE: a plain image */
    const struct zq_below *below; /* what it stands on, or NULL */
    uint8_t *wp;                  /* the write-pointer table as it lies in the file */
    uint8_t *states;              /* the same for persistent zone states; NULL: none */
    struct zq_zone_use *use;

    uint64_t *rt; /* offsets of refcount blocks; 0: none, or not to be trusted */
    uint64_t rt_entries;
    uint32_t judged; /* blocks on other tables that were looked at */
    struct zq_counts counts;
    enum zq_rank rank; /* whose claims are scanned, or judged */
    bool seen;         /* a table of a higher rank is scanned again: its findings are reported */
    struct zq_l1 *l1s; /* the active one first */
    uint32_t nr_l1s, l1_room;
    struct zq_l2 *l2s; /* those of the active L1 first; each part by offset */
    size_t nr_l2s, nr_active_l2s, l2_room;
    uint64_t next_host; /* behind the last cluster that the L2 table in hand maps; 0: none yet */

    struct zq_names names; /* of the bitmaps, sorted */

    uint8_t *piece; /* ZQ_PIECE bytes: of the table that is walked */
    uint8_t *block; /* a cluster: the refcount block number block_index */
    size_t block_bytes;
    uint64_t block_index;
    uint64_t hole_index; /* of a block that lies in a hole: the last one that was met */
    uint64_t holes;      /* clusters in holes that tables of snapshots and bitmaps take */

    struct zq_snap_list list; /* of snapshots */

    struct zq_trial trial;

    struct zq_repair repair; /* of the repair that the scan belongs to */
    bool lost;               /* a lower rank's table: a higher one has something there */
    bool hidden;             /* there may be references that could not be followed: free nothing */
    bool unfollowed;         /* of these, some of a snapshot: which may have any table */
    bool tangled;            /* active tables with one owner overlap: which is right is unknown */
    bool long_l1;            /* something lies where L1 is longer than the disk needs */
    bool marked;             /* in use; not by this repair */
    bool stray;              /* entries of L1 or L2 have bits without a meaning */
    bool rebuild;            /* the refcounts must not be changed where they are */
    uint64_t too_low;        /* clusters whose refcount is below their references */
    uint64_t no_block;       /* of these, such as no refcount block covers */
    uint64_t on_tables;      /* active entries whose data lies on an L2 table */
    uint64_t to_one;      /* clusters that freeing leaks brings down to 1: they then need COPIED */
    uint64_t loose;       /* COPIED flags as an interrupted change leaves them */
    uint64_t past_end;    /* behind what is named not far beyond the file's end; 0: nothing */
    uint64_t end_cluster; /* behind the last cluster that is referred to or has a refcount */
};

/*
 * Every write of a repair goes here: before the first one it durably sets the in-use mark (R13)
 * and clears stray autoclear bits, as the specification asks for.
 */
int zq_scan_write(struct zq_scan *s, const void *buf, size_t len, uint64_t off);
/* The same for what makes the file longer: a repair that is killed then gives it back. */
int zq_scan_lengthen(struct zq_scan *s, uint64_t bytes);

/* Reads what may have the field that is on trial: the header, and records of snapshots. */
int zq_scan_read(struct zq_scan *s, void *buf, size_t len, uint64_t off);
/* The whole of a check: a scan, and what it counted compared with what is stored. */
int zq_examine(struct zq_scan *s);
/*
 * How many corruptions a scan like s finds if the field is what the trial says. Writes and reports
 * nothing. s: its backend, hooks, below and repair are looked at.
 */
int zq_check_trial(const struct zq_scan *s, struct zq_trial trial, uint64_t *corruptions);

/* What an L1 or L2 entry points to. */
struct zq_target {
    uint64_t host, len; /* len 0: to nothing in the file */
    bool compressed;
    bool outside;      /* to a cluster of a data file, at host; len is 0 */
    bool counted;      /* wrong, but what it points to is known */
    bool on_refcounts; /* wrong only until a rebuild moves the refcounts away */
    bool on_table;     /* data on an L2 table: wrong until one of the two has moved */
    const char *why;   /* NULL: the entry names what it may name, or nothing */
    const char *where; /* completes why */
    const char *stray; /* if it has bits without a meaning beside what it says, which ones */
};

/* Adds n findings of one kind (zqcow2_finding) to the result and reports them to the caller. */
void zq_found(struct zq_scan *s, int kind, uint64_t n, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* The entry of a compressed cluster has the flag COPIED. */
void zq_found_packed(struct zq_scan *s, const char *table, uint64_t index, uint64_t at,
                     uint64_t word);

/* Reads header, zones and refcount table and counts every reference. s->be, hooks, opt are set. */
int zq_scan_run(struct zq_scan *s);
void zq_scan_free(struct zq_scan *s);

/* Nothing may be freed while data of other programs, unknown to us, may lie in the file. */
static inline bool zq_scan_may_free(const struct zq_scan *s)
{
    return !s->hidden && !s->h.unknown_ext && !s->h.unknown_autoclear;
}

/* The same for the snapshot table and the bitmaps directory; called by zq_scan_run(). */
int zq_scan_snapshots(struct zq_scan *s);
int zq_scan_bitmaps(struct zq_scan *s);
/* When all is counted: whether the header counts all snapshots, and they all that they have. */
int zq_scan_uncounted(struct zq_scan *s);

/*
 * Counts a table that has one owner. *clash: something lies there already, and the table is not to
 * be entered. What a lower rank then claims counts as a reference where copying on write makes that
 * safe; where tables are written in place it counts for nothing. Refcounts are no such thing: a
 * rebuild moves them away, so the table is entered now, and nothing is found only after that.
 */
int zq_scan_claim(struct zq_scan *s, uint64_t offset, uint64_t bytes, enum zq_kind kind,
                  const char *name, bool *clash);
/* What is scanned has something on a table of a higher rank, if it is of a lower one. */
static inline void zq_scan_note_lower(struct zq_scan *s, uint64_t cluster, enum zq_by by)
{
    if (s->rank == ZQ_RANK_ACTIVE)
        return;
    zq_counts_note(&s->counts, cluster, by);
    s->lost |= by & ZQ_BY_LOWER_TABLE;
}
/* The same for one cluster that a higher rank keeps. */
int zq_scan_count_lost(struct zq_scan *s, uint64_t cluster);

/*
 * Calls fn for every entry that is not 0 of a table of 64-bit entries, or of an L2 table; what fn
 * changes is written back. at: where the entry lies in the file.
 */
typedef int zq_entry_fn(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint64_t *entry);
typedef int zq_l2_fn(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint8_t *entry);
int zq_walk_entries(struct zq_scan *s, uint64_t offset, uint64_t entries, zq_entry_fn *fn,
                    void *arg);
int zq_walk_l2(struct zq_scan *s, uint64_t offset, zq_l2_fn *fn, void *arg);

/* What an active entry is, or one of the rank that is scanned. */
void zq_l1_target(struct zq_scan *s, uint64_t entry, struct zq_target *t);
/* The entry is number `index` of an L2 table; NULL: it does not matter which. */
void zq_l2_target(struct zq_scan *s, const struct zq_l2 *table, uint64_t index,
                  const uint8_t *entry, struct zq_target *t);

/*
 * Something names what lies up to `end`, beyond the file's end. A file that a repair makes longer
 * must not give it something to find there.
 */
void zq_scan_note_past_end(struct zq_scan *s, uint64_t end);

/* The first part of [*at, end) that may be other than zeros: *at, *stop; *at == end: none is. */
int zq_scan_data(struct zq_scan *s, uint64_t *at, uint64_t *stop, uint64_t end);
/* Does the refcount block lie in a hole of the file, so that all in it is 0? */
int zq_scan_is_hole(struct zq_scan *s, uint64_t index, bool *hole);
/* The refcount of a cluster as it is on disk. */
int zq_scan_refcount(struct zq_scan *s, uint64_t cluster, uint64_t *refcount);
/* Makes s->block hold block number index of the refcount table (s->rt[index] is not 0). */
int zq_scan_block(struct zq_scan *s, uint64_t index);

static inline uint64_t zq_scan_cluster(const struct zq_scan *s)
{
    return (uint64_t)1 << s->h.cluster_bits;
}

static inline struct zq_form zq_scan_form(const struct zq_scan *s)
{
    return zq_form_of(&s->h);
}

static inline struct zq_bounds zq_scan_bounds(const struct zq_scan *s)
{
    return (struct zq_bounds){zq_scan_form(s), s->file_size};
}

static inline unsigned zq_scan_block_bits(const struct zq_scan *s)
{
    return zq_block_bits(s->h.cluster_bits, s->h.refcount_order);
}

/* Autoclear bits that are unknown or stand for nothing that is here: any write clears them. */
static inline uint64_t zq_scan_stray_bits(const struct zq_scan *s)
{
    bool data_file = s->h.incompat & ZQ_INCOMPAT_DATA_FILE;

    return s->h.autoclear & ~((s->h.bitmaps_offset ? ZQ_AUTOCLEAR_BITMAPS : 0) |
                              (data_file ? ZQ_AUTOCLEAR_RAW_DATA : 0) |
                              (s->h.states_offset ? ZQ_AUTOCLEAR_STATES : 0) |
                              (s->h.copies ? ZQ_AUTOCLEAR_COPIES : 0));
}

/* No snapshots, but an offset of their table that other programs refuse nevertheless. */
static inline bool zq_scan_stray_snapshots(const struct zq_scan *s)
{
    uint64_t at = s->h.snapshots_offset;

    return !s->h.nb_snapshots && (at & (zq_scan_cluster(s) - 1) || at > INT64_MAX);
}

/*
 * What lower ranks have on the table that lies there: ZQ_BY_LOWER, ZQ_BY_LOWER_TABLE. Which of two
 * is right is unknown, so what both of them read stays as it is.
 */
static inline uint8_t zq_scan_lower(struct zq_scan *s, uint64_t at)
{
    return zq_counts_once(&s->counts, at >> s->h.cluster_bits) & ZQ_BY_LOWERS;
}
/*
 * The same for an entry of the active L1. Those that the disk does not need may be none, where what
 * a lower rank has here could not be followed.
 */
static inline uint8_t zq_scan_l1_lower(struct zq_scan *s, uint64_t index)
{
    const struct zq_form form = zq_scan_form(s);

    if (s->lost && index >= zq_l1_needed(&form, s->h.virtual_size))
        return ZQ_BY_LOWERS;
    return zq_scan_lower(s, s->h.l1_offset + zq_table_bytes(index));
}

/*
 * Refcount and flag lie in different sectors, so that a crash may leave them apart. Under a set
 * mark that is no damage, as long as there is one reference only, and a count for it: recovery sets
 * the flag right.
 */
static inline bool zq_scan_is_loose(struct zq_scan *s, const struct zq_target *t)
{
    uint64_t cluster = t->host >> s->h.cluster_bits;

    return s->marked && zq_counts_get(&s->counts, cluster) == 1 &&
           !(zq_counts_once(&s->counts, cluster) & ZQ_ONCE_TOO_LOW);
}

/* What is written to the table is seen through one L1 entry only, of the active L1. */
static inline bool zq_l2_is_own(const struct zq_l2 *t)
{
    return t->refs == 1 && !t->shared && !t->lower && t->index != ZQ_NO_INDEX;
}

/* Where entry number i of an active L2 table begins on the device. */
static inline uint64_t zq_scan_guest(const struct zq_scan *s, const struct zq_l2 *t, uint64_t i)
{
    const struct zq_form form = zq_scan_form(s);

    return ((uint64_t)t->index << zq_l2_span_bits(&form)) + (i << s->h.cluster_bits);
}

/* A cluster of the active L1 in which no entry is needed: it may be its size that is wrong. */
static inline bool zq_scan_beyond_l1(const struct zq_scan *s, uint64_t cluster)
{
    const struct zq_form form = zq_scan_form(s);
    uint64_t need = zq_table_bytes(zq_l1_needed(&form, s->h.virtual_size));

    return cluster >= zq_div_up(s->h.l1_offset + need, zq_scan_cluster(s)) &&
           cluster << s->h.cluster_bits < s->h.l1_offset + zq_table_bytes(s->h.l1_entries);
}

/* The first cluster behind the file for what a repair adds: where no wrong entry points already. */
static inline uint64_t zq_scan_new_end(const struct zq_scan *s)
{
    return zq_div_up(zq_max(s->file_size, s->past_end), zq_scan_cluster(s));
}

/* The active L2 table at an offset, or NULL. */
struct zq_l2 *zq_scan_active_l2(const struct zq_scan *s, uint64_t offset);

/* False: g has no such zone, it is conventional, or its entry in the table is not valid. */
bool zq_scan_zone_wp(const struct zq_scan *s, uint64_t guest, struct zq_entry *e);

/* The write pointer of the same zone of what it stands on. */
uint64_t zq_scan_below_wp(const struct zq_scan *s, uint32_t zone);

/* What entry number i of an active L2 table maps is at or beyond a write pointer. */
static inline bool zq_scan_beyond_wp(const struct zq_scan *s, const struct zq_l2 *t, uint64_t i)
{
    uint64_t guest = zq_scan_guest(s, t, i);
    struct zq_entry e;

    return zq_scan_zone_wp(s, guest, &e) && guest >= e.wp;
}

#endif
