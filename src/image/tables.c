/* SPDX-License-Identifier: MIT */
/*
 * What opening reads, of an image and of its sources alike: the header cluster and the tables in
 * memory. Each entry is checked here, once.
 */
#include <errno.h>
#include <inttypes.h>
#include "base/report.h"
#include "check/genuine.h"
#include "check/overlap.h"
#include "format/entry.h"
#include "format/snapshot.h"
#include "format/states.h"
#include "image/opening.h"

/* ---- header ---- */

static void drop_l1(struct opening *o)
{
    o->h.l1_offset = o->h.l1_entries = 0;
}

/*
 * The whole first cluster, at most 2 MiB: extensions and the backing name must lie within it (qcow2
 * specification, header extensions). The buffer is zeroed because a short file may end before it
 * does.
 */
static int parse_cluster(struct opening *o, uint32_t cluster_bits)
{
    uint64_t size = (uint64_t)1 << cluster_bits;
    size_t len = (size_t)zq_min(size, o->file_size);
    uint8_t *buf = zq_zalloc(&o->hooks, size);
    int rc = buf ? zq_be_read(o->be, buf, len, 0) : -ENOMEM;

    if (rc == 0)
        rc = zq_header_parse(&o->h, buf, len, o->file_size, o->rdwr, o->err);
    if (o->opt.snapshot && o->h.l1_wrong) { /* that is the disk's, and a snapshot has its own */
        zq_clear_error(o->err);
        drop_l1(o);
        rc = 0;
    }
    if (rc == 0 && (o->h.zoned_offset || (o->h.incompat & ZQ_INCOMPAT_ZONED)))
        rc = zq_zone_ext_parse(&o->g, &o->h, buf + o->h.zoned_offset, o->h.zoned_len, o->file_size,
                               &o->bit_missing, o->err);
    if (rc == 0)
        rc = zq_states_check(&o->h, &o->g, o->err);
    if (rc == 0)
        zq_header_backing(&o->h, buf, &o->backing);
    zq_free(&o->hooks, buf, size);
    return rc;
}

/* A list of snapshots that lies on another table is none. */
static bool is_no_list(const struct opening *o)
{
    struct zq_header h = o->h;

    h.rt_clusters = h.rt_wrong ? 0 : 1;
    return zq_header_judge_snapshots(&h, o->file_size, NULL) < 0 ||
           zq_overlap_check(&h, o->g.layout ? &o->g : NULL, NULL) < 0;
}

/*
 * A reader needs neither table, so a wrong field costs it nothing; but of what does lie there the
 * first cluster is kept from passing for anything else. How far the tables go is not known. L1 is
 * what is wrong if it lies on snapshots: a reader of these does not need it.
 */
static int believe(struct opening *o)
{
    uint64_t cluster = (uint64_t)1 << o->h.cluster_bits;
    bool refcounts, snapshots = false;
    int rc = zq_rt_is_genuine(o->be, &o->h, o->file_size, &refcounts);

    if (rc == 0)
        rc = zq_snapshots_are_genuine(o->be, &o->h, o->file_size, &snapshots);
    if (snapshots && o->opt.snapshot)
        drop_l1(o);
    o->h.snapshots_wrong |= is_no_list(o);
    o->h.rt_clusters = refcounts ? 1 : 0;
    o->h.snapshots_bytes = snapshots ? zq_min(o->h.snapshots_bytes, cluster) : 0;
    return rc;
}

int zq_opening_header(struct opening *o)
{
    uint32_t cluster_bits;
    int rc = zq_be_length(o->be, &o->file_size);

    if (rc == 0)
        rc = zq_be_read(o->be, o->sector0, sizeof(o->sector0), 0);
    if (rc == 0)
        rc = zq_header_peek(o->sector0, (size_t)zq_min(o->file_size, sizeof(o->sector0)),
                            &cluster_bits, o->err);
    if (rc == 0)
        rc = parse_cluster(o, cluster_bits);
    if (rc == 0 && !o->rdwr)
        rc = believe(o);
    if (rc == 0)
        rc = zq_overlap_check(&o->h, o->g.layout ? &o->g : NULL, o->err);
    return rc;
}

int zq_opening_pointers(struct opening *o, uint8_t **table)
{
    int rc;

    *table = zq_zalloc(&o->hooks, zq_pointers_bytes(&o->g));
    if (!*table)
        return -ENOMEM;
    rc = zq_be_read(o->be, *table, zq_pointers_bytes(&o->g), o->g.table_offset);
    return rc < 0 ? rc : zq_entry_code_detect(&o->g, *table, o->err);
}

/* ---- tables ---- */

/*
 * Judges an entry that is not 0, of L1 or of the refcount table. NULL: it is sound, and *host is
 * where it points; otherwise the reason.
 */
typedef const char *read_entry(const struct zq_bounds *b, uint64_t raw, uint64_t *host);

/*
 * An entry must not point to the header or to a table that the header names: a write through it
 * would destroy that. Two entries that name one cluster are found later, for writers only
 * (trust.c).
 */
static int check_entry(struct opening *o, const char *name, uint64_t offset, uint64_t i,
                       uint64_t raw, read_entry *read)
{
    const struct zq_bounds b = {zq_form_of(&o->h), o->file_size};
    struct zq_area area = {name, 0, (uint64_t)1 << o->h.cluster_bits};
    const char *why = read(&b, raw, &area.offset);

    if (why)
        return zq_fail(o->err, ZQCOW2_ECORRUPT,
                       "%s entry %" PRIu64 " (0x%" PRIx64 ") at byte %" PRIu64 ": %s%s", name, i,
                       raw, offset + zq_table_bytes(i), why,
                       o->rdwr ? ": check and repair the image before writing" : "");
    return zq_overlap_check_area(&o->h, o->g.layout ? &o->g : NULL, &area, o->err);
}

/* A reader loses the range of an entry of L1 that is wrong, and nothing else. */
static int judge_entry(struct opening *o, const char *name, struct zq_memtable *t, uint64_t i,
                       read_entry *read)
{
    int rc = t->v[i] ? check_entry(o, name, t->offset, i, t->v[i], read) : 0;

    if (rc != ZQCOW2_ECORRUPT || o->rdwr || o->layer)
        return rc;
    t->v[i] = ZQ_L1_WRONG;
    zq_clear_error(o->err);
    return 0;
}

/*
 * Entries are decoded in place: t->v holds numbers of the machine's byte order from here on. Those
 * behind the first n are not in the file, and stay 0.
 */
static int load_table(struct opening *o, const char *name, struct zq_memtable *t, uint64_t n,
                      read_entry *read)
{
    size_t bytes = (size_t)zq_table_bytes(n);
    int rc = bytes ? zq_be_read(o->be, t->v, bytes, t->offset) : 0;

    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        t->v[i] = zq_table_get(t->v, i);
        rc = judge_entry(o, name, t, i, read);
    }
    return rc;
}

/* Only writers need refcounts: an image whose refcounts are damaged can still be read. */
static int open_alloc(struct opening *o, const struct zq_parts *parts)
{
    const struct zq_alloc_params p = {
        .cache = parts->cache,
        .cluster_bits = o->h.cluster_bits,
        .refcount_order = o->h.refcount_order,
        .table_offset = o->h.rt_offset,
        .table_entries =
            o->rdwr ? zq_table_count((uint64_t)o->h.rt_clusters << o->h.cluster_bits) : 0,
        .file_size = o->file_size};

    return zq_alloc_open(parts->alloc, &p);
}

/*
 * A map without zones, such as that of a source, remembers no runs. The L1 of a snapshot may be
 * shorter than its disk.
 */
static int open_map(struct opening *o, const struct zq_parts *parts)
{
    const struct zq_form form = zq_form_of(&o->h);
    const struct zq_map_params p = {
        .cache = parts->cache,
        .alloc = parts->alloc,
        .form = form,
        .l1_offset = o->h.l1_offset,
        .l1_entries = zq_max(o->h.l1_entries, zq_l1_needed(&form, o->h.stored_size)),
        .nr_zones = parts->nr_zones,
        .zone_bits = o->g.zone_bits,
        .first_seq_zone = o->g.conventional};

    return zq_map_open(parts->map, &p);
}

/* Whole clusters: no part of a table's last cluster may be allocated. */
static void set_fixed(const struct opening *o, struct zq_alloc *a, enum zq_fixed which,
                      uint64_t offset, uint64_t bytes)
{
    bytes = zq_align_up(bytes, (uint64_t)1 << o->h.cluster_bits);
    a->fixed[which] = (struct zq_host_range){offset, bytes};
}

static void set_all_fixed(const struct opening *o, struct zq_alloc *a)
{
    const struct zq_header *h = &o->h;

    set_fixed(o, a, ZQ_FIXED_HEADER, 0, 1);
    set_fixed(o, a, ZQ_FIXED_L1, h->l1_offset, zq_table_bytes(h->l1_entries));
    set_fixed(o, a, ZQ_FIXED_REFCOUNTS, h->rt_offset, (uint64_t)h->rt_clusters << h->cluster_bits);
    set_fixed(o, a, ZQ_FIXED_POINTERS, o->g.table_offset, zq_entries_bytes(o->g.nr_zones));
    set_fixed(o, a, ZQ_FIXED_STATES, h->states_offset,
              h->states_offset ? zq_states_bytes(h->states_zones) : 0);
    set_fixed(o, a, ZQ_FIXED_DESCRIBED, h->descriptors_offset,
              h->descriptors_offset ? zq_descriptors_bytes(h->descriptor_size, h->states_zones) :
                                      0);
    set_fixed(o, a, ZQ_FIXED_SNAPSHOTS, h->snapshots_offset, h->snapshots_bytes);
}

/*
 * Slices have 4 KiB, or a cluster if that is smaller: none crosses the end of a table. The
 * allocator precedes the map, which allocates from it.
 */
int zq_opening_tables(struct opening *o, const struct zq_parts *p)
{
    uint32_t slice = (uint32_t)zq_min(4096, (uint64_t)1 << o->h.cluster_bits);
    int rc = zq_cache_init(p->cache, p->x, p->x->ready, slice, p->cache_bytes);

    if (rc == 0)
        rc = open_alloc(o, p);
    if (rc == 0)
        rc = open_map(o, p);
    if (rc < 0)
        return rc;
    set_all_fixed(o, p->alloc);
    rc = load_table(o, "L1", &p->map->l1, o->h.l1_entries, zq_l1_read);
    if (rc == 0 && o->rdwr)
        rc = load_table(o, "refcount table", &p->alloc->refs.table, p->alloc->refs.table.entries,
                        zq_rt_read);
    return rc;
}
