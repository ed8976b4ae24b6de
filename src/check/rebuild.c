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

struct rebuild {
    struct zq_reftable t; /* the plan: where the table, its own blocks and the others lie */
    uint64_t
        *kept;    /* owned: the entries before t.first; until there are blocks, 1: one is needed */
    uint8_t *out; /* owned: a cluster */
    struct zq_move move;
    struct zq_scan *s;
    uint64_t next; /* index of the block that comes next */
};

/* What was described, and what is in use, has a block. All of it lies before the new table. */
static void need_blocks(struct zq_scan *s, struct rebuild *r, uint64_t below)
{
    unsigned bits = zq_scan_block_bits(s);
    const struct zq_ref *ref;
    uint64_t next;

    for (uint64_t i = 0; i < zq_min(s->rt_entries, below); i++)
        r->kept[i] = s->rt[i] != 0;
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
    uint64_t base = zq_scan_new_end(s), below = base >> zq_scan_block_bits(s);

    r->t = (struct zq_reftable){s->h.cluster_bits, s->h.refcount_order, base, .spare = spare};
    if (below >= zq_table_count(ZQ_MAX_RT_BYTES))
        return -EFBIG;
    r->kept = zq_zalloc_array(s->hooks, below + 1, sizeof(*r->kept));
    r->out = zq_zalloc(s->hooks, zq_scan_cluster(s));
    if (!r->kept || !r->out)
        return -ENOMEM;
    need_blocks(s, r, below);
    return zq_reftable_plan(&r->t);
}

/*
 * What an old block said of clusters behind the end of the file does not count: the new structure
 * takes them.
 */
static void fill_block(struct zq_scan *s, const struct rebuild *r, uint64_t index)
{
    unsigned bits = zq_scan_block_bits(s), order = s->h.refcount_order;

    for (uint64_t i = 0; i < 1ull << bits; i++) {
        uint64_t cluster = (index << bits) + i;
        uint64_t v = zq_refbits_get(r->out, order, i);
        uint64_t count = zq_counts_get(&s->counts, cluster);

        if (cluster >= r->t.base && cluster < zq_reftable_end(&r->t))
            v = 1;
        else if (count > v)
            v = zq_min(count, zq_refbits_max(order));
        zq_refbits_set(r->out, order, i, v);
    }
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

/* The next block that there is, in r->out. */
static int compose_block(struct rebuild *r)
{
    struct zq_scan *s = r->s;
    size_t cluster = (size_t)zq_scan_cluster(s);
    uint64_t i = r->next;
    int rc = 0;

    while (i < r->t.first && !r->kept[i])
        i++;
    r->next = i + 1;
    memset(r->out, 0, cluster);
    if (i < s->rt_entries && s->rt[i])
        rc = zq_be_read(s->be, r->out, cluster, s->rt[i]);
    if (rc == 0)
        fill_block(s, r, i);
    return rc;
}

/* Cluster by cluster: a table has up to 8 MiB, of which only one cluster is in memory. */
static int compose(struct zq_move *m, uint64_t at, uint8_t *buf, uint64_t n)
{
    struct rebuild *r = zq_container(m, struct rebuild, move);

    if (at >= zq_table_bytes(r->t.entries))
        return compose_block(r);
    zq_reftable_compose(&r->t, r->kept, at, buf, n);
    return 0;
}

/* The first write is that of the file's length: from then on the mark is set (R13). */
static int write_all(struct zq_scan *s, struct rebuild *r)
{
    uint8_t raw[ZQ_HDR_RT_BYTES];
    int rc = zq_scan_lengthen(s, zq_reftable_end(&r->t) << s->h.cluster_bits);

    r->move = (struct zq_move){.host = r->t.base << s->h.cluster_bits,
                               .bytes = zq_reftable_bytes(&r->t),
                               .compose = compose};
    place_blocks(r);
    zq_header_put_rt(raw, r->move.host, (uint32_t)zq_reftable_clusters(&r->t));
    if (rc == 0)
        rc = zq_move_write(&r->move, s->be, r->out, zq_scan_cluster(s));
    return rc < 0 ? rc : zq_move_switch(s->be, raw, sizeof(raw), ZQ_HDR_RT_OFFSET);
}

int zq_rebuild_refcounts(struct zq_scan *s, uint64_t spare, bool *changed)
{
    struct rebuild r = {.s = s};
    int rc = plan(s, &r, spare);

    if (rc == -EFBIG) {
        zq_found(s, ZQCOW2_FOUND_WARNING, 1,
                 "the refcount table cannot be rebuilt: it would exceed 8 MiB");
        rc = 0;
    } else if (rc == 0 && (rc = write_all(s, &r)) == 0) {
        *changed = s->repair.rebuilt = true;
        zq_found(s, ZQCOW2_FOUND_REPAIRED, 1,
                 "refcount table rebuilt at 0x%" PRIx64 ", %" PRIu64 " blocks",
                 r.t.base << s->h.cluster_bits, r.t.others + r.t.own);
    }
    zq_free(s->hooks, r.kept, ((r.t.base >> zq_scan_block_bits(s)) + 1) * sizeof(*r.kept));
    zq_free(s->hooks, r.out, zq_scan_cluster(s));
    return rc;
}
