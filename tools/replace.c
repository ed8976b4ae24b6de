/* SPDX-License-Identifier: MIT */
/* A file that takes another's place whole or not at all: written under a name of its own first. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"

/* By these bytes of a file its users know of each other: the library's, and QEMU's. */
enum { LOCK_FIRST = 100, LOCK_BYTES = 200 };

/* Holds the old file against every user until it is closed; false if it has one. */
static bool claim(int fd)
{
    struct flock fl = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_FIRST, .l_len = LOCK_BYTES};

    return fcntl(fd, F_OFD_SETLK, &fl) == 0;
}

/* Where the folder does not allow a new file, or a new name, the old file is written over. */
static int refused(const char *path)
{
    if (errno == EACCES || errno == EPERM || errno == EBUSY)
        return 0;
    zt_error("%s: cannot be replaced: %s", path, strerror(errno));
    return -1;
}

/* What an earlier run has left, or a new file. A link there would lead elsewhere. */
static int open_part(struct zt_replacement *r, const char *slash)
{
    struct stat st;
    int fd;

    snprintf(r->temporary, sizeof(r->temporary), "%.*s/.zqcow2.%s.part", (int)(slash - r->path),
             r->path, slash + 1);
    fd = open(r->temporary, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    r->found = fstat(fd, &st) == 0 && st.st_size > 0;
    if (S_ISREG(st.st_mode))
        return fd;
    close(fd);
    errno = EEXIST;
    return -1;
}

static int open_new(struct zt_replacement *r, const char *slash)
{
    snprintf(r->temporary, sizeof(r->temporary), "%.*s/.zqcow2.XXXXXX", (int)(slash - r->path),
             r->path);
    return mkstemp(r->temporary);
}

/* Beside the place of the file, as readable as `old`; -1 with errno. */
static int make_temporary(struct zt_replacement *r, const struct stat *old)
{
    char *slash = strrchr(r->path, '/');
    int fd = r->keep ? open_part(r, slash) : open_new(r, slash);

    if (fd < 0)
        return -1;
    if (fchown(fd, old->st_uid, old->st_gid) == 0 || errno == EPERM)
        (void)fchmod(fd, old->st_mode & 0777);
    return fd;
}

/* Opens and claims the old file; *st is what it is. */
static int open_old(struct zt_replacement *r, const char *path, struct stat *st)
{
    struct stat named;
    int fd = realpath(path, r->path) ? open(r->path, O_RDWR | O_CLOEXEC | O_NONBLOCK) : -1;

    /* Both the same file: a name below /proc may stand for one that has none any more. */
    if (fd < 0 || (fstat(fd, st) == 0 && stat(path, &named) == 0 && st->st_ino == named.st_ino &&
                   st->st_dev == named.st_dev && S_ISREG(st->st_mode) && claim(fd)))
        return fd;
    close(fd);
    return -1;
}

/* A signal that ends the program waits until the temporary file has gone. */
static void hold_signals(struct zt_replacement *r)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, &r->signals);
}

static int end(struct zt_replacement *r, int rc)
{
    if (r->old >= 0)
        close(r->old);
    sigprocmask(SIG_SETMASK, &r->signals, NULL);
    return rc;
}

int zt_replace_begin(struct zt_replacement *r, const char *path)
{
    struct stat st;
    int fd;

    r->old = open_old(r, path, &st);
    if (r->old < 0)
        return 0;
    hold_signals(r);
    fd = make_temporary(r, &st);
    if (fd < 0)
        return end(r, refused(path));
    close(fd);
    return 1;
}

/* The folder of `path` under its real name, and the name in it. */
static bool find_folder(struct zt_replacement *r, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    char folder[PATH_MAX];
    size_t n;

    snprintf(folder, sizeof(folder), "%.*s", slash ? (int)(slash - path) + 1 : 1,
             slash ? path : ".");
    if (!*name || !realpath(folder, r->path))
        return false;
    n = strlen(r->path);
    return snprintf(r->path + n, sizeof(r->path) - n, "/%s", name) < (int)(sizeof(r->path) - n);
}

bool zt_replace_new(struct zt_replacement *r, const char *path)
{
    mode_t mask = umask(0);
    struct stat like;

    umask(mask);
    memset(&like, 0, sizeof(like));
    like.st_uid = geteuid();
    like.st_gid = (gid_t)-1;
    like.st_mode = 0666 & ~mask;
    r->old = -1;
    if (find_folder(r, path)) {
        int fd;

        hold_signals(r);
        fd = make_temporary(r, &like);
        if (fd >= 0) {
            close(fd);
            return true;
        }
        (void)end(r, -1);
    }
    zt_error("%s: %s", path, strerror(errno ? errno : ENOENT));
    return false;
}

/* The new name must not be lost with the power. */
static void sync_folder(const struct zt_replacement *r)
{
    char folder[PATH_MAX];
    int fd;

    snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(r->path, '/') - r->path + 1), r->path);
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    close(fd);
}

/* What has come to a new file's name meanwhile is somebody else's: rename() would replace it. */
static int take_name(const struct zt_replacement *r)
{
    if (r->old < 0) {
        if (link(r->temporary, r->path) == 0)
            return unlink(r->temporary);
        if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS)
            return -1;
    }
    return rename(r->temporary, r->path); /* some file systems have no links */
}

int zt_replace_end(struct zt_replacement *r, bool commit)
{
    int rc = -1;

    if (commit)
        rc = take_name(r) == 0 ? 1 : refused(r->path);
    if (rc > 0 && !r->no_sync)
        sync_folder(r);
    if (rc <= 0 && !r->keep)
        unlink(r->temporary);
    return end(r, rc);
}
