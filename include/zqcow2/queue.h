/* SPDX-License-Identifier: MIT */
/*
 * Queues: many requests in flight, with completion callbacks. Each operation of a queue is also
 * available as a blocking call, which waits for the result. See zqcow2_queue_open(3).
 *
 * Order    Requests that change the same sequential zone and are submitted to one queue take effect
 *          in the order of submission: one write after another, a write after a reset, an append
 *          after a finish. Exception: a request for several zones visits them in order; at a zone
 *          that it has not yet visited, a later request may overtake it. All other requests,
 *          including reads, are unordered, and so are completions for different zones. A flush
 *          covers the requests that completed before it was submitted.
 * Blocking If the backend has no submit callback (file, memory, blocking callbacks), the thread
 *          that submits or polls performs the I/O and blocks until it is done. An event loop should
 *          use zqcow2_uring_open() or zqcow2_threads_wrap().
 * Work     A call to zqcow2_queue_submit() or zqcow2_queue_poll(), or to zqcow2_queue_wait() with
 *          min 0 or timeout_ms 0, does at most about 1 ms of work besides I/O and callbacks,
 *          however long a request is. If more is left, the descriptor of zqcow2_queue_fd() becomes
 *          readable at once, and other requests proceed before the long one ends. Each zone is
 *          still opened, closed, finished or reset as a whole.
 * Failure  If the host fails a write to a sequential zone, every later write or append to that zone
 *          that is in flight fails with the same error, whether it has started or not. Requests
 *          submitted after a later reset of the zone are not affected. Resume writing at the write
 *          pointer that the zone then reports.
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
    ZQCOW2_OP_APPEND,       /* offset: the start of the zone */
    ZQCOW2_OP_WRITE_ZEROES, /* offset, length */
    ZQCOW2_OP_DISCARD,      /* offset, length */
    ZQCOW2_OP_FLUSH,
    ZQCOW2_OP_DRAIN,
    ZQCOW2_OP_ZONE_OPEN, /* offset, length: whole zones */
    ZQCOW2_OP_ZONE_CLOSE,
    ZQCOW2_OP_ZONE_FINISH,
    ZQCOW2_OP_ZONE_RESET,
    ZQCOW2_OP_ZONE_SET_STATE, /* offset: within the zone; length: a zqcow2_zone_state, plus
                                 ZQCOW2_ZONE_PERSIST if it is to be stored */
    ZQCOW2_OP_BLOCK_STATUS,   /* offset, length; iov: one element, a struct zqcow2_extent */
    /* offset: within the zone; iov: info.descriptor_extension bytes in all */
    ZQCOW2_OP_ZONE_SET_DESCRIPTOR,
    /*
     * offset: within the first zone; iov: info.descriptor_extension bytes for each zone to read.
     * -EINVAL: the total is 0 or is not a multiple of that size, or the range exceeds the device.
     */
    ZQCOW2_OP_ZONE_GET_DESCRIPTORS
};

struct zqcow2_result {
    int ret; /* 0 or an error, as described in zqcow2.h */
    uint32_t reserved;
    /*
     * After a successful append: the offset of the data. After an error EZONE_*, and after a zone
     * open, close, finish or reset that failed at a zone: the start of the zone that failed.
     * Exception: 0 if a zone operation failed before it reached a zone, because the range does not
     * consist of whole zones, the image is read-only, or the limits do not allow the "all" form of
     * open (see zqcow2_zone_reset(3)). In all other cases 0.
     */
    uint64_t offset;
};

/*
 * This struct has a fixed size. Members that an operation does not use are ignored, but reserved
 * must be 0.
 */
struct zqcow2_request {
    uint32_t size;           /* sizeof(struct zqcow2_request) */
    uint16_t op;             /* zqcow2_op */
    uint16_t flags;          /* zqcow2_io_flag. FUA affects only write, append, write_zeroes,
                                discard and the zone operations open, close, finish and reset */
    uint64_t offset;         /* not used by flush and drain */
    uint64_t length;         /* not used by flush and drain, nor by the operations whose length is
                                the total of iov: read, write, append, descriptors */
    const struct iovec *iov; /* array and buffers must stay valid until done() */
    uint32_t iovcnt, reserved;
    /*
     * Called exactly once for each accepted request, never from zqcow2_queue_submit(). It may
     * submit, poll, wait and use the blocking calls, but must not close the queue. NULL: no
     * callback.
     */
    void (*done)(void *arg, const struct zqcow2_result *res);
    void *arg;
};

/*
 * Performs one request and waits for it; ignores done and arg. Returns res->ret; res may be NULL.
 * For a malformed request, returns -EINVAL and leaves *res unchanged.
 */
ZQCOW2_API int zqcow2_run(struct zqcow2_image *img, const struct zqcow2_request *req,
                          struct zqcow2_result *res);

/*
 * depth: the maximum number of requests in flight, 1 .. 65536. This call allocates all the memory
 * that the queue needs.
 */
ZQCOW2_API int zqcow2_queue_open(struct zqcow2_image *img, uint32_t depth, struct zqcow2_queue **q);
/*
 * -EBUSY: requests are in flight, completions have not been delivered, or a callback is running;
 * the queue stays open. Requests cannot be cancelled.
 */
ZQCOW2_API int zqcow2_queue_close(struct zqcow2_queue *q);
/*
 * Accepts requests in order until the queue is full or a request is malformed (its size or op is
 * unknown, or reserved is not 0). Returns the number accepted, which is 0 if the queue is full, or
 * -EINVAL if the first request is malformed. All other errors of a request are reported to done().
 */
ZQCOW2_API int zqcow2_queue_submit(struct zqcow2_queue *q, const struct zqcow2_request *reqs,
                                   uint32_t n);
/*
 * Advances the requests of all queues of the image by at most about 1 ms of work, without waiting
 * for completions (but a blocking backend performs I/O here: see Blocking above). Then delivers at
 * most max completions of this queue; max 0: all that are due by then. Returns the number of
 * completions delivered.
 */
ZQCOW2_API int zqcow2_queue_poll(struct zqcow2_queue *q, uint32_t max);
/*
 * Blocks until it has delivered min completions, nothing is in flight, or timeout_ms milliseconds
 * have passed (-1: no limit). min 0 or timeout_ms 0: does not wait for completions (but see
 * Blocking above). A signal does not end the wait. Returns the number of completions delivered.
 */
ZQCOW2_API int zqcow2_queue_wait(struct zqcow2_queue *q, uint32_t min, int timeout_ms);
/*
 * Returns a descriptor for poll(2) and epoll(7), level-triggered: it is readable when
 * zqcow2_queue_poll() has work to do. Wake-ups may be spurious. The queue owns the descriptor. If
 * it cannot be created, the call returns a negated errno: -EOPNOTSUPP if the backend must be polled
 * and the library was built with neither epoll nor kqueue.
 */
ZQCOW2_API int zqcow2_queue_fd(struct zqcow2_queue *q);
/* The number of accepted requests whose completions have not yet been delivered. */
ZQCOW2_API uint32_t zqcow2_queue_pending(struct zqcow2_queue *q);

#ifdef __cplusplus
}
#endif
#endif
