/* SPDX-License-Identifier: MIT */
/*
 * Zero copy: a backend on that of the image, which moves the data of a request between the file and
 * the pages that the kernel has for it. To the library such a request has memory like any other.
 */
#ifndef ZQ_TOOLS_UBLK_DIRECT_H
#define ZQ_TOOLS_UBLK_DIRECT_H

#include "serve/image.h"
#include "ublk/queue.h"

struct ublk_direct {
    struct serve_image *image;    /* the server's, which counts the requests */
    struct zqcow2_backend *inner; /* NULL: there is none */
    struct ublk_queue *queues;    /* set by the server before they run, with their number */
    uint32_t nr_queues;
    int fd;          /* the image's file, once more */
    uint64_t length; /* of it: it was found to have so many bytes */
};

/* Replaces the image's backend by one on it, or leaves it if that is not a regular file. */
void ublk_direct_wrap(void *direct, struct zqcow2_backend **be);
/* The same by copies, in blocking calls: for what the ring could not do. */
int ublk_direct_copy(struct ublk_direct *d, const struct zqcow2_io *io);

#endif
