/* SPDX-License-Identifier: MIT */
/*
 * One small file per running server under /run/zqcow2, so that `list` and `del` find the servers.
 * Its lines: the process, the image; then, each only if it or a later one is not empty, why the end
 * was not clean, what clients open, and a control socket that is not beside this file. Lines are
 * escaped (escape.h): a path may hold a newline. The server holds a lock on the file until its
 * process ends.
 */
#ifndef ZQ_TOOLS_SERVE_STATE_H
#define ZQ_TOOLS_SERVE_STATE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "serve/keeper.h"

/* Tests have their own. */
#ifndef SERVE_STATE_DIR
#define SERVE_STATE_DIR "/run/zqcow2"
#endif

#define SERVE_STATE_MAX 1024 /* servers of a kind that are looked for */

/* Files beside the state file, which are removed with it; their names are its name and this. */
#define SERVE_CTL_SUFFIX    ".ctl"
#define SERVE_LEDGER_SUFFIX ".ledger" /* of a server that can be replaced while clients go on */
#define SERVE_STATE_PATH    128       /* bytes that are enough for each of the names */

/* What one folder of tools/ serves by. */
struct serve_kind {
    const char *name;   /* the verb, and with a number the state file */
    const char *what;   /* in messages, after "no such" */
    const char *device; /* clients open this with the number; NULL: the state file has it */
    const char *list;   /* the command that shows them */
};

struct serve_state {
    const struct serve_kind *kind;
    uint32_t id;
    pid_t pid;               /* of the server */
    bool alive;              /* it holds its lock on the file */
    char image[PATH_MAX];    /* absolute */
    char endpoint[PATH_MAX]; /* what clients open */
    char ctl[PATH_MAX];      /* the control socket; it may not be there */
    char error[256];         /* why the end was not clean; empty: it has not ended, or well */
};

void serve_state_beside(char path[SERVE_STATE_PATH], const struct serve_kind *kind, uint32_t id,
                        const char *suffix);
/*
 * Writes the file of this process, from kind, id, image, (without kind->device) endpoint and, if it
 * is elsewhere, ctl, and sets the rest. Returns a descriptor that holds its lock until the process
 * ends, or -errno.
 */
int serve_state_create(struct serve_state *s);
/* Makes the removal of the file a task of the keeper. */
void serve_state_keep(struct serve_state *s, struct serve_keeper *keeper);
/* The server's last call: removes the file, or says in it why the end was not clean. */
void serve_state_end(struct serve_state *s, int fd, const char *error,
                     const struct serve_keeper *keeper);
void serve_state_remove(const struct serve_state *s);
/* Sets all of `out`; 0 or -errno. */
int serve_state_read(const struct serve_kind *kind, uint32_t id, struct serve_state *out);
/* Ids with a state file, ascending, at most max; the number of them, or -errno. */
int serve_state_ids(const struct serve_kind *kind, uint32_t *ids, int max);

#endif
