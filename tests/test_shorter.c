/* SPDX-License-Identifier: MIT */
/* A file that somebody makes shorter under a live image: no write is durable any more. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include <zqcow2/backend.h>

#define MIB (1u << 20)

enum kind { FILES, THREADS, URING };

static char path[] = "zq-shorter-XXXXXX", said[300];
static uint8_t buf[65536];

static void note(void *user, int level, const char *text)
{
    (void)user;
    (void)level;
    snprintf(said, sizeof(said), "%s", text);
}

static int open_backend(enum kind kind, struct zqcow2_backend **be)
{
    struct zqcow2_backend *inner;
    int rc;

    if (kind == URING)
        return zqcow2_uring_open(path, ZQCOW2_FILE_RDWR, NULL, be);
    rc = zqcow2_file_open(path, ZQCOW2_FILE_RDWR, NULL, kind == FILES ? be : &inner);
    return rc || kind == FILES ? rc : zqcow2_threads_wrap(inner, 2, NULL, be);
}

/* Cuts the file at `cut`, then goes on where it may or may not have to grow. */
static void one(enum kind kind, uint64_t cut, uint64_t then)
{
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_info info = ZQCOW2_INFO_INIT;
    struct zqcow2_hooks hooks = { .size = sizeof(hooks), .log = note };
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    uint64_t at = 0;
    int rc = open_backend(kind, &be);

    if (rc == -ENOSYS && kind == URING)
        return;
    assert_int_equal(rc, 0);
    said[0] = 0;
    how.virtual_size = 16 * MIB;
    how.zone_size = MIB;
    how.flags = ZQCOW2_CREATE_FORCE;
    assert_int_equal(zqcow2_create(be, &how, NULL), 0);
    opt.flags = ZQCOW2_OPEN_RDWR;
    opt.hooks = &hooks;
    assert_int_equal(zqcow2_open(be, &opt, &img, NULL), 0);
    assert_int_equal(zqcow2_append(img, buf, sizeof(buf), &at, ZQCOW2_FUA), 0);
    assert_int_equal(truncate(path, (off_t)cut), 0);
    at = then;
    rc = zqcow2_append(img, buf, sizeof(buf), &at, ZQCOW2_FUA);
    if (!rc)
        fail_msg("backend %d, cut at %u, append to %u: durable, it says", kind, (unsigned)cut,
                 (unsigned)then);
    assert_int_not_equal(zqcow2_flush(img), 0);
    assert_int_equal(zqcow2_get_info(img, &info), 0);
    assert_true(info.flags & ZQCOW2_INFO_DEAD);
    if (!strstr(said, "shorter"))
        fail_msg("backend %d: the log says \"%s\"", kind, said);
    assert_int_equal(zqcow2_close(img), ZQCOW2_EDEAD);
}

static void noticed(void **state)
{
    unsigned n = 0;

    (void)state;
    for (unsigned kind = FILES; kind <= URING; kind++) {
        for (uint64_t cut = 0; cut < 6 * 65536; cut += 65536, n += 2) {
            one(kind, cut, 0);
            one(kind, cut, 3 * MIB); /* a zone without clusters: the file has to grow */
        }
    }
    printf("shorter files: %u, every one noticed\n", n);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(noticed) };

    close(mkstemp(path));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
