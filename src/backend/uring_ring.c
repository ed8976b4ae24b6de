/* SPDX-License-Identifier: MIT */
/*
 * The way of requests to the kernel.
 *
 * File systems without FOP_BUFFER_WASYNC, such as ext4 and tmpfs, take no buffered write without
 * blocking: the kernel passes each one to a worker, and the writes of one file run one after the
 * other. The trip costs more than a small write. So writes that adjoin in the file and wait
 * together become one request of the ring.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "backend/uring_int.h"
#include "base/bytes.h"
#include "base/os.h"

#define IOV_MOST    1024       /* the kernel's IOV_MAX */
#define PIECE_MAX   (1u << 30) /* of one request; the rest follows as after a short transfer */
#define MERGE_BYTES (1u << 20) /* what a loop may have to wait for where nothing blocks */
#define WINDOW      16u        /* places in the file where writes may go on */

static void prep_flat(const struct zq_uring *u, struct io_uring_sqe *sqe, int fd, bool write,
                      void *p, size_t n, uint64_t off)
{
    int area = zq_uring_area(u, p, n);

    io_uring_prep_rw(write ? IORING_OP_WRITE : IORING_OP_READ, sqe, fd, p,
                     (unsigned)zq_min(n, PIECE_MAX), off);
    if (area >= 0) {
        sqe->opcode = write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED;
        sqe->buf_index = (uint16_t)area;
    }
}

static void prep_transfer(const struct zq_uring *u, struct io_uring_sqe *sqe, int fd,
                          const struct zqcow2_io *io)
{
    struct zq_cursor c = {io->iov, (int)io->iovcnt, 0};
    uint64_t off = io->offset + zq_uring_done(io);
    bool write = io->kind == ZQCOW2_IO_WRITE;
    void *p;
    size_t n;

    zq_cursor_skip(&c, zq_uring_done(io));
    if (zq_cursor_flat(&c, &p, &n)) {
        prep_flat(u, sqe, fd, write, p, n, off);
        return;
    }
    io_uring_prep_rw(write ? IORING_OP_WRITEV : IORING_OP_READV, sqe, fd, c.iov,
                     (unsigned)zq_min((unsigned)c.cnt, IOV_MOST), off);
}

static void prep_alone(const struct zq_uring *u, struct io_uring_sqe *sqe, int fd,
                       const struct zqcow2_io *io)
{
    switch (io->kind) {
    case ZQCOW2_IO_READ:
    case ZQCOW2_IO_WRITE: prep_transfer(u, sqe, fd, io); break;
    case ZQCOW2_IO_FLUSH: io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC); break;
    case ZQCOW2_IO_TRUNCATE:
        io_uring_prep_rw(ZQ_URING_FTRUNCATE, sqe, fd, NULL, 0, io->offset);
        break;
    default: /* ZERO, DISCARD */
        if (zq_uring_marks(io) & ZQ_URING_WRITTEN) {
            io_uring_prep_rw(IORING_OP_WRITE, sqe, fd, zq_zeros,
                             (unsigned)zq_min(io->length - zq_uring_done(io), ZQ_ZEROS_BYTES),
                             io->offset + zq_uring_done(io));
            return;
        }
        /* The types of io_uring_prep_fallocate changed; an old one loses bits of the length. */
        io_uring_prep_rw(IORING_OP_FALLOCATE, sqe, fd, NULL,
                         FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, io->offset);
        sqe->addr = io->length;
    }
}

/* ---- merging ---- */

/* Requests that become one of the ring, linked from the first to the last. */
struct merge {
    struct zqcow2_io *first, *last;
    bool grows;
    uint64_t bytes;
};

struct fill {
    struct merge merge[WINDOW];
    unsigned n;
    struct iovec *iov; /* the first that is free */
    unsigned iovs;     /* not promised yet */
    unsigned left;     /* requests that may still be handed over */
    uint64_t bytes;    /* of them */
};

/*
 * A direct write is handed to the device at once, side by side with others. What is left of a short
 * write, and what shared an error, goes alone: the error is that of one request.
 */
static bool may_merge(const struct zq_uring *u, const struct fill *f, const struct zqcow2_io *io)
{
    return io->kind == ZQCOW2_IO_WRITE && !zq_file_direct(&u->file) && !zq_uring_done(io) &&
           !(zq_uring_marks(io) & ZQ_URING_ALONE) && io->iovcnt <= f->iovs;
}

static bool join(struct fill *f, struct zqcow2_io *io)
{
    for (unsigned i = f->n; i-- > 0;) {
        struct merge *m = &f->merge[i];
        if (!m->grows || m->first->offset + m->bytes != io->offset ||
            m->bytes + io->length > MERGE_BYTES)
            continue;
        zq_uring_set_merged(m->last, io);
        m->last = io;
        m->bytes += io->length;
        return true;
    }
    return false;
}

/*
 * Takes from the queue what room requests of the ring can hold, as far as the window and the bytes
 * reach.
 */
static void gather(struct zq_uring *u, struct fill *f, unsigned room)
{
    struct zqcow2_io *io;

    f->n = 0;
    while ((io = u->queue.head) && zq_uring_copies(io) <= f->bytes) {
        bool grows = may_merge(u, f, io);
        if (!(grows && join(f, io))) {
            if (f->n == WINDOW || f->n == room)
                return;
            f->merge[f->n++] = (struct merge){io, io, grows, io->length};
        }
        f->iovs -= grows ? io->iovcnt : 0;
        f->bytes -= zq_uring_copies(io);
        u->copies += zq_uring_copies(io);
        zq_fifo_pop(&u->queue);
    }
}

static void prep_merged(struct fill *f, struct io_uring_sqe *sqe, int fd, const struct merge *m)
{
    unsigned n = 0;

    for (const struct zqcow2_io *io = m->first; io; io = zq_uring_merged(io)) {
        memcpy(f->iov + n, io->iov, io->iovcnt * sizeof(*io->iov));
        n += io->iovcnt;
    }
    io_uring_prep_rw(IORING_OP_WRITEV, sqe, fd, f->iov, n, m->first->offset);
    f->iov += n;
}

static void prep(struct zq_uring *u, struct fill *f, const struct merge *m)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    int fd = u->fixed_file ? 0 : u->file.fd;

    if (m->first == m->last)
        prep_alone(u, sqe, fd, m->first);
    else
        prep_merged(f, sqe, fd, m);
    if (m->first->kind <= ZQCOW2_IO_WRITE && zq_file_uncached(&u->file)) {
        sqe->rw_flags = ZQ_RWF_DONTCACHE;
        zq_uring_mark(m->first, ZQ_URING_UNCACHED);
    }
    io_uring_sqe_set_flags(sqe, (u->fixed_file ? IOSQE_FIXED_FILE : 0) |
                                    (zq_uring_marks(m->first) & ZQ_URING_POOL ? IOSQE_ASYNC : 0));
    io_uring_sqe_set_data(sqe, m->first);
    u->in_ring++;
}

/*
 * What may not be handed over by this call makes the next one due: a completion without effect
 * wakes the thread that polls, or makes the descriptor readable. A full ring has completions.
 */
static void ask_for_more(struct zq_uring *u)
{
    bool later = u->queue.head && u->in_ring < ZQ_URING_DEPTH &&
                 u->copies + zq_uring_copies(u->queue.head) <= ZQ_URING_RING_BYTES;
    struct io_uring_sqe *sqe = later && !u->more ? io_uring_get_sqe(&u->ring) : NULL;

    if (!sqe)
        return;
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data64(sqe, ZQ_URING_MORE);
    u->more = true;
}

/* The kernel copies the vectors when it takes a request, so all of them are free here. */
static void fill_ring(struct zq_uring *u)
{
    struct fill f = {.iov = u->iov, .iovs = ZQ_URING_IOVS, .left = ZQ_URING_CALL_MOST};
    unsigned room;

    f.bytes = zq_min(ZQ_URING_CALL_BYTES, ZQ_URING_RING_BYTES - u->copies);
    do {
        room = (unsigned)zq_min(ZQ_URING_DEPTH - u->in_ring, io_uring_sq_space_left(&u->ring));
        gather(u, &f, (unsigned)zq_min(room, f.left));
        f.left -= f.n;
        for (unsigned i = 0; i < f.n; i++)
            prep(u, &f, &f.merge[i]);
    } while (f.n);
    ask_for_more(u);
}

/* ---- submitting ---- */

static void split(struct zqcow2_io *io, struct zq_fifo *out)
{
    struct zqcow2_io *next;

    for (; io; io = next) {
        next = zq_uring_take_off(io);
        zq_fifo_push(out, io);
    }
}

/* The i-th of n that the kernel has not consumed; NULL: it is one of our own. */
static struct zqcow2_io *unsent(const struct zq_uring *u, unsigned i, unsigned n)
{
    const struct io_uring_sq *sq = &u->ring.sq;
    uint64_t data = sq->sqes[(sq->sqe_tail - n + i) & *sq->kring_mask].user_data;

    return data <= ZQ_URING_MORE ? NULL : (struct zqcow2_io *)(uintptr_t)data;
}

/* Takes them back. The kernel looks at the ring only when it is called. */
static void reclaim(struct zq_uring *u, struct zq_fifo *out)
{
    unsigned n = io_uring_sq_ready(&u->ring);

    for (unsigned i = 0; i < n; i++) {
        struct zqcow2_io *io = unsent(u, i, n);
        if (!io)
            continue;
        u->in_ring--;
        u->copies -= zq_uring_chain_copies(io);
        split(io, out);
    }
}

/* Will a completion of what the kernel has cause another call? */
static bool some_are_sent(const struct zq_uring *u)
{
    unsigned n = io_uring_sq_ready(&u->ring), sent = u->in_ring;

    for (unsigned i = 0; i < n; i++)
        sent -= unsent(u, i, n) != NULL;
    return sent;
}

/*
 * Returns an error only when calling again cannot help. If the kernel is short of memory, this
 * thread waits for it only if nothing else will cause a call.
 */
static int submit_prepared(struct zq_uring *u)
{
    while (io_uring_sq_ready(&u->ring)) {
        int rc = io_uring_submit(&u->ring);
        if (rc == -EAGAIN || rc == -EBUSY || rc == 0) {
            if (some_are_sent(u))
                return 0;
            nanosleep(&(struct timespec){0, 1000000}, NULL);
        } else if (rc < 0 && rc != -EINTR) {
            return rc;
        }
    }
    return 0;
}

/*
 * The next wake-up becomes a completion. The kernel delivers it in the thread that requested it, so
 * that must be the one that is about to wait: another might not be there to run it, and would have
 * its system calls interrupted.
 */
static void watch_wakes(struct zq_uring *u)
{
    struct io_uring_sqe *sqe = u->watching || u->unwatchable ? NULL : io_uring_get_sqe(&u->ring);

    if (!sqe)
        return;
    io_uring_prep_poll_add(sqe, u->wake_fd, POLLIN);
    io_uring_sqe_set_data64(sqe, ZQ_URING_WATCH);
    u->watching = true;
    u->watcher = pthread_self();
}

void zq_uring_submit(struct zq_uring *u, bool watch, struct zq_fifo *refused)
{
    unsigned left = io_uring_sq_ready(&u->ring);

    if (!u->broken) {
        if (watch)
            watch_wakes(u);
        if (!left) /* else their vectors are still in use */
            fill_ring(u);
        if (submit_prepared(u) < 0) {
            u->broken = true;
            u->watching = u->more = false;
            reclaim(u, refused);
        }
    }
    while (u->broken && u->queue.head)
        zq_fifo_push(refused, zq_fifo_pop(&u->queue));
}
