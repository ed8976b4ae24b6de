/* SPDX-License-Identifier: MIT */
/*
 * Calls for device models: the limits that a device announces to its guest, the zones that are in
 * certain states, and the zones that changed without a request from the guest. See
 * zqcow2_get_io_limits(3) and zqcow2_zone_report(3). These calls do no I/O. Any thread may make
 * them at any time. While an image is inactive, they return EINACTIVE (<zqcow2/handover.h>).
 */
#ifndef ZQCOW2_DEVICE_H
#define ZQCOW2_DEVICE_H

#include <zqcow2/zqcow2.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- limits ---- */

enum zqcow2_io_limits_flag {
    ZQCOW2_LIMITS_DISCARD = 1 << 0, /* discards are accepted outside sequential zones */
    ZQCOW2_LIMITS_UNMAP = 1 << 1    /* a write of zeros may free space */
};

/* All sizes are in bytes. */
struct zqcow2_io_limits {
    size_t size;
    uint32_t flags;          /* zqcow2_io_limits_flag */
    uint32_t block_size;     /* of the image as opened, 512 or 4096: the unit of requests */
    uint32_t physical_block; /* block size of the host. A smaller write may cost the host a
                                read-modify-write */
    uint32_t optimal_io;     /* an aligned write of a multiple of this size copies no other data */
    uint32_t discard_granularity;     /* a discard frees whole, aligned units of this size */
    uint32_t zeroes_granularity;      /* with LIMITS_UNMAP, whole units of this size are only marked
                                         as zeros; without it, all zeros are written */
    uint64_t max_discard, max_zeroes; /* the longest request that is done in one step; 0: none is
                                         allowed. A longer request is accepted, but takes longer
                                         and, if the host is full, may have been done in part */
};
#define ZQCOW2_IO_LIMITS_INIT \
    { \
        sizeof(struct zqcow2_io_limits), 0, 0, 0, 0, 0, 0, 0, 0 \
    }

/* Set limits->size first. -EINVAL: it is smaller than the first version of this struct. */
ZQCOW2_API int zqcow2_get_io_limits(struct zqcow2_image *img, struct zqcow2_io_limits *limits);

/* ---- zones ---- */

/* The bit of a zqcow2_zone_state in a set of states. */
#define ZQCOW2_STATE_BIT(state) (1u << (state))

/*
 * Finds the zones that are in one of the given states, beginning with the zone that contains *off.
 * states: a sum of ZQCOW2_STATE_BIT(); 0: all. On entry *nr is the number of elements in zones[].
 * On success it is the number of zones found, and *off is the offset to pass to the next call; when
 * *off is the size of the device, no zones remain. zones NULL: the zones are only counted, and *nr
 * on entry is ignored. A call examines at most 4,096 zones, so it may find none although more
 * follow; to count zones from the first one on takes one call. -EINVAL: *off is at or beyond the
 * end of the device, or states has unknown bits.
 */
ZQCOW2_API int zqcow2_zone_find(struct zqcow2_image *img, uint64_t *off, uint32_t states,
                                struct zqcow2_zone *zones, uint32_t *nr);

/*
 * Stores in offs[], in ascending order, the starts of the zones that zqcow2_zone_set_state() has
 * changed since an earlier call. *since identifies that call; 0 stands for the open. The call sets
 * *since for the next call, also if it returns -EOVERFLOW. On entry *nr is the number of elements
 * in offs[]; on success it is the number of zones stored. -EOVERFLOW: offs[] is too small, more
 * than 511 zones have changed, a snapshot was applied, or the image was activated; the caller must
 * examine all zones. -EINVAL: *since did not come from this image. The first change after each call
 * is also reported as an event, ZQCOW2_EVENT_ZONES_CHANGED.
 */
ZQCOW2_API int zqcow2_zone_changes(struct zqcow2_image *img, uint64_t *since, uint64_t *offs,
                                   uint32_t *nr);

#ifdef __cplusplus
}
#endif
#endif
