/* SPDX-License-Identifier: MIT */
/*
 * Persistent zone states: a table of a byte for each zone, and in images with zone descriptor
 * extensions a second table with the bytes of those, which a private header extension names. It
 * holds only while a private autoclear bit is set: a program that does not know it clears the
 * bit when it writes, and from then on the extension is stale and owns nothing (R15). No I/O, no
 * allocation. The bytes: docs/SPEC.md.
 */
#ifndef ZQ_FORMAT_STATES_H
#define ZQ_FORMAT_STATES_H

#include "format/zone_ext.h"

#define ZQ_STATES_EXT \
    40u /* bytes of the extension's data: with its head, those of a feature name */
#define ZQ_STATES_ROOM (8u + ZQ_STATES_EXT)

/* A byte of the table: RDONLY, OFFLINE or 0, and flags. */
#define ZQ_STORED_FORCED    0x0fu
#define ZQ_STORED_CLOSED    0x10u /* CLOSED while its write pointer is at its start (ZNS) */
#define ZQ_STORED_DESCRIBED 0x20u /* the other table has the extension of its descriptor */

/* Of a descriptor extension: the unit of its size, and the largest that NVMe can report. */
#define ZQ_DESCRIPTOR_UNIT 64u
#define ZQ_MAX_DESCRIPTOR  (255u * ZQ_DESCRIPTOR_UNIT)
#define ZQ_MAX_DESCRIPTORS \
    (64u << 20) /* bytes of their table: check counts its clusters one by one */

/*
 * The extension's data, at byte `at` of the file: sets states_offset, states_zones and
 * descriptors_offset if it holds, else states_stale. What is stale still says descriptor_size: the
 * device keeps that, while no extension is left. ECORRUPT, EFEATURE.
 */
int zq_states_take(struct zq_header *h, const uint8_t *data, uint32_t len, uint64_t at,
                   uint64_t file_size, struct zqcow2_error *err);
/* Does it fit the image's zones? Sets descriptor_size of both. ECORRUPT. */
int zq_states_check(struct zq_header *h, struct zq_geometry *g, struct zqcow2_error *err);
/* May a new image with this many zones have extensions of this size? NULL, or why not. */
const char *zq_descriptor_refused(uint64_t size, uint64_t zones);
/* May the table have this byte for the zone? */
bool zq_states_valid(const struct zq_geometry *g, uint32_t zone, uint8_t stored);
/*
 * The extension, head and data: ZQ_STATES_ROOM bytes. A table of descriptor extensions, if
 * h->descriptor_size says that there is one, lies behind the one at `offset`.
 */
void zq_states_build(uint8_t *at, const struct zq_header *h, uint64_t offset, uint32_t zones);
/*
 * Names tables at `offset` in the header's first sector, and sets the bit. The extension goes
 * where an older one is, or takes the place of a feature name or of nothing (format/private.h), so
 * that nothing behind the sector changes. False: there is no room.
 */
bool zq_states_put(uint8_t sector0[ZQ_SECTOR], const struct zq_header *h, uint64_t offset,
                   uint32_t zones);

static inline uint64_t zq_states_bytes(uint32_t zones)
{
    return zq_align_up(zones, ZQ_SECTOR);
}

/* Of the table of descriptor extensions: whole sectors; they follow one another without gaps. */
static inline uint64_t zq_descriptors_bytes(uint32_t size, uint32_t zones)
{
    return zq_align_up((uint64_t)size * zones, ZQ_SECTOR);
}

/* Where a new table of descriptor extensions lies: behind that of the states. 0: there is none. */
static inline uint64_t zq_descriptors_behind(const struct zq_header *h, uint64_t offset,
                                             uint32_t zones)
{
    return !h->descriptor_size ?
               0 :
               offset + zq_align_up(zq_states_bytes(zones), (uint64_t)1 << h->cluster_bits);
}

/*
 * What holds of a byte: CLOSED is void in a zone that is not empty. An extension is void in one
 * that is empty and not CLOSED: it was reset, for a zone that gets an extension is closed (R16).
 */
static inline uint8_t zq_stored_holds(uint8_t stored, bool empty)
{
    if (!empty)
        return (uint8_t)(stored & ~ZQ_STORED_CLOSED);
    return (uint8_t)(stored & ZQ_STORED_CLOSED ? stored : stored & ~ZQ_STORED_DESCRIBED);
}

#endif
