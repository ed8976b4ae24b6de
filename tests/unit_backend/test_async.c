/* SPDX-License-Identifier: MIT */
/* The asynchronous backends by themselves: raw requests, without an image above. */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "backend/backend.h"
#include "backend/file.h"
#include "count_hooks.h"

#define SLOTS 512u
#define SLOT_BYTES 4096u

/* ---- the harness: what an image does with completions, boiled down ---- */

struct request {
    struct zqcow2_io io; /* first */
    struct iovec iov[4];
    _Atomic unsigned done;
    int ret;
};

static _Atomic unsigned nr_done;

void zqcow2_io_done(struct zqcow2_io *io, int ret)
{
    struct request *r = (struct request *)io;

    r->ret = ret;
    atomic_fetch_add(&r->done, 1);
    atomic_fetch_add(&nr_done, 1);
}

static struct request requests[SLOTS];
static uint8_t buffers[SLOTS][SLOT_BYTES] __attribute__((aligned(4096)));
static uint8_t model[SLOTS * SLOT_BYTES];

/* The kinds of backend that every test runs on. */
struct world {
    const char *name;
    int (*open)(struct zqcow2_backend **be, unsigned flags);
    unsigned flags;
};

static char path[] = "zq-async-XXXXXX";

static int open_threads_file(struct zqcow2_backend **be, unsigned flags)
{
    struct zqcow2_backend *inner = NULL;
    int rc = zqcow2_file_open(path, flags, NULL, &inner);

    if (rc == 0)
        rc = zqcow2_threads_wrap(inner, 4, NULL, be);
    return rc;
}

static int open_threads_memory(struct zqcow2_backend **be, unsigned flags)
{
    struct zqcow2_backend *inner = NULL;
    int rc = zqcow2_mem_open(0, NULL, &inner);

    (void)flags;
    if (rc == 0)
        rc = zqcow2_threads_wrap(inner, 3, NULL, be);
    return rc;
}

static int open_uring(struct zqcow2_backend **be, unsigned flags)
{
    return zqcow2_uring_open(path, flags, NULL, be);
}

static struct zqcow2_backend *open_world(const struct world *w)
{
    struct zqcow2_backend *be = NULL;
    int rc;

    memset(requests, 0, sizeof(requests));
    atomic_store(&nr_done, 0);
    assert_int_equal(truncate(path, 0), 0);
    rc = w->open(&be, ZQCOW2_FILE_RDWR | w->flags);
    if (rc == -ENOSYS || (rc < 0 && w->flags)) {
        print_message("%s: not here (%s)\n", w->name, strerror(-rc));
        skip();
    }
    if (rc < 0)
        fail_msg("%s: %s", w->name, strerror(-rc));
    return be;
}

static void start(struct zqcow2_backend *be, unsigned i, unsigned kind, uint64_t off, uint64_t len)
{
    struct request *r = &requests[i];

    memset(r, 0, sizeof(*r));
    r->io.kind = kind;
    r->io.offset = off;
    r->io.length = len;
    if (kind <= ZQCOW2_IO_WRITE) {
        r->io.iov = r->iov;
        r->io.iovcnt = 1;
        r->iov[0] = (struct iovec){ buffers[i], len };
    }
    assert_int_equal(be->ops.submit(be->self, &r->io), 0);
}

static void kick(struct zqcow2_backend *be)
{
    if (be->ops.kick)
        be->ops.kick(be->self);
}

/* Until n requests in all are done; a backend that does not come to that fails the test. */
static void wait_done(struct zqcow2_backend *be, unsigned n)
{
    const struct timespec nap = { 0, 100000 };
    time_t end = time(NULL) + 60;

    while (atomic_load(&nr_done) < n) {
        if (be->ops.poll)
            assert_true(be->ops.poll(be->self, 1000) >= 0);
        else
            nanosleep(&nap, NULL);
        if (time(NULL) > end)
            fail_msg("%u of %u requests done after a minute", atomic_load(&nr_done), n);
    }
    assert_int_equal(atomic_load(&nr_done), n);
}

/* ---- tests on every kind ---- */

/* Rounds of requests, each of a slot of its own, in flight together; far more than the ring holds. */
static void test_against_array(void **state)
{
    const struct world *w = *state;
    struct zqcow2_backend *be = open_world(w);
    uint64_t s = 99;

    memset(model, 0, sizeof(model));
    assert_int_equal(zq_be_truncate(be, sizeof(model)), 0);
    for (unsigned round = 0; round < 30; round++) {
        unsigned kinds[SLOTS];
        atomic_store(&nr_done, 0);
        for (unsigned i = 0; i < SLOTS; i++) {
            kinds[i] = (unsigned)(next_random(&s) % 4);
            kinds[i] = kinds[i] == ZQCOW2_IO_FLUSH && i % 64 ? ZQCOW2_IO_READ : kinds[i];
            if (kinds[i] == ZQCOW2_IO_WRITE)
                memset(buffers[i], (int)(round * 7 + i), SLOT_BYTES);
            else
                memset(buffers[i], 0x5a, SLOT_BYTES);
            start(be, i, kinds[i], (uint64_t)i * SLOT_BYTES, SLOT_BYTES);
            if (next_random(&s) % 16 == 0)
                kick(be);
        }
        kick(be);
        wait_done(be, SLOTS);
        for (unsigned i = 0; i < SLOTS; i++) {
            uint8_t *m = model + (size_t)i * SLOT_BYTES;
            if (requests[i].done != 1 || requests[i].ret)
                fail_msg("%s, seed 99, round %u, slot %u: done %u times, ret %d", w->name, round,
                         i, requests[i].done, requests[i].ret);
            if (kinds[i] == ZQCOW2_IO_WRITE)
                memcpy(m, buffers[i], SLOT_BYTES);
            if (kinds[i] == ZQCOW2_IO_ZERO)
                memset(m, 0, SLOT_BYTES);
            if (kinds[i] == ZQCOW2_IO_READ && memcmp(m, buffers[i], SLOT_BYTES))
                fail_msg("%s, seed 99, round %u, slot %u: wrong bytes", w->name, round, i);
        }
    }
    static uint8_t all[sizeof(model)] __attribute__((aligned(4096)));
    assert_int_equal(zqcow2_backend_read(be, all, sizeof(all), 0), 0);
    assert_memory_equal(all, model, sizeof(model));
    zqcow2_backend_close(be);
}

/* Several buffers a request, and the end of the file in the midst of one. */
static void test_vectors_and_end(void **state)
{
    const struct world *w = *state;
    struct zqcow2_backend *be = open_world(w);
    static const size_t cut[4] = { 512, 0, 1024, 2560 };

    memset(buffers[0], 0x33, SLOT_BYTES);
    assert_int_equal(zqcow2_backend_write(be, buffers[0], SLOT_BYTES, 0), 0);
    for (uint64_t end = 0; end <= 4096; end += 512) {
        uint8_t *p = buffers[1];
        struct request *r = &requests[0];

        assert_int_equal(zq_be_truncate(be, end), 0);
        memset(r, 0, sizeof(*r));
        memset(buffers[1], 0xff, SLOT_BYTES);
        r->io = (struct zqcow2_io){ .kind = ZQCOW2_IO_READ, .iovcnt = 4, .length = 4096,
                                    .iov = r->iov };
        for (int i = 0; i < 4; p += cut[i++])
            r->iov[i] = (struct iovec){ p, cut[i] };
        atomic_store(&nr_done, 0);
        assert_int_equal(be->ops.submit(be->self, &r->io), 0);
        kick(be);
        wait_done(be, 1);
        assert_int_equal(r->ret, 0);
        for (unsigned i = 0; i < 4096; i++) {
            if (buffers[1][i] != (i < end ? 0x33 : 0))
                fail_msg("%s: file of %u bytes: byte %u is %d", w->name, (unsigned)end, i,
                         buffers[1][i]);
        }
        assert_int_equal(zq_be_truncate(be, 0), 0);
        assert_int_equal(zqcow2_backend_write(be, buffers[0], SLOT_BYTES, 0), 0);
    }
    zqcow2_backend_close(be);
}

/* Close with all of it in flight: every request is done, once, when close returns. */
static void test_close_drains(void **state)
{
    const struct world *w = *state;

    for (unsigned round = 0; round < 10; round++) {
        struct zqcow2_backend *be = open_world(w);
        for (unsigned i = 0; i < SLOTS; i++)
            start(be, i, i % 2 ? ZQCOW2_IO_WRITE : ZQCOW2_IO_READ, (uint64_t)i * SLOT_BYTES,
                  SLOT_BYTES);
        if (round % 2)
            kick(be);
        zqcow2_backend_close(be);
        assert_int_equal(atomic_load(&nr_done), SLOTS);
        for (unsigned i = 0; i < SLOTS; i++) {
            assert_int_equal(requests[i].done, 1);
            assert_int_equal(requests[i].ret, 0);
        }
    }
}

struct submitter {
    struct zqcow2_backend *be;
    unsigned from;
};

static void *submit_some(void *arg)
{
    struct submitter *s = arg;

    for (unsigned i = s->from; i < SLOTS; i += 4) {
        start(s->be, i, i % 8 == 7 ? ZQCOW2_IO_FLUSH : ZQCOW2_IO_WRITE, (uint64_t)i * SLOT_BYTES,
              SLOT_BYTES);
        if (i % 16 < 4)
            kick(s->be);
    }
    kick(s->be);
    return NULL;
}

/* Threads submit at once, and end while their requests run. That must not cancel any. */
static void test_submitters_end(void **state)
{
    const struct world *w = *state;
    struct zqcow2_backend *be = open_world(w);

    for (unsigned round = 0; round < 10; round++) {
        struct submitter s[4];
        pthread_t t[4];

        atomic_store(&nr_done, 0);
        for (unsigned i = 0; i < 4; i++) {
            s[i] = (struct submitter){ be, i };
            assert_int_equal(pthread_create(&t[i], NULL, submit_some, &s[i]), 0);
        }
        for (unsigned i = 0; i < 4; i++)
            pthread_join(t[i], NULL);
        wait_done(be, SLOTS);
        for (unsigned i = 0; i < SLOTS; i++)
            assert_int_equal(requests[i].ret, 0);
    }
    zqcow2_backend_close(be);
}

static void test_blocking_calls(void **state)
{
    const struct world *w = *state;
    struct zqcow2_backend *be = open_world(w);
    uint64_t n = 0;
    char buf[600];

    assert_true(zq_be_writable(be));
    assert_int_equal(zqcow2_backend_write(be, "hello", 5, 1000), 0);
    assert_int_equal(zq_be_flush(be), 0);
    assert_int_equal(zqcow2_backend_read(be, buf, sizeof(buf), 900), 0);
    assert_memory_equal(buf + 100, "hello", 5);
    assert_int_equal(zq_be_truncate(be, 8192), 0);
    assert_int_equal(zqcow2_backend_length(be, &n), 0);
    assert_int_equal(n, 8192);
    assert_int_equal(zq_be_zero(be, 0, 8192), 0);
    assert_int_equal(zqcow2_backend_read(be, buf, sizeof(buf), 900), 0);
    assert_int_equal(buf[100] | buf[104], 0);
    if (be->ops.discard)
        assert_int_equal(be->ops.discard(be->self, 0, 4096), 0);
    if (be->ops.invalidate)
        be->ops.invalidate(be->self);
    zqcow2_backend_close(be);
}

/* A lock is free again at once: the next open of the same file must not find it. */
static void test_lock_ends_with_close(void **state)
{
    const struct world *w = *state;

    for (unsigned i = 0; i < 50; i++) {
        struct zqcow2_backend *be = open_world(w);
        if (zq_be_lock(be, ZQCOW2_LOCK_EXCLUSIVE))
            fail_msg("%s: attempt %u finds the lock of a closed backend", w->name, i);
        start(be, 0, ZQCOW2_IO_WRITE, 0, SLOT_BYTES);
        kick(be);
        zqcow2_backend_close(be);
    }
}

/* ---- io_uring alone ---- */

static struct zqcow2_backend *open_plain_uring(void)
{
    static const struct world w = { "io_uring", open_uring, 0 };

    return open_world(&w);
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

static void test_fd_becomes_readable(void **state)
{
    struct zqcow2_backend *be = open_plain_uring();
    struct pollfd p = { be->ops.fd(be->self), POLLIN, 0 };

    (void)state;
    assert_int_equal(poll(&p, 1, 0), 0);
    start(be, 0, ZQCOW2_IO_WRITE, 0, SLOT_BYTES);
    assert_int_equal(poll(&p, 1, 10), 0);
    kick(be);
    assert_int_equal(poll(&p, 1, 10000), 1);
    assert_int_equal(atomic_load(&nr_done), 0);
    assert_int_equal(be->ops.poll(be->self, 0), 1);
    assert_int_equal(atomic_load(&nr_done), 1);
    assert_int_equal(poll(&p, 1, 0), 0);
    zqcow2_backend_close(be);
}

static void test_uring_refuses(void **state)
{
    struct zqcow2_backend *be = open_plain_uring();
    struct zqcow2_io io = { .kind = ZQCOW2_IO_TRUNCATE, .offset = 4096 };
    struct count_hooks c;

    (void)state;
    assert_int_equal(be->ops.submit(be->self, &io), -EOPNOTSUPP);
    io.kind = 77;
    assert_int_equal(be->ops.submit(be->self, &io), -EOPNOTSUPP);
    io = (struct zqcow2_io){ .kind = ZQCOW2_IO_ZERO, .offset = UINT64_MAX - 511, .length = 512 };
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

/* A file in a file system of its own, reached by path. -1: not allowed here. */
static int private_fs(const char *type, const char *size, char *file, size_t room)
{
    int fs = fsopen(type, FSOPEN_CLOEXEC), mnt, fd;

    if (fs < 0 || (size && fsconfig(fs, FSCONFIG_SET_STRING, "size", size, 0) < 0) ||
        fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return -1;
    mnt = fsmount(fs, FSMOUNT_CLOEXEC, 0);
    close(fs);
    fd = mnt < 0 ? -1 : openat(mnt, "f", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    close(fd);
    snprintf(file, room, "/proc/self/fd/%d/f", mnt);
    return mnt;
}

static void test_full_disk(void **state)
{
    char file[64];
    int mnt = private_fs("tmpfs", "64k", file, sizeof(file));
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
    int mnt = private_fs("ramfs", NULL, file, sizeof(file));
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
    assert_int_equal(be->ops.submit(be->self, &requests[0].io), -EOPNOTSUPP);
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
    struct sock_fprog prog = { sizeof(code) / sizeof(code[0]), code };

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
        requests[i].io = (struct zqcow2_io){ .kind = ZQCOW2_IO_WRITE, .iovcnt = 1,
            .offset = (uint64_t)i * SLOT_BYTES, .length = SLOT_BYTES, .iov = requests[i].iov };
        requests[i].iov[0] = (struct iovec){ buffers[i], SLOT_BYTES };
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
    zqcow2_backend_close(be);
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
    if (WEXITSTATUS(status) == 77)
        skip();
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- threads alone ---- */

static void test_wrap_refuses(void **state)
{
    struct zqcow2_backend *inner, *be;
    struct count_hooks c;
    uint64_t n;

    (void)state;
    assert_int_equal(zqcow2_mem_open(4096, NULL, &inner), 0);
    assert_int_equal(zqcow2_threads_wrap(NULL, 1, NULL, &be), -EINVAL);
    assert_int_equal(zqcow2_threads_wrap(inner, 0, NULL, &be), -EINVAL);
    assert_int_equal(zqcow2_threads_wrap(inner, 257, NULL, &be), -EINVAL);
    assert_int_equal(zqcow2_threads_wrap(inner, 1, NULL, NULL), -EINVAL);
    for (int64_t i = 1; i <= 3; i++) {
        count_init(&c);
        c.fail_at = i;
        assert_int_equal(zqcow2_threads_wrap(inner, 2, &c.hooks, &be), -ENOMEM);
        assert_int_equal(c.bytes, 0);
    }
    /* A failed wrap leaves the inner backend with the caller, and in order. */
    assert_int_equal(zqcow2_backend_length(inner, &n), 0);
    c.fail_at = 0;
    assert_int_equal(zqcow2_threads_wrap(inner, 256, &c.hooks, &be), 0);
    zqcow2_backend_close(be);
    assert_int_equal(c.bytes, 0);
}

/* What the inner backend lacks, the wrapped one lacks too. */
static void test_wrap_shows_lacks(void **state)
{
    struct zqcow2_backend_ops few;
    struct zqcow2_backend *inner, *be, *reader;
    struct zqcow2_io io = { .kind = ZQCOW2_IO_WRITE };

    (void)state;
    assert_int_equal(zqcow2_mem_open(4096, NULL, &inner), 0);
    few = (struct zqcow2_backend_ops){ .size = sizeof(few), .length = inner->ops.length,
                                       .readv = inner->ops.readv };
    assert_int_equal(zqcow2_backend_new(&few, inner->self, NULL, &reader), 0);
    assert_int_equal(zqcow2_threads_wrap(reader, 1, NULL, &be), 0);
    assert_null(be->ops.writev);
    assert_false(zq_be_writable(be));
    for (; io.kind <= ZQCOW2_IO_TRUNCATE + 1; io.kind++)
        assert_int_equal(be->ops.submit(be->self, &io), -EOPNOTSUPP);
    zqcow2_backend_close(be);
    zqcow2_backend_close(inner);
}

static int no_zero(void *self, uint64_t off, uint64_t len)
{
    (void)self;
    (void)off;
    (void)len;
    return -EOPNOTSUPP;
}

static void test_wrap_zeroes_by_writing(void **state)
{
    struct zqcow2_backend *be, *inner;
    static uint8_t back[400000];

    (void)state;
    assert_int_equal(zqcow2_mem_open(0, NULL, &inner), 0);
    inner->ops.zero = no_zero;
    assert_int_equal(zqcow2_threads_wrap(inner, 2, NULL, &be), 0);
    memset(back, 1, sizeof(back));
    assert_int_equal(zqcow2_backend_write(be, back, sizeof(back), 0), 0);
    atomic_store(&nr_done, 0);
    start(be, 0, ZQCOW2_IO_ZERO, 1000, 300000);
    wait_done(be, 1);
    assert_int_equal(requests[0].ret, 0);
    assert_int_equal(zqcow2_backend_read(be, back, sizeof(back), 0), 0);
    for (size_t i = 0; i < sizeof(back); i++)
        assert_int_equal(back[i], i < 1000 || i >= 301000);
    start(be, 0, ZQCOW2_IO_TRUNCATE, 12345, 0);
    wait_done(be, 2);
    uint64_t n;
    assert_int_equal(zqcow2_backend_length(be, &n), 0);
    assert_int_equal(n, 12345);
    zqcow2_backend_close(be);
}

static struct world threads_file = { "threads on a file", open_threads_file, 0 };
static struct world threads_mem = { "threads on memory", open_threads_memory, 0 };
static struct world ring = { "io_uring", open_uring, 0 };
static struct world ring_direct = { "io_uring, O_DIRECT", open_uring, ZQCOW2_FILE_DIRECT };

#define ON(test, w) { #test " on " #w, test, NULL, NULL, &(w) }
#define ON_ALL(test) ON(test, threads_file), ON(test, threads_mem), ON(test, ring), \
                     ON(test, ring_direct)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ALL(test_against_array),
        ON_ALL(test_vectors_and_end),
        ON_ALL(test_close_drains),
        ON_ALL(test_submitters_end),
        ON_ALL(test_blocking_calls),
        ON(test_lock_ends_with_close, threads_file),
        ON(test_lock_ends_with_close, ring),
        cmocka_unit_test(test_wake),
        cmocka_unit_test(test_fd_becomes_readable),
        cmocka_unit_test(test_uring_refuses),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_no_holes),
        cmocka_unit_test(test_sandbox),
        cmocka_unit_test(test_wrap_refuses),
        cmocka_unit_test(test_wrap_shows_lacks),
        cmocka_unit_test(test_wrap_zeroes_by_writing),
    };
    int fd = mkstemp(path), failed;

    if (fd < 0 || close(fd) < 0) {
        perror(path);
        return 1;
    }
    failed = cmocka_run_group_tests_name("async", tests, NULL, NULL);
    unlink(path);
    return failed;
}
