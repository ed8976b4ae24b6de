/* SPDX-License-Identifier: MIT */
/*
 * An image and its backing file, each on a simulated disk of its own, to be committed: what it must
 * read as when all goes well, when it is stopped, when a disk fails, and in what a power loss
 * leaves of both files at one instant. Then the commit is begun again.
 */
#ifndef RIG_COMMITS_H
#define RIG_COMMITS_H

#include <zqcow2/chain.h>
#include "rig/rng.h"
#include "rig/twin.h"

#define ROOM        KiB(512)
#define COMMIT_ZONE KiB(64)
#define ZONES       (ROOM / COMMIT_ZONE)

enum { TOP = IMAGE, BASE = DATA, LOW = FILES, LAYERS };

/* A layer: its disk is one of the world's, or for the lowest one, which nothing changes, c->low. */
struct layer {
    const char *format;
    uint64_t size;
    uint8_t want[ROOM];   /* what it reads as, with all that is below it */
    uint64_t wp[ZONES];   /* from the start of its zone; COMMIT_ZONE: FULL */
    uint8_t state[ZONES]; /* that is stored; 0: none */
    uint8_t tag[ZONES];   /* of its descriptor extension, all bytes; 0: it has none */
};

struct commits;

/* A kind of image: how its files are made, and what must be true of them. */
struct commits_kind {
    const char *program;
    void (*make)(struct commits *c);
    void (*top_reads_as_before)(struct commits *c);
    void (*base_reads_as_top)(struct commits *c);
};

struct commits {
    const struct commits_kind *kind;
    struct world w;
    struct zqcow2_simdisk *low;
    struct layer layer[LAYERS];
    uint64_t seed, rng;
    char where[80];
    unsigned calls, stop_at; /* of progress(); 0: none */
    uint64_t done;           /* in the last call of progress() */
    uint32_t flags;          /* of the commit */
    bool moved;              /* the top does not stand on the layer below it */
};

extern uint8_t commits_data[ROOM]; /* of the last read, or for a write */

void commits_begin(struct commits *c, const struct commits_kind *kind, uint64_t seed);
void commits_end(struct commits *c);
/* ZQ_SEED: this one only. */
bool commits_wanted(uint64_t seed);
uint64_t commits_draw(struct commits *c, uint64_t n); /* below n */
/* Fails with what replays it. */
void commits_must(const struct commits *c, bool good, const char *what, long got);
struct zqcow2_backend *commits_backend(struct commits *c, unsigned which);
/* For the top; a layer is named by its digit. */
int commits_resolve(void *c, const char *name, const char *format, uint32_t depth,
                    struct zqcow2_backend **be, struct zqcow2_error *err);
/* For the base, which is the first of its chain. */
int commits_resolve_below(void *c, const char *name, const char *format, uint32_t depth,
                          struct zqcow2_backend **be, struct zqcow2_error *err);
struct zqcow2_image *commits_open(struct commits *c, unsigned which, uint32_t flags);
void commits_compare(struct commits *c, const char *what, const uint8_t *want, uint64_t bytes);
void commits_check(struct commits *c, unsigned which, bool clean);
bool commits_top_is_empty(struct commits *c);
int commits_run(struct commits *c, struct zqcow2_error *err);
/* Must succeed, and leave what it should. */
void commits_again(struct commits *c);

/* Each makes the world of a seed, again and again, and returns how often it was ... */
unsigned commits_stopped(struct commits *c, const struct commits_kind *kind, uint64_t seed);
unsigned commits_failed(struct commits *c, const struct commits_kind *kind, uint64_t seed);
unsigned commits_cut(struct commits *c, const struct commits_kind *kind, uint64_t seed);

#endif
