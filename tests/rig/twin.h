/* SPDX-License-Identifier: MIT */
/*
 * An image with a data file, each on a simulated disk of its own. What happens on the two is one
 * story, so that both lose power at one instant.
 */
#ifndef RIG_TWIN_H
#define RIG_TWIN_H

#include <stdbool.h>
#include <zqcow2/simdisk.h>
#include "rig/rig.h"

#define NAME "data"

enum { IMAGE, DATA, FILES };

/* An event of one of the disks: where both were when it began. */
struct instant {
    uint64_t at[FILES];
};

struct world {
    struct zqcow2_simdisk *disk[FILES];
    struct instant *log; /* of all events, if it is kept */
    unsigned nr, room;
    bool keeps;
    unsigned flushes[FILES];
    void (*flushing)(void *arg, unsigned file); /* unless NULL, called before a flush */
    void *arg;
    void (*reading)(void *arg, unsigned file); /* likewise, before a read, and a discard */
    void (*discarding)(void *arg, unsigned file);
    uint32_t io_align; /* of new backends; 0: none */
    uint32_t asked;    /* of the resolver: the depth of the last call */
    int answer;
    const char *name; /* it must be asked for this name; NULL: NAME */
    struct zqcow2_error err;
};

/* A kind of image. */
struct kind {
    const char *name;
    uint32_t cluster, flags;
    uint64_t size, zone;
};

/* With an odd seed the disks cannot zero, and get zeros written. */
void world_begin(struct world *w, uint64_t seed);
void world_end(struct world *w);
struct zqcow2_backend *half_of(struct world *w, unsigned file);
/* Opens the data file, and notes what it was asked for. */
int twin_resolve(void *world, const char *name, const char *format, uint32_t depth,
                 struct zqcow2_backend **be, struct zqcow2_error *err);
int create(struct world *w, const struct kind *k, uint32_t flags);
int open_it(struct world *w, uint32_t flags, struct zqcow2_image **img);
struct zqcow2_image *must_open(struct world *w, uint32_t flags);
/* Nothing wrong, and no leaks unless they may be there. */
void must_check(struct world *w, bool leaks);

#endif
