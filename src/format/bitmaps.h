/* SPDX-License-Identifier: MIT */
/*
 * Persistent bitmaps: the bytes of the header extension and of an entry of the directory (qcow2
 * specification, "Bitmaps"). No I/O, no allocation.
 */
#ifndef ZQ_FORMAT_BITMAPS_H
#define ZQ_FORMAT_BITMAPS_H

#include <stdbool.h>

#include "base/bytes.h"

#define ZQ_BITMAPS_EXT   24u /* bytes of the extension */
#define ZQ_BITMAP_FIXED  24u /* bytes of an entry before its extra data and its name */
#define ZQ_BITMAP_FLAGS  12u /* where the flags are in an entry: always within one sector */
#define ZQ_MAX_BITMAPS   65535u
#define ZQ_MAX_BITMAP_IO (64u << 20) /* bytes of the directory, and of a table */

#define ZQ_BITMAP_IN_USE     1u /* it does not hold, and has to fit nothing */
#define ZQ_BITMAP_AUTO       2u /* enabled: every change of the device is marked */
#define ZQ_BITMAP_EXTRA_OK   4u /* may be used although its extra data is unknown */
#define ZQ_BITMAP_KNOWN      7u
#define ZQ_BITMAP_TRACKING   1u /* the only type */
#define ZQ_MIN_GRANULARITY   9u /* bits: 512 bytes */
#define ZQ_MAX_GRANULARITY   31u
#define ZQ_MAX_BITMAP_NAME   1023u
#define ZQ_GRANULARITY_USUAL 16u

/* What the header's extension says. */
struct zq_bitmaps_place {
    uint32_t nr, reserved;
    uint64_t bytes, offset; /* of the directory */
};

static inline struct zq_bitmaps_place zq_bitmaps_place_read(const uint8_t *ext)
{
    return (struct zq_bitmaps_place){zq_be32(ext), zq_be32(ext + 4), zq_be64(ext + 8),
                                     zq_be64(ext + 16)};
}

static inline void zq_bitmaps_place_put(uint8_t *ext, const struct zq_bitmaps_place *p)
{
    zq_put_be32(ext, p->nr);
    zq_put_be32(ext + 4, p->reserved);
    zq_put_be64(ext + 8, p->bytes);
    zq_put_be64(ext + 16, p->offset);
}

/* The fixed part of an entry, as it is stored: nothing of it is judged. */
struct zq_bitmap_record {
    uint64_t table_offset;
    uint32_t table_entries, flags, extra_bytes;
    uint32_t type, granularity_bits, name_bytes;
    uint64_t bytes; /* of the whole entry */
};

static inline uint64_t zq_bitmap_record_bytes(uint64_t extra, uint64_t name)
{
    return zq_align_up(ZQ_BITMAP_FIXED + extra + name, 8);
}

static inline void zq_bitmap_record_read(const uint8_t *raw, struct zq_bitmap_record *r)
{
    r->table_offset = zq_be64(raw);
    r->table_entries = zq_be32(raw + 8);
    r->flags = zq_be32(raw + ZQ_BITMAP_FLAGS);
    r->type = raw[16];
    r->granularity_bits = raw[17];
    r->name_bytes = zq_be16(raw + 18);
    r->extra_bytes = zq_be32(raw + 20);
    r->bytes = zq_bitmap_record_bytes(r->extra_bytes, r->name_bytes);
}

static inline void zq_bitmap_record_put(uint8_t *raw, const struct zq_bitmap_record *r)
{
    zq_put_be64(raw, r->table_offset);
    zq_put_be32(raw + 8, r->table_entries);
    zq_put_be32(raw + ZQ_BITMAP_FLAGS, r->flags);
    raw[16] = (uint8_t)r->type;
    raw[17] = (uint8_t)r->granularity_bits;
    zq_put_be16(raw + 18, (uint16_t)r->name_bytes);
    zq_put_be32(raw + 20, r->extra_bytes);
}

/* How many bits a device of so many bytes needs; the last one may stand for less. */
static inline uint64_t zq_bitmap_bits(uint64_t device, uint32_t granularity_bits)
{
    return zq_div_up(device, (uint64_t)1 << granularity_bits);
}

/* How many clusters these bits take, each with an entry in the table. */
static inline uint64_t zq_bitmap_entries(uint64_t bits, uint32_t cluster_bits)
{
    return zq_div_up(zq_div_up(bits, 8), (uint64_t)1 << cluster_bits);
}

#endif
