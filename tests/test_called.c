/* SPDX-License-Identifier: MIT */
/*
 * An asynchronous backend whose blocking callbacks may be called (ZQCOW2_CAP_BLOCKING_CALLS): a
 * blocking call does its I/O in its own thread, and nobody else's I/O waits for that.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "rig/ticket.h"

#define ZONE  MiB(1)
#define ZONES 8u
#define UNIT  4096u

/*
 * The backend: what is submitted is done by poll(), all of it. The blocking calls of one thread, or
 * of all, can be held.
 */
struct desk {
    struct store store;
    struct zqcow2_image *img;
    uint32_t caps;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct zqcow2_io *head; /* linked by backend[0] */
    int event;
    unsigned submitted, called; /* since the last look */
    bool holds, any;            /* `held`, or any thread */
    pthread_t held;
    unsigned permits, inside; /* held calls that may return; calls that are held now */
    unsigned idle_polls;      /* so many find nothing yet */
    int answer;               /* if not 0: of every write */
};

static void enter(struct desk *d)
{
    pthread_mutex_lock(&d->lock);
    d->called++;
    if (d->holds && (d->any || pthread_equal(d->held, pthread_self()))) {
        d->inside++;
        pthread_cond_broadcast(&d->changed);
        while (d->holds && !d->permits)
            pthread_cond_wait(&d->changed, &d->lock);
        d->permits -= d->permits > 0;
        d->inside--;
        pthread_cond_broadcast(&d->changed);
    }
    pthread_mutex_unlock(&d->lock);
}

static void await_inside(struct desk *d, unsigned n)
{
    pthread_mutex_lock(&d->lock);
    while (d->inside < n)
        pthread_cond_wait(&d->changed, &d->lock);
    pthread_mutex_unlock(&d->lock);
}

static void let_go(struct desk *d)
{
    pthread_mutex_lock(&d->lock);
    d->holds = false;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
}

/* ---- the callbacks: over the store, whose functions count as nobody's calls ---- */

static const struct zqcow2_backend_ops *under(struct desk *d, void **self)
{
    struct rig_be be = store_be(&d->store);

    *self = be.self;
    return be.ops;
}

static int perform(struct desk *d, uint32_t kind, const struct iovec *iov, int cnt, uint64_t off,
                   uint64_t len)
{
    void *self;
    const struct zqcow2_backend_ops *ops = under(d, &self);

    switch (kind) {
    case ZQCOW2_IO_READ: return ops->readv(self, iov, cnt, off);
    case ZQCOW2_IO_WRITE: return d->answer ? d->answer : ops->writev(self, iov, cnt, off);
    case ZQCOW2_IO_FLUSH: return ops->flush(self);
    case ZQCOW2_IO_ZERO: return ops->zero(self, off, len);
    case ZQCOW2_IO_DISCARD: return ops->discard(self, off, len);
    default: return ops->truncate(self, off);
    }
}

static int op_length(void *self, uint64_t *bytes)
{
    void *store;

    return under(self, &store)->length(store, bytes);
}

static int op_readv(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    enter(self);
    return perform(self, ZQCOW2_IO_READ, iov, cnt, off, 0);
}

static int op_writev(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    enter(self);
    return perform(self, ZQCOW2_IO_WRITE, iov, cnt, off, 0);
}

static int op_flush(void *self)
{
    enter(self);
    return perform(self, ZQCOW2_IO_FLUSH, NULL, 0, 0, 0);
}

static int op_zero(void *self, uint64_t off, uint64_t len)
{
    enter(self);
    return perform(self, ZQCOW2_IO_ZERO, NULL, 0, off, len);
}

static int op_discard(void *self, uint64_t off, uint64_t len)
{
    enter(self);
    return perform(self, ZQCOW2_IO_DISCARD, NULL, 0, off, len);
}

static int op_truncate(void *self, uint64_t bytes)
{
    enter(self);
    return perform(self, ZQCOW2_IO_TRUNCATE, NULL, 0, bytes, 0);
}

static int op_limits(void *self, struct zqcow2_limits *out)
{
    out->caps = ((struct desk *)self)->caps;
    return 0;
}

static void signal_event(struct desk *d)
{
    uint64_t one = 1;

    assert_int_equal(write(d->event, &one, sizeof(one)), sizeof(one));
}

static int op_submit(void *self, struct zqcow2_io *io)
{
    struct desk *d = self;

    pthread_mutex_lock(&d->lock);
    d->submitted++;
    io->backend[0] = d->head;
    d->head = io;
    pthread_mutex_unlock(&d->lock);
    signal_event(d);
    return 0;
}

static void op_wake(void *self)
{
    signal_event(self);
}

static int op_fd(void *self)
{
    return ((struct desk *)self)->event;
}

static int op_poll(void *self, int timeout_ms)
{
    struct desk *d = self;
    struct pollfd p = {d->event, POLLIN, 0};
    struct zqcow2_io *all, *io;
    uint64_t n;

    if (poll(&p, 1, timeout_ms) <= 0)
        return 0;
    if (d->idle_polls) {
        d->idle_polls--;
        return 0;
    }
    assert_int_equal(read(d->event, &n, sizeof(n)), sizeof(n));
    pthread_mutex_lock(&d->lock);
    all = d->head;
    d->head = NULL;
    pthread_mutex_unlock(&d->lock);
    while ((io = all)) {
        all = io->backend[0];
        zqcow2_io_done(io, perform(d, io->kind, io->iov, (int)io->iovcnt, io->offset, io->length));
    }
    return 0;
}

static const struct zqcow2_backend_ops ops = {
    .size = sizeof(ops),
    .name = "desk",
    .length = op_length,
    .readv = op_readv,
    .writev = op_writev,
    .flush = op_flush,
    .limits = op_limits,
    .truncate = op_truncate,
    .discard = op_discard,
    .zero = op_zero,
    .submit = op_submit,
    .wake = op_wake,
    .poll = op_poll,
    .fd = op_fd,
};

/* ---- an image on it; zone 0 is conventional ---- */

static uint8_t data[UNIT];

static void begin(struct desk *d, uint32_t caps)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;

    memset(d, 0, sizeof(*d));
    store_init(&d->store);
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->changed, NULL);
    d->event = eventfd(0, EFD_NONBLOCK);
    d->caps = caps;
    how.virtual_size = ZONES * ZONE;
    how.zone_size = ZONE;
    how.conventional_zones = 1;
    opt.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_backend_new(&ops, d, NULL, &be), 0);
    assert_int_equal(zqcow2_create(be, &how, NULL), 0);
    assert_int_equal(zqcow2_open(be, &opt, &d->img, NULL), 0);
    d->submitted = d->called = 0;
}

static void end(struct desk *d)
{
    if (d->img)
        assert_int_equal(zqcow2_close(d->img), 0);
    close(d->event);
    pthread_cond_destroy(&d->changed);
    pthread_mutex_destroy(&d->lock);
    store_free(&d->store);
    rig_watch(0, "over");
}

static void write_unit(struct desk *d, uint64_t off)
{
    assert_int_equal(zqcow2_write(d->img, data, UNIT, off, 0), 0);
}

/* ---- who does what ---- */

static int first_write(struct desk *d)
{
    return zqcow2_write(d->img, data, UNIT, ZONE, 0);
}
static int next_write(struct desk *d)
{
    return zqcow2_write(d->img, data, UNIT, ZONE + UNIT, 0);
}
static int append(struct desk *d)
{
    uint64_t at = ZONE;

    return zqcow2_append(d->img, data, UNIT, &at, 0);
}
static int read_back(struct desk *d)
{
    return zqcow2_read(d->img, data, UNIT, ZONE);
}
static int two_elements(struct desk *d)
{
    struct iovec iov[2] = {{data, 512}, {data + 512, UNIT - 512}};
    struct zqcow2_request r = {.size = sizeof(r),
                               .op = ZQCOW2_OP_WRITE,
                               .offset = ZONE + 3 * UNIT,
                               .iov = iov,
                               .iovcnt = 2};

    return zqcow2_run(d->img, &r, NULL);
}
static int zeroes(struct desk *d)
{
    return zqcow2_write_zeroes(d->img, ZONE - 4 * UNIT, ZONE + 4 * UNIT, 0);
}
static int random_write(struct desk *d)
{
    return zqcow2_write(d->img, data, UNIT, 0, 0);
}
static int overwrite(struct desk *d)
{
    return zqcow2_write(d->img, data, UNIT, 512, 0);
}
static int finish_other(struct desk *d)
{
    int rc = zqcow2_write(d->img, data, UNIT, 2 * ZONE, 0);

    return rc ? rc : zqcow2_zone_finish(d->img, 2 * ZONE, ZONE, 0);
}

static const struct {
    const char *name;
    int (*run)(struct desk *d);
} steps[] = {{"first write", first_write},
             {"write", next_write},
             {"append", append},
             {"read", read_back},
             {"write of two elements", two_elements},
             {"write of zeros", zeroes},
             {"first write, conventional", random_write},
             {"overwrite", overwrite},
             {"finish", finish_other}};

/*
 * With the capability nothing is submitted where one I/O follows another, as it does everywhere
 * except for the writes of a round; without it everything is.
 */
static void blocking_calls(void **state)
{
    static struct desk d;

    (void)state;
    for (unsigned with = 0; with < 2; with++) {
        begin(&d, with ? ZQCOW2_CAP_BLOCKING_CALLS : 0);
        for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
            d.submitted = d.called = 0;
            assert_int_equal(steps[i].run(&d), 0);
            printf("%s, %s the capability: %u called, %u submitted\n", steps[i].name,
                   with ? "with" : "without", d.called, d.submitted);
            if ((with ? d.submitted : d.called) || !(d.submitted + d.called))
                fail_msg("%s: by the wrong way", steps[i].name);
        }
        end(&d);
    }
}

/* A queue's thread never blocks, whatever the backend allows. */
static void queues_submit(void **state)
{
    static struct desk d;
    struct zqcow2_queue *q;
    unsigned n = 0;

    (void)state;
    begin(&d, ZQCOW2_CAP_BLOCKING_CALLS);
    assert_int_equal(zqcow2_queue_open(d.img, 16, &q), 0);
    for (unsigned i = 0; i < 8; i++) {
        struct iovec iov = {data, UNIT};
        struct zqcow2_request r = {.size = sizeof(r),
                                   .op = i == 3 ? ZQCOW2_OP_ZONE_RESET :
                                         i == 7 ? ZQCOW2_OP_FLUSH :
                                                  ZQCOW2_OP_APPEND,
                                   .offset = i < 4 ? ZONE : 2 * ZONE,
                                   .length = ZONE,
                                   .iov = &iov,
                                   .iovcnt = i != 3 && i != 7};

        assert_int_equal(zqcow2_queue_submit(q, &r, 1), 1);
        n += (unsigned)zqcow2_queue_poll(q, 0);
    }
    n += (unsigned)zqcow2_queue_wait(q, 8 - n, 60000);
    assert_int_equal(n, 8);
    assert_true(d.submitted >= 8);
    assert_int_equal(d.called, 0);
    assert_int_equal(zqcow2_queue_close(q), 0);
    end(&d);
}

/* ---- side by side ---- */

struct job {
    struct desk *d;
    uint64_t off;
    unsigned flags;
    pthread_t thread;
};

static void *write_job(void *arg)
{
    struct job *j = arg;

    return (void *)(intptr_t)zqcow2_write(j->d->img, data, UNIT, j->off, j->flags);
}

static void start(struct job *j)
{
    assert_int_equal(pthread_create(&j->thread, NULL, write_job, j), 0);
}

static int result(struct job *j)
{
    void *rc;

    pthread_join(j->thread, &rc);
    return (int)(intptr_t)rc;
}

/* As many are at the backend as there are threads: to zones that are open, and where it allocates.
 */
static void threads_at_once(void **state)
{
    static struct desk d;
    struct job job[4];

    (void)state;
    begin(&d, ZQCOW2_CAP_BLOCKING_CALLS);
    rig_watch(60, "threads wait for one another");
    for (unsigned i = 0; i < 4; i++) {
        write_unit(&d, (i + 1) * ZONE);
        job[i] = (struct job){&d, (i + 1) * ZONE + UNIT, i % 2 ? ZQCOW2_FUA : 0, 0};
    }
    d.holds = d.any = true;
    for (unsigned i = 0; i < 4; i++)
        start(&job[i]);
    await_inside(&d, 4);
    let_go(&d);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(result(&job[i]), 0);
    end(&d);
}

/* Its first call is held. */
static void *hold_and_write(void *arg)
{
    struct job *j = arg;

    pthread_mutex_lock(&j->d->lock);
    j->d->held = pthread_self();
    j->d->holds = true;
    pthread_mutex_unlock(&j->d->lock);
    return write_job(j);
}

static void start_held(struct job *j)
{
    assert_int_equal(pthread_create(&j->thread, NULL, hold_and_write, j), 0);
    await_inside(j->d, 1);
}

/* Lets the held thread go on to its next call. */
static void next_call(struct desk *d)
{
    pthread_mutex_lock(&d->lock);
    d->permits = 1;
    pthread_cond_broadcast(&d->changed);
    while (d->permits)
        pthread_cond_wait(&d->changed, &d->lock);
    pthread_mutex_unlock(&d->lock);
    await_inside(d, 1);
}

/* While one thread is at the backend, the requests of a queue and of other threads are done. */
static void others_go_on(void **state)
{
    static struct desk d;
    struct ticket *t;
    struct zqcow2_queue *q;
    struct job slow = {&d, ZONE + UNIT, 0, 0}, other = {&d, 2 * ZONE + UNIT, ZQCOW2_FUA, 0};

    (void)state;
    begin(&d, ZQCOW2_CAP_BLOCKING_CALLS);
    rig_watch(60, "others wait for a thread that the backend holds");
    ticket_begin();
    write_unit(&d, ZONE);
    write_unit(&d, 2 * ZONE);
    assert_int_equal(zqcow2_queue_open(d.img, 4, &q), 0);
    start_held(&slow);
    t = ticket(ZQCOW2_OP_APPEND, 2 * ZONE, UNIT, 1);
    assert_int_equal(submit(q, t), 1);
    assert_int_equal(wait_queue(q, 1, 60000), 1);
    assert_int_equal(t->ret, 0);
    drop(t);
    other.off += UNIT;
    start(&other);
    assert_int_equal(result(&other), 0);
    let_go(&d);
    assert_int_equal(result(&slow), 0);
    assert_int_equal(zqcow2_queue_close(q), 0);
    end(&d);
}

/*
 * Two writes to one zone: the second waits in poll() for the first to commit, whose thread then
 * goes on to the flushes of FUA. It wakes the poller before that, not when it leaves the loop.
 */
static void a_waiter_is_woken_first(void **state)
{
    static struct desk d;
    struct job fua = {&d, ZONE + UNIT, ZQCOW2_FUA, 0}, behind = {&d, ZONE + 2 * UNIT, 0, 0};

    (void)state;
    begin(&d, ZQCOW2_CAP_BLOCKING_CALLS);
    rig_watch(60, "a write that is done waits for another thread's flush");
    write_unit(&d, ZONE);
    start_held(&fua);
    start(&behind);
    usleep(50000); /* so that it waits already */
    next_call(&d);
    assert_int_equal(result(&behind), 0);
    let_go(&d);
    assert_int_equal(result(&fua), 0);
    end(&d);
}

/* ---- what is nobody's ---- */

/* The holes of a reset are punched by poll(), though every call finds its own I/O done. */
static void own_io_gets_on(void **state)
{
    static struct desk d;

    (void)state;
    begin(&d, ZQCOW2_CAP_BLOCKING_CALLS);
    for (unsigned i = 1; i < 4; i++)
        write_unit(&d, i * ZONE);
    assert_int_equal(zqcow2_zone_reset(d.img, ZONE, ZONE, 0), 0);
    assert_int_equal(zqcow2_flush(d.img), 0);
    d.idle_polls = 3;
    assert_int_equal(zqcow2_zone_reset(d.img, 2 * ZONE, ZONE, 0), 0);
    assert_int_equal(zqcow2_flush(d.img), 0);
    assert_non_null(d.head); /* else this shows nothing */
    for (unsigned i = 1; i < 5; i++)
        write_unit(&d, 3 * ZONE + i * UNIT);
    assert_null(d.head);
    end(&d);
}

static void answers(void **state)
{
    static const int wrong[] = {1, 512, -4096, -70000};
    static struct desk d;

    (void)state;
    begin(&d, ZQCOW2_CAP_BLOCKING_CALLS);
    write_unit(&d, ZONE);
    d.answer = -ENOSPC;
    assert_int_equal(next_write(&d), -ENOSPC);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        d.answer = wrong[i];
        assert_int_equal(next_write(&d), -EIO);
    }
    d.answer = 0;
    assert_int_equal(next_write(&d), 0);
    end(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocking_calls),
        cmocka_unit_test(queues_submit),
        cmocka_unit_test(threads_at_once),
        cmocka_unit_test(others_go_on),
        cmocka_unit_test(a_waiter_is_woken_first),
        cmocka_unit_test(own_io_gets_on),
        cmocka_unit_test(answers),
    };

    setvbuf(stdout, NULL, _IOLBF, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
