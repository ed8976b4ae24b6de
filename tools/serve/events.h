/* SPDX-License-Identifier: MIT */
/* The last events of a served image, for the log and for the control socket. */
#ifndef ZQ_TOOLS_SERVE_EVENTS_H
#define ZQ_TOOLS_SERVE_EVENTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <zqcow2/events.h>

#define SERVE_EVENTS 64u

struct serve_events {
    pthread_mutex_t lock; /* of what follows */
    uint64_t n;           /* so far; the last SERVE_EVENTS are kept */
    struct {
        time_t at;
        struct zqcow2_event event;
    } last[SERVE_EVENTS];
};

void serve_events_init(struct serve_events *s);
void serve_events_add(struct serve_events *s, const struct zqcow2_event *event);
/* A line for each, the oldest first: its number, its time, and what happened. */
void serve_events_write(struct serve_events *s, FILE *out);
/* What happened. */
const char *serve_event_text(const struct zqcow2_event *event, char *buf, size_t room);
/* Is it of the host? Such an event is logged, unless the library has done so. */
bool serve_event_is_logged(const struct zqcow2_event *event);

#endif
