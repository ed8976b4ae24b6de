/* SPDX-License-Identifier: MIT */
/*
 * The table of persistent zone states on disk: composes its sectors as a round has captured them.
 *
 * It is written in place, a sector at a time, behind the write pointers of the same round: a mark
 * that a zone is closed and empty is gone from the disk only when the pointer that makes it void is
 * there. So is that its descriptor has an extension, when a reset has ended it: behind the reset's
 * pointer it is void, and no other pointer follows before it is gone, too (R16).
 */
#include "base/bytes.h"
#include "base/cost.h"
#include "base/report.h"
#include "zone/zones.h"

#define CHUNK (ZQ_TABLE_CHUNK / 8) /* of sectors with eight times as many zones */

static uint32_t last_in(const struct zq_zones *zs, uint32_t sector)
{
    return (uint32_t)zq_min((uint64_t)(sector + 1) * ZQ_SECTOR, zs->g.nr_zones);
}

static uint32_t nr_sectors(const struct zq_zones *zs)
{
    return (uint32_t)(zq_states_bytes(zs->g.nr_zones) / ZQ_SECTOR);
}

static void load(struct zq_zones *zs, uint32_t i, uint8_t stored)
{
    struct zq_zone *z = &zs->v[i];
    bool closed =
        stored & ZQ_STORED_CLOSED && zs->rules == ZQCOW2_RULES_ZNS && z->state == ZQCOW2_ZONE_EMPTY;

    zs->in_state[z->state]--;
    z->stored = z->storing = stored;
    z->forced = stored & ZQ_STORED_FORCED;
    z->described = (stored & ZQ_STORED_DESCRIBED) != 0;
    if (closed)
        z->state = ZQCOW2_ZONE_CLOSED;
    zs->nr_active += closed;
    zs->in_state[z->forced ? z->forced : z->state]++;
}

void zq_states_load(struct zq_zones *zs, uint64_t offset, const uint8_t *table)
{
    zs->states_at = offset;
    for (uint32_t i = 0; i < zs->g.nr_zones; i++) {
        zq_assert(zq_states_valid(&zs->g, i, table[i])); /* the caller has checked it */
        load(zs, i, table[i]);
    }
}

/* As it was when the round took it. */
static void capture_sector(struct zq_zones *zs, uint32_t s)
{
    zs->states_in_round[s] = ZQ_CAPTURED;
    for (uint32_t i = s * ZQ_SECTOR; i < last_in(zs, s); i++) {
        zs->v[i].storing = zs->v[i].stored;
        zs->v[i].described |= (zs->v[i].storing & ZQ_STORED_DESCRIBED) != 0;
    }
}

void zq_zone_store(struct zq_zones *zs, uint32_t i, uint8_t stored)
{
    struct zq_zone *z = &zs->v[i];

    if (z->stored == stored)
        return;
    zq_assert(zs->states_at && zq_states_valid(&zs->g, i, stored));
    if (zs->states_in_round[i / ZQ_SECTOR] == ZQ_TAKEN)
        capture_sector(zs, i / ZQ_SECTOR);
    z->stored = stored;
    zs->states_dirty[i / ZQ_SECTOR] = 1;
}

void zq_states_capture(struct zq_zones *zs)
{
    uint8_t *taken = zs->states_dirty;

    if (!zs->states_at)
        return;
    zs->states_dirty = zs->states_in_round;
    zs->states_in_round = taken;
}

bool zq_states_compose(struct zq_zones *zs, uint32_t *sector, uint8_t buf[ZQ_SECTOR], uint64_t *at,
                       int32_t *left)
{
    uint32_t s = *sector;

    while (zs->states_at && s < nr_sectors(zs) && !zs->states_in_round[s])
        s++;
    *sector = s + 1;
    if (!zs->states_at || s >= nr_sectors(zs))
        return false;
    if (zs->states_in_round[s] == ZQ_TAKEN)
        capture_sector(zs, s);
    *left -= (int32_t)(ZQ_SECTOR * ZQ_COST_LOOK);
    *at = zs->states_at + (uint64_t)s * ZQ_SECTOR;
    memset(buf, 0, ZQ_SECTOR);
    for (uint32_t i = s * ZQ_SECTOR; i < last_in(zs, s); i++)
        buf[i % ZQ_SECTOR] = zs->v[i].storing;
    return true;
}

static uint32_t chunk_end(const struct zq_zones *zs, uint32_t from)
{
    return zs->states_at ? (uint32_t)zq_min((uint64_t)from + CHUNK, nr_sectors(zs)) : 0;
}

/* Behind the barrier only: before it the disk has what was there, or this. */
void zq_states_round_done(struct zq_zones *zs, uint32_t from, int32_t *left)
{
    for (uint32_t s = from; s < chunk_end(zs, from); s++) {
        *left -= zs->states_in_round[s] ? (int32_t)(ZQ_SECTOR * ZQ_COST_LOOK) : 1;
        for (uint32_t i = s * ZQ_SECTOR; zs->states_in_round[s] && i < last_in(zs, s); i++)
            zs->v[i].described = (zs->v[i].storing & ZQ_STORED_DESCRIBED) != 0;
        zs->states_in_round[s] = 0;
    }
}

void zq_states_round_stop(struct zq_zones *zs, uint32_t from, int32_t *left)
{
    for (uint32_t s = from; s < chunk_end(zs, from); s++) {
        *left -= 1;
        zs->states_dirty[s] |= zs->states_in_round[s] != 0;
        zs->states_in_round[s] = 0;
    }
}
