/* SPDX-License-Identifier: MIT */
/*
 * Opens a snapshot for reading. What it has of its own are an L1, a size and write pointers: with
 * these in place of the header's, everything behind the header is opened, checked and read as ever.
 * Refcounts and flags do not matter to a reader.
 */
#include <errno.h>
#include <inttypes.h>
#include "base/report.h"
#include "check/overlap.h"
#include "format/copies.h"
#include "format/entry.h"
#include "format/l2entry.h"
#include "image/opening.h"
#include "snapshot/snapshot.h"

static int bad_l1(const struct opening *o, const struct zq_snapshot *r, const char *why)
{
    return zq_fail(o->err, ZQCOW2_ECORRUPT,
                   "L1 table of the snapshot, %" PRIu32 " entries at byte %" PRIu64 ": %s",
                   r->l1_entries, r->l1_offset, why);
}

/*
 * As the header's own are checked; but an L1 that is too short for the size ends in nothing, and
 * only what the size needs of it must be there.
 */
static int check_l1(const struct opening *o, const struct zq_snapshot *r)
{
    const struct zq_bounds b = {zq_form_of(&o->h), o->file_size};
    uint64_t bytes = zq_table_bytes(o->h.l1_entries);

    if (!bytes)
        return 0;
    if (bytes > ZQ_MAX_L1_BYTES)
        return bad_l1(o, r, "it is larger than 32 MiB");
    if (zq_host_misplaced(&b, r->l1_offset) || bytes > o->file_size - r->l1_offset)
        return bad_l1(o, r, "it is no place for a table");
    return 0;
}

/*
 * Its write pointers. What else is stored of zones is of the image as it is now: READ_ONLY and
 * OFFLINE do not keep anybody from reading a snapshot.
 */
static int take_zones(struct opening *o, const struct zq_snapshot_facts *f)
{
    struct zq_geometry zones;

    if (!zq_copy_of(&o->h, &o->g, o->file_size, f, &zones))
        return zq_fail(o->err, ZQCOW2_ECORRUPT, "the snapshot has no copy of the write pointers%s",
                       o->h.copies ? "" : " that holds");
    o->g = zones;
    o->h.states_offset = o->h.descriptors_offset = 0;
    o->h.descriptor_size = o->g.descriptor_size = 0;
    return 0;
}

/* A record that does not store a size is of a disk that had the one of now. */
static int take_over(struct opening *o, const uint8_t *raw)
{
    struct zq_form form = zq_form_of(&o->h);
    struct zq_snapshot_facts f;
    struct zq_snapshot r;
    int rc;

    zq_snapshot_read(raw, &r);
    zq_snapshot_facts(raw, &f);
    if (f.sized)
        o->h.stored_size = f.disk_bytes;
    if (o->h.stored_size > ZQ_MAX_VIRTUAL_SIZE ||
        zq_l1_needed(&form, o->h.stored_size) > zq_table_count(ZQ_MAX_L1_BYTES))
        return zq_fail(o->err, ZQCOW2_ECORRUPT,
                       "the snapshot has a disk of %" PRIu64 " bytes: too large for an L1 table",
                       o->h.stored_size);
    o->h.virtual_size = zq_align_down(o->h.stored_size, ZQ_SECTOR);
    o->h.l1_offset = r.l1_offset;
    o->h.l1_entries = (uint32_t)zq_min(r.l1_entries, zq_l1_needed(&form, o->h.stored_size));
    rc = check_l1(o, &r);
    if (o->g.layout && rc == 0)
        rc = take_zones(o, &f);
    return rc < 0 ? rc : zq_overlap_check(&o->h, o->g.layout ? &o->g : NULL, o->err);
}

/* A record that is wrong hides those behind it, and none before it. */
static int find(const struct opening *o, struct zq_snap *s, uint64_t *pos)
{
    struct zqcow2_error why = {0, ""};
    int rc;

    s->err = &why;
    rc = zq_snap_load(s);
    if (rc == 0 && zq_snap_find(s, o->opt.snapshot, o->opt.flags & ZQCOW2_OPEN_ID_FIRST, pos))
        return 0;
    if (why.code)
        return zq_fail(o->err, why.code, "%s", why.text);
    return rc < 0 ? rc :
                    zq_fail(o->err, -ENOENT, "no snapshot has the name or id \"%.64s\"",
                            o->opt.snapshot);
}

int zq_opening_snapshot(struct opening *o)
{
    struct zq_snap s = {.kind = ZQ_SNAP_LIST,
                        .be = o->be,
                        .hooks = &o->hooks,
                        .bounds = {zq_form_of(&o->h), o->file_size},
                        .table_offset = o->h.snapshots_offset,
                        .nr = o->h.nb_snapshots,
                        .nowhere = o->h.snapshots_wrong,
                        .partial = true};
    uint64_t pos;
    int rc = find(o, &s, &pos);

    if (rc == 0)
        rc = take_over(o, s.table + pos);
    zq_snap_free(&s);
    return rc;
}
