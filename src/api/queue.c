/* SPDX-License-Identifier: MIT */
/*
 * Queues: slots for requests in flight, a list of what is complete, a descriptor to wait on.
 *
 * A queue belongs to one thread, and all its memory is taken when it is opened: submitting cannot
 * fail for memory. A slot is free, in flight (the engine's), completed (under the mutex) or taken
 * (the thread's own, while callbacks run), and moves on in that order. Callbacks run without a
 * lock, may submit and poll, and see their slot free already.
 */
#include <errno.h>
#include <time.h>
#include <unistd.h>
#include "base/os.h"
#include "base/report.h"
#include "image/image.h"
#include "ops/request.h"

#define AT_ONCE 32u /* callbacks before what they have submitted goes to the backend */

struct zqcow2_queue {
    /* fixed */
    struct zq_core *core;
    uint32_t depth; /* slots; also the most that can be in flight */
    /* of the queue's thread alone */
    struct zq_list free;  /* slots */
    struct zq_list taken; /* out of completed, to be delivered */
    uint32_t nr_taken;    /* in taken; pending no longer counts them */
    uint32_t calling;     /* deliveries that run: a callback may begin another */
    /* under the image's mutex */
    struct zq_doorbell bell;
    struct zq_list completed; /* finished, to be taken out */
    uint32_t nr_completed;
    struct zq_event event; /* its descriptor is -1: not asked for */
    int joint;             /* of event and the backend's descriptor; -1: none */
    bool signalled;        /* event is set */
    bool watching;         /* the backend's descriptor is in joint */
    struct zq_op slots[];
};

/* One allocation, made by open: no later call on a queue can fail for lack of memory. */
static size_t queue_bytes(uint32_t depth)
{
    return sizeof(struct zqcow2_queue) + (size_t)depth * sizeof(struct zq_op);
}

/* ---- the descriptor ---- */

/*
 * Under the mutex. `signalled` saves the system call for every completion after the first, until
 * the thread of the queue has polled.
 */
static void signal_fd(struct zqcow2_queue *q)
{
    if (q->event.fd >= 0 && !q->signalled)
        q->signalled = zq_event_set(&q->event);
}

/* Cleared before the queue looks for work, never after: what completes in between signals again. */
static void clear_fd(struct zqcow2_queue *q)
{
    if (q->signalled && zq_event_clear(&q->event))
        q->signalled = false;
}

/* The loop knows doorbells, not queues: loop/ must not call up into api/ (DESIGN.md, Layers). */
static void ring(struct zq_doorbell *bell)
{
    signal_fd(zq_container(bell, struct zqcow2_queue, bell));
}

/*
 * The backend's descriptor is readable for the completions of all queues: one with nothing in
 * flight does not watch it, or its thread would wake up for them all. But one has to, for the
 * image's own I/O. A queue without others watches all the time: no system call once it is made.
 */
static void watch_backend(struct zqcow2_queue *q, bool yes)
{
    const struct zqcow2_backend *be = q->core->be;

    if (q->joint < 0 || q->watching == yes)
        return;
    if (yes && zq_joint_add(q->joint, zq_call_fd(be)) < 0) {
        signal_fd(q); /* no memory: it shall come again */
        return;
    }
    if (!yes)
        zq_joint_remove(q->joint, zq_call_fd(be));
    q->watching = yes;
}

/*
 * Made on request: a queue that is only polled or waited for costs no descriptor. If the backend
 * must be polled, the joint has two sources: this queue's completions, and the
 * backend's own descriptor, which is readable when zqcow2_queue_poll() would find something to do.
 * On failure nothing of the queue has changed.
 */
static int make_fds(struct zqcow2_queue *q)
{
    const struct zqcow2_backend *be = q->core->be;
    struct zq_event event;
    int joint = -1, rc = zq_event_open(&event);

    if (rc < 0)
        return rc;
    if (be->ops.poll) {
        joint = zq_joint_open();
        rc = joint < 0 ? joint : zq_joint_add(joint, event.fd);
        if (rc == 0)
            rc = zq_joint_add(joint, zq_call_fd(be));
        if (rc < 0) {
            if (joint >= 0)
                close(joint);
            zq_event_close(&event);
            return rc;
        }
    }
    q->event = event;
    q->joint = joint;
    q->watching = joint >= 0;
    q->bell.audible = true;
    return 0;
}

int zqcow2_queue_fd(struct zqcow2_queue *q)
{
    int rc = 0;

    zq_core_lock(q->core);
    if (q->event.fd < 0) {
        rc = make_fds(q);
        if (rc == 0)
            signal_fd(q); /* for what there may be to do already */
    }
    if (rc == 0)
        rc = q->joint >= 0 ? q->joint : q->event.fd;
    zq_core_unlock(q->core);
    return rc;
}

/* ---- life ---- */

/* An open queue holds the image: its doorbell is in the core's list, and close returns -EBUSY. */
int zqcow2_queue_open(struct zqcow2_image *img, uint32_t depth, struct zqcow2_queue **out)
{
    struct zq_core *c = &img->core;
    struct zqcow2_queue *q;

    if (!depth || depth > 65536)
        return -EINVAL;
    q = zq_zalloc(&c->hooks, queue_bytes(depth));
    if (!q)
        return -ENOMEM;
    q->core = c;
    q->bell.ring = ring;
    q->depth = depth;
    q->event = ZQ_EVENT_NONE;
    q->joint = -1;
    zq_list_init(&q->free);
    zq_list_init(&q->completed);
    zq_list_init(&q->taken);
    for (uint32_t i = 0; i < depth; i++)
        zq_list_push(&q->free, &q->slots[i].link);
    zq_core_lock(c);
    zq_list_push(&c->doorbells, &q->bell.link);
    zq_core_unlock(c);
    *out = q;
    return 0;
}

/*
 * Refused while a request is anywhere but in a free slot: its op lies in this memory (E5).
 * `calling` covers a close from within done(). Queues that stay get the image's own I/O to watch.
 */
int zqcow2_queue_close(struct zqcow2_queue *q)
{
    struct zq_core *c = q->core;

    zq_core_lock(c);
    if (q->bell.pending || q->nr_taken || q->calling) {
        zq_core_unlock(c);
        return -EBUSY;
    }
    zq_list_del(&q->bell.link);
    zq_tally_merge(&c->tally, &q->bell.tally);
    zq_loop_hand_over(c);
    zq_loop_pass_on(c);
    zq_core_unlock(c);
    if (q->joint >= 0)
        close(q->joint);
    zq_event_close(&q->event);
    zq_free(&c->hooks, q, queue_bytes(q->depth));
    return 0;
}

/* What is taken has not been delivered yet: for the caller it is still pending. */
uint32_t zqcow2_queue_pending(struct zqcow2_queue *q)
{
    uint32_t n;

    zq_core_lock(q->core);
    n = q->bell.pending + q->nr_taken;
    zq_core_unlock(q->core);
    return n;
}

/* What the image has counted as a whole stays 0 here: it belongs to no queue. */
int zqcow2_queue_get_stats(struct zqcow2_queue *q, struct zqcow2_stats *stats)
{
    struct zqcow2_stats s = {.size = sizeof(s)};

    zq_core_lock(q->core);
    zq_tally_sum(&q->bell.tally, s.op);
    zq_core_unlock(q->core);
    return zq_return_sized(stats, &s, sizeof(s), sizeof(s));
}

/* ---- in and out ---- */

/*
 * Under the mutex, in whatever thread has ended op. The callback is not called here but in the
 * thread that polls the queue (K10). A thread may sleep in zqcow2_queue_wait() for this.
 */
static void queue_finish(struct zq_op *op)
{
    struct zqcow2_queue *q = op->queue;

    zq_tally_add(&q->bell.tally, op);
    if (op->begun)
        zq_tally_time(&q->bell.tally, op, op->begun);
    zq_list_push(&q->completed, &op->link);
    q->nr_completed++;
    signal_fd(q);
    if (op->core->sleepers || op->core->polling) /* inline: see counts */
        zq_loop_wake_others(op->core);
}

/*
 * The whole batch begins under one hold of the mutex; zq_loop_run() then drops it to issue all I/O
 * together. Requests are copied: reqs may be reused at once, iov and its buffers not before done().
 * Returns how many were accepted, or the error of the first if none was.
 */
int zqcow2_queue_submit(struct zqcow2_queue *q, const struct zqcow2_request *reqs, uint32_t n)
{
    struct zq_core *c = q->core;
    uint64_t now = 0;
    uint32_t taken = 0;
    int rc = 0;

    zq_core_lock(c);
    zq_loop_begin(c);
    if (c->timed)
        now = zq_tally_now();
    while (taken < n) {
        struct zq_list *slot;
        struct zq_op *op;

        rc = zq_request_check_form(&reqs[taken]);
        if (rc < 0)
            break;
        slot = zq_list_pop(&q->free);
        if (!slot)
            break;
        op = zq_container(slot, struct zq_op, link);
        op->req = reqs[taken++];
        op->queue = q;
        op->finish = queue_finish;
        op->begun = now;
        q->bell.pending++;
        zq_op_begin(c, op);
    }
    watch_backend(q, true);
    if (!q->calling) { /* else they go when the callbacks have been called, in one batch */
        zq_loop_run(c, NULL);
        zq_loop_pass_on(c);
    }
    zq_core_unlock(c);
    return taken ? (int)taken : rc;
}

/*
 * Under the mutex: what is complete becomes the queue's thread's own, so that the callbacks can
 * walk `taken` without the mutex while others push to `completed`.
 */
static void take_completed(struct zqcow2_queue *q)
{
    zq_list_splice(&q->taken, &q->completed);
    q->nr_taken += q->nr_completed;
    q->bell.pending -= q->nr_completed;
    q->nr_completed = 0;
}

/* Without the mutex. The slot is returned before done() runs, which may poll, too. */
static void call_done(struct zqcow2_queue *q)
{
    struct zq_op *op = zq_container(zq_list_pop(&q->taken), struct zq_op, link);
    void (*done)(void *arg, const struct zqcow2_result *res) = op->req.done;
    const struct zqcow2_result res = op->res;
    void *arg = op->req.arg;

    q->nr_taken--;
    zq_list_push_front(&q->free, &op->link); /* what was used last is warm */
    if (done)
        done(arg, &res);
}

/*
 * Delivers at most max (0: all) of those that are complete when it begins, so a callback that
 * resubmits cannot keep it here (E5). Under the mutex, which is dropped for the callbacks. A
 * callback may poll this queue and take from `taken`, too: hence both conditions of the loops. What
 * is left over signals again, because the descriptor was cleared for it.
 */
static uint32_t deliver(struct zqcow2_queue *q, uint32_t max)
{
    uint32_t all, n = 0;

    take_completed(q);
    all = max && max < q->nr_taken ? max : q->nr_taken;
    while (n < all && q->nr_taken) {
        int32_t left = q->core->left;

        zq_loop_pass_on(q->core); /* a callback may wait for what others have submitted */
        q->calling++;
        zq_core_unlock(q->core);
        do {
            call_done(q);
        } while (++n % AT_ONCE && n < all && q->nr_taken);
        zq_core_lock(q->core);
        q->calling--;
        q->core->left = left;       /* others, and the callbacks, have used their own */
        zq_loop_run(q->core, NULL); /* what the callbacks have submitted */
    }
    if (q->nr_taken || q->nr_completed)
        signal_fd(q);
    return n;
}

/*
 * What can be done now, without waiting. A thread that is already in the backend's poll() sees the
 * completions; a second one must not enter it (E4).
 */
static void move_on(struct zqcow2_queue *q)
{
    struct zq_core *c = q->core;

    clear_fd(q);
    if (c->be->ops.poll && !c->polling) {
        zq_loop_wait(c, NULL, 0);
    } else {
        zq_loop_begin(c);
        zq_loop_run(c, NULL);
    }
}

/* No other queue has a descriptor. */
static bool is_alone(const struct zqcow2_queue *q)
{
    const struct zq_list *all = &q->core->doorbells;

    for (const struct zq_list *n = all->next; n != all; n = n->next) {
        const struct zq_doorbell *bell = zq_container(n, const struct zq_doorbell, link);

        if (bell != &q->bell && bell->audible)
            return false;
    }
    return true;
}

/*
 * Arranges who notices what is in flight, and goes on with what is left. n: how many were delivered
 * just now.
 */
static void leave(struct zqcow2_queue *q, uint32_t n)
{
    struct zq_core *c = q->core;

    if (q->bell.pending)
        watch_backend(q, true); /* it may have failed before */
    else if (!n)
        watch_backend(q, is_alone(q) || (zq_io_awaited(&c->x) && !zq_loop_is_heard(c)));
    if (!q->watching)
        zq_loop_hand_over(c);
    zq_loop_pass_on(c);
}

int zqcow2_queue_poll(struct zqcow2_queue *q, uint32_t max)
{
    struct zq_core *c = q->core;
    uint32_t n;

    zq_core_lock(c);
    move_on(q);
    n = deliver(q, max);
    leave(q, n);
    zq_core_unlock(c);
    return (int)n;
}

/* Monotonic, like the clock of core.cond: a change of the time of day must not stretch a wait. */
static int64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(ZQ_WAIT_CLOCK, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * Ends early if nothing is pending: no completion could come. A timeout of 0 delivers what is
 * there; a negative one never expires. `waiters` is raised only while the thread sleeps or polls,
 * which is when it can be relied on to notice I/O of others (zq_loop_is_heard()).
 */
int zqcow2_queue_wait(struct zqcow2_queue *q, uint32_t min, int timeout_ms)
{
    struct zq_core *c = q->core;
    int64_t end = timeout_ms < 0 ? INT64_MAX : now_ms() + timeout_ms;
    uint32_t got;

    zq_core_lock(c);
    move_on(q);
    got = deliver(q, 0);
    while (got < min && q->bell.pending + q->nr_taken) {
        int64_t left = timeout_ms < 0 ? -1 : end - now_ms();

        if (!q->nr_completed && !q->nr_taken) {
            if (timeout_ms >= 0 && left <= 0)
                break;
            c->waiters++;
            zq_loop_wait(c, NULL, (int)left);
            c->waiters--;
        }
        got += deliver(q, 0);
    }
    leave(q, got);
    zq_core_unlock(c);
    return (int)got;
}
