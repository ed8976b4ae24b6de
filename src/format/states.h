/* SPDX-License-Identifier: MIT */
/*
 * Persistent zone states: a table of a byte for each zone, which a private header extension names.
 * It holds only while a private autoclear bit is set: a program that does not know it clears the
 * bit when it writes, and from then on the extension is stale and owns nothing (R15). No I/O, no
 * allocation. The bytes: docs/SPEC.md.
 */
#ifndef ZQ_FORMAT_STATES_H
#define ZQ_FORMAT_STATES_H

#include "format/zone_ext.h"

#define ZQ_STATES_EXT \
    40u /* bytes of the extension's data: with its head, those of a feature name */
#define ZQ_STATES_ROOM (8u + ZQ_STATES_EXT)

/* A byte of the table: RDONLY, OFFLINE or 0, and a flag. */
#define ZQ_STORED_FORCED 0x0fu
#define ZQ_STORED_CLOSED 0x10u /* CLOSED while its write pointer is at its start (ZNS) */

/*
 * The extension's data, at byte `at` of the file: sets states_offset and states_zones if it holds,
 * else states_stale. ECORRUPT, EFEATURE.
 */
int zq_states_take(struct zq_header *h, const uint8_t *data, uint32_t len, uint64_t at,
                   uint64_t file_size, struct zqcow2_error *err);
/* Does it fit the image's zones? ECORRUPT. */
int zq_states_check(const struct zq_header *h, const struct zq_geometry *g,
                    struct zqcow2_error *err);
/* May the table have this byte for the zone? */
bool zq_states_valid(const struct zq_geometry *g, uint32_t zone, uint8_t stored);
/* The extension, head and data: ZQ_STATES_ROOM bytes. */
void zq_states_build(uint8_t *at, uint64_t offset, uint32_t zones);
/*
 * Names a table at `offset` in the header's first sector, and sets the bit. The extension goes
 * where an older one is, or takes the place of a feature name or of nothing, so that nothing behind
 * the sector changes. False: there is no room.
 */
bool zq_states_put(uint8_t sector0[ZQ_SECTOR], const struct zq_header *h, uint64_t offset,
                   uint32_t zones);

static inline uint64_t zq_states_bytes(uint32_t zones)
{
    return zq_align_up(zones, ZQ_SECTOR);
}

#endif
