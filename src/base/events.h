/* SPDX-License-Identifier: MIT */
/*
 * Events that wait to be delivered: a ring of fixed size, guarded by the image's mutex. An
 * event is added where it is noticed, and the loop calls the handler without the mutex. Without a
 * handler nothing is kept.
 */
#ifndef ZQ_BASE_EVENTS_H
#define ZQ_BASE_EVENTS_H

#include <stdbool.h>
#include <zqcow2/events.h>

#define ZQ_EVENTS 64u

struct zq_events {
    void (*handler)(void *arg, const struct zqcow2_event *event);
    void *arg;
    struct zqcow2_event ring[ZQ_EVENTS];
    uint32_t first, n; /* the oldest; how many */
    uint32_t lost;     /* since the newest was added */
    bool delivering;   /* a thread does, so that they come in order */
    bool no_space;     /* NO_SPACE was the last that was said of it */
};

/* e NULL: nobody wants it, as in a test of one layer. */
void zq_event_add(struct zq_events *e, const struct zqcow2_event *event);
/* Space was missing, or a write has succeeded. Only a change is an event. */
void zq_event_space(struct zq_events *e, int error);
/* Takes the oldest one out; false: there is none. */
bool zq_event_take(struct zq_events *e, struct zqcow2_event *event);

#endif
