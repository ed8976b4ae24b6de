/* SPDX-License-Identifier: MIT */
/* The model of power loss: lives of sequential zones, versions of sectors that are overwritten. */
#include "power_model.h"

#include <stdlib.h>
#include <string.h>

#define FAILED 0x80000000u /* of a life's requests: answered with an error, but perhaps done */

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

static void *copy_of(const void *from, size_t len)
{
    return memcpy(must(malloc(len)), from, len);
}

static void add_life(struct power_model *o, uint32_t z)
{
    struct track *t = &o->zone[z];

    t->lives = must(realloc(t->lives, (t->n + 1) * sizeof(*t->lives)));
    t->lives[t->n] = (struct life){.data = must(calloc(1, zone_room(&o->shape, z)))};
    t->n++;
}

static void drop_lives(struct track *t)
{
    for (uint32_t i = 0; i < t->n; i++) {
        free(t->lives[i].ends);
        free(t->lives[i].reqs);
        free(t->lives[i].data);
    }
    free(t->lives);
    *t = (struct track){.lives = NULL};
}

static void add_version(struct cell *c, uint32_t req, const uint8_t *data, bool acked)
{
    c->v = must(realloc(c->v, (c->n + 1) * sizeof(*c->v)));
    c->v[c->n++] = (struct version){req, acked, data ? copy_of(data, SECTOR) : NULL};
}

static void drop_versions(struct cell *c)
{
    for (uint32_t i = 0; i < c->n; i++)
        free(c->v[i].data);
    free(c->v);
    *c = (struct cell){.v = NULL};
}

void power_init(struct power_model *o, const struct shape *shape)
{
    memset(o, 0, sizeof(*o));
    o->shape = *shape;
    for (uint32_t z = shape->conventional; z < shape->zones; z++)
        add_life(o, z);
    if (shape->conventional == shape->zones)
        o->ncells = shape->size / SECTOR;
    else
        o->ncells = shape->conventional * shape->zone_size / SECTOR;
    o->cells = must(calloc(o->ncells + 1, sizeof(*o->cells)));
    for (uint64_t i = 0; i < o->ncells; i++)
        add_version(&o->cells[i], 0, NULL, true);
}

void power_fini(struct power_model *o)
{
    for (uint32_t z = 0; z < MAX_ZONES; z++)
        drop_lives(&o->zone[z]);
    for (uint64_t i = 0; i < o->ncells; i++)
        drop_versions(&o->cells[i]);
    free(o->cells);
}

static uint32_t zone_of(const struct power_model *o, uint64_t off)
{
    return (uint32_t)(off / o->shape.zone_size);
}

static void write_zone(struct power_model *o, struct act *a)
{
    uint32_t z = zone_of(o, a->off);
    struct life *l = &o->zone[z].lives[o->zone[z].n - 1];
    uint64_t at = a->off - zone_start(&o->shape, z);

    a->index[z] = o->zone[z].n - 1;
    /* A failed write's place is taken by the next one. */
    while (l->writes && l->ends[l->writes - 1] > at && (l->reqs[l->writes - 1] & FAILED))
        l->writes--;
    if (a->result < 0 && (l->writes ? l->ends[l->writes - 1] : 0) != at)
        return; /* it was not at the write pointer, and failed for another reason first */
    l->ends = must(realloc(l->ends, (l->writes + 1) * sizeof(*l->ends)));
    l->reqs = must(realloc(l->reqs, (l->writes + 1) * sizeof(*l->reqs)));
    l->ends[l->writes] = at + a->len;
    l->reqs[l->writes++] = a->req | (a->result < 0 ? FAILED : 0) |
                           (a->result < 0 && (a->fua || l->finished) ? UNSURE : 0);
    if (a->kind == ACT_ZERO)
        memset(l->data + at, 0, a->len);
    else
        stamp(l->data + at, a->len, a->zone, a->life, a->stamped, a->req);
}

static void write_cells(struct power_model *o, const struct act *a)
{
    uint8_t buf[SECTOR];

    for (uint64_t at = 0; at < a->len; at += SECTOR) {
        stamp(buf, SECTOR, a->zone, a->life, a->stamped + at, a->req);
        add_version(&o->cells[(a->off + at) / SECTOR], a->req, a->kind == ACT_ZERO ? NULL : buf,
                    false);
    }
}

/* Calls f for each sequential zone in the act's range. */
static void each_zone(struct power_model *o, struct act *a,
                      void (*f)(struct power_model *o, struct act *a, uint32_t z))
{
    for (uint32_t z = zone_of(o, a->off); z < o->shape.zones; z++) {
        if (zone_start(&o->shape, z) >= a->off + a->len)
            break;
        if (z >= o->shape.conventional)
            f(o, a, z);
    }
}

static void reset_submitted(struct power_model *o, struct act *a, uint32_t z)
{
    a->index[z] = o->zone[z].n;
    add_life(o, z);
}

static void finish_submitted(struct power_model *o, struct act *a, uint32_t z)
{
    struct life *l = &o->zone[z].lives[o->zone[z].n - 1];

    a->index[z] = o->zone[z].n - 1;
    l->finished = true;
    /* Had it been taken, an error would have stopped the finish, but not one of FUA's round. */
    while (a->result == 0 && l->writes && (l->reqs[l->writes - 1] & (FAILED | UNSURE)) == FAILED)
        l->writes--;
    /* One that fails for its own round's sake has been done, too, or it has not. */
    for (uint32_t w = l->writes; a->result < 0 && w && (l->reqs[w - 1] & FAILED); w--)
        l->reqs[w - 1] |= UNSURE;
}

/* What is acknowledged now, zone by zone, then sector by sector: a flush will promise it. */
struct promise {
    struct seen zone[MAX_ZONES];
    uint32_t cell[];
};

static struct promise *promise_now(const struct power_model *o)
{
    struct promise *p = must(calloc(1, sizeof(*p) + o->ncells * sizeof(p->cell[0])));

    for (uint32_t z = o->shape.conventional; z < o->shape.zones; z++) {
        const struct track *t = &o->zone[z];
        const struct life *l = &t->lives[t->acked];

        p->zone[z] = (struct seen){t->acked, l->acked, l->finish_acked};
    }
    for (uint64_t i = 0; i < o->ncells; i++) {
        for (uint32_t v = 0; v < o->cells[i].n; v++) {
            if (o->cells[i].v[v].acked)
                p->cell[i] = v;
        }
    }
    return p;
}

static void secure(struct track *t, struct seen s)
{
    if (s.life < t->first)
        return;
    if (s.life > t->first) {
        t->first = s.life;
        t->durable = 0;
        t->durable_full = false;
    }
    if (s.end > t->durable)
        t->durable = s.end;
    t->durable_full |= s.full;
}

void power_submit(struct power_model *o, struct act *a)
{
    if (a->kind == ACT_FLUSH) {
        a->snapshot = promise_now(o);
    } else if (a->kind == ACT_WRITE || a->kind == ACT_ZERO) {
        if (zone_of(o, a->off) < o->shape.conventional)
            write_cells(o, a);
        else
            write_zone(o, a);
    } else if (a->kind == ACT_RESET) {
        each_zone(o, a, reset_submitted);
    } else if (a->kind == ACT_FINISH) {
        each_zone(o, a, finish_submitted);
    }
}

static void reset_acked(struct power_model *o, struct act *a, uint32_t z)
{
    struct track *t = &o->zone[z];

    t->acked = a->index[z];
    if (a->fua)
        secure(t, (struct seen){t->acked, 0, false});
}

static void finish_acked(struct power_model *o, struct act *a, uint32_t z)
{
    struct track *t = &o->zone[z];
    struct life *l = &t->lives[a->index[z]];

    l->finish_acked = true;
    if (a->fua)
        secure(t, (struct seen){a->index[z], l->acked, true});
}

static void write_acked(struct power_model *o, const struct act *a)
{
    uint32_t z = zone_of(o, a->off);
    struct track *t = &o->zone[z];

    if (z >= o->shape.conventional) {
        uint64_t end = a->off + a->len - zone_start(&o->shape, z);

        if (end > t->lives[a->index[z]].acked)
            t->lives[a->index[z]].acked = end;
        if (a->fua)
            secure(t, (struct seen){a->index[z], end, false});
        return;
    }
    for (uint64_t i = a->off / SECTOR; i < (a->off + a->len) / SECTOR; i++) {
        struct cell *c = &o->cells[i];

        for (uint32_t v = 0; v < c->n; v++) {
            if (c->v[v].req != a->req)
                continue;
            c->v[v].acked = true;
            if (a->fua && v > c->durable)
                c->durable = v;
        }
    }
}

void power_ack(struct power_model *o, struct act *a)
{
    struct promise *p = a->snapshot;

    if (a->kind == ACT_FLUSH) {
        for (uint32_t z = o->shape.conventional; a->result == 0 && z < o->shape.zones; z++)
            secure(&o->zone[z], p->zone[z]);
        for (uint64_t i = 0; a->result == 0 && i < o->ncells; i++) {
            if (p->cell[i] > o->cells[i].durable)
                o->cells[i].durable = p->cell[i];
        }
        free(p);
        a->snapshot = NULL;
    } else if (a->result == 0) {
        if (a->kind == ACT_WRITE || a->kind == ACT_ZERO)
            write_acked(o, a);
        else if (a->kind == ACT_RESET)
            each_zone(o, a, reset_acked);
        else if (a->kind == ACT_FINISH)
            each_zone(o, a, finish_acked);
    }
}

void power_rebase(struct power_model *o, const struct seen *seen, const uint8_t *data)
{
    for (uint32_t z = o->shape.conventional; z < o->shape.zones; z++) {
        uint64_t start = zone_start(&o->shape, z);
        struct track *t = &o->zone[z];
        struct life *l;

        drop_lives(t);
        add_life(o, z);
        l = &t->lives[0];
        memcpy(l->data, data + start, seen[z].end);
        if (seen[z].end) {
            l->ends = must(malloc(sizeof(*l->ends)));
            l->reqs = must(calloc(1, sizeof(*l->reqs)));
            *l->ends = seen[z].end;
            l->writes = 1;
        }
        l->acked = t->durable = seen[z].end;
        l->finished = l->finish_acked = t->durable_full = seen[z].full;
    }
    for (uint64_t i = 0; i < o->ncells; i++) {
        drop_versions(&o->cells[i]);
        add_version(&o->cells[i], 0, data + i * SECTOR, true);
    }
}
