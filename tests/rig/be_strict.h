/* SPDX-License-Identifier: MIT */
/* A blocking backend over the store that keeps account of every limit that a call breaks. */
#ifndef RIG_BE_STRICT_H
#define RIG_BE_STRICT_H

#include <stdatomic.h>
#include <stdbool.h>
#include "rig/store.h"

struct strict {
    struct store *store; /* its limits are those that count */
    pthread_mutex_t lock;
    atomic_bool live; /* an image is open: whole sectors only */
    uint64_t calls, broken;
    char why[200]; /* the first complaint, or "" */
};

void strict_init(struct strict *s, struct store *store);
void strict_free(struct strict *s);
struct rig_be strict_be(struct strict *s);

#endif
