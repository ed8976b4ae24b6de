/* SPDX-License-Identifier: MIT */
#include "run.h"

#include <stdio.h>
#include <string.h>

static const char *const dim_names[] = {
#define X(name) #name,
    DIMS(X)
#undef X
};

uint64_t content_sum(const void *buf, uint64_t len)
{
    const uint8_t *p = buf;
    uint64_t sum = len, w;

    for (uint64_t i = 0; i + 8 <= len; i += 8) {
        memcpy(&w, p + i, 8);
        sum = (sum ^ w) * 0x9e3779b97f4a7c15u;
        sum ^= sum >> 29;
    }
    return sum;
}

static void pick_zones(struct world *w, uint64_t *g)
{
    static const enum zqcow2_layout layouts[] = {ZQCOW2_LAYOUT_44, ZQCOW2_LAYOUT_48B,
                                                 ZQCOW2_LAYOUT_56, ZQCOW2_LAYOUT_V7};
    bool many = odds(g, 10);

    w->layout = layouts[below(g, 4)];
    w->zone = w->cluster << below(g, w->cluster > 65536 ? 2 : 4);
    if (w->zone < 2048)
        w->zone = 2048;
    if (many) {
        w->cluster = odds(g, 2) ? 512 : 1024;
        w->zone = 2048;
    }
    w->nz = many ? 1000 + (uint32_t)below(g, 100) : 3 + (uint32_t)below(g, 6);
    w->size = w->zone * w->nz;
    if (odds(g, 3)) /* a short last zone */
        w->size -= 512 * (1 + below(g, w->zone / 512 - 1));
    w->cap = odds(g, 2) ? w->zone : 512 * (1 + below(g, w->zone / 512));
    w->conv = (uint32_t)below(g, 3);
    if (odds(g, 2)) {
        w->max_active = 1 + (uint32_t)below(g, 3);
        w->max_open = odds(g, 2) ? 1 + (uint32_t)below(g, w->max_active) : 0;
    }
    w->zns = odds(g, 4);
}

static void pick_disk(struct world *w, uint64_t *g)
{
    static const uint32_t iovs[] = {0, 1, 2, 4};

    w->lim.io_align = odds(g, 3) ? 4096 : odds(g, 2) ? 512 : 1;
    w->lim.buf_align = odds(g, 4) ? 512u << below(g, 4) : 1;
    if (w->lim.buf_align > w->lim.io_align)
        w->lim.buf_align = w->lim.io_align;
    w->lim.max_iov = iovs[below(g, 4)];
    w->lim.max_transfer = odds(g, 4) ? 4096u << below(g, 4) : 0;
    w->lim.tear = odds(g, 3) ? 4096 : 512;
    w->lim.no_zero = odds(g, 3);
    w->lim.no_discard = odds(g, 3);
    w->lim.no_allocate = odds(g, 3);
    w->lim.async = w->drive == DRIVE_QUEUE || w->drive == DRIVE_MIXED || odds(g, 3);
    if (w->lim.async && odds(g, 2))
        w->lim.caps = ZQCOW2_CAP_BLOCKING_CALLS;
}

static bool has(const char *only, const char *word)
{
    return only && strstr(only, word);
}

/* Words that force a choice, for the search and for a dimension that is behind. */
static void force(struct world *w, uint64_t *g, const char *only)
{
    w->zoned = has(only, "plain") ? false : has(only, "zoned") ? true : w->zoned;
    w->snaps = w->snaps || has(only, "snaps");
    w->packed = w->packed || has(only, "packed");
    w->repair = w->repair || has(only, "repair");
    if (has(only, "subclusters") && w->cluster < 16384)
        w->cluster = 16384u << below(g, 8);
    if (has(only, "quick") && w->cluster > 16384) /* larger ones cost seconds for each state */
        w->cluster = 16384;
    if (has(only, "overlay"))
        w->below = BELOW_RAW + (enum below)below(g, 2);
    if (has(only, "nospace"))
        w->fault = FAULT_NOSPC;
    if (has(only, "eio"))
        w->fault = FAULT_EIO;
    if (has(only, "nofault"))
        w->fault = FAULT_NONE;
    if (has(only, "queue"))
        w->drive = DRIVE_QUEUE;
    if (has(only, "threads"))
        w->drive = DRIVE_THREADS;
    if (has(only, "blocking"))
        w->drive = DRIVE_BLOCKING;
}

void world_pick(struct world *w, uint64_t seed, const char *only)
{
    static const uint8_t bits[] = {9, 9, 9, 10, 12, 12, 13, 14, 16, 16, 17, 21};
    static const uint64_t caches[] = {1, 1, 8192, 65536, 0};
    uint64_t g = seed;

    memset(w, 0, sizeof(*w));
    mix(&g);
    w->seed = seed;
    w->zoned = odds(&g, 2);
    w->cluster = 1u << bits[below(&g, sizeof(bits))];
    w->rbits = odds(&g, 2) ? 16 : 1u << below(&g, 7);
    w->drive = (enum drive)below(&g, DRIVES);
    w->fault = odds(&g, 2) ? FAULT_NONE : (enum fault)below(&g, FAULTS);
    w->cache = caches[below(&g, 5)];
    w->extent = odds(&g, 2) ? 0 : w->cluster << below(&g, 3);
    w->snaps = odds(&g, 4);
    w->packed = odds(&g, 4);
    w->repair = odds(&g, 5);
    w->below = odds(&g, 4) ? BELOW_RAW + (enum below)below(&g, 2) : BELOW_NONE;
    force(w, &g, only);
    w->size = w->cluster * (8 + below(&g, w->cluster > 65536 ? 2 : w->cluster > 4096 ? 20 : 300));
    if (w->zoned) {
        pick_zones(w, &g);
        w->below = w->below ? BELOW_QCOW2 : BELOW_NONE;
        if (w->below) /* pointers that qemu-img made up are not the source's */
            w->snaps = w->packed = false;
    } else {
        w->lazy = !w->snaps && odds(&g, 6);
    }
    if (w->rbits == 1)
        w->snaps = w->packed = false;
    pick_disk(w, &g);
    w->steps = 20 + (unsigned)below(&g, 120);
    w->depth = 2 + (unsigned)below(&g, 5);
    w->wide = w->cluster >= 16384 && (odds(&g, 3) || has(only, "subclusters"));
}

void world_print(const struct world *w)
{
    static const char *const drives[] = {"blocking", "queue", "threads", "mixed"};
    static const char *const faults[] = {"none", "eio", "flush", "nospace"};

    printf("  world: %s layout %d cluster %u size %llu zones %u x %llu cap %llu conv %u open %u "
           "active %u zns %d\n  bits %u cache %llu extent %llu drive %s fault %s below %d wide %d "
           "snaps "
           "%d packed %d lazy %d repair %d\n  io_align %u buf_align %u iov %u transfer %u tear %u "
           "async "
           "%d caps %u no zero %d discard %d allocate %d\n",
           w->zoned ? "zoned" : "plain", w->layout, w->cluster, (unsigned long long)w->size, w->nz,
           (unsigned long long)w->zone, (unsigned long long)w->cap, w->conv, w->max_open,
           w->max_active, w->zns, w->rbits, (unsigned long long)w->cache,
           (unsigned long long)w->extent, drives[w->drive], faults[w->fault], w->below, w->wide,
           w->snaps, w->packed, w->lazy, w->repair, w->lim.io_align, w->lim.buf_align,
           w->lim.max_iov, w->lim.max_transfer, w->lim.tear, w->lim.async, w->lim.caps,
           w->lim.no_zero, w->lim.no_discard, w->lim.no_allocate);
}

static void add(const struct run *r, enum dim d, bool yes)
{
    if (yes)
        r->c->dim[d]++;
}

static void count_image(const struct run *r)
{
    const struct world *w = &r->w;

    add(r, DIM_plain, !w->zoned);
    add(r, DIM_zoned, w->zoned);
    add(r, DIM_layout_v7, w->zoned && w->layout == ZQCOW2_LAYOUT_V7);
    add(r, DIM_layout_44, w->zoned && w->layout == ZQCOW2_LAYOUT_44);
    add(r, DIM_layout_48b, w->zoned && w->layout == ZQCOW2_LAYOUT_48B);
    add(r, DIM_layout_56, w->zoned && w->layout == ZQCOW2_LAYOUT_56);
    add(r, DIM_snapshots, r->snaps && !w->zoned);
    add(r, DIM_snapshots_zoned, r->snaps && w->zoned);
    add(r, DIM_compressed, w->packed && !w->zoned);
    add(r, DIM_compressed_zoned, w->packed && w->zoned);
    add(r, DIM_overlay_raw, w->below == BELOW_RAW);
    add(r, DIM_overlay_qcow2, w->below == BELOW_QCOW2);
    add(r, DIM_subclusters, w->wide && !w->zoned);
    add(r, DIM_subclusters_zoned, w->wide && w->zoned);
    add(r, DIM_overlay_zoned, w->below && w->zoned);
    add(r, DIM_overlay_subclusters, w->below && w->wide);
    add(r, DIM_lazy, w->lazy);
    add(r, DIM_cluster_512, w->cluster == 512);
    add(r, DIM_cluster_1k_32k, w->cluster > 512 && w->cluster < 65536);
    add(r, DIM_cluster_64k_1m, w->cluster >= 65536 && w->cluster < 2097152);
    add(r, DIM_cluster_2m, w->cluster == 2097152);
    add(r, DIM_zones_1000, w->nz >= 1000);
    add(r, DIM_refbits_1_8, w->rbits <= 8);
    add(r, DIM_refbits_16, w->rbits == 16);
    add(r, DIM_refbits_32_64, w->rbits >= 32);
    add(r, DIM_rules_zns, w->zns);
    add(r, DIM_active_limit, w->max_active);
}

void world_count(const struct run *r)
{
    const struct world *w = &r->w;

    r->c->states++;
    count_image(r);
    add(r, DIM_blocking, w->drive == DRIVE_BLOCKING);
    add(r, DIM_queue, w->drive == DRIVE_QUEUE);
    add(r, DIM_threads, w->drive == DRIVE_THREADS);
    add(r, DIM_queue_and_threads, w->drive == DRIVE_MIXED);
    add(r, DIM_eio, w->fault == FAULT_EIO);
    add(r, DIM_flush_fails, w->fault == FAULT_FLUSH);
    add(r, DIM_nospace, w->fault == FAULT_NOSPC);
    add(r, DIM_small_cache, w->cache == 1);
    add(r, DIM_align_above_cluster, w->lim.io_align > w->cluster);
    add(r, DIM_max_iov_1_4, w->lim.max_iov);
    add(r, DIM_torn_4096, w->lim.tear == 4096);
    add(r, DIM_no_zero_no_discard, w->lim.no_zero && w->lim.no_discard);
    add(r, DIM_in_open, r->phase == PHASE_OPEN);
    add(r, DIM_in_close, r->phase == PHASE_CLOSE);
    add(r, DIM_in_repair, r->phase == PHASE_REPAIR);
}

const char *dim_name(unsigned d)
{
    return dim_names[d];
}
