/* SPDX-License-Identifier: MIT */
/*
 * The disk of a run: a simulated disk for the image and, in some worlds, others: for its data file,
 * and for the backing file that it is committed into, which may have a data file of its own. What
 * happens on all of them is one story with one count of positions, so that they lose power at one
 * instant; a state is a state of each.
 */
#ifndef CRASH_DISK_H
#define CRASH_DISK_H

#include <stdbool.h>
#include <zqcow2/simdisk.h>

#define MAX_FILES 4u

enum { THE_IMAGE, DATA_FILE, BELOW, DATA_BELOW };

struct crash_geometry;

struct disk {
    const struct crash_geometry *g;         /* whose image it is */
    struct zqcow2_simdisk *file[MAX_FILES]; /* owned; NULL: there is no such file */
    bool keeps;                             /* a log, from these positions on: */
    uint64_t first[MAX_FILES], known[MAX_FILES];
    uint8_t *log; /* of each event, the file */
    uint64_t n, room;
};

struct disk_cut {
    const struct disk *disk;
    struct zqcow2_simdisk_cut *of[MAX_FILES];
};

enum disk_event { EVENT_BEGINS, EVENT_ENDS, EVENT_LOSES };

/* All return 0 or a negated errno, unless they say what. */
/* files: 1 << DATA_FILE and so on, beside the image. */
int disk_new(const struct zqcow2_simdisk_options *o, const struct crash_geometry *g, unsigned files,
             struct disk **d);
void disk_free(struct disk *d); /* NULL is allowed */
int disk_clone(struct disk *d, struct disk **clone);
void disk_set_seed(struct disk *d, uint64_t seed);
int disk_backend(struct disk *d, unsigned file, struct zqcow2_backend **be);
uint64_t disk_hash(const struct disk *d);
uint64_t disk_misuse(const struct disk *d); /* calls that no backend has to take */
uint64_t disk_faults(const struct disk *d);
void disk_set_fault(struct disk *d, unsigned file, const struct zqcow2_simdisk_fault *f);
void disk_no_faults(struct disk *d);
/* The files take turns: *nth of them all, from 1 on, becomes the one's that is returned. */
unsigned disk_turn(const struct disk *d, uint64_t *nth);

int disk_record(struct disk *d);
uint64_t disk_position(struct disk *d);
/* file may be NULL. */
int disk_event(const struct disk *d, uint64_t position, struct zqcow2_simdisk_op *op,
               enum disk_event *what, unsigned *file);

int disk_cut_new(struct disk *d, struct disk_cut *cut);
void disk_cut_end(struct disk_cut *cut);
int disk_cut_seek(struct disk_cut *cut, uint64_t position);
uint64_t disk_cut_states(const struct disk_cut *cut);
uint32_t disk_cut_pending(const struct disk_cut *cut);
uint64_t disk_cut_whole(const struct disk_cut *cut); /* the state in which nothing is lost */
int disk_cut_image(const struct disk_cut *cut, uint64_t k, struct disk **image);
int disk_cut_kill(const struct disk_cut *cut, struct disk **left);

#endif
