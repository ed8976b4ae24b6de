/* SPDX-License-Identifier: MIT */
/*
 * The fast path of requests that need no decision.
 */
#ifndef ZQ_OPS_FAST_H
#define ZQ_OPS_FAST_H

#include "loop/core.h"

/*
 * False: not for this request; nothing has begun, and only op->zone and length are written.
 * start: finish() follows. run: only where a thread that may block calls the backend; moves the
 * bytes before it returns, and is then finished, except for a write whose zone must commit others
 * first: finish() ends that one. The loop must run if an operation is ready then.
 */
bool zq_fast_start(struct zq_core *c, struct zq_op *op);
bool zq_fast_run(struct zq_core *c, struct zq_op *op);

#endif
