/* SPDX-License-Identifier: MIT */
/*
 * Tables of 64-bit entries (L1, refcount and bitmap tables): one reader for each kind. It judges
 * every bit, so a caller needs no mask, and cannot check one thing and use another. L2 tables:
 * l2entry.h. Only this folder knows the bits of an entry.
 */
#ifndef ZQ_FORMAT_ENTRY_H
#define ZQ_FORMAT_ENTRY_H

#include <stdbool.h>

#include "base/bytes.h"
#include "format/header.h"

#define ZQ_TABLE_ENTRY 8u /* bytes of an entry */

#define ZQ_OFLAG_COPIED ((uint64_t)1 << 63)
/* Bits 9-55: where a cluster of the file begins. */
#define ZQ_OFFSET_MASK 0x00fffffffffffe00ull
/* In memory, in place of an entry of L1 that is wrong: behind the end of any file. */
#define ZQ_L1_WRONG ZQ_OFFSET_MASK

/* How an image writes its entries. Fixed. */
struct zq_form {
    uint32_t cluster_bits, version;
    bool extended; /* L2 entries have 128 bits, and subclusters */
    bool external; /* data lies in a file of its own, where it lies on the device (D1) */
};

/* What an image's entries are judged by. */
struct zq_bounds {
    struct zq_form form;
    uint64_t file_size; /* bytes; an entry must name a cluster that begins below it */
};

static inline struct zq_form zq_form_of(const struct zq_header *h)
{
    return (struct zq_form){h->cluster_bits, h->version, h->incompat & ZQ_INCOMPAT_EXTENDED_L2,
                            h->incompat & ZQ_INCOMPAT_DATA_FILE};
}

/* NULL, or why no cluster of the file begins here. */
static inline const char *zq_host_misplaced(const struct zq_bounds *b, uint64_t host)
{
    if (host & (((uint64_t)1 << b->form.cluster_bits) - 1))
        return "is not aligned to a cluster";
    return host >= b->file_size ? "points past the end of the file" : NULL;
}

/* ---- a table as bytes ---- */

static inline uint64_t zq_table_bytes(uint64_t entries)
{
    return entries * ZQ_TABLE_ENTRY;
}
static inline uint64_t zq_table_count(uint64_t bytes)
{
    return bytes / ZQ_TABLE_ENTRY;
}
/* Which of the table's sectors holds entry number i. */
static inline uint64_t zq_table_sector(uint64_t i)
{
    return i * ZQ_TABLE_ENTRY / ZQ_SECTOR;
}
static inline uint64_t zq_table_sectors(uint64_t entries)
{
    return zq_div_up(zq_table_bytes(entries), ZQ_SECTOR);
}
/*
 * Bytes as they lie in the file. A table in memory that has been decoded is an array of uint64_t.
 */
static inline uint64_t zq_table_get(const void *table, uint64_t i)
{
    return zq_be64((const uint8_t *)table + i * ZQ_TABLE_ENTRY);
}
static inline void zq_table_put(void *table, uint64_t i, uint64_t entry)
{
    zq_put_be64((uint8_t *)table + i * ZQ_TABLE_ENTRY, entry);
}

/* ---- entries of L1 and of the refcount table that have been judged ---- */

/* The table or block that it names; 0: none. */
static inline uint64_t zq_entry_host(uint64_t entry)
{
    return entry & ZQ_OFFSET_MASK;
}
/* L1: may the L2 table be changed where it lies? */
static inline bool zq_l1_is_own(uint64_t entry)
{
    return entry & ZQ_OFLAG_COPIED;
}
static inline uint64_t zq_l1_set_own(uint64_t entry, bool own)
{
    return (entry & ~ZQ_OFLAG_COPIED) | (own ? ZQ_OFLAG_COPIED : 0);
}

/* ---- what an entry says to a reader that ignores bits without a meaning ---- */

/* A flag means nothing without a table. */
static inline uint64_t zq_l1_known(uint64_t raw)
{
    return raw & ZQ_OFFSET_MASK ? raw & (ZQ_OFFSET_MASK | ZQ_OFLAG_COPIED) : 0;
}
static inline uint64_t zq_rt_known(uint64_t raw)
{
    return raw & ZQ_OFFSET_MASK;
}

/* ---- judging: NULL and what the entry says, or why it is none. *host 0: to nothing ---- */

static inline const char *zq_l1_read(const struct zq_bounds *b, uint64_t raw, uint64_t *host)
{
    *host = raw & ZQ_OFFSET_MASK;
    if (raw & ~(ZQ_OFFSET_MASK | ZQ_OFLAG_COPIED))
        return "reserved bits are set";
    if (*host)
        return zq_host_misplaced(b, *host);
    return raw ? "COPIED is set without a table" : NULL;
}

static inline const char *zq_rt_read(const struct zq_bounds *b, uint64_t raw, uint64_t *host)
{
    *host = raw;
    return raw & ~ZQ_OFFSET_MASK ? "reserved bits are set" : zq_host_misplaced(b, raw);
}

/* Of a cluster of a bitmap; *ones: it reads as ones, and *host is 0. */
static inline const char *zq_bitmap_read(const struct zq_bounds *b, uint64_t raw, uint64_t *host,
                                         bool *ones)
{
    *ones = raw == 1;
    *host = *ones ? 0 : raw;
    return *host & ~ZQ_OFFSET_MASK ? "reserved bits are set" : zq_host_misplaced(b, *host);
}

#endif
