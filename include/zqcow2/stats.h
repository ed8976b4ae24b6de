/* SPDX-License-Identifier: MIT */
/*
 * Statistics of an open image: which requests were made, how long they took, and what the library
 * did to carry them out. All counters (every member except zones) are 0 when the image is opened.
 * They never decrease, except across a hand-over: see zqcow2_activate(3). See zqcow2_get_stats(3).
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
    uint64_t requests; /* completed requests, including those that failed */
    uint64_t errors;   /* requests that failed */
    uint64_t bytes;    /* total length of successful requests; 0 for flush, drain and set_state */
    /*
     * For the requests that were submitted while time was measured: the sum of their times in
     * nanoseconds, and in latency[i] the number that took from 2^i to less than 2^(i + 1) ns. The
     * first element also counts shorter times, the last element also longer ones.
     */
    uint64_t nanoseconds;
    uint64_t latency[ZQCOW2_STATS_BUCKETS];
};

struct zqcow2_stats {
    size_t size;
    uint64_t rounds;      /* write-backs of the metadata; each makes all earlier changes durable */
    uint64_t flushes;     /* flush calls to the backends of the image and of its data file */
    uint64_t cache_hits;  /* look-ups of metadata that was in memory */
    uint64_t cache_loads; /* pieces of metadata read from the file */
    uint64_t implicit_closes; /* zones closed because of max_open_zones, to open another zone */
    uint32_t zones[ZQCOW2_STATS_STATES]; /* the number of zones that are in each state now */
    struct zqcow2_op_stats op[ZQCOW2_STATS_OPS];
};

/*
 * Fills *stats with the sums over the blocking calls and all queues, including closed ones. Set
 * stats->size to sizeof(struct zqcow2_stats). Any thread may call this at any time. Each counter is
 * exact, but requests may complete while the call reads one counter after another.
 * -EINVAL: stats->size is smaller than the first version of this struct.
 */
ZQCOW2_API int zqcow2_get_stats(struct zqcow2_image *img, struct zqcow2_stats *stats);
/*
 * Does the same for one queue: fills in stats->op and sets the other members, except size, to 0.
 * Call it only from the thread that uses the queue.
 */
ZQCOW2_API int zqcow2_queue_get_stats(struct zqcow2_queue *q, struct zqcow2_stats *stats);
/*
 * Turns on or off the measurement of the time of requests, from submission to completion (not to
 * the call of done()). It is off after an open, because it reads the clock once or twice per
 * request.
 */
ZQCOW2_API void zqcow2_measure_time(struct zqcow2_image *img, bool on);

#ifdef __cplusplus
}
#endif
#endif
