/* SPDX-License-Identifier: MIT */
/*
 * The fast path: a request about which there is nothing to decide.
 */
#ifndef ZQ_OPS_FAST_H
#define ZQ_OPS_FAST_H

#include "loop/core.h"

/*
 * False: not for this request; nothing has begun, and only op->zone and length are written.
 * start: finish() follows. run: over a blocking backend only; moves the bytes before it returns,
 * and is then finished, but for a write whose zone has others to commit first: that finishes by
 * finish().
 */
bool zq_direct_start(struct zq_core *c, struct zq_op *op);
bool zq_direct_run(struct zq_core *c, struct zq_op *op);

#endif
