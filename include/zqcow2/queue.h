/* SPDX-License-Identifier: MIT */
/*
 * The queue: many requests in flight, completions by callback. The blocking calls of zqcow2.h are
 * the same operations, waited for. See zqcow2_queue_open(3).
 *
 * Order   What one queue submits for one sequential zone takes effect in the order of submission:
 *         writes one behind the other, reset then write, finish then append. A request over
 *         several zones comes to each in turn. Reads, and all else, are unordered; so are
 *         completions of different zones. A flush covers what had completed before it was
 *         submitted.
 * Wait    Where the backend has no submit (file, memory, plain callbacks), submitting and polling
 *         carry requests out themselves, and block for it. An event loop wants
 *         zqcow2_uring_open() or zqcow2_threads_wrap().
 * Failure When a write to a sequential zone fails on the host, the writes and appends behind it in
 *         flight there fail with the same error, also those that have not begun, up to a reset; the
 *         zone goes on from the write pointer that it reports then.
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
    /*
     * Append: where the data went. Failed zone call, and every error EZONE_*: the start of the zone
     * concerned. Else 0.
     */
    uint64_t offset;
};

/* Of fixed size: it does not grow. Members that an operation has no use for are ignored. */
struct zqcow2_request {
    uint32_t size;    /* sizeof(struct zqcow2_request) */
    uint16_t op;      /* zqcow2_op */
    uint16_t flags;   /* zqcow2_io_flag; FUA says nothing on read, flush and drain */
    uint64_t offset;  /* flush and drain ignore it */
    uint64_t length;  /* so they do this; read, write and append take it from iov */
    const struct iovec *iov; /* array and buffers stay the caller's, valid until done() */
    uint32_t iovcnt, reserved;
    /*
     * Exactly once for each accepted request, never from submit. May submit, poll, wait and use the
     * blocking calls; may not close the queue. NULL: nobody wants to know.
     */
    void (*done)(void *arg, const struct zqcow2_result *res);
    void *arg;
};

/* One request, blocking; done and arg are ignored. Returns res->ret. res may be NULL. */
ZQCOW2_API int zqcow2_run(struct zqcow2_image *img, const struct zqcow2_request *req,
                          struct zqcow2_result *res);

/* depth: the most requests in flight, 1 .. 65536; all memory of the queue is taken here. */
ZQCOW2_API int zqcow2_queue_open(struct zqcow2_image *img, uint32_t depth,
                                 struct zqcow2_queue **q);
/*
 * -EBUSY: requests in flight or not yet delivered, or a callback runs (nothing changes). Requests
 * cannot be cancelled.
 */
ZQCOW2_API int zqcow2_queue_close(struct zqcow2_queue *q);
/*
 * Takes requests in order until the queue is full or one is malformed (its size or op); returns
 * how many, or a negative error if the first one is malformed. Errors of requests go to done().
 */
ZQCOW2_API int zqcow2_queue_submit(struct zqcow2_queue *q, const struct zqcow2_request *reqs,
                                   uint32_t n);
/*
 * Delivers at most max completions (0: all that were complete when it began); waits for none. Moves
 * the work of all queues of the image on.
 */
ZQCOW2_API int zqcow2_queue_poll(struct zqcow2_queue *q, uint32_t max);
/*
 * Blocks until min completions were delivered, nothing is in flight, or timeout_ms has passed
 * (-1: no limit). A signal does not end it. Returns how many were delivered.
 */
ZQCOW2_API int zqcow2_queue_wait(struct zqcow2_queue *q, uint32_t min, int timeout_ms);
/*
 * For poll(2) and epoll(7), level-triggered: readable when zqcow2_queue_poll() has something to do;
 * may be spurious. Belongs to the queue. -errno if it cannot be made.
 */
ZQCOW2_API int zqcow2_queue_fd(struct zqcow2_queue *q);
/* Requests accepted and not yet delivered. */
ZQCOW2_API uint32_t zqcow2_queue_pending(struct zqcow2_queue *q);

#ifdef __cplusplus
}
#endif
#endif
