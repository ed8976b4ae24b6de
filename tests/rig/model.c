/* SPDX-License-Identifier: MIT */
/* A zoned device as an array of bytes, written from zone-semantics.md alone. One thread. */
#include <errno.h>
#include <string.h>
#include "rig/model.h"

/* What the write pointer alone says. */
static uint8_t resting(const struct model *m, uint32_t i)
{
    uint64_t wp = m->zone[i].wp;

    if (wp == model_start(m, i))
        return ZQCOW2_ZONE_EMPTY;
    return wp == model_zone_limit(m, i) ? ZQCOW2_ZONE_FULL : ZQCOW2_ZONE_CLOSED;
}

/* What an open zone is when it is closed. */
static uint8_t closed(const struct model *m, uint32_t i)
{
    uint8_t state = resting(m, i);

    return m->g.rules == ZQCOW2_RULES_ZNS && state == ZQCOW2_ZONE_EMPTY ? ZQCOW2_ZONE_CLOSED :
                                                                          state;
}

/* The least recently written IMP_OPEN zone. */
static uint32_t eldest(const struct model *m)
{
    uint32_t best = MODEL_NONE;

    for (uint32_t i = 0; i < m->nr; i++) {
        const struct model_zone *z = &m->zone[i];

        if (z->forced || z->state != ZQCOW2_ZONE_IMP_OPEN)
            continue;
        if (best == MODEL_NONE || z->stamp < m->zone[best].stamp ||
            (z->stamp == m->zone[best].stamp && m->tie && m->tie(m->tie_arg, i, best)))
            best = i;
    }
    return best;
}

/* Takes what zone i lacks to be open, closing another if need be. A refusal changes nothing. */
static int take(struct model *m, uint32_t i)
{
    const struct model_zone *z = &m->zone[i];
    const struct geometry *g = &m->g;

    if (!model_is_active(z) && g->max_active && model_active_zones(m) >= g->max_active)
        return ZQCOW2_EZONE_ACTIVE;
    if (model_is_open(z) || !g->max_open || model_open_zones(m) < g->max_open)
        return 0;
    m->victim = eldest(m);
    if (m->victim == MODEL_NONE)
        return ZQCOW2_EZONE_OPEN;
    m->zone[m->victim].state = closed(m, m->victim);
    return 0;
}

static bool bad_len(uint64_t len)
{
    return len % 512 || !len;
}

static bool bad_range(const struct model *m, uint64_t len, uint64_t off)
{
    return off % 512 || bad_len(len) || off >= m->g.size || len > m->g.size - off;
}

/* forced, full: the states that refuse any write. */
static int refuses_writes(const struct model_zone *z)
{
    if (z->forced)
        return z->forced == ZQCOW2_ZONE_OFFLINE ? ZQCOW2_EZONE_OFFLINE : ZQCOW2_EZONE_RDONLY;
    return z->state == ZQCOW2_ZONE_FULL ? ZQCOW2_EZONE_FULL : 0;
}

static void put(struct model *m, const void *buf, uint64_t len, uint64_t off)
{
    if (buf)
        store_put(m->data, buf, len, off);
    else
        store_zero(m->data, len, off);
}

/* The checks' order is that of the section "Order of checks". */
static int write_seq(struct model *m, const void *buf, uint64_t len, uint64_t off, uint32_t i,
                     bool append)
{
    struct model_zone *z = &m->zone[i];
    int rc = refuses_writes(z);

    if (rc)
        return rc;
    if (off + len > model_zone_end(m, i))
        return ZQCOW2_EZONE_BOUNDARY;
    if (!append && off != z->wp)
        return ZQCOW2_EZONE_WP;
    if (z->wp + len > model_zone_limit(m, i))
        return ZQCOW2_EZONE_BOUNDARY;
    if (append && len > m->max_append)
        return -EINVAL;
    rc = take(m, i);
    if (rc)
        return rc;
    put(m, buf, len, z->wp);
    z->wp += len;
    z->kept_closed = false;
    z->stamp = m->frozen ? m->now : ++m->now;
    if (z->wp == model_zone_limit(m, i))
        z->state = ZQCOW2_ZONE_FULL;
    else if (z->state != ZQCOW2_ZONE_EXP_OPEN)
        z->state = ZQCOW2_ZONE_IMP_OPEN;
    return 0;
}

int model_write(struct model *m, const void *buf, uint64_t len, uint64_t off)
{
    uint64_t run = model_start(m, m->g.conventional);

    m->victim = MODEL_NONE;
    if (bad_range(m, len, off))
        return -EINVAL;
    if (off >= run)
        return write_seq(m, buf, len, off, (uint32_t)(off / m->g.zone_size), false);
    if (off + len > run)
        return ZQCOW2_EZONE_BOUNDARY;
    put(m, buf, len, off);
    return 0;
}

int model_append(struct model *m, const void *buf, uint64_t len, uint64_t *off)
{
    uint32_t i = (uint32_t)(*off / m->g.zone_size);
    int rc;

    m->victim = MODEL_NONE;
    if (bad_range(m, 512, *off) || bad_len(len) || *off != model_start(m, i))
        return -EINVAL; /* *off names a zone: there is no range from there on */
    if (i < m->g.conventional)
        return ZQCOW2_EZONE_STATE;
    rc = write_seq(m, buf, len, *off, i, true);
    if (!rc)
        *off = m->zone[i].wp - len;
    return rc;
}

/* Whole clusters only. */
int model_discard(struct model *m, uint64_t len, uint64_t off)
{
    uint64_t c = m->g.cluster, from = (off + c - 1) / c * c, to = (off + len) / c * c;

    if (bad_range(m, len, off))
        return -EINVAL;
    if (off + len > model_start(m, m->g.conventional))
        return ZQCOW2_EZONE_STATE;
    if (from < to)
        put(m, NULL, to - from, from);
    return 0;
}

int model_read(const struct model *m, void *buf, uint64_t len, uint64_t off)
{
    if (bad_range(m, len, off))
        return -EINVAL;
    for (uint64_t i = off / m->g.zone_size; i <= (off + len - 1) / m->g.zone_size; i++) {
        if (m->zone[i].forced == ZQCOW2_ZONE_OFFLINE)
            return ZQCOW2_EZONE_OFFLINE;
    }
    store_get(m->data, buf, len, off);
    return 0;
}

static int open_zone(struct model *m, uint32_t i)
{
    int rc = m->zone[i].state == ZQCOW2_ZONE_FULL ? ZQCOW2_EZONE_STATE : take(m, i);

    if (!rc)
        m->zone[i].state = ZQCOW2_ZONE_EXP_OPEN;
    return rc;
}

static int finish_zone(struct model *m, uint32_t i)
{
    bool takes = m->zone[i].state != ZQCOW2_ZONE_FULL && m->g.rules != ZQCOW2_RULES_ZNS;
    int rc = takes ? take(m, i) : 0;

    if (!rc) {
        m->zone[i].state = ZQCOW2_ZONE_FULL;
        m->zone[i].wp = model_zone_limit(m, i);
        m->zone[i].kept_closed = false;
    }
    return rc;
}

static void reset_zone(struct model *m, uint32_t i)
{
    put(m, NULL, m->zone[i].wp - model_start(m, i), model_start(m, i));
    m->zone[i].wp = model_start(m, i);
    m->zone[i].state = ZQCOW2_ZONE_EMPTY;
    m->zone[i].kept_closed = false;
}

static int manage_zone(struct model *m, int op, uint32_t i)
{
    struct model_zone *z = &m->zone[i];

    if (z->forced || z->state == ZQCOW2_ZONE_NOT_WP)
        return ZQCOW2_EZONE_STATE;
    if (op == ZQCOW2_OP_ZONE_OPEN)
        return open_zone(m, i);
    if (op == ZQCOW2_OP_ZONE_FINISH)
        return finish_zone(m, i);
    if (op == ZQCOW2_OP_ZONE_RESET)
        reset_zone(m, i);
    else if (model_is_open(z))
        z->state = closed(m, i);
    else if (m->g.rules == ZQCOW2_RULES_ZNS && z->state != ZQCOW2_ZONE_CLOSED)
        return ZQCOW2_EZONE_STATE;
    return 0;
}

/* Which zones the "all" form means. */
static bool meant(const struct model_zone *z, int op)
{
    if (z->forced || z->state == ZQCOW2_ZONE_NOT_WP)
        return false;
    if (op == ZQCOW2_OP_ZONE_OPEN)
        return z->state == ZQCOW2_ZONE_CLOSED;
    if (op == ZQCOW2_OP_ZONE_CLOSE)
        return model_is_open(z);
    return op == ZQCOW2_OP_ZONE_RESET || model_is_active(z);
}

/* Room for all CLOSED zones at once, if every IMP_OPEN one gave way? */
static bool open_all_fits(const struct model *m)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->nr; i++) {
        const struct model_zone *z = &m->zone[i];

        n += !z->forced && (z->state == ZQCOW2_ZONE_CLOSED || z->state == ZQCOW2_ZONE_EXP_OPEN);
    }
    return !m->g.max_open || n <= m->g.max_open;
}

/* Those that are closed to make room for the others are not meant. */
static void mark_meant(struct model *m, bool all, int op)
{
    for (uint32_t i = 0; i < m->nr; i++)
        m->zone[i].meant = !all || meant(&m->zone[i], op);
}

int model_manage(struct model *m, int op, uint64_t off, uint64_t len, uint64_t *failed)
{
    bool all = len == m->g.size && m->nr > 1;
    uint32_t i = (uint32_t)(off / m->g.zone_size);
    int rc = 0;

    m->victim = MODEL_NONE;
    if (bad_range(m, len, off) || off % m->g.zone_size ||
        ((off + len) % m->g.zone_size && off + len != m->g.size))
        return -EINVAL;
    if (all && op == ZQCOW2_OP_ZONE_OPEN && !open_all_fits(m))
        return ZQCOW2_EZONE_OPEN;
    mark_meant(m, all, op);
    for (; !rc && model_start(m, i) < off + len && i < m->nr; i++) {
        if (m->zone[i].meant)
            rc = manage_zone(m, op, i);
        *failed = model_start(m, i);
    }
    return rc;
}

/* A zone that holds nothing stays active. */
static int keep_closed(struct model *m, uint32_t i)
{
    struct model_zone *z = &m->zone[i];

    if (z->forced || z->wp != model_start(m, i))
        return ZQCOW2_EZONE_STATE;
    if (!model_is_active(z) && m->g.max_active && model_active_zones(m) >= m->g.max_active)
        return ZQCOW2_EZONE_ACTIVE;
    z->state = ZQCOW2_ZONE_CLOSED;
    z->kept_closed = true;
    z->stored = 0;
    return 0;
}

static void store_state(struct model *m, uint32_t i, unsigned state)
{
    struct model_zone *z = &m->zone[i];

    if (state != ZQCOW2_ZONE_NOT_WP && model_is_open(z))
        z->state = closed(m, i);
    z->forced = z->stored = (uint8_t)state;
    if (state != ZQCOW2_ZONE_NOT_WP)
        return;
    z->kept_closed = false;
    if (!model_is_open(z))
        z->state = resting(m, i);
}

int model_set_state(struct model *m, uint64_t off, unsigned state)
{
    bool persist = state & ZQCOW2_ZONE_PERSIST;
    uint32_t i = (uint32_t)(off / m->g.zone_size);
    struct model_zone *z;

    state &= ~ZQCOW2_ZONE_PERSIST;
    if (off >= m->g.size ||
        (state != ZQCOW2_ZONE_RDONLY && state != ZQCOW2_ZONE_OFFLINE &&
         state != ZQCOW2_ZONE_NOT_WP &&
         !(state == ZQCOW2_ZONE_CLOSED && persist && m->g.rules == ZQCOW2_RULES_ZNS)))
        return -EINVAL;
    z = &m->zone[i];
    if (z->state == ZQCOW2_ZONE_NOT_WP)
        return ZQCOW2_EZONE_STATE;
    if (state == ZQCOW2_ZONE_CLOSED)
        return keep_closed(m, i);
    if (persist) {
        store_state(m, i, state);
        return 0;
    }
    if (state != ZQCOW2_ZONE_NOT_WP && model_is_open(z))
        z->state = closed(m, i);
    z->forced = z->forced == state ? 0 : (uint8_t)state;
    return 0;
}

void model_reopen(struct model *m)
{
    for (uint32_t i = m->g.conventional; i < m->nr; i++) {
        struct model_zone *z = &m->zone[i];

        z->forced = z->stored;
        z->state = resting(m, i);
        if (z->state == ZQCOW2_ZONE_EMPTY && z->kept_closed)
            z->state = ZQCOW2_ZONE_CLOSED;
    }
}
