/* SPDX-License-Identifier: MIT */
/* One message of a front-end with its descriptors, and the reply to it. */
#include "vhost/message.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union control {
    struct cmsghdr head;
    char bytes[CMSG_SPACE(VHOST_FDS * sizeof(int))];
};

int vhost_take_fd(struct vhost_message *m, unsigned i)
{
    int fd = i < m->fds ? m->fd[i] : -1;

    if (i < m->fds)
        m->fd[i] = -1;
    return fd;
}

void vhost_close_fds(struct vhost_message *m)
{
    for (unsigned i = 0; i < m->fds; i++) {
        if (m->fd[i] >= 0)
            close(m->fd[i]);
    }
    m->fds = 0;
}

static void collect_fds(struct vhost_message *m, struct msghdr *msg)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (m->fds < VHOST_FDS)
                m->fd[m->fds++] = fd;
            else
                close(fd);
        }
    }
}

/* A front-end may stop in the middle of a message: a signal ends the wait all the same. */
static int wait_readable(int sock, int stop_fd)
{
    struct pollfd p[] = {{.fd = sock, .events = POLLIN}, {.fd = stop_fd, .events = POLLIN}};

    while (poll(p, 2, -1) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return p[1].revents ? -EINTR : 0;
}

/* Up to `size` bytes; 0 at the end of the stream. */
static ssize_t receive_some(int sock, int stop_fd, struct vhost_message *m, void *to, size_t size)
{
    struct iovec iov = {to, size};
    union control control;
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    ssize_t n;
    int rc = wait_readable(sock, stop_fd);

    if (rc < 0)
        return rc;
    n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? -EAGAIN : -errno;
    collect_fds(m, &msg);
    return msg.msg_flags & MSG_CTRUNC ? -EPROTO : n;
}

/* All of it: 1, or 0 if the stream ends before its first byte. */
static int receive_all(int sock, int stop_fd, struct vhost_message *m, void *to, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t n = receive_some(sock, stop_fd, m, (char *)to + done, size - done);

        if (n == -EAGAIN)
            continue;
        if (n <= 0)
            return n < 0 ? (int)n : done ? -EPROTO : 0;
        done += (size_t)n;
    }
    return 1;
}

static int receive(int sock, int stop_fd, struct vhost_message *m)
{
    int rc = receive_all(sock, stop_fd, m, &m->head, sizeof(m->head));

    if (rc <= 0)
        return rc;
    if ((m->head.flags & VHOST_VERSION_MASK) != VHOST_VERSION || m->head.flags & VHOST_REPLY ||
        m->head.size > sizeof(m->payload))
        return -EPROTO;
    if (m->head.size)
        rc = receive_all(sock, stop_fd, m, &m->payload, m->head.size);
    return rc == 0 ? -EPROTO : rc;
}

int vhost_receive(int sock, int stop_fd, struct vhost_message *m)
{
    int rc;

    memset(m, 0, sizeof(*m));
    rc = receive(sock, stop_fd, m);
    if (rc <= 0)
        vhost_close_fds(m);
    return rc;
}

static void attach_fd(struct msghdr *msg, union control *control, int fd)
{
    memset(control, 0, sizeof(*control));
    msg->msg_control = control;
    msg->msg_controllen = CMSG_SPACE(sizeof(int));
    control->head.cmsg_level = SOL_SOCKET;
    control->head.cmsg_type = SCM_RIGHTS;
    control->head.cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(&control->head), &fd, sizeof(int));
}

/* A reply is far smaller than what a socket buffers: a front-end that never reads loses only its
 * own connection. */
int vhost_reply(int sock, const struct vhost_message *m, uint32_t size, int fd)
{
    struct vhost_head head = {m->head.request, VHOST_VERSION | VHOST_REPLY, size};
    struct iovec iov[] = {{&head, sizeof(head)}, {(void *)(uintptr_t)&m->payload, size}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    union control control;
    ssize_t n;

    if (fd >= 0)
        attach_fd(&msg, &control, fd);
    do {
        n = sendmsg(sock, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    return (size_t)n == sizeof(head) + size ? 0 : -EPROTO;
}

/* A front-end that never reads hears no more, and loses nothing else. */
int vhost_tell(int sock, uint32_t request)
{
    struct vhost_head head = {request, VHOST_VERSION, 0};
    ssize_t n;

    do {
        n = send(sock, &head, sizeof(head), MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (size_t)n == sizeof(head) ? 0 : -EPROTO;
}
