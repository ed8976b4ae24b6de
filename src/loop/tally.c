/* SPDX-License-Identifier: MIT */
#include "loop/tally.h"

#include "base/bytes.h"
#include "base/os.h"
#include "base/report.h"

uint64_t zq_tally_now(void)
{
    struct timespec ts;

    clock_gettime(ZQ_WAIT_CLOCK, &ts);
    return ((uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec) | 1;
}

static unsigned bucket_of(uint64_t ns)
{
    unsigned i = 0;

    while (ns >>= 1)
        i++;
    return i < ZQCOW2_STATS_BUCKETS ? i : ZQCOW2_STATS_BUCKETS - 1;
}

void zq_tally_time(struct zq_tally *t, const struct zq_op *op, uint64_t begun)
{
    uint64_t ns = zq_tally_now() - begun;

    zq_assert(op->req.op < ZQ_TALLY_KINDS && begun);
    t->time[op->req.op].nanoseconds += ns;
    t->time[op->req.op].latency[bucket_of(ns)]++;
}

/* Nothing but counters. */
void zq_tally_merge(struct zq_tally *into, const struct zq_tally *t)
{
    uint64_t *to = (uint64_t *)into;
    const uint64_t *from = (const uint64_t *)t;

    for (size_t i = 0; i < sizeof(*t) / sizeof(*from); i++)
        to[i] += from[i];
}

void zq_tally_sum(const struct zq_tally *t, struct zqcow2_op_stats *sum)
{
    for (unsigned k = 0; k < ZQ_TALLY_KINDS; k++) {
        const struct zq_count *good = &t->of[k][0], *bad = &t->of[k][1];

        sum[k].requests += good->requests + bad->requests;
        sum[k].errors += bad->requests;
        sum[k].bytes += good->bytes;
        sum[k].nanoseconds += t->time[k].nanoseconds;
        for (unsigned i = 0; i < ZQCOW2_STATS_BUCKETS; i++)
            sum[k].latency[i] += t->time[k].latency[i];
    }
}
