/* SPDX-License-Identifier: MIT */
/*
 * The queue: many requests in flight, completions by callback. The blocking calls of zqcow2.h are
 * the same operations, waited for. See zqcow2_queue_open(3).
 *
 * Requests in flight are unordered, except that appends to one zone commit in submission order.
 * A flush makes durable what had completed before it was submitted.
 */
#ifndef ZQCOW2_QUEUE_H
#define ZQCOW2_QUEUE_H

#include <zqcow2/zqcow2.h>

#ifdef __cplusplus
extern "C" {
#endif

struct zqcow2_queue;

enum zqcow2_op {
    ZQCOW2_OP_READ,
    ZQCOW2_OP_WRITE,
    ZQCOW2_OP_APPEND,       /* offset: the zone's start */
    ZQCOW2_OP_WRITE_ZEROES, /* offset, length */
    ZQCOW2_OP_DISCARD,      /* offset, length */
    ZQCOW2_OP_FLUSH,
    ZQCOW2_OP_DRAIN,
    ZQCOW2_OP_ZONE_OPEN,    /* offset, length: whole zones */
    ZQCOW2_OP_ZONE_CLOSE,
    ZQCOW2_OP_ZONE_FINISH,
    ZQCOW2_OP_ZONE_RESET,
    ZQCOW2_OP_ZONE_SET_STATE /* offset: in the zone; length: the zqcow2_zone_state */
};

struct zqcow2_result {
    int ret;          /* 0, or an error as everywhere */
    uint32_t reserved;
    uint64_t offset;  /* append: where the data went; failed zone call: the start of the zone that failed */
};

struct zqcow2_request {
    uint32_t size;    /* sizeof(struct zqcow2_request) */
    uint16_t op;      /* zqcow2_op */
    uint16_t flags;   /* zqcow2_io_flag */
    uint64_t offset;
    uint64_t length;  /* read, write and append take it from iov and ignore this */
    const struct iovec *iov; /* array and buffers stay the caller's, valid until done() */
    uint32_t iovcnt, reserved;
    /* Exactly once for each accepted request, never from submit. May submit; may not close the queue. */
    void (*done)(void *arg, const struct zqcow2_result *res);
    void *arg;
};

/* One request, blocking; done and arg are ignored. Returns res->ret. res may be NULL. */
ZQCOW2_API int zqcow2_run(struct zqcow2_image *img, const struct zqcow2_request *req,
                          struct zqcow2_result *res);

/* depth: the most requests in flight, 1 .. 65536; all memory of the queue is taken here. */
ZQCOW2_API int zqcow2_queue_open(struct zqcow2_image *img, uint32_t depth, struct zqcow2_queue **q);
/* -EBUSY: requests in flight or not yet delivered, or a callback runs (nothing changes). */
ZQCOW2_API int zqcow2_queue_close(struct zqcow2_queue *q);
/*
 * Takes requests in order until the queue is full or one is malformed (its size or op); returns
 * how many, or a negative error if the first one is malformed. Errors of requests go to done().
 */
ZQCOW2_API int zqcow2_queue_submit(struct zqcow2_queue *q, const struct zqcow2_request *reqs,
                                   uint32_t n);
/* Delivers at most max completions (0: all that were complete when it began); never blocks. */
ZQCOW2_API int zqcow2_queue_poll(struct zqcow2_queue *q, uint32_t max);
/*
 * Blocks until min completions were delivered, nothing is in flight, or timeout_ms has passed
 * (-1: no limit). Returns how many were delivered.
 */
ZQCOW2_API int zqcow2_queue_wait(struct zqcow2_queue *q, uint32_t min, int timeout_ms);
/*
 * For poll(2) and epoll(7): readable when zqcow2_queue_poll() has something to do; may be
 * spurious. Belongs to the queue. -errno if it cannot be made.
 */
ZQCOW2_API int zqcow2_queue_fd(struct zqcow2_queue *q);
/* Requests accepted and not yet delivered. */
ZQCOW2_API uint32_t zqcow2_queue_pending(struct zqcow2_queue *q);

#ifdef __cplusplus
}
#endif
#endif
