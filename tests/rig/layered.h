/* SPDX-License-Identifier: MIT */
/* A zoned image on one whose zones are in every state, and what it must hold. */
#ifndef RIG_LAYERED_H
#define RIG_LAYERED_H

#include "rig/raw.h"
#include "rig/rig.h"

#define Z KiB(64)
#define C 4096u /* a cluster of the overlay; the source's have 8 KiB */

/* What the source's zones were left as: left_at, in bytes from the start, all written by 1. */
enum { CONV, EMPTY, INSIDE, EDGE, WRITTEN, FINISHED, OPENED, RESET };
#define AT_INSIDE (C + 3 * 512) /* in a cluster of both */
#define AT_EDGE   (6 * C)
extern const uint64_t left_at[];

/* An overlay with the source's states, open for writing. */
void stack(struct rig *r);
void reopen(struct rig *r);
void on_zone(struct rig *r, int op, uint32_t zone);
/* Zone i: the source's up to `from`, written by 2 up to `to`, zeros behind. */
void holds(struct rig *r, uint32_t i, uint64_t from, uint64_t to);
void zone_is(struct rig *r, uint32_t i, uint32_t state, uint64_t wp);
/* Of block status. */
uint32_t depth_at(struct rig *r, uint64_t off, uint32_t *kind);
/* Does the file of the overlay itself have an entry for the cluster? */
bool is_own(struct rig *r, uint64_t off);

#endif
