/* SPDX-License-Identifier: MIT */
#include "hostile/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "rig/heap_fault.h"

#define NAME_AT 1024u
#define ADDRESS 0x00fffffffffffe00ull

char folder_logged[512];

static char top[32];

void folder_make(void)
{
    strcpy(top, "/tmp/zqcow2-hostile.XXXXXX");
    assert_non_null(mkdtemp(top));
}

void folder_remove(void)
{
    char command[64];

    snprintf(command, sizeof(command), "rm -rf '%s'", top);
    assert_int_equal(system(command), 0);
}

const char *folder_path(const char *name)
{
    static char path[4][1200];
    static unsigned next;

    next = (next + 1) % 4;
    snprintf(path[next], sizeof(path[next]), "%s/%s", top, name);
    return path[next];
}

/* ---- bytes ---- */

void folder_bytes(const char *name, const void *bytes, size_t len, uint64_t off)
{
    int fd = open(folder_path(name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, len, (off_t)off), (ssize_t)len);
    close(fd);
}

void folder_put(const char *name, uint64_t off, unsigned width, uint64_t value)
{
    uint8_t b[8];

    for (unsigned i = 0; i < width; i++)
        b[i] = (uint8_t)(value >> (8 * (width - 1 - i)));
    folder_bytes(name, b, width, off);
}

uint64_t folder_get(const char *name, uint64_t off, unsigned width)
{
    int fd = open(folder_path(name), O_RDONLY | O_CLOEXEC);
    uint64_t value = 0;
    uint8_t b[8];

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, b, width, (off_t)off), width);
    close(fd);
    for (unsigned i = 0; i < width; i++)
        value = value << 8 | b[i];
    return value;
}

void folder_cut(const char *name, uint64_t length)
{
    assert_int_equal(truncate(folder_path(name), (off_t)length), 0);
}

/* The extension for the format takes the place of the table of names. */
void folder_name(const char *name, const void *backing, size_t len, const char *format)
{
    folder_put(name, 128, 4, 0xe2792aca);
    folder_put(name, 132, 4, strlen(format));
    folder_put(name, 136, 8, 0);
    folder_put(name, 144, 8, 0);
    folder_put(name, 152, 8, 0);
    folder_bytes(name, format, strlen(format), 136);
    folder_bytes(name, backing, len, NAME_AT);
    folder_put(name, 8, 8, NAME_AT);
    folder_put(name, 16, 4, len);
}

uint64_t folder_l2(const char *name)
{
    return folder_get(name, folder_get(name, 40, 8), 8) & ADDRESS;
}

/* ---- images ---- */

static struct zqcow2_backend *file_of(const char *name, unsigned flags)
{
    struct zqcow2_backend *be;

    assert_int_equal(zqcow2_file_open(folder_path(name), flags, NULL, &be), 0);
    return be;
}

void folder_image(const char *name, const struct zqcow2_create_options *options)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_resolver *r = NULL;
    struct zqcow2_backend *be;
    struct zqcow2_error err;

    o.virtual_size = KiB(256);
    o.cluster_size = 4096;
    if (options)
        o = *options;
    if (o.backing_name) {
        assert_int_equal(zqcow2_resolver_new(folder_path(name), NULL, &r), 0);
        o.resolve = zqcow2_resolve_file;
        o.resolve_arg = r;
    }
    unlink(folder_path(name));
    folder_bytes(name, "", 0, 0);
    be = file_of(name, ZQCOW2_FILE_RDWR);
    if (zqcow2_create(be, &o, &err))
        fail_msg("create %s: %s", name, err.text);
    zqcow2_backend_close(be);
    zqcow2_resolver_free(r);
}

void folder_write(const char *name, uint64_t off, size_t len)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    void *ones = memset(malloc(len), 1, len);
    struct zqcow2_image *img;

    o.flags = ZQCOW2_OPEN_RDWR;
    assert_int_equal(zqcow2_open(file_of(name, ZQCOW2_FILE_RDWR), &o, &img, NULL), 0);
    assert_int_equal(zqcow2_write(img, ones, len, off, 0), 0);
    assert_int_equal(zqcow2_close(img), 0);
    free(ones);
}

/* ---- attempts ---- */

static unsigned descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static void note(void *ctx, int level, const char *text)
{
    (void)ctx;
    if (level == ZQCOW2_LOG_ERROR)
        snprintf(folder_logged, sizeof(folder_logged), "%s", text);
}

static struct zqcow2_resolver *resolver(const struct attempt *a)
{
    struct zqcow2_resolver_options opt = ZQCOW2_RESOLVER_OPTIONS_INIT;
    struct zqcow2_resolver *r = NULL;

    opt.root = a->root ? folder_path(a->root) : NULL;
    assert_int_equal(zqcow2_resolver_new(folder_path(a->image), &opt, &r), 0);
    return r;
}

static void try_with(struct attempt *a, const struct zqcow2_hooks *hooks)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    bool rw = a->flags & ZQCOW2_OPEN_RDWR;
    struct zqcow2_backend *be = file_of(a->image, rw ? ZQCOW2_FILE_RDWR : 0);
    struct zqcow2_image *img;
    void *buf = malloc(a->len + 1);

    o.flags = a->flags;
    o.hooks = hooks;
    o.resolve = zqcow2_resolve_file;
    o.resolve_arg = resolver(a);
    a->open = zqcow2_open(be, &o, &img, &a->err);
    a->read = !a->open && a->len ? zqcow2_read(img, buf, a->len, a->off) : 0;
    if (a->open)
        zqcow2_backend_close(be);
    else
        assert_int_equal(zqcow2_close(img), 0);
    zqcow2_resolver_free(o.resolve_arg);
    free(buf);
}

void folder_try(struct attempt *a)
{
    unsigned before = descriptors();
    struct zqcow2_hooks hooks;
    struct heap heap;

    folder_logged[0] = '\0';
    heap_init(&heap);
    hooks = heap_hooks(&heap);
    hooks.log = note;
    alarm(60); /* nothing that is named here may be waited for */
    try_with(a, &hooks);
    alarm(0);
    assert_null(heap_verdict(&heap));
    heap_destroy(&heap);
    assert_int_equal(descriptors(), before);
}

static void found(void *arg, int kind, const char *text)
{
    char *first = arg;

    (void)kind;
    if (!first[0])
        snprintf(first, 512, "%s", text);
}

const char *folder_check(const char *name, struct zqcow2_check_result *res)
{
    static char text[512];
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_backend *be = file_of(name, 0);
    struct zqcow2_error err;

    text[0] = '\0';
    o.found = found;
    o.arg = text;
    *res = (struct zqcow2_check_result)ZQCOW2_CHECK_RESULT_INIT;
    if (zqcow2_check(be, &o, res, &err))
        snprintf(text, sizeof(text), "%s", err.text);
    zqcow2_backend_close(be);
    return text;
}
