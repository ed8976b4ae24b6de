/* SPDX-License-Identifier: MIT */
/*
 * Faults on a live disk: the object, and its backend, which stands on another by public functions
 * alone. Like the simulated disk, the object outlives its backend, as a disk outlives the program
 * that has lost power with it.
 */
#include <errno.h>
#include <inttypes.h>
#include <time.h>

#include "backend/faults_int.h"
#include "base/bytes.h"

#define MAX_HELD (64u << 20)

static void sleep_for(uint64_t us)
{
    struct timespec t = {(time_t)(us / 1000000), (long)(us % 1000000 * 1000)};

    while (nanosleep(&t, &t) < 0 && errno == EINTR) {}
}

/* 0: the lock is held, and the request is carried out. A delay blocks nobody else. */
static int begin(struct zqcow2_faults *f, uint32_t kind, uint64_t off, uint64_t len)
{
    uint64_t delay = 0;
    int rc = -EIO;

    pthread_mutex_lock(&f->lock);
    if (!f->off)
        rc = zq_rules_hit(f, kind, off, len, &delay);
    if (delay) {
        pthread_mutex_unlock(&f->lock);
        sleep_for(delay);
        pthread_mutex_lock(&f->lock);
        rc = f->off ? -EIO : rc;
    }
    if (rc < 0)
        pthread_mutex_unlock(&f->lock);
    return rc;
}

/* Ends what begin() began, and passes on its result. */
static int end(struct zqcow2_faults *f, int rc)
{
    pthread_mutex_unlock(&f->lock);
    return rc;
}

/* ---- the callbacks ---- */

static uint64_t total(const struct iovec *iov, int cnt)
{
    uint64_t sum = 0;

    for (int i = 0; i < cnt; i++)
        sum += iov[i].iov_len;
    return sum;
}

static int faults_length(void *self, uint64_t *bytes)
{
    struct zqcow2_faults *f = self;
    int rc;

    pthread_mutex_lock(&f->lock);
    *bytes = f->length;
    rc = f->off ? -EIO : 0;
    return end(f, rc);
}

/* One instant for both: inner cannot change between its bytes and what lies on top. */
static int faults_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct zqcow2_faults *f = self;
    uint64_t len = total(iov, cnt);
    int rc = begin(f, ZQCOW2_IO_READ, off, len);

    if (rc < 0)
        return rc;
    rc = zqcow2_backend_readv(f->inner, iov, cnt, off);
    if (rc == 0)
        zq_held_overlay(f, iov, off, len);
    return end(f, rc);
}

/* Inner hears of a change at the next flush; here it can only fail for room. */
static int change(void *self, uint32_t kind, const struct iovec *iov, uint64_t off, uint64_t len)
{
    struct zqcow2_faults *f = self;
    int rc = begin(f, kind, off, len);

    return rc < 0 ? rc : end(f, zq_held_add(f, kind, iov, off, len));
}

static int faults_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return change(self, ZQCOW2_IO_WRITE, iov, off, total(iov, cnt));
}

static int faults_zero(void *self, uint64_t off, uint64_t len)
{
    return change(self, ZQCOW2_IO_ZERO, NULL, off, len);
}

static int faults_discard(void *self, uint64_t off, uint64_t len)
{
    return change(self, ZQCOW2_IO_DISCARD, NULL, off, len);
}

static int faults_truncate(void *self, uint64_t bytes)
{
    return change(self, ZQCOW2_IO_TRUNCATE, NULL, bytes, 0);
}

/* With the lock held: a change that comes meanwhile belongs to the next flush. */
static int faults_flush(void *self)
{
    struct zqcow2_faults *f = self;
    int rc = begin(f, ZQCOW2_IO_FLUSH, 0, 0);
    uint64_t held;

    if (rc < 0)
        return rc;
    held = f->nr_held;
    rc = zq_held_apply_all(f);
    if (rc == 0)
        rc = zqcow2_backend_flush(f->inner);
    zq_faults_say(f, "flush: %" PRIu64 " changes, result %d", held - f->nr_held, rc);
    return end(f, rc);
}

/* Requests are passed on in aligned pieces at most as long as they came. */
static int faults_limits(void *self, struct zqcow2_limits *out)
{
    *out = ((struct zqcow2_faults *)self)->limits;
    out->caps &= ZQCOW2_CAP_READ_ONLY;
    return 0;
}

/* Locks belong to the file, not to its power: the next program must be able to take them. */
static int faults_lock(void *self, int mode)
{
    return zqcow2_backend_lock(((struct zqcow2_faults *)self)->inner, mode);
}

static void faults_invalidate(void *self)
{
    zqcow2_backend_invalidate(((struct zqcow2_faults *)self)->inner);
}

/* What is held stays, as in a disk whose program ends. */
static void faults_close(void *self)
{
    struct zqcow2_faults *f = self;

    zqcow2_backend_lock(f->inner, ZQCOW2_LOCK_NONE);
    pthread_mutex_lock(&f->lock);
    f->in_use = false;
    pthread_mutex_unlock(&f->lock);
}

/*
 * The table says what inner can, so that its lacks show. Without allocate() and data(): space is
 * taken when a change is applied, and what inner knows of its holes is not what reads see.
 */
static struct zqcow2_backend_ops table(const struct zqcow2_backend_ops *in)
{
    return (struct zqcow2_backend_ops){
        .size = sizeof(struct zqcow2_backend_ops),
        .name = "faults",
        .close = faults_close,
        .length = faults_length,
        .readv = faults_readv,
        .writev = in->writev ? faults_writev : NULL,
        .flush = faults_flush,
        .limits = faults_limits,
        .truncate = in->truncate ? faults_truncate : NULL,
        .discard = in->discard ? faults_discard : NULL,
        .zero = in->zero ? faults_zero : NULL,
        .lock = in->lock ? faults_lock : NULL,
        .invalidate = in->invalidate ? faults_invalidate : NULL,
    };
}

int zqcow2_faults_backend(struct zqcow2_faults *f, struct zqcow2_backend **be)
{
    struct zqcow2_backend_ops ops;
    bool taken;
    int rc;

    if (!f || !be)
        return -EINVAL;
    pthread_mutex_lock(&f->lock);
    taken = f->in_use;
    f->in_use = true;
    pthread_mutex_unlock(&f->lock);
    if (taken)
        return -EBUSY;
    ops = table(zqcow2_backend_table(f->inner));
    rc = zqcow2_backend_new(&ops, f, &f->hooks, be);
    if (rc < 0) {
        pthread_mutex_lock(&f->lock);
        f->in_use = false;
        pthread_mutex_unlock(&f->lock);
    }
    return rc;
}

uint64_t zqcow2_faults_held(struct zqcow2_faults *f)
{
    uint64_t held;

    pthread_mutex_lock(&f->lock);
    held = f->nr_held;
    pthread_mutex_unlock(&f->lock);
    return held;
}

/* ---- making and freeing ---- */

static void destroy(struct zqcow2_faults *f)
{
    struct zqcow2_hooks hooks = f->hooks;

    pthread_mutex_destroy(&f->lock);
    zq_free(&hooks, f->scratch, ZQ_SCRATCH_BYTES);
    zq_free(&hooks, f, sizeof(*f));
}

/* An asynchronous backend whose blocking calls need a poll() elsewhere would never return. */
static int look_at(struct zqcow2_faults *f)
{
    f->limits.size = sizeof(f->limits);
    zqcow2_backend_limits(f->inner, &f->limits);
    if (zqcow2_backend_table(f->inner)->submit && !(f->limits.caps & ZQCOW2_CAP_BLOCKING_CALLS))
        return -EOPNOTSUPP;
    return zqcow2_backend_length(f->inner, &f->length);
}

/* A page's alignment satisfies the buf_align of any backend. */
static int make(struct zqcow2_backend *inner, const struct zqcow2_faults_options *opt,
                const struct zqcow2_hooks *hooks, struct zqcow2_faults **out)
{
    struct zqcow2_faults *f = zq_zalloc(hooks, sizeof(*f));
    int rc = -ENOMEM;

    if (!f)
        return rc;
    f->hooks = *hooks;
    f->opt = *opt;
    f->opt.hooks = NULL;
    f->inner = inner;
    zq_list_init(&f->held);
    zq_list_init(&f->rules);
    pthread_mutex_init(&f->lock, NULL); /* default attributes: cannot fail */
    f->scratch = zq_alloc(hooks, 4096, ZQ_SCRATCH_BYTES);
    if (f->scratch)
        rc = look_at(f);
    if (rc < 0)
        destroy(f);
    else
        *out = f;
    return rc;
}

int zqcow2_faults_wrap(struct zqcow2_backend *inner, const struct zqcow2_faults_options *opt,
                       struct zqcow2_faults **f)
{
    struct zqcow2_faults_options o = ZQCOW2_FAULTS_OPTIONS_INIT;
    struct zqcow2_hooks hooks;
    int rc = inner && f ? 0 : -EINVAL;

    if (rc == 0 && opt)
        rc = zq_copy_sized(&o, sizeof(o), opt, sizeof(o));
    if (rc == 0)
        rc = zq_hooks_init(&hooks, o.hooks);
    if (rc < 0)
        return rc;
    o.max_held = o.max_held ? o.max_held : MAX_HELD;
    rc = zqcow2_backend_claim(inner);
    if (rc < 0)
        return rc;
    rc = make(inner, &o, &hooks, f);
    if (rc < 0)
        zqcow2_backend_release(inner);
    return rc;
}

void zqcow2_faults_free(struct zqcow2_faults *f)
{
    int rc;

    if (!f)
        return;
    pthread_mutex_lock(&f->lock);
    rc = zq_held_apply_all(f);
    zq_faults_say(f, "free: result %d", rc);
    while (!zq_list_empty(&f->held))
        zq_held_drop(f, zq_container(f->held.next, struct zq_held, link));
    zq_rules_clear(f);
    pthread_mutex_unlock(&f->lock);
    zqcow2_backend_close(f->inner);
    destroy(f);
}
