/* SPDX-License-Identifier: MIT */
/* Stories about the life of sequential zones. */
#include "scenario/scenario.h"

#define OPEN   ZQCOW2_OP_ZONE_OPEN
#define CLOSE  ZQCOW2_OP_ZONE_CLOSE
#define FINISH ZQCOW2_OP_ZONE_FINISH
#define RESET  ZQCOW2_OP_ZONE_RESET

static void fill_a_zone(struct rig *r)
{
    for (int i = 0; i < 13; i++)
        st_append(r, 2, KiB(4), 0);
    st_flush(r);
    st_refused(r, ZQCOW2_EZONE_FULL, ZQCOW2_OP_APPEND, rig_start(r, 2), 512);
}

static void write_and_flush(struct rig *r)
{
    st_write(r, rig_start(r, 2), 512, 0);
    st_flush(r);
    st_write(r, rig_start(r, 2) + 512, KiB(9), 0);
    st_flush(r);
    st_append(r, 3, KiB(6), 0);
    st_append(r, 2, 1024, 0);
    st_drain(r);
}

static void append_fua(struct rig *r)
{
    st_append(r, 4, 1536, ZQCOW2_FUA);
    st_append(r, 4, KiB(8), ZQCOW2_FUA);
    st_append(r, 5, 512, 0);
    st_append(r, 4, 512, ZQCOW2_FUA);
}

static void finish_half_full(struct rig *r)
{
    st_append(r, 3, KiB(5) + 512, 0);
    st_manage(r, FINISH, 3, 1, 0);
    st_read(r, rig_start(r, 3), KiB(64));
    st_flush(r);
}

static void finish_empty(struct rig *r)
{
    st_manage(r, FINISH, 3, 1, ZQCOW2_FUA);
    st_manage(r, FINISH, 8, 1, 0);
    st_flush(r);
    st_read(r, rig_start(r, 3), KiB(64));
}

/* Old bytes lie where the zone is finished over. */
static void finish_over_old_bytes(struct rig *r)
{
    st_append(r, 5, KiB(40), 0);
    st_flush(r);
    st_manage(r, RESET, 5, 1, 0);
    st_append(r, 5, KiB(3), 0);
    st_manage(r, FINISH, 5, 1, 0);
    st_flush(r);
    st_read(r, rig_start(r, 5), KiB(64));
}

static void reset_after_flush(struct rig *r)
{
    st_append(r, 2, KiB(20), 0);
    st_flush(r);
    st_manage(r, RESET, 2, 1, 0);
    st_append(r, 2, KiB(3), 0);
    st_flush(r);
    st_manage(r, RESET, 2, 1, ZQCOW2_FUA);
}

static void reset_before_flush(struct rig *r)
{
    st_append(r, 2, KiB(12), 0);
    st_manage(r, RESET, 2, 1, 0);
    st_append(r, 2, 512, 0);
    st_manage(r, RESET, 2, 1, 0);
    st_append(r, 2, 1024, 0);
    st_flush(r);
}

static void reset_all(struct rig *r)
{
    for (uint32_t i = 2; i < 9; i++)
        st_append(r, i, 512 * i, 0);
    st_manage(r, FINISH, 4, 1, 0);
    st_flush(r);
    st_all(r, RESET);
    st_append(r, 4, 512, 0);
    st_flush(r);
}

static void open_and_close(struct rig *r)
{
    st_manage(r, OPEN, 2, 2, 0);
    st_append(r, 2, KiB(4), 0);
    st_manage(r, CLOSE, 2, 2, 0);
    st_append(r, 2, KiB(4), 0);
    st_manage(r, OPEN, 2, 1, ZQCOW2_FUA);
    st_all(r, CLOSE);
    st_all(r, OPEN);
    st_all(r, FINISH);
    st_flush(r);
}

static void limits_bite(struct rig *r)
{
    for (uint32_t i = 2; i < 6; i++)
        st_append(r, i, 1024, 0);
    st_refused(r, ZQCOW2_EZONE_ACTIVE, ZQCOW2_OP_APPEND, rig_start(r, 6), 512);
    st_append(r, 2, 512, 0);
    st_manage(r, FINISH, 3, 1, 0);
    st_append(r, 6, 512, 0);
    st_flush(r);
    st_manage(r, RESET, 4, 1, 0);
    st_append(r, 7, 512, 0);
    st_append(r, 5, 512, ZQCOW2_FUA);
}

/* FULL must reach the disk before what takes its place does. */
static void full_makes_room(struct rig *r)
{
    for (uint32_t i = 2; i < 6; i++)
        st_append(r, i, 512, 0);
    st_flush(r);
    st_append(r, 2, KiB(52) - 512, 0);
    st_append(r, 6, 512, 0);
    st_manage(r, FINISH, 3, 1, 0);
    st_append(r, 7, 512, 0);
    st_flush(r);
}

static void short_last_zone(struct rig *r)
{
    st_append(r, 8, KiB(39), 0);
    st_flush(r);
    st_append(r, 8, KiB(1), 0);
    st_refused(r, ZQCOW2_EZONE_FULL, ZQCOW2_OP_APPEND, rig_start(r, 8), 512);
    st_manage(r, RESET, 8, 1, 0);
    st_append(r, 8, KiB(2), 0);
    st_manage(r, FINISH, 8, 1, 0);
    st_flush(r);
}

static void zeroes_in_zones(struct rig *r)
{
    st_append(r, 2, KiB(3), 0);
    st_zeroes(r, rig_start(r, 2) + KiB(3), KiB(30), 0);
    st_append(r, 2, KiB(3), 0);
    st_flush(r);
    st_zeroes(r, rig_start(r, 3), KiB(52), ZQCOW2_FUA);
    st_read(r, rig_start(r, 2), KiB(64));
}

static void zeroes_over_old_bytes(struct rig *r)
{
    st_append(r, 6, KiB(33), 0);
    st_flush(r);
    st_manage(r, RESET, 6, 1, 0);
    st_zeroes(r, rig_start(r, 6), KiB(21) + 512, 0);
    st_append(r, 6, 512, 0);
    st_flush(r);
    st_read(r, rig_start(r, 6), KiB(64));
}

static const struct scenario table[] = {
    {.name = "fill_a_zone", .g = &sc_base, .run = fill_a_zone},
    {.name = "write_and_flush", .g = &sc_base, .run = write_and_flush},
    {.name = "append_fua", .g = &sc_base, .run = append_fua},
    {.name = "finish_half_full", .g = &sc_base, .run = finish_half_full},
    {.name = "finish_empty", .g = &sc_base, .run = finish_empty},
    {.name = "finish_over_old_bytes", .g = &sc_base, .run = finish_over_old_bytes},
    {.name = "reset_after_flush", .g = &sc_base, .run = reset_after_flush},
    {.name = "reset_before_flush", .g = &sc_base, .run = reset_before_flush},
    {.name = "reset_all", .g = &sc_base, .run = reset_all},
    {.name = "open_and_close", .g = &sc_base, .run = open_and_close},
    {.name = "limits_bite", .g = &sc_limits, .run = limits_bite},
    {.name = "full_makes_room", .g = &sc_limits, .run = full_makes_room},
    {.name = "short_last_zone", .g = &sc_base, .run = short_last_zone},
    {.name = "zeroes_in_zones", .g = &sc_base, .run = zeroes_in_zones},
    {.name = "zeroes_over_old_bytes", .g = &sc_base, .run = zeroes_over_old_bytes},
    {.name = "reset_shuffled", .g = &sc_base, .run = reset_before_flush, .world = RIG_SHUFFLED},
    {.name = "limits_shuffled", .g = &sc_limits, .run = full_makes_room, .world = RIG_SHUFFLED},
};
SCENARIOS(scenarios_zones, table);
