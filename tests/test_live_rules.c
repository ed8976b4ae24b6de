/* SPDX-License-Identifier: MIT */
/*
 * Faults on a live disk: which requests a rule hits, against a count of the test's own; delays;
 * what is refused.
 */
#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>
#include <zqcow2/faults.h>
#include <zqcow2/simdisk.h>
#include "rig/rng.h"

#define BLOCK 512u

static uint8_t data[BLOCK];

static int ask(struct zqcow2_backend *be, uint32_t kind, uint64_t off)
{
    struct iovec iov = {data, BLOCK};

    switch (kind) {
    case ZQCOW2_IO_READ: return zqcow2_backend_readv(be, &iov, 1, off);
    case ZQCOW2_IO_WRITE: return zqcow2_backend_writev(be, &iov, 1, off);
    case ZQCOW2_IO_FLUSH: return zqcow2_backend_flush(be);
    case ZQCOW2_IO_ZERO: return zqcow2_backend_zero(be, off, BLOCK);
    case ZQCOW2_IO_DISCARD: return zqcow2_backend_discard(be, off, BLOCK);
    default: return zqcow2_backend_truncate(be, off);
    }
}

/* ---- rules ---- */

struct counted {
    struct zqcow2_faults_rule r;
    uint64_t seen, hits;
};

/* Mistakes in the range are likely: the requests touch eight blocks, and so do the rules. */
static void draw_rule(struct counted *c, uint64_t *rng)
{
    *c = (struct counted){.r = ZQCOW2_FAULTS_RULE_INIT};
    c->r.nth = 1 + rng_below(rng, 5);
    c->r.every = rng_below(rng, 4);
    c->r.count = rng_below(rng, 4);
    c->r.kinds = 1 + (uint32_t)rng_below(rng, 63);
    c->r.offset = rng_below(rng, 8) * BLOCK;
    c->r.length = rng_below(rng, 4) * BLOCK;
    c->r.error = -(int)rng_below(rng, 4096);
}

/* The error that the rule has for the request, or 0. */
static int count_request(struct counted *c, uint32_t kind, uint64_t off)
{
    bool anywhere = kind == ZQCOW2_IO_FLUSH || kind == ZQCOW2_IO_TRUNCATE;
    uint64_t after;

    if (!(c->r.kinds >> kind & 1))
        return 0;
    if (!anywhere && off < c->r.offset)
        return 0;
    if (!anywhere && c->r.length && off >= c->r.offset + c->r.length)
        return 0;
    if (++c->seen < c->r.nth || (c->r.count && c->hits == c->r.count))
        return 0;
    after = c->seen - c->r.nth;
    if (c->r.every ? after % c->r.every : after)
        return 0;
    c->hits++;
    return c->r.error;
}

static uint64_t rules_of_seed(uint64_t seed)
{
    struct zqcow2_backend *inner, *be;
    struct zqcow2_faults *f;
    struct counted rule[3];
    uint64_t rng = seed, failed = 0;

    assert_int_equal(zqcow2_mem_open(0, NULL, &inner), 0);
    assert_int_equal(zqcow2_faults_wrap(inner, NULL, &f), 0);
    assert_int_equal(zqcow2_faults_backend(f, &be), 0);
    for (unsigned i = 0; i < 3; i++) {
        draw_rule(&rule[i], &rng);
        assert_int_equal(zqcow2_faults_add_rule(f, &rule[i].r), 0);
    }
    for (unsigned n = 0; n < 60; n++) {
        uint32_t kind = (uint32_t)rng_below(&rng, ZQCOW2_IO_TRUNCATE + 1);
        uint64_t off = rng_below(&rng, 8) * BLOCK;
        int want = 0, got = ask(be, kind, off);

        for (unsigned i = 0; i < 3; i++) {
            int error = count_request(&rule[i], kind, off);

            want = want ? want : error;
        }
        if (got != want)
            fail_msg("seed %" PRIu64 ", request %u: %d, not %d", seed, n, got, want);
        failed += want != 0;
    }
    zqcow2_faults_clear_rules(f);
    for (unsigned n = 0; n < 10; n++)
        assert_int_equal(ask(be, ZQCOW2_IO_WRITE, 0), 0);
    zqcow2_backend_close(be);
    zqcow2_faults_free(f);
    return failed;
}

static void rules_hit_exactly(void **state)
{
    uint64_t failed = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 500; seed++)
        failed += rules_of_seed(seed);
    printf("live_rules: 30000 requests, %" PRIu64 " failed, 0 others\n", failed);
    assert_in_range(failed, 1000, 20000);
}

/* ---- delays ---- */

static uint64_t microseconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* At least as long as the log says, and that is in the range and of the seed. */
static void delay_line(void *arg, const char *line)
{
    uint64_t *sum = arg, us;
    const char *p = strstr(line, "error 0, ");

    if (!p)
        return;
    assert_int_equal(sscanf(p, "error 0, %" SCNu64 " us", &us), 1);
    assert_in_range(us, 500, 2500);
    *sum += us;
}

static uint64_t delayed_sum(uint64_t seed)
{
    struct zqcow2_faults_options o = ZQCOW2_FAULTS_OPTIONS_INIT;
    struct zqcow2_faults_rule r = ZQCOW2_FAULTS_RULE_INIT;
    struct zqcow2_backend *inner, *be;
    struct zqcow2_faults *f;
    uint64_t sum = 0, began;

    assert_int_equal(zqcow2_mem_open(0, NULL, &inner), 0);
    o.log = delay_line;
    o.log_arg = &sum;
    assert_int_equal(zqcow2_faults_wrap(inner, &o, &f), 0);
    assert_int_equal(zqcow2_faults_backend(f, &be), 0);
    r.kinds = 1u << ZQCOW2_IO_READ | 1u << ZQCOW2_IO_WRITE;
    r.every = 1;
    r.count = 20;
    r.seed = seed;
    r.delay_min = 500;
    r.delay_max = 2500;
    assert_int_equal(zqcow2_faults_add_rule(f, &r), 0);
    began = microseconds();
    for (unsigned i = 0; i < 30; i++)
        assert_int_equal(i % 2 ? ask(be, ZQCOW2_IO_WRITE, 0) : ask(be, ZQCOW2_IO_READ, 0), 0);
    assert_in_range(sum, 20 * 500, 20 * 2500);
    assert_true(microseconds() - began >= sum);
    zqcow2_backend_close(be);
    zqcow2_faults_free(f);
    return sum;
}

static void delays(void **state)
{
    uint64_t one = delayed_sum(1);

    (void)state;
    assert_int_equal(one, delayed_sum(1));
    assert_int_not_equal(one, delayed_sum(2));
}

/* ---- mistakes ---- */

static void refused_rules(struct zqcow2_faults *f)
{
    struct zqcow2_faults_rule r = ZQCOW2_FAULTS_RULE_INIT, bad;

    assert_int_equal(zqcow2_faults_add_rule(f, &r), -EINVAL); /* no kinds */
    r.kinds = 1;
    assert_int_equal(zqcow2_faults_add_rule(f, &r), 0);
#define refuse(member, value) \
    bad = r; \
    bad.member = value; \
    assert_int_equal(zqcow2_faults_add_rule(f, &bad), -EINVAL)
    refuse(size, 8);
    refuse(nth, 0);
    refuse(kinds, 64);
    refuse(error, 5);
    refuse(error, -4096);
    refuse(offset, (uint64_t)1 << 63);
    refuse(length, (uint64_t)1 << 63);
    refuse(delay_min, 1);
    refuse(delay_max, 60000001);
}

static void refusals(void **state)
{
    struct zqcow2_simdisk_options d = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_faults_options o = ZQCOW2_FAULTS_OPTIONS_INIT;
    struct zqcow2_backend *inner, *be, *second;
    struct zqcow2_simdisk *disk;
    struct zqcow2_faults *f;

    (void)state;
    d.flags = ZQCOW2_SIMDISK_ASYNC;
    assert_int_equal(zqcow2_simdisk_new(&d, &disk), 0);
    assert_int_equal(zqcow2_simdisk_backend(disk, &inner), 0);
    assert_int_equal(zqcow2_faults_wrap(inner, NULL, &f), -EOPNOTSUPP);
    zqcow2_backend_close(inner);
    zqcow2_simdisk_free(disk);

    /* An asynchronous one whose blocking calls need nobody else will do. */
    assert_int_equal(zqcow2_mem_open(0, NULL, &second), 0);
    assert_int_equal(zqcow2_threads_wrap(second, 1, NULL, &inner), 0);
    assert_int_equal(zqcow2_faults_wrap(inner, NULL, &f), 0);
    assert_int_equal(zqcow2_faults_backend(f, &be), 0);
    assert_int_equal(ask(be, ZQCOW2_IO_WRITE, 0), 0);
    assert_int_equal(ask(be, ZQCOW2_IO_FLUSH, 0), 0);
    zqcow2_backend_close(be);
    zqcow2_faults_free(f);

    assert_int_equal(zqcow2_mem_open(0, NULL, &inner), 0);
    assert_int_equal(zqcow2_faults_wrap(NULL, NULL, &f), -EINVAL);
    assert_int_equal(zqcow2_faults_wrap(inner, NULL, NULL), -EINVAL);
    o.size = 1;
    assert_int_equal(zqcow2_faults_wrap(inner, &o, &f), -EINVAL);
    assert_int_equal(zqcow2_backend_claim(inner), 0);
    assert_int_equal(zqcow2_faults_wrap(inner, NULL, &f), -EBUSY);
    zqcow2_backend_release(inner);
    assert_int_equal(zqcow2_faults_wrap(inner, NULL, &f), 0);
    assert_int_equal(zqcow2_backend_claim(inner), -EBUSY);
    assert_int_equal(zqcow2_faults_backend(f, &be), 0);
    assert_int_equal(zqcow2_faults_backend(f, &second), -EBUSY);
    zqcow2_backend_close(be);
    assert_int_equal(zqcow2_faults_backend(f, &be), 0);

    assert_int_equal(zqcow2_faults_cut(f, 1, ZQCOW2_FAULTS_TORN_4096 + 1), -EINVAL);
    assert_int_equal(zqcow2_faults_cut(f, 1, 1 << 9), -EINVAL);
    refused_rules(f);
    zqcow2_backend_close(be);
    zqcow2_faults_free(f);
    zqcow2_faults_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_hit_exactly),
        cmocka_unit_test(delays),
        cmocka_unit_test(refusals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
