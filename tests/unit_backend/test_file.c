/* SPDX-License-Identifier: MIT */
/* The file backend: opening, transfers, sizes, holes, O_DIRECT, block devices, locks. */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "device/backend.h"
#include "backend/file.h"
#include "count_hooks.h"
#include "private_fs.h"

#define PATH "file.img"

/* Each test has an empty directory of its own, below the current one, as its current directory. */
static char home[4096];

static int setup(void **state)
{
    char dir[] = "zq-file-XXXXXX";

    (void)state;
    return !getcwd(home, sizeof(home)) || !mkdtemp(dir) || chdir(dir) < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    char here[4096];

    (void)state;
    if (unlink(PATH) < 0 && errno != ENOENT)
        return -1;
    if (!getcwd(here, sizeof(here)) || chdir(home) < 0)
        return -1;
    return rmdir(here);
}

static struct zqcow2_backend *open_file(unsigned flags)
{
    struct zqcow2_backend *be = NULL;
    int rc = zqcow2_file_open(PATH, flags, NULL, &be);

    if (rc < 0)
        fail_msg("zqcow2_file_open(%u): %s", flags, strerror(-rc));
    return be;
}

static struct zqcow2_backend *new_file(void)
{
    return open_file(ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE | ZQCOW2_FILE_EXCLUSIVE);
}

static int fd_of(struct zqcow2_backend *be)
{
    return ((struct zq_file *)be->self)->fd;
}

static uint64_t length_of(struct zqcow2_backend *be)
{
    uint64_t n = 0;

    assert_int_equal(zqcow2_backend_length(be, &n), 0);
    return n;
}

static void test_open_flags(void **state)
{
    struct zqcow2_backend *be;

    (void)state;
    assert_int_equal(zqcow2_file_open(PATH, ZQCOW2_FILE_RDWR, NULL, &be), -ENOENT);
    assert_int_equal(zqcow2_file_open(PATH, ZQCOW2_FILE_CREATE, NULL, &be), -EINVAL);
    assert_int_equal(zqcow2_file_open(PATH, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_EXCLUSIVE, NULL, &be),
                     -EINVAL);
    assert_int_equal(zqcow2_file_open(PATH, 1u << 20, NULL, &be), -EINVAL);
    assert_int_equal(zqcow2_file_open(NULL, 0, NULL, &be), -EINVAL);
    assert_int_equal(zqcow2_file_open(PATH, 0, NULL, NULL), -EINVAL);
    umask(022);
    be = new_file();
    struct stat st;
    assert_int_equal(stat(PATH, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644);
    assert_int_equal(fcntl(fd_of(be), F_GETFD), FD_CLOEXEC);
    assert_false(fcntl(fd_of(be), F_GETFL) & O_NONBLOCK);
    assert_true(zq_be_writable(be));
    zqcow2_backend_close(be);
    assert_int_equal(zqcow2_file_open(PATH,
                                      ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE | ZQCOW2_FILE_EXCLUSIVE,
                                      NULL, &be),
                     -EEXIST);
    be = open_file(0);
    assert_false(zq_be_writable(be));
    assert_int_equal(be->limits.caps, ZQCOW2_CAP_READ_ONLY);
    assert_int_equal(zqcow2_backend_write(be, "x", 1, 0), -EROFS);
    zqcow2_backend_close(be);
}

static void test_what_is_no_file(void **state)
{
    struct zqcow2_backend *be;

    (void)state;
    assert_int_equal(zqcow2_file_open(".", 0, NULL, &be), -EISDIR);
    assert_int_equal(zqcow2_file_open("/dev/null", 0, NULL, &be), -EINVAL);
    assert_int_equal(mkfifo(PATH, 0600), 0);
    alarm(20); /* opening must not wait for a writer */
    assert_int_equal(zqcow2_file_open(PATH, 0, NULL, &be), -EINVAL);
    alarm(0);
}

/* A descriptor is taken over on success only. */
static void test_from_fd(void **state)
{
    static const int refused[] = {O_WRONLY, O_RDWR | O_APPEND};
    struct zqcow2_backend *be;
    struct count_hooks c;
    int fd = open(PATH, O_RDWR | O_CREAT, 0600);

    (void)state;
    assert_int_equal(zqcow2_file_from_fd(fd, NULL, &be), 0);
    assert_true(zq_be_writable(be));
    zqcow2_backend_close(be);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    assert_int_equal(zqcow2_file_from_fd(fd, NULL, &be), -EBADF);
    assert_int_equal(zqcow2_file_from_fd(-1, NULL, &be), -EBADF);
    for (size_t i = 0; i < 2; i++) {
        fd = open(PATH, refused[i]);
        assert_int_equal(zqcow2_file_from_fd(fd, NULL, &be), -EINVAL);
        assert_int_equal(close(fd), 0);
    }
    fd = open(PATH, O_PATH);
    assert_int_equal(zqcow2_file_from_fd(fd, NULL, &be), -EBADF);
    assert_int_equal(close(fd), 0);
    fd = open(PATH, O_RDONLY | O_NONBLOCK);
    for (int64_t n = 1; n <= 2; n++) {
        count_init(&c);
        c.fail_at = n;
        assert_int_equal(zqcow2_file_from_fd(fd, &c.hooks, &be), -ENOMEM);
        assert_int_equal(c.bytes, 0);
    }
    c.fail_at = 0;
    assert_int_equal(zqcow2_file_from_fd(fd, &c.hooks, &be), 0);
    assert_false(zq_be_writable(be));
    zqcow2_backend_close(be);
    assert_int_equal(c.bytes, 0);
}

/* What fails on the way leaves no descriptor open. */
static void test_failure_closes(void **state)
{
    struct zqcow2_backend *be;
    struct count_hooks c;
    int next = dup(0);

    (void)state;
    close(next);
    for (int64_t n = 1; n <= 2; n++) {
        count_init(&c);
        c.fail_at = n;
        assert_int_equal(
            zqcow2_file_open(PATH, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE, &c.hooks, &be), -ENOMEM);
        assert_int_equal(c.bytes, 0);
        assert_int_equal(zqcow2_file_open(".", 0, NULL, &be), -EISDIR);
    }
    assert_int_equal(dup(0), next);
    close(next);
}

static void test_reads_beyond_the_end(void **state)
{
    struct zqcow2_backend *be = new_file();
    uint8_t buf[3000];

    (void)state;
    memset(buf, 0x77, sizeof(buf));
    assert_int_equal(zqcow2_backend_write(be, buf, 1000, 0), 0);
    assert_int_equal(length_of(be), 1000);
    assert_int_equal(zqcow2_backend_read(be, buf, sizeof(buf), 500), 0);
    for (size_t i = 0; i < sizeof(buf); i++)
        assert_int_equal(buf[i], i < 500 ? 0x77 : 0);
    memset(buf, 0x77, sizeof(buf));
    assert_int_equal(zqcow2_backend_read(be, buf, sizeof(buf), 1ull << 40), 0);
    assert_int_equal(buf[0] | buf[2999], 0);
    zqcow2_backend_close(be);
}

/* More elements than one system call takes, empty ones among them. */
static void test_long_vectors(void **state)
{
    enum { N = 2500 };
    static uint8_t out[N * 3], in[N * 3];
    static struct iovec iov[N];
    struct zqcow2_backend *be = new_file();
    size_t total = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = (uint8_t)(i * 31 + i / 251);
    for (size_t i = 0; i < N; i++) {
        iov[i] = (struct iovec){out + total, i % 4};
        total += i % 4;
    }
    assert_int_equal(be->ops.writev(be->self, iov, N, 777), 0);
    assert_int_equal(length_of(be), 777 + total);
    for (size_t i = 0; i < N; i++)
        iov[i].iov_base = in + ((uint8_t *)iov[i].iov_base - out);
    assert_int_equal(be->ops.readv(be->self, iov, N, 777), 0);
    assert_memory_equal(in, out, total);
    zqcow2_backend_close(be);
}

/* A size limit makes the kernel write in part; the rest of the transfer then fails. */
static void test_short_write_is_an_error(void **state)
{
    struct rlimit old, low;
    struct zqcow2_backend *be = new_file();
    uint8_t a[600], b[600];
    struct iovec iov[2] = {{a, sizeof(a)}, {b, sizeof(b)}};

    (void)state;
    memset(a, 1, sizeof(a));
    memset(b, 2, sizeof(b));
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = old;
    low.rlim_cur = 700;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    int rc = be->ops.writev(be->self, iov, 2, 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(rc, -EFBIG);
    assert_int_equal(length_of(be), 700);
    zqcow2_backend_close(be);
}

/* The part of a transfer that somebody else has done is left alone. */
static void test_rest_of_a_transfer(void **state)
{
    struct zqcow2_backend *be = new_file();
    uint8_t a[10], b[10], all[20];
    struct iovec iov[2] = {{a, 10}, {b, 10}};

    (void)state;
    for (uint64_t done = 0; done <= 20; done++) {
        assert_int_equal(zq_be_truncate(be, 0), 0);
        memset(a, 'a', 10);
        memset(b, 'b', 10);
        assert_int_equal(zq_file_write_rest(be->self, iov, 2, 100, done), 0);
        assert_int_equal(zqcow2_backend_read(be, all, 20, 100), 0);
        for (unsigned i = 0; i < 20; i++)
            assert_int_equal(all[i], i < done ? 0 : i < 10 ? 'a' : 'b');
        memset(all, 'c', 20);
        assert_int_equal(zqcow2_backend_write(be, all, 15, 100), 0);
        assert_int_equal(zq_be_truncate(be, 115), 0);
        assert_int_equal(zq_file_read_rest(be->self, iov, 2, 100, done), 0);
        for (unsigned i = 0; i < 20; i++)
            assert_int_equal((i < 10 ? a[i] : b[i - 10]), i < done ? (i < 10 ? 'a' : 'b') :
                                                          i < 15   ? 'c' :
                                                                     0);
    }
    zqcow2_backend_close(be);
}

static blkcnt_t blocks_of(struct zqcow2_backend *be)
{
    struct stat st;

    assert_int_equal(fsync(fd_of(be)), 0);
    assert_int_equal(fstat(fd_of(be), &st), 0);
    return st.st_blocks;
}

static void test_holes(void **state)
{
    static uint8_t buf[1 << 20];
    struct zqcow2_backend *be = new_file();

    (void)state;
    memset(buf, 5, sizeof(buf));
    assert_int_equal(zqcow2_backend_write(be, buf, sizeof(buf), 0), 0);
    blkcnt_t before = blocks_of(be);
    assert_int_equal(be->ops.discard(be->self, 256 << 10, 512 << 10), 0);
    assert_true(blocks_of(be) <= before - 1024);
    assert_int_equal(zq_be_zero(be, 100, 1000), 0);
    assert_int_equal(zq_be_zero(be, 2 << 20, 4096), 0);
    assert_int_equal(length_of(be), sizeof(buf));
    assert_int_equal(zqcow2_backend_read(be, buf, sizeof(buf), 0), 0);
    for (size_t i = 0; i < sizeof(buf); i++) {
        bool gone = (i >= 100 && i < 1100) || (i >= 256 << 10 && i < 768 << 10);
        assert_int_equal(buf[i], gone ? 0 : 5);
    }
    assert_int_equal(be->ops.discard(be->self, 0, 0), 0);
    assert_int_equal(be->ops.discard(be->self, INT64_MAX, 2), -EFBIG);
    assert_int_equal(zq_be_flush(be), 0);
    be->ops.invalidate(be->self);
    zqcow2_backend_close(be);
}

/* ramfs cannot punch: the backend learns it once, and zeroing falls back on writing. */
static void test_no_holes(void **state)
{
    struct zqcow2_backend *be;
    uint8_t buf[9000];
    int mnt = private_fs("ramfs", NULL), fd;

    (void)state;
    if (mnt < 0) {
        print_message("no ramfs here: %s\n", strerror(errno));
        skip();
    }
    fd = openat(mnt, "f", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(zqcow2_file_from_fd(fd, NULL, &be), 0);
    memset(buf, 5, sizeof(buf));
    assert_int_equal(zqcow2_backend_write(be, buf, sizeof(buf), 0), 0);
    assert_int_equal(be->ops.discard(be->self, 0, 4096), -EOPNOTSUPP);
    assert_true(((struct zq_file *)be->self)->no_punch);
    assert_int_equal(be->ops.zero(be->self, 0, 4096), -EOPNOTSUPP);
    assert_int_equal(zq_be_zero(be, 10, 8000), 0);
    assert_int_equal(zqcow2_backend_read(be, buf, sizeof(buf), 0), 0);
    for (size_t i = 0; i < sizeof(buf); i++)
        assert_int_equal(buf[i], i < 10 || i >= 8010 ? 5 : 0);
    zqcow2_backend_close(be);
    close(mnt);
}

static void test_truncate(void **state)
{
    struct zqcow2_backend *be = new_file();
    uint8_t buf[2000];

    (void)state;
    memset(buf, 5, sizeof(buf));
    assert_int_equal(zqcow2_backend_write(be, buf, sizeof(buf), 0), 0);
    assert_int_equal(zq_be_truncate(be, 1000), 0);
    assert_int_equal(zq_be_truncate(be, 1 << 20), 0);
    assert_int_equal(length_of(be), 1 << 20);
    assert_int_equal(zqcow2_backend_read(be, buf, sizeof(buf), 0), 0);
    for (size_t i = 0; i < sizeof(buf); i++)
        assert_int_equal(buf[i], i < 1000 ? 5 : 0);
    assert_int_equal(be->ops.truncate(be->self, UINT64_MAX), -EFBIG);
    zqcow2_backend_close(be);
}

/* Unaligned calls reach an O_DIRECT file as aligned ones, the end of the file included. */
static void test_direct(void **state)
{
    static uint8_t model[200000], buf[200000];
    struct zqcow2_backend *be = new_file();
    uint64_t s = 7;

    (void)state;
    assert_int_equal(zqcow2_backend_write(be, "tail", 4, 150001), 0);
    memcpy(model + 150001, "tail", 4);
    zqcow2_backend_close(be);
    if (zqcow2_file_open(PATH, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_DIRECT, NULL, &be) < 0) {
        print_message("no O_DIRECT on this file system\n");
        skip();
    }
    assert_true(be->limits.io_align >= 512 && be->limits.io_align <= 4096);
    for (int i = 0; i < 300; i++) {
        size_t off = next_random(&s) % 150000, len = next_random(&s) % 50000;
        if (i % 2) {
            memset(buf, i, len);
            memset(model + off, i, len);
            assert_int_equal(zqcow2_backend_write(be, buf, len, off), 0);
        } else {
            assert_int_equal(zqcow2_backend_read(be, buf, len, off), 0);
            if (memcmp(buf, model + off, len))
                fail_msg("seed 7, step %d: %zu bytes at %zu differ", i, len, off);
        }
    }
    assert_int_equal(length_of(be) % be->limits.io_align == 0 || length_of(be) == 150005, 1);
    zqcow2_backend_close(be);
}

/* ---- block devices ---- */

static int attach_loop(int file)
{
    char name[32];
    int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    int nr = ctl < 0 ? -1 : ioctl(ctl, LOOP_CTL_GET_FREE);
    int fd;

    if (ctl >= 0)
        close(ctl);
    if (nr < 0)
        return -1;
    snprintf(name, sizeof(name), "/dev/loop%d", nr);
    fd = open(name, O_RDWR | O_CLOEXEC);
    if (fd >= 0 && ioctl(fd, LOOP_SET_FD, file) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void fill(int fd, int value, size_t bytes)
{
    static uint8_t buf[65536];

    memset(buf, value, sizeof(buf));
    for (size_t off = 0; off < bytes; off += sizeof(buf))
        assert_int_equal(pwrite(fd, buf, sizeof(buf), (off_t)off), sizeof(buf));
}

/* [from, to) of the backend holds this value throughout. */
static void all_bytes_are(struct zqcow2_backend *be, uint64_t from, uint64_t to, int value)
{
    static uint8_t buf[1 << 20];

    assert_int_equal(zqcow2_backend_read(be, buf, to - from, from), 0);
    for (uint64_t i = 0; i < to - from; i++) {
        if (buf[i] != value)
            fail_msg("byte %llu is %d, not %d", (unsigned long long)(from + i), buf[i], value);
    }
}

/* The device is full of stale bytes. None may show after the length fell and grew again. */
static void test_block_device(void **state)
{
    enum { SIZE = 1 << 20 };
    int file = open(PATH, O_RDWR | O_CREAT | O_CLOEXEC, 0600), fd;
    struct zqcow2_backend *be;

    (void)state;
    assert_int_equal(ftruncate(file, SIZE), 0);
    fd = attach_loop(file);
    if (fd < 0) {
        print_message("no loop device: %s\n", strerror(errno));
        close(file);
        skip();
    }
    fill(fd, 0xee, SIZE);
    assert_int_equal(zqcow2_file_from_fd(dup(fd), NULL, &be), 0);
    assert_int_equal(length_of(be), SIZE);
    all_bytes_are(be, 0, SIZE, 0xee);
    assert_int_equal(zq_be_truncate(be, 10001), 0);
    assert_int_equal(length_of(be), 10001);
    all_bytes_are(be, 0, 10001, 0xee);
    all_bytes_are(be, 10001, SIZE, 0);
    assert_int_equal(zqcow2_backend_write(be, "\1\1\1", 3, 30000), 0);
    assert_int_equal(length_of(be), 30003);
    all_bytes_are(be, 10001, 30000, 0);
    all_bytes_are(be, 30000, 30003, 1);
    assert_int_equal(zq_be_truncate(be, SIZE), 0);
    all_bytes_are(be, 0, 10001, 0xee);
    all_bytes_are(be, 30003, SIZE, 0);
    assert_int_equal(zq_be_truncate(be, SIZE + 1), -ENOSPC);
    assert_int_equal(zqcow2_backend_write(be, "x", 1, SIZE), -ENOSPC);
    assert_int_equal(length_of(be), SIZE);

    /* The same where the device's driver cannot zero. */
    fill(fd, 0xdd, SIZE);
    ((struct zq_file *)be->self)->no_punch = true;
    assert_int_equal(zq_be_truncate(be, 70000), 0);
    assert_int_equal(zq_be_truncate(be, SIZE - 512), 0);
    all_bytes_are(be, 0, 70000, 0xdd);
    all_bytes_are(be, 70000, SIZE, 0);
    zqcow2_backend_close(be);
    ioctl(fd, LOOP_CLR_FD);
    close(fd);
    close(file);
}

/* ---- locks ---- */

static void test_locks(void **state)
{
    struct zqcow2_backend *a = new_file(), *b = open_file(0), *c = open_file(ZQCOW2_FILE_RDWR);

    (void)state;
    assert_int_equal(zq_be_lock(a, ZQCOW2_LOCK_EXCLUSIVE), 0);
    assert_int_equal(zq_be_lock(a, ZQCOW2_LOCK_EXCLUSIVE), 0);
    assert_int_equal(zq_be_lock(b, ZQCOW2_LOCK_SHARED), -EAGAIN);
    assert_int_equal(zq_be_lock(c, ZQCOW2_LOCK_EXCLUSIVE), -EAGAIN);
    assert_int_equal(zq_be_lock(a, ZQCOW2_LOCK_SHARED), 0);
    assert_int_equal(zq_be_lock(b, ZQCOW2_LOCK_SHARED), 0);
    assert_int_equal(zq_be_lock(c, ZQCOW2_LOCK_SHARED), 0);
    /* A failed change keeps what was held: c is still shared, so nobody can write. */
    assert_int_equal(zq_be_lock(c, ZQCOW2_LOCK_EXCLUSIVE), -EAGAIN);
    assert_int_equal(zq_be_lock(a, ZQCOW2_LOCK_NONE), 0);
    assert_int_equal(zq_be_lock(b, ZQCOW2_LOCK_NONE), 0);
    assert_int_equal(zq_be_lock(a, ZQCOW2_LOCK_EXCLUSIVE), -EAGAIN);
    assert_int_equal(zq_be_lock(b, ZQCOW2_LOCK_SHARED), 0);
    zqcow2_backend_close(b);
    zqcow2_backend_close(c); /* closing gives a lock up */
    assert_int_equal(zq_be_lock(a, ZQCOW2_LOCK_EXCLUSIVE), 0);
    assert_int_equal(zq_be_lock(a, 3), -EINVAL);
    assert_int_equal(zq_be_lock(a, -1), -EINVAL);
    zqcow2_backend_close(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_open_flags, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_no_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_from_fd, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failure_closes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reads_beyond_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_vectors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_short_write_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rest_of_a_transfer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_holes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_holes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_truncate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_direct, setup, teardown),
        cmocka_unit_test_setup_teardown(test_block_device, setup, teardown),
        cmocka_unit_test_setup_teardown(test_locks, setup, teardown),
    };

    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
