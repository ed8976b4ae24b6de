/* SPDX-License-Identifier: MIT */
/* The records of the snapshot table. Reference: the qcow2 specification, section "Snapshots". */
#ifndef ZQ_FORMAT_SNAPSHOT_H
#define ZQ_FORMAT_SNAPSHOT_H

#include "base/bytes.h"

#define ZQ_SNAPSHOT_FIXED     40u
#define ZQ_MAX_SNAPSHOT_TABLE (64u << 20)

struct zq_snapshot {
    uint64_t l1_offset, bytes; /* bytes: of the whole record, to the next one */
    uint32_t l1_entries, extra;
};

static inline void zq_snapshot_read(const uint8_t raw[ZQ_SNAPSHOT_FIXED], struct zq_snapshot *s)
{
    s->l1_offset = zq_be64(raw);
    s->l1_entries = zq_be32(raw + 8);
    s->extra = zq_be32(raw + 36);
    s->bytes = zq_align_up(
        ZQ_SNAPSHOT_FIXED + (uint64_t)s->extra + zq_be16(raw + 12) + zq_be16(raw + 14), 8);
}

#endif
