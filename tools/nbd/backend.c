/* SPDX-License-Identifier: MIT */
/* The backend's table, over a session. */
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "nbd/session.h"

#define PATIENCE 30 /* seconds for the first connection */

static int remote_length(void *self, uint64_t *bytes)
{
    *bytes = ((struct nbd *)self)->length;
    return 0;
}

/* NBD has no vectors. The library keeps to the limits; it pads and splits for every caller. */
static int each(struct nbd *n, uint32_t kind, const struct iovec *iov, int cnt, uint64_t off)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < cnt; off += iov[i++].iov_len) {
        struct zqcow2_io io = {
            .kind = kind, .iovcnt = 1, .iov = &iov[i], .offset = off, .length = iov[i].iov_len};

        rc = nbd_call(n, &io);
    }
    return rc;
}

static int remote_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return each(self, ZQCOW2_IO_READ, iov, cnt, off);
}

static int remote_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return each(self, ZQCOW2_IO_WRITE, iov, cnt, off);
}

static int range(struct nbd *n, uint32_t kind, uint64_t off, uint64_t len)
{
    struct zqcow2_io io = {.kind = kind, .offset = off, .length = len};

    return nbd_call(n, &io);
}

static int remote_sync(void *self)
{
    return range(self, ZQCOW2_IO_FLUSH, 0, 0);
}

static int remote_truncate(void *self, uint64_t bytes)
{
    return range(self, ZQCOW2_IO_TRUNCATE, bytes, 0);
}

static bool can(const struct nbd *n, const struct zqcow2_io *io)
{
    switch (io->kind) {
    case ZQCOW2_IO_ZERO: return n->traits.zero;
    case ZQCOW2_IO_DISCARD: return n->traits.trim;
    default: return io->kind <= ZQCOW2_IO_TRUNCATE;
    }
}

static int remote_zero(void *self, uint64_t off, uint64_t len)
{
    return ((struct nbd *)self)->traits.zero ? range(self, ZQCOW2_IO_ZERO, off, len) : -EOPNOTSUPP;
}

static int remote_discard(void *self, uint64_t off, uint64_t len)
{
    return ((struct nbd *)self)->traits.trim ? range(self, ZQCOW2_IO_DISCARD, off, len) :
                                               -EOPNOTSUPP;
}

static int remote_submit(void *self, struct zqcow2_io *io)
{
    if (!can(self, io))
        return -EOPNOTSUPP;
    io->backend[NBD_WAITER] = NULL;
    nbd_push(self, io);
    return 0;
}

static void remote_kick(void *self)
{
    nbd_wake(self);
}

static int remote_limits(void *self, struct zqcow2_limits *out)
{
    const struct nbd_traits *t = &((struct nbd *)self)->traits;

    out->io_align = t->align;
    out->max_transfer = t->most;
    out->max_iov = 1;
    out->caps = t->writable ? 0 : ZQCOW2_CAP_READ_ONLY;
    return 0;
}

static void end(struct nbd *n)
{
    if (n->h)
        nbd_drop(n);
    if (n->wake >= 0)
        close(n->wake);
    nbd_unflushed_free(&n->unflushed);
    pthread_mutex_destroy(&n->lock);
    free(n->export);
    free(n->uri);
    free(n);
}

static void remote_close(void *self)
{
    nbd_stop(self);
    end(self);
}

static const struct zqcow2_backend_ops remote_ops = {
    .size = sizeof(remote_ops),
    .name = "nbd",
    .close = remote_close,
    .length = remote_length,
    .readv = remote_readv,
    .writev = remote_writev,
    .flush = remote_sync,
    .limits = remote_limits,
    .truncate = remote_truncate,
    .discard = remote_discard,
    .zero = remote_zero,
    .submit = remote_submit,
    .kick = remote_kick,
};

/* ---- opening ---- */

static struct nbd *new_session(const char *uri, const struct zt_nbd_options *opt)
{
    struct nbd *n = calloc(1, sizeof(*n));

    if (!n)
        return NULL;
    n->socket = -1;
    n->reconnect = opt->reconnect;
    n->dialer = opt->dialer;
    if (opt->hooks)
        n->hooks = *opt->hooks;
    pthread_mutex_init(&n->lock, NULL);
    n->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    n->uri = strdup(uri);
    if (n->uri && n->wake >= 0)
        return n;
    end(n);
    return NULL;
}

/* A server that can neither flush nor write through keeps no promise that an image needs. */
static int judge(const struct nbd_traits *t, char *why, size_t room)
{
    if (!t->writable || t->flush || t->fua)
        return 0;
    snprintf(why, room, "the server cannot flush: open the image for reading only");
    return -EROFS;
}

static int connect_first(struct nbd *n, bool write, char *why, size_t room)
{
    int rc = nbd_connect(n, &n->traits, nbd_now() + PATIENCE, why, room);
    size_t head;

    if (rc < 0)
        return rc;
    n->traits.writable &= write;
    n->length = n->traits.bytes;
    head = n->traits.bytes < NBD_HEAD ? (size_t)n->traits.bytes : NBD_HEAD;
    rc = judge(&n->traits, why, room);
    return rc == 0 && head ? nbd_own_read(n, n->head, head, 0) : rc;
}

int zt_nbd_open(const char *uri, const struct zt_nbd_options *opt, struct zqcow2_backend **be,
                char *why, size_t room)
{
    struct nbd *n;
    int rc;

    why[0] = '\0';
    if (opt->flags & ZQCOW2_FILE_EXCLUSIVE)
        return -EEXIST;
    n = new_session(uri, opt);
    if (!n)
        return -ENOMEM;
    rc = connect_first(n, opt->flags & ZQCOW2_FILE_RDWR, why, room);
    if (rc == 0)
        rc = nbd_start(n);
    if (rc < 0) {
        end(n);
        return rc;
    }
    rc = zqcow2_backend_new(&remote_ops, n, NULL, be);
    if (rc < 0)
        remote_close(n);
    return rc;
}
