/* SPDX-License-Identifier: MIT */
/*
 * Locks on image files: who holds them, and through which description of the file. How a lock is
 * held is the system's affair: lock_bytes.c, lock_flock.c.
 *
 * A lock belongs to an open file description: every copy of its descriptor has the lock, and it
 * lasts until the last copy is closed. So the locks are taken through a description that serves no
 * other purpose. The one that carries the data may be shared with the program that passed it, and
 * an io_uring keeps it for some time after its process was killed. Buffered I/O has ended by the
 * time its process has. Direct I/O may go on at the device, and the kernel keeps the description
 * that it uses until then: so the locks are taken through that one, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/lock.h"
#include "backend/lock_held.h"
#include "base/fd.h"
#include "base/report.h"

/* -errno also where path is another file by now. */
static int open_again(const struct zq_file *f, const char *path)
{
    struct stat st, own;
    int fd, rc = 0;

    do {
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    } while (fd < 0 && errno == EINTR);
    fd = zq_fd_lift(fd);
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0 || fstat(f->fd, &own) < 0)
        rc = -errno;
    else if (st.st_dev != own.st_dev || st.st_ino != own.st_ino)
        rc = -ENOENT;
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

/*
 * /proc names the file of a descriptor whatever its path is now; the path serves where /proc is not
 * mounted. O_RDONLY is enough: shared locks need no write permission.
 */
void zq_file_lock_open(struct zq_file *f, const char *path)
{
    char name[32];

    snprintf(name, sizeof(name), "/proc/self/fd/%d", f->fd);
    f->lock_fd = open_again(f, name);
    if (f->lock_fd < 0 && path)
        f->lock_fd = open_again(f, path);
    if (f->lock_fd < 0)
        f->lock_fd = -1;
}

void zq_file_lock_close(struct zq_file *f)
{
    if (f->lock_fd >= 0)
        close(f->lock_fd);
}

int zq_file_lock(void *self, int mode)
{
    struct zq_file *f = self;
    bool both = f->lock_fd >= 0 && zq_file_direct(f);
    int rc;

    if (mode < ZQCOW2_LOCK_NONE || mode > ZQCOW2_LOCK_EXCLUSIVE)
        return -EINVAL;
    if (f->lock_fd < 0 && mode != ZQCOW2_LOCK_NONE)
        zq_log(&f->hooks, ZQCOW2_LOG_WARN,
               "the file cannot be reopened: every copy of its "
               "descriptor shares its lock");
    if (both && f->lock_mode != ZQCOW2_LOCK_NONE) /* it would be in our own way */
        (void)zq_lock_change(f->fd, f->lock_mode, ZQCOW2_LOCK_NONE);
    rc = zq_lock_change(f->lock_fd >= 0 ? f->lock_fd : f->fd, f->lock_mode, mode);
    if (rc == 0 && f->lock_mode == ZQCOW2_LOCK_NONE) /* until now others could change the file */
        zq_file_forget_length(f);
    if (rc == 0)
        f->lock_mode = mode;
    if (both && f->lock_mode != ZQCOW2_LOCK_NONE)
        zq_lock_hold_too(f->fd, f->lock_mode);
    return rc;
}
