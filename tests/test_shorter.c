/* SPDX-License-Identifier: MIT */
/* A file that somebody makes shorter under a live image: no write is durable any more. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* false: no such backend here. */
static bool start(enum kind kind, struct zqcow2_image **img)
{
    static struct zqcow2_hooks hooks = {.size = sizeof(hooks), .log = note};
    struct zqcow2_create_options how = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options opt = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    int rc = open_backend(kind, &be);

    if (rc == -ENOSYS && kind == URING)
        return false;
    assert_int_equal(rc, 0);
    said[0] = 0;
    how.virtual_size = 16 * MIB;
    how.zone_size = MIB;
    how.flags = ZQCOW2_CREATE_FORCE;
    assert_int_equal(zqcow2_create(be, &how, NULL), 0);
    opt.flags = ZQCOW2_OPEN_RDWR;
    opt.hooks = &hooks;
    assert_int_equal(zqcow2_open(be, &opt, img, NULL), 0);
    return true;
}

static void append(struct zqcow2_image *img, uint64_t zone, size_t len, uint32_t flags)
{
    assert_int_equal(zqcow2_append(img, buf, len, &zone, flags), 0);
}

/* No flush succeeds, the image is dead, and the log says why. */
static void is_noticed(enum kind kind, struct zqcow2_image *img, const char *what)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;

    if (!zqcow2_flush(img))
        fail_msg("backend %d, %s: the flush says that all is durable", kind, what);
    assert_int_equal(zqcow2_get_info(img, &info), 0);
    assert_true(info.flags & ZQCOW2_INFO_DEAD);
    if (!strstr(said, "truncated the file"))
        fail_msg("backend %d, %s: the log says \"%s\"", kind, what, said);
    assert_int_equal(zqcow2_close(img), ZQCOW2_EDEAD);
}

/* Cuts the file at `cut`, then goes on where it may or may not have to grow. */
static void one(enum kind kind, uint64_t cut, uint64_t then)
{
    struct zqcow2_image *img;
    char what[80];

    if (!start(kind, &img))
        return;
    append(img, 0, 65536, ZQCOW2_FUA);
    assert_int_equal(truncate(path, (off_t)cut), 0);
    snprintf(what, sizeof(what), "cut at %u, append to %u", (unsigned)cut, (unsigned)then);
    if (!zqcow2_append(img, buf, 65536, &then, ZQCOW2_FUA))
        fail_msg("backend %d, %s: durable, it says", kind, what);
    is_noticed(kind, img, what);
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
}

static uint64_t length_now(void)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

/* What was durable is gone, and nothing is written since. */
static void by_an_empty_flush(void **state)
{
    struct zqcow2_image *img;
    unsigned n = 0;

    (void)state;
    for (unsigned kind = FILES; kind <= URING; kind++) {
        for (unsigned tail = 1; tail <= 8; tail++) {
            if (!start(kind, &img))
                break;
            append(img, 0, 65536, ZQCOW2_FUA);
            assert_int_equal(zqcow2_flush(img), 0);
            assert_int_equal(truncate(path, (off_t)(length_now() - tail * 512)), 0);
            is_noticed(kind, img, "nothing to write");
            n++;
        }
    }
    printf("shorter files and an empty flush: %u, every one noticed\n", n);
}

/* A write up to the old end makes the file as long as it was; what lay before is lost. */
static void under_a_write_to_the_end(void **state)
{
    struct zqcow2_image *img;
    unsigned n = 0;

    (void)state;
    for (unsigned kind = FILES; kind <= URING; kind++) {
        for (unsigned step = 1; step <= 16; step *= 2, n++) {
            uint64_t was, at;

            if (!start(kind, &img))
                break;
            append(img, 0, 65536, ZQCOW2_FUA);
            was = length_now();
            assert_int_equal(truncate(path, (off_t)(was - MIB + 4096)), 0);
            for (uint64_t left = MIB - 65536, len; left; left -= len) {
                len = left < step * 4096 ? left : step * 4096;
                at = 0;
                (void)zqcow2_append(img, buf, len, &at, 0);
            }
            is_noticed(kind, img, "a write up to the old end");
        }
    }
    printf("shorter files and a write to the old end: %u, every one noticed\n", n);
}

/* Zeros in place of what was acknowledged would be no answer. */
static void by_a_read(void **state)
{
    static uint8_t got[65536];
    struct zqcow2_image *img;
    unsigned n = 0;

    (void)state;
    memset(buf, 0xa5, sizeof(buf));
    for (unsigned kind = FILES; kind <= URING; kind++) {
        for (unsigned keep = 0; keep < 65536; keep += 8192, n++) {
            uint64_t begin;

            if (!start(kind, &img))
                break;
            append(img, 0, 65536, ZQCOW2_FUA);
            begin = length_now() - MIB; /* of the zone's clusters */
            assert_int_equal(truncate(path, (off_t)(begin + keep)), 0);
            if (keep)
                assert_int_equal(zqcow2_read(img, got, keep, 0), 0);
            assert_memory_equal(got, buf, keep);
            if (zqcow2_read(img, got, 65536, 0) != -EIO)
                fail_msg("backend %d, cut behind %u bytes: the read succeeds", kind, keep);
            is_noticed(kind, img, "a read");
        }
    }
    printf("shorter files and a read: %u, every one noticed\n", n);
}

/* Noticed once, it is not forgotten: what is gone does not read as zeros afterwards. */
static void and_stays_lost(void **state)
{
    static uint8_t got[65536];
    struct zqcow2_image *img;
    unsigned n = 0;

    (void)state;
    for (unsigned kind = FILES; kind <= URING; kind++, n++) {
        if (!start(kind, &img))
            break;
        append(img, 0, 65536, ZQCOW2_FUA);
        assert_int_equal(truncate(path, (off_t)(length_now() - MIB)), 0);
        if (!zqcow2_flush(img))
            fail_msg("backend %d: the flush says that all is durable", kind);
        for (unsigned i = 0; i < 2; i++) {
            if (zqcow2_read(img, got, 65536, 0) != -EIO)
                fail_msg("backend %d: read %u after the flush succeeds", kind, i);
        }
        is_noticed(kind, img, "a read after the flush");
        /* To the next one it is another file: the same backend could open it. */
    }
    printf("shorter files and reads after a flush: %u, every one noticed\n", n);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(noticed),
        cmocka_unit_test(by_an_empty_flush),
        cmocka_unit_test(under_a_write_to_the_end),
        cmocka_unit_test(by_a_read),
        cmocka_unit_test(and_stays_lost),
    };

    close(mkstemp(path));
    return cmocka_run_group_tests(tests, NULL, remove_file);
}
