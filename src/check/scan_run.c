/* SPDX-License-Identifier: MIT */
/*
 * Reads an image's metadata once and counts what refers to each host cluster.
 *
 * The order is that of trust: header and fixed tables, the active L1 and its tables, then
 * snapshots, then bitmaps. Nothing that a later part claims changes what an earlier one was found
 * to own, so damage in a snapshot cannot cost data of the active disk. All memory of a scan is its
 * own and is freed by zq_scan_free(), however far the scan came.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/report.h"
#include "base/sort.h"
#include "check/genuine.h"
#include "check/scan.h"
#include "format/refbits.h"

#define MAX_JUDGED 64u /* blocks on other tables: any entry may name one */

/* The cluster has the table that the header places there. Zeros may be anything. */
static int is_other_table(const struct zq_scan *s, uint64_t at, bool *yes)
{
    const struct zq_bounds b = zq_scan_bounds(s);
    struct zq_geometry g = s->g;
    uint64_t l1_end = s->h.l1_offset + zq_table_bytes(s->h.l1_entries);
    uint64_t pointers = s->g.layout ? zq_entries_bytes(s->g.nr_zones) : 0;

    if (at >= s->h.l1_offset && at < l1_end)
        return zq_l1_is_genuine(s->be, &b, at, zq_min(zq_scan_cluster(s), l1_end - at), yes);
    *yes = at >= s->g.table_offset && at < s->g.table_offset + pointers &&
           zq_entry_code_detect(&g, s->wp, NULL) == 0 && !zq_is_zeros(s->wp, (size_t)pointers);
    return 0;
}

/*
 * What lies on a block that is one is no L1, nor a table of zones: its field is wrong. To make the
 * refcounts anew would free all that the right table has.
 */
static int note_block(struct zq_scan *s, uint64_t block)
{
    bool genuine, other = false;
    int rc = zq_rt_is_genuine(s->be, &s->h, s->file_size, &genuine);

    if (rc == 0 && genuine)
        rc = zq_block_is_genuine(s->be, &s->h, s->file_size, block, &genuine);
    if (rc == 0 && genuine)
        rc = is_other_table(s, block, &other);
    s->tangled |= genuine && !other;
    return rc;
}

/*
 * A block that cannot be trusted is left out; the whole structure is then made anew by repair. Bits
 * that mean nothing do not hide a block: its refcounts protect what could not be followed.
 */
static int scan_rt_entry(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint64_t *entry)
{
    const struct zq_bounds b = zq_scan_bounds(s);
    uint64_t block;
    const char *why = zq_rt_read(&b, *entry, &block);
    unsigned under;
    bool clash;
    int rc;

    (void)arg;
    if (why) {
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "refcount table entry %" PRIu64 " at 0x%" PRIx64 " is 0x%" PRIx64 ": %s", index,
                 at, *entry, why);
        s->rebuild = true;
        if (zq_rt_read(&b, zq_rt_known(*entry), &block) ||
            zq_counts_kind(&s->counts, block >> s->h.cluster_bits))
            return 0;
    }
    under = zq_counts_kind(&s->counts, block >> s->h.cluster_bits) & ~(unsigned)ZQ_KIND_REFCOUNTS;
    rc = zq_scan_claim(s, block, zq_scan_cluster(s), ZQ_KIND_REFCOUNTS, "refcount block", &clash);
    if (rc < 0 || clash)
        return rc < 0 || !under || s->judged++ >= MAX_JUDGED ? rc : note_block(s, block);
    s->rt[index] = block;
    return 0;
}

/*
 * What names a place behind the end of the file must find nothing when the file has become longer.
 * A table that only ends there is followed up to it: *bytes.
 */
static void judge_rt(struct zq_scan *s, uint64_t *bytes)
{
    uint64_t at = s->h.rt_offset, cluster = zq_scan_cluster(s);
    struct zqcow2_error why;

    if (!s->h.rt_wrong)
        return;
    (void)zq_header_judge_rt(&s->h, s->file_size, &why);
    zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1, "%s", why.text);
    s->rebuild = true;
    if (at < ZQ_MAX_HOST_OFFSET)
        zq_scan_note_past_end(s, at + *bytes);
    if (!at || at & (cluster - 1) || at >= s->file_size || *bytes > ZQ_MAX_RT_BYTES)
        *bytes = 0;
}

/* The part of the table up to the first cluster that another fixed table has, or the file's end. */
static uint64_t clear_part(struct zq_scan *s, uint64_t bytes)
{
    uint64_t cluster = zq_scan_cluster(s), at = s->h.rt_offset, end = at + bytes;

    end = zq_min(end, zq_align_up(s->file_size, cluster));
    while (at < end && !zq_counts_kind(&s->counts, at >> s->h.cluster_bits))
        at += cluster;
    return at - s->h.rt_offset;
}

/*
 * rt[] gets only what may be trusted. If the table begins on another one that is fixed, one of two
 * fields of the header is wrong. Where it counts itself it is the other one: then nothing is
 * repaired, for what lies there is not what it seems. Without a table everything is counted anew,
 * behind the end of the file.
 */
static int scan_refcount_table(struct zq_scan *s)
{
    uint64_t all = (uint64_t)s->h.rt_clusters << s->h.cluster_bits, bytes;
    bool clash, genuine = false;
    int rc = 0;

    judge_rt(s, &all);
    if (!all)
        return 0;
    bytes = clear_part(s, all);
    if (!bytes)
        rc = zq_rt_is_genuine(s->be, &s->h, s->file_size, &genuine);
    s->tangled |= genuine;
    if (rc == 0)
        rc = zq_scan_claim(s, s->h.rt_offset, all, ZQ_KIND_REFCOUNTS, "refcount table", &clash);
    if (rc < 0 || !bytes)
        return rc;
    s->rt_entries = zq_table_count(bytes);
    s->rt = zq_zalloc(s->hooks, (size_t)bytes);
    return s->rt ? zq_walk_entries(s, s->h.rt_offset, s->rt_entries, scan_rt_entry, NULL) : -ENOMEM;
}

/* ---- L1 ---- */

/*
 * Doubled: there may be as many tables as L1 has entries. merge_l2s() joins what points to one
 * table.
 */
static int push_l2(struct zq_scan *s, uint64_t offset, uint32_t index, bool flagged)
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
    s->l2s[s->nr_l2s++] =
        (struct zq_l2){.offset = offset, .refs = 1, .index = index, .flagged = flagged};
    return 0;
}

static void found_entry(struct zq_scan *s, const char *table, uint64_t index, uint64_t at,
                        uint64_t word, const struct zq_target *t)
{
    if (!t->why && !t->stray)
        return;
    s->stray |= t->stray != NULL;
    zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
             "%s%s entry %" PRIu64 " at 0x%" PRIx64 " is 0x%" PRIx64 ": %s%s",
             s->rank == ZQ_RANK_SNAPSHOT ? "a snapshot's " : "", table, index, at, word,
             t->why ? t->why : t->stray, t->where);
}

static int scan_l1_entry(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint64_t *entry)
{
    struct zq_target t;
    bool entered;
    int rc = 0;

    (void)arg;
    zq_l1_target(s, *entry, &t);
    entered = !t.why || t.on_refcounts;
    found_entry(s, "L1", index, at, *entry, &t);
    s->hidden |= !entered;
    if (t.len)
        rc = zq_counts_add(&s->counts, t.host >> s->h.cluster_bits, 1,
                           entered ? ZQ_KIND_L2 : ZQ_KIND_NONE, NULL);
    if (rc < 0 || !entered || !t.host)
        return rc;
    return push_l2(s, t.host, s->rank == ZQ_RANK_ACTIVE ? (uint32_t)index : ZQ_NO_INDEX,
                   zq_l1_is_own(*entry));
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

/*
 * Fragmented, as qemu-img counts it: it does not follow the one before it in the same table, or is
 * compressed, so that its sectors are read again with those of its neighbours.
 */
static void count_cluster(struct zq_scan *s, const struct zq_target *t)
{
    s->res->allocated_clusters++;
    s->res->compressed_clusters += t->compressed;
    s->res->fragmented_clusters += t->compressed || (s->next_host && t->host != s->next_host);
    if (!t->compressed)
        s->next_host = t->host + zq_scan_cluster(s);
}

/* top: what a lost write pointer is restored from. Only sound entries count. */
static void note_use(struct zq_scan *s, uint64_t guest, const struct zq_target *t)
{
    uint64_t zone;

    if (t->len || t->outside)
        count_cluster(s, t);
    if (!s->g.layout || guest >= s->g.device_size)
        return;
    zone = guest >> s->g.zone_bits;
    s->use[zone].low = zq_min(s->use[zone].low, guest);
    s->use[zone].top = zq_max(s->use[zone].top, guest + zq_scan_cluster(s));
}

/* An entry that is wrong counts: it is reported by itself. */
static void note_own(struct zq_scan *s, uint64_t guest)
{
    struct zq_zone_use *u;

    if (!s->below || guest >= s->g.device_size)
        return;
    u = &s->use[guest >> s->g.zone_bits];
    u->own_mapped += guest >= u->own && guest < u->own_end;
}

/* Flags of the active tables are compared when all is counted. */
static void check_snapshot_flag(struct zq_scan *s, const struct zq_l2 *table, uint64_t index,
                                uint64_t at, const uint8_t *entry)
{
    const struct zq_form form = zq_scan_form(s);

    if (table->index == ZQ_NO_INDEX && !s->seen && zq_l2_says_copied(&form, entry))
        zq_found_packed(s, "a snapshot's L2", index, at, zq_l2_word(entry));
}

static int scan_l2_entry(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint8_t *entry)
{
    const struct zq_l2 *table = arg;
    unsigned bits = s->h.cluster_bits;
    struct zq_target t;
    int rc = 0;

    zq_l2_target(s, table, index, entry, &t);
    if (!s->seen)
        found_entry(s, "L2", index, at, zq_l2_word(entry), &t);
    if (!t.why && t.compressed)
        check_snapshot_flag(s, table, index, at, entry);
    s->hidden |= t.why && !t.counted;
    s->on_tables += t.on_table && table->index != ZQ_NO_INDEX;
    for (uint64_t c = t.host >> bits; t.len && rc == 0 && c <= (t.host + t.len - 1) >> bits; c++) {
        rc = zq_counts_add(&s->counts, c, table->refs, t.why ? ZQ_KIND_NONE : ZQ_KIND_DATA, NULL);
        if (rc == 0 && t.compressed && table->index != ZQ_NO_INDEX)
            zq_counts_note(&s->counts, c, ZQ_BY_PACKED);
    }
    if (table->index != ZQ_NO_INDEX)
        note_own(s, zq_scan_guest(s, table, index));
    if (rc == 0 && !t.why && table->index != ZQ_NO_INDEX)
        note_use(s, zq_scan_guest(s, table, index), &t);
    return rc;
}

/* ---- the scan ---- */

/*
 * s->block serves as the buffer, since it is a cluster, too. The first sector is read twice:
 * another program may have changed it in between, which the second reading must not trust.
 */
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
    if ((len && (rc = zq_scan_read(s, first, len, 0)) < 0) ||
        (rc = zq_header_peek(first, len, &bits, s->err)) < 0)
        return rc;
    s->block = zq_zalloc(s->hooks, (size_t)1 << bits);
    s->block_bytes = (size_t)1 << bits;
    if (!s->block)
        return -ENOMEM;
    buf = s->block;
    len = (size_t)zq_min(s->file_size, (uint64_t)1 << bits);
    rc = zq_scan_read(s, buf, len, 0);
    if (rc < 0 || (rc = zq_header_parse(&s->h, buf, len, s->file_size, false, s->err)) < 0)
        return rc;
    if (s->h.cluster_bits != bits) /* buffers were sized by the first reading */
        return zq_fail(s->err, ZQCOW2_ECORRUPT,
                       "cluster_bits at byte 20 changed while the file was read");
    return 0;
}

/* S12: behind the cluster's start in which the write pointer of what it stands on lies. */
static void set_own(struct zq_scan *s, uint32_t zone)
{
    struct zq_zone_use *u = &s->use[zone];
    struct zq_entry e;

    if (zone < s->g.conventional ||
        zq_entry_decode(&s->g, zone, s->wp + zq_entries_bytes(zone), &e) < 0 ||
        e.wp <= zq_scan_below_wp(s, zone))
        return;
    u->own = zq_align_down(zq_scan_below_wp(s, zone), zq_scan_cluster(s));
    u->own_end = zq_align_up(e.wp, zq_scan_cluster(s));
}

static int read_zones(struct zq_scan *s)
{
    bool bit_missing, clash;
    size_t bytes;
    int rc;

    rc = zq_zone_ext_parse(&s->g, &s->h, s->block + s->h.zoned_offset, s->h.zoned_len, s->file_size,
                           &bit_missing, s->err);
    if (rc == 0)
        rc = zq_states_check(&s->h, &s->g, s->err);
    if (rc < 0 || !s->g.layout)
        return rc;
    if (bit_missing)
        zq_found(s, ZQCOW2_FOUND_WARNING, 1,
                 "the image has zones but incompatible feature bit 5 is clear");
    bytes = (size_t)zq_entries_bytes(s->g.nr_zones);
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
    for (uint32_t i = 0; s->below && i < s->g.nr_zones; i++)
        set_own(s, i);
    return zq_scan_claim(s, s->g.table_offset, bytes, ZQ_KIND_ZONES, "write-pointer table", &clash);
}

static int read_states(struct zq_scan *s)
{
    uint64_t bytes = zq_states_bytes(s->h.states_zones);
    bool clash;
    int rc;

    if (!s->h.states_offset)
        return 0;
    s->states = zq_zalloc(s->hooks, (size_t)bytes);
    if (!s->states)
        return -ENOMEM;
    rc = zq_be_read(s->be, s->states, (size_t)bytes, s->h.states_offset);
    if (rc == 0)
        rc = zq_scan_claim(s, s->h.states_offset, bytes, ZQ_KIND_ZONES, "table of zone states",
                           &clash);
    if (rc < 0 || !s->h.descriptors_offset)
        return rc;
    bytes = zq_descriptors_bytes(s->h.descriptor_size, s->h.states_zones);
    return zq_scan_claim(s, s->h.descriptors_offset, bytes, ZQ_KIND_ZONES,
                         "table of zone descriptors", &clash);
}

/*
 * Everything with one owner comes first, so that an entry that points into it is seen as wrong;
 * of these the refcounts come last, so that a block that lies on anything else is not trusted.
 */
static int scan_fixed(struct zq_scan *s)
{
    bool clash;
    int rc;

    s->l1_room = (uint32_t)zq_min(s->h.nb_snapshots, ZQ_MAX_SNAPSHOTS) + 1;
    s->l1s = zq_zalloc_array(s->hooks, s->l1_room, sizeof(*s->l1s));
    if (!s->l1s)
        return -ENOMEM;
    if ((rc = zq_scan_claim(s, 0, 1, ZQ_KIND_HEADER, "header", &clash)) < 0 ||
        (rc = read_zones(s)) < 0 || (rc = read_states(s)) < 0)
        return rc;
    s->l1s[s->nr_l1s++] = (struct zq_l1){s->h.l1_offset, s->h.l1_entries};
    rc = zq_scan_claim(s, s->h.l1_offset, zq_table_bytes(s->h.l1_entries), ZQ_KIND_L1, "L1 table",
                       &clash);
    return rc < 0 ? rc : scan_refcount_table(s);
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
        s->next_host = 0;
        rc = zq_walk_l2(s, s->l2s[i].offset, scan_l2_entry, &s->l2s[i]);
    }
    s->seen = false;
    s->rank = rank;
    return rc;
}

/*
 * Where no flag can be set, a repair that moves no tables frees nothing, so that no refcount falls
 * to 1 there.
 */
static void note_lower(struct zq_scan *s)
{
    for (size_t i = 0; i < s->nr_active_l2s; i++) {
        struct zq_l2 *t = &s->l2s[i];

        t->lower = zq_scan_lower(s, t->offset) | zq_scan_l1_lower(s, t->index);
        s->hidden |= t->lower & ZQ_BY_LOWER && !s->repair.raise;
    }
}

static int scan_snapshots(struct zq_scan *s)
{
    bool hidden = s->hidden;
    int rc;

    s->rank = ZQ_RANK_SNAPSHOT;
    s->hidden = false;
    rc = zq_scan_snapshots(s);
    if (rc == 0)
        rc = scan_mapping(s, ZQ_RANK_SNAPSHOT, 1);
    s->unfollowed = s->hidden;
    s->hidden |= hidden;
    return rc;
}

static int scan_ranks(struct zq_scan *s)
{
    int rc = scan_mapping(s, ZQ_RANK_ACTIVE, 0);

    s->nr_active_l2s = s->nr_l2s;
    if (rc < 0 || (rc = scan_snapshots(s)) < 0)
        return rc;
    s->rank = ZQ_RANK_BITMAP;
    rc = zq_scan_bitmaps(s);
    if (rc == 0)
        rc = zq_scan_uncounted(s);
    note_lower(s);
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
    zq_names_free(&s->names, h);
    zq_free(h, s->wp, zq_entries_bytes(s->g.nr_zones));
    zq_free(h, s->states, zq_states_bytes(s->h.states_zones));
    zq_free(h, s->use, s->g.nr_zones * sizeof(*s->use));
    zq_free(h, s->rt, (size_t)s->rt_entries * sizeof(*s->rt));
    zq_free(h, s->l1s, s->l1_room * sizeof(*s->l1s));
    zq_free(h, s->l2s, s->l2_room * sizeof(*s->l2s));
    zq_free(h, s->piece, ZQ_PIECE);
    zq_free(h, s->block, s->block_bytes);
}
