/* SPDX-License-Identifier: MIT */
/*
 * What a faults backend holds: a list of changes in the order in which they came. Everything is
 * done by walking it in that order, so overlaps need no care: the later change lies on top.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "backend/faults_int.h"
#include "base/bytes.h"

/* Under the lock, so that the lines come in the order in which things happen. */
void zq_faults_say(const struct zqcow2_faults *f, const char *fmt, ...)
{
    char line[160];
    va_list ap;

    if (!f->opt.log)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    f->opt.log(f->opt.log_arg, line);
}

const char *zq_faults_kind(uint32_t kind)
{
    static const char *const names[] = {"read", "write", "flush", "zero", "discard", "truncate"};

    return names[kind];
}

/* ---- to the inner backend ---- */

/* data NULL: zeros. Through the scratch buffer: held bytes need no alignment and no limit. */
static int transfer(struct zqcow2_faults *f, const uint8_t *data, uint64_t from, uint64_t to)
{
    uint64_t limit = f->limits.max_transfer;
    uint64_t max = limit ? zq_min(limit, ZQ_SCRATCH_BYTES) : ZQ_SCRATCH_BYTES;
    int rc = 0;

    while (from < to && rc == 0) {
        struct iovec iov = {f->scratch, (size_t)zq_min(to - from, max)};

        if (data)
            memcpy(f->scratch, data, iov.iov_len);
        else
            memset(f->scratch, 0, iov.iov_len);
        rc = zqcow2_backend_writev(f->inner, &iov, 1, from);
        from += iov.iov_len;
        data += data ? iov.iov_len : 0;
    }
    return rc;
}

/* Where inner cannot zero cheaply it is written to, but not beyond its end: zeros are there. */
static int zero(struct zqcow2_faults *f, uint64_t from, uint64_t to)
{
    uint64_t length;
    int rc = zqcow2_backend_zero(f->inner, from, to - from);

    if (rc != -EOPNOTSUPP)
        return rc;
    rc = zqcow2_backend_length(f->inner, &length);
    return rc < 0 ? rc :
                    transfer(f, NULL, from, zq_min(to, zq_align_up(length, f->limits.io_align)));
}

/* A discard may fail; its content is no longer needed either way. */
int zq_held_apply(struct zqcow2_faults *f, const struct zq_held *h, uint64_t from, uint64_t to)
{
    switch (h->kind) {
    case ZQCOW2_IO_WRITE: return transfer(f, h->data + (from - h->offset), from, to);
    case ZQCOW2_IO_ZERO: return zero(f, from, to);
    case ZQCOW2_IO_TRUNCATE: return zqcow2_backend_truncate(f->inner, h->offset);
    default: zqcow2_backend_discard(f->inner, from, to - from); return 0;
    }
}

/* Without a flush: what inner makes of it until then is its own affair. */
static int apply_whole(struct zqcow2_faults *f, const struct zq_held *h)
{
    return zq_held_apply(f, h, h->offset, h->offset + h->length);
}

/* ---- holding ---- */

/* Changes without data count, too: a program that only zeroes must not fill the memory. */
static uint64_t struct_bytes(uint32_t kind, uint64_t len)
{
    return sizeof(struct zq_held) + (kind == ZQCOW2_IO_WRITE ? len : 0);
}

void zq_held_drop(struct zqcow2_faults *f, struct zq_held *h)
{
    uint64_t bytes = struct_bytes(h->kind, h->length);

    zq_list_del(&h->link);
    f->nr_held--;
    f->held_bytes -= bytes;
    zq_free(&f->hooks, h, bytes);
}

static struct zq_held *oldest(const struct zqcow2_faults *f)
{
    return zq_list_empty(&f->held) ? NULL : zq_container(f->held.next, struct zq_held, link);
}

/* What inner has got is dropped at once, so that a flush after a failed one does not repeat it. */
int zq_held_apply_all(struct zqcow2_faults *f)
{
    int rc = 0;

    for (struct zq_held *h; rc == 0 && (h = oldest(f));) {
        rc = apply_whole(f, h);
        if (rc == 0)
            zq_held_drop(f, h);
    }
    return rc;
}

static void say_through(const struct zqcow2_faults *f, const struct zq_held *h)
{
    zq_faults_say(f, "through: %s %" PRIu64 ", %" PRIu64 " bytes at %" PRIu64,
                  zq_faults_kind(h->kind), h->number, h->length, h->offset);
}

/* The oldest goes first, so inner gets the changes in order. */
static int make_room(struct zqcow2_faults *f, uint64_t bytes)
{
    for (struct zq_held *h; f->held_bytes + bytes > f->opt.max_held && (h = oldest(f));) {
        int rc = apply_whole(f, h);

        if (rc < 0)
            return rc;
        say_through(f, h);
        zq_held_drop(f, h);
    }
    return 0;
}

/* The caller may change its buffer as soon as the call is over. */
static struct zq_held *copy(struct zqcow2_faults *f, uint32_t kind, const struct iovec *iov,
                            uint64_t off, uint64_t len)
{
    struct zq_held *h = zq_alloc(&f->hooks, _Alignof(struct zq_held), struct_bytes(kind, len));

    if (!h)
        return NULL;
    *h = (struct zq_held){.number = ++f->changes, .kind = kind, .offset = off, .length = len};
    for (uint64_t at = 0; kind == ZQCOW2_IO_WRITE && at < len; at += iov++->iov_len)
        memcpy(h->data + at, iov->iov_base, iov->iov_len);
    return h;
}

/* A change that is larger than all of the room is applied at once, after all that is older. */
static int hold(struct zqcow2_faults *f, struct zq_held *h)
{
    uint64_t bytes = struct_bytes(h->kind, h->length);
    int rc = make_room(f, bytes);

    if (rc == 0 && bytes <= f->opt.max_held) {
        zq_list_push(&f->held, &h->link);
        f->nr_held++;
        f->held_bytes += bytes;
        return 0;
    }
    if (rc == 0)
        rc = apply_whole(f, h);
    if (rc == 0)
        say_through(f, h);
    zq_free(&f->hooks, h, bytes);
    return rc;
}

/* The length that reads see moves only with a change that will happen. */
int zq_held_add(struct zqcow2_faults *f, uint32_t kind, const struct iovec *iov, uint64_t off,
                uint64_t len)
{
    struct zq_held *h = copy(f, kind, iov, off, len);
    int rc = h ? hold(f, h) : -ENOMEM;

    if (rc == 0 && kind == ZQCOW2_IO_TRUNCATE)
        f->length = off;
    else if (rc == 0 && kind == ZQCOW2_IO_WRITE)
        f->length = zq_max(f->length, off + len);
    return rc;
}

/* ---- reading ---- */

/* Bytes [from, to) of what iov holds; data NULL: zeros. */
static void fill(const struct iovec *iov, uint64_t from, uint64_t to, const uint8_t *data)
{
    for (uint64_t at = 0; at < to; at += iov++->iov_len) {
        uint64_t begin = zq_max(from, at), end = zq_min(to, at + iov->iov_len);

        if (begin >= end)
            continue;
        if (data)
            memcpy((uint8_t *)iov->iov_base + (begin - at), data + (begin - from),
                   (size_t)(end - begin));
        else
            memset((uint8_t *)iov->iov_base + (begin - at), 0, (size_t)(end - begin));
    }
}

/* What a truncate cuts off reads as zeros, and so does what it adds. */
void zq_held_overlay(const struct zqcow2_faults *f, const struct iovec *iov, uint64_t off,
                     uint64_t len)
{
    for (const struct zq_list *l = f->held.next; l != &f->held; l = l->next) {
        const struct zq_held *h = zq_container(l, const struct zq_held, link);
        uint64_t end = h->kind == ZQCOW2_IO_TRUNCATE ? UINT64_MAX : h->offset + h->length;
        uint64_t from = zq_max(off, h->offset), to = zq_min(off + len, end);

        if (h->kind != ZQCOW2_IO_DISCARD && from < to)
            fill(iov, from - off, to - off,
                 h->kind == ZQCOW2_IO_WRITE ? h->data + (from - h->offset) : NULL);
    }
}
