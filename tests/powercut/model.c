/* SPDX-License-Identifier: MIT */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECTOR 512u

void stamp(uint8_t *sector, uint64_t id, uint64_t index)
{
    uint64_t word[SECTOR / 8], seed = id * 0x100000001b3u + index;

    word[0] = id;
    word[1] = index;
    for (unsigned i = 2; i < SECTOR / 8; i++)
        word[i] = mix(&seed);
    memcpy(sector, word, SECTOR);
}

void stamp_all(uint8_t *buf, uint64_t len, uint64_t id)
{
    for (uint64_t i = 0; i < len / SECTOR; i++)
        stamp(buf + i * SECTOR, id, i);
}

/* ---- life of the model ---- */

void model_init(struct model *m, uint64_t size, uint64_t cluster)
{
    memset(m, 0, sizeof(*m));
    m->size = size;
    m->cluster = cluster;
    m->zone_size = size;
    m->next_id = 0x7a00000000000001u;
    m->init = need(calloc(1, size));
    m->sectors = need(calloc(size / SECTOR, sizeof(*m->sectors)));
}

void model_zone(struct model *m, uint64_t start, uint64_t len, uint64_t cap, bool seq)
{
    m->zones = need(realloc(m->zones, (m->nz + 1) * sizeof(*m->zones)));
    m->zones[m->nz] = (struct zone){.start = start, .len = len, .cap = cap, .seq = seq};
    if (!m->nz++)
        m->zone_size = len;
}

static void forget(struct model *m)
{
    for (uint64_t i = 0; i < m->nz; i++) {
        for (unsigned k = 0; k < m->zones[i].n; k++)
            free(m->zones[i].lives[k].reqs);
        free(m->zones[i].lives);
        m->zones[i].lives = NULL;
        m->zones[i].n = 0;
    }
    for (uint64_t i = 0; i < m->size / SECTOR; i++) {
        free(m->sectors[i].ids);
        m->sectors[i] = (struct sector){NULL, 0, false};
    }
    for (size_t i = 0; i < m->nreqs; i++)
        free(m->reqs[i]);
    free(m->reqs);
    m->reqs = NULL;
    m->nreqs = 0;
}

void model_free(struct model *m)
{
    forget(m);
    free(m->zones);
    free(m->sectors);
    free(m->init);
}

static struct life *new_life(struct zone *z)
{
    z->lives = need(realloc(z->lives, (z->n + 1) * sizeof(*z->lives)));
    z->lives[z->n] = (struct life){.init_end = z->start, .durable = z->start};
    return &z->lives[z->n++];
}

void model_settle(struct model *m, const uint8_t *content, const uint64_t *wp, const bool *full)
{
    forget(m);
    memcpy(m->init, content, m->size);
    for (uint64_t i = 0; i < m->nz; i++) {
        struct zone *z = &m->zones[i];
        struct life *l;

        z->first = z->busy = z->appending = 0;
        z->unsure = false;
        z->filled = z->seq && full[i];
        z->next = z->seq ? wp[i] : z->start;
        if (!z->seq)
            continue;
        l = new_life(z);
        l->init_end = l->durable = wp[i];
        l->full = l->full_durable = full[i];
        l->fin_lo = l->fin_hi = wp[i];
        l->finishing = full[i];
    }
}

static struct zone *zone_at(const struct model *m, uint64_t off)
{
    return m->nz ? &m->zones[off / m->zone_size] : NULL;
}

static struct req *req_of(const struct model *m, uint64_t id)
{
    uint64_t first = m->next_id - m->nreqs;

    return id >= first && id < m->next_id ? m->reqs[id - first] : NULL;
}

/* ---- requests ---- */

static void add_version(struct model *m, const struct req *r)
{
    for (uint64_t s = r->off / SECTOR; s < (r->off + r->len) / SECTOR; s++) {
        struct sector *x = &m->sectors[s];

        if (!x->n) {
            x->ids = need(calloc(1, sizeof(*x->ids)));
            x->n = 1; /* the initial one */
        }
        x->ids = need(realloc(x->ids, (x->n + 1u) * sizeof(*x->ids)));
        x->ids[x->n++] = r->id;
        x->busy = true;
    }
}

static void add_to_zone(struct zone *z, struct req *r)
{
    struct life *l = &z->lives[z->n - 1];

    if (r->what == W_RESET) {
        new_life(z);
        z->next = z->start;
        z->filled = false;
    }
    l = &z->lives[z->n - 1];
    r->life = z->n - 1;
    z->busy++;
    if (r->what == W_FINISH && !l->full && !l->finishing) { /* what is to fill it may fail */
        l->finishing = true;
        l->fin_lo = l->durable > l->init_end ? l->durable : l->init_end;
        for (size_t i = 0; i < l->n; i++)
            if (l->reqs[i]->done && l->reqs[i]->off + l->reqs[i]->len > l->fin_lo)
                l->fin_lo = l->reqs[i]->off + l->reqs[i]->len;
        l->fin_hi = z->next;
        z->filled = true;
    }
    if (r->what != W_DATA && r->what != W_ZERO)
        return;
    l->reqs = need(realloc(l->reqs, (l->n + 1) * sizeof(struct req *)));
    l->reqs[l->n++] = r;
    z->next += r->len;
    z->filled = z->next >= z->start + z->cap;
}

struct req *model_submit(struct model *m, enum what what, uint64_t off, uint64_t len, bool fua)
{
    struct req *r = need(calloc(1, sizeof(*r)));
    struct zone *z = what == W_OTHER ? NULL : zone_at(m, off);

    m->reqs = need(realloc(m->reqs, (m->nreqs + 1) * sizeof(struct req *)));
    m->reqs[m->nreqs++] = r;
    *r = (struct req){.id = m->next_id++, .off = off, .len = len, .what = what, .fua = fua};
    m->clock++;
    if (what == W_OTHER)
        return r;
    if (z && z->seq) {
        r->zone = (uint64_t)(z - m->zones);
        add_to_zone(z, r);
    } else {
        add_version(m, r);
    }
    return r;
}

static void sectors_done(struct model *m, struct req *r)
{
    for (uint64_t s = r->off / SECTOR; s < (r->off + r->len) / SECTOR; s++)
        m->sectors[s].busy = false;
}

static void keep_from(struct sector *x, uint16_t k)
{
    memmove(x->ids, x->ids + k, (size_t)(x->n - k) * sizeof(*x->ids));
    x->n = (uint16_t)(x->n - k);
}

static void zone_durable(struct zone *z, uint64_t then)
{
    for (unsigned k = z->first; k < z->n; k++) {
        struct life *l = &z->lives[k];

        if (l->born && l->born <= then)
            z->first = k;
        for (size_t i = 0; i < l->n; i++)
            if (l->reqs[i]->done && l->reqs[i]->done <= then) {
                uint64_t end = l->reqs[i]->off + l->reqs[i]->len;

                z->first = k;
                l->durable = end > l->durable ? end : l->durable;
            }
        if (l->full && l->full_at <= then) {
            z->first = k;
            l->full_durable = true;
        }
    }
}

/* Its own data, and everything below that in its zone. */
static void zone_fua(struct zone *z, const struct req *r)
{
    struct life *l = &z->lives[r->life];

    if (z->first < r->life)
        z->first = r->life;
    if ((r->what == W_DATA || r->what == W_ZERO) && r->off + r->len > l->durable)
        l->durable = r->off + r->len;
    if (r->what == W_FINISH && l->full)
        l->full_durable = true;
}

static void sector_durable(struct model *m, uint64_t s, uint64_t then)
{
    struct sector *x = &m->sectors[s];

    for (uint16_t k = x->n; k-- > 1;) {
        struct req *r = req_of(m, x->ids[k]);

        if (r->done && r->done <= then) {
            keep_from(x, k);
            return;
        }
    }
}

void model_flushed(struct model *m, uint64_t then)
{
    for (uint64_t i = 0; i < m->nz; i++)
        if (m->zones[i].seq)
            zone_durable(&m->zones[i], then);
    for (uint64_t s = 0; s < m->size / SECTOR; s++)
        if (m->sectors[s].n > 1)
            sector_durable(m, s, then);
}

static void zone_done(struct model *m, struct req *r, int rc, uint64_t at)
{
    struct zone *z = &m->zones[r->zone];
    struct life *l = &z->lives[r->life];

    z->busy--;
    if (rc) {
        z->unsure = true;
        return;
    }
    if (r->what == W_DATA && r->off == ANYWHERE)
        r->off = at;
    if (r->what == W_RESET)
        l->born = m->clock;
    if (r->what == W_FINISH && l->finishing) {
        l->full = true;
        l->full_at = m->clock;
    }
    if (r->fua)
        zone_fua(z, r);
}

void model_done(struct model *m, struct req *r, int rc, uint64_t at)
{
    bool seq = r->what != W_OTHER && m->nz &&
               m->zones[r->off == ANYWHERE ? r->zone : r->off / m->zone_size].seq;

    m->clock++;
    r->rc = rc;
    r->failed = rc != 0;
    if (!rc)
        r->done = m->clock;
    if (r->what == W_OTHER)
        return;
    if (seq) {
        zone_done(m, r, rc, at);
        return;
    }
    sectors_done(m, r);
    for (uint64_t s = r->off / SECTOR; !rc && r->fua && s < (r->off + r->len) / SECTOR; s++)
        sector_durable(m, s, r->done);
}

/*
 * Requests that failed reach to the pointer at most, from now on. A life that failed to begin is
 * over if the pointer shows that the reset did nothing.
 */
void model_sure(struct model *m, struct zone *z, uint64_t wp, bool full)
{
    struct life *l = &z->lives[z->n - 1];

    (void)m;
    if (z->n > 1 && !l->born && wp > z->start && !l->n && !l->finishing) {
        free(l->reqs);
        z->n--;
        l--;
    }
    for (size_t i = 0; i < l->n; i++) {
        struct req *r = l->reqs[i];

        if (r->failed && r->off == ANYWHERE && r->fua)
            continue; /* it may have been its flush that failed */
        if (r->failed && r->off == ANYWHERE)
            r->len = 0;
        else if (r->failed && r->off + r->len > wp)
            r->len = wp > r->off ? wp - r->off : 0;
    }
    if (full && !l->full && l->finishing) {
        l->full = true;
        l->full_at = UINT64_MAX; /* it failed: nobody was promised that it is durable */
    }
    if (!full)
        l->finishing = false;
    z->next = wp;
    z->filled = full;
    z->unsure = false;
}

bool model_is_free(const struct model *m, uint64_t off, uint64_t len)
{
    for (uint64_t s = off / SECTOR; s < (off + len) / SECTOR; s++)
        if (m->sectors[s].busy)
            return false;
    return true;
}
