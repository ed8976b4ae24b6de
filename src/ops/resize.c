/* SPDX-License-Identifier: MIT */
/*
 * Grows and shrinks an image that is in use.
 *
 * The operation has the image for itself: what has begun ends, and what comes meanwhile waits (G3).
 *
 *   grow    a larger L1 is written elsewhere where the old one does not do; barrier; the header
 *           names it; barrier; the old one is given back. What the new part of the device would
 *           show of the image or of a source becomes zeros, durably (G4). Then the size in the
 *           header, between barriers
 *   shrink  the size in the header, between barriers; then what is cut off is unmapped and given
 *           back, and so are its L2 tables
 *
 *   zones   the tables of zones are written elsewhere, with a larger L1 if there is one; barrier;
 *           the header names them all and has the size; barrier; the old ones are given back. New
 *           zones are empty, so nothing shows. What is cut off goes as in a plain image
 *
 *   bitmaps tables of the new size, in another directory, which the sector with the size names (B4)
 *
 * So a crash finds the old size with all of its content, or the new one. What is mapped beyond the
 * size is counted and harmless: growing makes zeros of it. Requests see the new size when it is
 * durable, at once when the operation ends.
 */
#include <errno.h>
#include <inttypes.h>
#include "ops/resize.h"
#include "base/report.h"
#include "bitmap/resize.h"
#include "ops/bitmap_room.h"
#include "ops/flush.h"
#include "ops/overwrite.h"
#include "ops/request.h"
#include "ops/resize_ends.h"
#include "ops/resize_zones.h"
#include "round/round.h"
#include "space/admit.h"
#include "space/reclaim.h"
#include "space/row.h"
#include "space/transfer.h"
#include "space/unmap.h"

enum {
    R_BEGIN,
    R_DRAIN,
    R_ALONE,
    R_BITMAPS, /* only where there are any */
    R_ROOM,
    R_COUNTED,
    R_DATA, /* only where there is a data file */
    R_MOVE,
    R_MOVED,
    R_ZERO, /* and R_ZEROED: growing only */
    R_ZEROED,
    R_MAP, /* and R_MAPPED: of a raw data file */
    R_MAPPED,
    R_SIZE,
    R_SIZED,
    R_CUT, /* from here on: shrinking only */
    R_CUT_DURABLE,
    R_DROP,
    R_DROPPED,
    R_CUT_DATA,
    R_DONE
};

struct resize {
    struct zq_op op;
    struct zqcow2_error *err;
    uint64_t size;  /* the new one */
    bool shrinks;   /* is allowed to */
    uint32_t space; /* the kind of I/O that gives new clusters their zeros; 0: there are none */
    uint8_t phase;
    bool holds; /* nothing else is admitted because of it */
    struct zq_drain drain;
    struct zq_memtable l1;        /* the larger one, until it is the map's */
    struct zq_move move;          /* of it */
    uint64_t l1_bytes;            /* of it, in whole clusters; 0: the old one does */
    struct zq_resize_zones zones; /* their tables lie behind it */
    uint64_t clusters;            /* that all of this takes; 0: none */
    struct zq_row row;            /* those */
    uint8_t *buf;                 /* owned: a cluster of it as it goes to the file */
    uint8_t sector0[ZQ_SECTOR];   /* of the header, as it will be */
    bool switching;               /* the header in the file may be that one */
    struct zq_op zeros;           /* makes zeros of what growing would show */
    uint64_t at; /* up to here what is cut off is unmapped, what is new is mapped */
    struct zq_bitmap_resize bitmaps;
    struct zq_bitmap_room room; /* of them */
};

static struct resize *self(struct zq_op *op)
{
    return zq_container(op, struct resize, op);
}

/* ---- alone ---- */

static int begin(struct zq_core *c, struct resize *r)
{
    int rc = zq_op_admit(c, &r->op);

    if (rc)
        return rc;
    c->exclusive = r->holds = true;
    if (!c->writable)
        return -EROFS;
    return c->dead ? ZQCOW2_EDEAD : c->sealed ? ZQCOW2_ECORRUPT : 0;
}

/* ---- what may be refused ---- */

static int judge_size(const struct zq_core *c, const struct resize *r)
{
    uint64_t l1 = zq_table_bytes(zq_l1_needed(&c->map.form, r->size));

    if (!r->size || r->size & c->block_mask)
        return zq_fail(r->err, -EINVAL,
                       "size %" PRIu64 ": must be a multiple of %" PRIu32 ", and not 0", r->size,
                       c->block_mask + 1);
    if (r->size > ZQ_MAX_VIRTUAL_SIZE || l1 > ZQ_MAX_L1_BYTES)
        return zq_fail(r->err, -EFBIG,
                       "size %" PRIu64 ": too large for clusters of %" PRIu64 " bytes", r->size,
                       (uint64_t)1 << c->cluster_bits);
    if (r->space && r->size < c->size)
        return zq_fail(r->err, -EINVAL, "preallocation: the device would become smaller");
    if (r->size < c->size && !r->shrinks)
        return zq_fail(r->err, -EINVAL,
                       "size %" PRIu64 ": smaller than the device, and shrinking is not allowed",
                       r->size);
    return 0;
}

/* Snapshots of version 2 do not say how large the device was: other programs refuse, too. */
static int judge(struct zq_core *c, struct resize *r)
{
    uint64_t need = zq_l1_needed(&c->map.form, r->size), l1 = c->map.l1.entries;
    int rc;

    zq_assert_k(D1, !c->data_file.absent);
    if (c->hdr.version < 3 && c->hdr.nb_snapshots)
        return zq_fail(r->err, ZQCOW2_EFEATURE,
                       "images of version 2 that have snapshots cannot be resized");
    if (r->space && (c->zoned || c->data != &c->x))
        return zq_fail(r->err, ZQCOW2_EFEATURE,
                       "preallocation: not for images with zones or with a data file");
    if (r->size > c->size && need > l1)
        r->l1_bytes = zq_align_up(zq_table_bytes(need), (uint64_t)1 << c->cluster_bits);
    rc = judge_size(c, r);
    if (rc == 0 && c->zoned)
        rc = zq_resize_zones_judge(c, &r->zones, r->size, r->err);
    r->clusters = (r->l1_bytes + zq_resize_zones_bytes(&r->zones)) >> c->cluster_bits;
    return rc;
}

/* ---- bitmaps ---- */

/* They change with the size, in one sector (B4); of zones that is the one with the tables. */
static bool resizes_bitmaps(const struct zq_core *c, const struct resize *r)
{
    return c->bitmaps.nr && r->size != c->size;
}

static bool switches_bitmaps(const struct resize *r)
{
    return r->bitmaps.s.b && (r->op.core->zoned || r->phase == R_SIZED);
}

static void prepare_work(struct zq_io *io)
{
    io->ret = zq_bitmap_resize_prepare(&self(zq_container(io, struct zq_op, io))->bitmaps);
}

static int prepare_bitmaps(struct zq_core *c, struct resize *r)
{
    struct zq_bitmap_switch *s = &r->bitmaps.s;

    *s = (struct zq_bitmap_switch){
        .err = r->err, .b = &c->bitmaps, .h = &c->hdr, .sector0 = r->sector0};
    memcpy(r->sector0, c->sector0, ZQ_SECTOR);
    zq_assert_k(B4, c->bitmaps.device == c->size && c->nr_ops == 1);
    r->bitmaps.device = r->size;
    c->bitmaps.bounds.file_size = c->alloc.file_size;
    r->phase = R_ROOM;
    return zq_op_call(c, &r->op, prepare_work);
}

/* ---- a larger L1, and tables of zones ---- */

/* Counted by a round before the change begins. */
static int take_room(struct zq_core *c, struct resize *r)
{
    int rc = zq_row_take(c, &r->op, &r->row, r->clusters, "the tables", r->err);

    if (rc == 0 && r->clusters) {
        r->move.host = r->row.host;
        zq_resize_zones_place(&r->zones, r->move.host + r->l1_bytes);
    }
    return rc;
}

/* The whole of the last cluster of each. */
static int compose(struct zq_move *m, uint64_t at, uint8_t *buf, uint64_t n)
{
    const struct resize *r = zq_container(m, struct resize, move);
    const struct zq_memtable *l1 = &r->l1;
    uint64_t first = zq_table_count(at);

    if (at >= r->l1_bytes)
        return zq_resize_zones_compose(r->op.core, &r->zones, at - r->l1_bytes, buf, n);

    for (uint64_t i = 0; i < zq_table_count(n); i++)
        zq_table_put(buf, i, first + i < l1->entries ? l1->v[first + i] : 0);
    return 0;
}

/* Without the mutex, like the rest of the file's work: nothing else reads or writes it. */
static void switch_work(struct zq_io *io)
{
    struct resize *r = self(zq_container(io, struct zq_op, io));
    struct zqcow2_backend *be = r->op.core->be;
    int rc = 0;

    zq_assert_k(G3, r->op.core->exclusive && (r->phase == R_MOVED || r->phase == R_SIZED));
    if (r->phase == R_MOVED)
        rc = zq_move_write(&r->move, be, r->buf, (uint64_t)1 << r->op.core->cluster_bits);
    if (rc == 0 && switches_bitmaps(r)) {
        rc = zq_bitmap_resize_write(&r->bitmaps);
        if (rc == 0)
            rc = zq_bitmap_switch_write(&r->bitmaps.s);
        r->switching = r->bitmaps.s.begun;
    } else if (rc == 0) {
        r->switching = true;
        rc = zq_move_switch(be, r->sector0, ZQ_SECTOR, 0);
    }
    io->ret = rc;
}

/* Its entries are those that there are, and behind them nothing is mapped. */
static int make_l1(struct zq_core *c, struct resize *r)
{
    const struct zq_memtable *old = &c->map.l1;
    uint64_t entries = zq_l1_needed(&c->map.form, r->size);

    if (!r->l1_bytes)
        return 0;
    if (zq_memtable_open(&r->l1, &c->hooks, entries, r->move.host) < 0)
        return -ENOMEM;
    if (old->entries)
        memcpy(r->l1.v, old->v, (size_t)zq_table_bytes(old->entries));
    zq_put_be32(r->sector0 + ZQ_HDR_L1_ENTRIES, (uint32_t)entries);
    zq_put_be64(r->sector0 + ZQ_HDR_L1_OFFSET, r->move.host);
    return zq_memtable_index(&r->l1);
}

static void data_work(struct zq_io *io)
{
    const struct resize *r = self(zq_container(io, struct zq_op, io));
    struct zq_core *c = r->op.core;

    zq_assert_k(D1, c->exclusive && c->nr_ops == 1);
    io->ret = r->phase == R_MOVE ? zq_resize_grow_data(c, r->size) : zq_resize_cut_data(c);
}

/* Before the size if it is larger, and behind it. An error leaves a file that is too long. */
static int change_data(struct zq_core *c, struct resize *r)
{
    bool now = r->phase == R_CUT_DATA || r->size > c->size;

    r->phase++;
    r->at = c->size;
    return now && c->data != &c->x ? zq_op_call(c, &r->op, data_work) : 0;
}

static int move_tables(struct zq_core *c, struct resize *r)
{
    int rc;

    zq_assert_k(N8, c->nr_ops == 1 && !c->map.l1.is_dirty && !c->map.l1.frozen);
    r->phase = r->clusters ? R_MOVED : r->size > c->size ? R_ZERO : R_SIZE;
    if (!r->clusters)
        return 0;
    r->buf = zq_alloc(&c->hooks, 4096, (size_t)1 << c->cluster_bits);
    memcpy(r->sector0, c->sector0, ZQ_SECTOR);
    rc = r->buf ? make_l1(c, r) : -ENOMEM;
    if (rc < 0)
        return rc;
    r->move.bytes = r->clusters << c->cluster_bits;
    r->move.compose = compose;
    if (c->zoned)
        zq_resize_zones_switch(c, &r->zones, r->sector0);
    return zq_op_call(c, &r->op, switch_work);
}

/* The record takes the old table; without one it is not needed. */
static void free_old_l1(struct zq_core *c, struct resize *r)
{
    const struct zq_memtable *old = &c->map.l1;
    struct zq_freed *f = r->row.freed;

    zq_assert_k(R9, f && !r->switching); /* the switch is durable */
    f->cluster = old->offset >> c->cluster_bits;
    f->count = zq_div_up(zq_table_bytes(old->entries), (uint64_t)1 << c->cluster_bits);
    f->punch = true;
    if (f->count)
        zq_alloc_quarantine(&c->alloc, f, false);
    else
        zq_record_drop(&c->alloc, f);
    r->row.freed = NULL;
}

/* Nobody knows what a failed write of the header has left (K9). */
static int switched(struct zq_core *c, struct resize *r)
{
    int rc = r->op.rc;

    if (rc < 0 && r->switching)
        zq_core_die(c, rc);
    if (rc < 0)
        return r->switching ? zq_barrier_error(rc) : rc;
    r->switching = false;
    memcpy(c->sector0, r->sector0, ZQ_SECTOR);
    if (!switches_bitmaps(r))
        return 0;
    zq_assert_k(B4, c->exclusive && c->bitmaps.device != r->size);
    zq_bitmap_resize_adopt(&r->bitmaps);
    zq_bitmap_room_adopt(c, &r->room, &r->bitmaps.s);
    return 0;
}

static void adopt_l1(struct zq_core *c, struct resize *r)
{
    free_old_l1(c, r);
    c->hdr.l1_offset = r->move.host;
    c->hdr.l1_entries = (uint32_t)r->l1.entries;
    c->alloc.fixed[ZQ_FIXED_L1] = (struct zq_host_range){r->move.host, r->l1_bytes};
    c->alloc.tables++;
    zq_map_replace_l1(&c->map, &r->l1);
}

/* From now on requests are checked against it. */
static void adopt_size(struct zq_core *c, struct resize *r)
{
    bool shrinks = r->size < c->size;

    zq_assert_k(G3, c->exclusive && c->nr_ops == 1);
    c->size = c->hdr.stored_size = c->hdr.virtual_size = c->bitmaps.device = r->size;
    if (!c->zoned)
        c->seq_start = r->size;
    c->info_flags &= ~(uint32_t)ZQCOW2_INFO_SIZE_CUT;
    r->at = zq_align_up(r->size, (uint64_t)1 << c->cluster_bits);
    r->phase = shrinks ? R_CUT : R_DONE;
}

/* Of zones with the size, which the same sector has. */
static int adopt_tables(struct zq_core *c, struct resize *r)
{
    int rc = switched(c, r);

    if (rc < 0)
        return rc;
    zq_assert_k(G1, zq_move_is_whole(&r->move) && r->row.freed);
    if (r->l1_bytes)
        adopt_l1(c, r);
    zq_row_leave(c, &r->row, true);
    r->phase = R_ZERO;
    if (!c->zoned)
        return 0;
    zq_resize_zones_adopt(c, &r->zones);
    adopt_size(c, r);
    return 0;
}

/* ---- what growing would show ---- */

static void zeros_finish(struct zq_op *op)
{
    zq_op_ready(&zq_container(op, struct resize, zeros)->op);
}

/*
 * Up to the end of the last cluster, by a request of its own, for which the device is as large
 * already: whatever is mapped there goes, and where a source has bytes zeros hide them (S4). In
 * the cluster that the old end lies in they are written. With preallocation they are mapped, like
 * data: the clusters are whole in the file before an entry names one.
 */
static int make_zeros(struct zq_core *c, struct resize *r)
{
    uint64_t end = zq_align_up(r->size, (uint64_t)1 << c->cluster_bits);
    struct zq_op *op = &r->zeros;

    r->phase = R_ZEROED;
    zq_assert_k(G4, c->seq_start == c->size && end > c->size);
    c->seq_start = end;
    zq_op_reset(c, op, zq_step_write, zq_release_overwrite);
    op->finish = zeros_finish;
    op->req.op = r->space ? ZQCOW2_OP_WRITE : ZQCOW2_OP_WRITE_ZEROES;
    op->req.flags = r->space ? ZQCOW2_NO_UNMAP : 0;
    op->req.offset = c->size;
    op->length = end - c->size;
    op->own.overwrite.space = r->space;
    c->nr_ops++;
    zq_op_ready(op);
    return ZQ_WAIT;
}

/* ---- the size of a plain image ---- */

static int write_size(struct zq_core *c, struct resize *r)
{
    r->phase = R_SIZED;
    memcpy(r->sector0, c->sector0, ZQ_SECTOR);
    zq_put_be64(r->sector0 + ZQ_HDR_SIZE, r->size);
    return zq_op_call(c, &r->op, switch_work);
}

static int size_written(struct zq_core *c, struct resize *r)
{
    int rc = switched(c, r);

    if (rc == 0)
        adopt_size(c, r);
    return rc;
}

/* ---- what is cut off ---- */

/* All that L1 may map beyond the size: nothing shows there, so no zeros are left. */
static int cut(struct zq_core *c, struct resize *r)
{
    uint64_t end = c->map.l1.entries << c->map.span_bits;
    int rc = zq_may_allocate(c, &r->op);

    zq_assert_k(G3, r->size == c->size && r->at >= c->size);
    return rc ? rc : zq_unmap(c, &r->op, &r->at, end, ZQ_LEAVE_NOTHING);
}

/* ---- the operation ---- */

static int grow(struct zq_core *c, struct resize *r)
{
    int rc;

    switch (r->phase) {
    case R_ROOM:
        rc = take_room(c, r);
        if (rc == 0 && r->bitmaps.s.b)
            rc = zq_bitmap_room_take(c, &r->op, &r->room, &r->bitmaps.s);
        break;
    case R_COUNTED: rc = zq_settle(c, &r->op); break;
    case R_DATA: return change_data(c, r);
    case R_MOVE: return move_tables(c, r);
    case R_MOVED: return adopt_tables(c, r);
    case R_ZERO: return make_zeros(c, r);
    case R_ZEROED:
        c->seq_start = c->size;
        rc = r->zeros.res.ret < 0 ? r->zeros.res.ret : zq_settle(c, &r->op);
        break;
    case R_MAP: rc = zq_resize_map_raw(c, &r->op, &r->at, r->size); break;
    default: rc = zq_settle(c, &r->op);
    }
    if (rc == 0)
        r->phase++;
    return rc;
}

/*
 * The size is what it should be: an error only costs space, and growing takes it into account. In
 * an image that is dead nothing thaws that could be waited for.
 */
static int shrink(struct zq_core *c, struct resize *r)
{
    int rc;

    switch (r->op.rc < 0 || c->dead ? R_DONE : r->phase) {
    case R_CUT: rc = cut(c, r); break;
    case R_DROP: rc = zq_resize_drop_tables(c); break;
    case R_CUT_DATA: return change_data(c, r);
    case R_DONE: rc = r->op.rc; break;
    default: rc = zq_settle(c, &r->op);
    }
    if (rc == ZQ_WAIT)
        return rc;
    zq_cache_release(&c->cache, &r->op.g);
    r->op.rc = 0;
    r->phase = rc < 0 ? R_DONE : r->phase + 1;
    return c->dead ? ZQCOW2_EDEAD : 0;
}

/* Clusters are waited for only where they are needed. */
static uint8_t after_judgement(const struct zq_core *c, struct resize *r)
{
    zq_assert_k(B4, c->exclusive && !r->bitmaps.s.b);
    if (r->size == c->hdr.stored_size)
        return R_DONE;
    if (resizes_bitmaps(c, r))
        return R_BITMAPS;
    return r->clusters || r->size > c->size ? R_ROOM : R_SIZE;
}

static int phase(struct zq_core *c, struct resize *r)
{
    int rc;

    switch (r->phase) {
    case R_BEGIN: rc = begin(c, r); break;
    case R_DRAIN: rc = zq_drain(c, &r->op, &r->drain); break;
    case R_ALONE:
        rc = zq_settle(c, &r->op);
        if (rc == 0)
            rc = judge(c, r);
        if (rc == 0)
            zq_mark_by_dirty(c);
        if (rc == 0)
            r->phase = after_judgement(c, r);
        return rc;
    case R_BITMAPS: return prepare_bitmaps(c, r);
    case R_SIZE: return write_size(c, r);
    case R_SIZED: return size_written(c, r);
    default: return r->phase < R_SIZE ? grow(c, r) : shrink(c, r);
    }
    if (rc == 0)
        r->phase++;
    return rc;
}

/* A switch of the header has to be judged, and what is cut off only costs space. */
static bool takes_errors(const struct resize *r)
{
    return r->phase == R_MOVED || r->phase == R_SIZED || r->phase >= R_CUT;
}

/* What a phase waited for may have failed: it would wait for the same again. */
static int step(struct zq_core *c, struct zq_op *op)
{
    struct resize *r = self(op);
    int rc = 0;

    while (rc == 0 && r->phase != R_DONE)
        rc = op->rc < 0 && !takes_errors(r) ? op->rc : phase(c, r);
    return rc;
}

/* The image is everybody's again. */
static void release(struct zq_core *c, struct zq_op *op)
{
    struct resize *r = self(op);

    zq_assert(zq_core_is_held(c) && (r->phase != R_ZEROED || r->zeros.finished));
    zq_drain_leave(c, &r->drain);
    zq_row_leave(c, &r->row, r->switching); /* after a switch that failed they may be named */
    zq_bitmap_room_leave(c, &r->room, &r->bitmaps.s);
    zq_bitmap_resize_free(&r->bitmaps);
    zq_resize_zones_leave(c, &r->zones);
    zq_memtable_close(&r->l1);
    zq_free(&c->hooks, r->buf, (size_t)1 << c->cluster_bits);
    zq_release_mapping(c, op);
    if (!r->holds)
        return;
    zq_assert_k(N8, c->exclusive && (c->zoned || c->seq_start == c->size));
    c->exclusive = false;
    zq_wake(&c->ready, &c->gate_waiters);
}

/* A hole, space that reads as zeros, or zeros. */
static uint32_t space_of(uint32_t flags)
{
    return flags & ZQCOW2_RESIZE_METADATA ? ZQCOW2_IO_ZERO :
           flags & ZQCOW2_RESIZE_FALLOC   ? ZQ_IO_ALLOCATE :
           flags & ZQCOW2_RESIZE_FULL     ? ZQ_IO_FILL :
                                            0;
}

int zq_resize_run(struct zq_core *c, uint64_t size, uint32_t flags, struct zqcow2_error *err)
{
    struct resize r = {.op.core = c,
                       .err = err,
                       .size = size,
                       .shrinks = flags & ZQCOW2_RESIZE_SHRINK,
                       .space = space_of(flags)};

    zq_bitmap_room_init(&r.room);
    return zq_op_run_alone(c, &r.op, step, release, NULL);
}
