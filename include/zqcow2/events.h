/* SPDX-License-Identifier: MIT */
/*
 * Events of an open image: failures and changes of state that a program may want to learn of in one
 * place, including some that no request reports. See zqcow2_set_event_handler(3).
 */
#ifndef ZQCOW2_EVENTS_H
#define ZQCOW2_EVENTS_H

#include <zqcow2/zqcow2.h>

#ifdef __cplusplus
extern "C" {
#endif

enum zqcow2_event_kind {
    ZQCOW2_EVENT_DEAD = 1, /* all changes fail with EDEAD from now on. error: the cause */
    ZQCOW2_EVENT_CORRUPT,  /* all changes fail with ECORRUPT from now on. offset: the place in the
                              file */
    ZQCOW2_EVENT_NO_SPACE, /* a request failed for lack of space. error: that of the host */
    ZQCOW2_EVENT_SPACE,    /* after NO_SPACE: a write or a flush has succeeded */
    /* A write, append, write_zeroes or discard failed with error. offset, length: its range */
    ZQCOW2_EVENT_WRITE_ERROR,
    /* The zone that begins at offset has become FULL, RDONLY or OFFLINE; see state */
    ZQCOW2_EVENT_ZONE,
    /* A request for the zone at offset failed. error: EZONE_OPEN or EZONE_ACTIVE */
    ZQCOW2_EVENT_LIMIT,
    /*
     * The first change since a call of zqcow2_zone_changes(). offset, state: those of the zone that
     * changed; both are 0 if a snapshot was applied or the image was activated
     */
    ZQCOW2_EVENT_ZONES_CHANGED
};

/* This struct has a fixed size. Members that an event does not use are 0. */
struct zqcow2_event {
    uint32_t kind; /* zqcow2_event_kind */
    int error;
    uint64_t offset, length; /* bytes of the device; with CORRUPT, of the file */
    uint32_t state;          /* zqcow2_zone_state */
    uint32_t lost;           /* number of events dropped before this one, for lack of room */
};

/*
 * From now on, handler is called for each event, one at a time and in the order of the events.
 * NULL: events are dropped. The handler runs in a thread that is inside a call on the image or on
 * one of its queues, with no library lock held; it must not make such calls itself. Any such call
 * may deliver events; zqcow2_queue_poll(), zqcow2_flush() and zqcow2_drain() deliver all earlier
 * ones. At most 64 events wait for delivery; further ones are dropped. Any thread may call this
 * function. When it returns, the previous handler may still be running in another thread.
 */
ZQCOW2_API void
zqcow2_set_event_handler(struct zqcow2_image *img,
                         void (*handler)(void *arg, const struct zqcow2_event *event), void *arg);

#ifdef __cplusplus
}
#endif
#endif
