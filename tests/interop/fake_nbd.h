/* SPDX-License-Identifier: MIT */
/*
 * An NBD server in a thread, of which a test decides when it dies and what it loses. It has one
 * export in memory, serves one client at a time on a Unix socket, and answers in order.
 */
#ifndef FAKE_NBD_H
#define FAKE_NBD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAKE_BYTES ((size_t)4 << 20)

enum fake_end {
    FAKE_DIES,   /* before it does the request, and its connection with it */
    FAKE_MUTE,   /* when it has done the request, before it answers */
    FAKE_BABBLES /* the answer is no answer, but the connection stays */
};

struct fake_nbd {
    char folder[32], uri[96], path[64];
    int listener;
    pthread_t thread;
    pthread_mutex_t lock; /* of all below */
    uint8_t *now, *durable;
    bool stop, down;                       /* down: a connection ends at once */
    bool loses;                            /* with its end, what was not flushed */
    bool forgets;                          /* with its end, everything */
    bool lingers;                          /* waits before it answers a write */
    int end_in;                            /* requests of `end_kind` until the end; 0: none */
    int end_kind;                          /* 0 read, 1 write, 3 flush, 6 zero */
    enum fake_end how;                     /* the end */
    unsigned connections, writes, flushes; /* of the current connection: writes and flushes */
    unsigned early;                        /* requests that came before a write was answered */
    int babbler;                           /* the connection that stayed, or -1 */
};

void fake_start(struct fake_nbd *f);
void fake_stop(struct fake_nbd *f);
/* The next end: at the n-th request of a kind. */
void fake_end(struct fake_nbd *f, int kind, int n, enum fake_end how);
unsigned fake_count(struct fake_nbd *f, const unsigned *what);

#endif
