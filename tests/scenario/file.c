/* SPDX-License-Identifier: MIT */
/* Stories about the file: made, opened, closed, left behind by a program that died. */
#include "scenario/scenario.h"

const struct geometry sc_base = {.name = "base",
                                 .size = KiB(64 * 8 + 40),
                                 .zone_size = KiB(64),
                                 .capacity = KiB(52),
                                 .conventional = 2,
                                 .cluster = 4096};
const struct geometry sc_limits = {.name = "limits",
                                   .size = KiB(64 * 8 + 40),
                                   .zone_size = KiB(64),
                                   .capacity = KiB(52),
                                   .conventional = 2,
                                   .max_open = 2,
                                   .max_active = 4,
                                   .cluster = 4096};
const struct geometry sc_tiny = {.name = "tiny clusters",
                                 .size = KiB(32 * 6),
                                 .conventional = 1,
                                 .zone_size = KiB(32),
                                 .capacity = KiB(31),
                                 .cluster = 512,
                                 .refcount_bits = 64};
const struct geometry sc_plain = {.name = "plain image", .size = MiB(1), .cluster = 4096};

static void use_a_little(struct rig *r)
{
    st_append(r, 2, KiB(3), 0);
    st_write(r, 0, 512, 0);
}

static void opened_and_closed(struct rig *r)
{
    st_reopen(r);
    st_reopen(r);
}

static void reopened_often(struct rig *r)
{
    for (uint32_t i = 0; i < 3; i++) {
        st_append(r, 2 + i, KiB(4) + 512, 0);
        st_write(r, KiB(6) * i, KiB(3), 0);
        st_reopen(r);
        st_append(r, 2, 512, 0);
    }
}

static void died_after_flush(struct rig *r)
{
    st_append(r, 2, KiB(9), 0);
    st_write(r, KiB(5), KiB(9), 0);
    st_flush(r);
    st_crash(r);
    st_append(r, 2, 512, 0);
    st_flush(r);
}

static void died_before_flush(struct rig *r)
{
    st_append(r, 2, KiB(9), 0);
    st_flush(r);
    st_append(r, 2, KiB(9), 0);
    st_append(r, 3, KiB(19), 0);
    st_manage(r, ZQCOW2_OP_ZONE_RESET, 2, 1, 0);
    st_write(r, KiB(5), KiB(9), 0);
    st_crash(r);
    st_write(r, KiB(6), KiB(9), 0);
    st_append(r, 3, 512, 0);
    st_reopen(r);
}

static void died_twice(struct rig *r)
{
    for (uint32_t i = 0; i < 2; i++) {
        st_append(r, 2 + i, KiB(12), ZQCOW2_FUA);
        st_manage(r, ZQCOW2_OP_ZONE_RESET, 2, 1, 0);
        st_append(r, 2, KiB(1), 0);
        st_discard(r, 0, KiB(64));
        st_write(r, KiB(16) * i, KiB(10), 0);
        st_crash(r);
    }
}

static const struct scenario table[] = {
    {.name = "created", .g = &sc_base, .run = use_a_little, .creates = true},
    {.name = "created_tiny", .g = &sc_tiny, .run = use_a_little, .creates = true},
    {.name = "opened_and_closed", .g = &sc_base, .run = opened_and_closed},
    {.name = "reopened_often", .g = &sc_base, .run = reopened_often},
    {.name = "died_after_flush", .g = &sc_base, .run = died_after_flush},
    {.name = "died_before_flush", .g = &sc_base, .run = died_before_flush},
    {.name = "died_twice", .g = &sc_base, .run = died_twice},
    {.name = "died_shuffled", .g = &sc_base, .run = died_before_flush, .world = RIG_SHUFFLED},
    {.name = "died_tiny", .g = &sc_tiny, .run = died_after_flush},
};
SCENARIOS(scenarios_file, table);
