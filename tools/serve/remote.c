/* SPDX-License-Identifier: MIT */
#include "serve/remote.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

union control {
    char room[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

/* ---- the keeper ---- */

static int hand_over(int sock, int fd)
{
    union control c = {.room = {0}};
    struct iovec iov = {"", 1};
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = c.room, .msg_controllen = sizeof(c.room)};
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);

    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof(fd));
    memcpy(CMSG_DATA(h), &fd, sizeof(fd));
    return sendmsg(sock, &m, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

static int dial_task(void *remote)
{
    const struct serve_remote *r = remote;
    int fd = zt_nbd_dial(&r->place), rc;

    if (fd < 0)
        return fd;
    rc = hand_over(r->give, fd);
    close(fd);
    return rc;
}

/* ---- the server ---- */

static int take_over(int sock)
{
    union control c;
    char byte;
    struct iovec iov = {&byte, 1};
    struct msghdr m = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = c.room, .msg_controllen = sizeof(c.room)};
    struct cmsghdr *h;
    int fd;

    if (recvmsg(sock, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != 1)
        return -EPIPE;
    h = CMSG_FIRSTHDR(&m);
    if (!h || h->cmsg_type != SCM_RIGHTS)
        return -EPIPE;
    memcpy(&fd, CMSG_DATA(h), sizeof(fd));
    return fd;
}

/* In the thread of the connection. */
static int dial(void *remote)
{
    struct serve_remote *r = remote;
    int rc;

    if (!__atomic_load_n(&r->confined, __ATOMIC_ACQUIRE))
        return -EOPNOTSUPP;
    rc = serve_keeper_run(&r->keeper, dial_task, r);
    return rc < 0 ? rc : take_over(r->take);
}

void serve_remote_init(struct serve_remote *r)
{
    *r = (struct serve_remote){.keeper = SERVE_KEEPER_INIT, .give = -1, .take = -1};
    r->dialer = (struct zt_nbd_dialer){.place = &r->place, .dial = dial, .arg = r};
}

int serve_remote_start(struct serve_remote *r)
{
    int s[2], rc;

    if (!r->place.length)
        return 0;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s))
        return -errno;
    r->give = s[1];
    r->take = s[0];
    serve_keeper_task(&r->keeper, dial_task, r);
    serve_keeper_fd(&r->keeper, r->give);
    rc = serve_keeper_start(&r->keeper);
    close(r->give);
    __atomic_store_n(&r->confined, rc == 0, __ATOMIC_RELEASE);
    return rc;
}

void serve_remote_end(struct serve_remote *r)
{
    if (r->take >= 0)
        close(r->take);
    if (r->keeper.sock >= 0)
        close(r->keeper.sock);
    r->take = r->keeper.sock = -1;
}
