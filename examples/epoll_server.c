/* SPDX-License-Identifier: MIT */
/*
 * Serves one image to several clients from one epoll loop. Nothing blocks: the backend is an
 * asynchronous one. The clients are children here; a server in earnest would accept() them.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zqcow2/backend.h>
#include <zqcow2/queue.h>

#define CLIENTS 3
#define ZONE    ((uint64_t)16 << 20)

struct message { /* one packet each way; a client has one request on its way */
    int32_t ret;
    uint16_t op, unused; /* a zqcow2_op */
    uint64_t offset;
    char data[4096];
};

static struct client {
    int fd;
    struct message m;
    struct iovec iov;
} clients[CLIENTS];
static struct zqcow2_queue *queue;

/* The image has answered: so do we. A client that is gone shows as the end of its packets. */
static void answered(void *arg, const struct zqcow2_result *res)
{
    struct client *c = arg;

    c->m.ret = res->ret;
    c->m.offset = res->offset;
    if (send(c->fd, &c->m, sizeof(c->m), MSG_NOSIGNAL) < 0)
        perror("send");
}

/* A client's packet becomes a request. */
static void request(struct client *c)
{
    struct zqcow2_request r = {.size = sizeof(r), .op = c->m.op, .offset = c->m.offset};

    r.iov = &c->iov, r.iovcnt = 1, r.done = answered, r.arg = c;
    c->iov = (struct iovec){c->m.data, sizeof(c->m.data)};
    if (zqcow2_queue_submit(queue, &r, 1) != 1) /* malformed; it cannot be full */
        answered(c, &(struct zqcow2_result){.ret = -EINVAL});
}

static int client(int fd, unsigned id) /* a child: appends, and receives the offset */
{
    static struct message m;

    for (unsigned i = 0; i < 50; i++) {
        m.op = ZQCOW2_OP_APPEND;
        m.offset = id * ZONE;
        snprintf(m.data, sizeof(m.data), "client %u, record %u", id, i);
        if (send(fd, &m, sizeof(m), 0) < 0 || recv(fd, &m, sizeof(m), 0) <= 0 || m.ret)
            return 1;
    }
    return printf("%s is at %llu\n", m.data, (unsigned long long)m.offset) < 0;
}

/* A scratch file; through io_uring, or threads where there is none. */
static int open_backend(struct zqcow2_backend **be)
{
    char path[] = "epoll_server.XXXXXX";
    int fd = mkstemp(path), rc = zqcow2_uring_from_fd(fd, NULL, be);
    struct zqcow2_backend *file;

    unlink(path);
    if (rc != -ENOSYS)
        return rc;
    rc = zqcow2_file_from_fd(fd, NULL, &file);
    return rc ? rc : zqcow2_threads_wrap(file, 4, NULL, be);
}

int main(void)
{
    struct zqcow2_create_options how = {sizeof(how), .virtual_size = 4 * ZONE, .zone_size = ZONE};
    struct zqcow2_open_options opt = {.size = sizeof(opt), .flags = ZQCOW2_OPEN_RDWR};
    struct epoll_event ev = {.events = EPOLLIN};
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    int ep = epoll_create1(EPOLL_CLOEXEC), left = CLIENTS, status = 0, s, pair[2];

    for (unsigned i = 0; i < CLIENTS; i++) {
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
            return 1;
        if (fork() == 0) /* before the image is opened: it is not for children */
            return close(pair[0]), client(pair[1], i);
        close(pair[1]);
        clients[i].fd = pair[0];
        ev.data.ptr = &clients[i];
        epoll_ctl(ep, EPOLL_CTL_ADD, pair[0], &ev);
    }
    if (open_backend(&be) || zqcow2_create(be, &how, NULL) || zqcow2_open(be, &opt, &img, NULL) ||
        zqcow2_queue_open(img, CLIENTS, &queue))
        return 1;
    ev.data.ptr = NULL; /* the queue */
    epoll_ctl(ep, EPOLL_CTL_ADD, zqcow2_queue_fd(queue), &ev);
    while (left) {
        struct client *c = epoll_wait(ep, &ev, 1, -1) == 1 ? ev.data.ptr : NULL; /* else EINTR */
        if (!c)
            zqcow2_queue_poll(queue, 0);
        else if (recv(c->fd, &c->m, sizeof(c->m), 0) == sizeof(c->m))
            request(c);
        else if (left--)
            epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, NULL);
    }
    while (wait(&s) > 0)
        status |= s;
    return zqcow2_queue_close(queue) || zqcow2_close(img) || status;
}
