/* SPDX-License-Identifier: MIT */
/* One small file per served device under /run/zqcow2, so that `list` and `del` find the servers. */
#ifndef ZQ_TOOLS_UBLK_STATE_H
#define ZQ_TOOLS_UBLK_STATE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct ublk_state {
    uint32_t id;
    pid_t pid;            /* of the server */
    bool alive;           /* it holds its lock on the file */
    char image[PATH_MAX]; /* absolute */
    char error[256];      /* why the server's end was not clean; empty: it has not ended, or well */
};

/* Writes the file and returns a descriptor that holds its lock until the process ends; -errno. */
int ublk_state_create(uint32_t id, const char *image);
/* Says in the file why the server's end was not clean. */
void ublk_state_fail(int fd, const char *text);
void ublk_state_remove(uint32_t id);
int ublk_state_read(uint32_t id, struct ublk_state *out);
/* Ids with a state file, ascending, at most max; the number of them, or -errno. */
int ublk_state_ids(uint32_t *ids, int max);

#endif
