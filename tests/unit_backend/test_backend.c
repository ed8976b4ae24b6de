/* SPDX-License-Identifier: MIT */
/* The backend object: the tables and limits that it takes, and blocking I/O with alignment. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "device/backend.h"
#include "count_hooks.h"

#define FAKE_BYTES (512u * 1024)

/* A backend over an array that fails the test when a call breaks the limits it declared. */
struct fake {
    struct zqcow2_limits limits;
    uint8_t data[FAKE_BYTES];
    uint64_t length;
    int limits_rc, read_rc, write_rc, zero_rc, length_rc, flush_rc;
    unsigned reads, writes, zeros, closes, truncates, locks;
    int lock_mode;
};

static int fake_length(void *self, uint64_t *bytes)
{
    struct fake *f = self;

    *bytes = f->length;
    return f->length_rc;
}

static size_t check_call(const struct fake *f, const struct iovec *iov, int cnt, uint64_t off)
{
    uint32_t io = f->limits.io_align ? f->limits.io_align : 1;
    uint32_t mem = f->limits.buf_align ? f->limits.buf_align : 1;

    assert_int_equal(cnt, 1);
    assert_int_equal(off % io, 0);
    assert_int_equal(iov->iov_len % io, 0);
    assert_int_equal((uintptr_t)iov->iov_base % mem, 0);
    assert_true(iov->iov_len > 0);
    assert_true(!f->limits.max_transfer || iov->iov_len <= f->limits.max_transfer);
    assert_true(off + iov->iov_len <= FAKE_BYTES);
    return iov->iov_len;
}

static int fake_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct fake *f = self;

    f->reads++;
    memcpy(iov->iov_base, f->data + off, check_call(f, iov, cnt, off));
    return f->read_rc;
}

static int fake_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct fake *f = self;

    f->writes++;
    if (f->write_rc < 0)
        return f->write_rc;
    memcpy(f->data + off, iov->iov_base, check_call(f, iov, cnt, off));
    return f->write_rc;
}

static int fake_flush(void *self)
{
    return ((struct fake *)self)->flush_rc;
}

static int fake_limits(void *self, struct zqcow2_limits *out)
{
    struct fake *f = self;

    assert_int_equal(out->size, sizeof(*out));
    assert_int_equal(out->io_align | out->buf_align | out->max_transfer | out->caps, 0);
    *out = f->limits;
    return f->limits_rc;
}

static int fake_truncate(void *self, uint64_t bytes)
{
    struct fake *f = self;

    f->truncates++;
    f->length = bytes;
    return 0;
}

static int fake_zero(void *self, uint64_t off, uint64_t len)
{
    struct fake *f = self;
    uint32_t io = f->limits.io_align ? f->limits.io_align : 1;

    f->zeros++;
    if (f->zero_rc < 0)
        return f->zero_rc;
    assert_int_equal(off % io | len % io, 0);
    assert_true(len > 0 && off + len <= FAKE_BYTES);
    assert_true(!f->limits.max_transfer || len <= f->limits.max_transfer);
    memset(f->data + off, 0, len);
    return 0;
}

static int fake_lock(void *self, int mode)
{
    struct fake *f = self;

    f->locks++;
    f->lock_mode = mode;
    return -EAGAIN;
}

static void fake_close(void *self)
{
    ((struct fake *)self)->closes++;
}

static const struct zqcow2_backend_ops full = {
    .size = sizeof(full),
    .name = "fake",
    .close = fake_close,
    .length = fake_length,
    .readv = fake_readv,
    .writev = fake_writev,
    .flush = fake_flush,
    .limits = fake_limits,
    .truncate = fake_truncate,
    .zero = fake_zero,
    .lock = fake_lock,
};

static struct fake the_fake;

static int setup(void **state)
{
    memset(&the_fake, 0, sizeof(the_fake));
    the_fake.limits.size = sizeof(the_fake.limits);
    the_fake.length = FAKE_BYTES;
    *state = &the_fake;
    return 0;
}

static int submit_never(void *self, struct zqcow2_io *io)
{
    (void)self;
    (void)io;
    return -EIO;
}

static int poll_never(void *self, int timeout_ms)
{
    (void)self;
    (void)timeout_ms;
    return 0;
}

/* What a table of these members gives; the backend is closed again. */
static int try_ops(struct fake *f, const struct zqcow2_backend_ops *ops)
{
    struct zqcow2_backend *be = (struct zqcow2_backend *)f;
    int rc = zqcow2_backend_new(ops, f, NULL, &be);

    if (rc < 0)
        assert_null(be);
    zqcow2_backend_close(be);
    return rc;
}

static void test_ops_tables(void **state)
{
    struct fake *f = *state;
    struct zqcow2_backend_ops ops = full;

    assert_int_equal(try_ops(f, &full), 0);
    assert_int_equal(f->closes, 1);
    ops.readv = NULL;
    assert_int_equal(try_ops(f, &ops), -EINVAL);
    ops = full;
    ops.length = NULL;
    assert_int_equal(try_ops(f, &ops), -EINVAL);
    ops = full;
    ops.flush = NULL;
    assert_int_equal(try_ops(f, &ops), -EINVAL);
    ops.writev = NULL; /* a reader needs no flush */
    assert_int_equal(try_ops(f, &ops), 0);
    ops = full;
    ops.poll = poll_never;
    assert_int_equal(try_ops(f, &ops), -EINVAL);
    ops.submit = submit_never;
    assert_int_equal(try_ops(f, &ops), -EINVAL);
    ops.fd = fake_flush;
    assert_int_equal(try_ops(f, &ops), -EINVAL);
    ops.fd = NULL;
    ops.wake = fake_close;
    assert_int_equal(try_ops(f, &ops), -EINVAL);
    assert_int_equal(zqcow2_backend_new(NULL, f, NULL, NULL), -EINVAL);
    assert_int_equal(f->closes, 2);
    zqcow2_backend_close(NULL);
}

static void test_ops_of_other_versions(void **state)
{
    struct fake *f = *state;
    struct {
        struct zqcow2_backend_ops ops;
        uint64_t more;
    } newer = {full, 0};
    struct zqcow2_backend_ops old = full;
    struct zqcow2_backend *be;

    newer.ops.size = sizeof(newer);
    assert_int_equal(try_ops(f, &newer.ops), 0);
    newer.more = 1;
    assert_int_equal(try_ops(f, &newer.ops), -E2BIG);

    old.size = offsetof(struct zqcow2_backend_ops, limits);
    assert_int_equal(zqcow2_backend_new(&old, f, NULL, &be), 0);
    assert_null(be->ops.limits);
    assert_null(be->ops.truncate);
    assert_null(be->ops.lock);
    assert_false(zq_be_writable(be));
    assert_int_equal(zq_be_truncate(be, 1), -EROFS);
    assert_int_equal(zq_be_lock(be, ZQCOW2_LOCK_SHARED), 0);
    zqcow2_backend_close(be);
    old.size--;
    assert_int_equal(try_ops(f, &old), -EINVAL);
}

static int try_limits(struct fake *f, struct zqcow2_limits l)
{
    l.size = sizeof(l);
    f->limits = l;
    return try_ops(f, &full);
}

static void test_limits(void **state)
{
    struct fake *f = *state;
    struct zqcow2_backend *be;

    assert_int_equal(try_limits(f, (struct zqcow2_limits){.io_align = 3}), -EINVAL);
    assert_int_equal(try_limits(f, (struct zqcow2_limits){.io_align = 8192}), -EINVAL);
    assert_int_equal(try_limits(f, (struct zqcow2_limits){.buf_align = 12}), -EINVAL);
    assert_int_equal(try_limits(f, (struct zqcow2_limits){.buf_align = 1u << 31}), -EINVAL);
    assert_int_equal(try_limits(f, (struct zqcow2_limits){.atomic_write = 256}), -EINVAL);
    assert_int_equal(try_limits(f, (struct zqcow2_limits){.atomic_write = 1536}), -EINVAL);
    assert_int_equal(try_limits(f, (struct zqcow2_limits){.max_transfer = 511}), -EINVAL);
    assert_int_equal(try_limits(f, (struct zqcow2_limits){.io_align = 4096, .max_transfer = 4095}),
                     -EINVAL);
    assert_int_equal(try_limits(f, (struct zqcow2_limits){.caps = 1u << 30}), -EINVAL);
    f->limits_rc = -ENODEV;
    assert_int_equal(try_limits(f, (struct zqcow2_limits){.io_align = 1}), -ENODEV);
    f->limits_rc = 0;
    assert_int_equal(f->closes, 0);

    f->limits = (struct zqcow2_limits){.size = sizeof(f->limits), .max_transfer = 70000};
    assert_int_equal(zqcow2_backend_new(&full, f, NULL, &be), 0);
    assert_int_equal(be->limits.io_align, 1);
    assert_int_equal(be->limits.buf_align, 1);
    assert_int_equal(be->limits.atomic_write, 512);
    assert_int_equal(be->limits.max_iov, 1024);
    assert_int_equal(be->limits.max_transfer, 69632);
    assert_true(zq_be_writable(be));
    zqcow2_backend_close(be);
}

static void test_memory_failure(void **state)
{
    struct fake *f = *state;
    struct count_hooks c;
    struct zqcow2_backend *be;
    uint8_t buf[100];

    count_init(&c);
    c.fail_at = 1;
    assert_int_equal(zqcow2_backend_new(&full, f, &c.hooks, &be), -ENOMEM);
    assert_int_equal(f->closes, 0);
    f->limits.io_align = 512;
    c.fail_at = 3;
    assert_int_equal(zqcow2_backend_new(&full, f, &c.hooks, &be), 0);
    assert_int_equal(zq_be_read(be, buf, sizeof(buf), 1), -ENOMEM);
    assert_int_equal(f->reads, 0);
    zqcow2_backend_close(be);
    assert_int_equal(c.bytes, 0);
    c.hooks.free = NULL;
    assert_int_equal(zqcow2_backend_new(&full, f, &c.hooks, &be), -EINVAL);
}

/* Random transfers under one set of limits against a plain array. */
static void compare(struct fake *f, struct zqcow2_limits l, uint64_t seed)
{
    static uint8_t model[FAKE_BYTES], buf[FAKE_BYTES + 64];
    uint64_t s = seed;
    struct count_hooks c;
    struct zqcow2_backend *be;

    l.size = sizeof(l);
    f->limits = l;
    memset(f->data, 0, sizeof(f->data));
    memset(model, 0, sizeof(model));
    count_init(&c);
    assert_int_equal(zqcow2_backend_new(&full, f, &c.hooks, &be), 0);
    for (int i = 0; i < 400; i++) {
        uint64_t off = next_random(&s) % FAKE_BYTES;
        size_t most = next_random(&s) % 4 ? 9000 : FAKE_BYTES;
        size_t len = next_random(&s) % most, kind = next_random(&s) % 4;
        uint8_t *at = buf + next_random(&s) % 64;
        int rc;

        if (next_random(&s) % 4 == 0) {
            off &= ~4095ull;
            len &= ~(size_t)4095;
        }
        if (len > FAKE_BYTES - off)
            len = FAKE_BYTES - off;
        if (kind == 0) {
            for (size_t j = 0; j < len; j++)
                at[j] = (uint8_t)next_random(&s);
            rc = zqcow2_backend_write(be, at, len, off);
            memcpy(model + off, at, len);
        } else if (kind == 1) {
            rc = zq_be_zero(be, off, len);
            memset(model + off, 0, len);
        } else {
            rc = zqcow2_backend_read(be, at, len, off);
            if (memcmp(at, model + off, len))
                fail_msg("seed %llu, step %d: read of %zu at %llu differs",
                         (unsigned long long)seed, i, len, (unsigned long long)off);
        }
        assert_int_equal(rc, 0);
        if (memcmp(f->data, model, FAKE_BYTES))
            fail_msg("seed %llu, step %d: the backend's bytes differ", (unsigned long long)seed, i);
    }
    zqcow2_backend_close(be);
    assert_int_equal(c.bytes, 0);
}

static void test_alignment(void **state)
{
    struct fake *f = *state;

    compare(f, (struct zqcow2_limits){.io_align = 1}, 1);
    compare(f, (struct zqcow2_limits){.io_align = 512}, 2);
    compare(f, (struct zqcow2_limits){.io_align = 4096, .buf_align = 4096}, 3);
    compare(f, (struct zqcow2_limits){.buf_align = 64, .max_transfer = 65536}, 4);
    compare(f, (struct zqcow2_limits){.io_align = 4096, .max_transfer = 70000}, 5);
    f->zero_rc = -EOPNOTSUPP;
    compare(f, (struct zqcow2_limits){.io_align = 512, .buf_align = 512}, 6);
    compare(f, (struct zqcow2_limits){.max_transfer = 65536}, 7);
    compare(f, (struct zqcow2_limits){.io_align = 4096, .max_transfer = 5000}, 8);
    compare(f, (struct zqcow2_limits){.max_transfer = 512}, 9);
}

static void test_zero_is_cheap(void **state)
{
    struct fake *f = *state;
    struct zqcow2_backend *be;

    f->limits.io_align = 4096;
    assert_int_equal(zqcow2_backend_new(&full, f, NULL, &be), 0);
    assert_int_equal(zq_be_zero(be, 4096, 65536), 0);
    assert_int_equal(f->zeros, 1);
    assert_int_equal(f->writes, 0);
    assert_int_equal(zq_be_zero(be, 4000, 65536), 0);
    assert_int_equal(f->zeros, 2);
    assert_int_equal(f->writes, 2);
    f->zero_rc = -EIO;
    assert_int_equal(zq_be_zero(be, 4096, 4096), -EIO);
    assert_int_equal(f->writes, 2);
    f->zero_rc = -EOPNOTSUPP;
    assert_int_equal(zq_be_zero(be, 4096, 4096), 0);
    assert_int_equal(f->writes, 3);
    zqcow2_backend_close(be);
}

static void test_results_are_passed_on(void **state)
{
    struct fake *f = *state;
    struct zqcow2_backend *be;
    uint64_t n;
    uint8_t b[512] = {0};

    assert_int_equal(zqcow2_backend_new(&full, f, NULL, &be), 0);
    f->read_rc = f->write_rc = f->flush_rc = 7;
    assert_int_equal(zqcow2_backend_read(be, b, 512, 0), -EIO);
    assert_int_equal(zqcow2_backend_write(be, b, 512, 0), -EIO);
    assert_int_equal(zq_be_flush(be), -EIO);
    f->read_rc = -EIO;
    f->write_rc = -ENOSPC;
    f->flush_rc = -EDQUOT;
    assert_int_equal(zqcow2_backend_read(be, b, 512, 0), -EIO);
    assert_int_equal(zqcow2_backend_write(be, b, 512, 0), -ENOSPC);
    assert_int_equal(zq_be_flush(be), -EDQUOT);
    assert_int_equal(zq_be_lock(be, ZQCOW2_LOCK_EXCLUSIVE), -EAGAIN);
    assert_int_equal(f->lock_mode, ZQCOW2_LOCK_EXCLUSIVE);
    f->length = (uint64_t)INT64_MAX + 1;
    assert_int_equal(zqcow2_backend_length(be, &n), -EFBIG);
    f->length_rc = -ESTALE;
    assert_int_equal(zqcow2_backend_length(be, &n), -ESTALE);
    zqcow2_backend_close(be);
}

static void test_refusals(void **state)
{
    struct fake *f = *state;
    struct zqcow2_backend *be;
    uint64_t n;
    uint8_t b[512] = {0};

    f->limits.caps = ZQCOW2_CAP_READ_ONLY;
    assert_int_equal(zqcow2_backend_new(&full, f, NULL, &be), 0);
    assert_false(zq_be_writable(be));
    assert_int_equal(zqcow2_backend_write(be, b, 512, 0), -EROFS);
    assert_int_equal(zq_be_zero(be, 0, 512), -EROFS);
    assert_int_equal(zq_be_truncate(be, 0), -EROFS);
    assert_int_equal(f->writes | f->zeros | f->truncates, 0);
    assert_int_equal(zqcow2_backend_read(be, b, 512, UINT64_MAX - 100), -EOVERFLOW);
    assert_int_equal(zqcow2_backend_read(be, b, 512, INT64_MAX - 512), -EOVERFLOW);
    assert_int_equal(zqcow2_backend_read(be, NULL, 512, 0), -EINVAL);
    assert_int_equal(zqcow2_backend_read(NULL, b, 512, 0), -EINVAL);
    assert_int_equal(zqcow2_backend_write(NULL, b, 512, 0), -EINVAL);
    assert_int_equal(zqcow2_backend_length(be, NULL), -EINVAL);
    assert_int_equal(zqcow2_backend_length(NULL, &n), -EINVAL);
    assert_int_equal(zqcow2_backend_read(be, NULL, 0, 0), 0);
    assert_int_equal(f->reads, 0);
    zqcow2_backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_ops_tables, setup),
        cmocka_unit_test_setup(test_ops_of_other_versions, setup),
        cmocka_unit_test_setup(test_limits, setup),
        cmocka_unit_test_setup(test_memory_failure, setup),
        cmocka_unit_test_setup(test_alignment, setup),
        cmocka_unit_test_setup(test_zero_is_cheap, setup),
        cmocka_unit_test_setup(test_results_are_passed_on, setup),
        cmocka_unit_test_setup(test_refusals, setup),
    };

    return cmocka_run_group_tests_name("backend", tests, NULL, NULL);
}
