/* SPDX-License-Identifier: MIT */
/*
 * The loop: finishes I/O, steps operations, issues what they started. The image's mutex is let go
 * for I/O, callbacks and the log.
 *
 * Any thread inside a public call may run the loop; several may at once. When none does, a done
 * I/O makes every queue's descriptor readable (E4).
 */
#include <errno.h>
#include <time.h>
#include "base/os.h"
#include "base/report.h"
#include "loop/core.h"

/* ---- completions from the backend ---- */

bool zq_loop_is_heard(const struct zq_core *c)
{
    if (c->waiters > c->away)
        return true;
    for (const struct zq_list *n = c->doorbells.next; n != &c->doorbells; n = n->next) {
        const struct zq_doorbell *bell = zq_container(n, const struct zq_doorbell, link);
        if (bell->audible && bell->pending)
            return true;
    }
    return false;
}

/* All that have requests in flight, or all there are if none of those can hear it. */
static void ring_all(struct zq_core *c, bool heard)
{
    for (struct zq_list *n = c->doorbells.next; n != &c->doorbells; n = n->next) {
        struct zq_doorbell *bell = zq_container(n, struct zq_doorbell, link);

        if (bell->audible && (bell->pending || !heard))
            bell->ring(bell);
    }
}

void zq_loop_hand_over(struct zq_core *c)
{
    /* A source completes by itself, as does a backend without poll(). */
    bool due = !zq_list_empty(&c->x.done) || (c->be->ops.poll && zq_io_awaited(&c->x));

    if (due && !zq_loop_is_heard(c))
        ring_all(c, false);
}

/* Must the thread that polls look again? The caller wakes it without the mutex. */
static bool take_wake(struct zq_core *c)
{
    bool wake = c->wake_poller && c->polling && c->be->ops.wake;

    c->wake_poller = false;
    return wake;
}

static void wake_somebody(struct zq_core *c, bool *wake)
{
    if (c->runners > c->away)
        return;
    if (c->polling && pthread_equal(c->poller, pthread_self()))
        return; /* we are inside its poll(): it runs the loop next */
    if (c->polling)
        *wake = true;
    else if (c->sleepers)
        pthread_cond_broadcast(&c->cond);
    else
        ring_all(c, zq_loop_is_heard(c));
}

bool zq_loop_is_due(const struct zq_core *c)
{
    const struct zq_iox *x = &c->x;

    while (x && zq_list_empty(&x->submit))
        x = x->next;
    return x || c->spent || !zq_list_empty(&c->ready) || !zq_list_empty(&c->x.done) ||
           !zq_list_empty(&c->x.work);
}

void zq_loop_pass_on(struct zq_core *c)
{
    bool wake = false;

    zq_assert(zq_core_is_held(c));
    if (!c->spent)
        return;
    wake_somebody(c, &wake);
    if (!wake)
        return;
    zq_core_unlock(c);
    c->be->ops.wake(c->be->self);
    zq_core_lock(c);
}

/* Unlocks last: from then on the image may be closed, though not its backend while we are in it. */
static void unlock_and_wake(struct zq_core *c, bool wake)
{
    const struct zqcow2_backend *be = c->be;

    zq_core_unlock(c);
    if (wake)
        be->ops.wake(be->self);
}

static void io_notify(struct zq_iox *x, struct zq_io *io)
{
    struct zq_core *c = zq_container(x->image, struct zq_core, x);
    bool wake = false;

    zq_core_lock(c);
    zq_list_push(&c->x.done, &io->link);
    wake_somebody(c, &wake);
    unlock_and_wake(c, wake);
}

/* What completes while the host holds a runner is another thread's, and so is what has done so. */
static void io_away(struct zq_iox *x, int ios)
{
    struct zq_core *c = zq_container(x->image, struct zq_core, x);
    bool begin = ios > 0, wake;

    zq_core_lock(c);
    x->in_calls += (unsigned)ios;
    if (begin)
        c->away++;
    else
        c->away--;
    zq_assert_k(E4, c->away <= c->runners && x->in_calls <= x->in_flight);
    wake = begin && take_wake(c);
    if (begin && !zq_list_empty(&c->x.done))
        wake_somebody(c, &wake);
    unlock_and_wake(c, wake);
}

void zq_core_set_iox(struct zq_core *c, struct zq_iox *x, struct zqcow2_backend *be)
{
    x->be = be;
    x->image = &c->x;
    x->hooks = &c->hooks;
    x->ready = &c->ready;
    x->notify = io_notify;
    x->away = io_away;
}

int zq_core_init(struct zq_core *c)
{
    int rc;

    zq_list_init(&c->ready);
    zq_list_init(&c->calls);
    zq_list_init(&c->drain_waiters);
    zq_list_init(&c->gate_waiters);
    zq_list_init(&c->doorbells);
    zq_list_init(&c->owners);
    zq_list_init(&c->owner_waiters);
    zq_list_init(&c->round.waiters);
    zq_list_init(&c->new_states.waiters);
    zq_list_init(&c->descriptors.waiters);
    c->round.core = c;
    c->data = &c->x;
    zq_core_set_iox(c, &c->x, c->be);
    rc = zq_iox_init(&c->x);
    if (rc < 0)
        return rc;
    zq_core_set_straight(c);
    c->round.bufs = zq_alloc(&c->hooks, 4096, (size_t)ZQ_ROUND_IOS * ZQ_ROUND_BUF);
    if (!c->round.bufs)
        return -ENOMEM;
    for (unsigned i = 0; i < ZQ_ROUND_IOS; i++) {
        c->round.io[i].round = &c->round;
        c->round.io[i].buf = c->round.bufs + (size_t)i * ZQ_ROUND_BUF;
    }
    return 0;
}

/* Zeroed, as before the open. What a poller sees without them: x, which is alone, and lists. */
void zq_core_close_parts(struct zq_core *c)
{
    zq_core_lock(c);
    c->x.next = NULL;
    c->data = &c->x;
    zq_core_unlock(c);
    zq_sources_close(c->source);
    zq_data_file_close(&c->data_file);
    zq_free(&c->hooks, c->fills.one, sizeof(struct zq_fill));
    zq_bitmaps_close(&c->bitmaps);
    zq_zones_close(&c->zones);
    zq_map_close(&c->map);
    zq_alloc_close(&c->alloc);
    zq_cache_fini(&c->cache);
    c->source = NULL;
    c->source_absent = false;
    c->fills.one = NULL;
    memset(&c->data_file, 0, sizeof(c->data_file));
    memset(&c->bitmaps, 0, sizeof(c->bitmaps));
    memset(&c->zones, 0, sizeof(c->zones));
    memset(&c->map, 0, sizeof(c->map));
    memset(&c->alloc, 0, sizeof(c->alloc));
    memset(&c->cache, 0, sizeof(c->cache));
}

void zq_core_fini(struct zq_core *c)
{
    zq_assert(!c->nr_ops && !c->runners && !c->sleepers && !c->passing);
    zq_core_close_parts(c);
    zq_changes_close(&c->changes, &c->hooks);
    zq_free(&c->hooks, c->backing, sizeof(*c->backing));
    zq_free(&c->hooks, c->round.bufs, (size_t)ZQ_ROUND_IOS * ZQ_ROUND_BUF);
    zq_iox_fini(&c->x);
}

/* ---- operations ---- */

void zq_op_ready(struct zq_op *op)
{
    zq_assert(zq_core_is_held(op->core) && zq_list_empty(&op->g.wait.link));
    zq_list_push(&op->core->ready, &op->g.wait.link);
}

static void seal(struct zq_core *c)
{
    const struct zqcow2_event event = {
        .kind = ZQCOW2_EVENT_CORRUPT, .error = ZQCOW2_ECORRUPT, .offset = c->alloc.corrupt_at};

    c->sealed = c->guarded = c->corrupt = c->round.wanted = true;
    zq_event_add(&c->events, &event);
}

void zq_op_step(struct zq_op *op)
{
    struct zq_core *c = op->core;
    int rc;

    zq_assert(zq_core_is_held(c) && !op->finished);
    c->left -= ZQ_COST_STEP;
    rc = op->step(c, op);
    zq_assert_k(K11, rc != ZQ_WAIT || !op->g.npins || op->g.token);
    if (!c->sealed && c->alloc.corrupt) /* in this order: an inactive image is sealed */
        seal(c);
    if (rc != ZQ_WAIT)
        c->upper->end(c, op, rc);
}

/* A parked operation whose reason failed ends; the others look again from their top. */
static void step_ready(struct zq_op *op)
{
    int rc = op->g.wait.rc;

    zq_assert_k(K11, !op->g.npins || op->g.token);
    op->g.wait.rc = 0;
    if (rc < 0)
        op->rc = rc;
    zq_cache_reenter(&op->g);
    zq_op_step(op);
}

void zq_op_reset(struct zq_core *c, struct zq_op *op, zq_step *step, zq_release *release)
{
    op->core = c;
    op->step = step;
    op->release = release;
    zq_list_init(&op->g.wait.link);
    op->g.wait.rc = 0;
    op->g.npins = op->g.stale = op->g.loads = op->g.reserved = 0;
    op->g.starved = false;
    op->g.patient = true;
    op->g.token = NULL;
    op->has_turn = op->range.held = op->finished = false;
    op->fill = NULL;
    zq_list_init(&op->fills);
    zq_list_init(&op->made);
    op->slices = 0;
    op->slices_upto = 0;
    zq_list_init(&op->spare);
    op->nr_spare = 0;
    op->rc = 0;
    op->pos = op->length = op->round = 0;
    op->iov_at = 0;
    op->iov_skip = 0;
    op->xfer.left = 0;
    op->xfer.moving = false;
    memset(&op->own, 0, sizeof(op->own));
    op->res = (struct zqcow2_result){0, 0, 0};
}

/* ---- the loop ---- */

static void work_list(struct zq_core *c)
{
    struct zq_list *n;

    for (;;) {
        while ((n = zq_list_pop(&c->x.done)))
            zq_io_finish(zq_container(n, struct zq_io, link));
        c->spent = c->left <= 0;
        if (c->spent)
            return;
        n = zq_list_pop(&c->ready);
        if (n)
            step_ready(zq_container(n, struct zq_op, g.wait.link));
        else if (!c->upper->idle(c))
            return;
    }
}

/* Of the image and its sources, the first that has something to issue. */
static struct zq_iox *to_issue(struct zq_core *c)
{
    struct zq_iox *x = &c->x;

    while (x && zq_list_empty(&x->submit))
        x = x->next;
    return x;
}

static bool is_only_one(const struct zq_core *c)
{
    unsigned n = 0;

    for (const struct zq_iox *x = &c->x; x && n < 2; x = x->next)
        n += x->in_flight;
    return n == 1;
}

/*
 * What the calling thread carries out itself, because it would only sleep until that is done: the
 * I/O of the request that it waits for, or the only one in flight. Others' go on meanwhile.
 */
static void take_own(struct zq_core *c, const struct zq_op *op, struct zq_iox *x,
                     struct zq_list *own)
{
    struct zq_list *n = x->submit.next;

    if (op->finished)
        return;
    while (n != &op->io.link && n != &x->submit && !is_only_one(c))
        n = n->next;
    if (n == &x->submit)
        return;
    zq_list_del(n);
    zq_list_push(own, n);
}

/*
 * Work takes long (compressing). This thread does one piece of it and wakes a thread that sleeps,
 * which does the next. Otherwise one that has woken many requests would do the work of all.
 */
static void take_work(struct zq_core *c, struct zq_list *own, bool *fresh)
{
    bool may = (c->left > 0 || *fresh) && zq_list_empty(own);
    struct zq_list *n = may ? zq_list_pop(&c->x.work) : NULL;

    if (n) {
        *fresh = false;
        c->left -= (int32_t)zq_container(n, const struct zq_io, link)->cost;
        zq_list_push(own, n);
    }
    if (c->sleepers && !zq_list_empty(&c->x.work))
        pthread_cond_signal(&c->cond);
}

/*
 * The I/O of one file, which this thread issues in any case, and at most one piece of work. NULL:
 * there is none of either.
 */
static struct zq_iox *take_batch(struct zq_core *c, const struct zq_op *op, struct zq_list *batch,
                                 struct zq_list *own, bool *fresh)
{
    struct zq_iox *x = to_issue(c);

    if (x && op && x->called)
        take_own(c, op, x, own);
    if (x)
        zq_list_splice(batch, &x->submit);
    if (zq_list_empty(&c->x.work))
        return x;
    if (!x || x == &c->x)
        take_work(c, own, fresh);
    return x || zq_list_empty(own) ? x : &c->x;
}

/*
 * The portion is this thread's own, also while others have the mutex. A whole one has room for a
 * piece of work, even if the operations have used it up: they would never let it come.
 */
void zq_loop_run(struct zq_core *c, const struct zq_op *op)
{
    struct zq_list batch, own, finished;
    bool fresh = c->left == ZQ_PORTION;
    struct zq_iox *x;

    zq_list_init(&batch);
    zq_list_init(&own);
    zq_list_init(&finished);
    zq_assert(zq_core_is_held(c));
    c->runners++;
    for (;;) {
        int32_t left;

        work_list(c);
        x = take_batch(c, op, &batch, &own, &fresh);
        if (!x)
            break;
        left = c->left;
        zq_core_unlock(c);
        zq_io_issue(x, &batch, &own, &finished);
        zq_core_lock(c);
        c->left = left;
        zq_list_splice(&c->x.done, &finished);
    }
    zq_assert(zq_core_is_held(c) && c->runners);
    c->runners--;
    if (c->events.n | c->stale.depth | c->dead | c->corrupt) { /* one branch: see counts */
        c->passing++;
        zq_core_report(c);
        c->passing--;
    }
    if (take_wake(c)) {
        c->passing++;
        zq_core_unlock(c);
        c->be->ops.wake(c->be->self);
        zq_core_lock(c);
        c->passing--;
    }
}

static void sleep_on_cond(struct zq_core *c, int timeout_ms)
{
    struct timespec ts;

    c->sleepers++;
    zq_core_set_held(c, false);
    if (timeout_ms < 0) {
        pthread_cond_wait(&c->cond, &c->mutex);
    } else {
        clock_gettime(ZQ_WAIT_CLOCK, &ts);
        ts.tv_sec += timeout_ms / 1000;
        ts.tv_nsec += timeout_ms % 1000 * 1000000L;
        ts.tv_sec += ts.tv_nsec / 1000000000L;
        ts.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&c->cond, &c->mutex, &ts);
    }
    zq_core_set_held(c, true);
    c->sleepers--;
}

/* E6: is there work that blocks, and that only this thread may do? */
static bool has_call(const struct zq_core *c, const struct zq_op *op)
{
    const struct zq_list *n = c->calls.next;

    while (op && n != &op->io.link && n != &c->calls)
        n = n->next;
    return op && n != &c->calls;
}

static void make_call(struct zq_core *c, struct zq_op *op)
{
    struct zq_list none, own, finished;

    zq_list_init(&none);
    zq_list_init(&own);
    zq_list_init(&finished);
    zq_assert_k(E6, op->attended && op->io.x == &c->x);
    zq_list_del(&op->io.link);
    zq_list_push(&own, &op->io.link);
    c->runners++;
    zq_core_unlock(c);
    zq_io_issue(&c->x, &none, &own, &finished);
    zq_core_lock(c);
    c->runners--;
    zq_list_splice(&c->x.done, &finished);
}

void zq_loop_wait(struct zq_core *c, struct zq_op *op, int timeout_ms)
{
    zq_assert(zq_core_is_held(c));
    if (has_call(c, op))
        make_call(c, op);
    /* What arrived while the mutex was dropped found no thread to wake. */
    if (timeout_ms && zq_loop_is_due(c))
        timeout_ms = 0;
    if (c->be->ops.poll && !c->polling) {
        c->polling = true;
        c->poller = pthread_self();
        zq_core_unlock(c);
        if (c->be->ops.poll(c->be->self, timeout_ms) < 0 && timeout_ms)
            nanosleep(&(struct timespec){0, 1000000}, NULL); /* it cannot wait: nor shall we spin */
        zq_core_lock(c);
        zq_assert_k(E4, c->polling && pthread_equal(c->poller, pthread_self()));
        c->polling = false;
        /* Another thread may have to poll from now on. */
        if (c->sleepers)
            pthread_cond_broadcast(&c->cond);
    } else if (timeout_ms) {
        sleep_on_cond(c, timeout_ms);
    }
    zq_loop_begin(c);
    zq_loop_run(c, op);
}

void zq_loop_wake_others(struct zq_core *c)
{
    if (c->sleepers)
        pthread_cond_broadcast(&c->cond);
    if (c->polling && !pthread_equal(c->poller, pthread_self()))
        c->wake_poller = true;
}

/* ---- death (R11, I12) ---- */

void zq_core_die(struct zq_core *c, int rc)
{
    zq_assert_k(K9, rc < 0 && zq_core_is_held(c));
    if (c->dead)
        return;
    c->dead = c->sealed = c->guarded = true;
    c->dead_rc = rc;
    zq_event_add(&c->events, &(struct zqcow2_event){.kind = ZQCOW2_EVENT_DEAD, .error = rc});
    zq_cache_wake_all(&c->cache);
    if (c->zoned)
        zq_zones_wake_all(&c->zones);
    zq_wake(&c->ready, &c->round.waiters);
    zq_wake(&c->ready, &c->alloc.growth.waiters);
    zq_wake(&c->ready, &c->owner_waiters);
    zq_wake(&c->ready, &c->new_states.waiters);
    zq_wake(&c->ready, &c->descriptors.waiters);
    zq_wake(&c->ready, &c->data->flight_waiters);
}
