/* SPDX-License-Identifier: MIT */
/*
 * A zoned image that gets more zones and fewer, between appends, resets and finishes, and a model
 * of what it holds, which knows nothing of the file.
 */
#ifndef CRASH_RESIZE_MODEL_H
#define CRASH_RESIZE_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <zqcow2/simdisk.h>
#include <zqcow2/zqcow2.h>

#define SECTOR 512u
#define ZONES  9u  /* at most; the first one is conventional, and is not written */
#define MOST   40u /* sectors of a zone's capacity */
#define STEPS  20u

/* capacity, rest: sectors; rest: of a last zone that is short at first; 0: it is whole */
struct shape {
    uint32_t cluster, layout, capacity, rest, flags, descriptor;
    bool source;
    uint32_t max_active;
};
/* Seeds choose one by their remainder. */
#define SHAPES 8u
extern const struct shape shapes[SHAPES];
/* A short last zone, and one active zone at most. */
extern const struct shape tight;

enum kind { APPEND, RESET, FINISH, OPEN, FLUSH, GROW, SHRINK };

/* What a zone holds: what was written, up to its pointer, and zeros if it was finished. */
struct zone {
    uint32_t life, wp;
    uint8_t v[MOST];
};

struct step {
    enum kind kind;
    uint64_t begun, ended;
    uint64_t size;           /* of the device after it, in sectors */
    struct zone zone[ZONES]; /* after it */
};

struct world {
    const struct shape *shape;
    uint64_t seed, rng, cut, k, judged;
    uint32_t lives, resized;
    struct zqcow2_simdisk *disk, *below;
    struct zqcow2_image *img;
    unsigned steps;
    struct step step[STEPS + 1]; /* the first: as created */
};

/* Else the test fails, and prints what replays it. */
void must(const struct world *w, bool good, const char *what, long got);
uint64_t zone_size(const struct world *w);
uint64_t start_of(const struct world *w, uint32_t zone);
/* In sectors, of a device that ends at `size`. */
uint32_t capacity(const struct world *w, uint64_t size, uint32_t zone);
uint32_t zones_of(const struct world *w, uint64_t size);
struct zqcow2_backend *backend(const struct world *w, struct zqcow2_simdisk *disk);
struct zqcow2_image *open_on(struct world *w, struct zqcow2_simdisk *disk, bool rw);
struct zqcow2_image *open_as(struct world *w, bool rw);
/* n may be 0. */
int append(const struct world *w, struct zqcow2_image *img, uint32_t zone, uint32_t n,
           uint8_t value);
uint64_t size_of(const struct world *w, struct zqcow2_image *img);
/* Returns the size in sectors. */
uint64_t read_zones(const struct world *w, struct zqcow2_image *img, struct zone got[ZONES]);
/* A new world, with an image as create leaves it. */
void start_with(struct world *w, uint64_t seed, const struct shape *shape);
void start(struct world *w, uint64_t seed);
/* The image is closed. */
void end(struct world *w);
/* The next step, by chance; what the image is then, if it does not fail, is in w->step[w->steps].
 */
int run_step(struct world *w);
/* All of it is as the step has left it. */
void is_as(const struct world *w, struct zqcow2_image *img, const struct step *s);

#endif
