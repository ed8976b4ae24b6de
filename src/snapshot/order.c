/* SPDX-License-Identifier: MIT */
/*
 * Takes, deletes and applies a snapshot. The order is what keeps the image whole when the power
 * fails:
 *
 *   take    refcounts raised, copies and the new table written; barrier; COPIED cleared; barrier;
 *           the header names the new table; barrier; the old table's clusters lowered
 *   delete  the new table written; barrier; the header names it; barrier; COPIED set where one
 *           reference is left; barrier; all that the snapshot referred to lowered
 *   apply   refcounts of what it refers to raised, a copy of its L1 written; barrier; the header
 *           names the copy; barrier; all that the old L1 referred to lowered
 *
 * So a refcount is never below the references, and what a snapshot sees never has the flag. What a
 * crash leaves behind are counts that are too high and flags that are missing: recovery sets
 * both right, for the engine has set the in-use mark, or the dirty bit in its place.
 */
#include <errno.h>
#include <inttypes.h>
#include "base/report.h"
#include "snapshot/snapshot.h"

/* ---- what may hinder it ---- */

/* All of it, so that a lack of memory is a refusal (N10). */
static int take_memory(struct zq_snap *s)
{
    uint64_t cluster = zq_snap_cluster(s);

    s->l2 = zq_alloc(s->hooks, 4096, cluster);
    s->l2_other = zq_alloc(s->hooks, 4096, cluster);
    s->block = zq_alloc(s->hooks, 4096, cluster);
    s->batch = zq_zalloc_array(s->hooks, (size_t)2 * ZQ_SNAP_BATCH, sizeof(*s->batch));
    return s->l2 && s->l2_other && s->block && s->batch ? 0 : -ENOMEM;
}

static int find_record(struct zq_snap *s)
{
    struct zq_snapshot r;

    if (!zq_snap_find(s, s->name, false, &s->record))
        return zq_fail(s->err, -ENOENT, "no snapshot has this name or id");
    zq_snapshot_read(s->table + s->record, &r);
    s->record_bytes = r.bytes;
    s->other_offset = r.l1_offset;
    s->other_entries = s->other_room = r.l1_entries;
    return 0;
}

static int bad_l1(struct zq_snap *s, const char *why)
{
    return zq_fail(s->err, ZQCOW2_ECORRUPT,
                   "L1 table of the snapshot, %" PRIu64 " entries at byte %" PRIu64
                   ": %s: check and repair the image",
                   s->other_entries, s->other_offset, why);
}

/* Another program has written it; its size is bounded before memory is taken. */
static int load_other(struct zq_snap *s)
{
    uint64_t bytes = zq_table_bytes(s->other_entries);
    int rc = 0;

    if (bytes && (bytes > ZQ_MAX_L1_BYTES || zq_host_misplaced(&s->bounds, s->other_offset) ||
                  bytes > s->bounds.file_size - s->other_offset))
        return bad_l1(s, "it is no place for a table");
    if (s->is_table(s->arg, s->other_offset, bytes, true))
        return bad_l1(s, "it lies on another table");
    if (s->other_room)
        s->other = zq_zalloc_array(s->hooks, s->other_room, sizeof(*s->other));
    if (s->other_room && !s->other)
        return -ENOMEM;
    if (bytes)
        rc = zq_be_read(s->be, s->other, (size_t)bytes, s->other_offset);
    for (uint64_t i = 0; rc == 0 && i < s->other_entries; i++) {
        uint64_t host, raw = zq_table_get(s->other, i);
        const char *why = raw ? zq_l1_read(&s->bounds, raw, &host) : NULL;

        s->other[i] = raw;
        rc = why ? bad_l1(s, why) : 0;
    }
    return rc;
}

/* Each table begins with a cluster of its own. */
static uint64_t clusters_of(const struct zq_snap *s, uint64_t bytes)
{
    return zq_div_up(bytes, zq_snap_cluster(s));
}

/* A width of one bit, and a count at its limit, show in the trial. */
static int prepare_take(struct zq_snap *s)
{
    uint64_t pos;
    int rc;

    if (zq_snap_find(s, s->name, false, &pos))
        return zq_fail(s->err, -EEXIST, "a snapshot has this name or id already");
    if (s->nr >= ZQ_MAX_SNAPSHOTS || zq_snap_new_table_bytes(s) > ZQ_MAX_SNAPSHOT_TABLE)
        return zq_fail(s->err, -EFBIG, "no more snapshots fit into the table");
    s->clusters =
        clusters_of(s, zq_table_bytes(s->l1_entries)) + clusters_of(s, zq_snap_new_table_bytes(s));
    if (s->zones)
        s->clusters += clusters_of(s, zq_entries_bytes(s->zones->nr_zones));
    rc = zq_snap_judge_header(s);
    s->count = (struct zq_snap_count){.by = 1, .trial = true};
    return rc < 0 ? rc : zq_snap_count_all(s, s->l1, s->l1_entries);
}

/* Both trials: nothing gets a count below 0, and the active disk loses nothing. */
static int prepare_delete(struct zq_snap *s)
{
    int rc = find_record(s);

    if (rc == 0)
        rc = load_other(s);
    if (rc == 0)
        rc = zq_snap_find_copy(s);
    if (rc < 0)
        return rc;
    s->clusters = clusters_of(s, zq_snap_new_table_bytes(s));
    s->count = (struct zq_snap_count){.by = -1, .trial = true};
    rc = zq_snap_count_all(s, s->other, s->other_entries);
    return rc < 0 ? rc : zq_snap_set_copied(s, true);
}

/* The size that the disk had; its L1 may be shorter than that, and has nothing there then. */
static int size_of_disk(struct zq_snap *s)
{
    struct zq_snapshot_facts f;
    uint64_t needed;

    zq_snapshot_facts(s->table + s->record, &f);
    s->other_bytes = f.sized ? f.disk_bytes : s->disk_bytes;
    needed = zq_l1_needed(&s->bounds.form, s->other_bytes);
    if (s->other_bytes > ZQ_MAX_VIRTUAL_SIZE || needed > zq_table_count(ZQ_MAX_L1_BYTES))
        return zq_fail(s->err, ZQCOW2_ECORRUPT,
                       "the snapshot has a disk of %" PRIu64 " bytes: too large for an L1 table",
                       s->other_bytes);
    s->other_room = zq_max(s->other_entries, needed);
    return 0;
}

/* Trials: what is applied gets one more reference, and what the disk has now loses its own. */
static int prepare_apply(struct zq_snap *s)
{
    int rc = find_record(s);

    if (rc == 0)
        rc = size_of_disk(s);
    if (rc == 0)
        rc = load_other(s);
    if (rc == 0)
        rc = zq_snap_find_copy(s);
    if (rc == 0)
        rc = zq_snap_load_pointers(s);
    if (rc == 0)
        rc = zq_snap_judge_header(s);
    if (rc < 0)
        return rc;
    s->clusters =
        clusters_of(s, zq_table_bytes(s->other_room)) + clusters_of(s, zq_snap_zone_bytes(s));
    s->count = (struct zq_snap_count){.by = 1, .trial = true};
    rc = zq_snap_count_all(s, s->other, s->other_entries);
    for (uint64_t i = 0; i < s->other_entries; i++)
        s->other[i] = zq_l1_set_own(s->other[i], false);
    s->count = (struct zq_snap_count){.by = -1, .trial = true};
    return rc < 0 ? rc : zq_snap_count_all(s, s->l1, s->l1_entries);
}

int zq_snap_prepare(struct zq_snap *s)
{
    int rc = take_memory(s);

    s->lowest = UINT64_MAX;
    if (rc < 0)
        return rc;
    switch (s->kind) {
    case ZQ_SNAP_TAKE: rc = prepare_take(s); break;
    case ZQ_SNAP_DELETE: rc = prepare_delete(s); break;
    default: rc = prepare_apply(s);
    }
    s->block_at = 0; /* from now on the engine may change blocks, until the change */
    return rc;
}

/* ---- the change ---- */

/* A sector is old or new, and what came before is durable already. */
static int write_header(struct zq_snap *s)
{
    int rc = zq_be_write(s->be, s->sector0, ZQ_SECTOR, 0);

    return rc < 0 ? rc : zq_be_flush(s->be);
}

/* To the new clusters; no entry of it has the flag. */
static int write_l1_copy(struct zq_snap *s, const uint64_t *l1, uint64_t entries)
{
    uint64_t per = zq_table_count(zq_snap_cluster(s));
    int rc = 0;

    for (uint64_t i = 0; rc == 0 && i < entries; i += per) {
        memset(s->l2, 0, (size_t)zq_snap_cluster(s));
        for (uint64_t k = 0; k < zq_min(per, entries - i); k++)
            zq_table_put(s->l2, k, zq_l1_set_own(l1[i + k], false));
        rc = zq_be_write(s->be, s->l2, (size_t)zq_snap_cluster(s), s->host + zq_table_bytes(i));
    }
    return rc;
}

/* One sector names the new table, how many records it has, and that they name copies (P3). */
static int switch_table(struct zq_snap *s, uint64_t to)
{
    if (s->zones && s->kind == ZQ_SNAP_TAKE)
        (void)zq_copies_put(s->sector0, s->hdr);
    zq_put_be32(s->sector0 + ZQ_HDR_NR_SNAPSHOTS, (uint32_t)s->nr);
    zq_put_be64(s->sector0 + ZQ_HDR_SNAPSHOTS, to);
    s->begun = s->switched = true;
    return write_header(s);
}

/* Behind the switch's barrier: nothing refers to the old table any more. */
static int lower_table(struct zq_snap *s, uint64_t bytes)
{
    int rc;

    s->count = (struct zq_snap_count){.by = -1};
    rc = zq_snap_count_range(s, s->table_offset, bytes);
    return rc < 0 ? rc : zq_snap_count_end(s);
}

/* Where they lie, behind the L1. */
static uint64_t copy_at(const struct zq_snap *s)
{
    return s->host + zq_align_up(zq_table_bytes(s->l1_entries), zq_snap_cluster(s));
}

/* (b) of N2. */
static int take_copies(struct zq_snap *s, uint64_t table)
{
    int rc;

    s->count = (struct zq_snap_count){.by = 1};
    rc = zq_snap_count_all(s, s->l1, s->l1_entries);
    if (rc == 0)
        rc = write_l1_copy(s, s->l1, s->l1_entries);
    if (rc == 0 && s->zones)
        rc = zq_snap_copy_pointers(s, copy_at(s));
    if (rc == 0)
        rc = zq_snap_write_padded(s, s->table, s->table_bytes, table);
    return rc < 0 ? rc : zq_be_flush(s->be);
}

/* N2 (b) to (e). From (d) on the new table is the image's. */
static int take(struct zq_snap *s)
{
    uint64_t old = s->table_bytes;
    uint64_t table = copy_at(s) + (s->zones ? zq_snap_pointer_bytes(s, s->zones) : 0);
    int rc;

    s->facts.copy_offset = s->zones ? copy_at(s) : 0;
    s->facts.copy_bytes = s->zones ? zq_entries_bytes(s->zones->nr_zones) : 0;
    zq_snap_edit_table(s);
    rc = take_copies(s, table);
    if (rc == 0)
        rc = zq_snap_clear_copied(s);
    if (rc == 0)
        rc = zq_be_flush(s->be);
    if (rc == 0)
        rc = switch_table(s, table);
    if (rc == 0)
        rc = lower_table(s, old);
    s->table_offset = table;
    return rc;
}

/* (c) and (d) of N4: R13's order. */
static int give_up(struct zq_snap *s)
{
    int rc = zq_snap_set_copied(s, false);

    if (rc == 0)
        rc = zq_be_flush(s->be);
    s->count = (struct zq_snap_count){.by = -1};
    if (rc == 0)
        rc = zq_snap_count_all(s, s->other, s->other_entries);
    if (rc == 0)
        rc = zq_snap_count_range(s, s->other_offset, zq_table_bytes(s->other_entries));
    if (rc == 0 && s->other_zones.layout)
        rc = zq_snap_count_range(s, s->other_zones.table_offset,
                                 zq_entries_bytes(s->other_zones.nr_zones));
    return rc < 0 ? rc : zq_snap_count_end(s);
}

/* N4 (b) to (d). No table is left where no snapshot is. */
static int drop(struct zq_snap *s)
{
    uint64_t old = s->table_bytes, table;
    int rc = 0;

    zq_snap_edit_table(s);
    table = s->table_bytes ? s->host : 0;
    if (table)
        rc = zq_snap_write_padded(s, s->table, s->table_bytes, table);
    if (rc == 0 && table)
        rc = zq_be_flush(s->be);
    if (rc == 0)
        rc = switch_table(s, table);
    if (rc == 0)
        rc = give_up(s);
    if (rc == 0)
        rc = lower_table(s, old);
    s->table_offset = table;
    return rc;
}

/* (b) of N3. Whatever other programs have left: what two refer to has no flag. */
static int apply_copies(struct zq_snap *s)
{
    int rc;

    s->count = (struct zq_snap_count){.by = 1};
    rc = zq_snap_count_all(s, s->other, s->other_entries);
    if (rc == 0)
        rc = zq_snap_clear_other(s);
    if (rc == 0)
        rc = write_l1_copy(s, s->other, s->other_room);
    if (rc == 0)
        rc = zq_snap_write_zones(s);
    return rc < 0 ? rc : zq_be_flush(s->be);
}

/* The disk is another one with this sector, whose other bytes are as they are now (N3). */
static int switch_l1(struct zq_snap *s)
{
    zq_put_be64(s->sector0 + ZQ_HDR_SIZE, s->other_bytes);
    zq_put_be32(s->sector0 + ZQ_HDR_L1_ENTRIES, (uint32_t)s->other_room);
    zq_put_be64(s->sector0 + ZQ_HDR_L1_OFFSET, s->host);
    zq_snap_switch_zones(s);
    s->begun = s->switched = true;
    return s->write_header ? s->write_header(s->header_arg) : write_header(s);
}

/* N3 (b) to (d). From the switch on nothing durable refers to the old disk. */
static int apply(struct zq_snap *s)
{
    int rc;

    s->new_pointers = s->host + zq_align_up(zq_table_bytes(s->other_room), zq_snap_cluster(s));
    if (s->states_offset)
        s->new_states = s->new_pointers + zq_snap_pointer_bytes(s, &s->other_zones);
    rc = apply_copies(s);

    if (rc == 0)
        rc = switch_l1(s);
    s->count = (struct zq_snap_count){.by = -1};
    if (rc == 0)
        rc = zq_snap_count_all(s, s->l1, s->l1_entries);
    if (rc == 0)
        rc = zq_snap_count_range(s, s->l1_offset, zq_table_bytes(s->l1_entries));
    if (rc == 0)
        rc = zq_snap_lower_zones(s);
    return rc < 0 ? rc : zq_snap_count_end(s);
}

static int change(struct zq_snap *s)
{
    switch (s->kind) {
    case ZQ_SNAP_TAKE: return take(s);
    case ZQ_SNAP_DELETE: return drop(s);
    default: return apply(s);
    }
}

int zq_snap_change(struct zq_snap *s)
{
    int rc = change(s);

    return rc < 0 ? rc : zq_be_flush(s->be);
}

void zq_snap_free(struct zq_snap *s)
{
    uint64_t cluster = zq_snap_cluster(s);

    if (!s->hooks) /* it was refused before it began */
        return;

    zq_free(s->hooks, s->table, s->table_room);
    zq_free(s->hooks, s->other, zq_table_bytes(s->other_room));
    zq_free(s->hooks, s->pointers, zq_pointers_bytes(&s->other_zones));
    zq_free(s->hooks, s->states, zq_states_bytes(s->other_zones.nr_zones));
    zq_free(s->hooks, s->l2, cluster);
    zq_free(s->hooks, s->l2_other, cluster);
    zq_free(s->hooks, s->block, cluster);
    zq_free(s->hooks, s->batch, (uint64_t)2 * ZQ_SNAP_BATCH * sizeof(*s->batch));
    s->table = s->l2 = s->l2_other = s->block = s->pointers = s->states = NULL;
    s->other = s->batch = NULL;
}
