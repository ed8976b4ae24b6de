/* SPDX-License-Identifier: MIT */
/*
 * Locks on image files, in the byte-range scheme by which QEMU's programs know of each other.
 *
 * A user of the file holds a shared lock on byte 100 + p for each permission p that it uses, and
 * on 200 + p for each that it denies to others. No user ever holds a write lock; a test for one
 * shows whether another user holds the byte. A user must give way if another one denies a
 * permission that it uses, or uses one that it denies.
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
#include "base/fd.h"
#include "base/report.h"

/*
 * QEMU's numbers, fixed by its programs: BLK_PERM_CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE.
 */
enum { PERM_READ, PERM_WRITE, PERM_WRITE_SAME, PERM_RESIZE, PERMS };
enum { USED_BASE = 100, DENIED_BASE = 200 };

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

struct claim {
    bool used[PERMS], denied[PERMS];
};

/*
 * SHARED is a reader that no writer may join; EXCLUSIVE is the only writer, and a program that only
 * reads, and denies nothing, may still join it (qemu-img info -U).
 */
static const struct claim claims[] = {
    [ZQCOW2_LOCK_NONE] = {{false}, {false}},
    [ZQCOW2_LOCK_SHARED] =
        {
            .used = {[PERM_READ] = true},
            .denied = {[PERM_WRITE] = true, [PERM_RESIZE] = true},
        },
    [ZQCOW2_LOCK_EXCLUSIVE] =
        {
            .used = {[PERM_READ] = true, [PERM_WRITE] = true, [PERM_RESIZE] = true},
            .denied = {[PERM_WRITE] = true, [PERM_RESIZE] = true},
        },
};

static struct flock one_byte(int type, int byte)
{
    struct flock fl = {0};

    fl.l_type = (short)type;
    fl.l_whence = SEEK_SET;
    fl.l_start = byte;
    fl.l_len = 1;
    return fl;
}

/*
 * Of an open file description (F_OFD): a classic POSIX lock would be dropped when the process
 * closes any other descriptor of the file.
 */
static int set_byte(int fd, int byte, bool hold)
{
    struct flock fl = one_byte(hold ? F_RDLCK : F_UNLCK, byte);

    if (fcntl(fd, F_OFD_SETLK, &fl) == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

/* -EAGAIN: another open file holds the byte. */
static int probe_byte(int fd, int byte)
{
    struct flock fl = one_byte(F_WRLCK, byte);

    if (fcntl(fd, F_OFD_GETLK, &fl) < 0)
        return -errno;
    return fl.l_type == F_UNLCK ? 0 : -EAGAIN;
}

/*
 * Locks what c holds and, if `drop`, unlocks what it does not. Read locks never conflict with each
 * other, so setting one fails only if the file system has no locks.
 */
static int apply(int fd, const struct claim *c, bool drop)
{
    int rc = 0;

    for (int p = 0; p < PERMS && rc == 0; p++) {
        if (c->used[p] || drop)
            rc = set_byte(fd, USED_BASE + p, c->used[p]);
        if (rc == 0 && (c->denied[p] || drop))
            rc = set_byte(fd, DENIED_BASE + p, c->denied[p]);
    }
    return rc;
}

static int find_conflict(int fd, const struct claim *c)
{
    int rc = 0;

    for (int p = 0; p < PERMS && rc == 0; p++) {
        if (c->used[p])
            rc = probe_byte(fd, DENIED_BASE + p);
        if (rc == 0 && c->denied[p])
            rc = probe_byte(fd, USED_BASE + p);
    }
    return rc;
}

/*
 * First lock, then look: of two that arrive together both may fail, never both succeed. On
 * failure what was held before is held again.
 */
static int change(int fd, int from, int to)
{
    int rc = apply(fd, &claims[to], false);

    if (rc == 0)
        rc = find_conflict(fd, &claims[to]);
    apply(fd, &claims[rc < 0 ? from : to], true);
    return rc;
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
        apply(f->fd, &claims[ZQCOW2_LOCK_NONE], true);
    rc = change(f->lock_fd >= 0 ? f->lock_fd : f->fd, f->lock_mode, mode);
    if (rc == 0 && f->lock_mode == ZQCOW2_LOCK_NONE) /* until now others could change the file */
        zq_file_forget_length(f);
    if (rc == 0)
        f->lock_mode = mode;
    if (both && f->lock_mode != ZQCOW2_LOCK_NONE)
        apply(f->fd, &claims[f->lock_mode], true);
    return rc;
}
