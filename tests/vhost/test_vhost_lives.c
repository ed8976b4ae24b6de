/* SPDX-License-Identifier: MIT */
/*
 * zqcow2 vhost-user over many lives: memory, front-ends and servers that come and go. ZQCOW2_TOOL
 * names the command.
 */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "frontend.h"

/* ---- memory that comes and goes, servers that do ---- */

static void memory_can_be_taken_away(void **state)
{
    uint64_t second[5] = {0, GUEST_BASE + REGION, REGION, USER_BASE, REGION};
    struct part p[] = {{DATA_AT, 16, false}, {REGION - 512, 1024, true}, {DATA_AT + 64, 1, true}};
    struct pollfd err = {.events = POLLIN};
    struct front f;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    memset(front_data(&f), 0x33, 1024);
    assert_int_equal(front_do(&f, 0, OUT, 0, 1024, 0), OK);
    front_put(f.memory + DATA_AT, IN, 4);
    front_post(&f, 0, 5, p, 3, false); /* across both regions */
    assert_int_equal(front_used(&f, 0, NULL, LONG_MS), 5);
    assert_int_equal(f.memory[DATA_AT + 64], OK);
    assert_true(front_all_are(f.memory + REGION - 512, 0x33, 1024));
    assert_int_equal(front_acked(&f, 38, second, sizeof(second), NULL, 0), 0);
    assert_int_equal(front_do(&f, 0, IN, 0, 0, 1024), OK);
    front_post(&f, 0, 5, p, 3, false);
    err.fd = f.ring[0].err;
    assert_int_equal(poll(&err, 1, LONG_MS), 1);
    front_finish(&f);
}

/* Every front-end begins anew, whatever the one before left. */
static void front_ends_come_and_go(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    for (unsigned i = 0; i < 20; i++) {
        memset(front_data(&f), (int)i, 512);
        assert_int_equal(front_do(&f, i % 2, OUT, i, 512, 0), OK);
        front_disconnect(&f);
        memset(f.memory + 0x4000, 0, 0x8000);
        front_connect(&f);
        front_negotiate(&f, ALL);
        front_start_ring(&f, 0, 0);
        front_start_ring(&f, 1, 0);
        assert_int_equal(front_do(&f, 0, IN, i, 0, 512), OK);
        assert_true(front_all_are(front_data(&f), (uint8_t)i, 512));
    }
    front_finish(&f);
}

/*
 * A server is killed with three requests popped: one answered but not struck out, two not answered.
 * The next one answers those two, once each, in the order in which they were popped.
 */
static void what_was_in_flight_is_done_again(void **state)
{
    const uint16_t heads[] = {20, 10, 30};
    uint8_t *area, *used;
    struct front f;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), OK);
    assert_int_equal(front_stop(&f, SIGKILL), -SIGKILL);
    front_disconnect(&f);
    area = mmap(NULL, f.inflight_size, PROT_READ | PROT_WRITE, MAP_SHARED, f.inflight, 0);
    assert_true(area != MAP_FAILED);
    used = f.memory + 0x4000 + 0x2000;
    f.ring[0].kick = f.ring[0].call = f.ring[0].err = -1;
    for (unsigned i = 0; i < 3; i++) {
        uint32_t at = DATA_AT + 0x100 * i;
        struct part p[] = {
            {at, 16, false}, {DATA_AT + 0x1000 + 0x200 * i, 512, false}, {at + 64, 1, true}};
        uint8_t *entry = area + 16 + 16 * heads[i];

        front_put(f.memory + at, OUT, 8);
        front_put(f.memory + at + 8, 100, 8); /* all three to one place: the last one stays */
        memset(f.memory + DATA_AT + 0x1000 + 0x200 * i, (int)i + 1, 512);
        f.memory[at + 64] = 0xee;
        f.ring[0].num = RING_NUM;
        f.ring[0].kick = memfd_create("no kick", 0);
        front_post(&f, 0, heads[i], p, 3, false);
        close(f.ring[0].kick);
        entry[0] = 1;
        front_put(entry + 8, 100 + i, 8);
    }
    /* The first of them is on the used ring already. */
    front_put(used + 4 + 8 * 1, heads[0], 4);
    front_put(used + 2, 2, 2);
    front_put(area + 16 + 16 * heads[0] + 6, front_get(area + 12, 2), 2);
    front_put(area + 12, heads[0], 2);
    f.ring[0].num = 0;
    front_start(&f, "");
    front_connect(&f);
    front_negotiate(&f, ALL);
    front_start_ring(&f, 0, 2);
    f.ring[0].avail = 4;
    f.ring[0].used = 2;
    assert_int_equal(front_used(&f, 0, NULL, LONG_MS), heads[1]);
    assert_int_equal(front_used(&f, 0, NULL, LONG_MS), heads[2]);
    assert_int_equal(f.memory[DATA_AT + 64], 0xee);
    assert_int_equal(f.memory[DATA_AT + 0x100 + 64], OK);
    assert_int_equal(f.memory[DATA_AT + 0x200 + 64], OK);
    assert_int_equal(front_do(&f, 0, IN, 100, 0, 512), OK);
    assert_true(front_all_are(front_data(&f), 3, 512));
    for (unsigned i = 0; i < RING_NUM; i++)
        assert_int_equal(area[16 + 16 * i], 0);
    munmap(area, f.inflight_size);
    front_finish(&f);
}

static void begin_again(struct front *f)
{
    front_disconnect(f);
    memset(f->memory + 0x4000, 0, 0x8000);
    front_start(f, "");
    front_connect(f);
    front_negotiate(f, ALL);
    front_start_ring(f, 0, 0);
}

/* The guest hears of it by a flush that fails, once; and only if there was something to lose. */
static void what_a_killed_server_lost_is_said(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    assert_int_equal(front_do(&f, 0, OUT, 0, 512, 0), OK);
    assert_int_equal(front_do(&f, 1, FLUSH, 0, 0, 0), OK);
    assert_int_equal(front_stop(&f, SIGKILL), -SIGKILL);
    begin_again(&f);
    assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), OK);
    for (unsigned i = 0; i < 2; i++) { /* the second one dies before it could say so */
        assert_int_equal(front_do(&f, 0, OUT, 8 * i, 512, 0), OK);
        assert_int_equal(front_stop(&f, SIGKILL), -SIGKILL);
        begin_again(&f);
    }
    assert_int_equal(front_do(&f, 0, OUT, 16, 512, 0), OK);
    assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), IOERR);
    assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), OK);
    assert_int_equal(front_do(&f, 0, OUT, 24, 512, 0), OK);
    assert_int_equal(front_stop(&f, SIGTERM), 0); /* that one closes the image */
    begin_again(&f);
    assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), OK);
    front_finish(&f);
}

/* An append that was done again would not come to the same. */
static void zones_keep_nothing_in_flight(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_zoned, "", ALL);
    assert_false(f.protocol >> 12 & 1);
    assert_int_equal(front_do(&f, 0, OUT, 2048, 512, 0), OK);
    assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), OK);
    assert_int_equal(front_stop(&f, SIGKILL), -SIGKILL);
    front_disconnect(&f);
    memset(f.memory + 0x4000, 0, 0x8000);
    front_start(&f, "");
    front_connect(&f);
    front_negotiate(&f, ALL);
    front_start_ring(&f, 0, 0);
    front_expect_zone(&f, 2048, 2049, 4);
    front_finish(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_can_be_taken_away),
        cmocka_unit_test(front_ends_come_and_go),
        cmocka_unit_test(what_was_in_flight_is_done_again),
        cmocka_unit_test(what_a_killed_server_lost_is_said),
        cmocka_unit_test(zones_keep_nothing_in_flight),
    };

    if (!getenv("ZQCOW2_TOOL")) {
        puts("1..0 # skip ZQCOW2_TOOL is not set");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
