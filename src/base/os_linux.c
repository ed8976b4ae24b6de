/* SPDX-License-Identifier: MIT */
/* Linux. */
#include <errno.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include "base/fd.h"
#include "base/os.h"

int zq_event_open(struct zq_event *e)
{
    int fd = zq_fd_lift(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));

    *e = fd < 0 ? ZQ_EVENT_NONE : (struct zq_event){fd, fd};
    return fd < 0 ? fd : 0;
}

void zq_event_close(struct zq_event *e)
{
    if (e->fd >= 0)
        close(e->fd);
    *e = ZQ_EVENT_NONE;
}

/* EAGAIN: the counter is full, so it is set already. */
bool zq_event_set(const struct zq_event *e)
{
    return eventfd_write(e->tx, 1) == 0 || errno == EAGAIN;
}

bool zq_event_clear(const struct zq_event *e)
{
    eventfd_t n;

    return eventfd_read(e->fd, &n) == 0 || errno == EAGAIN;
}

int zq_joint_open(void)
{
    return zq_fd_lift(epoll_create1(EPOLL_CLOEXEC));
}

int zq_joint_add(int joint, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN};

    if (fd < 0)
        return fd;
    ev.data.fd = fd;
    return epoll_ctl(joint, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

void zq_joint_remove(int joint, int fd)
{
    (void)epoll_ctl(joint, EPOLL_CTL_DEL, fd, NULL);
}

static int allocate(int fd, int mode, uint64_t off, uint64_t len)
{
    int rc;

    do {
        rc = fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
    } while (rc < 0 && errno == EINTR);
    if (rc == 0)
        return 0;
    return errno == ENOSYS ? -EOPNOTSUPP : -errno;
}

int zq_os_punch(int fd, uint64_t off, uint64_t len)
{
    return allocate(fd, FALLOC_FL_PUNCH_HOLE, off, len);
}

int zq_os_zero_range(int fd, uint64_t off, uint64_t len)
{
    return allocate(fd, FALLOC_FL_ZERO_RANGE, off, len);
}

int zq_os_reserve(int fd, uint64_t off, uint64_t len)
{
    return allocate(fd, 0, off, len);
}

ssize_t zq_os_uncached(int fd, bool write, const struct iovec *iov, int cnt, uint64_t off)
{
    return write ? pwritev2(fd, iov, cnt, (off_t)off, ZQ_RWF_DONTCACHE) :
                   preadv2(fd, iov, cnt, (off_t)off, ZQ_RWF_DONTCACHE);
}

/* Transfers name their offsets, so the descriptor's own position is free for this. */
int zq_os_next_data(int fd, uint64_t off, uint64_t *begin, uint64_t *end)
{
    off_t at = lseek(fd, (off_t)off, SEEK_DATA);
    off_t hole = at < 0 ? at : lseek(fd, at, SEEK_HOLE);

    if (hole < 0 && errno != ENXIO)
        return errno == EINVAL ? -EOPNOTSUPP : -errno;
    *begin = at < 0 ? off : (uint64_t)at;
    *end = hole < 0 ? *begin : (uint64_t)hole; /* ENXIO: a hole up to the end, or behind it */
    return 0;
}

/*
 * fdatasync, because no image depends on time stamps. Not repeated after EINTR: that could hide an
 * error which the first call has consumed.
 */
int zq_os_sync(int fd)
{
    return fdatasync(fd) < 0 ? -errno : 0;
}

void zq_os_drop_cache(int fd)
{
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* The number overflows the int that some C libraries' ioctl takes. */
int zq_os_device_bytes(int fd, uint64_t *bytes)
{
    return syscall(SYS_ioctl, fd, BLKGETSIZE64, bytes) < 0 ? -errno : 0;
}
