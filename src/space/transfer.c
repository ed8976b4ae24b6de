/* SPDX-License-Identifier: MIT */
/*
 * Moves a request's bytes between the caller's buffers and the host.
 *
 * An operation has one io, op->io, so it moves one piece at a time, and its result is in op->rc
 * when it is stepped again. The elements are the caller's, which the library never changes: a
 * cursor in the operation says which byte of them comes next.
 */
#include "space/transfer.h"
#include "base/report.h"

#define MAX_ZEROS (1u << 20) /* bytes, in one piece of work */

/* Under the mutex, in the loop: the operation continues at once, without the ready list. */
static void io_done(struct zq_io *io, int ret)
{
    struct zq_op *op = zq_container(io, struct zq_op, io);

    op->rc = ret;
    zq_op_step(op);
}

/* Without elements (zeros, discards) only pos moves. */
void zq_iov_advance(struct zq_op *op, uint64_t len)
{
    op->pos += len;
    if (!op->req.iovcnt)
        return;
    while (len) {
        size_t rest = op->req.iov[op->iov_at].iov_len - op->iov_skip;

        zq_assert(op->iov_at < op->req.iovcnt);
        if (len < rest) {
            op->iov_skip += (size_t)len;
            return;
        }
        len -= rest;
        op->iov_at++;
        op->iov_skip = 0;
    }
}

void zq_iov_seek(struct zq_op *op, uint64_t pos)
{
    if (pos < op->pos) {
        op->iov_at = 0;
        op->iov_skip = 0;
        op->pos = 0;
    }
    zq_iov_advance(op, pos - op->pos);
}

void zq_transfer_begin(struct zq_op *op, uint32_t kind, uint64_t host, uint64_t len)
{
    op->xfer.kind = kind;
    op->xfer.x = op->core->data;
    op->xfer.host = host;
    op->xfer.left = len;
    op->xfer.moving = false;
    op->rc = 0;
}

void zq_transfer_read_from(struct zq_op *op, struct zq_source *from, uint64_t host, uint64_t len)
{
    zq_transfer_begin(op, ZQCOW2_IO_READ, host, len);
    op->xfer.x = from->data;
}

/* Clusters of a source never change hands: only of the image's own its I/O holds them (R5). */
static void start(struct zq_core *c, struct zq_op *op, struct zq_iox *x)
{
    if (x == c->data)
        zq_io_start_data(x, &op->io);
    else
        zq_io_start(x, &op->io);
}

/* Moves past *n bytes of the next element at most, and returns where they are; NULL: *n is 0. */
static uint8_t *next_bytes(struct zq_op *op, uint64_t *n)
{
    const struct iovec *v = &op->req.iov[op->iov_at];

    *n = zq_min(*n, v->iov_len - op->iov_skip);
    if (*n) {
        uint8_t *p = (uint8_t *)v->iov_base + op->iov_skip;

        zq_iov_advance(op, *n);
        return p;
    }
    op->iov_at++;
    op->iov_skip = 0;
    return NULL;
}

/* Of one request others wait no longer than for a few transfers of data. */
static uint64_t piece_of_zeros(const struct zq_op *op)
{
    return zq_min(op->xfer.left, MAX_ZEROS);
}

static void zero_work(struct zq_io *io)
{
    struct zq_op *op = zq_container(io, struct zq_op, io);

    for (uint64_t left = piece_of_zeros(op), n = left; left; left -= n, n = left) {
        uint8_t *p = next_bytes(op, &n);

        if (p)
            memset(p, 0, (size_t)n);
    }
}

/* Between two pieces no I/O holds the clusters: the range of the operation does. */
static void space_done(struct zq_io *io, int ret)
{
    struct zq_op *op = zq_container(io, struct zq_op, io);

    if (zq_io_more_zeros(op->xfer.x, io, op->xfer.host + op->xfer.left, ret))
        start(op->core, op, op->xfer.x);
    else
        io_done(io, ret);
}

static int start_space(struct zq_core *c, struct zq_op *op)
{
    struct zq_transfer *t = &op->xfer;

    zq_assert_k(R14, op->range.held);
    if (t->kind == ZQ_IO_FILL)
        zq_io_write_zeros(&op->io, t->host, t->host + t->left);
    else
        zq_io_first_zeros(t->x, &op->io, t->host, t->host + t->left);
    op->io.complete = space_done;
    t->moving = true;
    start(c, op, t->x);
    return ZQ_WAIT;
}

/* Zeros for a read: no I/O, but no work for the mutex either. */
static int start_zeros(struct zq_core *c, struct zq_op *op)
{
    zq_op_work(c, op, zero_work, zq_cost_of(piece_of_zeros(op), ZQ_COST_ZEROS));
    op->xfer.moving = true;
    return ZQ_WAIT;
}

int zq_transfer_step(struct zq_core *c, struct zq_op *op)
{
    struct zq_transfer *t = &op->xfer;

    if (op->rc < 0)
        return op->rc;
    if (t->moving) { /* the bytes have arrived */
        uint64_t n = t->kind == ZQ_IO_WORK ? piece_of_zeros(op) : t->left;

        if (t->kind != ZQ_IO_WORK)
            zq_iov_advance(op, n);
        t->moving = false;
        t->left -= n;
    }
    if (!t->left)
        return 0;
    zq_assert_k(K11, zq_cache_holds_nothing(&op->g));
    if (t->kind >= ZQ_IO_WORK)
        return t->kind == ZQ_IO_WORK ? start_zeros(c, op) : start_space(c, op);
    zq_io_prep(&op->io, t->kind, t->host, t->left);
    if (t->kind != ZQCOW2_IO_ZERO) {
        op->io.pub.iov = op->req.iov + op->iov_at;
        op->io.pub.iovcnt = op->req.iovcnt - op->iov_at;
        op->io.skip = op->iov_skip;
        op->io.seg = op->seg;
    }
    zq_assert((t->host | t->left) % ZQ_SECTOR == 0);
    op->io.complete = io_done;
    t->moving = true;
    start(c, op, t->x);
    return ZQ_WAIT;
}

static int start_io(struct zq_core *c, struct zq_op *op, struct zq_iox *x, uint32_t kind, void *buf,
                    uint64_t host, uint64_t len)
{
    zq_assert_k(K11, zq_cache_holds_nothing(&op->g));
    zq_assert(zq_core_is_held(c) && (len || kind == ZQCOW2_IO_FLUSH || kind == ZQCOW2_IO_TRUNCATE));
    op->rc = 0;
    if (buf)
        zq_io_prep_buf(&op->io, kind, buf, host, len);
    else
        zq_io_prep(&op->io, kind, host, len);
    op->io.complete = io_done;
    start(c, op, x);
    return ZQ_WAIT;
}

int zq_op_io(struct zq_core *c, struct zq_op *op, uint32_t kind, void *buf, uint64_t host,
             uint64_t len)
{
    return start_io(c, op, &c->x, kind, buf, host, len);
}

/* Zeros that have space, in pieces; of the request's elements none moves. */
static int allocate_zeros(struct zq_core *c, struct zq_op *op, uint64_t host, uint64_t len)
{
    zq_assert_k(K11, zq_cache_holds_nothing(&op->g));
    zq_transfer_begin(op, ZQ_IO_ALLOCATE, host, len);
    return start_space(c, op);
}

/* A data file ends with the device, which may end within a cluster: behind it there is nothing. */
int zq_op_data_io(struct zq_core *c, struct zq_op *op, uint32_t kind, void *buf, uint64_t host,
                  uint64_t len)
{
    if (c->map.form.external && host >= c->size)
        return op->rc = 0;
    if (c->map.form.external)
        len = zq_min(len, c->size - host);
    if (kind == ZQ_IO_ALLOCATE)
        return allocate_zeros(c, op, host, len);
    return start_io(c, op, c->data, kind, buf, host, len);
}

int zq_op_read_from(struct zq_core *c, struct zq_op *op, struct zq_iox *x, void *buf, uint64_t host,
                    uint64_t len)
{
    return start_io(c, op, x, ZQCOW2_IO_READ, buf, host, len);
}

int zq_op_work(struct zq_core *c, struct zq_op *op, void (*work)(struct zq_io *io), uint32_t cost)
{
    zq_assert_k(K11, zq_cache_holds_nothing(&op->g));
    op->rc = 0;
    zq_io_prep(&op->io, ZQ_IO_WORK, 0, 0);
    op->io.complete = io_done;
    op->io.work = work;
    op->io.cost = cost;
    zq_io_start(&c->x, &op->io);
    return ZQ_WAIT;
}

/* A request of a queue has no thread that could wait: one that runs the loop asks for it. */
int zq_op_call(struct zq_core *c, struct zq_op *op, void (*work)(struct zq_io *io))
{
    zq_op_work(c, op, work, ZQ_COST_CALL);
    if (op->attended) {
        zq_list_del(&op->io.link);
        zq_list_push(&c->calls, &op->io.link);
        zq_loop_wake_others(c);
    }
    return ZQ_WAIT;
}

void zq_iov_copy_out(struct zq_op *op, const uint8_t *from, uint64_t len)
{
    for (uint64_t n = len; len; from += n, len -= n, n = len) {
        uint8_t *p = next_bytes(op, &n);

        if (p)
            memcpy(p, from, (size_t)n);
    }
}

void zq_iov_copy_in(struct zq_op *op, uint8_t *to, uint64_t len)
{
    for (uint64_t n = len; len; to += n, len -= n, n = len) {
        const uint8_t *p = next_bytes(op, &n);

        if (p)
            memcpy(to, p, (size_t)n);
    }
}
