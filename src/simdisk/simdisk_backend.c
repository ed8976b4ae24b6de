/* SPDX-License-Identifier: MIT */
/*
 * The simulated disk as a backend: its blocking calls, limits and locks; and how it is made.
 *
 * A backend is a handle: the disk is the test's and outlives it, as a file outlives its descriptor,
 * and several may be open on one disk. A lock belongs to a handle and ends with it.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "simdisk/simdisk_int.h"

static uint64_t total(const struct iovec *iov, int cnt)
{
    uint64_t sum = 0;

    for (int i = 0; i < cnt; i++)
        sum += iov[i].iov_len;
    return sum;
}

/* Every call counts, also one that fails: tests compare what the library has asked for. */
static void count_call(struct zqcow2_simdisk *d, uint32_t kind, uint64_t bytes)
{
    d->count.calls[kind]++;
    d->count.bytes[kind] += bytes;
}

/* A read is no event: it changes nothing that a power cut could choose. */
int sim_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct zqcow2_simdisk *d = ((struct sim_handle *)self)->disk;
    uint64_t len = total(iov, cnt);
    int rc;

    pthread_mutex_lock(&d->lock);
    count_call(d, ZQCOW2_IO_READ, len);
    rc = sim_misuse(d, ZQCOW2_IO_READ, iov, cnt, off, len);
    if (!rc)
        rc = sim_fault_hit(d, ZQCOW2_IO_READ);
    if (!rc && sim_power_is_off(d))
        rc = -EIO;
    for (int i = 0; !rc && i < cnt; i++) {
        sim_content_read(&d->view, iov[i].iov_base, iov[i].iov_len, off);
        off += iov[i].iov_len;
    }
    pthread_mutex_unlock(&d->lock);
    return rc;
}

/* One blocking change: both of its events at once. */
static int change(void *self, uint32_t kind, const struct iovec *iov, int cnt, uint64_t off,
                  uint64_t len)
{
    struct zqcow2_simdisk *d = ((struct sim_handle *)self)->disk;
    struct sim_op *op;
    int rc, fault;

    pthread_mutex_lock(&d->lock);
    count_call(d, kind, len);
    rc = sim_misuse(d, kind, iov, cnt, off, len);
    if (!rc) {
        fault = sim_fault_hit(d, kind);
        rc = sim_begin(d, kind, iov, off, len, fault, &op);
        if (!rc)
            rc = sim_end(d, op, fault);
    }
    pthread_mutex_unlock(&d->lock);
    return rc;
}

static int sim_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return change(self, ZQCOW2_IO_WRITE, iov, cnt, off, total(iov, cnt));
}

static int sim_flush(void *self)
{
    return change(self, ZQCOW2_IO_FLUSH, NULL, 0, 0, 0);
}

static int sim_truncate(void *self, uint64_t bytes)
{
    return change(self, ZQCOW2_IO_TRUNCATE, NULL, 0, bytes, 0);
}

static int sim_discard(void *self, uint64_t off, uint64_t len)
{
    if (((struct sim_handle *)self)->disk->opt.flags & ZQCOW2_SIMDISK_NO_DISCARD)
        return -EOPNOTSUPP;
    return change(self, ZQCOW2_IO_DISCARD, NULL, 0, off, len);
}

static int sim_zero(void *self, uint64_t off, uint64_t len)
{
    if (((struct sim_handle *)self)->disk->opt.flags & ZQCOW2_SIMDISK_NO_ZERO)
        return -EOPNOTSUPP;
    return change(self, ZQCOW2_IO_ZERO, NULL, 0, off, len);
}

/* Works with the power off as well; only transfers and changes fail then. */
static int sim_length(void *self, uint64_t *bytes)
{
    *bytes = zqcow2_simdisk_length(((struct sim_handle *)self)->disk);
    return 0;
}

/*
 * A disk whose writes never tear still promises no more than a sector: the library must not depend
 * on what few real disks promise.
 */
static int sim_limits(void *self, struct zqcow2_limits *out)
{
    const struct zqcow2_simdisk_options *o = &((struct sim_handle *)self)->disk->opt;

    out->io_align = o->io_align;
    out->buf_align = o->buf_align;
    out->max_transfer = o->max_transfer;
    out->max_iov = o->max_iov;
    out->atomic_write = o->atomic_write == ZQCOW2_SIMDISK_ATOMIC ? ZQ_SECTOR : o->atomic_write;
    return 0;
}

static void drop_lock(struct zqcow2_simdisk *d, int mode)
{
    d->exclusive -= mode == ZQCOW2_LOCK_EXCLUSIVE;
    d->shared -= mode == ZQCOW2_LOCK_SHARED;
}

/* Its own lock is dropped first and, if the new one is refused, taken again: nobody is between. */
static int sim_lock(void *self, int mode)
{
    struct sim_handle *h = self;
    struct zqcow2_simdisk *d = h->disk;
    int rc = 0, old = h->lock;

    pthread_mutex_lock(&d->lock);
    drop_lock(d, old);
    if ((mode != ZQCOW2_LOCK_NONE && d->exclusive) ||
        (mode == ZQCOW2_LOCK_EXCLUSIVE && d->shared)) {
        rc = -EAGAIN;
        mode = old;
    }
    d->exclusive += mode == ZQCOW2_LOCK_EXCLUSIVE;
    d->shared += mode == ZQCOW2_LOCK_SHARED;
    h->lock = mode;
    pthread_mutex_unlock(&d->lock);
    return rc;
}

static void sim_invalidate(void *self)
{
    struct zqcow2_simdisk *d = ((struct sim_handle *)self)->disk;

    pthread_mutex_lock(&d->lock);
    sim_forget_cache(d);
    pthread_mutex_unlock(&d->lock);
}

/* The hooks are the disk's, which outlives its handles. */
static void sim_close(void *self)
{
    struct sim_handle *h = self;

    sim_lock(self, ZQCOW2_LOCK_NONE);
    zq_free(&h->disk->hooks, h, sizeof(*h));
}

#define BLOCKING_CALLS \
    .size = sizeof(struct zqcow2_backend_ops), .name = "simdisk", .close = sim_close, \
    .length = sim_length, .readv = sim_readv, .writev = sim_writev, .flush = sim_flush, \
    .limits = sim_limits, .truncate = sim_truncate, .discard = sim_discard, .zero = sim_zero, \
    .lock = sim_lock, .invalidate = sim_invalidate

/* Decided by the disk, not by the opener: a test runs unchanged on either kind. */
const struct zqcow2_backend_ops *sim_ops(bool async)
{
    static const struct zqcow2_backend_ops blocking = {BLOCKING_CALLS};
    static const struct zqcow2_backend_ops queued = {
        BLOCKING_CALLS, .submit = sim_submit, .wake = sim_wake, .poll = sim_poll, .fd = sim_fd};

    return async ? &queued : &blocking;
}

/* The limits are checked here, by the code that checks those of any backend. */
int zqcow2_simdisk_backend(struct zqcow2_simdisk *d, struct zqcow2_backend **be)
{
    struct sim_handle *h = zq_zalloc(&d->hooks, sizeof(*h));
    int rc;

    if (!h)
        return -ENOMEM;
    h->disk = d;
    rc = zqcow2_backend_new(sim_ops(d->event.fd >= 0), h, &d->hooks, be);
    if (rc < 0)
        zq_free(&d->hooks, h, sizeof(*h));
    return rc;
}

/* ---- a new disk ---- */

/* The limits are left to zqcow2_backend_new(). */
static int check_options(struct zqcow2_simdisk_options *o)
{
    const uint32_t flags = ZQCOW2_SIMDISK_ASYNC | ZQCOW2_SIMDISK_RECORD | ZQCOW2_SIMDISK_NO_ZERO |
                           ZQCOW2_SIMDISK_NO_DISCARD;

    if (!o->atomic_write)
        o->atomic_write = ZQ_SECTOR;
    if ((o->flags & ~flags) || o->discard > ZQCOW2_SIMDISK_DISCARD_SCRAMBLES || o->reserved)
        return -EINVAL;
    return o->length > INT64_MAX ? -EINVAL : 0;
}

/* A disk whose limits no backend may have is none. */
static int try_backend(struct zqcow2_simdisk *d)
{
    struct zqcow2_backend *be;
    int rc = zqcow2_simdisk_backend(d, &be);

    if (rc == 0)
        zqcow2_backend_close(be);
    return rc;
}

int zqcow2_simdisk_new(const struct zqcow2_simdisk_options *opt, struct zqcow2_simdisk **disk)
{
    struct zqcow2_simdisk_options o = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_hooks hooks;
    struct zqcow2_simdisk *d;
    int rc = 0;

    if (opt)
        rc = zq_copy_sized(&o, sizeof(o), opt, offsetof(struct zqcow2_simdisk_options, hooks));
    if (rc == 0)
        rc = check_options(&o);
    if (rc == 0)
        rc = zq_hooks_init(&hooks, o.hooks);
    if (rc == 0)
        rc = sim_disk_alloc(&o, &hooks, &d);
    if (rc < 0)
        return rc;
    /*
     * Cannot fail: an empty content has nothing to cut. Only durable keeps a hash; the view is
     * never asked.
     */
    sim_content_truncate(&d->now.durable, o.length);
    sim_content_copy(&d->view, &d->now.durable);
    d->view.unhashed = true;
    rc = try_backend(d);
    if (rc == 0 && (o.flags & ZQCOW2_SIMDISK_RECORD))
        rc = zqcow2_simdisk_record(d);
    if (rc < 0)
        zqcow2_simdisk_free(d);
    else
        *disk = d;
    return rc;
}
