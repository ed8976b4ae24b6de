/* SPDX-License-Identifier: MIT */
/*
 * Refcounts of many clusters, changed on disk. References are collected and sorted, so that a block
 * is read and written once for many, and memory does not grow with the image. Sorting by bytes
 * takes the same time for all that an image may name, and a fraction of the general sort's.
 *
 * What becomes free is given back to the host at once: nothing durable refers to it any more, and
 * nobody can take it before all is done.
 */
#include <errno.h>
#include <inttypes.h>
#include "base/report.h"
#include "format/refbits.h"
#include "snapshot/snapshot.h"

static unsigned block_bits(const struct zq_snap *s)
{
    return zq_block_bits(s->bounds.form.cluster_bits, s->refcount_order);
}

/* The block that counts the cluster, in s->block. False: there is none. */
static int load_block(struct zq_snap *s, uint64_t cluster, bool *found)
{
    uint64_t i = cluster >> block_bits(s), at = i < s->rt_entries ? s->rt[i] : 0;
    int rc = 0;

    *found = at;
    if (!at || at == s->block_at)
        return 0;
    rc = zq_be_read(s->be, s->block, (size_t)zq_snap_cluster(s), at);
    s->block_at = rc < 0 ? 0 : at;
    return rc;
}

/* Its place in the block that counts it. */
static uint64_t index_of(const struct zq_snap *s, uint64_t cluster)
{
    return cluster & (((uint64_t)1 << block_bits(s)) - 1);
}

/* As it is on disk now: what is collected in the batch has not been counted yet. */
int zq_snap_refcount(struct zq_snap *s, uint64_t cluster, uint64_t *refcount)
{
    bool found;
    int rc = load_block(s, cluster, &found);

    *refcount = 0;
    if (rc == 0 && found)
        *refcount = zq_refbits_get(s->block, s->refcount_order, index_of(s, cluster));
    return rc;
}

/* Whether n references more, or fewer, can be counted. */
static int judge(struct zq_snap *s, uint64_t cluster, uint64_t refcount, uint64_t n)
{
    uint64_t most = zq_refbits_max(s->refcount_order), at = cluster << s->bounds.form.cluster_bits;

    if (!refcount || (s->count.by < 0 && refcount < n))
        return zq_fail(s->err, ZQCOW2_ECORRUPT,
                       "cluster at byte %" PRIu64 " has refcount %" PRIu64
                       ", and more references: check and repair the image",
                       at, refcount);
    if (s->count.by > 0 && n > most - refcount)
        return zq_fail(s->err, -EOVERFLOW,
                       "refcount of the cluster at byte %" PRIu64 ": %" PRIu64 " and %" PRIu64
                       " more do not fit into %u bits",
                       at, refcount, n, 1u << s->refcount_order);
    return 0;
}

/* The changed part of a block, in whole sectors. */
struct span {
    uint64_t low, high;
};

/* What is written is whole sectors, so that no backend has to read first. */
static void widen(struct zq_snap *s, struct span *w, uint64_t index)
{
    uint64_t low = (index << s->refcount_order) / 8;

    w->low = zq_min(w->low, zq_align_down(low, ZQ_SECTOR));
    w->high = zq_max(w->high, zq_align_down(low, ZQ_SECTOR) + ZQ_SECTOR);
}

/* A hole that is refused costs space, and is no error. */
static void got_free(struct zq_snap *s, uint64_t cluster)
{
    s->lowest = zq_min(s->lowest, cluster);
    (void)zq_be_discard(s->be, cluster << s->bounds.form.cluster_bits, zq_snap_cluster(s));
}

/* A count that is too low already was corrupt before: it becomes 0, and no less. */
static void change_one(struct zq_snap *s, uint64_t cluster, uint64_t n, struct span *w)
{
    uint64_t i = index_of(s, cluster), was = zq_refbits_get(s->block, s->refcount_order, i);
    uint64_t now = s->count.by > 0 ? was + n : was - zq_min(was, n);

    zq_refbits_set(s->block, s->refcount_order, i, now);
    widen(s, w, i);
    if (was && !now)
        got_free(s, cluster);
}

/* All that are counted in one block; returns how many that were, or an error. */
static int count_block(struct zq_snap *s, const uint64_t *v, size_t nr, size_t *used)
{
    unsigned bits = block_bits(s);
    uint64_t block = v[0] >> bits;
    struct span w = {UINT64_MAX, 0};
    bool found;
    int rc = load_block(s, v[0], &found);
    size_t i, n;

    for (i = 0; rc == 0 && i < nr && v[i] >> bits == block; i += n) {
        uint64_t was = found ? zq_refbits_get(s->block, s->refcount_order, index_of(s, v[i])) : 0;

        for (n = 1; i + n < nr && v[i + n] == v[i];)
            n++;
        if (s->count.by > 0 || s->count.trial)
            rc = judge(s, v[i], was, n);
        if (rc == 0 && found && !s->count.trial)
            change_one(s, v[i], n, &w);
    }
    *used = i;
    if (rc < 0 || w.low > w.high)
        return rc;
    s->begun = true;
    return zq_be_write(s->be, s->block + w.low, (size_t)(w.high - w.low), s->block_at + w.low);
}

/* By one byte of each number; those whose byte is the same keep their order. */
static void sort_by_byte(const uint64_t *from, uint64_t *to, size_t n, unsigned shift)
{
    size_t at[257] = {0};

    for (size_t i = 0; i < n; i++)
        at[(from[i] >> shift & 0xff) + 1]++;
    for (unsigned i = 0; i < 256; i++)
        at[i + 1] += at[i];
    for (size_t i = 0; i < n; i++)
        to[at[from[i] >> shift & 0xff]++] = from[i];
}

/* Byte by byte, from the lowest one on; bytes that are the same in all are left out. */
static void sort_batch(struct zq_snap *s)
{
    uint64_t *from = s->batch, *to = s->batch + ZQ_SNAP_BATCH, *other, differ = 0;
    size_t n = s->nr_batch;

    for (size_t i = 0; i < n; i++)
        differ |= from[i] ^ from[0];
    for (unsigned shift = 0; shift < 64; shift += 8) {
        if (!(differ >> shift & 0xff))
            continue;
        sort_by_byte(from, to, n, shift);
        other = from;
        from = to;
        to = other;
    }
    if (from != s->batch)
        memcpy(s->batch, from, n * sizeof(*from));
}

/* In the order of their blocks, each of which is read and written once. */
int zq_snap_count_end(struct zq_snap *s)
{
    size_t used;
    int rc = 0;

    sort_batch(s);
    for (size_t i = 0; i < s->nr_batch && rc == 0; i += used)
        rc = count_block(s, s->batch + i, s->nr_batch - i, &used);
    s->nr_batch = 0;
    return rc;
}

/* The batch bounds the memory that is needed, however much is mapped. */
int zq_snap_count_one(struct zq_snap *s, uint64_t cluster)
{
    int rc = s->nr_batch == ZQ_SNAP_BATCH ? zq_snap_count_end(s) : 0;

    if (rc == 0)
        s->batch[s->nr_batch++] = cluster;
    return rc;
}

int zq_snap_count_range(struct zq_snap *s, uint64_t host, uint64_t bytes)
{
    unsigned bits = s->bounds.form.cluster_bits;
    int rc = 0;

    for (uint64_t i = host >> bits; bytes && rc == 0 && i <= (host + bytes - 1) >> bits; i++)
        rc = zq_snap_count_one(s, i);
    return rc;
}
