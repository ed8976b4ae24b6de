/* SPDX-License-Identifier: MIT */
/* Stands for the io_uring backend where the library is built without liburing. */
#include <errno.h>

#include <zqcow2/backend.h>

int zqcow2_uring_open(const char *path, unsigned flags, const struct zqcow2_hooks *hooks,
                      struct zqcow2_backend **be)
{
    (void)path;
    (void)flags;
    (void)hooks;
    (void)be;
    return -ENOSYS;
}

int zqcow2_uring_from_fd(int fd, const struct zqcow2_hooks *hooks, struct zqcow2_backend **be)
{
    (void)fd;
    (void)hooks;
    (void)be;
    return -ENOSYS;
}

int zqcow2_uring_register(struct zqcow2_backend *be, const struct iovec *areas, unsigned n)
{
    (void)be;
    (void)areas;
    (void)n;
    return -EINVAL;
}
