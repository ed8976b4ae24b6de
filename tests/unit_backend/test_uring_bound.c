/* SPDX-License-Identifier: MIT */
/*
 * What one call of the io_uring backend does at most, counted: bytes that it hands to the kernel,
 * bytes that it zeroes, naps, and blocking calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define HARNESS_ON_LIBRARY
#include "async_harness.h"
#include "backend/file_io.h"
#include "private_fs.h"

#define MIB        (1u << 20)
#define CALL_MOST  32u       /* of DESIGN.md: requests handed to the kernel by one call */
#define CALL_BYTES MIB       /* and bytes */
#define RING_BYTES (4 * MIB) /* and in the ring */
#define FILE_BYTES (8 * MIB)
#define BIG        (64u << 10)

static char path[] = "zq-bound-XXXXXX";
static uint8_t *memory, *content; /* FILE_BYTES each */

/* ---- what the backend does: see --wrap in CMakeLists.txt ---- */

int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);
unsigned __real_io_uring_peek_batch_cqe(struct io_uring *ring, struct io_uring_cqe **cqes,
                                        unsigned count);
unsigned __wrap_io_uring_peek_batch_cqe(struct io_uring *ring, struct io_uring_cqe **cqes,
                                        unsigned count);
int __real_zq_file_write_rest(struct zq_file *f, const struct iovec *iov, int cnt, uint64_t off,
                              uint64_t done);
int __wrap_zq_file_write_rest(struct zq_file *f, const struct iovec *iov, int cnt, uint64_t off,
                              uint64_t done);
int __real_zq_file_read_rest(struct zq_file *f, const struct iovec *iov, int cnt, uint64_t off,
                             uint64_t done);
int __wrap_zq_file_read_rest(struct zq_file *f, const struct iovec *iov, int cnt, uint64_t off,
                             uint64_t done);
void __real_zq_cursor_zero(struct zq_cursor *c, uint64_t most);
void __wrap_zq_cursor_zero(struct zq_cursor *c, uint64_t most);
int __real_nanosleep(const struct timespec *t, struct timespec *left);
int __wrap_nanosleep(const struct timespec *t, struct timespec *left);

static struct {
    uint64_t bytes, zeroed, handed; /* since the last call began */
    uint64_t most, most_zeroed, most_handed, all;
    unsigned calls, submits, pooled, blocking, naps;
    unsigned due;             /* requests that do nothing but make the next call due */
    unsigned short_of_memory; /* so many submits fail */
    int spoil;                /* the result of the next transfer */
} seen;

static void look(const struct io_uring *ring)
{
    unsigned n = io_uring_sq_ready(ring);

    for (unsigned i = 0; i < n; i++) {
        const struct io_uring_sqe *e =
            &ring->sq.sqes[(ring->sq.sqe_tail - n + i) & *ring->sq.kring_mask];
        uint64_t bytes = 0;

        seen.handed += e->user_data > 1;
        seen.due += e->opcode == IORING_OP_NOP;
        if (e->opcode == IORING_OP_READ || e->opcode == IORING_OP_WRITE)
            bytes = e->len;
        for (unsigned k = 0;
             (e->opcode == IORING_OP_READV || e->opcode == IORING_OP_WRITEV) && k < e->len; k++)
            bytes += ((const struct iovec *)(uintptr_t)e->addr)[k].iov_len;
        if (e->flags & IOSQE_ASYNC)
            seen.pooled++;
        else
            seen.bytes += bytes;
    }
}

int __wrap_io_uring_submit(struct io_uring *ring)
{
    seen.submits++;
    if (seen.short_of_memory) {
        seen.short_of_memory--;
        return -EAGAIN;
    }
    look(ring);
    return __real_io_uring_submit(ring);
}

unsigned __wrap_io_uring_peek_batch_cqe(struct io_uring *ring, struct io_uring_cqe **cqes,
                                        unsigned count)
{
    unsigned n = __real_io_uring_peek_batch_cqe(ring, cqes, count);

    for (unsigned i = 0; i < n && seen.spoil; i++) {
        if (cqes[i]->user_data > 1) {
            cqes[i]->res = seen.spoil;
            seen.spoil = 0;
        }
    }
    return n;
}

int __wrap_zq_file_write_rest(struct zq_file *f, const struct iovec *iov, int cnt, uint64_t off,
                              uint64_t done)
{
    seen.blocking++;
    return __real_zq_file_write_rest(f, iov, cnt, off, done);
}

int __wrap_zq_file_read_rest(struct zq_file *f, const struct iovec *iov, int cnt, uint64_t off,
                             uint64_t done)
{
    seen.blocking++;
    return __real_zq_file_read_rest(f, iov, cnt, off, done);
}

void __wrap_zq_cursor_zero(struct zq_cursor *c, uint64_t most)
{
    seen.zeroed += most;
    __real_zq_cursor_zero(c, most);
}

int __wrap_nanosleep(const struct timespec *t, struct timespec *left)
{
    seen.naps++;
    return __real_nanosleep(t, left);
}

/* ---- one call after the other ---- */

static void end_call(void)
{
    seen.calls++;
    seen.all += seen.bytes;
    seen.most = seen.bytes > seen.most ? seen.bytes : seen.most;
    seen.most_zeroed = seen.zeroed > seen.most_zeroed ? seen.zeroed : seen.most_zeroed;
    seen.most_handed = seen.handed > seen.most_handed ? seen.handed : seen.most_handed;
    seen.bytes = seen.zeroed = seen.handed = 0;
}

static void one_kick(struct zqcow2_backend *be)
{
    be->ops.kick(be->self);
    end_call();
}

static void one_poll(struct zqcow2_backend *be)
{
    assert_int_equal(be->ops.poll(be->self, 0), 0);
    end_call();
}

static bool readable(struct zqcow2_backend *be, int timeout_ms)
{
    struct pollfd p = {be->ops.fd(be->self), POLLIN, 0};
    int n;

    do {
        n = poll(&p, 1, timeout_ms);
    } while (n < 0 && errno == EINTR);
    return n > 0;
}

/* As an event loop does: it calls only when the descriptor says so. */
static void loop(struct zqcow2_backend *be, unsigned n)
{
    while (atomic_load(&nr_done) < n) {
        if (!readable(be, 20000))
            fail_msg("%u of %u requests done, and the descriptor is silent", atomic_load(&nr_done),
                     n);
        one_poll(be);
    }
    assert_int_equal(atomic_load(&nr_done), n);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(requests[i].done, 1);
        assert_int_equal(requests[i].ret, 0);
    }
}

static struct zqcow2_backend *open_file(const char *name, unsigned flags)
{
    struct zqcow2_backend *be = NULL;
    int rc = zqcow2_uring_open(name, ZQCOW2_FILE_RDWR | flags, NULL, &be);

    if (rc == -ENOSYS || (rc < 0 && flags)) {
        print_message("not here: %s\n", strerror(-rc));
        skip();
    }
    assert_int_equal(rc, 0);
    memset(requests, 0, sizeof(requests));
    memset(&seen, 0, sizeof(seen));
    atomic_store(&nr_done, 0);
    return be;
}

static void transfer(struct zqcow2_backend *be, unsigned i, unsigned kind, uint64_t off, size_t len)
{
    struct request *r = &requests[i];

    memset(r, 0, sizeof(*r));
    r->io = (struct zqcow2_io){
        .kind = kind, .offset = off, .length = len, .iovcnt = 1, .done = request_done};
    r->io.iov = r->iov;
    r->iov[0] = (struct iovec){memory + off % FILE_BYTES, len};
    if (kind > ZQCOW2_IO_WRITE)
        r->io.iovcnt = 0;
    assert_int_equal(be->ops.submit(be->self, &r->io), 0);
}

static void fill(void)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);

    for (unsigned i = 0; i < FILE_BYTES; i++)
        content[i] = (uint8_t)((i >> 9) * 7 + i);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(pwrite(fd, content, FILE_BYTES, 0), FILE_BYTES);
    close(fd);
    memset(memory, 0xee, FILE_BYTES);
}

/* Other bytes than those of the file, in memory. */
static void change(size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        memory[i] = content[i] ^= 0x5a;
}

static void read_back(void)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    assert_int_equal(pread(fd, memory, FILE_BYTES, 0), FILE_BYTES);
    close(fd);
}

/* ---- tests ---- */

/* 8 MiB of requests of `bytes` each. */
static void all_at_once(unsigned kind, unsigned bytes, unsigned flags)
{
    struct zqcow2_backend *be;
    unsigned n = FILE_BYTES / bytes;

    n = n > SLOTS ? SLOTS : n;
    fill();
    be = open_file(path, flags);
    if (kind == ZQCOW2_IO_WRITE)
        change(FILE_BYTES);
    for (unsigned i = 0; i < n; i++)
        transfer(be, i, kind, (uint64_t)(i * 11 % n) * bytes, bytes);
    one_kick(be);
    loop(be, n);
    if (kind == ZQCOW2_IO_WRITE)
        read_back();
    assert_memory_equal(memory, content, (size_t)n * bytes);
    print_message("%s of %u KiB: %u requests, %u calls, at most %u KiB and %u requests in one\n",
                  kind == ZQCOW2_IO_READ ? "reads" : "writes", bytes >> 10, n, seen.calls,
                  (unsigned)(seen.most >> 10), (unsigned)seen.most_handed);
    assert_true(seen.most <= CALL_BYTES);
    assert_true(seen.most_handed <= CALL_MOST);
    assert_int_equal(seen.pooled, 0);
    assert_int_equal(seen.blocking, 0);
    if (bytes == 4096)
        assert_int_equal(seen.most_handed, CALL_MOST);
    else
        assert_true(seen.most > CALL_BYTES - bytes);
    zqcow2_backend_close(be);
}

static void test_bytes_of_a_call(void **state)
{
    (void)state;
    for (unsigned kind = ZQCOW2_IO_READ; kind <= ZQCOW2_IO_WRITE; kind++) {
        all_at_once(kind, 4096, 0);
        all_at_once(kind, BIG, 0);
        all_at_once(kind, 3 * BIG, 0);
        all_at_once(kind, MIB, 0);
    }
}

static void test_bytes_of_a_direct_call(void **state)
{
    (void)state;
    all_at_once(ZQCOW2_IO_READ, BIG, ZQCOW2_FILE_DIRECT);
    all_at_once(ZQCOW2_IO_WRITE, BIG, ZQCOW2_FILE_DIRECT);
}

/* What is larger than a call's share is a worker's, whole. */
static void test_large_ones(void **state)
{
    struct zqcow2_backend *be;

    (void)state;
    fill();
    be = open_file(path, 0);
    for (unsigned i = 0; i < 4; i++)
        transfer(be, i, ZQCOW2_IO_READ, (uint64_t)i * 2 * MIB, 2 * MIB);
    one_kick(be);
    assert_int_equal(seen.pooled, 4);
    loop(be, 4);
    assert_int_equal(seen.all, 0);
    assert_memory_equal(memory, content, FILE_BYTES);
    zqcow2_backend_close(be);
}

/* Nobody takes completions: the ring holds its share, and no more. */
static void test_bytes_of_the_ring(void **state)
{
    struct zqcow2_backend *be;

    (void)state;
    fill();
    be = open_file(path, 0);
    for (unsigned i = 0; i < FILE_BYTES / BIG; i++)
        transfer(be, i, ZQCOW2_IO_READ, (uint64_t)i * BIG, BIG);
    for (unsigned i = 1; i <= 10; i++) {
        one_kick(be);
        assert_int_equal(seen.all, i * CALL_BYTES < RING_BYTES ? i * CALL_BYTES : RING_BYTES);
        assert_int_equal(seen.due, 1); /* whether or not a transfer is done by now */
    }
    loop(be, FILE_BYTES / BIG);
    assert_int_equal(seen.all, FILE_BYTES);
    assert_memory_equal(memory, content, FILE_BYTES);
    zqcow2_backend_close(be);
}

/* Reads behind the end of the file: the zeros are the backend's own work. */
static void test_zeros_of_a_poll(void **state)
{
    const unsigned n = 16;
    struct zqcow2_backend *be;

    (void)state;
    fill();
    assert_int_equal(truncate(path, 1000), 0);
    be = open_file(path, 0);
    memset(content + 1000, 0, FILE_BYTES - 1000);
    for (unsigned i = 0; i < n; i++)
        transfer(be, i, ZQCOW2_IO_READ, (uint64_t)i * (FILE_BYTES / n), FILE_BYTES / n);
    one_kick(be);
    loop(be, n);
    print_message("zeros: %u calls, at most %u KiB in one\n", seen.calls,
                  (unsigned)(seen.most_zeroed >> 10));
    assert_true(seen.most_zeroed <= CALL_BYTES + SLOTS);
    assert_memory_equal(memory, content, FILE_BYTES);
    zqcow2_backend_close(be);
}

/* A request that the ring gives back is a worker's next time; its memory gets the right bytes. */
static void test_given_back(void **state)
{
    static const int results[] = {-EAGAIN, -ECANCELED, -EINTR};

    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        unsigned kind = i % 2 ? ZQCOW2_IO_WRITE : ZQCOW2_IO_READ;
        struct zqcow2_backend *be;

        fill();
        be = open_file(path, 0);
        seen.spoil = results[i / 2];
        if (kind == ZQCOW2_IO_WRITE)
            change(BIG);
        transfer(be, 0, kind, 0, BIG);
        one_kick(be);
        loop(be, 1);
        assert_int_equal(seen.pooled, 1);
        assert_int_equal(seen.blocking, 0);
        assert_int_equal(seen.spoil, 0);
        if (kind == ZQCOW2_IO_WRITE)
            read_back();
        assert_memory_equal(memory, content, BIG);
        zqcow2_backend_close(be);
    }
}

/* A file system without holes: zeros are written by the ring, and not by this thread. */
static void test_zeros_without_holes(void **state)
{
    int mnt = private_fs("ramfs", NULL);
    int fd = mnt < 0 ? -1 : openat(mnt, "f", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct zqcow2_backend *be;
    char file[64];

    (void)state;
    if (fd < 0) {
        print_message("no ramfs here: %s\n", strerror(errno));
        skip();
    }
    fill();
    assert_int_equal(pwrite(fd, content, FILE_BYTES, 0), FILE_BYTES);
    snprintf(file, sizeof(file), "/proc/self/fd/%d/f", mnt);
    be = open_file(file, 0);
    for (unsigned i = 0; i < 2; i++) { /* one finds it out, the next knows */
        atomic_store(&nr_done, 0);
        transfer(be, 0, ZQCOW2_IO_ZERO, i * 2 * MIB + 512, MIB + 1000);
        one_kick(be);
        loop(be, 1);
        memset(content + i * 2 * MIB + 512, 0, MIB + 1000);
    }
    assert_int_equal(seen.blocking, 0);
    assert_int_equal(pread(fd, memory, FILE_BYTES, 0), FILE_BYTES);
    assert_memory_equal(memory, content, FILE_BYTES);
    zqcow2_backend_close(be);
    close(fd);
    close(mnt);
}

/* The kernel is short of memory: a call does not wait for it while completions are to come. */
static void test_short_of_memory(void **state)
{
    struct zqcow2_backend *be;

    (void)state;
    fill();
    be = open_file(path, 0);
    seen.short_of_memory = 3; /* alone: there is nothing else that could make the next call due */
    transfer(be, 0, ZQCOW2_IO_READ, 0, BIG);
    one_kick(be);
    assert_int_equal(seen.naps, 3);
    seen.submits = seen.naps = 0;
    seen.short_of_memory = 2;
    change(FILE_BYTES);
    for (unsigned i = 1; i < 40; i++)
        transfer(be, i, ZQCOW2_IO_WRITE, (uint64_t)i * BIG, BIG);
    one_kick(be);
    assert_int_equal(seen.submits, 1);
    one_kick(be);
    assert_int_equal(seen.submits, 2);
    assert_int_equal(seen.naps, 0);
    loop(be, 40);
    read_back();
    assert_memory_equal(memory + BIG, content + BIG, (size_t)39 * BIG);
    zqcow2_backend_close(be);
}

/* A file becomes shorter in the ring, too, and that is no truncation by somebody else. */
static void test_cut(void **state)
{
    struct zqcow2_backend *be;
    uint64_t bytes;

    (void)state;
    fill();
    be = open_file(path, 0);
    assert_int_equal(zqcow2_backend_length(be, &bytes), 0);
    requests[0].io =
        (struct zqcow2_io){.kind = ZQCOW2_IO_TRUNCATE, .offset = MIB, .done = request_done};
    if (be->ops.submit(be->self, &requests[0].io) == -EOPNOTSUPP) {
        print_message("no truncation by the ring here\n");
        zqcow2_backend_close(be);
        skip();
    }
    one_kick(be);
    loop(be, 1);
    assert_int_equal(zqcow2_backend_length(be, &bytes), 0);
    assert_int_equal(bytes, MIB);
    assert_int_equal(be->ops.flush(be->self), 0);
    assert_int_equal(truncate(path, 4096), 0);
    assert_int_equal(be->ops.flush(be->self), -EIO);
    zqcow2_backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_of_a_call),     cmocka_unit_test(test_bytes_of_a_direct_call),
        cmocka_unit_test(test_large_ones),          cmocka_unit_test(test_bytes_of_the_ring),
        cmocka_unit_test(test_zeros_of_a_poll),     cmocka_unit_test(test_given_back),
        cmocka_unit_test(test_short_of_memory),     cmocka_unit_test(test_cut),
        cmocka_unit_test(test_zeros_without_holes),
    };
    int fd = mkstemp(path), failed;

    if (fd < 0 || close(fd) < 0 || posix_memalign((void **)&memory, 4096, FILE_BYTES) ||
        posix_memalign((void **)&content, 4096, FILE_BYTES)) {
        perror(path);
        return 1;
    }
    failed = cmocka_run_group_tests_name("bound of a call", tests, NULL, NULL);
    unlink(path);
    free(memory);
    free(content);
    return failed;
}
