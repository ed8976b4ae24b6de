/* SPDX-License-Identifier: MIT */
/* The server behind one vhost-user socket. */
#include "vhost/server.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "serve/confine.h"
#include "serve/ctl.h"
#include "serve/signals.h"
#include "serve/socket.h"
#include "vhost/session.h"

#define SECTOR 512u

struct server {
    const struct vhost_options *opt;
    struct serve_report *report;
    struct serve_image image;
    struct serve_state state;
    struct vhost_shared shared;
    struct vhost_queue *queues;
    unsigned opened; /* of them */
    char socket[PATH_MAX];
    struct serve_ctl *ctl; /* NULL: none */
    struct serve_keeper keeper;
    int signal_fd, state_fd, listen_fd;
};

/* ---- the socket ---- */

/* An inherited descriptor is a socket that listens, or one that is connected. */
static bool listens(int fd)
{
    int yes = 0;
    socklen_t n = sizeof(yes);

    return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &yes, &n) && yes;
}

static int open_socket(struct server *s)
{
    struct stat st;

    if (s->opt->socket) {
        s->listen_fd = serve_socket_listen(s->opt->socket, 0777, 1);
        if (s->listen_fd < 0)
            serve_report_failure(s->report, "%s: %s", s->opt->socket, strerror(-s->listen_fd));
        else if (!realpath(s->opt->socket, s->socket))
            snprintf(s->socket, sizeof(s->socket), "%s", s->opt->socket);
        return s->listen_fd;
    }
    s->listen_fd = s->opt->fd;
    snprintf(s->socket, sizeof(s->socket), "descriptor %d", s->opt->fd);
    if (!fstat(s->opt->fd, &st) && S_ISSOCK(st.st_mode))
        return fcntl(s->opt->fd, F_SETFD, FD_CLOEXEC) ? -errno : 0;
    serve_report_failure(s->report, "--fd: %d is not a socket", s->opt->fd);
    return -ENOTSOCK;
}

/* ---- queues ---- */

static void resized(void *arg)
{
    vhost_session_changed(&((struct server *)arg)->shared);
}

static int open_queues(struct server *s)
{
    unsigned n = s->opt->serve.queues;
    int rc = 0;

    s->shared.image = &s->image;
    s->shared.disk = (struct vhost_disk){.img = s->image.img,
                                         .info = &s->image.info,
                                         .faults = s->image.faults,
                                         .read_only = s->opt->serve.read_only,
                                         .queues = (uint16_t)n};
    vhost_disk_init(&s->shared.disk, s->image.path);
    s->shared.backend_fd = -1;
    pthread_mutex_init(&s->shared.lock, NULL);
    s->image.resized = resized;
    s->image.resized_arg = s;
    s->queues = calloc(n, sizeof(*s->queues));
    if (!s->queues)
        return -ENOMEM;
    while (rc == 0 && s->opened < n) {
        s->queues[s->opened].shared = &s->shared;
        s->queues[s->opened].index = s->opened;
        rc = vhost_queue_open(&s->queues[s->opened]);
        s->opened += rc == 0;
    }
    if (rc < 0)
        serve_report_failure(s->report, "cannot make a queue: %s", strerror(-rc));
    return rc;
}

static int close_queues(struct server *s)
{
    int rc = 0;

    for (unsigned i = 0; i < s->opened; i++) {
        int closed;

        vhost_queue_pause(&s->queues[i]);
        closed = vhost_queue_close(&s->queues[i]);
        rc = rc ? rc : closed;
    }
    free(s->queues);
    return rc;
}

/* ---- front-ends ---- */

static int serve_one(struct server *s, int sock)
{
    struct vhost_session session = {
        .sock = sock, .stop_fd = s->signal_fd, .shared = &s->shared, .queues = s->queues};
    int rc = vhost_session_run(&session);

    if (rc < 0 && rc != -EINTR) {
        char text[96];

        snprintf(text, sizeof(text), "a front-end was disconnected: %s", strerror(-rc));
        serve_image_log(&s->image, ZQCOW2_LOG_WARN, text);
    }
    return rc;
}

/* One at a time, until a signal. */
static void serve_all(struct server *s)
{
    struct pollfd p[] = {{.fd = s->listen_fd, .events = POLLIN},
                         {.fd = s->signal_fd, .events = POLLIN}};

    while (!p[1].revents) {
        int sock;

        if (poll(p, 2, -1) < 0 || !p[0].revents || p[1].revents)
            continue;
        sock = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (sock < 0)
            continue;
        serve_one(s, sock);
        close(sock);
    }
}

/* ---- life and end ---- */

/* Its number is the lowest that no living server has. */
static int create_state(struct server *s)
{
    s->state.kind = &vhost_kind;
    snprintf(s->state.image, sizeof(s->state.image), "%s", s->image.path);
    snprintf(s->state.endpoint, sizeof(s->state.endpoint), "%s", s->socket);
    snprintf(s->state.ctl, sizeof(s->state.ctl), "%s", serve_ctl_path(s->ctl));
    do {
        s->state_fd = serve_state_create(&s->state);
    } while (s->state_fd == -EWOULDBLOCK && ++s->state.id < SERVE_STATE_MAX);
    return s->state_fd;
}

/*
 * Without root there is no place for a state file; then `serve list` does not show this server, and
 * it has a control socket only where --ctl says.
 */
static int announce(struct server *s)
{
    int rc = serve_ctl_open(&s->ctl, s->opt->serve.ctl, s->report);

    if (rc < 0)
        return rc;
    if (create_state(s) >= 0)
        serve_ctl_beside(&s->ctl, &s->state);
    return 0;
}

static int remove_socket(void *server)
{
    const struct server *s = server;

    return unlink(s->socket) ? -errno : 0;
}

/* What is removed at the end is removed by the keeper. */
static int give_up_rights(struct server *s)
{
    int rc;

    if (s->opt->serve.unconfined)
        return 0;
    if (s->opt->socket)
        serve_keeper_task(&s->keeper, remove_socket, s);
    if (s->ctl)
        serve_keeper_task(&s->keeper, serve_ctl_remove, s->ctl);
    if (s->state_fd >= 0)
        serve_state_keep(&s->state, &s->keeper);
    rc = serve_keeper_start(&s->keeper);
    if (rc == 0)
        rc = serve_remote_start(&s->image.remote);
    if (rc == 0)
        return serve_confine_rights(&s->opt->serve, s->report);
    serve_report_failure(s->report, "cannot start a process: %s", strerror(-rc));
    return rc;
}

static int start_threads(struct server *s)
{
    int rc = open_queues(s);

    if (rc < 0)
        return rc;
    rc = serve_ctl_start(s->ctl, &s->image);
    if (rc == 0)
        return serve_confine_calls(&s->opt->serve, s->report);
    serve_report_failure(s->report, "cannot start a thread: %s", strerror(-rc));
    return rc;
}

static int with_socket(struct server *s)
{
    int rc = announce(s), closed;

    if (rc == 0)
        rc = give_up_rights(s);
    if (rc == 0)
        rc = start_threads(s);
    if (rc == 0) {
        serve_report_ready(s->report, s->socket, &s->image.info, s->opt->serve.read_only,
                           s->image.info.zone_size ? vhost_disk_largest_append(&s->shared.disk) :
                                                     0);
        if (listens(s->listen_fd))
            serve_all(s);
        else
            rc = serve_one(s, s->listen_fd) == -EPROTO ? -EPROTO : 0;
    }
    serve_ctl_stop(s->ctl, &s->keeper);
    closed = close_queues(s);
    if (closed < 0)
        serve_image_log(&s->image, ZQCOW2_LOG_ERROR, zqcow2_strerror(closed));
    return rc < 0 ? rc : closed;
}

/* A config space counts zones in sectors of 32 bits. */
static int check_geometry(struct server *s)
{
    if (s->image.info.zone_size / SECTOR <= UINT32_MAX)
        return 0;
    serve_report_failure(s->report, "%s: virtio does not support zones of this size",
                         s->opt->serve.target.path);
    return -EINVAL;
}

static int with_image(struct server *s)
{
    int rc = check_geometry(s);

    if (rc == 0)
        rc = open_socket(s);
    if (rc < 0)
        return rc;
    rc = with_socket(s);
    if (s->opt->socket)
        serve_keeper_run(&s->keeper, remove_socket, s);
    close(s->listen_fd);
    return rc;
}

int vhost_serve(const void *opt, struct serve_report *report)
{
    struct server s = {.opt = opt, .report = report, .keeper = SERVE_KEEPER_INIT, .state_fd = -1};
    int rc, closed;

    s.signal_fd = serve_signals_open();
    if (s.signal_fd < 0) {
        serve_report_failure(report, "cannot start a server: %s", strerror(-s.signal_fd));
        return 1;
    }
    if (serve_image_open(&s.image, &s.opt->serve, report) < 0)
        return 1;
    rc = with_image(&s);
    closed = serve_image_close(&s.image);
    if (s.state_fd >= 0)
        serve_state_end(&s.state, s.state_fd, closed < 0 ? zqcow2_strerror(closed) : NULL,
                        &s.keeper);
    return rc < 0 || closed < 0;
}
