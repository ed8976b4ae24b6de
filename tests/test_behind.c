/* SPDX-License-Identifier: MIT */
/*
 * What is in flight behind a write that failed on the host gets the same error, wherever it waits;
 * what stands before it, in other zones and behind a reset does not.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/queue.h>
#include "rig/rig.h"

#define N 12u

static const struct geometry shape = {.name = "behind",
                                      .size = MiB(8),
                                      .zone_size = MiB(1),
                                      .cluster = 4096,
                                      .max_open = 3,
                                      .max_active = 4};

struct job {
    int op, ret;
    uint64_t off, len, at;
    bool done;
};

static uint8_t data[KiB(64)];

static void done(void *arg, const struct zqcow2_result *res)
{
    struct job *j = arg;

    j->done = true;
    j->ret = res->ret;
    j->at = res->offset;
}

static bool writes(const struct job *j)
{
    return j->op != ZQCOW2_OP_ZONE_RESET;
}

/* Writes one behind the other in zone 0, appends among them, one write of zone 1, maybe a reset. */
static void plan(struct job *j, uint64_t *rng, unsigned reset)
{
    uint64_t next = 0;

    for (unsigned i = 0; i < N; i++) {
        uint64_t kind = rng_below(rng, 4);

        j[i] = (struct job){.op = kind == 0 ? ZQCOW2_OP_APPEND :
                                  kind == 1 ? ZQCOW2_OP_WRITE_ZEROES :
                                              ZQCOW2_OP_WRITE,
                            .off = kind ? next : 0,
                            .len = 512 * (1 + rng_below(rng, 100))};
        if (i == 5) {
            j[i].op = ZQCOW2_OP_WRITE;
            j[i].off = MiB(1);
            continue;
        }
        if (i == reset) {
            j[i] = (struct job){.op = ZQCOW2_OP_ZONE_RESET, .len = MiB(1)};
            next = 0;
            continue;
        }
        next += j[i].len;
    }
}

/* In one call: all of them are in flight before the host has answered any. */
static void submit(struct zqcow2_queue *q, struct job *j, struct iovec *v)
{
    struct zqcow2_request r[N];

    for (unsigned i = 0; i < N; i++) {
        r[i] = (struct zqcow2_request){.size = sizeof(r[i]),
                                       .op = (uint16_t)j[i].op,
                                       .offset = j[i].off,
                                       .length = j[i].len,
                                       .iov = &v[i],
                                       .iovcnt = 1,
                                       .done = done,
                                       .arg = &j[i]};
        v[i] = (struct iovec){data, (size_t)j[i].len};
    }
    assert_int_equal(zqcow2_queue_submit(q, r, N), N);
}

/* NULL, or what is wrong. */
static const char *judge(const struct job *j, unsigned *failed)
{
    int error = 0;

    for (unsigned i = 0; i < N; i++) {
        if (j[i].ret == -EINPROGRESS)
            return "a request was not answered";
        if (i == 5 && j[i].ret)
            continue; /* the host's error was its own */
        if (!writes(&j[i])) {
            if (j[i].ret)
                return "the reset failed";
            error = 0;
        } else if (i != 5 && error && j[i].ret != error) {
            return "not the error of the write before it";
        } else if (i != 5 && j[i].ret) {
            error = j[i].ret;
        }
        *failed += j[i].ret != 0;
    }
    return error <= -10000 ? "the error is not the host's" : NULL;
}

static unsigned failures, runs;

/* False: the n-th call was never made. */
static bool once(enum rig_world world, enum fault_kind kind, uint64_t n, uint64_t seed,
                 unsigned reset)
{
    struct job j[N];
    struct iovec v[N];
    struct rig r;
    struct zqcow2_queue *q;
    uint64_t rng = seed;
    const char *wrong;
    bool hit;

    rig_init(&r, &shape, world, seed);
    assert_int_equal(rig_create(&r), 0);
    r.open.extent_bytes = KiB(16);
    assert_int_equal(rig_open(&r, true), 0);
    assert_int_equal(rig_write(&r, MiB(2), 512, 1), 0); /* the mark is set */
    assert_int_equal(zqcow2_queue_open(r.img, N, &q), 0);
    plan(j, &rng, reset);
    for (unsigned i = 0; i < N; i++)
        j[i].ret = -EINPROGRESS;
    fault_plan(&r.fault, kind, n, false);
    submit(q, j, v);
    while (zqcow2_queue_pending(q))
        zqcow2_queue_wait(q, 1, 1000);
    hit = r.fault.failed;
    fault_plan(&r.fault, FAULT_NONE, 0, false);
    if (!(rig_info(&r).flags & ZQCOW2_INFO_DEAD)) {
        wrong = judge(j, &failures);
        for (unsigned i = 0; wrong && i < N; i++)
            printf("  %s +%llu: %d\n", rig_op_name(j[i].op), (unsigned long long)j[i].len,
                   j[i].ret);
        if (wrong)
            fail_msg("world %d fault %d call %llu seed %llu reset %u: %s", world, kind,
                     (unsigned long long)n, (unsigned long long)seed, reset, wrong);
    }
    assert_int_equal(zqcow2_queue_close(q), 0);
    rig_free(&r);
    runs++;
    return hit;
}

static void all_behind_fail(void **state)
{
    (void)state;
    for (unsigned world = RIG_SHUFFLED; world <= RIG_THREADED; world++) {
        for (uint64_t seed = 1; seed <= 12; seed++) {
            for (unsigned kind = FAULT_EIO; kind <= FAULT_ENOSPC; kind++) {
                for (uint64_t n = 1; once(world, kind, n, seed, seed % 3 ? N : 8); n++)
                    ;
            }
        }
    }
    printf("behind a failed write: %u runs, %u requests failed, none with another error\n", runs,
           failures);
    assert_true(failures > runs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_behind_fail)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
