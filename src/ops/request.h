/* SPDX-License-Identifier: MIT */
/*
 * Requests, from their beginning to their result.
 *
 * The structure that embeds a zq_op owns its memory and sets req and finish; between zq_op_begin()
 * and finish() nothing in it may be touched. finish() runs under the mutex: it may hand the
 * operation on, but not call the user.
 */
#ifndef ZQ_OPS_REQUEST_H
#define ZQ_OPS_REQUEST_H

#include <errno.h>
#include "loop/core.h"

/* The request layer, for the loop of a core; and of one that is not active. */
extern const struct zq_upper zq_request_upper, zq_inactive_upper;

/*
 * Only what makes a request unreadable is refused here: it has no result. All else is a result of
 * the request itself.
 */
static inline int zq_request_check_form(const struct zqcow2_request *r)
{
    if (r->size != sizeof(*r) || r->reserved || r->op > ZQCOW2_OP_ZONE_GET_DESCRIPTORS)
        return -EINVAL;
    return 0;
}
/*
 * The first step of every operation: waits while another one has the image for itself (N8). Then it
 * has begun, and is counted in nr_ops, also if this is EINACTIVE.
 */
int zq_op_admit(struct zq_core *c, struct zq_op *op);
/* Checks the request and lets the operation go. finish() follows sooner or later. */
void zq_op_begin(struct zq_core *c, struct zq_op *op);
/* Begins, works and waits until it is finished. */
int zq_op_run_blocking(struct zq_core *c, struct zq_op *op);
/* The same for work on snapshots, which is no request: it counts itself in nr_ops. */
int zq_op_run_alone(struct zq_core *c, struct zq_op *op, zq_step *step, zq_release *release,
                    struct zq_snap *what);

#endif
