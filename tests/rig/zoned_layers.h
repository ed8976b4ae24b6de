/* SPDX-License-Identifier: MIT */
/* Layers with zones, for tests of what moves data between them. */
#ifndef RIG_ZONED_LAYERS_H
#define RIG_ZONED_LAYERS_H

#include "rig/commits.h"

#define CAPACITY KiB(60)

extern uint32_t zoned_most_active; /* below the top; 0: no limit */

/* All three, each on the one below it. */
void zoned_make(struct commits *c);
/* So many times it is opened, and acted on at random. */
void zoned_write_some(struct commits *c, unsigned which, unsigned sessions);
/* Bytes, write pointers, states and descriptor extensions. */
void zoned_reads_as(struct commits *c, unsigned which, const char *what, const struct layer *want);

#endif
