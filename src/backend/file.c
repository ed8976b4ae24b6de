/* SPDX-License-Identifier: MIT */
/*
 * The file backend: a host file or block device through blocking system calls.
 *
 * A descriptor that the caller handed in stays the caller's until keep(): an opening that fails
 * halfway gives it back open. Transfers keep no state in the descriptor, so any number of threads
 * may use one file.
 */
#include "backend/file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/blockdev.h"
#include "backend/direct_align.h"
#include "base/bytes.h"
#include "base/fd.h"
#include "base/os.h"

#define DIRECT_ALIGN 4096u /* if the kernel does not report it: enough for every device */

/* ---- opening ---- */

static int open_path(const char *path, unsigned flags)
{
    /* O_NONBLOCK: the path of a pipe must not hang us. It is taken off again by adopt. */
    int how = O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    int fd;

    how |= flags & ZQCOW2_FILE_RDWR ? O_RDWR : O_RDONLY;
    how |= flags & ZQCOW2_FILE_CREATE ? O_CREAT : 0;
    how |= flags & ZQCOW2_FILE_EXCLUSIVE ? O_EXCL : 0;
    how |= flags & ZQCOW2_FILE_DIRECT ? ZQ_O_DIRECT : 0;
    do {
        fd = open(path, how, 0666);
    } while (fd < 0 && errno == EINTR);
    return zq_fd_lift(fd);
}

/*
 * An unknown flag is refused, so that a later release can give it a meaning. A file that is created
 * must be writable: nothing could be stored in it otherwise.
 */
static int check_flags(unsigned flags)
{
    const unsigned known = ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE | ZQCOW2_FILE_EXCLUSIVE |
                           ZQCOW2_FILE_DIRECT | ZQCOW2_FILE_DONTCACHE;

    if (flags & ~known)
        return -EINVAL;
    if (flags & ZQCOW2_FILE_DIRECT && !ZQ_O_DIRECT)
        return -EOPNOTSUPP;
    if (flags & ZQCOW2_FILE_CREATE && !(flags & ZQCOW2_FILE_RDWR))
        return -EINVAL;
    return flags & ZQCOW2_FILE_EXCLUSIVE && !(flags & ZQCOW2_FILE_CREATE) ? -EINVAL : 0;
}

/* Pipes, sockets and character devices have no offsets and no length that a flush could check. */
static int check_type(struct zq_file *f)
{
    struct stat st;

    if (fstat(f->fd, &st) < 0)
        return -errno;
    if (S_ISDIR(st.st_mode))
        return -EISDIR;
    f->is_device = S_ISBLK(st.st_mode);
    return f->is_device || S_ISREG(st.st_mode) ? 0 : -EINVAL;
}

/* What the kernel says of this file, else the safe guess. */
static void find_direct_align(struct zq_file *f)
{
    uint32_t memory, offset;

    f->io_align = f->buf_align = DIRECT_ALIGN;
    if (zq_file_direct_align(f->fd, &memory, &offset)) {
        f->io_align = offset;
        /* Elements must be whole blocks, too; io.c judges addresses and lengths by one number. */
        f->buf_align = (uint32_t)zq_max(memory, offset);
    }
}

/* Every transfer names its offset and waits, so append mode and non-blocking mode cannot serve. */
static int check_mode(struct zq_file *f)
{
    int fl = fcntl(f->fd, F_GETFL);

    if (fl < 0)
        return -errno;
    if (fl & ZQ_O_PATH)
        return -EBADF;
    if ((fl & O_ACCMODE) == O_WRONLY || fl & O_APPEND)
        return -EINVAL;
    if (fl & O_NONBLOCK && fcntl(f->fd, F_SETFL, fl & ~O_NONBLOCK) < 0)
        return -errno;
    f->writable = (fl & O_ACCMODE) == O_RDWR;
    f->io_align = f->buf_align = 1;
    if (fl & ZQ_O_DIRECT)
        find_direct_align(f);
    return 0;
}

/* path: where fd was opened, or NULL. On failure fd is as it was. */
static int set_up(struct zq_file *f, int fd, const char *path, const struct zqcow2_hooks *hooks)
{
    int rc;

    memset(f, 0, sizeof(*f));
    f->hooks = *hooks;
    f->fd = fd;
    f->given = -1;
    /* The lock is taken later, by the image that uses the backend. */
    f->lock_mode = ZQCOW2_LOCK_NONE;
    rc = check_type(f);
    if (rc == 0)
        rc = check_mode(f);
    if (rc == 0 && f->is_device)
        rc = zq_blockdev_adopt(f);
    /* A program that is executed would go on holding the file, and its lock. */
    if (rc == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        rc = -errno;
    if (rc == 0)
        rc = -pthread_mutex_init(&f->grow, NULL);
    if (rc == 0)
        zq_file_lock_open(f, path);
    return rc;
}

/*
 * The path is opened once. Everything after that judges the descriptor, because a path may name
 * another file a moment later.
 */
int zq_file_open(struct zq_file *f, const char *path, unsigned flags,
                 const struct zqcow2_hooks *hooks)
{
    int fd, rc = path ? check_flags(flags) : -EINVAL;

    if (rc < 0)
        return rc;
    fd = open_path(path, flags);
    if (fd < 0)
        return fd;
    rc = set_up(f, fd, path, hooks);
    if (rc < 0)
        close(fd);
    else if (!zq_file_direct(f))
        atomic_init(&f->uncached, flags & ZQCOW2_FILE_DONTCACHE);
    return rc;
}

/*
 * A descriptor of the standard streams is copied, and closed when it becomes ours. Ours must not
 * have such a number: a program may close and reopen 0 to 2, and would print into the image.
 */
int zq_file_adopt(struct zq_file *f, int fd, const struct zqcow2_hooks *hooks)
{
    int own = fd < ZQ_FD_MIN ? fcntl(fd, F_DUPFD_CLOEXEC, ZQ_FD_MIN) : fd;
    int rc = own < 0 ? -errno : set_up(f, own, NULL, hooks);

    if (own < 0 || own == fd)
        return rc;
    if (rc < 0)
        close(own);
    else
        f->given = fd;
    return rc;
}

/* The point of no return: the backend exists, so the caller's descriptor is ours to close. */
void zq_file_keep(struct zq_file *f)
{
    if (f->given >= 0)
        close(f->given);
    f->given = -1;
}

/* The lock is given up by hand: a child process may still hold a copy of its descriptor. */
void zq_file_close(struct zq_file *f)
{
    if (f->lock_mode != ZQCOW2_LOCK_NONE)
        (void)zq_file_lock(f, ZQCOW2_LOCK_NONE);
    zq_file_lock_close(f);
    pthread_mutex_destroy(&f->grow);
    close(f->fd);
}

/* given >= 0: fd is our copy, and the caller's is in given. Otherwise fd is the caller's. */
void zq_file_give_back(struct zq_file *f)
{
    zq_file_lock_close(f);
    pthread_mutex_destroy(&f->grow);
    if (f->given >= 0)
        close(f->fd);
}

/* ---- transfers ---- */

/* What a block device holds beyond its length here is stale: it reads as zeros. */
static void hide_stale(struct zq_file *f, const struct iovec *iov, int cnt, uint64_t off)
{
    uint64_t length = atomic_load(&f->device_length);
    struct zq_cursor c = {iov, cnt, 0};

    zq_cursor_skip(&c, length > off ? length - off : 0);
    zq_cursor_zero(&c, UINT64_MAX);
}

/* Beyond the end of the file a read returns zeros: the image may map more than has been written. */
int zq_file_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct zq_file *f = self;
    int rc = zq_file_read_rest(f, iov, cnt, off, 0);

    if (rc == 0 && f->is_device)
        hide_stale(f, iov, cnt, off);
    return rc;
}

/*
 * A device's length moves over the range first: growing zeroes what it gains, and would destroy the
 * new bytes afterwards.
 */
int zq_file_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct zq_file *f = self;
    int rc = 0;

    if (f->is_device)
        rc = off > INT64_MAX ? -EFBIG : zq_blockdev_grow(f, off + zq_cursor_total(iov, cnt));
    return rc < 0 ? rc : zq_file_write_rest(f, iov, cnt, off, 0);
}

/* ---- the rest of the table ---- */

/*
 * While the file is locked, `reach` only grows, so that a truncation by another program stays
 * noticeable (I12). Without a lock the length that is found is a new start.
 */
int zq_file_length(void *self, uint64_t *bytes)
{
    struct zq_file *f = self;
    struct stat st;

    if (f->is_device) {
        *bytes = atomic_load(&f->device_length);
        return 0;
    }
    if (fstat(f->fd, &st) < 0)
        return -errno;
    *bytes = (uint64_t)st.st_size;
    if (f->lock_mode != ZQCOW2_LOCK_NONE)
        zq_file_reached(f, *bytes); /* in use: what was there and is not any more stays lost */
    else if (!atomic_load(&f->cut))
        atomic_store(&f->reach, *bytes);
    return 0;
}

/*
 * The length is checked with every flush, because a truncation must not be acknowledged (I12).
 */
int zq_file_flush(void *self)
{
    struct zq_file *f = self;

    int rc = zq_os_sync(f->fd);

    return rc < 0 ? rc : zq_file_check_length(f);
}

/*
 * All other limits stay 0, which means none: run_cursor() splits what the kernel does not take at
 * once.
 */
int zq_file_limits(void *self, struct zqcow2_limits *out)
{
    const struct zq_file *f = self;

    out->caps = f->writable ? 0 : ZQCOW2_CAP_READ_ONLY;
    out->io_align = f->io_align;
    out->buf_align = f->buf_align;
    return 0;
}

int zq_file_truncate(void *self, uint64_t bytes)
{
    struct zq_file *f = self;
    int rc;

    if (bytes > INT64_MAX)
        return -EFBIG;
    if (f->is_device) {
        zq_blockdev_shrink(f, bytes);
        return zq_blockdev_grow(f, bytes);
    }
    /* Growing it would hide what was cut off. */
    rc = zq_file_keeps_end(f, bytes);
    if (rc < 0)
        return rc;
    zq_file_cuts(f, bytes);
    do {
        rc = ftruncate(f->fd, (off_t)bytes);
    } while (rc < 0 && errno == EINTR);
    if (rc < 0)
        return -errno;
    zq_file_reached(f, bytes);
    return 0;
}

/*
 * The range reads as zeros, and later writes to it cannot run out of space (R10). Where there is no
 * ZERO_RANGE, as in tmpfs, a hole that is filled does the same.
 */
int zq_file_allocate(void *self, uint64_t off, uint64_t len)
{
    struct zq_file *f = self;
    int rc;

    if (f->is_device || off > INT64_MAX || len > INT64_MAX - off)
        return f->is_device ? -EOPNOTSUPP : -EFBIG;
    rc = zq_os_zero_range(f->fd, off, len);
    if (rc != -EOPNOTSUPP)
        return rc;
    rc = zq_file_discard(f, off, len);
    return rc < 0 ? rc : zq_os_reserve(f->fd, off, len);
}

/*
 * After a failed fsync, Linux may keep pages that were never written as if they were clean (R11):
 * they are dropped, so that the next open reads what is on disk. The length starts over, too.
 */
void zq_file_invalidate(void *self)
{
    struct zq_file *f = self;

    zq_os_drop_cache(f->fd);
    zq_file_forget_length(f);
}

static void file_close(void *self)
{
    struct zq_file *f = self;
    struct zqcow2_hooks hooks = f->hooks;

    zq_file_close(f);
    zq_free(&hooks, f, sizeof(*f));
}

int zq_file_data(void *self, uint64_t off, uint64_t *begin, uint64_t *end)
{
    const struct zq_file *f = self;

    return f->is_device ? -EOPNOTSUPP : zq_os_next_data(f->fd, off, begin, end);
}

static const struct zqcow2_backend_ops file_ops = {
    ZQ_FILE_OPS,
    .name = "file",
    .close = file_close,
    .limits = zq_file_limits,
};

/*
 * Makes the backend of a path, or, where path is NULL, of fd. zq_file_keep() comes last, when
 * nothing can fail any more: until then a descriptor that was passed in is the caller's.
 */
static int file_new(const char *path, unsigned flags, int fd, const struct zqcow2_hooks *hooks,
                    struct zqcow2_backend **be)
{
    struct zqcow2_hooks h;
    struct zq_file *f;
    int rc = be ? zq_hooks_init(&h, hooks) : -EINVAL;

    if (rc < 0)
        return rc;
    f = zq_alloc(&h, _Alignof(struct zq_file), sizeof(*f));
    if (!f)
        return -ENOMEM;
    rc = path ? zq_file_open(f, path, flags, &h) : zq_file_adopt(f, fd, &h);
    if (rc < 0) {
        zq_free(&h, f, sizeof(*f));
        return rc;
    }
    rc = zqcow2_backend_new(&file_ops, f, &h, be);
    if (rc == 0) {
        zq_file_keep(f);
    } else {
        path ? zq_file_close(f) : zq_file_give_back(f);
        zq_free(&h, f, sizeof(*f));
    }
    return rc;
}

int zqcow2_file_open(const char *path, unsigned flags, const struct zqcow2_hooks *hooks,
                     struct zqcow2_backend **be)
{
    return path ? file_new(path, flags, -1, hooks, be) : -EINVAL;
}

int zqcow2_file_from_fd(int fd, const struct zqcow2_hooks *hooks, struct zqcow2_backend **be)
{
    return file_new(NULL, 0, fd, hooks, be);
}
