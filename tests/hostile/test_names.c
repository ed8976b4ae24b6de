/* SPDX-License-Identifier: MIT */
/* Names of backing files that no image should have: each is refused with its own code and text. */
#include <errno.h>
#include <setjmp.h>
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

#include "hostile/folder.h"

#define X10(s)  s s s s s s s s s s
#define X250(s) X10(X10(s)) X10(X10(s)) X10(s) X10(s) X10(s) X10(s) X10(s)

/* In `in` lies the image, and what a root allows. */
static void make_socket(const char *name)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    snprintf(at.sun_path, sizeof(at.sun_path), "%s", folder_path(name));
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
    close(fd);
}

static int set_up(void **state)
{
    static const char *const links[][2] = {
        {"../outside", "in/way-out"}, {"..", "in/door"},       {"image", "in/alias"},
        {"round", "in/round"},        {"missing", "in/empty"}, {"fifo", "in/pipe"},
    };

    (void)state;
    folder_make();
    if (mkdir(folder_path("in"), 0700) || mkdir(folder_path("in/dir"), 0700) ||
        mkfifo(folder_path("in/fifo"), 0600))
        return -1;
    make_socket("in/socket");
    folder_image("in/image", NULL);
    folder_image("in/base", NULL);
    folder_image("outside", NULL);
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++) {
        if (symlink(links[i][0], folder_path(links[i][1])))
            return -1;
    }
    return link(folder_path("in/image"), folder_path("in/twin"));
}

static int tear_down(void **state)
{
    (void)state;
    folder_remove();
    return 0;
}

/* @: the folder's path stands for it. */
static size_t full(char *to, size_t room, const char *name, size_t len)
{
    if (name[0] == '@')
        return (size_t)snprintf(to, room, "%s", folder_path(name + 2));
    memcpy(to, name, len);
    to[len] = '\0';
    return len;
}

struct name {
    const char *what, *name;
    size_t len; /* 0: up to its end */
    const char *format, *root;
    int code;
    const char *text;
};

#define C ZQCOW2_ECORRUPT
#define F ZQCOW2_EFEATURE
static const struct name names[] = {
    /* ---- what is stored ---- */
    {"a zero byte inside", "ba\0se", 5, "qcow2", NULL, C,
     "backing_file_offset 1024 (0x400) at byte 8: the name contains a zero byte"},
    {"a zero byte at its end", "base", 5, "qcow2", NULL, C, "zero byte"},
    {"a part of 250 bytes too many", X250("n") "123456", 0, "qcow2", NULL, -ENAMETOOLONG,
     "File name too long"},
    /* ---- protocols ---- */
    {"json", "json:{\"driver\":\"file\",\"filename\":\"base\"}", 0, "qcow2", NULL, F,
     "with a protocol"},
    {"a protocol of the network", "nbd://localhost:10809/x", 0, "raw", NULL, F, "with a protocol"},
    {"a protocol that a file can have", "file:base", 0, "qcow2", NULL, F, "with a protocol"},
    {"a driver that writes", "fat:rw:dir", 0, "raw", NULL, F, "with a protocol"},
    {"nothing before the colon", ":base", 0, "qcow2", NULL, F, "with a protocol"},
    {"a host's device by name", "host_device:/dev/zero", 0, "raw", NULL, F, "with a protocol"},
    /* ---- what is no file ---- */
    {"a pipe", "fifo", 0, "raw", NULL, -EINVAL, "\"fifo\": not a regular file"},
    {"a link to a pipe", "pipe", 0, "raw", NULL, -EINVAL, "\"pipe\": not a regular file"},
    {"a socket", "socket", 0, "raw", NULL, -EINVAL, "\"socket\": not a regular file"},
    {"a folder", "dir", 0, "raw", NULL, -EINVAL, "\"dir\": not a regular file"},
    {"the folder itself", ".", 0, "raw", NULL, -EINVAL, "\".\": not a regular file"},
    {"a device that never ends", "/dev/zero", 0, "raw", NULL, -EINVAL,
     "\"/dev/zero\": not a regular file"},
    {"the same device behind dots", "../../../../../dev/zero", 0, "raw", NULL, -EINVAL,
     "not a regular file"},
    /* ---- what is not there ---- */
    {"nothing", "missing", 0, "raw", NULL, -ENOENT, "\"missing\": No such file"},
    {"a link to nothing", "empty", 0, "raw", NULL, -ENOENT, "\"empty\": No such file"},
    {"a link to itself", "round", 0, "raw", NULL, -ELOOP, "symbolic links"},
    {"a file taken for a folder", "base/base", 0, "raw", NULL, -ENOTDIR, "Not a directory"},
    {"a file with a slash behind", "base/", 0, "qcow2", NULL, -ENOTDIR,
     "\"base/\": Not a directory"},
    /* ---- out of the folder ---- */
    {"an absolute name outside", "@/outside", 0, "qcow2", "in", -EACCES, "lies outside the folder"},
    {"up and out", "../outside", 0, "qcow2", "in", -EACCES, "\"../outside\": lies outside"},
    {"a link out", "way-out", 0, "qcow2", "in", -EACCES, "\"way-out\": lies outside"},
    {"a folder's link out", "door/outside", 0, "qcow2", "in", -EACCES,
     "\"door/outside\": lies outside"},
    {"a root below the image's folder", "../outside", 0, "qcow2", "in/dir", -EACCES,
     "lies outside"},
    {"a root that is another folder", "base", 0, "qcow2", "in/dir", -EACCES,
     "\"base\": lies outside"},
    /* ---- the image ---- */
    {"the image itself", "image", 0, "qcow2", NULL, -ELOOP,
     "\"image\": the chain returns to the same file"},
    {"the image by a hard link", "twin", 0, "raw", NULL, -ELOOP, "\"twin\": the chain returns"},
    {"the image by a symbolic link", "alias", 0, "raw", NULL, -ELOOP,
     "\"alias\": the chain returns"},
    {"the image by a way around", "dir/../image", 0, "raw", NULL, -ELOOP,
     "\"dir/../image\": the chain returns"},
    {"the image by its whole path", "@/in/image", 0, "raw", NULL, -ELOOP,
     "/in/image\": the chain returns"},
    /* ---- formats ---- */
    {"no format", "base", 0, "", NULL, F, "its format is not stored"},
    {"a format of others", "base", 0, "vmdk", NULL, F, "format \"vmdk\" is not supported"},
    {"another case", "base", 0, "RAW", NULL, F, "format \"RAW\" is not supported"},
    {"a format that begins like one", "base", 0, "rawest", NULL, F,
     "format \"rawest\" is not supported"},
    {"a format that moves the cursor", "base", 0, "\x1b[2J", NULL, F,
     "format \"?[2J\" is not supported"},
    {"a format with no end", "base", 0, "0123456789abcdef", NULL, C,
     "backing format length 16 (0x10) at byte 132"},
};

/* How many of the two ways to open it did not refuse it as they must. */
static unsigned not_refused(const struct name *n)
{
    struct attempt a = {.image = "in/image", .root = n->root, .len = 512};
    char name[1200];
    size_t len = full(name, sizeof(name), n->name, n->len ? n->len : strlen(n->name));
    unsigned bad = 0;

    folder_image("in/image", NULL);
    unlink(folder_path("in/twin"));
    assert_int_equal(link(folder_path("in/image"), folder_path("in/twin")), 0);
    folder_name("in/image", name, len, n->format);
    for (unsigned rw = 0; rw < 2; rw++) {
        a.flags = rw ? ZQCOW2_OPEN_RDWR : 0;
        folder_try(&a);
        if (a.open == n->code && strstr(a.err.text, n->text))
            continue;
        printf("%s: %d \"%s\", not %d \"%s\"\n", n->what, a.open, a.err.text, n->code, n->text);
        bad++;
    }
    return bad;
}

static void names_are_refused(void **state)
{
    size_t nr = sizeof(names) / sizeof(names[0]);
    unsigned bad = 0;

    (void)state;
    for (size_t i = 0; i < nr; i++)
        bad += not_refused(&names[i]);
    printf("names: %zu classes, %u opens not refused as they must be\n", nr, bad);
    assert_int_equal(bad, 0);
}

/* ---- where the name lies ---- */

static void names_lie_in_the_first_cluster(void **state)
{
    static const struct {
        uint64_t at, len;
        const char *text;
    } t[] = {
        {1024, 1024, "backing_file_size 1024 (0x400) at byte 16: must be at most 1023"},
        {1024, UINT32_MAX, "backing_file_size 4294967295"},
        {4090, 7, "backing_file_offset 4090"},
        {64, 4, "backing_file_offset 64"},
        {UINT64_MAX, 4, "backing_file_offset 18446744073709551615"},
        {1ull << 40, 4, "backing_file_offset 1099511627776"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct attempt a = {.image = "in/image"};

        folder_image("in/image", NULL);
        folder_name("in/image", "base", 4, "qcow2");
        folder_put("in/image", 8, 8, t[i].at);
        folder_put("in/image", 16, 4, t[i].len);
        folder_try(&a);
        if (a.open != C || !strstr(a.err.text, t[i].text))
            fail_msg("%s: %d \"%s\"", t[i].text, a.open, a.err.text);
    }
}

/* A name without bytes is none: the image stands alone, and says so. */
static void an_empty_name_is_none(void **state)
{
    struct attempt a = {.image = "in/image", .len = 512};

    (void)state;
    folder_image("in/image", NULL);
    folder_name("in/image", "", 0, "vmdk");
    folder_try(&a);
    assert_int_equal(a.open, 0);
    assert_int_equal(a.read, 0);
}

/* ---- loops and depth ---- */

static void loops_are_found(void **state)
{
    static const struct {
        const char *image[3]; /* what image, one and two name */
        const char *blamed;
    } t[] = {
        {{"one", "image", "base"}, "backing file \"image\""},
        {{"one", "twin", "base"}, "backing file \"twin\""},
        {{"one", "two", "image"}, "backing file \"image\""},
        {{"one", "two", "one"}, "backing file \"one\""},
        {{"one", "two", "dir/../two"}, "backing file \"dir/../two\""},
        {{"one", "one", "base"}, "backing file \"one\""},
    };
    static const char *const files[] = {"in/image", "in/one", "in/two"};

    (void)state;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct attempt a = {.image = "in/image", .len = 512};

        for (unsigned k = 0; k < 3; k++) {
            folder_image(files[k], NULL);
            folder_name(files[k], t[i].image[k], strlen(t[i].image[k]), "qcow2");
        }
        unlink(folder_path("in/twin"));
        assert_int_equal(link(folder_path("in/image"), folder_path("in/twin")), 0);
        folder_try(&a);
        if (a.open != -ELOOP || !strstr(a.err.text, t[i].blamed) ||
            !strstr(a.err.text, "the chain returns to the same file"))
            fail_msg("loop %zu: %d \"%s\"", i, a.open, a.err.text);
    }
}

/* Programs that go down a chain by themselves, as `zqcow2 info` does, get the same text. */
static void below_is_refused(void)
{
    struct zqcow2_resolver_options o = ZQCOW2_RESOLVER_OPTIONS_INIT;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_backend *be = NULL;
    struct zqcow2_resolver *r;
    char name[16];

    assert_int_equal(zqcow2_resolver_new(folder_path("in/f00"), &o, &r), 0);
    for (uint32_t depth = 1; depth <= 64; depth++) {
        snprintf(name, sizeof(name), "f%02u", (unsigned)depth);
        assert_int_equal(zqcow2_resolve_file(r, name, "qcow2", depth, &be, &err), 0);
        zqcow2_backend_close(be);
    }
    assert_int_equal(zqcow2_resolve_file(r, "f65", "qcow2", 65, &be, &err), F);
    assert_non_null(strstr(err.text, "more than 64 backing files are in the chain"));
    zqcow2_resolver_free(r);
}

/* 64 files below the image are a chain; one more is none. */
static void a_chain_has_64_files(void **state)
{
    struct attempt a = {.image = "in/f00", .len = KiB(256)};
    char name[16], next[16];

    (void)state;
    for (unsigned i = 0; i <= 65; i++) {
        snprintf(name, sizeof(name), "in/f%02u", i);
        snprintf(next, sizeof(next), "f%02u", i + 1);
        folder_image(name, NULL);
        if (i < 64)
            folder_name(name, next, 3, "qcow2");
    }
    folder_write("in/f64", 4096, 512);
    folder_try(&a);
    assert_int_equal(a.open, 0);
    assert_int_equal(a.read, 0);
    folder_name("in/f64", "f65", 3, "qcow2");
    folder_try(&a);
    if (a.open != F || !strstr(a.err.text, "\"f65\": more than 64 backing files are in the chain"))
        fail_msg("%d \"%s\"", a.open, a.err.text);
    below_is_refused();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_refused),     cmocka_unit_test(names_lie_in_the_first_cluster),
        cmocka_unit_test(an_empty_name_is_none), cmocka_unit_test(loops_are_found),
        cmocka_unit_test(a_chain_has_64_files),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
