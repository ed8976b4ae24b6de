/* SPDX-License-Identifier: MIT */
/* The server behind one ublk device, from opening the image to closing it again. */
#ifndef ZQ_TOOLS_UBLK_SERVE_H
#define ZQ_TOOLS_UBLK_SERVE_H

#include <stdbool.h>
#include <stdint.h>

#include "tool.h"
#include "ublk_ctl.h"

struct ublk_options {
    struct zt_target target; /* its path as it was given */
    uint32_t id;     /* all ones: any */
    uint32_t queues, depth;
    bool read_only, foreground;
};

/*
 * Serves until SIGTERM, SIGINT or the end of the device; the exit status. One report goes to
 * report_fd: '+' and the lines to print once the device is there, or '-' and one line that says
 * why it is not. The descriptor is closed then.
 */
int ublk_serve(const struct ublk_options *opt, int report_fd);
/* What an -errno of ublk_ctl_open() means, for people. */
const char *ublk_ctl_explain(int rc);
/* Takes a device away whose server died. 0 also if there is no such device any more. */
int ublk_reap(struct ublk_ctl *c, uint32_t id, int32_t server_pid);

#endif
