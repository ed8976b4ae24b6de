/* SPDX-License-Identifier: MIT */
/*
 * Amends an image: what may hinder it, the tables in their new form, the header's sector.
 *
 * Two scans are made: one by check, which recovers what a crash has left and refuses what is wrong,
 * and one whose counts become the new refcounts. The second may rely on what the first has found:
 * every entry that it meets is sound.
 */
#include "check/amend.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/report.h"
#include "device/move.h"

struct amend {
    struct zq_rebuild_as as;
    struct zq_scan scan;
    const struct zq_amend *to;
    struct zqcow2_error *err;
    struct zq_geometry g; /* as it will be */
    uint8_t *pointers;    /* owned: the write-pointer table in its new form */
    uint64_t zeros;       /* entries that version 2 does not have */
};

/* ---- what may hinder it ---- */

static int lacks(struct zqcow2_error *err, const char *what)
{
    return zq_fail(err, ZQCOW2_EFEATURE, "compat 0.10 has no %s, and the image has", what);
}

/* What the header alone shows. */
static int judge_version(const struct zq_header *h, const struct zq_amend *to,
                         struct zqcow2_error *err)
{
    if (to->version >= 3)
        return 0;
    if (to->layout)
        return lacks(err, "zones");
    if (h->incompat & ZQ_INCOMPAT_DATA_FILE)
        return lacks(err, "data file");
    if (h->incompat & ZQ_INCOMPAT_EXTENDED_L2)
        return lacks(err, "subclusters");
    if (h->incompat & ZQ_INCOMPAT_COMPRESSION)
        return lacks(err, "compression type");
    if (h->bitmaps_offset)
        return lacks(err, "bitmaps");
    if (to->lazy)
        return zq_fail(err, ZQCOW2_EFEATURE, "compat 0.10 has no lazy refcounts");
    if (to->refcount_order != 4)
        return zq_fail(err, ZQCOW2_EFEATURE,
                       "compat 0.10 has refcounts of 16 bits, not of %u: change them, too",
                       1u << to->refcount_order);
    return 0;
}

/* Of any table: those of snapshots would be read by version 2 as well. */
static int count_zero(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint8_t *entry)
{
    const struct zq_bounds b = zq_scan_bounds(s);
    struct amend *a = arg;
    struct zq_l2_entry e;

    (void)index;
    (void)at;
    if (!zq_l2_read(&b, entry, &e))
        a->zeros += e.type == ZQ_EXT_ZERO;
    return 0;
}

static int judge_zeros(struct amend *a)
{
    struct zq_scan *s = &a->scan;
    int rc = 0;

    for (size_t i = 0; rc == 0 && a->to->version < 3 && i < s->nr_l2s; i++)
        rc = zq_walk_l2(s, s->l2s[i].offset, count_zero, a);
    return rc < 0 || !a->zeros ? rc : lacks(a->err, "zero clusters");
}

/* What the new refcount of the cluster has to hold. */
static int references(struct amend *a, const struct zq_ref *ref, uint64_t *count)
{
    uint64_t refcount = 0;
    int rc = 0;

    if (ref->count == UINT32_MAX)
        rc = zq_scan_refcount(&a->scan, zq_ref_cluster(ref), &refcount);
    *count = zq_count_beside(ref->count, refcount);
    return rc;
}

/* Of all that refers to a cluster: a count that is cut off would let it be freed too early. */
static int judge_counts(struct amend *a)
{
    struct zq_counts *counts = &a->scan.counts;
    const struct zq_ref *ref;
    uint64_t count;
    int rc = 0;

    for (ref = zq_counts_next(counts, 0); rc == 0 && ref;
         ref = zq_counts_next(counts, zq_ref_cluster(ref) + 1)) {
        rc = references(a, ref, &count);
        if (rc == 0 && count > zq_refbits_max(a->to->refcount_order))
            rc = zq_fail(a->err, ZQCOW2_EFEATURE,
                         "the cluster at 0x%" PRIx64 " has %" PRIu64
                         " references: too many for refcounts of %u bits",
                         zq_ref_cluster(ref) << a->scan.h.cluster_bits, count,
                         1u << a->to->refcount_order);
    }
    return rc;
}

/* ---- tables ---- */

/* Each pointer as the new form says it. A table of another byte order may look like none here. */
static int recode(struct amend *a)
{
    const struct zq_geometry *old = &a->scan.g;
    size_t bytes = zq_pointers_bytes(&a->g);
    int rc = zq_entry_code_detect(&a->scan.g, a->scan.wp, a->err);

    if (rc < 0)
        return rc;
    zq_entry_code_new(&a->g);
    a->pointers = zq_zalloc(a->scan.hooks, bytes);
    if (!a->pointers)
        return -ENOMEM;
    for (uint32_t i = 0; i < old->nr_zones; i++) {
        struct zq_entry e;

        rc = zq_entry_decode(old, i, a->scan.wp + zq_entries_bytes(i), &e);
        zq_assert(rc == 0);
        zq_entry_encode(&a->g, i, e.wp, e.finished, a->pointers + zq_entries_bytes(i));
    }
    a->as.pointers = a->pointers;
    a->as.pointers_bytes = bytes;
    return 0;
}

/* From now on nothing counts it: the old header names it, and the new one does not. */
static void give_up(struct amend *a, uint64_t offset, uint64_t bytes)
{
    unsigned bits = a->scan.h.cluster_bits;

    for (uint64_t c = offset >> bits; c < zq_div_up(offset + bytes, (uint64_t)1 << bits); c++) {
        struct zq_ref *ref = zq_counts_next(&a->scan.counts, c);

        if (ref && zq_ref_cluster(ref) == c && ref->count)
            ref->count--;
    }
}

/* The old table and its blocks. What no entry names was never scanned, and is no loss. */
static void give_up_refcounts(struct amend *a)
{
    const struct zq_scan *s = &a->scan;

    give_up(a, s->h.rt_offset, (uint64_t)s->h.rt_clusters << s->h.cluster_bits);
    for (uint64_t i = 0; i < s->rt_entries; i++) {
        if (s->rt[i])
            give_up(a, s->rt[i], zq_scan_cluster(s));
    }
}

/* ---- the header ---- */

/* Programs that do not know zones keep away from the image then. */
static uint64_t new_incompat(const struct amend *a)
{
    return a->scan.h.incompat | (a->to->layout ? ZQ_INCOMPAT_ZONED : 0);
}

/* A program that writes an image clears the bits of what it does not maintain. */
static uint64_t new_autoclear(const struct amend *a)
{
    const struct zq_header *h = &a->scan.h;

    return (h->bitmaps_offset ? ZQ_AUTOCLEAR_BITMAPS : 0) |
           (h->states_offset ? ZQ_AUTOCLEAR_STATES : 0) | (h->copies ? ZQ_AUTOCLEAR_COPIES : 0) |
           (a->to->raw ? ZQ_AUTOCLEAR_RAW_DATA : 0);
}

/* Where no table moves, the refcount table is where it was. */
static struct zq_amended new_fields(const struct amend *a)
{
    const struct zq_header *h = &a->scan.h;

    return (struct zq_amended){.version = a->to->version,
                               .refcount_order = a->to->refcount_order,
                               .rt_offset = a->as.rt_offset ? a->as.rt_offset : h->rt_offset,
                               .rt_clusters = a->as.rt_offset ? a->as.rt_clusters : h->rt_clusters,
                               .incompat = new_incompat(a),
                               .compat = (h->compat & ~ZQ_COMPAT_LAZY_REFCOUNTS) |
                                         (a->to->lazy ? ZQ_COMPAT_LAZY_REFCOUNTS : 0),
                               .autoclear = new_autoclear(a)};
}

/* buf: the header cluster as it is on disk now, with the mark. */
static int compose_from(struct amend *a, const uint8_t *buf, struct zq_renaming *out)
{
    const struct zq_header *h = &a->scan.h;
    struct zq_amended to = new_fields(a);
    uint8_t zoned[ZQ_ZONE_EXT_MAX];
    struct zqcow2_backing backing;

    zq_header_backing(h, buf, &backing);
    if (a->as.pointers) {
        a->g.table_offset = a->as.pointers_offset;
        to.zoned = zoned;
        to.zoned_len = zq_zone_ext_build(&a->g, zoned);
    }
    return zq_header_amend(h, buf, &backing, &to, out, a->err);
}

static int compose(struct amend *a, struct zq_renaming *out)
{
    size_t len = (size_t)zq_min(zq_scan_cluster(&a->scan), a->scan.file_size);
    uint8_t *buf = zq_zalloc(a->scan.hooks, zq_scan_cluster(&a->scan));
    int rc = buf ? zq_be_read(a->scan.be, buf, len, 0) : -ENOMEM;

    if (rc == 0)
        rc = compose_from(a, buf, out);
    zq_free(a->scan.hooks, buf, zq_scan_cluster(&a->scan));
    return rc;
}

/* The name, where it has to move, is durable before the sector that says where it is. */
static int make_header(struct zq_rebuild_as *as, uint8_t sector0[ZQ_SECTOR])
{
    struct amend *a = zq_container(as, struct amend, as);
    struct zq_renaming to;
    int rc = compose(a, &to);

    if (rc == 0 && to.name_at)
        rc = zq_be_write(a->scan.be, to.name,
                         (size_t)zq_align_up(strlen((const char *)to.name), ZQ_SECTOR), to.name_at);
    if (rc == 0)
        memcpy(sector0, to.sector0, ZQ_SECTOR);
    return rc;
}

/* No table moves: the sector is all there is. */
static int change_header(struct amend *a)
{
    uint8_t sector0[ZQ_SECTOR];
    int rc = make_header(&a->as, sector0);

    return rc < 0 ? rc : zq_move_switch(a->scan.be, sector0, sizeof(sector0), 0);
}

/* ---- the whole ---- */

/* What check finds wrong is wrong before and after; leaks are freed, and so is what moved. */
static int check(struct amend *a, struct zqcow2_error *err)
{
    struct zqcow2_check_options opt = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    int rc;

    opt.flags = ZQCOW2_CHECK_REPAIR_LEAKS;
    rc = zq_check(a->scan.be, a->scan.hooks, &opt, NULL, &res, err);
    if (rc == 0 && res.corruptions > res.corruptions_fixed)
        rc =
            zq_fail(err, ZQCOW2_ECORRUPT,
                    "check finds %" PRIu64 " corruptions: repair the image first", res.corruptions);
    return rc;
}

/* After an error the text is that of the error, and not of what is found when it is cleaned up. */
static int move_tables(struct amend *a)
{
    struct zqcow2_error ignored;
    int rc = 0;

    if (a->to->layout != a->scan.g.layout)
        rc = recode(a);
    if (rc < 0)
        return rc;
    give_up_refcounts(a);
    if (a->as.pointers)
        give_up(a, a->scan.g.table_offset, zq_entries_bytes(a->scan.g.nr_zones));
    a->as.order = a->to->refcount_order;
    a->as.header = make_header;
    rc = zq_rebuild_as(&a->scan, &a->as);
    if (rc == 0)
        return check(a, a->err);
    if (!a->as.switching) /* the old header counts, and what was written is cut off */
        (void)check(a, &ignored);
    return rc;
}

/* Everything that is refused is refused before the first write of a change. */
static int run(struct amend *a)
{
    struct zq_renaming trial;
    int rc = check(a, a->err);

    if (rc == 0)
        rc = zq_scan_run(&a->scan);
    a->g = a->scan.g;
    a->g.layout = a->to->layout;
    if (rc == 0 && !a->to->trial)
        rc = judge_zeros(a);
    if (rc == 0)
        rc = judge_counts(a);
    if (rc == 0) /* is there room for all that the sector has to hold? */
        rc = compose(a, &trial);
    if (rc < 0 || a->to->trial)
        return rc;
    if (a->to->layout != a->scan.g.layout || a->to->refcount_order != a->scan.h.refcount_order)
        return move_tables(a);
    return change_header(a);
}

int zq_amend(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks, const struct zq_header *h,
             const struct zq_amend *to, struct zqcow2_error *err)
{
    static const struct zqcow2_check_options quiet = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct amend a = {.to = to, .err = err};
    int rc = judge_version(h, to, err);

    if (rc < 0)
        return rc;
    a.scan = (struct zq_scan){
        .be = be, .hooks = hooks, .opt = &quiet, .res = &res, .err = err, .quiet = true};
    rc = run(&a);
    zq_free(hooks, a.pointers, zq_pointers_bytes(&a.g));
    zq_scan_free(&a.scan);
    return rc;
}
