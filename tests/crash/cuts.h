/* SPDX-License-Identifier: MIT */
/* Every position at which a recorded disk can lose its power, and what it may hold then. */
#ifndef CRASH_CUTS_H
#define CRASH_CUTS_H

#include <stdbool.h>
#include <zqcow2/backend.h>
#include <zqcow2/simdisk.h>

struct cuts {
    uint64_t states; /* of one position, at most: the first, and others by chance */
    /* An image that the position before has shown is not judged again: nothing else has changed. */
    bool once;
    uint64_t *rng;
    void (*judge)(void *arg, uint64_t cut, uint64_t k, struct zqcow2_simdisk *image);
    void *arg;
};

/* Below n. */
uint64_t cuts_draw(uint64_t *rng, uint64_t n);

/* Takes our mark out of the header of a new image: it is as if another program had made it. */
int cuts_unmark(struct zqcow2_backend *be);

/* Makes a new image, without zones, one of version 2: its header has 72 bytes and no extensions. */
int cuts_make_v2(struct zqcow2_backend *be);

/*
 * Makes the extension of a new image of layout v7 one of v3, which cannot be created; all zones are
 * empty, and the first one is conventional. stated: the table has states.
 */
int cuts_make_v3(struct zqcow2_backend *be, uint32_t zones, bool stated);

/* ZQ_CUT: this position only; ZQ_STATE: this state of each. 0, or the error of the simulated disk.
 */
int cuts_judge_all(const struct cuts *c, struct zqcow2_simdisk *disk);

#endif
