/* SPDX-License-Identifier: MIT */
/* Takes I/O, does it at some time, reports it at some later time, in an order the seed decides. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "rig/be_shuffle.h"
#include "rig/rng.h"

/* backend[0]: the next one in the list; backend[1]: done already, with backend[2] as its result. */

static uint64_t draw(struct shuffle *s, uint64_t n)
{
    return rng_below(&s->rng, n);
}

static void signal_event(struct shuffle *s)
{
    uint64_t one = 1;
    ssize_t n = write(s->event, &one, sizeof(one));

    (void)n; /* the counter cannot overflow: it is drained whenever the list is empty */
}

static void drain_event(struct shuffle *s)
{
    uint64_t sum;
    ssize_t n = read(s->event, &sum, sizeof(sum));

    (void)n;
}

static int perform(struct shuffle *s, struct zqcow2_io *io)
{
    const struct zqcow2_backend_ops *ops = s->under.ops;
    void *self = s->under.self;

    switch (io->kind) {
    case ZQCOW2_IO_READ: return ops->readv(self, io->iov, (int)io->iovcnt, io->offset);
    case ZQCOW2_IO_WRITE: return ops->writev(self, io->iov, (int)io->iovcnt, io->offset);
    case ZQCOW2_IO_FLUSH: return ops->flush(self);
    case ZQCOW2_IO_ZERO: return ops->zero(self, io->offset, io->length);
    case ZQCOW2_IO_DISCARD: return ops->discard(self, io->offset, io->length);
    case ZQCOW2_IO_TRUNCATE: return ops->truncate(self, io->offset);
    }
    return -EINVAL;
}

/* Done long before it is reported: its effect may overtake, or be overtaken by, others'. */
static void perform_early(struct shuffle *s, struct zqcow2_io *io)
{
    io->backend[1] = io;
    io->backend[2] = (void *)(intptr_t)perform(s, io);
}

static int op_submit(void *self, struct zqcow2_io *io)
{
    struct shuffle *s = self;
    bool early, now;

    if (s->refuse >> io->kind & 1)
        return -EOPNOTSUPP;
    pthread_mutex_lock(&s->lock);
    early = s->mode != SHUFFLE_HELD && io->kind != ZQCOW2_IO_FLUSH && draw(s, 4) == 0;
    now = s->inline_in && draw(s, s->inline_in) == 0;
    pthread_mutex_unlock(&s->lock);
    if (now) {
        zqcow2_io_done(io, perform(s, io));
        return 0;
    }
    io->backend[1] = NULL;
    if (early)
        perform_early(s, io);
    pthread_mutex_lock(&s->lock);
    io->backend[0] = s->head;
    s->head = io;
    if (++s->count > s->deepest)
        s->deepest = s->count;
    signal_event(s);
    pthread_cond_signal(&s->more);
    pthread_mutex_unlock(&s->lock);
    return 0;
}

static bool is_held(const struct shuffle *s, const struct zqcow2_io *io)
{
    for (unsigned i = 0; i < s->nr_holds; i++) {
        const struct hold *h = &s->hold[i];
        bool inside = io->kind == ZQCOW2_IO_FLUSH ||
                      (io->offset < h->end && io->offset + io->length > h->off);

        if (inside && h->kinds >> io->kind & 1)
            return true;
    }
    return false;
}

uint32_t shuffle_held(const struct shuffle *s)
{
    uint32_t n = 0;

    for (const struct zqcow2_io *io = s->head; io; io = io->backend[0])
        n += is_held(s, io);
    return n;
}

/* How far from the head: any, or of those that are not held the first that came. */
static uint64_t choose(struct shuffle *s)
{
    uint64_t k = 0, at = 0;

    if (s->oldest_last)
        return s->count > 1 ? s->count - 2 : 0;
    if (s->mode != SHUFFLE_HELD)
        return draw(s, s->count);
    for (const struct zqcow2_io *io = s->head; io; io = io->backend[0], at++)
        k = is_held(s, io) ? k : at;
    return k;
}

/* One of those in the list. The lock is held. */
static struct zqcow2_io *pick(struct shuffle *s)
{
    struct zqcow2_io *io = s->head, *before = NULL;

    for (uint64_t k = choose(s); k; k--) {
        before = io;
        io = io->backend[0];
    }
    if (before)
        before->backend[0] = io->backend[0];
    else
        s->head = io->backend[0];
    s->count--;
    s->done++;
    return io;
}

static void finish(struct shuffle *s, struct zqcow2_io *io)
{
    int rc = io->backend[1] ? (int)(intptr_t)io->backend[2] : perform(s, io);

    if (s->after)
        s->after(s->arg, io);
    zqcow2_io_done(io, rc);
}

/* Until there is work, somebody wakes us or the time is over. The lock is dropped meanwhile. */
static void await(struct shuffle *s, int timeout_ms)
{
    while (!s->count && !s->woken && timeout_ms) {
        struct pollfd p = {s->event, POLLIN, 0};

        drain_event(s);
        pthread_mutex_unlock(&s->lock);
        poll(&p, 1, timeout_ms);
        pthread_mutex_lock(&s->lock);
        if (timeout_ms > 0)
            break;
    }
}

/* How many complete now: at least one, if it may block. */
static uint64_t portion(struct shuffle *s, int timeout_ms)
{
    uint64_t n = 0;

    if (s->mode != SHUFFLE_HELD) {
        if (s->count)
            n = timeout_ms ? 1 + draw(s, s->count) : draw(s, s->count + 1ull);
        return s->oldest_last && s->count > 1 && n == s->count ? n - 1 : n;
    }
    if (s->count > shuffle_held(s))
        return 1;
    if (timeout_ms < 0) {
        fprintf(stderr, "the library waits for what the test holds\n");
        abort();
    }
    return 0;
}

/* Only what was there when it began. */
static int op_poll(void *self, int timeout_ms)
{
    struct shuffle *s = self;
    uint64_t n;

    pthread_mutex_lock(&s->lock);
    if (s->mode != SHUFFLE_HELD)
        await(s, timeout_ms);
    s->woken = false;
    n = portion(s, timeout_ms);
    for (uint64_t i = 0; i < n; i++) {
        struct zqcow2_io *io = pick(s);

        pthread_mutex_unlock(&s->lock);
        finish(s, io);
        pthread_mutex_lock(&s->lock);
    }
    if (!s->count && !s->woken)
        drain_event(s);
    pthread_mutex_unlock(&s->lock);
    return (int)n;
}

static void op_wake(void *self)
{
    struct shuffle *s = self;

    pthread_mutex_lock(&s->lock);
    s->woken = true;
    signal_event(s);
    pthread_mutex_unlock(&s->lock);
}

static int op_fd(void *self)
{
    struct shuffle *s = self;

    return s->event;
}

static void *worker(void *arg)
{
    struct shuffle *s = arg;

    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->count && !s->stop)
            pthread_cond_wait(&s->more, &s->lock);
        if (!s->count)
            break;
        struct zqcow2_io *io = pick(s);

        pthread_mutex_unlock(&s->lock);
        finish(s, io);
        pthread_mutex_lock(&s->lock);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

void shuffle_init(struct shuffle *s, struct rig_be under, enum shuffle_mode mode, uint64_t seed)
{
    memset(s, 0, sizeof(*s));
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->more, NULL);
    s->under = under;
    s->mode = mode;
    s->rng = seed;
    s->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (s->event < 0 || (mode == SHUFFLE_THREADED && pthread_create(&s->thread, NULL, worker, s)))
        abort();
}

void shuffle_hold(struct shuffle *s, uint32_t kinds, uint64_t off, uint64_t len)
{
    if (s->nr_holds == SHUFFLE_HOLDS)
        abort();
    s->hold[s->nr_holds++] =
        (struct hold){kinds, off, len > UINT64_MAX - off ? UINT64_MAX : off + len};
}

void shuffle_release(struct shuffle *s)
{
    s->nr_holds = 0;
}

void shuffle_free(struct shuffle *s)
{
    if (s->mode == SHUFFLE_THREADED) {
        pthread_mutex_lock(&s->lock);
        s->stop = true;
        pthread_cond_signal(&s->more);
        pthread_mutex_unlock(&s->lock);
        pthread_join(s->thread, NULL);
    }
    close(s->event);
    pthread_cond_destroy(&s->more);
    pthread_mutex_destroy(&s->lock);
    memset(s, 0, sizeof(*s));
}

/* The blocking functions go straight through: create, open and check use them. */
static int op_length(void *self, uint64_t *bytes)
{
    struct shuffle *s = self;

    return s->under.ops->length(s->under.self, bytes);
}

static int op_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct shuffle *s = self;

    return s->under.ops->readv(s->under.self, iov, cnt, off);
}

static int op_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    struct shuffle *s = self;

    return s->under.ops->writev(s->under.self, iov, cnt, off);
}

static int op_flush(void *self)
{
    struct shuffle *s = self;

    return s->under.ops->flush(s->under.self);
}

static int op_limits(void *self, struct zqcow2_limits *out)
{
    struct shuffle *s = self;

    int rc = s->under.ops->limits(s->under.self, out);

    out->caps |= s->caps;
    return rc;
}

static int op_truncate(void *self, uint64_t bytes)
{
    struct shuffle *s = self;

    return s->under.ops->truncate(s->under.self, bytes);
}

static int op_discard(void *self, uint64_t off, uint64_t len)
{
    struct shuffle *s = self;

    return s->under.ops->discard(s->under.self, off, len);
}

static int op_zero(void *self, uint64_t off, uint64_t len)
{
    struct shuffle *s = self;

    return s->under.ops->zero(s->under.self, off, len);
}

static int op_lock(void *self, int mode)
{
    struct shuffle *s = self;

    return s->under.ops->lock(s->under.self, mode);
}

#define BLOCKING_OPS \
    .length = op_length, .readv = op_readv, .writev = op_writev, .flush = op_flush, \
    .limits = op_limits, .truncate = op_truncate, .discard = op_discard, .zero = op_zero, \
    .lock = op_lock, .submit = op_submit

struct rig_be shuffle_be(struct shuffle *s)
{
    static const struct zqcow2_backend_ops polled = {
        .size = sizeof(polled),
        .name = "shuffle",
        BLOCKING_OPS,
        .wake = op_wake,
        .poll = op_poll,
        .fd = op_fd,
    };
    static const struct zqcow2_backend_ops threaded = {
        .size = sizeof(threaded),
        .name = "shuffle-threaded",
        BLOCKING_OPS,
    };

    return (struct rig_be){s->mode == SHUFFLE_THREADED ? &threaded : &polled, s};
}
