/* SPDX-License-Identifier: MIT */
/* The signals that end a server in good order: SIGTERM, SIGINT and SIGHUP. */
#ifndef ZQ_TOOLS_SERVE_SIGNALS_H
#define ZQ_TOOLS_SERVE_SIGNALS_H

/*
 * Blocks them, and SIGPIPE is ignored. Returns a descriptor that is readable once one has come, or
 * -errno. Before the first thread: all threads inherit it.
 */
int serve_signals_open(void);
/* Until one has come, or `ended_fd` is readable: the server ends for a reason of its own. */
void serve_signals_wait(int signal_fd, int ended_fd);

#endif
