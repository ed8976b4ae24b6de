/* SPDX-License-Identifier: MIT */
/* The extension of persistent zone states: bytes <-> checked values, and where it has room. */
#include "format/states.h"

#include <inttypes.h>

#include "base/report.h"

#define HEAD  8u /* of an extension: type, length */
#define ROOM  ZQ_STATES_ROOM
#define NAME  48u /* bytes of a feature name: as many as ROOM */
#define ZONES 8u  /* offsets in the data */
#define SIZE  12u
#define TABLE 16u
#define REST  24u

_Static_assert(ROOM == NAME, "the extension takes the place of a feature name");

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

/* The first extension of the type that begins in the sector; *next: behind the last one. */
static bool find(const uint8_t *sector, const struct zq_header *h, uint32_t type, uint64_t *pos)
{
    for (*pos = h->header_length; *pos + HEAD <= ZQ_SECTOR;) {
        uint32_t t = zq_be32(sector + *pos);

        if (t == type)
            return true;
        if (t == ZQ_EXT_END)
            return false;
        *pos += HEAD + zq_align_up(zq_be32(sector + *pos + 4), 8);
    }
    return false;
}

static void put_head(uint8_t *at, uint32_t type, uint32_t len)
{
    zq_put_be32(at, type);
    zq_put_be32(at + 4, len);
}

/* ROOM bytes from *pos on; behind them a shorter list of feature names, or the end mark. */
static bool make_room(uint8_t *sector, const struct zq_header *h, uint64_t *pos)
{
    uint64_t end = h->backing_offset ? zq_min(h->backing_offset, ZQ_SECTOR) : ZQ_SECTOR;
    uint32_t names;

    /* One that ends behind the sector was moved there, and counts for nothing. */
    if (find(sector, h, ZQ_EXT_STATES, pos) && *pos + ROOM <= ZQ_SECTOR)
        return *pos + ROOM <= end && zq_be32(sector + *pos + 4) == ZQ_STATES_EXT;
    if (find(sector, h, ZQ_EXT_FEATURE_NAMES, pos)) {
        names = zq_be32(sector + *pos + 4);
        if (names < NAME || *pos + ROOM + HEAD > end)
            return false;
        put_head(sector + *pos + ROOM, ZQ_EXT_FEATURE_NAMES, names - NAME);
        return true;
    }
    if (!find(sector, h, ZQ_EXT_END, pos) || *pos + ROOM + HEAD > end)
        return false;
    for (unsigned i = HEAD; i < ROOM + HEAD; i++) {
        if (sector[*pos + i])
            return false;
    }
    return true;
}

void zq_states_build(uint8_t *at, const struct zq_header *h, uint64_t offset, uint32_t zones)
{
    put_head(at, ZQ_EXT_STATES, ZQ_STATES_EXT);
    at += HEAD;
    memset(at, 0, ZQ_STATES_EXT);
    zq_put_be64(at, offset);
    zq_put_be32(at + ZONES, zones);
    zq_put_be32(at + SIZE, h->descriptor_size);
    zq_put_be64(at + TABLE, zq_descriptors_behind(h, offset, zones));
}

bool zq_states_put(uint8_t sector0[ZQ_SECTOR], const struct zq_header *h, uint64_t offset,
                   uint32_t zones)
{
    uint64_t pos;

    if (!make_room(sector0, h, &pos))
        return false;
    zq_states_build(sector0 + pos, h, offset, zones);
    zq_put_be64(sector0 + ZQ_HDR_AUTOCLEAR,
                zq_be64(sector0 + ZQ_HDR_AUTOCLEAR) | ZQ_AUTOCLEAR_STATES);
    return true;
}
