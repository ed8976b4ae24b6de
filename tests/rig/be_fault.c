/* SPDX-License-Identifier: MIT */
/* The n-th backend call fails, once or forever, wholly or half done. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rig/be_fault.h"

void fault_init(struct fault *f, struct rig_be under)
{
    memset(f, 0, sizeof(*f));
    pthread_mutex_init(&f->lock, NULL);
    f->under = under;
    f->plan = f;
}

void fault_plan(struct fault *f, enum fault_kind kind, uint64_t fail_at, bool for_ever)
{
    pthread_mutex_lock(&f->lock);
    f->kind = kind;
    f->calls = f->failed = 0;
    f->fail_at = fail_at;
    f->for_ever = for_ever;
    pthread_mutex_unlock(&f->lock);
}

static bool wants_space(const struct fault *f)
{
    return f->kind == FAULT_ENOSPC || f->kind == FAULT_NO_ROOM;
}

static void watch(const struct fault *f)
{
    if (!f->limit || f->calls <= f->limit)
        return;
    fprintf(stderr, "no end: more than %llu calls of the backend, the %lluth fails: FAILED\n",
            (unsigned long long)f->limit, (unsigned long long)f->fail_at);
    exit(1);
}

static bool counted(const struct fault *f, bool takes_space, bool reads)
{
    return f->kind == FAULT_READ ? reads : !wants_space(f) || takes_space;
}

/* 0, or the error that this call has to give. */
static int judge_read(struct fault *f, bool takes_space, bool reads)
{
    int rc = 0;

    f = f->plan;
    pthread_mutex_lock(&f->lock);
    if (counted(f, takes_space, reads)) {
        f->calls++;
        watch(f);
        if (f->fail_at && (f->calls == f->fail_at || (f->for_ever && f->calls > f->fail_at))) {
            f->failed++;
            rc = wants_space(f) ? -ENOSPC : -EIO;
        }
    }
    pthread_mutex_unlock(&f->lock);
    return rc;
}

static int judge(struct fault *f, bool takes_space)
{
    return judge_read(f, takes_space, false);
}

static int op_length(void *self, uint64_t *bytes)
{
    struct fault *f = self;
    int rc = judge(f, false);

    return rc ? rc : f->under.ops->length(f->under.self, bytes);
}

typedef int (*vec_fn)(void *self, const struct iovec *iov, int cnt, uint64_t off);

/* The first half of the sectors; the error is the caller's to return. */
static void half(struct fault *f, vec_fn fn, const struct iovec *iov, int cnt, uint64_t off)
{
    uint64_t left = 0;

    for (int i = 0; i < cnt; i++)
        left += iov[i].iov_len;
    left = left / 2 & ~511ull; /* sectors are atomic */
    for (int i = 0; i < cnt && left; i++) {
        struct iovec v = iov[i];

        if (v.iov_len > left)
            v.iov_len = (size_t)left;
        (void)fn(f->under.self, &v, 1, off);
        off += v.iov_len;
        left -= v.iov_len;
    }
}

static int vec(struct fault *f, vec_fn fn, bool reads, const struct iovec *iov, int cnt,
               uint64_t off)
{
    int rc = judge_read(f, !reads, reads);

    if (!rc)
        return fn(f->under.self, iov, cnt, off);
    if (f->plan->kind == FAULT_SHORT)
        half(f, fn, iov, cnt, off);
    return rc;
}

static int op_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct fault *f = self;

    return vec(f, f->under.ops->readv, true, iov, cnt, off);
}

static int op_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct fault *f = self;

    return vec(f, f->under.ops->writev, false, iov, cnt, off);
}

static int op_flush(void *self)
{
    struct fault *f = self;
    int rc = judge(f, f->plan->kind != FAULT_NO_ROOM);

    if (rc)
        __atomic_add_fetch(&f->plan->failed_flushes, 1, __ATOMIC_RELAXED);
    return rc ? rc : f->under.ops->flush(f->under.self);
}

static int op_limits(void *self, struct zqcow2_limits *out)
{
    struct fault *f = self;

    return f->under.ops->limits(f->under.self, out);
}

static int op_truncate(void *self, uint64_t bytes)
{
    struct fault *f = self;
    int rc = judge(f, true);

    return rc ? rc : f->under.ops->truncate(f->under.self, bytes);
}

static int op_discard(void *self, uint64_t off, uint64_t len)
{
    struct fault *f = self;
    int rc = judge(f, false);

    return rc ? rc : f->under.ops->discard(f->under.self, off, len);
}

static int op_zero(void *self, uint64_t off, uint64_t len)
{
    struct fault *f = self;
    int rc = judge(f, true);

    return rc ? rc : f->under.ops->zero(f->under.self, off, len);
}

static int op_lock(void *self, int mode)
{
    struct fault *f = self;
    int rc = judge(f, false);

    return rc ? rc : f->under.ops->lock(f->under.self, mode);
}

struct rig_be fault_be(struct fault *f)
{
    static const struct zqcow2_backend_ops ops = {
        .size = sizeof(ops),
        .name = "fault",
        .length = op_length,
        .readv = op_readv,
        .writev = op_writev,
        .flush = op_flush,
        .limits = op_limits,
        .truncate = op_truncate,
        .discard = op_discard,
        .zero = op_zero,
        .lock = op_lock,
    };

    return (struct rig_be){&ops, f};
}
