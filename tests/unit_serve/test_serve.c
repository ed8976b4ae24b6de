/* SPDX-License-Identifier: MIT */
/* Servers: the state files that `list` and `del` read, and the geometry that `add` prints. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "serve/geometry.h"
#include "serve/state.h"

/* Of the first clients open DEVICE and the number; of the second what the state file says. */
static const struct serve_kind disk = {"disk", "disk", "/dev/disk", "list"};
static const struct serve_kind sock = {"disk-sock", "socket", NULL, "list"};

/* This process keeps its own rights. */
static const struct serve_keeper nobody = SERVE_KEEPER_INIT;

static char folder[] = "/tmp/serve-XXXXXX";

static int enter_folder(void **state)
{
    (void)state;
    return !mkdtemp(folder) || chdir(folder) || mkdir("state", 0755);
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir("state") || chdir("/") || rmdir(folder);
}

/* The file's text; "" if there is none. */
static const char *text_of(const char *path)
{
    static char text[4 * PATH_MAX];
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;

    text[n] = '\0';
    if (f)
        fclose(f);
    return text;
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* A server of this process; the descriptor. */
static int begin(struct serve_state *s, const struct serve_kind *kind, uint32_t id,
                 const char *image, const char *endpoint)
{
    int fd;

    memset(s, 0, sizeof(*s));
    s->kind = kind;
    s->id = id;
    snprintf(s->image, sizeof(s->image), "%s", image);
    snprintf(s->endpoint, sizeof(s->endpoint), "%s", endpoint);
    fd = serve_state_create(s);
    assert_true(fd >= 0);
    return fd;
}

static void assert_text(const char *path, const char *lines)
{
    char wanted[4 * PATH_MAX];

    snprintf(wanted, sizeof(wanted), "%ld\n%s", (long)getpid(), lines);
    assert_string_equal(text_of(path), wanted);
}

static void a_name_may_hold_any_byte(void **state)
{
    static const char *const names[][2] = {
        {"/plain", "/plain"},
        {"/two\nlines\n", "/two\\012lines\\012"},
        {"/\\012", "/\\134012"},
        {"/\\", "/\\134"},
        {"/tab\t\1\177\xff", "/tab\\011\\001\177\xff"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct serve_state s, r;
        char lines[64];
        int fd = begin(&s, &disk, 5, names[i][0], "");

        snprintf(lines, sizeof(lines), "%s\n", names[i][1]);
        assert_text("state/disk5", lines);
        assert_int_equal(serve_state_read(&disk, 5, &r), 0);
        assert_string_equal(r.image, names[i][0]);
        assert_string_equal(r.endpoint, "/dev/disk5");
        assert_string_equal(r.error, "");
        assert_int_equal(r.pid, getpid());
        assert_true(r.alive);
        close(fd);
        assert_int_equal(serve_state_read(&disk, 5, &r), 0);
        assert_false(r.alive);
        serve_state_remove(&s);
        assert_int_equal(serve_state_read(&disk, 5, &r), -ENOENT);
    }
}

static void the_longest_name_fits(void **state)
{
    struct serve_state s, r;
    char name[PATH_MAX];
    int fd;

    (void)state;
    memset(name, '\n', sizeof(name) - 1);
    name[0] = '/';
    name[sizeof(name) - 1] = '\0';
    fd = begin(&s, &disk, 1, name, "");
    assert_int_equal(serve_state_read(&disk, 1, &r), 0);
    assert_string_equal(r.image, name);
    serve_state_end(&s, fd, NULL, &nobody);
    close(fd);
}

static void files_of_0_1_are_read(void **state)
{
    struct serve_state r;

    (void)state;
    put("state/disk2", "77\n/back\\slash \\12 \\089\nInput/output error\n");
    assert_int_equal(serve_state_read(&disk, 2, &r), 0);
    assert_int_equal(r.pid, 77);
    assert_string_equal(r.image, "/back\\slash \\12 \\089");
    assert_string_equal(r.error, "Input/output error");
    put("state/disk2", "");
    assert_int_equal(serve_state_read(&disk, 2, &r), 0);
    assert_int_equal(r.pid, 0);
    assert_string_equal(r.image, "");
    unlink("state/disk2");
}

static void an_end_says_why_it_was_not_clean(void **state)
{
    struct serve_state s, r;
    int fd = begin(&s, &disk, 3, "/i", "");

    (void)state;
    serve_state_end(&s, fd, "No space left on device", &nobody);
    assert_text("state/disk3", "/i\nNo space left on device\n");
    close(fd);
    assert_int_equal(serve_state_read(&disk, 3, &r), 0);
    assert_string_equal(r.error, "No space left on device");
    fd = begin(&s, &disk, 3, "/j", ""); /* the next server begins anew, with a shorter file */
    assert_text("state/disk3", "/j\n");
    serve_state_end(&s, fd, NULL, &nobody);
    assert_int_equal(access("state/disk3", F_OK), -1);
    close(fd);
}

static void an_endpoint_without_a_number_is_kept(void **state)
{
    struct serve_state s, r;
    int fd = begin(&s, &sock, 0, "/i", "/run/a\nb");

    (void)state;
    assert_text("state/disk-sock0", "/i\n\n/run/a\\012b\n");
    assert_int_equal(serve_state_read(&sock, 0, &r), 0);
    assert_string_equal(r.endpoint, "/run/a\nb");
    assert_string_equal(r.error, "");
    serve_state_end(&s, fd, "gone", &nobody);
    assert_text("state/disk-sock0", "/i\ngone\n/run/a\\012b\n");
    serve_state_remove(&s);
    close(fd);
}

static void a_control_socket_elsewhere_is_kept(void **state)
{
    struct serve_state s = {.kind = &disk, .id = 4, .image = "/i", .ctl = "/c d\n"}, r;
    int fd = serve_state_create(&s);

    (void)state;
    assert_true(fd >= 0);
    assert_text("state/disk4", "/i\n\n/dev/disk4\n/c d\\012\n");
    assert_int_equal(serve_state_read(&disk, 4, &r), 0);
    assert_string_equal(r.ctl, "/c d\n");
    assert_string_equal(r.endpoint, "/dev/disk4");
    assert_string_equal(r.error, "");
    serve_state_end(&s, fd, NULL, &nobody);
    close(fd);
    fd = begin(&s, &disk, 4, "/i", "");
    assert_string_equal(s.ctl, "state/disk4.ctl");
    put(s.ctl, "");
    assert_int_equal(serve_state_read(&disk, 4, &r), 0);
    assert_string_equal(r.ctl, s.ctl);
    serve_state_remove(&r);
    assert_int_equal(access("state/disk4.ctl", F_OK), -1);
    close(fd);
}

static void the_file_of_a_living_server_is_left_alone(void **state)
{
    struct serve_state s, other;
    int fd = begin(&s, &disk, 9, "/first", "");

    (void)state;
    memset(&other, 0, sizeof(other));
    other.kind = &disk;
    other.id = 9;
    snprintf(other.image, sizeof(other.image), "/second");
    assert_int_equal(serve_state_create(&other), -EWOULDBLOCK);
    assert_text("state/disk9", "/first\n");
    serve_state_end(&s, fd, NULL, &nobody);
    close(fd);
}

static void ids_are_those_of_the_kind_in_order(void **state)
{
    static const char *const names[] = {"disk10", "disk9",  "disk0",      "disk4294967295",
                                        "disk",   "disk1x", "disk-1",     "disk4294967296",
                                        "xdisk1", "disk 2", "disk-sock7", "disk5.ctl"};
    uint32_t ids[16];

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[64];

        snprintf(path, sizeof(path), "state/%s", names[i]);
        put(path, "1\n/i\n");
    }
    assert_int_equal(serve_state_ids(&disk, ids, 16), 4);
    assert_true(ids[0] == 0 && ids[1] == 9 && ids[2] == 10 && ids[3] == UINT32_MAX);
    assert_int_equal(serve_state_ids(&disk, ids, 2), 2);
    assert_int_equal(serve_state_ids(&sock, ids, 16), 1);
    assert_int_equal(ids[0], 7);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[64];

        snprintf(path, sizeof(path), "state/%s", names[i]);
        unlink(path);
    }
    assert_int_equal(serve_state_ids(&disk, ids, 16), 0);
}

static const char *geometry(const struct zqcow2_info *info, bool read_only, uint32_t append)
{
    static char text[512];
    FILE *f = fmemopen(text, sizeof(text), "w");

    assert_non_null(f);
    serve_put_geometry(f, info, read_only, append);
    fclose(f);
    return text;
}

static void geometry_is_exact(void **state)
{
    struct zqcow2_info i = ZQCOW2_INFO_INIT;

    (void)state;
    i.virtual_size = (64u << 20) + 512;
    i.block_size = 512;
    assert_string_equal(geometry(&i, false, 0), "  67109376 B, not zoned\n");
    i.virtual_size = (uint64_t)3 << 40;
    assert_string_equal(geometry(&i, true, 0), "  3 TiB, not zoned, read-only\n");
    i.zone_size = 8u << 20;
    i.zone_capacity = (6u << 20) + 4096;
    i.nr_zones = 393216;
    i.nr_conventional = 2;
    i.max_open_zones = 4;
    assert_string_equal(geometry(&i, false, 512u << 10),
                        "  3 TiB, host-managed: 393216 zones of 8 MiB, capacity 6148 KiB, "
                        "2 conventional\n"
                        "  max open 4, max active 0 (0: no limit), largest append 512 KiB\n");
    assert_string_equal(geometry(&i, true, 512),
                        "  3 TiB, host-managed, read-only: 393216 zones of 8 MiB, capacity "
                        "6148 KiB, 2 conventional\n"
                        "  max open 4, max active 0 (0: no limit), largest append 512 B\n");
    i.block_size = 4096;
    assert_string_equal(geometry(&i, true, 512u << 10),
                        "  3 TiB, host-managed, read-only, blocks of 4 KiB: 393216 zones of 8 MiB, "
                        "capacity 6148 KiB, 2 conventional\n"
                        "  max open 4, max active 0 (0: no limit), largest append 512 KiB\n");
    i.zone_size = 0;
    assert_string_equal(geometry(&i, false, 0), "  3 TiB, not zoned, blocks of 4 KiB\n");
}

static void the_largest_append_is_whole_blocks(void **state)
{
    struct zqcow2_info i = ZQCOW2_INFO_INIT;

    (void)state;
    i.block_size = 512;
    i.max_append_bytes = 1u << 20;
    assert_int_equal(serve_largest_append(&i, 512u << 10), 512u << 10);
    i.max_append_bytes = 4095;
    assert_int_equal(serve_largest_append(&i, 512u << 10), 3584);
    i.block_size = 4096;
    i.max_append_bytes = 5 * 4096 - 512;
    assert_int_equal(serve_largest_append(&i, 512u << 10), 4 * 4096);
    i.max_append_bytes = 1u << 20;
    assert_int_equal(serve_largest_append(&i, 512u << 10), 512u << 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_may_hold_any_byte),
        cmocka_unit_test(the_longest_name_fits),
        cmocka_unit_test(files_of_0_1_are_read),
        cmocka_unit_test(an_end_says_why_it_was_not_clean),
        cmocka_unit_test(an_endpoint_without_a_number_is_kept),
        cmocka_unit_test(a_control_socket_elsewhere_is_kept),
        cmocka_unit_test(the_file_of_a_living_server_is_left_alone),
        cmocka_unit_test(ids_are_those_of_the_kind_in_order),
        cmocka_unit_test(geometry_is_exact),
        cmocka_unit_test(the_largest_append_is_whole_blocks),
    };

    return cmocka_run_group_tests_name("serve", tests, enter_folder, remove_folder);
}
