/* SPDX-License-Identifier: MIT */
/*
 * A queue of requests, linked through the words that each has for its backend: taking a request in
 * needs no memory, so it cannot fail for it. The words are the backend's until the request is done.
 */
#ifndef ZQ_BACKEND_FIFO_H
#define ZQ_BACKEND_FIFO_H

#include <zqcow2/backend.h>

struct zq_fifo {
    struct zqcow2_io *head, *tail; /* linked by backend[0]; tail counts only if head is set */
};

/* Neither takes a lock: the backend's own mutex guards its queue. */
static inline void zq_fifo_push(struct zq_fifo *f, struct zqcow2_io *io)
{
    io->backend[0] = NULL;
    if (f->head)
        f->tail->backend[0] = io;
    else
        f->head = io;
    f->tail = io;
}

static inline struct zqcow2_io *zq_fifo_pop(struct zq_fifo *f)
{
    struct zqcow2_io *io = f->head;

    if (io)
        f->head = io->backend[0];
    return io;
}

#endif
