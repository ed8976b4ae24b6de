/* SPDX-License-Identifier: MIT */
/* A sparse file in memory, the floor of every backend of the rig. */
#ifndef RIG_STORE_H
#define RIG_STORE_H

#include <pthread.h>
#include <zqcow2/backend.h>

/* A backend in the making: wrappers stand on one and are one. Neither owns the other. */
struct rig_be {
    const struct zqcow2_backend_ops *ops;
    void *self;
};

#define STORE_PAGE 65536u
#define STORE_HOLE 0xdb /* what a discarded byte reads as: nobody may rely on it */

struct store {
    pthread_mutex_t lock;
    uint64_t length;
    uint8_t **page;              /* NULL: zeros */
    uint64_t nr_pages;           /* room in page[] */
    int lock_mode;               /* the last one asked for */
    int yields;                  /* hand the processor on inside calls, for the threads' sake */
    struct zqcow2_limits limits; /* zero members: the library's defaults */
};

void store_init(struct store *s);
void store_free(struct store *s);
void store_copy(struct store *to, const struct store *from);
struct rig_be store_be(struct store *s);

/* Outside of any backend: what a test pokes into or reads from the file. */
void store_get(struct store *s, void *buf, size_t len, uint64_t off);
void store_put(struct store *s, const void *buf, size_t len, uint64_t off);
/* Pages that become zeros as a whole are given back. */
void store_zero(struct store *s, uint64_t len, uint64_t off);

#endif
