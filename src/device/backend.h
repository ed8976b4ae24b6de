/* SPDX-License-Identifier: MIT */
/*
 * The backend object, and blocking I/O on it for create, open, check and repair. A backend with
 * alignment needs is served through bounce buffers, larger transfers in pieces.
 */
#ifndef ZQ_DEVICE_BACKEND_H
#define ZQ_DEVICE_BACKEND_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <zqcow2/backend.h>
#include "base/mem.h"

struct zqcow2_backend {
    struct zqcow2_backend_ops ops; /* complete: members that the caller's table lacks are NULL */
    void *self;
    struct zqcow2_hooks hooks;   /* of the backend; images have their own */
    atomic_flag in_use;          /* an image is open on it, or it is being checked or created */
    bool locked;                 /* by that use: zq_be_leave() unlocks it */
    struct zqcow2_limits limits; /* complete: io_align, buf_align, atomic_write, max_iov set */
};

/*
 * What a backend answers: 0 or an errno, and nothing else: a count of bytes is no success, and no
 * answer may look like a zone's error. Every call whose answer matters goes through one of these,
 * and zqcow2_io_done() through zq_answer() itself; a member that may be NULL is there.
 */
static inline int zq_answer(int rc)
{
    return rc > 0 || rc < -4095 ? -EIO : rc;
}
static inline int zq_call_length(const struct zqcow2_backend *be, uint64_t *bytes)
{
    return zq_answer(be->ops.length(be->self, bytes));
}
static inline int zq_call_readv(const struct zqcow2_backend *be, const struct iovec *iov, int cnt,
                                uint64_t off)
{
    return zq_answer(be->ops.readv(be->self, iov, cnt, off));
}
static inline int zq_call_writev(const struct zqcow2_backend *be, const struct iovec *iov, int cnt,
                                 uint64_t off)
{
    return zq_answer(be->ops.writev(be->self, iov, cnt, off));
}
static inline int zq_call_flush(const struct zqcow2_backend *be)
{
    return zq_answer(be->ops.flush(be->self));
}
static inline int zq_call_limits(const struct zqcow2_backend *be, struct zqcow2_limits *out)
{
    return zq_answer(be->ops.limits(be->self, out));
}
static inline int zq_call_truncate(const struct zqcow2_backend *be, uint64_t bytes)
{
    return zq_answer(be->ops.truncate(be->self, bytes));
}
static inline int zq_call_discard(const struct zqcow2_backend *be, uint64_t off, uint64_t len)
{
    return zq_answer(be->ops.discard(be->self, off, len));
}
static inline int zq_call_zero(const struct zqcow2_backend *be, uint64_t off, uint64_t len)
{
    return zq_answer(be->ops.zero(be->self, off, len));
}
static inline int zq_call_allocate(const struct zqcow2_backend *be, uint64_t off, uint64_t len)
{
    return zq_answer(be->ops.allocate(be->self, off, len));
}
static inline int zq_call_lock(const struct zqcow2_backend *be, int mode)
{
    return zq_answer(be->ops.lock(be->self, mode));
}
/* 0: the backend has it. Else it will hear no more of it. */
static inline int zq_call_submit(const struct zqcow2_backend *be, struct zqcow2_io *io)
{
    return zq_answer(be->ops.submit(be->self, io));
}
/* The descriptor, or an error. */
static inline int zq_call_fd(const struct zqcow2_backend *be)
{
    int fd = be->ops.fd(be->self);

    return fd < 0 ? zq_answer(fd) : fd;
}

/* All or error. Beyond the file's end zq_be_read gives zeros. Safe while nothing else writes. */
int zq_be_length(struct zqcow2_backend *be, uint64_t *bytes);
int zq_be_read(struct zqcow2_backend *be, void *buf, size_t len, uint64_t off);
int zq_be_write(struct zqcow2_backend *be, const void *buf, size_t len, uint64_t off);
/* Cheaply where the backend can, else by writing. */
int zq_be_zero(struct zqcow2_backend *be, uint64_t off, uint64_t len);
int zq_be_write_zeros(struct zqcow2_backend *be, uint64_t off, uint64_t len);
/* Zeros in space that is the file's, so that no write there fails for lack of it. -EOPNOTSUPP. */
int zq_be_allocate(struct zqcow2_backend *be, uint64_t off, uint64_t len);
/* As the callback; -EOPNOTSUPP, too, if there is none. */
int zq_be_data(struct zqcow2_backend *be, uint64_t off, uint64_t *begin, uint64_t *end);
/* Whole blocks of the range. -EOPNOTSUPP where the backend cannot; what it left is no harm. */
int zq_be_discard(struct zqcow2_backend *be, uint64_t off, uint64_t len);
int zq_be_truncate(struct zqcow2_backend *be, uint64_t bytes);
int zq_be_flush(struct zqcow2_backend *be);
int zq_be_lock(struct zqcow2_backend *be, int mode);
/*
 * Takes the backend for one use of it, reading only or also writing, and locks the file unless the
 * caller has said not to. An error has its text. zq_be_leave ends the use.
 */
int zq_be_enter(struct zqcow2_backend *be, bool write, bool lock, struct zqcow2_error *err);
/* The unlock's error; the use has ended all the same. */
int zq_be_leave(struct zqcow2_backend *be);
/* The lock alone, of a use that was entered without it. zq_be_unlock: where there is one. */
int zq_be_relock(struct zqcow2_backend *be, bool write, struct zqcow2_error *err);
int zq_be_unlock(struct zqcow2_backend *be);
/* One user at a time: -EBUSY. */
static inline int zq_be_claim(struct zqcow2_backend *be)
{
    return atomic_flag_test_and_set(&be->in_use) ? -EBUSY : 0;
}
static inline void zq_be_release(struct zqcow2_backend *be)
{
    atomic_flag_clear(&be->in_use);
}
/*
 * Does a thread that may block call it, instead of submitting? See "A thread that may block does
 * its own I/O" in DESIGN.md.
 */
static inline bool zq_be_is_called(const struct zqcow2_backend *be)
{
    return !be->ops.submit || be->limits.caps & ZQCOW2_CAP_BLOCKING_CALLS;
}
/* truncate() is part of it: an image that is written grows, and its file with it (R4). */
static inline int zq_be_writable(const struct zqcow2_backend *be)
{
    return be->ops.writev && be->ops.truncate && !(be->limits.caps & ZQCOW2_CAP_READ_ONLY);
}

#endif
