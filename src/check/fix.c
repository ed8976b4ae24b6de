/* SPDX-License-Identifier: MIT */
/*
 * What a repair makes of single entries. One judge for entries where they lie and for those of a
 * copy that is about to be written. Over a source zeros take the place of what is dropped, for it
 * must stay unseen (S4); where there is no entry for zeros, what is wrong stays.
 */
#include "check/repair.h"

#include <inttypes.h>

enum verdict { LEAVE, DROP, SET_OWN, CLEAR_OWN };

/*
 * By the refcount as the repair will leave it (ONCE_AFTER): flags are written before refcounts are
 * lowered (R13), and must be right when all is done.
 */
static enum verdict judge_flag(struct zq_scan *s, const struct zq_fix *f, const struct zq_target *t)
{
    unsigned once = 0;

    if (!f->may_flag || (t->outside && f->only_changed))
        return LEAVE;
    if (t->outside)
        return SET_OWN;
    if (t->len && !t->compressed)
        once = zq_counts_once(&s->counts, t->host >> s->h.cluster_bits);
    if (f->only_changed && (once & (ZQ_ONCE_NOW | ZQ_ONCE_AFTER)) != ZQ_ONCE_AFTER &&
        !zq_scan_is_loose(s, t))
        return LEAVE;
    return once & ZQ_ONCE_AFTER ? SET_OWN : CLEAR_OWN;
}

/* What is wrong and may not be dropped keeps its flag only if its target is counted. */
static enum verdict judge(struct zq_scan *s, struct zq_fix *f, const struct zq_target *t)
{
    if (t->why && f->may_drop && !(t->on_table && f->keep_on_tables)) {
        f->dropped++;
        return DROP;
    }
    return t->why && !t->counted ? LEAVE : judge_flag(s, f, t);
}

bool zq_shows_source(const struct zq_scan *s, uint64_t index)
{
    const struct zq_form form = zq_scan_form(s);

    return s->h.backing_len && index < zq_l1_needed(&form, s->h.virtual_size);
}

/* L1 has no entry for zeros: over a source a table of them takes the place (zq_unshare()). */
void zq_fix_l1(struct zq_scan *s, struct zq_fix *f, uint64_t index, uint64_t *entry)
{
    struct zq_target t;
    enum verdict what;
    uint64_t old;

    zq_l1_target(s, *entry, &t);
    if (t.why && zq_shows_source(s, index))
        return;
    if (t.stray && f->may_clear) {
        *entry = zq_l1_known(*entry);
        f->cleared++;
    }
    old = *entry;
    what = judge(s, f, &t);
    if (what == DROP)
        *entry = 0;
    else if (what != LEAVE)
        *entry = zq_l1_set_own(old, what == SET_OWN);
    f->flags += what != DROP && *entry != old;
}

void zq_fix_l2(struct zq_scan *s, struct zq_fix *f, uint64_t index, uint8_t *entry)
{
    const struct zq_form form = zq_scan_form(s);
    struct zq_target t;
    enum verdict what;

    zq_l2_target(s, f->table, index, entry, &t);
    if (t.why && s->h.backing_len && !zq_l2_has_zero(&form))
        return;
    if (t.stray && f->may_clear) {
        zq_l2_keep_known(&form, entry);
        f->cleared++;
    }
    what = judge(s, f, &t);
    if (what != DROP && f->may_drop && zq_scan_beyond_wp(s, f->table, index)) {
        what = DROP;
        f->unmapped++;
    }
    if (what == DROP && s->h.backing_len) {
        zq_l2_set_zero(&form, entry);
    } else if (what == DROP) {
        zq_l2_clear(&form, entry);
    } else if (what != LEAVE && zq_l2_says_copied(&form, entry) != (what == SET_OWN)) {
        zq_l2_set_own(&form, entry, what == SET_OWN);
        f->flags++;
    }
}

void zq_repaired(struct zq_scan *s, uint64_t n, const char *what)
{
    if (n)
        zq_found(s, ZQCOW2_FOUND_REPAIRED, n, "%" PRIu64 " %s", n, what);
}

void zq_fix_report(struct zq_scan *s, const struct zq_fix *f)
{
    zq_repaired(s, f->flags, "COPIED flags corrected");
    zq_repaired(s, f->cleared, "entries with reserved bits cleared");
    zq_repaired(s, f->dropped, "invalid entries dropped");
    zq_repaired(s, f->unmapped, "clusters beyond write pointers unmapped");
}
