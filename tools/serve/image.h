/* SPDX-License-Identifier: MIT */
/* The image that a server serves: opened with the server's options, described, closed. */
#ifndef ZQ_TOOLS_SERVE_IMAGE_H
#define ZQ_TOOLS_SERVE_IMAGE_H

#include "serve/faults.h"
#include "serve/report.h"

/* Stays where it is while the image is open: the hooks point to it. */
struct serve_image {
    const struct serve_options *opt; /* the caller's */
    char path[PATH_MAX];             /* absolute */
    struct zqcow2_hooks hooks;
    struct zqcow2_image *img; /* owned */
    struct zqcow2_info info;
    struct serve_faults *faults; /* NULL: none */
    struct serve_faults own;     /* what it points to */
};

/* After serve_signals_open(). On failure nothing is held, and the report says why. */
int serve_image_open(struct serve_image *s, const struct serve_options *opt,
                     struct serve_report *report);
/*
 * All queues must be closed. What closing returned; a failure is logged. Behind a cut it cannot but
 * fail, and that is 0.
 */
int serve_image_close(struct serve_image *s);
/* To standard error or, in the background, to syslog. `level` is that of the library's log hook. */
void serve_image_log(const struct serve_image *s, int level, const char *text);

#endif
