/* SPDX-License-Identifier: MIT */
/* Space on the host: what a zone took comes back with the flush behind its reset. */
#include <setjmp.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include <zqcow2/backend.h>

#define MiB(n) ((uint64_t)(n) << 20)

static char path[] = "zq-space-XXXXXX";

static uint64_t disk_usage(void)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static struct zqcow2_image *make(int (*open_backend)(const char *, unsigned,
                                                     const struct zqcow2_hooks *,
                                                     struct zqcow2_backend **))
{
    struct zqcow2_create_options c = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;
    struct zqcow2_backend *be;
    int rc = open_backend(path, ZQCOW2_FILE_RDWR, NULL, &be);

    if (rc == -ENOSYS)
        return NULL;
    assert_int_equal(rc, 0);
    c.virtual_size = MiB(256);
    c.zone_size = MiB(64);
    c.flags = ZQCOW2_CREATE_FORCE;
    o.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_create(be, &c, NULL), 0);
    assert_int_equal(zqcow2_open(be, &o, &img, NULL), 0);
    return img;
}

static void fill(struct zqcow2_image *img)
{
    static uint8_t buf[MiB(1)];

    memset(buf, 0x5a, sizeof(buf));
    for (uint64_t at = 0; at < MiB(64); at += MiB(1))
        assert_int_equal(zqcow2_write(img, buf, MiB(1), at, 0), 0);
    assert_int_equal(zqcow2_flush(img), 0);
}

/* The hole is punched behind the flush: who goes on using the image sees to it. */
static uint64_t usage_settled(struct zqcow2_image *img)
{
    static uint8_t buf[512];

    for (unsigned i = 0; i < 1000 && disk_usage() >= MiB(1); i++) {
        assert_int_equal(zqcow2_read(img, buf, sizeof(buf), 0), 0);
        usleep(10000);
    }
    return disk_usage();
}

static void space_comes_back(struct zqcow2_image *img)
{
    uint64_t empty, full, reset;

    if (!img) {
        printf("no io_uring here\n");
        skip();
    }
    empty = disk_usage();
    for (unsigned round = 0; round < 2; round++) {
        fill(img);
        full = disk_usage();
        assert_int_equal(zqcow2_zone_reset(img, 0, MiB(64), 0), 0);
        assert_int_equal(zqcow2_flush(img), 0);
        reset = usage_settled(img);
        printf("space, round %u: empty %llu, full %llu, after reset %llu KiB\n", round,
               (unsigned long long)empty / 1024, (unsigned long long)full / 1024,
               (unsigned long long)reset / 1024);
        assert_true(full >= MiB(64));
        assert_true(reset < MiB(1));
    }
    assert_int_equal(zqcow2_close(img), 0);
}

static void through_file(void **state)
{
    (void)state;
    space_comes_back(make(zqcow2_file_open));
}

static void through_uring(void **state)
{
    (void)state;
    space_comes_back(make(zqcow2_uring_open));
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
        cmocka_unit_test(through_file),
        cmocka_unit_test(through_uring),
    };

    return cmocka_run_group_tests(tests, begin, end);
}
