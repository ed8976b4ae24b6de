/* SPDX-License-Identifier: MIT */
/* An asynchronous backend over a blocking one: completes in seeded order, or as a test says. */
#ifndef RIG_BE_SHUFFLE_H
#define RIG_BE_SHUFFLE_H

#include <stdbool.h>
#include "rig/store.h"

enum shuffle_mode {
    SHUFFLE_POLLED,   /* completes from poll(); has fd() and wake() */
    SHUFFLE_THREADED, /* completes from a thread of its own; no poll() */
    SHUFFLE_HELD      /* from poll(), one at a time, as submitted, except for what a test holds */
};

#define SHUFFLE_HOLDS 4

/* I/O of these kinds (a bit each) that touches the range stays where it is. */
struct hold {
    uint32_t kinds;
    uint64_t off, end;
};

struct shuffle {
    struct rig_be under;
    enum shuffle_mode mode;
    pthread_mutex_t lock;
    pthread_cond_t more;
    pthread_t thread;
    struct zqcow2_io *head; /* linked through backend[0] */
    uint32_t count, deepest;
    uint64_t rng, done;
    uint32_t caps;      /* more than the floor has */
    uint32_t refuse;    /* bit per zqcow2_io_kind: submit() returns -EOPNOTSUPP */
    bool oldest_last;   /* in order, but that the oldest waits as long as there are others */
    uint32_t inline_in; /* about one in so many completes inside submit(); 0: none */
    int event;          /* readable while count > 0 or somebody said wake */
    bool woken, stop;
    /* HELD */
    struct hold hold[SHUFFLE_HOLDS];
    unsigned nr_holds;
    void (*after)(void *arg, const struct zqcow2_io *io); /* io has been done, nobody knows yet */
    void *arg;
};

void shuffle_init(struct shuffle *s, struct rig_be under, enum shuffle_mode mode, uint64_t seed);
void shuffle_free(struct shuffle *s);
struct rig_be shuffle_be(struct shuffle *s);
void shuffle_hold(struct shuffle *s, uint32_t kinds, uint64_t off, uint64_t len);
void shuffle_release(struct shuffle *s);        /* all that is held */
uint32_t shuffle_held(const struct shuffle *s); /* how many I/Os are */

#endif
