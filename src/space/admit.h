/* SPDX-License-Identifier: MIT */
/*
 * What stands between an operation and a zone: turns, room, durable resets.
 *
 * Every function here that can wait parks the operation and returns ZQ_WAIT; the caller enters
 * again from its top and asks the same questions in the same order. The turn is the only thing
 * that a waiting operation keeps: it makes the answers that it got before still true.
 */
#ifndef ZQ_SPACE_ADMIT_H
#define ZQ_SPACE_ADMIT_H

#include "loop/core.h"

/* E1: joins the zone's queue once, and waits to be its head. -ENOMEM: there is no queue. */
int zq_turn_take(struct zq_core *c, struct zq_op *op, uint32_t zone);
/* Wakes the next one in the queue, if this operation was its head. */
void zq_turn_leave(struct zq_core *c, struct zq_op *op);
/* ZQ_WAIT until the zone has no reservation and nothing else in its way. */
int zq_await_drained(struct zq_core *c, struct zq_op *op, uint32_t zone);
/* The same, but reservations of others may be under way: enough for one more write. */
int zq_await_admissible(struct zq_core *c, struct zq_op *op, uint32_t zone);
/* Room for the verdict; waits for the victim of an implicit close to drain. */
int zq_room_get(struct zq_core *c, struct zq_op *op, uint32_t zone, const struct zq_verdict *v,
                uint32_t *victim);
/* Closes the victim, in the hold of the mutex in which the room was found: nobody is between. */
void zq_room_use(struct zq_core *c, struct zq_op *op, uint32_t victim);
/* An operation that ends otherwise must not leave its victim closed to writers. */
void zq_closing_drop(struct zq_core *c, struct zq_op *op);
/* R2: nothing new before `start` is durable and the readers of the earlier life are gone. */
int zq_await_reset(struct zq_core *c, struct zq_op *op, uint32_t zone);
/* R12: nothing is allocated before the mark is durable. */
int zq_may_allocate(struct zq_core *c, struct zq_op *op);
/*
 * B1: the device's bytes [from, from + len) are marked in each bitmap that is kept, and the flags
 * that say so are durable. Asked before the bytes change; what fails later costs a mark.
 */
int zq_may_change(struct zq_core *c, struct zq_op *op, uint64_t from, uint64_t len);
/*
 * From now on until close, the dirty bit stands in for a mark that the image does not have: what
 * follows leaves in a crash is looked for. Version 2 has neither. Nothing else is in progress.
 */
void zq_mark_by_dirty(struct zq_core *c);

/*
 * R14: from now on no other request changes the mapping of the request's guest clusters, until it
 * releases them. Waits holding nothing.
 */
int zq_range_take(struct zq_core *c, struct zq_op *op);
/* Wakes all that wait for any range. Also where none is held. */
void zq_range_leave(struct zq_core *c, struct zq_op *op);

#endif
