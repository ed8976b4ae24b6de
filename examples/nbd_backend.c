/* SPDX-License-Identifier: MIT */
/*
 * A backend on a remote NBD server, asynchronous: one thread owns the connection, requests reach it
 * through a list, answers leave as they come. nbd_backend URI makes an image there and uses it:
 * nbdkit -U - memory 1G --run './nbd_backend "$uri"'
 */
#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zqcow2/backend.h>

#define MOST (32u << 20) /* bytes in one request: what NBD servers take at least */
#define ZONE ((uint64_t)16 << 20)

struct nbd {
    struct nbd_handle *h;    /* the thread's, once it runs */
    uint64_t capacity;       /* of the export, which cannot grow; */
    _Atomic uint64_t length; /* within it the file grows, and begins by filling it */
    pthread_mutex_t grow, lock;
    struct zqcow2_io *first; /* under lock: accepted, newest first */
    int wake, stop, read_only;
    pthread_t thread;
};

/* What a request carries in its backend[]: the next one; for a blocking call, waiter and result. */
enum { NEXT, WAITER, RESULT };

static int answered(void *arg, int *error)
{
    struct zqcow2_io *io = arg;
    sem_t *waiter = io->backend[WAITER];

    io->backend[RESULT] = (void *)(intptr_t) - *error;
    if (!waiter)
        zqcow2_io_done(io, -*error); /* from now on io is the library's again */
    else
        sem_post(waiter);
    return 1; /* libnbd may forget the command */
}

static void start(struct nbd *n, struct zqcow2_io *io)
{
    nbd_completion_callback cb = {.callback = answered, .user_data = io};
    void *buf = io->iovcnt ? io->iov->iov_base : NULL; /* NBD has no vectors: max_iov is 1 */
    size_t room = io->iovcnt ? io->iov->iov_len : 0;
    uint64_t len = io->length, off = io->offset;
    int64_t rc = io->kind == ZQCOW2_IO_READ  ? nbd_aio_pread(n->h, buf, room, off, cb, 0) :
                 io->kind == ZQCOW2_IO_WRITE ? nbd_aio_pwrite(n->h, buf, room, off, cb, 0) :
                 io->kind == ZQCOW2_IO_ZERO  ? nbd_aio_zero(n->h, len, off, cb, 0) :
                                               nbd_aio_flush(n->h, cb, 0);

    if (rc < 0)
        answered(io, &(int){nbd_get_errno() ? nbd_get_errno() : EIO});
}

static struct zqcow2_io *take(struct nbd *n, int *stop)
{
    struct zqcow2_io *io;

    pthread_mutex_lock(&n->lock);
    io = n->first;
    n->first = NULL;
    *stop = n->stop;
    pthread_mutex_unlock(&n->lock);
    return io;
}

/* A lost connection stays lost: what is in flight fails, and nothing later can overtake it. */
static void *serve(void *self)
{
    struct nbd *n = self;

    for (int stop = 0; !stop;) {
        uint64_t count;
        for (struct zqcow2_io *io = take(n, &stop), *next; io; io = next) {
            next = io->backend[NEXT];
            start(n, io);
        }
        unsigned dir = nbd_aio_get_direction(n->h);
        short events = (short)((dir & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                               (dir & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
        struct pollfd p[] = {{n->wake, POLLIN, 0}, {nbd_aio_get_fd(n->h), events, 0}};
        if (stop || poll(p, 2, -1) < 0)
            continue;
        if (p[0].revents && read(n->wake, &count, sizeof(count)) < 0)
            continue;
        if (p[1].revents & POLLOUT)
            nbd_aio_notify_write(n->h);
        else if (p[1].revents)
            nbd_aio_notify_read(n->h);
    }
    return NULL;
}

static void push(struct nbd *n, struct zqcow2_io *io, sem_t *waiter)
{
    io->backend[WAITER] = waiter;
    pthread_mutex_lock(&n->lock);
    io->backend[NEXT] = n->first;
    n->first = io;
    pthread_mutex_unlock(&n->lock);
}

static void remote_kick(void *self)
{
    if (write(((struct nbd *)self)->wake, &(uint64_t){1}, 8) != 8)
        return; /* it is awake already */
}

/* The blocking calls are the same requests, waited for. */
static int call(struct nbd *n, uint32_t kind, void *buf, uint64_t len, uint64_t off)
{
    struct iovec iov = {buf, (size_t)len};
    struct zqcow2_io io = {.kind = kind, .iovcnt = 1, .iov = &iov, .offset = off, .length = len};
    sem_t over;

    sem_init(&over, 0, 0);
    push(n, &io, &over);
    remote_kick(n);
    while (sem_wait(&over) < 0)
        ; /* a signal */
    sem_destroy(&over);
    return (int)(intptr_t)io.backend[RESULT];
}

static int remote_length(void *self, uint64_t *bytes)
{
    *bytes = ((struct nbd *)self)->length;
    return 0;
}

/* What is gained must read as zeros, whatever the export held there. */
static int grow(struct nbd *n, uint64_t end)
{
    int rc = end > n->capacity ? -ENOSPC : 0;

    pthread_mutex_lock(&n->grow);
    for (uint64_t len; rc == 0 && n->length < end; n->length += rc ? 0 : len) {
        len = end - n->length < MOST ? end - n->length : MOST;
        rc = call(n, ZQCOW2_IO_ZERO, NULL, len, n->length);
    }
    pthread_mutex_unlock(&n->grow);
    return rc;
}

static int remote_truncate(void *self, uint64_t bytes)
{
    struct nbd *n = self;

    if (bytes > n->length)
        return grow(n, bytes);
    n->length = bytes;
    return 0;
}

static int remote_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct nbd *n = self;
    int rc = 0;

    for (int i = 0; rc == 0 && i < cnt; off += iov[i++].iov_len) {
        uint64_t have = off < n->length ? n->length - off : 0;
        size_t len = iov[i].iov_len < have ? iov[i].iov_len : (size_t)have;
        memset((char *)iov[i].iov_base + len, 0, iov[i].iov_len - len); /* beyond the end */
        rc = len ? call(n, ZQCOW2_IO_READ, iov[i].iov_base, len, off) : 0;
    }
    return rc;
}

static int remote_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < cnt; off += iov[i++].iov_len) {
        rc = grow(self, off + iov[i].iov_len);
        if (rc == 0)
            rc = call(self, ZQCOW2_IO_WRITE, iov[i].iov_base, iov[i].iov_len, off);
    }
    return rc;
}

static int remote_sync(void *self)
{
    return call(self, ZQCOW2_IO_FLUSH, NULL, 0, 0);
}

static int remote_submit(void *self, struct zqcow2_io *io)
{
    struct nbd *n = self;

    if (io->kind > ZQCOW2_IO_ZERO || (io->kind == ZQCOW2_IO_ZERO && io->length > MOST) ||
        io->offset > n->length || io->length > n->length - io->offset)
        return -EOPNOTSUPP; /* what touches the end is for the blocking calls */
    push(n, io, NULL);
    return 0;
}

static int remote_limits(void *self, struct zqcow2_limits *out)
{
    out->max_iov = 1;
    out->max_transfer = MOST;
    out->caps = ((struct nbd *)self)->read_only ? ZQCOW2_CAP_READ_ONLY : 0;
    return 0;
}

static void remote_over(void *self) /* nothing is in flight any more */
{
    struct nbd *n = self;

    pthread_mutex_lock(&n->lock);
    n->stop = 1;
    pthread_mutex_unlock(&n->lock);
    remote_kick(n);
    pthread_join(n->thread, NULL);
    nbd_shutdown(n->h, 0);
    nbd_close(n->h);
    close(n->wake);
    free(n);
}

static const struct zqcow2_backend_ops remote_ops = {
    .size = sizeof(remote_ops),
    .name = "nbd",
    .close = remote_over,
    .length = remote_length,
    .readv = remote_readv,
    .writev = remote_writev,
    .flush = remote_sync,
    .limits = remote_limits,
    .truncate = remote_truncate,
    .submit = remote_submit,
    .kick = remote_kick,
};

/* The export counts as a full file: to make an image in it takes ZQCOW2_CREATE_FORCE. */
static int remote_open(const char *uri, struct zqcow2_backend **be)
{
    struct nbd *n = calloc(1, sizeof(*n));
    int64_t size;

    if (!n)
        return -ENOMEM;
    if (!(n->h = nbd_create()) || nbd_connect_uri(n->h, uri) < 0 ||
        (size = nbd_get_size(n->h)) < 0 || (n->read_only = nbd_is_read_only(n->h)) < 0 ||
        (!n->read_only && (nbd_can_flush(n->h) != 1 || nbd_can_zero(n->h) != 1)) ||
        (n->wake = eventfd(0, EFD_CLOEXEC)) < 0) {
        const char *why = nbd_get_error();
        fprintf(stderr, "%s: %s\n", uri, why ? why : "a server without flush or zeroing");
        nbd_close(n->h);
        free(n);
        return -EIO;
    }
    n->length = n->capacity = (uint64_t)size;
    pthread_mutex_init(&n->grow, NULL);
    pthread_mutex_init(&n->lock, NULL);
    pthread_create(&n->thread, NULL, serve, n);
    return zqcow2_backend_new(&remote_ops, n, NULL, be);
}

int main(int argc, char **argv)
{
    static char data[65536], back[sizeof(data)];
    struct zqcow2_create_options how = {.size = sizeof(how),
                                        .virtual_size = 4 * ZONE,
                                        .zone_size = ZONE,
                                        .flags = ZQCOW2_CREATE_FORCE};
    struct zqcow2_open_options opt = {.size = sizeof(opt), .flags = ZQCOW2_OPEN_RDWR};
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    uint64_t where = ZONE;
    int rc;

    if (argc != 2)
        return puts("usage: nbd_backend URI, of an export that may be overwritten") < 0;
    memset(data, 'n', sizeof(data));
    if ((rc = remote_open(argv[1], &be)) || (rc = zqcow2_create(be, &how, NULL)) ||
        (rc = zqcow2_open(be, &opt, &img, NULL)) ||
        (rc = zqcow2_append(img, data, sizeof(data), &where, 0)) || (rc = zqcow2_close(img)) ||
        (rc = remote_open(argv[1], &be)) || (rc = zqcow2_open(be, NULL, &img, NULL)) ||
        (rc = zqcow2_read(img, back, sizeof(back), where)))
        return fprintf(stderr, "%s\n", zqcow2_strerror(rc)), 1;
    printf("an image is on %s, and holds what was appended\n", argv[1]);
    return zqcow2_close(img) || memcmp(data, back, sizeof(back));
}
