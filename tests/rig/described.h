/* SPDX-License-Identifier: MIT */
/* Images with extensions of zone descriptors: shapes, and calls that know what each zone has. */
#ifndef RIG_DESCRIBED_H
#define RIG_DESCRIBED_H

#include <string.h>
#include "rig/raw.h"
#include "rig/rig.h"

#define ZONE     KiB(64)
#define PERSIST  ZQCOW2_ZONE_PERSIST
#define EXT      0x7a713273u
#define MOST     16320u
#define NONE     0xffu /* in place of a tag */
#define INTERIOR 200u  /* zones of the shape with most of them */

static const struct geometry small = {.name = "64 bytes",
                                      .size = KiB(512),
                                      .zone_size = ZONE,
                                      .capacity = KiB(48),
                                      .conventional = 1,
                                      .max_open = 2,
                                      .max_active = 3,
                                      .cluster = 4096,
                                      .rules = ZQCOW2_RULES_ZNS,
                                      .described = 64};
/* They cross the ends of sectors. */
static const struct geometry odd = {.name = "192 bytes",
                                    .size = INTERIOR * 512,
                                    .zone_size = 512,
                                    .cluster = 512,
                                    .rules = ZQCOW2_RULES_ZNS,
                                    .described = 192};
static const struct geometry most = {.name = "16320 bytes",
                                     .size = MiB(64),
                                     .zone_size = MiB(1),
                                     .cluster = 65536,
                                     .rules = ZQCOW2_RULES_ZNS,
                                     .described = MOST};
static const struct geometry *const all[] = {&small, &odd, &most};

static inline uint64_t be(struct rig *r, uint64_t at, unsigned bytes)
{
    return raw_get(&(struct raw){.s = &r->store}, at, bytes);
}

static inline void put(struct rig *r, uint64_t at, unsigned bytes, uint64_t v)
{
    raw_put(&(struct raw){.s = &r->store}, at, bytes, v);
}

/* Where the extension's data begins. */
static inline uint64_t find_ext(struct rig *r)
{
    uint64_t at = be(r, 100, 4);

    while (be(r, at, 4) != EXT)
        at += 8 + (be(r, at + 4, 4) + 7) / 8 * 8;
    return at + 8;
}

/* No two bytes of it are alike that a mistake would mix up. */
static inline void compose(uint8_t *buf, uint32_t size, uint32_t zone, unsigned tag)
{
    for (uint32_t i = 0; i < size; i++)
        buf[i] = (uint8_t)(1 + (i * 7 + zone * 31 + tag * 131 + i / 251) % 255);
    if (tag == NONE)
        memset(buf, 0, size);
}

static inline int describe(struct rig *r, uint32_t zone, unsigned tag)
{
    static uint8_t buf[MOST];

    compose(buf, r->g->described, zone, tag);
    return zqcow2_zone_set_descriptor(r->img, rig_start(r, zone), buf, r->g->described);
}

/* As one call shows it, and with all others. */
static inline bool has(struct rig *r, uint32_t zone, unsigned tag)
{
    static uint8_t got[MOST + 1], want[MOST];
    uint32_t nr = 1, size = r->g->described;
    bool described = rig_zone(r, zone).attributes & ZQCOW2_ZONE_DESCRIBED;

    got[size] = 0xaa;
    compose(want, size, zone, tag);
    if (zqcow2_zone_get_descriptors(r->img, rig_start(r, zone) + 1, got, &nr) || nr != 1 ||
        got[size] != 0xaa)
        return false;
    return described == (tag != NONE) && !memcmp(got, want, size);
}

static inline int reset(struct rig *r, uint32_t zone)
{
    return rig_manage(r, ZQCOW2_OP_ZONE_RESET, rig_start(r, zone), r->g->zone_size, NULL);
}

static inline int set(struct rig *r, uint32_t zone, unsigned state)
{
    return zqcow2_zone_set_state(r->img, rig_start(r, zone), state);
}

#endif
