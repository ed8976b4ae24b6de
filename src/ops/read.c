/* SPDX-License-Identifier: MIT */
/*
 * Reads: what is mapped from the host, what is packed unpacked, the rest from the sources, or
 * zeros.
 *
 * A read goes piece by piece, and each piece is looked up when it begins: the mapping may change
 * between two of them, never under one, for a piece in flight keeps its clusters (R5). The write
 * pointer is asked before the mapping, so that stale clusters behind it are never served (I5). What
 * was not mapped then is the source's, even if it is mapped by now: the write came after the read.
 */
#include <errno.h>
#include "ops/read.h"
#include "base/report.h"
#include "format/codec.h"
#include "space/packed.h"
#include "space/transfer.h"

enum { R_BEGIN, R_NEXT, R_SOURCE, R_MOVE, R_PACKED, R_UNPACKED };

/* A read that touches an OFFLINE zone fails whole. */
static int check_zones(struct zq_core *c, struct zq_op *op)
{
    uint32_t first = zq_zone_of(&c->zones, op->req.offset);
    uint32_t last = zq_zone_of(&c->zones, op->req.offset + op->length - 1);
    int rc = 0;

    while (rc == 0 && op->own.read.seen <= last - first) {
        uint32_t i = first + op->own.read.seen++;

        op->res.offset = zq_geometry_start(&c->zones.g, i);
        rc = c->zones.v[i].forced == ZQCOW2_ZONE_OFFLINE ? ZQCOW2_EZONE_OFFLINE :
                                                           zq_op_pay(c, op, ZQ_COST_LOOK);
    }
    return rc;
}

uint64_t zq_readable(const struct zq_core *c, uint64_t at, uint64_t len, uint64_t *zeros)
{
    const struct zq_zones *zs = &c->zones;
    uint32_t zone;
    uint64_t end;

    if (at < c->seq_start)
        return zq_min(len, c->seq_start - at);
    zone = zq_zone_of(zs, at);
    if (at < zs->v[zone].wp)
        return zq_min(len, zs->v[zone].wp - at);
    end = zq_geometry_start(&zs->g, zone) + zq_geometry_length(&zs->g, zone);
    *zeros = zq_min(len, end - at);
    return 0;
}

/* A compressed cluster: its bytes are read whole, and unpacked outside the mutex. */
static int begin_packed(struct zq_core *c, struct zq_op *op)
{
    const struct zq_walk *w = &op->own.read.walk;
    struct zq_packed *p = &op->own.read.packed;
    int rc = zq_packed_alloc(c, p, w->at, &w->e.l2);

    if (rc < 0)
        return rc;
    op->xfer.left = zq_packed_part(p, w->guest, w->e.len);
    op->own.read.phase = R_PACKED;
    return zq_op_read_from(c, op, p->x, p->in, p->host, p->len);
}

static void unpack_work(struct zq_io *io)
{
    struct zq_op *op = zq_container(io, struct zq_op, io);
    const struct zq_packed *p = &op->own.read.packed;

    io->ret = zq_packed_inflate(op->core, p);
    if (io->ret == 0)
        zq_iov_copy_out(op, zq_packed_at(p, op->req.offset + op->pos), op->xfer.left);
}

/* It is known who has the bytes, and where. */
static int begin_piece(struct zq_core *c, struct zq_op *op)
{
    const struct zq_walk *w = &op->own.read.walk;

    zq_assert(w->e.len && w->e.len <= op->length - op->pos);
    if (w->e.type == ZQ_EXT_COMPRESSED)
        return begin_packed(c, op);
    if (w->e.type == ZQ_EXT_DATA && !w->at && c->data_file.absent)
        return ZQCOW2_EFEATURE;
    if (w->e.type != ZQ_EXT_DATA)
        zq_transfer_begin(op, ZQ_IO_WORK, 0, w->e.len);
    else if (w->at)
        zq_transfer_read_from(op, w->at, w->e.host, w->e.len);
    else
        zq_transfer_begin(op, ZQCOW2_IO_READ, w->e.host, w->e.len);
    op->own.read.phase = R_MOVE;
    return 0;
}

static int next_piece(struct zq_core *c, struct zq_op *op)
{
    uint64_t at = op->req.offset + op->pos, left = op->length - op->pos, zeros = 0;
    uint64_t len = zq_readable(c, at, left, &zeros);
    struct zq_extent e = {.type = ZQ_EXT_ZERO, .len = zeros};
    int rc = len ? zq_map_lookup(&c->map, &op->g, at, len, &e) : 0;

    zq_assert_k(I5, (len || zeros) && zq_max(len, zeros) <= left);
    if (rc)
        return rc;
    zq_cache_release(&c->cache, &op->g);
    op->own.read.walk = zq_walk_from(NULL, at, e.len);
    op->own.read.walk.e = e;
    if (e.type != ZQ_EXT_UNALLOC)
        return begin_piece(c, op);
    if (c->source_absent)
        return ZQCOW2_EFEATURE;
    op->own.read.walk.at = c->source;
    op->own.read.phase = R_SOURCE;
    return 0;
}

/* The image does not map it: who does? */
static int ask_source(struct zq_core *c, struct zq_op *op)
{
    int rc = op->rc;

    if (rc < 0)
        zq_walk_drop(&op->own.read.walk, &op->g);
    else
        rc = zq_walk(&op->own.read.walk, &op->g);
    return rc ? rc : begin_piece(c, op);
}

/*
 * A compressed cluster takes three phases: its bytes are read, unpacked without the mutex, and its
 * buffers freed, after an error as well.
 */
static int run_phase(struct zq_core *c, struct zq_op *op)
{
    int rc;

    switch (op->own.read.phase) {
    case R_NEXT: return op->rc < 0 ? op->rc : next_piece(c, op);
    case R_SOURCE: return ask_source(c, op);
    case R_MOVE:
        rc = zq_transfer_step(c, op);
        if (rc == 0)
            op->own.read.phase = R_NEXT;
        return rc;
    case R_PACKED:
        op->own.read.phase = R_UNPACKED;
        return op->rc < 0 ? 0 :
                            zq_op_work(c, op, unpack_work, zq_packed_cost(&op->own.read.packed));
    default:
        zq_packed_free(c, &op->own.read.packed);
        op->own.read.phase = R_NEXT;
        return op->rc < 0 ? op->rc : 0;
    }
}

/*
 * OFFLINE is asked for before the first piece only: a zone that goes offline later lets this read
 * end.
 */
int zq_step_read(struct zq_core *c, struct zq_op *op)
{
    if (op->own.read.phase == R_BEGIN) {
        int rc = c->zoned ? check_zones(c, op) : 0;

        if (rc)
            return rc;
        op->own.read.phase = R_NEXT;
    }
    while (op->pos < op->length || op->own.read.phase != R_NEXT) {
        int rc = run_phase(c, op);
        if (rc)
            return rc;
    }
    return 0;
}
