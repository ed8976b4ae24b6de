/* SPDX-License-Identifier: MIT */
/*
 * Faults of a disk while a guest uses it: power that is cut, requests that fail or take long, by
 * --faults and by the control socket. ZQCOW2_TOOL names the command.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "control.h"

#define MIB 2048u /* in sectors */

static void connect_to(struct front *f)
{
    front_connect(f);
    front_negotiate(f, ALL);
    for (unsigned i = 0; i < RINGS; i++)
        front_start_ring(f, i, 0);
}

/* Serves a new image with these faults, and with a log beside it. */
static void begin(struct front *f, const char *image, const char *spec)
{
    char options[256];

    front_create(f, image, "8M");
    snprintf(options, sizeof(options), "--faults=%s%slog=%s/faults", spec, *spec ? "," : "",
             f->dir);
    front_start(f, options);
    connect_to(f);
}

/* The server ends, content; another one serves the image without faults, to another guest. */
static void power_on(struct front *f)
{
    front_disconnect(f);
    assert_int_equal(front_stop(f, SIGTERM), 0);
    if (f->inflight >= 0)
        close(f->inflight);
    f->inflight = -1;
    memset(f->memory, 0, MEMORY);
    front_start(f, "");
    connect_to(f);
}

/* The lines of the log that begin with `prefix`. */
static void read_log(const struct front *f, const char *prefix, char *to, size_t room)
{
    char path[96], line[256];
    size_t n = 0;
    FILE *log;

    snprintf(path, sizeof(path), "%s/faults", f->dir);
    log = fopen(path, "r");
    assert_non_null(log);
    to[0] = '\0';
    while (fgets(line, sizeof(line), log)) {
        if (!strncmp(line, prefix, strlen(prefix)) && n + strlen(line) < room)
            n += (size_t)snprintf(to + n, room - n, "%s", line);
    }
    fclose(log);
}

/* ---- power ---- */

/* Also what could be answered without the file. */
static void nothing_is_answered(struct front *f)
{
    assert_int_equal(front_do(f, 0, IN, 0, 0, 4096), IOERR);
    assert_int_equal(front_do(f, 1, IN, 7 * MIB, 0, 512), IOERR);
    assert_int_equal(front_do(f, 1, OUT, 3 * MIB, 512, 0), IOERR);
    assert_int_equal(front_do(f, 0, FLUSH, 0, 0, 0), IOERR);
    assert_int_equal(front_do(f, 0, GET_ID, 0, 0, 20), IOERR);
    expect(f, "cut", "cut: the power is already off");
}

static void unflushed_data_is_lost(void **state)
{
    struct front f;

    (void)state;
    begin(&f, front_plain, "");
    front_write(&f, 0, 0x11, 8192);
    assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), OK);
    front_write(&f, 8, 0x22, 4096);
    front_write(&f, MIB, 0x33, 4096);
    assert_true(front_reads(&f, 0, 8, 0x22, 4096));
    assert_int_equal(ctl(&f, "cut --seed 77 --how lose-all"), 0);
    assert_memory_equal(text, "seed 77, lose-all: ", 19);
    assert_true(number("lose-all:") >= 2);
    nothing_is_answered(&f);
    power_on(&f);
    assert_true(front_reads(&f, 0, 0, 0x11, 8192));
    assert_true(front_reads(&f, 0, MIB, 0, 4096));
    front_finish(&f);
}

static void everything_may_survive(void **state)
{
    static char log[8192];
    struct front f;

    (void)state;
    begin(&f, front_plain, "how=keep-all+reorder,seed=5");
    front_write(&f, 0, 0x11, 4096);
    assert_int_equal(ctl(&f, "cut"), 0);
    assert_memory_equal(text, "seed 5, keep-all+reorder: ", 26);
    nothing_is_answered(&f);
    read_log(&f, "image: cut: write ", log, sizeof(log));
    assert_non_null(strstr(log, ", 4096 bytes at "));
    assert_null(strstr(log, ": lost, "));
    assert_null(strstr(log, ": torn, "));
    power_on(&f);
    front_finish(&f);
}

static void zones_lose_power(void **state)
{
    struct front f;

    (void)state;
    begin(&f, front_zoned, "");
    front_write(&f, MIB, 0x44, 4096);
    assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), OK);
    front_write(&f, MIB + 8, 0x55, 4096);
    assert_int_equal(front_do(&f, 0, FINISH, 2 * MIB, 0, 0), OK);
    assert_int_equal(ctl(&f, "cut --how lose-all"), 0);
    nothing_is_answered(&f);
    assert_int_equal(front_do(&f, 0, REPORT, 0, 0, 128), IOERR);
    assert_int_equal(front_do(&f, 0, RESET_ALL, 0, 0, 0), IOERR);
    power_on(&f);
    front_expect_zone(&f, MIB, MIB + 8, 4);
    front_expect_zone(&f, 2 * MIB, 2 * MIB, 1);
    assert_true(front_reads(&f, 0, MIB, 0x44, 4096));
    front_finish(&f);
}

/* One after the other, from the first to the last. */
static void repeat(uint64_t seed, char *log, size_t room)
{
    char words[64];
    struct front f;

    begin(&f, front_plain, "");
    for (unsigned i = 0; i < 12; i++)
        front_write(&f, i * 16, (uint8_t)(i + 1), 8192);
    snprintf(words, sizeof(words), "cut --seed %llu --how torn-512+reorder",
             (unsigned long long)seed);
    assert_int_equal(ctl(&f, words), 0);
    read_log(&f, "image: cut: ", log, room);
    power_on(&f);
    front_finish(&f);
}

static void a_seed_repeats_a_cut(void **state)
{
    static char first[8192], again[8192], other[8192];

    (void)state;
    repeat(9, first, sizeof(first));
    repeat(9, again, sizeof(again));
    repeat(10, other, sizeof(other));
    assert_non_null(strstr(first, "image: cut: seed 9, how 259, "));
    assert_non_null(strstr(first, " kept\n"));
    assert_string_equal(first, again);
    assert_string_not_equal(first, other);
}

/* ---- requests in flight ---- */

static void post_eight(struct front *f)
{
    for (unsigned i = 0; i < 8; i++) {
        uint32_t at = DATA_AT + 0x100 * i;
        struct part p[] = {{at, 16, false}, {DATA_AT + 0x1000, 4096, false}, {at + 64, 1, true}};

        front_put(f->memory + at, OUT, 8);
        front_put(f->memory + at + 8, 8 * i, 8);
        f->memory[at + 64] = 0xee;
        front_post(f, i % RINGS, (uint16_t)(i / RINGS * 3), p, 3, false);
    }
}

static void requests_in_flight_end(void **state)
{
    unsigned failed = 0;

    (void)state;
    for (unsigned round = 0; round < 4; round++) {
        struct front f;

        begin(&f, front_plain, "delay=write:20-60");
        post_eight(&f);
        if (round) /* in the first round, before they have reached the file */
            nanosleep(&(struct timespec){0, (long)round * 90 * 1000 * 1000}, NULL);
        assert_int_equal(ctl(&f, "cut --how whole"), 0);
        for (unsigned i = 0; i < 8; i++)
            assert_true(front_used(&f, i % RINGS, NULL, LONG_MS) >= 0);
        for (unsigned i = 0; i < 8; i++) {
            uint8_t status = f.memory[DATA_AT + 0x100 * i + 64];

            assert_true(status == OK || status == IOERR);
            failed += status == IOERR;
        }
        nothing_is_answered(&f);
        power_on(&f);
        front_finish(&f);
    }
    printf("requests in flight: 32 requests over 4 cuts, %u failed\n", failed);
}

/* ---- errors and delays ---- */

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void requests_fail_on_request(void **state)
{
    struct front f;

    (void)state;
    begin(&f, front_plain, "fail=flush:all:EIO:1:1000");
    front_write(&f, 0, 0x66, 4096);
    expect(&f, "fail read all EIO 2", "");
    assert_int_equal(front_do(&f, 0, IN, 0, 0, 4096), IOERR);
    assert_int_equal(front_do(&f, 1, IN, 0, 0, 4096), IOERR);
    assert_true(front_reads(&f, 0, 0, 0x66, 4096));
    expect(&f, "fail read+discard all EIO 1 2", "");
    assert_true(front_reads(&f, 0, 0, 0x66, 4096));
    assert_int_equal(front_do(&f, 1, IN, 0, 0, 4096), IOERR);
    expect(&f, "fail read 1T+4K EIO 0", "");
    assert_true(front_reads(&f, 0, 0, 0x66, 4096));
    expect(&f, "fail any all EIO 0", "");
    assert_int_equal(front_do(&f, 1, IN, 0, 0, 4096), IOERR);
    expect(&f, "clear", "");
    assert_true(front_reads(&f, 0, 0, 0x66, 4096));
    front_finish(&f);
}

static void requests_are_delayed(void **state)
{
    struct front f;
    double begun, late, soon;

    (void)state;
    begin(&f, front_plain, "seed=3");
    front_write(&f, 0, 0x66, 4096);
    expect(&f, "delay read 150.5-170 0+1T", "");
    begun = now();
    assert_true(front_reads(&f, 0, 0, 0x66, 4096));
    late = now() - begun;
    expect(&f, "clear", "");
    begun = now();
    for (unsigned i = 0; i < 20; i++) /* all of them together may take as long as one before */
        assert_true(front_reads(&f, 0, 0, 0x66, 4096));
    soon = (now() - begun) / 20;
    assert_true(late >= 0.150);
    assert_true(soon < late);
    front_finish(&f);
}

/* ---- the data file ---- */

static void the_data_file_loses_power_as_well(void **state)
{
    static char log[8192];
    struct front f;

    (void)state;
    begin(&f, "-o cluster_size=4k,data_file=d.raw", "");
    front_write(&f, 0, 0x11, 4096);
    assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), OK);
    front_write(&f, 0, 0x22, 4096);
    assert_int_equal(ctl(&f, "cut --how lose-all"), 0);
    nothing_is_answered(&f);
    read_log(&f, "data file: cut: write ", log, sizeof(log));
    assert_non_null(strstr(log, "4096 bytes at 0: lost, 0 kept\n"));
    power_on(&f);
    assert_true(front_reads(&f, 0, 0, 0x11, 4096));
    front_finish(&f);
}

/* ---- clients ---- */

static void a_client_may_vanish(void **state)
{
    uint8_t status = OK;
    struct front f;
    int fd;

    (void)state;
    begin(&f, front_plain, "");
    front_write(&f, 0, 0x11, 4096);
    fd = dial(&f);
    assert_int_equal(send(fd, "cut how=whole\n", 14, MSG_NOSIGNAL), 14);
    close(fd);
    for (double end = now() + LONG_MS / 1000.0; status == OK && now() < end;)
        status = front_do(&f, 0, IN, 0, 0, 4096);
    assert_int_equal(status, IOERR);
    nothing_is_answered(&f);
    power_on(&f);
    front_finish(&f);
}

static void bad_faults_are_refused(void **state)
{
    static const char *const lines[] = {
        "cut max-held=1\n",  "cut log=/tmp/x\n", "cut fail=read:all:EIO\n",
        "cut seed=\n",       "cut how=\n",       "cut how=torn-1\n",
        "cut how=whole+x\n", "fault seed=1\n",   "fault log=x\n",
        "fault fail=\n",     "fault delay=\n",   "fault fail=read:all:EIO:1:0\n",
        "fault\n",           "clear all\n",      "fault fail=read:1+0:EIO\n",
    };
    char many[64];
    struct front f;

    (void)state;
    begin(&f, front_plain, "");
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        if (raw(&f, lines[i], strlen(lines[i]))[0] != '-')
            fail_msg("%s: %s", lines[i], text);
    }
    snprintf(many, sizeof(many), "fault delay=read:0\n");
    for (unsigned i = 0; i < 1024; i++)
        assert_string_equal(raw(&f, many, strlen(many)), "+.\n");
    assert_string_equal(raw(&f, many, strlen(many)), "-there are too many rules\n");
    expect(&f, "clear", "");
    assert_string_equal(raw(&f, many, strlen(many)), "+.\n");
    front_write(&f, 0, 0x11, 4096);
    front_finish(&f);
    front_begin(&f, front_plain, "", ALL);
    expect(&f, "cut", "the server was started without --faults");
    expect(&f, "fail read all EIO", "the server was started without --faults");
    expect(&f, "clear", "the server was started without --faults");
    front_finish(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unflushed_data_is_lost),
        cmocka_unit_test(everything_may_survive),
        cmocka_unit_test(zones_lose_power),
        cmocka_unit_test(a_seed_repeats_a_cut),
        cmocka_unit_test(requests_in_flight_end),
        cmocka_unit_test(requests_fail_on_request),
        cmocka_unit_test(requests_are_delayed),
        cmocka_unit_test(the_data_file_loses_power_as_well),
        cmocka_unit_test(a_client_may_vanish),
        cmocka_unit_test(bad_faults_are_refused),
    };

    if (!getenv("ZQCOW2_TOOL")) {
        puts("1..0 # skip ZQCOW2_TOOL is not set");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
