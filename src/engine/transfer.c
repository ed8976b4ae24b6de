/* SPDX-License-Identifier: MIT */
/* Moves a request's bytes between the caller's buffers and the host, piece by piece. */
#include "base/report.h"
#include "engine/core.h"

static void io_done(struct zq_io *io, int ret)
{
    struct zq_op *op = zq_container(io, struct zq_op, io);

    op->rc = ret;
    zq_op_step(op);
}

void zq_iov_advance(struct zq_op *op, uint64_t len)
{
    op->pos += len;
    if (!op->req.iovcnt)
        return;
    while (len) {
        size_t rest = op->req.iov[op->iov_at].iov_len - op->iov_skip;
        if (len < rest) {
            op->iov_skip += len;
            return;
        }
        len -= rest;
        op->iov_at++;
        op->iov_skip = 0;
    }
}

/* The segments of the next len bytes, or of as many as fit into op->seg. */
static uint64_t cut_segments(struct zq_op *op, uint64_t len, uint32_t *cnt)
{
    uint64_t got = 0;
    uint32_t n = 0, at = op->iov_at;
    uint32_t max = (uint32_t)zq_min(ZQ_OP_SEGMENTS, op->core->be->limits.max_iov);
    size_t skip = op->iov_skip;

    while (got < len && n < max) {
        const struct iovec *v = &op->req.iov[at++];
        uint64_t take = zq_min(v->iov_len - skip, len - got);
        if (take) {
            op->seg[n].iov_base = (uint8_t *)v->iov_base + skip;
            op->seg[n++].iov_len = take;
        }
        got += take;
        skip = 0;
    }
    *cnt = n;
    return got;
}

/* Points the io at the next piece; the whole request goes as the caller has it. */
static uint64_t take_iov(const struct zq_core *c, struct zq_op *op, uint64_t len)
{
    struct zqcow2_io *p = &op->io.pub;

    if (len == op->length && op->req.iovcnt <= c->be->limits.max_iov) {
        p->iov = op->req.iov;
        p->iovcnt = op->req.iovcnt;
        return len;
    }
    len = cut_segments(op, len, &p->iovcnt);
    p->iov = op->seg;
    return len;
}

void zq_transfer_begin(struct zq_op *op, uint32_t kind, uint64_t host, uint64_t len)
{
    op->xfer.kind = kind;
    op->xfer.host = host;
    op->xfer.left = len;
    op->io.pub.length = 0;
    op->rc = 0;
}

static void zero_work(struct zq_io *io)
{
    for (uint32_t i = 0; i < io->pub.iovcnt; i++)
        memset(io->pub.iov[i].iov_base, 0, io->pub.iov[i].iov_len);
}

int zq_transfer_step(struct zq_core *c, struct zq_op *op)
{
    struct zq_transfer *t = &op->xfer;
    uint64_t len = op->io.pub.length;

    if (op->rc < 0)
        return op->rc;
    if (len) { /* a piece has arrived */
        zq_iov_advance(op, len);
        t->host += len;
        /* A mapping holds as long as the io that found it (R5): the next piece looks anew. */
        t->left = op->fill ? t->left - len : 0;
        op->io.pub.length = 0;
    }
    if (!t->left)
        return 0;
    len = t->left;
    zq_io_prep(&op->io, t->kind, t->host, len);
    op->io.complete = io_done;
    if (t->kind == ZQ_IO_WORK)
        len = take_iov(c, op, len);
    else if (t->kind == ZQCOW2_IO_ZERO)
        len = zq_io_piece(&c->x, t->host, len, NULL, 0);
    else
        len = take_iov(c, op, zq_io_piece(&c->x, t->host, len, op->req.iov, op->req.iovcnt));
    op->io.pub.length = len;
    op->io.work = zero_work;
    if (t->kind == ZQ_IO_WORK)
        zq_io_start(&c->x, &op->io);
    else
        zq_io_start_data(&c->x, &op->io);
    return ZQ_WAIT;
}

int zq_op_io(struct zq_core *c, struct zq_op *op, uint32_t kind, void *buf, uint64_t host,
             uint64_t len)
{
    op->rc = 0;
    if (buf)
        zq_io_prep_buf(&op->io, kind, buf, host, len);
    else
        zq_io_prep(&op->io, kind, host, len);
    op->io.complete = io_done;
    zq_io_start_data(&c->x, &op->io);
    return ZQ_WAIT;
}

int zq_op_work(struct zq_core *c, struct zq_op *op, void (*work)(struct zq_io *io))
{
    op->rc = 0;
    zq_io_prep(&op->io, ZQ_IO_WORK, 0, 0);
    op->io.complete = io_done;
    op->io.work = work;
    zq_io_start(&c->x, &op->io);
    return ZQ_WAIT;
}

void zq_iov_copy_out(struct zq_op *op, const uint8_t *from, uint64_t len)
{
    while (len) {
        uint32_t cnt;
        uint64_t n = cut_segments(op, len, &cnt);
        for (uint32_t i = 0; i < cnt; i++) {
            memcpy(op->seg[i].iov_base, from, op->seg[i].iov_len);
            from += op->seg[i].iov_len;
        }
        zq_iov_advance(op, n);
        len -= n;
    }
}
