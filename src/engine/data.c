/* SPDX-License-Identifier: MIT */
/*
 * Writes, writes of zeros and discards where there is no write pointer: conventional zones and
 * plain images. A cluster that may be overwritten is; any other is replaced by a new one (R14).
 */
#include <errno.h>
#include "base/report.h"
#include "engine/core.h"

enum { D_NEXT, D_MOVE, D_FILL, D_UNMAP, D_FUA };

static bool zeroing(const struct zq_op *op)
{
    return op->req.op != ZQCOW2_OP_WRITE;
}

/* Conventional zones lie at the device's start: [0, end) may be written anywhere. */
static int check_bounds(const struct zq_core *c, const struct zq_op *op)
{
    uint64_t end = c->zoned ? zq_zone_start(&c->zones.g, c->zones.g.conventional) : c->size;
    bool sequential = c->zoned && op->req.offset >= end;

    if (op->req.op == ZQCOW2_OP_DISCARD && c->zoned && (sequential || op->req.offset + op->length > end))
        return ZQCOW2_EZONE_STATE;
    return op->req.offset + op->length > end ? ZQCOW2_EZONE_BOUNDARY : 0;
}

static void fill_range(struct zq_op *op, uint64_t at, uint64_t end)
{
    struct zq_fill *f = &op->fill;
    uint64_t stop = zq_min(end, f->guest + f->bytes);

    f->head = at - f->guest;
    f->tail = stop - f->guest;
    f->data_kind = zeroing(op) ? ZQCOW2_IO_ZERO : ZQCOW2_IO_WRITE;
    f->data_len = stop - at;
    op->phase = D_FILL;
}

static int write_new(struct zq_core *c, struct zq_op *op, uint64_t at, uint64_t end,
                     const struct zq_extent *e)
{
    uint64_t size = (uint64_t)1 << c->cluster_bits, guest = zq_round_down(at, size);
    int rc = zq_may_allocate(c, op);

    if (rc == 0)
        rc = zq_fill_begin(c, op, guest, zq_round_up(end, size) - guest, e);
    if (rc)
        return rc;
    fill_range(op, at, end);
    return 0;
}

/* Whole clusters of zeros, or to be discarded, are simply unmapped: up to *stop. */
static bool can_unmap(const struct zq_core *c, const struct zq_op *op, uint64_t at, uint64_t end,
                      uint64_t *stop)
{
    uint64_t size = (uint64_t)1 << c->cluster_bits;

    /* The device's last cluster may be short: its end is as good as a cluster's. */
    *stop = end == c->size ? zq_round_up(end, size) : zq_round_down(end, size);
    return zeroing(op) && !(at & (size - 1)) && *stop > at;
}

/* Decides what becomes of the next bytes. */
static int next_piece(struct zq_core *c, struct zq_op *op)
{
    uint64_t at = op->req.offset + op->pos, end = op->req.offset + op->length, stop;
    uint64_t size = (uint64_t)1 << c->cluster_bits;
    struct zq_extent e;
    int rc;

    if (can_unmap(c, op, at, end, &stop)) {
        op->phase = D_UNMAP;
        return 0;
    }
    if (zeroing(op)) /* a piece of one cluster */
        end = zq_min(end, zq_round_down(at, size) + size);
    if (op->req.op == ZQCOW2_OP_DISCARD) {
        op->pos += end - at;
        return 0;
    }
    rc = zq_map_lookup(&c->map, &op->g, at, end - at, &e);
    if (rc)
        return rc;
    if (e.type == ZQ_EXT_DATA && e.own) {
        zq_cache_release(&c->cache, &op->g);
        zq_transfer_begin(op, zeroing(op) ? ZQCOW2_IO_ZERO : ZQCOW2_IO_WRITE, e.host, e.len);
        op->phase = D_MOVE;
        return 0;
    }
    if (zeroing(op) && (e.type == ZQ_EXT_UNALLOC || e.type == ZQ_EXT_ZERO)) {
        /* Unless somebody is about to put data there, it is zero already. */
        if (zq_range_owned(c, zq_round_down(at, size), size))
            return zq_cache_park(&c->cache, &op->g, &c->owner_waiters);
        op->pos += zq_min(end - at, e.len);
        return 0;
    }
    return write_new(c, op, at, end, &e);
}

static int unmap_piece(struct zq_core *c, struct zq_op *op)
{
    uint64_t at = op->req.offset + op->pos, begin = at, stop;
    int rc;

    can_unmap(c, op, at, op->req.offset + op->length, &stop);
    rc = zq_unmap(c, op, &at, stop);
    op->pos = zq_min(op->pos + (at - begin), op->length);
    return rc;
}

static int run_phase(struct zq_core *c, struct zq_op *op)
{
    int rc;

    if (op->phase == D_FILL)
        return zq_fill_step(c, op);
    if (op->phase == D_MOVE) {
        rc = zq_transfer_step(c, op);
        return rc == 0 && c->dead ? ZQCOW2_EDEAD : rc;
    }
    if (op->rc < 0 || c->dead)
        return op->rc < 0 ? op->rc : ZQCOW2_EDEAD;
    return op->phase == D_UNMAP ? unmap_piece(c, op) : next_piece(c, op);
}

int zq_step_write(struct zq_core *c, struct zq_op *op)
{
    int rc;

    if (op->phase == D_FUA)
        return zq_step_fua(c, op);
    if (op->phase == D_NEXT && op->pos == 0) {
        rc = check_bounds(c, op);
        if (rc < 0)
            return rc;
    }
    while (op->phase != D_NEXT || op->pos < op->length) {
        uint8_t before = op->phase;

        rc = run_phase(c, op);
        if (rc)
            return rc;
        if (before != D_NEXT) {
            zq_cache_release(&c->cache, &op->g);
            op->phase = D_NEXT;
        }
    }
    op->phase = D_FUA;
    op->round = 0;
    return zq_step_fua(c, op);
}

int zq_step_discard(struct zq_core *c, struct zq_op *op)
{
    return zq_step_write(c, op);
}
