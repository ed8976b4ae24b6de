/* SPDX-License-Identifier: MIT */
/*
 * A repair of a file, killed at each of its system calls, with and without what it had not flushed.
 * What is left is no worse than before, nobody holds a lock on it, the next writable open takes the
 * leaks back, and another repair brings it to an end.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
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
    pic_snapshot(p);
    pic_put(p, pic_l2(p, KiB(324)), 8, MiB(700));
    pic_put(p, pic_l2(p, KiB(328)), 8, 0x123); /* reserved bits */
}

/* A table gets a copy, and its refcount falls. */
static void share_ahead(struct pic *p)
{
    pic_map(p, KiB(128), 3);
    pic_snapshot(p);
}

/* Flags and refcounts, and what becomes free at the end. */
static void half_deleted(struct pic *p)
{
    pic_snapshot(p);
    pic_put(p, 60, 4, 0);
    pic_put(p, 64, 8, 0);
}

/*
 * A rebuild keeps the count of what only an extension knows, which no later repair can count again.
 */
static uint64_t kept;

static void keep_unknown(struct pic *p)
{
    uint64_t at = pic_get(p, 100, 4);

    while (pic_get(p, at, 4))
        at += 8 + (pic_get(p, at + 4, 4) + 7) / 8 * 8;
    pic_put(p, at, 4, 0x12345678);
    kept = pic_alloc(p, 1);
    pic_put(p, p->rt + 8, 8, MiB(900));
}

static void name_bitmaps_alike(struct pic *p)
{
    static const char *const names[] = {"a", "long-name-that-lies-in-two-sectors", "a", "a", NULL};

    fault_bitmaps(p, names);
}

static const struct fault kinds[] = {
    {"leak", fault_leak, LEAKS, false},
    {"snapshot half deleted", half_deleted, LEAKS, false},
    {"write pointers", fault_wp_lost, ALL, false},
    {"no refcounts", lose_refcounts, REPAIR, true},
    {"wrong, shared", share_wrong_table, ALL, false},
    {"ahead, shared", share_ahead, ALL, false},
    {"unknown owner", keep_unknown, REPAIR, false},
    {"refcount table behind the end", fault_table_behind, REPAIR, true},
    {"bitmaps of one name", name_bitmaps_alike, REPAIR, false}};

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

/* A file's bytes, to be freed. */
struct bytes {
    uint8_t *b;
    uint64_t len;
};

/* What a power cut at the time of the kill may leave. */
struct left {
    struct bytes safe;   /* as of the last flush that had ended */
    struct bytes before; /* as the call before the killed one began */
    long call;           /* the one that the process is in */
    int entered;
};

static void take_file(struct bytes *f)
{
    FILE *in = fopen(path, "rb");
    long len;

    assert_non_null(in);
    assert_int_equal(fseek(in, 0, SEEK_END), 0);
    len = ftell(in);
    assert_true(len > 0);
    rewind(in);
    free(f->b);
    f->len = (uint64_t)len;
    f->b = malloc(f->len);
    assert_non_null(f->b);
    assert_int_equal(fread(f->b, 1, f->len, in), f->len);
    assert_int_equal(fclose(in), 0);
}

/* The child stands at the begin or at the end of a system call. */
static void note_call(struct left *l, pid_t child, int n)
{
    struct __ptrace_syscall_info info = {0};

    assert_true(ptrace(PTRACE_GET_SYSCALL_INFO, child, sizeof(info), &info) > 0);
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
        l->call = (long)info.entry.nr;
        if (++l->entered == n - 1)
            take_file(&l->before);
    } else if (info.op == PTRACE_SYSCALL_INFO_EXIT && info.exit.rval == 0 &&
               (l->call == SYS_fsync || l->call == SYS_fdatasync)) {
        take_file(&l->safe);
    }
}

/* True: it was killed as it entered call number n. False: it ended before. */
static bool kill_at(const struct fault *f, int n, struct left *l)
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (!child)
        repair_file(f->flags);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_TRACESYSGOOD), 0);
    while (WIFSTOPPED(status) && l->entered < n) {
        assert_int_equal(ptrace(PTRACE_SYSCALL, child, NULL, NULL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFSTOPPED(status))
            note_call(l, child, n);
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

/* locked: by the file's own backend, so that a lock that is left shows. */
static void check_state(struct pic *p, const struct bytes *s, bool locked, const struct fault *f,
                        int n)
{
    if (locked) {
        assert_int_equal(zqcow2_file_open(path, ZQCOW2_FILE_RDWR, NULL, &p->be), 0);
    } else {
        assert_int_equal(zqcow2_mem_open(s->len, NULL, &p->be), 0);
        assert_int_equal(zqcow2_backend_write(p->be, s->b, (size_t)s->len, 0), 0);
    }
    if (pic_check(p, 0) != 0)
        fail_msg("%s, killed at call %d: %s", f->name, n, p->err.text);
    pic_find(p);
}

static void expect_data(struct pic *p, const struct fault *f, int n)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;
    uint8_t b[512];

    o.flags = ZQCOW2_OPEN_BORROW;
    if (zqcow2_open(p->be, &o, &img, &p->err) != 0)
        fail_msg("%s, killed at call %d: %s", f->name, n, p->err.text);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(zqcow2_read(img, b, sizeof(b), fault_data[i].guest), 0);
        if (b[0] != fault_data[i].fill || b[511] != fault_data[i].fill)
            fail_msg("%s, killed at call %d: 0x%llx reads otherwise", f->name, n,
                     (unsigned long long)fault_data[i].guest);
    }
    assert_int_equal(zqcow2_close(img), 0);
}

/* p: as check_state() left it; freed. */
static void expect_repairable(struct pic *p, const struct fault *f, int n, uint64_t corruptions,
                              const char *which)
{
    if (p->res.corruptions > corruptions)
        fail_msg("%s, killed at call %d, %s: more corruptions: %s", f->name, n, which, p->found);
    if (!f->raise && strstr(p->found, "too low")) /* what was counted right stays so */
        fail_msg("%s, killed at call %d, %s: %s", f->name, n, which, p->found);
    assert_int_equal(pic_check(p, f->flags), 0);
    expect_data(p, f, n);
    assert_int_equal(pic_check(p, f->flags), 0);
    if (strstr(p->found, "repaired"))
        fail_msg("%s, killed at call %d, %s: a second repair: %s", f->name, n, which, p->found);
    pic_find(p);
    if (f->make == keep_unknown && pic_refcount(p, kept) != 1)
        fail_msg("%s, killed at call %d, %s: not counted any more", f->name, n, which);
    /* a snapshot's wrong entry stays, and may hide what it refers to; leaks of unknown owners */
    if (f->make != share_wrong_table && f->make != keep_unknown &&
        (p->res.corruptions || p->res.leaked_clusters))
        fail_msg("%s, killed at call %d, %s: is left: %s", f->name, n, which, p->found);
    pic_free(p);
}

/* Where leaks alone are left, and the repair had begun, the next writable open takes them back. */
static void expect_recovered(struct pic *p, const struct fault *f, int n, bool begun,
                             const char *which)
{
    bool opens = !(pic_get(p, 72, 8) & 2) && f->make != name_bitmaps_alike;

    if (p->res.corruptions == 0 && (begun || pic_get(p, p->mark, 1)) && opens) {
        assert_int_equal(pic_open(p, ZQCOW2_OPEN_RDWR), 0);
        assert_int_equal(pic_check(p, 0), 0);
        if (p->res.corruptions || (p->res.leaked_clusters && f->make != keep_unknown))
            fail_msg("%s, killed at call %d, %s: opened and closed, then: %s", f->name, n, which,
                     p->found);
    }
    pic_free(p);
}

struct run {
    const struct fault *fault;
    uint64_t corruptions;
    struct bytes was;
};

static void expect_state(const struct run *r, int n, const struct bytes *s, const char *which,
                         bool locked)
{
    bool begun = s->len != r->was.len || memcmp(s->b, r->was.b, s->len);
    struct pic p = {0};

    check_state(&p, s, false, r->fault, n);
    expect_recovered(&p, r->fault, n, begun, which);
    p = (struct pic){0};
    check_state(&p, s, locked, r->fault, n);
    expect_repairable(&p, r->fault, n, r->corruptions, which);
}

/* Of what was not flushed, only what the last call wrote. */
static void keep_last(struct left *l, const struct bytes *now)
{
    struct bytes *s = &l->safe;

    for (uint64_t i = 0; l->before.b && i < now->len; i++) {
        if (i < l->before.len && l->before.b[i] == now->b[i])
            continue;
        if (i >= s->len) {
            s->b = realloc(s->b, i + 1);
            assert_non_null(s->b);
            memset(s->b + s->len, 0, i + 1 - s->len);
            s->len = i + 1;
        }
        s->b[i] = now->b[i];
    }
}

/* Killed, the file is what it was written to be; when the power goes, too, not all of it is. */
static bool one(const struct run *r, int n)
{
    struct left l = {{NULL, 0}, {NULL, 0}, 0, 0};
    struct bytes now = {NULL, 0};
    bool killed;

    put_file(r->was.b, r->was.len);
    take_file(&l.safe);
    killed = kill_at(r->fault, n, &l);
    take_file(&now);
    expect_state(r, n, &now, "all of it written", true);
    expect_state(r, n, &l.safe, "what was flushed", false);
    keep_last(&l, &now);
    expect_state(r, n, &l.safe, "and the last write", false);
    free(l.safe.b);
    free(l.before.b);
    free(now.b);
    return killed;
}

static void test_kill(void **state)
{
    int kills = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct run r = {.fault = &kinds[i]};
        struct pic p;

        fault_image(&p, 4096, 16);
        kinds[i].make(&p);
        assert_int_equal(pic_check(&p, 0), 0);
        r.corruptions = p.res.corruptions;
        r.was.b = pic_bytes(&p, &r.was.len);
        for (int n = 1; one(&r, n); n++)
            kills++;
        free(r.was.b);
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
