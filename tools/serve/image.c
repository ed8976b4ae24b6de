/* SPDX-License-Identifier: MIT */
/* The image that a server serves, and where its messages go. */
#include "serve/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

void serve_image_log(const struct serve_image *s, int level, const char *text)
{
    if (s->opt->foreground)
        zt_error("%s", text);
    else
        syslog(level <= ZQCOW2_LOG_ERROR ? LOG_ERR : LOG_WARNING, "%s: %s", s->path, text);
}

static void log_line(void *ctx, int level, const char *text)
{
    serve_image_log(ctx, level, text);
}

static void on_event(void *arg, const struct zqcow2_event *event)
{
    struct serve_image *s = arg;
    char text[160];

    serve_events_add(&s->events, event);
    if (serve_event_is_logged(event))
        serve_image_log(s, ZQCOW2_LOG_WARN, serve_event_text(event, text, sizeof(text)));
}

/* By its absolute path: the server may outlive the folder that it was started in. */
static int open_backend(struct serve_image *s, struct serve_report *report,
                        struct zqcow2_backend **be)
{
    struct zt_target target = s->opt->target;
    char text[256];
    int rc;

    target.path = s->path;
    target.hooks = &s->hooks;
    target.dialer = &s->remote.dialer;
    rc = zt_backend_open(&target, s->opt->read_only ? 0 : ZQCOW2_FILE_RDWR, be);
    if (rc < 0)
        serve_report_failure(report, "%s: %s", s->opt->target.path,
                             zt_backend_reason(&target, rc, text, sizeof(text)));
    return rc;
}

/* Replaces the backend by one with faults, or closes it. */
static int add_faults(struct serve_image *s, struct serve_report *report,
                      struct zqcow2_backend **be)
{
    int rc = serve_faults_begin(&s->own, &s->opt->faults, &s->hooks);

    if (rc < 0) {
        serve_report_failure(report, "%s: %s", s->opt->faults.log, strerror(-rc));
        zqcow2_backend_close(*be);
        return rc;
    }
    s->faults = &s->own;
    rc = serve_faults_wrap(s->faults, be);
    if (rc < 0)
        serve_report_failure(report, "--faults: %s", zqcow2_strerror(rc));
    return rc;
}

static void end_faults(struct serve_image *s)
{
    if (s->faults)
        serve_faults_end(s->faults);
    s->faults = NULL;
}

static struct zqcow2_resolver *open_files(const struct serve_image *s, struct serve_report *report)
{
    const struct zt_target *t = &s->opt->target;
    struct zqcow2_resolver_options ro = ZQCOW2_RESOLVER_OPTIONS_INIT;
    struct zqcow2_resolver *files = NULL;
    int rc;

    ro.root = t->backing_root;
    ro.data_file = t->data_file;
    rc = zqcow2_resolver_new(s->path, &ro, &files);
    if (rc < 0)
        serve_report_failure(report, "%s%s: %s", ro.root ? "--backing-root: " : "",
                             ro.root ? ro.root : t->path, zqcow2_strerror(rc));
    return files;
}

/* Takes the backend, and closes it on failure. */
static int open_on(struct serve_image *s, struct serve_report *report, struct zqcow2_backend *be)
{
    struct zqcow2_open_options oo = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_resolver *files = open_files(s, report);
    struct zqcow2_error err = {0};
    bool ignored;
    int rc;

    if (!files) {
        zqcow2_backend_close(be);
        return -EINVAL;
    }
    oo.flags = s->opt->read_only ? 0 : ZQCOW2_OPEN_RDWR;
    oo.block_size = s->opt->block_size;
    oo.hooks = &s->hooks;
    oo.resolve = s->faults ? serve_faults_resolve : zqcow2_resolve_file;
    oo.backing_format = s->opt->target.backing_format;
    oo.resolve_arg = s->faults ? (void *)s->faults : files;
    s->own.files = files;
    rc = zqcow2_open(be, &oo, &s->img, &err);
    s->has_data_file = zqcow2_resolver_path(files, ZQCOW2_RESOLVE_DATA_FILE);
    ignored = s->opt->target.data_file && !s->has_data_file;
    zqcow2_resolver_free(files);
    if (rc < 0) {
        zqcow2_backend_close(be);
        serve_report_failure(report, "%s: %s", s->opt->target.path, zt_reason(rc, &err));
        return rc;
    }
    if (ignored) {
        zqcow2_close(s->img);
        serve_report_failure(report, "%s: has no data file: omit --data-file", s->opt->target.path);
        return -EINVAL;
    }
    s->info = (struct zqcow2_info)ZQCOW2_INFO_INIT;
    rc = zqcow2_get_info(s->img, &s->info);
    if (rc < 0) {
        serve_report_failure(report, "%s: %s", s->opt->target.path, zqcow2_strerror(rc));
        zqcow2_close(s->img);
        return rc;
    }
    zqcow2_set_event_handler(s->img, on_event, s);
    return rc;
}

static int find_path(struct serve_image *s)
{
    const char *path = s->opt->target.path;

    if (!zt_on_network(&s->opt->target))
        return realpath(path, s->path) ? 0 : -errno;
    return snprintf(s->path, sizeof(s->path), "%s", path) < (int)sizeof(s->path) ? 0 :
                                                                                   -ENAMETOOLONG;
}

int serve_image_open(struct serve_image *s, const struct serve_options *opt,
                     struct serve_report *report)
{
    struct zqcow2_backend *be;
    int rc;

    s->opt = opt;
    serve_remote_init(&s->remote);
    serve_events_init(&s->events);
    s->hooks = (struct zqcow2_hooks)ZQCOW2_HOOKS_INIT;
    s->hooks.ctx = s;
    s->hooks.log = log_line;
    rc = find_path(s);
    if (rc < 0) {
        serve_report_failure(report, "%s: %s", opt->target.path, strerror(-rc));
        return rc;
    }
    openlog("zqcow2", LOG_PID | LOG_NDELAY, LOG_DAEMON); /* a confined server cannot connect */
    rc = open_backend(s, report, &be);
    if (rc == 0 && opt->has_faults)
        rc = add_faults(s, report, &be);
    else if (rc == 0 && s->wrap)
        s->wrap(s->wrap_arg, &be);
    if (rc == 0)
        rc = open_on(s, report, be);
    if (rc < 0)
        end_faults(s);
    return rc;
}

int serve_image_resized(struct serve_image *s)
{
    struct zqcow2_info now = ZQCOW2_INFO_INIT;
    int rc = zqcow2_get_info(s->img, &now);

    if (rc < 0)
        return rc;
    __atomic_store_n(&s->info.nr_zones, now.nr_zones, __ATOMIC_RELAXED);
    __atomic_store_n(&s->info.virtual_size, now.virtual_size, __ATOMIC_RELAXED);
    if (s->resized)
        s->resized(s->resized_arg);
    return 0;
}

int serve_image_close(struct serve_image *s)
{
    int rc = zqcow2_close(s->img);

    if (serve_faults_are_cut(s->faults))
        rc = 0;
    end_faults(s);
    serve_remote_end(&s->remote);
    if (rc < 0)
        serve_image_log(s, ZQCOW2_LOG_ERROR, zqcow2_strerror(rc));
    return rc;
}
