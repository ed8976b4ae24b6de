/* SPDX-License-Identifier: MIT */
/*
 * The one address that a confined server may still reach: that of the server of its image. It makes
 * no connection itself; a process that can do nothing else makes it and hands it over.
 */
#ifndef ZQ_TOOLS_SERVE_REMOTE_H
#define ZQ_TOOLS_SERVE_REMOTE_H

#include "nbd.h"
#include "serve/keeper.h"

struct serve_remote {
    struct zt_nbd_place place; /* set when the image is opened; length 0: it is on no server */
    struct zt_nbd_dialer dialer;
    struct serve_keeper keeper; /* of its own: connecting takes time */
    int give, take;             /* connections pass from one to the other */
    bool confined;              /* atomic */
};

/* Before the image is opened, with r->dialer. */
void serve_remote_init(struct serve_remote *r);
/* Before the server gives up its rights. 0 or -errno. */
int serve_remote_start(struct serve_remote *r);
/* When the image is closed. */
void serve_remote_end(struct serve_remote *r);

#endif
