/* SPDX-License-Identifier: MIT */
/*
 * The qcow2 header: bytes <-> a checked struct. No I/O, no allocation.
 * Names of fields and limits: the qcow2 specification, section Header.
 */
#ifndef ZQ_FORMAT_HEADER_H
#define ZQ_FORMAT_HEADER_H

#include <stdbool.h>
#include <zqcow2/zqcow2.h>

#include "base/bytes.h"

#define ZQ_MAGIC            0x514649fbu
#define ZQ_MAX_L1_BYTES     (32u << 20)
#define ZQ_MAX_RT_BYTES     (8u << 20)
#define ZQ_MAX_HOST_OFFSET  ((uint64_t)1 << 56)
#define ZQ_MAX_VIRTUAL_SIZE ((uint64_t)1 << 62)
#define ZQ_MAX_DATA_SIZE    ZQ_MAX_HOST_OFFSET /* with a data file: an entry can name no more */

#define ZQ_MAX_BACKING_NAME   1023u /* bytes; other programs take no more */
#define ZQ_MAX_BACKING_FORMAT 15u

#define ZQ_FEATURE_BYTES 48u /* of an entry in the feature name table */

#define ZQ_INCOMPAT_DIRTY       ((uint64_t)1 << 0)
#define ZQ_INCOMPAT_CORRUPT     ((uint64_t)1 << 1)
#define ZQ_INCOMPAT_DATA_FILE   ((uint64_t)1 << 2)
#define ZQ_INCOMPAT_COMPRESSION ((uint64_t)1 << 3)
#define ZQ_INCOMPAT_EXTENDED_L2 ((uint64_t)1 << 4)
#define ZQ_INCOMPAT_ZONED       ((uint64_t)1 << 5)

#define ZQ_EXTENDED_CLUSTER_BITS 14u /* at least, with extended L2 entries */
#define ZQ_COMPAT_LAZY_REFCOUNTS ((uint64_t)1 << 0)
#define ZQ_AUTOCLEAR_BITMAPS     ((uint64_t)1 << 0)
#define ZQ_AUTOCLEAR_RAW_DATA    ((uint64_t)1 << 1)
#define ZQ_AUTOCLEAR_STATES      ((uint64_t)1 << 63) /* ours: the persistent zone states hold */
#define ZQ_AUTOCLEAR_COPIES      ((uint64_t)1 << 62) /* ours: so do snapshots' write pointers */

#define ZQ_EXT_END            0u
#define ZQ_EXT_BACKING_FORMAT 0xe2792acau
#define ZQ_EXT_FEATURE_NAMES  0x6803f857u
#define ZQ_EXT_BITMAPS        0x23852875u
#define ZQ_EXT_CRYPTO         0x0537be77u
#define ZQ_EXT_DATA_FILE      0x44415441u
#define ZQ_EXT_ZONED          0x007a6264u
/* Ours, "zq2m"; data: 8 bytes, byte 0 is 1 while the image is open for writing. */
#define ZQ_EXT_MARK 0x7a71326du
/* Ours, "zq2s": persistent zone states. */
#define ZQ_EXT_STATES 0x7a713273u
/* Ours, "zq2p": snapshots have copies of the write-pointer table. */
#define ZQ_EXT_COPIES 0x7a713270u

/* Byte offsets of what is rewritten in place; all in the first 512 bytes. */
#define ZQ_HDR_VERSION        4
#define ZQ_HDR_BACKING        8
#define ZQ_HDR_SIZE           24
#define ZQ_HDR_L1_ENTRIES     36
#define ZQ_HDR_L1_OFFSET      40
#define ZQ_HDR_RT_OFFSET      48
#define ZQ_HDR_RT_CLUSTERS    56
#define ZQ_HDR_RT_BYTES       12 /* both of these */
#define ZQ_HDR_NR_SNAPSHOTS   60
#define ZQ_HDR_SNAPSHOTS      64
#define ZQ_HDR_INCOMPAT       72
#define ZQ_HDR_COMPRESSION    104
#define ZQ_HDR_COMPAT         80
#define ZQ_HDR_AUTOCLEAR      88
#define ZQ_HDR_REFCOUNT_ORDER 96
#define ZQ_HDR_LENGTH         100
#define ZQ_HEADER_V2          72u  /* bytes of the header: version 2, */
#define ZQ_HEADER_V3          112u /* and of one that we write */

/*
 * Where the refcount table is, for a table that has moved: the bytes from ZQ_HDR_RT_OFFSET on. They
 * lie in one sector, so the write of them switches from the old table to the new one (R9, R13).
 */
static inline void zq_header_put_rt(uint8_t raw[ZQ_HDR_RT_BYTES], uint64_t offset,
                                    uint32_t clusters)
{
    zq_put_be64(raw, offset);
    zq_put_be32(raw + (ZQ_HDR_RT_CLUSTERS - ZQ_HDR_RT_OFFSET), clusters);
}

struct zq_header {
    uint32_t version;                      /* 2 or 3 */
    uint32_t cluster_bits, refcount_order; /* 9..21; 0..6 */
    uint32_t header_length;                /* 72 for version 2 */
    uint32_t crypt_method, compression_type;
    uint32_t l1_entries, rt_clusters, nb_snapshots; /* bounded: 32 MiB, 8 MiB, 65536 */
    uint64_t stored_size, virtual_size;             /* virtual_size: whole sectors of it */
    uint64_t l1_offset, rt_offset, snapshots_offset;
    uint64_t incompat, compat, autoclear; /* as stored; 0 in version 2 */
    uint64_t backing_offset;              /* when it was parsed; 0: none */
    uint32_t backing_len;                 /* of the name; 0: other programs take it for none */
    /* extensions; offsets are of their data in the file, 0: absent */
    uint32_t backing_format_offset, backing_format_len;
    uint32_t data_name_offset, data_name_len; /* of the data file's name */
    uint32_t zoned_offset, zoned_len;
    uint32_t mark_offset;                 /* where it can share sector 0 with the header, else 0 */
    uint32_t bitmaps_offset, bitmaps_len; /* only while autoclear bit 0 says that they hold */
    uint64_t states_offset;               /* 0: no persistent zone states, or such as do not hold */
    uint32_t states_zones;
    bool states_stale;           /* there were some */
    uint32_t descriptor_size;    /* bytes of a zone's descriptor extension; 0: there are none */
    uint64_t descriptors_offset; /* of their table; 0: there is none that holds */
    bool copies;                 /* records of snapshots name copies of the write-pointer table */
    bool copies_stale;           /* they did, and these are void now */
    /*
     * For a reader, who needs neither table: where the fields, as stored, say that it is, none can
     * be; and a snapshot table may have more records than 65536, or end behind the file.
     */
    bool rt_wrong, snapshots_wrong;
    bool backing_stray;                  /* an offset, but no name: others find no extensions */
    bool l1_wrong;                       /* the same of L1, for who reads a snapshot */
    uint64_t snapshots_bytes;            /* the least that the snapshot table takes */
    bool unknown_ext, unknown_autoclear; /* data of other programs may be here */
};

/*
 * The first step: enough of the header to know cluster_bits. buf holds the file's first len bytes.
 * ENOTQCOW2: bad magic, version; ECORRUPT: truncated, cluster_bits.
 */
int zq_header_peek(const uint8_t *buf, size_t len, uint32_t *cluster_bits,
                   struct zqcow2_error *err);
/*
 * buf holds the file's first min(cluster size, file_size) bytes. Checks every class "Header" and
 * "Extensions" of the format documents that the header cluster alone shows. Features that this
 * library lacks give EFEATURE by name (unknown bits by the name in the feature table), read-only
 * too; the CORRUPT bit, and tables that only a writer needs, only when rdwr. What is wrong with L1
 * alone is found last: l1_wrong is set then, and all else may be relied on.
 */
int zq_header_parse(struct zq_header *h, const uint8_t *buf, size_t len, uint64_t file_size,
                    bool rdwr, struct zqcow2_error *err);
/* Whether such a table may lie where the fields say; ECORRUPT says why not. */
int zq_header_judge_rt(const struct zq_header *h, uint64_t file_size, struct zqcow2_error *err);
int zq_header_judge_snapshots(const struct zq_header *h, uint64_t file_size,
                              struct zqcow2_error *err);
/* Where the backing file's name is now. */
static inline uint64_t zq_header_name_at(const uint8_t *buf)
{
    return zq_be64(buf + 8);
}
/* What the parsed header in buf names as its source, and as its data file. */
void zq_header_backing(const struct zq_header *h, const uint8_t *buf, struct zqcow2_backing *b);
/*
 * Writes a version 3 header of a new image into buf (one cluster, zeroed by the caller): the
 * fields of h, the zoned extension (data, zoned_len bytes) when h->incompat has the bit, our mark
 * extension, that of stored states when h->states_offset is set, and the feature name table where
 * it fits. Sets h->zoned_offset, h->mark_offset.
 * Mark and states lie in the first 512 bytes. len may be less than a cluster, but not less than the
 * smaller of a cluster and ZQ_HEADER_BYTES: the rest of the cluster is then zeros. backing: named
 * in it, and the data file, if they have names; zq_header_fits() has said that there is room.
 */
#define ZQ_HEADER_BYTES 4096u
void zq_header_build(struct zq_header *h, uint8_t *buf, size_t len, const uint8_t *zoned_data,
                     const struct zqcow2_backing *backing);
/* Is there room for both names in an image with such clusters, with zones, with states? */
bool zq_header_fits(uint32_t cluster_bits, bool zoned, bool states,
                    const struct zqcow2_backing *backing);
/* How long a backing file's name may be in an image with such clusters, with zones, with states. */
size_t zq_header_room(uint32_t cluster_bits, bool zoned, bool states);

#endif
