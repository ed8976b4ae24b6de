/* SPDX-License-Identifier: MIT */
/* The server behind one ublk device, from opening the image to closing it again. */
#include "ublk/server.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "serve/confine.h"
#include "serve/ctl.h"
#include "serve/geometry.h"
#include "serve/image.h"
#include "serve/signals.h"
#include "ublk/direct.h"
#include "ublk/params.h"
#include "ublk/recover.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

#define SECTOR 512u
#define MAX_IO (512u * 1024)

struct server {
    const struct ublk_options *opt;
    struct serve_report *report;
    struct serve_image image;
    struct ublk_direct direct; /* its backend, if that has a wrap */
    struct serve_state state;  /* once state_fd is there */
    struct ublk_ctl ctl;
    struct serve_ctl *control; /* NULL: none */
    struct serve_keeper keeper;
    struct ublk_ledger ledger; /* of a device that outlives its server */
    uint64_t features;         /* of the driver */
    struct ublk_dev_info dev;
    struct ublk_queue *queues;
    uint32_t prepared; /* queues that hold something */
    bool live;         /* this server has started the device, or taken it over */
    bool left;         /* and then left it to another one: */
    bool unanswered;   /* see struct ublk_queue */
    int char_fd, ended_fd, leave_fd, signal_fd, state_fd;
};

/* ---- the device ---- */

/* All that is written must go through the one backend; faults have to see the data. */
static bool is_direct(const struct server *s)
{
    return s->direct.inner && !s->image.has_data_file;
}

static int check_copy(struct server *s)
{
    if (s->opt->copy != UBLK_COPY_ZERO || is_direct(s))
        return 0;
    serve_report_failure(s->report, "--copy=zero: %s",
                         s->features & UBLK_F_AUTO_BUF_REG ?
                             "the image must be a regular file, without a data file or --faults" :
                             "this kernel's ublk driver has no zero copy (needs Linux 6.16)");
    return -EOPNOTSUPP;
}

static int check_recovery(struct server *s)
{
    if ((s->features & s->opt->recovery) == s->opt->recovery)
        return check_copy(s);
    serve_report_failure(s->report,
                         "--recoverable: this kernel's ublk driver cannot make requests %s "
                         "while there is no server",
                         s->opt->recovery & UBLK_F_USER_RECOVERY_FAIL_IO ? "fail" : "wait");
    return -EOPNOTSUPP;
}

static int check_features(struct server *s)
{
    uint64_t need = UBLK_F_USER_COPY | (s->image.info.zone_size ? UBLK_F_ZONED : 0), have;
    int rc = ublk_ctl_features(&s->ctl, &have);

    if (rc == -EPERM || rc == -EACCES) {
        serve_report_failure(s->report, "%s", ublk_ctl_explain(-EACCES));
        return rc;
    }
    s->features = rc < 0 ? 0 : have;
    if (rc >= 0 && (have & need) == need)
        return check_recovery(s);
    serve_report_failure(s->report, "this kernel's ublk driver %s",
                         s->image.info.zone_size ?
                             "does not support zoned devices (needs Linux 6.6 or newer)" :
                             "is too old (needs Linux 6.5 or newer)");
    return -EOPNOTSUPP;
}

/* Requests that wait are sent again to the next server; an append must not be done twice. */
static uint64_t device_flags(const struct server *s)
{
    uint64_t flags = UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_USER_COPY | s->opt->recovery;

    if (is_direct(s))
        flags |= UBLK_F_AUTO_BUF_REG;
    if (s->opt->recovery)
        flags |= s->features & UBLK_F_QUIESCE;
    if (s->image.info.zone_size)
        return flags | UBLK_F_ZONED;
    return s->opt->recovery == UBLK_F_USER_RECOVERY ? flags | UBLK_F_USER_RECOVERY_REISSUE : flags;
}

/* The id of a device that is just being taken away is free in a moment. */
static int try_add(struct server *s, uint64_t flags)
{
    int rc, tries = 30;

    do {
        s->dev = (struct ublk_dev_info){.nr_hw_queues = (uint16_t)s->opt->serve.queues,
                                        .queue_depth = (uint16_t)s->opt->depth,
                                        .max_io_buf_bytes = MAX_IO,
                                        .dev_id = s->opt->id,
                                        .ublksrv_pid = getpid(),
                                        .flags = flags};
        rc = ublk_ctl_add(&s->ctl, &s->dev);
        if (rc != -EEXIST)
            break;
        usleep(100 * 1000);
    } while (--tries);
    return rc;
}

/* Without privileges the kernel copies the data itself, and allows neither zones nor recovery. */
static bool may_be_unprivileged(const struct server *s)
{
    return !s->image.info.zone_size && !s->opt->recovery && s->opt->copy == UBLK_COPY_AUTO &&
           s->features & UBLK_F_UNPRIVILEGED_DEV;
}

static int add_device(struct server *s)
{
    int rc = try_add(s, device_flags(s));

    if (rc == -EPERM && may_be_unprivileged(s))
        rc = try_add(s, UBLK_F_CMD_IOCTL_ENCODE | UBLK_F_UNPRIVILEGED_DEV);
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

/* ---- a device that waits for a server ---- */

static int check_fit(struct server *s)
{
    struct ublk_params image, device;
    const char *what = NULL;
    int rc = ublk_ctl_params(&s->ctl, s->dev.dev_id, &device);

    if (rc < 0) {
        serve_report_failure(s->report, "device %" PRIu32 ": %s", s->dev.dev_id, strerror(-rc));
        return rc;
    }
    ublk_params_fill(&image, &s->image, s->opt->serve.read_only, s->dev.max_io_buf_bytes);
    what = ublk_params_difference(&image, &device);
    if (!what)
        return 0;
    serve_report_failure(s->report, "%s: does not fit device %" PRIu32 ": it has another %s",
                         s->opt->serve.target.path, s->dev.dev_id, what);
    return -EINVAL;
}

/* The device of a server that has just died is busy for a moment. */
static int take_over(struct server *s)
{
    int rc, tries = 50;

    s->dev = s->opt->dev;
    rc = check_fit(s);
    if (rc < 0)
        return rc;
    do {
        rc = ublk_ctl_start_recovery(&s->ctl, s->dev.dev_id);
        if (rc != -EBUSY)
            break;
        usleep(100 * 1000);
    } while (--tries);
    if (rc < 0)
        serve_report_failure(s->report, "device %" PRIu32 " %s", s->dev.dev_id,
                             rc == -EBUSY ? "still has a server" : strerror(-rc));
    return rc;
}

static int open_ledger(struct server *s)
{
    struct ublk_ledger_zones zones = {s->image.info.zone_capacity, s->image.info.nr_conventional};
    int rc;

    if (!(s->dev.flags & UBLK_F_USER_RECOVERY))
        return 0;
    rc = ublk_ledger_open(&s->ledger, s->dev.dev_id, &zones, !s->opt->recover);
    if (rc == -ESTALE)
        serve_report_failure(s->report,
                             "%s: does not fit device %" PRIu32 ": it has another capacity of "
                             "zones or number of conventional ones",
                             s->opt->serve.target.path, s->dev.dev_id);
    else if (rc < 0)
        serve_report_failure(s->report, SERVE_STATE_DIR ": %s", strerror(-rc));
    return rc;
}

static int open_char_device(struct server *s)
{
    s->char_fd = ublk_open_char(s->dev.dev_id);
    if (s->char_fd >= 0)
        return 0;
    serve_report_failure(s->report, UBLK_CHAR_PATH "%" PRIu32 ": %s", s->dev.dev_id,
                         strerror(-s->char_fd));
    return -ENODEV;
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
        q->max_io = s->dev.max_io_buf_bytes;
        q->fd = s->char_fd;
        q->ended_fd = s->ended_fd;
        q->leave_fd = s->leave_fd;
        q->img = s->image.img;
        q->info = &s->image.info;
        q->faults = s->image.faults;
        q->ledger = &s->ledger;
        q->copies = s->ctl.unprivileged;
        q->registers = s->dev.flags & UBLK_F_AUTO_BUF_REG;
        q->direct = q->registers && is_direct(s) ? &s->direct : NULL;
        rc = ublk_queue_prepare(q);
        if (rc < 0)
            return rc;
        s->prepared++;
    }
    s->direct.queues = s->queues;
    s->direct.nr_queues = s->prepared;
    return 0;
}

/* ---- what needs the rights of root, see serve/keeper.h ---- */

static int start_task(void *server)
{
    struct server *s = server;

    return s->opt->recover ? ublk_ctl_end_recovery(&s->ctl, s->dev.dev_id, s->state.pid) :
                             ublk_ctl_start(&s->ctl, s->dev.dev_id, s->state.pid);
}

static int stop_task(void *server)
{
    struct server *s = server;

    return ublk_ctl_stop(&s->ctl, s->dev.dev_id);
}

#define QUIESCE_MS 10000

static int quiesce_task(void *server)
{
    struct server *s = server;

    return ublk_ctl_quiesce(&s->ctl, s->dev.dev_id, QUIESCE_MS);
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
    serve_keeper_task(&s->keeper, quiesce_task, s);
    serve_keeper_fd(&s->keeper, s->ctl.fd);
    serve_keeper_fd(&s->keeper, s->ctl.ring.ring_fd);
    if (s->control)
        serve_keeper_task(&s->keeper, serve_ctl_remove, s->control);
    if (s->state_fd >= 0)
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

    if (s->opt->recover)
        return 0;
    ublk_params_fill(&p, &s->image, s->opt->serve.read_only, s->dev.max_io_buf_bytes);
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

/* Its threads would wait without end. */
static void leave_device(struct server *s, const char *why)
{
    int rc = zqcow2_flush(s->image.img);

    serve_image_log(&s->image, ZQCOW2_LOG_ERROR, rc < 0 ? zqcow2_strerror(rc) : why);
    _exit(1);
}

/*
 * Requests wait in the kernel from now on. Without QUIESCE those that come while the server ends
 * remain unanswered, and the kernel sends them again to the next one, if the device has no zones.
 */
static bool quiesce(struct server *s)
{
    char text[128];
    int rc;

    if (!(s->dev.flags & UBLK_F_USER_RECOVERY))
        return false;
    rc = serve_keeper_run(&s->keeper, quiesce_task, s);
    s->unanswered = rc == -EOPNOTSUPP && s->dev.flags & UBLK_F_USER_RECOVERY_REISSUE;
    if (rc >= 0 || s->unanswered)
        return true;
    snprintf(text, sizeof(text), "the device cannot be left to another server: %s", strerror(-rc));
    serve_image_log(&s->image, ZQCOW2_LOG_ERROR, text);
    return false;
}

/* Until there is a reason to end. */
static void wait_end(struct server *s)
{
    while (!s->left && serve_signals_wait(s->signal_fd, s->ended_fd) == SIGUSR1) {
        s->left = quiesce(s);
        if (!s->left && !(s->dev.flags & UBLK_F_USER_RECOVERY))
            return;
    }
}

static void leave_queues(struct server *s)
{
    for (uint32_t i = 0; i < s->prepared; i++)
        __atomic_store_n(&s->queues[i].unanswered, s->unanswered, __ATOMIC_RELAXED);
    eventfd_write(s->leave_fd, 1);
}

/* The kernel writes back what it holds, then the tags come home and the threads end. */
static int stop_device(struct server *s)
{
    int rc = 0;

    if (s->left)
        leave_queues(s);
    else if (serve_keeper_run(&s->keeper, stop_task, s) == -EPIPE)
        leave_device(s, "the process that stops the device was killed");
    for (uint32_t i = 0; i < s->prepared; i++)
        if (s->queues[i].thread)
            pthread_join(s->queues[i].thread, NULL);
    s->direct.nr_queues = 0; /* their memory goes, and other memory may come there */
    for (uint32_t i = 0; i < s->prepared; i++) {
        int err = s->queues[i].error, closed = ublk_queue_free(&s->queues[i]);

        rc = rc ? rc : err ? err : closed;
    }
    free(s->queues);
    return rc;
}

/* Without root there may be no place for it; then `list` does not show this server. */
static int create_state(struct server *s)
{
    s->state.kind = &ublk_kind;
    s->state.id = s->dev.dev_id;
    snprintf(s->state.image, sizeof(s->state.image), "%s", s->image.path);
    snprintf(s->state.ctl, sizeof(s->state.ctl), "%s", serve_ctl_path(s->control));
    s->state_fd = serve_state_create(&s->state);
    if (s->state_fd < 0 && s->ctl.unprivileged)
        return 0;
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
    if (s->state_fd >= 0)
        serve_ctl_beside(&s->control, &s->state);
    rc = open_ledger(s);
    if (rc >= 0)
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
    if (rc < 0 && s->opt->recover)
        leave_device(s, "the device waits for another server");
    if (rc >= 0) {
        s->live = true;
        serve_report_ready(s->report, s->state.endpoint, &s->image.info, s->opt->serve.read_only,
                           serve_largest_append(&s->image.info, s->dev.max_io_buf_bytes));
        wait_end(s);
    }
    serve_ctl_stop(s->control, &s->keeper);
    stopped = stop_device(s);
    if (stopped < 0)
        serve_image_log(&s->image, ZQCOW2_LOG_ERROR, zqcow2_strerror(stopped));
    return rc < 0 ? rc : stopped;
}

/* A server that could not take the device over leaves it as it was; or another one goes on. */
static bool still_waits(const struct server *s)
{
    return s->left || (s->opt->recover && !s->live);
}

static int make_device(struct server *s)
{
    int rc;

    if (s->opt->recover)
        return take_over(s);
    rc = ublk_reap_left_behind(&s->ctl, s->opt->id, s->image.path, s->report);
    return rc < 0 ? rc : add_device(s);
}

static int run_device(struct server *s)
{
    int rc = make_device(s);

    if (rc < 0)
        return rc;
    rc = open_char_device(s);
    if (rc >= 0) {
        rc = serve_device(s);
        close(s->char_fd);
    }
    if (!still_waits(s))
        serve_keeper_run(&s->keeper, delete_task, s);
    return rc;
}

/* With the image open; what happened is reported or logged. */
static int with_driver(struct server *s)
{
    int rc = ublk_params_check(&s->image, s->report);

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
    s->leave_fd = eventfd(0, EFD_CLOEXEC);
    return s->ended_fd < 0 || s->leave_fd < 0 ? -errno : 0;
}

/* Before there is a device, or an image. */
static bool may_be_direct(const struct ublk_options *o)
{
    if (o->recover)
        return o->dev.flags & UBLK_F_AUTO_BUF_REG;
    return o->copy != UBLK_COPY_USER && ublk_driver_features() & UBLK_F_AUTO_BUF_REG;
}

int ublk_serve(const void *opt, struct serve_report *report)
{
    struct server s = {.opt = opt, .report = report, .keeper = SERVE_KEEPER_INIT, .state_fd = -1};
    int rc, closed;

    /* Memory pressure must not wait for writeback to the very device that this process serves. */
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
    rc = make_descriptors(&s);
    if (rc < 0) {
        serve_report_failure(report, "cannot start a server: %s", strerror(-rc));
        return 1;
    }
    s.direct.image = &s.image;
    if (may_be_direct(s.opt)) {
        s.image.wrap = ublk_direct_wrap;
        s.image.wrap_arg = &s.direct;
    }
    if (serve_image_open(&s.image, &s.opt->serve, report) < 0)
        return 1;
    rc = with_driver(&s);
    closed = serve_image_close(&s.image);
    if (closed >= 0 && s.left) /* closing has flushed */
        ublk_ledger_flushed(&s.ledger, ublk_ledger_covers(&s.ledger));
    ublk_ledger_close(&s.ledger);
    if (s.state_fd >= 0 && !still_waits(&s))
        serve_state_end(&s.state, s.state_fd, closed < 0 ? zqcow2_strerror(closed) : NULL,
                        &s.keeper);
    return rc < 0 || closed < 0;
}
