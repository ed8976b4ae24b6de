/* SPDX-License-Identifier: MIT */
/*
 * Unmaps whole clusters. What the entries held goes into the quarantine (R5); the records for it
 * can be taken beforehand, so that a request fails for memory before it has changed anything (I13).
 */
#include <errno.h>
#include "base/report.h"
#include "engine/core.h"

static struct zq_freed *take_record(struct zq_core *c, struct zq_op *op)
{
    struct zq_list *n = zq_list_pop(&op->spare);

    if (!n)
        return zq_zalloc(&c->hooks, sizeof(struct zq_freed));
    op->nr_spare--;
    return zq_container(n, struct zq_freed, link);
}

static void keep_record(struct zq_op *op, struct zq_freed *f)
{
    zq_list_push(&op->spare, &f->link);
    op->nr_spare++;
}

void zq_unmap_drop(struct zq_core *c, struct zq_op *op)
{
    for (struct zq_list *n; (n = zq_list_pop(&op->spare));)
        zq_free(&c->hooks, zq_container(n, struct zq_freed, link), sizeof(struct zq_freed));
    op->nr_spare = 0;
}

/* ---- beforehand ---- */

static int take_records(struct zq_core *c, struct zq_op *op, uint32_t n)
{
    while (n--) {
        struct zq_freed *f = zq_zalloc(&c->hooks, sizeof(*f));

        if (!f)
            return -ENOMEM;
        keep_record(op, f);
    }
    return 0;
}

int zq_unmap_prepare(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end)
{
    while (*at < end) {
        uint64_t next, stop = zq_min(end, zq_map_slice_end(&c->map, *at));
        struct zq_slice *s;
        int rc;

        if (!zq_map_has_table(&c->map, *at, &next)) {
            *at = zq_min(next, end);
            continue;
        }
        rc = zq_map_slice(&c->map, &op->g, *at, &s);
        if (rc == 0)
            rc = zq_map_check(&c->map, s, *at, stop);
        if (rc == 0)
            rc = take_records(c, op, zq_map_count_runs(&c->map, s, *at, stop));
        if (rc)
            return rc;
        zq_cache_unpin(&c->cache, &op->g, s);
        *at = stop;
    }
    return 0;
}

/* ---- at last ---- */

/* One host run: the entries, and the record of what they held, in one hold. */
static int unmap_run(struct zq_core *c, struct zq_op *op, struct zq_slice *s, uint64_t *at,
                     uint64_t end)
{
    struct zq_freed *f = take_record(c, op);

    if (!f)
        return -ENOMEM;
    *at = zq_map_unlink(&c->map, s, *at, end, f);
    if (f->count)
        zq_alloc_quarantine(&c->alloc, f, true);
    else
        keep_record(op, f);
    return 0;
}

static int unmap_slice(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end)
{
    struct zq_slice *s;
    int rc;

    end = zq_min(end, zq_map_slice_end(&c->map, *at));
    if (zq_range_owned(c, *at, end - *at))
        return zq_cache_park(&c->cache, &op->g, &c->owner_waiters);
    rc = zq_map_slice(&c->map, &op->g, *at, &s);
    if (rc)
        return rc;
    if (zq_map_count_empty(&c->map, s, *at, UINT32_MAX) >= (end - *at) >> c->cluster_bits) {
        *at = end;
        zq_cache_unpin(&c->cache, &op->g, s);
        return 0;
    }
    zq_cache_unpin(&c->cache, &op->g, s);
    rc = zq_map_table(&c->map, &op->g, *at); /* a shared table is copied first */
    if (rc == 0)
        rc = zq_map_slice(&c->map, &op->g, *at, &s);
    if (rc == 0)
        rc = zq_cache_writable(&c->cache, &op->g, s, NULL);
    if (rc == 0)
        rc = zq_map_check(&c->map, s, *at, end);
    while (rc == 0 && *at < end)
        rc = unmap_run(c, op, s, at, end);
    if (rc == 0)
        zq_cache_release(&c->cache, &op->g);
    return rc;
}

int zq_unmap(struct zq_core *c, struct zq_op *op, uint64_t *at, uint64_t end)
{
    while (*at < end) {
        uint64_t next;
        int rc = 0;

        if (!zq_map_has_table(&c->map, *at, &next))
            *at = zq_min(next, end);
        else if (!c->marked)
            rc = zq_may_allocate(c, op);
        else
            rc = unmap_slice(c, op, at, end);
        if (rc)
            return rc;
    }
    return 0;
}
