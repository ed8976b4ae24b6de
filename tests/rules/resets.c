/* SPDX-License-Identifier: MIT */
/* Resets, holes, finishes, and what lies beyond a write pointer. */
#include "rules/rules.h"

/* ---- resets: R1, R2, R6 ---- */

/* A reset that comes while stage 1 has its barrier is not made durable by that. */
void r1_reset_after_the_stage_was_composed(void **state)
{
    struct ticket *append, *first, *reset, *write;

    (void)state;
    zone_with_data();
    life(2, 2, C, false);
    append = send(ZQCOW2_OP_APPEND, 3 * Z, C, 5);
    hold_all(KIND(FLUSH));
    first = flush();
    reset = send(ZQCOW2_OP_ZONE_RESET, 2 * Z, Z, 0);
    done(append, 0);
    done(reset, 0);
    waits(first);
    release_all_but(KIND(WRITE), raw.table, 512); /* the barrier is back, the last stage goes */
    waits(first);
    write = send(ZQCOW2_OP_WRITE, 2 * Z, C, 2);
    waits(write);
    release();
    done(write, 0);
    done(flush(), 0);
    end();
}

/* `start` is on its way, and its barrier is not back: nothing new is written. */
void r2_write_after_reset(void **state)
{
    struct ticket *write;

    (void)state;
    zone_with_data();
    life(2, 2, C, false);
    done(send(ZQCOW2_OP_ZONE_RESET, 2 * Z, Z, 0), 0);
    done(send(ZQCOW2_OP_ZONE_OPEN, 2 * Z, Z, 0), 0);
    hold_all(KIND(FLUSH));
    write = send(ZQCOW2_OP_WRITE, 2 * Z, C, 2);
    waits(write);
    assert_true(held() == 1);
    release();
    done(write, 0);
    assert_true(rig_holds(&r, 2 * Z, C, 2 * Z, 2));
    end();
}

void r2_finish_after_reset(void **state)
{
    struct ticket *finish;

    (void)state;
    zone_with_data();
    life(2, 0, 0, true);
    done(send(ZQCOW2_OP_ZONE_RESET, 2 * Z, Z, 0), 0);
    hold_all(KIND(FLUSH));
    finish = send(ZQCOW2_OP_ZONE_FINISH, 2 * Z, Z, 0);
    waits(finish);
    release();
    done(finish, 0);
    done(flush(), 0);
    end();
}

/* A new life waits for the readers of the old one. */
void r2_readers_of_the_old_life(void **state)
{
    struct ticket *read, *write;

    (void)state;
    zone_with_data();
    life(2, 2, C, false);
    hold_data(KIND(READ), 2 * Z, KiB(32));
    read = send(ZQCOW2_OP_READ, 2 * Z, KiB(32), 0);
    done(send(ZQCOW2_OP_ZONE_RESET, 2 * Z, Z, 0), 0);
    done(flush(), 0);
    write = send(ZQCOW2_OP_WRITE, 2 * Z, C, 2);
    waits(write);
    release();
    done(read, 0);
    assert_true(got(read, 1));
    done(write, 0);
    assert_true(rig_holds(&r, 2 * Z, C, 2 * Z, 2));
    end();
}

void r6_hole_waits_for_readers(void **state)
{
    struct ticket *read;

    (void)state;
    zone_with_data();
    hold_data(KIND(READ), 2 * Z, KiB(32));
    read = send(ZQCOW2_OP_READ, 2 * Z, KiB(32), 0);
    done(send(ZQCOW2_OP_ZONE_RESET, 2 * Z, Z, 0), 0);
    done(flush(), 0);
    release();
    done(read, 0);
    assert_true(got(read, 1));
    assert_true(r.record.calls[ZQCOW2_IO_DISCARD] > 0);
    end();
}

void r6_writers_wait_for_the_hole(void **state)
{
    struct ticket *write;

    (void)state;
    zone_with_data();
    life(2, 2, C, false);
    done(send(ZQCOW2_OP_ZONE_RESET, 2 * Z, Z, 0), 0);
    hold_all(KIND(DISCARD));
    done(flush(), 0);
    assert_int_not_equal(held(), 0);
    write = send(ZQCOW2_OP_WRITE, 2 * Z, C, 2);
    waits(write);
    release();
    done(write, 0);
    assert_true(rig_holds(&r, 2 * Z, C, 2 * Z, 2));
    end();
}

/* The zone has been taken again when its readers are gone: no hole any more. */
void r6_no_hole_in_a_new_life(void **state)
{
    struct ticket *read;

    (void)state;
    zone_with_data();
    life(2, 2, C, false);
    hold_data(KIND(READ), 2 * Z, KiB(32));
    read = send(ZQCOW2_OP_READ, 2 * Z, KiB(32), 0);
    done(send(ZQCOW2_OP_ZONE_RESET, 2 * Z, Z, 0), 0);
    done(flush(), 0);
    post(ZQCOW2_OP_WRITE, 2 * Z, C, 2);
    release();
    done(read, 0);
    assert_true(rig_holds(&r, 2 * Z, C, 2 * Z, 2));
    assert_int_equal(r.record.calls[ZQCOW2_IO_DISCARD], 0);
    end();
}

/* A host that gives nothing back costs space and nothing else. */
void r6_failed_hole(void **state)
{
    (void)state;
    begin(&wide);
    assert_int_equal(rig_write(&r, 0, C, 1), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    hold_all(KIND(DISCARD));
    done(send(ZQCOW2_OP_DISCARD, 0, C, 0), 0);
    done(flush(), 0);
    assert_int_equal(held(), 1);
    fault_plan(&r.fault, FAULT_EIO, 1, false);
    release();
    assert_int_equal(r.fault.failed, 1);
    assert_int_equal(rig_info(&r).flags & ZQCOW2_INFO_DEAD, 0);
    end();
}

/* ---- what is beyond: R3, R4, the table ---- */

/* The cluster of the pointer is a snapshot's, with bytes of an earlier life behind it. */
void r3_finish_in_a_shared_cluster(void **state)
{
    uint8_t junk[C], is[C];
    uint64_t host;

    (void)state;
    zone_with_data();
    zone_with_data_grows(1024);
    life(2, 1, KiB(33), true);
    done(send(ZQCOW2_OP_WRITE, 2 * Z + KiB(32), 1024, 1), 0);
    close_all();
    raw_share(&raw, 2 * Z + KiB(32), false);
    host = raw.extra[0];
    memset(junk, 0xa5, sizeof(junk));
    store_put(&r.store, junk, C - 1024, host + 1024);
    for (uint64_t at = 0; at < r.store.length / C * C; at += C) {
        if (!raw_refcount(&raw, at)) /* what is taken is not new */
            store_put(&r.store, junk, C, at);
    }
    open_all();
    done(send(ZQCOW2_OP_ZONE_FINISH, 2 * Z, Z, 0), 0);
    assert_true(rig_holds(&r, 2 * Z, KiB(33), 2 * Z, 1));
    assert_true(rig_zeros(&r, 2 * Z + KiB(33), Z - KiB(33)));
    done(flush(), 0);
    store_get(&r.store, is, C, host);
    assert_memory_equal(is + 1024, junk, C - 1024);
    end_shared();
}

void r4_nothing_mapped_ahead_after_a_close(void **state)
{
    (void)state;
    begin(&wide);
    done(send(ZQCOW2_OP_APPEND, 3 * Z, C, 1), 0);
    done(flush(), 0);
    assert_int_not_equal(raw_host(&raw, 3 * Z + C), 0); /* or there is nothing to see */
    settled();
    assert_int_equal(rig_close(&r), 0);
    assert_int_not_equal(raw_host(&raw, 3 * Z), 0);
    for (uint64_t at = 3 * Z + C; at < 4 * Z; at += C)
        assert_int_equal(raw_host(&raw, at), 0);
    rig_end(&r);
    judged();
}

/* Bytes behind the last entry are not ours. */
void the_tables_tail_is_kept(void **state)
{
    uint8_t junk[C], is[C];

    (void)state;
    begin(&wide);
    close_all();
    memset(junk, 0x5a, sizeof(junk));
    store_put(&r.store, junk, C - 8 * 8, raw.table + 8 * 8);
    open_all();
    done(send(ZQCOW2_OP_APPEND, 7 * Z, C, 1), 0);
    done(send(ZQCOW2_OP_ZONE_FINISH, 3 * Z, Z, 0), 0);
    done(flush(), 0);
    assert_int_equal(raw_wp(&raw, 7), 7 * Z + C);
    store_get(&r.store, is, C - 8 * 8, raw.table + 8 * 8);
    assert_memory_equal(is, junk, C - 8 * 8);
    end();
}

/* ---- commits: R7 ---- */

/* Reserved to its end, and the last write is still on its way: open, with its resources. */
void r7_full_at_commit(void **state)
{
    struct ticket *a, *b;

    (void)state;
    zone_with_data();
    zone_with_data_grows(Z);
    assert_int_equal(rig_write(&r, 2 * Z + KiB(32), KiB(64), 1), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    hold_data(KIND(WRITE), 2 * Z + KiB(104), KiB(8));
    a = post(ZQCOW2_OP_WRITE, 2 * Z + KiB(96), KiB(8), 1);
    b = send(ZQCOW2_OP_WRITE, 2 * Z + KiB(104), KiB(8), 1);
    done(a, 0);
    waits(b);
    assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_IMP_OPEN);
    assert_int_equal(rig_info(&r).active_zones, 1);
    release();
    done(b, 0);
    assert_int_equal(rig_zone(&r, 2).state, ZQCOW2_ZONE_FULL);
    assert_int_equal(rig_info(&r).active_zones, 0);
    end();
}

/* ---- limits: I7 ---- */

/* One less than there are sequential zones. */
void i7_the_largest_limit(void **state)
{
    struct geometry g = wide;

    (void)state;
    g.max_active = 5;
    begin_on(&g, 0);
    for (uint32_t i = 2; i < 7; i++)
        done(send(ZQCOW2_OP_APPEND, i * Z, C, 1), 0);
    done(send(ZQCOW2_OP_APPEND, 7 * Z, C, 1), ZQCOW2_EZONE_ACTIVE);
    done(send(ZQCOW2_OP_ZONE_FINISH, 2 * Z, Z, 0), 0);
    done(send(ZQCOW2_OP_APPEND, 7 * Z, C, 1), 0);
    end();
}

/* ---- gather: K11, I13 ---- */

/* An append that waits, or fails, before it is reserved has not opened its zone. */
void k11_gather_changes_nothing(void **state)
{
    struct ticket *append;
    uint64_t length, at = 0;

    (void)state;
    begin(&wide);
    hold_all(KIND(FLUSH));
    append = send(ZQCOW2_OP_APPEND, 3 * Z, C, 1); /* for the mark */
    waits(append);
    assert_int_equal(rig_zone(&r, 3).state, ZQCOW2_ZONE_EMPTY);
    assert_int_equal(rig_info(&r).active_zones, 0);
    release();
    done(append, 0);
    length = rig_info(&r).file_size;
    for (; rig_info(&r).file_size == length; at += C) /* until the file has no free cluster */
        done(send(ZQCOW2_OP_WRITE, at, C, 1), 0);
    fault_plan(&r.fault, FAULT_ENOSPC, 1, true);
    done(send(ZQCOW2_OP_APPEND, 4 * Z, C, 1), -ENOSPC);
    assert_int_not_equal(r.fault.failed, 0);
    fault_plan(&r.fault, FAULT_NONE, 0, false);
    assert_int_equal(rig_zone(&r, 4).state, ZQCOW2_ZONE_EMPTY);
    assert_int_equal(rig_info(&r).active_zones, 1);
    done(send(ZQCOW2_OP_APPEND, 4 * Z, C, 1), 0);
    end();
}
