/* SPDX-License-Identifier: MIT */
/*
 * The io_uring backend: a host file whose requests run in the kernel, side by side.
 *
 * submit() queues; kick() hands the queue to the kernel in one call; poll() reaps. At most
 * ZQ_URING_DEPTH requests are the kernel's, and one of our own, so that neither ring overflows;
 * others wait in the queue. What the ring cannot do, or does only in part at the end of a file, is
 * done by the blocking calls of file.c. The mutex is never held while a completion is reported.
 *
 * A poll that has to wait does so in the ring, which is cheaper than poll(2) on its descriptor. One
 * request of our own there, without a buffer, watches wake_fd, so that a wake-up is a completion.
 */
#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "backend/uring_int.h"
#include "base/bytes.h"
#include "base/fd.h"
#include "device/backend.h"

#define BATCH 32u

/* ---- towards the kernel ---- */

static void run_blocking(struct zq_uring *u, struct zqcow2_io *io);

/* All that waits, in one call to the kernel. True: this thread watches for wake-ups. */
static bool push_queue(struct zq_uring *u, bool watch)
{
    struct zq_fifo refused = {NULL, NULL};
    bool mine;

    pthread_mutex_lock(&u->mutex);
    zq_uring_submit(u, watch, &refused);
    mine = u->watching && pthread_equal(u->watcher, pthread_self()) && !io_uring_sq_ready(&u->ring);
    pthread_mutex_unlock(&u->mutex);
    while (refused.head)
        run_blocking(u, zq_fifo_pop(&refused));
    return mine;
}

static bool beyond_length(struct zq_file *f, const struct zqcow2_io *io)
{
    uint64_t end = io->offset + io->length;

    return f->is_device ? end > atomic_load(&f->device_length) :
                          io->kind != ZQCOW2_IO_READ && zq_file_keeps_end(f, end) < 0;
}

/* The ring takes plain transfers; what needs thought is left to the blocking callbacks. */
static bool ring_takes(struct zq_uring *u, const struct zqcow2_io *io)
{
    switch (io->kind) {
    case ZQCOW2_IO_READ:
    case ZQCOW2_IO_WRITE:
        return io->length && io->offset <= INT64_MAX && !beyond_length(&u->file, io);
    case ZQCOW2_IO_FLUSH: return true;
    case ZQCOW2_IO_TRUNCATE:
        return u->truncates && io->offset <= INT64_MAX && !zq_file_keeps_end(&u->file, io->offset);
    case ZQCOW2_IO_ZERO:
        return io->length && io->offset <= INT64_MAX &&
               (!atomic_load(&u->file.no_punch) || !beyond_length(&u->file, io));
    case ZQCOW2_IO_DISCARD:
        return io->length && io->offset <= INT64_MAX && !atomic_load(&u->file.no_punch);
    default: return false;
    }
}

static bool enqueue(struct zq_uring *u, struct zqcow2_io *io)
{
    bool can;

    pthread_mutex_lock(&u->mutex);
    can = !u->broken;
    if (can)
        zq_fifo_push(&u->queue, io);
    pthread_mutex_unlock(&u->mutex);
    return can;
}

static unsigned first_marks(const struct zq_uring *u, const struct zqcow2_io *io)
{
    if (io->kind == ZQCOW2_IO_ZERO && atomic_load(&u->file.no_punch))
        return ZQ_URING_WRITTEN | ZQ_URING_POOL;
    return io->kind <= ZQCOW2_IO_WRITE && io->length > ZQ_URING_CALL_BYTES ? ZQ_URING_POOL : 0;
}

static int uring_submit(void *self, struct zqcow2_io *io)
{
    struct zq_uring *u = self;

    zq_uring_set_done(io, 0);
    zq_uring_set_merged(io, NULL);
    zq_uring_set_marks(io, first_marks(u, io));
    if (!ring_takes(u, io))
        return -EOPNOTSUPP;
    if (io->kind == ZQCOW2_IO_TRUNCATE)
        zq_file_cuts(&u->file, io->offset);
    return enqueue(u, io) ? 0 : -EOPNOTSUPP;
}

static void uring_kick(void *self)
{
    push_queue(self, false);
}

/* ---- completions ---- */

/* Does what is left of a request with blocking calls, and reports it. */
static void run_blocking(struct zq_uring *u, struct zqcow2_io *io)
{
    struct zq_file *f = &u->file;
    int cnt = (int)io->iovcnt, rc;

    switch (io->kind) {
    case ZQCOW2_IO_READ:
        rc = zq_file_read_rest(f, io->iov, cnt, io->offset, zq_uring_done(io));
        break;
    case ZQCOW2_IO_WRITE:
        rc = zq_file_write_rest(f, io->iov, cnt, io->offset, zq_uring_done(io));
        break;
    case ZQCOW2_IO_FLUSH: rc = zq_file_flush(f); break;
    case ZQCOW2_IO_ZERO:
        rc = zq_file_zero(f, io->offset, io->length);
        if (rc == -EOPNOTSUPP)
            rc = zq_file_write_zeros(f, io->offset, io->offset + io->length);
        break;
    case ZQCOW2_IO_TRUNCATE: rc = zq_file_truncate(f, io->offset); break;
    default: rc = zq_file_discard(f, io->offset, io->length);
    }
    zqcow2_io_done(io, rc);
}

/*
 * Results that say something of the ring, not of the file: a request that must wait, or whose
 * submitting thread has ended. A worker does it next time, so that nothing waits for it here. An
 * interrupted flush is none of them: it may have used up the file's error report, so it counts as
 * failed.
 */
static bool goes_back(struct zq_uring *u, struct zqcow2_io *io, int res)
{
    bool no_hole = res == -EOPNOTSUPP || res == -ENOSYS || res == -EINVAL;
    unsigned marks = zq_uring_marks(io);

    if (io->kind == ZQCOW2_IO_ZERO && no_hole && !(marks & ZQ_URING_WRITTEN)) {
        if (res != -EINVAL)
            atomic_store(&u->file.no_punch, true);
        zq_uring_mark(io, ZQ_URING_WRITTEN | ZQ_URING_POOL);
        return !beyond_length(&u->file, io);
    }
    if (marks & ZQ_URING_AGAIN || (res == -EINTR && io->kind == ZQCOW2_IO_FLUSH) ||
        (res != -EAGAIN && res != -ECANCELED && res != -EINTR))
        return false;
    zq_uring_mark(io, ZQ_URING_AGAIN | ZQ_URING_POOL);
    return true;
}

/* What goes back only once; and what an old kernel does not know. */
static bool worth_blocking(const struct zqcow2_io *io, int res)
{
    switch (res) {
    case -EAGAIN:
    case -ECANCELED: return true;
    case -EINTR:
    case -EINVAL:
    case -EOPNOTSUPP:
    case -ENOSYS: return io->kind != ZQCOW2_IO_FLUSH;
    default: return false;
    }
}

static void again(struct zq_uring *u, struct zqcow2_io *io)
{
    if (!enqueue(u, io))
        run_blocking(u, io);
}

/*
 * What one poll may not zero any more is read again. A direct read could go on only at a block, so
 * each makes it to the next one at least.
 */
static void read_met_end(struct zq_uring *u, struct zqcow2_io *io)
{
    struct zq_cursor c = {io->iov, (int)io->iovcnt, 0};
    uint64_t done = zq_uring_done(io);
    uint64_t n = zq_align_up(done + zq_max(u->zeroes, 1), u->file.io_align) - done;
    int rc = zq_file_met_end(&u->file, io->offset + done);

    n = zq_min(n, io->length - done);
    u->zeroes -= zq_min(u->zeroes, n);
    zq_cursor_skip(&c, done);
    zq_cursor_zero(&c, n);
    zq_uring_set_done(io, done + n);
    if (rc < 0 || done + n == io->length)
        zqcow2_io_done(io, rc);
    else
        again(u, io);
}

/* True: there is more to transfer, the request goes back into the queue. */
static bool transferred(struct zq_uring *u, struct zqcow2_io *io, unsigned n)
{
    bool read = io->kind == ZQCOW2_IO_READ;

    zq_uring_set_done(io, zq_uring_done(io) + n);
    if (!read)
        zq_file_reached(&u->file, io->offset + zq_uring_done(io));
    if (zq_uring_done(io) >= io->length)
        zqcow2_io_done(io, 0);
    else if (read && (!n || n % u->file.io_align)) /* a direct read could not go on from there */
        read_met_end(u, io);
    else if (n == 0)
        zqcow2_io_done(io, -EIO);
    else
        return true;
    return false;
}

/*
 * The kernel may report a loss of earlier data as the error of a write, and then never again: it
 * must be somebody's result.
 */
static bool is_reported_once(int res)
{
    return res == -EIO || res == -ENOSPC || res == -EDQUOT || res == -EFBIG;
}

/*
 * The requests that are in flight when the kernel first refuses the flag go back to it without: a
 * blocking call of each would hold up the loop.
 */
static bool flag_refused(struct zq_uring *u, struct zqcow2_io *io, int res)
{
    bool refused = res == -EOPNOTSUPP && zq_uring_marks(io) & ZQ_URING_UNCACHED;

    zq_uring_set_marks(io, zq_uring_marks(io) & ~ZQ_URING_UNCACHED);
    if (refused)
        zq_file_no_uncached(&u->file);
    return refused;
}

/* Whatever a request did not get of the result, it asks for by itself. */
static void finish_merged(struct zq_uring *u, struct zqcow2_io *io, int res)
{
    uint64_t left = res < 0 ? 0 : (unsigned)res;
    struct zqcow2_io *next = io;

    (void)flag_refused(u, io, res); /* all of them go back in any case */
    if (is_reported_once(res)) {
        next = zq_uring_take_off(io);
        zqcow2_io_done(io, res);
    }
    for (io = next; io; io = next) {
        uint64_t n = zq_min(left, io->length);

        left -= n;
        next = zq_uring_take_off(io);
        zq_uring_set_marks(io, ZQ_URING_ALONE);
        if (n == 0 || transferred(u, io, (unsigned)n))
            again(u, io);
    }
}

static void finish(struct zq_uring *u, struct zqcow2_io *io, int res)
{
    bool moves = io->kind <= ZQCOW2_IO_WRITE || zq_uring_marks(io) & ZQ_URING_WRITTEN;

    if (flag_refused(u, io, res) || (res < 0 && goes_back(u, io, res))) {
        again(u, io);
    } else if (res < 0 && worth_blocking(io, res)) {
        run_blocking(u, io);
    } else if (res < 0) {
        zqcow2_io_done(io, res);
    } else if (io->kind == ZQCOW2_IO_FLUSH) {
        zqcow2_io_done(io, zq_file_check_length(&u->file));
    } else if (!moves) {
        if (io->kind == ZQCOW2_IO_TRUNCATE)
            zq_file_reached(&u->file, io->offset);
        zqcow2_io_done(io, 0);
    } else if (transferred(u, io, (unsigned)res)) {
        again(u, io);
    }
}

struct completion {
    struct zqcow2_io *io; /* NULL: one of our own */
    int res;
    bool wake;
};

/* Under the mutex. */
static struct completion taken(struct zq_uring *u, const struct io_uring_cqe *cqe)
{
    struct completion c = {NULL, cqe->res, cqe->user_data == ZQ_URING_WATCH};

    if (c.wake) {
        u->watching = false;
        u->unwatchable |= c.res < 0 && c.res != -ECANCELED;
    } else if (cqe->user_data == ZQ_URING_MORE) {
        u->more = false;
    } else {
        c.io = io_uring_cqe_get_data(cqe);
        u->in_ring--;
        u->copies -= zq_uring_chain_copies(c.io);
    }
    return c;
}

static unsigned reap(struct zq_uring *u, struct completion *out, unsigned max)
{
    struct io_uring_cqe *cqe[BATCH];
    unsigned n;

    pthread_mutex_lock(&u->mutex);
    n = io_uring_peek_batch_cqe(&u->ring, cqe, max);
    for (unsigned i = 0; i < n; i++)
        out[i] = taken(u, cqe[i]);
    io_uring_cq_advance(&u->ring, n);
    pthread_mutex_unlock(&u->mutex);
    return n;
}

static void clear_wakes(struct zq_uring *u)
{
    eventfd_t wakes;

    (void)eventfd_read(u->wake_fd, &wakes); /* EAGAIN: there are none */
}

/* What was complete when it began, not what completes meanwhile: it ends in any case. */
static bool drain_ring(struct zq_uring *u)
{
    unsigned ready = io_uring_cq_ready(&u->ring), reaped = 0;

    u->zeroes = ZQ_URING_CALL_BYTES;
    while (reaped < ready) {
        struct completion c[BATCH];
        unsigned n = reap(u, c, ready - reaped < BATCH ? ready - reaped : BATCH);
        if (n == 0)
            break;
        for (unsigned i = 0; i < n; i++) {
            if (c[i].wake)
                clear_wakes(u); /* whatever they are for: this poll returns */
            if (!c[i].io)
                continue;
            if (zq_uring_merged(c[i].io))
                finish_merged(u, c[i].io, c[i].res);
            else
                finish(u, c[i].io, c[i].res);
        }
        reaped += n;
    }
    if (reaped)
        push_queue(u, false);
    return reaped;
}

/*
 * False: not here, as when another thread watches, or in a sandbox that was closed after the ring
 * was made.
 */
static bool wait_in_ring(struct zq_uring *u, int timeout_ms)
{
    struct __kernel_timespec ts = {timeout_ms / 1000, timeout_ms % 1000 * 1000000LL};
    struct io_uring_cqe *cqe;
    int rc;

    if (!push_queue(u, true))
        return false;
    rc = io_uring_wait_cqes(&u->ring, &cqe, 1, timeout_ms < 0 ? NULL : &ts, NULL);
    return rc >= 0 || rc == -ETIME || rc == -EINTR || rc == -EAGAIN;
}

static int wait_on_fds(struct zq_uring *u, int timeout_ms)
{
    struct pollfd p[2] = {{u->ring.ring_fd, POLLIN, 0}, {u->wake_fd, POLLIN, 0}};

    if (poll(p, 2, timeout_ms) < 0)
        return errno == EINTR ? 0 : -errno;
    if (p[1].revents)
        clear_wakes(u);
    return 0;
}

static int uring_poll(void *self, int timeout_ms)
{
    struct zq_uring *u = self;
    int rc = 0;

    if (drain_ring(u) || timeout_ms == 0)
        return 0;
    if (!wait_in_ring(u, timeout_ms))
        rc = wait_on_fds(u, timeout_ms);
    drain_ring(u);
    return rc;
}

/* Stays in effect until a poll has seen it. */
static void uring_wake(void *self)
{
    /* It fails only when the counter is full, and then it is readable anyway. */
    (void)eventfd_write(((struct zq_uring *)self)->wake_fd, 1);
}

static int uring_fd(void *self)
{
    return ((struct zq_uring *)self)->ring.ring_fd;
}

/* ---- opening and closing ---- */

/* Nothing that the kernel may still write to, or read from, outlives this. */
static void wait_for_kernel(struct zq_uring *u)
{
    push_queue(u, false);
    for (;;) {
        pthread_mutex_lock(&u->mutex);
        bool idle = !u->in_ring && !u->queue.head;
        pthread_mutex_unlock(&u->mutex);
        if (idle)
            return;
        (void)uring_poll(u, -1);
    }
}

/* The kernel ends a ring some time later; the file is released at once, for an unmount. */
static void close_ring(struct zq_uring *u)
{
    zq_uring_forget_areas(u);
    if (u->fixed_file)
        (void)io_uring_unregister_files(&u->ring);
    io_uring_queue_exit(&u->ring);
    close(u->wake_fd);
    pthread_mutex_destroy(&u->mutex);
}

static void uring_close(void *self)
{
    struct zq_uring *u = self;
    struct zqcow2_hooks hooks = u->file.hooks;

    wait_for_kernel(u);
    close_ring(u);
    zq_file_close(&u->file);
    zq_free(&hooks, u, sizeof(*u));
}

/* A thread that waits is as well served by the calls of file.c, and without the kernel's workers.
 */
static int uring_limits(void *self, struct zqcow2_limits *out)
{
    int rc = zq_file_limits(self, out);

    out->caps |= ZQCOW2_CAP_BLOCKING_CALLS;
    return rc;
}

static const struct zqcow2_backend_ops uring_ops = {
    ZQ_FILE_OPS,
    .name = "io_uring",
    .close = uring_close,
    .limits = uring_limits,
    .submit = uring_submit,
    .kick = uring_kick,
    .wake = uring_wake,
    .poll = uring_poll,
    .fd = uring_fd,
};

/* A block device cannot be cut; file.c keeps a length for it. */
static bool can_truncate(struct zq_uring *u)
{
    union {
        struct io_uring_probe p;
        uint8_t room[sizeof(struct io_uring_probe) +
                     (ZQ_URING_FTRUNCATE + 1) * sizeof(struct io_uring_probe_op)];
    } probe = {.room = {0}};

    return !u->file.is_device &&
           io_uring_register_probe(&u->ring, &probe.p, ZQ_URING_FTRUNCATE + 1) == 0 &&
           io_uring_opcode_supported(&probe.p, ZQ_URING_FTRUNCATE);
}

/* Where io_uring is switched off for this program the kernel returns EPERM. */
static int init_ring(struct io_uring *ring)
{
    int rc = io_uring_queue_init(ZQ_URING_DEPTH, ring, 0);
    if (rc < 0)
        return rc == -EPERM ? -ENOSYS : rc;
    ring->ring_fd = ring->enter_ring_fd = zq_fd_lift(ring->ring_fd);
    /* Waiting with a time limit beside threads that submit: from Linux 5.11 on. */
    if (ring->ring_fd >= 0 && ring->features & IORING_FEAT_EXT_ARG)
        return 0;
    rc = ring->ring_fd < 0 ? ring->ring_fd : -ENOSYS;
    io_uring_queue_exit(ring);
    return rc;
}

static int open_ring(struct zq_uring *u)
{
    int rc = init_ring(&u->ring);

    if (rc < 0)
        return rc;
    /* Of direct I/O only what is in flight may hold the file when the process dies, see lock.c. */
    u->fixed_file =
        !zq_file_direct(&u->file) && io_uring_register_files(&u->ring, &u->file.fd, 1) == 0;
    u->wake_fd = zq_fd_lift(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (u->wake_fd < 0) {
        io_uring_queue_exit(&u->ring);
        return u->wake_fd;
    }
    pthread_mutex_init(&u->mutex, NULL); /* default attributes: cannot fail */
    u->truncates = can_truncate(u);
    push_queue(u, true); /* whether the kernel takes anything */
    if (!u->broken)
        return 0;
    close_ring(u);
    return -ENOSYS;
}

/* The backend of a path, or, where path is NULL, of fd. */
static int make(struct zq_uring *u, const char *path, unsigned flags, int fd,
                const struct zqcow2_hooks *h, struct zqcow2_backend **be)
{
    struct zq_file *f = &u->file;
    int rc = path ? zq_file_open(f, path, flags, h) : zq_file_adopt(f, fd, h);

    if (rc < 0)
        return rc;
    rc = open_ring(u);
    if (rc == 0) {
        rc = zqcow2_backend_new(&uring_ops, u, h, be);
        if (rc < 0)
            close_ring(u);
    }
    if (rc == 0)
        zq_file_keep(f);
    else
        path ? zq_file_close(f) : zq_file_give_back(f);
    return rc;
}

static int uring_new(const char *path, unsigned flags, int fd, const struct zqcow2_hooks *hooks,
                     struct zqcow2_backend **be)
{
    struct zqcow2_hooks h;
    struct zq_uring *u;
    int rc = be ? zq_hooks_init(&h, hooks) : -EINVAL;

    if (rc < 0)
        return rc;
    u = zq_zalloc(&h, sizeof(*u));
    if (!u)
        return -ENOMEM;
    rc = make(u, path, flags, fd, &h, be);
    if (rc < 0)
        zq_free(&h, u, sizeof(*u));
    return rc;
}

int zqcow2_uring_open(const char *path, unsigned flags, const struct zqcow2_hooks *hooks,
                      struct zqcow2_backend **be)
{
    return path ? uring_new(path, flags, -1, hooks, be) : -EINVAL;
}

int zqcow2_uring_from_fd(int fd, const struct zqcow2_hooks *hooks, struct zqcow2_backend **be)
{
    return uring_new(NULL, 0, fd, hooks, be);
}

/* A backend is recognized by its submit(). */
int zqcow2_uring_register(struct zqcow2_backend *be, const struct iovec *areas, unsigned n)
{
    struct zq_uring *u;
    int rc;

    if (!be || be->ops.submit != uring_submit || !zq_uring_areas_are_valid(areas, n))
        return -EINVAL;
    u = be->self;
    pthread_mutex_lock(&u->mutex);
    rc = zq_uring_set_areas(u, areas, n);
    pthread_mutex_unlock(&u->mutex);
    return rc;
}
