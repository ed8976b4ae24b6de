/* SPDX-License-Identifier: MIT */
/* What a round takes with it, and what becomes of a dead image. */
#include <zqcow2/bitmap.h>
#include "rules/rules.h"

/* ---- rounds: K1, K2, I1, R12 ---- */

/* A table that came after the snapshot is not counted in the file, so L1 may not point to it. */
void k2_l1_as_in_the_snapshot(void **state)
{
    struct ticket *first, *write;

    (void)state;
    begin(&tiny);
    assert_int_equal(rig_write(&r, KiB(96), 512, 1), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    done(send(ZQCOW2_OP_WRITE, 0, 512, 1), 0);
    hold_all(KIND(FLUSH));
    first = flush();
    write = send(ZQCOW2_OP_WRITE, KiB(32), 512, 2);
    waits(first);
    waits(write);
    release();
    done(first, 0);
    done(write, 0);
    assert_true(rig_holds(&r, KiB(32), 512, KiB(32), 2));
    done(flush(), 0);
    end();
}

/* What was written after a round's snapshot is the next round's. */
void i1_flush_behind_a_running_round(void **state)
{
    struct ticket *a, *b, *first, *second;

    (void)state;
    zone_with_data();
    zone_with_data_grows(2 * C);
    a = send(ZQCOW2_OP_WRITE, 2 * Z + KiB(32), C, 1);
    hold_all(KIND(FLUSH));
    first = flush();
    b = send(ZQCOW2_OP_WRITE, 2 * Z + KiB(32) + C, C, 1);
    second = flush();
    done(a, 0);
    done(b, 0);
    waits(first);
    waits(second);
    shuffle_release(&r.shuffle);
    while (!second->calls)
        poll_queue(q, 0);
    done(first, 0);
    assert_int_equal(raw_wp(&raw, 2), 2 * Z + KiB(32) + 2 * C);
    end();
}

/* The same for FUA. */
void i1_fua_behind_a_running_round(void **state)
{
    struct ticket *first, *fua;

    (void)state;
    zone_with_data();
    zone_with_data_grows(2 * C);
    done(send(ZQCOW2_OP_WRITE, 2 * Z + KiB(32), C, 1), 0);
    hold_all(KIND(FLUSH));
    first = flush();
    fua = write_fua(2 * Z + KiB(32) + C, C, 1);
    waits(first);
    waits(fua);
    shuffle_release(&r.shuffle);
    while (!fua->calls)
        poll_queue(q, 0);
    assert_int_equal(raw_wp(&raw, 2), 2 * Z + KiB(32) + 2 * C);
    end();
}

/* A finish that comes behind a round's snapshot is not in that round's entry. */
void i4_finish_behind_a_running_round(void **state)
{
    struct ticket *first;

    (void)state;
    zone_with_data();
    zone_with_data_grows(C);
    life(2, 1, KiB(32) + C, true);
    done(send(ZQCOW2_OP_WRITE, 2 * Z + KiB(32), C, 1), 0);
    hold_all(KIND(FLUSH));
    first = flush();
    done(send(ZQCOW2_OP_ZONE_FINISH, 2 * Z, Z, 0), 0);
    waits(first);
    shuffle_release(&r.shuffle);
    while (!first->calls)
        poll_queue(q, 0);
    assert_int_equal(raw_wp(&raw, 2), 2 * Z + KiB(32) + C);
    done(flush(), 0);
    assert_int_equal(raw_wp(&raw, 2), raw_zone_end(&raw, 2));
    end();
}

/* First the mark and its barrier, alone. */
void r12_mark_before_all_else(void **state)
{
    struct ticket *write, *another;

    (void)state;
    begin(&wide);
    record_reset(&r.record);
    hold_all(KIND(FLUSH));
    write = send(ZQCOW2_OP_WRITE, 0, C, 1);
    another = send(ZQCOW2_OP_APPEND, 3 * Z, C, 1);
    waits(write);
    waits(another);
    assert_int_equal(raw_get(&raw, raw.mark, 1), 1);
    assert_int_equal(r.record.calls[ZQCOW2_IO_WRITE], 1);
    assert_int_equal(r.record.calls[ZQCOW2_IO_TRUNCATE], 0);
    assert_int_equal(held(), 1);
    release();
    done(write, 0);
    done(another, 0);
    end();
    begin(&wide);
    assert_int_equal(raw_get(&raw, raw.mark, 1), 0);
    done(flush(), 0);
    assert_int_equal(raw_get(&raw, raw.mark, 1), 0);
    done(send(ZQCOW2_OP_WRITE, 0, C, 1), 0);
    end();
}

/* A round that writes only the flags of bitmaps does not set it for one that asks meanwhile. */
void r12_mark_behind_the_flags(void **state)
{
    struct ticket *over, *new;

    (void)state;
    begin(&wide);
    done(send(ZQCOW2_OP_WRITE, 0, C, 1), 0);
    assert_int_equal(zqcow2_bitmap_add(r.img, "b", 65536, 0, NULL), 0);
    close_all();
    open_all();
    assert_int_equal(raw_get(&raw, raw.mark, 1), 0);
    hold_all(KIND(FLUSH));
    over = send(ZQCOW2_OP_WRITE, 0, C, 2);
    waits(over);
    assert_int_equal(raw_get(&raw, raw.mark, 1), 0);
    new = send(ZQCOW2_OP_ZONE_SET_STATE, 4 * Z, ZQCOW2_ZONE_RDONLY | ZQCOW2_ZONE_PERSIST, 0);
    waits(new);
    release();
    done(over, 0);
    done(new, 0);
    assert_int_equal(raw_get(&raw, raw.mark, 1), 1);
    end();
}

/* It is cleared by a clean close, behind everything else. */
void r12_mark_cleared_last(void **state)
{
    (void)state;
    begin(&wide);
    done(send(ZQCOW2_OP_WRITE, 0, C, 1), 0);
    done(send(ZQCOW2_OP_APPEND, 3 * Z, C, 1), 0);
    assert_int_equal(raw_get(&raw, raw.mark, 1), 1);
    settled();
    record_reset(&r.record);
    r.record.keep = true;
    assert_int_equal(rig_close(&r), 0);
    assert_int_equal(raw_get(&raw, raw.mark, 1), 0);
    for (size_t i = 0, last = 0; i < r.record.nr; i++) {
        const struct record_entry *e = &r.record.log[i];

        if (e->kind == ZQCOW2_IO_WRITE && e->offset == 0)
            assert_true(last && r.record.log[last].kind == ZQCOW2_IO_FLUSH);
        else if (e->kind == ZQCOW2_IO_WRITE)
            assert_int_equal(raw_get(&raw, 0, 4), 0x514649fb);
        last = i;
    }
    assert_null(rig_free(&r));
    judged();
}

/* ---- dead: R11 ---- */

static void must_be_dead(const struct ticket *t)
{
    if (t->calls != 1 || t->ret != ZQCOW2_EDEAD)
        fail_msg("%s at %#llx: answered %u times, %d", rig_op_name(t->req.op),
                 (unsigned long long)t->req.offset, t->calls, t->ret);
}

/* A barrier fails: who waits for whatever hears of it. */
static void die(void)
{
    struct ticket *last;

    hold_all(KIND(FLUSH));
    last = flush();
    fault_plan(&r.fault, FAULT_EIO, 1, true);
    r.shuffle.nr_holds--;
    go();
    done(last, -EIO);
    fault_plan(&r.fault, FAULT_NONE, 0, false);
}

void r11_who_waits_for_readers(void **state)
{
    struct ticket *read, *write;

    (void)state;
    zone_with_data();
    hold_data(KIND(READ), 2 * Z, KiB(32));
    read = send(ZQCOW2_OP_READ, 2 * Z, KiB(32), 0);
    done(send(ZQCOW2_OP_ZONE_RESET, 2 * Z, Z, 0), 0);
    done(flush(), 0);
    write = send(ZQCOW2_OP_WRITE, 2 * Z, C, 2);
    waits(write);
    done(send(ZQCOW2_OP_APPEND, 3 * Z, C, 1), 0);
    die();
    must_be_dead(write);
    waits(read);
    end_dead();
}

void r11_who_waits_for_an_owner(void **state)
{
    struct ticket *write, *zero;

    (void)state;
    begin(&wide);
    assert_int_equal(rig_write(&r, 0, C, 1), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    done(send(ZQCOW2_OP_WRITE, 0, 512, 2), 0);
    hold(KIND(WRITE), r.store.length / C * C, UINT64_MAX);
    hold(KIND(WRITE), raw_host(&raw, 0) + C, UINT64_MAX);
    write = send(ZQCOW2_OP_WRITE, 4 * C + 512, 1024, 2);
    zero = send(ZQCOW2_OP_WRITE_ZEROES, 4 * C + 512, 512, 0);
    waits(zero);
    die();
    must_be_dead(zero);
    waits(write);
    release();
    must_be_dead(write);
    end_dead();
}

/* ---- callbacks: K10 ---- */

struct chain {
    struct zqcow2_queue *q;
    struct zqcow2_request req;
    unsigned calls, taken;
};

static void again(void *arg, const struct zqcow2_result *res)
{
    struct chain *c = arg;

    assert_int_equal(res->ret, 0);
    if (++c->calls < 5)
        c->taken += zqcow2_queue_submit(c->q, &c->req, 1) == 1;
}

/* In a queue of one the callback has the slot of the request that it reports. */
void k10_a_callback_may_submit(void **state)
{
    struct chain c = {
        .req = {.size = sizeof(c.req), .op = ZQCOW2_OP_FLUSH, .done = again, .arg = &c}};

    (void)state;
    begin(&wide);
    done(send(ZQCOW2_OP_WRITE, 0, C, 1), 0);
    assert_int_equal(zqcow2_queue_open(r.img, 1, &c.q), 0);
    assert_int_equal(zqcow2_queue_submit(c.q, &c.req, 1), 1);
    while (zqcow2_queue_pending(c.q))
        zqcow2_queue_poll(c.q, 0);
    assert_int_equal(c.calls, 5);
    assert_int_equal(c.taken, 4);
    assert_int_equal(zqcow2_queue_close(c.q), 0);
    end();
}

/* A write that a zone takes behind the round's snapshot is the next round's to show. */
void k2_pointers_as_in_the_snapshot(void **state)
{
    struct ticket *first;

    (void)state;
    zone_with_data();
    zone_with_data_grows(2 * C);
    done(send(ZQCOW2_OP_WRITE, 2 * Z + KiB(32), C, 1), 0);
    hold_all(KIND(FLUSH));
    first = flush();
    done(send(ZQCOW2_OP_WRITE, 2 * Z + KiB(36), C, 1), 0);
    waits(first);
    release();
    done(first, 0);
    assert_int_equal(raw_wp(&raw, 2), 2 * Z + KiB(36));
    done(flush(), 0);
    assert_int_equal(raw_wp(&raw, 2), 2 * Z + KiB(40));
    end();
}
