/* SPDX-License-Identifier: MIT */
/*
 * Rounds, stage by stage, on a device that the test completes by hand: their order, barriers that
 * stand alone, stages that are left out, waiters, and what becomes of a round whose n-th write or
 * barrier fails (K1-K3, K9, I1, I7, R10, R12). ZQ_SEED is the first random history, ZQ_SEEDS how
 * many.
 */
#include "unit_core/round_world.h"

static struct round_world w;

/* ---- what a round does, as a line of letters ---- */

static char letter(const struct zqcow2_io *p)
{
    if (p->kind == ZQCOW2_IO_FLUSH)
        return '|';
    if (p->kind == ZQ_IO_WORK)
        return '?'; /* how long is the file? */
    assert_int_equal(p->kind, ZQCOW2_IO_WRITE);
    return p->offset == 0       ? 'M' : /* the header's sector */
           p->offset < AT_L1    ? 't' : /* refcount table */
           p->offset < AT_WP    ? '1' : /* L1 */
           p->offset < AT_REFS  ? 'p' : /* write pointers */
           p->offset < AT_L2    ? 'c' : /* refcounts */
                                  '2';  /* an L2 table */
}

/* Completes what has been started, the newest first; failing: number `fail` of all, from 1, fails.
 */
static unsigned run(char *out, unsigned fail, int ret)
{
    unsigned n = 0, started;

    while ((started = fake_started(&w.core.x))) {
        for (unsigned k = 0; k < started; k++)
            *out++ = letter(&fake_io(&w.core.x, k)->pub);
        for (unsigned k = started; k--;) {
            n++;
            complete(&w, k, n == fail ? ret : 0);
            check_disk(&w);
        }
    }
    *out = '\0';
    return n;
}

static void expect_round(const char *want)
{
    char got[256];

    start_round(&w);
    run(got, 0, 0);
    assert_string_equal(got, want);
    assert_false(zq_round_is_running(&w.core));
}

/* One zone is reset, one finished, two opened at the limit of two, new clusters, and the mark. */
static void dirty_everything(uint64_t seed)
{
    static const uint64_t pointers[CHAINS] = {[1] = 9, [2] = 9};

    round_begin(&w, seed, 2, pointers);
    reset_chain(&w, 1);
    finish_chain(&w, 2);
    for (unsigned i = 3; i < 5; i++) {
        assert_true(map_chain(&w, i));
        write_chain(&w, i, 1);
    }
    w.core.marked = false;
    w.core.want_mark = true;
}

static void each_stage_waits_for_the_one_before(void **state)
{
    (void)state;
    dirty_everything(1);
    expect_round("M|ccp|t|122|p|p|");
    assert_int_equal(w.dev.file[MARK_AT], 1);
    assert_true(w.core.marked);
    for (unsigned i = 0; i < CHAINS; i++)
        assert_true(w.core.zones.v[i].high == ((uint64_t)i << ZONE_BITS) + w.memory[WP][i] * 512);
    round_end_world(&w);
}

/* Each stage by itself, with the barrier behind it; data alone is a barrier without a write. */
static void empty_stages_are_left_out(void **state)
{
    struct zq_core *c = &w.core;

    (void)state;
    round_begin(&w, 1, 0, NULL);
    c->marked = false;
    expect_round(""); /* nothing, and nobody asks */
    assert_false(c->marked);
    c->x.unbarriered = true;
    expect_round("|");
    assert_false(c->x.unbarriered);
    assert_true(map_chain(&w, 0));
    expect_round("c|t|12|");
    write_chain(&w, 0, 1); /* the steady state: data, pointers */
    expect_round("|p|");
    reset_chain(&w, 0);
    expect_round("p|");
    expect_round("");
    c->alloc.corrupt = true;
    expect_round("M|");
    assert_int_equal(w.dev.file[79] & 2, 2); /* incompatible feature bit 1: corrupt */
    expect_round("");
    round_end_world(&w);
}

/* More dirty slices than a round writes at once: all of them, before the one barrier. */
static void a_stage_may_be_large(void **state)
{
    char got[256];
    unsigned most = 0;

    (void)state;
    round_begin(&w, 1, 0, NULL);
    for (unsigned i = 0; i < CHAINS; i++)
        assert_true(map_chain(&w, i));
    start_round(&w);
    while (fake_started(&w.core.x)) {
        most = fake_started(&w.core.x) > most ? fake_started(&w.core.x) : most;
        complete(&w, 0, 0);
        check_disk(&w);
    }
    assert_true(most > 1 && most < CHAINS);
    for (unsigned i = 0; i < CHAINS; i++)
        assert_true(w.low[L2][i] == 1);
    start_round(&w);
    run(got, 0, 0);
    assert_string_equal(got, "");
    round_end_world(&w);
}

/* ---- waiters ---- */

static void join(struct zq_op *op)
{
    memset(op, 0, sizeof(*op));
    zq_op_reset(&w.core, op, NULL, NULL);
    assert_int_equal(zq_round_wait(&w.core, op), ZQ_WAIT);
    assert_true(zq_round_is_running(&w.core) || zq_round_needed(&w.core));
}

/* What its wait came to, when it was woken; ZQ_WAIT: it was not, or goes on waiting. */
static int result(struct zq_op *op)
{
    bool woken = false;

    for (struct zq_list *n = w.core.ready.next; n != &w.core.ready; n = n->next)
        woken |= n == &op->g.wait.link;
    if (!woken)
        return ZQ_WAIT;
    zq_list_del(&op->g.wait.link);
    op->rc = op->g.wait.rc;
    op->g.wait.rc = 0;
    return zq_round_wait(&w.core, op);
}

/* An operation after the capture is not served by this round: what it changed is not in it (I1).
 */
static void a_round_serves_who_came_before_its_snapshot(void **state)
{
    struct zq_op before, behind;
    char got[256];

    (void)state;
    round_begin(&w, 1, 0, NULL);
    for (unsigned v = 1; v < 3; v++) {
        assert_true(map_chain(&w, 0));
        expect_round("c|t|12|");
    }
    write_chain(&w, 0, 1);
    join(&before);
    start_round(&w);
    write_chain(&w, 0, 1);
    join(&behind);
    run(got, 0, 0);
    assert_string_equal(got, "|p|");
    assert_int_equal(result(&before), 0);
    assert_int_equal(result(&behind), ZQ_WAIT);
    assert_true(w.low[WP][0] == 1 && zq_round_needed(&w.core));
    start_round(&w);
    run(got, 0, 0);
    assert_string_equal(got, "p|"); /* the other's last barrier has brought the data along */
    assert_int_equal(result(&behind), 0);
    assert_true(w.low[WP][0] == 2);
    assert_false(zq_round_needed(&w.core));
    round_end_world(&w);
}

/* A flush that finds nothing to write asks how long the file is; a shorter one has lost something.
 */
static void an_empty_flush_asks_for_the_length(void **state)
{
    struct zq_op op;
    char got[256];

    (void)state;
    round_begin(&w, 1, 0, NULL);
    join(&op);
    start_round(&w);
    run(got, 0, 0);
    assert_string_equal(got, "?");
    assert_int_equal(result(&op), 0);
    join(&op);
    w.dev.length -= CLUSTER;
    start_round(&w);
    run(got, 0, 0);
    assert_int_equal(result(&op), -EIO);
    assert_true(w.core.dead);
    round_end_world(&w);
}

/* ---- failures ---- */

/* Everybody is woken, and nothing more goes to the device. */
static void expect_dead(struct zq_op *before, struct zq_op *behind, int ret)
{
    assert_true(w.core.dead && w.core.sealed && w.core.dead_rc == ret);
    /* "No space", of a barrier, would say that nothing is lost and another flush may succeed. */
    assert_true(result(before) == -EIO && result(behind) == -EIO);
    assert_false(zq_round_needed(&w.core));
    assert_int_equal(fake_started(&w.core.x), 0);
}

/* The one round fails those who waited for it; the next one brings all of it to the file. */
static void expect_stopped(struct zq_op *before, struct zq_op *behind, unsigned n, int ret)
{
    char got[256];

    assert_false(w.core.dead);
    assert_int_equal(result(before), ret);
    /* Of "M|ccp|t|122|p|p|", call 2 makes the mark durable, and call 6 the reset (R2, R12). */
    assert_int_equal(w.core.marked, n > 2);
    assert_int_equal(w.core.zones.v[1].high == (uint64_t)1 << ZONE_BITS, n > 6);
    assert_int_equal(result(behind), ZQ_WAIT);
    if (!w.core.marked) {
        assert_false(w.core.want_mark); /* the next that needs it asks again */
        w.core.want_mark = true;
    }
    start_round(&w);
    run(got, 0, 0);
    assert_int_equal(result(behind), 0);
    for (unsigned p = 0; p < PARTS; p++) {
        for (unsigned i = 0; i < CHAINS; i++) {
            if (w.low[p][i] != w.memory[p][i])
                fail_msg("call %u: part %u of chain %u is %" PRIu64 " in the file", n, p, i,
                         w.low[p][i]);
        }
    }
    assert_true(w.core.marked);
    start_round(&w);
    run(got, 0, 0);
    assert_string_equal(got, "");
}

static void nth_call_fails(unsigned n, int ret, uint64_t seed, unsigned *calls)
{
    struct zq_op before, behind;
    bool barrier;
    char got[256];

    dirty_everything(seed);
    join(&before);
    start_round(&w);
    join(&behind);
    *calls = run(got, n, ret);
    barrier = n <= *calls && w.dev.log[n - 1].kind == ZQCOW2_IO_FLUSH;
    if (n > *calls)
        assert_int_equal(result(&before), 0);
    else if (barrier || ret == -EIO)
        expect_dead(&before, &behind, ret);
    else
        expect_stopped(&before, &behind, n, ret);
    zq_list_del(&behind.g.wait.link);
    round_end_world(&w);
}

static void every_write_and_barrier_fails_once(void **state)
{
    static const int errors[] = {-ENOSPC, -EDQUOT, -EIO};
    unsigned calls, failures = 0;

    (void)state;
    for (unsigned e = 0; e < 24; e++) { /* what failed is in the file, or it is not */
        unsigned n = 0;

        do
            nth_call_fails(++n, errors[e % 3], 1 + e, &calls);
        while (n <= calls);
        failures += n - 1;
    }
    printf("rounds: %u calls failed, one at a time\n", failures);
    assert_true(failures > 24 * 12);
}

/* At the first error nothing more is started; what is under way drains, and the round is over. */
static void a_stopped_round_starts_nothing_more(void **state)
{
    unsigned started;

    (void)state;
    round_begin(&w, 1, 0, NULL);
    for (unsigned i = 0; i < CHAINS; i++)
        assert_true(map_chain(&w, i));
    start_round(&w);
    started = fake_started(&w.core.x);
    for (unsigned k = started; k; k--) {
        complete(&w, 0, k == started ? -ENOSPC : 0);
        assert_int_equal(fake_started(&w.core.x), k - 1);
        assert_int_equal(zq_round_is_running(&w.core), k > 1);
    }
    round_end_world(&w);
}

/* ---- random histories ---- */

struct flush {
    struct zq_op op;
    bool waits;
    uint64_t wp[CHAINS];
    uint32_t lives[CHAINS];
};

/* I1: all that was committed when it was asked for is durable, unless a reset was asked for since.
 */
static void check_flush(struct flush *f)
{
    int rc = f->waits ? result(&f->op) : ZQ_WAIT;

    if (rc == ZQ_WAIT)
        return;
    f->waits = false;
    for (unsigned i = 0; rc == 0 && i < CHAINS; i++)
        expect(&w, w.lives[i] != f->lives[i] || w.low[WP][i] >= f->wp[i]);
    expect(&w, rc == 0 || rc == -ENOSPC);
}

static void change(struct flush *f)
{
    unsigned i = (unsigned)rng_below(&w.rng, CHAINS);
    const struct zq_zone *z = &w.core.zones.v[i];
    uint64_t start = (uint64_t)i << ZONE_BITS, what = rng_below(&w.rng, 16);

    if (what == 0 && !f->waits) {
        join(&f->op);
        f->waits = true;
        memcpy(f->wp, w.memory[WP], sizeof(f->wp));
        memcpy(f->lives, w.lives, sizeof(f->lives));
    } else if (what == 1 && w.memory[WP][i]) {
        reset_chain(&w, i);
    } else if (what < 9) {
        map_chain(&w, i);
    } else if (w.memory[WP][i] < w.memory[L2][i] && (z->wp != start || z->high == start)) {
        write_chain(&w, i, 1); /* R2 keeps it off while an old pointer may come back */
    }
}

static void random_histories(void **state)
{
    uint64_t first = rig_env("ZQ_SEED", 1), n = rig_env("ZQ_SEEDS", 60), rounds = 0, writes = 0,
             stops = 0;
    static struct flush flush;

    (void)state;
    for (uint64_t seed = first; seed < first + n; seed++) {
        round_begin(&w, seed, 0, NULL);
        memset(&flush, 0, sizeof(flush));
        for (unsigned k = 0; k < 1500; k++) {
            unsigned started = fake_started(&w.core.x);
            unsigned pick = started ? (unsigned)rng_below(&w.rng, started) : 0;
            bool fails = seed % 3 == 0 && rng_below(&w.rng, 100) == 0;

            if (started && rng_below(&w.rng, 2)) {
                fails &= fake_io(&w.core.x, pick)->pub.kind == ZQCOW2_IO_WRITE;
                complete(&w, pick, fails ? -ENOSPC : 0);
                stops += fails;
            } else if (!zq_round_is_running(&w.core) && rng_below(&w.rng, 30) == 0) {
                start_round(&w);
                rounds++;
            } else {
                change(&flush);
            }
            check_disk(&w);
            check_flush(&flush);
        }
        writes += w.dev.nr_log;
        zq_list_del(&flush.op.g.wait.link);
        while (fake_started(&w.core.x))
            complete(&w, 0, 0);
        round_end_world(&w);
    }
    printf("rounds: %" PRIu64 " in random histories, %" PRIu64 " calls, %" PRIu64 " stops\n",
           rounds, writes, stops);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_stage_waits_for_the_one_before),
        cmocka_unit_test(empty_stages_are_left_out),
        cmocka_unit_test(a_stage_may_be_large),
        cmocka_unit_test(a_round_serves_who_came_before_its_snapshot),
        cmocka_unit_test(an_empty_flush_asks_for_the_length),
        cmocka_unit_test(every_write_and_barrier_fails_once),
        cmocka_unit_test(a_stopped_round_starts_nothing_more),
        cmocka_unit_test(random_histories),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
