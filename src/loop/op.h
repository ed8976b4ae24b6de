/* SPDX-License-Identifier: MIT */
/*
 * An operation: one request on its way. It goes gather -> reserve -> move -> commit.
 *
 *   gather   pins what the step needs; may park, and is then entered again from its top (K11)
 *   reserve  changes memory in the same hold of the mutex as the last gather; cannot fail
 *   move     data I/O; no pin, no lock
 *   commit   makes it visible; of a sequential zone in reservation order (K7)
 *
 * step() returns ZQ_WAIT while something is under way, else the operation's result.
 */
#ifndef ZQ_LOOP_OP_H
#define ZQ_LOOP_OP_H

#include <zqcow2/queue.h>
#include "qcow2/map.h"
#include "zone/zones.h"

struct zq_core;
struct zq_op;
typedef int zq_step(struct zq_core *c, struct zq_op *op);

/* Which bytes of the request move next, and where the host has them. */
struct zq_transfer {
    uint32_t kind; /* of zqcow2_io_kind, or ZQ_IO_WORK */
    uint64_t host, left;
    bool moving; /* they are on their way */
};

/* A compressed cluster: its bytes in the file, and room for what they unpack to. */
struct zq_packed {
    uint64_t host, len; /* what is read; `size` bytes from `skew` on are the cluster's */
    uint64_t skew, size;
    uint8_t *in, *out; /* out: a cluster */
};

/* New clusters that will replace what a guest range maps to: made whole first, then linked. */
struct zq_fill {
    struct zq_list link; /* in the operation's list of prepared fills */
    uint64_t guest, bytes, host;
    uint64_t head, tail; /* [0, head) and [tail, bytes) come from what was there before */
    uint32_t data_kind;  /* how the request's own bytes get in between, and how many */
    uint64_t data_len;
    struct zq_extent old;
    bool virgin;
    uint8_t phase;
    struct zq_freed *freed;     /* takes the new clusters on failure, the old ones on success */
    struct zq_packed old_bytes; /* old content that must be kept, in .out */
};

struct zq_op {
    /* first what the fast path uses (fast.c): few cache lines, next to one another */
    struct zq_core *core;
    void (*finish)(struct zq_op *op); /* under the mutex, when all is over */
    struct zq_list link;              /* queue: free or completed list */
    void *owner;                      /* queue: which one */
    struct zqcow2_request req;
    struct zqcow2_result res;
    uint64_t length; /* of the whole request, bytes */
    uint32_t zone;   /* whose turn it holds, or at work on */
    bool finished;
    struct zq_reservation r;
    struct zq_io io;
    /* what follows is of the slow path */
    struct zq_gather g; /* g.wait.link: ready list, or what it is parked on */
    zq_step *step;
    int rc;          /* of the io that was under way */
    uint32_t iov_at; /* cursor into req.iov */
    size_t iov_skip;
    uint64_t pos; /* bytes of it that are done */
    struct zq_transfer xfer;
    struct iovec seg[ZQ_IO_SEGMENTS];
    struct zq_list turn;  /* in a zone's admission FIFO */
    struct zq_list owns;  /* in the core's list: its guest clusters belong to it (R14) */
    uint64_t round;       /* waits until this many rounds have been done */
    struct zq_list fills; /* prepared */
    struct zq_fill *fill; /* at work, or NULL */
    struct zq_list spare; /* zq_freed records for unmapping */
    uint32_t nr_spare;
    bool has_turn;
    uint8_t phase;
    uint64_t prepared; /* bytes of the request that nothing but I/O can hinder any more */
    struct zq_packed packed;
};

#endif
