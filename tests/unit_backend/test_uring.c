/* SPDX-License-Identifier: MIT */
/* The io_uring backend by itself: its descriptor, wake-ups, full disks, no holes, sandboxes. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "async_harness.h"
#include "count_hooks.h"
#include "private_fs.h"

static char path[] = "zq-uring-XXXXXX";

static struct zqcow2_backend *open_plain_uring(void)
{
    struct zqcow2_backend *be = NULL;
    int rc;

    atomic_store(&nr_done, 0);
    memset(requests, 0, sizeof(requests));
    rc = zqcow2_uring_open(path, ZQCOW2_FILE_RDWR, NULL, &be);
    if (rc == -ENOSYS) {
        print_message("no io_uring here\n");
        skip();
    }
    assert_int_equal(rc, 0);
    return be;
}

static void *poll_for_ever(void *arg)
{
    struct zqcow2_backend *be = arg;

    return (void *)(intptr_t)be->ops.poll(be->self, -1);
}

static void test_wake(void **state)
{
    struct zqcow2_backend *be = open_plain_uring();
    pthread_t t;
    void *rc;

    (void)state;
    for (int i = 0; i < 200; i++) {
        assert_int_equal(pthread_create(&t, NULL, poll_for_ever, be), 0);
        if (i % 2)
            usleep(500);
        be->ops.wake(be->self);
        alarm(30); /* a lost wake-up ends the test here */
        pthread_join(t, &rc);
        alarm(0);
        assert_int_equal((intptr_t)rc, 0);
    }
    assert_int_equal(be->ops.poll(be->self, 1), 0);
    zqcow2_backend_close(be);
}

static void test_time_limit(void **state)
{
    struct zqcow2_backend *be = open_plain_uring();
    struct timespec a, b;

    (void)state;
    clock_gettime(CLOCK_MONOTONIC, &a);
    alarm(30);
    assert_int_equal(be->ops.poll(be->self, 1200), 0);
    alarm(0);
    clock_gettime(CLOCK_MONOTONIC, &b);
    assert_true((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000 >= 1199);
    zqcow2_backend_close(be);
}

/* Completions interrupt system calls as signals do. */
static int readable(int fd, int timeout_ms)
{
    struct pollfd p = {fd, POLLIN, 0};
    int n;

    do {
        n = poll(&p, 1, timeout_ms);
    } while (n < 0 && errno == EINTR);
    return n;
}

static void test_fd_becomes_readable(void **state)
{
    struct zqcow2_backend *be = open_plain_uring();
    int fd = be->ops.fd(be->self);

    (void)state;
    assert_int_equal(readable(fd, 0), 0);
    start(be, 0, ZQCOW2_IO_WRITE, 0, SLOT_BYTES);
    assert_int_equal(readable(fd, 10), 0);
    kick(be);
    assert_int_equal(readable(fd, 10000), 1);
    assert_int_equal(atomic_load(&nr_done), 0);
    assert_int_equal(be->ops.poll(be->self, 0), 0);
    assert_int_equal(atomic_load(&nr_done), 1);
    assert_int_equal(readable(fd, 0), 0);
    zqcow2_backend_close(be);
}

/* A file in a file system of its own, reached by path. -1: not here, and printed why. */
static int private_file(const char *type, const char *size, char *file, size_t room)
{
    int mnt = private_fs(type, size);
    int fd = mnt < 0 ? -1 : openat(mnt, "f", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        print_message("no %s here: %s\n", type, strerror(errno));
        return -1;
    }
    close(fd);
    snprintf(file, room, "/proc/self/fd/%d/f", mnt);
    return mnt;
}

/* A lease for writing is granted only while nobody else has the file open. */
static void test_close_lets_go(void **state)
{
    char file[64];
    int mnt = private_file("tmpfs", NULL, file, sizeof(file)), fd;

    (void)state;
    if (mnt < 0)
        skip();
    zqcow2_backend_close(open_plain_uring());
    for (unsigned i = 0; i < 50; i++) {
        struct zqcow2_backend *be = NULL;

        atomic_store(&nr_done, 0);
        assert_int_equal(zqcow2_uring_open(file, ZQCOW2_FILE_RDWR, NULL, &be), 0);
        start(be, 0, ZQCOW2_IO_WRITE, 0, SLOT_BYTES);
        kick(be);
        wait_done(be, 1);
        zqcow2_backend_close(be);
        fd = open(file, O_RDWR | O_CLOEXEC);
        assert_int_equal(fcntl(fd, F_SETLEASE, F_WRLCK), 0);
        close(fd);
    }
    close(mnt);
}

static bool kernel_is(int major, int minor)
{
    struct utsname u;
    int a = 0, b = 0;

    return uname(&u) == 0 && sscanf(u.release, "%d.%d", &a, &b) == 2 &&
           (a > major || (a == major && b >= minor));
}

/* Growing in the ring where it can, else by the blocking callback. */
static void test_truncate(void **state)
{
    struct zqcow2_backend *be = open_plain_uring();
    uint64_t bytes, had = 0;

    (void)state;
    for (unsigned i = 1; i <= 3; i++) {
        struct request *r = &requests[0];
        uint64_t want = i % 2 * 1234567 + i;
        int rc;

        memset(r, 0, sizeof(*r));
        atomic_store(&nr_done, 0);
        r->io.kind = ZQCOW2_IO_TRUNCATE;
        r->io.offset = want;
        rc = be->ops.submit(be->self, &r->io);
        if (rc == -EOPNOTSUPP) {
            assert_true(want < had || !kernel_is(6, 9));
            rc = be->ops.truncate(be->self, want);
        } else {
            kick(be);
            wait_done(be, 1);
            rc = r->ret;
        }
        assert_int_equal(rc, 0);
        assert_int_equal(be->ops.flush(be->self), 0); /* no other program has cut it */
        assert_int_equal(zqcow2_backend_length(be, &bytes), 0);
        assert_int_equal(bytes, want);
        had = want;
    }
    zqcow2_backend_close(be);
}

static void test_uring_refuses(void **state)
{
    struct zqcow2_backend *be = open_plain_uring();
    struct zqcow2_io io = {.kind = ZQCOW2_IO_TRUNCATE, .offset = 4096};
    struct count_hooks c;

    (void)state;
    io.offset = (uint64_t)INT64_MAX + 1;
    assert_int_equal(be->ops.submit(be->self, &io), -EOPNOTSUPP);
    io.kind = 77;
    assert_int_equal(be->ops.submit(be->self, &io), -EOPNOTSUPP);
    io = (struct zqcow2_io){.kind = ZQCOW2_IO_ZERO, .offset = UINT64_MAX - 511, .length = 512};
    assert_int_equal(be->ops.submit(be->self, &io), -EOPNOTSUPP);
    zqcow2_backend_close(be);
    assert_int_equal(zqcow2_uring_open("no such file", 0, NULL, &be), -ENOENT);
    assert_int_equal(zqcow2_uring_open(".", 0, NULL, &be), -EISDIR);
    assert_int_equal(zqcow2_uring_open(path, 1u << 30, NULL, &be), -EINVAL);
    assert_int_equal(zqcow2_uring_open(NULL, 0, NULL, &be), -EINVAL);
    assert_int_equal(zqcow2_uring_open(path, 0, NULL, NULL), -EINVAL);
    for (int64_t n = 1; n <= 2; n++) {
        count_init(&c);
        c.fail_at = n;
        assert_int_equal(zqcow2_uring_open(path, 0, &c.hooks, &be), -ENOMEM);
        assert_int_equal(c.bytes, 0);
    }
    assert_int_equal(zqcow2_uring_open(path, 0, NULL, &be), 0);
    assert_false(zq_be_writable(be));
    zqcow2_backend_close(be);
}

static void test_from_fd(void **state)
{
    struct zqcow2_backend *be = NULL;
    struct count_hooks c;
    int fd, pipe_fd[2];

    (void)state;
    zqcow2_backend_close(open_plain_uring());
    assert_int_equal(zqcow2_uring_from_fd(-1, NULL, &be), -EBADF);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(zqcow2_uring_from_fd(fd, NULL, &be), -EINVAL);
    assert_int_equal(close(fd), 0); /* it was still ours */
    assert_int_equal(pipe(pipe_fd), 0);
    assert_int_equal(zqcow2_uring_from_fd(pipe_fd[0], NULL, &be), -EINVAL);
    close(pipe_fd[0]);
    close(pipe_fd[1]);

    fd = open(path, O_RDWR | O_CLOEXEC);
    for (int64_t n = 1; n <= 2; n++) {
        count_init(&c);
        c.fail_at = n;
        assert_int_equal(zqcow2_uring_from_fd(fd, &c.hooks, &be), -ENOMEM);
        assert_int_equal(c.bytes, 0);
        assert_true(fcntl(fd, F_GETFD) >= 0);
    }
    assert_int_equal(zqcow2_uring_from_fd(fd, NULL, NULL), -EINVAL);
    assert_int_equal(zqcow2_uring_from_fd(fd, NULL, &be), 0);
    assert_true(zq_be_writable(be));
    start(be, 0, ZQCOW2_IO_WRITE, 0, SLOT_BYTES);
    kick(be);
    wait_done(be, 1);
    assert_int_equal(requests[0].ret, 0);
    zqcow2_backend_close(be);
    assert_int_equal(fcntl(fd, F_GETFD), -1);

    fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(zqcow2_uring_from_fd(fd, NULL, &be), 0);
    assert_false(zq_be_writable(be));
    zqcow2_backend_close(be);
}

static void test_full_disk(void **state)
{
    char file[64];
    int mnt = private_file("tmpfs", "64k", file, sizeof(file));
    struct zqcow2_backend *be;
    unsigned failed = 0;

    (void)state;
    if (mnt < 0)
        skip();
    zqcow2_backend_close(open_plain_uring());
    assert_int_equal(zqcow2_uring_open(file, ZQCOW2_FILE_RDWR, NULL, &be), 0);
    for (unsigned i = 0; i < 64; i++)
        start(be, i, ZQCOW2_IO_WRITE, (uint64_t)i * SLOT_BYTES, SLOT_BYTES);
    kick(be);
    wait_done(be, 64);
    for (unsigned i = 0; i < 64; i++) {
        assert_true(requests[i].ret == 0 || requests[i].ret == -ENOSPC);
        failed += requests[i].ret != 0;
    }
    assert_int_equal(failed, 64 - 16);
    zqcow2_backend_close(be);
    close(mnt);
}

/* ramfs cannot punch holes. The requests that find it out succeed all the same, by writing. */
static void test_no_holes(void **state)
{
    char file[64];
    int mnt = private_file("ramfs", NULL, file, sizeof(file));
    struct zqcow2_backend *be;
    uint8_t back[2 * SLOT_BYTES];

    (void)state;
    if (mnt < 0)
        skip();
    zqcow2_backend_close(open_plain_uring());
    assert_int_equal(zqcow2_uring_open(file, ZQCOW2_FILE_RDWR, NULL, &be), 0);
    memset(back, 0xaa, sizeof(back));
    assert_int_equal(zqcow2_backend_write(be, back, sizeof(back), 0), 0);
    start(be, 0, ZQCOW2_IO_ZERO, 512, 6000);
    start(be, 1, ZQCOW2_IO_DISCARD, 7000, 100);
    kick(be);
    wait_done(be, 2);
    assert_int_equal(requests[0].ret, 0);
    assert_int_equal(requests[1].ret, -EOPNOTSUPP);
    assert_int_equal(zqcow2_backend_read(be, back, sizeof(back), 0), 0);
    for (unsigned i = 0; i < sizeof(back); i++)
        assert_int_equal(back[i], i < 512 || i >= 6512 ? 0xaa : 0);
    assert_int_equal(be->ops.submit(be->self, &requests[1].io), -EOPNOTSUPP);
    zqcow2_backend_close(be);
    close(mnt);
}

/* From now on this process may not call io_uring_enter. */
static int forbid_ring(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {sizeof(code) / sizeof(code[0]), code};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

/* In a child: a sandbox closes after the backend was opened. Requests still reach the file. */
static int sandboxed(struct zqcow2_backend *be)
{
    uint8_t back[SLOT_BYTES];

    if (forbid_ring() < 0)
        return 77;
    for (unsigned i = 0; i < SLOTS; i++) {
        memset(buffers[i], (int)i, SLOT_BYTES);
        requests[i].io = (struct zqcow2_io){.kind = ZQCOW2_IO_WRITE,
                                            .iovcnt = 1,
                                            .offset = (uint64_t)i * SLOT_BYTES,
                                            .length = SLOT_BYTES,
                                            .iov = requests[i].iov};
        requests[i].iov[0] = (struct iovec){buffers[i], SLOT_BYTES};
        if (be->ops.submit(be->self, &requests[i].io))
            return 2;
    }
    kick(be);
    if (atomic_load(&nr_done) != SLOTS)
        return 3;
    for (unsigned i = 0; i < SLOTS; i++) {
        if (requests[i].ret || requests[i].done != 1)
            return 4;
        if (zqcow2_backend_read(be, back, SLOT_BYTES, (uint64_t)i * SLOT_BYTES) ||
            memcmp(back, buffers[i], SLOT_BYTES))
            return 5;
    }
    if (be->ops.submit(be->self, &requests[0].io) != -EOPNOTSUPP)
        return 6;
    if (be->ops.poll(be->self, 20) != 0)
        return 7;
    be->ops.wake(be->self);
    if (be->ops.poll(be->self, -1) != 0)
        return 8;
    zqcow2_backend_close(be);
    if (zqcow2_uring_open(path, ZQCOW2_FILE_RDWR, NULL, &be) != -ENOSYS)
        return 9;
    return 0;
}

static void test_sandbox(void **state)
{
    pid_t pid;
    int status;

    (void)state;
    zqcow2_backend_close(open_plain_uring());
    pid = fork();
    if (pid == 0) {
        alarm(60);
        _exit(sandboxed(open_plain_uring()));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("no filters of system calls here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wake),
        cmocka_unit_test(test_time_limit),
        cmocka_unit_test(test_fd_becomes_readable),
        cmocka_unit_test(test_close_lets_go),
        cmocka_unit_test(test_truncate),
        cmocka_unit_test(test_uring_refuses),
        cmocka_unit_test(test_from_fd),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_no_holes),
        cmocka_unit_test(test_sandbox),
    };
    int fd = mkstemp(path), failed;

    if (fd < 0 || close(fd) < 0) {
        perror(path);
        return 1;
    }
    failed = cmocka_run_group_tests_name("uring", tests, NULL, NULL);
    unlink(path);
    return failed;
}
