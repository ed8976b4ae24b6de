/* SPDX-License-Identifier: MIT */
/* Mistakes that other zoned devices made, one test each. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "rig/rig.h"

/* Capacity below size and no power of two, a conventional zone, a short last zone, limits. */
static const struct geometry small = {.name = "small",
                                      .size = KiB(64 * 8 + 40),
                                      .zone_size = KiB(64),
                                      .capacity = KiB(52),
                                      .conventional = 1,
                                      .max_open = 2,
                                      .max_active = 4,
                                      .cluster = 4096};
static const struct geometry loose = {.name = "loose",
                                      .size = KiB(64 * 8 + 60),
                                      .zone_size = KiB(64),
                                      .capacity = KiB(52),
                                      .conventional = 2,
                                      .cluster = 4096};
#define LAST 8u

static int act(struct rig *r, int op, uint32_t zone)
{
    uint64_t start = rig_start(r, zone), len = r->g->zone_size;

    if (start + len > r->g->size)
        len = r->g->size - start;
    return rig_manage(r, op, start, len, NULL);
}

static void assert_zone(struct rig *r, uint32_t zone, unsigned state, uint64_t wp)
{
    struct zqcow2_zone z = rig_zone(r, zone);

    if (z.state != state || z.write_pointer != rig_start(r, zone) + wp)
        fail_msg("zone %u is %s at +%llu, expected %s at +%llu", zone, rig_state_name(z.state),
                 (unsigned long long)(z.write_pointer - z.start), rig_state_name(state),
                 (unsigned long long)wp);
}

static void lock_kept_when_already_open(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &small);
    alarm(60);
    for (int i = 0; i < 3; i++)
        assert_int_equal(act(&r, ZQCOW2_OP_ZONE_OPEN, 1), 0);
    assert_int_equal(rig_write(&r, rig_start(&r, 1), 512, 1), 0);
    alarm(0);
    assert_zone(&r, 1, ZQCOW2_ZONE_EXP_OPEN, 512);
    rig_end(&r);
}

static void open_made_a_full_zone_open(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &small);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_FINISH, 1), 0);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_OPEN, 1), ZQCOW2_EZONE_STATE);
    assert_zone(&r, 1, ZQCOW2_ZONE_FULL, r.g->zone_size);
    assert_int_equal(rig_info(&r).open_zones, 0);
    rig_end(&r);
}

static void close_of_implicitly_open_did_nothing(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &small);
    assert_int_equal(rig_write(&r, rig_start(&r, 2), 1024, 1), 0);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_CLOSE, 2), 0);
    assert_zone(&r, 2, ZQCOW2_ZONE_CLOSED, 1024);
    assert_int_equal(rig_info(&r).open_zones, 0);
    assert_int_equal(rig_info(&r).active_zones, 1);
    rig_end(&r);
}

static void append_took_the_type_bit_for_an_address(void **state)
{
    uint64_t at = 77;
    struct rig r;

    (void)state;
    rig_begin(&r, &small);
    assert_int_equal(rig_append(&r, 0, 512, 1, &at), ZQCOW2_EZONE_STATE);
    assert_int_equal(at, 77);
    assert_true(rig_zeros(&r, 0, r.g->size));
    rig_end(&r);
}

/* No end but the capacity's makes a zone full, least of all those that a mask would hit. */
static void full_was_tested_with_a_mask(void **state)
{
    uint64_t wp = 0;
    struct rig r;

    (void)state;
    rig_begin(&r, &small);
    while (wp < r.g->capacity) {
        assert_zone(&r, 3, wp ? ZQCOW2_ZONE_IMP_OPEN : ZQCOW2_ZONE_EMPTY, wp);
        assert_int_equal(rig_write(&r, rig_start(&r, 3) + wp, KiB(4), 1), 0);
        wp += KiB(4);
    }
    assert_zone(&r, 3, ZQCOW2_ZONE_FULL, r.g->zone_size);
    rig_end(&r);
}

static void report_gave_zone_size_as_capacity(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &small);
    assert_int_equal(rig_zone(&r, 0).capacity, KiB(64));
    assert_int_equal(rig_zone(&r, 1).capacity, KiB(52));
    assert_int_equal(rig_zone(&r, LAST).capacity, KiB(40));
    assert_int_equal(rig_zone(&r, LAST).length, KiB(40));
    rig_end(&r);
    rig_begin(&r, &loose);
    assert_int_equal(rig_zone(&r, LAST).capacity, KiB(52));
    assert_int_equal(rig_zone(&r, LAST).length, KiB(60));
    rig_end(&r);
}

static void reset_of_a_short_last_zone_did_nothing(void **state)
{
    uint64_t start;
    struct rig r;

    (void)state;
    rig_begin(&r, &small);
    start = rig_start(&r, LAST);
    assert_int_equal(rig_write(&r, start, KiB(8), 1), 0);
    assert_int_equal(rig_manage(&r, ZQCOW2_OP_ZONE_RESET, start, KiB(40), NULL), 0);
    assert_zone(&r, LAST, ZQCOW2_ZONE_EMPTY, 0);
    assert_true(rig_zeros(&r, start, KiB(40)));
    rig_reopen(&r);
    assert_zone(&r, LAST, ZQCOW2_ZONE_EMPTY, 0);
    assert_true(rig_zeros(&r, start, KiB(40)));
    rig_end(&r);
}

static void finish_of_a_short_last_zone_passed_the_end(void **state)
{
    const struct geometry *const shapes[] = {&small, &loose};
    struct rig r;

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct zqcow2_zone z;

        rig_begin(&r, shapes[i]);
        assert_int_equal(act(&r, ZQCOW2_OP_ZONE_FINISH, LAST), 0);
        z = rig_zone(&r, LAST);
        assert_int_equal(z.write_pointer, r.g->size);
        rig_reopen(&r);
        z = rig_zone(&r, LAST);
        assert_int_equal(z.state, ZQCOW2_ZONE_FULL);
        assert_int_equal(z.write_pointer, r.g->size);
        rig_end(&r);
    }
}

/* Opening the image must count them: the very first call may be one that has to be refused. */
static void closed_zones_were_counted_lazily(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &small);
    for (uint32_t i = 1; i <= 4; i++)
        assert_int_equal(rig_write(&r, rig_start(&r, i), 512, 1), 0);
    rig_reopen(&r);
    assert_int_equal(rig_write(&r, rig_start(&r, 5), 512, 1), ZQCOW2_EZONE_ACTIVE);
    rig_reopen(&r);
    assert_int_equal(rig_info(&r).active_zones, 4);
    assert_int_equal(rig_info(&r).open_zones, 0);
    rig_end(&r);
}

static void state_changed_before_the_request_was_checked(void **state)
{
    uint64_t start, at;
    struct rig r;

    (void)state;
    rig_begin(&r, &small);
    start = at = rig_start(&r, 1);
    assert_int_equal(rig_write(&r, start + 512, 512, 1), ZQCOW2_EZONE_WP);
    assert_int_equal(rig_write(&r, start, KiB(52) + 512, 1), ZQCOW2_EZONE_BOUNDARY);
    assert_int_equal(rig_write(&r, start, KiB(64) + 512, 1), ZQCOW2_EZONE_BOUNDARY);
    assert_int_equal(rig_append(&r, 1, KiB(53), 1, &at), ZQCOW2_EZONE_BOUNDARY);
    assert_int_equal(rig_write(&r, start, 500, 1), -EINVAL);
    assert_zone(&r, 1, ZQCOW2_ZONE_EMPTY, 0);
    assert_int_equal(rig_info(&r).active_zones, 0);
    rig_end(&r);
}

struct answer {
    int ret;
    unsigned times;
    uint64_t offset;
};

static void done(void *arg, const struct zqcow2_result *res)
{
    struct answer *a = arg;

    a->ret = res->ret;
    a->offset = res->offset;
    a->times++;
}

/* Eight writers at one offset, all in flight at once: one wins, and its bytes are there. */
static void pointer_moved_after_the_data(void **state)
{
    static uint8_t buf[8][4096];
    struct iovec iov[8];
    struct zqcow2_queue *q;
    struct rig r;

    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct answer a[8] = {{0}};
        unsigned winners = 0;

        rig_begin_in(&r, &small, RIG_SHUFFLED, seed);
        assert_int_equal(zqcow2_queue_open(r.img, 8, &q), 0);
        for (unsigned i = 0; i < 8; i++) {
            struct zqcow2_request req = {.size = sizeof(req),
                                         .op = ZQCOW2_OP_WRITE,
                                         .offset = rig_start(&r, 2),
                                         .iov = &iov[i],
                                         .iovcnt = 1,
                                         .done = done,
                                         .arg = &a[i]};

            iov[i] = (struct iovec){buf[i], sizeof(buf[i])};
            rig_pattern(buf[i], sizeof(buf[i]), rig_start(&r, 2), i + 1);
            assert_int_equal(zqcow2_queue_submit(q, &req, 1), 1);
        }
        assert_int_equal(zqcow2_queue_wait(q, 8, 60000), 8);
        for (unsigned i = 0; i < 8; i++) {
            winners += a[i].ret == 0;
            if (a[i].ret && a[i].ret != ZQCOW2_EZONE_WP)
                fail_msg("seed %llu: writer %u got %d", (unsigned long long)seed, i, a[i].ret);
            if (!a[i].ret)
                assert_true(rig_holds(&r, rig_start(&r, 2), 4096, rig_start(&r, 2), i + 1));
        }
        assert_int_equal(winners, 1);
        assert_zone(&r, 2, ZQCOW2_ZONE_IMP_OPEN, 4096);
        assert_int_equal(zqcow2_queue_close(q), 0);
        rig_end(&r);
    }
}

/* A first write that fails leaves IMP_OPEN at the start; a later one the pointer as it was. */
static void pointer_was_not_taken_back(void **state)
{
    uint64_t start;
    struct rig r;

    (void)state;
    for (uint64_t before = 0; before <= 1024; before += 1024) {
        rig_begin(&r, &small);
        start = rig_start(&r, 1);
        assert_int_equal(rig_write(&r, rig_start(&r, 2), 512, 1), 0);
        assert_int_equal(zqcow2_flush(r.img), 0);
        if (before) {
            assert_int_equal(rig_write(&r, start, before, 1), 0);
            assert_int_equal(zqcow2_flush(r.img), 0);
        } else { /* so that no metadata has to be read or written: only the data write can fail */
            assert_int_equal(rig_write(&r, start, 512, 1), 0);
            assert_int_equal(zqcow2_flush(r.img), 0);
            assert_int_equal(act(&r, ZQCOW2_OP_ZONE_RESET, 1), 0);
            assert_int_equal(zqcow2_flush(r.img), 0);
        }
        fault_plan(&r.fault, FAULT_EIO, 1, false);
        assert_int_equal(rig_write(&r, start + before, 2048, 2), -EIO);
        assert_int_equal(r.fault.failed, 1);
        fault_plan(&r.fault, FAULT_NONE, 0, false);
        assert_zone(&r, 1, ZQCOW2_ZONE_IMP_OPEN, before);
        assert_true(rig_zeros(&r, start + before, KiB(64) - before));
        assert_int_equal(rig_write(&r, start + before, 512, 3), 0);
        assert_zone(&r, 1, ZQCOW2_ZONE_IMP_OPEN, before + 512);
        assert_true(rig_holds(&r, start + before, 512, start + before, 3));
        rig_end(&r);
    }
}

static void zone_times_size_in_32_bits(void **state)
{
    static const struct geometry big = {
        .name = "big", .size = GiB(12), .zone_size = GiB(1), .cluster = 65536, .conventional = 1};
    struct rig r;

    (void)state;
    rig_begin(&r, &big);
    for (uint32_t i = 0; i < 12; i++)
        assert_int_equal(rig_write(&r, rig_start(&r, i), 4096, i + 1), 0);
    for (uint32_t i = 1; i < 12; i += 2)
        assert_int_equal(act(&r, ZQCOW2_OP_ZONE_FINISH, i), 0);
    rig_reopen(&r);
    for (uint32_t i = 1; i < 12; i++) {
        assert_true(rig_holds(&r, rig_start(&r, i), 4096, rig_start(&r, i), i + 1));
        assert_true(rig_zeros(&r, rig_start(&r, i) + 4096, 65536));
        assert_zone(&r, i, i % 2 ? ZQCOW2_ZONE_FULL : ZQCOW2_ZONE_CLOSED, i % 2 ? GiB(1) : 4096);
    }
    rig_end(&r);
}

/* The least recently written one goes, wherever it lies; writing again counts. */
static void implicit_close_took_the_lowest(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &small);
    assert_int_equal(rig_write(&r, rig_start(&r, 1), 512, 1), 0);
    assert_int_equal(rig_write(&r, rig_start(&r, 2), 512, 1), 0);
    assert_int_equal(rig_write(&r, rig_start(&r, 1) + 512, 512, 1), 0);
    assert_int_equal(rig_write(&r, rig_start(&r, 3), 512, 1), 0); /* closes 2 */
    assert_zone(&r, 1, ZQCOW2_ZONE_IMP_OPEN, 1024);
    assert_zone(&r, 2, ZQCOW2_ZONE_CLOSED, 512);
    assert_int_equal(rig_append(&r, 2, 512, 1, NULL), 0); /* closes 1 */
    assert_zone(&r, 1, ZQCOW2_ZONE_CLOSED, 1024);
    assert_zone(&r, 3, ZQCOW2_ZONE_IMP_OPEN, 512);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_OPEN, 4), 0); /* closes 3, for an explicit open, too */
    assert_zone(&r, 3, ZQCOW2_ZONE_CLOSED, 512);
    assert_zone(&r, 2, ZQCOW2_ZONE_IMP_OPEN, 1024);
    rig_end(&r);
}

/* Data and pointer go together, now and after reopening; what was long does not shine through. */
static void reset_left_data_or_pointer(void **state)
{
    uint64_t start;
    struct rig r;

    (void)state;
    for (int flushed = 0; flushed < 2; flushed++) {
        rig_begin(&r, &small);
        start = rig_start(&r, 1);
        assert_int_equal(rig_write(&r, start, KiB(20), 1), 0);
        assert_int_equal(flushed ? zqcow2_flush(r.img) : 0, 0);
        assert_int_equal(act(&r, ZQCOW2_OP_ZONE_RESET, 1), 0);
        assert_true(rig_zeros(&r, start, KiB(64)));
        assert_int_equal(rig_write(&r, start, 512, 2), 0);
        assert_true(rig_zeros(&r, start + 512, KiB(63)));
        rig_reopen(&r);
        assert_zone(&r, 1, ZQCOW2_ZONE_CLOSED, 512);
        assert_true(rig_holds(&r, start, 512, start, 2));
        assert_true(rig_zeros(&r, start + 512, KiB(63)));
        assert_int_equal(act(&r, ZQCOW2_OP_ZONE_RESET, 1), 0);
        rig_reopen(&r);
        assert_zone(&r, 1, ZQCOW2_ZONE_EMPTY, 0);
        assert_true(rig_zeros(&r, start, KiB(64)));
        rig_end(&r);
    }
}

static void filling_a_closed_zone_left_it_on_the_list(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &small);
    for (int round = 0; round < 12; round++) {
        assert_int_equal(rig_write(&r, rig_start(&r, 1), 512, 1), 0);
        assert_int_equal(act(&r, ZQCOW2_OP_ZONE_CLOSE, 1), 0);
        assert_int_equal(rig_write(&r, rig_start(&r, 1) + 512, KiB(52) - 512, 1), 0);
        assert_zone(&r, 1, ZQCOW2_ZONE_FULL, KiB(64));
        assert_int_equal(rig_info(&r).active_zones, 0);
        assert_int_equal(rig_info(&r).open_zones, 0);
        assert_int_equal(act(&r, ZQCOW2_OP_ZONE_RESET, 1), 0);
    }
    rig_end(&r);
}

static void a_refused_write_had_closed_another(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &small);
    for (uint32_t i = 1; i <= 4; i++)
        assert_int_equal(rig_write(&r, rig_start(&r, i), 512, 1), 0);
    assert_int_equal(rig_write(&r, rig_start(&r, 5), 512, 1), ZQCOW2_EZONE_ACTIVE);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_OPEN, 5), ZQCOW2_EZONE_ACTIVE);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_FINISH, 5), ZQCOW2_EZONE_ACTIVE);
    assert_int_equal(rig_write(&r, rig_start(&r, 1), 512, 1), ZQCOW2_EZONE_WP);
    assert_int_equal(rig_write(&r, rig_start(&r, 1) + 512, KiB(52), 1), ZQCOW2_EZONE_BOUNDARY);
    assert_zone(&r, 3, ZQCOW2_ZONE_IMP_OPEN, 512);
    assert_zone(&r, 4, ZQCOW2_ZONE_IMP_OPEN, 512);
    assert_int_equal(rig_info(&r).open_zones, 2);
    rig_end(&r);
}

static void conventional_writes_ran_on(void **state)
{
    struct rig r;
    uint64_t edge;

    (void)state;
    rig_begin(&r, &loose);
    edge = rig_start(&r, 2);
    assert_int_equal(rig_write(&r, edge - 512, 1024, 1), ZQCOW2_EZONE_BOUNDARY);
    assert_int_equal(zqcow2_write_zeroes(r.img, 1024, edge - 512, 0), ZQCOW2_EZONE_BOUNDARY);
    assert_true(rig_zeros(&r, 0, r.g->size));
    assert_zone(&r, 2, ZQCOW2_ZONE_EMPTY, 0);
    /* From one conventional zone into the next is allowed. */
    assert_int_equal(rig_write(&r, rig_start(&r, 1) - 1024, 2048, 2), 0);
    assert_true(rig_holds(&r, rig_start(&r, 1) - 1024, 2048, rig_start(&r, 1) - 1024, 2));
    rig_end(&r);
}

/* A target that is CLOSED needs no active resource, so a full active limit does not stop it. */
static void a_closed_zone_was_refused_at_the_active_limit(void **state)
{
    struct rig r;

    (void)state;
    rig_begin(&r, &small);
    for (uint32_t i = 1; i <= 4; i++)
        assert_int_equal(rig_write(&r, rig_start(&r, i), 512, 1), 0);
    for (uint32_t i = 1; i <= 4; i++)
        assert_int_equal(rig_append(&r, i, 512, 1, NULL), 0);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_FINISH, 1), 0);
    assert_int_equal(act(&r, ZQCOW2_OP_ZONE_OPEN, 2), 0);
    assert_int_equal(rig_info(&r).active_zones, 3);
    rig_end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lock_kept_when_already_open),
        cmocka_unit_test(open_made_a_full_zone_open),
        cmocka_unit_test(close_of_implicitly_open_did_nothing),
        cmocka_unit_test(append_took_the_type_bit_for_an_address),
        cmocka_unit_test(full_was_tested_with_a_mask),
        cmocka_unit_test(report_gave_zone_size_as_capacity),
        cmocka_unit_test(reset_of_a_short_last_zone_did_nothing),
        cmocka_unit_test(finish_of_a_short_last_zone_passed_the_end),
        cmocka_unit_test(closed_zones_were_counted_lazily),
        cmocka_unit_test(state_changed_before_the_request_was_checked),
        cmocka_unit_test(pointer_moved_after_the_data),
        cmocka_unit_test(pointer_was_not_taken_back),
        cmocka_unit_test(zone_times_size_in_32_bits),
        cmocka_unit_test(implicit_close_took_the_lowest),
        cmocka_unit_test(reset_left_data_or_pointer),
        cmocka_unit_test(filling_a_closed_zone_left_it_on_the_list),
        cmocka_unit_test(a_refused_write_had_closed_another),
        cmocka_unit_test(conventional_writes_ran_on),
        cmocka_unit_test(a_closed_zone_was_refused_at_the_active_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
