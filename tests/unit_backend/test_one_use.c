/* SPDX-License-Identifier: MIT */
/* Create, open and check take the backend alike: what is refused, in which words, what is left. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include <zqcow2/backend.h>
#include <zqcow2/zqcow2.h>

/* A memory backend behind a lock that can be refused. */
struct locked {
    struct zqcow2_backend *mem, *be;
    int refuse, held;
    unsigned locks;
};

static int length(void *self, uint64_t *bytes)
{
    return zqcow2_backend_length(((struct locked *)self)->mem, bytes);
}

static int read_all(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    int rc = 0;

    for (int i = 0; i < cnt && rc == 0; off += iov[i++].iov_len)
        rc =
            zqcow2_backend_read(((struct locked *)self)->mem, iov[i].iov_base, iov[i].iov_len, off);
    return rc;
}

static int write_all(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    int rc = 0;

    for (int i = 0; i < cnt && rc == 0; off += iov[i++].iov_len)
        rc = zqcow2_backend_write(((struct locked *)self)->mem, iov[i].iov_base, iov[i].iov_len,
                                  off);
    return rc;
}

static int flush(void *self)
{
    (void)self;
    return 0;
}

/* Never shorter, and at once as long as any test needs. */
static int truncate_to(void *self, uint64_t bytes)
{
    (void)self;
    return bytes <= 1 << 20 ? 0 : -ENOSPC;
}

static int lock(void *self, int mode)
{
    struct locked *l = self;

    if (mode != ZQCOW2_LOCK_NONE && l->refuse)
        return l->refuse;
    l->held = mode;
    l->locks++;
    return 0;
}

static void begin(struct locked *l, bool writable)
{
    const struct zqcow2_backend_ops ops = {.size = sizeof(ops),
                                           .length = length,
                                           .readv = read_all,
                                           .writev = writable ? write_all : NULL,
                                           .flush = flush,
                                           .truncate = truncate_to,
                                           .lock = lock};

    *l = (struct locked){.held = ZQCOW2_LOCK_NONE};
    assert_int_equal(zqcow2_mem_open(1 << 20, NULL, &l->mem), 0);
    assert_int_equal(zqcow2_backend_new(&ops, l, NULL, &l->be), 0);
}

static void end(struct locked *l)
{
    zqcow2_backend_close(l->be);
    zqcow2_backend_close(l->mem);
}

/* ---- the ways in ---- */

static int create(struct zqcow2_backend *be, struct zqcow2_error *err)
{
    const struct zqcow2_create_options o = {
        .size = sizeof(o), .virtual_size = 1 << 20, .flags = ZQCOW2_CREATE_FORCE};

    return zqcow2_create(be, &o, err);
}

static int check_with(struct zqcow2_backend *be, unsigned flags, struct zqcow2_error *err)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;

    o.flags = flags;
    return zqcow2_check(be, &o, NULL, err);
}

static int check(struct zqcow2_backend *be, struct zqcow2_error *err)
{
    return check_with(be, 0, err);
}

static int repair(struct zqcow2_backend *be, struct zqcow2_error *err)
{
    return check_with(be, ZQCOW2_CHECK_REPAIR, err);
}

static int open_with(struct zqcow2_backend *be, unsigned flags, struct zqcow2_error *err)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;
    int rc;

    o.flags = flags | ZQCOW2_OPEN_BORROW;
    rc = zqcow2_open(be, &o, &img, err);
    return rc < 0 ? rc : zqcow2_close(img);
}

static int open_ro(struct zqcow2_backend *be, struct zqcow2_error *err)
{
    return open_with(be, 0, err);
}

static int open_rw(struct zqcow2_backend *be, struct zqcow2_error *err)
{
    return open_with(be, ZQCOW2_OPEN_RDWR, err);
}

static const struct {
    const char *name;
    int (*go)(struct zqcow2_backend *be, struct zqcow2_error *err);
    bool writes;
} ways[] = {{"create", create, true},
            {"check", check, false},
            {"repair", repair, true},
            {"open for reading", open_ro, false},
            {"open for writing", open_rw, true}};

#define WAYS (sizeof(ways) / sizeof(ways[0]))

static void expect(struct locked *l, size_t i, int want, const char *text)
{
    struct zqcow2_error err = {0, ""};
    int rc = ways[i].go(l->be, &err);

    if (rc != want || (want && (err.code != want || strcmp(err.text, text))))
        fail_msg("%s: %d, \"%s\" instead of %d, \"%s\"", ways[i].name, rc, err.text, want, text);
}

/* ---- */

static void test_refused_lock(void **state)
{
    struct locked l;

    (void)state;
    begin(&l, true);
    expect(&l, 0, 0, "");
    for (size_t i = 0; i < WAYS; i++) {
        l.refuse = -EAGAIN;
        expect(&l, i, -EAGAIN,
               "in use: locked by another program, or by this one through another backend");
        l.refuse = -ENOLCK;
        expect(&l, i, -ENOLCK, "cannot lock: No locks available");
        l.refuse = 0;
        l.locks = 0;
        expect(&l, i, 0, ""); /* nothing of the failures is left */
        if (l.held != ZQCOW2_LOCK_NONE || l.locks != 2)
            fail_msg("%s: lock %d held, %u calls", ways[i].name, l.held, l.locks);
    }
    end(&l);
}

/* NOLOCK: the caller's own lock is neither changed nor given back. */
static void test_lock_of_the_caller(void **state)
{
    struct zqcow2_error err;
    struct locked l;

    (void)state;
    begin(&l, true);
    expect(&l, 0, 0, "");
    assert_int_equal(zqcow2_backend_lock(l.be, ZQCOW2_LOCK_EXCLUSIVE), 0);
    l.locks = 0;
    assert_int_equal(open_with(l.be, ZQCOW2_OPEN_NOLOCK, &err), 0);
    assert_int_equal(open_with(l.be, ZQCOW2_OPEN_NOLOCK | ZQCOW2_OPEN_RDWR, &err), 0);
    assert_int_equal(check_with(l.be, ZQCOW2_CHECK_NOLOCK, &err), 0);
    assert_int_equal(l.locks, 0);
    assert_int_equal(l.held, ZQCOW2_LOCK_EXCLUSIVE);
    end(&l);
}

static void test_in_use(void **state)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;
    struct locked l;

    (void)state;
    begin(&l, true);
    expect(&l, 0, 0, "");
    o.flags = ZQCOW2_OPEN_BORROW;
    assert_int_equal(zqcow2_open(l.be, &o, &img, NULL), 0);
    for (size_t i = 0; i < WAYS; i++)
        expect(&l, i, -EBUSY, "the backend is in use by this program");
    assert_int_equal(l.held, ZQCOW2_LOCK_SHARED);
    assert_int_equal(zqcow2_close(img), 0);
    end(&l);
}

static void test_read_only(void **state)
{
    struct locked l, w;

    (void)state;
    begin(&w, true);
    expect(&w, 0, 0, "");
    begin(&l, false);
    zqcow2_backend_close(l.mem);
    l.mem = w.mem;
    for (size_t i = 0; i < WAYS; i++)
        expect(&l, i, ways[i].writes ? -EROFS : 0, "the backend is not writable");
    zqcow2_backend_close(l.be);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused_lock),
        cmocka_unit_test(test_lock_of_the_caller),
        cmocka_unit_test(test_in_use),
        cmocka_unit_test(test_read_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
