/* SPDX-License-Identifier: MIT */
/* A second process that keeps the rights which a server gives up. */
#include "serve/keeper.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

void serve_keeper_task(struct serve_keeper *k, serve_task *run, void *arg)
{
    assert(k->sock < 0 && k->tasks < SERVE_KEEPER_TASKS);
    k->task[k->tasks].run = run;
    k->task[k->tasks++].arg = arg;
}

/* In the order of their numbers. */
void serve_keeper_fd(struct serve_keeper *k, int fd)
{
    unsigned at = k->fds;

    assert(k->sock < 0 && k->fds < SERVE_KEEPER_FDS);
    for (; at && k->fd[at - 1] > fd; at--)
        k->fd[at] = k->fd[at - 1];
    k->fd[at] = fd;
    k->fds++;
}

/* ---- the keeper ---- */

static void close_range_of(unsigned first, unsigned last)
{
    long max = sysconf(_SC_OPEN_MAX);

#ifdef SYS_close_range
    if (!syscall(SYS_close_range, first, last, 0))
        return;
#endif
    for (unsigned fd = first; fd <= last && fd < (unsigned long)max; fd++)
        close((int)fd);
}

/* The image's descriptors above all: its locks last as long as one of them. */
static void close_others(const struct serve_keeper *k)
{
    unsigned from = 0;

    for (unsigned i = 0; i < k->fds; i++) {
        if ((unsigned)k->fd[i] > from)
            close_range_of(from, (unsigned)k->fd[i] - 1);
        from = (unsigned)k->fd[i] + 1;
    }
    close_range_of(from, UINT_MAX);
}

/* A number that names no task ends it, as the end of the server does. */
static void keep(const struct serve_keeper *k, int sock)
{
    unsigned char number;

    close_others(k);
    if (chdir("/"))
        return;
    while (recv(sock, &number, 1, 0) == 1 && number < k->tasks) {
        int rc = k->task[number].run(k->task[number].arg);

        if (send(sock, &rc, sizeof(rc), MSG_NOSIGNAL) != sizeof(rc))
            return;
    }
}

int serve_keeper_start(struct serve_keeper *k)
{
    int s[2];
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s))
        return -errno;
    serve_keeper_fd(k, s[1]);
    pid = fork();
    if (!pid) {
        keep(k, s[1]);
        _exit(0);
    }
    close(s[1]);
    if (pid < 0) {
        int rc = -errno;

        close(s[0]);
        return rc;
    }
    k->sock = s[0];
    return 0;
}

/* ---- the server ---- */

static unsigned number_of(const struct serve_keeper *k, serve_task *run, const void *arg)
{
    unsigned i = 0;

    while (i < k->tasks && (k->task[i].run != run || k->task[i].arg != arg))
        i++;
    assert(i < k->tasks);
    return i;
}

int serve_keeper_run(const struct serve_keeper *k, serve_task *run, void *arg)
{
    unsigned char number;
    int rc;

    if (k->sock < 0)
        return run(arg);
    number = (unsigned char)number_of(k, run, arg);
    if (send(k->sock, &number, 1, MSG_NOSIGNAL) != 1 ||
        recv(k->sock, &rc, sizeof(rc), 0) != sizeof(rc))
        return -EPIPE;
    return rc;
}
