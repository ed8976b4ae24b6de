/* SPDX-License-Identifier: MIT */
/* What the model of a device shows of itself: where zones lie, how many are open, reports. */
#include <stdlib.h>
#include <string.h>
#include "rig/model.h"

uint64_t model_start(const struct model *m, uint32_t i)
{
    return m->g.zone_size * i;
}

uint64_t model_zone_end(const struct model *m, uint32_t i)
{
    uint64_t end = model_start(m, i) + m->g.zone_size;

    return end < m->g.size ? end : m->g.size;
}

uint64_t model_zone_limit(const struct model *m, uint32_t i)
{
    uint64_t limit = model_start(m, i) + m->g.capacity, end = model_zone_end(m, i);

    return limit < end && i >= m->g.conventional ? limit : end;
}

void model_init(struct model *m, const struct geometry *g, uint64_t max_append)
{
    memset(m, 0, sizeof(*m));
    m->g = *g;
    if (!m->g.capacity)
        m->g.capacity = g->zone_size;
    m->max_append = max_append;
    m->nr = (uint32_t)((g->size + g->zone_size - 1) / g->zone_size);
    m->victim = MODEL_NONE;
    m->zone = calloc(m->nr, sizeof(*m->zone));
    m->data = calloc(1, sizeof(*m->data));
    if (!m->zone || !m->data)
        abort();
    store_init(m->data);
    for (uint32_t i = 0; i < m->nr; i++) {
        m->zone[i].wp = model_start(m, i);
        m->zone[i].state = i < g->conventional ? ZQCOW2_ZONE_NOT_WP : ZQCOW2_ZONE_EMPTY;
    }
}

void model_free(struct model *m)
{
    store_free(m->data);
    free(m->data);
    free(m->zone);
    memset(m, 0, sizeof(*m));
}

bool model_is_open(const struct model_zone *z)
{
    return !z->forced && (z->state == ZQCOW2_ZONE_IMP_OPEN || z->state == ZQCOW2_ZONE_EXP_OPEN);
}

bool model_is_active(const struct model_zone *z)
{
    return model_is_open(z) || z->state == ZQCOW2_ZONE_CLOSED;
}

uint32_t model_open_zones(const struct model *m)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->nr; i++)
        n += model_is_open(&m->zone[i]);
    return n;
}

uint32_t model_active_zones(const struct model *m)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->nr; i++)
        n += model_is_active(&m->zone[i]);
    return n;
}

void model_report(const struct model *m, uint32_t i, struct zqcow2_zone *out)
{
    const struct model_zone *z = &m->zone[i];

    memset(out, 0, sizeof(*out));
    out->start = model_start(m, i);
    out->length = model_zone_end(m, i) - out->start;
    out->capacity = model_zone_limit(m, i) - out->start;
    out->type = i < m->g.conventional ? ZQCOW2_ZONE_CONVENTIONAL : ZQCOW2_ZONE_SEQWRITE_REQ;
    out->state = z->forced ? z->forced : z->state;
    out->write_pointer = z->wp;
    if (z->forced)
        out->write_pointer = UINT64_MAX;
    else if (z->state == ZQCOW2_ZONE_FULL)
        out->write_pointer = out->start + out->length;
}
