/* SPDX-License-Identifier: MIT */
/*
 * The control socket of a server: what it says and changes while a guest uses the disk, and clients
 * that lie. ZQCOW2_TOOL names the command.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "control.h"

/* ---- statistics ---- */

static void requests_are_counted(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_zoned, "", ALL);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(front_do(&f, i % 2, OUT, 2048 + 8 * i, 4096, 0), OK);
    assert_int_equal(front_do(&f, 0, OUT, 2048, 4096, 0), UNALIGNED);
    assert_int_equal(front_do(&f, 0, FINISH, 4096, 0, 0), OK);
    assert_int_equal(ctl(&f, "stats --json"), 0);
    assert_non_null(strstr(text, "\"operation\": \"write\""));
    assert_int_equal(number("\"requests\""), 4);
    assert_int_equal(number("\"errors\""), 1);
    assert_int_equal(number("\"bytes\""), 3 * 4096);
    assert_int_equal(number("\"nanoseconds\""), 0);
    assert_int_equal(number("\"FULL\""), 1);
    assert_int_equal(number("\"IMP_OPEN\""), 1);
    assert_int_equal(number("\"EMPTY\""), 5);
    assert_null(strstr(text, "\"read\""));
    assert_int_equal(ctl(&f, "stats"), 0);
    assert_int_equal(number("write "), 4);
    assert_non_null(strstr(text, "12 KiB"));
    assert_int_equal(number("zone-finish "), 1);
    assert_non_null(strstr(text, "\nzones: 1 NOT_WP, 5 EMPTY, 1 IMP_OPEN, 1 FULL\n"));
    front_finish(&f);
}

static void time_is_measured_when_wanted(void **state)
{
    uint64_t first;
    struct front f;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    assert_int_equal(front_do(&f, 0, OUT, 0, 512, 0), OK);
    assert_int_equal(ctl(&f, "stats --json"), 0);
    assert_int_equal(number("\"nanoseconds\""), 0);
    expect(&f, "stats --time on", "");
    assert_int_equal(front_do(&f, 0, OUT, 0, 512, 0), OK);
    assert_int_equal(ctl(&f, "stats --json"), 0);
    first = number("\"nanoseconds\"");
    assert_true(first > 0);
    expect(&f, "stats --time=off", "");
    assert_int_equal(front_do(&f, 0, OUT, 0, 512, 0), OK);
    assert_int_equal(ctl(&f, "stats --json"), 0);
    assert_int_equal(number("\"nanoseconds\""), first);
    assert_int_equal(number("\"requests\""), 3);
    front_finish(&f);
}

/* The watch ends with the server, and says why. */
static void rates_end_with_the_server(void **state)
{
    char command[512], line[256];
    struct front f;
    FILE *p;
    bool writes = false;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    snprintf(command, sizeof(command), "%s serve ctl %s stats --watch=1 2>&1",
             getenv("ZQCOW2_TOOL"), f.ctl);
    p = popen(command, "r");
    assert_non_null(p);
    while (!writes) { /* one table or several later */
        assert_int_equal(front_do(&f, 0, OUT, 0, 512, 0), OK);
        assert_non_null(fgets(line, sizeof(line), p));
        writes = !strncmp(line, "write ", 6);
        if (!writes)
            assert_non_null(strstr(line, "REQUESTS/S"));
    }
    front_finish(&f);
    while (fgets(line, sizeof(line), p)) /* it may have ended between a command and its answer */
        writes = !strncmp(line, "zqcow2: ", 8) && strstr(line, f.ctl);
    assert_true(writes);
    assert_int_equal(WEXITSTATUS(pclose(p)), 1);
}

/* ---- commands ---- */

static void events_are_listed(void **state)
{
    char line[32];
    struct front f;

    (void)state;
    front_begin(&f, front_zoned, "", ALL);
    expect(&f, "events", "");
    assert_int_equal(front_do(&f, 0, FINISH, 2048, 0, 0), OK);
    for (unsigned i = 2; i < 4; i++)
        assert_int_equal(front_do(&f, 1, OPEN, i * 2048, 0, 0), OK);
    assert_int_equal(front_do(&f, 0, OUT, 4 * 2048, 4096, 0), OPEN_LIMIT);
    expect(&f, "zone 5M offline", "");
    expect(&f, "flush", "");
    assert_int_equal(ctl(&f, "events"), 0);
    assert_memory_equal(text, "1 20", 4);
    assert_non_null(strstr(text, "Z the zone at 1048576 is FULL now\n2 "));
    assert_non_null(strstr(text, "Z a request for the zone at 4194304: "));
    assert_non_null(strstr(text, "Z the zone at 5242880 is OFFLINE now\n"));
    for (unsigned i = 0; i < 70; i++) /* more than are kept */
        assert_int_equal(front_do(&f, 0, OUT, 4 * 2048, 4096, 0), OPEN_LIMIT);
    expect(&f, "flush", "");
    assert_int_equal(ctl(&f, "events"), 0);
    snprintf(line, sizeof(line), "%u 20", 3 + 70 - 63);
    assert_memory_equal(text, line, strlen(line));
    assert_non_null(strstr(text, "\n73 20"));
    assert_null(strstr(text, "\n74 20"));
    front_finish(&f);
}

static void a_flush_makes_durable(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    memset(front_data(&f), 0x77, 4096);
    assert_int_equal(front_do(&f, 0, OUT, 64, 4096, 0), OK);
    expect(&f, "flush", "");
    assert_int_equal(ctl(&f, "stats --json"), 0);
    assert_true(number("\"flushes\"") > 0);
    assert_int_equal(front_stop(&f, SIGKILL), -SIGKILL);
    front_disconnect(&f);
    memset(f.memory, 0, 0x20000);
    front_start(&f, ""); /* which replaces the control socket that was left */
    front_connect(&f);
    front_negotiate(&f, ALL);
    front_start_ring(&f, 0, 0);
    assert_int_equal(front_do(&f, 0, IN, 64, 0, 4096), OK);
    assert_true(front_all_are(front_data(&f), 0x77, 4096));
    expect(&f, "flush", "");
    front_finish(&f);
}

static void zones_change_under_the_guest(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_zoned, "", ALL);
    assert_int_equal(front_do(&f, 0, OUT, 2048, 512, 0), OK);
    expect(&f, "zone 1M read-only", "");
    front_expect_zone(&f, 2048, UINT64_MAX, 13);
    assert_int_equal(front_do(&f, 0, OUT, 2049, 512, 0), INVALID);
    assert_int_equal(front_do(&f, 0, IN, 2048, 0, 512), OK);
    expect(&f, "zone 1M normal", "");
    front_expect_zone(&f, 2048, 2049, 4);
    assert_int_equal(front_do(&f, 0, OUT, 2049, 512, 0), OK);
    expect(&f, "zone 2097152 offline --persist", "");
    front_expect_zone(&f, 4096, UINT64_MAX, 15);
    expect(&f, "zone 1000 offline",
           "state of the zone at 1000: not allowed in the zone's state (the zone at 0 is "
           "conventional)");
    expect(&f, "zone 8M offline", "state of the zone at 8388608: Invalid argument");
    front_disconnect(&f);
    assert_int_equal(front_stop(&f, SIGTERM), 0);
    memset(f.memory, 0, 0x20000);
    front_start(&f, "");
    front_connect(&f);
    front_negotiate(&f, ALL);
    front_start_ring(&f, 0, 0);
    front_expect_zone(&f, 4096, UINT64_MAX, 15);
    front_expect_zone(&f, 2048, 2050, 4);
    front_finish(&f);
}

/* Is sector 0 of that snapshot full of this byte? */
static bool snapshot_has(const struct front *f, const char *name, unsigned byte)
{
    char command[512];

    snprintf(command, sizeof(command),
             "%s io --snapshot='%s' --cmd='read -q -P %u 0 4096' %s >/dev/null",
             getenv("ZQCOW2_TOOL"), name, byte, f->image);
    return system(command) == 0;
}

/* While requests are on their way: the disk waits, and then goes on. */
static void snapshot_in_flight(struct front *f, unsigned round)
{
    char words[64];

    for (unsigned i = 0; i < 8; i++) {
        uint32_t at = DATA_AT + 0x100 * i;
        struct part p[] = {{at, 16, false}, {DATA_AT + 0x1000, 4096, false}, {at + 64, 1, true}};

        front_put(f->memory + at, OUT, 8);
        front_put(f->memory + at + 8, 256 * (round + 1) + 8 * i, 8);
        f->memory[at + 64] = 0xee;
        front_post(f, i % RINGS, (uint16_t)(i / RINGS * 3), p, 3, false);
    }
    snprintf(words, sizeof(words), "snapshot -c 's %u'", round);
    expect(f, words, "");
    for (unsigned i = 0; i < 8; i++)
        assert_true(front_used(f, i % RINGS, NULL, LONG_MS) >= 0);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(f->memory[DATA_AT + 0x100 * i + 64], OK);
}

static void snapshots_are_taken_under_the_guest(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    assert_int_equal(ctl(&f, "snapshot"), 0);
    assert_string_equal(text, "");
    for (unsigned i = 0; i < 10; i++) {
        memset(front_data(&f), (int)i + 1, 4096);
        assert_int_equal(front_do(&f, 0, OUT, 0, 4096, 0), OK);
        snapshot_in_flight(&f, i);
    }
    expect(&f, "snapshot -c 's 1'", "snapshot \"s 1\": a snapshot has this name or id already");
    expect(&f, "snapshot -d 's 3'", "");
    assert_int_equal(ctl(&f, "snapshot -d 's 3'"), 1);
    assert_non_null(strstr(text, ": snapshot \"s 3\": "));
    assert_int_equal(ctl(&f, "snapshot -c ''"), 1);
    assert_int_equal(ctl(&f, "snapshot -a 's 1'"), 1);
    assert_non_null(strstr(text, "cannot be applied while the image is served"));
    assert_int_equal(ctl(&f, "snapshot -l"), 0);
    assert_non_null(strstr(text, "Snapshot list:\n"));
    assert_int_equal(ctl(&f, "snapshot --json"), 0);
    assert_non_null(strstr(text, "\"name\": \"s 9\""));
    assert_null(strstr(text, "\"name\": \"s 3\""));
    assert_int_equal(front_do(&f, 1, OUT, 8, 512, 0), OK);
    front_disconnect(&f);
    assert_int_equal(front_stop(&f, SIGTERM), 0);
    assert_true(snapshot_has(&f, "s 0", 1) && snapshot_has(&f, "s 9", 10));
    assert_false(snapshot_has(&f, "s 9", 1) || snapshot_has(&f, "s 3", 4));
    front_remove(&f);
}

static void zones_go_on_behind_a_snapshot(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_zoned, "", ALL);
    assert_int_equal(front_do(&f, 0, OUT, 2048, 512, 0), OK);
    expect(&f, "snapshot -c z", "");
    front_expect_zone(&f, 2048, 2049, 2);
    assert_int_equal(front_do(&f, 1, OUT, 2049, 512, 0), OK);
    assert_int_equal(front_do(&f, 0, RESET, 2048, 0, 0), OK);
    expect(&f, "snapshot -d z", "");
    assert_int_equal(front_do(&f, 0, OUT, 2048, 512, 0), OK);
    front_finish(&f);
}

static void bitmaps_mark_what_the_guest_writes(void **state)
{
    struct front f;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    expect(&f, "bitmap --add -g 4K 'm 1'", "");
    assert_int_equal(ctl(&f, "bitmap --add 'm 1'"), 1);
    assert_non_null(strstr(text, ": bitmap \"m 1\": "));
    assert_int_equal(ctl(&f, "bitmap --add -g 5 n"), 1);
    assert_int_equal(front_do(&f, 0, OUT, 24, 4096, 0), OK);
    assert_int_equal(ctl(&f, "bitmap --list --json 'm 1'"), 0);
    assert_int_equal(number("\"start\""), 12288);
    assert_int_equal(number("\"length\""), 4096);
    expect(&f, "bitmap --disable 'm 1'", "");
    assert_int_equal(front_do(&f, 0, OUT, 80, 4096, 0), OK);
    assert_int_equal(ctl(&f, "bitmap 'm 1'"), 0);
    assert_non_null(strstr(text, "0x3000             0x1000\n"));
    assert_null(strstr(text, "0xa000"));
    expect(&f, "bitmap --clear 'm 1'", "");
    expect(&f, "bitmap --enable 'm 1'", "");
    assert_int_equal(front_do(&f, 0, OUT, 80, 4096, 0), OK);
    assert_int_equal(ctl(&f, "bitmap --list 'm 1'"), 0);
    assert_non_null(strstr(text, "0xa000             0x1000\n"));
    assert_null(strstr(text, "0x3000"));
    assert_int_equal(ctl(&f, "bitmap --json"), 0);
    assert_int_equal(number("\"granularity\""), 4096);
    expect(&f, "bitmap --remove 'm 1'", "");
    assert_int_equal(ctl(&f, "bitmap"), 0);
    assert_string_equal(text, "");
    front_finish(&f);
}

/* ---- clients that lie ---- */

static void garbage_is_refused(void **state)
{
    static const char unknown[] = "-the server does not know this command\n";
    static const char *const lines[] = {
        "\n",
        "   \n",
        "explode\n",
        "stats now\n",
        "time\n",
        "time perhaps\n",
        "zone 0\n",
        "zone 0 broken\n",
        "zone -1 offline\n",
        "zone 0 offline forever\n",
        "flush 1 2 3 4 5 6 7 8 9\n",
        "stats\\000x y\n",
        "\\163tats \\000\n",
        "\xff\xfe\x80\n",
        "snapshot take\n",
        "snapshot apply a\n",
        "snapshot list xml\n",
        "bitmap list xml a\n",
        "bitmap add a 4K\n",
        "bitmap clear a 1\n",
        "bitmap spoil a\n",
    };
    struct front f;
    char *long_line;

    (void)state;
    front_begin(&f, front_zoned, "", ALL);
    for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        if (strcmp(raw(&f, lines[i], strlen(lines[i])), unknown) != 0)
            fail_msg("line %u: %s", i, text);
    assert_string_equal(raw(&f, "flush\0\n", 7), unknown);
    assert_string_equal(raw(&f, "flush\n\nexplode\n", 15), "+.\n");
    assert_string_equal(raw(&f, "\\146lush\n", 9), "+.\n");
    long_line = malloc(1 << 20);
    assert_non_null(long_line);
    memset(long_line, 'x', 1 << 20);
    assert_string_equal(raw(&f, long_line, 1 << 20), ""); /* no end of the line in sight */
    long_line[8191] = '\n';
    assert_string_equal(raw(&f, long_line, 8192), unknown);
    free(long_line);
    assert_int_equal(front_do(&f, 0, OUT, 2048, 512, 0), OK);
    front_finish(&f);
}

/* Those that say nothing keep out neither other clients nor the guest, and are cut off in the end.
 */
static void silent_clients_keep_nobody_out(void **state)
{
    struct pollfd first = {.events = POLLIN}, last = {.events = POLLIN};
    struct front f;
    int fd[100];
    char c;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    for (unsigned i = 0; i < 100; i++) {
        fd[i] = dial(&f);
        if (i % 2) /* never a whole line */
            assert_int_equal(send(fd[i], "flus", 4, MSG_NOSIGNAL), 4);
    }
    expect(&f, "flush", "");
    assert_int_equal(front_do(&f, 0, OUT, 0, 512, 0), OK);
    first.fd = fd[0];
    last.fd = fd[99];
    assert_int_equal(poll(&first, 1, LONG_MS), 1); /* made room */
    assert_int_equal(poll(&last, 1, LONG_MS), 1);  /* its time is over */
    assert_true(recv(last.fd, &c, 1, 0) <= 0);
    for (unsigned i = 0; i < 100; i++)
        close(fd[i]);
    expect(&f, "flush", "");
    front_finish(&f);
}

/* Those that leave, and those that never read what they asked for. */
static void a_client_may_not_read(void **state)
{
    struct front f;
    int fd[40];

    (void)state;
    front_begin(&f, front_zoned, "", ALL);
    for (unsigned i = 0; i < 40; i++) {
        int small = 1;

        fd[i] = dial(&f);
        setsockopt(fd[i], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
        assert_int_equal(send(fd[i], "stats\n", 6, MSG_NOSIGNAL), 6);
        if (i % 4 == 0)
            shutdown(fd[i], SHUT_RD);
        if (i % 4 == 1)
            shutdown(fd[i], SHUT_RDWR);
    }
    expect(&f, "flush", "");
    assert_int_equal(front_do(&f, 0, OUT, 2048, 512, 0), OK);
    for (unsigned i = 0; i < 40; i++)
        close(fd[i]);
    for (unsigned i = 0; i < 200; i++)
        close(dial(&f));
    expect(&f, "flush", "");
    front_finish(&f);
}

static void the_socket_is_the_owners(void **state)
{
    struct front f;
    struct stat st;

    (void)state;
    front_begin(&f, front_plain, "", ALL);
    assert_int_equal(stat(f.ctl, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_uid, geteuid());
    front_disconnect(&f);
    assert_int_equal(front_stop(&f, SIGTERM), 0);
    assert_int_equal(stat(f.ctl, &st), -1);
    assert_int_equal(errno, ENOENT);
    front_remove(&f);
}

/* Permissions that were opened afterwards do not help: the server looks at who calls. */
static void another_user_is_not_heard(void **state)
{
    struct front f;

    (void)state;
    if (geteuid()) {
        print_message("another_user_is_not_heard: only root can become another user\n");
        skip();
    }
    front_begin(&f, front_plain, "", ALL);
    assert_int_equal(chmod(f.dir, 0755) | chmod(f.ctl, 0666), 0);
    expect(&f, "flush", "");
    assert_int_equal(seteuid(65534), 0);
    raw(&f, "flush\n", 6);
    assert_int_equal(seteuid(0), 0);
    assert_string_equal(text, "");
    expect(&f, "flush", "");
    front_finish(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_counted),
        cmocka_unit_test(time_is_measured_when_wanted),
        cmocka_unit_test(rates_end_with_the_server),
        cmocka_unit_test(events_are_listed),
        cmocka_unit_test(a_flush_makes_durable),
        cmocka_unit_test(zones_change_under_the_guest),
        cmocka_unit_test(snapshots_are_taken_under_the_guest),
        cmocka_unit_test(zones_go_on_behind_a_snapshot),
        cmocka_unit_test(bitmaps_mark_what_the_guest_writes),
        cmocka_unit_test(garbage_is_refused),
        cmocka_unit_test(silent_clients_keep_nobody_out),
        cmocka_unit_test(a_client_may_not_read),
        cmocka_unit_test(the_socket_is_the_owners),
        cmocka_unit_test(another_user_is_not_heard),
    };

    if (!getenv("ZQCOW2_TOOL")) {
        puts("1..0 # skip ZQCOW2_TOOL is not set");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
