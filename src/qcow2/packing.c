/* SPDX-License-Identifier: MIT */
/*
 * Room for compressed clusters, one behind another. Each that lies in a cluster of the file counts
 * as a reference to it, so the last one to go frees it. Keeps K1.
 *
 * Each begins and ends at a sector. So no write touches a sector that an entry names already:
 * neither a torn write nor another one in flight can harm what was acknowledged, and nothing has
 * to be read before it is written.
 */
#include "qcow2/alloc.h"

#include "base/report.h"
#include "qcow2/map.h"

static uint64_t room_left(const struct zq_alloc *a)
{
    return a->packing.end - a->packing.at;
}

/* The count of the cluster with room: it has somebody in it, and may have one more. */
static int pin_shared(struct zq_alloc *a, struct zq_gather *g, struct zq_place *p)
{
    struct zq_refs *r = &a->refs;
    uint64_t cluster = a->packing.at >> r->cluster_bits, count;
    uint64_t host = zq_ref_slice(r, cluster, &p->index);
    int rc = zq_cache_pin(a->cache, g, host, ZQ_SLICE_REFS, &p->shared);

    if (rc)
        return rc;
    count = zq_ref_get(r, p->shared->data, p->index);
    if (count && count < zq_refbits_max(r->order))
        return 0;
    if (p->shared != p->fresh.slice)
        zq_cache_unpin(a->cache, g, p->shared);
    p->shared = NULL;
    zq_packing_forget(a);
    return 0;
}

static int find_fresh(struct zq_alloc *a, struct zq_gather *g, struct zq_place *p)
{
    uint32_t bits = a->refs.cluster_bits;
    int rc = zq_alloc_find(a, g, 1, &p->fresh);

    if (rc)
        return rc;
    p->fresh.count = 1;
    p->host = p->fresh.cluster << bits;
    return zq_alloc_cover(a, g, p->host + ((uint64_t)1 << bits));
}

/* Both counts may be changed now: they may be in one slice. */
static int make_writable(struct zq_alloc *a, struct zq_gather *g, const struct zq_place *p)
{
    struct zq_slice *fresh = p->fresh.count ? p->fresh.slice : p->shared;

    return zq_cache_writable(a->cache, g, fresh, p->shared == fresh ? NULL : p->shared);
}

int zq_packing_find(struct zq_alloc *a, struct zq_gather *g, uint64_t bytes, struct zq_place *p)
{
    int rc = 0;

    zq_assert(bytes && bytes < (uint64_t)1 << a->refs.cluster_bits && !(bytes % ZQ_SECTOR));
    *p = (struct zq_place){.host = a->packing.at, .bytes = bytes};
    if (room_left(a) < bytes)
        rc = find_fresh(a, g, p);
    if (rc == 0 && room_left(a) && (!p->fresh.count || p->host == a->packing.end))
        rc = pin_shared(a, g, p);
    if (rc == 0 && p->shared)
        p->host = a->packing.at;
    else if (rc == 0 && !p->fresh.count) /* no more fit into it: it has been forgotten */
        rc = find_fresh(a, g, p);
    return rc ? rc : make_writable(a, g, p);
}

void zq_packing_take(struct zq_alloc *a, const struct zq_place *p)
{
    const struct zq_refs *r = &a->refs;

    if (p->shared) {
        uint64_t count = zq_ref_get(r, p->shared->data, p->index);

        zq_assert_k(K8, count && count < zq_refbits_max(r->order));
        zq_assert_k(K1, p->host == a->packing.at);
        zq_ref_set(r, p->shared->data, p->index, count + 1);
        zq_cache_dirty(a->cache, p->shared);
    }
    if (p->fresh.count) {
        zq_alloc_take(a, &p->fresh, 1);
        a->packing.end = (p->fresh.cluster + 1) << r->cluster_bits;
    }
    a->packing.at = p->host + p->bytes;
    zq_assert(a->packing.at <= a->packing.end);
}

/* In a zone nothing remembers a run there: what was mapped has been unmapped first. */
void zq_map_link_packed(struct zq_map *m, struct zq_slice *s, uint64_t guest, uint64_t host,
                        uint64_t bytes)
{
    uint64_t i = (guest >> m->cluster_bits) & (((uint64_t)1 << m->slice_bits) - 1);

    zq_assert(!(guest & (((uint64_t)1 << m->cluster_bits) - 1)));
    zq_assert_k(K1, host && host + bytes <= m->alloc->file_size && !zq_map_run(m, guest));
    zq_l2_link_packed(&m->form, zq_l2_at(&m->form, s->data, i), host, bytes);
    zq_cache_dirty(m->cache, s);
}
