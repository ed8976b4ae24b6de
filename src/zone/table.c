/* SPDX-License-Identifier: MIT */
/*
 * Composes the write-pointer table's sectors as a round has captured them. Keeps K3, K8 and I7.
 *
 * raw is what the entry is on disk, as far as that is known; doubt says how far. high is never
 * below any value that the entry may have there (R1), and falls only behind a barrier. Entries are
 * judged one by one: a sector may be written in several stages, each time with those entries only
 * that belong to the stage, and all others as they are on disk.
 *
 * A round may take a million entries, so it takes sectors, and their entries are captured when the
 * first of them is about to change, or is looked at. Passes go over some sectors at a time, between
 * which requests come: they change no `captured` but that of a zone that is reset.
 */
#include "base/bytes.h"
#include "base/cost.h"
#include "base/report.h"
#include "zone/zones.h"

#define PER_SECTOR (ZQ_SECTOR / ZQ_ENTRY)

static uint64_t on_disk(const struct zq_zones *zs, uint32_t i)
{
    struct zq_entry e = {0};

    zq_entry_decode(&zs->g, i, zs->v[i].raw, &e);
    return e.wp;
}

static bool counts_as_active(const struct zq_zones *zs, uint32_t i, uint64_t wp)
{
    return wp > zq_geometry_start(&zs->g, i) && wp < zq_zone_end(zs, i);
}

/* May zone i's entry on disk be an active one? */
static bool may_be_active(const struct zq_zones *zs, uint32_t i)
{
    return zs->v[i].doubt == ZQ_UNSURE || counts_as_active(zs, i, on_disk(zs, i));
}

static uint32_t first_in(const struct zq_zones *zs, uint32_t sector)
{
    uint32_t first = sector * PER_SECTOR;

    return first < zs->g.conventional ? zs->g.conventional : first;
}

static uint32_t last_in(const struct zq_zones *zs, uint32_t sector)
{
    return (uint32_t)zq_min((uint64_t)(sector + 1) * PER_SECTOR, zs->g.nr_zones);
}

static uint32_t chunk_end(const struct zq_zones *zs, uint32_t from)
{
    return (uint32_t)zq_min((uint64_t)from + ZQ_TABLE_CHUNK, zs->nr_sectors);
}

/* For a look at sector s: entries of the round, or a byte beside others. */
static void pay(const struct zq_zones *zs, uint32_t s, int32_t *left)
{
    *left -= zs->in_round[s] ? (int32_t)(PER_SECTOR * ZQ_COST_LOOK) : s % 16 == 0;
}

/* All passes of the last round have ended; bytes of the one become those of the other. */
void zq_table_capture(struct zq_zones *zs)
{
    uint8_t *taken = zs->dirty;

    zs->dirty = zs->in_round;
    zs->in_round = taken;
    zs->is_dirty = false;
}

/* Is zone i's entry to be written in this stage? */
static bool belongs(const struct zq_zones *zs, uint32_t i, enum zq_table_stage stage)
{
    uint64_t captured = zs->v[i].captured, disk = on_disk(zs, i);

    if (captured == disk && zs->v[i].doubt != ZQ_UNSURE)
        return false;
    switch (stage) {
    case ZQ_TABLE_RESETS: return captured == zq_geometry_start(&zs->g, i);
    case ZQ_TABLE_FULL: return !counts_as_active(zs, i, captured);
    default: return true;
    }
}

/* The first look of a round captures. */
static bool sector_has(struct zq_zones *zs, uint32_t s, enum zq_table_stage stage)
{
    if (zs->in_round[s] == ZQ_TAKEN)
        zq_zones_capture(zs, s);
    for (uint32_t i = first_in(zs, s); zs->in_round[s] && i < last_in(zs, s); i++) {
        if (belongs(zs, i, stage))
            return true;
    }
    return false;
}

/* While it lasts the pointers of zones may only go back to their start: that asks for less. */
void zq_table_weigh(struct zq_zones *zs, uint32_t from, int32_t *left)
{
    if (!from) {
        zs->activates = 0;
        zs->releases = false;
    }
    for (uint32_t s = from; s < chunk_end(zs, from); s++) {
        pay(zs, s, left);
        for (uint32_t i = first_in(zs, s); zs->in_round[s] && i < last_in(zs, s); i++) {
            bool was = may_be_active(zs, i);
            zs->releases |= was && belongs(zs, i, ZQ_TABLE_FULL);
            zs->activates += !was && counts_as_active(zs, i, zs->v[i].captured);
        }
    }
}

static void compose_sector(struct zq_zones *zs, enum zq_table_stage stage, uint32_t s, uint8_t *buf)
{
    uint32_t first = s * PER_SECTOR, last = last_in(zs, s);

    if (s + 1 == zs->nr_sectors)
        memcpy(buf, zs->tail, ZQ_SECTOR);
    for (uint32_t i = first; i < last; i++) {
        struct zq_zone *z = &zs->v[i];

        if (i >= zs->g.conventional && belongs(zs, i, stage)) {
            zq_assert_k(K3, z->captured <= z->wp && z->captured <= z->high);
            zq_assert_k(I7, zs->disk_active >= may_be_active(zs, i));
            zs->disk_active -= may_be_active(zs, i);
            zs->disk_active += counts_as_active(zs, i, z->captured);
            /* `finished` is the present state; the capture may be older. */
            bool finished = z->finished && z->captured == zq_zone_end(zs, i);

            zq_entry_encode(&zs->g, i, z->captured, finished, z->raw);
            z->doubt = ZQ_COMPOSED;
        }
        memcpy(buf + zq_entries_bytes(i - first), z->raw, ZQ_ENTRY);
    }
}

uint32_t zq_table_compose(struct zq_zones *zs, enum zq_table_stage stage, uint32_t *sector,
                          uint8_t *buf, uint32_t max, uint64_t *at, int32_t *left)
{
    uint32_t s = *sector, end = chunk_end(zs, s), bytes = 0;

    zq_assert(max && max % ZQ_SECTOR == 0);
    for (; s < end && !sector_has(zs, s, stage); s++)
        pay(zs, s, left);
    *at = zs->g.table_offset + (uint64_t)s * ZQ_SECTOR;
    for (; bytes < max && s < end && sector_has(zs, s, stage); s++) {
        pay(zs, s, left);
        compose_sector(zs, stage, s, buf + bytes);
        bytes += ZQ_SECTOR;
    }
    *sector = s;
    return bytes;
}

void zq_table_resets_durable(struct zq_zones *zs, uint32_t from, int32_t *left)
{
    for (uint32_t s = from; s < chunk_end(zs, from); s++) {
        pay(zs, s, left);
        for (uint32_t i = first_in(zs, s); zs->in_round[s] && i < last_in(zs, s); i++) {
            struct zq_zone *z = &zs->v[i];
            uint64_t start = zq_geometry_start(&zs->g, i);
            if (z->doubt == ZQ_COMPOSED)
                z->doubt = ZQ_SURE;
            if (z->doubt == ZQ_SURE && z->captured == start && on_disk(zs, i) == start)
                z->high = start;
        }
    }
}

void zq_table_full_durable(struct zq_zones *zs, uint32_t from, int32_t *left)
{
    for (uint32_t s = from; s < chunk_end(zs, from); s++) {
        pay(zs, s, left);
        for (uint32_t i = first_in(zs, s); zs->in_round[s] && i < last_in(zs, s); i++) {
            if (zs->v[i].doubt == ZQ_COMPOSED)
                zs->v[i].doubt = ZQ_SURE;
        }
    }
}

void zq_table_round_done(struct zq_zones *zs, uint32_t from, int32_t *left)
{
    for (uint32_t s = from; s < chunk_end(zs, from); s++) {
        pay(zs, s, left);
        for (uint32_t i = first_in(zs, s); zs->in_round[s] && i < last_in(zs, s); i++) {
            zq_assert_k(R10, zs->v[i].doubt != ZQ_UNSURE);
            zs->v[i].high = on_disk(zs, i);
            zs->v[i].doubt = ZQ_SURE;
        }
        zs->in_round[s] = 0;
    }
}

/* high stays: the entry may have any of the values that it covers (R1). */
void zq_table_round_stop(struct zq_zones *zs, uint32_t from, int32_t *left)
{
    for (uint32_t s = from; s < chunk_end(zs, from); s++) {
        pay(zs, s, left);
        for (uint32_t i = first_in(zs, s); zs->in_round[s] && i < last_in(zs, s); i++) {
            if (zs->v[i].doubt != ZQ_COMPOSED)
                continue;
            zs->disk_active += !may_be_active(zs, i);
            zs->v[i].doubt = ZQ_UNSURE;
        }
        zs->is_dirty |= zs->in_round[s] != 0;
        zs->dirty[s] |= zs->in_round[s] != 0;
        zs->in_round[s] = 0;
    }
}
