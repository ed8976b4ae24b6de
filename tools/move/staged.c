/* SPDX-License-Identifier: MIT */
/* A backend on another one, to which it passes everything on but what is held back. */
#include "staged.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAGIC_BYTES 4u

static const uint8_t magic[MAGIC_BYTES] = {'Q', 'F', 'I', 0xfb};

struct staged {
    struct zqcow2_backend *inner;
    struct zt_staging how;
    bool held; /* the magic has been written here, and is not there */
};

/* Set by the first write, before there are threads. */
static struct zqcow2_backend *changing(const struct staged *s)
{
    if (s->how.changed && !*s->how.changed)
        *s->how.changed = true;
    return s->inner;
}

static size_t bytes_of(const struct iovec *iov, int cnt)
{
    size_t n = 0;

    for (int i = 0; i < cnt; i++)
        n += iov[i].iov_len;
    return n;
}

/* The header is written whole, with its first bytes: nothing else begins there. */
static bool has_magic(const struct iovec *iov, int cnt, uint64_t off)
{
    return !off && cnt && iov->iov_len >= MAGIC_BYTES && !memcmp(iov->iov_base, magic, MAGIC_BYTES);
}

static int write_without(struct staged *s, const struct iovec *iov, int cnt)
{
    size_t len = bytes_of(iov, cnt), at = 0;
    uint8_t *buf = zt_buffer(len);
    int rc;

    if (!buf)
        return -ENOMEM;
    for (int i = 0; i < cnt; at += iov[i++].iov_len)
        memcpy(buf + at, iov[i].iov_base, iov[i].iov_len);
    memset(buf, 0, MAGIC_BYTES);
    rc = zqcow2_backend_write(changing(s), buf, len, 0);
    free(buf);
    return rc;
}

static void staged_close(void *self)
{
    struct staged *s = self;

    zqcow2_backend_close(s->inner);
    free(s);
}

static int staged_length(void *self, uint64_t *bytes)
{
    return zqcow2_backend_length(((struct staged *)self)->inner, bytes);
}

static int staged_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct staged *s = self;
    int rc = zqcow2_backend_readv(s->inner, iov, cnt, off);

    if (rc == 0 && s->held && !off && cnt && iov->iov_len >= MAGIC_BYTES)
        memcpy(iov->iov_base, magic, MAGIC_BYTES);
    return rc;
}

/* Set before the new image is opened: `held` needs no lock. */
static int staged_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct staged *s = self;

    if (!s->how.nameless || !has_magic(iov, cnt, off))
        return zqcow2_backend_writev(changing(s), iov, cnt, off);
    if (!s->held)
        s->held = true;
    return write_without(s, iov, cnt);
}

static int staged_flush(void *self)
{
    struct staged *s = self;

    return s->how.no_sync ? 0 : zqcow2_backend_flush(s->inner);
}

/* What submits and polls is not here, so all calls block. */
static int staged_limits(void *self, struct zqcow2_limits *out)
{
    int rc = zqcow2_backend_limits(((struct staged *)self)->inner, out);

    out->caps &= ~(uint32_t)ZQCOW2_CAP_BLOCKING_CALLS;
    return rc;
}

static int staged_truncate(void *self, uint64_t bytes)
{
    return zqcow2_backend_truncate(changing(self), bytes);
}

static int staged_discard(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_discard(changing(self), off, len);
}

static int staged_zero(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_zero(changing(self), off, len);
}

static int staged_lock(void *self, int mode)
{
    return zqcow2_backend_lock(((struct staged *)self)->inner, mode);
}

static void staged_invalidate(void *self)
{
    zqcow2_backend_invalidate(((struct staged *)self)->inner);
}

static int staged_allocate(void *self, uint64_t off, uint64_t len)
{
    return zqcow2_backend_allocate(changing(self), off, len);
}

static int staged_data(void *self, uint64_t off, uint64_t *begin, uint64_t *end)
{
    return zqcow2_backend_data(((struct staged *)self)->inner, off, begin, end);
}

int zt_stage(struct zqcow2_backend *inner, const struct zt_staging *how, struct zqcow2_backend **be)
{
    static const struct zqcow2_backend_ops ops = {
        .size = sizeof(ops),
        .name = "staged",
        .close = staged_close,
        .length = staged_length,
        .readv = staged_readv,
        .writev = staged_writev,
        .flush = staged_flush,
        .limits = staged_limits,
        .truncate = staged_truncate,
        .discard = staged_discard,
        .zero = staged_zero,
        .lock = staged_lock,
        .invalidate = staged_invalidate,
        .allocate = staged_allocate,
        .data = staged_data,
    };
    struct staged *s = calloc(1, sizeof(*s));
    int rc = s ? zqcow2_backend_claim(inner) : -ENOMEM;

    if (rc < 0) {
        free(s);
        return rc;
    }
    *s = (struct staged){.inner = inner, .how = *how};
    rc = zqcow2_backend_new(&ops, s, zt_hooks(), be);
    if (rc < 0) {
        zqcow2_backend_release(inner);
        free(s);
    }
    return rc;
}

/* With its sector, so that it is there whole or not. */
static int put_magic(struct zqcow2_backend *be)
{
    uint8_t sector[ZT_SECTOR];
    int rc = zqcow2_backend_lock(be, ZQCOW2_LOCK_EXCLUSIVE);

    if (rc == 0)
        rc = zqcow2_backend_read(be, sector, sizeof(sector), 0);
    memcpy(sector, magic, MAGIC_BYTES);
    return rc == 0 ? zqcow2_backend_write(be, sector, sizeof(sector), 0) : rc;
}

int zt_name_image(const struct zt_target *t, bool no_sync)
{
    struct zqcow2_backend *be;
    int rc = zt_backend_open(t, ZQCOW2_FILE_RDWR, &be);

    if (rc < 0)
        return rc;
    rc = put_magic(be);
    if (rc == 0 && !no_sync)
        rc = zqcow2_backend_flush(be);
    zqcow2_backend_close(be);
    return rc;
}
