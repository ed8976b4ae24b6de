/* SPDX-License-Identifier: MIT */
/*
 * A disk gets another size, and its full zones are compressed, while a guest uses it. ZQCOW2_TOOL
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
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "control.h"

enum { SET_BACKEND = 21, GET_CONFIG = 24, CONFIG_CHANGE = 2 };

#define MIB 2048u /* in sectors */

/* The end that the front-end reads. */
static int connect_backend(struct front *f)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    assert_int_equal(front_acked(f, SET_BACKEND, NULL, 0, &pair[1], 1), 0);
    close(pair[1]);
    return pair[0];
}

/* One message comes, and no other. */
static void expect_change(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint8_t head[12];

    assert_int_equal(poll(&p, 1, LONG_MS), 1);
    assert_int_equal(recv(fd, head, sizeof(head), MSG_WAITALL), sizeof(head));
    assert_int_equal(front_get(head, 4), CONFIG_CHANGE);
    assert_int_equal(front_get(head + 4, 4), 1);
    assert_int_equal(front_get(head + 8, 4), 0);
    assert_int_equal(poll(&p, 1, 0), 0);
}

/* In sectors. */
static uint64_t capacity(struct front *f)
{
    uint8_t config[12 + 60] = {0};

    front_put(config + 4, 60, 4);
    front_send(f, GET_CONFIG, 0, config, sizeof(config), NULL, 0);
    assert_int_equal(front_receive(f, config, sizeof(config), NULL), sizeof(config));
    return front_get(config + 12, 8);
}

/* ---- size ---- */

static void a_disk_grows_and_shrinks(void **state)
{
    struct front f;
    int fd;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    expect(&f, "resize 9M", ""); /* nobody listens */
    assert_int_equal(capacity(&f), 9 * MIB);
    fd = connect_backend(&f);
    front_write(&f, 0, 0x11, 4096);
    assert_int_equal(front_do(&f, 0, OUT, 9 * MIB, 4096, 0), IOERR);
    expect(&f, "resize +3M", "");
    expect_change(fd);
    assert_int_equal(capacity(&f), 12 * MIB);
    assert_true(front_reads(&f, 1, 9 * MIB, 0, 4096));
    front_write(&f, 12 * MIB - 8, 0x22, 4096);
    expect(&f, "resize 10M",
           "the device would lose 2097152 bytes: give --shrink if they are not needed");
    expect(&f, "resize --shrink -2M", "");
    expect_change(fd);
    assert_int_equal(capacity(&f), 10 * MIB);
    assert_int_equal(front_do(&f, 0, IN, 12 * MIB - 8, 0, 4096), IOERR);
    assert_true(front_reads(&f, 1, 0, 0x11, 4096));
    expect(&f, "resize --shrink -10M",
           "the device has 10485760 bytes; '-10485760' cannot be applied to it");
    expect(&f, "resize 10M", "");
    expect_change(fd); /* the space is the same: a front-end may ask again in vain */
    close(fd);
    expect(&f, "resize 11M", ""); /* it has gone away */
    assert_int_equal(capacity(&f), 11 * MIB);
    front_finish(&f);
}

static void zones_are_added_and_cut_off(void **state)
{
    struct front f;
    int fd;

    (void)state;
    front_begin(&f, front_zoned, "", ALL);
    fd = connect_backend(&f);
    front_write(&f, 7 * MIB, 0x33, 4096);
    assert_int_equal(front_do(&f, 0, REPORT, 8 * MIB, 0, 128), INVALID);
    assert_int_equal(ctl(&f, "resize 8500K"), 1); /* not a whole zone */
    expect(&f, "resize 10M", "");
    expect_change(fd);
    assert_int_equal(capacity(&f), 10 * MIB);
    front_expect_zone(&f, 8 * MIB, 8 * MIB, 1);
    front_write(&f, 9 * MIB, 0x44, 4096);
    assert_int_equal(ctl(&f, "resize --shrink 9M"), 1); /* that zone is not empty */
    assert_int_equal(capacity(&f), 10 * MIB);
    expect(&f, "resize --discard-data 9M", "");
    expect_change(fd);
    assert_int_equal(front_do(&f, 0, OUT, 9 * MIB, 4096, 0), IOERR);
    front_expect_zone(&f, 7 * MIB, 7 * MIB + 8, 2);
    assert_int_equal(front_do(&f, 0, RESET_ALL, 0, 0, 0), OK);
    close(fd);
    front_finish(&f);
}

/* Those that are on their way have the old size or the new one, and all end. */
static void requests_go_on_meanwhile(void **state)
{
    struct front f;
    int fd;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    fd = connect_backend(&f);
    for (unsigned round = 0; round < 6; round++) {
        for (unsigned i = 0; i < 8; i++) {
            uint32_t at = DATA_AT + 0x100 * i;
            struct part p[] = {
                {at, 16, false}, {DATA_AT + 0x1000, 4096, false}, {at + 64, 1, true}};

            front_put(f.memory + at, OUT, 8);
            front_put(f.memory + at + 8, (8 + round) * MIB - 8 * (i + 1), 8);
            f.memory[at + 64] = 0xee;
            front_post(&f, i % RINGS, (uint16_t)(i / RINGS * 3), p, 3, false);
        }
        expect(&f, "resize +1M", "");
        expect_change(fd);
        for (unsigned i = 0; i < 8; i++)
            assert_true(front_used(&f, i % RINGS, NULL, LONG_MS) >= 0);
        for (unsigned i = 0; i < 8; i++)
            assert_int_equal(f.memory[DATA_AT + 0x100 * i + 64], OK);
    }
    assert_int_equal(capacity(&f), 14 * MIB);
    close(fd);
    front_finish(&f);
}

static void bad_changes_are_refused(void **state)
{
    static const char *const lines[] = {"resize\n",       "resize x\n",
                                        "resize 1 2 3\n", "resize 16777216 x\n",
                                        "resize -\n",     "resize ++1\n",
                                        "compact x\n",    "compact 23\n",
                                        "compact 1 2\n",  "resize +18446744073709551615\n"};
    struct front f;

    (void)state;
    front_begin(&f, front_plain, "--read-only", ALL);
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        if (raw(&f, lines[i], strlen(lines[i]))[0] != '-')
            fail_msg("%s: %s", lines[i], text);
    }
    assert_int_equal(ctl(&f, "resize 16M"), 1);
    assert_int_equal(ctl(&f, "compact"), 1);
    assert_int_equal(capacity(&f), 8 * MIB);
    front_finish(&f);
}

/* ---- compression ---- */

static void fill_zone(struct front *f, uint64_t sector)
{
    for (unsigned i = 0; i < 3; i++)
        front_write(f, sector + i * 512, (uint8_t)(i + 1), 256 * 1024);
}

static void full_zones_are_compressed(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_zoned, "", ALL);
    fill_zone(&f, MIB);
    front_write(&f, 2 * MIB, 0x55, 65536);
    assert_int_equal(ctl(&f, "compact"), 0);
    assert_memory_equal(text, "12 of 12 clusters compressed: 768 KiB became ", 45);
    assert_non_null(strstr(text, " saved\n"));
    for (unsigned i = 0; i < 3; i++)
        assert_true(front_reads(&f, 1, MIB + i * 512, (uint8_t)(i + 1), 256 * 1024));
    assert_int_equal(ctl(&f, "compact --level 1"), 0);
    assert_memory_equal(text, "0 of 0 clusters compressed: ", 28);
    front_finish(&f);
}

/* A server that is to end does not compress all that is left. */
static void the_end_of_the_server_ends_it(void **state)
{
    char path[96], line[256];
    unsigned hit = 0;
    struct front f;
    FILE *log;
    int fd;

    (void)state;
    front_create(&f, front_zoned, "8M");
    snprintf(line, sizeof(line), "--faults=log=%s/faults", f.dir);
    front_start(&f, line);
    front_connect(&f);
    front_negotiate(&f, ALL);
    for (unsigned i = 0; i < RINGS; i++)
        front_start_ring(&f, i, 0);
    fill_zone(&f, MIB);
    assert_int_equal(front_do(&f, 0, FLUSH, 0, 0, 0), OK);
    expect(&f, "delay read 700", "");
    fd = dial(&f);
    assert_int_equal(send(fd, "compact\n", 8, MSG_NOSIGNAL), 8);
    snprintf(path, sizeof(path), "%s/faults", f.dir);
    for (unsigned ms = 0; !hit && ms < LONG_MS; ms += 20) { /* it has begun */
        poll(NULL, 0, 20);
        log = fopen(path, "r");
        while (fgets(line, sizeof(line), log))
            hit += !!strstr(line, "image: rule 1: read");
        fclose(log);
    }
    assert_true(hit);
    front_disconnect(&f);
    assert_int_equal(front_stop(&f, SIGTERM), 0);
    close(fd);
    log = fopen(path, "r");
    for (hit = 0; fgets(line, sizeof(line), log);)
        hit += !!strstr(line, "image: rule 1: read, 65536 bytes");
    fclose(log);
    assert_in_range(hit, 1, 11);
    front_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_grows_and_shrinks),
        cmocka_unit_test(zones_are_added_and_cut_off),
        cmocka_unit_test(requests_go_on_meanwhile),
        cmocka_unit_test(bad_changes_are_refused),
        cmocka_unit_test(full_zones_are_compressed),
        cmocka_unit_test(the_end_of_the_server_ends_it),
    };

    if (!getenv("ZQCOW2_TOOL")) {
        puts("1..0 # skip ZQCOW2_TOOL is not set");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
