/* SPDX-License-Identifier: MIT */
/* The image that a server serves: opened with the server's options, described, closed. */
#ifndef ZQ_TOOLS_SERVE_IMAGE_H
#define ZQ_TOOLS_SERVE_IMAGE_H

#include "serve/events.h"
#include "serve/faults.h"
#include "serve/remote.h"
#include "serve/report.h"

/* Stays where it is while the image is open: the hooks point to it. */
struct serve_image {
    const struct serve_options *opt; /* the caller's */
    char path[PATH_MAX];             /* absolute */
    struct zqcow2_hooks hooks;
    struct zqcow2_image *img; /* owned */
    struct zqcow2_info info;
    struct serve_events events;
    struct serve_faults *faults; /* NULL: none */
    struct serve_faults own;     /* what it points to */
    struct serve_remote remote;  /* its start belongs before the end of the server's rights */
    /* Set by the server before it opens: replaces the file's backend by one on it; or NULL. */
    void (*wrap)(void *arg, struct zqcow2_backend **be);
    void *wrap_arg;
    bool has_data_file;
    uint64_t zero_copies; /* atomic: of the statistics */
    /* Set by the server before its control socket is used. */
    const char *fixed_size;     /* why the size cannot change; NULL: it can */
    void (*resized)(void *arg); /* it has changed: in the thread of the control socket; or NULL */
    void *resized_arg;
    bool stopping; /* atomic: a command that takes long ends */
};

/* After serve_signals_open(). On failure nothing is held, and the report says why. */
int serve_image_open(struct serve_image *s, const struct serve_options *opt,
                     struct serve_report *report);
/*
 * The library has changed the size: info has the new one, which other threads read with
 * serve_size() and serve_zones().
 */
int serve_image_resized(struct serve_image *s);
static inline uint64_t serve_size(const struct zqcow2_info *i)
{
    return __atomic_load_n(&i->virtual_size, __ATOMIC_RELAXED);
}
static inline uint32_t serve_zones(const struct zqcow2_info *i)
{
    return __atomic_load_n(&i->nr_zones, __ATOMIC_RELAXED);
}
/*
 * All queues must be closed. What closing returned; a failure is logged. Behind a cut it cannot but
 * fail, and that is 0.
 */
int serve_image_close(struct serve_image *s);
/* To standard error or, in the background, to syslog. `level` is that of the library's log hook. */
void serve_image_log(const struct serve_image *s, int level, const char *text);

#endif
