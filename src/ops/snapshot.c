/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of an image in use.
 *
 * The operation has the image for itself: what has begun ends, and what comes meanwhile waits (N8).
 * It drains, so that the file is all that there is; takes clusters as others do, and has a round
 * count them; and lets zq_snap_change() work on the file without the mutex. Then it takes over
 * what has changed, before anybody else may look.
 */
#include <errno.h>
#include <inttypes.h>
#include "ops/snapshot.h"
#include "base/report.h"
#include "bitmap/resize.h"
#include "ops/bitmap_room.h"
#include "ops/flush.h"
#include "ops/note.h"
#include "ops/request.h"
#include "round/round.h"
#include "space/admit.h"
#include "space/reclaim.h"
#include "space/row.h"
#include "space/transfer.h"
#include "space/unmap.h"

enum { S_BEGIN, S_DRAIN, S_ALONE, S_LOAD, S_PREPARE, S_ROOM, S_COUNTED, S_CHANGE, S_DONE };

/* The operation, and what it makes beforehand so that nothing can fail afterwards. */
struct alone {
    struct zq_op op;
    struct zq_memtable l1; /* of the disk that is applied */
    struct zq_zones zones; /* the same; v NULL: the image is plain */
    struct zq_runs *runs;
    struct zq_row row;               /* clusters for the new tables */
    struct zq_bitmap_resize bitmaps; /* as they are of that disk; s.b NULL: it changes none */
    struct zq_bitmap_room room;      /* of them */
};

static struct zq_snap *what(const struct zq_op *op)
{
    return op->own.snapshot.what;
}

/* ---- without the mutex ---- */

static void load_work(struct zq_io *io)
{
    io->ret = zq_snap_load(what(zq_container(io, struct zq_op, io)));
}

/* Every part of the disk that is applied may differ: all bits are set (B4). */
static int prepare_bitmaps(struct alone *a, const struct zq_snap *s)
{
    if (!a->bitmaps.s.b)
        return 0;
    a->bitmaps.device = zq_align_down(s->other_bytes, ZQ_SECTOR);
    a->bitmaps.all = true;
    return zq_bitmap_resize_prepare(&a->bitmaps);
}

static void prepare_work(struct zq_io *io)
{
    struct zq_op *op = zq_container(io, struct zq_op, io);
    int rc = zq_snap_prepare(what(op));

    io->ret = rc < 0 ? rc : prepare_bitmaps(zq_container(op, struct alone, op), what(op));
}

static int write_header(void *bitmaps)
{
    return zq_bitmap_switch_write(bitmaps);
}

/* The tables of bitmaps come first: an error there is one before anything has begun. */
static void change_work(struct zq_io *io)
{
    struct zq_op *op = zq_container(io, struct zq_op, io);
    struct alone *a = zq_container(op, struct alone, op);
    int rc = a->bitmaps.s.b ? zq_bitmap_resize_write(&a->bitmaps) : 0;

    io->ret = rc < 0 ? rc : zq_snap_change(what(op));
}

/* ---- alone ---- */

/* What others have asked of the disk that goes would be done to it, or to the one that comes. */
static int begin_to_apply(struct zq_core *c, struct zq_op *op)
{
    if (c->nr_ops == 1u + c->janitor_running)
        return 0;
    return zq_fail(what(op)->err, -EBUSY, "requests are in progress");
}

/* Lists need nothing but that no table changes meanwhile. */
static int begin(struct zq_core *c, struct zq_op *op)
{
    bool list = what(op)->kind == ZQ_SNAP_LIST;

    int rc = zq_op_admit(c, op);

    if (rc)
        return rc;
    c->exclusive = op->own.snapshot.holds = !list;
    op->own.snapshot.phase = list ? S_LOAD : S_DRAIN;
    if (list)
        return 0;
    if (!c->writable)
        return -EROFS;
    if (c->sealed)
        return c->dead ? ZQCOW2_EDEAD : ZQCOW2_ECORRUPT;
    return what(op)->kind == ZQ_SNAP_APPLY ? begin_to_apply(c, op) : 0;
}

/* ---- what the work needs to know ---- */

static bool is_table(const void *arg, uint64_t host, uint64_t len, bool data)
{
    const struct zq_alloc *a = arg;

    return zq_alloc_is_fixed(a, host, len) || (data && zq_alloc_is_named(a, host, len));
}

/* Only pointers and numbers: what they say stays true while the operation is alone. */
static void describe(struct zq_core *c, struct zq_snap *s)
{
    s->be = c->be;
    s->hooks = &c->hooks;
    s->bounds = (struct zq_bounds){zq_form_of(&c->hdr), c->alloc.file_size};
    s->disk_bytes = c->hdr.stored_size;
    s->l1 = c->map.l1.v;
    s->l1_offset = c->map.l1.offset;
    s->l1_entries = c->map.l1.entries;
    s->rt = c->alloc.refs.table.v;
    s->rt_entries = c->alloc.refs.table.entries;
    s->refcount_order = c->alloc.refs.order;
    s->sector0 = c->sector0;
    s->hdr = &c->hdr;
    s->zones = c->zoned ? &c->zones.g : NULL;
    s->states_offset = c->zones.states_at;
    s->table_offset = c->hdr.snapshots_offset;
    s->nr = c->hdr.nb_snapshots;
    s->nowhere = c->hdr.snapshots_wrong;
    s->is_table = is_table;
    s->arg = &c->alloc;
}

/* A snapshot that is taken or deleted changes nothing of the device. */
static void describe_bitmaps(struct zq_core *c, struct alone *a, struct zq_snap *s)
{
    if (s->kind != ZQ_SNAP_APPLY || !c->bitmaps.nr)
        return;
    c->bitmaps.bounds.file_size = c->alloc.file_size;
    a->bitmaps.s.b = &c->bitmaps;
    a->bitmaps.s.err = s->err;
    a->bitmaps.s.h = &c->hdr;
    a->bitmaps.s.sector0 = c->sector0;
    s->write_header = write_header;
    s->header_arg = &a->bitmaps.s;
}

/* ---- room ---- */

/*
 * Counted by a round before the change begins, so it has nothing to allocate; and that round comes
 * after the one that sets the mark, or the bit in its place (N9).
 */
static int take_room(struct zq_core *c, struct zq_op *op)
{
    struct zq_row *row = &zq_container(op, struct alone, op)->row;
    struct zq_snap *s = what(op);
    int rc;

    zq_mark_by_dirty(c);
    zq_assert_k(N10, !s->begun);
    rc = zq_row_take(c, op, row, s->clusters, "the tables of the snapshot", s->err);
    s->host = row->host;
    return rc;
}

/* Of one more snapshot than there is, before anything changes: two each, and the table. */
static int room_for_areas(struct zq_core *c)
{
    return zq_alloc_open_areas(&c->alloc, 2 * (c->hdr.nb_snapshots + 1) + 1);
}

/* ---- the disk that is applied ---- */

/* A table that is named twice would be written for two places (trust.c). */
static bool is_named_twice(const struct zq_core *c, const struct zq_memtable *l1)
{
    const struct zq_memtable *rt = &c->alloc.refs.table;
    uint32_t i, j;

    if (zq_index_twice(&l1->index, l1->v, &i, &j))
        return true;
    for (uint32_t k = 0; k < rt->index.n; k++) {
        if (zq_index_hit(&l1->index, l1->v, rt->v[rt->index.order[k]],
                         (uint64_t)1 << c->cluster_bits, &j))
            return true;
    }
    return false;
}

/* What it will have in memory; the work on the file uses its own copy. */
static int make_l1(struct zq_core *c, struct zq_op *op)
{
    struct zq_memtable *l1 = &zq_container(op, struct alone, op)->l1;
    struct zq_snap *s = what(op);
    int rc;

    if (s->kind != ZQ_SNAP_APPLY)
        return 0;
    if (s->other_bytes & c->block_mask & ~(uint64_t)(ZQ_SECTOR - 1))
        return zq_fail(s->err, -EINVAL,
                       "the disk of the snapshot, %" PRIu64
                       " bytes, is not a multiple of the block size",
                       s->other_bytes);
    rc = zq_memtable_open(l1, &c->hooks, s->other_room, s->host);
    if (rc == 0 && s->other_room)
        memcpy(l1->v, s->other, (size_t)zq_table_bytes(s->other_room));
    if (rc == 0)
        rc = zq_memtable_index(l1);
    if (rc == 0 && is_named_twice(c, l1))
        rc = zq_fail(s->err, ZQCOW2_ECORRUPT, "an L2 table of the snapshot is named twice");
    return rc;
}

/* N7: it may have too many active zones only where the image has. */
static int judge_active(struct zq_core *c, const struct zq_zones *to, struct zq_snap *s)
{
    const struct zq_zones *now = &c->zones;

    if (to->nr_active <= to->max_active || now->nr_active > now->max_active)
        return 0;
    return zq_fail(s->err, ZQCOW2_EZONE_ACTIVE,
                   "the snapshot has %" PRIu32 " active zones, max_active_zones is %" PRIu32,
                   to->nr_active, to->max_active);
}

/*
 * What zones are marked with, but not READ_ONLY and OFFLINE, ends with the disk that goes: it is
 * of zones with another life (R15, R16).
 */
static int make_states(struct zq_core *c, struct zq_snap *s, const struct zq_zones *to)
{
    uint8_t *states;

    if (!s->states_offset)
        return 0;
    s->states = states = zq_zalloc(&c->hooks, zq_states_bytes(to->g.nr_zones));
    if (!states)
        return -ENOMEM;
    for (uint32_t i = 0; i < zq_min(to->g.nr_zones, c->zones.g.nr_zones); i++)
        states[i] = c->zones.v[i].stored & ZQ_STORED_FORCED;
    return 0;
}

/* As they are after an open: what was open is CLOSED. */
static int make_zones(struct zq_core *c, struct zq_op *op)
{
    struct alone *a = zq_container(op, struct alone, op);
    struct zq_snap *s = what(op);
    const struct zq_zones_params p = {&s->other_zones, &c->hooks,      &c->ready,
                                      s->pointers,     c->zones.rules, &c->events};
    int rc;

    if (s->kind != ZQ_SNAP_APPLY || !c->zoned)
        return 0;
    rc = zq_zones_open(&a->zones, &p);
    if (rc == 0)
        rc = judge_active(c, &a->zones, s);
    if (rc == 0)
        rc = make_states(c, s, &a->zones);
    a->runs = zq_zalloc_array(&c->hooks, s->other_zones.nr_zones, sizeof(*a->runs));
    return rc == 0 && !a->runs ? -ENOMEM : rc;
}

/* ---- afterwards ---- */

/* As far as the file has it. */
static void add_area(struct zq_core *c, uint64_t offset, uint64_t bytes)
{
    uint64_t cluster = (uint64_t)1 << c->cluster_bits, size = c->alloc.file_size;
    uint64_t begin = zq_align_down(zq_min(offset, size), cluster);
    uint64_t end = zq_align_up(zq_min(offset + bytes, size), cluster);

    if (offset < size && begin < end)
        zq_alloc_add_area(&c->alloc, begin, end - begin);
}

/* What no search for free clusters takes, whatever refcounts say. */
static void set_areas(struct zq_core *c, const struct zq_snap *s)
{
    uint64_t cluster = (uint64_t)1 << c->cluster_bits, pos = 0;
    struct zq_alloc *a = &c->alloc;
    const uint8_t *raw;

    a->nr_areas = 0;
    while ((raw = zq_snap_next(s, &pos))) {
        struct zq_snapshot_facts f;
        struct zq_geometry zones;
        struct zq_snapshot r;

        zq_snapshot_read(raw, &r);
        zq_snapshot_facts(raw, &f);
        add_area(c, r.l1_offset, zq_min(zq_table_bytes(r.l1_entries), ZQ_MAX_L1_BYTES));
        if (c->zoned && zq_copy_of(&c->hdr, &c->zones.g, a->file_size, &f, &zones))
            add_area(c, zones.table_offset, zq_entries_bytes(zones.nr_zones));
    }
    a->fixed[ZQ_FIXED_SNAPSHOTS] =
        (struct zq_host_range){s->table_offset, zq_align_up(s->table_bytes, cluster)};
    zq_alloc_sort_areas(a);
}

/*
 * Whatever became of the change: refcounts and flags on disk are no longer those in memory. Runs
 * that zones remember may not be written in place any more (N5).
 */
static void forget(struct zq_core *c, const struct zq_snap *s)
{
    zq_assert_k(N8, c->exclusive && c->nr_ops == 1 && !zq_cache_has_dirty(&c->cache));
    zq_cache_forget_all(&c->cache);
    for (uint32_t i = 0; c->map.runs && i < c->map.nr_runs; i++)
        zq_runs_free(&c->map.runs[i], &c->hooks);
    zq_packing_forget(&c->alloc);
    c->alloc.tables++;
    c->alloc.next_one = zq_min(c->alloc.next_one, s->lowest);
    c->alloc.next_run = zq_min(c->alloc.next_run, s->lowest);
    c->alloc.slack = true;
}

static void set_fixed(struct zq_core *c, enum zq_fixed which, uint64_t offset, uint64_t bytes)
{
    bytes = zq_align_up(bytes, (uint64_t)1 << c->cluster_bits);
    c->alloc.fixed[which] = (struct zq_host_range){offset, bytes};
}

static void adopt_states(struct zq_core *c, const struct zq_snap *s)
{
    uint32_t nr = c->zones.g.nr_zones;

    zq_states_load(&c->zones, s->new_states, s->states);
    c->hdr.states_offset = s->new_states;
    c->hdr.states_zones = nr;
    c->hdr.descriptors_offset = zq_descriptors_behind(&c->hdr, s->new_states, nr);
    set_fixed(c, ZQ_FIXED_STATES, s->new_states, zq_states_bytes(nr));
    set_fixed(c, ZQ_FIXED_DESCRIBED, c->hdr.descriptors_offset,
              zq_descriptors_bytes(c->hdr.descriptor_size, nr));
}

static void adopt_zones(struct zq_core *c, struct alone *a, const struct zq_snap *s)
{
    zq_note_all_zones(c);
    a->zones.g.table_offset = s->new_pointers;
    zq_zones_replace(&c->zones, &a->zones);
    zq_map_replace_runs(&c->map, a->runs, c->zones.g.nr_zones);
    a->runs = NULL;
    set_fixed(c, ZQ_FIXED_POINTERS, s->new_pointers, zq_entries_bytes(c->zones.g.nr_zones));
    if (s->states_offset)
        adopt_states(c, s);
    if (c->source)
        c->map.masked_below = c->size;
}

static void adopt_bitmaps(struct zq_core *c, struct alone *a)
{
    if (!a->bitmaps.s.b)
        return;
    zq_assert_k(B4, c->exclusive && a->bitmaps.device == c->size);
    zq_bitmap_resize_adopt(&a->bitmaps);
    zq_bitmap_room_adopt(c, &a->room, &a->bitmaps.s);
}

/* Nobody has a reference to what was in memory: nothing else has begun. */
static void adopt_disk(struct zq_core *c, struct zq_op *op)
{
    const struct zq_snap *s = what(op);
    uint64_t bytes = zq_align_up(zq_table_bytes(s->other_room), (uint64_t)1 << c->cluster_bits);

    zq_map_replace_l1(&c->map, &zq_container(op, struct alone, op)->l1);
    c->alloc.fixed[ZQ_FIXED_L1] = (struct zq_host_range){s->host, bytes};
    c->hdr.l1_offset = s->host;
    c->hdr.l1_entries = (uint32_t)s->other_room;
    c->hdr.stored_size = s->other_bytes;
    c->hdr.virtual_size = zq_align_down(s->other_bytes, ZQ_SECTOR);
    c->size = c->bitmaps.device = c->hdr.virtual_size;
    if (c->zoned)
        adopt_zones(c, zq_container(op, struct alone, op), s);
    else
        c->seq_start = c->size;
    c->info_flags &= ~(uint32_t)ZQCOW2_INFO_SIZE_CUT;
    if (c->hdr.stored_size != c->size)
        c->info_flags |= ZQCOW2_INFO_SIZE_CUT;
    adopt_bitmaps(c, zq_container(op, struct alone, op));
}

static void adopt(struct zq_core *c, struct zq_op *op)
{
    const struct zq_snap *s = what(op);

    if (s->kind == ZQ_SNAP_APPLY) {
        adopt_disk(c, op);
        return;
    }
    zq_assert(s->switched && s->nr <= ZQ_MAX_SNAPSHOTS && !s->table_offset == !s->nr);
    c->hdr.nb_snapshots = (uint32_t)s->nr;
    c->hdr.snapshots_offset = s->table_offset;
    c->info_flags &= ~(uint32_t)ZQCOW2_INFO_SNAPSHOTS;
    if (s->nr)
        c->info_flags |= ZQCOW2_INFO_SNAPSHOTS;
    if (c->zoned && s->kind == ZQ_SNAP_TAKE) {
        c->hdr.copies = true;
        c->hdr.autoclear |= ZQ_AUTOCLEAR_COPIES;
    }
    set_areas(c, s);
}

/*
 * N10: no space, before the header was written, leaves leaks, and the mark stays. Anything else
 * leaves a file of which nobody knows what it holds.
 */
static int changed(struct zq_core *c, struct zq_op *op)
{
    struct zq_snap *s = what(op);
    int rc = op->rc;

    forget(c, s);
    if (rc == 0)
        adopt(c, op);
    else if (s->switched || !zq_is_no_space(rc))
        zq_core_die(c, rc);
    else
        c->leaked = true;
    return rc;
}

/* ---- the operation ---- */

static int phase(struct zq_core *c, struct zq_op *op)
{
    struct alone *a = zq_container(op, struct alone, op);
    uint8_t *at = &op->own.snapshot.phase;
    int rc;

    switch (*at) {
    case S_BEGIN: return begin(c, op);
    case S_DRAIN: rc = zq_drain(c, op, &op->own.snapshot.drain); break;
    case S_ALONE: rc = zq_settle(c, op); break;
    case S_LOAD:
        describe(c, what(op));
        ++*at;
        return zq_op_call(c, op, load_work);
    case S_PREPARE:
        if (what(op)->kind == ZQ_SNAP_LIST) {
            *at = S_DONE;
            return 0;
        }
        rc = room_for_areas(c);
        if (rc < 0)
            return rc;
        describe_bitmaps(c, a, what(op));
        ++*at;
        return zq_op_call(c, op, prepare_work);
    case S_ROOM:
        rc = take_room(c, op);
        if (rc == 0 && a->bitmaps.s.b)
            rc = zq_bitmap_room_take(c, op, &a->room, &a->bitmaps.s);
        break;
    case S_COUNTED:
        rc = zq_settle(c, op);
        if (rc == 0)
            rc = make_l1(c, op);
        if (rc == 0)
            rc = make_zones(c, op);
        break;
    default:
        zq_assert_k(N8, *at == S_CHANGE && c->nr_ops == 1 && c->marked);
        describe(c, what(op));
        describe_bitmaps(c, a, what(op));
        *at = S_DONE;
        return zq_op_call(c, op, change_work);
    }
    if (rc == 0)
        ++*at;
    return rc;
}

static int step(struct zq_core *c, struct zq_op *op)
{
    for (;;) {
        int rc;

        if (op->own.snapshot.phase == S_DONE)
            return what(op)->kind == ZQ_SNAP_LIST || !what(op)->begun ? op->rc : changed(c, op);
        rc = op->rc < 0 ? op->rc : phase(c, op);
        if (rc)
            return rc;
    }
}

/* The image is everybody's again. */
static void release(struct zq_core *c, struct zq_op *op)
{
    struct alone *a = zq_container(op, struct alone, op);

    zq_drain_leave(c, &op->own.snapshot.drain);
    zq_row_leave(c, &zq_container(op, struct alone, op)->row, what(op)->begun);
    zq_bitmap_room_leave(c, &a->room, &a->bitmaps.s);
    zq_bitmap_resize_free(&a->bitmaps);
    zq_release_mapping(c, op);
    zq_memtable_close(&a->l1);
    zq_zones_close(&a->zones);
    zq_free(&c->hooks, a->runs, what(op)->other_zones.nr_zones * sizeof(*a->runs));
    if (!op->own.snapshot.holds)
        return;
    zq_assert_k(N8, c->exclusive);
    c->exclusive = false;
    zq_wake(&c->ready, &c->gate_waiters);
}

int zq_snapshot_run(struct zq_core *c, struct zq_snap *s)
{
    struct alone a = {.op.core = c};

    zq_bitmap_room_init(&a.room);
    return zq_op_run_alone(c, &a.op, step, release, s);
}
