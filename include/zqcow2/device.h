/* SPDX-License-Identifier: MIT */
/*
 * Calls for device models: the limits that a device announces, reports of zones in chosen states,
 * and the zones that have changed without a request of the guest. See zqcow2_get_io_limits(3) and
 * zqcow2_zone_report(3). None of them does I/O, and any thread may use them at any time. They
 * return EINACTIVE while an image is inactive (<zqcow2/handover.h>).
 */
#ifndef ZQCOW2_DEVICE_H
#define ZQCOW2_DEVICE_H

#include <zqcow2/zqcow2.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- limits ---- */

enum zqcow2_io_limits_flag {
    ZQCOW2_LIMITS_DISCARD = 1 << 0, /* discards work: outside sequential zones */
    ZQCOW2_LIMITS_UNMAP = 1 << 1    /* a write of zeros may free space */
};

/* In bytes. */
struct zqcow2_io_limits {
    size_t size;
    uint32_t flags;          /* zqcow2_io_limits_flag */
    uint32_t block_size;     /* offsets and lengths are multiples of it: 512 or 4096, as opened */
    uint32_t physical_block; /* of the host: a smaller write may have to read first */
    uint32_t optimal_io;     /* aligned writes of multiples of it copy nothing */
    uint32_t discard_granularity;     /* a discard frees whole units of this size, aligned to it */
    uint32_t zeroes_granularity;      /* with LIMITS_UNMAP, units of this size are only marked as
                                         zeros; without it, all zeros are written */
    uint64_t max_discard, max_zeroes; /* of a request that is done at once; a longer one is
                                         accepted, but takes longer, and may have been done in part
                                         when the host is full */
};
#define ZQCOW2_IO_LIMITS_INIT \
    { \
        sizeof(struct zqcow2_io_limits), 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/* -EINVAL: the size is smaller than that of the first version of this struct. */
ZQCOW2_API int zqcow2_get_io_limits(struct zqcow2_image *img, struct zqcow2_io_limits *limits);

/* ---- zones ---- */

/* A zqcow2_zone_state in a set of states. */
#define ZQCOW2_STATE_BIT(state) (1u << (state))

/*
 * Finds zones that are in one of the states, beginning with the zone that contains *off. states: a
 * sum of ZQCOW2_STATE_BIT(); 0: all. On entry *nr is the number of elements in zones[]; on success
 * it is the number of zones that were found, and *off is where the next call goes on: at the size
 * of the device there are no more. zones NULL: the zones are counted, and *nr is only set. A call
 * looks at no more than 4,096 zones, so it may find none although there are more. -EINVAL: *off is
 * at or beyond the end of the device, or states has other bits.
 */
ZQCOW2_API int zqcow2_zone_find(struct zqcow2_image *img, uint64_t *off, uint32_t states,
                                struct zqcow2_zone *zones, uint32_t *nr);

/*
 * Stores in offs[] the starts of the zones that zqcow2_zone_set_state() has changed after the
 * moment *since, in ascending order. 0 is the moment of the open. On entry *nr is the number of
 * elements; on success it is the number of zones. On success and after -EOVERFLOW, *since is now.
 * -EOVERFLOW: there are more than that, or more than 511, or a snapshot was applied, or the image
 * was activated: look at all zones. -EINVAL: *since is none of this image. After each call the next
 * change is also an event, ZQCOW2_EVENT_ZONES_CHANGED.
 */
ZQCOW2_API int zqcow2_zone_changes(struct zqcow2_image *img, uint64_t *since, uint64_t *offs,
                                   uint32_t *nr);

#ifdef __cplusplus
}
#endif
#endif
