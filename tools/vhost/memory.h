/* SPDX-License-Identifier: MIT */
/*
 * Guest memory. The front-end shares it in regions; each has a guest address, by which descriptors
 * name it, and an address in the front-end, by which the messages about rings do.
 */
#ifndef ZQ_TOOLS_VHOST_MEMORY_H
#define ZQ_TOOLS_VHOST_MEMORY_H

#include <stddef.h>

#include "vhost/wire.h"

#define VHOST_SLOTS 256u

struct vhost_region {
    uint64_t guest, size, user;
    uint8_t *at; /* its first byte */
    void *map;   /* what is mapped may begin before it */
    size_t mapped;
};

struct vhost_memory {
    struct vhost_region region[VHOST_SLOTS];
    unsigned n;
};

/* Maps a region of the file behind `fd`, which stays the caller's. -EINVAL: it cannot be right. */
int vhost_memory_add(struct vhost_memory *m, const struct vhost_mem_region *r, int fd);
int vhost_memory_remove(struct vhost_memory *m, const struct vhost_mem_region *r);
void vhost_memory_clear(struct vhost_memory *m);

/* `size` bytes at an address of the front-end, all in one region; NULL: there are none. */
uint8_t *vhost_memory_user(const struct vhost_memory *m, uint64_t user, uint64_t size);
/* At a guest address: *at, and how many of `size` bytes lie there in a row; 0: none. */
uint64_t vhost_memory_guest(const struct vhost_memory *m, uint64_t guest, uint64_t size,
                            uint8_t **at);

#endif
