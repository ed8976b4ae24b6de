/* SPDX-License-Identifier: MIT */
/* Writes that adjoin go to the kernel as one request. Each still has a result of its own. */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define HARNESS_ON_LIBRARY
#include "async_harness.h"
#include "backend/file_io.h"
#include "base/os.h"
#include "count_hooks.h"
#include "private_fs.h"

#define STREAMS 8u

static char path[] = "zq-merge-XXXXXX";
static uint8_t back[SLOTS * SLOT_BYTES] __attribute__((aligned(4096)));

/* What the backend hands to the kernel passes here, see --wrap in CMakeLists.txt. */
int __real_io_uring_submit(struct io_uring *ring);
int __wrap_io_uring_submit(struct io_uring *ring);
static atomic_uint nr_handed, nr_vectors, nr_uncached;
static atomic_bool refuse, refuse_flag;

static void look(const struct io_uring *ring)
{
    unsigned n = io_uring_sq_ready(ring);

    for (unsigned i = 0; i < n; i++) {
        struct io_uring_sqe *e = &ring->sq.sqes[(ring->sq.sqe_tail - n + i) & *ring->sq.kring_mask];
        atomic_fetch_add(&nr_handed, e->user_data > 1);
        atomic_fetch_add(&nr_uncached, e->rw_flags == ZQ_RWF_DONTCACHE);
        if (e->rw_flags == ZQ_RWF_DONTCACHE && atomic_load(&refuse_flag))
            e->rw_flags = 1 << 30; /* no kernel knows it */
        atomic_fetch_add(&nr_vectors, e->opcode == IORING_OP_WRITEV ? e->len : 0);
    }
}

int __wrap_io_uring_submit(struct io_uring *ring)
{
    if (atomic_load(&refuse))
        return -EPERM;
    look(ring);
    return __real_io_uring_submit(ring);
}

/* And what the kernel answers here. spoil: the result of the next request of `spoilt` bytes. */
unsigned __real_io_uring_peek_batch_cqe(struct io_uring *ring, struct io_uring_cqe **cqes,
                                        unsigned count);
unsigned __wrap_io_uring_peek_batch_cqe(struct io_uring *ring, struct io_uring_cqe **cqes,
                                        unsigned count);
static atomic_int spoil, spoilt;

unsigned __wrap_io_uring_peek_batch_cqe(struct io_uring *ring, struct io_uring_cqe **cqes,
                                        unsigned count)
{
    unsigned n = __real_io_uring_peek_batch_cqe(ring, cqes, count);

    for (unsigned i = 0; i < n; i++)
        if (atomic_load(&spoil) && cqes[i]->res == atomic_load(&spoilt))
            cqes[i]->res = atomic_exchange(&spoil, 0);
    return n;
}

/* What goes to a blocking call after the ring was asked. */
int __real_zq_file_write_rest(struct zq_file *f, const struct iovec *iov, int cnt, uint64_t off,
                              uint64_t done);
int __wrap_zq_file_write_rest(struct zq_file *f, const struct iovec *iov, int cnt, uint64_t off,
                              uint64_t done);
static atomic_uint nr_blocking;

int __wrap_zq_file_write_rest(struct zq_file *f, const struct iovec *iov, int cnt, uint64_t off,
                              uint64_t done)
{
    atomic_fetch_add(&nr_blocking, 1);
    return __real_zq_file_write_rest(f, iov, cnt, off, done);
}

static struct zqcow2_backend *open_flags(const char *file, unsigned flags)
{
    struct zqcow2_backend *be = NULL;
    int rc;

    atomic_store(&nr_done, 0);
    atomic_store(&refuse, false);
    memset(requests, 0, sizeof(requests));
    rc = zqcow2_uring_open(file, ZQCOW2_FILE_RDWR | flags, NULL, &be);
    if (rc == -ENOSYS || (rc < 0 && flags)) {
        print_message("not here: %s\n", strerror(-rc));
        skip();
    }
    assert_int_equal(rc, 0);
    return be;
}

static struct zqcow2_backend *open_empty(void)
{
    assert_int_equal(truncate(path, 0), 0);
    return open_flags(path, 0);
}

static void write_slot(struct zqcow2_backend *be, unsigned i)
{
    memset(buffers[i], (int)(i * 3 + 1), SLOT_BYTES);
    start(be, i, ZQCOW2_IO_WRITE, (uint64_t)i * SLOT_BYTES, SLOT_BYTES);
}

/* All of them in one batch: how many requests of the ring they become. */
static unsigned handed_for(struct zqcow2_backend *be, const unsigned *order, unsigned n)
{
    unsigned handed;

    atomic_store(&nr_done, 0);
    atomic_store(&nr_handed, 0);
    for (unsigned i = 0; i < n; i++)
        write_slot(be, order[i]);
    for (unsigned i = 0; i <= n / 32; i++) /* one call hands over 32 */
        kick(be);
    handed = atomic_load(&nr_handed);
    wait_done(be, n);
    for (unsigned i = 0; i < n; i++) {
        unsigned k = order[i];
        assert_int_equal(requests[k].done, 1);
        assert_int_equal(requests[k].ret, 0);
        assert_int_equal(zqcow2_backend_read(be, back, SLOT_BYTES, (uint64_t)k * SLOT_BYTES), 0);
        if (memcmp(back, buffers[k], SLOT_BYTES))
            fail_msg("slot %u of %u: wrong bytes", k, n);
    }
    return handed;
}

static void test_what_adjoins(void **state)
{
    struct zqcow2_backend *be = open_empty();
    unsigned order[256];

    (void)state;
    for (unsigned i = 0; i < 256; i++)
        order[i] = i;
    assert_int_equal(handed_for(be, order, 256), 1); /* 1 MiB is the most */
    for (unsigned i = 0; i < 256; i++)
        order[i] = 100 + i;
    assert_int_equal(handed_for(be, order, 2), 1);
    for (unsigned i = 0; i < 256; i++)
        order[i] = i % STREAMS * 64 + i / STREAMS;
    assert_int_equal(handed_for(be, order, 256), STREAMS);
    for (unsigned i = 0; i < 100; i++)
        order[i] = i * 2;
    assert_int_equal(handed_for(be, order, 100), 100);
    zqcow2_backend_close(be);
}

static void test_one_mebibyte(void **state)
{
    struct zqcow2_backend *be = open_empty();
    unsigned order[SLOTS];

    (void)state;
    for (unsigned i = 0; i < SLOTS; i++)
        order[i] = i;
    assert_int_equal(handed_for(be, order, SLOTS), SLOTS * SLOT_BYTES >> 20);
    zqcow2_backend_close(be);
}

/* A device runs direct writes side by side, so they stay apart. */
static void test_direct_apart(void **state)
{
    struct zqcow2_backend *be = open_flags(path, ZQCOW2_FILE_DIRECT);
    unsigned order[64];

    (void)state;
    for (unsigned i = 0; i < 64; i++)
        order[i] = i;
    assert_int_equal(handed_for(be, order, 64), 64);
    zqcow2_backend_close(be);
}

/* 32 requests of the ring, of two each. Returns how many had the flag. */
static unsigned pairs(struct zqcow2_backend *be, unsigned want_handed)
{
    unsigned order[64];

    for (unsigned i = 0; i < 64; i++)
        order[i] = i / 2 * 4 + i % 2;
    atomic_store(&nr_uncached, 0);
    assert_int_equal(handed_for(be, order, 64), want_handed);
    return atomic_load(&nr_uncached);
}

/* ZQCOW2_FILE_DONTCACHE: requests have the flag while the kernel takes it; tmpfs does not. */
static void test_uncached(void **state)
{
    struct zqcow2_backend *be = open_flags(path, ZQCOW2_FILE_DONTCACHE);
    struct iovec one = {back, 1};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool here = zq_os_uncached(fd, false, &one, 1, 0) >= 0;

    (void)state;
    close(fd);
    assert_int_equal(pairs(be, 32), 32);
    assert_int_equal(pairs(be, 32), here ? 32 : 0);
    zqcow2_backend_close(be);
}

/* What is in flight when the flag is refused goes back to the ring, and none has it any more. */
static void test_flag_refused(void **state)
{
    struct zqcow2_backend *be = open_flags(path, ZQCOW2_FILE_DONTCACHE);
    unsigned order[100];

    (void)state;
    for (unsigned i = 0; i < 100; i++)
        order[i] = i * 2;
    atomic_store(&refuse_flag, true);
    atomic_store(&nr_uncached, 0);
    atomic_store(&nr_blocking, 0);
    assert_int_equal(handed_for(be, order, 100), 100);
    assert_int_equal(atomic_load(&nr_uncached), 100);
    assert_int_equal(atomic_load(&nr_handed), 200);
    assert_int_equal(pairs(be, 32), 0);
    assert_int_equal(atomic_load(&nr_blocking), 0);
    atomic_store(&refuse_flag, false);
    zqcow2_backend_close(be);
}

/* The middle of a request has no memory: that one fails, and those that went along do not. */
static void one_bad(struct zqcow2_backend *be, unsigned bad, void *nothing)
{
    atomic_store(&nr_done, 0);
    memset(requests, 0, sizeof(requests));
    for (unsigned i = 0; i < 64; i++) {
        write_slot(be, i);
        if (i == bad || i == 40)
            requests[i].iov[0].iov_base = nothing;
    }
    kick(be);
    wait_done(be, 64);
    assert_int_equal(zqcow2_backend_read(be, back, 64 * SLOT_BYTES, 0), 0);
    for (unsigned i = 0; i < 64; i++) {
        int want = i == bad || i == 40 ? -EFAULT : 0;
        if (requests[i].ret != want)
            fail_msg("bad slot %u: slot %u has %d", bad, i, requests[i].ret);
        if (!want && memcmp(back + (size_t)i * SLOT_BYTES, buffers[i], SLOT_BYTES))
            fail_msg("bad slot %u: slot %u has wrong bytes", bad, i);
    }
}

static void test_bad_memory(void **state)
{
    void *nothing = mmap(NULL, SLOT_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct zqcow2_backend *be = open_empty();

    (void)state;
    assert_ptr_not_equal(nothing, MAP_FAILED);
    for (unsigned bad = 0; bad < 64; bad += 7)
        one_bad(be, bad, nothing);
    zqcow2_backend_close(be);
    munmap(nothing, SLOT_BYTES);
}

/* A host that is full within a request: what fits is stored, and the rest says so. */
static void test_full_host(void **state)
{
    const unsigned bytes = 3000, n = 64;
    int mnt = private_fs("tmpfs", "64k");
    int fd = mnt < 0 ? -1 : openat(mnt, "f", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct zqcow2_backend *be;
    char file[64];
    unsigned good = 0;

    (void)state;
    if (fd < 0) {
        print_message("no tmpfs here: %s\n", strerror(errno));
        skip();
    }
    close(fd);
    snprintf(file, sizeof(file), "/proc/self/fd/%d/f", mnt);
    be = open_flags(file, 0);
    for (unsigned i = 0; i < n; i++) {
        memset(buffers[i], (int)i + 1, SLOT_BYTES);
        start(be, i, ZQCOW2_IO_WRITE, (uint64_t)i * bytes, bytes);
    }
    kick(be);
    wait_done(be, n);
    for (unsigned i = 0; i < n; i++) {
        assert_true(requests[i].ret == 0 || requests[i].ret == -ENOSPC);
        if (requests[i].ret)
            continue;
        good++;
        assert_int_equal(zqcow2_backend_read(be, back, bytes, (uint64_t)i * bytes), 0);
        assert_memory_equal(back, buffers[i], bytes);
    }
    assert_int_equal(good, 65536 / bytes);
    zqcow2_backend_close(be);
    close(mnt);
}

/* An error that the kernel may report only once is a result, also if the rest can be written. */
static void test_error_of_the_file(void **state)
{
    static const int errors[] = {-EIO, -ENOSPC, -EDQUOT, -EFBIG, -EINVAL, -EFAULT};
    const unsigned n = 16;

    (void)state;
    for (unsigned k = 0; k < sizeof(errors) / sizeof(errors[0]); k++) {
        struct zqcow2_backend *be = open_empty();
        bool kept = k < 4;

        atomic_store(&spoilt, (int)(n * SLOT_BYTES));
        atomic_store(&spoil, errors[k]);
        for (unsigned i = 0; i < n; i++)
            write_slot(be, i);
        kick(be);
        wait_done(be, n);
        assert_int_equal(atomic_load(&spoil), 0);
        for (unsigned i = 0; i < n; i++) {
            assert_int_equal(requests[i].done, 1);
            assert_int_equal(requests[i].ret, kept && !i ? errors[k] : 0);
        }
        zqcow2_backend_close(be);
    }
}

/* The kernel refuses to be called while merged requests stand in the ring. */
static void test_refused(void **state)
{
    struct zqcow2_backend *be = open_empty();

    (void)state;
    atomic_store(&refuse, true);
    for (unsigned i = 0; i < SLOTS; i++)
        write_slot(be, i);
    kick(be);
    assert_int_equal(atomic_load(&nr_done), SLOTS);
    assert_int_equal(zqcow2_backend_read(be, back, sizeof(back), 0), 0);
    for (unsigned i = 0; i < SLOTS; i++) {
        assert_int_equal(requests[i].ret, 0);
        assert_int_equal(requests[i].done, 1);
        assert_memory_equal(back + (size_t)i * SLOT_BYTES, buffers[i], SLOT_BYTES);
    }
    zqcow2_backend_close(be);
}

struct submitter {
    struct zqcow2_backend *be;
    unsigned from;
};

static void *submit_quarter(void *arg)
{
    struct submitter *s = arg;

    for (unsigned i = 0; i < SLOTS / 4; i++) {
        write_slot(s->be, s->from + i);
        if (i % 16 == 15)
            kick(s->be);
    }
    kick(s->be);
    return NULL;
}

/* The kernel cancels what a thread leaves behind when it ends. */
static void test_submitters_end(void **state)
{
    struct zqcow2_backend *be = open_empty();

    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        struct submitter s[4];
        pthread_t t[4];

        atomic_store(&nr_done, 0);
        for (unsigned i = 0; i < 4; i++) {
            s[i] = (struct submitter){be, i * SLOTS / 4};
            assert_int_equal(pthread_create(&t[i], NULL, submit_quarter, &s[i]), 0);
        }
        for (unsigned i = 0; i < 4; i++)
            pthread_join(t[i], NULL);
        wait_done(be, SLOTS);
        for (unsigned i = 0; i < SLOTS; i++) {
            assert_int_equal(requests[i].done, 1);
            assert_int_equal(requests[i].ret, 0);
        }
    }
    zqcow2_backend_close(be);
}

/* ---- at random ---- */

static uint8_t model[sizeof(back)];

/* In pieces of one to four vectors, odd lengths among them. */
static void start_pieces(struct zqcow2_backend *be, unsigned i, uint64_t off, size_t len,
                         uint64_t *s)
{
    struct request *r = &requests[i];
    uint8_t *p = buffers[i];

    memset(r, 0, sizeof(*r));
    memset(buffers[i], (int)next_random(s), len);
    memcpy(model + off, buffers[i], len);
    r->io = (struct zqcow2_io){.kind = ZQCOW2_IO_WRITE, .offset = off, .length = len};
    r->io.iov = r->iov;
    r->io.done = request_done;
    while (len) {
        size_t n = r->io.iovcnt == 3 ? len : (size_t)(next_random(s) % len) + 1;
        r->iov[r->io.iovcnt++] = (struct iovec){p, n};
        p += n;
        len -= n;
    }
    assert_int_equal(be->ops.submit(be->self, &r->io), 0);
}

/* Streams with gaps, which take turns in no order; none runs into another. */
static unsigned one_round(struct zqcow2_backend *be, uint64_t *s)
{
    const uint64_t room = sizeof(model) / STREAMS;
    uint64_t at[STREAMS];
    unsigned n = 0;

    for (unsigned i = 0; i < STREAMS; i++)
        at[i] = i * room + next_random(s) % 4096;
    atomic_store(&nr_done, 0);
    for (; n < SLOTS; n++) {
        unsigned k = (unsigned)(next_random(s) % STREAMS);
        size_t len = (size_t)(next_random(s) % (next_random(s) % 2 ? SLOT_BYTES : 64)) + 1;

        at[k] += next_random(s) % 8 ? 0 : next_random(s) % 512;
        if (at[k] + len > (k + 1) * room)
            break;
        start_pieces(be, n, at[k], len, s);
        at[k] += len;
        if (next_random(s) % 64 == 0)
            kick(be);
    }
    kick(be);
    wait_done(be, n);
    return n;
}

static void test_at_random(void **state)
{
    struct zqcow2_backend *be = open_empty();
    uint64_t s = 4711, all = 0;

    (void)state;
    memset(model, 0, sizeof(model));
    atomic_store(&nr_handed, 0);
    atomic_store(&nr_vectors, 0);
    for (unsigned round = 0; round < 60; round++) {
        unsigned n = one_round(be, &s);

        all += n;
        for (unsigned i = 0; i < n; i++)
            if (requests[i].done != 1 || requests[i].ret)
                fail_msg("seed 4711, round %u, request %u: done %u times, ret %d", round, i,
                         requests[i].done, requests[i].ret);
        assert_int_equal(zqcow2_backend_read(be, back, sizeof(back), 0), 0);
        for (size_t i = 0; i < sizeof(back); i++)
            if (back[i] != model[i])
                fail_msg("seed 4711, round %u: byte %zu is %u instead of %u", round, i, back[i],
                         model[i]);
    }
    print_message("merged writes: %u requests became %u with %u vectors, 0 wrong\n", (unsigned)all,
                  atomic_load(&nr_handed), atomic_load(&nr_vectors));
    assert_true(atomic_load(&nr_handed) < all / 2);
    zqcow2_backend_close(be);
}

/* More vectors in one batch than the backend has room for. */
static void test_many_vectors(void **state)
{
    struct zqcow2_backend *be = open_empty();
    uint64_t s = 31;

    (void)state;
    memset(model, 0, sizeof(model));
    for (unsigned i = 0; i < SLOTS; i++)
        start_pieces(be, i, (uint64_t)i * 256, 256, &s);
    kick(be);
    wait_done(be, SLOTS);
    for (unsigned i = 0; i < SLOTS; i++)
        assert_int_equal(requests[i].ret, 0);
    assert_int_equal(zqcow2_backend_read(be, back, SLOTS * 256, 0), 0);
    assert_memory_equal(back, model, SLOTS * 256);
    zqcow2_backend_close(be);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_adjoins),      cmocka_unit_test(test_one_mebibyte),
        cmocka_unit_test(test_direct_apart),      cmocka_unit_test(test_bad_memory),
        cmocka_unit_test(test_uncached),          cmocka_unit_test(test_full_host),
        cmocka_unit_test(test_refused),           cmocka_unit_test(test_submitters_end),
        cmocka_unit_test(test_at_random),         cmocka_unit_test(test_many_vectors),
        cmocka_unit_test(test_error_of_the_file), cmocka_unit_test(test_flag_refused),
    };
    int fd = mkstemp(path), failed;

    if (fd < 0 || close(fd) < 0) {
        perror(path);
        return 1;
    }
    failed = cmocka_run_group_tests_name("merged writes", tests, NULL, NULL);
    unlink(path);
    return failed;
}
