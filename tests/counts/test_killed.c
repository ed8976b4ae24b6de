/* SPDX-License-Identifier: MIT */
/*
 * Space on the host after a process was killed: the next writable open, and check's repair of
 * leaks, give back what no zone and no table uses. What is used stays as it was.
 */
#include <setjmp.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "device/backend.h"

#define MiB(n) ((uint64_t)(n) << 20)
#define ZONE   MiB(32)
#define SLACK  MiB(1) /* tables, and what the host rounds up */

static char path[] = "zq-killed-XXXXXX";
static uint8_t buf[MiB(1)];

static struct stat status_of_file(void)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st;
}

static uint64_t disk_usage(void)
{
    return (uint64_t)status_of_file().st_blocks * 512;
}

static struct zqcow2_backend *open_backend(void)
{
    struct zqcow2_backend *be;
    int rc = zqcow2_file_open(path, ZQCOW2_FILE_RDWR, NULL, &be);

    assert_int_equal(rc, 0);
    return be;
}

/* Zone 0 is conventional. */
static void create(void)
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be = open_backend();

    c.virtual_size = 8 * ZONE;
    c.zone_size = ZONE;
    c.conventional_zones = 1;
    c.flags = ZQCOW2_CREATE_FORCE;
    assert_int_equal(zqcow2_create(be, &c, NULL), 0);
    zqcow2_backend_close(be);
}

static struct zqcow2_image *open_image(struct zqcow2_backend *be)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_image *img = NULL;

    o.flags = ZQCOW2_OPEN_RDWR;
    if (zqcow2_open(be, &o, &img, &err) < 0)
        fail_msg("open: %s", err.text);
    return img;
}

/* ---- what the process does until it is killed; 0: all went well ---- */

static int fill(struct zqcow2_image *img, uint64_t at, uint64_t bytes, int byte)
{
    int rc = 0;

    memset(buf, byte, sizeof(buf));
    for (uint64_t end = at + bytes; at < end && rc == 0; at += MiB(1))
        rc = zqcow2_write(img, buf, MiB(1), at, 0);
    return rc;
}

static int unflushed(struct zqcow2_image *img)
{
    return fill(img, ZONE, MiB(16), 1);
}

static int behind_a_flush(struct zqcow2_image *img)
{
    int rc = fill(img, ZONE, MiB(1), 1);

    rc = rc ? rc : zqcow2_flush(img);
    rc = rc ? rc : fill(img, 2 * ZONE, MiB(16), 2);
    return rc ? rc : fill(img, ZONE + MiB(1), MiB(8), 2);
}

static int reset(struct zqcow2_image *img)
{
    int rc = fill(img, ZONE, MiB(16), 1);

    rc = rc ? rc : zqcow2_flush(img);
    rc = rc ? rc : zqcow2_zone_reset(img, ZONE, ZONE, 0);
    return rc ? rc : zqcow2_flush(img);
}

static int written_again(struct zqcow2_image *img)
{
    int rc = reset(img);

    rc = rc ? rc : fill(img, ZONE, MiB(1), 1);
    return rc ? rc : zqcow2_flush(img);
}

/* The freed clusters lie before others that are used. */
static int freed(struct zqcow2_image *img)
{
    int rc = fill(img, 0, MiB(16), 2);

    rc = rc ? rc : zqcow2_flush(img);
    rc = rc ? rc : fill(img, ZONE, MiB(1), 1);
    rc = rc ? rc : zqcow2_flush(img);
    rc = rc ? rc : zqcow2_discard(img, MiB(16), 0, 0);
    return rc ? rc : zqcow2_flush(img);
}

static const struct {
    const char *name;
    int (*act)(struct zqcow2_image *img);
    uint64_t live, wasted; /* at least so much is on the disk for nothing */
} acts[] = {
    {"unflushed", unflushed, 0, MiB(16)}, {"behind a flush", behind_a_flush, MiB(1), MiB(24)},
    {"reset", reset, 0, MiB(16)},         {"written again", written_again, MiB(1), MiB(14)},
    {"freed", freed, MiB(1), MiB(16)},
};
#define ACTS (sizeof(acts) / sizeof(acts[0]))

/* It punches no holes, so what a kill may leave is there each time. */
static void run_and_die(size_t i)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        struct zqcow2_backend *be = open_backend();

        be->ops.discard = NULL;
        _exit(acts[i].act(open_image(be)) == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail_msg("%s: the process failed", acts[i].name);
}

/* ---- what gives the space back ---- */

static struct zqcow2_check_result check(uint32_t flags)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be = open_backend();

    o.flags = flags;
    assert_int_equal(zqcow2_check(be, &o, &res, NULL), 0);
    zqcow2_backend_close(be);
    return res;
}

static void repair_leaks(void)
{
    check(ZQCOW2_CHECK_REPAIR_LEAKS);
}

static void open_writable(void)
{
    assert_int_equal(zqcow2_close(open_image(open_backend())), 0);
}

static const struct {
    const char *name;
    void (*run)(void);
} remedies[] = {{"repair", repair_leaks}, {"open", open_writable}};

static void data_is_there(uint64_t live)
{
    static const uint8_t zeros[MiB(1)];
    struct zqcow2_image *img = open_image(open_backend());

    for (uint64_t at = 0; at < MiB(16); at += MiB(1)) {
        assert_int_equal(zqcow2_read(img, buf, MiB(1), ZONE + at), 0);
        if (at >= live)
            assert_memory_equal(buf, zeros, sizeof(buf));
        for (size_t k = 0; at < live && k < sizeof(buf); k++)
            assert_int_equal(buf[k], 1);
    }
    assert_int_equal(zqcow2_read(img, buf, MiB(1), 2 * ZONE), 0);
    assert_memory_equal(buf, zeros, sizeof(buf));
    assert_int_equal(zqcow2_close(img), 0);
}

static void space_comes_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * ACTS; i++) {
        const char *name = acts[i / 2].name, *remedy = remedies[i % 2].name;
        struct zqcow2_check_result res;
        uint64_t wasted, left;

        create();
        run_and_die(i / 2);
        wasted = disk_usage();
        remedies[i % 2].run();
        left = disk_usage();
        printf("%s, %s: %llu KiB on the disk, then %llu\n", name, remedy,
               (unsigned long long)wasted / 1024, (unsigned long long)left / 1024);
        if (wasted < acts[i / 2].live + acts[i / 2].wasted)
            fail_msg("%s: nothing was wasted", name);
        if (left < acts[i / 2].live || left > acts[i / 2].live + SLACK)
            fail_msg("%s, %s: the space is not as it should be", name, remedy);
        res = check(0);
        if (res.corruptions || res.leaked_clusters)
            fail_msg("%s, %s: the image is not sound", name, remedy);
        if ((uint64_t)status_of_file().st_size > res.image_end_offset)
            fail_msg("%s, %s: the file is longer than the image", name, remedy);
        data_is_there(acts[i / 2].live);
    }
}

/* Somebody else's clusters may be anywhere: nothing is cut and nothing punched (R12). */
static void unknown_extension_keeps_all(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        uint8_t h[512];
        struct zqcow2_backend *be;
        struct stat before, after;
        size_t at;

        create();
        run_and_die(1);
        be = open_backend();
        assert_int_equal(zqcow2_backend_read(be, h, sizeof(h), 0), 0);
        at = (size_t)h[102] << 8 | h[103]; /* header_length */
        /* The table of feature names makes room: its type becomes one that nobody knows. */
        while (at + 8 <= sizeof(h) && memcmp(h + at, "\x68\x03\xf8\x57", 4) != 0)
            at += 8 + (((size_t)h[at + 6] << 8 | h[at + 7]) + 7) / 8 * 8;
        assert_true(at + 8 <= sizeof(h));
        h[at + 3] ^= 1;
        assert_int_equal(zqcow2_backend_write(be, h, sizeof(h), 0), 0);
        zqcow2_backend_close(be);
        before = status_of_file();
        remedies[i].run();
        after = status_of_file();
        assert_true(after.st_size >= before.st_size);
        assert_true(after.st_blocks >= before.st_blocks);
    }
}

/* ---- the order of what a repair does to the file ---- */

static struct zqcow2_backend_ops inner;
static char calls[4096];
static size_t nr_calls;

static void note(char c)
{
    if (nr_calls + 1 < sizeof(calls))
        calls[nr_calls++] = c;
    calls[nr_calls] = '\0';
}

static int note_write(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    note('w');
    return inner.writev(self, iov, cnt, off);
}

static int note_flush(void *self)
{
    note('f');
    return inner.flush(self);
}

static int note_truncate(void *self, uint64_t bytes)
{
    note('t');
    return inner.truncate(self, bytes);
}

static int note_discard(void *self, uint64_t off, uint64_t len)
{
    note('d');
    return inner.discard(self, off, len);
}

/* Also where nothing has to be written before: what was read may be in the host's cache alone. */
static void cut_between_barriers(void **state)
{
    (void)state;
    for (size_t i = 0; i < ACTS; i++) {
        struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
        struct zqcow2_backend *be;
        size_t given;

        create();
        run_and_die(i);
        be = open_backend();
        inner = be->ops;
        be->ops.writev = note_write;
        be->ops.flush = note_flush;
        be->ops.truncate = note_truncate;
        be->ops.discard = note_discard;
        nr_calls = 0;
        o.flags = ZQCOW2_CHECK_REPAIR_LEAKS;
        assert_int_equal(zqcow2_check(be, &o, NULL, NULL), 0);
        zqcow2_backend_close(be);
        printf("%s: %s\n", acts[i].name, calls);
        given = strcspn(calls, "td");
        if (!calls[given] || !given || calls[given - 1] != 'f')
            fail_msg("%s: no barrier before anything is given back: %s", acts[i].name, calls);
        if (strchr(calls, 't') && strchr(calls, 't')[1] != 'f')
            fail_msg("%s: no barrier behind the cut: %s", acts[i].name, calls);
    }
}

static int begin(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int end(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(space_comes_back),
        cmocka_unit_test(unknown_extension_keeps_all),
        cmocka_unit_test(cut_between_barriers),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
