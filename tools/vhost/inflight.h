/* SPDX-License-Identifier: MIT */
/*
 * What is in flight, in memory that outlives this process: the front-end keeps it and hands it to
 * the next server, which does again what the last one had not answered. Its layout is that of
 * QEMU's libvhost-user for split rings. The front-end can write all of it, so nothing in it is
 * believed without a check.
 */
#ifndef ZQ_TOOLS_VHOST_INFLIGHT_H
#define ZQ_TOOLS_VHOST_INFLIGHT_H

#include <stddef.h>

#include "vhost/ring.h"

struct vhost_inflight_entry {
    uint8_t inflight, padding[5];
    uint16_t next;
    uint64_t counter;
};

struct vhost_inflight_ring {
    uint64_t features;
    uint16_t version, desc_num, last_batch_head, used_idx;
    struct vhost_inflight_entry entry[];
};

/* Behind the rings, a part of our own: how many changes were answered, and how many were flushed.
 */
struct vhost_inflight_changes {
    uint32_t answered, flushed;
    uint8_t reserved[56];
};

struct vhost_inflight {
    uint8_t *map; /* NULL: none */
    size_t size;
    uint16_t queues, queue_size;
    struct vhost_inflight_changes *changes; /* in it */
};

/* Makes the memory for area->queues rings, and sets area->size. Its descriptor, or -errno. */
int vhost_inflight_make(struct vhost_inflight *f, struct vhost_inflight_area *area);
/* Maps what the front-end has kept; fd stays the caller's. */
int vhost_inflight_map(struct vhost_inflight *f, const struct vhost_inflight_area *area, int fd);
void vhost_inflight_close(struct vhost_inflight *f);

/*
 * A server that died took along what it had answered and not flushed. The next one must not answer
 * the next flush as if nothing were lost. `changed`: before a change is answered. `seen`: before a
 * flush begins, what it covers; `flushed` has that when it has succeeded.
 */
void vhost_inflight_changed(struct vhost_inflight *f);
uint32_t vhost_inflight_seen(const struct vhost_inflight *f);
void vhost_inflight_flushed(struct vhost_inflight *f, uint32_t seen);
bool vhost_inflight_lacks_flush(const struct vhost_inflight *f);

/* Of one ring, while it runs. */
struct vhost_track {
    volatile struct vhost_inflight_ring *area; /* NULL: nobody keeps track */
    uint64_t counter;
};

/*
 * Begins to keep track of a ring with r->num entries. What a server before has popped and not
 * answered comes into `heads`, which has room for r->num, in the order in which it was popped;
 * the ring goes on behind. The number of them.
 */
unsigned vhost_track_begin(struct vhost_track *t, struct vhost_inflight *f, unsigned index,
                           struct vhost_ring *r, uint16_t *heads);
void vhost_track_popped(struct vhost_track *t, uint16_t head);
/* Around vhost_ring_push(): a server that dies in between is found out by the next one. */
void vhost_track_answers(struct vhost_track *t, uint16_t head);
void vhost_track_answered(struct vhost_track *t, uint16_t head, uint16_t used_idx);

#endif
