/* SPDX-License-Identifier: MIT */
/*
 * The zoned extension in all its revisions, and the write-pointer table's entries: bytes <->
 * checked values. No I/O, no allocation. The bytes: docs/SPEC.md.
 */
#ifndef ZQ_FORMAT_ZONE_EXT_H
#define ZQ_FORMAT_ZONE_EXT_H

#include "format/header.h"

#define ZQ_MAX_ZONES    (1u << 20)
#define ZQ_ZONE_EXT_MAX 56
#define ZQ_ENTRY        8u /* bytes of an entry of the write-pointer table */

/* How one image's table is written. */
struct zq_entry_code {
    bool big_endian;
    bool state_bits;   /* v3: bits 60-63 hold a state */
    unsigned flag_bit; /* 63 or 59 */
};

/* Everything that is fixed about an image's zones. */
struct zq_geometry {
    uint64_t device_size, zone_size, capacity, table_offset; /* bytes; zone_size a power of two */
    uint32_t nr_zones, conventional; /* 1 to 2^20; of these the first ones, never all */
    uint32_t max_open, max_active;   /* as stored */
    uint32_t max_append;             /* bytes, as stored; 0: none stored or no limit */
    uint32_t layout;                 /* zqcow2_layout */
    uint32_t zone_bits;              /* log2(zone_size) */
    uint32_t descriptor_size;        /* bytes; 0: zones have no descriptor extension */
    struct zq_entry_code code;
};

static inline uint64_t zq_geometry_start(const struct zq_geometry *g, uint32_t zone)
{
    return (uint64_t)zone << g->zone_bits;
}

/* The last zone may be short. */
static inline uint64_t zq_geometry_length(const struct zq_geometry *g, uint32_t zone)
{
    uint64_t rest = g->device_size - zq_geometry_start(g, zone);
    return rest < g->zone_size ? rest : g->zone_size;
}

/* Of a sequential zone: min(capacity, its length); of a conventional zone: its length. */
static inline uint64_t zq_geometry_capacity(const struct zq_geometry *g, uint32_t zone)
{
    uint64_t len = zq_geometry_length(g, zone);
    return zone < g->conventional || len < g->capacity ? len : g->capacity;
}

/*
 * Largest append in bytes: the stored limit, else min(capacity, 4 GiB - 4096); never above the
 * capacity.
 */
uint32_t zq_geometry_max_append(const struct zq_geometry *g);

/*
 * Detects the layout and checks every field against the header (h->virtual_size, cluster
 * size, bit 5) and file_size. *bit_missing: a v3..v7 image without bit 5 (opens read-only);
 * h->zoned_offset == 0 with the bit set: ECORRUPT. g->layout NONE: the extension says not zoned.
 * g->code is not yet known.
 */
int zq_zone_ext_parse(struct zq_geometry *g, const struct zq_header *h, const uint8_t *data,
                      uint32_t len, uint64_t file_size, bool *bit_missing,
                      struct zqcow2_error *err);
/* The same checks for create, naming the option; fills in nr_zones and zone_bits. -EINVAL. */
int zq_geometry_check_new(struct zq_geometry *g, uint32_t cluster_size, struct zqcow2_error *err);
/* The zones of the image if its device had another size. False: it cannot have that. */
bool zq_geometry_resize(const struct zq_geometry *g, uint64_t size, struct zq_geometry *out);
/* Other zones of the same layout in the extension's data: how many, and where their table is. */
void zq_zone_ext_move(uint8_t *data, const struct zq_geometry *g);
/* Writes the extension's data in g->layout; returns its length. */
uint32_t zq_zone_ext_build(const struct zq_geometry *g, uint8_t out[ZQ_ZONE_EXT_MAX]);

/* What an entry says. */
struct zq_entry {
    uint64_t wp; /* absolute; clamped: FULL gives start + capacity of that zone */
    bool full;
    bool finished; /* FULL stored as the next zone's start */
};

/* Of the table's first n entries; where number i of it lies. */
static inline uint64_t zq_entries_bytes(uint64_t n)
{
    return n * ZQ_ENTRY;
}

/* Of the whole table, as it is read: in sectors. */
static inline size_t zq_pointers_bytes(const struct zq_geometry *g)
{
    return (size_t)zq_align_up(zq_entries_bytes(g->nr_zones), ZQ_SECTOR);
}
/* raw: an entry's bytes as they lie in the table. ECORRUPT (no text): not in its zone, unaligned,
 * flag. */
int zq_entry_decode(const struct zq_geometry *g, uint32_t zone, const uint8_t raw[ZQ_ENTRY],
                    struct zq_entry *e);
/*
 * wp: start .. start + capacity of the zone; finished: FULL by finish. FULL is stored as SPEC.md
 * says for the layout (v3..v10: next zone's start after finish and for a short last zone).
 */
void zq_entry_encode(const struct zq_geometry *g, uint32_t zone, uint64_t wp, bool finished,
                     uint8_t raw[ZQ_ENTRY]);
/* For messages: the entry as a number. */
uint64_t zq_entry_word(const struct zq_geometry *g, const uint8_t raw[ZQ_ENTRY]);
/* The code of a table that this library creates. */
void zq_entry_code_new(struct zq_geometry *g);
/*
 * Decides g->code from the whole table (zq_entries_bytes(nr_zones)): the first candidate of SPEC.md
 * under which every entry is valid. ECORRUPT naming zone and value when none fits.
 */
int zq_entry_code_detect(struct zq_geometry *g, const uint8_t *table, struct zqcow2_error *err);

#endif
