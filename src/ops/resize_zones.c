/* SPDX-License-Identifier: MIT */
/*
 * Zones that are added, or taken away at the end, and their tables.
 *
 * The tables always move, even if the old ones had room: an entry may say more than the old end of
 * a last zone that was short, and a table that stays would unmask what lies behind it (G2).
 */
#include <errno.h>
#include <inttypes.h>
#include "ops/resize_zones.h"
#include "base/report.h"

enum { POINTERS, STATES, DESCRIBED };

/* ---- what may be refused ---- */

/*
 * A source must not have more zones than the image on it: the next open would refuse the pair. One
 * that was not opened may have any number.
 */
static int judge_source(const struct zq_core *c, uint64_t size, struct zqcow2_error *err)
{
    if (size < c->size && c->source_absent)
        return zq_fail(err, ZQCOW2_EFEATURE, "the backing file was not opened: it may be larger");
    if (!c->source || size >= c->source->size)
        return 0;
    return zq_fail(err, ZQCOW2_EFEATURE,
                   "size %" PRIu64 ": the backing file would be larger than the device", size);
}

/* All must change with one sector, or nothing begins. */
static int judge_header(const struct zq_core *c, uint32_t nr_zones, struct zqcow2_error *err)
{
    uint8_t probe[ZQ_SECTOR];

    if (c->hdr.zoned_offset + c->hdr.zoned_len > ZQ_SECTOR)
        return zq_fail(err, ZQCOW2_EFEATURE,
                       "the zoned extension does not lie in the first 512 bytes of the file");
    memcpy(probe, c->sector0, ZQ_SECTOR);
    if (c->zones.states_at &&
        !zq_states_put(probe, &c->hdr, (uint64_t)1 << c->cluster_bits, nr_zones))
        return zq_fail(err, ZQCOW2_EFEATURE,
                       "the first 512 bytes of the file have no room for a header extension");
    return 0;
}

/*
 * Whole zones only: a last zone that is short exists where it was created so, and growing ends
 * that. The table of descriptor extensions has a limit of its own.
 */
static int judge_geometry(const struct zq_core *c, struct zq_resize_zones *z, uint64_t size,
                          struct zqcow2_error *err)
{
    const struct zq_geometry *g = &c->zones.g;

    if (size & (g->zone_size - 1))
        return zq_fail(err, -EINVAL, "size %" PRIu64 ": must be a multiple of zone.size %" PRIu64,
                       size, g->zone_size);
    if (size <= (uint64_t)g->conventional << g->zone_bits)
        return zq_fail(err, -EINVAL, "size %" PRIu64 ": leaves no sequential zone", size);
    if (!zq_geometry_resize(g, size, &z->g) ||
        (c->hdr.descriptor_size && zq_descriptor_refused(c->hdr.descriptor_size, z->g.nr_zones)))
        return zq_fail(err, -EFBIG, "size %" PRIu64 ": too large for the zones of the image", size);
    return 0;
}

/* One that is open, read-only or offline is not: somebody has said something of it. */
static int judge_dropped(const struct zq_core *c, uint32_t nr_zones, struct zqcow2_error *err)
{
    for (uint32_t i = nr_zones; i < c->zones.g.nr_zones; i++) {
        if (zq_zone_state(&c->zones.v[i]) != ZQCOW2_ZONE_EMPTY)
            return zq_fail(err, ZQCOW2_EZONE_STATE,
                           "zone %" PRIu32 ", which would be cut off, is not empty", i);
    }
    return 0;
}

/* ---- the new tables ---- */

/* G2: is it FULL up to an end that it will not have any more? Then it goes on from there. */
static bool is_longer(const struct zq_core *c, const struct zq_geometry *g, uint32_t zone)
{
    return c->zones.v[zone].state == ZQCOW2_ZONE_FULL &&
           zq_geometry_capacity(g, zone) > zq_geometry_capacity(&c->zones.g, zone);
}

/* Behind a settled image memory has what the file has. */
static void make_pointers(const struct zq_core *c, struct zq_resize_zones *z)
{
    const struct zq_zones *now = &c->zones;

    for (uint32_t i = 0; i < z->g.nr_zones; i++) {
        uint8_t *at = z->pointers + zq_entries_bytes(i);

        if (i >= now->g.nr_zones)
            zq_entry_encode(&z->g, i, zq_geometry_start(&z->g, i), false, at);
        else if (is_longer(c, &z->g, i))
            zq_entry_encode(&z->g, i, zq_zone_end(now, i), false, at);
        else
            memcpy(at, now->v[i].raw, ZQ_ENTRY);
    }
}

/* The bytes of zones that both sizes have; a new zone has nothing stored. */
static void make_states(const struct zq_core *c, struct zq_resize_zones *z)
{
    for (uint32_t i = 0; i < zq_min(z->g.nr_zones, c->zones.g.nr_zones); i++)
        z->states[i] = c->zones.v[i].stored;
}

/* As they are after an open; those that there are keep what they have in memory. */
static int make_zones(struct zq_core *c, struct zq_resize_zones *z, struct zqcow2_error *err)
{
    const struct zq_zones_params p = {&z->g,       &c->hooks,      &c->ready,
                                      z->pointers, c->zones.rules, &c->events};
    uint32_t last = c->zones.g.nr_zones - 1;
    int rc = zq_zones_open(&z->zones, &p);

    if (rc < 0)
        return rc;
    if (last < z->g.nr_zones && is_longer(c, &z->g, last) &&
        c->zones.nr_active >= z->zones.max_active)
        return zq_fail(err, ZQCOW2_EZONE_ACTIVE,
                       "zone %" PRIu32 ", which is full, would be closed, and max_active_zones "
                       "zones are active",
                       last);
    return 0;
}

/* All of it beforehand: after the switch nothing may fail. */
static int take_memory(struct zq_core *c, struct zq_resize_zones *z)
{
    bool enough;

    z->pointers = zq_zalloc(&c->hooks, zq_pointers_bytes(&z->g));
    z->states = zq_zalloc(&c->hooks, zq_states_bytes(z->g.nr_zones));
    z->runs = zq_zalloc_array(&c->hooks, z->g.nr_zones, sizeof(*z->runs));
    enough = z->pointers && z->states && z->runs;
    for (unsigned i = 0; i < ZQ_ZONE_TABLES; i++) {
        z->freed[i] = zq_record_new(&c->alloc);
        enough &= z->freed[i] != NULL;
    }
    return enough ? 0 : -ENOMEM;
}

/* Each table begins with a cluster of its own. */
static void set_bytes(const struct zq_core *c, struct zq_resize_zones *z)
{
    const enum zq_fixed fixed[] = {ZQ_FIXED_POINTERS, ZQ_FIXED_STATES, ZQ_FIXED_DESCRIBED};
    uint64_t cluster = (uint64_t)1 << c->cluster_bits;

    z->bytes[POINTERS] = zq_align_up(zq_entries_bytes(z->g.nr_zones), cluster);
    if (c->zones.states_at) {
        z->bytes[STATES] = zq_align_up(zq_states_bytes(z->g.nr_zones), cluster);
        z->bytes[DESCRIBED] =
            zq_align_up(zq_descriptors_bytes(c->hdr.descriptor_size, z->g.nr_zones), cluster);
    }
    for (unsigned i = 0; i < ZQ_ZONE_TABLES; i++) {
        if (z->bytes[i])
            z->old[i] = c->alloc.fixed[fixed[i]];
    }
}

int zq_resize_zones_judge(struct zq_core *c, struct zq_resize_zones *z, uint64_t size,
                          struct zqcow2_error *err)
{
    int rc = judge_geometry(c, z, size, err);

    if (rc == 0)
        rc = judge_source(c, size, err);
    if (rc == 0)
        rc = judge_header(c, z->g.nr_zones, err);
    if (rc == 0)
        rc = judge_dropped(c, z->g.nr_zones, err);
    if (rc == 0)
        rc = take_memory(c, z);
    if (rc < 0)
        return rc;
    make_pointers(c, z);
    make_states(c, z);
    set_bytes(c, z);
    return make_zones(c, z, err);
}

uint64_t zq_resize_zones_bytes(const struct zq_resize_zones *z)
{
    return z->bytes[POINTERS] + z->bytes[STATES] + z->bytes[DESCRIBED];
}

/* In the order in which zq_states_put() expects them: the descriptors lie behind the states. */
void zq_resize_zones_place(struct zq_resize_zones *z, uint64_t host)
{
    for (unsigned i = 0; i < ZQ_ZONE_TABLES; host += z->bytes[i++])
        z->table[i] = z->bytes[i] ? host : 0;
    z->g.table_offset = z->zones.g.table_offset = z->table[POINTERS];
}

/* What there is of [at, at + n); zeros behind it. */
static void copy_part(uint8_t *buf, const uint8_t *from, uint64_t bytes, uint64_t at, uint64_t n)
{
    uint64_t have = at < bytes ? zq_min(n, bytes - at) : 0;

    if (have)
        memcpy(buf, from + at, (size_t)have);
    memset(buf + have, 0, (size_t)(n - have));
}

/*
 * Descriptor extensions are in the file only. What the old table has behind its last zone may come
 * along: nothing stored says that a zone has it (R16).
 */
static int read_part(const struct zq_core *c, const struct zq_host_range *from, uint64_t at,
                     uint8_t *buf, uint64_t n)
{
    uint64_t bytes = zq_descriptors_bytes(c->hdr.descriptor_size, c->zones.g.nr_zones);
    uint64_t have = at < bytes ? zq_min(n, bytes - at) : 0;

    memset(buf + have, 0, (size_t)(n - have));
    return have ? zq_be_read(c->be, buf, (size_t)have, from->offset + at) : 0;
}

int zq_resize_zones_compose(const struct zq_core *c, const struct zq_resize_zones *z, uint64_t at,
                            uint8_t *buf, uint64_t n)
{
    if (at < z->bytes[POINTERS]) {
        copy_part(buf, z->pointers, zq_pointers_bytes(&z->g), at, n);
        return 0;
    }
    at -= z->bytes[POINTERS];
    if (at < z->bytes[STATES]) {
        copy_part(buf, z->states, zq_states_bytes(z->g.nr_zones), at, n);
        return 0;
    }
    return read_part(c, &z->old[DESCRIBED], at - z->bytes[STATES], buf, n);
}

/* ---- the change ---- */

void zq_resize_zones_switch(const struct zq_core *c, const struct zq_resize_zones *z,
                            uint8_t sector0[ZQ_SECTOR])
{
    zq_put_be64(sector0 + ZQ_HDR_SIZE, z->g.device_size);
    zq_zone_ext_move(sector0 + c->hdr.zoned_offset, &z->g);
    if (z->bytes[STATES])
        (void)zq_states_put(sector0, &c->hdr, z->table[STATES], z->g.nr_zones);
}

/* Through the quarantine: a reader of the old table cannot exist, but a crash before its round can.
 */
static void give_back(struct zq_core *c, struct zq_resize_zones *z, unsigned i)
{
    struct zq_freed *f = z->freed[i];

    z->freed[i] = NULL;
    f->cluster = z->old[i].offset >> c->cluster_bits;
    f->count = z->old[i].bytes >> c->cluster_bits;
    f->punch = true;
    if (f->count)
        zq_alloc_quarantine(&c->alloc, f, false);
    else
        zq_record_drop(&c->alloc, f);
}

/* Memory says what the header says: where the tables are, and which clusters are theirs. */
static void adopt_tables(struct zq_core *c, struct zq_resize_zones *z)
{
    struct zq_host_range *fixed = c->alloc.fixed;

    for (unsigned i = 0; i < ZQ_ZONE_TABLES; i++)
        give_back(c, z, i);
    fixed[ZQ_FIXED_POINTERS] = (struct zq_host_range){z->table[POINTERS], z->bytes[POINTERS]};
    c->alloc.tables++;
    if (!z->bytes[STATES])
        return;
    fixed[ZQ_FIXED_STATES] = (struct zq_host_range){z->table[STATES], z->bytes[STATES]};
    fixed[ZQ_FIXED_DESCRIBED] = (struct zq_host_range){z->table[DESCRIBED], z->bytes[DESCRIBED]};
    c->zones.states_at = c->hdr.states_offset = z->table[STATES];
    c->hdr.states_zones = z->g.nr_zones;
    c->hdr.descriptors_offset = z->table[DESCRIBED];
}

void zq_resize_zones_adopt(struct zq_core *c, struct zq_resize_zones *z)
{
    zq_assert_k(G1, zq_core_is_held(c) && c->exclusive && z->table[POINTERS]);
    zq_zones_resize(&c->zones, &z->zones);
    zq_map_replace_runs(&c->map, z->runs, z->g.nr_zones);
    z->runs = NULL;
    adopt_tables(c, z);
    if (c->source) /* in zones up to the end (S12) */
        c->map.masked_below = z->g.device_size;
}

void zq_resize_zones_leave(struct zq_core *c, struct zq_resize_zones *z)
{
    zq_assert(zq_core_is_held(c));
    zq_zones_close(&z->zones);
    zq_free(&c->hooks, z->pointers, zq_pointers_bytes(&z->g));
    zq_free(&c->hooks, z->states, zq_states_bytes(z->g.nr_zones));
    zq_runs_close(z->runs, z->g.nr_zones, &c->hooks);
    for (unsigned i = 0; i < ZQ_ZONE_TABLES; i++)
        zq_record_drop(&c->alloc, z->freed[i]);
}
