/* SPDX-License-Identifier: MIT */
/*
 * An image with persistent bitmaps that takes random steps, with power loss and errors at every
 * place. A kind of test says what the steps are, and what of its model each of them changes.
 *
 * After each step a bitmap marks exactly what was asked for; of zones, which are marked as a whole
 * where they are reset, at least that. In what a power loss leaves, at every position, a bitmap
 * that is not said to be inconsistent marks every sector that is not as it was when the bitmap was
 * added or cleared.
 *
 * ZQ_SEED: one world; ZQ_CUT: with it, one position
 */
#ifndef CRASH_BITMAP_STEPS_H
#define CRASH_BITMAP_STEPS_H

#include <zqcow2/bitmap.h>
#include <zqcow2/simdisk.h>
#include <zqcow2/zqcow2.h>

#include "crash/bitmaps.h"

#define ZONE    64u /* sectors */
#define CONV    3u  /* conventional zones, where there are zones */
#define STEPS   24u
#define BITMAPS 3u

struct shape {
    uint32_t cluster, flags;
    bool source, zoned;
};

/* What the device is. */
struct device {
    uint64_t size; /* sectors */
    uint8_t holds[SECTORS];
    uint64_t wp[SECTORS / ZONE];
};

struct step {
    int kind;
    uint64_t begun, ended; /* positions */
    bool changes;          /* of the device, since the image was opened */
    bool taken;
    struct device d, kept; /* kept: by the snapshot */
    struct bitmap b[BITMAPS];
};

struct world {
    const struct kind *kind;
    const struct shape *shape;
    uint64_t seed, rng, cut, k, judged, held, lost;
    struct zqcow2_simdisk *disk;
    struct zqcow2_image *img;
    bool unmarked;
    struct step step[STEPS + 1]; /* the first one is create */
    unsigned steps;
};

struct kind {
    const char *name;
    uint64_t size;   /* of the new device, in sectors */
    uint64_t seeds;  /* that are cut, with the mark and without it */
    uint64_t longer; /* whose steps are compared only */
    uint64_t used;   /* a sector that every device has, and where anything may be written */
    int (*choose)(struct world *w);
    /* Does what s->kind says, and says in s what is to be now. 0 or an error of the library. */
    int (*act)(struct world *w, struct step *s);
};

extern const char *const bitmap_names[BITMAPS];

/* ---- for act() ---- */

uint64_t bitmap_draw(struct world *w, uint64_t n);
void bitmap_ask(struct step *s, uint64_t at, uint64_t len);
/* Sectors; value 0: as zeros. */
int bitmap_write(struct world *w, struct step *s, uint64_t at, uint64_t len, uint8_t value);
int bitmap_reset_zone(struct world *w, struct step *s, uint64_t zone);
int bitmap_reopen(struct world *w, struct step *s);

/* every_step, every_cut, every_error; what main() returns. */
int bitmap_steps_main(const struct kind *kind);

#endif
