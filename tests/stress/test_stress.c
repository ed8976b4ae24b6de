/* SPDX-License-Identifier: MIT */
/*
 * Four threads with four queues each, and blocking calls, on one image: appends, reads, resets,
 * finishes, reports and flushes on zones that all share. Made for TSan. ZQ_OPS: operations in all
 * worlds together (default 50000), ZQ_SEED, ZQ_WORLD (number of one world).
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/queue.h>
#include "rig/rig.h"

#define THREADS 4u
#define QUEUES  4u
#define DEPTH   8u
#define UNIT    4096u
#define Z       KiB(256)
#define ZONES   16u

static const struct geometry shape = {.name = "stress",
                                      .size = ZONES * Z,
                                      .zone_size = Z,
                                      .conventional = 1,
                                      .max_open = 6,
                                      .max_active = 10,
                                      .cluster = 16384};
static const char *const names[] = {"plain", "shuffled", "threaded", "uring", "called"};

struct request {
    struct hand *hand;
    struct zqcow2_request req;
    struct iovec iov;
    uint64_t tag;
    uint64_t buf[UNIT / 8];
};

/* One thread. What it finds wrong is counted: cmocka's jumps are not for other threads. */
struct hand {
    struct rig *rig;
    unsigned id;
    uint64_t rng, ops, begun, done, good;
    struct zqcow2_queue *queue[QUEUES];
    struct request request[QUEUES][DEPTH];
    struct request *idle[QUEUES][DEPTH];
    unsigned nr_idle[QUEUES];
    char why[160];
};

static void complain(struct hand *h, const char *what, const struct request *r, long long is)
{
    if (!h->why[0])
        snprintf(h->why, sizeof(h->why), "thread %u: %s: %s off %#llx: %lld", h->id, what,
                 rig_op_name(r->req.op), (unsigned long long)r->req.offset, is);
}

/* What else the zones may answer, as others write, fill, finish and reset them meanwhile. */
static bool is_allowed(int op, int ret)
{
    switch (ret) {
    case 0: return true;
    case ZQCOW2_EZONE_FULL:
    case ZQCOW2_EZONE_BOUNDARY: return op == ZQCOW2_OP_APPEND;
    case ZQCOW2_EZONE_ACTIVE: return op == ZQCOW2_OP_APPEND || op == ZQCOW2_OP_ZONE_FINISH;
    default: return false;
    }
}

/* A sector is zeros, or whole as somebody wrote it: its first words say who and where. */
static void look_at(struct hand *h, struct request *r)
{
    for (unsigned s = 0; s < UNIT / 512; s++) {
        uint64_t want[64], *is = r->buf + s * 64;

        if (!is[0] && !is[1])
            continue;
        rig_pattern(want, 512, is[1], is[0]);
        if (memcmp(is, want, 512))
            complain(h, "torn sector", r, s);
    }
}

static void request_done(void *arg, const struct zqcow2_result *res)
{
    struct request *r = arg;
    struct hand *h = r->hand;
    unsigned q = (unsigned)((size_t)(r - &h->request[0][0]) / DEPTH);

    if (!is_allowed(r->req.op, res->ret))
        complain(h, "answer", r, res->ret);
    else if (r->req.op == ZQCOW2_OP_READ)
        look_at(h, r);
    else if (r->req.op == ZQCOW2_OP_APPEND && !res->ret && res->offset / Z != r->req.offset / Z)
        complain(h, "went to another zone", r, (long long)res->offset);
    h->good += res->ret == 0;
    h->done++;
    h->idle[q][h->nr_idle[q]++] = r;
}

static void draw(struct hand *h, struct request *r)
{
    uint64_t pick = rng_below(&h->rng, 100), zone = 1 + rng_below(&h->rng, ZONES - 1);

    r->req = (struct zqcow2_request){.size = sizeof(r->req),
                                     .op = ZQCOW2_OP_APPEND,
                                     .offset = zone * Z,
                                     .done = request_done,
                                     .arg = r};
    r->iov = (struct iovec){r->buf, UNIT};
    if (pick < 50) {
        rig_pattern(r->buf, UNIT, zone * Z, 1 + h->id * 1000000ull + h->begun);
    } else if (pick < 85) {
        r->req.op = ZQCOW2_OP_READ;
        r->req.offset += rng_below(&h->rng, Z / UNIT) * UNIT;
    } else if (pick < 88) {
        r->req.op = ZQCOW2_OP_FLUSH;
    } else {
        r->req.op = pick < 96 ? ZQCOW2_OP_ZONE_RESET : ZQCOW2_OP_ZONE_FINISH;
        r->req.length = Z;
    }
    if (r->req.op == ZQCOW2_OP_APPEND || r->req.op == ZQCOW2_OP_READ) {
        r->req.iov = &r->iov;
        r->req.iovcnt = 1;
    }
    r->req.flags = pick == 0 ? ZQCOW2_FUA : 0;
}

static void submit_some(struct hand *h, unsigned q)
{
    unsigned n = 1 + (unsigned)rng_below(&h->rng, DEPTH);

    while (n-- && h->nr_idle[q] && h->begun < h->ops) {
        struct request *r = h->idle[q][--h->nr_idle[q]];

        draw(h, r);
        if (zqcow2_queue_submit(h->queue[q], &r->req, 1) != 1)
            complain(h, "not taken", r, 0);
        h->begun++;
    }
}

/* A blocking call beside all the queues. */
static void call(struct hand *h, unsigned q)
{
    struct zqcow2_result res;
    struct request *r;

    if (!h->nr_idle[q] || h->begun == h->ops)
        return;
    r = h->idle[q][--h->nr_idle[q]];
    draw(h, r);
    h->begun++;
    (void)zqcow2_run(h->rig->img, &r->req, &res);
    request_done(r, &res);
}

static void report(struct hand *h)
{
    struct zqcow2_zone z[ZONES];
    uint32_t nr = ZONES;
    struct request none = {.hand = h};
    int rc = zqcow2_zone_report(h->rig->img, 0, z, &nr);

    if (rc || nr != ZONES)
        complain(h, "report", &none, rc);
    for (uint32_t i = 1; !rc && i < nr; i++) {
        uint64_t at = z[i].write_pointer - z[i].start;
        bool empty = z[i].state == ZQCOW2_ZONE_EMPTY, full = z[i].state == ZQCOW2_ZONE_FULL;
        if (at > Z || at % UNIT || (empty && at) || full != (at == Z))
            complain(h, "write pointer and state", &none, i);
    }
}

static void *work(void *arg)
{
    struct hand *h = arg;

    while (h->done < h->ops && !h->why[0]) {
        unsigned q = (unsigned)rng_below(&h->rng, QUEUES);

        if (rng_below(&h->rng, 4))
            submit_some(h, q);
        else
            call(h, q);
        if (rng_below(&h->rng, 3))
            zqcow2_queue_poll(h->queue[q], (uint32_t)rng_below(&h->rng, 4));
        else if (zqcow2_queue_pending(h->queue[q]))
            zqcow2_queue_wait(h->queue[q], 1, 100);
        if (rng_below(&h->rng, 16) == 0)
            report(h);
    }
    for (unsigned q = 0; q < QUEUES; q++) {
        while (zqcow2_queue_pending(h->queue[q]))
            zqcow2_queue_wait(h->queue[q], 1, 1000);
    }
    return NULL;
}

static void begin_hand(struct hand *h, struct rig *rig, unsigned id, uint64_t ops)
{
    memset(h, 0, sizeof(*h));
    h->rig = rig;
    h->id = id;
    h->ops = ops;
    h->rng = rig_env("ZQ_SEED", 1) * 1000 + id;
    for (unsigned q = 0; q < QUEUES; q++) {
        assert_int_equal(zqcow2_queue_open(rig->img, DEPTH, &h->queue[q]), 0);
        for (unsigned i = 0; i < DEPTH; i++) {
            h->request[q][i].hand = h;
            h->idle[q][h->nr_idle[q]++] = &h->request[q][i];
        }
    }
}

static void run_world(enum rig_world world, uint64_t ops)
{
    static struct rig rig;
    static struct hand hand[THREADS];
    pthread_t thread[THREADS];
    uint64_t good = 0;

    rig_watch(1200, "test_stress, %s, ZQ_SEED=%llu", names[world],
              (unsigned long long)rig_env("ZQ_SEED", 1));
    rig_begin_in(&rig, &shape, world, rig_env("ZQ_SEED", 1));
    for (unsigned i = 0; i < THREADS; i++)
        begin_hand(&hand[i], &rig, i, ops / THREADS);
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, work, &hand[i]), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    for (unsigned i = 0; i < THREADS; i++) {
        if (hand[i].why[0])
            fail_msg("%s: %s", names[world], hand[i].why);
        good += hand[i].good;
        for (unsigned q = 0; q < QUEUES; q++)
            assert_int_equal(zqcow2_queue_close(hand[i].queue[q]), 0);
    }
    rig_end(&rig);
    rig_watch(0, "over");
    printf("stress, %s: %llu operations, %llu of them successful\n", names[world],
           (unsigned long long)(ops / THREADS * THREADS), (unsigned long long)good);
    assert_true(good > ops / 2);
}

static void all_worlds(void **state)
{
    uint64_t ops = rig_env("ZQ_OPS", 50000) / 5, only = rig_env("ZQ_WORLD", 5);

    (void)state;
    for (unsigned w = RIG_PLAIN; w <= RIG_CALLED; w++) {
        if ((only < 5 && only != w) || (w == RIG_URING && !rig_uring_works()))
            continue;
        run_world((enum rig_world)w, ops);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_worlds)};

    setvbuf(stdout, NULL, _IOLBF, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
