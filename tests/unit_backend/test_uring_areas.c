/* SPDX-License-Identifier: MIT */
/* Memory that is registered with the ring: which requests use it, and what happens without it. */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
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

static char path[] = "zq-areas-XXXXXX";
static atomic_uint nr_fixed;
static int refusal;

/* What the backend hands to the kernel passes here, see --wrap in CMakeLists.txt. */
int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);
int __real_io_uring_register_buffers(struct io_uring *ring, const struct iovec *v, unsigned n);
int __wrap_io_uring_register_buffers(struct io_uring *ring, const struct iovec *v, unsigned n);

int __wrap_io_uring_submit(struct io_uring *ring)
{
    unsigned n = io_uring_sq_ready(ring);

    for (unsigned i = 0; i < n; i++) {
        const struct io_uring_sqe *e =
            &ring->sq.sqes[(ring->sq.sqe_tail - n + i) & *ring->sq.kring_mask];
        atomic_fetch_add(&nr_fixed,
                         e->opcode == IORING_OP_READ_FIXED || e->opcode == IORING_OP_WRITE_FIXED);
    }
    return __real_io_uring_submit(ring);
}

int __wrap_io_uring_register_buffers(struct io_uring *ring, const struct iovec *v, unsigned n)
{
    return refusal ? refusal : __real_io_uring_register_buffers(ring, v, n);
}

static struct zqcow2_backend *open_ring(unsigned flags)
{
    struct zqcow2_backend *be = NULL;
    struct iovec one = {buffers, SLOT_BYTES};
    int rc = zqcow2_uring_open(path, ZQCOW2_FILE_RDWR | flags, NULL, &be);

    if (rc == -ENOSYS || (rc < 0 && flags)) {
        print_message("not here: %s\n", strerror(-rc));
        skip();
    }
    assert_int_equal(rc, 0);
    rc = zqcow2_uring_register(be, &one, 1);
    if (rc < 0) {
        zqcow2_backend_close(be);
        print_message("no memory can be registered here: %s\n", strerror(-rc));
        skip();
    }
    return be;
}

/* Writes a slot and reads it into another; how many of the two used registered memory. */
static unsigned there_and_back(struct zqcow2_backend *be, unsigned from, unsigned to)
{
    static uint8_t seed;

    memset(buffers[from], ++seed, SLOT_BYTES);
    memset(buffers[to], 0, SLOT_BYTES);
    atomic_store(&nr_done, 0);
    atomic_store(&nr_fixed, 0);
    start(be, from, ZQCOW2_IO_WRITE, 0, SLOT_BYTES);
    kick(be);
    wait_done(be, 1);
    start(be, to, ZQCOW2_IO_READ, 0, SLOT_BYTES);
    kick(be);
    wait_done(be, 2);
    assert_int_equal(requests[from].ret, 0);
    assert_int_equal(requests[to].ret, 0);
    assert_memory_equal(buffers[from], buffers[to], SLOT_BYTES);
    assert_int_equal(buffers[to][0], seed);
    return atomic_load(&nr_fixed);
}

/* Slots 0 to 7 and 8 to 15, two areas that adjoin. */
static void register_two(struct zqcow2_backend *be)
{
    struct iovec two[2] = {{buffers[0], 8 * SLOT_BYTES}, {buffers[8], 8 * SLOT_BYTES}};

    assert_int_equal(zqcow2_uring_register(be, two, 2), 0);
}

static void with_flags(unsigned flags)
{
    struct zqcow2_backend *be = open_ring(flags);

    register_two(be);
    assert_int_equal(there_and_back(be, 0, 15), 2);
    assert_int_equal(there_and_back(be, 7, 8), 2);
    assert_int_equal(there_and_back(be, 3, 16), 1);
    assert_int_equal(there_and_back(be, 17, 18), 0);
    assert_int_equal(zqcow2_uring_register(be, NULL, 0), 0);
    assert_int_equal(there_and_back(be, 0, 15), 0);
    assert_int_equal(zqcow2_uring_register(be, NULL, 0), 0);
    zqcow2_backend_close(be);
}

static void test_used(void **state)
{
    (void)state;
    with_flags(0);
    with_flags(ZQCOW2_FILE_DIRECT);
}

/* Memory of two areas, or beyond the end of one, is used as any other. */
static void test_ends(void **state)
{
    struct zqcow2_backend *be = open_ring(0);

    (void)state;
    register_two(be);
    for (unsigned i = 0; i < 2; i++) {
        atomic_store(&nr_done, 0);
        atomic_store(&nr_fixed, 0);
        memset(buffers[7], 0x11 + (int)i, SLOT_BYTES);
        memset(buffers[8], 0x22 + (int)i, SLOT_BYTES);
        start(be, i ? 15 : 7, ZQCOW2_IO_WRITE, 0, 2 * SLOT_BYTES);
        kick(be);
        wait_done(be, 1);
        assert_int_equal(requests[i ? 15 : 7].ret, 0);
        assert_int_equal(atomic_load(&nr_fixed), 0);
    }
    zqcow2_backend_close(be);
}

static void test_refuses(void **state)
{
    struct zqcow2_backend *be = open_ring(0), *file;
    struct iovec area[65], bad;

    (void)state;
    for (unsigned i = 0; i < 65; i++)
        area[i] = (struct iovec){buffers[i], SLOT_BYTES};
    assert_int_equal(zqcow2_uring_register(NULL, area, 1), -EINVAL);
    assert_int_equal(zqcow2_uring_register(be, NULL, 1), -EINVAL);
    assert_int_equal(zqcow2_uring_register(be, area, 65), -EINVAL);
    bad = (struct iovec){NULL, 4096};
    assert_int_equal(zqcow2_uring_register(be, &bad, 1), -EINVAL);
    bad = (struct iovec){buffers, 0};
    assert_int_equal(zqcow2_uring_register(be, &bad, 1), -EINVAL);
    bad = (struct iovec){buffers, (1u << 30) + 1};
    assert_int_equal(zqcow2_uring_register(be, &bad, 1), -EINVAL);
    assert_int_equal(there_and_back(be, 0, 1), 1); /* what open_ring() registered is still there */
    assert_int_equal(zqcow2_uring_register(be, area, 64), 0);
    assert_int_equal(there_and_back(be, 1, 63), 2);
    assert_int_equal(zqcow2_file_open(path, 0, NULL, &file), 0);
    assert_int_equal(zqcow2_uring_register(file, area, 1), -EINVAL);
    zqcow2_backend_close(file);
    zqcow2_backend_close(be);
}

/* A request that is queued, or with the kernel, or done and not reported: nothing changes. */
static void test_in_flight(void **state)
{
    struct zqcow2_backend *be = open_ring(0);
    struct iovec one = {buffers[8], SLOT_BYTES};

    (void)state;
    atomic_store(&nr_done, 0);
    start(be, 0, ZQCOW2_IO_WRITE, 0, SLOT_BYTES);
    assert_int_equal(zqcow2_uring_register(be, &one, 1), -EBUSY);
    kick(be);
    assert_int_equal(zqcow2_uring_register(be, NULL, 0), -EBUSY);
    wait_done(be, 1);
    assert_int_equal(there_and_back(be, 0, 8), 1);
    assert_int_equal(zqcow2_uring_register(be, &one, 1), 0);
    assert_int_equal(there_and_back(be, 0, 8), 1);
    zqcow2_backend_close(be);
}

/* The kernel refuses: nothing is registered, and requests do without. */
static void test_kernel_refuses(void **state)
{
    void *hole = mmap(NULL, SLOT_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct zqcow2_backend *be = open_ring(0);
    struct iovec two[2] = {{buffers[0], SLOT_BYTES}, {hole, SLOT_BYTES}};

    (void)state;
    assert_ptr_not_equal(hole, MAP_FAILED);
    assert_int_equal(zqcow2_uring_register(be, two, 2), -EFAULT);
    assert_int_equal(there_and_back(be, 0, 1), 0);
    register_two(be);
    refusal = -ENOMEM; /* above RLIMIT_MEMLOCK */
    assert_int_equal(zqcow2_uring_register(be, two, 1), -ENOMEM);
    refusal = 0;
    assert_int_equal(there_and_back(be, 0, 1), 0);
    register_two(be);
    assert_int_equal(there_and_back(be, 0, 1), 2);
    zqcow2_backend_close(be);
    munmap(hole, SLOT_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_used),           cmocka_unit_test(test_ends),
        cmocka_unit_test(test_refuses),        cmocka_unit_test(test_in_flight),
        cmocka_unit_test(test_kernel_refuses),
    };
    int fd = mkstemp(path), failed;

    if (fd < 0 || close(fd) < 0) {
        perror(path);
        return 1;
    }
    failed = cmocka_run_group_tests_name("registered memory", tests, NULL, NULL);
    unlink(path);
    return failed;
}
