/* SPDX-License-Identifier: MIT */
/* Commands to the ublk driver's control device, one at a time, blocking. */
#ifndef ZQ_TOOLS_UBLK_CTL_H
#define ZQ_TOOLS_UBLK_CTL_H

#include <liburing.h>
#include <stdbool.h>

#include "ublk/abi.h"

struct ublk_ctl {
    struct io_uring ring;
    int fd;
    bool unprivileged; /* the device, once it was added or asked for */
};

/* 0 or -errno. */
int ublk_ctl_open(struct ublk_ctl *c);
/* What that means, for people. */
const char *ublk_ctl_explain(int rc);
void ublk_ctl_close(struct ublk_ctl *c);

int ublk_ctl_features(struct ublk_ctl *c, uint64_t *features);
/* The same of a driver that nobody talks to yet; 0: none, or an old one. */
uint64_t ublk_driver_features(void);
int ublk_ctl_info(struct ublk_ctl *c, uint32_t id, struct ublk_dev_info *info);
int ublk_ctl_add(struct ublk_ctl *c, struct ublk_dev_info *info); /* fills in dev_id */
int ublk_ctl_set_params(struct ublk_ctl *c, uint32_t id, struct ublk_params *p);
int ublk_ctl_params(struct ublk_ctl *c, uint32_t id, struct ublk_params *p);
/* Returns once the disk is there; the queues must be served meanwhile. */
int ublk_ctl_start(struct ublk_ctl *c, uint32_t id, int pid);
/* A new server for a device that waits for one; between the two it takes the queues. */
int ublk_ctl_start_recovery(struct ublk_ctl *c, uint32_t id);
int ublk_ctl_end_recovery(struct ublk_ctl *c, uint32_t id, int pid);
int ublk_ctl_stop(struct ublk_ctl *c, uint32_t id);
/* No request comes any more, and the device waits for another server once this one ends. */
int ublk_ctl_quiesce(struct ublk_ctl *c, uint32_t id, unsigned milliseconds);
/* Only if nobody has the disk open, else -EBUSY. */
int ublk_ctl_try_stop(struct ublk_ctl *c, uint32_t id);
/* Does not wait for those who still hold the block device (a mount, say), where the kernel can. */
int ublk_ctl_del(struct ublk_ctl *c, uint32_t id);
/* The device whose queues the server serves: a descriptor, or -errno. */
int ublk_open_char(uint32_t id);
/* Takes a device away whose server died. 0 also if there is no such device any more. */
int ublk_reap(struct ublk_ctl *c, uint32_t id, int32_t server_pid);

#endif
