/* SPDX-License-Identifier: MIT */
/*
 * A repair of a file, killed at each of its system calls. What is left is no worse than before,
 * nobody holds a lock on it, and another repair brings it to an end.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "unit/faults.h"

static char path[64];

static void lose_refcounts(struct pic *p)
{
    fault_shared(p);
    pic_put(p, p->rt, 8, p->l1);
}

static void share_wrong_table(struct pic *p)
{
    pic_put(p, pic_l2(p, KiB(324)), 8, 0x123);
    pic_snapshot(p);
}

static const struct fault kinds[] = {{"leak", fault_leak, LEAKS, false},
                                     {"write pointers", fault_wp_lost, ALL, false},
                                     {"no refcounts", lose_refcounts, REPAIR, true},
                                     {"wrong, shared", share_wrong_table, ALL, false}};

static void put_file(const uint8_t *b, uint64_t len)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(b, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

/* ---- the process that is killed ---- */

static _Noreturn void repair_file(unsigned flags)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result r = ZQCOW2_CHECK_RESULT_INIT;
    struct zqcow2_backend *be;

    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
        _exit(77);
    raise(SIGSTOP);
    o.flags = flags;
    if (zqcow2_file_open(path, ZQCOW2_FILE_RDWR, NULL, &be) != 0)
        _exit(1);
    _exit(zqcow2_check(be, &o, &r, NULL) != 0);
}

/* True: it was killed as it entered call number n. False: it ended before. */
static bool kill_at(const struct fault *f, int n)
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (!child)
        repair_file(f->flags);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    for (int stops = 0; WIFSTOPPED(status) && stops < 2 * n - 1; stops++) {
        assert_int_equal(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
    }
    if (WIFEXITED(status)) {
        assert_int_equal(WEXITSTATUS(status), 0);
        return false;
    }
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    return true;
}

/* ---- what it leaves ---- */

/* The file's own backend, so that a lock that is left shows. */
static void check_file(struct pic *p, unsigned flags, const char *name, int n)
{
    assert_int_equal(zqcow2_file_open(path, ZQCOW2_FILE_RDWR, NULL, &p->be), 0);
    if (pic_check(p, flags) != 0)
        fail_msg("%s, killed at call %d: %s", name, n, p->err.text);
}

static void expect_data(struct pic *p, const struct fault *f, int n)
{
    static const struct {
        uint64_t guest;
        int fill;
    } data[] = {{0, 0xa0}, {KiB(192), 0xa3}, {KiB(320), 0xa5}};
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;
    uint8_t b[512];

    o.flags = ZQCOW2_OPEN_BORROW;
    if (zqcow2_open(p->be, &o, &img, &p->err) != 0)
        fail_msg("%s, killed at call %d: %s", f->name, n, p->err.text);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(zqcow2_read(img, b, sizeof(b), data[i].guest), 0);
        if (b[0] != data[i].fill || b[511] != data[i].fill)
            fail_msg("%s, killed at call %d: 0x%llx reads otherwise", f->name, n,
                     (unsigned long long)data[i].guest);
    }
    assert_int_equal(zqcow2_close(img), 0);
}

static void expect_repairable(const struct fault *f, int n, uint64_t corruptions)
{
    struct pic p = {0};

    check_file(&p, 0, f->name, n);
    if (p.res.corruptions > corruptions)
        fail_msg("%s, killed at call %d: more corruptions: %s", f->name, n, p.found);
    assert_int_equal(pic_check(&p, f->flags), 0);
    expect_data(&p, f, n);
    assert_int_equal(pic_check(&p, f->flags), 0);
    if (strstr(p.found, "repaired"))
        fail_msg("%s, killed at call %d: a second repair: %s", f->name, n, p.found);
    pic_free(&p);
}

static void test_kill(void **state)
{
    int kills = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct pic p;
        uint64_t len;
        uint8_t *b;
        bool killed = true;

        fault_image(&p, 4096, 16);
        kinds[i].make(&p);
        assert_int_equal(pic_check(&p, 0), 0);
        b = pic_bytes(&p, &len);
        for (int n = 1; killed; n++) {
            put_file(b, len);
            killed = kill_at(&kinds[i], n);
            expect_repairable(&kinds[i], n, p.res.corruptions);
            kills += killed;
        }
        free(b);
        pic_free(&p);
    }
    printf("killed at %d system calls\n", kills);
}

static int make_file(void **state)
{
    const char *dir = getenv("TMPDIR");
    int fd;

    (void)state;
    snprintf(path, sizeof(path), "%.40s/zq-kill-XXXXXX", dir ? dir : "/tmp");
    fd = mkstemp(path);
    return fd < 0 || close(fd) < 0 ? -1 : 0;
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_kill, make_file, remove_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
