/* SPDX-License-Identifier: MIT */
/* The control socket: connections, their lines and answers, none of which waits for another. */
#include "serve/ctl.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "serve/command.h"
#include "serve/socket.h"
#include "tool.h"

#define CONNECTIONS 32
#define SECONDS     10.0 /* for the line to come, and for the answer to be taken */

struct connection {
    int fd;          /* -1: free */
    double deadline; /* zt_now() */
    char line[SERVE_CTL_LINE];
    size_t got;
    char *answer; /* owned; NULL: the line has not come yet */
    size_t size, sent;
};

struct serve_ctl {
    struct serve_image *image; /* the server's */
    char path[PATH_MAX];
    int listen_fd, stop_fd;
    bool running;
    pthread_t thread;
    struct connection connections[CONNECTIONS];
};

/* ---- one connection ---- */

static void drop(struct connection *k)
{
    close(k->fd);
    free(k->answer);
    k->answer = NULL;
    k->fd = -1;
}

/* What cannot be answered for lack of memory is dropped. */
static void execute(struct serve_ctl *c, struct connection *k, size_t length)
{
    char why[SERVE_COMMAND_WHY];
    FILE *out = open_memstream(&k->answer, &k->size);
    bool ok = false;

    k->line[length] = '\0';
    if (out) {
        putc('+', out);
        ok = serve_command(c->image, k->line, length, out, why);
        fputs(".\n", out);
        fclose(out);
    }
    if (out && !ok) {
        int n;

        free(k->answer);
        n = asprintf(&k->answer, "-%s\n", why);
        k->size = n < 0 ? 0 : (size_t)n;
        k->answer = n < 0 ? NULL : k->answer;
    }
    if (!k->answer)
        drop(k);
    k->deadline = zt_now() + SECONDS;
}

static void receive(struct serve_ctl *c, struct connection *k)
{
    ssize_t n = recv(k->fd, k->line + k->got, sizeof(k->line) - k->got, MSG_DONTWAIT);
    const char *end;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        drop(k);
        return;
    }
    k->got += (size_t)n;
    end = memchr(k->line, '\n', k->got);
    if (end)
        execute(c, k, (size_t)(end - k->line));
    else if (k->got == sizeof(k->line))
        drop(k);
}

static void reply(struct connection *k)
{
    ssize_t n = send(k->fd, k->answer + k->sent, k->size - k->sent, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    k->sent += n < 0 ? 0 : (size_t)n;
    if (n < 0 || k->sent == k->size)
        drop(k);
}

/* ---- all of them ---- */

/* In the place of the oldest if there is no other: those that say nothing keep nobody out. */
static struct connection *make_room(struct serve_ctl *c)
{
    struct connection *k = &c->connections[0];

    for (unsigned i = 0; i < CONNECTIONS; i++) {
        if (c->connections[i].fd < 0)
            return &c->connections[i];
        if (c->connections[i].deadline < k->deadline)
            k = &c->connections[i];
    }
    drop(k);
    return k;
}

/* Of this user or root: permissions of the socket's file are not the only guard. */
static bool is_owner(int fd)
{
    struct ucred peer;
    socklen_t n = sizeof(peer);

    return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) &&
           (peer.uid == geteuid() || peer.uid == 0);
}

static void take_one(struct serve_ctl *c)
{
    int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct connection *k;

    if (fd >= 0 && is_owner(fd)) {
        k = make_room(c);
        k->fd = fd;
        k->got = k->size = k->sent = 0;
        k->deadline = zt_now() + SECONDS;
    } else if (fd >= 0) {
        close(fd);
    } else if (errno != EAGAIN && errno != EINTR) { /* no descriptor is free: not at once again */
        poll(&(struct pollfd){.fd = c->stop_fd, .events = POLLIN}, 1, 100);
    }
}

/* Returns what poll() does; the deadline of the first of them ends it. */
static int wait_events(struct serve_ctl *c, struct pollfd *p)
{
    double first = zt_now() + SECONDS;

    p[0] = (struct pollfd){.fd = c->stop_fd, .events = POLLIN};
    p[1] = (struct pollfd){.fd = c->listen_fd, .events = POLLIN};
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        const struct connection *k = &c->connections[i];

        p[i + 2] = (struct pollfd){.fd = k->fd, .events = k->answer ? POLLOUT : POLLIN};
        if (k->fd >= 0 && k->deadline < first)
            first = k->deadline;
    }
    first -= zt_now();
    return poll(p, CONNECTIONS + 2, first > 0 ? (int)(first * 1000) + 1 : 0);
}

/* The time is that before the commands: one that takes long costs no other client its turn. */
static void step(struct serve_ctl *c, const struct pollfd *p, double now)
{
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        struct connection *k = &c->connections[i];

        if (k->fd < 0)
            continue;
        if (p[i + 2].revents && k->answer)
            reply(k);
        else if (p[i + 2].revents)
            receive(c, k);
        else if (k->deadline <= now)
            drop(k);
    }
    if (p[1].revents)
        take_one(c);
}

static void *run(void *arg)
{
    struct serve_ctl *c = arg;
    struct pollfd p[CONNECTIONS + 2];

    for (;;) {
        int n = wait_events(c, p);

        if (n >= 0 && p[0].revents)
            return NULL;
        if (n >= 0)
            step(c, p, zt_now());
    }
}

/* ---- begin and end ---- */

static int listen_at(struct serve_ctl **out, const char *path)
{
    struct serve_ctl *c = calloc(1, sizeof(*c));
    int rc;

    if (!c)
        return -ENOMEM;
    for (unsigned i = 0; i < CONNECTIONS; i++)
        c->connections[i].fd = -1;
    c->listen_fd = serve_socket_listen(path, 0600, CONNECTIONS);
    if (c->listen_fd < 0) {
        rc = c->listen_fd;
        free(c);
        return rc;
    }
    if (!realpath(path, c->path))
        snprintf(c->path, sizeof(c->path), "%s", path);
    c->stop_fd = -1;
    *out = c;
    return 0;
}

int serve_ctl_open(struct serve_ctl **out, const char *path, struct serve_report *report)
{
    int rc = path ? listen_at(out, path) : 0;

    if (rc < 0)
        serve_report_failure(report, "%s: %s", path, strerror(-rc));
    return rc;
}

void serve_ctl_beside(struct serve_ctl **c, const struct serve_state *state)
{
    if (!*c)
        listen_at(c, state->ctl);
}

const char *serve_ctl_path(const struct serve_ctl *c)
{
    return c ? c->path : "";
}

int serve_ctl_start(struct serve_ctl *c, struct serve_image *image)
{
    int rc;

    if (!c)
        return 0;
    c->image = image;
    c->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (c->stop_fd < 0)
        return -errno;
    rc = pthread_create(&c->thread, NULL, run, c);
    c->running = rc == 0;
    return -rc;
}

int serve_ctl_remove(void *ctl)
{
    const struct serve_ctl *c = ctl;

    return unlink(c->path) ? -errno : 0;
}

void serve_ctl_stop(struct serve_ctl *c, const struct serve_keeper *keeper)
{
    if (!c)
        return;
    if (c->running) {
        __atomic_store_n(&c->image->stopping, true, __ATOMIC_RELAXED);
        eventfd_write(c->stop_fd, 1);
        pthread_join(c->thread, NULL);
    }
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        if (c->connections[i].fd >= 0)
            drop(&c->connections[i]);
    }
    if (c->stop_fd >= 0)
        close(c->stop_fd);
    serve_keeper_run(keeper, serve_ctl_remove, c);
    close(c->listen_fd);
    free(c);
}
