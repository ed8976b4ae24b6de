/* SPDX-License-Identifier: MIT */
/* The shapes of devices that the random tests visit. */
#include "rig/geometries.h"

const struct geometry rig_geometries[] = {
    { .name = "plain", .size = MiB(4), .zone_size = KiB(256), .cluster = 65536 },
    { .name = "capacity", .size = KiB(1536), .zone_size = KiB(128), .capacity = KiB(96),
      .conventional = 2, .max_open = 3, .max_active = 5, .cluster = 4096 },
    { .name = "odd-capacity", .size = KiB(640), .zone_size = KiB(64), .capacity = 77 * 512,
      .conventional = 1, .max_open = 1, .max_active = 2, .cluster = 4096 },
    { .name = "short-last", .size = KiB(32 * 9 + 5), .zone_size = KiB(32), .capacity = KiB(24),
      .conventional = 1, .max_open = 2, .cluster = 512 },
    { .name = "last-above-capacity", .size = KiB(32 * 9 + 28), .zone_size = KiB(32),
      .capacity = KiB(24), .max_active = 3, .cluster = 4096 },
    { .name = "clusters-2M", .size = MiB(24) + KiB(1536), .zone_size = MiB(4),
      .capacity = MiB(3) + 1536, .conventional = 1, .max_open = 2, .max_active = 3,
      .cluster = 2u << 20 },
    { .name = "big", .size = GiB(6), .zone_size = GiB(1), .capacity = GiB(1) - KiB(64),
      .conventional = 1, .max_open = 2, .max_active = 4, .cluster = 65536 },
    { .name = "huge-zones", .size = GiB(14), .zone_size = GiB(4), .capacity = GiB(4) - 512,
      .conventional = 1, .max_open = 1, .max_active = 1, .cluster = 65536 },
    { .name = "v7", .size = MiB(3), .zone_size = KiB(256), .capacity = KiB(192),
      .conventional = 1, .max_open = 2, .max_active = 4, .max_append = KiB(32), .cluster = 65536,
      .layout = ZQCOW2_LAYOUT_V7 },
    { .name = "48b", .size = MiB(2), .zone_size = KiB(128), .capacity = KiB(127),
      .max_open = 4, .max_append = KiB(16), .cluster = 4096, .layout = ZQCOW2_LAYOUT_48B },
    { .name = "56", .size = MiB(2) + KiB(10), .zone_size = KiB(128), .capacity = KiB(100),
      .conventional = 3, .max_active = 2, .max_append = KiB(64), .cluster = 4096,
      .layout = ZQCOW2_LAYOUT_56, .refcount_bits = 1 },
    { .name = "one-zone", .size = KiB(512), .zone_size = KiB(512), .capacity = KiB(511),
      .max_open = 1, .max_active = 1, .cluster = 65536 },
    { .name = "many-zones", .size = KiB(8 * 1400), .zone_size = KiB(8), .capacity = 15 * 512,
      .conventional = 3, .max_open = 6, .max_active = 9, .cluster = 4096, .refcount_bits = 64 },
    { .name = "clusters-512", .size = MiB(1), .zone_size = KiB(64), .capacity = KiB(63),
      .conventional = 2, .max_open = 2, .max_active = 2, .cluster = 512, .refcount_bits = 64 },
};
const unsigned rig_nr_geometries = sizeof(rig_geometries) / sizeof(*rig_geometries);

/* What the layout stores, or what its default says. */
uint64_t rig_max_append(const struct geometry *g)
{
    uint64_t cap = g->capacity ? g->capacity : g->zone_size, most = GiB(4) - 4096;

    if (g->max_append)
        return g->max_append;
    return cap < most ? cap : most;
}
