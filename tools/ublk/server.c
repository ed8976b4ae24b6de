/* SPDX-License-Identifier: MIT */
/* The server behind one ublk device, from opening the image to closing it again. */
#include "ublk/server.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <zqcow2/device.h>
#include "serve/confine.h"
#include "serve/ctl.h"
#include "serve/geometry.h"
#include "serve/image.h"
#include "serve/signals.h"
#include "ublk/queue.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

#define SECTOR 512u
#define MAX_IO (512u * 1024)

struct server {
    const struct ublk_options *opt;
    struct serve_report *report;
    struct serve_image image;
    struct serve_state state; /* once state_fd is there */
    struct ublk_ctl ctl;
    struct serve_ctl *control; /* NULL: none */
    struct serve_keeper keeper;
    struct ublk_dev_info dev;
    struct ublk_queue *queues;
    uint32_t prepared; /* queues that hold something */
    int char_fd, ended_fd, signal_fd, state_fd;
};

/* ---- the device ---- */

/* What Linux asks of a zoned device; the driver would only say "invalid argument". */
static int check_geometry(struct server *s)
{
    const struct zqcow2_info *i = &s->image.info;

    if (!i->zone_size)
        return 0;
    if (i->virtual_size % i->zone_size) {
        serve_report_failure(s->report,
                             "%s: the last zone is short; Linux needs a size that is a "
                             "multiple of the zone size",
                             s->opt->serve.target.path);
        return -EINVAL;
    }
    if (i->zone_size / SECTOR > UINT32_MAX || i->zone_size < SECTOR) {
        serve_report_failure(s->report, "%s: Linux does not support zones of this size",
                             s->opt->serve.target.path);
        return -EINVAL;
    }
    return 0;
}

static int check_features(struct server *s)
{
    uint64_t need = UBLK_F_USER_COPY | (s->image.info.zone_size ? UBLK_F_ZONED : 0), have;
    int rc = ublk_ctl_features(&s->ctl, &have);

    if (rc == -EPERM || rc == -EACCES) {
        serve_report_failure(s->report, "%s", ublk_ctl_explain(-EACCES));
        return rc;
    }
    if (rc >= 0 && (have & need) == need)
        return 0;
    serve_report_failure(s->report, "this kernel's ublk driver %s",
                         s->image.info.zone_size ?
                             "does not support zoned devices (needs Linux 6.6 or newer)" :
                             "is too old (needs Linux 6.5 or newer)");
    return -EOPNOTSUPP;
}

/* A server that was killed leaves its device behind; the image and the id are free to use again. */
static void reap_left_behind(struct server *s)
{
    uint32_t ids[SERVE_STATE_MAX];
    int n = serve_state_ids(&ublk_kind, ids, SERVE_STATE_MAX);

    for (int i = 0; i < n; i++) {
        struct serve_state st;

        if (serve_state_read(&ublk_kind, ids[i], &st) || st.alive)
            continue;
        if (st.id == s->opt->id || !strcmp(st.image, s->image.path))
            if (!ublk_reap(&s->ctl, st.id, st.pid))
                serve_state_remove(&st);
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
        s->dev = (struct ublk_dev_info){.nr_hw_queues = (uint16_t)s->opt->serve.queues,
                                        .queue_depth = (uint16_t)s->opt->depth,
                                        .max_io_buf_bytes = MAX_IO,
                                        .dev_id = s->opt->id,
                                        .ublksrv_pid = getpid(),
                                        .flags = UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_USER_COPY |
                                                 (s->image.info.zone_size ? UBLK_F_ZONED : 0)};
        rc = ublk_ctl_add(&s->ctl, &s->dev);
        if (rc != -EEXIST)
            break;
        usleep(100 * 1000);
    } while (--tries);
    if (rc == -EEXIST)
        serve_report_failure(s->report, "device id %" PRIu32 " is in use", s->opt->id);
    else if (rc == -EPERM || rc == -EACCES)
        serve_report_failure(s->report, "%s", ublk_ctl_explain(-EACCES));
    else if (rc == -EINVAL && s->image.info.zone_size)
        serve_report_failure(s->report, "the kernel refuses a zoned device (built without "
                                        "CONFIG_BLK_DEV_ZONED?)");
    else if (rc < 0)
        serve_report_failure(s->report, "the kernel refuses the device: %s", strerror(-rc));
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
    serve_report_failure(s->report, "%s: %s", path, strerror(errno));
    return -ENODEV;
}

static uint32_t at_most(uint64_t v, uint32_t max)
{
    return v < max ? (uint32_t)v : max;
}

static void fill_params(const struct server *s, struct ublk_params *p)
{
    const struct zqcow2_info *i = &s->image.info;
    struct zqcow2_io_limits l = ZQCOW2_IO_LIMITS_INIT;

    zqcow2_get_io_limits(s->image.img, &l);
    *p = (struct ublk_params){.len = sizeof(*p), .types = UBLK_PARAM_BASIC};
    p->basic.attrs = UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA;
    if (s->opt->serve.read_only)
        p->basic.attrs |= UBLK_ATTR_READ_ONLY;
    p->basic.logical_bs_shift = serve_shift(l.block_size);
    p->basic.physical_bs_shift = p->basic.io_min_shift = serve_shift(l.physical_block);
    p->basic.io_opt_shift = serve_shift(l.optimal_io);
    p->basic.max_sectors = MAX_IO / SECTOR;
    p->basic.dev_sectors = i->virtual_size / SECTOR;
    if (i->zone_size) {
        /* No discard part: the kernel's splitting of long write zeroes minds no zones. */
        p->types |= UBLK_PARAM_ZONED;
        p->basic.chunk_sectors = (uint32_t)(i->zone_size / SECTOR);
        p->zoned.max_open_zones = at_most(i->max_open_zones, i->nr_zones);
        p->zoned.max_active_zones = at_most(i->max_active_zones, i->nr_zones);
        p->zoned.max_append_sectors = serve_largest_append(i, MAX_IO) / SECTOR;
    } else if (!s->opt->serve.read_only) {
        p->types |= UBLK_PARAM_DISCARD;
        p->discard.granularity = l.discard_granularity;
        p->discard.max_sectors = serve_sectors(l.max_discard);
        p->discard.max_write_zeroes_sectors = serve_sectors(l.max_zeroes);
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
        q->img = s->image.img;
        q->info = &s->image.info;
        q->faults = s->image.faults;
        rc = ublk_queue_prepare(q);
        if (rc < 0)
            return rc;
        s->prepared++;
    }
    return 0;
}

/* ---- what needs the rights of root, see serve/keeper.h ---- */

static int start_task(void *server)
{
    struct server *s = server;

    return ublk_ctl_start(&s->ctl, s->dev.dev_id, s->state.pid);
}

static int stop_task(void *server)
{
    struct server *s = server;

    return ublk_ctl_stop(&s->ctl, s->dev.dev_id);
}

static int delete_task(void *server)
{
    struct server *s = server;

    return ublk_ctl_del(&s->ctl, s->dev.dev_id);
}

static int give_up_rights(struct server *s)
{
    int rc;

    if (s->opt->serve.unconfined)
        return 0;
    serve_keeper_task(&s->keeper, start_task, s);
    serve_keeper_task(&s->keeper, stop_task, s);
    serve_keeper_task(&s->keeper, delete_task, s);
    serve_keeper_fd(&s->keeper, s->ctl.fd);
    serve_keeper_fd(&s->keeper, s->ctl.ring.ring_fd);
    if (s->control)
        serve_keeper_task(&s->keeper, serve_ctl_remove, s->control);
    serve_state_keep(&s->state, &s->keeper);
    rc = serve_keeper_start(&s->keeper);
    if (rc == 0)
        rc = serve_remote_start(&s->image.remote);
    if (rc == 0)
        return serve_confine_rights(&s->opt->serve, s->report);
    serve_report_failure(s->report, "cannot start a process: %s", strerror(-rc));
    return rc;
}

/* ---- start and stop ---- */

static int set_params(struct server *s)
{
    struct ublk_params p;
    int rc;

    fill_params(s, &p);
    rc = ublk_ctl_set_params(&s->ctl, s->dev.dev_id, &p);
    if (rc < 0)
        serve_report_failure(s->report, "the kernel refuses the device: %s", strerror(-rc));
    return rc;
}

/* From here on a failure that leaves threads behind ends the process: the kernel then cleans up. */
static int start_device(struct server *s)
{
    int rc = prepare_queues(s);

    for (uint32_t i = 0; rc >= 0 && i < s->prepared; i++) {
        rc = ublk_queue_start(&s->queues[i]);
        if (rc < 0 && i) {
            serve_report_failure(s->report, "cannot start a thread: %s", strerror(-rc));
            _exit(1);
        }
    }
    if (rc >= 0)
        rc = serve_keeper_run(&s->keeper, start_task, s);
    if (rc < 0)
        serve_report_failure(s->report, "the kernel refuses the device: %s", strerror(-rc));
    return rc;
}

/* ---- life and end ---- */

/* Nobody can stop the device any more, and its threads would wait without end. */
static void leave_device(struct server *s)
{
    int rc = zqcow2_flush(s->image.img);

    serve_image_log(&s->image, ZQCOW2_LOG_ERROR,
                    rc < 0 ? zqcow2_strerror(rc) : "the process that stops the device was killed");
    _exit(1);
}

/* The kernel writes back what it holds, then the tags come home and the threads end. */
static int stop_device(struct server *s)
{
    int rc = 0;

    if (serve_keeper_run(&s->keeper, stop_task, s) == -EPIPE)
        leave_device(s);
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

static int create_state(struct server *s)
{
    s->state.kind = &ublk_kind;
    s->state.id = s->dev.dev_id;
    snprintf(s->state.image, sizeof(s->state.image), "%s", s->image.path);
    snprintf(s->state.ctl, sizeof(s->state.ctl), "%s", serve_ctl_path(s->control));
    s->state_fd = serve_state_create(&s->state);
    if (s->state_fd < 0)
        serve_report_failure(s->report, SERVE_STATE_DIR ": %s", strerror(-s->state_fd));
    return s->state_fd;
}

static int serve_device(struct server *s)
{
    int rc, stopped;

    rc = serve_ctl_open(&s->control, s->opt->serve.ctl, s->report);
    if (rc >= 0)
        rc = create_state(s);
    if (rc < 0) {
        serve_ctl_stop(s->control, &s->keeper);
        return rc;
    }
    serve_ctl_beside(&s->control, &s->state);
    rc = set_params(s);
    if (rc >= 0)
        rc = give_up_rights(s);
    if (rc >= 0)
        rc = start_device(s);
    s->image.fixed_size = s->image.info.zone_size ?
                              "Linux cannot change the zones of a ublk device" :
                              "a ublk device keeps its size while it exists";
    if (rc >= 0 && serve_ctl_start(s->control, &s->image) < 0)
        serve_image_log(&s->image, ZQCOW2_LOG_WARN, "cannot start the control thread");
    if (rc >= 0)
        rc = serve_confine_calls(&s->opt->serve, s->report);
    if (rc >= 0) {
        serve_report_ready(s->report, s->state.endpoint, &s->image.info, s->opt->serve.read_only,
                           serve_largest_append(&s->image.info, MAX_IO));
        serve_signals_wait(s->signal_fd, s->ended_fd);
    }
    serve_ctl_stop(s->control, &s->keeper);
    stopped = stop_device(s);
    if (stopped < 0)
        serve_image_log(&s->image, ZQCOW2_LOG_ERROR, zqcow2_strerror(stopped));
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
    serve_keeper_run(&s->keeper, delete_task, s);
    return rc;
}

/* With the image open; what happened is reported or logged. */
static int with_driver(struct server *s)
{
    int rc = check_geometry(s);

    if (rc)
        return rc;
    rc = ublk_ctl_open(&s->ctl);
    if (rc < 0) {
        serve_report_failure(s->report, "%s", ublk_ctl_explain(rc));
        return rc;
    }
    rc = check_features(s);
    if (!rc)
        rc = run_device(s);
    ublk_ctl_close(&s->ctl);
    return rc;
}

static int make_descriptors(struct server *s)
{
    s->signal_fd = serve_signals_open();
    if (s->signal_fd < 0)
        return s->signal_fd;
    s->ended_fd = eventfd(0, EFD_CLOEXEC);
    return s->ended_fd < 0 ? -errno : 0;
}

int ublk_serve(const void *opt, struct serve_report *report)
{
    struct server s = {.opt = opt, .report = report, .keeper = SERVE_KEEPER_INIT, .state_fd = -1};
    int rc, closed;

    /* Memory pressure must not wait for writeback to the very device that this process serves. */
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
    rc = make_descriptors(&s);
    if (rc < 0) {
        serve_report_failure(report, "%s", strerror(-rc));
        return 1;
    }
    if (serve_image_open(&s.image, &s.opt->serve, report) < 0)
        return 1;
    rc = with_driver(&s);
    closed = serve_image_close(&s.image);
    if (s.state_fd >= 0)
        serve_state_end(&s.state, s.state_fd, closed < 0 ? zqcow2_strerror(closed) : NULL,
                        &s.keeper);
    return rc < 0 || closed < 0;
}
