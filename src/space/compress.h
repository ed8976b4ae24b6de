/* SPDX-License-Identifier: MIT */
/*
 * Clusters that are written compressed.
 */
#ifndef ZQ_SPACE_COMPRESS_H
#define ZQ_SPACE_COMPRESS_H

#include "loop/core.h"

/*
 * Makes the cluster at guest, with the request's bytes from op's cursor on, and moves the cursor
 * on: compressed if that saves a sector, else as it is. It is in op->made then, to be linked. old:
 * what the cluster maps to. level: of the codec; 0: its default. ZQ_WAIT, 0, error; to be called
 * with the same cluster until it is 0.
 */
int zq_compress_step(struct zq_core *c, struct zq_op *op, uint64_t guest,
                     const struct zq_extent *old, int level);
/* Has a cluster been begun? Then `old` is not asked for any more. */
static inline bool zq_compress_is_begun(const struct zq_op *op)
{
    return (op->req.flags & ZQCOW2_COMPRESS) && !zq_list_empty(&op->fills);
}
/* Has the cluster been packed, and does that save nothing? */
bool zq_compress_is_futile(const struct zq_op *op);

#endif
