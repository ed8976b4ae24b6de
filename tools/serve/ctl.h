/* SPDX-License-Identifier: MIT */
/*
 * The control socket of a server. A thread of its own serves it, so that neither a client nor a
 * long command stops the disk. A connection carries one command: a line of words with spaces
 * between them, each escaped (escape.h). The answer is '+', the command's lines and a last line
 * ".", or '-' and the reason; then the connection ends.
 */
#ifndef ZQ_TOOLS_SERVE_CTL_H
#define ZQ_TOOLS_SERVE_CTL_H

#include "serve/image.h"
#include "serve/keeper.h"
#include "serve/state.h"

enum { SERVE_CTL_LINE = 8192 }; /* bytes of a command, its end included */

struct serve_ctl;

/*
 * Makes the socket at `path`, which only this user can open; NULL: none yet. 0, or an error that
 * has been reported.
 */
int serve_ctl_open(struct serve_ctl **out, const char *path, struct serve_report *report);
/* If there is none yet, makes it beside the state file; without one the server serves as well. */
void serve_ctl_beside(struct serve_ctl **c, const struct serve_state *state);
/* Absolute; "" of NULL. */
const char *serve_ctl_path(const struct serve_ctl *c);
/* Answers from now on; 0 or -errno. NULL: nothing to do. */
int serve_ctl_start(struct serve_ctl *c, struct serve_image *image);
/* A task of a keeper: removes the socket of a struct serve_ctl. */
int serve_ctl_remove(void *ctl);
/* Ends a running command, then removes the socket. Before the queues are closed. */
void serve_ctl_stop(struct serve_ctl *c, const struct serve_keeper *keeper);

#endif
