/* SPDX-License-Identifier: MIT */
/*
 * Builds a whole refcount structure out of place and switches to it in one sector.
 *
 * Until the switch the old structure stays as it was, so a crash before it loses only the bytes
 * that were appended. The new one counts itself, and every cluster at least as high as the old one
 * did where that could be read: what looks free by the scan may be data that it could not see.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/report.h"
#include "format/reftable.h"
#include "check/repair.h"
#include "device/move.h"

/* Both kinds of rebuild: one that repairs, and one that amends the image. */
struct rebuild {
    struct zq_reftable t; /* the plan: where the table, its own blocks and the others lie */
    uint64_t
        *kept;    /* owned: the entries before t.first; until there are blocks, 1: one is needed */
    uint8_t *out; /* owned: a cluster */
    struct zq_move move;
    struct zq_scan *s;
    const struct zq_rebuild_as *as;
    uint64_t next;     /* index of the block that comes next */
    bool unseen;       /* what nothing refers to may be in use all the same */
    uint64_t from, to; /* where the file has data: the part that was asked for last */
};

/* Clusters of a new block, as a power of two. */
static unsigned block_bits(const struct rebuild *r)
{
    return zq_block_bits(r->t.cluster_bits, r->t.order);
}

static bool is_described(const struct zq_scan *s, uint64_t cluster)
{
    uint64_t index = cluster >> zq_scan_block_bits(s);

    return index < s->rt_entries && s->rt[index];
}

/*
 * Where the old refcounts are lost, and something could not be followed, any cluster may be of it
 * that was ever written.
 */
static int may_be_unseen(struct zq_scan *s, struct rebuild *r, uint64_t cluster, bool *may)
{
    uint64_t at = cluster << r->t.cluster_bits, end = at + zq_scan_cluster(s);
    int rc = 0;

    *may = false;
    if (!r->unseen || at >= s->file_size || is_described(s, cluster))
        return 0;
    if (r->to <= at) {
        r->from = at;
        rc = zq_scan_data(s, &r->from, &r->to, s->file_size);
        r->to = r->from == s->file_size ? UINT64_MAX : r->to;
    }
    *may = rc == 0 && r->from < end;
    return rc;
}

/* The same for all of the file. */
static int need_unseen(struct zq_scan *s, struct rebuild *r, uint64_t below)
{
    unsigned bits = block_bits(r) + r->t.cluster_bits;
    int rc = 0;

    for (uint64_t at = 0, stop; r->unseen && rc == 0 && at < s->file_size; at = stop) {
        rc = zq_scan_data(s, &at, &stop, s->file_size);
        if (rc < 0 || at == s->file_size)
            break;
        for (uint64_t k = at >> bits; k <= (stop - 1) >> bits && k < below; k++)
            r->kept[k] = 1;
    }
    return rc;
}

/* What was described, and what is in use, has a block. All of it lies before the new table. */
static void need_blocks(struct zq_scan *s, struct rebuild *r, uint64_t below)
{
    unsigned bits = block_bits(r), old = zq_scan_block_bits(s);
    const struct zq_ref *ref;
    uint64_t next;

    for (uint64_t i = 0; i < s->rt_entries; i++) {
        uint64_t end = s->rt[i] ? ((i + 1) << old) - 1 : 0;

        for (uint64_t k = (i << old) >> bits; end && k <= end >> bits && k < below; k++)
            r->kept[k] = 1;
    }
    for (ref = zq_counts_next(&s->counts, 0); ref; ref = zq_counts_next(&s->counts, next)) {
        uint64_t index = zq_ref_cluster(ref) >> bits;

        if (index >= below)
            break;
        r->kept[index] = 1;
        next = (index + 1) << bits;
    }
    for (uint64_t i = 0; i < below; i++)
        r->t.others += r->kept[i];
}

/* -EFBIG: no table of the format describes that much. */
static int plan(struct zq_scan *s, struct rebuild *r, uint64_t spare)
{
    uint64_t base = zq_scan_new_end(s), below;
    int rc;

    r->t = (struct zq_reftable){s->h.cluster_bits, r->as->order, base, .spare = spare};
    r->t.behind = zq_div_up(r->as->pointers_bytes, zq_scan_cluster(s));
    below = base >> block_bits(r);
    if (below >= zq_table_count(ZQ_MAX_RT_BYTES))
        return -EFBIG;
    r->kept = zq_zalloc_array(s->hooks, below + 1, sizeof(*r->kept));
    r->out = zq_zalloc(s->hooks, zq_scan_cluster(s));
    if (!r->kept || !r->out)
        return -ENOMEM;
    r->unseen = !zq_scan_may_free(s) && (s->rebuild || s->no_block);
    rc = need_unseen(s, r, below);
    need_blocks(s, r, below);
    return rc < 0 ? rc : zq_reftable_plan(&r->t);
}

/* Behind all that is new. */
static uint64_t new_end(const struct rebuild *r)
{
    return zq_reftable_end(&r->t) + r->t.behind;
}

/*
 * What an old block said of clusters behind the end of the file does not count: the new structure
 * takes them. What was scanned and has been given up since has one owner less.
 */
static int new_count(struct zq_scan *s, struct rebuild *r, uint64_t cluster, uint64_t *v)
{
    uint64_t count = zq_counts_get(&s->counts, cluster);
    bool unseen = false;
    int rc = zq_scan_refcount(s, cluster, v);

    if (rc == 0)
        rc = may_be_unseen(s, r, cluster, &unseen);
    if (rc < 0)
        return rc;
    *v = unseen ? zq_max(*v, 1) : *v;
    if (cluster >= r->t.base && cluster < new_end(r))
        *v = 1;
    else if (count > *v)
        *v = count;
    else if (!count && *v && zq_counts_kind(&s->counts, cluster))
        --*v;
    *v = zq_min(*v, zq_refbits_max(r->t.order));
    return 0;
}

/* The marks in r->kept become offsets; blocks follow one another in the order of entries. */
static void place_blocks(struct rebuild *r)
{
    uint64_t at = zq_reftable_blocks(&r->t) << r->t.cluster_bits;

    for (uint64_t i = 0; i < r->t.first; i++) {
        if (r->kept[i]) {
            r->kept[i] = at;
            at += (uint64_t)1 << r->t.cluster_bits;
        }
    }
}

/*
 * The next block that there is, in r->out. Count by count: the ranges of the old blocks are others
 * where the width changes.
 */
static int compose_block(struct rebuild *r)
{
    uint64_t i = r->next, bits = block_bits(r), v;
    int rc = 0;

    while (i < r->t.first && !r->kept[i])
        i++;
    r->next = i + 1;
    memset(r->out, 0, (size_t)zq_scan_cluster(r->s));
    for (uint64_t k = 0; rc == 0 && k < (uint64_t)1 << bits; k++) {
        rc = new_count(r->s, r, (i << bits) + k, &v);
        zq_refbits_set(r->out, r->t.order, k, v);
    }
    return rc;
}

/* Cluster by cluster: a table has up to 8 MiB, of which only one cluster is in memory. */
static int compose(struct zq_move *m, uint64_t at, uint8_t *buf, uint64_t n)
{
    struct rebuild *r = zq_container(m, struct rebuild, move);
    uint64_t blocks = zq_reftable_bytes(&r->t);

    if (at >= blocks) {
        memset(buf, 0, (size_t)n);
        memcpy(buf, r->as->pointers + (at - blocks),
               (size_t)zq_min(n, r->as->pointers_bytes - (at - blocks)));
        return 0;
    }
    if (at >= zq_table_bytes(r->t.entries))
        return compose_block(r);
    zq_reftable_compose(&r->t, r->kept, at, buf, n);
    return 0;
}

/* The first write is that of the file's length: from then on the mark is set (R13). */
static int write_all(struct zq_scan *s, struct rebuild *r)
{
    int rc = zq_scan_lengthen(s, new_end(r) << s->h.cluster_bits);

    r->move = (struct zq_move){.host = r->t.base << s->h.cluster_bits,
                               .bytes = (new_end(r) - r->t.base) << s->h.cluster_bits,
                               .compose = compose};
    place_blocks(r);
    return rc < 0 ? rc : zq_move_write(&r->move, s->be, r->out, zq_scan_cluster(s));
}

static void free_rebuild(struct rebuild *r)
{
    const struct zqcow2_hooks *hooks = r->s->hooks;

    zq_free(hooks, r->kept, ((r->t.base >> block_bits(r)) + 1) * sizeof(*r->kept));
    zq_free(hooks, r->out, zq_scan_cluster(r->s));
}

int zq_rebuild_as(struct zq_scan *s, struct zq_rebuild_as *as)
{
    struct rebuild r = {.s = s, .as = as};
    uint8_t sector0[ZQ_SECTOR];
    int rc = plan(s, &r, 0);

    if (rc == -EFBIG)
        rc = zq_fail(s->err, rc, "the refcount table would exceed 8 MiB");
    if (rc == 0)
        rc = write_all(s, &r);
    as->rt_offset = r.move.host;
    as->rt_clusters = (uint32_t)zq_reftable_clusters(&r.t);
    as->pointers_offset = zq_reftable_end(&r.t) << s->h.cluster_bits;
    if (rc == 0)
        rc = as->header(as, sector0);
    as->switching = rc == 0;
    if (rc == 0)
        rc = zq_move_switch(s->be, sector0, sizeof(sector0), 0);
    free_rebuild(&r);
    return rc;
}

int zq_rebuild_refcounts(struct zq_scan *s, uint64_t spare, bool *changed)
{
    const struct zq_rebuild_as as = {.order = s->h.refcount_order};
    struct rebuild r = {.s = s, .as = &as};
    uint8_t raw[ZQ_HDR_RT_BYTES];
    int rc = plan(s, &r, spare);

    if (rc == -EFBIG) {
        zq_found(s, ZQCOW2_FOUND_WARNING, 1,
                 "the refcount table cannot be rebuilt: it would exceed 8 MiB");
        rc = 0;
    } else if (rc == 0 && (rc = write_all(s, &r)) == 0) {
        zq_header_put_rt(raw, r.move.host, (uint32_t)zq_reftable_clusters(&r.t));
        rc = zq_move_switch(s->be, raw, sizeof(raw), ZQ_HDR_RT_OFFSET);
    }
    if (rc == 0 && r.move.bytes) {
        *changed = s->repair.rebuilt = true;
        zq_found(s, ZQCOW2_FOUND_REPAIRED, 1,
                 "refcount table rebuilt at 0x%" PRIx64 ", %" PRIu64 " blocks",
                 r.t.base << s->h.cluster_bits, r.t.others + r.t.own);
    }
    free_rebuild(&r);
    return rc;
}
