/* SPDX-License-Identifier: MIT */
/*
 * Repairs what a scan found. Order within a pass (R13): raise refcounts, barrier, fix entries,
 * barrier, lower refcounts. After a crash between any two writes another repair can fix the image;
 * leaks alone are freed by the next writable open, because the in-use mark is set before all this.
 */
#ifndef ZQ_CHECK_REPAIR_H
#define ZQ_CHECK_REPAIR_H

#include "check/scan.h"

/* flags: zqcow2_check_flag. *changed: something was written, the scan is out of date. */
int zq_repair_pass(struct zq_scan *s, unsigned flags, bool *changed);
/* Of an image without corruptions. Behind the last barrier, before zq_repair_finish(). */
int zq_repair_space(struct zq_scan *s);
/*
 * The last write. sound: clears DIRTY, CORRUPT and our mark, for nothing is left that they could
 * warn of. Else the mark becomes again what it was before; and where refcounts should have been
 * raised and could not be, because they are too narrow or because tables overlap, CORRUPT is set,
 * so that no program allocates by them.
 */
int zq_repair_finish(struct zq_scan *s, unsigned flags, bool sound);

/*
 * Writes a new refcount table and all blocks behind the end of the file and switches to it. No
 * refcount gets lower than it was; the old table and blocks become leaks. The new blocks cover
 * `spare` more clusters behind the new end of the file.
 */
int zq_rebuild_refcounts(struct zq_scan *s, uint64_t spare, bool *changed);

/* A rebuild that changes the width, and what one sector of the header switches together with it. */
struct zq_rebuild_as {
    uint32_t order;          /* of the new refcounts: they can hold every count */
    const uint8_t *pointers; /* a table that goes behind the blocks, or NULL */
    uint64_t pointers_bytes;
    /* Composes the header's first sector, when the rest is written and placed. */
    int (*header)(struct zq_rebuild_as *as, uint8_t sector0[ZQ_SECTOR]);
    uint64_t rt_offset, pointers_offset;
    uint32_t rt_clusters;
    bool switching; /* after an error the header may be either one */
};
/* What has been scanned and has no count any more loses one reference, and nothing else does. */
int zq_rebuild_as(struct zq_scan *s, struct zq_rebuild_as *as);

/* What may be done to entries of one table, and what was. */
struct zq_fix {
    bool may_drop;       /* entries that are wrong, or map what lies beyond a write pointer */
    bool keep_on_tables; /* but not data on an L2 table, which is about to move */
    bool may_clear;      /* bits that mean nothing */
    bool may_flag;       /* COPIED may be set right */
    bool only_changed;   /* flags only where this repair changes the refcount, or that are loose */
    const struct zq_l2 *table;
    uint64_t flags, cleared, dropped, unmapped;
};
/* index: of the entry in L1. */
void zq_fix_l1(struct zq_scan *s, struct zq_fix *f, uint64_t index, uint64_t *entry);
/* What the source has would be seen through entry number `index` of L1, were it empty. */
bool zq_shows_source(const struct zq_scan *s, uint64_t index);
/* index: of the entry in f->table. */
void zq_fix_l2(struct zq_scan *s, struct zq_fix *f, uint64_t index, uint8_t *entry);
void zq_fix_report(struct zq_scan *s, const struct zq_fix *f);
/* Reports n repairs of a kind; nothing when n is 0. */
void zq_repaired(struct zq_scan *s, uint64_t n, const char *what);

/* Sets write pointers whose entries are none; *fixed counts them. */
int zq_repair_pointers(struct zq_scan *s, uint64_t *fixed);
/* The same for stored states of zones. */
int zq_repair_states(struct zq_scan *s, uint64_t *fixed);

/* Bitmaps that share a name: all but the first get another one, where their records have room. */
int zq_rename_bitmaps(struct zq_scan *s, bool *changed);

/* Gives active entries copies of their own, where what they share stands in the way. */
int zq_unshare(struct zq_scan *s, unsigned flags, bool *changed);

#endif
