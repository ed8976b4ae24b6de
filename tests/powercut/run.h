/* SPDX-License-Identifier: MIT */
/* One run: a world, a device in it, and what is known about what the device may hold. */
#ifndef POWERCUT_RUN_H
#define POWERCUT_RUN_H

#include "disk.h"
#include "model.h"
#include "shape.h"

#include <zqcow2/queue.h>
#include <zqcow2/zqcow2.h>

enum drive { DRIVE_BLOCKING, DRIVE_QUEUE, DRIVE_THREADS, DRIVE_MIXED, DRIVES };
enum fault { FAULT_NONE, FAULT_EIO, FAULT_FLUSH, FAULT_NOSPC, FAULTS };
enum below { BELOW_NONE, BELOW_RAW, BELOW_QCOW2, BELOWS };

struct world {
    uint64_t seed;
    bool zoned, snaps, packed, lazy, repair, zns, wide; /* wide: L2 entries with subclusters */
    enum zqcow2_layout layout;
    enum drive drive;
    enum fault fault;
    enum below below;
    uint32_t cluster, rbits, conv, max_open, max_active, nz;
    uint64_t size, zone, cap, cache, extent;
    struct disk_limits lim;
    unsigned steps, depth;
};

/* Dimensions: each state that is checked counts for all that its world has. */
/* clang-format off */
#define DIMS(X) \
    X(plain) X(zoned) X(layout_v7) X(layout_44) X(layout_48b) X(layout_56) X(blocking) \
    X(queue) X(threads) X(queue_and_threads) X(snapshots) X(snapshots_zoned) X(compressed) \
    X(compressed_zoned) X(overlay_raw) X(overlay_qcow2) X(eio) X(flush_fails) X(nospace) \
    X(lazy) X(cluster_512) X(cluster_1k_32k) X(cluster_64k_1m) X(cluster_2m) X(zones_1000) \
    X(small_cache) X(refbits_1_8) X(refbits_16) X(refbits_32_64) X(align_above_cluster) \
    X(max_iov_1_4) X(torn_4096) X(rules_zns) X(active_limit) X(no_zero_no_discard) \
    X(subclusters) X(subclusters_zoned) X(overlay_zoned) X(overlay_subclusters) \
    X(in_open) X(in_close) X(in_repair)
/* clang-format on */

#define X(name) DIM_##name,
enum dim { DIMS(X) N_DIMS };
#undef X

struct counts { /* shared between the processes of all runs */
    uint64_t states, dim[N_DIMS];
    uint64_t points, checks, reads, revived, qemu_checks, snap_reads, qemu_snaps, requests, cuts;
    uint64_t kills, repairs, closes, dead, stopped, failed_io;
};

enum phase { PHASE_OPEN, PHASE_RUN, PHASE_CLOSE, PHASE_REPAIR };

struct run {
    struct world w;
    struct counts *c;
    const char *folder; /* for files that other programs read; NULL: there is no qemu-img */
    struct disk disk;
    pthread_mutex_t lock; /* disk and model */
    struct model m;
    struct zqcow2_image *img;
    struct zqcow2_queue *q;
    uint64_t rng, judge_rng;
    enum phase phase;
    unsigned point_odds, variants;
    uint64_t cap; /* so many states of this run are checked */
    bool dead, trace, was_cut;
    bool killing;
    bool
        killed; /* the program was, and the disk has its power: what it shows need not be durable */
    const void *alone; /* the request that resets all zones */
    uint64_t cut_in;   /* so many points until the power fails */
    struct store cut;  /* what is left then */
    uint64_t *wp;      /* scratch of the judge, one per zone */
    bool *full;
    uint8_t *content, *other, *live;
    unsigned snaps;
    uint64_t leaks; /* of the seed: qemu-img leaves some */
    uint64_t snap_sum[SHAPE_SNAPS];
    struct store below;
    struct shape below_shape;
    struct disk below_disk;
};

__attribute__((noreturn, format(printf, 3, 4))) void fail(struct run *r, const struct store *st,
                                                          const char *form, ...);

/* world.c */
void world_pick(struct world *w, uint64_t seed, const char *only);
void world_print(const struct world *w);
void world_count(const struct run *r);
const char *dim_name(unsigned d);
uint64_t content_sum(const void *buf, uint64_t len);

/* seed.c: the image at the start */
void seed_make(struct run *r, struct store *st);
struct zqcow2_open_options run_options(struct run *r, uint32_t flags);
void run_below(struct run *r, struct shape *s); /* what answers below the image */

/* judge.c */
void judge_point(void *run); /* of the disk: the power may fail here */
void judge(struct run *r, const struct store *st, bool thorough);
void judge_clean(struct run *r, const struct store *st,
                 const char *when); /* nothing is left over */
void judge_observe(struct run *r, const struct store *st, struct shape *s); /* content, wp, full */
void judge_snapshots(struct run *r, struct shape *s);

/* others.c: the library and other programs on an image that is left */
void judge_others(struct run *r, const struct store *st, struct shape *s, bool thorough);

/* revive.c: it is opened for writing, used and closed */
void judge_revive(struct run *r, const struct store *st);

/* repair.c */
void repair(struct run *r, struct store *st); /* damages it and repairs it, with power cuts */
void judge_repair(struct run *r, const struct store *st);

/* drive.c */
void drive(struct run *r);
bool run_is_dead(struct run *r);

#endif
