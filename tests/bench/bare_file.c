/* SPDX-License-Identifier: MIT */
/* The limit: bare loops of pread, pwrite and io_uring on a file laid out as an image's data is. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "bench.h"
#ifdef BENCH_URING
#include <liburing.h>
#endif

struct raw {
    const struct plan *plan;
    const char *path;
    int fd;
    struct course course[MAX_THREADS];
#ifdef BENCH_URING
    struct io_uring ring;
    bool has_ring;
#endif
};

static void open_file(struct raw *r)
{
    int flags = O_RDWR | O_CREAT | O_TRUNC | (bench_direct ? O_DIRECT : 0);

    r->fd = open(r->path, flags, 0600);
    if (r->fd < 0 || ftruncate(r->fd, (off_t)(RAW_BASE + ZONE_BYTES * NR_ZONES)) < 0)
        bench_die(r->path, -errno);
    for (unsigned i = 0; i < MAX_THREADS; i++)
        course_begin(&r->course[i], r->plan, i);
}

/* What is read or overwritten later lies there as in an image that was filled zone by zone. */
static void fill(struct raw *r)
{
    uint64_t end = r->plan->zones * ZONE_BYTES;

    for (uint64_t at = 0; at < end; at += MiB(1)) {
        if (pwrite(r->fd, bench_buffer(0, MiB(1)), MiB(1), (off_t)(RAW_BASE + at)) != MiB(1))
            bench_die("fill", -errno);
    }
    fdatasync(r->fd);
}

static void *begin(const struct plan *p, const char *path)
{
    struct raw *r = calloc(1, sizeof(*r));

    r->plan = p;
    r->path = path;
    open_file(r);
    if (p->pattern == READ || p->pattern == OVERWRITE)
        fill(r);
    return r;
}

static void end(void *self)
{
    struct raw *r = self;

#ifdef BENCH_URING
    if (r->has_ring)
        io_uring_queue_exit(&r->ring);
#endif
    close(r->fd);
    unlink(r->path);
    free(r);
}

static void renew(struct raw *r)
{
    if (!r->plan->fresh)
        return;
    close(r->fd);
    open_file(r);
}

/* ---- one request after the other ---- */

static void call_loop(void *self, unsigned thread)
{
    struct raw *r = self;
    const struct plan *p = r->plan;
    char *buf = bench_buffer(thread, p->bytes);

    for (unsigned i = 0; i < p->ops; i++) {
        off_t at = (off_t)(RAW_BASE + course_next(&r->course[thread]));
        ssize_t n =
            p->pattern == READ ? pread(r->fd, buf, p->bytes, at) : pwrite(r->fd, buf, p->bytes, at);
        if (n != (ssize_t)p->bytes)
            bench_die("bare call", -errno);
    }
}

static double calls_chunk(void *self)
{
    struct raw *r = self;

    renew(r);
    return bench_threads(r->plan, call_loop, r);
}

const struct side raw_calls = {"bare calls", begin, calls_chunk, end};

/* ---- many in flight ---- */

#ifdef BENCH_URING
bool ring_works(void)
{
    struct io_uring ring;

    if (io_uring_queue_init(4, &ring, 0) < 0)
        return false;
    io_uring_queue_exit(&ring);
    return true;
}

static void *ring_begin(const struct plan *p, const char *path)
{
    struct raw *r = begin(p, path);
    int rc = io_uring_queue_init(MAX_DEPTH, &r->ring, 0);

    if (rc == 0)
        rc = io_uring_register_files(&r->ring, &r->fd, 1);
    if (rc < 0)
        bench_die("io_uring", rc);
    r->has_ring = true;
    return r;
}

static void prep(struct raw *r, struct io_uring_sqe *sqe, unsigned slot)
{
    const struct plan *p = r->plan;
    char *buf = bench_buffer(slot, p->bytes);
    uint64_t at = RAW_BASE + course_next(&r->course[0]);

    if (p->pattern == READ)
        io_uring_prep_read(sqe, 0, buf, (unsigned)p->bytes, at);
    else
        io_uring_prep_write(sqe, 0, buf, (unsigned)p->bytes, at);
    io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data64(sqe, slot);
}

static void ring_loop(struct raw *r)
{
    const struct plan *p = r->plan;
    unsigned idle[MAX_DEPTH], nr_idle = p->depth, begun = 0, done = 0;

    for (unsigned i = 0; i < p->depth; i++)
        idle[i] = i;
    while (done < p->ops) {
        struct io_uring_cqe *cqe;
        unsigned head, n = 0;
        int rc;

        for (; nr_idle && begun < p->ops; begun++)
            prep(r, io_uring_get_sqe(&r->ring), idle[--nr_idle]);
        rc = io_uring_submit_and_wait(&r->ring, 1);
        if (rc < 0)
            bench_die("io_uring_submit", rc);
        io_uring_for_each_cqe(&r->ring, head, cqe)
        {
            if (cqe->res != (int)p->bytes)
                bench_die("bare request", cqe->res);
            idle[nr_idle++] = (unsigned)cqe->user_data;
            n++;
        }
        io_uring_cq_advance(&r->ring, n);
        done += n;
    }
}

static double ring_chunk(void *self)
{
    struct raw *r = self;
    double start = bench_now();

    ring_loop(r);
    return bench_now() - start;
}

const struct side raw_ring = {"bare io_uring", ring_begin, ring_chunk, end};
#else
bool ring_works(void)
{
    return false;
}

const struct side raw_ring = {"bare io_uring", NULL, NULL, NULL};
#endif
