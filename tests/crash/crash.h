/* SPDX-License-Identifier: MIT */
/* What the parts of the crash test share: geometries, runs of workloads, checks of states. */
#ifndef CRASH_CRASH_H
#define CRASH_CRASH_H

#include <stdio.h>

#include <zqcow2/queue.h>
#include <zqcow2/simdisk.h>

#include "disk.h"
#include "power_model.h"

#define LETTERS_ZONED "abcdefghijklmnopqrstuvwxz"
#define LETTERS_PLAIN "opuvwxymqz"
#define LETTER_COMMIT "C" /* only where there is something to commit into */
#define MOST_LETTERS  (sizeof(LETTERS_ZONED LETTER_COMMIT) - 1)
#define ELEMENTS      5u
#define MAX_WORLDS    64u
#define BATCH         6u /* most requests in flight of an asynchronous run */

struct crash_geometry {
    const char *name;
    uint64_t size, zone_size, capacity, extent;
    uint32_t conventional, max_open, max_active, cluster, refbits, layout;
    uint32_t atomic, sim_flags, discard;
    uint32_t io_align;   /* of the backend; may be above the cluster: its writes are padded */
    uint32_t max_iov;    /* of the backend; then requests come in ELEMENTS pieces, uneven ones */
    uint32_t block;      /* bytes of the smallest write */
    uint32_t b;          /* the second zone of the workloads; 0: the one behind the first */
    uint32_t fill;       /* bytes that the prologue's letter A leaves in the first zone */
    uint32_t weight;     /* states tried per crash point, in percent of the usual */
    bool extended;       /* L2 entries with subclusters */
    bool lazy, snapshot; /* snapshot: everything is shared with one, which qemu-img made */
    bool packed;         /* all that the prologue has written is compressed then */
    const char *source;  /* the prologue's content lies in a backing file of this format, or NULL */
    bool commit;         /* it is a file of the disk, and letter C commits into it */
    bool data, data_raw; /* there is a data file; that of the prologue's first image, or of
                             all without a source, may be a raw one */
    const char *prologue; /* what was done, and closed, before each workload; with a source: | puts
                             what there is so far below what follows */
};

extern const struct crash_geometry crash_geometries[];
extern const unsigned crash_ngeometries;

struct moment { /* an act begins or is acknowledged */
    uint64_t position;
    uint32_t act;
    bool ack;
};

struct run {
    const struct crash_geometry *g;
    struct shape shape;
    struct disk *disk;       /* owned */
    const uint8_t *snapshot; /* what the snapshot reads, or NULL */
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    struct zqcow2_queue *queue; /* asynchronous runs */
    struct flight *flights;
    uint32_t in_flight;
    struct act *acts;
    struct moment *moments;
    uint32_t nacts, nmoments;
    uint64_t rng;             /* asynchronous: when to poll */
    uint64_t next[MAX_ZONES]; /* where the next write is thought to go */
    uint32_t life[MAX_ZONES], req;
    bool unsure;       /* a request failed: ask before the next */
    bool faulty;       /* a fault is armed: errors of I/O are no news */
    int broken;        /* the library refused what it must do, or could not open */
    bool hung, failed; /* failed: an armed fault was seen */
    int wrong;         /* a read gave what was never written there */
    char why[256];
};

uint64_t draw(uint64_t *rng);
void fill_shape(struct shape *s, const struct crash_geometry *g);

/*
 * create.c: a fresh image of this geometry on a disk of its own, or NULL with a text. below: what
 * it is committed into.
 */
struct disk *crash_geometry_create(const struct crash_geometry *g, struct disk *below, bool async,
                                   char *why, size_t room);
void open_options(struct disk *disk, struct zqcow2_open_options *o, bool rw);
/* What may be done to its images. */
const char *letters_of(const struct crash_geometry *g);
/* Does it need other files than the image? */
bool is_layered(const struct crash_geometry *g);

/* source.c: what lies in the backing files of a geometry, for all of its images. */
void source_forget(const struct crash_geometry *g);
/* One more, above those that there are. */
int source_keep(const struct crash_geometry *g, struct disk *disk);
/* The same as files of a disk that has nothing below yet. */
int source_put(struct disk *from, struct disk *to);
/* arg: the disk. For the image on it, and for the backing file on it. */
int source_resolve(void *disk, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err);
int source_resolve_below(void *disk, const char *name, const char *format, uint32_t depth,
                         struct zqcow2_backend **be, struct zqcow2_error *err);

/* run.c */
int run_begin(struct run *r, const struct crash_geometry *g, struct disk *disk, bool async,
              bool faulty, uint64_t seed, uint32_t first_req);
int run_open(struct run *r); /* again, after run_end() */
void run_letters(struct run *r, const char *letters);
/* What was without space has it again. */
void run_make_room(struct run *r);
/* close: also close the image. Else it is left as it is and thrown away. */
void run_end(struct run *r, bool close);
void run_fini(struct run *r);
/* Takes the model through all moments up to `position`, from moment *at on. */
void run_replay(struct run *r, struct power_model *o, uint64_t position, uint32_t *at);

/* qemu_img.c: 0, or -1: corruption, or no qemu-img */
int qemu_check(struct zqcow2_simdisk *disk, const char *dir);
int qemu_snapshot(struct zqcow2_simdisk *disk, bool zoned);

/* foreign.c: by code that knows qcow2 and nothing of the library; 0 or -1. */
/* What the only snapshot reads. */
int snapshot_read(struct zqcow2_simdisk *disk, uint8_t *out, uint64_t size);
/* Compresses each cluster of the guest's first `size` bytes; the refcounts have 16 bits. */
int pack_image(struct zqcow2_simdisk *disk, uint64_t size);

/* commit.c: of an image that is not open into the backing file on its disk. */
int commit_disk(struct disk *disk, struct zqcow2_error *err);

/* verify.c */
struct checker {
    const struct crash_geometry *g;
    const uint8_t *snapshot; /* what the snapshot must read, or NULL */
    struct shape shape;
    uint8_t *data, *again; /* the device, twice */
    uint8_t *kept;         /* while recovery is crashed: what the device held before */
    bool keep;
    struct zqcow2_zone kept_zones[MAX_ZONES];
    struct zqcow2_zone zones[MAX_ZONES];
    struct seen seen[MAX_ZONES];
    /* Of a state of a crashed recovery: 0 nothing new, 1 to be looked at, 2 to be used as well. */
    int (*novelty)(void *arg, uint64_t hash);
    void *arg;
    char why[512];
};

int checker_init(struct checker *c, const struct crash_geometry *g, const uint8_t *snapshot);
void checker_fini(struct checker *c);
/* Read-only: does the image show what the model allows? Fills seen and data. */
int verify_shown(struct checker *c, struct disk *image, const struct power_model *o);
/* All that a state must bear. Changes the image. salt picks which zone is finished and reset. */
int verify_state(struct checker *c, struct disk *image, const struct power_model *o, uint64_t salt);
/* Crashes the recovery of an image: every position, up to `states` of each. *cut, *k: where. */
int verify_recovery(struct checker *c, struct disk *image, const struct power_model *o,
                    uint64_t states, uint64_t seed, uint64_t *cut, uint64_t *k);
/* The same for an image whose user was killed: what its cache shows need not be durable. */
int verify_killed(struct checker *c, struct disk *disk, const struct power_model *o,
                  uint64_t states, uint64_t seed, uint64_t *cut, uint64_t *k);

#endif
