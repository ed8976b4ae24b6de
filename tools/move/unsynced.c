/* SPDX-License-Identifier: MIT */
/* A backend on another one, to which it passes everything on but flushes. */
#include "unsynced.h"

static void pass_close(void *self)
{
    zqcow2_backend_close(self);
}

static int pass_length(void *self, uint64_t *bytes)
{
    return zqcow2_backend_length(self, bytes);
}

static int pass_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return zqcow2_backend_readv(self, iov, cnt, off);
}

static int pass_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return zqcow2_backend_writev(self, iov, cnt, off);
}

static int no_flush(void *self)
{
    (void)self;
    return 0;
}

/* What submits and polls is not here, so all calls block. */
static int pass_limits(void *self, struct zqcow2_limits *out)
{
    int rc = zqcow2_backend_limits(self, out);

    out->caps &= ~(uint32_t)ZQCOW2_CAP_BLOCKING_CALLS;
    return rc;
}

static int pass_truncate(void *self, uint64_t bytes)
{
    return zqcow2_backend_truncate(self, bytes);
}

static int pass_discard(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_discard(self, off, len);
}

static int pass_zero(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_zero(self, off, len);
}

static int pass_lock(void *self, int mode)
{
    return zqcow2_backend_lock(self, mode);
}

static void pass_invalidate(void *self)
{
    zqcow2_backend_invalidate(self);
}

static int pass_allocate(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_allocate(self, off, len);
}

static int pass_data(void *self, uint64_t off, uint64_t *begin, uint64_t *end)
{
    return zqcow2_backend_data(self, off, begin, end);
}

int zt_unsynced(struct zqcow2_backend *inner, struct zqcow2_backend **be)
{
    static const struct zqcow2_backend_ops ops = {
        .size = sizeof(ops),
        .name = "unsynced",
        .close = pass_close,
        .length = pass_length,
        .readv = pass_readv,
        .writev = pass_writev,
        .flush = no_flush,
        .limits = pass_limits,
        .truncate = pass_truncate,
        .discard = pass_discard,
        .zero = pass_zero,
        .lock = pass_lock,
        .invalidate = pass_invalidate,
        .allocate = pass_allocate,
        .data = pass_data,
    };
    int rc = zqcow2_backend_claim(inner);

    if (rc < 0)
        return rc;
    rc = zqcow2_backend_new(&ops, inner, zt_hooks(), be);
    if (rc < 0)
        zqcow2_backend_release(inner);
    return rc;
}
