/* SPDX-License-Identifier: MIT */
/* ZQCOW2_FILE_DONTCACHE: the kernel is asked for it where it can do it, and nothing fails
 * elsewhere. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define HARNESS_ON_LIBRARY
#include "async_harness.h"
#include "base/os.h"

#define PIECES 64u

/* Every transfer of the file backend with the flag passes here, see --wrap in CMakeLists.txt. */
ssize_t __real_zq_os_uncached(int fd, bool write, const struct iovec *iov, int cnt, uint64_t off);
ssize_t __wrap_zq_os_uncached(int fd, bool write, const struct iovec *iov, int cnt, uint64_t off);

enum kernel {
    REAL,
    ACCEPTS,      /* one that has the flag */
    REFUSES,      /* one that does not have it */
    REFUSES_LATER /* it accepts the first call alone */
};
static enum kernel kernel;
static int refusal = EOPNOTSUPP;
static unsigned reads, writes;
static char path[] = "zq-dontcache-XXXXXX";
static uint8_t back[PIECES * SLOT_BYTES] __attribute__((aligned(4096)));

ssize_t __wrap_zq_os_uncached(int fd, bool write, const struct iovec *iov, int cnt, uint64_t off)
{
    reads += !write;
    writes += write;
    if (kernel == REFUSES || (kernel == REFUSES_LATER && reads + writes > 1)) {
        errno = refusal;
        return -1;
    }
    if (kernel == REAL)
        return __real_zq_os_uncached(fd, write, iov, cnt, off);
    return write ? pwritev(fd, iov, cnt, (off_t)off) : preadv(fd, iov, cnt, (off_t)off);
}

static struct zqcow2_backend *open_file(enum kernel k, unsigned flags)
{
    struct zqcow2_backend *be = NULL;
    int rc;

    kernel = k;
    reads = writes = 0;
    rc = zqcow2_file_open(path, ZQCOW2_FILE_RDWR | flags, NULL, &be);
    if (rc < 0 && flags & ZQCOW2_FILE_DIRECT) {
        print_message("no O_DIRECT here: %s\n", strerror(-rc));
        skip();
    }
    assert_int_equal(rc, 0);
    return be;
}

/* Writes the pieces and reads them back, flat and in two vectors. */
static void write_and_read(struct zqcow2_backend *be)
{
    for (unsigned i = 0; i < PIECES; i++) {
        uint64_t off = (uint64_t)i * SLOT_BYTES;
        struct iovec iov[2] = {{buffers[i], 512}, {buffers[i] + 512, SLOT_BYTES - 512}};

        memset(buffers[i], (int)(i + 7), SLOT_BYTES);
        assert_int_equal(i % 2 ? zqcow2_backend_writev(be, iov, 2, off) :
                                 zqcow2_backend_write(be, buffers[i], SLOT_BYTES, off),
                         0);
    }
    assert_int_equal(zqcow2_backend_flush(be), 0);
    assert_int_equal(zqcow2_backend_read(be, back, sizeof(back), 0), 0);
    for (unsigned i = 0; i < PIECES; i++)
        assert_memory_equal(back + (size_t)i * SLOT_BYTES, buffers[i], SLOT_BYTES);
}

/* Every transfer has the flag, until one is refused. */
static void test_asks_until_refused(void **state)
{
    static const int refusals[] = {EOPNOTSUPP, ENOSYS, EPERM};
    struct zqcow2_backend *be = open_file(ACCEPTS, ZQCOW2_FILE_DONTCACHE);

    (void)state;
    assert_int_equal(reads + writes, 0);
    write_and_read(be);
    assert_int_equal(reads, 1);
    assert_int_equal(writes, PIECES);
    zqcow2_backend_close(be);
    for (unsigned i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        refusal = refusals[i];
        be = open_file(REFUSES, ZQCOW2_FILE_DONTCACHE);
        write_and_read(be);
        assert_int_equal(reads, 0);
        assert_int_equal(writes, 1);
        zqcow2_backend_close(be);
    }
    refusal = EOPNOTSUPP;
}

/* An error that the transfer has with and without the flag says nothing about the flag. */
static void test_not_about_the_flag(void **state)
{
    int fd = memfd_create("zq-sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct zqcow2_backend *be;
    char file[64];

    (void)state;
    assert_true(fd >= 0 && ftruncate(fd, 4096) == 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
    snprintf(file, sizeof(file), "/proc/self/fd/%d", fd);
    assert_int_equal(zqcow2_file_open(file, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_DONTCACHE, NULL, &be),
                     0);
    kernel = ACCEPTS;
    reads = writes = 0;
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(zqcow2_backend_write(be, back, 512, 0), -EPERM);
        assert_int_equal(zqcow2_backend_read(be, back, 512, 0), 0);
        assert_int_equal(writes, i);
        assert_int_equal(reads, i);
    }
    zqcow2_backend_close(be);
    close(fd);
}

static void test_not_asked(void **state)
{
    struct zqcow2_backend *be = open_file(ACCEPTS, 0);

    (void)state;
    write_and_read(be);
    assert_int_equal(reads + writes, 0);
    zqcow2_backend_close(be);
    be = open_file(ACCEPTS, ZQCOW2_FILE_DONTCACHE | ZQCOW2_FILE_DIRECT);
    assert_int_equal(reads + writes, 0);
    zqcow2_backend_close(be);
}

/* The answer changes: nothing fails, and nothing asks again. */
static void test_refused_later(void **state)
{
    struct zqcow2_backend *be = open_file(REFUSES_LATER, ZQCOW2_FILE_DONTCACHE);

    (void)state;
    write_and_read(be);
    assert_int_equal(writes, 2);
    assert_int_equal(reads, 0);
    zqcow2_backend_close(be);
}

/* How many pages of the file are in the page cache. */
static unsigned cached(void)
{
    unsigned char in[PIECES * SLOT_BYTES / 4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *p = mmap(NULL, sizeof(back), PROT_READ, MAP_SHARED, fd, 0);
    unsigned n = 0;

    assert_ptr_not_equal(p, MAP_FAILED);
    assert_int_equal(mincore(p, sizeof(back), in), 0);
    for (unsigned i = 0; i < sizeof(in); i++)
        n += in[i] & 1;
    munmap(p, sizeof(back));
    close(fd);
    return n;
}

/* On this kernel, whatever it can do. */
static void test_real(void **state)
{
    struct zqcow2_backend *be;

    (void)state;
    assert_int_equal(truncate(path, 0), 0); /* what is in the cache already may stay */
    be = open_file(REAL, ZQCOW2_FILE_DONTCACHE);
    write_and_read(be);
    print_message("dontcache: %u of %u pages stay, the flag is %s\n", cached(),
                  (unsigned)(sizeof(back) / 4096), writes > 1 ? "supported" : "not supported");
    zqcow2_backend_close(be);
}

/* The ring has the same flag, or does without. */
static void on_ring(enum kernel k)
{
    struct zqcow2_backend *be = NULL;
    int rc;

    kernel = k;
    atomic_store(&nr_done, 0);
    rc = zqcow2_uring_open(path, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_DONTCACHE, NULL, &be);
    if (rc == -ENOSYS) {
        print_message("no io_uring here\n");
        skip();
    }
    assert_int_equal(rc, 0);
    for (unsigned i = 0; i < PIECES; i++) {
        memset(buffers[i], (int)(i + k), SLOT_BYTES);
        start(be, i, ZQCOW2_IO_WRITE, (uint64_t)(i * 5 % PIECES) * SLOT_BYTES, SLOT_BYTES);
    }
    kick(be);
    wait_done(be, PIECES);
    start(be, PIECES, ZQCOW2_IO_READ, 0, SLOT_BYTES);
    kick(be);
    wait_done(be, PIECES + 1);
    for (unsigned i = 0; i <= PIECES; i++)
        assert_int_equal(requests[i].ret, 0);
    assert_memory_equal(buffers[PIECES], buffers[0], SLOT_BYTES);
    zqcow2_backend_close(be);
}

static void test_ring(void **state)
{
    (void)state;
    on_ring(REAL);
    on_ring(REFUSES);
    on_ring(ACCEPTS); /* it may be wrong: the real kernel is the judge */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asks_until_refused),
        cmocka_unit_test(test_not_about_the_flag),
        cmocka_unit_test(test_not_asked),
        cmocka_unit_test(test_refused_later),
        cmocka_unit_test(test_real),
        cmocka_unit_test(test_ring),
    };
    int fd = mkstemp(path), failed;

    if (fd < 0 || close(fd) < 0) {
        perror(path);
        return 1;
    }
    failed = cmocka_run_group_tests_name("dontcache", tests, NULL, NULL);
    unlink(path);
    return failed;
}
