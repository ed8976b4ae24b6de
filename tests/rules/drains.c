/* SPDX-License-Identifier: MIT */
/* Drains side by side, and the janitor between rounds. What does not end is for go() to notice. */
#include "rules/rules.h"

/*
 * What one drain has freed waits for the next round, and another looks for work meanwhile: the
 * janitor has none, or the round, which begins when nobody is ready, never would.
 */
void e2_janitor_sleeps_until_the_round(void **state)
{
    struct ticket *first, *second;

    (void)state;
    begin(&wide);
    done(send(ZQCOW2_OP_APPEND, 3 * Z, C, 1), 0);
    hold(KIND(WRITE), raw.table, C); /* L2 may change again by then */
    first = send(ZQCOW2_OP_DRAIN, 0, 0, 0);
    assert_int_equal(held(), 1);
    done(send(ZQCOW2_OP_APPEND, 4 * Z, C, 1), 0);
    second = send(ZQCOW2_OP_DRAIN, 0, 0, 0); /* unmaps what that mapped ahead */
    waits(first);
    waits(second);
    release();
    done(first, 0);
    done(second, 0);
    assert_int_equal(raw_host(&raw, 3 * Z + C), 0);
    assert_int_equal(raw_host(&raw, 4 * Z + C), 0);
    end();
}

/* A drain whose turn at a zone comes when nothing is ahead there any more gives that turn back. */
void e1_a_drain_gives_each_turn_back(void **state)
{
    struct ticket *first, *second, *append;

    (void)state;
    begin(&tiny);
    close_all();
    r.open.cache_bytes = 1;
    open_all();
    for (uint32_t i = 4; i < 8; i++) {
        done(send(ZQCOW2_OP_APPEND, i * Z, C, 1), 0);
        done(flush(), 0);
    }
    for (uint64_t at = 0; at < 4 * Z; at += KiB(32)) /* every slice of zone 4 leaves the cache */
        done(send(ZQCOW2_OP_WRITE, at, 512, 1), 0);
    done(flush(), 0);
    hold_all(KIND(READ));
    first = send(ZQCOW2_OP_DRAIN, 0, 0, 0);
    assert_int_equal(held(), 1); /* it has its turn at zone 4, and waits for a slice */
    second = send(ZQCOW2_OP_DRAIN, 0, 0, 0);
    waits(first);
    waits(second);
    release();
    done(first, 0);
    done(second, 0);
    for (uint32_t i = 4; i < 8; i++) {
        append = send(ZQCOW2_OP_APPEND, i * Z, C, 1);
        done(append, 0); /* no turn is left behind */
    }
    end();
}

/* Nor does the fast path overtake who waits for the zone: here a finish, which drains it. */
void e1_fast_path_keeps_the_queue(void **state)
{
    struct ticket *first, *finish, *last;

    (void)state;
    zone_with_data();
    zone_with_data_grows(C);
    life(2, 1, KiB(36), true);
    hold_data(KIND(WRITE), 2 * Z + KiB(32), C);
    first = send(ZQCOW2_OP_WRITE, 2 * Z + KiB(32), C, 1);
    finish = send(ZQCOW2_OP_ZONE_FINISH, 2 * Z, Z, 0);
    last = send(ZQCOW2_OP_WRITE, 2 * Z + KiB(36), C, 1);
    waits(first);
    waits(finish);
    waits(last);
    release();
    done(first, 0);
    done(finish, 0);
    done(last, ZQCOW2_EZONE_FULL);
    end();
}

/* What the last writer left in the host's cache is durable before anything read counts as such. */
void r1_a_barrier_at_open(void **state)
{
    (void)state;
    begin(&wide);
    close_all();
    record_reset(&r.record);
    open_all();
    assert_int_equal(r.record.calls[ZQCOW2_IO_FLUSH], 1);
    assert_int_equal(r.record.calls[ZQCOW2_IO_WRITE], 0); /* it is for nothing that open wrote */
    done(send(ZQCOW2_OP_APPEND, 3 * Z, C, 1), 0);
    end();
}

/*
 * The janitor needs room in the cache, and the round that would make it finds no space: it tries
 * again behind the next round that ends well, and a drain fails meanwhile.
 */
void r10_janitor_without_space(void **state)
{
    struct geometry g = tiny;
    struct ticket *drain;

    (void)state;
    g.refcount_bits = 64; /* a slice counts 32 KiB */
    begin_on(&g, 0);
    close_all();
    r.open.cache_bytes = 1;
    open_all();
    for (uint64_t at = 0; at < 4 * Z; at += KiB(32))
        done(send(ZQCOW2_OP_WRITE, at, KiB(32), 1), 0);
    done(flush(), 0);
    hold_all(KIND(DISCARD));
    done(send(ZQCOW2_OP_DISCARD, 0, 4 * Z, 0), 0);
    drain = send(ZQCOW2_OP_DRAIN, 0, 0, 0);
    assert_int_not_equal(held(), 0); /* the round is done, and the janitor has begun */
    waits(drain);
    fault_plan(&r.fault, FAULT_NO_ROOM, 1, true);
    r.fault.limit = 1000;
    release();
    assert_int_not_equal(r.fault.failed, 0);
    done(drain, -ENOSPC);
    r.fault.limit = 0;
    fault_plan(&r.fault, FAULT_NONE, 0, false);
    done(send(ZQCOW2_OP_DRAIN, 0, 0, 0), 0);
    assert_int_equal(rig_info(&r).flags & ZQCOW2_INFO_DEAD, 0);
    end();
}
