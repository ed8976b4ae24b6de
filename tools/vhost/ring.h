/* SPDX-License-Identifier: MIT */
/*
 * A split virtqueue. The guest writes descriptors and the available ring, whatever it likes and at
 * any time: each descriptor is read once, into memory of ours, and is checked there. What cannot be
 * right breaks the ring, and no other.
 */
#ifndef ZQ_TOOLS_VHOST_RING_H
#define ZQ_TOOLS_VHOST_RING_H

#include <stdbool.h>
#include <sys/uio.h>

#include "vhost/memory.h"

#define VHOST_RING_MAX 1024u /* entries */
#define VHOST_PIECES   256u  /* of a chain: descriptors, and more where one crosses regions */

/* The readable elements come first. */
struct vhost_chain {
    uint16_t head;
    uint32_t out, in; /* elements */
    uint64_t out_bytes, in_bytes;
    struct iovec iov[VHOST_PIECES];
};

struct vhost_ring {
    const struct vhost_memory *memory;
    volatile struct vring_entry *desc;
    volatile uint16_t *avail; /* flags, index, entries, event */
    volatile uint8_t *used;   /* flags, index, entries, event */
    uint16_t num, last_avail, used_idx;
    uint16_t signalled; /* used_idx at the last look whether to interrupt the guest */
    bool looked;        /* there was one */
    bool event_idx, indirect;
    const char *broken; /* why, or NULL */
};

/* Finds the parts of the ring in memory. -EINVAL: they are not there, or not aligned. */
int vhost_ring_map(struct vhost_ring *r, const struct vhost_addr *a);
/* 1: the next chain; 0: there is none; -1: the ring is broken. */
int vhost_ring_pop(struct vhost_ring *r, struct vhost_chain *c);
/* The chain that begins at c->head, which was popped in a life before. As above, never 0. */
int vhost_ring_take(struct vhost_ring *r, struct vhost_chain *c);
void vhost_ring_push(struct vhost_ring *r, uint16_t head, uint32_t written);
/* Is the guest to be interrupted for what has been pushed since the last call? */
bool vhost_ring_wants_call(struct vhost_ring *r);
/* Asks for a kick at the next chain. True: there is one already. */
bool vhost_ring_rest(struct vhost_ring *r);
/* Asks for none. */
void vhost_ring_busy(struct vhost_ring *r);
uint16_t vhost_ring_used(const struct vhost_ring *r);

#endif
