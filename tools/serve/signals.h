/* SPDX-License-Identifier: MIT */
/*
 * The signals that end a server in good order: SIGTERM, SIGINT, SIGHUP, and SIGUSR1, after which
 * another one goes on where that is possible.
 */
#ifndef ZQ_TOOLS_SERVE_SIGNALS_H
#define ZQ_TOOLS_SERVE_SIGNALS_H

/*
 * Blocks them, and SIGPIPE is ignored. Returns a descriptor that is readable once one has come, or
 * -errno. Before the first thread: all threads inherit it.
 */
int serve_signals_open(void);
/*
 * Until one has come, which it returns, or `ended_fd` is readable, 0: the server ends for a reason
 * of its own.
 */
int serve_signals_wait(int signal_fd, int ended_fd);

#endif
