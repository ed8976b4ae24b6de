/* SPDX-License-Identifier: MIT */
/*
 * The library hands the memory of a request on to its backend, and looks at none of it in a write.
 * So the memory of a tag stands for the pages of the kernel's request. A transfer of a whole
 * request goes between those and the file, in the ring of its queue; for any other write the bytes
 * are fetched into the memory first, and any other read leaves bytes there.
 */
#include "ublk/direct.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Most file systems cannot write to the page cache without blocking, so the ring passes a write to
 * a worker of the kernel, which costs more than the copy of few bytes.
 */
#define WRITE_MIN (64u << 10)

/* Whose memory it is, if the kernel holds pages for it; else NULL. */
static struct ublk_tag *tag_of(const struct ublk_direct *d, const void *memory)
{
    for (uint32_t i = 0; i < d->nr_queues; i++) {
        const struct ublk_queue *q = &d->queues[i];
        size_t at = (size_t)((uintptr_t)memory - (uintptr_t)q->buffers);

        if (at < q->buffer_bytes)
            return q->tags[at / q->max_io].pages ? &q->tags[at / q->max_io] : NULL;
    }
    return NULL;
}

/* The bytes of a write come into its memory. */
static int fetch(const struct ublk_direct *d, const struct iovec *iov, int cnt)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < cnt; i++) {
        struct ublk_tag *t = tag_of(d, iov[i].iov_base);

        if (t)
            rc = ublk_queue_fetch(t, &iov[i]);
    }
    return rc;
}

/* A write that makes the file longer is the backend's, which checks what that could hide. */
static bool within_length(struct ublk_direct *d, uint64_t end)
{
    struct stat st;

    if (end <= __atomic_load_n(&d->length, __ATOMIC_RELAXED))
        return true;
    if (fstat(d->fd, &st))
        return false;
    __atomic_store_n(&d->length, (uint64_t)st.st_size, __ATOMIC_RELAXED);
    return end <= (uint64_t)st.st_size;
}

static bool is_whole(const struct ublk_tag *t, const struct zqcow2_io *io)
{
    return io->iovcnt == 1 && io->iov->iov_base == t->iov.iov_base &&
           io->iov->iov_len == t->iov.iov_len;
}

/* A ring is its thread's. */
static bool takes(struct ublk_direct *d, const struct ublk_tag *t, const struct zqcow2_io *io)
{
    return t && is_whole(t, io) && pthread_equal(t->queue->self, pthread_self()) &&
           (io->kind == ZQCOW2_IO_READ ||
            (io->length >= WRITE_MIN && within_length(d, io->offset + io->length)));
}

static int direct_submit(void *self, struct zqcow2_io *io)
{
    struct ublk_direct *d = self;
    int rc = 0;

    if (io->kind <= ZQCOW2_IO_WRITE) {
        struct ublk_tag *t = tag_of(d, io->iov->iov_base);

        if (takes(d, t, io))
            return ublk_queue_transfer(t, io, d->fd);
    }
    if (io->kind == ZQCOW2_IO_WRITE)
        rc = fetch(d, io->iov, (int)io->iovcnt);
    return rc < 0 ? rc : zqcow2_backend_submit(d->inner, io);
}

int ublk_direct_copy(struct ublk_direct *d, const struct zqcow2_io *io)
{
    int rc;

    if (io->kind == ZQCOW2_IO_READ)
        return zqcow2_backend_readv(d->inner, io->iov, (int)io->iovcnt, io->offset);
    rc = fetch(d, io->iov, (int)io->iovcnt);
    return rc < 0 ? rc : zqcow2_backend_writev(d->inner, io->iov, (int)io->iovcnt, io->offset);
}

/* ---- all else is the inner backend's ---- */

static struct zqcow2_backend *inner(void *self)
{
    return ((struct ublk_direct *)self)->inner;
}

static void direct_close(void *self)
{
    struct ublk_direct *d = self;

    zqcow2_backend_close(d->inner);
    close(d->fd);
}

static int direct_length(void *self, uint64_t *bytes)
{
    return zqcow2_backend_length(inner(self), bytes);
}

static int direct_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return zqcow2_backend_readv(inner(self), iov, cnt, off);
}

static int direct_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    int rc = fetch(self, iov, cnt);

    return rc < 0 ? rc : zqcow2_backend_writev(inner(self), iov, cnt, off);
}

static int direct_flush(void *self)
{
    return zqcow2_backend_flush(inner(self));
}

/* A transfer completes in the thread of its queue: another that waits for it may call instead. */
static int direct_limits(void *self, struct zqcow2_limits *out)
{
    int rc = zqcow2_backend_limits(inner(self), out);

    if (!zqcow2_backend_table(inner(self))->submit)
        out->caps |= ZQCOW2_CAP_BLOCKING_CALLS;
    return rc;
}

static int direct_truncate(void *self, uint64_t bytes)
{
    return zqcow2_backend_truncate(inner(self), bytes);
}

static int direct_discard(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_discard(inner(self), off, len);
}

static int direct_zero(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_zero(inner(self), off, len);
}

static int direct_lock(void *self, int mode)
{
    return zqcow2_backend_lock(inner(self), mode);
}

static void direct_invalidate(void *self)
{
    zqcow2_backend_invalidate(inner(self));
}

static void direct_kick(void *self)
{
    zqcow2_backend_kick(inner(self));
}

static void direct_wake(void *self)
{
    zqcow2_backend_wake(inner(self));
}

static int direct_poll(void *self, int timeout_ms)
{
    return zqcow2_backend_poll(inner(self), timeout_ms);
}

static int direct_fd(void *self)
{
    return zqcow2_backend_fd(inner(self));
}

static int direct_allocate(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_allocate(inner(self), off, len);
}

static int direct_data(void *self, uint64_t off, uint64_t *begin, uint64_t *end)
{
    return zqcow2_backend_data(inner(self), off, begin, end);
}

static struct zqcow2_backend_ops table(const struct zqcow2_backend_ops *in)
{
    return (struct zqcow2_backend_ops){.size = sizeof(struct zqcow2_backend_ops),
                                       .name = in->name,
                                       .close = direct_close,
                                       .length = direct_length,
                                       .readv = direct_readv,
                                       .writev = in->writev ? direct_writev : NULL,
                                       .flush = direct_flush,
                                       .limits = direct_limits,
                                       .truncate = in->truncate ? direct_truncate : NULL,
                                       .discard = in->discard ? direct_discard : NULL,
                                       .zero = in->zero ? direct_zero : NULL,
                                       .lock = in->lock ? direct_lock : NULL,
                                       .invalidate = direct_invalidate,
                                       .submit = direct_submit,
                                       .kick = direct_kick,
                                       .wake = direct_wake,
                                       .poll = in->poll ? direct_poll : NULL,
                                       .fd = in->poll ? direct_fd : NULL,
                                       .allocate = in->allocate ? direct_allocate : NULL,
                                       .data = in->data ? direct_data : NULL};
}

static int open_file(struct ublk_direct *d)
{
    int how = d->image->opt->read_only ? O_RDONLY : O_RDWR;
    struct stat st;

    if (zt_on_network(&d->image->opt->target))
        return -1;
    d->fd = open(d->image->path, how | O_CLOEXEC);
    if (d->fd >= 0 && (fstat(d->fd, &st) || !S_ISREG(st.st_mode))) {
        close(d->fd);
        d->fd = -1;
    }
    return d->fd;
}

void ublk_direct_wrap(void *direct, struct zqcow2_backend **be)
{
    struct zqcow2_backend_ops ops = table(zqcow2_backend_table(*be));
    struct ublk_direct *d = direct;

    if (open_file(d) < 0)
        return;
    d->inner = *be;
    zqcow2_backend_claim(*be);
    if (zqcow2_backend_new(&ops, d, NULL, be) == 0)
        return;
    *be = d->inner;
    zqcow2_backend_release(*be);
    d->inner = NULL;
    close(d->fd);
}
