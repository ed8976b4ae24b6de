/* SPDX-License-Identifier: MIT */
/* Connections: how they begin, go on and end. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "nbd/session.h"

#define ALIGN 4096u

double nbd_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

bool nbd_is_over(const struct nbd *n)
{
    return nbd_aio_is_dead(n->h) || nbd_aio_is_closed(n->h);
}

void nbd_step(struct nbd *n, int ms)
{
    unsigned dir = nbd_aio_get_direction(n->h);
    short events = (short)((dir & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                           (dir & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
    struct pollfd p[] = {{n->wake, POLLIN, 0}, {nbd_aio_get_fd(n->h), events, 0}};
    eventfd_t wakes;
    int rc = 0;

    if (poll(p, 2, ms) <= 0)
        return;
    if (p[0].revents)
        (void)eventfd_read(n->wake, &wakes);
    if (p[1].revents & POLLOUT && dir & LIBNBD_AIO_DIRECTION_WRITE && !(p[1].revents & POLLIN))
        rc = nbd_aio_notify_write(n->h);
    else if (p[1].revents && dir & LIBNBD_AIO_DIRECTION_READ)
        rc = nbd_aio_notify_read(n->h);
    else if (p[1].revents)
        rc = nbd_aio_notify_write(n->h);
    if (rc < 0)
        n->error = nbd_get_errno();
}

/* ---- the end ---- */

static bool is_silence(int error)
{
    return error == ETIMEDOUT || error == EHOSTUNREACH || error == ENETUNREACH ||
           error == EHOSTDOWN || error == ENETDOWN;
}

/*
 * TLS hides the error of a connection, so only the state that says "ended by the other side"
 * counts. Replies may still be in the buffer, so a read would not show it.
 */
bool nbd_ended_by_server(const struct nbd *n)
{
    struct pollfd p = {n->socket, POLLRDHUP, 0};
    struct tcp_info info;
    socklen_t len = sizeof(info);

    if (is_silence(n->error) || poll(&p, 1, 0) != 1 ||
        !(p.revents & (POLLRDHUP | POLLHUP | POLLERR)))
        return false;
    if (n->error || getsockopt(n->socket, IPPROTO_TCP, TCP_INFO, &info, &len))
        return true;
    return info.tcpi_state == TCP_CLOSE_WAIT;
}

void nbd_drop(struct nbd *n)
{
    if (n->socket >= 0)
        close(n->socket);
    nbd_close(n->h); /* which may be NULL */
    n->h = NULL;
    n->socket = -1;
    n->error = 0;
    n->draining = n->trimming = false;
    n->in_flight = 0;
}

/* ---- the beginning ---- */

static int explain(const char *what, char *why, size_t room)
{
    int error = what ? 0 : nbd_get_errno();

    snprintf(why, room, "%s", what ? what : nbd_get_error() ? nbd_get_error() : "no connection");
    return error > 0 ? -error : -EIO;
}

static int64_t block_size(struct nbd *n, int which, int64_t otherwise)
{
    int64_t size = nbd_get_block_size(n->h, which);

    return size > 0 ? size : otherwise;
}

static int describe(struct nbd *n, struct nbd_traits *t, char *why, size_t room)
{
    int64_t bytes = nbd_get_size(n->h), align = block_size(n, LIBNBD_SIZE_MINIMUM, 1),
            most = block_size(n, LIBNBD_SIZE_MAXIMUM, NBD_MOST);

    if (bytes < 0)
        return explain(NULL, why, room);
    if (align > ALIGN || align & (align - 1))
        return explain("the server's smallest block is larger than 4096 bytes", why, room);
    most = most < NBD_MOST ? most : NBD_MOST;
    if (most < ALIGN)
        return explain("the server's largest request is smaller than 4096 bytes", why, room);
    t->align = (uint32_t)align;
    t->most = (uint32_t)most & ~(ALIGN - 1);
    t->bytes = (uint64_t)bytes & ~(uint64_t)(align - 1);
    t->writable = nbd_is_read_only(n->h) == 0;
    t->flush = nbd_can_flush(n->h) > 0;
    t->fua = nbd_can_fua(n->h) > 0;
    t->trim = nbd_can_trim(n->h) > 0;
    t->zero = nbd_can_zero(n->h) > 0;
    return 0;
}

/* -EOPNOTSUPP: by its name. The certificates of an encrypted one are in files. */
static int dial(struct nbd *n)
{
    int fd = n->export && n->dialer ? n->dialer->dial(n->dialer->arg) : -EOPNOTSUPP;

    if (fd < 0 || !n->encrypted)
        return fd;
    close(fd);
    return -EACCES;
}

static int begin(struct nbd *n, char *why, size_t room)
{
    int fd = dial(n), rc = -1;

    if (fd < 0 && fd != -EOPNOTSUPP) {
        snprintf(why, room, "%s", zqcow2_strerror(fd));
        return fd;
    }
    n->by_name = fd < 0;
    n->h = nbd_create();
    if (n->h && nbd_set_pread_initialize(n->h, false) == 0 &&
        nbd_set_uri_allow_local_file(n->h, true) == 0 &&
        nbd_set_export_name(n->h, n->export ? n->export : "") == 0)
        rc = n->by_name ? nbd_aio_connect_uri(n->h, n->uri) : nbd_aio_connect_socket(n->h, fd);
    else if (!n->by_name)
        close(fd);
    return rc < 0 ? explain(NULL, why, room) : 0;
}

static int negotiate(struct nbd *n, double until, char *why, size_t room)
{
    while (!nbd_aio_is_ready(n->h)) {
        double left = until - nbd_now();

        if (nbd_is_over(n))
            return explain(NULL, why, room);
        if (left <= 0) {
            snprintf(why, room, "the server does not answer");
            return -ETIMEDOUT;
        }
        if (nbd_stopped(n))
            return -ECANCELED;
        nbd_step(n, left < 1 ? (int)(left * 1000) + 1 : 1000);
    }
    return 0;
}

/* A name that counts from the folder of the server is of no use. */
static bool is_relative(const struct sockaddr_storage *a)
{
    return a->ss_family == AF_UNIX && ((const struct sockaddr_un *)a)->sun_path[0] != '/';
}

/* What the next connection needs. One that was dialled has its limits from the dialler. */
static int remember(struct nbd *n)
{
    struct zt_nbd_place place = {.length = sizeof(place.address), .reconnect = n->reconnect};

    if (getpeername(n->socket, (struct sockaddr *)&place.address, &place.length) < 0 ||
        is_relative(&place.address))
        place.length = 0;
    if (n->dialer)
        *n->dialer->place = place;
    n->encrypted = nbd_get_tls_negotiated(n->h) > 0;
    n->export = nbd_get_export_name(n->h);
    return n->export ? 0 : -ENOMEM;
}

int nbd_connect(struct nbd *n, struct nbd_traits *t, double until, char *why, size_t room)
{
    int rc;

    why[0] = '\0';
    rc = begin(n, why, room);
    if (rc == 0)
        rc = negotiate(n, until, why, room);
    if (rc == 0)
        rc = describe(n, t, why, room);
    if (rc == 0) {
        n->socket = fcntl(nbd_aio_get_fd(n->h), F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        rc = n->socket < 0 ? -errno : 0;
    }
    if (rc == 0 && n->by_name)
        zt_nbd_limit_silence(n->socket, n->reconnect);
    if (rc == 0 && !n->export)
        rc = remember(n);
    if (rc < 0)
        nbd_drop(n);
    n->error = 0;
    return rc;
}
