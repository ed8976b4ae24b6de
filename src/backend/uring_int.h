/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the io_uring backend share: uring_ring.c hands requests to the kernel,
 * uring_areas.c registers memory, uring.c is the rest.
 */
#ifndef ZQ_BACKEND_URING_INT_H
#define ZQ_BACKEND_URING_INT_H

#include <liburing.h>

#include "backend/fifo.h"
#include "backend/file.h"

#define ZQ_URING_DEPTH     128u
#define ZQ_URING_WATCH     0u         /* user_data of the request that watches wake_fd */
#define ZQ_URING_MORE      1u         /* and of the one that makes the next call due */
#define ZQ_URING_FTRUNCATE 55u        /* of Linux 6.9; liburing's headers may be older */
#define ZQ_URING_AREAS     64u        /* registered by one call */
#define ZQ_URING_AREA_MOST (1u << 30) /* the kernel's limit */
#define ZQ_URING_IOVS      512u       /* of all merged writes in one call to the kernel */

/*
 * The bound of what one call does (DESIGN.md): requests that it hands to the kernel, and bytes,
 * which the kernel may copy at once; and bytes that the ring holds of such transfers, which a call
 * may find read from the disk. Larger transfers go to the kernel's workers.
 */
#define ZQ_URING_CALL_MOST  32u
#define ZQ_URING_CALL_BYTES (1u << 20)
#define ZQ_URING_RING_BYTES (4u << 20)

struct zq_uring {
    struct zq_file file;   /* first: the blocking callbacks take it for self */
    int wake_fd;           /* eventfd of uring_wake(); readable until a poll has seen it */
    bool fixed_file;       /* the file stands in the ring's own table, at 0 */
    bool truncates;        /* the ring can set the file's length */
    pthread_mutex_t mutex; /* of what follows */
    struct io_uring ring;
    struct zq_fifo queue; /* accepted, and not with the kernel yet */
    unsigned in_ring;     /* prepared and not reaped, <= ZQ_URING_DEPTH; merged requests are one */
    uint64_t copies;      /* of those in the ring, see zq_uring_copies() */
    bool more;            /* the ring has the request ZQ_URING_MORE */
    bool unwatchable;     /* the kernel does not watch wake_fd */
    bool watching;        /* the ring watches wake_fd ... */
    pthread_t watcher;    /* ... for the thread that asked it to */
    bool broken;          /* the kernel refuses to be called: everything blocks from now on */
    struct iovec iov[ZQ_URING_IOVS];   /* of merged writes, until the kernel has copied them */
    struct iovec area[ZQ_URING_AREAS]; /* what is registered, in the kernel's order */
    unsigned areas;
    uint64_t zeroes; /* that this poll may still write to memory; of the thread that polls */
};

/* The words of a request, behind the link of the queue. First, how far it has come. */
static inline uint64_t zq_uring_done(const struct zqcow2_io *io)
{
    return (uintptr_t)io->backend[1];
}

static inline void zq_uring_set_done(struct zqcow2_io *io, uint64_t n)
{
    io->backend[1] = (void *)(uintptr_t)n;
}

/* Then the request that is merged behind it. */
static inline struct zqcow2_io *zq_uring_merged(const struct zqcow2_io *io)
{
    return io->backend[2];
}

static inline void zq_uring_set_merged(struct zqcow2_io *io, struct zqcow2_io *next)
{
    io->backend[2] = next;
}

/* Takes it off what is merged behind it, which is returned. */
static inline struct zqcow2_io *zq_uring_take_off(struct zqcow2_io *io)
{
    struct zqcow2_io *next = zq_uring_merged(io);

    zq_uring_set_merged(io, NULL);
    return next;
}

/* Last, what has been found out about it: marks. */
#define ZQ_URING_ALONE    1u  /* it must have a result of its own */
#define ZQ_URING_UNCACHED 2u  /* the kernel has it, with ZQ_RWF_DONTCACHE */
#define ZQ_URING_POOL     4u  /* a worker of the kernel does it */
#define ZQ_URING_AGAIN    8u  /* it went back once */
#define ZQ_URING_WRITTEN  16u /* a ZERO for a file that cannot have holes */

static inline unsigned zq_uring_marks(const struct zqcow2_io *io)
{
    return (unsigned)(uintptr_t)io->backend[3];
}

static inline void zq_uring_set_marks(struct zqcow2_io *io, unsigned marks)
{
    io->backend[3] = (void *)(uintptr_t)marks;
}

static inline void zq_uring_mark(struct zqcow2_io *io, unsigned marks)
{
    zq_uring_set_marks(io, zq_uring_marks(io) | marks);
}

/* Bytes that the kernel may copy while it is called for this request, and for those behind it. */
static inline uint64_t zq_uring_copies(const struct zqcow2_io *io)
{
    return io->kind > ZQCOW2_IO_WRITE || zq_uring_marks(io) & ZQ_URING_POOL ?
               0 :
               io->length - zq_uring_done(io);
}

static inline uint64_t zq_uring_chain_copies(const struct zqcow2_io *io)
{
    uint64_t n = 0;

    for (; io; io = zq_uring_merged(io))
        n += zq_uring_copies(io);
    return n;
}

/*
 * Under the mutex: passes the queue to the kernel, as far as there is room. What it refuses, which
 * it does for good, is added to `refused`. watch: the next wake-up becomes a completion.
 */
void zq_uring_submit(struct zq_uring *u, bool watch, struct zq_fifo *refused);

/* Under the mutex: the number of the registered area that has all of the memory, or -1. */
int zq_uring_area(const struct zq_uring *u, const void *p, size_t n);
void zq_uring_forget_areas(struct zq_uring *u);
bool zq_uring_areas_are_valid(const struct iovec *area, unsigned n);
int zq_uring_set_areas(struct zq_uring *u, const struct iovec *area, unsigned n);

#endif
