/* SPDX-License-Identifier: MIT */
/*
 * Entries of L2 tables, typed: what a cluster is, and what it holds on to in the file. Callers have
 * an entry as the place in memory where it lies, in the file's order. How many bytes it takes, what
 * its bits are and what differs by version is known here only. Entries of 128 bits with subclusters
 * are another zq_form: a stretch of like bytes may then begin and end inside a cluster. A *unit* is
 * what an entry can say something of: a subcluster, or the cluster where there are none.
 */
#ifndef ZQ_FORMAT_L2ENTRY_H
#define ZQ_FORMAT_L2ENTRY_H

#include <string.h>
#include "format/entry.h"

#define ZQ_L2_ENTRY_MAX 16u /* bytes of an entry of any form */

#define ZQ_L2_UNIT_BITS 5u /* log2 of the subclusters of a cluster */

enum zq_extent_type { ZQ_EXT_UNALLOC, ZQ_EXT_ZERO, ZQ_EXT_DATA, ZQ_EXT_COMPRESSED };

struct zq_l2_entry {
    enum zq_extent_type type; /* of the unit that was asked for, or of the first */
    bool used;                /* the entry is not empty */
    bool copied;        /* refcount 1: may be written in place; never of a compressed cluster */
    uint64_t host, len; /* of what it holds in the file, ZERO too; len 0: nothing. In a data file
                           host 0 is valid */
    uint64_t data,
        data_end; /* bytes of the cluster outside of which it has no content; 0, 0: none */
};

/* Bytes of the device around one of them, in the clusters of a table, that are alike. */
struct zq_l2_stretch {
    struct zq_l2_entry *first; /* the caller's: the entry of the cluster that was asked for */
    uint64_t before;           /* how many in front of it, in its cluster, belong to it */
    uint64_t bytes;            /* from it on; with clusters: contiguous in the file */
};

/* ---- tables ---- */

/* log2 of an entry's bytes. */
static inline unsigned zq_l2_entry_bits(const struct zq_form *f)
{
    return f->extended ? 4 : 3;
}
/* log2 of a unit's bytes. */
static inline unsigned zq_l2_unit_bits(const struct zq_form *f)
{
    return f->extended ? f->cluster_bits - ZQ_L2_UNIT_BITS : f->cluster_bits;
}
static inline uint64_t zq_l2_unit_bytes(const struct zq_form *f)
{
    return (uint64_t)1 << zq_l2_unit_bits(f);
}
/* log2 of the entries in a table, which is a cluster. */
static inline unsigned zq_l2_table_bits(const struct zq_form *f)
{
    return f->cluster_bits - zq_l2_entry_bits(f);
}
/* log2 of the bytes of the device that a table, an entry of L1, maps. */
static inline unsigned zq_l2_span_bits(const struct zq_form *f)
{
    return f->cluster_bits + zq_l2_table_bits(f);
}
static inline uint64_t zq_l2_bytes(const struct zq_form *f, uint64_t entries)
{
    return entries << zq_l2_entry_bits(f);
}
/* How many entries of L1 a device needs. */
static inline uint64_t zq_l1_needed(const struct zq_form *f, uint64_t device_size)
{
    return zq_div_up(device_size, (uint64_t)1 << zq_l2_span_bits(f));
}

/* ---- entries ---- */

/* table may be a slice, if i counts from its first entry. */
static inline uint8_t *zq_l2_at(const struct zq_form *f, uint8_t *table, uint64_t i)
{
    return table + zq_l2_bytes(f, i);
}
/* UNALLOC, and nothing else about it? */
static inline bool zq_l2_is_empty(const struct zq_form *f, const uint8_t *entry)
{
    return !(zq_be64(entry) | (f->extended ? zq_be64(entry + 8) : 0));
}
static inline void zq_l2_clear(const struct zq_form *f, uint8_t *entry)
{
    zq_put_be64(entry, 0);
    if (f->extended)
        zq_put_be64(entry + 8, 0);
}
static inline void zq_l2_clear_all(const struct zq_form *f, uint8_t *entry, uint32_t n)
{
    memset(entry, 0, (size_t)zq_l2_bytes(f, n));
}
/* Is there an entry that reads as zeros without a cluster? UNALLOC is none where there is a source.
 */
static inline bool zq_l2_has_zero(const struct zq_form *f)
{
    return f->version >= 3;
}
/* Is it one, and nothing else about it? */
bool zq_l2_is_zero(const struct zq_form *f, const uint8_t *entry);
/* Makes it one. */
void zq_l2_set_zero(const struct zq_form *f, uint8_t *entry);
/* How many of at most n entries, from this one on, are empty. */
static inline uint32_t zq_l2_count_empty(const struct zq_form *f, const uint8_t *entry, uint32_t n)
{
    uint32_t k = 0;

    if (f->extended) {
        while (k < n && zq_l2_is_empty(f, entry + (uint64_t)k * ZQ_L2_ENTRY_MAX))
            k++;
        return k;
    }
    while (k < n && !zq_be64(entry + (uint64_t)k * ZQ_TABLE_ENTRY))
        k++;
    return k;
}
/* n whole clusters of data, contiguous in the file from host on, refcount 1. */
void zq_l2_link(const struct zq_form *f, uint8_t *entry, uint64_t host, uint32_t n);
/*
 * host, refcount 1, has the bytes [from, to) of the cluster, whole units, and beside them all that
 * the entry had content for.
 */
void zq_l2_link_part(const struct zq_form *f, uint8_t *entry, uint64_t host, uint64_t from,
                     uint64_t to);
/* Can a compressed cluster end at this byte of the file? An entry has few bits for its place. */
bool zq_l2_may_pack(const struct zq_form *f, uint64_t end);
/* The cluster is compressed, in `bytes` from host on: whole sectors, fewer than a cluster's. */
void zq_l2_link_packed(const struct zq_form *f, uint8_t *entry, uint64_t host, uint64_t bytes);
/*
 * The bytes [from, to) of the entry's cluster, whole units, have no content any more; hide: they
 * read as zeros whatever is below, which an entry that is not extended always needs. What the entry
 * holds in the file stays. Not of a compressed one.
 */
void zq_l2_unlink_part(const struct zq_form *f, uint8_t *entry, uint64_t from, uint64_t to,
                       bool hide);
/* Does it hold a cluster in the file that is nobody else's, and could be written in place? */
bool zq_l2_has_place(const struct zq_form *f, const uint8_t *entry);
/* Are they as that leaves them? */
bool zq_l2_is_unlinked_part(const struct zq_form *f, const uint8_t *entry, uint64_t from,
                            uint64_t to, bool hide);
/* The refcount of what it holds has become 1, or is no longer. Compressed: own is false. */
void zq_l2_set_own(const struct zq_form *f, uint8_t *entry, bool own);
/* Its cluster, of data or zeros, has moved to host, refcount 1; what it is stays. */
void zq_l2_set_host(const struct zq_form *f, uint8_t *entry, uint64_t host);
/*
 * Leaves what the entry says to a reader that ignores bits without a meaning. In version 2 bit 0
 * stays: to other programs it is the zero of version 3, and no reader gives data out for it.
 */
void zq_l2_keep_known(const struct zq_form *f, uint8_t *entry);
/* Is the flag set, whatever else the entry says? */
bool zq_l2_says_copied(const struct zq_form *f, const uint8_t *entry);
/* For messages: the entry's first 64 bits. */
static inline uint64_t zq_l2_word(const uint8_t *entry)
{
    return zq_be64(entry);
}

/* NULL, or why the entry is none; *e is what it says all the same. */
const char *zq_l2_read(const struct zq_bounds *b, const uint8_t *entry, struct zq_l2_entry *e);
/* How many bytes, at most end, of the entry's cluster and those that follow are like the first. */
uint64_t zq_l2_follow(const struct zq_bounds *b, const uint8_t *entry, uint64_t end,
                      const struct zq_l2_entry *first);
/* zq_l2_stretch() of extended entries. */
const char *zq_l2_stretch_units(const struct zq_bounds *b, const uint8_t *entry, uint64_t skew,
                                uint64_t max, struct zq_l2_stretch *s);
/*
 * The stretch around the byte `skew` of the entry's cluster. It ends with what is like that byte,
 * and at the latest after max bytes; so many lie in the clusters of the entries that follow.
 */
static inline const char *zq_l2_stretch(const struct zq_bounds *b, const uint8_t *entry,
                                        uint64_t skew, uint64_t max, struct zq_l2_stretch *s)
{
    const char *why;

    if (b->form.extended)
        return zq_l2_stretch_units(b, entry, skew, max, s);
    why = zq_l2_read(b, entry, s->first);
    s->before = skew;
    s->bytes = max;
    if (!why && (skew + max - 1) >> b->form.cluster_bits)
        s->bytes = zq_l2_follow(b, entry, skew + max, s->first) - skew;
    return why;
}

#endif
