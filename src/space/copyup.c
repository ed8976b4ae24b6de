/* SPDX-License-Identifier: MIT */
/*
 * Asks for the range piece by piece, and reads, unpacks or blanks each piece into memory. The
 * sources never change, so the pieces fit together whenever they are read.
 */
#include "space/copyup.h"

#include <errno.h>
#include "base/report.h"
#include "space/packed.h"
#include "space/transfer.h"

enum { U_ASK, U_PACKED, U_MOVED };

/* A compressed cluster takes no more of the file than two clusters, and the blocks that it cuts. */
int zq_copyup_alloc(struct zq_core *c, struct zq_kept *u)
{
    uint64_t cluster = 0, align = 1;

    for (const struct zq_source *s = c->source; s; s = s->next) {
        if (s->raw)
            continue;
        cluster = zq_max(cluster, (uint64_t)1 << s->map.cluster_bits);
        align = zq_max(align, s->x.be->limits.io_align);
    }
    if (cluster && zq_packed_room(c, &u->packed, 2 * (cluster + align), cluster) < 0)
        return -ENOMEM;
    u->room = (uint64_t)1 << c->cluster_bits;
    u->buf = zq_alloc(&c->hooks, 4096, u->room);
    return u->buf ? 0 : -ENOMEM; /* the fill frees the rest */
}

/* Where the piece goes: the buffer begins at guest address `from`. */
static uint8_t *target(const struct zq_kept *u)
{
    zq_assert(u->from <= u->at && u->at + u->walk.e.len <= u->from + u->room);
    return u->buf + (u->at - u->from);
}

static void blank_work(struct zq_io *io)
{
    struct zq_op *op = zq_container(io, struct zq_op, io);
    const struct zq_kept *u = op->fill->kept;

    memset(target(u), 0, (size_t)u->walk.e.len);
}

static void unpack_work(struct zq_io *io)
{
    struct zq_op *op = zq_container(io, struct zq_op, io);
    const struct zq_kept *u = op->fill->kept;

    io->ret = zq_packed_inflate(op->core, &u->packed);
    if (io->ret == 0)
        memcpy(target(u), zq_packed_at(&u->packed, u->at), (size_t)u->walk.e.len);
}

/* The room was taken by zq_copyup_alloc(), for the largest cluster of the chain. */
static int read_packed(struct zq_core *c, struct zq_op *op, struct zq_kept *u)
{
    struct zq_packed *p = &u->packed;

    zq_packed_find(c, p, u->walk.at, &u->walk.e.l2);
    u->walk.e.len = zq_packed_part(p, u->at, u->walk.e.len);
    u->phase = U_PACKED;
    return zq_op_read_from(c, op, p->x, p->in, p->host, p->len);
}

/* Beyond the end of the device are zeros, also where the source has bytes (S3). */
static void begin_asking(struct zq_core *c, struct zq_kept *u)
{
    bool inside = u->at < c->size;

    u->walk = zq_walk_from(inside ? c->source : NULL, u->at,
                           (inside ? zq_min(u->to, c->size) : u->to) - u->at);
    u->asking = true;
}

static int ask(struct zq_core *c, struct zq_op *op, struct zq_kept *u)
{
    const struct zq_walk *w = &u->walk;
    int rc;

    if (!u->asking)
        begin_asking(c, u);
    rc = zq_walk(&u->walk, &op->g);
    if (rc)
        return rc;
    u->asking = false;
    u->found |= w->e.type == ZQ_EXT_DATA || w->e.type == ZQ_EXT_COMPRESSED;
    if (w->e.type == ZQ_EXT_COMPRESSED)
        return read_packed(c, op, u);
    u->phase = U_MOVED;
    if (w->e.type != ZQ_EXT_DATA)
        return zq_op_work(c, op, blank_work, zq_cost_of(w->e.len, ZQ_COST_ZEROS));
    return zq_op_read_from(c, op, w->at->data, target(u), w->e.host, w->e.len);
}

static int run_phase(struct zq_core *c, struct zq_op *op, struct zq_kept *u)
{
    switch (u->phase) {
    case U_ASK: return ask(c, op, u);
    case U_PACKED:
        u->phase = U_MOVED;
        return zq_op_work(c, op, unpack_work, zq_packed_cost(&u->packed));
    default:
        u->at += u->walk.e.len;
        u->phase = U_ASK;
        return 0;
    }
}

/* begun: the arguments count only in the first call for a range; later ones continue it. */
int zq_copyup_step(struct zq_core *c, struct zq_op *op, uint64_t from, uint64_t to)
{
    struct zq_kept *u = op->fill->kept;
    int rc = 0;

    if (!u->begun) {
        u->from = u->at = from;
        u->to = to;
        u->begun = true;
        u->found = false;
    }
    while (rc == 0 && u->at < u->to)
        rc = op->rc < 0 ? op->rc : run_phase(c, op, u);
    if (rc == 0)
        u->begun = false;
    return rc;
}

void zq_copyup_drop(struct zq_op *op)
{
    struct zq_kept *u = op->fill->kept;

    if (u && u->asking)
        zq_walk_drop(&u->walk, &op->g);
}
