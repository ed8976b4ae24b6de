/* SPDX-License-Identifier: MIT */
/*
 * New L2 tables. A table is written whole, or copied whole from a shared one, before L1 names it
 * (K2).
 */
#include <errno.h>
#include "base/report.h"
#include "qcow2/map.h"

static void fresh_failed(struct zq_map *m)
{
    struct zq_new_l2 *f = &m->fresh;

    zq_assert(f->freed && !f->busy);
    f->freed->cluster = f->host >> m->cluster_bits;
    f->freed->count = 1;
    zq_alloc_quarantine(m->alloc, f->freed, false);
    f->freed = NULL;
}

void zq_map_drop_fresh(struct zq_map *m)
{
    if (m->fresh.ready)
        fresh_failed(m);
    m->fresh.ready = false;
}

static void fresh_done(struct zq_io *io, int ret)
{
    struct zq_map *m = zq_container(io, struct zq_map, fresh.io);
    struct zq_new_l2 *f = &m->fresh;
    uint64_t size = (uint64_t)1 << m->cluster_bits;

    if (ret == 0 && io->pub.kind == ZQCOW2_IO_READ) {
        zq_io_prep_buf(io, ZQCOW2_IO_WRITE, f->copy, f->host, size);
        zq_io_start(m->cache->x, io);
        return;
    }
    if (!f->copy && zq_io_more_zeros(m->cache->x, io, f->host + size, ret)) {
        zq_io_start(m->cache->x, io);
        return;
    }
    zq_free(m->hooks, f->copy, size);
    f->copy = NULL;
    f->busy = false;
    f->ready = ret == 0;
    if (ret < 0)
        fresh_failed(m);
    zq_wake_with(m->cache->ready, &f->waiters, ret);
}

/* Memory first, then a cluster, then its content: it is linked when all is written (R10). */
static int fresh_start(struct zq_map *m, struct zq_gather *g, uint64_t index)
{
    struct zq_new_l2 *f = &m->fresh;
    uint64_t size = (uint64_t)1 << m->cluster_bits, old = zq_entry_host(m->l1.v[index]);
    struct zq_found found;
    int rc = zq_alloc_find(m->alloc, g, 1, &found);

    zq_assert(!f->busy && !f->ready && !f->copy);
    if (rc == 0)
        rc = zq_alloc_cover(m->alloc, g, (found.cluster + 1) << m->cluster_bits);
    if (rc)
        return rc;
    if (!f->freed)
        f->freed = zq_record_new(m->alloc);
    zq_map_watch_untouched(m);
    if (f->freed && old)
        f->copy = zq_alloc(m->hooks, 4096, size);
    if (!f->freed || (old && !f->copy))
        return -ENOMEM;
    f->index = index;
    f->host = found.cluster << m->cluster_bits;
    zq_alloc_take(m->alloc, &found, 1);
    zq_cache_unpin(m->cache, g, found.slice);
    f->io.complete = fresh_done;
    f->busy = true;
    if (old)
        zq_io_prep_buf(&f->io, ZQCOW2_IO_READ, f->copy, old, size);
    else
        zq_io_first_zeros(m->cache->x, &f->io, f->host, f->host + size);
    zq_io_start(m->cache->x, &f->io);
    return zq_cache_park(m->cache, g, &f->waiters);
}

static void fresh_link(struct zq_map *m)
{
    struct zq_new_l2 *f = &m->fresh;
    uint64_t old = zq_entry_host(m->l1.v[f->index]);

    zq_assert_k(K2, f->ready && !f->busy && !m->l1.frozen); /* written, and L1 may change */
    zq_memtable_set(&m->l1, f->index, zq_l1_set_own(f->host, true));
    m->alloc->tables++;
    f->ready = false;
    if (!old)
        zq_map_set_untouched(m, f->index);
    if (old) { /* the snapshot's table: our reference is dropped, and it is not read again */
        zq_cache_forget(m->cache, old, (uint64_t)1 << m->cluster_bits);
        f->freed->cluster = old >> m->cluster_bits;
        f->freed->count = 1;
        f->freed->punch = false;
        zq_alloc_quarantine(m->alloc, f->freed, true);
        f->freed = NULL;
    }
}

int zq_map_table(struct zq_map *m, struct zq_gather *g, uint64_t guest)
{
    struct zq_new_l2 *f = &m->fresh;
    uint64_t index = guest >> m->span_bits;
    int rc;

    for (;;) {
        if (zq_l1_is_own(m->l1.v[index]))
            return 0;
        if (f->ready) {
            if (m->l1.frozen)
                return zq_cache_park(m->cache, g, &m->cache->frozen_waiters);
            fresh_link(m);
            continue;
        }
        if (f->busy)
            return zq_cache_park(m->cache, g, &f->waiters);
        rc = fresh_start(m, g, index);
        if (rc)
            return rc;
    }
}
