/* SPDX-License-Identifier: MIT */
/* Compares what a scan counted with the refcounts, flags and write pointers that are stored. */
#include "check/scan.h"

#include <inttypes.h>

#include "base/bytes.h"
#include "format/refbits.h"

/* ---- refcounts: neighbours with the same fault are one finding ---- */

/*
 * first, nr: clusters; refcount as stored, count as the scan found it. Equal pairs are one finding.
 */
struct run {
    uint64_t first, nr, refcount, count;
};

static void run_report(struct zq_scan *s, const struct run *r)
{
    unsigned bits = s->h.cluster_bits;
    bool leak = r->refcount > r->count;

    if (r->nr)
        zq_found(s, leak ? ZQCOW2_FOUND_LEAK : ZQCOW2_FOUND_CORRUPTION, r->nr,
                 "%s 0x%" PRIx64 "-0x%" PRIx64 " (%" PRIu64 " clusters): refcount %" PRIu64
                 ", references %" PRIu64,
                 leak ? "leak at" : "refcount too low at", r->first << bits,
                 ((r->first + r->nr) << bits) - 1, r->nr, r->refcount, r->count);
}

static void run_add(struct zq_scan *s, struct run *r, uint64_t cluster, uint64_t refcount,
                    uint64_t count)
{
    if (r->nr && cluster == r->first + r->nr && refcount == r->refcount && count == r->count) {
        r->nr++;
        return;
    }
    run_report(s, r);
    *r = (struct run){cluster, 1, refcount, count};
}

/*
 * What the repair that was asked for will make of it. One that is too low counts as raised whether
 * it will be or not: its flags are judged by what it should be, so that a raise uncovers nothing.
 */
static uint64_t refcount_after(const struct zq_scan *s, uint64_t refcount, uint64_t count)
{
    return refcount < count || zq_scan_may_free(s) ? count : refcount;
}

/*
 * Notes in ref->once what the flags of entries are judged by afterwards, so refcounts are read
 * once, in the order of their blocks, and not once for each entry.
 */
static void compare_one(struct zq_scan *s, struct zq_ref *ref, uint64_t refcount, struct run *r)
{
    uint64_t cluster = zq_ref_cluster(ref), index = cluster >> zq_scan_block_bits(s);
    uint64_t count = zq_count_beside(ref->count, refcount);

    ref->once |= zq_max(refcount, count) == 1 ? ZQ_ONCE_NOW : 0;
    if (refcount_after(s, refcount, count) == 1) {
        ref->once |= ZQ_ONCE_AFTER;
        s->to_one += refcount > 1;
    }
    if (refcount != count)
        run_add(s, r, cluster, refcount, count);
    ref->once |= refcount > count ? ZQ_ONCE_TOO_HIGH : 0;
    if (refcount < count) {
        ref->once |= ZQ_ONCE_TOO_LOW;
        s->too_low++;
        s->no_block += index >= s->rt_entries || !s->rt[index];
    }
    s->end_cluster = zq_max(s->end_cluster, cluster + 1);
}

/* Clusters that something refers to. */
static int compare_counted(struct zq_scan *s)
{
    struct zq_ref *ref = zq_counts_next(&s->counts, 0);
    struct run r = {0};

    for (; ref; ref = zq_counts_next(&s->counts, zq_ref_cluster(ref) + 1)) {
        uint64_t refcount;
        int rc = zq_scan_refcount(s, zq_ref_cluster(ref), &refcount);

        if (rc < 0)
            return rc;
        compare_one(s, ref, refcount, &r);
    }
    run_report(s, &r);
    return 0;
}

/*
 * Clusters of a block with a refcount that nothing refers to. A block that lies in a hole of the
 * file is all zeros: reading it would cost time in proportion to what a header claims and not to
 * what the file has.
 */
static int compare_block(struct zq_scan *s, uint64_t index, struct run *r)
{
    unsigned bits = zq_scan_block_bits(s);
    bool hole;
    int rc = zq_scan_is_hole(s, index, &hole);

    if (rc < 0 || hole || (rc = zq_scan_block(s, index)) < 0)
        return rc;
    for (uint64_t i = 0; i < 1ull << bits; i++) {
        uint64_t cluster = (index << bits) + i;
        uint64_t refcount = zq_refbits_get(s->block, s->h.refcount_order, i);

        if (!refcount || zq_counts_get(&s->counts, cluster))
            continue;
        run_add(s, r, cluster, refcount, 0);
        s->end_cluster = zq_max(s->end_cluster, cluster + 1);
    }
    return 0;
}

static int compare_uncounted(struct zq_scan *s)
{
    struct run r = {0};

    for (uint64_t index = 0; index < s->rt_entries; index++) {
        int rc = s->rt[index] ? compare_block(s, index, &r) : 0;

        if (rc < 0)
            return rc;
    }
    run_report(s, &r);
    return 0;
}

/*
 * A snapshot that could not be followed may have a table, too: unless flag and refcount deny it,
 * the table counts as shared.
 */
static void note_shared(struct zq_scan *s)
{
    for (size_t i = 0; s->unfollowed && i < s->nr_active_l2s; i++) {
        struct zq_l2 *t = &s->l2s[i];
        unsigned once = zq_counts_once(&s->counts, t->offset >> s->h.cluster_bits);

        t->shared |= !t->flagged || once & ZQ_ONCE_TOO_HIGH;
    }
}

/* ---- COPIED ---- */

/* The flag of one entry, and how a message names that. */
struct flag {
    const char *table;
    uint64_t index, at, word;
    bool set;
};

/*
 * A flag is judged by what the refcount should be, where that is too low. Without a target it is a
 * stray bit.
 */
static void compare_flag(struct zq_scan *s, const struct flag *f, const struct zq_target *t)
{
    static const char *const is[] = {"is not 1", "is 1", "should be above 1", "should be 1"};
    unsigned known = t->len ? zq_counts_once(&s->counts, t->host >> s->h.cluster_bits) : 0;
    bool once = t->outside || known & ZQ_ONCE_NOW, low = known & ZQ_ONCE_TOO_LOW, loose;

    if (t->compressed && f->set)
        zq_found_packed(s, f->table, f->index, f->at, f->word);
    if (t->compressed || once == f->set || !(t->len || t->outside))
        return;
    loose = !t->outside && zq_scan_is_loose(s, t);
    s->loose += loose;
    zq_found(s, loose ? ZQCOW2_FOUND_LEAK : ZQCOW2_FOUND_CORRUPTION, 1,
             "%s entry %" PRIu64 " at 0x%" PRIx64 " is 0x%" PRIx64
             ": COPIED is %s although the refcount %s",
             f->table, f->index, f->at, f->word, once ? "clear" : "set", is[2 * low + once]);
}

/* An entry whose target is not even counted has no flag that could be right. */
static int flag_l1(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint64_t *entry)
{
    const struct flag f = {"L1", index, at, *entry, zq_l1_is_own(*entry)};
    struct zq_target t;

    (void)arg;
    zq_l1_target(s, *entry, &t);
    if (!t.why || t.counted)
        compare_flag(s, &f, &t);
    return 0;
}

static int flag_l2(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint8_t *entry)
{
    const struct zq_form form = zq_scan_form(s);
    const struct flag f = {"L2", index, at, zq_l2_word(entry), zq_l2_says_copied(&form, entry)};
    struct zq_target t;

    (void)arg;
    zq_l2_target(s, NULL, index, entry, &t);
    if (!t.why || t.counted)
        compare_flag(s, &f, &t);
    return 0;
}

/* Only tables that the active L1 reaches have accurate flags. */
static int compare_flags(struct zq_scan *s)
{
    int rc = zq_walk_entries(s, s->h.l1_offset, s->h.l1_entries, flag_l1, NULL);

    for (size_t i = 0; i < s->nr_active_l2s && rc == 0; i++)
        rc = zq_walk_l2(s, s->l2s[i].offset, flag_l2, NULL);
    return rc;
}

/* ---- zones ---- */

/*
 * True: the zone is active: its pointer is neither at its start nor at its end, as after an open
 * (I6).
 */
static bool check_zone(struct zq_scan *s, uint32_t zone)
{
    const uint8_t *raw = s->wp + zq_entries_bytes(zone);
    uint64_t start = zq_geometry_start(&s->g, zone);
    struct zq_entry e;

    if (zq_entry_decode(&s->g, zone, raw, &e) < 0) {
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "write-pointer table: zone %" PRIu32 " at 0x%" PRIx64 " has 0x%016" PRIx64
                 ": not a position in this zone (0x%" PRIx64 " to 0x%" PRIx64 ")",
                 zone, s->g.table_offset + zq_entries_bytes(zone), zq_entry_word(&s->g, raw), start,
                 start + s->g.zone_size);
        return false;
    }
    if (e.full || e.wp == start)
        return false;
    /* a write of zeros leaves this too; over a backing file it is what an inherited zone has */
    if (s->use[zone].low >= e.wp && !s->h.backing_len)
        zq_found(s, ZQCOW2_FOUND_WARNING, 1,
                 "zone %" PRIu32 " has nothing mapped below its write pointer 0x%" PRIx64, zone,
                 e.wp);
    return true;
}

static void check_state(struct zq_scan *s, uint32_t zone)
{
    if (!zq_states_valid(&s->g, zone, s->states[zone]))
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "stored state of zone %" PRIu32 " at byte %" PRIu64 " is 0x%02x: not valid", zone,
                 s->h.states_offset + zone, s->states[zone]);
}

/* S12: what lies below the pointer and not below the backing file's must be mapped here. */
static void check_inherited(struct zq_scan *s, uint32_t zone)
{
    const struct zq_zone_use *u = &s->use[zone];
    uint64_t missing = ((u->own_end - u->own) >> s->h.cluster_bits) - u->own_mapped;
    struct zq_entry e;

    if (missing && zq_entry_decode(&s->g, zone, s->wp + zq_entries_bytes(zone), &e) == 0)
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, missing,
                 "zone %" PRIu32 " has %" PRIu64 " clusters that are mapped nowhere: its write "
                 "pointer is 0x%" PRIx64
                 ", and the backing file, which has changed, has 0x%" PRIx64,
                 zone, missing, e.wp, zq_scan_below_wp(s, zone));
}

static void check_zones(struct zq_scan *s)
{
    uint32_t active = 0;

    for (uint32_t i = 0; s->states && i < s->g.nr_zones; i++)
        check_state(s, i);
    for (uint32_t i = 0; s->g.layout && i < s->g.nr_zones; i++) {
        active += check_zone(s, i);
        if (s->below)
            check_inherited(s, i);
    }
    if (s->g.max_active && active > s->g.max_active)
        zq_found(s, ZQCOW2_FOUND_WARNING, 1,
                 "%" PRIu32 " zones are active, max_active_zones is %" PRIu32, active,
                 s->g.max_active);
}

/*
 * A mark that this repair has set itself is not a sign of a crash. In an image without one, that
 * another program made, the dirty bit takes its place (N9).
 */
static int read_mark(struct zq_scan *s)
{
    uint8_t mark = s->h.incompat & ZQ_INCOMPAT_DIRTY;
    int rc = s->h.mark_offset ? zq_be_read(s->be, &mark, 1, s->h.mark_offset) : 0;

    s->marked = mark && !s->repair.marked;
    return rc;
}

static void check_header(struct zq_scan *s)
{
    if (s->marked || s->h.incompat & ZQ_INCOMPAT_DIRTY)
        zq_found(s, ZQCOW2_FOUND_WARNING, 1, "the image was not closed cleanly");
    if (s->h.incompat & ZQ_INCOMPAT_CORRUPT)
        zq_found(s, ZQCOW2_FOUND_WARNING, 1, "the image is marked corrupt");
    if (zq_scan_stray_bits(s) & ZQ_AUTOCLEAR_BITMAPS)
        zq_found(s, ZQCOW2_FOUND_WARNING, 1,
                 "autoclear_features 0x%" PRIx64
                 " at byte %d: bit 0 is set but there is no bitmaps extension",
                 s->h.autoclear, ZQ_HDR_AUTOCLEAR);
    if (zq_scan_stray_bits(s) & ZQ_AUTOCLEAR_RAW_DATA)
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "autoclear_features 0x%" PRIx64
                 " at byte %d: bit 1 is set but there is no external data file",
                 s->h.autoclear, ZQ_HDR_AUTOCLEAR);
    if (s->h.states_stale)
        zq_found(s, ZQCOW2_FOUND_WARNING, 1,
                 "another program has written the image: its persistent zone states are void");
    if (s->h.copies_stale && s->h.nb_snapshots)
        zq_found(s, ZQCOW2_FOUND_WARNING, 1,
                 "another program has written the image: its snapshots have no write pointers now");
    if (zq_scan_stray_snapshots(s))
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "snapshots_offset 0x%" PRIx64
                 " at byte %d: not a valid table offset, although there are no snapshots",
                 s->h.snapshots_offset, ZQ_HDR_SNAPSHOTS);
    if (s->h.backing_stray)
        zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1,
                 "backing_file_offset at byte %d lies within the header, although there is no "
                 "backing file: other programs read no extensions",
                 ZQ_HDR_BACKING);
}

/* ---- the whole ---- */

/*
 * Refcounts first, flags after: a flag is judged by the refcount of what it points to. Zones come
 * last: they need to know which parts of them are mapped.
 */
int zq_examine(struct zq_scan *s)
{
    int rc = zq_scan_run(s);

    if (rc < 0 || (rc = read_mark(s)) < 0 || (rc = compare_counted(s)) < 0 ||
        (rc = compare_uncounted(s)) < 0 || (rc = compare_flags(s)) < 0)
        return rc;
    note_shared(s);
    check_header(s);
    check_zones(s);
    s->res->total_clusters = zq_div_up(s->h.virtual_size, zq_scan_cluster(s));
    s->res->image_end_offset = s->end_cluster << s->h.cluster_bits;
    return 0;
}

int zq_check_trial(const struct zq_scan *s, struct zq_trial trial, uint64_t *corruptions)
{
    static const struct zqcow2_check_options quiet = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_error ignored;
    struct zq_scan t = {.be = s->be, .hooks = s->hooks, .opt = &quiet, .err = &ignored};
    int rc;

    t.res = &res;
    t.below = s->below;
    t.repair = s->repair;
    t.trial = trial;
    rc = zq_examine(&t);
    zq_scan_free(&t);
    *corruptions = res.corruptions;
    return rc;
}
