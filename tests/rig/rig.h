/* SPDX-License-Identifier: MIT */
/*
 * The rig: an image on a stack of backends (store, strict, record, fault and, if asked, shuffle),
 * with its own heap, so that a test sees every call and every byte, and decides what fails.
 */
#ifndef RIG_RIG_H
#define RIG_RIG_H

#include <sys/types.h>

#include "rig/be_fault.h"
#include "rig/be_record.h"
#include "rig/be_shuffle.h"
#include "rig/be_strict.h"
#include "rig/heap_fault.h"
#include "rig/model.h"
#include "rig/rng.h"
#include "rig/store.h"

_Static_assert(sizeof(off_t) == 8, "_FILE_OFFSET_BITS=64 is missing");

#define KiB(n) ((uint64_t)(n) << 10)
#define MiB(n) ((uint64_t)(n) << 20)
#define GiB(n) ((uint64_t)(n) << 30)

#define RIG_LAYERS 3u

/* Whether the library can join two descriptors here. */
#ifdef ZQ_OS_PORTABLE
#define RIG_JOINTS 0
#else
#define RIG_JOINTS 1
#endif

enum rig_world {
    RIG_PLAIN,    /* blocking backend */
    RIG_SHUFFLED, /* asynchronous, polled, completing in seeded order */
    RIG_THREADED, /* asynchronous, completing from a thread of its own */
    RIG_URING,    /* a host file through io_uring; nothing is recorded and nothing fails */
    RIG_CALLED,   /* as SHUFFLED, but blocking calls may do without submit */
    RIG_HELD      /* asynchronous, polled; the test says what does not complete yet */
};

/* The file that has the bytes of the device, if the geometry says so: data.c. */
struct rig_data {
    struct store store, below[RIG_LAYERS];
    struct strict strict;
    struct fault fault; /* by the plan of the image's */
    struct shuffle shuffle;
    char path[32]; /* URING */
};

struct rig {
    const struct geometry *g;
    enum rig_world world;
    uint64_t seed, rng;
    struct heap heap;
    struct zqcow2_hooks hooks;
    struct store store;             /* its limits: before rig_create() */
    struct store below[RIG_LAYERS]; /* what it stands on, the lowest first */
    unsigned nr_below;
    struct strict strict;
    struct record record;
    struct fault fault;
    struct shuffle shuffle;
    struct rig_data data;
    bool checking; /* by rig_check() */
    char path[32]; /* URING: the file, in the working directory */
    struct zqcow2_image *img;
    struct zqcow2_open_options open; /* what rig_open() passes on, except for RDWR */
    struct zqcow2_error err;
    struct zqcow2_check_result check; /* of the last rig_check() */
    struct story *story;              /* of a scenario that runs: story.h */
    char why[400];                    /* the first thing that was wrong */
};

void rig_init(struct rig *r, const struct geometry *g, enum rig_world world, uint64_t seed);
/* NULL, or what the heap or the strict backend has to complain about. Closes an open image. */
const char *rig_free(struct rig *r);

bool rig_uring_works(void);
bool rig_shuffles(enum rig_world world);
int rig_create(struct rig *r);
/* The file, which is closed, becomes the source of an empty image in its place. */
int rig_stack(struct rig *r);
int rig_open(struct rig *r, bool writable);
int rig_close(struct rig *r); /* image and backend */
/* zqcow2_check() on the store itself; the result is in r->check. */
int rig_check(struct rig *r, uint32_t flags);

/* data.c: what rig.c does with the data file. */
void rig_data_init(struct rig *r);
const char *rig_data_free(struct rig *r);
void rig_data_set(struct rig *r, struct zqcow2_create_options *o);
int rig_data_stack(struct rig *r);
int rig_data_resolve(struct rig *r, const char *name, const char *format, uint32_t depth,
                     struct zqcow2_backend **be);

/* init, create, open for writing; free. Any failure fails the cmocka test. */
void rig_begin(struct rig *r, const struct geometry *g);
void rig_begin_in(struct rig *r, const struct geometry *g, enum rig_world world, uint64_t seed);
void rig_end(struct rig *r); /* also: a clean close, no leaks, neither clusters nor memory */
void rig_reopen(struct rig *r);

/* Keeps the first complaint; returns false, so that a comparison is one statement. */
bool rig_say(struct rig *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool rig_same_zone(struct rig *r, const struct model *m, uint32_t i);
/* Reports, counts of open and active zones. */
bool rig_same_report(struct rig *r, const struct model *m);
/* [off, off + len) as the model has it; OFFLINE zones are left out. */
bool rig_same_bytes(struct rig *r, const struct model *m, uint64_t off, uint64_t len);
bool rig_same(struct rig *r, const struct model *m);
/* What block status says of [off, off + len), against the model's bytes and those in the file. */
bool rig_same_status(struct rig *r, const struct model *m, uint64_t off, uint64_t len);

struct zqcow2_zone rig_zone(struct rig *r, uint32_t i);
/* For a model's ties. rig: a struct rig. */
bool rig_closed_rather(void *rig, uint32_t zone, uint32_t other);
uint64_t rig_start(const struct rig *r, uint32_t i);
struct zqcow2_info rig_info(struct rig *r);
/* Bytes that encode their place and their writer. */
void rig_pattern(void *buf, uint64_t len, uint64_t off, uint64_t tag);
/* Blocking calls with such bytes. */
int rig_write(struct rig *r, uint64_t off, uint64_t len, uint64_t tag);
int rig_append(struct rig *r, uint32_t zone, uint64_t len, uint64_t tag, uint64_t *at);
bool rig_holds(struct rig *r, uint64_t off, uint64_t len, uint64_t from, uint64_t tag);
bool rig_zeros(struct rig *r, uint64_t off, uint64_t len);
int rig_manage(struct rig *r, int op, uint64_t off, uint64_t len, uint64_t *failed);

const char *rig_op_name(int op);
const char *rig_state_name(unsigned state);
/* Unless called again within so many seconds (0: none), says this and ends the program. */
void rig_watch(unsigned seconds, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A number from the environment, or its default. */
uint64_t rig_env(const char *name, uint64_t otherwise);
/* Does the variable choose what has this name? If it is not set, yes. */
bool rig_wanted(const char *variable, const char *name);
/* The exit status of a program that had so many failures: a choice that nothing matched is one. */
int rig_exit(int failed);

#endif
