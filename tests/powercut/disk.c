/* SPDX-License-Identifier: MIT */
#include "disk.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static void rec_free(struct rec *r)
{
    if (r) {
        free(r->data);
        free(r->mask);
        free(r);
    }
}

void disk_init(struct disk *d, const struct store *from, const struct disk_limits *lim,
               uint64_t seed)
{
    memset(d, 0, sizeof(*d));
    pthread_mutex_init(&d->own, NULL);
    pthread_cond_init(&d->cond, NULL);
    d->lock = &d->own;
    d->lim = *lim;
    d->rng = seed;
    d->event = lim->async ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
    if (from) {
        store_copy(&d->now, from);
        store_copy(&d->base, from);
    }
}

void disk_free(struct disk *d)
{
    for (size_t i = 0; i < d->nlog; i++)
        rec_free(d->log[i]);
    free(d->log);
    free(d->flight);
    store_free(&d->now);
    store_free(&d->base);
    if (d->event >= 0)
        close(d->event);
    pthread_mutex_destroy(&d->own);
    pthread_cond_destroy(&d->cond);
}

/* ---- what one record does to a file ---- */

static uint64_t units(const struct disk *d, const struct rec *r)
{
    uint64_t unit = d->lim.tear;

    return r->len ? (r->off + r->len - 1) / unit - r->off / unit + 1 : 0;
}

static void unit_apply(struct store *s, const struct rec *r, uint64_t from, uint64_t to, int junk)
{
    if (r->kind == ZQCOW2_IO_WRITE)
        store_write(s, r->data + (from - r->off), (size_t)(to - from), from);
    else
        store_fill(s, r->kind == ZQCOW2_IO_DISCARD ? junk : 0, to - from, from);
}

/* tear: not NULL: units where it is 0 are lost. */
static void apply(const struct disk *d, struct store *s, const struct rec *r, const uint8_t *tear)
{
    uint64_t unit = d->lim.tear, first = r->off / unit, n = units(d, r);
    /* The content of what was discarded is anything. */
    int junk = (int)(r->off / unit * 7 + r->len) % 3 ? 0 : 0xdb;

    if (r->kind == ZQCOW2_IO_TRUNCATE) {
        if (!r->mask)
            store_resize(s, r->off);
        return;
    }
    if (r->kind == ZQCOW2_IO_DISCARD && r->off >= s->size)
        return;
    for (uint64_t i = 0; i < n; i++) {
        uint64_t from = (first + i) * unit, to = from + unit;

        if ((tear && !tear[i]) || (r->mask && !r->mask[i]))
            continue;
        from = from < r->off ? r->off : from;
        to = to > r->off + r->len ? r->off + r->len : to;
        if (r->kind == ZQCOW2_IO_DISCARD && to > s->size)
            to = s->size;
        if (from < to)
            unit_apply(s, r, from, to, junk);
    }
}

static uint8_t *random_mask(uint64_t n, uint64_t *rng)
{
    uint8_t *mask = need(malloc(n + 1));
    unsigned how = (unsigned)below(rng, 4);
    uint64_t cut = n ? below(rng, n + 1) : 0;

    for (uint64_t i = 0; i < n; i++) /* a prefix, a suffix, a hole, or at random */
        mask[i] = how == 0 ? i < cut :
                  how == 1 ? i >= cut :
                  how == 2 ? i != cut :
                             odds(rng, 2) != 0;
    return mask;
}

/* ---- the power cut ---- */

enum cut {
    CUT_NONE,
    CUT_ALL,
    CUT_MANY,
    CUT_FEW,
    CUT_ONE,
    CUT_BUT_ONE,
    CUT_PREFIX,
    CUT_SUFFIX,
    CUTS
};

static bool is_kept(enum cut how, size_t i, size_t pick, uint64_t *rng)
{
    switch (how) {
    case CUT_NONE: return false;
    case CUT_ALL: return true;
    case CUT_MANY: return !odds(rng, 4);
    case CUT_FEW: return odds(rng, 4);
    case CUT_ONE: return i == pick;
    case CUT_BUT_ONE: return i != pick;
    case CUT_PREFIX: return i < pick;
    default: return i >= pick;
    }
}

void disk_cut(struct disk *d, struct store *out, uint64_t *rng)
{
    enum cut how = (enum cut)below(rng, CUTS);
    size_t pick = d->nlog ? (size_t)below(rng, d->nlog) : 0, n = 0;
    struct rec **kept = need(malloc((d->nlog + 1) * sizeof(*kept)));
    bool torn = odds(rng, 2), shuffled = odds(rng, 4);

    store_copy(out, &d->base);
    for (size_t i = 0; i < d->nlog; i++)
        if (is_kept(how, i, pick, rng))
            kept[n++] = d->log[i];
    for (size_t i = n; shuffled && i > 1; i--) {
        size_t j = (size_t)below(rng, i);
        struct rec *r = kept[j];

        kept[j] = kept[i - 1];
        kept[i - 1] = r;
    }
    for (size_t i = 0; i < n; i++) {
        uint8_t *tear = torn && odds(rng, 3) ? random_mask(units(d, kept[i]), rng) : NULL;

        apply(d, out, kept[i], tear);
        free(tear);
    }
    free(kept);
}

/* ---- recording ---- */

static void point(struct disk *d)
{
    if (d->point && !d->quiet && !d->off)
        d->point(d->arg);
}

static uint8_t *gather(const struct iovec *iov, uint64_t len)
{
    uint8_t *data = need(malloc(len + 1)), *p = data;

    for (uint64_t left = len; left; iov++) {
        size_t n = iov->iov_len < left ? iov->iov_len : (size_t)left;

        memcpy(p, iov->iov_base, n);
        p += n;
        left -= n;
    }
    return data;
}

static struct rec *record(struct disk *d, int kind, const struct iovec *iov, uint64_t len,
                          uint64_t off)
{
    struct rec *r = need(calloc(1, sizeof(*r)));

    r->kind = kind;
    r->off = off;
    r->len = len;
    if (kind == ZQCOW2_IO_WRITE)
        r->data = gather(iov, len);
    if (d->quiet)
        return r;
    d->log = need(realloc(d->log, (d->nlog + 1) * sizeof(struct rec *)));
    d->log[d->nlog++] = r;
    return r;
}

static int fault_of(struct disk *d, int kind)
{
    struct disk_fault *f = &d->fault;

    if (d->off)
        return -EIO;
    if (!f->times || !(f->kinds >> kind & 1))
        return 0;
    if (f->after) {
        f->after--;
        return 0;
    }
    f->times--;
    d->failed++;
    return f->error;
}

static void finish_rec(struct disk *d, struct rec *r, int rc)
{
    if (d->off) /* nothing happens any more: what is in the log is what was in flight */
        return;
    if (rc) {
        r->mask = random_mask(units(d, r), &d->rng);
        if (rc == -ENOSPC && odds(&d->rng, 2))
            memset(r->mask, 0, units(d, r));
    }
    d->writes++;
    apply(d, &d->now, r, NULL);
    r->done = ++d->clock;
    if (d->quiet)
        rec_free(r);
}

static int by_done(const void *a, const void *b)
{
    uint64_t x = (*(struct rec *const *)a)->done, y = (*(struct rec *const *)b)->done;

    return x < y ? -1 : x > y;
}

/* A flush that began at `began` ends. A failed one loses a part for good, which stays visible. */
static void finish_flush(struct disk *d, uint64_t began, int rc)
{
    struct rec **covered = need(malloc((d->nlog + 1) * sizeof(*covered)));
    size_t n = 0, kept = 0;

    if (d->off) {
        free(covered);
        return;
    }
    d->flushes++;
    for (size_t i = 0; i < d->nlog; i++)
        if (d->log[i]->done && d->log[i]->done <= began)
            covered[n++] = d->log[i];
        else
            d->log[kept++] = d->log[i];
    d->nlog = kept;
    qsort(covered, n, sizeof(struct rec *), by_done);
    for (size_t i = 0; i < n; i++) {
        uint8_t *tear = rc && odds(&d->rng, 2) ? random_mask(units(d, covered[i]), &d->rng) : NULL;

        if (!rc || odds(&d->rng, 2))
            apply(d, &d->base, covered[i], tear);
        free(tear);
        rec_free(covered[i]);
    }
    free(covered);
}

void disk_kill(struct disk *d)
{
    size_t kept = 0;

    d->off = d->woken = false;
    d->nflight = 0;
    for (size_t i = 0; i < d->nlog; i++) {
        struct rec *r = d->log[i];

        if (!r->done && odds(&d->rng, 2)) {
            rec_free(r);
            continue;
        }
        if (!r->done) {
            apply(d, &d->now, r, NULL);
            r->done = ++d->clock;
        }
        d->log[kept++] = r;
    }
    d->nlog = kept;
}

static void read_now(struct disk *d, const struct iovec *iov, uint64_t len, uint64_t off)
{
    for (; len; iov++) {
        size_t n = iov->iov_len < len ? iov->iov_len : (size_t)len;

        store_read(&d->now, iov->iov_base, n, off);
        off += n;
        len -= n;
    }
}

/* ---- the blocking callbacks ---- */

/* Others run meanwhile, and the power may go. Returns rc, or -EIO if it has. */
static int in_flight(struct disk *d, int rc)
{
    point(d);
    if (!d->quiet) {
        pthread_mutex_unlock(d->lock);
        sched_yield();
        pthread_mutex_lock(d->lock);
    }
    return d->off ? -EIO : rc;
}

static int change(struct disk *d, int kind, const struct iovec *iov, uint64_t len, uint64_t off)
{
    struct rec *r;
    int rc;

    pthread_mutex_lock(d->lock);
    if (d->off) {
        pthread_mutex_unlock(d->lock);
        return -EIO;
    }
    r = record(d, kind, iov, len, off);
    rc = in_flight(d, fault_of(d, kind));
    finish_rec(d, r, rc);
    point(d);
    pthread_mutex_unlock(d->lock);
    return rc;
}

static uint64_t total(const struct iovec *iov, int cnt)
{
    uint64_t len = 0;

    for (int i = 0; i < cnt; i++)
        len += iov[i].iov_len;
    return len;
}

static int do_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return change(self, ZQCOW2_IO_WRITE, iov, total(iov, cnt), off);
}

static int do_zero(void *self, uint64_t off, uint64_t len)
{
    return change(self, ZQCOW2_IO_ZERO, NULL, len, off);
}

static int do_discard(void *self, uint64_t off, uint64_t len)
{
    return change(self, ZQCOW2_IO_DISCARD, NULL, len, off);
}

static int do_truncate(void *self, uint64_t size)
{
    return change(self, ZQCOW2_IO_TRUNCATE, NULL, 0, size);
}

static int do_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct disk *d = self;
    int rc;

    pthread_mutex_lock(d->lock);
    rc = fault_of(d, ZQCOW2_IO_READ);
    if (!rc)
        read_now(d, iov, total(iov, cnt), off);
    pthread_mutex_unlock(d->lock);
    return rc;
}

static int do_flush(void *self)
{
    struct disk *d = self;
    uint64_t began;
    int rc;

    pthread_mutex_lock(d->lock);
    rc = fault_of(d, ZQCOW2_IO_FLUSH);
    began = d->clock;
    rc = in_flight(d, rc);
    finish_flush(d, began, rc);
    point(d);
    pthread_mutex_unlock(d->lock);
    return rc;
}

static int do_length(void *self, uint64_t *bytes)
{
    struct disk *d = self;

    pthread_mutex_lock(d->lock);
    *bytes = d->now.size;
    pthread_mutex_unlock(d->lock);
    return 0;
}

static int do_limits(void *self, struct zqcow2_limits *out)
{
    struct disk *d = self;

    out->io_align = d->lim.io_align;
    out->buf_align = d->lim.buf_align;
    out->max_iov = d->lim.max_iov;
    out->max_transfer = d->lim.max_transfer;
    out->atomic_write = d->lim.tear == 512 ? 0 : d->lim.tear;
    out->caps = d->lim.caps | (d->read_only ? ZQCOW2_CAP_READ_ONLY : 0u);
    return 0;
}

/* ---- the asynchronous callbacks: whatever is in flight completes in any order ---- */

static int do_submit(void *self, struct zqcow2_io *io)
{
    struct disk *d = self;
    struct flight *f;

    pthread_mutex_lock(d->lock);
    d->flight = need(realloc(d->flight, (d->nflight + 1) * sizeof(*f)));
    f = &d->flight[d->nflight++];
    *f = (struct flight){io, NULL, d->clock};
    if (io->kind != ZQCOW2_IO_READ && io->kind != ZQCOW2_IO_FLUSH && !d->off)
        f->rec = record(d, (int)io->kind, io->iov, io->length, io->offset);
    point(d);
    pthread_cond_broadcast(&d->cond);
    pthread_mutex_unlock(d->lock);
    if (write(d->event, &(uint64_t){1}, 8) != 8 && errno != EAGAIN)
        abort();
    return 0;
}

static int complete(struct disk *d, const struct flight *f)
{
    int rc = fault_of(d, (int)f->io->kind);

    if (f->io->kind == ZQCOW2_IO_READ) {
        if (!rc)
            read_now(d, f->io->iov, f->io->length, f->io->offset);
        return rc;
    }
    if (f->io->kind == ZQCOW2_IO_FLUSH)
        finish_flush(d, f->began, rc);
    else if (f->rec)
        finish_rec(d, f->rec, rc);
    point(d);
    return rc;
}

static void await(struct disk *d, int timeout_ms)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += timeout_ms % 1000 * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000L;
    }
    while (!d->nflight && !d->woken) {
        if (timeout_ms < 0)
            pthread_cond_wait(&d->cond, d->lock);
        else if (pthread_cond_timedwait(&d->cond, d->lock, &until))
            break;
    }
}

static int do_poll(void *self, int timeout_ms)
{
    struct disk *d = self;
    uint64_t count, n;

    pthread_mutex_lock(d->lock);
    if (!d->nflight && !d->woken && timeout_ms)
        await(d, timeout_ms);
    d->woken = false;
    n = d->nflight ? 1 + below(&d->rng, 3) : 0;
    while (n-- && d->nflight) {
        size_t i = (size_t)below(&d->rng, d->nflight);
        struct flight f = d->flight[i];
        int rc;

        d->flight[i] = d->flight[--d->nflight];
        rc = complete(d, &f);
        pthread_mutex_unlock(d->lock);
        zqcow2_io_done(f.io, rc);
        pthread_mutex_lock(d->lock);
    }
    if (!d->nflight && read(d->event, &count, 8) != 8 && errno != EAGAIN)
        abort();
    pthread_mutex_unlock(d->lock);
    return 0;
}

static void do_wake(void *self)
{
    struct disk *d = self;

    pthread_mutex_lock(d->lock);
    d->woken = true;
    pthread_cond_broadcast(&d->cond);
    pthread_mutex_unlock(d->lock);
    if (write(d->event, &(uint64_t){1}, 8) != 8 && errno != EAGAIN)
        abort();
}

static int do_fd(void *self)
{
    return ((struct disk *)self)->event;
}

struct zqcow2_backend *disk_backend(struct disk *d)
{
    struct zqcow2_backend *be = NULL;
    struct zqcow2_backend_ops ops = {.size = sizeof(ops), .name = "powercut"};

    ops.length = do_length;
    ops.readv = do_readv;
    ops.flush = do_flush;
    ops.limits = do_limits;
    if (!d->read_only) {
        ops.writev = do_writev;
        ops.truncate = do_truncate;
        ops.zero = d->lim.no_zero ? NULL : do_zero;
        ops.discard = d->lim.no_discard ? NULL : do_discard;
        ops.allocate = d->lim.no_allocate ? NULL : do_zero;
    }
    if (d->lim.async) {
        ops.submit = do_submit;
        ops.poll = do_poll;
        ops.wake = do_wake;
        ops.fd = do_fd;
    }
    if (zqcow2_backend_new(&ops, d, NULL, &be)) {
        fprintf(stderr, "powercut: no backend\n");
        exit(2);
    }
    return be;
}
