/* SPDX-License-Identifier: MIT */
/* The server behind one ublk device, from opening the image to closing it again. */
#include "ublk_serve.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <syslog.h>
#include <unistd.h>

#include <zqcow2/backend.h>

#include "ublk_queue.h"
#include "ublk_state.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

#define SECTOR 512u
#define MAX_IO (512u * 1024)

struct server {
    const struct ublk_options *opt;
    char path[PATH_MAX];
    struct zqcow2_hooks hooks;
    struct zqcow2_image *img;
    struct zqcow2_info info;
    struct ublk_ctl ctl;
    struct ublk_dev_info dev;
    struct ublk_queue *queues;
    uint32_t prepared; /* queues that hold something */
    int char_fd, ended_fd, signal_fd, state_fd, report_fd;
};

/* ---- telling ---- */

static void report(struct server *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void report(struct server *s, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vdprintf(s->report_fd, fmt, ap);
    va_end(ap);
    close(s->report_fd);
    s->report_fd = -1;
}

static void log_line(void *ctx, int level, const char *text)
{
    const struct server *s = ctx;

    if (s->opt->foreground)
        zt_error("%s", text);
    else
        syslog(level <= ZQCOW2_LOG_ERROR ? LOG_ERR : LOG_WARNING, "%s: %s", s->path, text);
}

const char *ublk_ctl_explain(int rc)
{
    switch (rc) {
    case -ENOENT:
    case -ENODEV:
    case -ENXIO:
        return UBLK_CONTROL_PATH " is missing: load the driver (modprobe ublk_drv)";
    case -EACCES:
        return UBLK_CONTROL_PATH ": no permission; a ublk device needs root (CAP_SYS_ADMIN)";
    case -EPERM:
        return "io_uring is not permitted here (kernel.io_uring_disabled, or a sandbox)";
    default:
        return strerror(-rc);
    }
}

static const char *size_text(char *buf, size_t n, uint64_t bytes)
{
    static const char units[][4] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    unsigned u = 0;

    while (bytes >= 1024 && bytes % 1024 == 0 && u < 6) {
        bytes /= 1024;
        u++;
    }
    snprintf(buf, n, "%" PRIu64 " %s", bytes, units[u]);
    return buf;
}

/* The device takes no request above MAX_IO, whatever the image allows. */
static uint32_t largest_append(const struct zqcow2_info *i)
{
    return (i->max_append_bytes < MAX_IO ? i->max_append_bytes : MAX_IO) / SECTOR * SECTOR;
}

static void report_started(struct server *s)
{
    const struct zqcow2_info *i = &s->info;
    char size[32], zone[32], cap[32], append[32];

    size_text(size, sizeof(size), i->virtual_size);
    if (!i->zone_size) {
        report(s, "+/dev/ublkb%" PRIu32 "\n  %s, not zoned%s\n", s->dev.dev_id, size,
               s->opt->read_only ? ", read-only" : "");
        return;
    }
    report(s,
           "+/dev/ublkb%" PRIu32 "\n  %s, host-managed%s: %" PRIu32 " zones of %s, capacity %s, "
           "%" PRIu32 " conventional\n  max open %" PRIu32 ", max active %" PRIu32
           " (0: no limit), largest append %s\n",
           s->dev.dev_id, size, s->opt->read_only ? ", read-only" : "", i->nr_zones,
           size_text(zone, sizeof(zone), i->zone_size),
           size_text(cap, sizeof(cap), i->zone_capacity), i->nr_conventional, i->max_open_zones,
           i->max_active_zones, size_text(append, sizeof(append), largest_append(i)));
}

/* ---- the image ---- */

static int open_image(struct server *s)
{
    struct zqcow2_open_options oo = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_error err = { 0 };
    struct zt_target target = s->opt->target;
    struct zqcow2_backend *be;
    bool rw = !s->opt->read_only;
    int rc;

    s->hooks = (struct zqcow2_hooks)ZQCOW2_HOOKS_INIT;
    s->hooks.ctx = s;
    s->hooks.log = log_line;
    oo.flags = rw ? ZQCOW2_OPEN_RDWR : 0;
    oo.hooks = &s->hooks;
    target.path = s->path;
    rc = zt_backend_open(&target, rw ? ZQCOW2_FILE_RDWR : 0, &be);
    if (rc < 0) {
        report(s, "-%s: %s\n", s->opt->target.path,
               rc == -ENOSYS ? "this backend does not work here" : zqcow2_strerror(rc));
        return rc;
    }
    rc = zqcow2_open(be, &oo, &s->img, &err);
    if (rc < 0) {
        zqcow2_backend_close(be);
        report(s, "-%s: %s\n", s->opt->target.path, err.text[0] ? err.text : zqcow2_strerror(rc));
        return rc;
    }
    s->info = (struct zqcow2_info)ZQCOW2_INFO_INIT;
    return zqcow2_get_info(s->img, &s->info);
}

/* What Linux asks of a zoned device; the driver would only say "invalid argument". */
static int check_geometry(struct server *s)
{
    const struct zqcow2_info *i = &s->info;

    if (!i->zone_size)
        return 0;
    if (i->virtual_size % i->zone_size) {
        report(s, "-%s: the last zone is short; Linux needs a size that is a multiple of the zone "
                  "size\n", s->opt->target.path);
        return -EINVAL;
    }
    if (i->zone_size / SECTOR > UINT32_MAX || i->zone_size < SECTOR) {
        report(s, "-%s: zones of this size are beyond Linux\n", s->opt->target.path);
        return -EINVAL;
    }
    return 0;
}

/* ---- the device ---- */

static int check_features(struct server *s)
{
    uint64_t need = UBLK_F_USER_COPY | (s->info.zone_size ? UBLK_F_ZONED : 0), have;
    int rc = ublk_ctl_features(&s->ctl, &have);

    if (rc == -EPERM || rc == -EACCES) {
        report(s, "-%s\n", ublk_ctl_explain(-EACCES));
        return rc;
    }
    if (rc >= 0 && (have & need) == need)
        return 0;
    report(s, "-this kernel's ublk driver %s\n",
           s->info.zone_size ? "knows no zoned devices (Linux 6.6 or newer does)"
                             : "is too old (Linux 6.5 or newer is needed)");
    return -EOPNOTSUPP;
}

/* A server that was killed leaves its device behind; the image and the id are free to use again. */
static void reap_left_behind(struct server *s)
{
    uint32_t ids[256];
    int n = ublk_state_ids(ids, 256);

    for (int i = 0; i < n; i++) {
        struct ublk_state st;

        if (ublk_state_read(ids[i], &st) || st.alive)
            continue;
        if (st.id == s->opt->id || !strcmp(st.image, s->path))
            if (!ublk_reap(&s->ctl, st.id, st.pid))
                ublk_state_remove(st.id);
    }
}

int ublk_reap(struct ublk_ctl *c, uint32_t id, int32_t server_pid)
{
    struct ublk_dev_info info;
    int rc = ublk_ctl_info(c, id, &info);

    if (rc < 0) /* there is none (any more) */
        return rc == -ENODEV || rc == -EINVAL ? 0 : rc;
    if (info.ublksrv_pid > 0 && info.ublksrv_pid != server_pid)
        return 0; /* the id went to another program meanwhile */
    rc = ublk_ctl_del(c, id);
    return rc == -ENODEV ? 0 : rc;
}

/* The id of a device that is just being taken away is free in a moment. */
static int add_device(struct server *s)
{
    int rc, tries = 30;

    do {
        s->dev = (struct ublk_dev_info){
            .nr_hw_queues = (uint16_t)s->opt->queues, .queue_depth = (uint16_t)s->opt->depth,
            .max_io_buf_bytes = MAX_IO, .dev_id = s->opt->id, .ublksrv_pid = getpid(),
            .flags = UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_USER_COPY |
                     (s->info.zone_size ? UBLK_F_ZONED : 0)
        };
        rc = ublk_ctl_add(&s->ctl, &s->dev);
        if (rc != -EEXIST)
            break;
        usleep(100 * 1000);
    } while (--tries);
    if (rc == -EEXIST)
        report(s, "-device id %" PRIu32 " is in use\n", s->opt->id);
    else if (rc == -EPERM || rc == -EACCES)
        report(s, "-%s\n", ublk_ctl_explain(-EACCES));
    else if (rc == -EINVAL && s->info.zone_size)
        report(s, "-the kernel refuses a zoned device (built without CONFIG_BLK_DEV_ZONED?)\n");
    else if (rc < 0)
        report(s, "-the kernel refuses the device: %s\n", strerror(-rc));
    return rc;
}

static int open_char_device(struct server *s)
{
    char path[64];

    snprintf(path, sizeof(path), "/dev/ublkc%" PRIu32, s->dev.dev_id);
    for (int tries = 0; tries < 50; tries++) { /* udev may take its time */
        s->char_fd = open(path, O_RDWR | O_CLOEXEC);
        if (s->char_fd >= 0 || (errno != ENOENT && errno != EACCES))
            break;
        usleep(100 * 1000);
    }
    if (s->char_fd >= 0)
        return 0;
    report(s, "-%s: %s\n", path, strerror(errno));
    return -ENODEV;
}

static uint32_t at_most(uint64_t v, uint32_t max)
{
    return v < max ? (uint32_t)v : max;
}

static void fill_params(const struct server *s, struct ublk_params *p)
{
    const struct zqcow2_info *i = &s->info;

    *p = (struct ublk_params){ .len = sizeof(*p), .types = UBLK_PARAM_BASIC };
    p->basic.attrs = UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA;
    if (s->opt->read_only)
        p->basic.attrs |= UBLK_ATTR_READ_ONLY;
    p->basic.logical_bs_shift = 9;
    p->basic.physical_bs_shift = p->basic.io_min_shift = p->basic.io_opt_shift = 12;
    p->basic.max_sectors = MAX_IO / SECTOR;
    p->basic.dev_sectors = i->virtual_size / SECTOR;
    if (i->zone_size) {
        /* No discard part: the kernel's splitting of long write zeroes minds no zones. */
        p->types |= UBLK_PARAM_ZONED;
        p->basic.chunk_sectors = (uint32_t)(i->zone_size / SECTOR);
        p->zoned.max_open_zones = at_most(i->max_open_zones, i->nr_zones);
        p->zoned.max_active_zones = at_most(i->max_active_zones, i->nr_zones);
        p->zoned.max_append_sectors = largest_append(i) / SECTOR;
    } else if (!s->opt->read_only) {
        p->types |= UBLK_PARAM_DISCARD;
        p->discard.granularity = i->cluster_size;
        p->discard.max_sectors = p->discard.max_write_zeroes_sectors = 1u << 21;
        p->discard.max_segments = 1;
    }
}

static int prepare_queues(struct server *s)
{
    s->queues = calloc(s->dev.nr_hw_queues, sizeof(*s->queues));
    if (!s->queues)
        return -ENOMEM;
    for (uint16_t i = 0; i < s->dev.nr_hw_queues; i++) {
        struct ublk_queue *q = &s->queues[i];
        int rc;

        q->id = i;
        q->depth = s->dev.queue_depth;
        q->max_io = MAX_IO;
        q->fd = s->char_fd;
        q->ended_fd = s->ended_fd;
        q->img = s->img;
        q->info = &s->info;
        rc = ublk_queue_prepare(q);
        if (rc < 0)
            return rc;
        s->prepared++;
    }
    return 0;
}

/* From here on a failure that leaves threads behind ends the process: the kernel then cleans up. */
static int start_device(struct server *s)
{
    struct ublk_params p;
    int rc;

    fill_params(s, &p);
    rc = ublk_ctl_set_params(&s->ctl, s->dev.dev_id, &p);
    if (rc >= 0)
        rc = prepare_queues(s);
    for (uint32_t i = 0; rc >= 0 && i < s->prepared; i++) {
        rc = ublk_queue_start(&s->queues[i]);
        if (rc < 0 && i) {
            report(s, "-cannot start a thread: %s\n", strerror(-rc));
            _exit(1);
        }
    }
    if (rc >= 0)
        rc = ublk_ctl_start(&s->ctl, s->dev.dev_id, getpid());
    if (rc < 0)
        report(s, "-the kernel refuses the device: %s\n", strerror(-rc));
    return rc;
}

/* ---- life and end ---- */

static void wait_for_end(const struct server *s)
{
    struct pollfd fds[] = { { .fd = s->signal_fd, .events = POLLIN },
                            { .fd = s->ended_fd, .events = POLLIN } };

    while (poll(fds, 2, -1) < 0 && errno == EINTR)
        ;
}

/* The kernel writes back what it holds, then the tags come home and the threads end. */
static int stop_device(struct server *s)
{
    int rc = 0;

    ublk_ctl_stop(&s->ctl, s->dev.dev_id);
    for (uint32_t i = 0; i < s->prepared; i++)
        if (s->queues[i].thread)
            pthread_join(s->queues[i].thread, NULL);
    for (uint32_t i = 0; i < s->prepared; i++) {
        int err = s->queues[i].error, closed = ublk_queue_free(&s->queues[i]);

        rc = rc ? rc : err ? err : closed;
    }
    free(s->queues);
    return rc;
}

static int serve_device(struct server *s)
{
    int rc, stopped;

    s->state_fd = ublk_state_create(s->dev.dev_id, s->path);
    if (s->state_fd < 0) {
        report(s, "-/run/zqcow2: %s\n", strerror(-s->state_fd));
        return s->state_fd;
    }
    rc = start_device(s);
    if (rc >= 0) {
        report_started(s);
        wait_for_end(s);
    }
    stopped = stop_device(s);
    if (stopped < 0)
        log_line(s, ZQCOW2_LOG_ERROR, zqcow2_strerror(stopped));
    return rc < 0 ? rc : stopped;
}

static int run_device(struct server *s)
{
    int rc;

    reap_left_behind(s);
    rc = add_device(s);
    if (rc < 0)
        return rc;
    rc = open_char_device(s);
    if (rc >= 0) {
        rc = serve_device(s);
        close(s->char_fd);
    }
    ublk_ctl_del(&s->ctl, s->dev.dev_id);
    return rc;
}

static int make_descriptors(struct server *s)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
    s->ended_fd = eventfd(0, EFD_CLOEXEC);
    return s->signal_fd < 0 || s->ended_fd < 0 ? -errno : 0;
}

/* The state file outlives a server whose end was not clean, and says why. */
static int close_image(struct server *s, int rc)
{
    int closed = zqcow2_close(s->img);

    if (closed < 0)
        log_line(s, ZQCOW2_LOG_ERROR, zqcow2_strerror(closed));
    if (s->state_fd >= 0) {
        if (closed < 0)
            ublk_state_fail(s->state_fd, zqcow2_strerror(closed));
        else
            ublk_state_remove(s->dev.dev_id);
    }
    return rc < 0 || closed < 0;
}

int ublk_serve(const struct ublk_options *opt, int report_fd)
{
    struct server s = { .opt = opt, .report_fd = report_fd, .state_fd = -1 };
    int rc;

    if (!realpath(opt->target.path, s.path)) {
        report(&s, "-%s: %s\n", opt->target.path, strerror(errno));
        return 1;
    }
    openlog("zqcow2", LOG_PID, LOG_DAEMON);
    /* Memory pressure must not wait for writeback to the very device that this process serves. */
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
    rc = make_descriptors(&s);
    if (rc < 0) {
        report(&s, "-%s\n", strerror(-rc));
        return 1;
    }
    if (open_image(&s) < 0)
        return 1;
    rc = check_geometry(&s);
    if (!rc) {
        rc = ublk_ctl_open(&s.ctl);
        if (rc < 0) {
            report(&s, "-%s\n", ublk_ctl_explain(rc));
        } else {
            rc = check_features(&s);
            if (!rc)
                rc = run_device(&s);
            ublk_ctl_close(&s.ctl);
        }
    }
    return close_image(&s, rc);
}
