/* SPDX-License-Identifier: MIT */
/* Plans and composes a refcount table in a new place. */
#include "format/reftable.h"

#include <errno.h>

#include "base/report.h"

/* Each block more may make the table longer, and that may need another block: both only grow. */
int zq_reftable_plan(struct zq_reftable *t)
{
    uint32_t bits = zq_block_bits(t->cluster_bits, t->order);
    uint64_t per_cluster = zq_table_count((uint64_t)1 << t->cluster_bits), end;

    t->first = t->base >> bits;
    t->own = 0;
    for (uint64_t need = 1; need > t->own; need = zq_div_up(end, (uint64_t)1 << bits) - t->first) {
        t->own = need;
        t->entries = zq_align_up(zq_max(t->entries, t->first + need), per_cluster);
        if (zq_table_bytes(t->entries) > ZQ_MAX_RT_BYTES)
            return -EFBIG;
        end = zq_reftable_end(t) + t->behind + t->spare;
    }
    return 0;
}

uint64_t zq_reftable_entry(const struct zq_reftable *t, const uint64_t *kept, uint64_t i)
{
    if (i < t->first)
        return kept[i];
    return i < t->first + t->own ?
               (zq_reftable_blocks(t) + t->others + i - t->first) << t->cluster_bits :
               0;
}

/* A block's refcounts are contiguous, and so are the blocks: one array. */
static void compose_counts(const struct zq_reftable *t, uint64_t at, uint8_t *buf, uint64_t len)
{
    uint64_t zero = t->first << zq_block_bits(t->cluster_bits, t->order);
    uint64_t i = at * 8 >> t->order, end = zq_reftable_end(t) + t->behind - zero;
    uint64_t n = i < end ? zq_min(len * 8 >> t->order, end - i) : 0;

    zq_assert(!t->others);
    memset(buf, 0, (size_t)len);
    /* The rest stays 0: `spare` clusters are described, and free. */
    for (uint64_t k = 0; k < n; k++)
        zq_refbits_set(buf, t->order, k, 1);
}

void zq_reftable_compose(const struct zq_reftable *t, const uint64_t *kept, uint64_t at,
                         uint8_t *buf, uint64_t len)
{
    uint64_t table = zq_table_bytes(t->entries);
    uint64_t n = at < table ? zq_min(len, table - at) : 0;

    zq_assert(at % ZQ_SECTOR == 0 && len % ZQ_SECTOR == 0 && at + len <= zq_reftable_bytes(t));
    for (uint64_t i = 0; i < zq_table_count(n); i++)
        zq_table_put(buf, i, zq_reftable_entry(t, kept, zq_table_count(at) + i));
    if (n < len)
        compose_counts(t, at + n - table, buf + n, len - n);
}
