/* SPDX-License-Identifier: MIT */
/* Connections to one place, also for a process that can do nothing else. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/time.h>
#include <unistd.h>

#include "nbd.h"

#define PATIENCE 5 /* seconds until a host does not answer */

/* A host that has gone must be noticed: TCP by itself would wait for a quarter of an hour. */
void zt_nbd_limit_silence(int fd, unsigned seconds)
{
    int on = 1, idle = 5, many = 3;
    unsigned ms = (seconds > 10 ? seconds : 10) * 1000;

    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle, sizeof(idle));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &many, sizeof(many));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

static int connect_to(int fd, const struct zt_nbd_place *place)
{
    struct timeval some = {.tv_sec = PATIENCE}, any = {0};

    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &some, sizeof(some)) ||
        connect(fd, (const struct sockaddr *)&place->address, place->length) ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &any, sizeof(any)))
        return errno == EINPROGRESS ? -ETIMEDOUT : -errno;
    if (place->address.ss_family != AF_UNIX)
        zt_nbd_limit_silence(fd, place->reconnect);
    return 0;
}

int zt_nbd_dial(const struct zt_nbd_place *place)
{
    int fd, rc;

    if (!place->length)
        return -EACCES;
    fd = socket(place->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    rc = connect_to(fd, place);
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}
