/* SPDX-License-Identifier: MIT */
/*
 * Gives entries of the active disk a copy of their own: of a cluster or table whose refcount is
 * below its references, before a write to one changes the other; of data that lies on an L2 table,
 * for which of the two is wrong is unknown; and of an L2 table that others see, too, where its
 * entries are to be dropped: the copy is written without them.
 *
 * First all copies are written, then, behind a barrier, the entries that point to them: a crash in
 * between leaves the old entries and some leaked clusters. The copies and their
 * clusters are planned first; a host that gets full while they are written leaves the entries as
 * they were.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/sort.h"
#include "format/refbits.h"
#include "check/repair.h"

#define FIRST_ROOM 64

struct move {
    uint64_t host, at;              /* to what the entry at byte `at` of the file points */
    uint64_t to;                    /* the copy's cluster, as a number */
    uint8_t entry[ZQ_L2_ENTRY_MAX]; /* as it lies there */
    bool in_l1;                     /* it is one of L1, number `index`; else of an L2 table */
    bool zeros;                     /* of L1, and wrong: what it gets is a table of zeros */
    bool must;                      /* also where the refcount is right */
    bool stays;                     /* a copy would make more that is wrong */
    uint32_t index;
};

/* No repair copies more clusters than the file had. */
struct moves {
    struct move *m; /* owned; freed by zq_unshare() */
    size_t nr, room, limit;
    bool all;   /* wrong entries may be dropped */
    bool first; /* only what must move before entries are dropped that it makes wrong */
};

static int grow(struct zq_scan *s, struct moves *l)
{
    size_t room = l->room ? l->room * 2 : FIRST_ROOM;
    struct move *m = zq_zalloc_array(s->hooks, room, sizeof(*m));

    if (!m)
        return -ENOMEM;
    if (l->nr)
        memcpy(m, l->m, l->nr * sizeof(*m));
    zq_free(s->hooks, l->m, l->room * sizeof(*m));
    l->m = m;
    l->room = room;
    return 0;
}

/* What is beyond the limit is left out without an error: the repair goes as far as it may. */
static int push(struct zq_scan *s, struct moves *l, struct move m)
{
    int rc = l->nr == l->room && l->nr < l->limit ? grow(s, l) : 0;

    if (rc == 0 && l->nr < l->limit)
        l->m[l->nr++] = m;
    return rc;
}

/* An L2 table as this one entry of L1 sees it. */
static struct zq_l2 entry_of(const struct move *m)
{
    return (struct zq_l2){.offset = m->host, .refs = 1, .index = m->index};
}

/* ---- what is to be copied ---- */

static bool may_be_low(const struct zq_scan *s)
{
    return s->too_low || s->repair.rebuilt;
}

/*
 * Whether n active entries share a cluster that was counted for fewer. A rebuild counts all that it
 * finds; after it no more than one may point there.
 */
static bool is_low(const struct zq_scan *s, unsigned once, size_t n)
{
    return once & ZQ_ONCE_TOO_LOW || (s->repair.rebuilt && (n > 1 || once & ZQ_BY_PACKED));
}

/* Nothing else can hide the source where the entry is dropped (S4). */
static bool needs_zeros(struct zq_scan *s, const struct moves *l, const struct zq_target *t,
                        uint64_t index)
{
    const struct zq_form form = zq_scan_form(s);

    return l->all && t->why && zq_shows_source(s, index) && zq_l2_has_zero(&form);
}

/*
 * Where the disk has data on a table of its own, either of the two entries may be the wrong one:
 * the table moves away, and what was there stays for the data, packed or not.
 */
static bool lies_under_data(struct zq_scan *s, const struct zq_l2 *table)
{
    return s->on_tables && !table->shared && !(table->lower & ZQ_BY_LOWER_TABLE) &&
           zq_counts_once(&s->counts, table->offset >> s->h.cluster_bits) & ZQ_BY_WRONG;
}

/*
 * Entries of L1 whose table lies under data, or is to be one of zeros; behind these, those whose
 * table others see, too. One whose own place is claimed by a lower rank is never written (R13).
 */
static int collect_table(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint64_t *entry)
{
    const struct zq_l2 *table;
    struct moves *l = arg;
    struct zq_target t;
    struct move m = {.at = at, .in_l1 = true, .index = (uint32_t)index};

    zq_l1_target(s, *entry, &t);
    table = t.why || !t.len ? NULL : zq_scan_active_l2(s, t.host);
    m.zeros = needs_zeros(s, l, &t, index);
    m.must = m.zeros || (table && lies_under_data(s, table));
    if (zq_scan_l1_lower(s, index) ||
        !(l->first ? m.must : table && !m.must && !zq_l2_is_own(table)))
        return 0;
    m.host = m.zeros ? 0 : t.host;
    zq_table_put(m.entry, 0, *entry);
    return push(s, l, m);
}

static int collect_data(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint8_t *entry)
{
    const struct zq_form form = zq_scan_form(s);
    uint64_t cluster;
    struct zq_target t;
    struct move m;

    (void)index;
    zq_l2_target(s, NULL, index, entry, &t);
    cluster = t.host >> s->h.cluster_bits;
    if (t.compressed || !t.len ||
        (!t.on_table && (t.why || zq_counts_get(&s->counts, cluster) < 2 ||
                         !is_low(s, zq_counts_once(&s->counts, cluster), SIZE_MAX))))
        return 0;
    m = (struct move){.host = t.host, .at = at, .must = t.on_table};
    memcpy(m.entry, entry, (size_t)zq_l2_bytes(&form, 1));
    return push(s, arg, m);
}

struct look {
    struct zq_fix fix; /* what a repair would change */
    bool bad;          /* an entry is wrong */
};

static int look_at(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint8_t *entry)
{
    const struct zq_form form = zq_scan_form(s);
    uint8_t copy[ZQ_L2_ENTRY_MAX];
    struct look *l = arg;
    struct zq_target t;

    (void)at;
    zq_l2_target(s, NULL, index, entry, &t);
    l->bad |= t.why != NULL;
    memcpy(copy, entry, (size_t)zq_l2_bytes(&form, 1));
    zq_fix_l2(s, &l->fix, index, copy);
    return 0;
}

/*
 * REPAIR_ALL drops wrong entries on the way to the copy; a lesser repair does not double them. Nor
 * is a table moved away from under one of a lower rank, which would then be followed.
 */
static int look_into(struct zq_scan *s, bool all, struct move *m)
{
    const struct zq_l2 *table = zq_scan_active_l2(s, m->host), alone = entry_of(m);
    bool flags = table->lower & ZQ_BY_LOWER, claimed = table->lower & ZQ_BY_LOWER_TABLE;
    struct look l = {{.may_drop = all, .may_clear = flags, .may_flag = flags, .table = &alone},
                     false};
    int rc = zq_walk_l2(s, m->host, look_at, &l);

    m->must = !claimed && l.fix.dropped + l.fix.unmapped + l.fix.cleared + l.fix.flags;
    m->stays = !all && l.bad;
    return rc;
}

static bool move_less(const void *pa, const void *pb, const void *arg)
{
    const struct move *a = pa, *b = pb;

    (void)arg;
    return a->host != b->host ? a->host < b->host : a->at < b->at;
}

/*
 * Of those that point to one cluster the first one keeps it, unless there is packed data, too, or
 * even then there are more references than the refcount's width can count. None leaves the cluster
 * to a reference that is wrong: what it makes of it would be wrong all through.
 */
static size_t choose_among(struct zq_scan *s, struct move *m, size_t n, struct move *out)
{
    uint64_t cluster = m->host >> s->h.cluster_bits;
    unsigned once = zq_counts_once(&s->counts, cluster);
    bool low = is_low(s, once, n);
    uint64_t rest = zq_counts_get(&s->counts, cluster) - (n - 1);
    bool fits = rest <= zq_refbits_max(s->h.refcount_order);
    bool keep = once & ZQ_BY_WRONG || (fits && !(once & ZQ_BY_PACKED));
    size_t chosen = 0;

    for (size_t i = 0; i < n; i++) {
        if (m[i].must || (low && !m[i].stays && !(i == 0 && keep)))
            out[chosen++] = m[i];
    }
    return chosen;
}

static void choose(struct zq_scan *s, struct moves *l)
{
    size_t out = 0;

    zq_sort(l->m, l->nr, sizeof(*l->m), move_less, NULL);
    for (size_t i = 0, n; i < l->nr; i += n) {
        for (n = 1; i + n < l->nr && l->m[i + n].host == l->m[i].host;)
            n++;
        out += choose_among(s, &l->m[i], n, &l->m[out]);
    }
    l->nr = out;
}

static int collect_tables(struct zq_scan *s, struct moves *l)
{
    int rc = zq_walk_entries(s, s->h.l1_offset, s->h.l1_entries, collect_table, l);

    for (size_t i = 0; !l->first && i < l->nr && rc == 0; i++)
        rc = look_into(s, l->all, &l->m[i]);
    choose(s, l);
    return rc;
}

/*
 * Only in tables with one owner: in others an entry stands for several places of the disk. They get
 * copies in an earlier pass.
 */
static int collect_clusters(struct zq_scan *s, struct moves *l)
{
    bool any = may_be_low(s) || s->on_tables;
    int rc = 0;

    for (size_t i = 0; any && i < s->nr_active_l2s && rc == 0; i++) {
        if (zq_l2_is_own(&s->l2s[i]))
            rc = zq_walk_l2(s, s->l2s[i].offset, collect_data, l);
    }
    choose(s, l);
    return rc;
}

/* ---- copying ---- */

/* *missing: that many more clusters behind the file's end must have refcount blocks. */
static int pick_clusters(struct zq_scan *s, struct moves *l, uint64_t *missing)
{
    uint64_t first = zq_scan_new_end(s), c = first;

    *missing = 0;
    for (size_t i = 0; i < l->nr; i++, c++) {
        for (uint64_t refcount = 1;; c++) {
            uint64_t index = c >> zq_scan_block_bits(s);
            int rc = zq_scan_refcount(s, c, &refcount);

            if (rc < 0)
                return rc;
            if (index >= s->rt_entries || !s->rt[index]) {
                *missing = c - first + l->nr - i;
                return 0;
            }
            if (!refcount && !zq_counts_get(&s->counts, c))
                break;
        }
        l->m[i].to = c;
    }
    return 0;
}

/* Counted before an entry points to it (K1): until then the copy is a leak. */
static int count_once(struct zq_scan *s, uint64_t cluster)
{
    unsigned bits = zq_scan_block_bits(s), order = s->h.refcount_order;
    uint64_t index = cluster >> bits, i = cluster & ((1ull << bits) - 1);
    uint64_t low = (i << order) / 8, high = zq_div_up((i + 1) << order, 8);
    int rc = zq_scan_block(s, index);

    if (rc < 0)
        return rc;
    zq_refbits_set(s->block, order, i, 1);
    return zq_scan_write(s, s->block + low, (size_t)(high - low), s->rt[index] + low);
}

static void drop_wrong(struct zq_scan *s, const struct move *m, struct zq_fix *fix, uint8_t *copy)
{
    const struct zq_form form = zq_scan_form(s);
    const struct zq_l2 alone = entry_of(m);

    fix->table = &alone;
    for (uint64_t i = 0; i >> zq_l2_table_bits(&form) == 0; i++) {
        if (!zq_l2_is_empty(&form, zq_l2_at(&form, copy, i)))
            zq_fix_l2(s, fix, i, zq_l2_at(&form, copy, i));
    }
}

static void set_zeros(const struct zq_form *f, uint8_t *table)
{
    for (uint64_t i = 0; i >> zq_l2_table_bits(f) == 0; i++)
        zq_l2_set_zero(f, zq_l2_at(f, table, i));
}

/* The file may end inside a cluster of which only a part is in use. */
static int read_old(struct zq_scan *s, const struct move *m, uint8_t *buf)
{
    uint64_t cluster = zq_scan_cluster(s), n = zq_min(cluster, s->file_size - m->host);

    memset(buf + n, 0, (size_t)(cluster - n));
    return zq_be_read(s->be, buf, (size_t)n, m->host);
}

/* Without what is wrong: between the switch and another pass it would be there twice. */
static int copy_one(struct zq_scan *s, const struct move *m, struct zq_fix *fix, uint8_t *buf)
{
    const struct zq_form form = zq_scan_form(s);
    size_t cluster = (size_t)zq_scan_cluster(s);
    int rc = count_once(s, m->to);

    if (rc == 0 && m->zeros)
        set_zeros(&form, buf);
    else if (rc == 0)
        rc = read_old(s, m, buf);
    if (rc == 0 && m->in_l1 && !m->zeros)
        drop_wrong(s, m, fix, buf);
    return rc < 0 ? rc : zq_scan_write(s, buf, cluster, m->to << s->h.cluster_bits);
}

/*
 * The copy has one owner, so its flag is set (COPIED, qcow2 specification: refcount exactly one).
 */
static int switch_one(struct zq_scan *s, struct move *m)
{
    const struct zq_form form = zq_scan_form(s);
    uint64_t to = m->to << s->h.cluster_bits;

    if (m->in_l1) {
        zq_table_put(m->entry, 0, zq_l1_set_own(to, true));
        return zq_scan_write(s, m->entry, ZQ_TABLE_ENTRY, m->at);
    }
    zq_l2_set_host(&form, m->entry, to);
    return zq_scan_write(s, m->entry, (size_t)zq_l2_bytes(&form, 1), m->at);
}

/* The copies and their refcounts, barrier, the entries, barrier (R13). */
static int copy_all(struct zq_scan *s, struct zq_fix *fix, struct moves *l)
{
    size_t cluster = (size_t)zq_scan_cluster(s);
    uint8_t *buf = zq_alloc(s->hooks, 4096, cluster);
    int rc = buf ? 0 : -ENOMEM;

    for (size_t i = 0; i < l->nr && rc == 0; i++)
        rc = copy_one(s, &l->m[i], fix, buf);
    zq_free(s->hooks, buf, cluster);
    if (rc == 0)
        rc = zq_be_flush(s->be);
    for (size_t i = 0; i < l->nr && rc == 0; i++)
        rc = switch_one(s, &l->m[i]);
    return rc < 0 ? rc : zq_be_flush(s->be);
}

static int move_all(struct zq_scan *s, struct moves *l, bool *changed)
{
    struct zq_fix fix = {.may_drop = l->all, .keep_on_tables = l->first, .may_clear = true};
    uint64_t missing, zeros = 0;
    int rc = pick_clusters(s, l, &missing);

    if (rc < 0)
        return rc;
    if (missing) {
        if (s->repair.grown)
            return 0;
        s->repair.grown = true;
        return zq_rebuild_refcounts(s, missing, changed);
    }
    rc = copy_all(s, &fix, l);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < l->nr; i++)
        zeros += l->m[i].zeros;
    fix.dropped += zeros;
    s->repair.copies -= l->nr;
    *changed = true;
    zq_repaired(s, l->nr - zeros, "shared clusters and tables copied");
    zq_fix_report(s, &fix);
    return 0;
}

int zq_unshare(struct zq_scan *s, unsigned flags, bool *changed)
{
    struct moves l = {.limit = (size_t)zq_min(s->repair.copies, SIZE_MAX / sizeof(*l.m) / 2),
                      .all = flags & ZQCOW2_CHECK_REPAIR_ALL};
    int rc;

    l.first = true;
    rc = collect_tables(s, &l);
    l.first = l.nr;
    if (rc == 0 && !l.nr)
        rc = collect_tables(s, &l);
    if (rc == 0 && !l.nr) /* data in tables that have one owner by now */
        rc = collect_clusters(s, &l);
    if (rc == 0 && l.nr)
        rc = move_all(s, &l, changed);
    zq_free(s->hooks, l.m, l.room * sizeof(*l.m));
    return rc;
}
