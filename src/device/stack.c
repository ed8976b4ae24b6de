/* SPDX-License-Identifier: MIT */
/*
 * The callbacks of a backend as public functions, so that a backend can stand on another. What a
 * caller passes is held to the limits here: a backend need not expect anything else.
 */
#include "base/bytes.h"
#include "device/backend.h"

/*
 * The same limits that io.c keeps, but refused here instead of worked around: these functions
 * promise one call for one call.
 */
static int check_offsets(const struct zqcow2_backend *be, uint64_t off, uint64_t len)
{
    const struct zqcow2_limits *l = &be->limits;
    uint64_t end;

    if ((off | len) & (l->io_align - 1) || (l->max_transfer && len > l->max_transfer))
        return -EINVAL;
    return zq_add_overflows(off, len, &end) || end > INT64_MAX ? -EOVERFLOW : 0;
}

static bool element_fits(const struct zqcow2_limits *l, const struct iovec *v)
{
    if (!v->iov_base || !v->iov_len || (uintptr_t)v->iov_base & (l->buf_align - 1))
        return false;
    return l->buf_align == 1 || !(v->iov_len & (l->io_align - 1));
}

/* *len becomes what the elements hold. */
static int check_elements(const struct zqcow2_backend *be, const struct iovec *iov, uint32_t cnt,
                          uint64_t *len)
{
    *len = 0;
    if (!iov || !cnt || cnt > be->limits.max_iov)
        return -EINVAL;
    for (uint32_t i = 0; i < cnt; i++) {
        if (!element_fits(&be->limits, &iov[i]))
            return -EINVAL;
        if (zq_add_overflows(*len, iov[i].iov_len, len))
            return -EOVERFLOW;
    }
    return 0;
}

static int check_transfer(const struct zqcow2_backend *be, const struct iovec *iov, int cnt,
                          uint64_t off)
{
    uint64_t len;
    int rc = be && cnt > 0 ? check_elements(be, iov, (uint32_t)cnt, &len) : -EINVAL;

    return rc < 0 ? rc : check_offsets(be, off, len);
}

static bool is_writable(const struct zqcow2_backend *be)
{
    return be->ops.writev && !(be->limits.caps & ZQCOW2_CAP_READ_ONLY);
}

/* A change of a range, by a callback that may be missing. */
static int check_change(const struct zqcow2_backend *be, uint64_t off, uint64_t len, bool there)
{
    if (!is_writable(be))
        return -EROFS;
    return there ? check_offsets(be, off, len) : -EOPNOTSUPP;
}

/* ---- the object ---- */

int zqcow2_backend_claim(struct zqcow2_backend *be)
{
    return be ? zq_be_claim(be) : -EINVAL;
}

void zqcow2_backend_release(struct zqcow2_backend *be)
{
    if (be)
        zq_be_release(be);
}

const struct zqcow2_backend_ops *zqcow2_backend_table(const struct zqcow2_backend *be)
{
    return be ? &be->ops : NULL;
}

int zqcow2_backend_limits(const struct zqcow2_backend *be, struct zqcow2_limits *out)
{
    if (!be || !out)
        return -EINVAL;
    return zq_return_sized(out, &be->limits, sizeof(be->limits), sizeof(be->limits));
}

/* ---- blocking calls ---- */

int zqcow2_backend_readv(struct zqcow2_backend *be, const struct iovec *iov, int cnt, uint64_t off)
{
    int rc = check_transfer(be, iov, cnt, off);

    return rc < 0 ? rc : zq_call_readv(be, iov, cnt, off);
}

int zqcow2_backend_writev(struct zqcow2_backend *be, const struct iovec *iov, int cnt, uint64_t off)
{
    int rc = check_transfer(be, iov, cnt, off);

    if (rc == 0 && !is_writable(be))
        rc = -EROFS;
    return rc < 0 ? rc : zq_call_writev(be, iov, cnt, off);
}

int zqcow2_backend_flush(struct zqcow2_backend *be)
{
    return be ? zq_be_flush(be) : -EINVAL;
}

int zqcow2_backend_truncate(struct zqcow2_backend *be, uint64_t bytes)
{
    int rc = be ? check_change(be, 0, 0, be->ops.truncate) : -EINVAL;

    if (rc == 0 && (bytes > INT64_MAX || bytes & (be->limits.io_align - 1)))
        rc = bytes > INT64_MAX ? -EOVERFLOW : -EINVAL;
    return rc < 0 ? rc : zq_call_truncate(be, bytes);
}

int zqcow2_backend_zero(struct zqcow2_backend *be, uint64_t off, uint64_t len)
{
    int rc = be ? check_change(be, off, len, be->ops.zero) : -EINVAL;

    return rc < 0 || !len ? rc : zq_call_zero(be, off, len);
}

int zqcow2_backend_discard(struct zqcow2_backend *be, uint64_t off, uint64_t len)
{
    int rc = be ? check_change(be, off, len, be->ops.discard) : -EINVAL;

    return rc < 0 || !len ? rc : zq_call_discard(be, off, len);
}

int zqcow2_backend_allocate(struct zqcow2_backend *be, uint64_t off, uint64_t len)
{
    int rc = be ? check_change(be, off, len, be->ops.allocate) : -EINVAL;

    return rc < 0 || !len ? rc : zq_call_allocate(be, off, len);
}

int zqcow2_backend_data(struct zqcow2_backend *be, uint64_t off, uint64_t *begin, uint64_t *end)
{
    return be && begin && end ? zq_be_data(be, off, begin, end) : -EINVAL;
}

int zqcow2_backend_lock(struct zqcow2_backend *be, int mode)
{
    if (!be || mode < ZQCOW2_LOCK_NONE || mode > ZQCOW2_LOCK_EXCLUSIVE)
        return -EINVAL;
    return zq_be_lock(be, mode);
}

void zqcow2_backend_invalidate(struct zqcow2_backend *be)
{
    if (be && be->ops.invalidate)
        be->ops.invalidate(be->self);
}

/* ---- asynchronous calls ---- */

/* io->length must agree with the elements: backends use either. */
static int check_io(const struct zqcow2_backend *be, const struct zqcow2_io *io)
{
    uint64_t len = 0;
    int rc = 0;

    if (io->kind == ZQCOW2_IO_FLUSH)
        return 0;
    if (io->kind > ZQCOW2_IO_TRUNCATE)
        return -EINVAL;
    if (io->kind != ZQCOW2_IO_READ && !is_writable(be))
        return -EROFS;
    if (io->kind == ZQCOW2_IO_TRUNCATE)
        return io->offset > INT64_MAX                 ? -EOVERFLOW :
               io->offset & (be->limits.io_align - 1) ? -EINVAL :
                                                        0;
    if (io->kind <= ZQCOW2_IO_WRITE)
        rc = check_elements(be, io->iov, io->iovcnt, &len);
    if (rc == 0 && (!io->length || (io->kind <= ZQCOW2_IO_WRITE && len != io->length)))
        rc = -EINVAL;
    return rc < 0 ? rc : check_offsets(be, io->offset, io->length);
}

int zqcow2_backend_submit(struct zqcow2_backend *be, struct zqcow2_io *io)
{
    int rc = be && io && io->done ? check_io(be, io) : -EINVAL;

    if (rc == 0 && !be->ops.submit)
        rc = -EOPNOTSUPP;
    return rc < 0 ? rc : zq_call_submit(be, io);
}

void zqcow2_backend_kick(struct zqcow2_backend *be)
{
    if (be && be->ops.kick)
        be->ops.kick(be->self);
}

int zqcow2_backend_poll(struct zqcow2_backend *be, int timeout_ms)
{
    int rc = be ? -EOPNOTSUPP : -EINVAL;

    if (be && be->ops.poll)
        rc = be->ops.poll(be->self, timeout_ms);
    return rc > 0 ? 0 : zq_answer(rc);
}

void zqcow2_backend_wake(struct zqcow2_backend *be)
{
    if (be && be->ops.wake)
        be->ops.wake(be->self);
}

int zqcow2_backend_fd(struct zqcow2_backend *be)
{
    if (!be)
        return -EINVAL;
    return be->ops.fd ? zq_call_fd(be) : -EOPNOTSUPP;
}
