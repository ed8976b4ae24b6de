/* SPDX-License-Identifier: MIT */
/*
 * Writes what a scan found to be wrong: refcounts, COPIED flags, and on request more.
 *
 * Refcounts are raised before entries change and lowered after (R13): at every moment between, a
 * crash leaves counts that are too high, which is a leak, and never one that is too low. What the
 * scan could not follow counts as referring to everything: nothing is freed then.
 */
#include "check/repair.h"

#include <inttypes.h>

#include "base/bytes.h"
#include "base/report.h"
#include "format/refbits.h"

/* ---- refcounts in place ---- */

static uint64_t wanted(const struct zq_scan *s, uint64_t refcount, uint32_t counted, bool raise)
{
    uint64_t count = zq_count_beside(counted, refcount);

    if (!raise)
        return zq_min(refcount, count);
    /* A count that the width cannot hold is at least not taken for free. */
    return zq_max(refcount, zq_min(count, zq_refbits_max(s->h.refcount_order)));
}

/* s->block holds block number index; writes back the part that changes. */
static int adjust_block(struct zq_scan *s, uint64_t index, bool raise, uint64_t *changed)
{
    unsigned bits = zq_scan_block_bits(s), order = s->h.refcount_order;
    uint64_t low = UINT64_MAX, high = 0;

    for (uint64_t i = 0; i < 1ull << bits; i++) {
        uint64_t refcount = zq_refbits_get(s->block, order, i);
        uint64_t want;

        if (!refcount && !raise)
            continue;
        want = wanted(s, refcount, zq_counts_get(&s->counts, (index << bits) + i), raise);
        if (want == refcount)
            continue;
        zq_refbits_set(s->block, order, i, want);
        low = zq_min(low, (i << order) / 8);
        high = zq_max(high, zq_div_up((i + 1) << order, 8));
        (*changed)++;
    }
    if (low == UINT64_MAX)
        return 0;
    return zq_scan_write(s, s->block + low, (size_t)(high - low), s->rt[index] + low);
}

/* A block in a hole of the file has nothing to lower, and to raise what is counted there. */
static int is_idle(struct zq_scan *s, uint64_t index, bool raise, bool *idle)
{
    unsigned bits = zq_scan_block_bits(s);
    const struct zq_ref *ref;
    int rc = zq_scan_is_hole(s, index, idle);

    if (rc < 0 || !*idle || !raise)
        return rc;
    ref = zq_counts_next(&s->counts, index << bits);
    *idle = !ref || zq_ref_cluster(ref) >> bits != index;
    if (!*idle)
        s->hole_index = UINT64_MAX; /* it is about to be written */
    return 0;
}

static int adjust_all(struct zq_scan *s, bool raise, uint64_t *changed)
{
    for (uint64_t index = 0; index < s->rt_entries; index++) {
        bool idle = true;
        int rc = s->rt[index] ? is_idle(s, index, raise, &idle) : 0;

        if (rc == 0 && !idle)
            rc = zq_scan_block(s, index);
        if (rc == 0 && !idle)
            rc = adjust_block(s, index, raise, changed);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/*
 * Before any entry changes, and behind its own barrier: an entry must never point to a cluster
 * whose count on disk is too low (K1).
 */
static int raise_refcounts(struct zq_scan *s, bool *changed)
{
    uint64_t n = 0;
    int rc;

    if (!s->too_low)
        return 0;
    rc = adjust_all(s, true, &n);
    zq_repaired(s, n, "refcounts raised");
    *changed |= n > 0;
    return rc < 0 ? rc : zq_be_flush(s->be);
}

/*
 * Last, when what pointed to the clusters is durably gone (R5). Not while anything in the file
 * could not be followed.
 */
static int lower_refcounts(struct zq_scan *s, bool *changed)
{
    uint64_t n = 0;
    int rc;

    if (!s->res->leaked_clusters || !zq_scan_may_free(s))
        return 0;
    rc = adjust_all(s, false, &n);
    zq_repaired(s, n, "leaked clusters freed");
    *changed |= n > 0;
    return rc < 0 ? rc : zq_be_flush(s->be);
}

/* ---- entries ---- */

struct tables {
    struct zq_fix fix;
    bool all; /* REPAIR_ALL: entries may be dropped */
};

static int fix_l1(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint64_t *entry)
{
    uint8_t lower = zq_scan_l1_lower(s, index);
    struct tables *t = arg;

    (void)at;
    t->fix.may_drop = t->all && !lower;
    t->fix.may_flag = !(lower & ZQ_BY_LOWER);
    t->fix.may_clear = !lower && !t->fix.only_changed;
    zq_fix_l1(s, &t->fix, index, entry);
    return 0;
}

static int fix_l2(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint8_t *entry)
{
    (void)at;
    zq_fix_l2(s, &((struct tables *)arg)->fix, index, entry);
    return 0;
}

static int clear_l1(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint64_t *entry)
{
    struct zq_fix *f = arg;

    f->may_clear = !zq_scan_lower(s, at);
    zq_fix_l1(s, f, index, entry);
    return 0;
}

static int clear_l2(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint8_t *entry)
{
    (void)at;
    zq_fix_l2(s, arg, index, entry);
    return 0;
}

/* What only snapshots have: more of it can be read after this, and nothing reads otherwise. */
static int clear_snapshots(struct zq_scan *s, struct zq_fix *all)
{
    struct zq_fix f = {0};
    int rc = 0;

    for (uint32_t i = 1; i < s->nr_l1s && rc == 0; i++)
        rc = zq_walk_entries(s, s->l1s[i].offset, s->l1s[i].entries, clear_l1, &f);
    for (size_t i = s->nr_active_l2s; i < s->nr_l2s && rc == 0; i++) {
        f.table = &s->l2s[i];
        f.may_clear = !zq_scan_lower(s, f.table->offset);
        if (f.may_clear && !zq_scan_active_l2(s, f.table->offset))
            rc = zq_walk_l2(s, f.table->offset, clear_l2, &f);
    }
    all->cleared += f.cleared;
    return rc;
}

/*
 * Nothing changes what can be read of a snapshot: in a table that it has, too, flags are set right
 * and bits without a meaning cleared, in one that it has alone only the latter, and what it has as
 * something else is never written.
 */
static int fix_tables(struct zq_scan *s, struct tables *t)
{
    int rc = zq_walk_entries(s, s->h.l1_offset, s->h.l1_entries, fix_l1, t);

    for (size_t i = 0; i < s->nr_active_l2s && rc == 0; i++) {
        const struct zq_l2 *l2 = &s->l2s[i];

        t->fix.table = l2;
        t->fix.may_drop = t->all && zq_l2_is_own(l2);
        t->fix.may_flag = !(l2->lower & ZQ_BY_LOWER);
        t->fix.may_clear = !l2->lower && !t->fix.only_changed;
        rc = zq_walk_l2(s, l2->offset, fix_l2, t);
    }
    if (rc == 0 && s->stray && !t->fix.only_changed)
        rc = clear_snapshots(s, &t->fix);
    return rc;
}

/*
 * A repair of leaks alone touches flags only where freeing a leak leaves a refcount of 1, and those
 * that a crash has left loose (R12): it must not write what it does not have to.
 */
static int fix_entries(struct zq_scan *s, unsigned flags, bool *changed)
{
    struct tables t = {.fix.only_changed = !(flags & ZQCOW2_CHECK_REPAIR),
                       .all = flags & ZQCOW2_CHECK_REPAIR_ALL};
    const struct zq_fix *f = &t.fix;
    uint64_t fixed = 0, states = 0;
    int rc;

    if (f->only_changed && !s->loose && (!s->to_one || !zq_scan_may_free(s)))
        return 0;
    rc = fix_tables(s, &t);
    if (rc == 0 && t.all)
        rc = zq_repair_pointers(s, &fixed);
    if (rc == 0 && t.all)
        rc = zq_repair_states(s, &states);
    zq_fix_report(s, f);
    zq_repaired(s, fixed, "write pointers corrected");
    zq_repaired(s, states, "stored zone states dropped");
    if (rc < 0 || !(f->flags | f->cleared | f->dropped | f->unmapped | fixed | states))
        return rc;
    *changed = true;
    return zq_be_flush(s->be);
}

/* ---- a round ---- */

static int put_field32(struct zq_scan *s, uint64_t at, uint64_t value)
{
    uint8_t raw[4];

    zq_put_be32(raw, (uint32_t)value);
    return zq_scan_write(s, raw, sizeof(raw), at);
}

/* Entries that the disk does not need have nothing to lose, and what lies on them has. */
static int shorten_l1(struct zq_scan *s, bool *changed)
{
    const struct zq_form form = zq_scan_form(s);
    uint64_t need = zq_l1_needed(&form, s->h.virtual_size);
    int rc = put_field32(s, ZQ_HDR_L1_ENTRIES, need);

    *changed = true;
    zq_found(s, ZQCOW2_FOUND_REPAIRED, 1, "l1_size %" PRIu32 " at byte %d is now %" PRIu64,
             s->h.l1_entries, ZQ_HDR_L1_ENTRIES, need);
    return rc < 0 ? rc : zq_be_flush(s->be);
}

/*
 * One kind of change per pass where the next kind would rely on a scan that is out of date: after a
 * rebuild, and after copies, the caller scans again.
 */
static int repair_tables(struct zq_scan *s, unsigned flags, bool *changed)
{
    int rc = 0;

    if (s->long_l1 && flags & ZQCOW2_CHECK_REPAIR_ALL)
        return shorten_l1(s, changed);
    if (s->tangled)
        return 0;
    if (flags & ZQCOW2_CHECK_REPAIR && (s->rebuild || s->no_block)) {
        rc = zq_rebuild_refcounts(s, 0, changed);
        if (rc < 0 || *changed) /* s->rt is no longer the table: look again first */
            return rc;
    }
    if (s->rebuild) /* no refcount can be written, and no flag by what it would be */
        return 0;
    if (flags & ZQCOW2_CHECK_REPAIR) {
        rc = zq_unshare(s, flags, changed);
        if (rc < 0 || *changed)
            return rc;
        rc = raise_refcounts(s, changed);
    }
    if (rc < 0 || (rc = fix_entries(s, flags, changed)) < 0)
        return rc;
    return lower_refcounts(s, changed);
}

/* ---- the header ---- */

static int put_header64(struct zq_scan *s, uint64_t at, uint64_t value)
{
    uint8_t raw[8];

    zq_put_be64(raw, value);
    return zq_scan_write(s, raw, sizeof(raw), at);
}

/*
 * CORRUPT is set only if refcounts remain too low: no program may allocate by them then. Version 2
 * has no feature bits.
 */
static uint64_t final_incompat(const struct zq_scan *s, unsigned flags, bool sound)
{
    if (sound)
        return s->h.incompat & ~(ZQ_INCOMPAT_DIRTY | ZQ_INCOMPAT_CORRUPT);
    if (flags & ZQCOW2_CHECK_REPAIR && s->too_low && s->h.version >= 3)
        return s->h.incompat | ZQ_INCOMPAT_CORRUPT;
    return s->h.incompat;
}

/* Whether zq_repair_finish() will write. */
static bool ends_with_write(const struct zq_scan *s, unsigned flags)
{
    bool sound = !s->res->corruptions;

    return s->repair.marked || (s->marked && sound) ||
           final_incompat(s, flags, sound) != s->h.incompat;
}

/*
 * How many snapshots there are. Fewer than the header says only if nothing else is wrong: had there
 * been more, clusters would be left that nothing refers to.
 */
static uint32_t nr_snapshots(const struct zq_scan *s)
{
    const struct zq_snap_list *l = &s->list;

    if (l->beyond)
        return s->h.nb_snapshots + l->beyond;
    if (s->res->corruptions == l->found && !s->res->leaked_clusters)
        return l->nr;
    return s->h.nb_snapshots;
}

/*
 * What a field that is too small hides may be what another program had begun to delete. Some of it
 * fits no more then, and stays wrong. The trial shows that: the field's own corruption is gone in
 * it, and no other one may take its place.
 */
static int try_field(struct zq_scan *s, uint64_t at, uint32_t value, bool *good)
{
    uint64_t corruptions;
    int rc = zq_check_trial(s, (struct zq_trial){at, value}, &corruptions);

    *good = rc == 0 && corruptions < s->res->corruptions;
    return rc;
}

static int lengthen_snapshot(struct zq_scan *s, bool *changed)
{
    uint64_t at = s->list.short_at + 8;
    bool good = false;
    int rc = s->list.short_at ? try_field(s, at, s->list.l1_entries, &good) : 0;

    if (!good)
        return rc;
    *changed = true;
    zq_repaired(s, 1, "l1_size of a snapshot corrected");
    return put_field32(s, at, s->list.l1_entries);
}

/*
 * What a repair must not do unless it was asked for all. One field at a time: the next scan counts
 * what it shows, and finds the next one.
 */
static int fix_list(struct zq_scan *s, bool *changed)
{
    uint32_t nr = nr_snapshots(s);
    bool good = true;
    int rc = lengthen_snapshot(s, changed);

    if (rc < 0 || *changed || nr == s->h.nb_snapshots)
        return rc;
    if (s->list.beyond)
        rc = try_field(s, ZQ_HDR_NR_SNAPSHOTS, nr, &good);
    if (!good)
        return rc;
    *changed = true;
    zq_found(s, ZQCOW2_FOUND_REPAIRED, 1, "nb_snapshots %" PRIu32 " at byte %d is now %" PRIu32,
             s->h.nb_snapshots, ZQ_HDR_NR_SNAPSHOTS, nr);
    return put_field32(s, ZQ_HDR_NR_SNAPSHOTS, nr);
}

static int clear_stray(struct zq_scan *s, uint64_t at, uint64_t value, const char *what,
                       bool *changed)
{
    *changed = true;
    zq_repaired(s, 1, what);
    return put_header64(s, at, value);
}

/*
 * Any write clears stray bits, the last one of a repair, too; but after it nobody looks at what may
 * be freed without them. So where such a write will come, they go before the last look.
 */
static int fix_header(struct zq_scan *s, unsigned flags, bool *changed)
{
    bool repair = flags & ZQCOW2_CHECK_REPAIR;
    uint64_t stray = zq_scan_stray_bits(s), known = ZQ_AUTOCLEAR_BITMAPS | ZQ_AUTOCLEAR_RAW_DATA;
    int rc = 0;

    if (stray && ((repair && stray & known) || ends_with_write(s, flags)))
        rc = clear_stray(s, ZQ_HDR_AUTOCLEAR, s->h.autoclear & ~stray,
                         "field with stray autoclear bits cleared", changed);
    if (rc == 0 && !*changed && flags & ZQCOW2_CHECK_REPAIR_ALL)
        rc = fix_list(s, changed);
    if (rc == 0 && repair && zq_scan_stray_snapshots(s))
        rc = clear_stray(s, ZQ_HDR_SNAPSHOTS, 0, "stray offset of a snapshot table cleared",
                         changed);
    if (rc == 0 && repair && s->h.backing_stray)
        rc = clear_stray(s, ZQ_HDR_BACKING, 0, "stray offset of a backing file cleared", changed);
    return rc < 0 || !*changed ? rc : zq_be_flush(s->be);
}

int zq_repair_pass(struct zq_scan *s, unsigned flags, bool *changed)
{
    int rc;

    *changed = false;
    rc = repair_tables(s, flags, changed);
    if (rc == 0 && !*changed && flags & ZQCOW2_CHECK_REPAIR)
        rc = zq_rename_bitmaps(s, changed);
    return rc < 0 || *changed ? rc : fix_header(s, flags, changed);
}

static int finish_incompat(struct zq_scan *s, unsigned flags, bool sound)
{
    uint64_t incompat = final_incompat(s, flags, sound);

    if (incompat == s->h.incompat)
        return 0;
    if (!sound)
        zq_found(s, ZQCOW2_FOUND_REPAIRED, 1,
                 "refcounts remain too low: the image is marked corrupt");
    return put_header64(s, ZQ_HDR_INCOMPAT, incompat);
}

int zq_repair_finish(struct zq_scan *s, unsigned flags, bool sound)
{
    uint8_t mark = 0;
    int rc = finish_incompat(s, flags, sound);

    if (rc == 0 && s->h.mark_offset)
        rc = zq_be_read(s->be, &mark, 1, s->h.mark_offset);
    if (rc == 0 && mark && (sound || s->repair.marked)) {
        mark = 0; /* what came before has ended with a barrier, the header's sector aside */
        rc = zq_scan_write(s, &mark, 1, s->h.mark_offset);
    }
    return rc < 0 || !s->repair.begun ? rc : zq_be_flush(s->be);
}
