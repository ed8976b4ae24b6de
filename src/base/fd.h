/* SPDX-License-Identifier: MIT */
/* Descriptors that the library keeps. */
#ifndef ZQ_BASE_FD_H
#define ZQ_BASE_FD_H

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define ZQ_FD_MIN (STDERR_FILENO + 1)

/*
 * Takes what a system call returned, fd or -1 with errno, and returns fd, at or above ZQ_FD_MIN, or
 * -errno. In a program whose standard streams are closed the kernel hands out 0, 1 and 2, and what
 * any part of it prints would land in what is open there.
 */
static inline int zq_fd_lift(int fd)
{
    int high, rc;

    if (fd < 0)
        return -errno;
    if (fd >= ZQ_FD_MIN)
        return fd;
    high = fcntl(fd, F_DUPFD_CLOEXEC, ZQ_FD_MIN);
    rc = high < 0 ? -errno : high;
    close(fd);
    return rc;
}

#endif
