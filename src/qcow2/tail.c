/* SPDX-License-Identifier: MIT */
/*
 * The end of the file.
 *
 * A refcount block lies in the range that it counts, so the last one would keep the file as long as
 * it ever was. A block that counts itself alone can go: a range without a block is free, and the
 * next search that comes there makes the block anew.
 */
#include "qcow2/tail.h"

#include <errno.h>
#include "base/report.h"

/*
 * One slice, from t->at down. The block's own cluster counts only beside another one, which may
 * come later: t->end has it until then. True: a cluster in use was found.
 */
static bool look(const struct zq_refs *r, const uint8_t *slice, uint32_t n, struct zq_tail *t)
{
    uint64_t first = t->at - n, own = r->table.v[first >> r->block_bits] >> r->cluster_bits;

    n = zq_refbits_used(slice, r->order, n);
    if (n && first + n - 1 == own && zq_ref_get(r, slice, n - 1) == 1) {
        t->end = zq_max(t->end, own + 1);
        n = zq_refbits_used(slice, r->order, n - 1);
    }
    t->at = first + n;
    if (n)
        t->end = zq_max(t->end, t->at);
    return n;
}

/*
 * Cursors step over no range without a block (alloc.c): they come back to it. The first block
 * counts the header, or the image is corrupt.
 */
static int drop_block(struct zq_alloc *a, struct zq_tail *t, uint64_t block)
{
    struct zq_refs *r = &a->refs;
    uint64_t host = r->table.v[block];
    struct zq_freed *f = block ? zq_record_new(a) : NULL;

    if (!f)
        return block ? -ENOMEM : ZQCOW2_ECORRUPT;
    zq_assert_k(R9, !r->table.frozen && !a->growth.next.v);
    f->cluster = host >> r->cluster_bits;
    f->count = 1;
    f->punch = true;
    zq_cache_forget(a->cache, host, (uint64_t)1 << r->cluster_bits);
    zq_memtable_set(&r->table, block, 0);
    zq_alloc_quarantine(a, f, true);
    a->tables++;
    a->next_one = zq_min(a->next_one, block << r->block_bits);
    a->next_run = zq_min(a->next_run, block << r->block_bits);
    t->end = 0;
    t->gone++;
    return 0;
}

/* The slice that has the refcount below t->at. *found, or t->at is where it begins. */
static int step(struct zq_alloc *a, struct zq_gather *g, struct zq_tail *t, bool *found)
{
    uint64_t block = (t->at - 1) >> a->refs.block_bits;
    struct zq_slice *s;
    uint32_t index;
    uint64_t host = zq_ref_slice(&a->refs, t->at - 1, &index);
    int rc;

    if (!host) {
        t->at = block << a->refs.block_bits;
        return 0;
    }
    rc = zq_cache_pin(a->cache, g, host, ZQ_SLICE_REFS, &s);
    if (rc)
        return rc;
    *found = look(&a->refs, s->data, index + 1, t);
    zq_cache_unpin(a->cache, g, s);
    if (!*found && t->at == block << a->refs.block_bits)
        rc = drop_block(a, t, block);
    return rc;
}

int zq_tail_find(struct zq_alloc *a, struct zq_gather *g, struct zq_tail *t)
{
    bool found = false;
    int rc = 0;

    if (!t->begun)
        t->at = a->refs.table.entries << a->refs.block_bits;
    t->begun = true;
    while (rc == 0 && !found && t->at)
        rc = step(a, g, t, &found);
    if (rc == 0)
        t->end = (found ? t->end : 0) << a->refs.cluster_bits;
    return rc;
}

bool zq_tail_is_loose(const struct zq_alloc *a, uint64_t end)
{
    return end && end < a->file_size && !a->covering && !a->block_busy && !a->growth.next.v &&
           !zq_alloc_is_table(a, end, a->file_size - end);
}

/*
 * What is behind the new end was written once, and until a barrier a crash may find it there again:
 * `virgin` stays. A block that was written there, and is not linked, is gone.
 */
void zq_tail_cut(struct zq_alloc *a, uint64_t end)
{
    zq_assert_k(R5, zq_tail_is_loose(a, end));
    a->file_size = end;
    a->refused = UINT64_MAX;
    a->block_ready = false;
}
