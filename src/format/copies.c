/* SPDX-License-Identifier: MIT */
/* The extension of the copies of write-pointer tables, and what a record says of its copy. */
#include "format/copies.h"

#include <inttypes.h>

#include "base/report.h"
#include "format/private.h"

/* What follows in a later release is not known here. */
static int judge(const uint8_t *data, uint32_t len, uint64_t at, struct zqcow2_error *err)
{
    if (len != ZQ_COPIES_EXT)
        return zq_fail(err, ZQCOW2_ECORRUPT,
                       "copies of write pointers: extension length %" PRIu32 " at byte %" PRIu64
                       ": must be %u",
                       len, at - 4, ZQ_COPIES_EXT);
    for (unsigned i = 0; i < ZQ_COPIES_EXT; i++) {
        if (data[i])
            return zq_fail(err, ZQCOW2_EFEATURE,
                           "copies of write pointers: byte %" PRIu64 " is 0x%02x, which is unknown",
                           at + i, data[i]);
    }
    return 0;
}

/* A program that moved it out of the first sector cannot know it. */
int zq_copies_take(struct zq_header *h, const uint8_t *data, uint32_t len, uint64_t at,
                   struct zqcow2_error *err)
{
    int rc;

    if (at + ZQ_COPIES_EXT > ZQ_SECTOR || !(h->autoclear & ZQ_AUTOCLEAR_COPIES)) {
        h->copies_stale = !h->copies;
        return 0;
    }
    if (h->copies)
        return zq_fail(err, ZQCOW2_ECORRUPT,
                       "copies of write pointers: extension at byte %" PRIu64 ": occurs twice", at);
    rc = judge(data, len, at, err);
    if (rc < 0)
        return rc;
    h->copies = true;
    h->copies_stale = false;
    return 0;
}

bool zq_copies_put(uint8_t sector0[ZQ_SECTOR], const struct zq_header *h)
{
    uint64_t pos;

    if (!zq_private_room(sector0, h, ZQ_EXT_COPIES, &pos))
        return false;
    zq_private_put(sector0 + pos, ZQ_EXT_COPIES);
    zq_put_be64(sector0 + ZQ_HDR_AUTOCLEAR,
                zq_be64(sector0 + ZQ_HDR_AUTOCLEAR) | ZQ_AUTOCLEAR_COPIES);
    return true;
}

/* A table whose length is not that of the zones belongs to other zones. */
bool zq_copy_of(const struct zq_header *h, const struct zq_geometry *g, uint64_t file_size,
                const struct zq_snapshot_facts *f, struct zq_geometry *zones)
{
    uint64_t size = f->sized ? f->disk_bytes : h->stored_size;
    uint64_t cluster = (uint64_t)1 << h->cluster_bits, at = f->copy_offset;

    if (!h->copies || !g->layout || !at ||
        !zq_geometry_resize(g, zq_align_down(size, ZQ_SECTOR), zones))
        return false;
    if (f->copy_bytes != zq_entries_bytes(zones->nr_zones) || at & (cluster - 1) ||
        at >= ZQ_MAX_HOST_OFFSET || at > file_size || f->copy_bytes > file_size - at)
        return false;
    zones->table_offset = at;
    return true;
}
