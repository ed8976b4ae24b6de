/* SPDX-License-Identifier: MIT */
/*
 * Counts that are too small: of snapshots in the header, of entries in the record of a snapshot.
 * What they leave out looks unused, and is not: it has refcounts, and nothing else refers to it.
 */
#include <inttypes.h>

#include "base/bytes.h"
#include "check/genuine.h"
#include "check/scan.h"
#include "format/snapshot.h"

#define MAX_LOOKED (1u << 20) /* entries behind the ends of tables */

/* A count that is too small is a corruption; and until it is set right, nothing may be freed. */
static void hide(struct zq_scan *s, const char *field, uint64_t value, uint64_t at, const char *why)
{
    zq_found(s, ZQCOW2_FOUND_CORRUPTION, 1, "%s %" PRIu64 " at 0x%" PRIx64 ": %s", field, value, at,
             why);
    s->hidden = true;
}

/*
 * A cluster that has a refcount and nothing that refers to it. Of a block only a sector is read:
 * entries may name clusters of another block in turns.
 */
static int is_left_over(struct zq_scan *s, uint64_t offset, bool *yes)
{
    uint64_t refcount = 0, cluster = offset >> s->h.cluster_bits;
    uint64_t index = cluster >> zq_scan_block_bits(s);
    int rc = 0;

    if (index < s->rt_entries && s->rt[index] && !zq_counts_get(&s->counts, cluster))
        rc = zq_block_count(s->be, &s->h, s->rt[index], cluster, &refcount);
    *yes = rc == 0 && refcount;
    return rc;
}

/* A record behind the last one: one of a snapshot that is gone has no table any more. */
static int is_uncounted(struct zq_scan *s, struct zq_snapshot *r, bool *yes)
{
    const struct zq_bounds b = zq_scan_bounds(s);
    uint8_t raw[ZQ_SNAPSHOT_FIXED];
    int rc = zq_scan_read(s, raw, sizeof(raw), s->list.end);

    zq_snapshot_read(raw, r);
    *yes = rc == 0 && zq_record_is_genuine(&b, r);
    return *yes ? is_left_over(s, r->l1_offset, yes) : rc;
}

/*
 * Without snapshots the offset of their table may be anything. It is that of a table if its own
 * cluster is left over, too: a program that deletes the last snapshot gives up both. A table that
 * fills its clusters has nothing behind it: the next one may be the table that it took the place
 * of, before a crash. A data file excludes snapshots.
 */
static bool may_go_on(const struct zq_scan *s)
{
    const struct zq_snap_list *l = &s->list;

    return l->end && l->nr == s->h.nb_snapshots && !(s->h.incompat & ZQ_INCOMPAT_DATA_FILE) &&
           (!l->nr || l->end & (zq_scan_cluster(s) - 1));
}

static int count_beyond(struct zq_scan *s)
{
    struct zq_snap_list *l = &s->list;
    bool yes = may_go_on(s);
    int rc = 0;

    if (yes && !l->nr)
        rc = is_left_over(s, l->end, &yes);
    while (rc == 0 && yes && l->nr + l->beyond < ZQ_MAX_SNAPSHOTS &&
           l->end + ZQ_SNAPSHOT_FIXED <= s->file_size) {
        struct zq_snapshot r;

        rc = is_uncounted(s, &r, &yes);
        l->beyond += yes;
        l->end += yes ? r.bytes : 0;
    }
    if (l->beyond)
        hide(s, "nb_snapshots", s->h.nb_snapshots, ZQ_HDR_NR_SNAPSHOTS,
             "fewer than the table holds");
    return rc;
}

/*
 * Behind the end of a table there may be anything, too: what is left of another table. Only an
 * entry for a table that is left over shows that it is the end which is wrong.
 */
static int note_cut(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint64_t *entry)
{
    const struct zq_bounds b = zq_scan_bounds(s);
    bool *cut = arg, yes;
    uint64_t host;
    int rc;

    (void)index;
    (void)at;
    if (*cut || zq_l1_read(&b, *entry, &host) || !host)
        return 0;
    rc = is_left_over(s, host, &yes);
    *cut = yes;
    return rc;
}

/* As many entries as the disk needs lie in the clusters of the table. */
static bool has_room(const struct zq_scan *s, const struct zq_snapshot *r, uint64_t need)
{
    const struct zq_bounds b = zq_scan_bounds(s);
    uint64_t room = zq_align_up(zq_max(zq_table_bytes(r->l1_entries), 1), zq_scan_cluster(s));

    return zq_table_bytes(need) <= zq_min(room, ZQ_MAX_L1_BYTES) && r->l1_offset &&
           !zq_host_misplaced(&b, r->l1_offset) &&
           zq_table_bytes(need) <= s->file_size - r->l1_offset;
}

/*
 * Many records may name one table: how much is looked at is bounded as a whole, and what has not
 * been looked at hides what it may have.
 */
static int judge_l1_size(struct zq_scan *s, const struct zq_snapshot *r, uint64_t need, uint64_t at)
{
    struct zq_snap_list *l = &s->list;
    uint64_t entries = r->l1_entries;
    bool cut = false;
    int rc = 0;

    if (need <= entries || !(entries || r->extra) || !has_room(s, r, need))
        return 0; /* what says neither may be no record */
    l->looked += need - entries;
    if (l->looked <= MAX_LOOKED)
        rc = zq_walk_entries(s, r->l1_offset + zq_table_bytes(entries), need - entries, note_cut,
                             &cut);
    if (rc < 0 || (!cut && l->looked <= MAX_LOOKED))
        return rc;
    hide(s, "snapshot l1_size", entries, at + 8, "the L1 table goes on behind its end");
    if (cut) {
        l->short_at = at;
        l->l1_entries = (uint32_t)need;
    }
    return 0;
}

/* A record that does not store a size is of a disk that had the one of now. */
static uint64_t needed(const struct zq_scan *s, const uint8_t *raw)
{
    const struct zq_form form = zq_scan_form(s);
    struct zq_snapshot_facts f;
    uint64_t bytes;

    zq_snapshot_facts(raw, &f);
    bytes = f.sized ? f.disk_bytes : s->h.stored_size;
    return bytes <= ZQ_MAX_VIRTUAL_SIZE ? zq_l1_needed(&form, bytes) : UINT32_MAX;
}

/* Those that are counted come first: list.end is still behind the last of them. */
int zq_scan_uncounted(struct zq_scan *s)
{
    uint64_t pos = s->h.snapshots_offset;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < s->list.nr; i++) {
        uint8_t raw[ZQ_SNAPSHOT_FIXED + ZQ_SNAPSHOT_EXTRA + ZQ_SNAPSHOT_COPY];
        struct zq_snapshot r;

        rc = zq_scan_read(s, raw, sizeof(raw), pos);
        zq_snapshot_read(raw, &r);
        if (rc == 0)
            rc = judge_l1_size(s, &r, needed(s, raw), pos);
        pos += r.bytes;
    }
    return rc < 0 ? rc : count_beyond(s);
}
