/* SPDX-License-Identifier: MIT */
/*
 * A disk with a volatile cache, as a backend. It records everything that a completed flush does not
 * cover yet, and builds what a power cut could leave: any part of that, torn, in any order.
 */
#ifndef POWERCUT_DISK_H
#define POWERCUT_DISK_H

#include "store.h"

#include <pthread.h>
#include <stdbool.h>
#include <zqcow2/backend.h>

/* One write, zero, discard or truncate. */
struct rec {
    int kind;
    uint64_t off, len;
    uint8_t *data; /* write */
    uint8_t *mask; /* failed: the units that reached the disk; NULL: all */
    uint64_t done; /* when it completed; 0: in flight */
};

struct flight {
    struct zqcow2_io *io;
    struct rec *rec;
    uint64_t began;
};

struct disk_limits {
    uint32_t io_align, buf_align, max_iov, max_transfer, tear, caps;
    bool async, no_zero, no_discard, no_allocate;
};

/* Faults: the I/O of these kinds fail, `times` of them after the next `after`. */
struct disk_fault {
    unsigned kinds; /* bits of zqcow2_io_kind */
    int error;
    unsigned after, times;
};

struct disk {
    pthread_mutex_t *lock; /* held around every change, not while the library is called */
    struct store now, base;
    struct rec **log;
    size_t nlog;
    struct flight *flight;
    size_t nflight;
    uint64_t clock, rng;
    struct disk_limits lim;
    struct disk_fault fault;
    bool quiet; /* records nothing: for the images that are being checked */
    bool off;   /* the power is off: everything fails */
    bool woken; /* poll returns at once */
    bool read_only;
    int event; /* -1: none */
    pthread_cond_t cond;
    pthread_mutex_t own;
    void (*point)(void *arg); /* called with the lock held wherever power may fail; may be NULL */
    void *arg;
    uint64_t writes, flushes, failed;
};

/* The disk holds what `from` holds (NULL: nothing), all of it durable. */
void disk_init(struct disk *d, const struct store *from, const struct disk_limits *lim,
               uint64_t seed);
void disk_free(struct disk *d);
struct zqcow2_backend *disk_backend(struct disk *d);
/* The program that used it is gone; what it had in flight has happened or never will. */
void disk_kill(struct disk *d);
/* A power cut now: one of the images that may be left. */
void disk_cut(struct disk *d, struct store *out, uint64_t *rng);

#endif
