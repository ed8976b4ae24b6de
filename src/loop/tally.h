/* SPDX-License-Identifier: MIT */
/*
 * Counts of completed requests. One tally belongs to each queue and one to the blocking calls; all
 * are guarded by the image's mutex, which a request holds anyway when it ends.
 */
#ifndef ZQ_LOOP_TALLY_H
#define ZQ_LOOP_TALLY_H

#include <zqcow2/stats.h>
#include "base/report.h"
#include "loop/op.h"

#define ZQ_TALLY_KINDS (ZQCOW2_OP_ZONE_GET_DESCRIPTORS + 1)

struct zq_tally {
    /* By kind, those that succeeded and those that failed: counting takes no branch. */
    struct zq_count {
        uint64_t requests, bytes;
    } of[ZQ_TALLY_KINDS][2];
    struct {
        uint64_t nanoseconds, latency[ZQCOW2_STATS_BUCKETS];
    } time[ZQ_TALLY_KINDS];
};

/* Nanoseconds, monotonic, never 0. */
uint64_t zq_tally_now(void);
/* op, which was submitted at `begun`, is complete now. */
void zq_tally_time(struct zq_tally *t, const struct zq_op *op, uint64_t begun);

/* op has its result. Inline: it is on the way of every request. */
static inline void zq_tally_add(struct zq_tally *t, const struct zq_op *op)
{
    struct zq_count *n = &t->of[op->req.op][(uint32_t)op->res.ret >> 31];

    zq_assert(op->req.op < ZQ_TALLY_KINDS && op->res.ret <= 0);
    n->requests++;
    n->bytes += op->length;
}
/* Adds all of it to what `into` has. */
void zq_tally_merge(struct zq_tally *into, const struct zq_tally *t);
/* The same in the public form: sum[ZQ_TALLY_KINDS]. */
void zq_tally_sum(const struct zq_tally *t, struct zqcow2_op_stats *sum);

#endif
