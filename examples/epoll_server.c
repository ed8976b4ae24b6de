/* SPDX-License-Identifier: MIT */
/*
 * Serves one image to several clients from one epoll loop: sockets and the image's queue are
 * descriptors like any other. Nothing blocks, because the backend is asynchronous: io_uring, or
 * threads where there is none. Here the clients are child processes that append to a zone each; a
 * server in earnest would accept() where this one calls socketpair().
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zqcow2/backend.h>
#include <zqcow2/queue.h>

#define CLIENTS 3
#define ZONE ((uint64_t)16 << 20)
#define BLOCK 4096

struct message { /* one packet each way; a client has one request on its way */
    int32_t ret;
    uint16_t op, unused; /* a zqcow2_op */
    uint64_t offset;
    char data[BLOCK];
};

struct client {
    int fd;
    struct message m;
    struct iovec iov;
};

static struct zqcow2_queue *queue;

/* The image has answered: so do we. */
static void answered(void *arg, const struct zqcow2_result *res)
{
    struct client *c = arg;

    c->m.ret = res->ret;
    c->m.offset = res->offset;
    if (send(c->fd, &c->m, sizeof(c->m), MSG_NOSIGNAL) != sizeof(c->m))
        perror("send"); /* the client is gone; epoll will tell */
}

/* A packet of a client becomes a request. False: the client has left. */
static int packet(struct client *c)
{
    struct zqcow2_request r = { .size = sizeof(r), .iov = &c->iov, .iovcnt = 1,
                                .done = answered, .arg = c };

    if (recv(c->fd, &c->m, sizeof(c->m), 0) != sizeof(c->m))
        return 0;
    c->iov = (struct iovec){ c->m.data, BLOCK };
    r.op = c->m.op;
    r.offset = c->m.offset;
    if (zqcow2_queue_submit(queue, &r, 1) != 1) /* malformed; it cannot be full */
        answered(c, &(struct zqcow2_result){ .ret = -EINVAL });
    return 1;
}

static int client(int fd, unsigned id) /* a child: appends, and reads back where it went */
{
    static struct message m;

    for (unsigned i = 0; i < 50; i++) {
        m = (struct message){ .op = ZQCOW2_OP_APPEND, .offset = id * ZONE };
        snprintf(m.data, BLOCK, "client %u, record %u", id, i);
        if (send(fd, &m, sizeof(m), 0) < 0 || recv(fd, &m, sizeof(m), 0) <= 0 || m.ret ||
            m.offset != id * ZONE + i * BLOCK)
            return 1;
        m.op = ZQCOW2_OP_READ;
        memset(m.data, 0, BLOCK);
        if (send(fd, &m, sizeof(m), 0) < 0 || recv(fd, &m, sizeof(m), 0) <= 0 || m.ret)
            return 1;
    }
    return printf("%s\n", m.data) < 0;
}

/* A scratch file, which needs no name once it is open. */
static int open_backend(struct zqcow2_backend **be)
{
    char path[] = "epoll_server.XXXXXX";
    int fd = mkstemp(path), rc;
    struct zqcow2_backend *file;

    if (fd < 0 || unlink(path))
        return -errno;
    rc = zqcow2_uring_from_fd(fd, NULL, be);
    if (rc != -ENOSYS)
        return rc;
    rc = zqcow2_file_from_fd(fd, NULL, &file);
    return rc ? rc : zqcow2_threads_wrap(file, 4, NULL, be);
}

int main(void)
{
    static struct client clients[CLIENTS];
    struct zqcow2_create_options how = { .size = sizeof(how), .virtual_size = 4 * ZONE,
                                         .zone_size = ZONE };
    struct zqcow2_open_options opt = { .size = sizeof(opt), .flags = ZQCOW2_OPEN_RDWR };
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    struct epoll_event ev = { .events = EPOLLIN };
    int ep = epoll_create1(EPOLL_CLOEXEC), left = CLIENTS, status = 0, s;

    for (unsigned i = 0; i < CLIENTS; i++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
            return 1;
        if (fork() == 0) /* before the image is opened: it is not for children */
            return close(pair[0]), client(pair[1], i);
        close(pair[1]);
        clients[i].fd = pair[0];
        ev.data.ptr = &clients[i];
        epoll_ctl(ep, EPOLL_CTL_ADD, pair[0], &ev);
    }
    if (open_backend(&be) || zqcow2_create(be, &how, NULL) ||
        zqcow2_open(be, &opt, &img, NULL) || zqcow2_queue_open(img, CLIENTS, &queue))
        return 1;
    ev.data.ptr = NULL; /* the queue */
    if (epoll_ctl(ep, EPOLL_CTL_ADD, zqcow2_queue_fd(queue), &ev))
        return 1;
    while (left && epoll_wait(ep, &ev, 1, -1) >= 0) {
        struct client *c = ev.data.ptr;
        if (!c)
            zqcow2_queue_poll(queue, 0);
        else if (!packet(c) && left--)
            epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, NULL);
    }
    while (wait(&s) > 0)
        status |= s;
    return zqcow2_queue_close(queue) || zqcow2_close(img) || status;
}
