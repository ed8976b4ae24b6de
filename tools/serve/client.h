/* SPDX-License-Identifier: MIT */
/* `zqcow2 serve ctl`: a command to a server that runs. */
#ifndef ZQ_TOOLS_SERVE_CLIENT_H
#define ZQ_TOOLS_SERVE_CLIENT_H

#include <limits.h>
#include <stddef.h>

struct serve_client {
    const char *name;    /* of the server, as it was given */
    const char *command; /* as it was given */
    char path[PATH_MAX];
};

/* argv[0]: "ctl". The exit status. */
int serve_ctl(int argc, char **argv);

/* Sends the words of a command, and prints its answer as it is; the exit status. */
int serve_order(const struct serve_client *c, size_t nr, const char *const *words);

/* Commands; argv[0]: "serve". The exit status. */
int serve_client_cut(const struct serve_client *c, int argc, char **argv);
int serve_client_fail(const struct serve_client *c, int argc, char **argv);
int serve_client_delay(const struct serve_client *c, int argc, char **argv);
int serve_client_resize(const struct serve_client *c, int argc, char **argv);
int serve_client_compact(const struct serve_client *c, int argc, char **argv);

#endif
