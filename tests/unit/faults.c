/* SPDX-License-Identifier: MIT */
/* Makes one fault each in an image that was sound. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/faults.h"

const struct fault_data fault_data[3] = {{0, 0xa0}, {KiB(192), 0xa3}, {KiB(320), 0xa5}};

void fault_image(struct pic *p, uint32_t cluster, uint32_t bits)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;

    o.virtual_size = MiB(1);
    o.zone_size = KiB(64);
    o.conventional_zones = 2;
    o.cluster_size = cluster;
    o.refcount_bits = bits;
    pic_make(p, &o);
    pic_map(p, 0, 0xa0);
    pic_map(p, KiB(192), 0xa3);
    pic_put(p, p->wp + 3 * 8, 8, KiB(192) + 512);
    pic_map(p, KiB(320), 0xa5);
    pic_put(p, p->wp + 5 * 8, 8, KiB(384));
}

/* Behind the last extension; returns where the data of a new one lies. */
static uint64_t add_extension(struct pic *p, uint32_t type, uint32_t len)
{
    uint64_t at = pic_get(p, 100, 4);

    while (pic_get(p, at, 4))
        at += 8 + (pic_get(p, at + 4, 4) + 7) / 8 * 8;
    pic_put(p, at, 4, type);
    pic_put(p, at + 4, 4, len);
    return at + 8;
}

uint64_t fault_bitmaps(struct pic *p, const char *const *names)
{
    uint64_t ext = add_extension(p, 0x23852875, 24), dir = pic_alloc(p, 4), at = dir;
    unsigned n = 0;

    for (; names[n]; n++) {
        size_t len = strlen(names[n]);

        pic_put(p, at, 8, pic_alloc(p, 1));
        pic_put(p, at + 8, 4, 1);
        pic_put(p, at + 12, 4, 1); /* in use, so that the table may have any size */
        pic_put(p, at + 16, 4, (uint64_t)(1 << 24 | 16 << 16) | len);
        for (size_t i = 0; i < len; i++)
            pic_put(p, at + 24 + i, 1, (uint8_t)names[n][i]);
        at += (24 + len + 7) / 8 * 8;
        assert_true(at <= dir + 4 * p->cluster);
    }
    pic_put(p, ext, 4, n);
    pic_put(p, ext + 8, 8, at - dir);
    pic_put(p, ext + 16, 8, dir);
    pic_put(p, 88, 8, 1);
    for (uint64_t c = dir + p->cluster; c < dir + 4 * p->cluster; c += p->cluster)
        pic_set_refcount(p, c, c < at);
    return dir;
}

/* ---- faults ---- */

void fault_leak(struct pic *p)
{
    pic_alloc(p, 5);
}

static void count_too_high(struct pic *p)
{
    pic_set_refcount(p, pic_get(p, p->l1, 8) & ~PIC_COPIED, 3);
}

static void count_zero(struct pic *p)
{
    pic_set_refcount(p, pic_map(p, KiB(4), 7), 0);
    pic_set_refcount(p, p->wp, 0);
    pic_set_refcount(p, 0, 0);
}

static void all_zero(struct pic *p)
{
    pic_zero(p, pic_get(p, p->rt, 8), p->cluster);
}

static void no_copied(struct pic *p)
{
    uint64_t at = pic_l2(p, 0);

    pic_put(p, at, 8, pic_get(p, at, 8) & ~PIC_COPIED);
    pic_put(p, p->l1, 8, pic_get(p, p->l1, 8) & ~PIC_COPIED);
}

void fault_shared(struct pic *p)
{
    uint64_t host = pic_map(p, KiB(4), 7);

    pic_put(p, pic_l2(p, KiB(8)), 8, host | PIC_COPIED);
    pic_put(p, pic_l2(p, KiB(12)), 8, host);
}

static void block_missing(struct pic *p)
{
    pic_put(p, p->rt, 8, 0);
}

static void block_twice(struct pic *p)
{
    pic_put(p, p->rt + 8, 8, pic_get(p, p->rt, 8));
}

static void block_nowhere(struct pic *p)
{
    pic_put(p, p->rt, 8, MiB(900));
}

static void block_on_l1(struct pic *p)
{
    pic_put(p, p->rt, 8, p->l1);
}

static void block_on_data(struct pic *p)
{
    pic_put(p, p->rt + 8, 8, pic_get(p, pic_l2(p, KiB(320)), 8) & ~PIC_COPIED);
}

static void block_on_l2(struct pic *p)
{
    pic_put(p, p->rt + 8, 8, pic_get(p, p->l1, 8) & ~PIC_COPIED);
}

static void beyond_file(struct pic *p)
{
    pic_set_refcount(p, MiB(1), 1);
}

static void snapshot_half_deleted(struct pic *p)
{
    pic_snapshot(p);
    pic_put(p, 60, 4, 0);
    pic_put(p, 64, 8, 0);
}

void fault_dirty(struct pic *p)
{
    pic_put(p, 72, 8, 0x23); /* and corrupt */
    pic_put(p, p->mark, 1, 1);
}

static void data_on_wp(struct pic *p)
{
    pic_put(p, pic_l2(p, KiB(4)), 8, p->wp | PIC_COPIED);
}

void fault_data_nowhere(struct pic *p)
{
    pic_put(p, pic_l2(p, KiB(4)), 8, MiB(900) | PIC_COPIED);
    pic_put(p, pic_l2(p, KiB(8)), 8, 0x100 | PIC_COPIED);
    pic_put(p, p->l1 + 8, 8, 0x200);
}

void fault_l2_on_l1(struct pic *p)
{
    pic_put(p, p->l1, 8, p->l1 | PIC_COPIED);
}

void fault_wp_lost(struct pic *p)
{
    pic_put(p, p->wp + 3 * 8, 8, 12345);
    pic_put(p, p->wp + 8, 8, 0);
    pic_put(p, p->wp + 15 * 8, 8, UINT64_MAX);
    pic_map(p, KiB(192) + 2 * p->cluster, 9);
}

/* ---- a refcount table that the header misplaces ---- */

static void table_at_header(struct pic *p)
{
    pic_put(p, 48, 8, 0);
}

static void table_unaligned(struct pic *p)
{
    pic_put(p, 48, 8, p->rt + 8);
}

/* Where a new one would go. */
void fault_table_behind(struct pic *p)
{
    pic_put(p, 48, 8, (pic_length(p) + p->cluster - 1) / p->cluster * p->cluster);
}

static void table_far(struct pic *p)
{
    pic_put(p, 48, 8, 1ull << 62);
}

static void table_empty(struct pic *p)
{
    pic_put(p, 56, 4, 0);
}

static void table_too_large(struct pic *p)
{
    pic_put(p, 56, 4, UINT32_MAX);
}

/* Over all that follows, and the end of the file. */
static void table_long(struct pic *p)
{
    pic_put(p, 56, 4, pic_length(p) / p->cluster);
}

static void table_on_l1(struct pic *p)
{
    pic_put(p, 48, 8, p->l1);
}

static void table_on_wp(struct pic *p)
{
    pic_put(p, 48, 8, p->wp);
}

static void table_on_l2(struct pic *p)
{
    pic_put(p, 48, 8, pic_get(p, p->l1, 8) & ~PIC_COPIED);
}

static void table_on_data(struct pic *p)
{
    pic_put(p, 48, 8, pic_get(p, pic_l2(p, 0), 8) & ~PIC_COPIED);
}

const struct fault faults[] = {
    {"none", NULL, LEAKS, false},
    {"leak", fault_leak, LEAKS, false},
    {"count too high", count_too_high, REPAIR, false},
    {"count zero", count_zero, REPAIR, true},
    {"all zero", all_zero, REPAIR, true},
    {"no COPIED", no_copied, REPAIR, false},
    {"shared", fault_shared, REPAIR, true},
    {"block missing", block_missing, REPAIR, true},
    {"block twice", block_twice, REPAIR, true},
    {"block nowhere", block_nowhere, REPAIR, true},
    {"block on L1", block_on_l1, REPAIR, true},
    {"block on data", block_on_data, REPAIR, true},
    {"block on L2", block_on_l2, REPAIR, true},
    {"beyond file", beyond_file, LEAKS, false},
    {"snapshot half deleted", snapshot_half_deleted, LEAKS, false},
    {"dirty", fault_dirty, LEAKS, false},
    {"data on write pointers", data_on_wp, ALL, true},
    {"data nowhere", fault_data_nowhere, ALL, false},
    {"L2 on L1", fault_l2_on_l1, ALL, true},
    {"write pointers lost", fault_wp_lost, ALL, false},
    {"refcount table at the header", table_at_header, REPAIR, true},
    {"refcount table not aligned", table_unaligned, REPAIR, true},
    {"refcount table behind the end", fault_table_behind, REPAIR, true},
    {"refcount table beyond 2^56", table_far, REPAIR, true},
    {"refcount table of no clusters", table_empty, REPAIR, true},
    {"refcount table of 2^32 - 1 clusters", table_too_large, REPAIR, true},
    {"refcount table over the rest", table_long, REPAIR, true},
    {"refcount table on L1", table_on_l1, REPAIR, true},
    {"refcount table on write pointers", table_on_wp, REPAIR, true},
    {"refcount table on an L2 table", table_on_l2, REPAIR, true},
    {"refcount table on data", table_on_data, REPAIR, true},
};
const size_t nr_faults = sizeof(faults) / sizeof(faults[0]);
