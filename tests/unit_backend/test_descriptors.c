/* SPDX-License-Identifier: MIT */
/*
 * Descriptors of the file backends in a process that has closed some, was killed, or shares them:
 * none of ours takes the place of a standard stream, and a lock is the backend's alone.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <zqcow2/queue.h>

#include "device/backend.h"
#include "backend/file.h"
#include "count_hooks.h"

static char path[] = "zq-descriptors-XXXXXX";

typedef int open_fn(const char *path, unsigned flags, const struct zqcow2_hooks *hooks,
                    struct zqcow2_backend **be);
typedef int from_fd_fn(int fd, const struct zqcow2_hooks *hooks, struct zqcow2_backend **be);

static const struct {
    const char *name;
    open_fn *open;
    from_fd_fn *from_fd;
} kinds[] = {
    {"file", zqcow2_file_open, zqcow2_file_from_fd},
    {"uring", zqcow2_uring_open, zqcow2_uring_from_fd},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static bool works(size_t kind)
{
    struct zqcow2_backend *be;

    if (kinds[kind].open(path, 0, NULL, &be) < 0)
        return false;
    zqcow2_backend_close(be);
    return true;
}

/* Runs fn in a process of its own; its result. */
static int in_child(int (*fn)(size_t kind, unsigned arg), size_t kind, unsigned arg)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        alarm(60);
        _exit(fn(kind, arg));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- standard streams ---- */

#define STEP(x) \
    do { \
        if (!(x)) \
            return __LINE__ % 250 + 1; \
    } while (0)

static bool is_closed(int fd)
{
    return fcntl(fd, F_GETFD) < 0 && errno == EBADF;
}

/* Closes those of 0, 1 and 2 whose bit is set. */
static void close_streams(unsigned mask)
{
    for (int fd = 0; fd < 3; fd++) {
        if (mask & 1u << fd)
            close(fd);
    }
}

static bool stay_closed(unsigned mask)
{
    for (int fd = 0; fd < 3; fd++) {
        if (mask & 1u << fd && !is_closed(fd))
            return false;
    }
    return true;
}

static int image_on_closed_streams(size_t kind, unsigned mask)
{
    struct zqcow2_create_options co = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_open_options oo = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be = NULL;
    struct zqcow2_image *img = NULL;
    struct zqcow2_queue *q = NULL;

    close_streams(mask);
    STEP(kinds[kind].open(path, ZQCOW2_FILE_RDWR, NULL, &be) == 0);
    STEP(stay_closed(mask));
    co.virtual_size = 1 << 20;
    co.flags = ZQCOW2_CREATE_FORCE;
    STEP(zqcow2_create(be, &co, NULL) == 0);
    oo.flags = ZQCOW2_OPEN_RDWR;
    STEP(zqcow2_open(be, &oo, &img, NULL) == 0);
    STEP(zqcow2_queue_open(img, 4, &q) == 0);
    STEP(zqcow2_queue_fd(q) > 2);
    STEP(stay_closed(mask));
    STEP(zqcow2_queue_close(q) == 0);
    STEP(zqcow2_close(img) == 0);
    STEP(stay_closed(mask));
    return 0;
}

static int from_a_stream(size_t kind, unsigned mask)
{
    struct zqcow2_backend *be = NULL;
    struct count_hooks c;
    int fd;

    close_streams(mask);
    fd = open(path, O_RDWR | O_CLOEXEC);
    STEP(mask ? fd < 3 : fd >= 3);
    for (int64_t n = 1; n <= 2; n++) {
        count_init(&c);
        c.fail_at = n;
        STEP(kinds[kind].from_fd(fd, &c.hooks, &be) == -ENOMEM);
        STEP(!is_closed(fd)); /* still the caller's */
    }
    STEP(kinds[kind].from_fd(fd, NULL, &be) == 0);
    STEP(stay_closed(mask));
    STEP(zqcow2_backend_write(be, "x", 1, 0) == 0);
    zqcow2_backend_close(be);
    STEP(is_closed(fd));
    return 0;
}

static void test_closed_streams(void **state)
{
    (void)state;
    for (size_t k = 0; k < KINDS; k++) {
        for (unsigned mask = 0; works(k) && mask < 8; mask++) {
            int rc = in_child(image_on_closed_streams, k, mask);

            if (rc == 0)
                rc = in_child(from_a_stream, k, mask);
            if (rc)
                fail_msg("%s, streams closed: %x: %d (line %% 250 + 1, or 128 + signal)",
                         kinds[k].name, mask, rc);
        }
    }
}

/* ---- locks ---- */

/* A process that does as `fn` says to a descriptor or the path, says y or n, and waits. */
struct holder {
    pid_t pid;
    int out;
};

static struct holder hold(size_t kind, unsigned flags, int fd)
{
    struct holder h = {.pid = -1};
    struct zqcow2_backend *be = NULL;
    int p[2], rc;
    char c = 0;

    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    h.pid = fork();
    if (h.pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        rc = fd < 0 ? kinds[kind].open(path, flags, NULL, &be) : kinds[kind].from_fd(fd, NULL, &be);
        c = rc == 0 && zq_be_lock(be, ZQCOW2_LOCK_EXCLUSIVE) == 0 ? 'y' : 'n';
        if (write(p[1], &c, 1) == 1)
            pause();
        _exit(1);
    }
    close(p[1]);
    h.out = p[0];
    assert_int_equal(read(h.out, &c, 1), 1);
    if (c != 'y')
        fail_msg("%s: the other process has no lock", kinds[kind].name);
    return h;
}

static void kill_holder(struct holder *h)
{
    assert_int_equal(kill(h->pid, SIGKILL), 0);
    assert_int_equal(waitpid(h->pid, NULL, 0), h->pid);
    close(h->out);
}

/* A lock ends with its process, not when the kernel has taken the process's ring down. */
static void test_killed_holder(void **state)
{
    static const unsigned flags[] = {ZQCOW2_FILE_RDWR, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_DIRECT};
    struct zqcow2_backend *be = NULL;

    (void)state;
    assert_int_equal(zqcow2_file_open(path, ZQCOW2_FILE_RDWR, NULL, &be), 0);
    for (unsigned i = 0; i < 40; i++) {
        size_t kind = i & 1;
        struct holder h;
        int rc;

        if (!works(kind))
            continue;
        h = hold(kind, flags[i >> 1 & 1], -1);
        assert_int_equal(zq_be_lock(be, ZQCOW2_LOCK_EXCLUSIVE), -EAGAIN);
        kill_holder(&h);
        rc = zq_be_lock(be, ZQCOW2_LOCK_EXCLUSIVE);
        if (rc != 0)
            fail_msg("try %u, %s: %s", i, kinds[kind].name, strerror(-rc));
        assert_int_equal(zq_be_lock(be, ZQCOW2_LOCK_NONE), 0);
    }
    zqcow2_backend_close(be);
}

/* Two processes with copies of one descriptor: one of them has the lock. */
static void test_copied_descriptor(void **state)
{
    (void)state;
    for (size_t k = 0; k < KINDS; k++) {
        struct zqcow2_backend *be = NULL;
        int fd = open(path, O_RDWR | O_CLOEXEC);
        struct holder h;

        if (!works(k)) {
            close(fd);
            continue;
        }
        h = hold(k, 0, fd);
        assert_int_equal(kinds[k].from_fd(fd, NULL, &be), 0);
        assert_int_equal(zq_be_lock(be, ZQCOW2_LOCK_EXCLUSIVE), -EAGAIN);
        assert_int_equal(zq_be_lock(be, ZQCOW2_LOCK_SHARED), -EAGAIN);
        kill_holder(&h);
        assert_int_equal(zq_be_lock(be, ZQCOW2_LOCK_EXCLUSIVE), 0);
        zqcow2_backend_close(be);
    }
}

/* The descriptor that was copied, and its copy, in one process. */
static void test_duplicate(void **state)
{
    int fd = open(path, O_RDWR | O_CLOEXEC), copy = dup(fd);
    struct zqcow2_backend *a = NULL, *b = NULL;

    (void)state;
    assert_int_equal(zqcow2_file_from_fd(fd, NULL, &a), 0);
    assert_int_equal(zqcow2_file_from_fd(copy, NULL, &b), 0);
    assert_int_equal(zq_be_lock(a, ZQCOW2_LOCK_EXCLUSIVE), 0);
    assert_int_equal(zq_be_lock(b, ZQCOW2_LOCK_EXCLUSIVE), -EAGAIN);
    zqcow2_backend_close(b);
    assert_int_equal(zqcow2_file_open(path, 0, NULL, &b), 0);
    assert_int_equal(zq_be_lock(b, ZQCOW2_LOCK_SHARED), -EAGAIN); /* a has it still */
    zqcow2_backend_close(a);
    assert_int_equal(zq_be_lock(b, ZQCOW2_LOCK_SHARED), 0);
    zqcow2_backend_close(b);
}

/*
 * What a dead process has at the device keeps its description, so that one is locked, too, and
 * changes of the lock do not meet it.
 */
static void test_direct_locks_both(void **state)
{
    struct zqcow2_backend *a = NULL, *b = NULL;
    struct zq_file *f;
    int own;

    (void)state;
    if (zqcow2_file_open(path, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_DIRECT, NULL, &a) < 0) {
        print_message("no O_DIRECT on this file system\n");
        skip();
    }
    assert_int_equal(zqcow2_file_open(path, ZQCOW2_FILE_RDWR, NULL, &b), 0);
    assert_int_equal(zq_be_lock(a, ZQCOW2_LOCK_SHARED), 0);
    assert_int_equal(zq_be_lock(a, ZQCOW2_LOCK_EXCLUSIVE), 0);
    assert_int_equal(zq_be_lock(a, ZQCOW2_LOCK_EXCLUSIVE), 0);
    f = a->self;
    own = f->lock_fd;
    assert_true(own > 2);
    f->lock_fd = -1;
    close(own);
    assert_int_equal(zq_be_lock(b, ZQCOW2_LOCK_SHARED), -EAGAIN);
    zqcow2_backend_close(a);
    assert_int_equal(zq_be_lock(b, ZQCOW2_LOCK_EXCLUSIVE), 0);
    zqcow2_backend_close(b);
}

static void count_log(void *ctx, int level, const char *text)
{
    if (level == ZQCOW2_LOG_WARN && strstr(text, "shares its lock"))
        (*(int *)ctx)++;
}

static int with_no_descriptor_left(size_t kind, unsigned arg)
{
    struct zqcow2_hooks hooks = ZQCOW2_HOOKS_INIT;
    struct zqcow2_backend *a = NULL, *b = NULL;
    struct rlimit none = {0, 0};
    int logged = 0, fd = open(path, O_RDWR | O_CLOEXEC);

    (void)kind;
    (void)arg;
    hooks.ctx = &logged;
    hooks.log = count_log;
    STEP(zqcow2_file_open(path, 0, &hooks, &b) == 0);
    STEP(setrlimit(RLIMIT_NOFILE, &none) == 0);
    STEP(zqcow2_file_from_fd(fd, &hooks, &a) == 0);
    STEP(zq_be_lock(b, ZQCOW2_LOCK_SHARED) == 0);
    STEP(zq_be_lock(b, ZQCOW2_LOCK_NONE) == 0);
    STEP(logged == 0); /* reopened: nothing to report */
    STEP(zq_be_lock(a, ZQCOW2_LOCK_EXCLUSIVE) == 0);
    STEP(logged == 1);
    STEP(zq_be_lock(b, ZQCOW2_LOCK_SHARED) == -EAGAIN);
    zqcow2_backend_close(a);
    STEP(logged == 1);
    STEP(zq_be_lock(b, ZQCOW2_LOCK_SHARED) == 0);
    zqcow2_backend_close(b);
    return 0;
}

static void test_not_opened_anew(void **state)
{
    (void)state;
    assert_int_equal(in_child(with_no_descriptor_left, 0, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_closed_streams),    cmocka_unit_test(test_killed_holder),
        cmocka_unit_test(test_copied_descriptor), cmocka_unit_test(test_duplicate),
        cmocka_unit_test(test_direct_locks_both), cmocka_unit_test(test_not_opened_anew),
    };
    int fd = mkstemp(path), failed;

    if (fd < 0 || close(fd) < 0) {
        perror(path);
        return 1;
    }
    alarm(120);
    failed = cmocka_run_group_tests_name("descriptors", tests, NULL, NULL);
    unlink(path);
    return failed;
}
