/* SPDX-License-Identifier: MIT */
/* Commands to the ublk driver's control device, one at a time, blocking. */
#include "ublk/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int ublk_ctl_open(struct ublk_ctl *c)
{
    int rc;

    c->unprivileged = false;
    c->fd = open(UBLK_CONTROL_PATH, O_RDWR | O_CLOEXEC);
    if (c->fd < 0)
        return -errno;
    rc = io_uring_queue_init(4, &c->ring, IORING_SETUP_SQE128);
    if (rc < 0)
        close(c->fd);
    return rc;
}

const char *ublk_ctl_explain(int rc)
{
    switch (rc) {
    case -ENOENT:
    case -ENODEV:
    case -ENXIO: return UBLK_CONTROL_PATH " is missing: load the driver (modprobe ublk_drv)";
    case -EACCES:
        return UBLK_CONTROL_PATH ": no permission; a ublk device needs root (CAP_SYS_ADMIN), or "
                                 "write access to this file and an image without zones";
    case -EPERM: return "io_uring is not permitted here (kernel.io_uring_disabled, or a sandbox)";
    default: return strerror(-rc);
    }
}

void ublk_ctl_close(struct ublk_ctl *c)
{
    io_uring_queue_exit(&c->ring);
    close(c->fd);
}

static int wait_result(struct io_uring *ring)
{
    struct io_uring_cqe *cqe;
    int rc;

    do
        rc = io_uring_wait_cqe(ring, &cqe);
    while (rc == -EINTR);
    if (rc < 0)
        return rc;
    rc = cqe->res;
    io_uring_cqe_seen(ring, cqe);
    return rc;
}

static int run(struct ublk_ctl *c, uint32_t op, const struct ublk_ctrl_cmd *cmd)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&c->ring);
    int rc;

    if (!sqe)
        return -EBUSY;
    memset(sqe, 0, 2 * sizeof(*sqe)); /* SQE128: liburing clears only the first half */
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = c->fd;
    sqe->cmd_op = op;
    memcpy(sqe->cmd, cmd, sizeof(*cmd));
    do
        rc = io_uring_submit(&c->ring);
    while (rc == -EINTR);
    return rc < 0 ? rc : wait_result(&c->ring);
}

static int command(struct ublk_ctl *c, uint32_t op, uint32_t id, void *buf, size_t len,
                   uint64_t data)
{
    struct ublk_ctrl_cmd cmd = {.dev_id = id,
                                .queue_id = UINT16_MAX,
                                .len = (uint16_t)len,
                                .addr = (uint64_t)(uintptr_t)buf,
                                .data = data};
    struct {
        char path[32];
        uint8_t rest[sizeof(struct ublk_params)];
    } with_path;
    int rc;

    if (!c->unprivileged || op == UBLK_CMD_ADD_DEV)
        return run(c, op, &cmd);
    /* The path ends at its NUL; what else is in its room does not count. */
    memset(&with_path, 0, sizeof(with_path));
    snprintf(with_path.path, sizeof(with_path.path), UBLK_CHAR_PATH "%" PRIu32, id);
    if (len)
        memcpy(with_path.rest, buf, len);
    cmd.dev_path_len = sizeof(with_path.path);
    cmd.len = (uint16_t)(sizeof(with_path.path) + len);
    cmd.addr = (uint64_t)(uintptr_t)&with_path;
    rc = run(c, op, &cmd);
    if (len)
        memcpy(buf, with_path.rest, len);
    return rc;
}

int ublk_ctl_features(struct ublk_ctl *c, uint64_t *features)
{
    *features = 0;
    return command(c, UBLK_CMD_GET_FEATURES, 0, features, sizeof(*features), 0);
}

uint64_t ublk_driver_features(void)
{
    struct ublk_ctl c;
    uint64_t features;

    if (ublk_ctl_open(&c) < 0)
        return 0;
    if (ublk_ctl_features(&c, &features) < 0)
        features = 0;
    ublk_ctl_close(&c);
    return features;
}

int ublk_ctl_info(struct ublk_ctl *c, uint32_t id, struct ublk_dev_info *info)
{
    int rc;

    memset(info, 0, sizeof(*info));
    c->unprivileged = false;
    rc = command(c, UBLK_CMD_GET_DEV_INFO, id, info, sizeof(*info), 0);
    if (rc != -EINVAL)
        return rc;
    c->unprivileged = true; /* then it must have its path */
    return command(c, UBLK_CMD_GET_DEV_INFO2, id, info, sizeof(*info), 0);
}

int ublk_ctl_add(struct ublk_ctl *c, struct ublk_dev_info *info)
{
    c->unprivileged = info->flags & UBLK_F_UNPRIVILEGED_DEV;
    return command(c, UBLK_CMD_ADD_DEV, info->dev_id, info, sizeof(*info), 0);
}

int ublk_ctl_set_params(struct ublk_ctl *c, uint32_t id, struct ublk_params *p)
{
    return command(c, UBLK_CMD_SET_PARAMS, id, p, sizeof(*p), 0);
}

int ublk_ctl_params(struct ublk_ctl *c, uint32_t id, struct ublk_params *p)
{
    memset(p, 0, sizeof(*p));
    p->len = sizeof(*p);
    return command(c, UBLK_CMD_GET_PARAMS, id, p, sizeof(*p), 0);
}

int ublk_ctl_start(struct ublk_ctl *c, uint32_t id, int pid)
{
    return command(c, UBLK_CMD_START_DEV, id, NULL, 0, (uint64_t)pid);
}

int ublk_ctl_start_recovery(struct ublk_ctl *c, uint32_t id)
{
    return command(c, UBLK_CMD_START_RECOVERY, id, NULL, 0, 0);
}

int ublk_ctl_end_recovery(struct ublk_ctl *c, uint32_t id, int pid)
{
    return command(c, UBLK_CMD_END_RECOVERY, id, NULL, 0, (uint64_t)pid);
}

int ublk_ctl_quiesce(struct ublk_ctl *c, uint32_t id, unsigned milliseconds)
{
    return command(c, UBLK_CMD_QUIESCE_DEV, id, NULL, 0, milliseconds);
}

int ublk_ctl_try_stop(struct ublk_ctl *c, uint32_t id)
{
    return command(c, UBLK_CMD_TRY_STOP_DEV, id, NULL, 0, 0);
}

int ublk_ctl_stop(struct ublk_ctl *c, uint32_t id)
{
    return command(c, UBLK_CMD_STOP_DEV, id, NULL, 0, 0);
}

int ublk_ctl_del(struct ublk_ctl *c, uint32_t id)
{
    int rc = command(c, UBLK_CMD_DEL_DEV_ASYNC, id, NULL, 0, 0);

    if (rc == -EOPNOTSUPP || rc == -EINVAL)
        rc = command(c, UBLK_CMD_DEL_DEV, id, NULL, 0, 0);
    return rc;
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

int ublk_open_char(uint32_t id)
{
    char path[64];
    int fd = -1;

    snprintf(path, sizeof(path), UBLK_CHAR_PATH "%" PRIu32, id);
    for (int tries = 0; tries < 50; tries++) { /* udev may take its time */
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd >= 0 || (errno != ENOENT && errno != EACCES))
            break;
        usleep(100 * 1000);
    }
    return fd < 0 ? -errno : fd;
}
