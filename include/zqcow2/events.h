/* SPDX-License-Identifier: MIT */
/*
 * Events of an open image: what a program should know, though no result of a request says it. See
 * zqcow2_set_event_handler(3).
 */
#ifndef ZQCOW2_EVENTS_H
#define ZQCOW2_EVENTS_H

#include <zqcow2/zqcow2.h>

#ifdef __cplusplus
extern "C" {
#endif

enum zqcow2_event_kind {
    ZQCOW2_EVENT_DEAD = 1, /* error: the cause. All changes fail with EDEAD from now on */
    ZQCOW2_EVENT_CORRUPT,  /* offset: in the file. The image accepts no more changes */
    ZQCOW2_EVENT_NO_SPACE, /* error: of the host. A request failed for lack of space */
    ZQCOW2_EVENT_SPACE,    /* after NO_SPACE: a write or a flush has succeeded */
    /* offset, length: of a write, append, write_zeroes or discard that failed with error */
    ZQCOW2_EVENT_WRITE_ERROR,
    /* The zone that begins at offset has become FULL, RDONLY or OFFLINE; see state */
    ZQCOW2_EVENT_ZONE,
    /* error: EZONE_OPEN or EZONE_ACTIVE, which a request for the zone at offset got */
    ZQCOW2_EVENT_LIMIT,
    /*
     * zqcow2_zone_changes() has something to list; once after each call of it. offset, state: of
     * the zone that changed; both are 0 if a snapshot was applied
     */
    ZQCOW2_EVENT_ZONES_CHANGED
};

/* This struct has a fixed size. Members that an event does not use are 0. */
struct zqcow2_event {
    uint32_t kind; /* zqcow2_event_kind */
    int error;
    uint64_t offset, length; /* bytes of the device */
    uint32_t state;          /* zqcow2_zone_state */
    uint32_t lost;           /* events that were dropped before this one for lack of room */
};

/*
 * handler is called for each event from now on, one at a time and in their order; NULL: events are
 * dropped. It runs without a lock in a thread that is inside a call of the image or of its queues.
 * Any such call may deliver; zqcow2_queue_poll(), zqcow2_flush() and zqcow2_drain() deliver all
 * that happened before them. The handler must not call functions of the image or of its queues. At
 * most 64 events wait to be delivered. Any thread may call this function, and the handler before
 * may still run in another thread when it returns.
 */
ZQCOW2_API void
zqcow2_set_event_handler(struct zqcow2_image *img,
                         void (*handler)(void *arg, const struct zqcow2_event *event), void *arg);

#ifdef __cplusplus
}
#endif
#endif
