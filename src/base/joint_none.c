/* SPDX-License-Identifier: MIT */
/* POSIX has no joint: an image whose backend must be polled has no descriptor for its queues. */
#include <errno.h>

#include "base/os.h"

int zq_joint_open(void)
{
    return -EOPNOTSUPP;
}

int zq_joint_add(int joint, int fd)
{
    (void)joint;
    return fd < 0 ? fd : -EOPNOTSUPP;
}

void zq_joint_remove(int joint, int fd)
{
    (void)joint;
    (void)fd;
}
