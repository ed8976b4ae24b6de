/* SPDX-License-Identifier: MIT */
/* Reads an image's metadata once and counts what refers to each host cluster. */
#include "image/walk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/bytes.h"
#include "base/report.h"
#include "base/sort.h"
#include "format/entry.h"
#include "format/refbits.h"

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

static int begin_writing(struct zq_scan *s)
{
    uint8_t raw[8], mark = 1;
    int rc = s->h.mark_offset ? zq_be_read(s->be, &mark, 1, s->h.mark_offset) : 0;

    if (rc < 0)
        return rc;
    if (!mark) {
        mark = s->run.marked = true;
        rc = zq_be_write(s->be, &mark, 1, s->h.mark_offset);
    }
    if (rc == 0 && s->h.unknown_autoclear) {
        zq_put_be64(raw, s->h.autoclear & (ZQ_AUTOCLEAR_BITMAPS | ZQ_AUTOCLEAR_RAW_DATA));
        rc = zq_be_write(s->be, raw, sizeof(raw), ZQ_HDR_AUTOCLEAR);
    }
    if (rc == 0)
        rc = zq_be_flush(s->be);
    s->run.begun = rc == 0;
    return rc;
}

int zq_scan_write(struct zq_scan *s, const void *buf, size_t len, uint64_t off)
{
    int rc = s->run.begun ? 0 : begin_writing(s);

    return rc < 0 ? rc : zq_be_write(s->be, buf, len, off);
}

/* ---- tables of entries ---- */

/* The part of a piece that fn changed, as entry numbers. */
struct dirty {
    uint64_t first, end;
};

static int visit_piece(struct zq_scan *s, uint64_t at, uint64_t base, uint64_t n, zq_entry_fn *fn,
                       void *arg, struct dirty *d)
{
    *d = (struct dirty){n, 0};
    for (uint64_t i = 0; i < n; i++) {
        uint64_t old = zq_be64(s->piece + i * 8), entry = old;
        int rc;

        if (!old)
            continue;
        rc = fn(s, arg, base + i, at + i * 8, &entry);
        if (rc < 0)
            return rc;
        if (entry == old)
            continue;
        zq_put_be64(s->piece + i * 8, entry);
        d->first = zq_min(d->first, i);
        d->end = i + 1;
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

int zq_walk_entries(struct zq_scan *s, uint64_t offset, uint64_t entries, zq_entry_fn *fn,
                    void *arg)
{
    for (uint64_t done = 0; done < entries;) {
        uint64_t at = offset + done * 8, stop, n;
        struct dirty d;
        int rc = zq_scan_data(s, &at, &stop, offset + entries * 8);

        if (rc < 0)
            return rc;
        done = (at - offset) / 8;
        n = zq_min(zq_div_up(stop - offset, 8) - done, ZQ_PIECE / 8);
        if (done == entries)
            break;
        at = offset + done * 8;
        rc = zq_be_read(s->be, s->piece, (size_t)n * 8, at);
        if (rc < 0 || (rc = visit_piece(s, at, done, n, fn, arg, &d)) < 0)
            return rc;
        if (d.first < d.end)
            rc = zq_scan_write(s, s->piece + d.first * 8, (size_t)(d.end - d.first) * 8,
                               at + d.first * 8);
        if (rc < 0)
            return rc;
        done += n;
    }
    return 0;
}

/* A claim onto something that is there already: by how it can be mended. */
static void note_clash(struct zq_scan *s, enum zq_kind kind, unsigned before)
{
    if (kind == ZQ_KIND_REFCOUNTS || before & ZQ_KIND_REFCOUNTS) /* a rebuild moves them away */
        s->rebuild = true;
    else if (s->rank == ZQ_RANK_ACTIVE)
        s->tangled = true;
}

static bool find_clash(struct zq_scan *s, uint64_t offset, uint64_t first, uint64_t end,
                       enum zq_kind kind, const char *name)
{
    bool clash = false;

    for (uint64_t c = first; c < end; c++) {
        unsigned before = zq_counts_kind(&s->counts, c);

        if (!before)
            continue;
        note_clash(s, kind, before);
        if (!clash)
            zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                     "%s at 0x%" PRIx64 " overlaps the %s at 0x%" PRIx64, name, offset,
                     zq_kind_name(before), c << s->h.cluster_bits);
        clash = true;
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
        int rc = lost ? zq_scan_count_lost(s, c)
                      : zq_counts_add(&s->counts, c, 1, kind, NULL);

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

/* A block that cannot be trusted is left out; the whole structure is then made anew by repair. */
static int scan_rt_entry(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint64_t *entry)
{
    const struct zq_bounds b = zq_scan_bounds(s);
    uint64_t block;
    const char *why = zq_rt_read(&b, *entry, &block);
    bool clash;
    int rc;

    (void)arg;
    if (why) {
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "refcount table entry %" PRIu64 " at 0x%" PRIx64 " is 0x%" PRIx64 ": %s", index,
                 at, *entry, why);
        s->rebuild = true;
        return 0;
    }
    rc = zq_scan_claim(s, block, zq_scan_cluster(s), ZQ_KIND_REFCOUNTS, "refcount block", &clash);
    if (rc == 0 && !clash)
        s->rt[index] = block;
    return rc;
}

static int scan_refcount_table(struct zq_scan *s)
{
    uint64_t bytes = (uint64_t)s->h.rt_clusters << s->h.cluster_bits;
    bool clash;
    int rc;

    s->rt_entries = bytes / 8;
    s->rt = zq_zalloc(s->hooks, (size_t)bytes);
    if (!s->rt)
        return -ENOMEM;
    rc = zq_scan_claim(s, s->h.rt_offset, bytes, ZQ_KIND_REFCOUNTS, "refcount table", &clash);
    return rc < 0 ? rc : zq_walk_entries(s, s->h.rt_offset, s->rt_entries, scan_rt_entry, NULL);
}

/* ---- L1 ---- */

static int push_l2(struct zq_scan *s, uint64_t offset, uint32_t index)
{
    if (s->nr_l2s == s->l2_room) {
        size_t room = s->l2_room ? s->l2_room * 2 : 64;
        struct zq_l2 *l2s = zq_zalloc_array(s->hooks, room, sizeof(*l2s));

        if (!l2s)
            return -ENOMEM;
        if (s->nr_l2s)
            memcpy(l2s, s->l2s, s->nr_l2s * sizeof(*l2s));
        zq_free(s->hooks, s->l2s, s->l2_room * sizeof(*l2s));
        s->l2s = l2s;
        s->l2_room = room;
    }
    s->l2s[s->nr_l2s++] = (struct zq_l2){offset, 1, index, false};
    return 0;
}

static const char *whose(const struct zq_scan *s)
{
    return s->rank == ZQ_RANK_SNAPSHOT ? "a snapshot's " : "";
}

static int scan_l1_entry(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint64_t *entry)
{
    struct zq_target t;
    int rc = 0;

    (void)arg;
    zq_l1_target(s, *entry, &t);
    if (t.why) {
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "%sL1 entry %" PRIu64 " at 0x%" PRIx64 " is 0x%" PRIx64 ": %s%s", whose(s), index,
                 at, *entry, t.why, t.where);
        s->hidden = true;
    }
    if (t.len)
        rc = zq_counts_add(&s->counts, t.host >> s->h.cluster_bits, 1,
                           t.why ? ZQ_KIND_NONE : ZQ_KIND_L2, NULL);
    if (rc < 0 || t.why)
        return rc;
    return push_l2(s, t.host, s->rank == ZQ_RANK_ACTIVE ? (uint32_t)index : ZQ_NO_INDEX);
}

static bool l2_less(const void *pa, const void *pb, const void *arg)
{
    const struct zq_l2 *a = pa, *b = pb;

    (void)arg;
    return a->offset != b->offset ? a->offset < b->offset : a->index < b->index;
}

/* From number `from` on: the tables of one rank. */
static void merge_l2s(struct zq_scan *s, size_t from)
{
    size_t out = from;

    if (s->nr_l2s > from)
        zq_sort(s->l2s + from, s->nr_l2s - from, sizeof(*s->l2s), l2_less, NULL);
    for (size_t i = from; i < s->nr_l2s; i++) {
        if (out > from && s->l2s[out - 1].offset == s->l2s[i].offset)
            s->l2s[out - 1].refs += s->l2s[i].refs;
        else
            s->l2s[out++] = s->l2s[i];
    }
    s->nr_l2s = out;
}

/* ---- L2 ---- */

bool zq_scan_zone_wp(const struct zq_scan *s, uint64_t guest, struct zq_entry *e)
{
    uint64_t zone = s->g.layout ? guest >> s->g.zone_bits : UINT64_MAX;

    if (!s->g.layout || zone >= s->g.nr_zones || zone < s->g.conventional)
        return false;
    return zq_entry_decode(&s->g, (uint32_t)zone, s->wp + zone * 8, e) == 0;
}

static void note_use(struct zq_scan *s, uint64_t guest, const struct zq_target *t)
{
    uint64_t zone;

    if (t->len) {
        s->res->allocated_clusters++;
        s->res->compressed_clusters += t->compressed;
    }
    if (!s->g.layout || guest >= s->g.device_size)
        return;
    zone = guest >> s->g.zone_bits;
    s->use[zone].low = zq_min(s->use[zone].low, guest);
    s->use[zone].top = zq_max(s->use[zone].top, guest + zq_scan_cluster(s));
}

static int scan_l2_entry(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint64_t *entry)
{
    const struct zq_l2 *table = arg;
    unsigned bits = s->h.cluster_bits;
    struct zq_target t;
    int rc = 0;

    zq_l2_target(s, *entry, &t);
    if (t.why && !s->seen)
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "%sL2 entry %" PRIu64 " at 0x%" PRIx64 " is 0x%" PRIx64 ": %s%s", whose(s), index,
                 at, *entry, t.why, t.where);
    s->hidden |= t.why && !t.counted;
    for (uint64_t c = t.host >> bits; t.len && rc == 0 && c <= (t.host + t.len - 1) >> bits; c++)
        rc = zq_counts_add(&s->counts, c, table->refs, t.why ? ZQ_KIND_NONE : ZQ_KIND_DATA, NULL);
    if (rc == 0 && !t.why && table->index != ZQ_NO_INDEX)
        note_use(s, zq_scan_guest(s, table, index), &t);
    return rc;
}

/* ---- the scan ---- */

static int read_header(struct zq_scan *s)
{
    uint8_t first[ZQ_SECTOR];
    uint32_t bits;
    uint8_t *buf;
    size_t len;
    int rc = zq_be_length(s->be, &s->file_size);

    if (rc < 0)
        return rc;
    len = (size_t)zq_min(s->file_size, sizeof(first));
    if ((len && (rc = zq_be_read(s->be, first, len, 0)) < 0) ||
        (rc = zq_header_peek(first, len, &bits, s->err)) < 0)
        return rc;
    s->block = zq_zalloc(s->hooks, (size_t)1 << bits);
    s->block_bytes = (size_t)1 << bits;
    if (!s->block)
        return -ENOMEM;
    buf = s->block;
    len = (size_t)zq_min(s->file_size, (uint64_t)1 << bits);
    rc = zq_be_read(s->be, buf, len, 0);
    if (rc < 0 || (rc = zq_header_parse(&s->h, buf, len, s->file_size, false, s->err)) < 0)
        return rc;
    if (s->h.cluster_bits != bits) /* buffers were sized by the first reading */
        return zq_fail(s->err, ZQCOW2_ECORRUPT, "cluster_bits at byte 20 changes while it is read");
    return 0;
}

static int read_zones(struct zq_scan *s)
{
    bool bit_missing, clash;
    size_t bytes;
    int rc;

    rc = zq_zone_ext_parse(&s->g, &s->h, s->block + s->h.zoned_offset, s->h.zoned_len, s->file_size,
                           &bit_missing, s->err);
    if (rc < 0 || !s->g.layout)
        return rc;
    if (bit_missing)
        zq_found(s, ZQCOW2_FOUND_WARNING, 1,
                 "the image has zones but incompatible feature bit 5 is clear");
    bytes = (size_t)s->g.nr_zones * 8;
    s->wp = zq_zalloc(s->hooks, bytes);
    s->use = zq_zalloc_array(s->hooks, s->g.nr_zones, sizeof(*s->use));
    if (!s->wp || !s->use)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->g.nr_zones; i++)
        s->use[i].low = UINT64_MAX;
    rc = zq_be_read(s->be, s->wp, bytes, s->g.table_offset);
    if (rc < 0)
        return rc;
    (void)zq_entry_code_detect(&s->g, s->wp, NULL); /* the best reading; entries are judged later */
    return zq_scan_claim(s, s->g.table_offset, bytes, ZQ_KIND_ZONES, "write-pointer table", &clash);
}

/*
 * Everything with one owner comes first, so that an entry that points into it is seen as wrong;
 * of these the refcounts come last, so that a block that lies on anything else is not trusted.
 */
static int scan_fixed(struct zq_scan *s)
{
    bool clash;
    int rc;

    s->l1_room = s->h.nb_snapshots + 1;
    s->l1s = zq_zalloc_array(s->hooks, s->l1_room, sizeof(*s->l1s));
    if (!s->l1s)
        return -ENOMEM;
    if ((rc = zq_scan_claim(s, 0, 1, ZQ_KIND_HEADER, "header", &clash)) < 0 ||
        (rc = read_zones(s)) < 0)
        return rc;
    s->l1s[s->nr_l1s++] = (struct zq_l1){s->h.l1_offset, s->h.l1_entries};
    rc = zq_scan_claim(s, s->h.l1_offset, (uint64_t)s->h.l1_entries * 8, ZQ_KIND_L1, "L1 table",
                       &clash);
    return rc < 0 ? rc : scan_refcount_table(s);
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

/* The L1 tables of one rank, from number `first` on; its L2 tables are known before its data. */
static int scan_mapping(struct zq_scan *s, enum zq_rank rank, uint32_t first)
{
    size_t from = s->nr_l2s;
    int rc = 0;

    s->rank = rank;
    for (uint32_t i = first; i < s->nr_l1s && rc == 0; i++)
        rc = zq_walk_entries(s, s->l1s[i].offset, s->l1s[i].entries, scan_l1_entry, NULL);
    merge_l2s(s, from);
    for (size_t i = from; i < s->nr_l2s && rc == 0; i++) {
        struct zq_l2 *active = zq_scan_active_l2(s, s->l2s[i].offset);

        if (active)
            active->shared = true;
        s->seen = active;
        s->rank = active ? ZQ_RANK_ACTIVE : rank; /* an entry is judged as it was before */
        rc = zq_walk_entries(s, s->l2s[i].offset, zq_scan_cluster(s) / 8, scan_l2_entry,
                             &s->l2s[i]);
    }
    s->seen = false;
    s->rank = rank;
    return rc;
}

static int scan_ranks(struct zq_scan *s)
{
    int rc = scan_mapping(s, ZQ_RANK_ACTIVE, 0);

    s->nr_active_l2s = s->nr_l2s;
    s->rank = ZQ_RANK_SNAPSHOT;
    if (rc < 0 || (rc = zq_scan_snapshots(s)) < 0 ||
        (rc = scan_mapping(s, ZQ_RANK_SNAPSHOT, 1)) < 0)
        return rc;
    s->rank = ZQ_RANK_BITMAP;
    rc = zq_scan_bitmaps(s);
    s->rank = ZQ_RANK_ACTIVE; /* what is judged from here on is the active disk's */
    return rc;
}

int zq_scan_run(struct zq_scan *s)
{
    int rc = read_header(s);

    s->counts.hooks = s->hooks;
    s->block_index = s->hole_index = UINT64_MAX; /* until now s->block holds the header */
    if (rc < 0)
        return rc;
    s->piece = zq_alloc(s->hooks, 4096, ZQ_PIECE);
    if (!s->piece)
        return -ENOMEM;
    rc = scan_fixed(s);
    return rc < 0 ? rc : scan_ranks(s);
}

void zq_scan_free(struct zq_scan *s)
{
    const struct zqcow2_hooks *h = s->hooks;

    zq_counts_free(&s->counts);
    zq_free(h, s->wp, (size_t)s->g.nr_zones * 8);
    zq_free(h, s->use, s->g.nr_zones * sizeof(*s->use));
    zq_free(h, s->rt, (size_t)s->rt_entries * 8);
    zq_free(h, s->l1s, s->l1_room * sizeof(*s->l1s));
    zq_free(h, s->l2s, s->l2_room * sizeof(*s->l2s));
    zq_free(h, s->piece, ZQ_PIECE);
    zq_free(h, s->block, s->block_bytes);
}
