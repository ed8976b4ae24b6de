/* SPDX-License-Identifier: MIT */
/* Names of backing files: where they start, what is opened, and what is refused unopened. */
#include <errno.h>
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
#include <zqcow2/backend.h>

/* Files hold their own names. In `in` lies what a root allows. */
static char top[] = "/tmp/zqcow2-resolver.XXXXXX";
static const char *const files[] = {"in/image", "in/base", "in/deep/base", "outside"};

static const char *path_of(const char *name)
{
    static char path[4][128];
    static unsigned next;

    next = (next + 1) % 4;
    snprintf(path[next], sizeof(path[next]), "%s/%s", top, name);
    return path[next];
}

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(top) || mkdir(path_of("in"), 0700) || mkdir(path_of("in/deep"), 0700))
        return -1;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        FILE *f = fopen(path_of(files[i]), "w");

        if (!f || fputs(files[i], f) < 0 || fclose(f))
            return -1;
    }
    if (symlink("../outside", path_of("in/way-out")) || symlink("base", path_of("in/link")) ||
        link(path_of("in/image"), path_of("in/twin")) || mkfifo(path_of("in/fifo"), 0600))
        return -1;
    return 0;
}

static int tear_down(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf '%s'", top);
    return system(command);
}

static struct zqcow2_resolver *resolver(const char *root)
{
    struct zqcow2_resolver_options opt = ZQCOW2_RESOLVER_OPTIONS_INIT;
    struct zqcow2_resolver *r = NULL;

    opt.root = root;
    assert_int_equal(zqcow2_resolver_new(path_of("in/image"), &opt, &r), 0);
    assert_string_equal(zqcow2_resolver_path(r, 0), path_of("in/image"));
    assert_null(zqcow2_resolver_path(r, 1));
    return r;
}

/* What a file holds says which one was opened. */
static void opens(struct zqcow2_resolver *r, const char *name, uint32_t depth, const char *file)
{
    struct zqcow2_error err;
    struct zqcow2_backend *be = NULL;
    char buf[64] = "";

    assert_int_equal(zqcow2_resolve_file(r, name, "raw", depth, &be, &err), 0);
    assert_int_equal(zqcow2_backend_read(be, buf, strlen(file), 0), 0);
    assert_string_equal(buf, file);
    assert_int_equal(zqcow2_backend_write(be, buf, 1, 0), -EROFS);
    assert_non_null(zqcow2_resolver_path(r, depth));
    zqcow2_backend_close(be);
}

static void refuses(struct zqcow2_resolver *r, const char *name, uint32_t depth, int code)
{
    struct zqcow2_backend *be = NULL;
    struct zqcow2_error err;
    int rc;

    memset(&err, 'x', sizeof(err)); /* as the caller's stack may be */
    rc = zqcow2_resolve_file(r, name, "raw", depth, &be, &err);
    if (rc != code)
        printf("%s at depth %u: %d, not %d: %s\n", name, depth, rc, code, err.text);
    assert_int_equal(rc, code);
    assert_int_equal(err.code, code);
    assert_true(err.text[0] && memchr(err.text, 0, sizeof(err.text)));
    assert_null(be);
}

static void names_start_where_they_are_stored(void **state)
{
    struct zqcow2_resolver *r = resolver(NULL);

    (void)state;
    opens(r, "base", 1, "in/base");
    opens(r, "./deep/base", 1, "in/deep/base");
    opens(r, "../base", 2, "in/base");
    opens(r, "../outside", 3, "outside");
    opens(r, path_of("in/deep/base"), 1, "in/deep/base");
    opens(r, "link", 1, "in/base");
    zqcow2_resolver_free(r);
}

static void what_is_refused(void **state)
{
    struct zqcow2_resolver *r = resolver(NULL);

    (void)state;
    refuses(r, "missing", 1, -ENOENT);
    refuses(r, "deep", 1, -EINVAL);
    refuses(r, "fifo", 1, -EINVAL); /* and nobody waits for its writer */
    refuses(r, "/dev/null", 1, -EINVAL);
    refuses(r, "nbd:unix:/x", 1, ZQCOW2_EFEATURE);
    refuses(r, "json:{\"file.filename\":\"base\"}", 1, ZQCOW2_EFEATURE);
    refuses(r, "file:base", 1, ZQCOW2_EFEATURE);
    refuses(r, "base", 2, -EINVAL); /* nothing was opened at depth 1 */
    refuses(r, "base", 0, -EINVAL);
    refuses(r, "base", 65, ZQCOW2_EFEATURE);
    zqcow2_resolver_free(r);
}

static void a_chain_never_returns(void **state)
{
    struct zqcow2_resolver *r = resolver(NULL);

    (void)state;
    refuses(r, "image", 1, -ELOOP);
    refuses(r, "twin", 1, -ELOOP); /* another name of the same file */
    opens(r, "base", 1, "in/base");
    refuses(r, "link", 2, -ELOOP);
    zqcow2_resolver_free(r);
}

static void a_root_is_the_limit(void **state)
{
    struct zqcow2_resolver *r = resolver(path_of("in"));
    struct zqcow2_resolver_options opt = ZQCOW2_RESOLVER_OPTIONS_INIT;

    (void)state;
    opens(r, "base", 1, "in/base");
    opens(r, "deep/../base", 1, "in/base");
    refuses(r, "../outside", 1, -EACCES);
    refuses(r, "way-out", 1, -EACCES);
    refuses(r, path_of("outside"), 1, -EACCES);
    refuses(r, "/etc/passwd", 1, -EACCES);
    zqcow2_resolver_free(r);
    r = resolver("/");
    opens(r, "../outside", 1, "outside");
    zqcow2_resolver_free(r);
    opt.root = path_of("nowhere");
    assert_int_equal(zqcow2_resolver_new(path_of("in/image"), &opt, &r), -ENOENT);
    assert_int_equal(zqcow2_resolver_new(NULL, NULL, &r), -EINVAL);
    zqcow2_resolver_free(NULL);
}

static void a_data_file_may_be_elsewhere(void **state)
{
    struct zqcow2_resolver_options opt = ZQCOW2_RESOLVER_OPTIONS_INIT;
    uint32_t data = ZQCOW2_RESOLVE_DATA_FILE;
    struct zqcow2_resolver *r = resolver(NULL);

    (void)state;
    opens(r, "deep/base", data, "in/deep/base");
    refuses(r, "", data, ZQCOW2_EFEATURE);
    zqcow2_resolver_free(r);
    opt.root = path_of("in");
    opt.data_file = path_of("in/base");
    assert_int_equal(zqcow2_resolver_new(path_of("in/image"), &opt, &r), 0);
    opens(r, "deep/base", data, "in/base");
    assert_string_equal(zqcow2_resolver_path(r, data), path_of("in/base"));
    opens(r, "", data, "in/base");
    opens(r, "nbd:x", data, "in/base");
    opens(r, "deep/base", 1, "in/deep/base"); /* whose own data file is another matter */
    refuses(r, "", data | 1, ZQCOW2_EFEATURE);
    refuses(r, "gone", data | 1, -ENOENT);
    zqcow2_resolver_free(r);
    opt.data_file = path_of("outside");
    assert_int_equal(zqcow2_resolver_new(path_of("in/image"), &opt, &r), 0);
    refuses(r, "base", data, -EACCES);
    zqcow2_resolver_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_start_where_they_are_stored),
        cmocka_unit_test(what_is_refused),
        cmocka_unit_test(a_chain_never_returns),
        cmocka_unit_test(a_root_is_the_limit),
        cmocka_unit_test(a_data_file_may_be_elsewhere),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
