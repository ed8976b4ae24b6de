/* SPDX-License-Identifier: MIT */
/*
 * New clusters made whole.
 *
 * A fill belongs to its operation: prepared ones wait in op->fills, the one at work is op->fill,
 * and both are gone when the operation ends. It carries the record that gives its new clusters
 * back if it fails; once they are linked, the same record takes the old ones.
 */
#ifndef ZQ_SPACE_FILL_H
#define ZQ_SPACE_FILL_H

#include "loop/core.h"

/*
 * Gathers and reserves new clusters for [guest, guest + bytes), cluster-aligned, to replace `old`;
 * bytes may come out smaller. The last of op->fills then; the caller sets head, tail and data.
 */
int zq_fill_prepare(struct zq_core *c, struct zq_op *op, uint64_t guest, uint64_t bytes,
                    const struct zq_extent *old);
/* Begins the first of op->fills. */
void zq_fill_start(struct zq_op *op);
/* Moves kept content and data_len of the request's own bytes, links. ZQ_WAIT, 0, error. */
int zq_fill_step(struct zq_core *c, struct zq_op *op);
/* Gives back what was prepared and not begun. */
void zq_fills_drop(struct zq_core *c, struct zq_op *op);
static inline struct zq_fill *zq_fill_last(struct zq_op *op)
{
    return zq_container(op->fills.prev, struct zq_fill, link);
}

#endif
