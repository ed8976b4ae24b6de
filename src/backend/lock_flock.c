/* SPDX-License-Identifier: MIT */
/*
 * Locks by flock(2), where the system has no byte ranges that belong to a description: QEMU's
 * programs do not see them.
 */
#include <errno.h>
#include <sys/file.h>

#include <zqcow2/backend.h>
#include "backend/lock_held.h"

static int set(int fd, int mode)
{
    static const int how[] = {
        [ZQCOW2_LOCK_NONE] = LOCK_UN,
        [ZQCOW2_LOCK_SHARED] = LOCK_SH | LOCK_NB,
        [ZQCOW2_LOCK_EXCLUSIVE] = LOCK_EX | LOCK_NB,
    };

    if (flock(fd, how[mode]) == 0)
        return 0;
    return errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

/* A change may give the old lock up before it fails, and another user may be faster then. */
int zq_lock_change(int fd, int from, int to)
{
    int rc = set(fd, to);

    if (rc < 0 && from != ZQCOW2_LOCK_NONE)
        (void)set(fd, from);
    return rc;
}

/* Exclusive means one description. */
void zq_lock_hold_too(int fd, int mode)
{
    (void)fd;
    (void)mode;
}
