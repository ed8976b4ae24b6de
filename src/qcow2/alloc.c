/* SPDX-License-Identifier: MIT */
/*
 * Finds free host clusters and lowers refcounts again. Keeps K1.
 *
 * The two cursors only skip what is known to be taken, so nothing is lost when a search is given
 * up halfway: single clusters fill the gaps, runs go on where the last one ended. A block of
 * refcounts describes itself in its first entry, so making one takes no cluster from another.
 */
#include "qcow2/alloc.h"

#include <errno.h>
#include "base/report.h"
#include "format/header.h"
#include "qcow2/growth.h"

int zq_alloc_open(struct zq_alloc *a, const struct zq_alloc_params *p)
{
    struct zq_refs *r = &a->refs;

    a->cache = r->cache = p->cache;
    r->cluster_bits = p->cluster_bits;
    r->order = p->refcount_order;
    r->block_bits = zq_block_bits(p->cluster_bits, p->refcount_order);
    r->slice_refs = p->cache->slice_bytes * 8 >> p->refcount_order;
    a->tables = 1;
    a->file_size = p->file_size;
    a->virgin = zq_align_up(p->file_size, (uint64_t)1 << p->cluster_bits);
    a->refused = UINT64_MAX;
    zq_list_init(&a->growth.waiters);
    zq_list_init(&a->quarantine[0]);
    zq_list_init(&a->quarantine[1]);
    zq_list_init(&a->cover_waiters);
    zq_list_init(&a->room_waiters);
    zq_list_init(&a->block_waiters);
    zq_list_init(&a->rest_waiters);
    return zq_memtable_open(&r->table, p->cache->x->hooks, p->table_entries, p->table_offset);
}

void zq_alloc_close(struct zq_alloc *a)
{
    const struct zqcow2_hooks *h;

    if (!a->cache)
        return;
    h = a->cache->x->hooks;
    zq_growth_drop(a);
    for (int i = 0; i < 2; i++) {
        for (struct zq_list *n; (n = zq_list_pop(&a->quarantine[i]));)
            zq_record_drop(a, zq_container(n, struct zq_freed, link));
    }
    zq_free(h, a->records.one, sizeof(struct zq_freed));
    zq_free(h, a->areas, a->areas_room * sizeof(*a->areas));
    zq_memtable_close(&a->refs.table);
    a->cache = NULL;
}

/* ---- new refcount blocks ---- */

/* Zeros first, for the space (R10); the entry that counts the block itself last. */
static void block_done(struct zq_io *io, int ret)
{
    struct zq_alloc *a = zq_container(io, struct zq_alloc, block);

    zq_assert(a->block_busy && !a->block_ready);
    if (!a->block_counted && zq_io_more_zeros(a->cache->x, io, a->block_end, ret)) {
        zq_io_start(a->cache->x, io);
        return;
    }
    if (!a->block_counted && ret == 0) {
        a->block_counted = true;
        zq_io_prep_buf(io, ZQCOW2_IO_WRITE, a->block_first, a->block_host, ZQ_SECTOR);
        zq_io_start(a->cache->x, io);
        return;
    }
    a->block_busy = false;
    a->block_ready = ret == 0;
    zq_wake_with(a->cache->ready, &a->block_waiters, ret);
}

static void write_block(struct zq_alloc *a, uint64_t index, uint64_t host, uint64_t bytes)
{
    struct zq_refs *r = &a->refs;
    uint64_t own = (host >> r->cluster_bits) - (index << r->block_bits);

    zq_assert_k(K1, !a->block_busy && !a->block_ready && !r->table.v[index]);
    memset(a->block_first, 0, sizeof(a->block_first));
    zq_ref_set(r, a->block_first, (uint32_t)own, 1);
    a->block_index = index;
    a->block_host = host;
    a->block_end = host + bytes;
    a->block_busy = true;
    a->block_counted = false;
    a->block.complete = block_done;
    zq_io_first_zeros(a->cache->x, &a->block, host, a->block_end);
    zq_alloc_touch(a, host, bytes);
    zq_io_start(a->cache->x, &a->block);
}

/* Its first slice counts the block itself. */
static void blank_rest(struct zq_alloc *a, uint64_t host)
{
    uint64_t bytes = (uint64_t)1 << a->refs.cluster_bits, first = a->cache->slice_bytes;

    zq_cache_blank(a->cache, ZQ_SLICE_REFS, host + first, bytes - first);
}

/*
 * The first cluster of the range that the block describes, or of those behind areas in it; but the
 * block's first sector must count it.
 */
static uint64_t place_of(const struct zq_alloc *a, uint64_t index)
{
    const struct zq_refs *r = &a->refs;
    uint64_t first = index << r->block_bits << r->cluster_bits;
    uint64_t host = zq_alloc_behind_areas(a, first, (uint64_t)1 << r->cluster_bits);

    return (host - first) >> r->cluster_bits < ZQ_SECTOR * 8 >> r->order ? host : first;
}

/*
 * Brings the block for range `index` into being. It lies in the range that it describes, and counts
 * itself: all of that range is free as long as no block covers it, so nothing has to be allocated.
 * It is written whole before it is linked (R10).
 */
static int new_block(struct zq_alloc *a, struct zq_gather *g, uint64_t index)
{
    struct zq_refs *r = &a->refs;
    uint64_t bytes = (uint64_t)1 << r->cluster_bits;
    uint64_t host = place_of(a, index);
    int rc;

    /*
     * A table that grows is a copy of this one, which lacks no block then: a search steps over no
     * range without one, and only a search that has come to the end lets the table grow (R9).
     */
    zq_assert_k(R9, !a->growth.next.v);
    if (r->table.frozen)
        return zq_cache_park(a->cache, g, &a->cache->frozen_waiters);
    if (a->block_ready) {
        zq_assert_k(K2,
                    a->block_counted && !r->table.v[a->block_index]); /* written before linked */
        zq_memtable_set(&r->table, a->block_index, a->block_host);
        a->tables++;
        blank_rest(a, a->block_host);
        a->block_ready = false;
        if (r->table.v[index])
            return 0;
    }
    if (a->block_busy)
        return zq_cache_park(a->cache, g, &a->block_waiters);
    if (zq_alloc_is_known(a, host, bytes))
        return ZQCOW2_ECORRUPT;
    rc = zq_alloc_cover(a, g, host + bytes);
    if (rc)
        return rc;
    write_block(a, index, host, bytes);
    return zq_cache_park(a->cache, g, &a->block_waiters);
}

/* ---- searching ---- */

#define MAX_LOOKS 64 /* at slices of refcounts, in one hold of the mutex */
#define FOUND     2  /* beside 0 (go on), ZQ_WAIT and errors */

/*
 * Host file systems keep and cache what is aligned in larger pieces: a run begins at a multiple of
 * its own size, at most of this. What is left in front serves single clusters.
 */
#define RUN_ALIGN (2u << 20)

static uint32_t alignment(const struct zq_alloc *a, uint32_t want)
{
    const struct zq_refs *r = &a->refs;
    uint64_t most = zq_min(RUN_ALIGN >> r->cluster_bits, r->slice_refs / 16);

    if (zq_alloc_is_tight(a))
        return 1;
    return 1u << zq_log2(zq_min(want, zq_max(most, 1)));
}

/* Where in the free stretch [from, to) a run begins: aligned, unless that leaves out too much. */
static uint32_t aligned_start(uint32_t from, uint32_t to, uint32_t align, uint64_t spare)
{
    uint32_t start = (from + align - 1) & ~(align - 1);

    return start < to && start - from <= zq_min(spare, to - start) ? start : from;
}

/* The first index in [i, end) whose cluster is free; end if none is. */
static uint32_t pass_taken(const struct zq_refs *r, const uint8_t *slice, uint32_t i, uint32_t end)
{
    while (i < end && zq_ref_get(r, slice, i))
        i++;
    return i;
}

/* The first one that is taken: long stretches are free, and looked at eight bytes at a time. */
static uint32_t pass_free(const struct zq_refs *r, const uint8_t *slice, uint32_t i, uint32_t end)
{
    uint32_t word = 64u >> r->order;

    while (i < end && !zq_ref_get(r, slice, i)) {
        i++;
        while (i % word == 0 && i + word <= end && !zq_be64(slice + i / word * 8))
            i += word;
    }
    return i;
}

/*
 * The first run of `want` zeros in a slice in [*from, all), else the longest. Length in *count.
 * *from moves over what is taken, so that it is not examined again, and over the few, at most
 * `spare`, that are left free for alignment: the next run follows this one, and the few are for
 * single clusters.
 */
static uint32_t scan(struct zq_alloc *a, const uint8_t *slice, uint64_t spare, uint32_t *from,
                     uint32_t all, uint32_t want, uint32_t *count)
{
    const struct zq_refs *r = &a->refs;
    uint32_t align = alignment(a, want);
    uint32_t i = pass_taken(r, slice, *from, all), best = i, start, end;

    *from = i;
    for (*count = 0; i < all && *count < want; i = pass_taken(r, slice, end, all)) {
        end = pass_free(r, slice, i, (uint32_t)zq_min((uint64_t)i + want + align - 1, all));
        start = aligned_start(i, end, align, spare);
        if (end - start > *count) {
            best = start;
            *count = (uint32_t)zq_min(end - start, want);
        }
    }
    if (best - *from < align) {
        a->left_out += best - *from;
        *from = best;
    }
    return best;
}

/* How many may be left out at this cluster: one sixteenth of what lies before it, in all. */
static uint64_t spare(const struct zq_alloc *a, uint64_t at)
{
    uint64_t most = (RUN_ALIGN >> a->refs.cluster_bits) + at / 16;

    return most > a->left_out ? most - a->left_out : 0;
}

/* The first cluster that is free: one alone fills any gap. */
static uint32_t scan_one(const struct zq_refs *r, const uint8_t *slice, uint32_t *from,
                         uint32_t *count)
{
    *from = pass_taken(r, slice, *from, r->slice_refs);
    *count = *from < r->slice_refs;
    return *from;
}

/*
 * Where the host has refused a length: up to `want` in front of it, however few; behind it as many
 * as are needed, for which the host is asked again.
 */
static uint32_t scan_tight(struct zq_alloc *a, const uint8_t *slice, uint64_t at, uint32_t *index,
                           uint32_t want, uint32_t need, uint32_t *count)
{
    uint32_t all = a->refs.slice_refs, first = *index;
    uint32_t end = (uint32_t)zq_min(zq_alloc_before_refused(a, at - *index), all);

    *count = 0;
    if (*index < end)
        first = scan(a, slice, 0, index, end, want, count);
    if (*count || end == all)
        return first;
    *index = (uint32_t)zq_max(*index, end);
    return scan(a, slice, 0, index, all, need, count);
}

/* Looks at the slice under the cursor. */
static int look(struct zq_alloc *a, struct zq_gather *g, uint64_t *cursor, uint32_t want,
                uint32_t need, struct zq_found *f)
{
    struct zq_refs *r = &a->refs;
    uint64_t host, base;
    uint32_t index, first, count;
    int rc;

    host = zq_ref_slice(r, *cursor, &index);
    rc = zq_cache_pin(a->cache, g, host, ZQ_SLICE_REFS, &f->slice);
    if (rc)
        return rc;
    base = *cursor - index;
    if (zq_alloc_is_tight(a))
        first = scan_tight(a, f->slice->data, *cursor, &index, want, need, &count);
    else
        first = want > 1 ? scan(a, f->slice->data, spare(a, *cursor), &index, r->slice_refs, want,
                                &count) :
                           scan_one(r, f->slice->data, &index, &count);
    *cursor = base + index;
    count = (uint32_t)(zq_alloc_before_areas(a, (base + first) << r->cluster_bits,
                                             (uint64_t)count << r->cluster_bits) >>
                       r->cluster_bits);
    /* A run far too short would break an extent into crumbs: look further, while there is room. */
    if (count < (zq_alloc_is_tight(a) ? 1 : zq_max(1, want / 8))) {
        zq_cache_unpin(a->cache, g, f->slice);
        return 0;
    }
    rc = zq_cache_writable(a->cache, g, f->slice, NULL);
    if (rc)
        return rc;
    f->cluster = base + first;
    if (zq_alloc_is_known(a, f->cluster << r->cluster_bits, (uint64_t)count << r->cluster_bits))
        return ZQCOW2_ECORRUPT;
    zq_assert_k(E3, first + count <= r->slice_refs);
    f->count = count;
    f->index = first;
    return FOUND;
}

static int find_step(struct zq_alloc *a, struct zq_gather *g, uint64_t *cursor, uint32_t want,
                     uint32_t need, struct zq_found *f)
{
    struct zq_refs *r = &a->refs;
    uint64_t block = *cursor >> r->block_bits;
    int rc;

    if (*cursor >= ZQ_MAX_HOST_OFFSET >> r->cluster_bits)
        return -EFBIG;
    if (block >= r->table.entries)
        return zq_growth_wait(a, g);
    if (!r->table.v[block] && !block)
        return ZQCOW2_ECORRUPT; /* the header's own cluster is not counted */
    if (!r->table.v[block]) {
        rc = new_block(a, g, block);
        if (rc)
            return rc;
    }
    return look(a, g, cursor, want, need, f);
}

static void rest_work(struct zq_io *io)
{
    io->ret = 0;
}

static void rest_done(struct zq_io *io, int ret)
{
    struct zq_alloc *a = zq_container(io, struct zq_alloc, rest);

    zq_assert(a->resting);
    a->resting = false;
    zq_wake_with(a->cache->ready, &a->rest_waiters, ret);
}

/* Lets go of the mutex; the search goes on from its cursor. */
static int rest(struct zq_alloc *a, struct zq_gather *g)
{
    if (!a->resting) {
        a->resting = true;
        a->rest.complete = rest_done;
        zq_io_prep(&a->rest, ZQ_IO_WORK, 0, 0);
        a->rest.work = rest_work;
        a->rest.cost = ZQ_COST_SEARCH;
        zq_io_start(a->cache->x, &a->rest);
    }
    return zq_cache_park(a->cache, g, &a->rest_waiters);
}

static int find(struct zq_alloc *a, struct zq_gather *g, uint32_t want, uint32_t need,
                struct zq_found *f)
{
    uint64_t *cursor = want > 1 ? &a->next_run : &a->next_one;

    zq_assert(want);
    for (unsigned i = 0; i < MAX_LOOKS; i++) {
        uint64_t next = zq_align_down(*cursor, a->refs.slice_refs) + a->refs.slice_refs;
        int rc = a->corrupt ? ZQCOW2_ECORRUPT : find_step(a, g, cursor, want, need, f);

        if (rc)
            return rc == FOUND ? 0 : rc;
        *cursor = next;
    }
    return rest(a, g);
}

int zq_alloc_find(struct zq_alloc *a, struct zq_gather *g, uint32_t want, struct zq_found *f)
{
    return find(a, g, want, 1, f);
}

/* A run that is too short is passed over: the next search begins behind it. */
int zq_alloc_find_row(struct zq_alloc *a, struct zq_gather *g, uint32_t n, struct zq_found *f)
{
    int rc;

    if (n >= a->refs.slice_refs) /* one of them may count its own block */
        return -EFBIG;
    while ((rc = find(a, g, n, n, f)) == 0 && f->count < n) {
        a->next_run = f->cluster + f->count;
        zq_cache_release(a->cache, g);
    }
    return rc;
}

void zq_alloc_take(struct zq_alloc *a, const struct zq_found *f, uint32_t n)
{
    uint64_t end = f->cluster + n;

    zq_assert(n && n <= f->count && !a->corrupt);
    zq_assert_k(R4, end << a->refs.cluster_bits <= a->file_size);
    for (uint32_t i = 0; i < n; i++)
        zq_assert_k(K8, !zq_ref_get(&a->refs, f->slice->data, f->index + i));
    zq_refbits_fill(f->slice->data, a->refs.order, f->index, n, 1);
    zq_cache_dirty(a->cache, f->slice);
    a->virgin = zq_max(a->virgin, end << a->refs.cluster_bits);
    if (a->next_one >= f->cluster && a->next_one < end)
        a->next_one = end;
    if (a->next_run >= f->cluster && a->next_run < end)
        a->next_run = end;
}

/* ---- giving back ---- */

/* A cluster whose refcount is 0 already was corrupt before: leave it so. */
static void lower_slice(struct zq_alloc *a, struct zq_slice *s, struct zq_freed *f, uint32_t index,
                        uint32_t n)
{
    uint64_t free = UINT64_MAX; /* the first one that becomes so */

    for (uint32_t i = n; i--;) {
        uint64_t v = zq_ref_get(&a->refs, s->data, index + i);
        if (v)
            zq_ref_set(&a->refs, s->data, index + i, v - 1);
        if (v == 1)
            free = f->cluster + i;
        if (v == 1 && free == a->packing.at >> a->refs.cluster_bits)
            zq_packing_forget(a);
    }
    a->next_one = zq_min(a->next_one, free);
    a->next_run = zq_min(a->next_run, free);
    a->gained |= free != UINT64_MAX;
    a->slack |= free != UINT64_MAX;
    zq_cache_dirty(a->cache, s);
}

int zq_alloc_lower(struct zq_alloc *a, struct zq_gather *g, struct zq_freed *f)
{
    while (f->count) {
        struct zq_slice *s;
        uint32_t index;
        uint64_t host = zq_ref_slice(&a->refs, f->cluster, &index);
        uint32_t n = (uint32_t)zq_min(f->count, a->refs.slice_refs - index);
        int rc;

        if (host) {
            rc = zq_cache_pin(a->cache, g, host, ZQ_SLICE_REFS, &s);
            if (rc == 0)
                rc = zq_cache_writable(a->cache, g, s, NULL);
            if (rc)
                return rc;
            lower_slice(a, s, f, index, n);
            zq_cache_release(a->cache, g);
        }
        f->cluster += n;
        f->count -= n;
    }
    return 0;
}
