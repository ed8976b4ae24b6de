/* SPDX-License-Identifier: MIT */
/*
 * Entries of L1, L2, refcount and bitmap tables: one reader for each kind. It judges every bit, so
 * a caller needs no mask, and cannot check one thing and use another.
 */
#ifndef ZQ_FORMAT_ENTRY_H
#define ZQ_FORMAT_ENTRY_H

#include <stdbool.h>

#include "base/bytes.h"
#include "format/codec.h"
#include "format/header.h"

/* What an image's entries are judged by. */
struct zq_bounds {
    uint64_t file_size;
    uint32_t cluster_bits, version;
};

/* NULL, or why no cluster of the file begins here. */
static inline const char *zq_host_misplaced(const struct zq_bounds *b, uint64_t host)
{
    if (host & (((uint64_t)1 << b->cluster_bits) - 1))
        return "is not aligned to a cluster";
    return host >= b->file_size ? "points past the end of the file" : NULL;
}

/* Each reader returns NULL and what the entry says, or why it is none. *host 0: to nothing. */

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

struct zq_l2_entry {
    uint64_t host, len; /* of what it holds in the file; len 0: nothing */
    bool compressed, zero;
    bool copied; /* may be written in place; never of a compressed cluster */
};

static inline const char *zq_l2_read_compressed(const struct zq_bounds *b, uint64_t raw,
                                                struct zq_l2_entry *e)
{
    e->compressed = true;
    e->zero = e->copied = false;
    zq_compressed_range(raw, b->cluster_bits, &e->host, &e->len);
    /* A file may end in the middle of the last sector. */
    if (e->host >= ZQ_MAX_HOST_OFFSET ||
        zq_round_down(e->host + e->len - 1, ZQ_SECTOR) >= b->file_size)
        return "compressed data runs past the end of the file";
    return NULL;
}

static inline const char *zq_l2_read(const struct zq_bounds *b, uint64_t raw, struct zq_l2_entry *e)
{
    uint64_t known = ZQ_OFFSET_MASK | ZQ_OFLAG_COPIED;

    if (raw & ZQ_OFLAG_COMPRESSED)
        return zq_l2_read_compressed(b, raw, e);
    e->host = raw & ZQ_OFFSET_MASK;
    e->len = e->host ? (uint64_t)1 << b->cluster_bits : 0;
    e->compressed = false;
    e->zero = raw & ZQ_OFLAG_ZERO;
    e->copied = raw & ZQ_OFLAG_COPIED;
    if (b->version >= 3)
        known |= ZQ_OFLAG_ZERO;
    if (raw & ~known)
        return "reserved bits are set";
    if (e->host)
        return zq_host_misplaced(b, e->host);
    return e->copied ? "COPIED is set without a cluster" : NULL;
}

#endif
