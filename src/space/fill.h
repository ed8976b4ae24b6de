/* SPDX-License-Identifier: MIT */
/*
 * Clusters made whole, before they are linked.
 *
 * A fill belongs to its operation: prepared ones wait in op->fills, the one at work is op->fill,
 * those that are whole wait in op->made to be linked, and all are gone when the operation ends. It
 * carries the record that gives its new clusters back if it fails; once they are linked, the same
 * record takes the old ones.
 */
#ifndef ZQ_SPACE_FILL_H
#define ZQ_SPACE_FILL_H

#include "loop/core.h"

/*
 * Gathers and reserves clusters for the guest bytes [at, end), or a first part of them: those that
 * the request writes. What else these clusters have content for is kept, and so is the rest of a
 * unit that is written in part. *old: the extent at `at`. The last of op->fills then, [head, tail)
 * of it what is to be written; the caller sets the data.
 */
int zq_fill_prepare(struct zq_core *c, struct zq_op *op, uint64_t at, uint64_t end,
                    const struct zq_extent *old);
/* Has the cluster room for units that have no content yet? It must not be shared. */
static inline bool zq_fill_has_room(const struct zq_extent *e)
{
    return e->l2.len && e->l2.copied;
}
/* An empty one for a cluster, the last of op->fills, which has nothing in the file yet. Or NULL. */
struct zq_fill *zq_fill_new(struct zq_core *c, struct zq_op *op, uint64_t guest,
                            const struct zq_extent *old);
/* All of its cluster is in the file: into op->made. */
void zq_fill_set_made(struct zq_core *c, struct zq_op *op, struct zq_fill *f);
/* Begins the first of op->fills. */
void zq_fill_start(struct zq_op *op);
/* Moves kept content and data_len of the request's own bytes. ZQ_WAIT, 0, error. */
int zq_fill_step(struct zq_core *c, struct zq_op *op);
/* Links the first of op->made. */
int zq_fill_link(struct zq_core *c, struct zq_op *op);
/* Both, for an operation that has one fill. */
int zq_fill_replace(struct zq_core *c, struct zq_op *op);
/*
 * A new cluster takes the place of the one at guest, which cannot be written in place: with its
 * head [0, head), from the old one, the source, or zeros (S8); what is behind that is not set.
 */
int zq_fill_own(struct zq_core *c, struct zq_op *op, uint64_t guest, uint64_t head,
                const struct zq_extent *old);
/* op->slices: the request will change the slice of `guest`, which is not below the last one. */
void zq_count_slice(struct zq_core *c, struct zq_op *op, uint64_t guest);
/* Gives back what was prepared and not linked. */
void zq_fills_drop(struct zq_core *c, struct zq_op *op);
/* The first that is whole, or NULL. */
static inline struct zq_fill *zq_fill_made(const struct zq_op *op)
{
    return zq_list_empty(&op->made) ? NULL : zq_container(op->made.next, struct zq_fill, link);
}
static inline bool zq_fill_is_pending(const struct zq_op *op)
{
    return op->fill || zq_fill_made(op);
}
static inline struct zq_fill *zq_fill_last(struct zq_op *op)
{
    return zq_container(op->fills.prev, struct zq_fill, link);
}

#endif
