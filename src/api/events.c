/* SPDX-License-Identifier: MIT */
/* The handler of events. What waits for the one before is not for the new one. */
#include "image/image.h"

void zqcow2_set_event_handler(struct zqcow2_image *img,
                              void (*handler)(void *arg, const struct zqcow2_event *event),
                              void *arg)
{
    struct zq_events *e = &img->core.events;

    zq_core_lock(&img->core);
    e->handler = handler;
    e->arg = arg;
    e->n = e->lost = 0;
    e->no_space = false;
    zq_core_unlock(&img->core);
}
