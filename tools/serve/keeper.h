/* SPDX-License-Identifier: MIT */
/*
 * A second process that keeps the rights which a server gives up. It can do nothing but the tasks
 * that were named before it started, on memory as it was then, and ends with the server.
 */
#ifndef ZQ_TOOLS_SERVE_KEEPER_H
#define ZQ_TOOLS_SERVE_KEEPER_H

#define SERVE_KEEPER_TASKS 8
#define SERVE_KEEPER_FDS   4

/* 0 or -errno. It takes no lock and no memory: the keeper was forked beside running threads. */
typedef int serve_task(void *arg);

struct serve_keeper {
    int sock;            /* -1: not started; the server still has all its rights */
    unsigned tasks, fds; /* numbers of: */
    struct {
        serve_task *run;
        void *arg;
    } task[SERVE_KEEPER_TASKS];
    int fd[SERVE_KEEPER_FDS]; /* descriptors that its tasks use */
};

#define SERVE_KEEPER_INIT \
    { \
        .sock = -1 \
    }

/* Before the start. A task has one number, by which the keeper knows it. */
void serve_keeper_task(struct serve_keeper *k, serve_task *run, void *arg);
void serve_keeper_fd(struct serve_keeper *k, int fd);
/* 0 or -errno. */
int serve_keeper_start(struct serve_keeper *k);
/* What the task returned, in the keeper if there is one; -EPIPE: the keeper was killed. */
int serve_keeper_run(const struct serve_keeper *k, serve_task *run, void *arg);

#endif
