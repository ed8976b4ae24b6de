/* SPDX-License-Identifier: MIT */
/* Clusters that change hands, and who owns a range meanwhile. */
#include "rules/rules.h"

/* ---- freeing: R5 ---- */

/* An operation that has looked a cluster up may still read it when it is unmapped for good. */
void r5_reader_of_an_unmapped_cluster(void **state)
{
    struct ticket *read;

    (void)state;
    begin(&wide);
    assert_int_equal(rig_write(&r, 0, C, 1), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    hold_data(KIND(READ), 0, C);
    read = send(ZQCOW2_OP_READ, 0, C, 0);
    done(send(ZQCOW2_OP_DISCARD, 0, C, 0), 0);
    done(flush(), 0);
    done(flush(), 0);
    done(send(ZQCOW2_OP_WRITE, 8 * C, 4 * C, 2), 0);
    for (unsigned i = 0; i < 4; i++)
        done(send(ZQCOW2_OP_WRITE, (16 + 2 * i) * C, C, 2), 0);
    release();
    done(read, 0);
    assert_true(got(read, 1));
    end();
}

/* And who writes it: late, over what is somebody else's by then. */
void r5_writer_of_an_unmapped_cluster(void **state)
{
    struct ticket *late;

    (void)state;
    begin(&wide);
    assert_int_equal(rig_write(&r, 0, C, 1), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    hold_data(KIND(WRITE), 0, 512);
    late = send(ZQCOW2_OP_WRITE, 0, 512, 3);
    done(send(ZQCOW2_OP_DISCARD, 0, C, 0), 0);
    done(flush(), 0);
    done(flush(), 0);
    for (unsigned i = 0; i < 4; i++)
        send(ZQCOW2_OP_WRITE, (16 + 2 * i) * C + 512, C - 512, 2);
    release();
    done(late, 0);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t at = (16 + 2 * i) * C;

        assert_true(rig_zeros(&r, at, 512));
        assert_true(rig_holds(&r, at + 512, C - 512, at + 512, 2));
    }
    end();
}

/* What is unmapped keeps its refcount until that is durable. */
void r5_unmapped_cluster(void **state)
{
    struct ticket *first;

    (void)state;
    begin(&wide);
    assert_int_equal(rig_write(&r, 0, 8 * C, 1), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    done(send(ZQCOW2_OP_WRITE, 5 * C, C, 2), 0); /* in place: a round of one barrier */
    hold_all(KIND(FLUSH));
    first = flush();
    done(send(ZQCOW2_OP_DISCARD, 0, 4 * C, 0), 0);
    waits(first);
    release();
    done(first, 0);
    done(flush(), 0);
    end();
}

/*
 * Copying on write gives up a reference that the file has until the next round: not even a janitor
 * that comes by before that may count it down.
 */
void r5_copied_cluster(void **state)
{
    struct ticket *first;

    (void)state;
    begin(&wide);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(rig_write(&r, i * C, C, 1), 0);
    share(0, false);
    done(send(ZQCOW2_OP_WRITE, 20 * C, C, 1), 0); /* with it the mark */
    done(flush(), 0);
    done(send(ZQCOW2_OP_WRITE, 5 * C, C, 2), 0); /* in place: a round of one barrier */
    hold_all(KIND(FLUSH));
    first = flush();
    done(send(ZQCOW2_OP_WRITE, 0, 512, 3), 0);
    waits(first);
    release();
    done(first, 0);
    done(flush(), 0);
    assert_true(rig_holds(&r, 0, 512, 0, 3));
    assert_true(rig_holds(&r, 512, C - 512, 512, 1));
    done(flush(), 0);
    assert_int_equal(raw_refcount(&raw, raw.extra[0]), 1);
    end_shared();
}

void r5_copied_table(void **state)
{
    struct ticket *first;

    (void)state;
    begin(&tiny);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(rig_write(&r, i * KiB(32), 512, 1), 0);
    share(0, true);
    done(send(ZQCOW2_OP_WRITE, KiB(32) + 1024, 512, 1), 0); /* with it the mark */
    done(flush(), 0);
    done(send(ZQCOW2_OP_WRITE, KiB(64), 512, 2), 0); /* in place: a round of one barrier */
    hold_all(KIND(FLUSH));
    first = flush();
    done(send(ZQCOW2_OP_WRITE, 1024, 512, 3), 0);
    waits(first);
    release();
    done(first, 0);
    done(flush(), 0);
    assert_true(rig_holds(&r, 1024, 512, 1024, 3));
    done(flush(), 0);
    assert_int_equal(raw_refcount(&raw, raw.extra[0]), 1);
    end_shared();
}

/* ---- who owns a range: R14 ---- */

void r14_blocks_one_after_the_other(void **state)
{
    struct ticket *a, *b;

    (void)state;
    begin_on(&wide, C);
    assert_int_equal(rig_write(&r, 0, C, 1), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    hold_data(KIND(READ), 0, C);
    a = send(ZQCOW2_OP_WRITE, 0, 512, 2);
    b = send(ZQCOW2_OP_WRITE, 512, 512, 3);
    assert_int_equal(held(), 1);
    waits(a);
    waits(b);
    release();
    assert_true(rig_holds(&r, 0, 512, 0, 2));
    assert_true(rig_holds(&r, 512, 512, 512, 3));
    assert_true(rig_holds(&r, 1024, C - 1024, 1024, 1));
    end();
}

/* Of metadata, too: eight slices of a round share a block. */
void r14_blocks_of_metadata(void **state)
{
    struct geometry g = tiny;

    (void)state;
    g.conventional = 7;
    begin_on(&g, C);
    for (unsigned i = 0; i < 16; i++)
        done(send(ZQCOW2_OP_WRITE, i * KiB(32), 512, 1), 0);
    done(flush(), 0);
    for (unsigned i = 0; i < 16; i++)
        done(send(ZQCOW2_OP_WRITE, i * KiB(32) + 512, 512, 2), 0);
    hold_all(KIND(READ));
    post(ZQCOW2_OP_FLUSH, 0, 0, 0);
    go();
    release();
    for (unsigned i = 0; i < 16; i++)
        assert_int_not_equal(raw_host(&raw, i * KiB(32) + 512), 0);
    end();
}

/*
 * A discard of what is being copied waits for the copy: both would give the old cluster back, and
 * it is the snapshot's, too.
 */
void r14_unmapping_waits_for_the_owner(void **state)
{
    struct ticket *write, *discard;

    (void)state;
    begin(&wide);
    assert_int_equal(rig_write(&r, 0, 8 * C, 1), 0);
    share(0, false);
    done(send(ZQCOW2_OP_WRITE, 20 * C, C, 1), 0);
    done(flush(), 0);
    hold_data(KIND(READ), 0, C);
    write = send(ZQCOW2_OP_WRITE, 0, 512, 2);
    discard = send(ZQCOW2_OP_DISCARD, 0, C, 0);
    waits(write);
    waits(discard);
    release();
    done(write, 0);
    done(discard, 0);
    assert_true(rig_zeros(&r, 0, C));
    done(flush(), 0);
    done(flush(), 0);
    assert_int_equal(raw_refcount(&raw, raw.extra[0]), 1);
    end_shared();
}

/* Zeros where there is no cluster yet wait for the write that makes it, and then go into it. */
void r14_zeroing_waits_for_the_owner(void **state)
{
    struct ticket *write, *zero;

    (void)state;
    begin(&wide);
    assert_int_equal(rig_write(&r, 8 * C, C, 1), 0);
    hold_all(KIND(WRITE));
    write = send(ZQCOW2_OP_WRITE, 512, 1024, 2);
    zero = send(ZQCOW2_OP_WRITE_ZEROES, 512, 512, 0);
    waits(write);
    waits(zero);
    release();
    done(write, 0);
    done(zero, 0);
    assert_true(rig_zeros(&r, 0, 1024));
    assert_true(rig_holds(&r, 1024, 512, 1024, 2));
    end();
}

/* Two that need the same new cluster: one makes it, and the other writes into that. */
void r14_one_maker(void **state)
{
    (void)state;
    begin(&wide);
    assert_int_equal(rig_write(&r, 8 * C, C, 1), 0);
    hold_all(KIND(WRITE));
    send(ZQCOW2_OP_WRITE, 0, 512, 2);
    send(ZQCOW2_OP_WRITE, 1024, 512, 3);
    assert_int_equal(held(), 1);
    release();
    assert_true(rig_holds(&r, 0, 512, 0, 2));
    assert_true(rig_holds(&r, 1024, 512, 1024, 3));
    end();
}

/* The last cluster of the file, given back and taken again: what was in it does not show. */
void i5_zeros_around_a_small_write(void **state)
{
    uint64_t host;

    (void)state;
    begin(&wide);
    done(send(ZQCOW2_OP_WRITE, 0, C, 1), 0);
    done(flush(), 0);
    host = raw_host(&raw, 0);
    done(send(ZQCOW2_OP_DISCARD, 0, C, 0), 0);
    done(flush(), 0);
    done(flush(), 0);
    done(send(ZQCOW2_OP_WRITE, 8 * C + 512, 512, 2), 0);
    done(flush(), 0);
    assert_int_equal(raw_host(&raw, 8 * C), host); /* or there is nothing to see */
    assert_true(rig_zeros(&r, 8 * C, 512));
    assert_true(rig_holds(&r, 8 * C + 512, 512, 8 * C + 512, 2));
    assert_true(rig_zeros(&r, 8 * C + 1024, C - 1024));
    end();
}

/* New clusters end with their L2 slice, in a table that has just been made, too (E3). */
void e3_new_clusters_over_two_slices(void **state)
{
    static const struct geometry g = {
        .name = "8 KiB", .size = MiB(64), .zone_size = MiB(16), .conventional = 1, .cluster = 8192};
    uint64_t at = MiB(3);

    (void)state;
    begin_on(&g, 0);
    assert_int_equal(rig_write(&r, at, MiB(2), 1), 0);
    assert_int_equal(zqcow2_flush(r.img), 0);
    for (uint64_t i = 0; i < MiB(2); i += 8192)
        assert_int_not_equal(raw_host(&raw, at + i), 0);
    assert_true(rig_holds(&r, at, MiB(2), at, 1));
    end();
}

/* And what is freed at once is counted down slice by slice: two lie in a block here. */
void e3_freed_over_two_slices(void **state)
{
    static const struct geometry g = {
        .name = "8 KiB", .size = MiB(64), .zone_size = MiB(16), .conventional = 2, .cluster = 8192};

    (void)state;
    begin_on(&g, 0);
    assert_int_equal(rig_write(&r, 0, MiB(24), 1), 0);
    done(send(ZQCOW2_OP_DISCARD, 0, MiB(24), 0), 0);
    done(flush(), 0);
    done(flush(), 0);
    end();
}

/* An image of 64 refcount blocks of 64 refcounts each, which reach 2 MiB. */
static const struct geometry small_table = {.name = "512, refcounts of 64 bits",
                                            .size = 32 * Z,
                                            .zone_size = Z,
                                            .conventional = 24,
                                            .cluster = 512,
                                            .refcount_bits = 64};

/* They are not enough; the table of before is no leak. */
void r9_a_table_that_grows(void **state)
{
    uint64_t old;

    (void)state;
    begin_on(&small_table, 0);
    old = raw.rt;
    for (uint64_t at = 0; at < 20 * Z; at += KiB(64))
        assert_int_equal(rig_write(&r, at, KiB(64), 1), 0);
    done(flush(), 0);
    done(flush(), 0);
    assert_true(raw_find(&raw, &r.store));
    assert_int_not_equal(raw.rt, old);
    end();
}

/* The header names the new table when that is durable, and not before. */
void r9_header_behind_a_barrier(void **state)
{
    struct ticket *first;
    uint64_t at = 0, old;

    (void)state;
    begin_on(&small_table, 0);
    old = raw.rt;
    hold(KIND(WRITE), MiB(2), MiB(2));
    do
        first = send(ZQCOW2_OP_WRITE, at, KiB(32), 1);
    while (first->calls && (at += KiB(32)) < 20 * Z);
    assert_int_equal(held(), 1);
    release_all_but(KIND(FLUSH), 0, UINT64_MAX);
    assert_int_equal(held(), 1);
    waits(first);
    assert_true(raw_find(&raw, &r.store));
    assert_int_equal(raw.rt, old);
    release();
    done(first, 0);
    assert_true(raw_find(&raw, &r.store));
    assert_int_not_equal(raw.rt, old);
    end();
}

/*
 * While the new table is written, what needs no longer table goes on: it frees clusters, and takes
 * them, and none of the refcounts is lost at the switch.
 */
void r9_others_while_the_table_grows(void **state)
{
    struct ticket *first;
    uint64_t at = 0, old;

    (void)state;
    begin_on(&small_table, 0);
    old = raw.rt;
    hold(KIND(WRITE), MiB(2), MiB(2)); /* the new table lies where the old one ends */
    do
        first = send(ZQCOW2_OP_WRITE, at, KiB(32), 1);
    while (first->calls && (at += KiB(32)) < 20 * Z);
    assert_int_equal(held(), 1);
    done(send(ZQCOW2_OP_DISCARD, KiB(64), KiB(64), 0), 0);
    done(flush(), 0);
    for (uint64_t i = 0; i < KiB(64); i += KiB(4))
        done(send(ZQCOW2_OP_WRITE, KiB(64) + i, 512, 2), 0);
    done(flush(), 0);
    waits(first);
    assert_int_equal(held(), 1);
    release();
    done(first, 0);
    done(send(ZQCOW2_OP_WRITE, 20 * Z, KiB(64), 3), 0);
    done(flush(), 0);
    done(flush(), 0);
    assert_true(raw_find(&raw, &r.store));
    assert_int_not_equal(raw.rt, old);
    for (uint64_t i = 0; i < KiB(64); i += KiB(4))
        assert_true(rig_holds(&r, KiB(64) + i, 512, KiB(64) + i, 2));
    end();
}
