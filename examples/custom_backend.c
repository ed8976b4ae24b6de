/* SPDX-License-Identifier: MIT */
/*
 * A backend of one's own, asynchronous: bytes in memory behind a thread that answers late. It takes
 * every kind of request, so that nothing blocks who submits; create uses the blocking functions.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zqcow2/backend.h>

#define ROOM (64u << 20)

struct slow {
    char bytes[ROOM]; /* zeros where nothing was written, as the contract wants of fresh bytes */
    _Atomic uint64_t length;
    int queue[2]; /* a pipe of pointers to requests: it needs neither a lock nor memory */
    pthread_t thread;
};

static int slow_length(void *self, uint64_t *bytes)
{
    *bytes = ((struct slow *)self)->length;
    return 0;
}

static int slow_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    for (int i = 0; i < cnt; off += iov[i++].iov_len) {
        size_t have = off < ROOM ? ROOM - (size_t)off : 0;
        size_t n = iov[i].iov_len < have ? iov[i].iov_len : have;
        memset(iov[i].iov_base, 0, iov[i].iov_len); /* what lies beyond the end */
        memcpy(iov[i].iov_base, ((struct slow *)self)->bytes + (have ? off : 0), n);
    }
    return 0;
}

static int slow_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct slow *s = self;
    for (int i = 0; i < cnt; off += iov[i++].iov_len) {
        if (off > ROOM || iov[i].iov_len > ROOM - off)
            return -ENOSPC;
        memcpy(s->bytes + off, iov[i].iov_base, iov[i].iov_len);
    }
    for (uint64_t old = s->length; old < off;)
        atomic_compare_exchange_weak(&s->length, &old, off);
    return 0;
}

static int slow_truncate(void *self, uint64_t bytes)
{
    struct slow *s = self;
    if (bytes <= ROOM)
        memset(s->bytes + bytes, 0, s->length > bytes ? (size_t)(s->length - bytes) : 0);
    s->length = bytes <= ROOM ? bytes : s->length;
    return bytes <= ROOM ? 0 : -ENOSPC;
}

static int slow_flush(void *self)
{
    return (void)self, 0;
}

static int slow_zero(void *self, uint64_t off, uint64_t len)
{
    struct slow *s = self;
    if (off > ROOM || len > ROOM - off)
        return -ENOSPC;
    memset(s->bytes + off, 0, (size_t)len);
    for (uint64_t old = s->length; old < off + len;)
        atomic_compare_exchange_weak(&s->length, &old, off + len);
    return 0;
}

static int slow_submit(void *self, struct zqcow2_io *io)
{
    return write(((struct slow *)self)->queue[1], &io, sizeof(io)) == sizeof(io) ? 0 : -EIO;
}

static void *serve(void *self)
{
    struct slow *s = self;
    for (struct zqcow2_io *io; read(s->queue[0], &io, sizeof(io)) == sizeof(io);) {
        int rc = 0; /* a flush and a discard have nothing to do here */
        usleep(200);
        if (io->kind == ZQCOW2_IO_READ)
            rc = slow_readv(s, io->iov, (int)io->iovcnt, io->offset);
        else if (io->kind == ZQCOW2_IO_WRITE)
            rc = slow_writev(s, io->iov, (int)io->iovcnt, io->offset);
        else if (io->kind == ZQCOW2_IO_ZERO)
            rc = slow_zero(s, io->offset, io->length);
        else if (io->kind == ZQCOW2_IO_TRUNCATE)
            rc = slow_truncate(s, io->offset);
        zqcow2_io_done(io, rc); /* from now on io is the library's again */
    }
    return NULL;
}

static void slow_close(void *self) /* nothing is in flight any more */
{
    struct slow *s = self;
    close(s->queue[1]);
    pthread_join(s->thread, NULL);
    close(s->queue[0]);
}

static const struct zqcow2_backend_ops slow_ops = {
    .size = sizeof(slow_ops),
    .name = "slow",
    .close = slow_close,
    .length = slow_length,
    .readv = slow_readv,
    .writev = slow_writev,
    .flush = slow_flush,
    .submit = slow_submit,
    .truncate = slow_truncate,
    .zero = slow_zero,
};

int main(void)
{
    static struct slow s; /* costs what is written to */
    struct zqcow2_create_options how = {
        .size = sizeof(how), .virtual_size = 64 << 20, .zone_size = 16 << 20};
    struct zqcow2_open_options opt = {.size = sizeof(opt), .flags = ZQCOW2_OPEN_RDWR};
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    char data[4096] = "from a slow store", back[4096];
    int rc = pipe(s.queue) || pthread_create(&s.thread, NULL, serve, &s) ? -EAGAIN : 0;

    if (rc || (rc = zqcow2_backend_new(&slow_ops, &s, NULL, &be)) ||
        (rc = zqcow2_create(be, &how, NULL)) || (rc = zqcow2_open(be, &opt, &img, NULL)) ||
        (rc = zqcow2_write(img, data, sizeof(data), 0, ZQCOW2_FUA)) ||
        (rc = zqcow2_write_zeroes(img, sizeof(data), sizeof(data), 0)) ||
        (rc = zqcow2_read(img, back, sizeof(back), 0)))
        return fprintf(stderr, "%s\n", zqcow2_strerror(rc)), 1;
    printf("read back: %s\n", back);
    return zqcow2_close(img) || memcmp(data, back, sizeof(back)); /* closes the backend, too */
}
