/* SPDX-License-Identifier: MIT */
/*
 * Writes, writes of zeros and discards where there is no write pointer: conventional zones and
 * plain images. A cluster that may be overwritten is; any other is replaced by a new one (R14).
 *
 * First the whole request is prepared: its guest clusters made its own, every new cluster, every
 * record, and room for the slices that will change. So it fails for space or memory before it has
 * changed anything (I13). Then its bytes move: first those that go to new clusters, which nothing
 * points to yet, then those that are overwritten in place. At last the mapping changes, slice by
 * slice, which waits for nothing that a lack of space could stop.
 */
#include <errno.h>
#include "ops/overwrite.h"
#include "base/report.h"
#include "ops/flush.h"
#include "space/admit.h"
#include "space/compress.h"
#include "space/fill.h"
#include "space/transfer.h"
#include "space/unmap.h"

enum { D_PREPARE, D_FILL, D_IN_PLACE, D_COMMIT, D_FUA };

static bool zeroing(const struct zq_op *op)
{
    return op->req.op != ZQCOW2_OP_WRITE;
}

static bool keeps_space(const struct zq_op *op)
{
    return op->req.flags & ZQCOW2_NO_UNMAP;
}

static uint32_t io_kind(const struct zq_op *op)
{
    if (zeroing(op))
        return zq_zeros_kind(op);
    /* A resize writes without bytes: it has the flag, which no other write may have. */
    return keeps_space(op) ? op->own.overwrite.space : ZQCOW2_IO_WRITE;
}

static enum zq_unlink leaves(const struct zq_op *op)
{
    return keeps_space(op) ? ZQ_LEAVE_PLACE : ZQ_LEAVE_ZEROS;
}

/* Conventional zones lie at the device's start: [0, end) may be written anywhere. */
static int check_bounds(const struct zq_core *c, const struct zq_op *op)
{
    if (op->req.offset + op->length <= c->seq_start)
        return 0;
    return op->req.op == ZQCOW2_OP_DISCARD ? ZQCOW2_EZONE_STATE : ZQCOW2_EZONE_BOUNDARY;
}

/*
 * A raw data file is read without the image: it gets the zeros themselves, and what is mapped stays
 * (D1).
 */
static bool may_unlink(const struct zq_core *c, const struct zq_op *op, uint64_t at)
{
    if (keeps_space(op) && !zq_l2_has_zero(&c->map.form))
        return false;
    return !c->data_file.raw && zq_map_may_unlink(&c->map, at);
}

/*
 * Whole clusters of zeros, or to be discarded, are simply unmapped: then up to *stop. Not where a
 * source would show and the version has no entry for zeros: there zeros are written.
 */
static bool can_unmap(const struct zq_core *c, const struct zq_op *op, uint64_t at, uint64_t *stop)
{
    uint64_t size = (uint64_t)1 << c->cluster_bits, end = op->req.offset + op->length;

    /* The device's last cluster may be short: its end is as good as a cluster's. */
    end = end == c->size ? zq_align_up(end, size) : zq_align_down(end, size);
    if (!zeroing(op) || (at & (size - 1)) || end <= at || !may_unlink(c, op, at))
        return false;
    *stop = end;
    return true;
}

static uint64_t unit_bytes(const struct zq_core *c)
{
    return zq_l2_unit_bytes(&c->map.form);
}

/*
 * The same for whole units of a cluster that is not covered whole, up to *stop: it keeps its place
 * in the file. Not for a discard, which would gain nothing. The caller knows that the cluster is
 * not compressed: of such a one there are no units.
 */
static bool can_unmap_units(const struct zq_core *c, const struct zq_op *op, uint64_t at,
                            uint64_t *stop)
{
    uint64_t unit, end = op->req.offset + op->length;

    if (op->req.op != ZQCOW2_OP_WRITE_ZEROES)
        return false;
    unit = unit_bytes(c);
    end = end == c->size ? zq_align_up(end, unit) : zq_align_down(end, unit);
    end = zq_min(end, ((at >> c->cluster_bits) + 1) << c->cluster_bits);
    if ((at & (unit - 1)) || end <= at || !may_unlink(c, op, at))
        return false;
    *stop = end;
    return true;
}

/* Does any whole unit lie in what is to be zeros? */
static bool may_unmap(const struct zq_core *c, const struct zq_op *op)
{
    uint64_t at = zq_align_up(op->req.offset, (uint64_t)1 << c->cluster_bits), stop;

    return can_unmap(c, op, at, &stop) ||
           can_unmap_units(c, op, zq_align_up(op->req.offset, unit_bytes(c)), &stop);
}

/* Where the piece that begins at `at` ends, of what is not unmapped in whole clusters. */
static uint64_t piece_end(const struct zq_core *c, const struct zq_op *op, uint64_t at)
{
    uint64_t size = (uint64_t)1 << c->cluster_bits, end = op->req.offset + op->length;

    return zeroing(op) ? zq_min(end, zq_align_down(at, size) + size) : end;
}

/* The same where no new cluster is needed: of zeros, a part of a unit is a piece of its own. */
static uint64_t part_end(const struct zq_core *c, const struct zq_op *op, uint64_t at)
{
    uint64_t end = piece_end(c, op, at), unit = zeroing(op) ? zq_align_up(at, unit_bytes(c)) : at;

    return at < unit ? zq_min(end, unit) : end;
}

static bool is_zero_already(const struct zq_core *c, const struct zq_op *op, uint64_t at,
                            const struct zq_extent *e)
{
    return zeroing(op) && zq_map_reads_zeros(&c->map, at, e->type);
}

/* Of a cluster that a discard does not cover whole it changes nothing. */
static bool is_left_out(const struct zq_core *c, const struct zq_op *op, uint64_t at)
{
    uint64_t size = (uint64_t)1 << c->cluster_bits, cluster = zq_align_down(at, size);
    uint64_t end = op->req.offset + op->length;

    return op->req.op == ZQCOW2_OP_DISCARD &&
           (cluster < op->req.offset || (end - cluster < size && end != c->size));
}

/*
 * Clusters for what begins at `at`; returns how far in *stop. A new cluster takes all that the
 * request has for it; in one that is there, units of one kind are a piece.
 */
static int prepare_fill(struct zq_core *c, struct zq_op *op, uint64_t at, const struct zq_extent *e,
                        uint64_t *stop)
{
    uint64_t end = piece_end(c, op, at);
    struct zq_fill *f;
    int rc = zq_may_allocate(c, op);

    if (zq_fill_has_room(e))
        end = zq_min(part_end(c, op, at), at + e->len);
    if (rc == 0)
        rc = zq_fill_prepare(c, op, at, end, e);
    if (rc)
        return rc;
    f = zq_fill_last(op);
    *stop = f->guest + f->tail;
    zq_assert_k(R14, f->guest + f->head == at && at < *stop && *stop <= end);
    f->data_kind = io_kind(op);
    f->data_len = *stop - at;
    return 0;
}

static void begin_in_place(struct zq_core *c, struct zq_op *op, const struct zq_extent *e)
{
    zq_assert_k(R14, zq_extent_in_place(e) && e->len && e->len <= op->length - op->pos);
    zq_cache_release(&c->cache, &op->g);
    zq_transfer_begin(op, io_kind(op), e->host, e->len);
    op->own.overwrite.phase = D_IN_PLACE;
}

/* The same beforehand: *stop, how far. What has its records keeps them while it waits. */
static int prepare_unmap(struct zq_core *c, struct zq_op *op, uint64_t at, uint64_t *stop)
{
    int rc = zq_unmap_prepare(c, op, &at, *stop, leaves(op));

    *stop = at;
    if (rc == ZQ_WAIT)
        op->own.overwrite.prepared = zq_min(at - op->req.offset, op->length);
    return rc;
}

/*
 * The caller wants no bytes written, be it because it can do that better (QEMU), or because it
 * would take too long. Nothing has changed so far.
 */
static bool may_write(const struct zq_op *op)
{
    return !(op->req.flags & ZQCOW2_NO_FALLBACK);
}

/* *e: as below. */
static int prepare_extent(struct zq_core *c, struct zq_op *op, uint64_t at, struct zq_extent *e,
                          uint64_t *stop)
{
    int rc = e->len ? 0 : zq_map_lookup(&c->map, &op->g, at, piece_end(c, op, at) - at, e);

    if (rc)
        return rc;
    if (zeroing(op) && e->type != ZQ_EXT_COMPRESSED && can_unmap_units(c, op, at, stop))
        return prepare_unmap(c, op, at, stop);
    if (zeroing(op) && !may_write(op) && !is_zero_already(c, op, at, e))
        return -EOPNOTSUPP;
    op->own.overwrite.in_place |= zq_extent_in_place(e);
    if (!zq_extent_in_place(e) && !is_zero_already(c, op, at, e))
        return prepare_fill(c, op, at, e, stop);
    *stop = zq_min(part_end(c, op, at), at + e->len);
    return 0;
}

static bool compresses(const struct zq_op *op)
{
    return op->req.flags & ZQCOW2_COMPRESS;
}

/*
 * A whole cluster, whatever is there now: it is in the file when it counts as prepared, because its
 * room is not known before it is packed.
 */
static int prepare_packed(struct zq_core *c, struct zq_op *op, uint64_t at, uint64_t *stop)
{
    struct zq_extent e = {.len = 0};
    int rc = zq_may_allocate(c, op);

    *stop = at + ((uint64_t)1 << c->cluster_bits);
    if (rc == 0 && !zq_compress_is_begun(op))
        rc = zq_map_lookup(&c->map, &op->g, at, *stop - at, &e);
    if (rc == 0)
        rc = zq_compress_step(c, op, at, &e, 0);
    return rc;
}

/* *e: what the guest range maps to, if this hold of the mutex has looked it up; else len is 0. */
static int prepare_piece(struct zq_core *c, struct zq_op *op, struct zq_extent *e)
{
    uint64_t at = op->req.offset + op->own.overwrite.prepared, stop = piece_end(c, op, at);
    int rc = 0;

    zq_assert_k(R14, op->range.held && op->own.overwrite.prepared < op->length);
    if (compresses(op))
        rc = prepare_packed(c, op, at, &stop);
    else if (can_unmap(c, op, at, &stop))
        rc = prepare_unmap(c, op, at, &stop);
    else if (!is_left_out(c, op, at))
        rc = prepare_extent(c, op, at, e, &stop);
    if (rc == 0)
        op->own.overwrite.prepared = zq_min(stop - op->req.offset, op->length);
    if (rc == 0)
        zq_cache_release(&c->cache, &op->g);
    return rc;
}

/* To where nothing points yet. */
static int make_fills(struct zq_core *c, struct zq_op *op)
{
    int rc = zq_fill_step(c, op);

    while (rc == 0 && !zq_list_empty(&op->fills)) {
        const struct zq_fill *f = zq_container(op->fills.next, const struct zq_fill, link);

        zq_iov_seek(op, f->guest + f->head - op->req.offset);
        zq_fill_start(op);
        rc = zq_fill_step(c, op);
    }
    return rc;
}

/*
 * Passes over what is not overwritten in place, or begins to. The mapping is as it was prepared,
 * because the request owns its range (R14), so what was in place then is so still.
 */
static int next_in_place(struct zq_core *c, struct zq_op *op)
{
    uint64_t at = op->req.offset + op->pos, stop = piece_end(c, op, at);
    struct zq_extent e;
    int rc;

    if (!can_unmap(c, op, at, &stop) && !is_left_out(c, op, at)) {
        rc = zq_map_lookup(&c->map, &op->g, at, part_end(c, op, at) - at, &e);
        if (rc)
            return rc;
        stop = at + e.len;
        if (zq_extent_in_place(&e) && !can_unmap_units(c, op, at, &stop)) {
            begin_in_place(c, op, &e);
            return 0;
        }
    }
    zq_cache_release(&c->cache, &op->g);
    zq_iov_seek(op, zq_min(stop - op->req.offset, op->length));
    return 0;
}

static int move_in_place(struct zq_core *c, struct zq_op *op)
{
    int rc = zq_acknowledged(c, zq_transfer_step(c, op));

    while (rc == 0 && op->pos < op->length) {
        rc = next_in_place(c, op);
        if (rc == 0)
            rc = zq_acknowledged(c, zq_transfer_step(c, op));
        if (rc == 0)
            rc = zq_op_pay(c, op, ZQ_COST_STEP);
    }
    return rc;
}

/* The next piece of the mapping. What a slice needs is done in one hold of the mutex. */
static int commit_piece(struct zq_core *c, struct zq_op *op)
{
    const struct zq_fill *f = zq_fill_made(op);
    uint64_t at = op->req.offset + op->pos, stop = part_end(c, op, at), to = at;
    int rc = 0;

    if (f && f->guest + f->head == at) {
        stop = f->guest + f->tail;
        rc = zq_fill_link(c, op);
        to = rc == 0 ? stop : at;
    } else if (can_unmap(c, op, at, &stop) || can_unmap_units(c, op, at, &stop)) {
        rc = zq_unmap(c, op, &to, stop, leaves(op));
    } else {
        to = f ? zq_min(stop, f->guest + f->head) : stop;
    }
    op->pos = zq_min(to - op->req.offset, op->length);
    return rc;
}

/*
 * From here on a lack of space is no way out: all that it needs was taken in D_PREPARE (I13). It
 * may still wait, for slices to be loaded or thawed.
 */
static int commit(struct zq_core *c, struct zq_op *op)
{
    int rc = op->rc < 0 ? op->rc : c->dead ? ZQCOW2_EDEAD : 0;

    zq_assert_k(R14, op->range.held);
    zq_assert_k(I13,
                zq_list_empty(&op->fills) && !op->fill); /* all that has to be is in the file */
    while (rc == 0 && op->pos < op->length) {
        rc = commit_piece(c, op);
        if (rc == 0)
            rc = zq_op_pay(c, op, ZQ_COST_STEP);
    }
    return rc;
}

/*
 * One I/O in place changes no mapping, and R5 keeps its cluster: no operation has to wait for it.
 * Zeros with space are several, between which only the range would keep it.
 */
static int overwrite(struct zq_core *c, struct zq_op *op, struct zq_extent *e)
{
    int rc;

    if (op->req.op == ZQCOW2_OP_DISCARD || op->range.held ||
        op->req.flags & (ZQCOW2_COMPRESS | ZQCOW2_NO_UNMAP | ZQCOW2_NO_FALLBACK))
        return 0;
    rc = zq_map_lookup(&c->map, &op->g, op->req.offset, op->length, e);
    if (rc == 0 && zq_extent_in_place(e) && e->len == op->length && !may_unmap(c, op))
        begin_in_place(c, op, e);
    return rc;
}

/*
 * Room for all slices, before the first of them changes. One alone needs none if nothing has been
 * overwritten by then: it is the first.
 */
static int reserve_room(struct zq_core *c, struct zq_op *op)
{
    uint32_t n = op->slices > 1 || op->own.overwrite.in_place ? op->slices : 0;

    return zq_cache_reserve(&c->cache, &op->g, n);
}

static int prepare(struct zq_core *c, struct zq_op *op)
{
    struct zq_extent e = {.len = 0};
    int rc = op->rc < 0 ? op->rc : c->dead ? ZQCOW2_EDEAD : check_bounds(c, op);

    if (rc == 0)
        rc = zq_may_change(c, op, op->req.offset, op->length);
    if (rc == 0)
        rc = overwrite(c, op, &e);
    if (rc || op->own.overwrite.phase != D_PREPARE)
        return rc;
    rc = zq_range_take(c, op);
    for (; rc == 0 && op->own.overwrite.prepared < op->length; e.len = 0) {
        rc = prepare_piece(c, op, &e);
        if (rc == 0)
            rc = zq_op_pay(c, op, ZQ_COST_STEP);
    }
    if (rc == 0)
        rc = reserve_room(c, op);
    return rc;
}

static int run_phase(struct zq_core *c, struct zq_op *op)
{
    switch (op->own.overwrite.phase) {
    case D_PREPARE: return prepare(c, op);
    case D_FILL: return make_fills(c, op);
    case D_IN_PLACE: return move_in_place(c, op);
    default: return commit(c, op);
    }
}

/* An overwrite in place by one I/O has no range, and nothing to commit. */
static uint8_t phase_after(const struct zq_op *op)
{
    switch (op->own.overwrite.phase) {
    case D_PREPARE: return D_FILL;
    case D_FILL: return op->own.overwrite.in_place ? D_IN_PLACE : D_COMMIT;
    case D_IN_PLACE: return op->range.held ? D_COMMIT : D_FUA;
    default: return D_FUA;
    }
}

/* Each begins with the request's first byte. */
static void enter(struct zq_core *c, struct zq_op *op, uint8_t phase)
{
    zq_cache_release(&c->cache, &op->g);
    op->own.overwrite.phase = phase;
    zq_iov_seek(op, 0);
}

/* Both may be called when nothing is held. */
static void give_back(struct zq_core *c, struct zq_op *op)
{
    zq_cache_unreserve(&c->cache, &op->g);
    zq_range_leave(c, op);
}

int zq_step_write(struct zq_core *c, struct zq_op *op)
{
    while (op->own.overwrite.phase != D_FUA) {
        uint8_t phase = op->own.overwrite.phase;
        int rc = run_phase(c, op);

        if (rc)
            return rc;
        if (op->own.overwrite.phase == phase)
            enter(c, op, phase_after(op));
        if (op->own.overwrite.phase != D_FUA)
            continue;
        zq_assert_k(I13, !zq_fill_is_pending(op) && zq_list_empty(&op->fills));
        give_back(c, op);
        op->round = 0;
    }
    return zq_step_fua(c, op);
}

void zq_release_overwrite(struct zq_core *c, struct zq_op *op)
{
    give_back(c, op);
    zq_release_mapping(c, op);
}
