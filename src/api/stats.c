/* SPDX-License-Identifier: MIT */
/*
 * Statistics. They are summed when they are asked for: a request counts in its own queue only, and
 * a queue leaves what it has counted to the image when it is closed.
 */
#include <errno.h>
#include <string.h>
#include "base/mem.h"
#include "image/image.h"

#define ZONES_AT_ONCE 4096u /* in one hold of the mutex: requests must not wait for a count */
#define FIRST_SIZE    sizeof(struct zqcow2_stats)

_Static_assert(ZQ_TALLY_KINDS <= ZQCOW2_STATS_OPS, "an element for each operation");

/*
 * Whether there are more behind these. Between two calls the mutex is dropped, and a resize may
 * have changed the number of zones.
 */
static bool count_zones(struct zq_core *c, uint32_t from, struct zqcow2_stats *s)
{
    uint64_t end;

    if (!c->zoned || c->activity != ZQ_ACTIVE)
        return false;
    end = zq_min((uint64_t)from + ZONES_AT_ONCE, c->zones.g.nr_zones);
    for (uint32_t i = from; i < end; i++)
        s->zones[zq_zone_state(&c->zones.v[i])]++;
    return end < c->zones.g.nr_zones;
}

/* Under the mutex. */
static void sum_up(struct zq_core *c, struct zqcow2_stats *s)
{
    if (c->activity == ZQ_ACTIVE) {
        s->rounds = c->alloc.rounds;
        s->flushes = c->x.flushes + (c->data == &c->x ? 0 : c->data->flushes);
        s->cache_hits = c->cache.hits;
        s->cache_loads = c->cache.loads;
        s->implicit_closes = c->zones.implicit_closes;
    }
    zq_tally_sum(&c->tally, s->op);
    for (const struct zq_list *n = c->doorbells.next; n != &c->doorbells; n = n->next)
        zq_tally_sum(&zq_container(n, const struct zq_doorbell, link)->tally, s->op);
}

int zqcow2_get_stats(struct zqcow2_image *img, struct zqcow2_stats *stats)
{
    struct zqcow2_stats s = {.size = sizeof(s)};
    struct zq_core *c = &img->core;
    uint32_t zone = 0;
    bool more;

    zq_core_lock(c);
    sum_up(c, &s);
    while ((more = count_zones(c, zone, &s))) {
        zone += ZONES_AT_ONCE;
        zq_core_unlock(c);
        zq_core_lock(c);
    }
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
