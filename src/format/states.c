/* SPDX-License-Identifier: MIT */
/* The extension of persistent zone states: bytes <-> checked values, and where it has room. */
#include "format/states.h"

#include <inttypes.h>

#include "base/report.h"

#define HEAD  8u /* of an extension: type, length */
#define ROOM  ZQ_STATES_ROOM
#define NAME  48u /* bytes of a feature name: as many as ROOM */
#define ZONES 8u  /* offsets in the data */
#define REST  12u

_Static_assert(ROOM == NAME, "the extension takes the place of a feature name");

static int bad(struct zqcow2_error *err, const char *field, uint64_t value, uint64_t at,
               const char *why)
{
    return zq_fail(err, ZQCOW2_ECORRUPT,
                   "zone states: %s %" PRIu64 " (0x%" PRIx64 ") at byte %" PRIu64 ": %s", field,
                   value, value, at, why);
}

int zq_states_take(struct zq_header *h, const uint8_t *data, uint32_t len, uint64_t at,
                   uint64_t file_size, struct zqcow2_error *err)
{
    uint64_t offset, zones;

    h->states_stale = !h->states_offset;
    /* A program that moved it cannot know it, and it could not be rewritten with the header. */
    if (at + ZQ_STATES_EXT > ZQ_SECTOR || !(h->autoclear & ZQ_AUTOCLEAR_STATES))
        return 0;
    if (len != ZQ_STATES_EXT)
        return bad(err, "extension length", len, at - 4, "must be 40");
    if (h->states_offset)
        return bad(err, "extension", ZQ_EXT_STATES, at - HEAD, "occurs twice");
    offset = zq_be64(data);
    zones = zq_be32(data + ZONES);
    if (!offset || offset & (((uint64_t)1 << h->cluster_bits) - 1) || offset >= ZQ_MAX_HOST_OFFSET)
        return bad(err, "offset", offset, at, "must be that of a cluster below 2^56");
    if (offset > file_size || zq_states_bytes((uint32_t)zones) > file_size - offset)
        return bad(err, "offset", offset, at, "the table runs past the end of the file");
    for (unsigned i = REST; i < ZQ_STATES_EXT; i++) {
        if (data[i])
            return zq_fail(err, ZQCOW2_EFEATURE,
                           "zone states: byte %" PRIu64 " is 0x%02x, which is unknown", at + i,
                           data[i]);
    }
    h->states_offset = offset;
    h->states_zones = (uint32_t)zones;
    h->states_stale = false;
    return 0;
}

int zq_states_check(const struct zq_header *h, const struct zq_geometry *g,
                    struct zqcow2_error *err)
{
    uint32_t zones = g->layout ? g->nr_zones : 0;

    if (!h->states_offset || (zones && h->states_zones == zones))
        return 0;
    return zq_fail(err, ZQCOW2_ECORRUPT,
                   "zone states: of %" PRIu32 " zones, but the image has %" PRIu32, h->states_zones,
                   zones);
}

bool zq_states_valid(const struct zq_geometry *g, uint32_t zone, uint8_t stored)
{
    uint8_t forced = stored & ZQ_STORED_FORCED;

    if (zone < g->conventional)
        return !stored;
    return !(stored & ~(ZQ_STORED_FORCED | ZQ_STORED_CLOSED)) &&
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

void zq_states_build(uint8_t *at, uint64_t offset, uint32_t zones)
{
    put_head(at, ZQ_EXT_STATES, ZQ_STATES_EXT);
    at += HEAD;
    memset(at, 0, ZQ_STATES_EXT);
    zq_put_be64(at, offset);
    zq_put_be32(at + ZONES, zones);
}

bool zq_states_put(uint8_t sector0[ZQ_SECTOR], const struct zq_header *h, uint64_t offset,
                   uint32_t zones)
{
    uint64_t pos;

    if (!make_room(sector0, h, &pos))
        return false;
    zq_states_build(sector0 + pos, offset, zones);
    zq_put_be64(sector0 + ZQ_HDR_AUTOCLEAR,
                zq_be64(sector0 + ZQ_HDR_AUTOCLEAR) | ZQ_AUTOCLEAR_STATES);
    return true;
}
