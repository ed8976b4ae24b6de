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

static void prep_transfer(struct io_uring_sqe *sqe, int fd, const struct zqcow2_io *io)
{
    struct zq_cursor c = {io->iov, (int)io->iovcnt, 0};
    uint64_t off = io->offset + zq_uring_done(io);
    bool write = io->kind == ZQCOW2_IO_WRITE;
    void *p;
    size_t n;

    zq_cursor_skip(&c, zq_uring_done(io));
    if (zq_cursor_flat(&c, &p, &n)) {
        io_uring_prep_rw(write ? IORING_OP_WRITE : IORING_OP_READ, sqe, fd, p,
                         (unsigned)zq_min(n, PIECE_MAX), off);
        return;
    }
    io_uring_prep_rw(write ? IORING_OP_WRITEV : IORING_OP_READV, sqe, fd, c.iov,
                     (unsigned)zq_min((unsigned)c.cnt, IOV_MOST), off);
}

static void prep_alone(struct io_uring_sqe *sqe, int fd, const struct zqcow2_io *io)
{
    switch (io->kind) {
    case ZQCOW2_IO_READ:
    case ZQCOW2_IO_WRITE: prep_transfer(sqe, fd, io); break;
    case ZQCOW2_IO_FLUSH: io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC); break;
    case ZQCOW2_IO_TRUNCATE:
        io_uring_prep_rw(ZQ_URING_FTRUNCATE, sqe, fd, NULL, 0, io->offset);
        break;
    default: /* ZERO, DISCARD */
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

/* Takes from the queue what room requests of the ring can hold, as far as the window reaches. */
static void gather(struct zq_uring *u, struct fill *f, unsigned room)
{
    struct zqcow2_io *io;

    f->n = 0;
    while ((io = u->queue.head)) {
        bool grows = may_merge(u, f, io);
        if (!(grows && join(f, io))) {
            if (f->n == WINDOW || f->n == room)
                return;
            f->merge[f->n++] = (struct merge){io, io, grows, io->length};
        }
        f->iovs -= grows ? io->iovcnt : 0;
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
        prep_alone(sqe, fd, m->first);
    else
        prep_merged(f, sqe, fd, m);
    if (m->first->kind <= ZQCOW2_IO_WRITE && zq_file_uncached(&u->file)) {
        sqe->rw_flags = ZQ_RWF_DONTCACHE;
        zq_uring_set_marks(m->first, zq_uring_marks(m->first) | ZQ_URING_UNCACHED);
    }
    io_uring_sqe_set_flags(sqe, u->fixed_file ? IOSQE_FIXED_FILE : 0);
    io_uring_sqe_set_data(sqe, m->first);
    u->in_ring++;
}

/* The kernel copies the vectors when it takes a request, so all of them are free here. */
static void fill_ring(struct zq_uring *u)
{
    struct fill f = {.iov = u->iov, .iovs = ZQ_URING_IOVS};

    do {
        gather(u, &f,
               (unsigned)zq_min(ZQ_URING_DEPTH - u->in_ring, io_uring_sq_space_left(&u->ring)));
        for (unsigned i = 0; i < f.n; i++)
            prep(u, &f, &f.merge[i]);
    } while (f.n);
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

/* Takes back what the kernel has not consumed. It looks at the ring only when it is called. */
static void reclaim(struct zq_uring *u, struct zq_fifo *out)
{
    struct io_uring_sq *sq = &u->ring.sq;
    unsigned n = io_uring_sq_ready(&u->ring);

    for (unsigned i = 0; i < n; i++) {
        struct io_uring_sqe *sqe = &sq->sqes[(sq->sqe_tail - n + i) & *sq->kring_mask];
        if (sqe->user_data == ZQ_URING_WATCH)
            continue;
        split((struct zqcow2_io *)(uintptr_t)sqe->user_data, out);
        u->in_ring--;
    }
}

/* Returns an error only when calling again cannot help. */
static int submit_prepared(struct zq_uring *u)
{
    while (io_uring_sq_ready(&u->ring)) {
        int rc = io_uring_submit(&u->ring);
        if (rc == -EAGAIN || rc == -EBUSY || rc == 0)
            nanosleep(&(struct timespec){0, 1000000}, NULL); /* the kernel is short of memory */
        else if (rc < 0 && rc != -EINTR)
            return rc;
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
    if (!u->broken) {
        if (watch)
            watch_wakes(u);
        fill_ring(u);
        if (submit_prepared(u) < 0) {
            u->broken = true;
            u->watching = false;
            reclaim(u, refused);
        }
    }
    while (u->broken && u->queue.head)
        zq_fifo_push(refused, zq_fifo_pop(&u->queue));
}
