/* SPDX-License-Identifier: MIT */
/* A new first sector for the header of an image that has been made. No I/O, no allocation. */
#ifndef ZQ_FORMAT_RENAMING_H
#define ZQ_FORMAT_RENAMING_H

#include "format/bitmaps.h"
#include "format/header.h"

/* The two writes that change a backing file: first the name, then the sector that points at it. */
struct zq_renaming {
    uint8_t sector0[ZQ_SECTOR];
    uint8_t name[2 * ZQ_SECTOR]; /* for name_at */
    uint64_t name_at;            /* 0: the name is in sector 0, or there is none */
    uint32_t mark_offset;        /* as in the new sector */
};

/* EFEATURE: the image has a raw data file, which leaves nothing to a backing file (D1). */
int zq_header_may_rename(const struct zq_header *h, const struct zqcow2_backing *to,
                         struct zqcow2_error *err);
/*
 * buf: the header cluster of h, its first sector as it is on disk now. to: a name
 * of at most ZQ_MAX_BACKING_NAME bytes and its format; an empty name: no backing file. EFEATURE:
 * there is no room for it, or the image may have none.
 */
int zq_header_rename(const struct zq_header *h, const uint8_t *buf, const struct zqcow2_backing *to,
                     struct zq_renaming *out, struct zqcow2_error *err);
/*
 * The same for another directory of bitmaps; nr 0: for none. The backing file stays as it is; its
 * name may move.
 */
int zq_header_put_bitmaps(const struct zq_header *h, const uint8_t *buf,
                          const struct zq_bitmaps_place *p, struct zq_renaming *out,
                          struct zqcow2_error *err);

/* What is to differ; all of it is the new header's. */
struct zq_amended {
    uint32_t version, refcount_order, rt_clusters;
    uint64_t incompat, compat, autoclear, rt_offset;
    const uint8_t *zoned; /* data of the zoned extension; NULL: as it is */
    uint32_t zoned_len;
};
/* The same for other fields. backing: what the header names now, which stays. */
int zq_header_amend(const struct zq_header *h, const uint8_t *buf,
                    const struct zqcow2_backing *backing, const struct zq_amended *to,
                    struct zq_renaming *out, struct zqcow2_error *err);

#endif
