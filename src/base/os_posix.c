/* SPDX-License-Identifier: MIT */
/*
 * Systems that are not Linux, by POSIX alone. Slower than os_linux.c, and with fewer holes in
 * files; as correct. For joints see joint_kqueue.c and joint_none.c.
 */
#include <errno.h>

#include "base/fd.h"
#include "base/os.h"

/* ---- events: a pipe, whose two ends never block ---- */

static int prepare(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
}

int zq_event_open(struct zq_event *e)
{
    int pair[2], rc;

    *e = ZQ_EVENT_NONE;
    if (pipe(pair) < 0)
        return -errno;
    e->fd = zq_fd_lift(pair[0]);
    e->tx = zq_fd_lift(pair[1]);
    rc = e->fd < 0 ? e->fd : e->tx < 0 ? e->tx : prepare(e->fd);
    if (rc == 0)
        rc = prepare(e->tx);
    if (rc < 0)
        zq_event_close(e);
    return rc;
}

void zq_event_close(struct zq_event *e)
{
    if (e->fd >= 0)
        close(e->fd);
    if (e->tx >= 0)
        close(e->tx);
    *e = ZQ_EVENT_NONE;
}

/* EAGAIN: the pipe is full, so it is set already. */
bool zq_event_set(const struct zq_event *e)
{
    ssize_t n;

    do {
        n = write(e->tx, "", 1);
    } while (n < 0 && errno == EINTR);
    return n == 1 || errno == EAGAIN;
}

bool zq_event_clear(const struct zq_event *e)
{
    char bytes[64];
    ssize_t n;

    do {
        n = read(e->fd, bytes, sizeof(bytes));
    } while (n > 0 || (n < 0 && errno == EINTR));
    return n < 0 && errno == EAGAIN;
}

/* ---- files: zeros are written, and every byte counts as data ---- */

int zq_os_punch(int fd, uint64_t off, uint64_t len)
{
    (void)fd;
    (void)off;
    (void)len;
    return -EOPNOTSUPP;
}

int zq_os_zero_range(int fd, uint64_t off, uint64_t len)
{
    return zq_os_punch(fd, off, len);
}

/* Not posix_fallocate(): it makes the file longer. */
int zq_os_reserve(int fd, uint64_t off, uint64_t len)
{
    return zq_os_punch(fd, off, len);
}

ssize_t zq_os_uncached(int fd, bool write, const struct iovec *iov, int cnt, uint64_t off)
{
    (void)fd;
    (void)write;
    (void)iov;
    (void)cnt;
    (void)off;
    errno = EOPNOTSUPP;
    return -1;
}

int zq_os_next_data(int fd, uint64_t off, uint64_t *begin, uint64_t *end)
{
    (void)begin;
    (void)end;
    return zq_os_punch(fd, off, 0);
}

/* On macOS fsync(2) leaves the data in the cache of the device. */
int zq_os_sync(int fd)
{
    if (ZQ_F_FULLFSYNC && fcntl(fd, ZQ_F_FULLFSYNC) == 0)
        return 0;
    return fsync(fd) < 0 ? -errno : 0;
}

/* Only of Linux it is known that it keeps pages that it failed to write as if they were clean. */
void zq_os_drop_cache(int fd)
{
    (void)fd;
}

/* 0: a system where the end of a device is not where its file ends. */
int zq_os_device_bytes(int fd, uint64_t *bytes)
{
    off_t end = lseek(fd, 0, SEEK_END);

    if (end < 0)
        return -errno;
    *bytes = (uint64_t)end;
    return end > 0 ? 0 : -EOPNOTSUPP;
}
