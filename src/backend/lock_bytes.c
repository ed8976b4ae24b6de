/* SPDX-License-Identifier: MIT */
/*
 * Locks in the byte-range scheme by which QEMU's programs know of each other.
 *
 * A user of the file holds a shared lock on byte 100 + p for each permission p that it uses, and
 * on 200 + p for each that it denies to others. No user ever holds a write lock; a test for one
 * shows whether another user holds the byte. A user must give way if another one denies a
 * permission that it uses, or uses one that it denies.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

#include <zqcow2/backend.h>
#include "backend/lock_held.h"

/*
 * QEMU's numbers, fixed by its programs: BLK_PERM_CONSISTENT_READ, WRITE, WRITE_UNCHANGED, RESIZE.
 */
enum { PERM_READ, PERM_WRITE, PERM_WRITE_SAME, PERM_RESIZE, PERMS };
enum { USED_BASE = 100, DENIED_BASE = 200 };

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
int zq_lock_change(int fd, int from, int to)
{
    int rc = apply(fd, &claims[to], false);

    if (rc == 0)
        rc = find_conflict(fd, &claims[to]);
    apply(fd, &claims[rc < 0 ? from : to], true);
    return rc;
}

void zq_lock_hold_too(int fd, int mode)
{
    apply(fd, &claims[mode], true);
}
