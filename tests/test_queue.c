/* SPDX-License-Identifier: MIT */
/* The queue's contract: who is called when, how often, and what waits for what. */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>
#include "rig/ticket.h"

#define Z    KiB(256)
#define UNIT 4096u

static const struct geometry shape = {
    .name = "queue", .size = 8 * Z, .zone_size = Z, .conventional = 1, .cluster = 65536};
static const enum rig_world worlds[] = {RIG_PLAIN, RIG_SHUFFLED, RIG_THREADED};
static const char *const world_names[] = {"plain", "shuffled", "threaded"};
#define NR_WORLDS 3

static struct zqcow2_queue *begin(struct rig *r, enum rig_world world, uint64_t seed,
                                  uint32_t depth)
{
    struct zqcow2_queue *q = NULL;

    ticket_begin();
    rig_begin_in(r, &shape, world, seed);
    assert_int_equal(zqcow2_queue_open(r->img, depth, &q), 0);
    assert_non_null(q);
    return q;
}

static void end(struct rig *r, struct zqcow2_queue *q)
{
    assert_int_equal(called_outside, 0);
    assert_int_equal(zqcow2_queue_close(q), 0);
    rig_end(r);
}

/* done() exactly once, never from submit, in every world. */
static void completes_once_and_only_in_poll(void **state)
{
    struct ticket *t[64];
    struct rig r;

    (void)state;
    for (int w = 0; w < NR_WORLDS; w++) {
        struct zqcow2_queue *q = begin(&r, worlds[w], 7, 64);
        int got = 0;

        for (unsigned i = 0; i < 64; i++) {
            t[i] = ticket(i % 2 ? ZQCOW2_OP_READ : ZQCOW2_OP_APPEND, Z * (1 + i % 7), UNIT, i + 1);
            assert_int_equal(submit(q, t[i]), 1);
        }
        assert_int_equal(completions, 0);
        assert_int_equal(zqcow2_queue_pending(q), 64);
        while (zqcow2_queue_pending(q))
            got += wait_queue(q, 1, 60000);
        assert_int_equal(got, 64);
        assert_int_equal(poll_queue(q, 0), 0);
        for (unsigned i = 0; i < 64; i++) {
            if (t[i]->calls != 1 || t[i]->ret)
                fail_msg("%s: request %u: %u calls, %d", world_names[w], i, t[i]->calls, t[i]->ret);
            drop(t[i]);
        }
        end(&r, q);
    }
}

static void closing_is_refused_while_busy(void **state)
{
    struct rig r;

    (void)state;
    for (int w = 0; w < NR_WORLDS; w++) {
        struct zqcow2_queue *q = begin(&r, worlds[w], 3, 4);
        struct ticket *t = ticket(ZQCOW2_OP_APPEND, Z, UNIT, 1);

        assert_int_equal(submit(q, t), 1);
        assert_int_equal(zqcow2_queue_close(q), -EBUSY);
        assert_int_equal(zqcow2_close(r.img), -EBUSY);
        wait_all(q);
        assert_int_equal(t->ret, 0);
        assert_int_equal(zqcow2_close(r.img), -EBUSY);
        drop(t);
        end(&r, q);
    }
}

/* Takes what fits; the rest is the caller's to bring again. */
static void a_full_queue_takes_no_more(void **state)
{
    struct zqcow2_request reqs[8];
    struct ticket *t[8];
    struct rig r;

    (void)state;
    for (int w = 0; w < NR_WORLDS; w++) {
        struct zqcow2_queue *q = begin(&r, worlds[w], 5, 5);
        int taken;

        for (unsigned i = 0; i < 8; i++) {
            t[i] = ticket(ZQCOW2_OP_APPEND, Z, UNIT, i + 1);
            reqs[i] = t[i]->req;
        }
        assert_int_equal(zqcow2_queue_submit(q, reqs, 8), 5);
        assert_int_equal(zqcow2_queue_submit(q, reqs + 5, 3), 0);
        assert_int_equal(zqcow2_queue_pending(q), 5);
        while (zqcow2_queue_pending(q) == 5)
            wait_queue(q, 1, 60000);
        taken = zqcow2_queue_submit(q, reqs + 5, 3);
        assert_in_range(taken, 1, 3);
        wait_all(q);
        for (unsigned i = 0; i < 8; i++) {
            assert_int_equal(t[i]->calls, i < 5u + (unsigned)taken);
            drop(t[i]);
        }
        end(&r, q);
    }
}

static void malformed_requests(void **state)
{
    struct zqcow2_request reqs[3];
    struct rig r;
    struct zqcow2_queue *q = begin(&r, RIG_PLAIN, 1, 8);
    struct ticket *a = ticket(ZQCOW2_OP_APPEND, Z, UNIT, 1);
    struct ticket *b = ticket(ZQCOW2_OP_READ, Z, UNIT, 1);

    (void)state;
    reqs[0] = reqs[2] = a->req;
    reqs[1] = b->req;
    reqs[0].op = 999;
    assert_true(zqcow2_queue_submit(q, reqs, 3) < 0);
    reqs[0] = a->req;
    reqs[0].size = 8;
    assert_true(zqcow2_queue_submit(q, reqs, 3) < 0);
    reqs[0] = a->req;
    reqs[1].op = 999;
    assert_int_equal(zqcow2_queue_submit(q, reqs, 3), 1);
    assert_int_equal(wait_queue(q, 1, 60000), 1);
    assert_int_equal(a->ret, 0);
    assert_int_equal(b->calls, 0);
    assert_int_equal(zqcow2_queue_submit(q, reqs, 0), 0);
    drop(a);
    drop(b);
    end(&r, q);
}

/* A request's own mistake goes to done(), not to submit. */
static void mistakes_go_to_done(void **state)
{
    static const struct {
        int op;
        uint64_t off, len;
        int want;
    } bad[] = {
        {ZQCOW2_OP_WRITE, 2 * Z + 512, 512, ZQCOW2_EZONE_WP},
        {ZQCOW2_OP_WRITE, 2 * Z, 100, -EINVAL},
        {ZQCOW2_OP_WRITE, 2 * Z, 0, -EINVAL},
        {ZQCOW2_OP_READ, 8 * Z, 512, -EINVAL},
        {ZQCOW2_OP_APPEND, 0, 512, ZQCOW2_EZONE_STATE},
        {ZQCOW2_OP_APPEND, 2 * Z, Z + 512, ZQCOW2_EZONE_BOUNDARY},
        {ZQCOW2_OP_ZONE_RESET, 0, Z, ZQCOW2_EZONE_STATE},
        {ZQCOW2_OP_ZONE_OPEN, 1, Z, -EINVAL},
        {ZQCOW2_OP_DISCARD, 2 * Z, 512, ZQCOW2_EZONE_STATE},
        {ZQCOW2_OP_ZONE_SET_STATE, 2 * Z, ZQCOW2_ZONE_CLOSED, -EINVAL},
    };
    struct rig r;

    (void)state;
    for (int w = 0; w < NR_WORLDS; w++) {
        struct zqcow2_queue *q = begin(&r, worlds[w], 1, 16);

        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
            struct ticket *t = ticket(bad[i].op, bad[i].off, bad[i].len, 1);

            assert_int_equal(submit(q, t), 1);
            wait_all(q);
            if (t->ret != bad[i].want || t->calls != 1)
                fail_msg("%s: request %zu: %d, expected %d", world_names[w], i, t->ret,
                         bad[i].want);
            drop(t);
        }
        end(&r, q);
    }
}

/* A state that is taken back behind one that waits for a write in flight. */
static void states_in_order(void **state)
{
    struct rig r;

    (void)state;
    for (int w = 0; w < NR_WORLDS; w++) {
        struct zqcow2_queue *q = begin(&r, worlds[w], 1, 16);
        struct ticket *t[] = {
            ticket(ZQCOW2_OP_WRITE, 2 * Z, 4096, 1),
            ticket(ZQCOW2_OP_ZONE_SET_STATE, 2 * Z, ZQCOW2_ZONE_OFFLINE, 1),
            ticket(ZQCOW2_OP_ZONE_SET_STATE, 2 * Z, ZQCOW2_ZONE_NOT_WP, 1),
            ticket(ZQCOW2_OP_WRITE, 2 * Z + 4096, 4096, 1),
        };

        for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++)
            assert_int_equal(submit(q, t[i]), 1);
        wait_all(q);
        for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
            if (t[i]->ret)
                fail_msg("%s: request %zu: %d", world_names[w], i, t[i]->ret);
            drop(t[i]);
        }
        assert_int_equal(rig_zone(&r, 2).write_pointer, 2 * Z + 8192);
        end(&r, q);
    }
}

static void depth_limits(void **state)
{
    struct zqcow2_queue *q = NULL;
    struct rig r;

    (void)state;
    rig_begin(&r, &shape);
    assert_int_equal(zqcow2_queue_open(r.img, 0, &q), -EINVAL);
    assert_int_equal(zqcow2_queue_open(r.img, 65537, &q), -EINVAL);
    assert_int_equal(zqcow2_queue_open(r.img, 65536, &q), 0);
    assert_int_equal(zqcow2_queue_close(q), 0);
    rig_end(&r);
}

/* Completions in an io_uring interrupt system calls as signals do. */
static bool readable(int fd, int timeout_ms)
{
    struct pollfd p = {fd, POLLIN, 0};
    int n;

    do {
        n = poll(&p, 1, timeout_ms);
    } while (n < 0 && errno == EINTR);
    return n == 1 && (p.revents & POLLIN);
}

/* An epoll loop and nothing else moves everything; a quiet queue is not readable. */
static void the_descriptor_is_enough(void **state)
{
    struct epoll_event ev = {.events = EPOLLIN}, got;
    struct ticket *t[40];
    struct rig r;

    (void)state;
    if (!RIG_JOINTS)
        skip();
    for (int w = 0; w < NR_WORLDS; w++) {
        struct zqcow2_queue *q = begin(&r, worlds[w], 11, 8);
        int ep = epoll_create1(EPOLL_CLOEXEC), fd = zqcow2_queue_fd(q), n;
        unsigned sent = 0, spins = 0;

        assert_true(fd >= 0);
        assert_int_equal(zqcow2_queue_fd(q), fd);
        assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
        for (unsigned i = 0; i < 40; i++)
            t[i] = ticket(ZQCOW2_OP_APPEND, Z * (1 + i % 3), UNIT, i + 1);
        while (completions < 40) {
            while (sent < 40 && submit(q, t[sent]) == 1)
                sent++;
            n = epoll_wait(ep, &got, 1, 20000);
            if (n == 0 || (n < 0 && errno != EINTR))
                fail_msg("%s: %u sent, %u complete, and the descriptor is silent", world_names[w],
                         sent, completions);
            poll_queue(q, (uint32_t)(w ? 0 : 3));
            assert_true(++spins < 100000);
        }
        for (int i = 0; i < 10 && readable(fd, 0); i++) /* spurious ones may linger */
            poll_queue(q, 0);
        assert_false(readable(fd, 0));
        for (unsigned i = 0; i < 40; i++) {
            assert_int_equal(t[i]->ret, 0);
            drop(t[i]);
        }
        close(ep);
        end(&r, q);
    }
}

/* Without time to wait, wait() is poll(): who only ever tries gets there, too. */
static void waiting_for_no_time_moves_on(void **state)
{
    struct rig r;

    (void)state;
    for (int w = 0; w < NR_WORLDS; w++) {
        struct zqcow2_queue *q = begin(&r, worlds[w], 21, 4);

        for (uint32_t min = 0; min < 2; min++) {
            struct ticket *t = ticket(ZQCOW2_OP_APPEND, Z, UNIT, 1);
            unsigned tries = 0;

            completions = 0;
            assert_int_equal(submit(q, t), 1);
            while (!completions && ++tries < 20000) {
                wait_queue(q, min, 0);
                usleep(w == 2 ? 50 : 0); /* the thread's turn */
            }
            if (!completions)
                fail_msg("%s: wait(%u, 0) delivers nothing", world_names[w], min);
            assert_int_equal(t->ret, 0);
            drop(t);
        }
        end(&r, q);
    }
}

/* Descriptors: only who has something in flight hears of it, and comes back to it. */
static void an_idle_queue_sleeps(void **state)
{
    struct rig r;

    (void)state;
    if (!RIG_JOINTS)
        skip();
    for (int w = 0; w < NR_WORLDS; w++) {
        struct zqcow2_queue *q[2] = {begin(&r, worlds[w], 22, 4), NULL};
        struct ticket *t;
        int fd[2];

        assert_int_equal(zqcow2_queue_open(r.img, 4, &q[1]), 0);
        for (int i = 0; i < 2; i++)
            fd[i] = zqcow2_queue_fd(q[i]);
        for (int round = 0; round < 20; round++) {
            int busy = round % 2, idle = !busy;

            completions = 0;
            t = ticket(ZQCOW2_OP_APPEND, Z, UNIT, 1);
            for (int i = 0; i < 3 && readable(fd[idle], 0); i++) /* the first in vain is allowed */
                poll_queue(q[idle], 0);
            assert_int_equal(submit(q[busy], t), 1);
            while (!completions) {
                assert_true(readable(fd[busy], 20000));
                if (w == 1 && round > 1)
                    assert_false(readable(fd[idle], 0));
                poll_queue(q[busy], 0);
            }
            assert_int_equal(t->ret, 0);
            drop(t);
        }
        assert_int_equal(zqcow2_queue_close(q[1]), 0);
        end(&r, q[0]);
    }
}

/* Pages that are nothing but what the store puts where a hole was punched. */
static unsigned holes(struct rig *r)
{
    unsigned n = 0;

    pthread_mutex_lock(&r->store.lock);
    for (uint64_t i = 0; i < r->store.nr_pages; i++) {
        const uint8_t *p = r->store.page[i];
        n += p && p[0] == STORE_HOLE && !memcmp(p, p + 1, STORE_PAGE - 1);
    }
    pthread_mutex_unlock(&r->store.lock);
    return n;
}

/* Submits and polls, with no wait, until it is over. */
static void finish_by(struct zqcow2_queue *q, struct ticket *t)
{
    completions = 0;
    assert_int_equal(submit(q, t), 1);
    while (!completions)
        poll_queue(q, 0);
    assert_int_equal(t->ret, 0);
    drop(t);
}

/* Holes are the image's own I/O: a queue hears of it, also when all are idle, or one has left. */
static void background_work_is_heard(void **state)
{
    struct rig r;

    (void)state;
    if (!RIG_JOINTS)
        skip();
    for (int w = 0; w < NR_WORLDS; w++) {
        /* 0: two in loops. 1: one is closed. 2: one has no descriptor, and its thread stops. */
        for (int closing = 0; closing < 3; closing++) {
            struct zqcow2_queue *q = begin(&r, worlds[w], 23, 4), *other;
            unsigned spins = 0;

            assert_int_equal(zqcow2_queue_open(r.img, 4, &other), 0);
            assert_true((closing == 2 || zqcow2_queue_fd(q) >= 0) && zqcow2_queue_fd(other) >= 0);
            for (uint64_t at = 0; at < 3 * Z; at += UNIT)
                assert_int_equal(rig_write(&r, Z + at, UNIT, 1), 0);
            assert_int_equal(zqcow2_flush(r.img), 0);
            for (int i = 0; i < 10; i++) { /* in vain: they are idle */
                poll_queue(q, 0);
                poll_queue(other, 0);
            }
            assert_int_equal(holes(&r), 0);
            if (closing == 2) {
                finish_by(q, ticket(ZQCOW2_OP_ZONE_RESET, Z, 3 * Z, 0));
                finish_by(q, ticket(ZQCOW2_OP_FLUSH, 0, 0, 0));
            } else {
                assert_int_equal(zqcow2_zone_reset(r.img, Z, 3 * Z, 0), 0);
                assert_int_equal(zqcow2_flush(r.img), 0);
            }
            if (closing == 1)
                assert_int_equal(zqcow2_queue_close(q), 0);
            for (unsigned quiet = 0; holes(&r) < 3 * 3;) {
                bool heard = false;

                for (int i = closing > 0; i < 2; i++) {
                    struct zqcow2_queue *one = i ? other : q;
                    if (readable(zqcow2_queue_fd(one), 0)) {
                        poll_queue(one, 0);
                        heard = true;
                    }
                }
                quiet = heard ? 0 : quiet + 1;
                if (quiet)
                    usleep(100);
                if (quiet == 20000)
                    fail_msg("%s: nobody hears of the hole", world_names[w]);
                assert_true(++spins < 1000000);
            }
            assert_int_equal(zqcow2_queue_close(other), 0);
            if (closing == 1)
                assert_int_equal(zqcow2_queue_open(r.img, 4, &q), 0);
            end(&r, q);
        }
    }
}

/* poll() gives no more than it is asked for, and the rest stays readable. */
static void poll_delivers_at_most(void **state)
{
    struct ticket *t[10];
    struct rig r;
    struct zqcow2_queue *q = begin(&r, RIG_PLAIN, 1, 16);
    int fd = zqcow2_queue_fd(q);

    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        t[i] = ticket(ZQCOW2_OP_APPEND, Z, UNIT, 1);
        assert_int_equal(submit(q, t[i]), 1);
    }
    for (unsigned left = 10; left; left -= 2) {
        assert_true(readable(fd, 1000));
        assert_int_equal(poll_queue(q, 2), 2);
        assert_int_equal(zqcow2_queue_pending(q), left - 2);
    }
    assert_int_equal(poll_queue(q, 2), 0);
    for (unsigned i = 0; i < 10; i++)
        drop(t[i]);
    end(&r, q);
}

static uint64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Nothing in flight: wait() returns at once, without a limit and with one. */
static void wait_returns_when_nothing_is_in_flight(void **state)
{
    struct rig r;

    (void)state;
    for (int w = 0; w < NR_WORLDS; w++) {
        struct zqcow2_queue *q = begin(&r, worlds[w], 2, 4);
        struct ticket *t = ticket(ZQCOW2_OP_APPEND, Z, UNIT, 1);
        uint64_t begun = now_ms();

        assert_int_equal(wait_queue(q, 1, -1), 0);
        assert_int_equal(wait_queue(q, 4, 60000), 0);
        assert_int_equal(submit(q, t), 1);
        assert_int_equal(wait_queue(q, 4, -1), 1); /* fewer than asked for: no more are in flight */
        assert_true(now_ms() - begun < 30000);
        drop(t);
        end(&r, q);
    }
}

struct chain {
    struct zqcow2_queue *q;
    struct ticket *t;
    unsigned left;
};

static void submit_next(void *arg, const struct zqcow2_result *res)
{
    struct chain *c = arg;

    completions++;
    called_outside += !inside_poll;
    c->t->ret |= res->ret;
    if (c->left && --c->left)
        c->t->ret |= zqcow2_queue_submit(c->q, &c->t->req, 1) - 1;
}

/* done() may submit; one poll() delivers only what was complete when it began. */
static void callbacks_may_submit(void **state)
{
    struct rig r;

    (void)state;
    for (int w = 0; w < NR_WORLDS; w++) {
        struct zqcow2_queue *q = begin(&r, worlds[w], 13, 2);
        struct ticket *t = ticket(ZQCOW2_OP_APPEND, Z, UNIT, 1);
        struct chain c = {q, t, 50};

        t->req.done = submit_next;
        t->req.arg = &c;
        assert_int_equal(submit(q, t), 1);
        while (zqcow2_queue_pending(q)) {
            unsigned before = completions;

            if (poll_queue(q, 0) > 1)
                fail_msg("%s: one poll went round twice", world_names[w]);
            if (completions == before)
                wait_queue(q, 1, 1000);
        }
        assert_int_equal(completions, 50);
        assert_int_equal(t->ret, 0);
        assert_int_equal(rig_zone(&r, 1).write_pointer, Z + 50 * UNIT);
        drop(t);
        end(&r, q);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(completes_once_and_only_in_poll),
        cmocka_unit_test(closing_is_refused_while_busy),
        cmocka_unit_test(a_full_queue_takes_no_more),
        cmocka_unit_test(malformed_requests),
        cmocka_unit_test(mistakes_go_to_done),
        cmocka_unit_test(states_in_order),
        cmocka_unit_test(depth_limits),
        cmocka_unit_test(the_descriptor_is_enough),
        cmocka_unit_test(waiting_for_no_time_moves_on),
        cmocka_unit_test(an_idle_queue_sleeps),
        cmocka_unit_test(background_work_is_heard),
        cmocka_unit_test(poll_delivers_at_most),
        cmocka_unit_test(wait_returns_when_nothing_is_in_flight),
        cmocka_unit_test(callbacks_may_submit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
