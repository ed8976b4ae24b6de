/* SPDX-License-Identifier: MIT */
/* A file system that nobody else sees, by the kernel's calls: not every C library has them. */
#ifndef PRIVATE_FS_H
#define PRIVATE_FS_H

#include <fcntl.h>
#include <linux/mount.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Makes one of this type, of this size unless NULL; returns its root, or -1: not allowed here. */
static inline int private_fs(const char *type, const char *size)
{
    int fs = (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC), root;

    if (fs < 0)
        return -1;
    if ((size && syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "size", size, 0) < 0) ||
        syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        root = -1;
    else
        root = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0);
    close(fs);
    return root;
}

#endif
