/* SPDX-License-Identifier: MIT */
/*
 * Judges single entries of L1 and L2: what they point to, and what is wrong with it.
 *
 * One judge for scan and repair: what check reports about an entry is what repair acts on.
 */
#include "check/scan.h"

#include "base/bytes.h"

/* More than a repair adds to a file beside copies, which may double it. */
#define MAX_GROWTH (64u << 20)

/*
 * Wrong because of what lies there: the reference still counts, which keeps writers away; but a
 * lower rank cannot take tables away from the active disk that are written in place. Whether the
 * entry or the refcount table is at fault is not known; out of place refcounts suit both.
 */
static void target_lies_on(struct zq_scan *s, struct zq_target *t, unsigned forbidden,
                           enum zq_by by)
{
    uint64_t first = t->host >> s->h.cluster_bits;
    uint64_t last = (t->host + t->len - 1) >> s->h.cluster_bits;
    unsigned on = 0;

    for (uint64_t c = first; c <= last; c++) {
        unsigned kinds = zq_counts_kind(&s->counts, c) & forbidden;

        if (kinds)
            zq_scan_note_lower(s, c, by);
        s->long_l1 |= kinds & ZQ_KIND_L1 && zq_scan_beyond_l1(s, c);
        on |= kinds;
    }
    if (!on)
        return;
    t->why = "points into the ";
    t->where = zq_kind_name(on);
    t->counted = s->rank == ZQ_RANK_ACTIVE || !(on & ZQ_KINDS_IN_PLACE);
    t->on_refcounts = on == ZQ_KIND_REFCOUNTS;
    t->on_table = on == ZQ_KIND_L2;
    t->len = t->counted ? t->len : 0;
    s->rebuild |= on & ZQ_KIND_REFCOUNTS;
}

void zq_scan_note_past_end(struct zq_scan *s, uint64_t end)
{
    if (end / 2 < s->file_size + MAX_GROWTH)
        s->past_end = zq_max(s->past_end, end);
}

static void target_bad(struct zq_scan *s, struct zq_target *t, const char *why)
{
    if (t->host + t->len > s->file_size)
        zq_scan_note_past_end(s, t->host + t->len);
    t->why = why;
    t->where = "";
    t->len = 0;
}

/* An entry is what it is without its bits that mean nothing: other readers ignore them. */
void zq_l1_target(struct zq_scan *s, uint64_t entry, struct zq_target *t)
{
    const struct zq_bounds b = zq_scan_bounds(s);
    const char *stray, *why;

    *t = (struct zq_target){.where = ""};
    stray = zq_l1_read(&b, entry, &t->host);
    why = stray ? zq_l1_read(&b, zq_l1_known(entry), &t->host) : NULL;
    t->len = t->host ? zq_scan_cluster(s) : 0;
    if (why)
        target_bad(s, t, why);
    else if (t->len)
        target_lies_on(s, t, ZQ_KINDS_FIXED | ZQ_KIND_DATA, ZQ_BY_LOWER_TABLE);
    t->stray = t->why ? NULL : stray;
}

/*
 * In a data file no cluster is counted, and none lies on anything of the image (D3); so an entry
 * that is wrong hides nothing. Each cluster lies where it lies on the device (D1).
 */
static void target_outside(const struct zq_scan *s, const struct zq_l2 *table, uint64_t index,
                           struct zq_target *t)
{
    bool known = table && table->index != ZQ_NO_INDEX;

    t->outside = t->len;
    t->counted = true;
    t->where = "";
    t->len = 0;
    if (!t->why && t->outside && known && t->host != zq_scan_guest(s, table, index))
        t->why = "does not lie in the data file where it lies on the device";
}

static const char *read_known(const struct zq_bounds *b, const uint8_t *entry,
                              struct zq_l2_entry *e)
{
    uint8_t known[ZQ_L2_ENTRY_MAX];

    memcpy(known, entry, (size_t)zq_l2_bytes(&b->form, 1));
    zq_l2_keep_known(&b->form, known);
    return zq_l2_read(b, known, e);
}

void zq_l2_target(struct zq_scan *s, const struct zq_l2 *table, uint64_t index,
                  const uint8_t *entry, struct zq_target *t)
{
    const struct zq_bounds b = zq_scan_bounds(s);
    struct zq_l2_entry e;
    const char *stray = zq_l2_read(&b, entry, &e);
    const char *why = stray ? read_known(&b, entry, &e) : NULL;

    *t = (struct zq_target){.host = e.host,
                            .len = e.len,
                            .compressed = e.type == ZQ_EXT_COMPRESSED,
                            .why = why,
                            .where = ""};
    if (b.form.external)
        target_outside(s, table, index, t);
    else if (why)
        target_bad(s, t, why);
    else if (t->len)
        target_lies_on(s, t, ZQ_KINDS_FIXED | ZQ_KIND_L2, ZQ_BY_LOWER);
    t->stray = t->why ? NULL : stray;
}
