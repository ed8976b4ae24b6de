/* SPDX-License-Identifier: MIT */
/* The server behind one ublk device, from opening the image to closing it again. */
#ifndef ZQ_TOOLS_UBLK_SERVER_H
#define ZQ_TOOLS_UBLK_SERVER_H

#include "serve/kinds.h"
#include "serve/report.h"
#include "ublk/ctl.h"

struct ublk_options {
    struct serve_options serve;
    uint32_t id;              /* all ones: any */
    uint32_t depth;           /* of each queue */
    uint64_t recovery;        /* UBLK_F_USER_RECOVERY and what goes with it, or 0 */
    bool recover;             /* the device exists, and waits for a server: */
    struct ublk_dev_info dev; /* it */
};

/*
 * A serve_main(), `opt` is a struct ublk_options: serves until a signal or the end of the device.
 */
int ublk_serve(const void *opt, struct serve_report *report);
/* Takes a device away whose server died. 0 also if there is no such device any more. */
int ublk_reap(struct ublk_ctl *c, uint32_t id, int32_t server_pid);

#endif
