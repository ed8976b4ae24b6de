/* SPDX-License-Identifier: MIT */
/*
 * Histories of one image: snapshots that are taken, applied and deleted, other sizes, zones that
 * are compressed, bitmaps, other features, and requests that are in flight meanwhile, by chance;
 * and a model of what the image may hold after a power loss, which knows nothing of the file.
 *
 * An *act* is what was done, in the order in which it was submitted. Of a request in flight it is
 * only known that it takes effect between its submission and its acknowledgement. Acts for one
 * sequential zone take effect in order.
 */
#ifndef CRASH_HISTORY_H
#define CRASH_HISTORY_H

#include <stdbool.h>
#include <stdint.h>
#include <zqcow2/queue.h>
#include <zqcow2/simdisk.h>
#include <zqcow2/zqcow2.h>

#include "crash/bitmaps.h"

#define ZONE    64u /* sectors */
#define ZONES   (SECTORS / ZONE)
#define CONV    2u /* conventional zones of a zoned image */
#define BITMAPS 2u
#define ACTS    200u
#define DEPTH   12u  /* requests in flight */
#define NEVER   255u /* no sector holds it */

extern const char *const history_bitmaps[BITMAPS];

struct shape {
    uint32_t cluster, layout, capacity, refcount_bits, flags; /* layout 0: plain; flags: create */
    bool live, over; /* requests are in flight; it stands on another image */
    uint32_t disk;   /* zqcow2_simdisk_flag */
};

enum kind {
    WRITE, /* value 0: zeros */
    RESET,
    FINISH,
    FLUSH,
    TAKE,
    DELETE,
    APPLY,
    RESIZE,
    COMPACT,
    BITMAP,
    REOPEN,
    AMEND,
    NR_KINDS
};

/* What a device holds: the first byte of each sector, which are all alike, and its pointers. */
struct content {
    uint32_t size; /* sectors */
    uint8_t v[SECTORS];
    uint8_t wp[ZONES]; /* sectors; of a zone that is FULL its capacity */
};

/*
 * begun, ended: positions of the disk; since, until: the same in the order of the program, since
 * many things happen at one position. until 0: not acknowledged.
 */
struct act {
    enum kind kind;
    uint32_t at, len, which; /* sectors; of a zone: at is its start; which: of a snapshot */
    uint8_t value;
    bool fua, refused; /* refused: it has changed nothing */
    uint64_t begun, ended, since, until;
    uint32_t size;                 /* of the device after it */
    struct content content;        /* of a snapshot */
    struct bitmap bitmap[BITMAPS]; /* after it */
    struct history *history;
    uint8_t data[ZONE * SECTOR];
    struct iovec iov;
};

struct history {
    const struct shape *shape;
    uint64_t seed, rng, cut, k, judged;
    uint64_t clock; /* of since and until */
    struct zqcow2_simdisk *disk, *below;
    struct zqcow2_backend *inner; /* of the live image */
    struct zqcow2_image *img;
    struct zqcow2_queue *queue;
    uint32_t version, layout;
    bool lazy;       /* it ever was */
    bool during;     /* a call runs, and requests may be submitted meanwhile */
    bool inside;     /* one is being submitted */
    bool overwrites; /* none at a write pointer */
    uint32_t limit;  /* sectors that requests may touch meanwhile */
    unsigned acts;
    struct content now;     /* as if all that was submitted had taken effect */
    uint8_t first[SECTORS]; /* as created */
    uint8_t first_wp[ZONES];
    bool taken[ACTS];
    struct act act[ACTS];
    uint64_t done[NR_KINDS], among; /* for the figures; among: requests during a call */
    uint64_t held;                  /* bitmaps that were consistent after a cut */
};

uint64_t draw(struct history *h, uint64_t n);
/* Else the test fails, and prints what replays it. */
void must(const struct history *h, bool good, const char *what, long got);
bool is_sequential(const struct history *h, uint32_t sector);
struct zqcow2_image *open_plainly(const struct history *h, struct zqcow2_simdisk *disk, bool rw,
                                  const char *snapshot);
int resolve_below(void *history, const char *name, const char *format, uint32_t depth,
                  struct zqcow2_backend **be, struct zqcow2_error *err);
const char *name_of(uint32_t number, char text[16]);
void read_content(const struct history *h, struct zqcow2_image *img, struct content *c);

/* The live image, with a queue if the shape has it so. Before the close, all requests end. */
void open_live(struct history *h);
void settle(struct history *h);
void close_live(struct history *h);
/* Between two calls of its backend, or two steps of a call: by chance, submit_some(). */
void among_calls(struct history *h);
void submit_some(struct history *h);

/* A new image, whose disk is recorded; n calls by chance; and its close. */
void history_begin(struct history *h, uint64_t seed);
void history_run(struct history *h, unsigned n);
void history_end(struct history *h);

/* ---- history_model.c ---- */

/*
 * Can a device hold *got after a power loss at h->cut? sure: what was acknowledged by then, in the
 * order of the program, is there in any case; 0: only what was flushed.
 */
void judge_content(const struct history *h, const struct content *got, uint64_t sure);
/* Can that be in a snapshot that act i has taken? */
void judge_taken(const struct history *h, unsigned i, const struct content *got);
/* there[i]: that of act i is listed. */
void judge_list(const struct history *h, const bool *there);
bool is_same(const struct content *a, const struct content *b);
/* After a power loss at h->cut. Counts those that are consistent. */
void judge_bitmaps(struct history *h, struct zqcow2_image *img, const struct content *got);

#endif
