/* SPDX-License-Identifier: MIT */
/*
 * What an image does with the completions of its backend, in short. Include it after cmocka.h.
 * HARNESS_ON_LIBRARY: in a test that has the whole library, and its zqcow2_io_done().
 */
#ifndef ASYNC_HARNESS_H
#define ASYNC_HARNESS_H

#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "device/backend.h"

#define SLOTS      512u
#define SLOT_BYTES 4096u

struct request {
    struct zqcow2_io io; /* first */
    struct iovec iov[4];
    _Atomic unsigned done;
    int ret;
};

static _Atomic unsigned nr_done;

static void request_done(struct zqcow2_io *io, int ret)
{
    struct request *r = (struct request *)io;

    r->ret = ret;
    atomic_fetch_add(&r->done, 1);
    atomic_fetch_add(&nr_done, 1);
}

#ifndef HARNESS_ON_LIBRARY
void zqcow2_io_done(struct zqcow2_io *io, int ret)
{
    request_done(io, ret);
}
#endif

static struct request requests[SLOTS];
static uint8_t buffers[SLOTS][SLOT_BYTES] __attribute__((aligned(4096)));

static inline void start(struct zqcow2_backend *be, unsigned i, unsigned kind, uint64_t off,
                         uint64_t len)
{
    struct request *r = &requests[i];

    memset(r, 0, sizeof(*r));
    r->io.kind = kind;
    r->io.offset = off;
    r->io.length = len;
    r->io.done = request_done;
    if (kind <= ZQCOW2_IO_WRITE) {
        r->io.iov = r->iov;
        r->io.iovcnt = 1;
        r->iov[0] = (struct iovec){buffers[i], len};
    }
    assert_int_equal(be->ops.submit(be->self, &r->io), 0);
}

static inline void kick(struct zqcow2_backend *be)
{
    if (be->ops.kick)
        be->ops.kick(be->self);
}

/* Until n requests in all are done; a backend that does not come to that fails the test. */
static inline void wait_done(struct zqcow2_backend *be, unsigned n)
{
    const struct timespec nap = {0, 100000};
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

#endif
