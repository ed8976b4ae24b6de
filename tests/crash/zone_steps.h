/* SPDX-License-Identifier: MIT */
/*
 * Power loss while something of zones changes that persists. A kind of test says what a step does
 * to a zone; the power is cut at every position. What was acknowledged is there then; what was not
 * is one of those that the zone went through since.
 */
#ifndef CRASH_ZONE_STEPS_H
#define CRASH_ZONE_STEPS_H

#include <stdbool.h>
#include <zqcow2/simdisk.h>
#include <zqcow2/zqcow2.h>

#define STEPS     40u
#define MOST_USED 8u /* zones */

struct shape {
    uint64_t zone_size;
    uint32_t zones, stride, cluster, flags; /* stride: between the zones that are used */
    uint32_t described;                     /* bytes of a descriptor extension */
};

/* tag: of what the kind stores with the zone; 0: nothing. */
struct shown {
    uint8_t state, tag;
    uint64_t written;
};

/* zone: kind->used for a flush. barrier: what came before is durable when it is acknowledged. */
struct step {
    uint32_t zone;
    bool barrier;
    uint64_t begun, ended;
    struct shown after;
};

struct world {
    const struct kind *kind;
    const struct shape *shape;
    uint64_t seed, rng, cut, k, judged;
    struct zqcow2_simdisk *disk;
    struct zqcow2_image *img;
    struct shown now[MOST_USED];
    struct step step[STEPS];
};

struct kind {
    const char *program, *figure; /* figure: the name of what is counted */
    const struct shape *shapes;   /* four */
    uint32_t used;
    /* s->after is what the zone is, and becomes what it will be. */
    int (*change)(struct world *w, struct step *s);
    /* May be NULL. */
    uint8_t (*tag)(const struct world *w, struct zqcow2_image *img, uint32_t zone, bool described);
    /* Uses a recovered image, and says so in shown. */
    void (*use)(const struct world *w, struct zqcow2_image *img, struct shown *shown);
};

uint64_t draw(struct world *w, uint64_t n);
uint64_t start_of(const struct world *w, uint32_t zone);
void must(const struct world *w, bool good, const char *what, long got);

/* Steps that several kinds take. */
int step_reset(struct world *w, struct step *s);
int step_write(struct world *w, struct step *s);

/* Fails unless the zones are as in shown. */
void same(const struct world *w, struct zqcow2_image *img, const struct shown *shown);

/* 24 workloads, or that of ZQ_SEED. */
void every_cut_of(const struct kind *kind);

#endif
