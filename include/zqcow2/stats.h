/* SPDX-License-Identifier: MIT */
/*
 * Statistics of an open image: what was requested, how long it took, and what the library did for
 * it. All counters begin at 0 when the image is opened, and never decrease, except across a
 * hand-over: see zqcow2_activate(3). See zqcow2_get_stats(3).
 */
#ifndef ZQCOW2_STATS_H
#define ZQCOW2_STATS_H

#include <stdbool.h>

#include <zqcow2/queue.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    ZQCOW2_STATS_OPS = 32,     /* elements of stats.op; zqcow2_op is the index */
    ZQCOW2_STATS_BUCKETS = 40, /* elements of a histogram */
    ZQCOW2_STATS_STATES = 16   /* elements of stats.zones; zqcow2_zone_state is the index */
};

struct zqcow2_op_stats {
    uint64_t requests; /* that have been completed, including those that failed */
    uint64_t errors;   /* those that failed */
    uint64_t bytes;    /* the lengths of those that succeeded; 0 for flush, drain and set_state */
    /*
     * The times of those that were submitted while time was measured: their sum in nanoseconds, and
     * how many took from 2^i to less than 2^(i + 1) ns. Element 0 also counts shorter times, the
     * last element also longer ones.
     */
    uint64_t nanoseconds;
    uint64_t latency[ZQCOW2_STATS_BUCKETS];
};

struct zqcow2_stats {
    size_t size;
    uint64_t rounds;  /* passes over the metadata, each of which makes all changes so far durable */
    uint64_t flushes; /* flush calls to the backends of the image and of its data file */
    uint64_t cache_hits;      /* look-ups of metadata that memory could answer */
    uint64_t cache_loads;     /* pieces of metadata that were read from the file */
    uint64_t implicit_closes; /* zones closed to open another, for the limit on open zones */
    uint32_t zones[ZQCOW2_STATS_STATES]; /* how many are in each state now */
    struct zqcow2_op_stats op[ZQCOW2_STATS_OPS];
};

/*
 * Fills *stats with the sums over all queues, those that have been closed included, and over the
 * blocking calls. Set stats->size to sizeof(struct zqcow2_stats). Any thread may call this at any
 * time; each counter is exact, but requests may complete between the reading of one and the next.
 * -EINVAL: the size is smaller than that of the first version of this struct.
 */
ZQCOW2_API int zqcow2_get_stats(struct zqcow2_image *img, struct zqcow2_stats *stats);
/* The same of one queue: only stats->op, all else is 0. In the thread that uses the queue. */
ZQCOW2_API int zqcow2_queue_get_stats(struct zqcow2_queue *q, struct zqcow2_stats *stats);
/*
 * Begins or ends measuring the time of requests, from submission to completion (not to the call of
 * done()). It is not measured after open: it costs one or two readings of the clock per request.
 */
ZQCOW2_API void zqcow2_measure_time(struct zqcow2_image *img, bool on);

#ifdef __cplusplus
}
#endif
#endif
