/* SPDX-License-Identifier: MIT */
/*
 * What an image has to say for itself: lines of the log, and events. The mutex is let go meanwhile,
 * so each is marked as said before it is.
 */
#include <inttypes.h>
#include "base/report.h"
#include "loop/core.h"

static void report_death(struct zq_core *c)
{
    uint64_t had = c->alloc.file_size, has;

    c->death_logged = true;
    zq_core_unlock(c);
    if (zq_be_length(c->be, &has) == 0 && has < had)
        zq_log(&c->hooks, ZQCOW2_LOG_ERROR,
               "another program truncated the file to %" PRIu64 " of %" PRIu64 " bytes: the image "
               "accepts no more writes",
               has, had);
    else
        zq_log(&c->hooks, ZQCOW2_LOG_ERROR,
               "a flush or a metadata write failed (%s): the image accepts no more writes",
               zqcow2_strerror(c->dead_rc));
    zq_core_lock(c);
}

static void report_corruption(struct zq_core *c)
{
    uint64_t at = c->alloc.corrupt_at;

    c->corrupt_logged = true;
    zq_core_unlock(c);
    zq_log(&c->hooks, ZQCOW2_LOG_ERROR,
           "clusters in use at 0x%" PRIx64 " have refcount 0: the image is corrupt and accepts "
           "no more changes",
           at);
    zq_core_lock(c);
}

/* One thread at a time, so that events come in their order; the others leave theirs to it. */
static void deliver_events(struct zq_core *c)
{
    struct zq_events *e = &c->events;
    struct zqcow2_event event;

    zq_assert(zq_core_is_held(c) && e->handler);
    if (e->delivering)
        return;
    e->delivering = true;
    while (zq_event_take(e, &event)) {
        void (*handler)(void *arg, const struct zqcow2_event *event) = e->handler;
        void *arg = e->arg;

        zq_core_unlock(c);
        handler(arg, &event);
        zq_core_lock(c);
    }
    e->delivering = false;
}

/* S12. The one above the source is the image, or another source. */
static void report_stale(struct zq_core *c)
{
    uint64_t at = c->stale.guest, wp = c->zones.v[zq_zone_of(&c->zones, at)].wp, below;
    const struct zq_source *s = c->source;

    for (; s->depth < c->stale.depth; s = s->next)
        wp = zq_source_pointer(s, at);
    below = zq_source_pointer(s, at);
    c->stale_logged = true;
    zq_core_unlock(c);
    zq_log(&c->hooks, ZQCOW2_LOG_ERROR,
           "a backing file has changed: nothing is mapped at 0x%" PRIx64
           ", below the write pointer 0x%" PRIx64 "; the backing file at depth %" PRIu32
           " has its write pointer at 0x%" PRIx64,
           at, wp, s->depth, below);
    zq_core_lock(c);
}

/* A handler may call the library: the portion is still that of this call. */
void zq_core_report(struct zq_core *c)
{
    int32_t left = c->left;

    if (c->dead && !c->death_logged)
        report_death(c);
    if (c->corrupt && !c->corrupt_logged)
        report_corruption(c);
    if (c->stale.depth && !c->stale_logged)
        report_stale(c);
    if (c->events.n)
        deliver_events(c);
    c->left = left;
}
