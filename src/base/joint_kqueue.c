/* SPDX-License-Identifier: MIT */
/* Joints by kqueue(2): the BSDs and macOS. */
#include <errno.h>
#include <sys/types.h>

#include <sys/event.h>

#include "base/fd.h"
#include "base/os.h"

static int change(int joint, int fd, unsigned short how)
{
    struct kevent ev;

    EV_SET(&ev, (uintptr_t)fd, EVFILT_READ, how, 0, 0, 0);
    return kevent(joint, &ev, 1, NULL, 0, NULL) < 0 ? -errno : 0;
}

int zq_joint_open(void)
{
    int fd = zq_fd_lift(kqueue());

    if (fd >= 0)
        (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
}

int zq_joint_add(int joint, int fd)
{
    return fd < 0 ? fd : change(joint, fd, EV_ADD);
}

void zq_joint_remove(int joint, int fd)
{
    (void)change(joint, fd, EV_DELETE);
}
