/* SPDX-License-Identifier: MIT */
/*
 * Statistics. They are summed when they are asked for: a request counts in its own queue only, and
 * a queue leaves what it has counted to the image when it is closed.
 */
#include <errno.h>
#include <string.h>
#include "base/mem.h"
#include "image/image.h"

#define FIRST_SIZE sizeof(struct zqcow2_stats)

_Static_assert(ZQ_TALLY_KINDS <= ZQCOW2_STATS_OPS, "an element for each operation");
_Static_assert(ZQ_NR_STATES == ZQCOW2_STATS_STATES, "an element for each state");

/* Under the mutex. */
static void sum_up(struct zq_core *c, struct zqcow2_stats *s)
{
    if (c->activity == ZQ_ACTIVE) {
        s->rounds = c->alloc.rounds;
        s->flushes = c->x.flushes + (c->data == &c->x ? 0 : c->data->flushes);
        s->cache_hits = c->cache.hits;
        s->cache_loads = c->cache.loads;
        s->implicit_closes = c->zones.implicit_closes;
        memcpy(s->zones, c->zones.in_state, sizeof(s->zones));
    }
    zq_tally_sum(&c->tally, s->op);
    for (const struct zq_list *n = c->doorbells.next; n != &c->doorbells; n = n->next)
        zq_tally_sum(&zq_container(n, const struct zq_doorbell, link)->tally, s->op);
}

int zqcow2_get_stats(struct zqcow2_image *img, struct zqcow2_stats *stats)
{
    struct zqcow2_stats s = {.size = sizeof(s)};
    struct zq_core *c = &img->core;

    zq_core_lock(c);
    sum_up(c, &s);
    zq_core_unlock(c);
    return zq_return_sized(stats, &s, sizeof(s), FIRST_SIZE);
}

void zqcow2_measure_time(struct zqcow2_image *img, bool on)
{
    zq_core_lock(&img->core);
    img->core.timed = on;
    zq_core_set_straight(&img->core);
    zq_core_unlock(&img->core);
}
