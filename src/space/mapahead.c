/* SPDX-License-Identifier: MIT */
/*
 * Maps what a write to a sequential zone needs, and more ahead of it: runs of clusters, taken once
 * and recorded once, so that the writes that follow find them by arithmetic. What is mapped beyond
 * the write pointer is never served (R4), so nothing here has to be undone when the write fails.
 */
#include <errno.h>
#include "space/mapahead.h"
#include "base/report.h"
#include "space/admit.h"
#include "space/compress.h"
#include "space/fill.h"
#include "space/unmap.h"

/*
 * How much to map from `at` on, in bytes: what is asked, at least a first piece (extent_bytes),
 * then as much again as lies below `at` in the zone. So a zone has few runs, and a short one costs
 * little space. On a host that has little, other zones get what is not asked.
 */
static uint64_t wanted(const struct zq_core *c, uint32_t zone, uint64_t at, uint64_t end)
{
    uint64_t start = zq_geometry_start(&c->zones.g, zone), limit = zq_zone_end(&c->zones, zone);
    uint64_t bytes = zq_max(end - at, zq_max(c->extent_bytes, at - start));

    zq_assert_k(K4, start <= at && at < end && end <= limit);
    if (zq_alloc_is_tight(&c->alloc))
        bytes = end - at;
    return zq_min(bytes, limit - at);
}

/* Clusters for at most *n that begin at guest, whose entries are in l2. */
static int take_run(struct zq_core *c, struct zq_op *op, struct zq_slice *l2, uint64_t guest,
                    uint32_t *n, uint64_t *host)
{
    struct zq_found found;
    int rc;

    *host = guest;
    if (c->map.form.external) /* each has its place in the data file, which covers the device */
        return zq_cache_writable(&c->cache, &op->g, l2, NULL);
    rc = zq_alloc_find(&c->alloc, &op->g, *n, &found);
    if (rc)
        return rc;
    *n = (uint32_t)zq_min(*n, found.count);
    *host = found.cluster << c->cluster_bits;
    rc = zq_alloc_cover(&c->alloc, &op->g, *host + ((uint64_t)*n << c->cluster_bits));
    if (rc == 0)
        rc = zq_cache_writable(&c->cache, &op->g, l2, found.slice);
    if (rc == 0)
        zq_alloc_take(&c->alloc, &found, *n);
    return rc;
}

/*
 * One run at guest, from where on len bytes have no entry: refcounts and L2 entries change in the
 * hold of the mutex that has looked.
 */
static int map_run(struct zq_core *c, struct zq_op *op, uint32_t zone, uint64_t guest, uint64_t len)
{
    struct zq_slice *l2;
    uint64_t host;
    uint32_t n;
    int rc = zq_map_table(&c->map, &op->g, guest);

    if (rc == 0)
        rc = zq_map_slice(&c->map, &op->g, guest, &l2);
    if (rc)
        return rc;
    zq_assert_k(R4, c->zones.v[zone].next <= guest); /* nothing that is served lies there */
    len = zq_min(len, zq_map_slice_end(&c->map, guest) - guest); /* a new table had no slice */
    n = (uint32_t)zq_div_up(len, (uint64_t)1 << c->cluster_bits);
    zq_assert_k(R4, zq_map_count_empty(&c->map, l2, guest, n) == n);
    rc = take_run(c, op, l2, guest, &n, &host);
    if (rc)
        return rc;
    zq_map_link(&c->map, l2, guest, host, n);
    c->zones.v[zone].ahead = 1;
    return 0;
}

/*
 * What is at `at` cannot be written in place. In front of it in its cluster may be bytes of the
 * zone, or units that the same write has found to be mapped: those are kept. Else whatever the
 * cluster maps to lies beyond the write pointer and goes.
 */
static int map_other(struct zq_core *c, struct zq_op *op, uint32_t zone, uint64_t at,
                     const struct zq_extent *e)
{
    uint64_t size = (uint64_t)1 << c->cluster_bits, guest = zq_align_down(at, size);

    zq_assert_k(R4, c->zones.v[zone].next <= at);
    if (at > guest)
        return zq_fill_own(c, op, guest, at - guest, e);
    if (!e->l2.used)
        return map_run(c, op, zone, guest, e->len);
    return zq_unmap(c, op, &at, guest + size, ZQ_LEAVE_NOTHING);
}

/*
 * One step: *at moves over what is mapped, or else something gets mapped there. A run that the zone
 * remembers needs no look-up.
 */
static int map_step(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end)
{
    const struct zq_run *run = zq_map_run(&c->map, *at);
    uint32_t zone = zq_zone_of(&c->zones, *at);
    struct zq_extent e;
    int rc;

    if (run) {
        *at = run->guest + run->len;
        return 0;
    }
    rc = zq_map_lookup(&c->map, &op->g, *at, wanted(c, zone, *at, end), &e);
    if (rc)
        return rc;
    if (zq_extent_in_place(&e)) {
        *at += e.len;
        return 0;
    }
    rc = zq_may_allocate(c, op);
    return rc ? rc : map_other(c, op, zone, *at, &e);
}

/* The turn keeps what is mapped: each step is gathered and done once. */
int zq_map_ahead(struct zq_core *c, struct zq_op *op, uint64_t at, uint64_t len)
{
    while (op->own.zone_write.mapped < len) {
        uint64_t to = at + op->own.zone_write.mapped;
        int rc = map_step(c, op, &to, at + len);

        if (rc)
            return rc;
        zq_assert(to - at >= op->own.zone_write.mapped);
        op->own.zone_write.mapped = to - at;
        zq_cache_release(&c->cache, &op->g);
        rc = zq_op_pay(c, op, ZQ_COST_SLICE);
        if (rc)
            return rc;
    }
    return 0;
}

/*
 * The next cluster. What it maps to lies beyond the write pointer, mapped ahead or of an earlier
 * life, and goes first. From the moment at which it is made the cluster counts as mapped: if the
 * link has to wait, the operation does it before it comes here again.
 */
static int compress_one(struct zq_core *c, struct zq_op *op, uint64_t at)
{
    uint64_t size = (uint64_t)1 << c->cluster_bits, gone = at;
    struct zq_extent e = {.len = 0};
    int rc = zq_may_allocate(c, op);

    zq_assert_k(R4, c->zones.v[op->zone].next <= at);
    if (rc == 0 && !zq_compress_is_begun(op)) {
        rc = zq_unmap(c, op, &gone, at + size, ZQ_LEAVE_NOTHING);
    }
    if (rc == 0)
        rc = zq_compress_step(c, op, at, &e, 0);
    if (rc)
        return rc;
    op->own.zone_write.mapped += size;
    c->zones.v[op->zone].ahead = 1;
    return zq_fill_link(c, op);
}

int zq_compress_ahead(struct zq_core *c, struct zq_op *op, uint64_t at, uint64_t len)
{
    while (op->own.zone_write.mapped < len) {
        int rc = compress_one(c, op, at + op->own.zone_write.mapped);

        if (rc)
            return rc;
        zq_cache_release(&c->cache, &op->g);
    }
    return 0;
}
