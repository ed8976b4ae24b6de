/* SPDX-License-Identifier: MIT */
/* The extension of persistent zone states: bytes <-> checked values, and where it has room. */
#include "format/states.h"

#include <inttypes.h>

#include "base/report.h"
#include "format/private.h"

#define HEAD  8u /* of an extension: type, length */
#define ZONES 8u /* offsets in the data */
#define SIZE  12u
#define TABLE 16u
#define REST  24u

_Static_assert(ZQ_STATES_EXT == ZQ_PRIVATE_EXT, "the extension takes the place of a feature name");

static int bad(struct zqcow2_error *err, const char *field, uint64_t value, uint64_t at,
               const char *why)
{
    return zq_fail(err, ZQCOW2_ECORRUPT,
                   "zone states: %s %" PRIu64 " (0x%" PRIx64 ") at byte %" PRIu64 ": %s", field,
                   value, value, at, why);
}

/* NULL: a table with so many bytes may lie there. */
static const char *misplaced(const struct zq_header *h, uint64_t offset, uint64_t bytes,
                             uint64_t file_size)
{
    if (!offset || offset & (((uint64_t)1 << h->cluster_bits) - 1) || offset >= ZQ_MAX_HOST_OFFSET)
        return "must be that of a cluster below 2^56";
    if (offset > file_size || bytes > file_size - offset)
        return "the table runs past the end of the file";
    return NULL;
}

const char *zq_descriptor_refused(uint64_t size, uint64_t zones)
{
    if (size % ZQ_DESCRIPTOR_UNIT || size > ZQ_MAX_DESCRIPTOR)
        return "must be a multiple of 64, at most 16320";
    return size * zones > ZQ_MAX_DESCRIPTORS ? "their table would exceed 64 MiB" : NULL;
}

/* Without a size there is no table, and the bytes of its offset mean nothing. */
static int take_descriptors(struct zq_header *h, const uint8_t *data, uint64_t at,
                            uint64_t file_size, struct zqcow2_error *err)
{
    uint64_t size = zq_be32(data + SIZE), offset = zq_be64(data + TABLE);
    const char *why = zq_descriptor_refused(size, h->states_zones);

    if (why)
        return bad(err, "descriptor extension size", size, at + SIZE, why);
    why = misplaced(h, offset, zq_descriptors_bytes((uint32_t)size, h->states_zones), file_size);
    if (size && why)
        return bad(err, "descriptor extensions", offset, at + TABLE, why);
    h->descriptor_size = (uint32_t)size;
    h->descriptors_offset = offset;
    return 0;
}

static int unknown_bytes(const uint8_t *data, uint64_t at, struct zqcow2_error *err)
{
    unsigned from = zq_be32(data + SIZE) ? REST : SIZE;

    for (unsigned i = from; i < ZQ_STATES_EXT; i++) {
        if (data[i])
            return zq_fail(err, ZQCOW2_EFEATURE,
                           "zone states: byte %" PRIu64 " is 0x%02x, which is unknown", at + i,
                           data[i]);
    }
    return 0;
}

/*
 * A program that moved it cannot know it, and it could not be rewritten with the header. Only what
 * the device looks like is taken from it: the size of its extensions, which are all gone.
 */
static int take_stale(struct zq_header *h, const uint8_t *data, uint32_t len)
{
    uint32_t size = len == ZQ_STATES_EXT ? zq_be32(data + SIZE) : 0;

    h->states_stale = !h->states_offset;
    if (h->states_stale && !zq_descriptor_refused(size, zq_be32(data + ZONES)))
        h->descriptor_size = size;
    return 0;
}

int zq_states_take(struct zq_header *h, const uint8_t *data, uint32_t len, uint64_t at,
                   uint64_t file_size, struct zqcow2_error *err)
{
    uint64_t offset;
    const char *why;
    int rc;

    if (at + ZQ_STATES_EXT > ZQ_SECTOR || !(h->autoclear & ZQ_AUTOCLEAR_STATES))
        return take_stale(h, data, len);
    if (len != ZQ_STATES_EXT)
        return bad(err, "extension length", len, at - 4, "must be 40");
    if (h->states_offset)
        return bad(err, "extension", ZQ_EXT_STATES, at - HEAD, "occurs twice");
    offset = zq_be64(data);
    h->states_zones = zq_be32(data + ZONES);
    why = misplaced(h, offset, zq_states_bytes(h->states_zones), file_size);
    if (why)
        return bad(err, "offset", offset, at, why);
    rc = unknown_bytes(data, at, err);
    if (rc == 0)
        rc = take_descriptors(h, data, at, file_size, err);
    if (rc < 0)
        return rc;
    h->states_offset = offset;
    h->states_stale = false;
    return 0;
}

int zq_states_check(struct zq_header *h, struct zq_geometry *g, struct zqcow2_error *err)
{
    uint32_t zones = g->layout ? g->nr_zones : 0;

    if (h->states_offset && (!zones || h->states_zones != zones))
        return zq_fail(err, ZQCOW2_ECORRUPT,
                       "zone states: of %" PRIu32 " zones, but the image has %" PRIu32,
                       h->states_zones, zones);
    /* One that is stale was not checked against the zones. */
    if (!zones || zq_descriptor_refused(h->descriptor_size, zones))
        h->descriptor_size = 0;
    g->descriptor_size = h->descriptor_size;
    return 0;
}

bool zq_states_valid(const struct zq_geometry *g, uint32_t zone, uint8_t stored)
{
    uint8_t forced = stored & ZQ_STORED_FORCED;

    if (zone < g->conventional)
        return !stored;
    if (stored & ZQ_STORED_DESCRIBED && !g->descriptor_size)
        return false;
    return !(stored & ~(ZQ_STORED_FORCED | ZQ_STORED_CLOSED | ZQ_STORED_DESCRIBED)) &&
           (!forced || forced == ZQCOW2_ZONE_RDONLY || forced == ZQCOW2_ZONE_OFFLINE);
}

/* ---- in the first sector ---- */

void zq_states_build(uint8_t *at, const struct zq_header *h, uint64_t offset, uint32_t zones)
{
    zq_private_put(at, ZQ_EXT_STATES);
    at += HEAD;
    zq_put_be64(at, offset);
    zq_put_be32(at + ZONES, zones);
    zq_put_be32(at + SIZE, h->descriptor_size);
    zq_put_be64(at + TABLE, zq_descriptors_behind(h, offset, zones));
}

bool zq_states_put(uint8_t sector0[ZQ_SECTOR], const struct zq_header *h, uint64_t offset,
                   uint32_t zones)
{
    uint64_t pos;

    if (!zq_private_room(sector0, h, ZQ_EXT_STATES, &pos))
        return false;
    zq_states_build(sector0 + pos, h, offset, zones);
    zq_put_be64(sector0 + ZQ_HDR_AUTOCLEAR,
                zq_be64(sector0 + ZQ_HDR_AUTOCLEAR) | ZQ_AUTOCLEAR_STATES);
    return true;
}
