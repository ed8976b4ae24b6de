/* SPDX-License-Identifier: MIT */
/*
 * A table of 64-bit entries that is kept in memory: L1, the refcount table. Its entries have been
 * judged and are in native order. It knows which of its sectors the file does not have yet, and
 * what its entries name. A round takes what is dirty (freeze), writes it (compose), and thaws the
 * table when its barrier has completed, or stops. While it is frozen no entry changes.
 */
#ifndef ZQ_QCOW2_MEMTABLE_H
#define ZQ_QCOW2_MEMTABLE_H

#include "format/entry.h"
#include "qcow2/index.h"

enum zq_sector { ZQ_SECTOR_CLEAN, ZQ_SECTOR_DIRTY, ZQ_SECTOR_WRITTEN /* by the running round */ };

struct zq_memtable {
    const struct zqcow2_hooks *hooks;
    uint64_t *v;              /* owned; NULL: not open, or without entries */
    uint64_t entries, offset; /* how many, and where in the file the first of them lies */
    struct zq_index index;    /* of v; empty until zq_memtable_index() */
    uint8_t *dirty;           /* owned: a zq_sector for each 512-byte sector */
    bool is_dirty, frozen;    /* frozen: the running round has still to write it */
};

/* All entries 0. -ENOMEM: to be closed all the same. */
int zq_memtable_open(struct zq_memtable *t, const struct zqcow2_hooks *hooks, uint64_t entries,
                     uint64_t offset);
void zq_memtable_close(struct zq_memtable *t);
/* In place of what `to` was; `from` is closed then. */
void zq_memtable_move(struct zq_memtable *to, struct zq_memtable *from);
/* When the entries are there. -ENOMEM. */
int zq_memtable_index(struct zq_memtable *t);
/* Changes entry i of a table that is not frozen; the next round writes it. */
void zq_memtable_set(struct zq_memtable *t, uint64_t i, uint64_t entry);

void zq_memtable_freeze(struct zq_memtable *t);
/*
 * The next dirty sectors from number *cursor on, contiguous in the file, as bytes into buf: how
 * many bytes, at most max; *at: where they go. 0: all are composed.
 */
uint32_t zq_memtable_compose(struct zq_memtable *t, uint64_t *cursor, uint8_t *buf, uint32_t max,
                             uint64_t *at);
/* The round has written it. */
void zq_memtable_thaw(struct zq_memtable *t);
/* It stopped before that: what it took is dirty again. */
void zq_memtable_stop(struct zq_memtable *t);

#endif
