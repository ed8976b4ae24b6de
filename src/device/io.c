/* SPDX-License-Identifier: MIT */
/*
 * Carries an image's requests to its backend, within the limits that the backend has set. An io
 * that keeps them goes as it is. Any other goes in pieces, one after the other: straight from the
 * caller's memory where that fits, through a bounce buffer where it does not. All of it is decided
 * in next_piece().
 */
#include "device/io.h"

#include <errno.h>
#include "base/bytes.h"
#include "base/report.h"

#define ALLOCATE_MIN 16384u /* below, the host is as quick at writing */

/*
 * The bounce buffers are allocated now: an I/O under way must not fail for memory. Also with a
 * backend that takes any buffer: one of its calls may still not take as many elements as a block
 * lies in.
 */
int zq_iox_init(struct zq_iox *x)
{
    const struct zqcow2_limits *l = &x->be->limits;

    zq_list_init(&x->submit);
    zq_list_init(&x->work);
    zq_list_init(&x->done);
    zq_list_init(&x->writes);
    zq_list_init(&x->parked);
    zq_list_init(&x->flight);
    zq_list_init(&x->flight_waiters);
    x->called = x->be->ops.submit && zq_be_is_called(x->be);
    x->takes_any = l->io_align <= ZQ_SECTOR && l->buf_align <= 1;
    x->alone = zq_io_is_alone(x);
    x->max_piece = l->max_transfer ? l->max_transfer : UINT64_MAX;
    x->bounce_bytes =
        (uint32_t)zq_min(x->takes_any ? ZQ_BOUNCE_SMALL : ZQ_BOUNCE_BYTES, x->max_piece);
    for (unsigned i = 0; i < ZQ_BOUNCES; i++) {
        x->bounce[i].buf = zq_alloc(x->hooks, 4096, x->bounce_bytes);
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
        zq_free(x->hooks, x->bounce[i].buf, x->bounce_bytes);
        x->bounce[i].buf = NULL;
    }
}

void zq_io_prep_buf(struct zq_io *io, unsigned kind, void *buf, uint64_t off, uint64_t len)
{
    zq_io_prep(io, kind, off, len);
    io->one.iov_base = buf;
    io->one.iov_len = (size_t)len;
    io->pub.iov = &io->one;
    io->pub.iovcnt = 1;
}

/* The cast only shares the code: a write never stores into its buffer. */
void zq_io_write_zeros(struct zq_io *io, uint64_t off, uint64_t end)
{
    zq_io_prep_buf(io, ZQCOW2_IO_WRITE, (void *)(uintptr_t)zq_zeros, off,
                   zq_min(end - off, ZQ_ZEROS_BYTES));
}

/*
 * A backend's allocate() works on whole blocks; the zeros that are written are padded as any write.
 * It blocks: where I/O can be submitted, the thread that runs the loop may be an event loop (E6).
 */
void zq_io_first_zeros(const struct zq_iox *x, struct zq_io *io, uint64_t off, uint64_t end)
{
    const struct zqcow2_backend_ops *ops = &x->be->ops;
    bool blocks = !((off | end) & (x->be->limits.io_align - 1));

    if (ops->allocate && !ops->submit && blocks && end - off >= ALLOCATE_MIN)
        zq_io_prep(io, ZQ_IO_ALLOCATE, off, zq_min(end - off, x->max_piece));
    else
        zq_io_write_zeros(io, off, end);
}

bool zq_io_more_zeros(const struct zq_iox *x, struct zq_io *io, uint64_t end, int ret)
{
    uint64_t at = io->pub.offset + io->pub.length;

    if (io->pub.kind == ZQ_IO_ALLOCATE && ret == -EOPNOTSUPP) {
        zq_io_write_zeros(io, io->pub.offset, end);
        return true;
    }
    if (ret < 0 || at == end)
        return false;
    if (io->pub.kind == ZQ_IO_ALLOCATE)
        zq_io_first_zeros(x, io, at, end);
    else
        zq_io_write_zeros(io, at, end);
    return true;
}

/* ---- what fits ---- */

/* The order of zqcow2_io_kind: READ and WRITE come first. */
static bool transfers(const struct zq_io *io)
{
    return io->pub.kind <= ZQCOW2_IO_WRITE;
}

static bool has_range(const struct zq_io *io)
{
    return transfers(io) || io->pub.kind == ZQCOW2_IO_ZERO || io->pub.kind == ZQCOW2_IO_DISCARD;
}

/* On a backend that takes any buffer. */
static inline bool fits_as_it_is(const struct zq_iox *x, const struct zq_io *io)
{
    const struct zqcow2_io *p = &io->pub;

    return p->iovcnt <= 1 && !io->skip && p->length <= x->max_piece &&
           !((p->offset | p->length) & (x->be->limits.io_align - 1)) &&
           (p->iovcnt == 0 || p->iov->iov_len == p->length);
}

/*
 * With an aligned address an element must also hold whole blocks, or the next one would begin
 * within a block.
 */
static bool element_fits(const struct zq_iox *x, const void *base, size_t len)
{
    const struct zqcow2_limits *l = &x->be->limits;

    return x->takes_any ||
           (!(((uintptr_t)base | len) & (l->buf_align - 1)) && !(len & (l->io_align - 1)));
}

/* All of the next `want` bytes lie in elements that can be handed on as they are: how many. */
static uint32_t elements_as_they_are(const struct zq_iox *x, const struct zq_io *io, uint64_t want)
{
    uint32_t n = 0;

    for (uint64_t got = 0; got < want; n++) {
        const struct iovec *v = &io->whole.iov[io->at + n];

        if (n == x->be->limits.max_iov || !v->iov_len || v->iov_len > want - got ||
            !element_fits(x, v->iov_base, v->iov_len))
            return 0;
        got += v->iov_len;
    }
    return io->skip ? 0 : n;
}

/* Drops what exceeds `len` bytes. */
static void trim_elements(struct zqcow2_io *p, struct iovec *room, uint64_t got, uint64_t len)
{
    while (got > len) {
        struct iovec *last = &room[p->iovcnt - 1];
        uint64_t n = zq_min(last->iov_len, got - len);

        last->iov_len -= (size_t)n;
        got -= n;
        p->iovcnt -= !last->iov_len;
    }
}

/* As many whole blocks of the next `want` bytes as there is room for elements; 0: less than one. */
static uint64_t cut_elements(const struct zq_iox *x, struct zq_io *io, uint64_t want)
{
    struct iovec *room = io->seg ? io->seg : &io->part;
    uint32_t max = (uint32_t)zq_min(io->seg ? ZQ_IO_SEGMENTS : 1, x->be->limits.max_iov);
    uint64_t got = 0, block = zq_max(x->be->limits.io_align, ZQ_SECTOR), len;
    size_t skip = io->skip;

    io->pub.iov = room;
    io->pub.iovcnt = 0;
    for (uint32_t i = io->at; got < want && io->pub.iovcnt < max; i++, skip = 0) {
        const struct iovec *v = &io->whole.iov[i];
        size_t n = (size_t)zq_min(v->iov_len - skip, want - got);

        if (!n)
            continue;
        room[io->pub.iovcnt].iov_base = (uint8_t *)v->iov_base + skip;
        if (!element_fits(x, room[io->pub.iovcnt].iov_base, n))
            break;
        room[io->pub.iovcnt++].iov_len = n;
        got += n;
    }
    len = got == want ? want : zq_align_down(got, block);
    trim_elements(&io->pub, room, got, len);
    return len;
}

/* Points pub at what the backend can take of the next bytes without a copy; 0: nothing. */
static uint64_t cut_direct(const struct zq_iox *x, struct zq_io *io, uint64_t off, uint64_t left)
{
    uint64_t align = x->be->limits.io_align;
    uint64_t want = zq_align_down(zq_min(left, x->max_piece), align);

    io->pub.iov = NULL;
    io->pub.iovcnt = 0;
    if (off & (align - 1))
        return 0;
    if (io->whole.kind > ZQCOW2_IO_WRITE || !want)
        return want;
    io->pub.iov = &io->whole.iov[io->at];
    io->pub.iovcnt = elements_as_they_are(x, io, want);
    return io->pub.iovcnt ? want : cut_elements(x, io, want);
}

/* ---- through a buffer ---- */

/*
 * NULL: all are in use, and the io is parked until a piece is done. Never more than one for one io,
 * so there is no circle of waiting.
 */
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

/* How much of the next bytes one bounce carries. Zeros only go so far as has to be padded. */
static uint64_t cut_bounced(const struct zq_iox *x, const struct zq_io *io, uint64_t off,
                            uint64_t left)
{
    uint64_t align = x->be->limits.io_align, skew = off & (align - 1);

    return zq_min(left, (io->whole.kind == ZQCOW2_IO_ZERO ? align : x->bounce_bytes) - skew);
}

/* Between the caller's elements and the buffer. */
static void copy_elements(const struct zq_io *io, uint8_t *buf, bool to_caller)
{
    size_t skip = io->skip;
    uint64_t left = io->piece;

    for (uint32_t i = io->at; left; i++, skip = 0) {
        size_t n = (size_t)zq_min(io->whole.iov[i].iov_len - skip, left);
        uint8_t *p;

        if (!n) /* an empty element may have no address, to which nothing may be added */
            continue;
        p = (uint8_t *)io->whole.iov[i].iov_base + skip;
        if (to_caller)
            memcpy(p, buf, n);
        else
            memcpy(buf, p, n);
        buf += n;
        left -= n;
    }
}

/* Where the caller's bytes lie in the buffer, behind the padding of the first block. */
static uint8_t *bounced_bytes(const struct zq_io *io)
{
    return io->bounce->buf + (io->whole.offset + io->pos - io->pub.offset);
}

/* The caller's bytes into the bounce buffer, and on to the file. */
static void bounce_write(struct zq_io *io)
{
    if (io->whole.kind == ZQCOW2_IO_ZERO)
        memset(bounced_bytes(io), 0, (size_t)io->piece);
    else
        copy_elements(io, bounced_bytes(io), false);
    io->bounce->reading = false;
    io->pub.kind = ZQCOW2_IO_WRITE;
}

/* What a write does not fill of its blocks is read first. */
static void start_bounced(struct zq_io *io)
{
    bool fills = io->pub.length == io->piece;

    io->part = (struct iovec){io->bounce->buf, (size_t)io->pub.length};
    io->pub.iov = &io->part;
    io->pub.iovcnt = 1;
    io->pub.kind = ZQCOW2_IO_READ;
    io->bounce->reading = true;
    if (io->whole.kind != ZQCOW2_IO_READ && fills)
        bounce_write(io);
}

/* ---- piece by piece ---- */

/* Kinds that may have to read a block first; ALLOCATE and DISCARD have been cut to whole blocks. */
static bool is_write(const struct zq_io *io)
{
    return io->whole.kind == ZQCOW2_IO_WRITE || io->whole.kind == ZQCOW2_IO_ZERO;
}

/*
 * Another io writes, or reads in order to write, a block of this range. Of two read-modify-writes
 * of one block, side by side, the second would put back what the first has changed (R14).
 */
static bool write_conflicts(const struct zq_iox *x, uint64_t off, uint64_t len)
{
    for (struct zq_list *n = x->writes.next; n != &x->writes; n = n->next) {
        const struct zq_io *other = zq_container(n, const struct zq_io, range);

        if (zq_ranges_overlap(off, len, other->pub.offset, other->pub.length))
            return true;
    }
    return false;
}

/*
 * True: the next piece is on its way. False: it must wait for a buffer, or for a write of the same
 * block. While it waits it holds nothing.
 */
static bool next_piece(struct zq_iox *x, struct zq_io *io)
{
    uint64_t align = x->be->limits.io_align, off = io->whole.offset + io->pos;
    uint64_t left = io->whole.length - io->pos, n = cut_direct(x, io, off, left);
    bool direct = n > 0;

    if (!direct)
        n = cut_bounced(x, io, off, left);
    io->piece = n;
    io->pub.kind = io->whole.kind;
    io->pub.offset = zq_align_down(off, align);
    io->pub.length = zq_align_up(off + n, align) - io->pub.offset;
    zq_assert(io->pub.length <= x->max_piece && (direct || io->pub.length <= x->bounce_bytes));
    if (!x->takes_any && is_write(io) && write_conflicts(x, io->pub.offset, io->pub.length))
        return false;
    io->bounce = direct ? NULL : take_bounce(x);
    if (!direct && !io->bounce)
        return false;
    if (!direct)
        start_bounced(io);
    if (!x->takes_any && is_write(io))
        zq_list_push(&x->writes, &io->range);
    zq_list_push(&x->submit, &io->link);
    return true;
}

static void next_or_park(struct zq_iox *x, struct zq_io *io)
{
    if (!next_piece(x, io))
        zq_list_push(&x->parked, &io->link);
}

/* In their order, and each may park again behind those before it. */
static void retry_parked(struct zq_iox *x)
{
    struct zq_list again;

    zq_list_init(&again);
    zq_list_splice(&again, &x->parked);
    for (struct zq_list *n; (n = zq_list_pop(&again));)
        next_or_park(x, zq_container(n, struct zq_io, link));
}

/*
 * Only whole blocks can be given back; an io without one is done at once. The loop looks for what
 * is done in the image's own list, whatever file it was for.
 */
static bool shrink_to_blocks(const struct zq_iox *x, struct zqcow2_io *p)
{
    uint64_t align = x->be->limits.io_align;
    uint64_t from = zq_align_up(p->offset, align), to = zq_align_down(p->offset + p->length, align);

    p->offset = from;
    p->length = to > from ? to - from : 0;
    return p->length;
}

void zq_io_start_pieces(struct zq_iox *x, struct zq_io *io)
{
    const struct zqcow2_io *p = &io->pub;

    if (p->kind == ZQCOW2_IO_DISCARD && !shrink_to_blocks(x, &io->pub)) {
        zq_list_push(&x->image->done, &io->link);
        return;
    }
    io->in_pieces = true;
    io->whole.kind = p->kind;
    io->whole.iovcnt = p->iovcnt;
    io->whole.offset = p->offset;
    io->whole.length = p->length;
    io->whole.iov = p->iov;
    io->pos = 0;
    io->at = 0;
    zq_list_init(&io->range);
    next_or_park(x, io);
}

/* The cursor into the caller's elements; they are never changed. */
static void advance(struct zq_io *io)
{
    uint64_t n = io->piece;

    io->pos += n;
    for (; n && io->whole.iovcnt; io->at++, io->skip = 0) {
        size_t rest = io->whole.iov[io->at].iov_len - io->skip;

        if (n < rest) {
            io->skip += (size_t)n;
            return;
        }
        n -= rest;
    }
}

/* The piece is over. True: the io goes on; false: pub is the caller's again. */
static bool piece_done(struct zq_iox *x, struct zq_io *io)
{
    struct zq_bounce *b = io->bounce;

    if (io->ret == 0 && b && b->reading && io->whole.kind != ZQCOW2_IO_READ) {
        bounce_write(io);
        zq_list_push(&x->submit, &io->link);
        return true;
    }
    if (io->ret == 0 && b && b->reading)
        copy_elements(io, bounced_bytes(io), true);
    if (b)
        b->busy = false;
    io->bounce = NULL;
    zq_list_del(&io->range);
    if (!zq_list_empty(&x->parked))
        retry_parked(x);
    advance(io);
    if (io->ret == 0 && io->pos < io->whole.length) {
        next_or_park(x, io);
        return true;
    }
    io->in_pieces = false;
    io->pub.kind = io->whole.kind;
    io->pub.iovcnt = io->whole.iovcnt;
    io->pub.offset = io->whole.offset;
    io->pub.length = io->whole.length;
    io->pub.iov = io->whole.iov;
    return false;
}

/* ---- start, issue, finish ---- */

/* Padded writes make the file longer than its last cluster: no new length may be below that. */
static void start_truncate(const struct zq_iox *x, struct zq_io *io)
{
    io->pub.offset = zq_align_up(io->pub.offset, x->be->limits.io_align);
}

void zq_io_start(struct zq_iox *x, struct zq_io *io)
{
    zq_assert(io->pub.length || !has_range(io));
    io->x = x;
    io->pub.done = zq_io_done;
    x->in_flight++;
    x->flushes += io->pub.kind == ZQCOW2_IO_FLUSH;
    if (io->pub.kind == ZQCOW2_IO_TRUNCATE)
        start_truncate(x, io);
    if (io->pub.kind == ZQ_IO_WORK)
        zq_list_push(&x->work, &io->link);
    else if (!has_range(io) || (x->takes_any && fits_as_it_is(x, io)))
        zq_list_push(&x->submit, &io->link);
    else
        zq_io_start_pieces(x, io);
}

/*
 * Under the mutex. unbarriered is set at completion and cleared when a barrier begins, so a write
 * that completes while a barrier runs is covered by the next one.
 */
void zq_io_finish(struct zq_io *io)
{
    struct zq_iox *x = io->x;

    if (io->in_pieces && piece_done(x, io))
        return;
    x->in_flight--;
    if (io->seq)
        zq_io_leave_flight(x, io);
    if (io->pub.kind == ZQCOW2_IO_WRITE || io->pub.kind == ZQCOW2_IO_ZERO ||
        io->pub.kind == ZQCOW2_IO_TRUNCATE || io->pub.kind == ZQ_IO_ALLOCATE)
        x->unbarriered = true;
    io->complete(io, io->ret);
}

static int run_blocking(struct zqcow2_backend *be, struct zq_io *io)
{
    const struct zqcow2_io *p = &io->pub;

    switch (p->kind) {
    case ZQCOW2_IO_READ: return zq_call_readv(be, p->iov, (int)p->iovcnt, p->offset);
    case ZQCOW2_IO_WRITE: return zq_call_writev(be, p->iov, (int)p->iovcnt, p->offset);
    case ZQCOW2_IO_FLUSH: return zq_be_flush(be);
    case ZQCOW2_IO_ZERO: return zq_be_zero(be, p->offset, p->length);
    case ZQCOW2_IO_DISCARD: return be->ops.discard ? zq_call_discard(be, p->offset, p->length) : 0;
    case ZQCOW2_IO_TRUNCATE: return zq_call_truncate(be, p->offset);
    case ZQ_IO_ALLOCATE: return zq_call_allocate(be, p->offset, p->length);
    default: io->work(io); return io->ret;
    }
}

/*
 * 0: the backend has it. -EOPNOTSUPP: it is for a blocking function, as are the library's own kinds
 * (WORK, ALLOCATE), which backends do not know. Else its result.
 */
static int submit(struct zqcow2_backend *be, struct zq_io *io)
{
    if (!be->ops.submit || io->pub.kind >= ZQ_IO_WORK)
        return -EOPNOTSUPP;
    return zq_call_submit(be, &io->pub);
}

/*
 * away() reports before and after that this thread does not look at completions (E4). A blocking
 * backend has none, so it need not be reported.
 */
static void run_all_blocking(struct zq_iox *x, struct zq_list *ios, struct zq_list *finished)
{
    int n_away = 0;

    for (const struct zq_list *n = ios->next; x->be->ops.submit && n != ios; n = n->next)
        n_away++;
    if (n_away)
        x->away(x, n_away);
    for (struct zq_list *n; (n = zq_list_pop(ios));) {
        struct zq_io *io = zq_container(n, struct zq_io, link);

        io->ret = run_blocking(x->be, io);
        zq_list_push(finished, n);
    }
    if (n_away)
        x->away(x, -n_away);
}

/* What blocks comes last, so that it holds up nothing of the batch. */
void zq_io_issue(struct zq_iox *x, struct zq_list *batch, struct zq_list *own,
                 struct zq_list *finished)
{
    struct zqcow2_backend *be = x->be;
    bool kick = false;

    for (struct zq_list *n; (n = zq_list_pop(batch));) {
        struct zq_io *io = zq_container(n, struct zq_io, link);
        int rc = submit(be, io);

        if (rc == 0) {
            kick = true;
        } else if (rc == -EOPNOTSUPP) {
            zq_list_push(own, n);
        } else {
            io->ret = rc;
            zq_list_push(finished, n);
        }
    }
    if (kick && be->ops.kick)
        be->ops.kick(be->self);
    run_all_blocking(x, own, finished);
}

/* ---- done ---- */

/* In any thread. pub is the first member: the cast finds the io. */
void zq_io_done(struct zqcow2_io *pub, int ret)
{
    struct zq_io *io = (struct zq_io *)pub;

    io->ret = ret;
    io->x->notify(io->x, io);
}

/* The owner is an image, or a backend that stands on the one that calls. */
void zqcow2_io_done(struct zqcow2_io *pub, int ret)
{
    pub->done(pub, zq_answer(ret));
}
