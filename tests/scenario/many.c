/* SPDX-License-Identifier: MIT */
/* Stories with many requests in flight. */
#include "scenario/scenario.h"

static void appends_to_one_zone(struct rig *r)
{
    st_burst(r, 12, KiB(1), 2, 1);
    st_burst(r, 12, KiB(2), 2, 1);
    st_flush(r);
}

static void appends_to_many_zones(struct rig *r)
{
    st_burst(r, 24, KiB(2) + 512, 2, 5);
    st_flush(r);
    st_manage(r, ZQCOW2_OP_ZONE_RESET, 3, 2, 0);
    st_burst(r, 12, KiB(1), 3, 2);
}

static void appends_until_full(struct rig *r)
{
    st_burst(r, 13, KiB(4), 4, 1);
    st_refused(r, ZQCOW2_EZONE_FULL, ZQCOW2_OP_APPEND, rig_start(r, 4), 512);
    st_flush(r);
}

/* Extents of two clusters, tables of 64 entries: what is in flight waits for metadata often. */
static void appends_that_allocate(struct rig *r)
{
    st_burst(r, 20, 512, 2, 2);
    st_burst(r, 10, KiB(2), 2, 1);
    st_flush(r);
}

/* Limits of 2 and 4: each append closes somebody else's zone. */
static void appends_under_limits(struct rig *r)
{
    st_burst(r, 16, KiB(1), 2, 4);
    st_flush(r);
    st_burst(r, 8, KiB(1), 2, 4);
}

static void neighbours(struct rig *r)
{
    st_scatter(r, 16, 1536, 512);
    st_flush(r);
    st_scatter(r, 8, 512, KiB(2));
    st_scatter(r, 8, KiB(3), KiB(40));
}

static const struct scenario table[] = {
    {.name = "burst", .g = &sc_base, .run = appends_to_one_zone},
    {.name = "burst_shuffled", .g = &sc_base, .run = appends_to_one_zone, .world = RIG_SHUFFLED},
    {.name = "burst_many", .g = &sc_base, .run = appends_to_many_zones, .world = RIG_SHUFFLED},
    {.name = "burst_full", .g = &sc_base, .run = appends_until_full, .world = RIG_SHUFFLED},
    {.name = "burst_limits", .g = &sc_limits, .run = appends_under_limits, .world = RIG_SHUFFLED},
    {.name = "burst_threaded", .g = &sc_base, .run = appends_to_many_zones, .world = RIG_THREADED},
    {.name = "burst_metadata",
     .g = &sc_tiny,
     .run = appends_that_allocate,
     .world = RIG_SHUFFLED,
     .extent_bytes = KiB(1)},
    {.name = "neighbours", .g = &sc_base, .run = neighbours},
    {.name = "neighbours_shuffled", .g = &sc_base, .run = neighbours, .world = RIG_SHUFFLED},
};
SCENARIOS(scenarios_crowd, table);
