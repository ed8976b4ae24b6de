/* SPDX-License-Identifier: MIT */
/* The last events of a served image. */
#include "serve/events.h"

#include <inttypes.h>
#include <string.h>

#include "tool.h"

void serve_events_init(struct serve_events *s)
{
    memset(s, 0, sizeof(*s));
    pthread_mutex_init(&s->lock, NULL);
}

void serve_events_add(struct serve_events *s, const struct zqcow2_event *event)
{
    pthread_mutex_lock(&s->lock);
    s->last[s->n % SERVE_EVENTS].at = time(NULL);
    s->last[s->n % SERVE_EVENTS].event = *event;
    s->n++;
    pthread_mutex_unlock(&s->lock);
}

const char *serve_event_text(const struct zqcow2_event *e, char *buf, size_t room)
{
    const char *why = zqcow2_strerror(e->error);

    switch (e->kind) {
    case ZQCOW2_EVENT_DEAD:
        snprintf(buf, room, "the image accepts no more changes: %s", why);
        break;
    case ZQCOW2_EVENT_CORRUPT:
        snprintf(buf, room, "the image is corrupt at %" PRIu64 " of the file", e->offset);
        break;
    case ZQCOW2_EVENT_NO_SPACE: snprintf(buf, room, "the host is out of space: %s", why); break;
    case ZQCOW2_EVENT_SPACE: snprintf(buf, room, "the host has space again"); break;
    case ZQCOW2_EVENT_WRITE_ERROR:
        snprintf(buf, room, "writing %" PRIu64 " bytes at %" PRIu64 " failed: %s", e->length,
                 e->offset, why);
        break;
    case ZQCOW2_EVENT_ZONE:
        snprintf(buf, room, "the zone at %" PRIu64 " is %s now", e->offset,
                 zt_state_name(e->state));
        break;
    case ZQCOW2_EVENT_LIMIT:
        snprintf(buf, room, "a request for the zone at %" PRIu64 ": %s", e->offset, why);
        break;
    default: snprintf(buf, room, "event %" PRIu32, e->kind); break;
    }
    return buf;
}

bool serve_event_is_logged(const struct zqcow2_event *e)
{
    return e->kind == ZQCOW2_EVENT_NO_SPACE || e->kind == ZQCOW2_EVENT_SPACE ||
           e->kind == ZQCOW2_EVENT_WRITE_ERROR;
}

void serve_events_write(struct serve_events *s, FILE *out)
{
    pthread_mutex_lock(&s->lock);
    for (uint64_t i = s->n > SERVE_EVENTS ? s->n - SERVE_EVENTS : 0; i < s->n; i++) {
        const struct zqcow2_event *e = &s->last[i % SERVE_EVENTS].event;
        char text[160], at[32] = "";
        struct tm tm;

        if (gmtime_r(&s->last[i % SERVE_EVENTS].at, &tm))
            strftime(at, sizeof(at), "%Y-%m-%dT%H:%M:%SZ", &tm);
        fprintf(out, "%" PRIu64 " %s %s\n", i + 1, at, serve_event_text(e, text, sizeof(text)));
        if (e->lost)
            fprintf(out, "%" PRIu64 " %s %" PRIu32 " events before it were lost\n", i + 1, at,
                    e->lost);
    }
    pthread_mutex_unlock(&s->lock);
}
