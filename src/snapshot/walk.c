/* SPDX-License-Identifier: MIT */
/*
 * Goes through all that an L1 refers to: to count it, and for the flags of the active one.
 *
 * COPIED says that a cluster may be written in place. It is cleared before a snapshot exists that
 * refers to the cluster, and set again only when none does any more (N2, N4).
 */
#include <errno.h>
#include <inttypes.h>
#include "base/report.h"
#include "snapshot/snapshot.h"

/* From the file: the cache of the engine is out of date while the work runs, and is dropped. */
static int read_table(struct zq_snap *s, uint64_t entry, uint8_t *into)
{
    return zq_be_read(s->be, into, (size_t)zq_snap_cluster(s), zq_entry_host(entry));
}

/* An entry of an L2 table that lies in memory; what is wrong is refused by name. */
static int read_entry(struct zq_snap *s, uint64_t table, const uint8_t *entry,
                      struct zq_l2_entry *e)
{
    const char *why = zq_l2_read(&s->bounds, entry, e);

    if (!why && e->len && s->is_table(s->arg, e->host, e->len, true))
        why = "points to a table";
    if (!why)
        return 0;
    return zq_fail(s->err, ZQCOW2_ECORRUPT,
                   "entry 0x%" PRIx64 " of the L2 table at byte %" PRIu64
                   ": %s: check and repair the image",
                   zq_l2_word(entry), table, why);
}

static uint64_t entries_of(const struct zq_snap *s)
{
    return (uint64_t)1 << zq_l2_table_bits(&s->bounds.form);
}

/* ---- counting ---- */

/* All of a table is read before its own cluster is counted, and may get free. */
static int count_table(struct zq_snap *s, uint64_t table)
{
    int rc = read_table(s, table, s->l2);

    for (uint64_t i = 0; rc == 0 && i < entries_of(s); i++) {
        const uint8_t *at = zq_l2_at(&s->bounds.form, s->l2, i);
        struct zq_l2_entry e;

        if (zq_l2_is_empty(&s->bounds.form, at))
            continue;
        rc = read_entry(s, table, at, &e);
        if (rc == 0)
            rc = zq_snap_count_range(s, e.host, e.len);
    }
    return rc;
}

/*
 * Compressed clusters share clusters of the file, so one of these may be counted several times: a
 * reference is an entry, as for other programs.
 */
int zq_snap_count_all(struct zq_snap *s, const uint64_t *l1, uint64_t entries)
{
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && i < entries; i++) {
        uint64_t table = zq_entry_host(l1[i]);

        if (!table)
            continue;
        if (s->is_table(s->arg, table, zq_snap_cluster(s), false))
            return zq_fail(s->err, ZQCOW2_ECORRUPT,
                           "L2 table at byte %" PRIu64
                           " lies on another table: check and repair the image",
                           table);
        rc = count_table(s, table);
        if (rc == 0)
            rc = zq_snap_count_one(s, table >> s->bounds.form.cluster_bits);
    }
    return rc < 0 ? rc : zq_snap_count_end(s);
}

/* ---- flags ---- */

static int write_table(struct zq_snap *s, uint64_t table)
{
    s->begun = true;
    return zq_be_write(s->be, s->l2, (size_t)zq_snap_cluster(s), table);
}

/* As it is in memory, a cluster at a time. */
static int write_l1(struct zq_snap *s)
{
    uint64_t per = zq_table_count(zq_snap_cluster(s));
    int rc = 0;

    s->begun = true;
    for (uint64_t i = 0; rc == 0 && i < s->l1_entries; i += per) {
        uint64_t n = zq_min(per, s->l1_entries - i);

        memset(s->l2, 0, (size_t)zq_snap_cluster(s));
        for (uint64_t k = 0; k < n; k++)
            zq_table_put(s->l2, k, s->l1[i + k]);
        rc = zq_be_write(s->be, s->l2, (size_t)zq_align_up(zq_table_bytes(n), ZQ_SECTOR),
                         s->l1_offset + zq_table_bytes(i));
    }
    return rc;
}

/* A table whose flags are all clear, as most are after an earlier snapshot, is not written. */
static int clear_in_table(struct zq_snap *s, uint64_t table)
{
    const struct zq_form *f = &s->bounds.form;
    bool changed = false;
    int rc = read_table(s, table, s->l2);

    for (uint64_t i = 0; rc == 0 && i < entries_of(s); i++) {
        uint8_t *at = zq_l2_at(f, s->l2, i);

        if (!zq_l2_says_copied(f, at))
            continue;
        zq_l2_set_own(f, at, false);
        changed = true;
    }
    return rc < 0 || !changed ? rc : write_table(s, table);
}

/* The flags in memory and on disk change together: the engine goes on with these entries (N5). */
int zq_snap_clear_copied(struct zq_snap *s)
{
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && i < s->l1_entries; i++) {
        if (zq_entry_host(s->l1[i]))
            rc = clear_in_table(s, zq_entry_host(s->l1[i]));
        s->l1[i] = zq_l1_set_own(s->l1[i], false);
    }
    return rc < 0 ? rc : write_l1(s);
}

/* Other programs set it where a snapshot that they delete was the last but one to refer to. */
int zq_snap_clear_other(struct zq_snap *s)
{
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && i < s->other_entries; i++) {
        if (zq_entry_host(s->other[i]))
            rc = clear_in_table(s, zq_entry_host(s->other[i]));
    }
    return rc;
}

/*
 * own: nothing but one reference of the active L1 will be left. The refcount is still what it was
 * with the snapshot's reference, if it has one: it has them where the active L1 has them, for
 * copies keep their place on the device.
 */
static int judge_flag(struct zq_snap *s, uint64_t host, bool shared, bool *own)
{
    uint64_t cluster = host >> s->bounds.form.cluster_bits, refcount;
    int rc = zq_snap_refcount(s, cluster, &refcount);

    if (rc < 0)
        return rc;
    if (refcount <= shared)
        return zq_fail(s->err, ZQCOW2_ECORRUPT,
                       "cluster at byte %" PRIu64 " has refcount %" PRIu64
                       ", and more references: check and repair the image",
                       host, refcount);
    *own = refcount == (uint64_t)shared + 1;
    return 0;
}

/* What the snapshot has at the same place; NULL: no table. */
struct beside {
    bool same;            /* the same table */
    const uint8_t *other; /* another one */
};

/* An entry that has the flag already is not shared: its cluster has one reference. */
static int set_in_entry(struct zq_snap *s, uint64_t table, uint64_t i, const struct beside *b,
                        bool *changed)
{
    const struct zq_form *f = &s->bounds.form;
    uint8_t *at = zq_l2_at(f, s->l2, i);
    struct zq_l2_entry e, o;
    bool own = false, shared = b->same;
    int rc;

    if (zq_l2_is_empty(f, at))
        return 0;
    rc = read_entry(s, table, at, &e);
    if (rc < 0 || !e.len || e.type == ZQ_EXT_COMPRESSED || e.copied)
        return rc;
    if (b->other && !zq_l2_read(&s->bounds, b->other + zq_l2_bytes(f, i), &o))
        shared |= o.len && o.host == e.host;
    rc = judge_flag(s, e.host, shared, &own);
    if (rc < 0 || !own)
        return rc;
    zq_l2_set_own(f, at, true);
    *changed = true;
    return 0;
}

/* The table of the snapshot is read only where it is another one. */
static int set_in_table(struct zq_snap *s, uint64_t i, bool trial)
{
    uint64_t table = zq_entry_host(s->l1[i]);
    uint64_t other = i < s->other_entries ? zq_entry_host(s->other[i]) : 0;
    struct beside b = {.same = other == table, .other = other ? s->l2_other : NULL};
    bool changed = false, own = false;
    int rc = read_table(s, table, s->l2);

    if (rc == 0 && other && !b.same)
        rc = read_table(s, other, s->l2_other);
    if (b.same)
        b.other = NULL;
    for (uint64_t k = 0; rc == 0 && k < entries_of(s); k++)
        rc = set_in_entry(s, table, k, &b, &changed);
    if (rc == 0)
        rc = judge_flag(s, table, b.same, &own);
    if (rc < 0 || trial)
        return rc;
    if (own)
        s->l1[i] = zq_l1_set_own(s->l1[i], true);
    return changed ? write_table(s, table) : 0;
}

/*
 * A trial comes first, before anything has changed: it finds an entry of the active disk whose
 * cluster would be free when the snapshot is gone.
 */
int zq_snap_set_copied(struct zq_snap *s, bool trial)
{
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && i < s->l1_entries; i++) {
        if (zq_entry_host(s->l1[i]))
            rc = set_in_table(s, i, trial);
    }
    return rc < 0 || trial ? rc : write_l1(s);
}
