/* SPDX-License-Identifier: MIT */
/* Reads an image's metadata once and counts what refers to each host cluster. */
#include "image/walk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/bytes.h"
#include "base/report.h"
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

int zq_scan_write(struct zq_scan *s, const void *buf, size_t len, uint64_t off)
{
    uint8_t raw[8];
    int rc;

    if (s->h.unknown_autoclear && !s->autoclear_done) {
        zq_put_be64(raw, s->h.autoclear & (ZQ_AUTOCLEAR_BITMAPS | ZQ_AUTOCLEAR_RAW_DATA));
        if ((rc = zq_be_write(s->be, raw, sizeof(raw), ZQ_HDR_AUTOCLEAR)) < 0 ||
            (rc = zq_be_flush(s->be)) < 0)
            return rc;
        s->autoclear_done = true;
    }
    return zq_be_write(s->be, buf, len, off);
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

int zq_walk_entries(struct zq_scan *s, uint64_t offset, uint64_t entries, zq_entry_fn *fn,
                    void *arg)
{
    for (uint64_t done = 0; done < entries;) {
        uint64_t n = zq_min(entries - done, ZQ_PIECE / 8), at = offset + done * 8;
        struct dirty d;
        int rc = zq_be_read(s->be, s->piece, (size_t)n * 8, at);

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

int zq_scan_claim(struct zq_scan *s, uint64_t offset, uint64_t bytes, enum zq_kind kind,
                  const char *name, bool *clash)
{
    uint64_t first = offset >> s->h.cluster_bits;
    uint64_t end = (offset + bytes + zq_scan_cluster(s) - 1) >> s->h.cluster_bits;

    *clash = false;
    for (uint64_t c = first; c < end; c++) {
        unsigned before;
        int rc = zq_counts_add(&s->counts, c, 1, kind, &before);

        if (rc < 0)
            return rc;
        if (!before)
            continue;
        if (kind == ZQ_KIND_REFCOUNTS) /* a rebuild moves them away */
            s->rebuild = true;
        else
            s->tangled = true;
        if (!*clash)
            zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                     "%s at 0x%" PRIx64 " overlaps the %s at 0x%" PRIx64, name, offset,
                     zq_kind_name(before), c << s->h.cluster_bits);
        *clash = true;
    }
    return 0;
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

int zq_scan_refcount(struct zq_scan *s, uint64_t cluster, uint64_t *refcount)
{
    unsigned bits = zq_scan_block_bits(s);
    uint64_t index = cluster >> bits;
    int rc;

    *refcount = 0;
    if (index >= s->rt_entries || !s->rt[index])
        return 0;
    rc = zq_scan_block(s, index);
    if (rc == 0)
        *refcount = zq_refbits_get(s->block, s->h.refcount_order, cluster & ((1ull << bits) - 1));
    return rc;
}

static const char *block_misplaced(const struct zq_scan *s, uint64_t entry)
{
    if (entry & ZQ_RT_RESERVED)
        return "reserved bits are set";
    if (entry & (zq_scan_cluster(s) - 1))
        return "is not aligned to a cluster";
    if (entry >= zq_min(s->file_size, ZQ_MAX_HOST_OFFSET))
        return "points past the end of the file";
    return NULL;
}

/* A block that cannot be trusted is left out; the whole structure is then made anew by repair. */
static int scan_rt_entry(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint64_t *entry)
{
    const char *why = block_misplaced(s, *entry);
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
    rc = zq_scan_claim(s, *entry, zq_scan_cluster(s), ZQ_KIND_REFCOUNTS, "refcount block", &clash);
    if (rc == 0 && !clash)
        s->rt[index] = *entry;
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

static void target_bad(struct zq_target *t, const char *why)
{
    t->why = why;
    t->where = "";
    t->len = 0;
}

/*
 * Wrong because of what lies there: the reference still counts, which keeps writers away. Whether
 * the entry or the refcount table is at fault is not known; out of place refcounts suit both.
 */
static void target_lies_on(struct zq_scan *s, struct zq_target *t, unsigned forbidden)
{
    uint64_t first = t->host >> s->h.cluster_bits;
    uint64_t last = (t->host + t->len - 1) >> s->h.cluster_bits;

    for (uint64_t c = first; c <= last; c++) {
        unsigned on = zq_counts_kind(&s->counts, c) & forbidden;
        if (on) {
            t->why = "points into the ";
            t->where = zq_kind_name(on);
            t->counted = true;
            s->rebuild |= on & ZQ_KIND_REFCOUNTS;
            return;
        }
    }
}

static bool target_cluster(const struct zq_scan *s, struct zq_target *t)
{
    if (t->host & (zq_scan_cluster(s) - 1))
        target_bad(t, "is not aligned to a cluster");
    else if (t->host >= s->file_size)
        target_bad(t, "points past the end of the file");
    else
        t->len = zq_scan_cluster(s);
    return !t->why;
}

void zq_l1_target(struct zq_scan *s, uint64_t entry, struct zq_target *t)
{
    *t = (struct zq_target){.host = entry & ZQ_OFFSET_MASK};
    if (entry & ZQ_L1_RESERVED)
        target_bad(t, "reserved bits are set");
    else if (!t->host && entry)
        target_bad(t, "COPIED is set without a table");
    else if (t->host && target_cluster(s, t))
        target_lies_on(s, t, ZQ_KINDS_FIXED);
}

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
    s->l2s[s->nr_l2s++] = (struct zq_l2){offset, 1, index};
    return 0;
}

static int scan_l1_entry(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint64_t *entry)
{
    const struct zq_l1 *l1 = arg;
    struct zq_target t;
    int rc = 0;

    zq_l1_target(s, *entry, &t);
    if (t.why) {
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "L1 entry %" PRIu64 " at 0x%" PRIx64 " is 0x%" PRIx64 ": %s%s", index, at, *entry,
                 t.why, t.where);
        s->hidden = true;
    }
    if (t.len)
        rc = zq_counts_add(&s->counts, t.host >> s->h.cluster_bits, 1, ZQ_KIND_L2, NULL);
    if (rc < 0 || t.why)
        return rc;
    return push_l2(s, t.host, l1->active ? (uint32_t)index : ZQ_NO_INDEX);
}

/* ---- sorting, without the memory that qsort() may take behind the hooks' back ---- */

static bool l2_less(const struct zq_l2 *a, const struct zq_l2 *b)
{
    return a->offset != b->offset ? a->offset < b->offset : a->index < b->index;
}

static void sift_down(struct zq_l2 *a, size_t root, size_t n)
{
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        struct zq_l2 tmp;

        if (child + 1 < n && l2_less(&a[child], &a[child + 1]))
            child++;
        if (!l2_less(&a[root], &a[child]))
            return;
        tmp = a[root];
        a[root] = a[child];
        a[child] = tmp;
    }
}

static void sort_l2s(struct zq_l2 *a, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(a, i, n);
    for (size_t i = n; i-- > 1;) {
        struct zq_l2 tmp = a[0];

        a[0] = a[i];
        a[i] = tmp;
        sift_down(a, 0, i);
    }
}

static void merge_l2s(struct zq_scan *s)
{
    size_t out = 0;

    sort_l2s(s->l2s, s->nr_l2s);
    for (size_t i = 0; i < s->nr_l2s; i++) {
        if (out && s->l2s[out - 1].offset == s->l2s[i].offset)
            s->l2s[out - 1].refs += s->l2s[i].refs;
        else
            s->l2s[out++] = s->l2s[i];
    }
    s->nr_l2s = out;
}

/* ---- L2 ---- */

static void compressed_target(struct zq_scan *s, uint64_t entry, struct zq_target *t)
{
    uint64_t len;

    t->compressed = true;
    zq_compressed_range(entry, s->h.cluster_bits, &t->host, &len);
    /* A file may end in the middle of the last sector. */
    if (t->host >= ZQ_MAX_HOST_OFFSET ||
        zq_round_down(t->host + len - 1, ZQ_SECTOR) >= s->file_size)
        target_bad(t, "compressed data runs past the end of the file");
    else
        t->len = len;
}

static void standard_target(struct zq_scan *s, uint64_t entry, struct zq_target *t)
{
    uint64_t reserved = ZQ_L2_RESERVED | (s->h.version < 3 ? ZQ_OFLAG_ZERO : 0);

    t->host = entry & ZQ_OFFSET_MASK;
    t->zero = entry & ZQ_OFLAG_ZERO;
    if (entry & reserved)
        target_bad(t, "reserved bits are set");
    else if (t->host)
        (void)target_cluster(s, t);
    else if (entry & ZQ_OFLAG_COPIED)
        target_bad(t, "COPIED is set without a cluster");
}

void zq_l2_target(struct zq_scan *s, uint64_t entry, struct zq_target *t)
{
    *t = (struct zq_target){0};
    if (entry & ZQ_OFLAG_COMPRESSED)
        compressed_target(s, entry, t);
    else
        standard_target(s, entry, t);
    if (t->len)
        target_lies_on(s, t, ZQ_KINDS_FIXED | ZQ_KIND_L2);
}

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
    if (t.why) {
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "L2 entry %" PRIu64 " at 0x%" PRIx64 " is 0x%" PRIx64 ": %s%s", index, at, *entry,
                 t.why, t.where);
        s->hidden |= !t.counted;
    }
    for (uint64_t c = t.host >> bits; t.len && rc == 0 && c <= (t.host + t.len - 1) >> bits; c++)
        rc = zq_counts_add(&s->counts, c, table->refs, ZQ_KIND_DATA, NULL);
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
    s->l1s[s->nr_l1s++] = (struct zq_l1){s->h.l1_offset, s->h.l1_entries, true};
    rc = zq_scan_claim(s, s->h.l1_offset, (uint64_t)s->h.l1_entries * 8, ZQ_KIND_L1, "L1 table",
                       &clash);
    if (rc < 0 || (rc = zq_scan_snapshots(s)) < 0 || (rc = zq_scan_bitmaps(s)) < 0)
        return rc;
    return scan_refcount_table(s);
}

static int scan_mapping(struct zq_scan *s)
{
    uint64_t l2_entries = zq_scan_cluster(s) / 8;
    int rc = 0;

    for (uint32_t i = 0; i < s->nr_l1s && rc == 0; i++)
        rc = zq_walk_entries(s, s->l1s[i].offset, s->l1s[i].entries, scan_l1_entry, &s->l1s[i]);
    merge_l2s(s);
    for (size_t i = 0; i < s->nr_l2s && rc == 0; i++)
        rc = zq_walk_entries(s, s->l2s[i].offset, l2_entries, scan_l2_entry, &s->l2s[i]);
    return rc;
}

int zq_scan_run(struct zq_scan *s)
{
    int rc = read_header(s);

    s->counts.hooks = s->hooks;
    s->block_index = UINT64_MAX; /* until now s->block holds the header */
    if (rc < 0)
        return rc;
    s->piece = zq_alloc(s->hooks, 4096, ZQ_PIECE);
    if (!s->piece)
        return -ENOMEM;
    rc = scan_fixed(s);
    return rc < 0 ? rc : scan_mapping(s);
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
