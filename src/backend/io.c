/* SPDX-License-Identifier: MIT */
/* Carries an image's requests to its backend, whatever alignment the backend wants. */
#include "backend/io.h"

#include <errno.h>
#include "base/bytes.h"
#include "base/report.h"

#define ALLOCATE_MIN 16384u /* below, the host is as quick at writing */

const uint8_t zq_zeros[64 << 10] __attribute__((aligned(4096)));

int zq_iox_init(struct zq_iox *x)
{
    const struct zqcow2_limits *l = &x->be->limits;

    zq_list_init(&x->submit);
    zq_list_init(&x->done);
    zq_list_init(&x->writes);
    zq_list_init(&x->parked);
    zq_list_init(&x->flight);
    zq_list_init(&x->flight_waiters);
    x->plain = l->io_align <= ZQ_SECTOR && l->buf_align <= 1;
    for (unsigned i = 0; !x->plain && i < ZQ_BOUNCES; i++) {
        x->bounce[i].buf = zq_alloc(x->hooks, 4096, ZQ_BOUNCE_BYTES);
        if (!x->bounce[i].buf) {
            zq_iox_fini(x);
            return -ENOMEM;
        }
    }
    return 0;
}

void zq_iox_fini(struct zq_iox *x)
{
    for (unsigned i = 0; i < ZQ_BOUNCES; i++) {
        zq_free(x->hooks, x->bounce[i].buf, ZQ_BOUNCE_BYTES);
        x->bounce[i].buf = NULL;
    }
}

static bool memory_aligned(const struct zq_iox *x, const struct iovec *iov, unsigned cnt)
{
    uintptr_t bases = 0, lengths = 0;

    for (unsigned i = 0; i < cnt; i++) {
        bases |= (uintptr_t)iov[i].iov_base;
        lengths |= iov[i].iov_len;
    }
    return !((bases | lengths) & (x->be->limits.buf_align - 1)) &&
           !(lengths & (x->be->limits.io_align - 1));
}

uint64_t zq_io_piece(const struct zq_iox *x, uint64_t off, uint64_t len, const struct iovec *iov,
                     unsigned iovcnt)
{
    const struct zqcow2_limits *l = &x->be->limits;
    uint64_t align = l->io_align, skew = off & (align - 1);

    if (l->max_transfer && len > l->max_transfer)
        len = zq_round_down(l->max_transfer, 4096);
    if (x->plain)
        return len;
    if (!skew && len >= align && memory_aligned(x, iov, iovcnt))
        return zq_round_down(len, align);
    /* The blocks around it are transferred with it. */
    if (l->max_transfer)
        len = zq_min(len, zq_round_down(l->max_transfer, 4096) - 4096 - skew);
    return zq_min(len, ZQ_BOUNCE_BYTES - 4096 - skew);
}

void zq_io_prep_buf(struct zq_io *io, unsigned kind, void *buf, uint64_t off, uint64_t len)
{
    zq_io_prep(io, kind, off, len);
    io->one.iov_base = buf;
    io->one.iov_len = len;
    io->pub.iov = &io->one;
    io->pub.iovcnt = 1;
}

static void prep_zeros(const struct zq_iox *x, struct zq_io *io, uint64_t off, uint64_t end)
{
    /* The cast only shares the code: a write never stores into its buffer. */
    struct iovec v = {(void *)(uintptr_t)zq_zeros, zq_min(end - off, sizeof(zq_zeros))};

    zq_io_prep_buf(io, ZQCOW2_IO_WRITE, v.iov_base, off, zq_io_piece(x, off, v.iov_len, &v, 1));
}

void zq_io_first_zeros(const struct zq_iox *x, struct zq_io *io, uint64_t off, uint64_t end)
{
    if (x->be->ops.allocate && end - off >= ALLOCATE_MIN)
        zq_io_prep(io, ZQ_IO_ALLOCATE, off, end - off);
    else
        prep_zeros(x, io, off, end);
}

bool zq_io_more_zeros(const struct zq_iox *x, struct zq_io *io, uint64_t end, int ret)
{
    uint64_t at = io->pub.offset + io->pub.length;

    if (io->pub.kind == ZQ_IO_ALLOCATE && ret == -EOPNOTSUPP)
        at = io->pub.offset;
    else if (ret < 0 || at == end)
        return false;
    prep_zeros(x, io, at, end);
    return true;
}

/* ---- backends that want alignment ---- */

static bool is_write(const struct zq_io *io)
{
    return io->pub.kind == ZQCOW2_IO_WRITE || io->pub.kind == ZQCOW2_IO_ZERO;
}

/* The range that the file sees: whole blocks. */
static void outer_range(const struct zq_iox *x, const struct zqcow2_io *p, uint64_t *off,
                        uint64_t *len)
{
    uint64_t align = x->be->limits.io_align;

    *off = zq_round_down(p->offset, align);
    *len = zq_round_up(p->offset + p->length, align) - *off;
}

static bool write_conflicts(const struct zq_iox *x, const struct zq_io *io)
{
    uint64_t off, len, o, l;

    outer_range(x, &io->pub, &off, &len);
    for (struct zq_list *n = x->writes.next; n != &x->writes; n = n->next) {
        struct zq_io *other = zq_container(n, struct zq_io, range);
        outer_range(x, other->bounce ? &other->orig : &other->pub, &o, &l);
        if (zq_ranges_overlap(off, len, o, l))
            return true;
    }
    return false;
}

static struct zq_bounce *take_bounce(struct zq_iox *x)
{
    for (unsigned i = 0; i < ZQ_BOUNCES; i++) {
        if (!x->bounce[i].busy) {
            x->bounce[i].busy = true;
            return &x->bounce[i];
        }
    }
    return NULL;
}

static void copy_iov(const struct zqcow2_io *p, uint8_t *buf, bool to_iov)
{
    size_t left = p->length;

    for (unsigned i = 0; i < p->iovcnt && left; i++) {
        size_t n = zq_min(p->iov[i].iov_len, left);
        if (to_iov)
            memcpy(p->iov[i].iov_base, buf, n);
        else
            memcpy(buf, p->iov[i].iov_base, n);
        buf += n;
        left -= n;
    }
}

/* The caller's bytes into the bounce buffer, and on to the file. */
static void bounce_write(struct zq_io *io)
{
    struct zq_bounce *b = io->bounce;
    uint8_t *at = b->buf + (io->orig.offset - io->pub.offset);

    if (io->orig.kind == ZQCOW2_IO_ZERO)
        memset(at, 0, io->orig.length);
    else
        copy_iov(&io->orig, at, false);
    b->reading = false;
    io->pub.kind = ZQCOW2_IO_WRITE;
}

static bool start_bounced(struct zq_iox *x, struct zq_io *io)
{
    struct zq_bounce *b = take_bounce(x);
    uint64_t off, len;

    if (!b)
        return false;
    io->bounce = b;
    io->orig = io->pub;
    outer_range(x, &io->orig, &off, &len);
    zq_assert(len <= ZQ_BOUNCE_BYTES);
    b->iov.iov_base = b->buf;
    b->iov.iov_len = len;
    io->pub.offset = off;
    io->pub.length = len;
    io->pub.iov = &b->iov;
    io->pub.iovcnt = 1;
    b->reading = true;
    io->pub.kind = ZQCOW2_IO_READ;
    if (io->orig.kind != ZQCOW2_IO_READ && off == io->orig.offset && len == io->orig.length)
        bounce_write(io);
    return true;
}

/* True: on its way. False: it must wait for a buffer or for a write of the same block. */
static bool try_start(struct zq_iox *x, struct zq_io *io)
{
    uint64_t mask = x->be->limits.io_align - 1;
    bool aligned = !((io->pub.offset | io->pub.length) & mask);

    if (io->pub.kind == ZQCOW2_IO_DISCARD && !aligned) {
        uint64_t end = (io->pub.offset + io->pub.length) & ~mask;
        io->pub.offset = (io->pub.offset + mask) & ~mask;
        io->pub.length = end > io->pub.offset ? end - io->pub.offset : 0;
        aligned = true;
    }
    if (is_write(io) && write_conflicts(x, io))
        return false;
    if (aligned && io->pub.kind <= ZQCOW2_IO_WRITE)
        aligned = memory_aligned(x, io->pub.iov, io->pub.iovcnt);
    io->slow = !aligned && io->pub.length > ZQ_BOUNCE_BYTES - 2 * 4096;
    if (!aligned && !io->slow && !start_bounced(x, io))
        return false;
    if (is_write(io) || (io->bounce && io->orig.kind != ZQCOW2_IO_READ))
        zq_list_push(&x->writes, &io->range);
    else
        zq_list_init(&io->range);
    zq_list_push(&x->submit, &io->link);
    return true;
}

static void retry_parked(struct zq_iox *x)
{
    struct zq_list again;

    zq_list_init(&again);
    zq_list_splice(&again, &x->parked);
    for (struct zq_list *n; (n = zq_list_pop(&again));) {
        if (!try_start(x, zq_container(n, struct zq_io, link)))
            zq_list_push(&x->parked, n);
    }
}

/* ---- start, issue, finish ---- */

void zq_io_start(struct zq_iox *x, struct zq_io *io)
{
    io->x = x;
    x->in_flight++;
    if (x->plain || io->pub.kind == ZQCOW2_IO_FLUSH || io->pub.kind >= ZQCOW2_IO_TRUNCATE)
        zq_list_push(&x->submit, &io->link);
    else if (!try_start(x, io))
        zq_list_push(&x->parked, &io->link);
}

/* A read-modify-write goes on to its second half; true if there is nothing left to do. */
static bool bounce_finish(struct zq_iox *x, struct zq_io *io)
{
    struct zq_bounce *b = io->bounce;

    if (io->ret == 0 && b->reading && io->orig.kind != ZQCOW2_IO_READ) {
        bounce_write(io);
        zq_list_push(&x->submit, &io->link);
        return false;
    }
    if (io->ret == 0 && io->orig.kind == ZQCOW2_IO_READ)
        copy_iov(&io->orig, b->buf + (io->orig.offset - io->pub.offset), true);
    b->busy = false;
    io->bounce = NULL;
    io->pub = io->orig;
    return true;
}

void zq_io_finish(struct zq_io *io)
{
    struct zq_iox *x = io->x;

    if (!x->plain && io->pub.kind < ZQCOW2_IO_TRUNCATE && io->pub.kind != ZQCOW2_IO_FLUSH) {
        if (io->bounce && !bounce_finish(x, io))
            return;
        zq_list_del(&io->range);
        if (!zq_list_empty(&x->parked))
            retry_parked(x);
    }
    x->in_flight--;
    if (io->seq)
        zq_io_leave_flight(x, io);
    if (io->pub.kind == ZQCOW2_IO_WRITE || io->pub.kind == ZQCOW2_IO_ZERO ||
        io->pub.kind == ZQCOW2_IO_TRUNCATE || io->pub.kind == ZQ_IO_ALLOCATE)
        x->unbarriered = true;
    io->complete(io, io->ret);
}

/* Data is cut by zq_io_piece(); only whole L2 tables that are being copied can be larger. */
static bool too_large(const struct zqcow2_backend *be, const struct zq_io *io)
{
    return be->limits.max_transfer && io->pub.length > be->limits.max_transfer &&
           io->pub.kind <= ZQCOW2_IO_WRITE;
}

static int run_pieces(struct zqcow2_backend *be, const struct zqcow2_io *p)
{
    uint64_t off = p->offset, left = p->length;
    int rc = 0;

    for (uint32_t i = 0; i < p->iovcnt && left && rc == 0; i++) {
        size_t n = zq_min(p->iov[i].iov_len, left);

        rc = p->kind == ZQCOW2_IO_READ ? zq_be_read(be, p->iov[i].iov_base, n, off)
                                       : zq_be_write(be, p->iov[i].iov_base, n, off);
        off += n;
        left -= n;
    }
    return rc;
}

static int run_blocking(struct zqcow2_backend *be, struct zq_io *io)
{
    const struct zqcow2_io *p = &io->pub;

    if (io->slow && p->kind == ZQCOW2_IO_ZERO)
        return zq_be_zero(be, p->offset, p->length);
    if (too_large(be, io) || io->slow)
        return run_pieces(be, p);

    switch (p->kind) {
    case ZQCOW2_IO_READ:
        return zq_call_readv(be, p->iov, (int)p->iovcnt, p->offset);
    case ZQCOW2_IO_WRITE:
        return zq_call_writev(be, p->iov, (int)p->iovcnt, p->offset);
    case ZQCOW2_IO_FLUSH:
        return zq_be_flush(be);
    case ZQCOW2_IO_ZERO:
        return zq_be_zero(be, p->offset, p->length);
    case ZQCOW2_IO_DISCARD:
        return be->ops.discard && p->length ? zq_call_discard(be, p->offset, p->length) : 0;
    case ZQCOW2_IO_TRUNCATE:
        return zq_call_truncate(be, p->offset);
    case ZQ_IO_ALLOCATE:
        return zq_call_allocate(be, p->offset, p->length);
    default:
        io->work(io);
        return io->ret;
    }
}

/* 0: the backend has it. -EOPNOTSUPP: it is for a blocking function. Else its result. */
static int submit(struct zqcow2_backend *be, struct zq_io *io)
{
    if (!be->ops.submit || io->pub.kind >= ZQ_IO_WORK || io->slow || too_large(be, io))
        return -EOPNOTSUPP;
    return zq_call_submit(be, &io->pub);
}

static void run_all_blocking(struct zq_iox *x, struct zq_list *ios, struct zq_list *finished)
{
    bool away = x->be->ops.submit && !zq_list_empty(ios);

    if (away)
        x->away(x, true);
    for (struct zq_list *n; (n = zq_list_pop(ios));) {
        struct zq_io *io = zq_container(n, struct zq_io, link);

        io->ret = run_blocking(x->be, io);
        zq_list_push(finished, n);
    }
    if (away)
        x->away(x, false);
}

/* What blocks comes last, so that it holds up nothing of the batch. */
void zq_io_issue(struct zq_iox *x, struct zq_list *batch, struct zq_list *finished)
{
    struct zqcow2_backend *be = x->be;
    struct zq_list blocking;
    bool kick = false;

    zq_list_init(&blocking);
    for (struct zq_list *n; (n = zq_list_pop(batch));) {
        struct zq_io *io = zq_container(n, struct zq_io, link);
        int rc = submit(be, io);

        if (rc == 0) {
            kick = true;
        } else if (rc == -EOPNOTSUPP) {
            zq_list_push(&blocking, n);
        } else {
            io->ret = rc;
            zq_list_push(finished, n);
        }
    }
    if (kick && be->ops.kick)
        be->ops.kick(be->self);
    run_all_blocking(x, &blocking, finished);
}

/* ---- one at a time ---- */

int zq_io_alone_run(struct zq_iox *x, struct zq_io *io)
{
    const struct zqcow2_io *p = &io->pub;

    return p->kind == ZQCOW2_IO_READ
               ? zq_call_readv(x->be, p->iov, (int)p->iovcnt, p->offset)
               : zq_call_writev(x->be, p->iov, (int)p->iovcnt, p->offset);
}

void zqcow2_io_done(struct zqcow2_io *pub, int ret)
{
    struct zq_io *io = (struct zq_io *)pub;

    io->ret = zq_answer(ret);
    io->x->notify(io->x, io);
}
