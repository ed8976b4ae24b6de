/* SPDX-License-Identifier: MIT */
/* The records of the snapshot table. Reference: the qcow2 specification, section "Snapshots". */
#ifndef ZQ_FORMAT_SNAPSHOT_H
#define ZQ_FORMAT_SNAPSHOT_H

#include <stdbool.h>
#include <string.h>
#include "base/bytes.h"

#define ZQ_SNAPSHOT_FIXED     40u
#define ZQ_SNAPSHOT_EXTRA     24u   /* bytes of extra data that the specification defines */
#define ZQ_SNAPSHOT_COPY      16u   /* behind these, of ours: of a zoned image (N1) */
#define ZQ_SNAPSHOT_EXTRA_MAX 1024u /* other programs take no more */
#define ZQ_MAX_SNAPSHOT_TABLE (64u << 20)
#define ZQ_MAX_SNAPSHOTS      65536u

struct zq_snapshot {
    uint64_t l1_offset, bytes; /* bytes: of the whole record, to the next one */
    uint32_t l1_entries, extra;
    uint16_t id_bytes, name_bytes;
};

static inline void zq_snapshot_read(const uint8_t raw[ZQ_SNAPSHOT_FIXED], struct zq_snapshot *s)
{
    s->l1_offset = zq_be64(raw);
    s->l1_entries = zq_be32(raw + 8);
    s->id_bytes = zq_be16(raw + 12);
    s->name_bytes = zq_be16(raw + 14);
    s->extra = zq_be32(raw + 36);
    s->bytes = zq_align_up(ZQ_SNAPSHOT_FIXED + (uint64_t)s->extra + s->id_bytes + s->name_bytes, 8);
}

/* What a record says beside the place of its L1. Behind it: extra data, the id, the name. */
struct zq_snapshot_facts {
    uint64_t vm_state_bytes, vm_clock, icount; /* icount -1: not known */
    uint64_t disk_bytes;
    bool sized; /* disk_bytes is known; a disk may have none */
    uint32_t seconds, nanoseconds;
    uint64_t copy_offset, copy_bytes; /* of write pointers; if they hold: format/copies.h */
};

/* raw: the whole record. */
static inline void zq_snapshot_facts(const uint8_t *raw, struct zq_snapshot_facts *f)
{
    const uint8_t *extra = raw + ZQ_SNAPSHOT_FIXED;
    uint32_t n = zq_be32(raw + 36);

    f->seconds = zq_be32(raw + 16);
    f->nanoseconds = zq_be32(raw + 20);
    f->vm_clock = zq_be64(raw + 24);
    f->vm_state_bytes = n >= 8 ? zq_be64(extra) : zq_be32(raw + 32);
    f->sized = n >= 16;
    f->disk_bytes = f->sized ? zq_be64(extra + 8) : 0;
    f->icount = n >= 24 ? zq_be64(extra + 16) : UINT64_MAX;
    f->copy_offset = n >= ZQ_SNAPSHOT_EXTRA + ZQ_SNAPSHOT_COPY ? zq_be64(extra + 24) : 0;
    f->copy_bytes = f->copy_offset ? zq_be64(extra + 32) : 0;
}

static inline const uint8_t *zq_snapshot_id(const uint8_t *raw)
{
    return raw + ZQ_SNAPSHOT_FIXED + zq_be32(raw + 36);
}
static inline const uint8_t *zq_snapshot_name(const uint8_t *raw)
{
    return zq_snapshot_id(raw) + zq_be16(raw + 12);
}

/* What is named there is no copy from now on. */
static inline void zq_snapshot_drop_copy(uint8_t *raw)
{
    if (zq_be32(raw + 36) >= ZQ_SNAPSHOT_EXTRA + ZQ_SNAPSHOT_COPY)
        memset(raw + ZQ_SNAPSHOT_FIXED + ZQ_SNAPSHOT_EXTRA, 0, ZQ_SNAPSHOT_COPY);
}

/* How long a record with all the extra data is. */
static inline uint64_t zq_snapshot_bytes(bool copy, size_t id_bytes, size_t name_bytes)
{
    return zq_align_up(ZQ_SNAPSHOT_FIXED + ZQ_SNAPSHOT_EXTRA + (copy ? ZQ_SNAPSHOT_COPY : 0) +
                           id_bytes + name_bytes,
                       8);
}

/* raw: zq_snapshot_bytes() of zeros. s: l1_offset, l1_entries, id_bytes and name_bytes. */
static inline void zq_snapshot_write(uint8_t *raw, const struct zq_snapshot *s,
                                     const struct zq_snapshot_facts *f, const char *id,
                                     const char *name)
{
    uint8_t *extra = raw + ZQ_SNAPSHOT_FIXED;

    zq_put_be64(raw, s->l1_offset);
    zq_put_be32(raw + 8, s->l1_entries);
    zq_put_be16(raw + 12, s->id_bytes);
    zq_put_be16(raw + 14, s->name_bytes);
    zq_put_be32(raw + 16, f->seconds);
    zq_put_be32(raw + 20, f->nanoseconds);
    zq_put_be64(raw + 24, f->vm_clock);
    zq_put_be64(extra, f->vm_state_bytes);
    zq_put_be64(extra + 8, f->disk_bytes);
    zq_put_be64(extra + 16, f->icount);
    extra += ZQ_SNAPSHOT_EXTRA;
    if (f->copy_bytes) {
        zq_put_be64(extra, f->copy_offset);
        zq_put_be64(extra + 8, f->copy_bytes);
        extra += ZQ_SNAPSHOT_COPY;
    }
    zq_put_be32(raw + 36, (uint32_t)(extra - raw) - ZQ_SNAPSHOT_FIXED);
    memcpy(extra, id, s->id_bytes);
    memcpy(extra + s->id_bytes, name, s->name_bytes);
}

#endif
