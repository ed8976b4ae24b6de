/* SPDX-License-Identifier: MIT */
/* A hardware queue of a ublk device: its thread carries requests from the kernel to the image. */
#ifndef ZQ_TOOLS_UBLK_QUEUE_H
#define ZQ_TOOLS_UBLK_QUEUE_H

#include <liburing.h>
#include <pthread.h>

#include <zqcow2/backend.h>
#include <zqcow2/queue.h>

#include "serve/faults.h"
#include "ublk/abi.h"
#include "ublk/ledger.h"

struct ublk_direct;
struct ublk_queue;

struct ublk_tag {
    struct ublk_queue *queue;
    struct iovec iov; /* the tag's own part of the queue's buffer */
    uint64_t covers;  /* flush: the changes that it makes durable, see ledger.h */
    uint16_t tag;
    uint8_t op;   /* ublk_io_op */
    bool durable; /* once it is done */
    bool pages;   /* its data is in pages that are in the ring's table, and not in its memory */
    bool moved;   /* a read: they have it */
    struct zqcow2_io *transfer; /* of theirs, in the ring */
};

/* Everything below belongs to the queue's thread once it runs. */
struct ublk_queue {
    struct io_uring ring;
    struct zqcow2_queue *zq;
    struct zqcow2_image *img;
    const struct zqcow2_info *info;
    const struct serve_faults *faults; /* NULL: none */
    struct ublk_ledger *ledger;        /* the server's */
    struct ublk_direct *direct;        /* the server's; NULL: all data is copied */
    const struct ublk_io_desc *desc;
    struct ublk_tag *tags;
    struct zqcow2_request *batch; /* taken from the kernel, not yet submitted */
    void *buffers;
    size_t desc_bytes, buffer_bytes;
    uint32_t max_io, nbatch, in_library, live_tags;
    uint64_t reported; /* the loss for which a failed flush is queued for the kernel; 0: none */
    bool leaving;
    bool unanswered; /* leaving: the kernel sends again what comes meanwhile; set by the server */
    uint16_t id, depth;
    int leave_fd; /* eventfd of the server, readable once the thread has to leave the device */
    int fd;       /* of the character device; the server's */
    int ended_fd; /* eventfd of the server, signalled when the thread ends */
    int error;    /* why the thread ended, when not because the device was stopped */
    pthread_t thread, self; /* the same; self is for the thread */
    bool copies;            /* the kernel does, from and to the memory of the tag */
    bool registers;         /* the kernel puts pages of requests into the ring's table */
};

/* Before the thread runs: takes everything that can fail. Set id, depth, max_io, fd, leave_fd,
 * ended_fd, img, info, faults, ledger, direct, copies and registers first. On failure nothing is
 * held. */
int ublk_queue_prepare(struct ublk_queue *q);
int ublk_queue_start(struct ublk_queue *q);
/* After the thread has ended, or if it never started. What closing the library's queue returned. */
int ublk_queue_free(struct ublk_queue *q);
/* A part of its memory gets the bytes that the kernel has for it. 0 or -errno. */
int ublk_queue_fetch(struct ublk_tag *t, const struct iovec *part);
/* In the queue's thread: moves all of the request between its pages and the file. 0 or -errno. */
int ublk_queue_transfer(struct ublk_tag *t, struct zqcow2_io *io, int fd);
/* The result for the kernel of a result of the library. */
int ublk_errno(int rc);

#endif
