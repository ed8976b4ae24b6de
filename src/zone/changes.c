/* SPDX-License-Identifier: MIT */
/* Zones that have changed, but not by a request of the guest. */
#include "zone/changes.h"

#include <errno.h>
#include <string.h>
#include "base/mem.h"
#include "base/report.h"

static bool next(struct zq_changes *c)
{
    bool event = c->armed;

    c->seq++;
    c->armed = false;
    return event;
}

static void drop(struct zq_changes *c, uint32_t i)
{
    c->n--;
    memmove(&c->v[i], &c->v[i + 1], (c->n - i) * sizeof(*c->v));
}

/* Its old place, or that of the oldest one, which is lost then. */
static void make_room(struct zq_changes *c, uint32_t zone)
{
    uint32_t i = 0;

    while (i < c->n && c->v[i].zone != zone)
        i++;
    if (i < c->n) {
        drop(c, i);
    } else if (c->n == ZQ_CHANGES) {
        c->lost = c->v[0].seq;
        drop(c, 0);
    }
}

bool zq_changes_add(struct zq_changes *c, const struct zqcow2_hooks *h, uint32_t zone)
{
    bool event = next(c);

    if (!c->v)
        c->v = zq_zalloc_array(h, ZQ_CHANGES, sizeof(*c->v));
    if (!c->v) {
        c->lost = c->seq;
        return event;
    }
    make_room(c, zone);
    zq_assert(c->n < ZQ_CHANGES);
    c->v[c->n++] = (struct zq_change){c->seq, zone};
    return event;
}

bool zq_changes_all(struct zq_changes *c)
{
    bool event = next(c);

    c->lost = c->seq;
    c->n = 0;
    return event;
}

int zq_changes_read(struct zq_changes *c, uint64_t *since, uint64_t *zones, uint32_t *nr)
{
    uint64_t from = *since;
    uint32_t n = 0;

    if (from > c->seq)
        return -EINVAL;
    c->armed = true;
    *since = c->seq;
    while (n < c->n && c->v[c->n - 1 - n].seq > from)
        n++;
    if (from < c->lost || n > *nr)
        return -EOVERFLOW;
    for (uint32_t i = 0; i < n; i++)
        zones[i] = c->v[c->n - 1 - i].zone;
    *nr = n;
    return 0;
}

void zq_changes_close(struct zq_changes *c, const struct zqcow2_hooks *h)
{
    zq_free(h, c->v, ZQ_CHANGES * sizeof(*c->v));
    c->v = NULL;
}
