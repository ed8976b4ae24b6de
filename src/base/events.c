/* SPDX-License-Identifier: MIT */
/* Events that wait to be delivered. */
#include "base/events.h"

void zq_event_add(struct zq_events *e, const struct zqcow2_event *event)
{
    struct zqcow2_event *slot;

    if (!e || !e->handler)
        return;
    if (e->n == ZQ_EVENTS) { /* what came first explains the rest */
        e->lost++;
        return;
    }
    slot = &e->ring[(e->first + e->n++) % ZQ_EVENTS];
    *slot = *event;
    slot->lost = e->lost;
    e->lost = 0;
}

void zq_event_space(struct zq_events *e, int error)
{
    const struct zqcow2_event event = {.kind = error ? ZQCOW2_EVENT_NO_SPACE : ZQCOW2_EVENT_SPACE,
                                       .error = error};

    if (e->no_space == (error != 0))
        return;
    e->no_space = error != 0;
    zq_event_add(e, &event);
}

bool zq_event_take(struct zq_events *e, struct zqcow2_event *event)
{
    if (!e->n)
        return false;
    *event = e->ring[e->first];
    e->first = (e->first + 1) % ZQ_EVENTS;
    e->n--;
    return true;
}
