/* SPDX-License-Identifier: MIT */
/*
 * May an image be written whose tables look sound one by one? A refcount of 0 on a table, or a
 * table that is named twice, would let a write destroy what it does not mean.
 *
 * Only what every allocation relies on is asked, so that the cost of opening does not grow with the
 * data in an image: single L2 entries are judged when they are used, and the rest is check's.
 */
#include <errno.h>
#include <inttypes.h>
#include "base/report.h"
#include "format/copies.h"
#include "format/entry.h"
#include "image/opening.h"

/* ---- counted ---- */

/* The sector of refcounts that was read last: neighbours' lie in it, too. */
struct counts {
    uint64_t at;
    uint8_t sector[ZQ_SECTOR];
};

/* A refcount as it is on disk, for the few clusters that open looks at. */
static int read_refcount(struct opening *o, const struct zq_refs *r, struct counts *k,
                         uint64_t cluster, uint64_t *v)
{
    uint64_t block = cluster >> r->block_bits, bit, at;
    int rc = 0;

    *v = 0;
    if (block >= r->table.entries || !r->table.v[block])
        return 0;
    bit = (cluster & (((uint64_t)1 << r->block_bits) - 1)) << r->order;
    at = r->table.v[block] + zq_align_down(bit / 8, ZQ_SECTOR);
    if (at != k->at)
        rc = zq_be_read(o->be, k->sector, sizeof(k->sector), at);
    k->at = rc < 0 ? 0 : at;
    if (rc == 0)
        *v = zq_ref_get(r, k->sector, (uint32_t)((bit % (ZQ_SECTOR * 8)) >> r->order));
    return rc;
}

/*
 * most: the highest refcount that is no reason to refuse. Read from the file and not through the
 * cache: the cache has no slices yet, and these are the only refcounts that open needs.
 */
static int check_counted(struct opening *o, const struct zq_refs *r, struct counts *k,
                         const char *name, const struct zq_host_range *range, uint64_t most)
{
    uint64_t bits = o->h.cluster_bits, cluster = (uint64_t)1 << bits;
    uint64_t end = (range->offset + range->bytes + cluster - 1) >> bits;

    for (uint64_t i = range->offset >> bits; range->bytes && i < end; i++) {
        uint64_t v;
        int rc = read_refcount(o, r, k, i, &v);

        if (rc < 0)
            return rc;
        if (!v || v > most)
            return zq_fail(o->err, ZQCOW2_ECORRUPT,
                           "%s: cluster at byte %" PRIu64 " has refcount %" PRIu64
                           ": check and repair the image before writing",
                           name, i << bits, v);
    }
    return 0;
}

/*
 * K1 for the fixed areas: with a refcount of 0 the next allocation would hand out the header
 * itself.
 */
static int check_all_counted(struct opening *o, struct zq_core *c)
{
    static const char *const names[ZQ_FIXED] = {
        [ZQ_FIXED_HEADER] = "header",
        [ZQ_FIXED_L1] = "L1 table",
        [ZQ_FIXED_REFCOUNTS] = "refcount table",
        [ZQ_FIXED_POINTERS] = "write-pointer table",
        [ZQ_FIXED_STATES] = "table of zone states",
        [ZQ_FIXED_DESCRIBED] = "table of zone descriptors",
    }; /* of snapshots: when it is met */
    struct counts k = {0};
    int rc = 0;

    /* More than one is a leak; but nothing else may share what is written in place. */
    for (int i = 0; i < ZQ_FIXED && rc == 0; i++) {
        if (names[i])
            rc = check_counted(o, &c->alloc.refs, &k, names[i], &c->alloc.fixed[i],
                               i >= ZQ_FIXED_POINTERS && i <= ZQ_FIXED_DESCRIBED ? 1 : UINT64_MAX);
    }
    return rc;
}

/* ---- named twice ---- */

/* Refused, not repaired: which of the two owns the cluster is check's to decide (R13). */
static int named_twice(struct opening *o, const char *a, uint32_t i, const char *b, uint32_t j,
                       uint64_t host)
{
    return zq_fail(o->err, ZQCOW2_ECORRUPT,
                   "%s entry %" PRIu32 " and %s entry %" PRIu32
                   " name the same cluster at 0x%" PRIx64
                   ": check and repair the image before writing",
                   a, i, b, j, host);
}

/*
 * By the sorted index of each table: n log n, and 4 bytes per entry, however large the image is.
 * The two tables are compared with each other by one search per refcount block.
 */
static int check_twice(struct opening *o, struct zq_core *c)
{
    const struct zq_refs *r = &c->alloc.refs;
    const struct zq_map *m = &c->map;
    uint32_t i, j;

    if (zq_index_twice(&r->table.index, r->table.v, &i, &j))
        return named_twice(o, "refcount table", i, "refcount table", j, r->table.v[i]);
    if (zq_index_twice(&m->l1.index, m->l1.v, &i, &j))
        return named_twice(o, "L1", i, "L1", j, zq_entry_host(m->l1.v[i]));
    for (uint32_t k = 0; k < r->table.index.n; k++) {
        i = r->table.index.order[k];
        if (zq_index_hit(&m->l1.index, m->l1.v, r->table.v[i], (uint64_t)1 << o->h.cluster_bits,
                         &j))
            return named_twice(o, "refcount table", i, "L1", j, r->table.v[i]);
    }
    return 0;
}

/* ---- snapshots ---- */

/*
 * A search for free clusters passes over areas, whatever their refcounts say: the tables of a
 * snapshot may be uncounted in a damaged image.
 */
static void add_area(struct opening *o, struct zq_alloc *a, uint64_t offset, uint64_t bytes)
{
    uint64_t cluster = (uint64_t)1 << o->h.cluster_bits, begin = zq_align_down(offset, cluster);

    if (!bytes || offset >= o->file_size) /* nothing can be there */
        return;
    bytes = zq_min(bytes, o->file_size - offset);
    zq_alloc_add_area(a, begin, zq_align_up(offset + bytes, cluster) - begin);
}

/* Follows the table as far as it can be followed: what is wrong with it is check's to say. */
static int read_snapshots(struct opening *o, struct zq_alloc *a)
{
    uint64_t pos = o->h.snapshots_offset, max = pos + ZQ_MAX_SNAPSHOT_TABLE, begin;
    uint8_t raw[ZQ_SNAPSHOT_FIXED + ZQ_SNAPSHOT_EXTRA + ZQ_SNAPSHOT_COPY];

    for (uint32_t i = 0; i < o->h.nb_snapshots && pos < zq_min(max, o->file_size); i++) {
        struct zq_snapshot_facts f;
        struct zq_geometry zones;
        struct zq_snapshot s;
        int rc = zq_be_read(o->be, raw, sizeof(raw), pos);

        if (rc < 0)
            return rc;
        zq_snapshot_read(raw, &s);
        add_area(o, a, s.l1_offset, zq_min(zq_table_bytes(s.l1_entries), ZQ_MAX_L1_BYTES));
        zq_snapshot_facts(raw, &f);
        if (zq_copy_of(&o->h, &o->g, o->file_size, &f, &zones))
            add_area(o, a, zones.table_offset, zq_entries_bytes(zones.nr_zones));
        pos += s.bytes;
    }
    begin = o->h.snapshots_offset + (uint64_t)o->h.nb_snapshots * ZQ_SNAPSHOT_FIXED;
    begin = zq_align_up(begin, (uint64_t)1 << o->h.cluster_bits); /* before: a fixed range */
    if (begin < zq_min(pos, max))
        add_area(o, a, begin, zq_min(pos, max) - begin);
    return 0;
}

/*
 * Two areas for each snapshot, its L1 and its write pointers, and one for the part of the snapshot
 * table behind the fixed range.
 */
static int find_areas(struct opening *o, struct zq_alloc *a)
{
    int rc;

    if (!o->h.nb_snapshots)
        return 0;
    rc = zq_alloc_open_areas(a, 2 * o->h.nb_snapshots + 1);
    if (rc == 0)
        rc = read_snapshots(o, a);
    if (rc == 0)
        zq_alloc_sort_areas(a);
    return rc;
}

/* The indices are built first; allocation goes on using them while the image is open. */
int zq_opening_trust(struct opening *o, struct zq_core *c)
{
    struct zq_refs *r = &c->alloc.refs;
    struct zq_map *m = &c->map;
    int rc;

    if ((rc = zq_memtable_index(&r->table)) < 0 || (rc = zq_memtable_index(&m->l1)) < 0 ||
        (rc = check_twice(o, c)) < 0 || (rc = check_all_counted(o, c)) < 0)
        return rc;
    return find_areas(o, &c->alloc);
}
