/* SPDX-License-Identifier: MIT */
/* Stories about conventional zones, plain images, and metadata that grows. */
#include "scenario/scenario.h"

static void overwrite(struct rig *r)
{
    st_write(r, KiB(3), KiB(10), 0);
    st_write(r, KiB(5), 512, 0);
    st_flush(r);
    st_write(r, KiB(4), KiB(4), ZQCOW2_FUA);
    st_write(r, KiB(60), KiB(8), 0);
    st_write(r, KiB(62), KiB(3), 0);
    st_read(r, 0, KiB(128));
}

static void zero_and_discard(struct rig *r)
{
    st_write(r, 0, KiB(40), 0);
    st_zeroes(r, KiB(2), KiB(9), 0);
    st_discard(r, KiB(13), KiB(14));
    st_flush(r);
    st_write(r, KiB(14), 1024, 0);
    st_zeroes(r, KiB(64), KiB(64), 0);
    st_read(r, 0, KiB(128));
    st_discard(r, 0, KiB(64));
    st_flush(r);
    st_write(r, 512, 512, 0);
}

/* Freed clusters are taken again. */
static void free_and_take(struct rig *r)
{
    for (int i = 0; i < 4; i++) {
        st_write(r, KiB(8), KiB(24), 0);
        st_flush(r);
        st_discard(r, KiB(8), KiB(24));
        if (i % 2)
            st_flush(r);
        st_append(r, 2, KiB(5), 0);
    }
}

/* L2 tables of 64 entries, refcount blocks of 64: many of each. */
static void metadata_grows(struct rig *r)
{
    for (uint32_t i = 1; i < 6; i++) {
        st_append(r, i, KiB(31), 0);
        st_write(r, KiB(4) * i, KiB(1), 0);
    }
    st_flush(r);
}

static void metadata_grows_by_pieces(struct rig *r)
{
    for (int i = 0; i < 10; i++) {
        st_append(r, 1 + (uint32_t)i % 3, KiB(6), 0);
        if (i % 4 == 3)
            st_flush(r);
    }
}

static void plain_image(struct rig *r)
{
    st_write(r, KiB(100), KiB(30), 0);
    st_write(r, KiB(500) + 512, 1024, 0);
    st_flush(r);
    st_zeroes(r, KiB(104), KiB(10), 0);
    st_discard(r, KiB(116), KiB(8));
    st_write(r, KiB(118), KiB(1), ZQCOW2_FUA);
    st_read(r, KiB(90), KiB(60));
}

static void far_apart(struct rig *r)
{
    for (uint64_t i = 0; i < 8; i++)
        st_write(r, i * KiB(120) + 512, 512, 0);
    st_flush(r);
    for (uint64_t i = 0; i < 8; i++)
        st_read(r, i * KiB(120), KiB(2));
}

/* What is read after reopening has to be looked up on disk. */
static void cold_reads(struct rig *r)
{
    st_append(r, 2, KiB(20), 0);
    st_append(r, 3, KiB(52), 0);
    st_write(r, KiB(1), KiB(30), 0);
    st_reopen(r);
    st_read(r, 0, KiB(64) * 5);
    st_append(r, 2, KiB(2), 0);
    st_read(r, rig_start(r, 2), KiB(30));
}

static const struct geometry v7 = {.name = "v7",
                                   .size = KiB(64 * 8 + 40),
                                   .zone_size = KiB(64),
                                   .capacity = KiB(52),
                                   .conventional = 2,
                                   .cluster = 4096,
                                   .max_append = KiB(32),
                                   .layout = ZQCOW2_LAYOUT_V7};
static const struct geometry l56 = {.name = "56",
                                    .size = KiB(64 * 8 + 40),
                                    .zone_size = KiB(64),
                                    .capacity = KiB(52),
                                    .conventional = 2,
                                    .cluster = 4096,
                                    .max_append = KiB(32),
                                    .max_active = 4,
                                    .refcount_bits = 1,
                                    .layout = ZQCOW2_LAYOUT_56};
static const struct geometry big = {.name = "clusters of 64K",
                                    .size = MiB(4),
                                    .zone_size = KiB(512),
                                    .capacity = KiB(300) + 512,
                                    .conventional = 1,
                                    .cluster = 65536};

static void another_layout(struct rig *r)
{
    st_append(r, 2, KiB(10), 0);
    st_manage(r, ZQCOW2_OP_ZONE_FINISH, 8, 1, 0);
    st_append(r, 3, KiB(32), ZQCOW2_FUA);
    st_append(r, 3, KiB(20), 0);
    st_manage(r, ZQCOW2_OP_ZONE_RESET, 2, 1, 0);
    st_write(r, KiB(7), KiB(7), 0);
    st_reopen(r);
    st_append(r, 2, 512, 0);
    st_flush(r);
}

static void big_clusters(struct rig *r)
{
    st_append(r, 1, KiB(100), 0);
    st_append(r, 1, KiB(200) + 512, 0);
    st_append(r, 2, 512, 0);
    st_write(r, KiB(30), KiB(70), 0);
    st_flush(r);
    st_manage(r, ZQCOW2_OP_ZONE_RESET, 1, 1, 0);
    st_append(r, 1, 512, 0);
    st_flush(r);
}

static const struct scenario table[] = {
    {.name = "overwrite", .g = &sc_base, .run = overwrite},
    {.name = "zero_and_discard", .g = &sc_base, .run = zero_and_discard},
    {.name = "free_and_take", .g = &sc_base, .run = free_and_take},
    {.name = "metadata_grows", .g = &sc_tiny, .run = metadata_grows},
    {.name = "metadata_grows_by_pieces",
     .g = &sc_tiny,
     .run = metadata_grows_by_pieces,
     .extent_bytes = KiB(2)},
    {.name = "small_cache",
     .g = &sc_tiny,
     .run = metadata_grows_by_pieces,
     .cache_bytes = 1,
     .extent_bytes = KiB(1)},
    {.name = "plain_image", .g = &sc_plain, .run = plain_image},
    {.name = "far_apart", .g = &sc_plain, .run = far_apart, .cache_bytes = 1},
    {.name = "cold_reads", .g = &sc_base, .run = cold_reads},
    {.name = "layout_v7", .g = &v7, .run = another_layout},
    {.name = "layout_56", .g = &l56, .run = another_layout},
    {.name = "big_clusters", .g = &big, .run = big_clusters},
    {.name = "overwrite_shuffled", .g = &sc_base, .run = overwrite, .world = RIG_SHUFFLED},
    {.name = "zero_and_discard_shuffled",
     .g = &sc_base,
     .run = zero_and_discard,
     .world = RIG_SHUFFLED},
    {.name = "metadata_shuffled",
     .g = &sc_tiny,
     .run = metadata_grows_by_pieces,
     .world = RIG_SHUFFLED,
     .extent_bytes = KiB(1)},
};
SCENARIOS(scenarios_data, table);
