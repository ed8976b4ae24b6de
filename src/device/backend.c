/* SPDX-License-Identifier: MIT */
/*
 * The backend object: takes a caller's table of callbacks, and serves blocking I/O on it.
 *
 * The table is copied, with NULL for members that an older caller does not have, and limits are
 * asked once and made complete: nothing above has to know which version of the table it was.
 */
#include "device/backend.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/bytes.h"
#include "base/report.h"

#define BOUNCE_BYTES (64u * 1024)
#define PIECE_MAX    (1u << 30) /* of one direct transfer, where the backend sets no limit */
#define ALIGN_MAX    4096u
#define CAPS         ((uint32_t)(ZQCOW2_CAP_READ_ONLY | ZQCOW2_CAP_BLOCKING_CALLS))

/* ---- the object ---- */

/*
 * What the library cannot do without: a length, reads, a barrier for whatever writes. With poll()
 * must come a descriptor for event loops and a wake-up for threads inside it (E4).
 */
static int check_ops(const struct zqcow2_backend_ops *ops)
{
    if (!ops->length || !ops->readv)
        return -EINVAL;
    if (ops->writev && !ops->flush)
        return -EINVAL;
    if (ops->poll && (!ops->submit || !ops->fd || !ops->wake))
        return -EINVAL;
    return 0;
}

/* 4096 is what bounce buffers and the array of zeros are aligned to. */
static bool bad_align(uint32_t v)
{
    return !zq_is_pow2(v) || v > ALIGN_MAX;
}

/*
 * Fills in the defaults, so that no other code needs to know them. atomic_write below a sector
 * would break I8, and max_transfer below a block could move nothing. Unknown capabilities are
 * refused: they could change what the calls mean.
 */
static int complete_limits(struct zqcow2_limits *l)
{
    uint32_t block;

    l->size = sizeof(*l);
    l->io_align = l->io_align ? l->io_align : 1;
    l->buf_align = l->buf_align ? l->buf_align : 1;
    l->atomic_write = l->atomic_write ? l->atomic_write : ZQ_SECTOR;
    l->max_iov = l->max_iov ? l->max_iov : 1024;
    if (bad_align(l->io_align) || bad_align(l->buf_align))
        return -EINVAL;
    if (!zq_is_pow2(l->atomic_write) || l->atomic_write < ZQ_SECTOR)
        return -EINVAL;
    block = (uint32_t)zq_max(l->io_align, ZQ_SECTOR);
    if (l->max_transfer && l->max_transfer < block)
        return -EINVAL;
    l->max_transfer = (uint32_t)zq_align_down(l->max_transfer, block);
    return l->caps & ~CAPS ? -EINVAL : 0;
}

/* Asked once: the backend must not change its limits while it exists. */
static int ask_limits(struct zqcow2_backend *be)
{
    int rc = 0;

    memset(&be->limits, 0, sizeof(be->limits));
    be->limits.size = sizeof(be->limits);
    if (be->ops.limits)
        rc = zq_call_limits(be, &be->limits);
    return rc < 0 ? rc : complete_limits(&be->limits);
}

/* On failure self stays the caller's, and close() is not called for it. */
int zqcow2_backend_new(const struct zqcow2_backend_ops *ops, void *self,
                       const struct zqcow2_hooks *hooks, struct zqcow2_backend **be)
{
    struct zqcow2_backend b = {.self = self};
    struct zqcow2_backend *p;
    int rc;

    if (!ops || !be)
        return -EINVAL;
    *be = NULL;
    rc = zq_copy_sized(&b.ops, sizeof(b.ops), ops, offsetof(struct zqcow2_backend_ops, limits));
    if (rc == 0)
        rc = check_ops(&b.ops);
    if (rc == 0)
        rc = zq_hooks_init(&b.hooks, hooks);
    if (rc == 0)
        rc = ask_limits(&b);
    if (rc < 0)
        return rc;
    p = zq_zalloc(&b.hooks, sizeof(*p));
    if (!p)
        return -ENOMEM;
    *p = b;
    *be = p;
    return 0;
}

void zqcow2_backend_close(struct zqcow2_backend *be)
{
    struct zqcow2_hooks hooks;

    if (!be)
        return;
    hooks = be->hooks;
    if (be->ops.close)
        be->ops.close(be->self);
    zq_free(&hooks, be, sizeof(*be));
}

/* ---- blocking I/O ---- */

/* One blocking transfer cut into pieces. The bounce buffer is taken when it is first needed. */
struct transfer {
    struct zqcow2_backend *be;
    bool write;      /* direction; a read-modify-write reads through a transfer of its own */
    uint8_t *bounce; /* BOUNCE_BYTES, or NULL; freed by transfer_all() */
};

/* One element: max_iov does not matter to blocking calls. */
static int one_call(struct transfer *t, void *buf, size_t len, uint64_t off)
{
    struct iovec iov = {buf, len};

    if (t->write)
        return zq_call_writev(t->be, &iov, 1, off);
    return zq_call_readv(t->be, &iov, 1, off);
}

/* What one call may carry, whole blocks. */
static uint64_t most(const struct zqcow2_limits *l, uint64_t otherwise)
{
    return l->max_transfer ? zq_min(l->max_transfer, otherwise) : otherwise;
}

/* How much of the transfer the backend can take straight from the caller's memory; may be 0. */
static size_t direct_bytes(const struct transfer *t, const void *buf, size_t len, uint64_t off)
{
    const struct zqcow2_limits *l = &t->be->limits;
    uint64_t max = most(l, PIECE_MAX);

    if ((uintptr_t)buf % l->buf_align || off % l->io_align)
        return 0;
    return (size_t)zq_min(zq_align_down(len, l->io_align), max);
}

/*
 * With the padding before off, and that behind, no more than the buffer and one call can hold: both
 * are whole blocks.
 */
static size_t bounce_bytes(const struct transfer *t, size_t len, uint64_t off)
{
    uint64_t pad = off % t->be->limits.io_align;

    return (size_t)zq_min(len, most(&t->be->limits, BOUNCE_BYTES) - pad);
}

/* Reads or writes len bytes through the bounce buffer; what a write pads with is read first. */
static int bounced(struct transfer *t, uint8_t *buf, size_t len, uint64_t off)
{
    const struct zqcow2_limits *l = &t->be->limits;
    size_t pad = (size_t)(off % l->io_align);
    size_t span = (size_t)zq_align_up(pad + len, l->io_align);
    int rc = 0;

    if (!t->bounce)
        t->bounce = zq_alloc(&t->be->hooks, ALIGN_MAX, BOUNCE_BYTES);
    if (!t->bounce)
        return -ENOMEM;
    if (!t->write || span != len) {
        struct transfer in = {t->be, false, NULL};
        rc = one_call(&in, t->bounce, span, off - pad);
    }
    if (rc < 0)
        return rc;
    if (!t->write) {
        memcpy(buf, t->bounce + pad, len);
        return 0;
    }
    memcpy(t->bounce + pad, buf, len);
    return one_call(t, t->bounce, span, off - pad);
}

/* The last block that alignment may add must be addressable too. */
static int check_range(uint64_t off, uint64_t len)
{
    uint64_t end;

    if (zq_add_overflows(off, len, &end) || end > INT64_MAX - ALIGN_MAX)
        return -EOVERFLOW;
    return 0;
}

static int transfer_all(struct transfer *t, uint8_t *buf, size_t len, uint64_t off)
{
    int rc = check_range(off, len);

    while (len && rc == 0) {
        size_t n = direct_bytes(t, buf, len, off);
        if (n) {
            rc = one_call(t, buf, n, off);
        } else {
            n = bounce_bytes(t, len, off);
            rc = bounced(t, buf, n, off);
        }
        buf += n;
        off += n;
        len -= n;
    }
    zq_free(&t->be->hooks, t->bounce, BOUNCE_BYTES);
    return rc;
}

/* No offset of a file is above INT64_MAX, so later arithmetic on the length cannot overflow. */
int zq_be_length(struct zqcow2_backend *be, uint64_t *bytes)
{
    int rc = zq_call_length(be, bytes);

    return rc == 0 && *bytes > INT64_MAX ? -EFBIG : rc;
}

int zq_be_read(struct zqcow2_backend *be, void *buf, size_t len, uint64_t off)
{
    struct transfer t = {be, false, NULL};

    return transfer_all(&t, buf, len, off);
}

/* The cast only shares the code: a write never stores into buf. */
int zq_be_write(struct zqcow2_backend *be, const void *buf, size_t len, uint64_t off)
{
    struct transfer t = {be, true, NULL};
    union {
        const void *in;
        void *out;
    } u = {buf};

    if (!be->ops.writev || be->limits.caps & ZQCOW2_CAP_READ_ONLY)
        return -EROFS;
    return transfer_all(&t, u.out, len, off);
}

int zq_be_write_zeros(struct zqcow2_backend *be, uint64_t off, uint64_t len)
{
    size_t room = (size_t)zq_min(len, BOUNCE_BYTES);
    void *zeros = zq_alloc(&be->hooks, ALIGN_MAX, room);
    int rc = zeros ? 0 : -ENOMEM;

    if (zeros)
        memset(zeros, 0, room);
    while (len && rc == 0) {
        /* Cut on a grid that every alignment fits, so that at most the two ends are padded. */
        size_t n = (size_t)zq_min(len, BOUNCE_BYTES - off % BOUNCE_BYTES);
        rc = zq_be_write(be, zeros, n, off);
        off += n;
        len -= n;
    }
    zq_free(&be->hooks, zeros, room);
    return rc;
}

/*
 * Zeroes or discards whole blocks from *off on while the backend can. *off and *len become what is
 * left.
 */
static int whole_blocks(struct zqcow2_backend *be,
                        int (*op)(const struct zqcow2_backend *, uint64_t, uint64_t), uint64_t *off,
                        uint64_t *len)
{
    uint64_t max = most(&be->limits, UINT64_MAX);
    int rc = 0;

    while (*len >= be->limits.io_align && rc == 0) {
        uint64_t n = zq_min(zq_align_down(*len, be->limits.io_align), max);
        rc = op(be, *off, n);
        if (rc == 0) {
            *off += n;
            *len -= n;
        }
    }
    return rc;
}

/* Whole blocks; the head and the tail are written. */
int zq_be_allocate(struct zqcow2_backend *be, uint64_t off, uint64_t len)
{
    uint64_t head = zq_min(zq_align_up(off, be->limits.io_align) - off, len);
    int rc = be->ops.allocate ? check_range(off, len) : -EOPNOTSUPP;

    if (rc == 0 && head)
        rc = zq_be_write_zeros(be, off, head);
    off += head;
    len -= head;
    if (rc == 0)
        rc = whole_blocks(be, zq_call_allocate, &off, &len);
    return rc == 0 && len ? zq_be_write_zeros(be, off, len) : rc;
}

/*
 * Three parts: a head up to the first whole block is written, whole blocks are zeroed cheaply, and
 * the rest, or all that the backend refuses with -EOPNOTSUPP, is written.
 */
int zq_be_zero(struct zqcow2_backend *be, uint64_t off, uint64_t len)
{
    uint64_t head = zq_min(zq_align_up(off, be->limits.io_align) - off, len);
    int rc = check_range(off, len);

    if (rc == 0 && (!be->ops.writev || be->limits.caps & ZQCOW2_CAP_READ_ONLY))
        rc = -EROFS;
    if (rc == 0 && head)
        rc = zq_be_write_zeros(be, off, head);
    off += head;
    len -= head;
    if (rc == 0 && be->ops.zero)
        rc = whole_blocks(be, zq_call_zero, &off, &len);
    if (rc == -EOPNOTSUPP)
        rc = 0;
    return rc == 0 && len ? zq_be_write_zeros(be, off, len) : rc;
}

/* Only whole blocks: a discard promises nothing, so the ends need no care. */
int zq_be_discard(struct zqcow2_backend *be, uint64_t off, uint64_t len)
{
    uint64_t head = zq_min(zq_align_up(off, be->limits.io_align) - off, len);
    int rc = be->ops.discard ? check_range(off, len) : -EOPNOTSUPP;

    off += head;
    len -= head;
    return rc < 0 ? rc : whole_blocks(be, zq_call_discard, &off, &len);
}

/* An answer out of order would make a caller walk backwards, without end. */
int zq_be_data(struct zqcow2_backend *be, uint64_t off, uint64_t *begin, uint64_t *end)
{
    int rc;

    if (!be->ops.data)
        return -EOPNOTSUPP;
    *begin = *end = off;
    rc = zq_answer(be->ops.data(be->self, off, begin, end));
    return rc == 0 && (*begin < off || *end < *begin) ? -EIO : rc;
}

int zq_be_truncate(struct zqcow2_backend *be, uint64_t bytes)
{
    if (!zq_be_writable(be))
        return -EROFS;
    if (bytes > INT64_MAX)
        return -EFBIG;
    /* As zq_io_start() does: padded writes are never longer than this. */
    return zq_call_truncate(be, zq_align_up(bytes, be->limits.io_align));
}

/* Without writev() a table may lack it: nothing was written that a barrier could cover. */
int zq_be_flush(struct zqcow2_backend *be)
{
    return be->ops.flush ? zq_call_flush(be) : 0;
}

int zq_be_lock(struct zqcow2_backend *be, int mode)
{
    return be->ops.lock ? zq_call_lock(be, mode) : 0;
}

/* ---- one use of it ---- */

/* The other user may be in this process. */
static int fail_lock(struct zqcow2_error *err, int code)
{
    if (code == -EAGAIN)
        return zq_fail(err, code,
                       "in use: locked by another program, or by this one through "
                       "another backend");
    return zq_fail(err, code, "cannot lock: %s", zqcow2_strerror(code));
}

int zq_be_relock(struct zqcow2_backend *be, bool write, struct zqcow2_error *err)
{
    int rc = zq_be_lock(be, write ? ZQCOW2_LOCK_EXCLUSIVE : ZQCOW2_LOCK_SHARED);

    be->locked = rc == 0;
    return rc < 0 ? fail_lock(err, rc) : 0;
}

/* A lock that the caller took itself stays. */
int zq_be_unlock(struct zqcow2_backend *be)
{
    int rc = be->locked ? zq_be_lock(be, ZQCOW2_LOCK_NONE) : 0;

    be->locked = false;
    return rc;
}

/*
 * The claim keeps other uses in this process out, the lock those in other processes, or through
 * another backend on the same file. locked is under the claim: only the user reads and writes it.
 */
int zq_be_enter(struct zqcow2_backend *be, bool write, bool lock, struct zqcow2_error *err)
{
    int rc = 0;

    if (write && !zq_be_writable(be))
        return zq_fail(err, -EROFS, "the backend is not writable");
    if (zq_be_claim(be) < 0)
        return zq_fail(err, -EBUSY, "the backend is in use by this program");
    be->locked = false;
    if (lock)
        rc = zq_be_relock(be, write, err);
    if (rc < 0)
        zq_be_release(be);
    return rc;
}

int zq_be_leave(struct zqcow2_backend *be)
{
    int rc = zq_be_unlock(be);

    zq_be_release(be);
    return rc;
}

/* ---- the public face of the same ---- */

int zqcow2_backend_length(struct zqcow2_backend *be, uint64_t *bytes)
{
    return be && bytes ? zq_be_length(be, bytes) : -EINVAL;
}

int zqcow2_backend_read(struct zqcow2_backend *be, void *buf, size_t len, uint64_t off)
{
    return be && (buf || !len) ? zq_be_read(be, buf, len, off) : -EINVAL;
}

int zqcow2_backend_write(struct zqcow2_backend *be, const void *buf, size_t len, uint64_t off)
{
    return be && (buf || !len) ? zq_be_write(be, buf, len, off) : -EINVAL;
}
