/* SPDX-License-Identifier: MIT */
/* The server behind one ublk device, from opening the image to closing it again. */
#ifndef ZQ_TOOLS_UBLK_SERVER_H
#define ZQ_TOOLS_UBLK_SERVER_H

#include "serve/kinds.h"
#include "serve/report.h"
#include "ublk/ctl.h"

/* How the data of requests comes to the server and leaves it. */
enum ublk_copy {
    UBLK_COPY_AUTO, /* zero copy if the kernel and the image allow it, else user copy */
    UBLK_COPY_ZERO,
    UBLK_COPY_USER
};

struct ublk_options {
    struct serve_options serve;
    uint32_t id;    /* all ones: any */
    uint32_t depth; /* of each queue */
    enum ublk_copy copy;
    uint64_t recovery;        /* UBLK_F_USER_RECOVERY and what goes with it, or 0 */
    bool recover;             /* the device exists, and waits for a server: */
    struct ublk_dev_info dev; /* it */
};

/*
 * A serve_main(), `opt` is a struct ublk_options: serves until a signal or the end of the device.
 */
int ublk_serve(const void *opt, struct serve_report *report);

#endif
