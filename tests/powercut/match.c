/* SPDX-License-Identifier: MIT */
#include "model.h"

#include <stdio.h>
#include <string.h>

#define SECTOR 512u

static const uint8_t zeros[SECTOR];

static const struct req *req_of(const struct model *m, uint64_t id)
{
    uint64_t first = m->next_id - m->nreqs;

    return id >= first && id < m->next_id ? m->reqs[id - first] : NULL;
}

/* ---- sectors outside sequential zones ---- */

static bool is_version(const struct model *m, uint64_t id, const uint8_t *sector, uint64_t s)
{
    const struct req *r = req_of(m, id);
    uint8_t want[SECTOR];

    if (!id)
        return !memcmp(sector, m->init + s * SECTOR, SECTOR);
    if (!r)
        return false;
    if (r->what == W_ZERO)
        return !memcmp(sector, zeros, SECTOR);
    stamp(want, id, s - r->off / SECTOR);
    return !memcmp(sector, want, SECTOR);
}

static uint64_t word(const uint8_t *p)
{
    uint64_t w;

    memcpy(&w, p, 8);
    return w;
}

/* from: the first version that may be seen. */
static bool sector_ok(const struct model *m, uint64_t s, uint16_t from, const uint8_t *sector,
                      char text[200])
{
    const struct sector *x = &m->sectors[s];

    if (!x->n && is_version(m, 0, sector, s))
        return true;
    for (uint16_t k = from; k < x->n; k++)
        if (is_version(m, x->ids[k], sector, s))
            return true;
    snprintf(text, 200, "sector 0x%llx holds %llx:%llu; %u versions, the first %llx, the last %llx",
             (unsigned long long)s * SECTOR, (unsigned long long)word(sector),
             (unsigned long long)word(sector + 8), x->n,
             x->n ? (unsigned long long)x->ids[from] : 0,
             x->n ? (unsigned long long)x->ids[x->n - 1] : 0);
    return false;
}

bool model_shows(const struct model *m, const uint8_t *content, uint64_t off, uint64_t len,
                 char text[200])
{
    for (uint64_t s = off / SECTOR; s < (off + len) / SECTOR; s++) {
        const struct sector *x = &m->sectors[s];
        uint16_t from = x->n ? (uint16_t)(x->n - 1) : 0;

        while (from > 0 && !req_of(m, x->ids[from])->done)
            from--;
        if (!sector_ok(m, s, from, content + s * SECTOR - off, text))
            return false;
    }
    return true;
}

/* ---- sequential zones ---- */

static bool one_of(const struct model *m, const struct zone *z, const struct life *l, uint64_t off,
                   const uint8_t *sector)
{
    uint64_t id = word(sector), index = word(sector + 8);
    const struct req *r = req_of(m, id);
    uint8_t want[SECTOR];

    if (off < l->init_end)
        return !memcmp(sector, m->init + off, SECTOR);
    for (size_t i = 0; i < l->n; i++) {
        const struct req *q = l->reqs[i];
        bool there = q->what == W_ZERO && off >= q->off && off < q->off + q->len;

        if (there && !memcmp(sector, zeros, SECTOR))
            return true;
        if (there && !q->failed) /* after one that failed, others may be in its place */
            return false;
    }
    if (!r || r->what != W_DATA || &m->zones[r->zone] != z || &z->lives[r->life] != l ||
        index >= r->len / SECTOR)
        return false;
    stamp(want, id, index);
    return (r->off == ANYWHERE || off == r->off + index * SECTOR) && !memcmp(sector, want, SECTOR);
}

/*
 * An append in flight may be anywhere, but in one piece and once: its sectors follow one another
 * and begin with the first.
 */
static bool in_order(const struct model *m, const uint8_t *content, uint64_t from, uint64_t off)
{
    const struct req *r = req_of(m, word(content + off));
    uint64_t index = word(content + off + 8);

    if (!r || r->off != ANYWHERE || !index)
        return true;
    return off > from && word(content + off - SECTOR) == r->id &&
           word(content + off - SECTOR + 8) == index - 1;
}

static uint64_t matched(const struct model *m, const struct zone *z, const struct life *l,
                        const uint8_t *content, uint64_t end)
{
    uint64_t off = z->start;

    while (off < end && one_of(m, z, l, off, content + off) &&
           (off < l->init_end || in_order(m, content, l->init_end, off)))
        off += SECTOR;
    return off;
}

static bool rest_is_zero(const struct zone *z, const uint8_t *content, uint64_t off)
{
    for (; off < z->start + z->len; off += SECTOR)
        if (memcmp(content + off, zeros, SECTOR))
            return false;
    return true;
}

static bool life_ok(const struct model *m, const struct zone *z, const struct life *l, bool first,
                    const uint8_t *content, uint64_t wp, bool full)
{
    uint64_t cap = z->start + z->cap, end = matched(m, z, l, content, full ? cap : wp);

    if (first && l->full_durable && !full)
        return false;
    if (first && !full && wp < l->durable)
        return false;
    if (!full)
        return end == wp && rest_is_zero(z, content, wp);
    if (end == cap)
        return rest_is_zero(z, content, cap);
    return l->finishing && end >= l->fin_lo && (!first || end >= l->durable) && end <= l->fin_hi &&
           rest_is_zero(z, content, end);
}

static bool zone_ok(const struct model *m, const struct zone *z, const uint8_t *content,
                    uint64_t wp, bool full, char text[200])
{
    const struct life *l = &z->lives[z->first];

    for (unsigned k = z->first; k < z->n; k++)
        if (life_ok(m, z, &z->lives[k], k == z->first, content, wp, full))
            return true;
    snprintf(text, 200,
             "zone at 0x%llx: pointer +0x%llx full %d; lives %u..%u, first: durable +0x%llx full "
             "%d, its content to +0x%llx; the last to +0x%llx; next +0x%llx",
             (unsigned long long)z->start, (unsigned long long)(wp - z->start), full, z->first,
             z->n - 1, (unsigned long long)(l->durable - z->start), l->full_durable,
             (unsigned long long)(matched(m, z, l, content, wp) - z->start),
             (unsigned long long)(matched(m, z, &z->lives[z->n - 1], content, wp) - z->start),
             (unsigned long long)(z->next - z->start));
    return false;
}

bool model_match(const struct model *m, const uint8_t *content, const uint64_t *wp,
                 const bool *full, char text[200])
{
    for (uint64_t i = 0; i < m->nz; i++)
        if (m->zones[i].seq && !zone_ok(m, &m->zones[i], content, wp[i], full[i], text))
            return false;
    for (uint64_t s = 0; s < m->size / SECTOR; s++) {
        if (m->nz && m->zones[s * SECTOR / m->zone_size].seq)
            continue;
        if (!sector_ok(m, s, 0, content + s * SECTOR, text))
            return false;
    }
    return true;
}
