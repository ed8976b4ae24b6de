/* SPDX-License-Identifier: MIT */
/*
 * Transfers on a file through system calls, and holes in it.
 *
 * Linux may move fewer bytes than asked, for every call and at any time, and a signal may interrupt
 * it before the first: all loops are here, so that callers see all of a transfer or an error.
 */
#include "backend/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/os.h"

#define IOV_MOST 1024 /* the kernel's IOV_MAX */

/*
 * Also steps over empty elements, for n = 0, too: afterwards the cursor is at a byte or at its end.
 */
void zq_cursor_skip(struct zq_cursor *c, uint64_t n)
{
    while (c->cnt && n >= c->iov->iov_len - c->skip) {
        n -= c->iov->iov_len - c->skip;
        c->skip = 0;
        c->iov++;
        c->cnt--;
    }
    if (c->cnt)
        c->skip += (size_t)n;
}

uint64_t zq_cursor_total(const struct iovec *iov, int cnt)
{
    uint64_t n = 0;

    for (int i = 0; i < cnt; i++)
        n += iov[i].iov_len;
    return n;
}

static ssize_t uncached_call(const struct zq_cursor *c, int fd, bool write, uint64_t off)
{
    struct iovec one;

    if (!zq_cursor_flat(c, &one.iov_base, &one.iov_len))
        return zq_os_uncached(fd, write, c->iov, c->cnt < IOV_MOST ? c->cnt : IOV_MOST, off);
    return zq_os_uncached(fd, write, &one, 1, off);
}

/* One system call, without a vector where none is needed: that is cheaper. */
static ssize_t cursor_call(const struct zq_cursor *c, int fd, bool write, uint64_t off)
{
    int cnt = c->cnt < IOV_MOST ? c->cnt : IOV_MOST;
    void *p;
    size_t n;

    if (zq_cursor_flat(c, &p, &n))
        return write ? pwrite(fd, p, n, (off_t)off) : pread(fd, p, n, (off_t)off);
    if (write)
        return pwritev(fd, c->iov, cnt, (off_t)off);
    return preadv(fd, c->iov, cnt, (off_t)off);
}

/*
 * Errors of a kernel, or of a sandbox, that does not have the flag or the call. The file may have
 * them, too: a refusal that the plain call shares says nothing about the flag.
 */
static ssize_t one_call(struct zq_file *f, const struct zq_cursor *c, bool write, uint64_t off)
{
    ssize_t n;
    int err;

    if (!zq_file_uncached(f))
        return cursor_call(c, f->fd, write, off);
    n = uncached_call(c, f->fd, write, off);
    err = errno;
    if (n >= 0 || (err != EOPNOTSUPP && err != ENOSYS && err != EPERM))
        return n;
    n = cursor_call(c, f->fd, write, off);
    if (n >= 0 || errno != err)
        zq_file_no_uncached(f);
    return n;
}

/*
 * All of the cursor, or up to *got bytes when a read meets the end of the file; that is not an
 * error here. A write that moves nothing would repeat forever: it is one.
 */
static int run_cursor(struct zq_file *f, struct zq_cursor *c, bool write, uint64_t off,
                      uint64_t *got)
{
    zq_cursor_skip(c, 0);
    while (c->cnt) {
        ssize_t n = one_call(f, c, write, off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return write ? -EIO : 0;
        zq_cursor_skip(c, (uint64_t)n);
        off += (uint64_t)n;
        *got += (uint64_t)n;
        /* A direct read that ends off the grid has met the end, and could not go on from there. */
        if (!write && (uint64_t)n % f->io_align)
            return 0;
    }
    return 0;
}

void zq_cursor_zero(struct zq_cursor *c, uint64_t most)
{
    zq_cursor_skip(c, 0);
    while (c->cnt && most) {
        size_t n = (size_t)zq_min(most, c->iov->iov_len - c->skip);

        memset((char *)c->iov->iov_base + c->skip, 0, n);
        zq_cursor_skip(c, n);
        most -= n;
    }
}

/* A maximum, raised by many threads: relaxed for the common case, in which it does not change. */
void zq_file_reached(struct zq_file *f, uint64_t end)
{
    uint64_t was = atomic_load_explicit(&f->reach, memory_order_relaxed);

    while (!f->is_device && was < end && !atomic_compare_exchange_weak(&f->reach, &was, end))
        ;
}

void zq_file_forget_length(struct zq_file *f)
{
    atomic_store(&f->reach, 0);
    atomic_store(&f->cut, false);
}

/* `cut` stays set even if the file grows again: bytes that were acknowledged are lost (I12). */
int zq_file_check_length(struct zq_file *f)
{
    uint64_t reach = atomic_load(&f->reach);
    struct stat st;

    if (f->is_device)
        return 0;
    if (fstat(f->fd, &st) < 0)
        return -errno;
    if ((uint64_t)st.st_size < reach)
        atomic_store(&f->cut, true);
    return atomic_load(&f->cut) ? -EIO : 0;
}

/*
 * end < reach: the write stays within the file as we know it, cannot make a shortened file look
 * whole, and costs no system call.
 */
int zq_file_keeps_end(struct zq_file *f, uint64_t end)
{
    return end < atomic_load_explicit(&f->reach, memory_order_relaxed) ? 0 :
                                                                         zq_file_check_length(f);
}

int zq_file_met_end(struct zq_file *f, uint64_t end)
{
    return end < atomic_load_explicit(&f->reach, memory_order_relaxed) ? zq_file_check_length(f) :
                                                                         0;
}

/*
 * An end that is met below `reach` is a truncation and no zeros: serving these would be silent
 * loss.
 */
int zq_file_read_rest(struct zq_file *f, const struct iovec *iov, int cnt, uint64_t off,
                      uint64_t done)
{
    struct zq_cursor c = {iov, cnt, 0};
    int rc;

    if (off > INT64_MAX - done)
        return -EINVAL;
    zq_cursor_skip(&c, done);
    rc = run_cursor(f, &c, false, off + done, &done);
    if (rc == 0 && c.cnt)
        rc = zq_file_met_end(f, off + done);
    if (rc == 0)
        zq_cursor_zero(&c, UINT64_MAX);
    return rc;
}

/*
 * keeps_end comes before the write, which would make a truncated file long again and hide it (I12).
 */
int zq_file_write_rest(struct zq_file *f, const struct iovec *iov, int cnt, uint64_t off,
                       uint64_t done)
{
    struct zq_cursor c = {iov, cnt, 0};
    int rc;

    if (off > INT64_MAX - done)
        return -EFBIG;
    zq_cursor_skip(&c, done);
    if (!c.cnt)
        return 0;
    rc = zq_file_keeps_end(f, off + zq_cursor_total(iov, cnt));
    if (rc == 0)
        rc = run_cursor(f, &c, true, off + done, &done);
    if (rc == 0)
        zq_file_reached(f, off + done);
    return rc;
}

/* The same zeros serve every element: the kernel only reads from them. */
int zq_file_write_zeros(struct zq_file *f, uint64_t from, uint64_t to)
{
    struct iovec iov[16];
    int rc = 0;

    while (from < to && rc == 0) {
        uint64_t off = from;
        int cnt = 0;
        for (; cnt < 16 && from < to; cnt++) {
            size_t n = (size_t)zq_min(to - from, ZQ_ZEROS_BYTES);
            iov[cnt] = (struct iovec){(void *)(uintptr_t)zq_zeros, n};
            from += n;
        }
        rc = zq_file_write_rest(f, iov, cnt, off, 0);
    }
    return rc;
}

/*
 * no_punch keeps the answer: a file system that cannot punch holes is not asked for each cluster.
 */
int zq_file_discard(void *self, uint64_t off, uint64_t len)
{
    struct zq_file *f = self;
    int rc;

    if (off > INT64_MAX || len > INT64_MAX - off)
        return -EFBIG;
    if (len == 0)
        return 0;
    if (atomic_load(&f->no_punch))
        return -EOPNOTSUPP;
    rc = zq_os_punch(f->fd, off, len);
    if (rc == -EOPNOTSUPP)
        atomic_store(&f->no_punch, true);
    return rc;
}

/* EINVAL: a block device whose blocks are larger than the range; writing zeros will do. */
int zq_file_zero(void *self, uint64_t off, uint64_t len)
{
    int rc = zq_file_discard(self, off, len);

    return rc == -EINVAL ? -EOPNOTSUPP : rc;
}
