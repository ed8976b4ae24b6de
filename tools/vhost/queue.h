/* SPDX-License-Identifier: MIT */
/*
 * A ring with a thread and an event loop of its own. The thread of the session changes a ring only
 * between pause and resume, when nothing of it is in flight and its thread waits.
 */
#ifndef ZQ_TOOLS_VHOST_QUEUE_H
#define ZQ_TOOLS_VHOST_QUEUE_H

#include <pthread.h>

#include "serve/image.h"
#include "vhost/inflight.h"
#include "vhost/request.h"

/* Of the server, for all queues. */
struct vhost_shared {
    struct vhost_disk disk;
    struct vhost_memory memory;
    struct vhost_inflight inflight;
    const struct serve_image *image;
    pthread_mutex_t lock; /* of what follows, which the control thread uses, too */
    int backend_fd;       /* owned: for messages of ours to the front-end, or -1 */
    bool wants_config;    /* it reads the config space again */
};

struct vhost_queue {
    struct vhost_shared *shared;
    unsigned index;
    struct zqcow2_queue *zq;
    struct vhost_ring ring;
    struct vhost_track track;
    struct vhost_addr addr;
    struct vhost_request *requests; /* by head, while it is ready */
    bool has_addr, ready, enabled;
    bool logged;         /* why it is broken */
    int kick, call, err; /* owned; -1: none, of `kick`: the ring is polled */

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool pause, paused, quit; /* under the lock */
    int wake;                 /* eventfd: the three have changed */
};

/* Starts the thread, paused. Set shared and index. */
int vhost_queue_open(struct vhost_queue *q);
/* Of a paused one; ends the thread. What closing the library's queue returned. */
int vhost_queue_close(struct vhost_queue *q);
void vhost_queue_pause(struct vhost_queue *q);
void vhost_queue_resume(struct vhost_queue *q);

/* The rest: of a paused one. */

/* Descriptors are taken over. */
void vhost_queue_set_fd(int *slot, int fd);
/* Begins to serve, from ring.last_avail on. -EINVAL: the ring is not in memory, or not set up. */
int vhost_queue_start(struct vhost_queue *q);
void vhost_queue_stop(struct vhost_queue *q);
/* After a change of memory; a ring that is gone with it stops. */
void vhost_queue_remap(struct vhost_queue *q);

#endif
