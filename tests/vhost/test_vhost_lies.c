/* SPDX-License-Identifier: MIT */
/*
 * zqcow2 vhost-user against a front-end and a guest of the test's own: guests and
 * front-ends that lie. ZQCOW2_TOOL names the command.
 */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "frontend.h"

/* ---- guests that lie ---- */

static void break_ring(struct front *f, unsigned how)
{
    uint64_t at = GUEST_BASE + DATA_AT;
    uint8_t *avail = f->memory + 0x4000 + 0x1000;

    switch (how) {
    case 0: front_offer(f, 0, RING_NUM); return;
    case 1: front_offer(f, 0, 0xffff); return;
    case 2: front_set_desc(f, 0, 0, at, 16, 1, RING_NUM); break;
    case 3: front_set_desc(f, 0, 0, at, 16, 1, 0); break; /* a loop */
    case 4: front_set_desc(f, 0, 0, GUEST_BASE - 1, 16, 0, 0); break;
    case 5: front_set_desc(f, 0, 0, GUEST_BASE + MEMORY - 8, 16, 0, 0); break;
    case 6: front_set_desc(f, 0, 0, UINT64_MAX - 3, 16, 0, 0); break;
    case 7: /* readable behind writable */
        front_set_desc(f, 0, 0, at, 16, 3, 1);
        front_set_desc(f, 0, 1, at, 16, 0, 0);
        break;
    case 8: front_set_desc(f, 0, 0, at, 0, 4, 0); break;   /* an empty table */
    case 9: front_set_desc(f, 0, 0, at, 17, 4, 0); break;  /* not whole */
    case 10: front_set_desc(f, 0, 0, at, 16, 5, 1); break; /* and goes on */
    case 11:                                               /* a table in a table */
        memset(f->memory + DATA_AT, 0, 16);
        front_put(f->memory + DATA_AT + 12, 4, 2);
        front_set_desc(f, 0, 0, at, 16, 4, 0);
        break;
    case 12: /* out of the table */
        memset(f->memory + DATA_AT, 0, 16);
        front_put(f->memory + DATA_AT, at, 8);
        front_put(f->memory + DATA_AT + 12, 1, 2);
        front_put(f->memory + DATA_AT + 14, 1, 2);
        front_set_desc(f, 0, 0, at, 16, 4, 0);
        break;
    case 13: front_set_desc(f, 0, 0, at, 16 * 1025, 4, 0); break;
    case 14: front_set_desc(f, 0, 0, GUEST_BASE + MEMORY - 8, 16, 4, 0); break;
    case 15: front_set_desc(f, 0, 0, UINT64_MAX - 15, 32, 4, 0); break;
    default: /* more entries than there are */
        f->ring[0].avail = (uint16_t)(f->ring[0].avail + RING_NUM);
        break;
    }
    (void)avail;
    front_offer(f, 0, 0);
}
#define WAYS 17u

/* That ring is lost, the other is not, and the next start finds the ring whole. */
static void a_broken_ring_is_only_itself(void **state)
{
    (void)state;
    for (unsigned how = 0; how < WAYS; how++) {
        struct front f;
        struct pollfd p = {.events = POLLIN};

        front_begin(&f, front_plain, "", ALL);
        assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), OK);
        break_ring(&f, how);
        p.fd = f.ring[0].err;
        if (poll(&p, 1, LONG_MS) != 1)
            fail_msg("way %u is not noticed", how);
        assert_int_equal(front_do(&f, 1, OUT, 0, 512, 0), OK);
        front_stop_ring(&f, 0);
        memset(f.memory + 0x4000, 0, 0x4000);
        front_start_ring(&f, 0, 0);
        assert_int_equal(front_do(&f, 0, IN, 0, 0, 512), OK);
        front_finish(&f);
    }
}

/* Each is answered, or not answered, without harm. */
static void odd_requests_are_answered(void **state)
{
    struct part none[] = {{DATA_AT, 16, false}},
                half[] = {{DATA_AT, 7, false}, {DATA_AT + 64, 1, true}},
                empty[] = {{DATA_AT, 0, false},
                           {DATA_AT, 16, false},
                           {DATA_AT + 64, 0, true},
                           {DATA_AT + 64, 1, true}};
    struct front f;
    uint32_t written;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    memset(f.memory + DATA_AT, 0, 256);
    front_post(&f, 0, 0, none, 1, false);
    assert_int_equal(front_used(&f, 0, &written, LONG_MS), 0);
    assert_int_equal(written, 0);
    front_post(&f, 0, 1, half, 2, true);
    assert_int_equal(front_used(&f, 0, &written, LONG_MS), 1);
    assert_int_equal(f.memory[DATA_AT + 64], UNSUPP);
    front_put(f.memory + DATA_AT, FLUSH, 4);
    front_post(&f, 0, 2, empty, 4, true);
    assert_int_equal(front_used(&f, 0, &written, LONG_MS), 2);
    assert_int_equal(f.memory[DATA_AT + 64], OK);
    front_finish(&f);
}

/* The same memory again and again, more of it than any request may have: nothing is filled. */
static void a_report_has_a_bound(void **state)
{
    struct part p[64] = {{DATA_AT, 16, false}};
    struct front f;
    uint32_t written;

    (void)state;
    front_begin(&f, front_zoned, "", ALL);
    memset(f.memory + DATA_AT, 0, 16);
    front_put(f.memory + DATA_AT, REPORT, 4);
    f.memory[REGION + REGION / 2] = 0x77;
    for (unsigned i = 1; i < 63; i++)
        p[i] = (struct part){REGION, REGION, true};
    p[63] = (struct part){DATA_AT + 64, 1, true};
    front_post(&f, 0, 0, p, 64, true);
    assert_int_equal(front_used(&f, 0, &written, LONG_MS), 0);
    assert_int_equal(f.memory[DATA_AT + 64], INVALID);
    assert_int_equal(f.memory[REGION + REGION / 2], 0x77);
    front_finish(&f);
}

/* ---- front-ends that lie ---- */

static const struct {
    uint32_t request, size;
    uint64_t payload[5];
    unsigned fds;
} bad_messages[] = {
    {2, 8, {1ull << 34}, 0},

    {16, 8, {1ull << 40}, 0},
    {8, 8, {0 | 63ull << 32}, 0},
    {8, 8, {0}, 0},
    {8, 8, {0 | 2048ull << 32}, 0},
    {8, 8, {2 | 64ull << 32}, 0},
    {8, 4, {0}, 0},
    {10, 8, {0 | 1ull << 49}, 0},
    {9, 40, {9}, 0},
    {9, 40, {1ull << 32}, 0},
    {12, 8, {0}, 0},
    {12, 8, {7}, 1},
    {12, 8, {0x100}, 1},
    {13, 8, {200}, 1},
    {18, 8, {0 | 2ull << 32}, 0},
    {18, 8, {5}, 0},
    {5, 8, {9}, 0},
    {5, 40, {1, 0, 1ull << 30, 0, 0}, 1},
    {5, 8, {1}, 1},
    {37, 40, {0, 0, 0, 0, 0}, 1},
    {37, 40, {0, 4096, UINT64_MAX, 0, 0}, 1},
    {37, 40, {0, 1, 1ull << 40, 0, 0}, 1},
    {37, 40, {0, GUEST_BASE + 5, 4096, 0, 0}, 1},
    {37, 40, {0, 4096, 4096, 0, 0}, 0},
    {37, 40, {0, 4096, 4096, 0, UINT64_MAX - 100}, 1},
    {38, 40, {0, 1, 2, 3, 4}, 0},
    {25, 12, {1ull << 32 | 300}, 0},
    {25, 13, {1ull << 32, 1ull << 32}, 0},
    {32, 24, {4096, 1}, 1},
    {32, 24, {1ull << 40, 0, 64ull << 16 | 2}, 1},
    {21, 0, {0}, 0},
    {99, 8, {0}, 0},
    {6, 16, {0}, 1},
};

static void bad_messages_are_refused(void **state)
{
    struct front f;

    (void)state;
    front_create(&f, front_plain, "8M");
    front_start(&f, "");
    for (unsigned i = 0; i < sizeof(bad_messages) / sizeof(bad_messages[0]); i++) {
        int fds[] = {f.memfd, f.memfd, f.memfd};

        front_connect(&f);
        front_negotiate(&f, ALL);
        if (front_acked(&f, bad_messages[i].request, bad_messages[i].payload, bad_messages[i].size,
                        fds, bad_messages[i].fds) == 0)
            fail_msg("message %u is accepted", i);
        front_disconnect(&f);
        /* And without an answer: the connection ends, if anything does, and the server stays. */
        front_connect(&f);
        front_send(&f, bad_messages[i].request, 0, bad_messages[i].payload, bad_messages[i].size,
                   fds, bad_messages[i].fds);
        front_disconnect(&f);
    }
    front_finish(&f);
}

static void broken_streams_end_the_connection(void **state)
{
    static const uint32_t heads[][3] = {
        {1, 0, 0}, {1, 2, 0}, {1, 5, 0}, {5, 1, 100000}, {2, 1, UINT32_MAX}};
    struct front f;
    char c;

    (void)state;
    front_create(&f, front_plain, "8M");
    front_start(&f, "");
    for (unsigned i = 0; i < 5; i++) {
        front_connect(&f);
        assert_int_equal(write(f.sock, heads[i], 12), 12);
        assert_true(read(f.sock, &c, 1) <= 0);
        front_disconnect(&f);
    }
    front_connect(&f);
    assert_int_equal(write(f.sock, heads[0], 5), 5); /* and leaves */
    front_disconnect(&f);
    front_connect(&f);
    assert_int_equal(write(f.sock, heads[0], 5), 5); /* and stays: a signal ends the server */
    assert_int_equal(front_stop(&f, SIGTERM), 0);
    front_disconnect(&f);
    front_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_broken_ring_is_only_itself),
        cmocka_unit_test(odd_requests_are_answered),
        cmocka_unit_test(a_report_has_a_bound),
        cmocka_unit_test(bad_messages_are_refused),
        cmocka_unit_test(broken_streams_end_the_connection),
    };

    if (!getenv("ZQCOW2_TOOL")) {
        puts("1..0 # skip ZQCOW2_TOOL is not set");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
