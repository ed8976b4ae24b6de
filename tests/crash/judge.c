/* SPDX-License-Identifier: MIT */
/* Compares what an image shows after a power loss with what the model allows (I1-I8). */
#include <stdio.h>
#include <string.h>

#include "power_model.h"

struct verdict {
    char *why;
    size_t room;
};

#define REFUSE(v, ...) (snprintf((v)->why, (v)->room, __VA_ARGS__), 1)
#define ULL(x)         ((unsigned long long)(x))

/* The first sector of [from, to) that differs from want (NULL: zeros), or UINT64_MAX. */
static uint64_t differs(const uint8_t *got, const uint8_t *want, uint64_t from, uint64_t to)
{
    static const uint8_t zeros[SECTOR];

    if (want && !memcmp(got + from, want + from, to - from))
        return UINT64_MAX;
    if (!want && (from == to || (!memcmp(got + from, zeros, SECTOR) &&
                                 !memcmp(got + from, got + from + SECTOR, to - from - SECTOR))))
        return UINT64_MAX;
    for (uint64_t at = from; at < to; at += SECTOR) {
        if (memcmp(got + at, want ? want + at : zeros, SECTOR))
            return at;
    }
    return UINT64_MAX;
}

static bool is_boundary(const struct life *l, uint64_t end)
{
    for (uint32_t i = 0; i < l->writes; i++) {
        if (l->ends[i] == end)
            return true;
    }
    return end == 0;
}

/* May the zone show this life with `end` bytes, full or not, were its data right? */
static bool allowed(const struct track *t, uint32_t life, struct seen s, uint64_t room)
{
    const struct life *l = &t->lives[life];
    uint64_t written = l->writes ? l->ends[l->writes - 1] : 0;

    if (life == t->first && (s.end < t->durable || (t->durable_full && !s.full)))
        return false;
    if (s.full && !(l->finished || written == room))
        return false;
    return s.full || (is_boundary(l, s.end) && s.end < room);
}

/* The content of a zone that shows `end` bytes (full: those that were written). */
static int find_life(const struct power_model *o, uint32_t z, struct seen *s, const uint8_t *data,
                     const struct verdict *v)
{
    const struct track *t = &o->zone[z];
    const uint8_t *got = data + zone_start(&o->shape, z);
    uint64_t length = zone_length(&o->shape, z), room = zone_room(&o->shape, z), at = UINT64_MAX;
    bool any = false;
    char text[128];

    for (uint32_t i = t->n; i-- > t->first;) {
        const struct life *l = &t->lives[i];

        for (uint32_t w = l->writes, more = 1; more; w--) {
            struct seen try = {i, s->full ? (w ? l->ends[w - 1] : 0) : s->end, s->full};

            more = s->full && w && (l->reqs[w - 1] & UNSURE);
            if (!allowed(t, i, try, room))
                continue;
            any = true;
            at = differs(got, l->data, 0, try.end);
            if (at == UINT64_MAX)
                at = differs(got, NULL, try.end, length);
            if (at == UINT64_MAX) {
                *s = try;
                return 0;
            }
        }
    }
    if (!any)
        return REFUSE(v, "zone %u: %s 0x%llx is not allowed: lives %u..%u, durable 0x%llx%s", z,
                      s->full ? "FULL" : "write pointer +", ULL(s->end), t->first, t->n - 1,
                      ULL(t->durable), t->durable_full ? " FULL" : "");
    return REFUSE(v, "zone %u (%s, +0x%llx): sector +0x%llx holds %s", z,
                  s->full ? "FULL" : "not full", ULL(s->end), ULL(at),
                  describe(got + at, text, sizeof(text)));
}

static int judge_zone(const struct power_model *o, uint32_t z, const struct zqcow2_zone *r,
                      const uint8_t *data, struct seen *s, const struct verdict *v)
{
    uint64_t start = zone_start(&o->shape, z), length = zone_length(&o->shape, z);
    uint64_t room = zone_room(&o->shape, z);

    if (r->start != start || r->length != length || r->capacity != room ||
        r->type != ZQCOW2_ZONE_SEQWRITE_REQ)
        return REFUSE(v, "zone %u: the report gives another shape", z);
    *s = (struct seen){0, r->write_pointer - start, r->state == ZQCOW2_ZONE_FULL};
    switch (r->state) {
    case ZQCOW2_ZONE_FULL:
        if (s->end != length)
            return REFUSE(v, "zone %u: FULL with write pointer +0x%llx", z, ULL(s->end));
        break;
    case ZQCOW2_ZONE_EMPTY:
        if (s->end)
            return REFUSE(v, "zone %u: EMPTY with write pointer +0x%llx", z, ULL(s->end));
        break;
    case ZQCOW2_ZONE_CLOSED:
        if (!s->end || s->end >= room)
            return REFUSE(v, "zone %u: CLOSED with write pointer +0x%llx", z, ULL(s->end));
        break;
    default: return REFUSE(v, "zone %u: state %u after a power loss", z, r->state);
    }
    return find_life(o, z, s, data, v);
}

static int judge_cell(const struct power_model *o, uint64_t i, const uint8_t *got,
                      const struct verdict *v)
{
    static const uint8_t zeros[SECTOR];
    const struct cell *c = &o->cells[i];
    char text[128];

    for (uint32_t k = c->n; k-- > c->durable;) {
        if (!memcmp(got, c->v[k].data ? c->v[k].data : zeros, SECTOR))
            return 0;
    }
    return REFUSE(v, "sector 0x%llx holds %s; requests %u..%u are allowed", ULL(i * SECTOR),
                  describe(got, text, sizeof(text)), c->v[c->durable].req, c->v[c->n - 1].req);
}

int power_judge(const struct power_model *o, const struct zqcow2_zone *zones, const uint8_t *data,
                struct seen *seen, char *why, size_t room)
{
    const struct verdict v = {why, room};
    uint32_t active = 0;

    for (uint32_t z = o->shape.conventional; z < o->shape.zones; z++) {
        if (judge_zone(o, z, &zones[z], data, &seen[z], &v))
            return 1;
        active += zones[z].state == ZQCOW2_ZONE_CLOSED;
    }
    if (o->shape.max_active && active > o->shape.max_active)
        return REFUSE(&v, "%u active zones, at most %u are allowed", active, o->shape.max_active);
    for (uint64_t i = 0; i < o->ncells; i++) {
        if (judge_cell(o, i, data + i * SECTOR, &v))
            return 1;
    }
    return 0;
}

static uint64_t blend(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9fb21c651e98df25u;
    return h ^ (h >> 29);
}

uint64_t power_hash(const struct power_model *o)
{
    uint64_t h = 0x6f7261636c65u;

    for (uint32_t z = o->shape.conventional; z < o->shape.zones; z++) {
        const struct track *t = &o->zone[z];

        h = blend(blend(h, t->durable), t->durable_full);
        for (uint32_t i = t->first; i < t->n; i++) {
            h = blend(h, 0x100u | t->lives[i].finished);
            for (uint32_t w = 0; w < t->lives[i].writes; w++)
                h = blend(blend(h, t->lives[i].reqs[w]), t->lives[i].ends[w]);
        }
    }
    for (uint64_t i = 0; i < o->ncells; i++) {
        h = blend(h, 0x200u);
        for (uint32_t v = o->cells[i].durable; v < o->cells[i].n; v++)
            h = blend(h, o->cells[i].v[v].req);
    }
    return h;
}
