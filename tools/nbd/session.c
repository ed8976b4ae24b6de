/* SPDX-License-Identifier: MIT */
/* The thread: takes requests, sends them, and answers. */
#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#include "nbd/session.h"

#define UNFLUSHED_MOST \
    (64u << 20) /* bytes kept for a server that loses them; then it must flush \
                 */

struct waiter {
    sem_t over;
    int result;
};

/* ---- requests ---- */

void nbd_list_push(struct nbd_list *l, struct zqcow2_io *io)
{
    io->backend[NBD_LINK] = NULL;
    if (l->head)
        l->tail->backend[NBD_LINK] = io;
    else
        l->head = io;
    l->tail = io;
}

struct zqcow2_io *nbd_list_pop(struct nbd_list *l)
{
    struct zqcow2_io *io = l->head;

    if (io)
        l->head = io->backend[NBD_LINK];
    return io;
}

void nbd_say(const struct nbd *n, int level, const char *fmt, ...)
{
    char text[512];
    va_list ap;

    if (!n->hooks.log)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    n->hooks.log(n->hooks.ctx, level, text);
}

void nbd_wake(struct nbd *n)
{
    (void)eventfd_write(n->wake, 1); /* it fails only where it is awake already */
}

void nbd_push(struct nbd *n, struct zqcow2_io *io)
{
    io->backend[NBD_OWNER] = n;
    pthread_mutex_lock(&n->lock);
    nbd_list_push(&n->incoming, io);
    pthread_mutex_unlock(&n->lock);
}

int nbd_call(struct nbd *n, struct zqcow2_io *io)
{
    struct waiter w;

    sem_init(&w.over, 0, 0);
    io->backend[NBD_WAITER] = &w;
    nbd_push(n, io);
    nbd_wake(n);
    while (sem_wait(&w.over) < 0)
        ; /* a signal */
    sem_destroy(&w.over);
    return w.result;
}

/* From here on io is its owner's again. */
static void answer(struct zqcow2_io *io, int rc)
{
    struct waiter *w = io->backend[NBD_WAITER];

    if (!w) {
        zqcow2_io_done(io, rc);
        return;
    }
    w->result = rc;
    sem_post(&w->over);
}

static bool changes(const struct zqcow2_io *io)
{
    return io->kind == ZQCOW2_IO_WRITE || io->kind == ZQCOW2_IO_ZERO ||
           io->kind == ZQCOW2_IO_DISCARD;
}

/*
 * Of two writes that overlap, the second is sent when the first is done. So the order in which they
 * complete is that in which the server has them, and in which they may be written again.
 */
static bool overlaps(const struct nbd *n, const struct zqcow2_io *io)
{
    const struct zqcow2_io *o = changes(io) ? n->changing.head : NULL;

    while (o && (o->offset >= io->offset + io->length || io->offset >= o->offset + o->length))
        o = o->backend[NBD_LINK];
    return o;
}

static void unlink_change(struct nbd *n, const struct zqcow2_io *io)
{
    struct nbd_list rest = {NULL, NULL};

    for (struct zqcow2_io *o; changes(io) && (o = nbd_list_pop(&n->changing));) {
        if (o != io)
            nbd_list_push(&rest, o);
    }
    if (changes(io))
        n->changing = rest;
}

static void departs(struct nbd *n, struct zqcow2_io *io)
{
    n->in_flight++;
    if (changes(io))
        nbd_list_push(&n->changing, io);
}

static void arrives(struct nbd *n, const struct zqcow2_io *io)
{
    n->in_flight--;
    unlink_change(n, io);
}

/* ---- answers ---- */

static void completed(struct nbd *n, struct zqcow2_io *io)
{
    if (io->kind == ZQCOW2_IO_WRITE)
        nbd_wrote(n, io->offset, io->length, io->iov);
    else if (io->kind == ZQCOW2_IO_ZERO)
        nbd_wrote(n, io->offset, io->length, NULL);
    else if (io->kind == ZQCOW2_IO_DISCARD)
        n->headless |= io->offset < NBD_HEAD;
    else if (io->kind == ZQCOW2_IO_FLUSH)
        nbd_unflushed_drop(&n->unflushed, (uintptr_t)io->backend[NBD_NOTE]);
    else if (io->kind == ZQCOW2_IO_READ && io->iov->iov_len > (uintptr_t)io->backend[NBD_NOTE])
        memset((uint8_t *)io->iov->iov_base + (uintptr_t)io->backend[NBD_NOTE], 0,
               io->iov->iov_len - (uintptr_t)io->backend[NBD_NOTE]);
    answer(io, 0);
}

/*
 * ENOTCONN is libnbd's for what a lost connection has not answered; a server that ends may send
 * ESHUTDOWN. Both requests wait for the next connection.
 */
static int answered(void *arg, int *error)
{
    struct zqcow2_io *io = arg;
    struct nbd *n = io->backend[NBD_OWNER];

    arrives(n, io);
    if (*error == ENOTCONN || *error == ESHUTDOWN) {
        n->unknown += *error == ENOTCONN && changes(io);
        n->draining |= *error == ESHUTDOWN;
        nbd_list_push(&n->waiting, io);
    } else if (*error) {
        answer(io, -*error);
    } else {
        completed(n, io);
    }
    return 1;
}

static int trimmed(void *arg, int *error)
{
    struct nbd *n = arg;

    n->trimming = false;
    if (!*error)
        nbd_unflushed_drop(&n->unflushed, n->trim_nr);
    else if (*error != ENOTCONN && *error != ESHUTDOWN)
        n->broken = -*error; /* the server may report it once only */
    return 1;
}

/* ---- sending ---- */

/* What lies behind the end of the file is not read; a block across it is, and cleared afterwards.
 */
static int64_t send_read(struct nbd *n, struct zqcow2_io *io, nbd_completion_callback cb)
{
    uint64_t length = n->length, align = n->traits.align,
             have = io->offset < length ? length - io->offset : 0, whole;
    size_t room = io->iov->iov_len;

    have = have < room ? have : room;
    whole = (have + align - 1) & ~(align - 1);
    io->backend[NBD_NOTE] = (void *)(uintptr_t)have;
    if (whole < room)
        memset((uint8_t *)io->iov->iov_base + whole, 0, room - (size_t)whole);
    return whole ? nbd_aio_pread(n->h, io->iov->iov_base, (size_t)whole, io->offset, cb, 0) : 0;
}

static int64_t send_flush(struct nbd *n, struct zqcow2_io *io, nbd_completion_callback cb)
{
    io->backend[NBD_NOTE] = (void *)n->unflushed.nr;
    return n->traits.flush ? nbd_aio_flush(n->h, cb, 0) : 0;
}

/* 0: there was nothing to send. -1: libnbd refuses it. */
static int64_t send_one(struct nbd *n, struct zqcow2_io *io)
{
    nbd_completion_callback cb = {.callback = answered, .user_data = io};
    uint32_t flags = n->traits.flush ? 0 : LIBNBD_CMD_FLAG_FUA;

    switch (io->kind) {
    case ZQCOW2_IO_READ: return send_read(n, io, cb);
    case ZQCOW2_IO_WRITE:
        return nbd_aio_pwrite(n->h, io->iov->iov_base, io->iov->iov_len, io->offset, cb, flags);
    case ZQCOW2_IO_ZERO: return nbd_aio_zero(n->h, io->length, io->offset, cb, flags);
    case ZQCOW2_IO_DISCARD: return nbd_aio_trim(n->h, io->length, io->offset, cb, 0);
    default: return send_flush(n, io, cb);
    }
}

static int set_length(struct nbd *n, uint64_t bytes)
{
    if (bytes >= n->length)
        return nbd_grow(n, bytes);
    n->length = bytes;
    return 0;
}

/* First the file must be long enough. -ENOTCONN: it has to wait. */
static int prepare(struct nbd *n, const struct zqcow2_io *io)
{
    if (io->kind == ZQCOW2_IO_TRUNCATE)
        return set_length(n, io->offset);
    if ((io->kind == ZQCOW2_IO_WRITE || io->kind == ZQCOW2_IO_ZERO) &&
        io->offset + io->length > n->length)
        return nbd_grow(n, io->offset + io->length);
    return 0;
}

static void start(struct nbd *n, struct zqcow2_io *io)
{
    int rc = prepare(n, io);
    int64_t cookie;

    if (rc == -ENOTCONN) {
        nbd_list_push(&n->waiting, io);
        return;
    }
    if (rc < 0 || io->kind == ZQCOW2_IO_TRUNCATE) {
        answer(io, rc);
        return;
    }
    departs(n, io);
    cookie = send_one(n, io);
    if (cookie > 0)
        return;
    arrives(n, io);
    if (cookie == 0)
        completed(n, io);
    else if (nbd_is_over(n))
        nbd_list_push(&n->waiting, io);
    else
        answer(io, -(nbd_get_errno() > 0 ? nbd_get_errno() : EIO));
}

/* Keeps what a lost server would have to be given again within bounds. */
static void trim(struct nbd *n)
{
    nbd_completion_callback cb = {.callback = trimmed, .user_data = n};

    if (n->trimming || n->unflushed.bytes < UNFLUSHED_MOST / 2)
        return;
    n->trim_nr = n->unflushed.nr;
    n->trimming = nbd_aio_flush(n->h, cb, 0) > 0;
}

static bool may_send(const struct nbd *n)
{
    return n->waiting.head && n->h && !n->broken && !n->draining && !nbd_is_over(n) &&
           n->unflushed.bytes < UNFLUSHED_MOST && !overlaps(n, n->waiting.head);
}

/* ---- the thread ---- */

bool nbd_stopped(struct nbd *n)
{
    bool stop;

    pthread_mutex_lock(&n->lock);
    stop = n->stop;
    pthread_mutex_unlock(&n->lock);
    return stop;
}

static void take(struct nbd *n)
{
    struct nbd_list all;

    pthread_mutex_lock(&n->lock);
    all = n->incoming;
    n->incoming.head = NULL;
    pthread_mutex_unlock(&n->lock);
    for (struct zqcow2_io *io; (io = nbd_list_pop(&all));)
        nbd_list_push(&n->waiting, io);
}

static void fail_all(struct nbd *n)
{
    for (struct zqcow2_io *io; (io = nbd_list_pop(&n->waiting));)
        answer(io, n->broken);
}

static void wait_for_requests(struct nbd *n)
{
    struct pollfd p = {n->wake, POLLIN, 0};
    eventfd_t wakes;

    if (poll(&p, 1, -1) > 0)
        (void)eventfd_read(n->wake, &wakes);
}

/* An orderly end, if the server takes part in it. */
static void hang_up(struct nbd *n)
{
    double until = nbd_now() + 1;

    if (!n->h)
        return;
    if (!nbd_aio_disconnect(n->h, 0)) {
        while (!nbd_is_over(n) && nbd_now() < until)
            nbd_step(n, 100);
    }
    nbd_drop(n);
}

static void *serve(void *self)
{
    struct nbd *n = self;

    while (!nbd_stopped(n)) {
        take(n);
        while (may_send(n))
            start(n, nbd_list_pop(&n->waiting));
        if (n->broken)
            fail_all(n);
        if (!n->h) {
            wait_for_requests(n);
            continue;
        }
        if (!n->broken && n->traits.flush)
            trim(n);
        if (!nbd_is_over(n))
            nbd_step(n, -1);
        if (nbd_is_over(n) || (n->draining && !n->in_flight))
            nbd_recover(n);
    }
    hang_up(n);
    return NULL;
}

int nbd_start(struct nbd *n)
{
    sigset_t all, before;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&n->thread, NULL, serve, n) ? -ENOMEM : 0; /* EAGAIN: it is locked */
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

void nbd_stop(struct nbd *n)
{
    pthread_mutex_lock(&n->lock);
    n->stop = true;
    pthread_mutex_unlock(&n->lock);
    nbd_wake(n);
    pthread_join(n->thread, NULL);
}
