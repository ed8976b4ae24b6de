/* SPDX-License-Identifier: MIT */
/* Remembers lives and versions; says what may be seen, and settles for what was seen. */
#include <stdlib.h>
#include <string.h>
#include "rig/oracle.h"

static uint64_t zone_length(const struct oracle *o, uint32_t i)
{
    uint64_t left = o->g.size - o->g.zone_size * i;

    return left < o->g.zone_size ? left : o->g.zone_size;
}

static uint64_t zone_capacity(const struct oracle *o, uint32_t i)
{
    uint64_t len = zone_length(o, i), cap = o->g.capacity ? o->g.capacity : o->g.zone_size;

    return len < cap ? len : cap;
}

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

/* A fresh life at the end of the list. */
void oracle_reset(struct oracle *o, uint32_t zone)
{
    struct lives *l = &o->zone[zone];

    l->life = must(realloc(l->life, (l->nr + 1) * sizeof(*l->life)));
    l->life[l->nr++] = (struct life){.data = must(calloc(1, zone_length(o, zone)))};
}

void oracle_init(struct oracle *o, const struct geometry *g)
{
    memset(o, 0, sizeof(*o));
    o->g = *g;
    if (!g->zone_size) { /* a plain image is one conventional zone */
        o->g.zone_size = g->size;
        o->g.conventional = 1;
    }
    o->nr_zones = (uint32_t)((g->size + o->g.zone_size - 1) / o->g.zone_size);
    o->zone = must(calloc(o->nr_zones, sizeof(*o->zone)));
    for (uint32_t i = 0; i < o->nr_zones; i++)
        oracle_reset(o, i);
}

void oracle_free(struct oracle *o)
{
    for (uint32_t i = 0; i < o->nr_zones; i++) {
        for (uint32_t k = 0; k < o->zone[i].nr; k++)
            free(o->zone[i].life[k].data);
        free(o->zone[i].life);
    }
    for (uint32_t k = 0; k < o->nr; k++)
        free(o->version[k].data);
    free(o->version);
    free(o->zone);
    memset(o, 0, sizeof(*o));
}

struct life *oracle_now(const struct oracle *o, uint32_t zone)
{
    return &o->zone[zone].life[o->zone[zone].nr - 1];
}

static void new_version(struct oracle *o, uint64_t off, uint64_t len, const void *data, bool acked)
{
    if (o->nr == o->room) {
        o->room = o->room ? 2 * o->room : 16;
        o->version = must(realloc(o->version, o->room * sizeof(*o->version)));
    }
    o->version[o->nr] = (struct version){.off = off, .len = len, .acked = acked};
    if (data)
        o->version[o->nr].data = memcpy(must(malloc(len)), data, len);
    o->nr++;
}

void oracle_wrote(struct oracle *o, uint64_t off, uint64_t len, const void *data, bool acked)
{
    uint32_t i = (uint32_t)(off / o->g.zone_size);
    struct life *l = oracle_now(o, i);
    uint64_t at = off - i * o->g.zone_size;

    if (i < o->g.conventional) {
        new_version(o, off, len, data, acked);
        return;
    }
    if (data)
        memcpy(l->data + at, data, len);
    if (at + len > l->wp)
        l->wp = at + len;
}

void oracle_flushed(struct oracle *o)
{
    for (uint32_t i = 0; i < o->nr_zones; i++) {
        struct life *l = oracle_now(o, i);

        o->zone[i].first = o->zone[i].nr - 1;
        l->durable = l->wp;
        l->finish_durable = l->finish;
    }
    o->durable = o->nr;
}

/* ---- conventional sectors ---- */

static bool version_is(const struct version *v, const uint8_t *is, uint64_t off)
{
    static const uint8_t zeros[512];
    const uint8_t *want = zeros;

    if (v && v->data)
        want = v->data + (off - v->off);
    return !memcmp(is, want, 512);
}

static bool covers(const struct version *v, uint64_t off)
{
    return v->off <= off && off < v->off + v->len;
}

/* The last acknowledged version among the first `sure` ones, or any that came after it. */
static bool sector_may(const struct oracle *o, const uint8_t *is, uint64_t off, uint32_t sure)
{
    const struct version *base = NULL;
    uint32_t from = 0;

    for (uint32_t k = 0; k < sure; k++) {
        if (o->version[k].acked && covers(&o->version[k], off)) {
            base = &o->version[k];
            from = k + 1;
        }
    }
    if (version_is(base, is, off))
        return true;
    for (uint32_t k = from; k < o->nr; k++) {
        if (covers(&o->version[k], off) && version_is(&o->version[k], is, off))
            return true;
    }
    return false;
}

bool oracle_reads(const struct oracle *o, const uint8_t *is, uint64_t len, uint64_t off)
{
    for (; len; len -= 512, off += 512, is += 512) {
        uint32_t i = (uint32_t)(off / o->g.zone_size);

        if (i < o->g.conventional ? !sector_may(o, is, off, o->nr) :
                                    memcmp(is, oracle_now(o, i)->data + off % o->g.zone_size, 512))
            return false;
    }
    return true;
}

/* ---- after opening ---- */

static bool life_is(const struct oracle *o, uint32_t zone, uint32_t k, uint64_t wp, bool full,
                    const uint8_t *is)
{
    const struct lives *z = &o->zone[zone];
    const struct life *l = &z->life[k];
    uint64_t least = k == z->first ? l->durable : 0;
    bool by_finish = full && l->finish;

    if (k == z->first && l->finish_durable && !full)
        return false;
    if (!by_finish && (wp < least || wp > l->wp))
        return false;
    wp = wp < l->wp ? wp : l->wp;
    if (memcmp(is, l->data, wp))
        return false;
    for (uint64_t b = wp; b < zone_length(o, zone); b++) {
        if (is[b])
            return false;
    }
    return true;
}

/* Life k at wp is what there is; all others are forgotten. */
static void keep_life(struct oracle *o, uint32_t zone, uint32_t k, uint64_t wp)
{
    struct lives *z = &o->zone[zone];
    struct life kept = z->life[k];

    for (uint32_t n = 0; n < z->nr; n++) {
        if (n != k)
            free(z->life[n].data);
    }
    memset(kept.data + wp, 0, zone_length(o, zone) - wp);
    kept.wp = kept.durable = wp;
    kept.finish = kept.finish_durable = wp == zone_capacity(o, zone);
    z->life[0] = kept;
    z->nr = 1;
    z->first = 0;
}

static bool settle_zone(struct oracle *o, struct rig *r, uint32_t i, const uint8_t *is)
{
    const struct lives *z = &o->zone[i];
    struct zqcow2_zone is_zone = rig_zone(r, i);
    bool full = is_zone.state == ZQCOW2_ZONE_FULL;
    uint64_t wp = full ? zone_capacity(o, i) : is_zone.write_pointer - is_zone.start;

    if (wp > zone_capacity(o, i) || (wp == 0) != (is_zone.state == ZQCOW2_ZONE_EMPTY) ||
        (!full && wp && is_zone.state != ZQCOW2_ZONE_CLOSED))
        return rig_say(r, "zone %u is %s at +%#llx", i, rig_state_name(is_zone.state),
                       (unsigned long long)wp);
    for (uint32_t k = z->nr; k-- > z->first;) {
        if (life_is(o, i, k, wp, full, is)) {
            keep_life(o, i, k, wp);
            return true;
        }
    }
    return rig_say(r,
                   "zone %u is %s at +%#llx: none of its %u lives since the last flush (present:"
                   " wp +%#llx, durable +%#llx%s)",
                   i, rig_state_name(is_zone.state), (unsigned long long)wp, z->nr - z->first,
                   (unsigned long long)oracle_now(o, i)->wp,
                   (unsigned long long)oracle_now(o, i)->durable,
                   oracle_now(o, i)->finish ? ", finished" : "");
}

static bool settle_conventional(struct oracle *o, struct rig *r, uint64_t off, uint64_t len,
                                const uint8_t *is)
{
    for (uint64_t at = 0; at < len; at += 512) {
        if (!sector_may(o, is + at, off + at, o->durable))
            return rig_say(r, "sector at %#llx holds no version that it may (first word %#llx)",
                           (unsigned long long)(off + at),
                           (unsigned long long)*(const uint64_t *)(const void *)(is + at));
    }
    return true;
}

bool oracle_settle(struct oracle *o, struct rig *r)
{
    bool good = true;
    uint32_t before = o->nr;

    for (uint32_t i = 0; good && i < o->nr_zones; i++) {
        uint64_t off = o->g.zone_size * i, len = zone_length(o, i);
        uint8_t *is = must(malloc(len));
        int rc = zqcow2_read(r->img, is, len, off);

        if (rc)
            good = rig_say(r, "read of zone %u after reopening: %d", i, rc);
        else if (i >= o->g.conventional)
            good = settle_zone(o, r, i, is);
        else if (settle_conventional(o, r, off, len, is))
            new_version(o, off, len, is, true);
        else
            good = false;
        free(is);
    }
    if (good && before != o->nr)
        o->durable = o->nr;
    return good;
}
