/* SPDX-License-Identifier: MIT */
/*
 * Makes a blocking backend asynchronous: a fixed number of threads take requests from one queue.
 *
 * All memory is taken at creation; the queue is linked through the requests themselves. Close
 * lets the threads finish what is queued, and joins them. The inner backend is owned from success
 * on, and is closed when no thread can call it any more.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

#include "device/backend.h"
#include "backend/fifo.h"
#include "base/bytes.h"

#define THREADS_MAX 256u

struct threads {
    struct zqcow2_hooks hooks;
    struct zqcow2_backend *inner; /* called by several threads at once */
    pthread_mutex_t mutex;        /* of what follows */
    pthread_cond_t wanted;
    struct zq_fifo queue;
    unsigned idle; /* threads in take() that wait: without one there is none to signal */
    bool stop;     /* close has begun: take() ends when the queue is empty */
    unsigned n;    /* threads that run; fixed after creation */
    pthread_t tid[];
};

/* ---- the threads ---- */

/* Waits for a request. NULL: there is none, and none will come. */
static struct zqcow2_io *take(struct threads *t)
{
    struct zqcow2_io *io;

    pthread_mutex_lock(&t->mutex);
    t->idle++;
    while (!t->queue.head && !t->stop)
        pthread_cond_wait(&t->wanted, &t->mutex);
    t->idle--;
    io = zq_fifo_pop(&t->queue);
    pthread_mutex_unlock(&t->mutex);
    return io;
}

/*
 * A backend that cannot zero is written to, in pieces of at most its max_transfer. Requests come
 * aligned to the inner backend's limits, so a whole number of blocks is written.
 */
static int zero(struct threads *t, uint64_t off, uint64_t len)
{
    const struct zqcow2_backend *in = t->inner;
    uint64_t limit = in->limits.max_transfer,
             max = limit ? zq_min(limit, ZQ_ZEROS_BYTES) : ZQ_ZEROS_BYTES;
    int rc = in->ops.zero ? zq_call_zero(in, off, len) : -EOPNOTSUPP;

    if (rc != -EOPNOTSUPP)
        return rc;
    for (rc = 0; len && rc == 0;) {
        struct iovec iov = {(void *)(uintptr_t)zq_zeros, (size_t)zq_min(len, max)};
        rc = zq_call_writev(in, &iov, 1, off);
        off += iov.iov_len;
        len -= iov.iov_len;
    }
    return rc;
}

/* zq_call_*() judge each answer, so what a faulty inner backend returns ends here as -EIO. */
static int run(struct threads *t, const struct zqcow2_io *io)
{
    const struct zqcow2_backend *in = t->inner;

    switch (io->kind) {
    case ZQCOW2_IO_READ: return zq_call_readv(in, io->iov, (int)io->iovcnt, io->offset);
    case ZQCOW2_IO_WRITE: return zq_call_writev(in, io->iov, (int)io->iovcnt, io->offset);
    case ZQCOW2_IO_FLUSH: return zq_call_flush(in);
    case ZQCOW2_IO_ZERO: return zero(t, io->offset, io->length);
    case ZQCOW2_IO_DISCARD: return zq_call_discard(in, io->offset, io->length);
    default: return zq_call_truncate(in, io->offset);
    }
}

/* Once zqcow2_io_done() is called, io is the caller's again, and the image may be closed. */
static void *serve(void *arg)
{
    struct threads *t = arg;

    for (struct zqcow2_io *io; (io = take(t));)
        zqcow2_io_done(io, run(t, io));
    return NULL;
}

/* ---- the callbacks ---- */

/* What the inner backend lacks is left to the library, which knows what to do without it. */
static bool supported(const struct zqcow2_backend_ops *ops, uint32_t kind)
{
    switch (kind) {
    case ZQCOW2_IO_READ: return true;
    case ZQCOW2_IO_WRITE:
    case ZQCOW2_IO_ZERO: return ops->writev;
    case ZQCOW2_IO_FLUSH: return ops->flush;
    case ZQCOW2_IO_DISCARD: return ops->discard;
    case ZQCOW2_IO_TRUNCATE: return ops->truncate;
    default: return false;
    }
}

/*
 * Never waits and never fails for memory. A signal only if a thread sleeps: a busy one looks at the
 * queue before it does.
 */
static int threads_submit(void *self, struct zqcow2_io *io)
{
    struct threads *t = self;

    if (!supported(&t->inner->ops, io->kind))
        return -EOPNOTSUPP;
    pthread_mutex_lock(&t->mutex);
    zq_fifo_push(&t->queue, io);
    if (t->idle)
        pthread_cond_signal(&t->wanted);
    pthread_mutex_unlock(&t->mutex);
    return 0;
}

static int threads_length(void *self, uint64_t *bytes)
{
    return zq_call_length(((struct threads *)self)->inner, bytes);
}

static int threads_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return zq_call_readv(((struct threads *)self)->inner, iov, cnt, off);
}

static int threads_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    return zq_call_writev(((struct threads *)self)->inner, iov, cnt, off);
}

/*
 * Through zq_be_flush() and the like where the inner backend may lack the function: those know what
 * a missing one means.
 */
static int threads_flush(void *self)
{
    return zq_be_flush(((struct threads *)self)->inner);
}

/* The inner limits hold unchanged, since each request reaches it as it came. */
static int threads_limits(void *self, struct zqcow2_limits *out)
{
    *out = ((struct threads *)self)->inner->limits;
    out->caps |= ZQCOW2_CAP_BLOCKING_CALLS; /* the inner backend takes calls from any thread */
    return 0;
}

static int threads_truncate(void *self, uint64_t bytes)
{
    return zq_call_truncate(((struct threads *)self)->inner, bytes);
}

static int threads_discard(void *self, uint64_t off, uint64_t len)
{
    return zq_call_discard(((struct threads *)self)->inner, off, len);
}

static int threads_zero(void *self, uint64_t off, uint64_t len)
{
    return zq_call_zero(((struct threads *)self)->inner, off, len);
}

static int threads_allocate(void *self, uint64_t off, uint64_t len)
{
    return zq_call_allocate(((struct threads *)self)->inner, off, len);
}

static int threads_data(void *self, uint64_t off, uint64_t *begin, uint64_t *end)
{
    return zq_be_data(((struct threads *)self)->inner, off, begin, end);
}

static int threads_lock(void *self, int mode)
{
    return zq_be_lock(((struct threads *)self)->inner, mode);
}

static void threads_invalidate(void *self)
{
    struct zqcow2_backend *in = ((struct threads *)self)->inner;

    if (in->ops.invalidate)
        in->ops.invalidate(in->self);
}

/* ---- making and closing ---- */

static size_t struct_bytes(unsigned n)
{
    return sizeof(struct threads) + n * sizeof(pthread_t);
}

/* What is queued is still carried out: a thread ends only when the queue is empty. */
static void join(struct threads *t)
{
    pthread_mutex_lock(&t->mutex);
    t->stop = true;
    pthread_cond_broadcast(&t->wanted);
    pthread_mutex_unlock(&t->mutex);
    for (unsigned i = 0; i < t->n; i++)
        pthread_join(t->tid[i], NULL);
}

/* The inner backend stays. `room`: for how many threads the struct was made. */
static void destroy(struct threads *t, unsigned room)
{
    struct zqcow2_hooks hooks = t->hooks;

    pthread_cond_destroy(&t->wanted);
    pthread_mutex_destroy(&t->mutex);
    zq_free(&hooks, t, struct_bytes(room));
}

/* The inner backend is closed after the last thread: until then one may be calling it. */
static void threads_close(void *self)
{
    struct threads *t = self;

    join(t);
    zqcow2_backend_close(t->inner);
    destroy(t, t->n);
}

/*
 * Signals are the program's: none is delivered to a thread of ours. Whatever limit is reached, it
 * is ENOMEM: the EAGAIN of pthread_create() would mean that another program has the file.
 */
static int start_threads(struct threads *t, unsigned n)
{
    sigset_t all, old;
    int rc = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (t->n < n && rc == 0) {
        if (pthread_create(&t->tid[t->n], NULL, serve, t) == 0)
            t->n++;
        else
            rc = -ENOMEM;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

/* The table says what the inner backend can, so that its lacks show. */
static struct zqcow2_backend_ops table(const struct zqcow2_backend_ops *in)
{
    return (struct zqcow2_backend_ops){
        .size = sizeof(struct zqcow2_backend_ops),
        .name = "threads",
        .close = threads_close,
        .length = threads_length,
        .readv = threads_readv,
        .writev = in->writev ? threads_writev : NULL,
        .flush = in->flush ? threads_flush : NULL,
        .limits = threads_limits,
        .truncate = in->truncate ? threads_truncate : NULL,
        .discard = in->discard ? threads_discard : NULL,
        .zero = in->zero ? threads_zero : NULL,
        .lock = in->lock ? threads_lock : NULL,
        .invalidate = in->invalidate ? threads_invalidate : NULL,
        .submit = threads_submit,
        .allocate = in->allocate ? threads_allocate : NULL,
        .data = in->data ? threads_data : NULL,
    };
}

static struct threads *make(struct zqcow2_backend *inner, unsigned n, const struct zqcow2_hooks *h)
{
    struct threads *t = zq_zalloc(h, struct_bytes(n));

    if (!t)
        return NULL;
    t->hooks = *h;
    t->inner = inner;
    /* Default attributes: these cannot fail. */
    pthread_mutex_init(&t->mutex, NULL);
    pthread_cond_init(&t->wanted, NULL);
    return t;
}

/*
 * The claim on inner stays as long as this backend: nobody else may use it. On failure it is
 * released, and inner is the caller's as before.
 */
int zqcow2_threads_wrap(struct zqcow2_backend *inner, unsigned n, const struct zqcow2_hooks *hooks,
                        struct zqcow2_backend **be)
{
    struct zqcow2_backend_ops ops;
    struct zqcow2_hooks h;
    struct threads *t;
    int rc = inner && be && n && n <= THREADS_MAX ? zq_hooks_init(&h, hooks) : -EINVAL;

    if (rc < 0)
        return rc;
    if (zq_be_claim(inner) < 0)
        return -EBUSY;
    t = make(inner, n, &h);
    if (!t) {
        zq_be_release(inner);
        return -ENOMEM;
    }
    ops = table(&inner->ops);
    rc = start_threads(t, n);
    if (rc == 0)
        rc = zqcow2_backend_new(&ops, t, &h, be);
    if (rc < 0) {
        join(t);
        destroy(t, n);
        zq_be_release(inner);
    }
    return rc;
}
