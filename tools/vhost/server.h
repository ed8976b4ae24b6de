/* SPDX-License-Identifier: MIT */
/* The server behind one vhost-user socket, from opening the image to closing it again. */
#ifndef ZQ_TOOLS_VHOST_SERVER_H
#define ZQ_TOOLS_VHOST_SERVER_H

#include "serve/kinds.h"
#include "serve/report.h"

struct vhost_options {
    struct serve_options serve;
    const char *socket; /* its path, or NULL: */
    int fd;             /* inherited: it listens, or is the one connection */
};

/* A serve_main(), `opt` is a struct vhost_options: serves front-ends until a signal. */
int vhost_serve(const void *opt, struct serve_report *report);

#endif
