/* SPDX-License-Identifier: MIT */
/* One request of the guest: what it asks, done by the image, and its status. */
#ifndef ZQ_TOOLS_VHOST_REQUEST_H
#define ZQ_TOOLS_VHOST_REQUEST_H

#include <zqcow2/queue.h>

#include "vhost/disk.h"
#include "vhost/ring.h"

struct vhost_request {
    struct vhost_chain chain;
    struct vhost_disk *disk;
    struct zqcow2_queue *zq;
    /* Called once: at once, or from a poll of zq. `written` are bytes of the answer. */
    void (*answer)(struct vhost_request *r, uint32_t written);
    void *arg;
    bool busy, good; /* good: the status is OK */
    uint32_t seen;   /* the queue's: what a flush covers */

    /* Taken out of the chain. */
    struct blk_header header;
    uint8_t *status;
    uint64_t in_bytes; /* as they were */
    struct iovec *in, *out;
    uint32_t ins, outs;
    struct blk_range range[VHOST_RANGES];
    uint32_t ranges, next_range;
};

/* Has it changed the disk? Is it a flush that has succeeded? Of an answered one. */
bool vhost_request_changes(const struct vhost_request *r);
bool vhost_request_has_flushed(const struct vhost_request *r);

/* chain, disk, zq, answer and arg are set. */
void vhost_request_begin(struct vhost_request *r);

#endif
