/* SPDX-License-Identifier: MIT */
/*
 * What every part of a scan uses: findings, writes, tables walked once, clusters counted.
 *
 * Tables are read in pieces of a fixed size and holes of the file are skipped, so memory does not
 * depend on what a header claims. Counts are of references, not of refcounts: these are read from
 * the file when they are compared, one block at a time.
 */
#include "check/scan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/bytes.h"
#include "base/report.h"
#include "base/sort.h"
#include "format/refbits.h"

/* Counted always; a quiet scan reports only repairs. */
void zq_found(struct zq_scan *s, int kind, uint64_t n, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    if (kind == ZQCOW2_FOUND_WARNING)
        s->res->warnings += n;
    else if (kind == ZQCOW2_FOUND_LEAK)
        s->res->leaked_clusters += n;
    else if (kind == ZQCOW2_FOUND_CORRUPTION)
        s->res->corruptions += n;
    if (!s->opt->found || (s->quiet && kind != ZQCOW2_FOUND_REPAIRED))
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    s->opt->found(s->opt->arg, kind, text);
}

void zq_found_packed(struct zq_scan *s, const char *table, uint64_t index, uint64_t at,
                     uint64_t word)
{
    zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
             "%s entry %" PRIu64 " at 0x%" PRIx64 " is 0x%" PRIx64
             ": COPIED is set on a compressed cluster",
             table, index, at, word);
}

/*
 * Before the first change: the image is marked as in use, so that one whose repair was killed is
 * checked again, and bits whose owners do not know of the change are cleared. Both are durable
 * first.
 */
static int begin_writing(struct zq_scan *s)
{
    uint8_t raw[8], mark = 1;
    int rc = s->h.mark_offset ? zq_be_read(s->be, &mark, 1, s->h.mark_offset) : 0;

    if (rc < 0)
        return rc;
    if (!mark) {
        mark = s->repair.marked = true;
        rc = zq_be_write(s->be, &mark, 1, s->h.mark_offset);
    }
    if (rc == 0 && zq_scan_stray_bits(s)) {
        zq_put_be64(raw, s->h.autoclear & ~zq_scan_stray_bits(s));
        rc = zq_be_write(s->be, raw, sizeof(raw), ZQ_HDR_AUTOCLEAR);
    }
    if (rc == 0)
        rc = zq_be_flush(s->be);
    s->repair.begun = rc == 0;
    return rc;
}

int zq_scan_read(struct zq_scan *s, void *buf, size_t len, uint64_t off)
{
    const struct zq_trial *t = &s->trial;
    int rc = zq_be_read(s->be, buf, len, off);

    if (rc == 0 && t->at && t->at >= off && t->at - off + 4 <= len)
        zq_put_be32((uint8_t *)buf + (t->at - off), t->value);
    return rc;
}

int zq_scan_write(struct zq_scan *s, const void *buf, size_t len, uint64_t off)
{
    int rc = s->repair.begun ? 0 : begin_writing(s);

    return rc < 0 ? rc : zq_be_write(s->be, buf, len, off);
}

int zq_scan_lengthen(struct zq_scan *s, uint64_t bytes)
{
    int rc = s->repair.begun ? 0 : begin_writing(s);

    return rc < 0 ? rc : zq_be_truncate(s->be, bytes);
}

/* ---- tables of entries ---- */

/* A walk over a table, whatever its entries are like. */
struct walk {
    uint64_t offset, entries;
    uint32_t width; /* bytes of an entry */
    zq_l2_fn *fn;   /* of any kind of entry */
    void *arg;
};

/* The part of a piece that fn changed, as bytes. */
struct dirty {
    uint64_t first, end;
};

static bool is_zero(const uint8_t *entry, uint32_t width)
{
    for (uint32_t i = 0; i < width; i += ZQ_TABLE_ENTRY) {
        if (zq_table_get(entry + i, 0))
            return false;
    }
    return true;
}

/* n entries in s->piece, from number `base` on. */
static int visit_piece(struct zq_scan *s, const struct walk *w, uint64_t base, uint64_t n,
                       struct dirty *d)
{
    uint8_t old[ZQ_L2_ENTRY_MAX];

    *d = (struct dirty){n * w->width, 0};
    for (uint64_t i = 0; i < n; i++) {
        uint8_t *entry = s->piece + i * w->width;
        int rc;

        if (is_zero(entry, w->width))
            continue;
        memcpy(old, entry, w->width);
        rc = w->fn(s, w->arg, base + i, w->offset + (base + i) * w->width, entry);
        if (rc < 0)
            return rc;
        if (!memcmp(entry, old, w->width))
            continue;
        d->first = zq_min(d->first, i * w->width);
        d->end = (i + 1) * w->width;
    }
    return 0;
}

int zq_scan_data(struct zq_scan *s, uint64_t *at, uint64_t *stop, uint64_t end)
{
    uint64_t begin;
    int rc = zq_be_data(s->be, *at, &begin, stop);

    if (rc == -EOPNOTSUPP) {
        *stop = end;
        return 0;
    }
    if (rc < 0)
        return rc;
    *at = begin == *stop ? end : zq_min(begin, end);
    *stop = zq_min(*stop, end);
    return 0;
}

/* Entries from number *done on, up to a hole or as many as fit into a piece. */
static int walk_piece(struct zq_scan *s, const struct walk *w, uint64_t *done)
{
    uint64_t at = w->offset + *done * w->width, end = w->offset + w->entries * w->width, stop, n;
    struct dirty d;
    int rc = zq_scan_data(s, &at, &stop, end);

    if (rc < 0)
        return rc;
    *done = (at - w->offset) / w->width;
    if (*done == w->entries)
        return 0;
    n = zq_min(zq_div_up(stop - w->offset, w->width) - *done, ZQ_PIECE / w->width);
    at = w->offset + *done * w->width;
    rc = zq_be_read(s->be, s->piece, (size_t)(n * w->width), at);
    if (rc < 0 || (rc = visit_piece(s, w, *done, n, &d)) < 0)
        return rc;
    *done += n;
    if (d.first >= d.end)
        return 0;
    return zq_scan_write(s, s->piece + d.first, (size_t)(d.end - d.first), at + d.first);
}

static int walk(struct zq_scan *s, const struct walk *w)
{
    int rc = 0;

    for (uint64_t done = 0; done < w->entries && rc == 0;)
        rc = walk_piece(s, w, &done);
    return rc;
}

struct by_value {
    zq_entry_fn *fn;
    void *arg;
};

static int visit_by_value(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint8_t *raw)
{
    const struct by_value *v = arg;
    uint64_t entry = zq_table_get(raw, 0);
    int rc = v->fn(s, v->arg, index, at, &entry);

    zq_table_put(raw, 0, entry);
    return rc;
}

int zq_walk_entries(struct zq_scan *s, uint64_t offset, uint64_t entries, zq_entry_fn *fn,
                    void *arg)
{
    struct by_value v = {fn, arg};

    return walk(s, &(struct walk){offset, entries, ZQ_TABLE_ENTRY, visit_by_value, &v});
}

int zq_walk_l2(struct zq_scan *s, uint64_t offset, zq_l2_fn *fn, void *arg)
{
    const struct zq_form form = zq_scan_form(s);
    const struct walk w = {.offset = offset,
                           .entries = (uint64_t)1 << zq_l2_table_bits(&form),
                           .width = (uint32_t)zq_l2_bytes(&form, 1),
                           .fn = fn,
                           .arg = arg};

    return walk(s, &w);
}

/* A claim onto something that is there already: by how it can be repaired. */
static void note_clash(struct zq_scan *s, enum zq_kind kind, unsigned before)
{
    if (kind == ZQ_KIND_REFCOUNTS || before & ZQ_KIND_REFCOUNTS) /* a rebuild moves them away */
        s->rebuild = true;
    else if (s->rank == ZQ_RANK_ACTIVE)
        s->tangled = true;
}

/* One finding for a table, however many of its clusters are taken; but all are noted. */
static bool find_clash(struct zq_scan *s, uint64_t offset, uint64_t first, uint64_t end,
                       enum zq_kind kind, const char *name)
{
    unsigned stays = kind == ZQ_KIND_REFCOUNTS ? ~0u : ~(unsigned)ZQ_KIND_REFCOUNTS;
    bool reported = false, clash = false;

    for (uint64_t c = first; c < end; c++) {
        unsigned before = zq_counts_kind(&s->counts, c);

        if (!before)
            continue;
        note_clash(s, kind, before);
        s->long_l1 |= (before | kind) & ZQ_KIND_L1 && zq_scan_beyond_l1(s, c);
        zq_scan_note_lower(s, c, kind == ZQ_KIND_L1 ? ZQ_BY_LOWER_TABLE : ZQ_BY_LOWERS);
        if (!reported)
            zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                     "%s at 0x%" PRIx64 " overlaps the %s at 0x%" PRIx64, name, offset,
                     zq_kind_name(before), c << s->h.cluster_bits);
        reported = true;
        clash |= before & stays;
    }
    return clash;
}

int zq_scan_claim(struct zq_scan *s, uint64_t offset, uint64_t bytes, enum zq_kind kind,
                  const char *name, bool *clash)
{
    uint64_t first = offset >> s->h.cluster_bits;
    uint64_t end = (offset + bytes + zq_scan_cluster(s) - 1) >> s->h.cluster_bits;

    *clash = find_clash(s, offset, first, end, kind, name);
    for (uint64_t c = first; c < end; c++) {
        bool lost = *clash && s->rank != ZQ_RANK_ACTIVE;
        int rc = lost ? zq_scan_count_lost(s, c) : zq_counts_add(&s->counts, c, 1, kind, NULL);

        if (rc < 0)
            return rc;
    }
    return 0;
}

int zq_scan_count_lost(struct zq_scan *s, uint64_t cluster)
{
    if (zq_counts_kind(&s->counts, cluster) & ZQ_KINDS_IN_PLACE)
        return 0;
    return zq_counts_add(&s->counts, cluster, 1, ZQ_KIND_NONE, NULL);
}

/* ---- refcounts ---- */

/* One block is kept: comparisons go through the clusters in order. */
int zq_scan_block(struct zq_scan *s, uint64_t index)
{
    int rc;

    if (s->block_index == index)
        return 0;
    s->block_index = UINT64_MAX;
    rc = zq_be_read(s->be, s->block, (size_t)zq_scan_cluster(s), s->rt[index]);
    if (rc == 0)
        s->block_index = index;
    return rc;
}

int zq_scan_is_hole(struct zq_scan *s, uint64_t index, bool *hole)
{
    uint64_t at = s->rt[index], end = at + zq_scan_cluster(s), stop;
    int rc = 0;

    *hole = s->hole_index == index;
    if (*hole || s->block_index == index)
        return 0;
    rc = zq_scan_data(s, &at, &stop, end);
    *hole = rc == 0 && at == end;
    if (*hole)
        s->hole_index = index;
    return rc;
}

/* A cluster that no trusted block describes has refcount 0. */
int zq_scan_refcount(struct zq_scan *s, uint64_t cluster, uint64_t *refcount)
{
    unsigned bits = zq_scan_block_bits(s);
    uint64_t index = cluster >> bits;
    bool hole;
    int rc;

    *refcount = 0;
    if (index >= s->rt_entries || !s->rt[index])
        return 0;
    rc = zq_scan_is_hole(s, index, &hole);
    if (rc < 0 || hole)
        return rc;
    rc = zq_scan_block(s, index);
    if (rc == 0)
        *refcount = zq_refbits_get(s->block, s->h.refcount_order, cluster & ((1ull << bits) - 1));
    return rc;
}

bool zq_scan_zone_wp(const struct zq_scan *s, uint64_t guest, struct zq_entry *e)
{
    uint64_t zone = s->g.layout ? guest >> s->g.zone_bits : UINT64_MAX;

    if (!s->g.layout || zone >= s->g.nr_zones || zone < s->g.conventional)
        return false;
    return zq_entry_decode(&s->g, (uint32_t)zone, s->wp + zq_entries_bytes(zone), e) == 0;
}

uint64_t zq_scan_below_wp(const struct zq_scan *s, uint32_t zone)
{
    const struct zq_below *b = s->below;
    struct zq_entry e = {.wp = zq_geometry_start(&s->g, zone)};

    if (zone < b->g.nr_zones) /* it may lack zones at the end */
        (void)zq_entry_decode(&b->g, zone, b->pointers + zq_entries_bytes(zone), &e);
    return e.wp;
}

struct zq_l2 *zq_scan_active_l2(const struct zq_scan *s, uint64_t offset)
{
    size_t low = 0, high = s->nr_active_l2s;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (s->l2s[mid].offset < offset)
            low = mid + 1;
        else
            high = mid;
    }
    return low < s->nr_active_l2s && s->l2s[low].offset == offset ? &s->l2s[low] : NULL;
}
