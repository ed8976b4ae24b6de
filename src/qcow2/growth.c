/* SPDX-License-Identifier: MIT */
/*
 * Growth of the refcount table (R9): the new table, and the refcount blocks that describe it, are
 * written whole into the first range that the old table cannot describe, in gather, so that a lack
 * of space (R10) fails only requests that need it; a round switches one sector of the header; then
 * the old table is freed. Until the switch the old table does not change.
 */
#include "qcow2/growth.h"

#include <errno.h>
#include "base/report.h"
#include "format/header.h"

#define PIECE (1u << 20) /* composed and written at once */

static uint64_t piece(const struct zq_growth *gr)
{
    return zq_min(zq_reftable_bytes(&gr->plan), PIECE);
}

static int compose(struct zq_move *m, uint64_t at, uint8_t *buf, uint64_t n)
{
    const struct zq_growth *gr = zq_container(m, const struct zq_growth, move);

    zq_reftable_compose(&gr->plan, gr->next.v, at, buf, n);
    return 0;
}

/* Twice as large, where the old table describes nothing. */
static int plan(const struct zq_refs *r, struct zq_reftable *t)
{
    *t = (struct zq_reftable){r->cluster_bits, r->order, .base = r->table.entries << r->block_bits};
    t->entries = zq_min(r->table.entries * 2, zq_table_count(ZQ_MAX_RT_BYTES));
    return zq_reftable_plan(t);
}

/* Behind areas, as far as the first new block describes them; what is left out counts as in use. */
static int plan_behind(const struct zq_alloc *a, struct zq_reftable *t)
{
    uint64_t bits = t->cluster_bits, base = t->base, first = t->first;
    uint64_t host = zq_alloc_behind_areas(a, base << bits, zq_reftable_bytes(t));

    if (host >> bits == base)
        return 0;
    t->base = host >> bits;
    if (zq_reftable_plan(t) == 0 && t->first == first)
        return 0;
    t->base = base;
    return zq_reftable_plan(t);
}

/* The new table as it will be in memory. -ENOMEM: to be dropped all the same. */
static int make_next(struct zq_alloc *a, struct zq_growth *gr)
{
    const struct zqcow2_hooks *h = a->cache->x->hooks;
    const struct zq_memtable *old = &a->refs.table;
    int rc = zq_memtable_open(&gr->next, h, gr->plan.entries, gr->move.host);

    gr->buf = zq_alloc(h, 4096, piece(gr));
    gr->freed = zq_record_new(a);
    if (rc < 0 || !gr->buf || !gr->freed)
        return -ENOMEM;
    for (uint64_t i = 0; i < gr->next.entries; i++)
        gr->next.v[i] = zq_reftable_entry(&gr->plan, old->v, i);
    return zq_memtable_index(&gr->next);
}

void zq_growth_drop(struct zq_alloc *a)
{
    const struct zqcow2_hooks *h = a->cache->x->hooks;
    struct zq_growth *gr = &a->growth;

    zq_memtable_close(&gr->next);
    zq_free(h, gr->buf, piece(gr));
    zq_record_drop(a, gr->freed);
    gr->buf = NULL;
    gr->freed = NULL;
    gr->whole = gr->switching = false;
}

/* ---- in gather ---- */

static int write_next(struct zq_alloc *a)
{
    struct zq_growth *gr = &a->growth;
    int rc = zq_move_next(&gr->move, &gr->io, gr->buf, piece(gr));

    if (rc == 0)
        zq_io_start(a->cache->x, &gr->io);
    return rc;
}

/* Nothing points to it yet: any error concerns only the waiters. */
static void write_done(struct zq_io *io, int ret)
{
    struct zq_alloc *a = zq_container(io, struct zq_alloc, growth.io);
    struct zq_growth *gr = &a->growth;

    zq_assert_k(R9, gr->next.v && !gr->whole && !gr->switching);
    if (ret == 0 && !zq_move_is_whole(&gr->move)) {
        ret = write_next(a);
        if (ret == 0)
            return;
    }
    gr->whole = a->want_switch = ret == 0;
    if (ret == 0)
        return;
    zq_growth_drop(a);
    zq_wake_with(a->cache->ready, &gr->waiters, ret);
}

static int start(struct zq_alloc *a, struct zq_gather *g)
{
    struct zq_growth *gr = &a->growth;
    struct zq_move *m = &gr->move;
    int rc = plan(&a->refs, &gr->plan);

    if (rc < 0 || (rc = plan_behind(a, &gr->plan)) < 0)
        return rc;
    *m = (struct zq_move){.host = gr->plan.base << gr->plan.cluster_bits,
                          .bytes = zq_reftable_bytes(&gr->plan),
                          .compose = compose};
    if (zq_alloc_is_known(a, m->host, m->bytes))
        return ZQCOW2_ECORRUPT;
    /* First, so that no truncate cuts off what is written. */
    rc = zq_alloc_cover(a, g, m->host + m->bytes);
    if (rc)
        return rc;
    rc = make_next(a, gr);
    if (rc == 0) {
        zq_alloc_touch(a, m->host, m->bytes);
        gr->io.complete = write_done;
        rc = write_next(a);
    }
    if (rc < 0)
        zq_growth_drop(a);
    return rc;
}

int zq_growth_wait(struct zq_alloc *a, struct zq_gather *g)
{
    struct zq_growth *gr = &a->growth;
    int rc = gr->next.v ? 0 : start(a, g);

    if (rc)
        return rc;
    a->want_switch |= gr->whole;
    return zq_cache_park(a->cache, g, &gr->waiters);
}

/* ---- in a round ---- */

void zq_growth_patch(const struct zq_alloc *a, uint8_t *sector0)
{
    const struct zq_growth *gr = &a->growth;

    zq_assert_k(R9, gr->whole && gr->switching); /* all that it will point to is written */
    zq_header_put_rt(sector0 + ZQ_HDR_RT_OFFSET, gr->next.offset,
                     (uint32_t)zq_reftable_clusters(&gr->plan));
}

void zq_growth_switch(struct zq_alloc *a)
{
    struct zq_growth *gr = &a->growth;
    struct zq_refs *r = &a->refs;

    zq_assert_k(R9, gr->whole && gr->switching && zq_move_is_whole(&gr->move));
    gr->freed->cluster = r->table.offset >> r->cluster_bits;
    gr->freed->count = zq_div_up(zq_table_bytes(r->table.entries), (uint64_t)1 << r->cluster_bits);
    gr->freed->punch = true;
    zq_alloc_quarantine(a, gr->freed, false);
    gr->freed = NULL;
    gr->next.frozen = r->table.frozen; /* until the round thaws it */
    zq_memtable_close(&r->table);
    r->table = gr->next;
    gr->next = (struct zq_memtable){0};
    a->fixed[ZQ_FIXED_REFCOUNTS] =
        (struct zq_host_range){r->table.offset, zq_table_bytes(r->table.entries)};
    a->tables++;
    zq_growth_drop(a);
    a->want_switch = false;
    zq_wake(a->cache->ready, &gr->waiters);
}

void zq_growth_stop(struct zq_alloc *a, int rc)
{
    a->growth.switching = a->want_switch = false;
    zq_wake_with(a->cache->ready, &a->growth.waiters, rc);
}
