/* SPDX-License-Identifier: MIT */
/* The library's sides: blocking calls, and queues over the asynchronous backends. */
#include <stdlib.h>
#include <string.h>
#include "bench.h"

enum way { WAY_FILE, WAY_RING, WAY_UNCACHED, WAY_THREADS };

struct slot {
    struct zqcow2_request req;
    struct iovec iov;
    struct image *image;
};

struct image {
    struct plan own;
    const struct plan *plan; /* the caller's, or the own one */
    const char *path;
    enum way way;
    struct zqcow2_image *img;
    struct zqcow2_queue *queue;
    struct zqcow2_resolver *resolver;
    struct course course[MAX_THREADS];
    struct slot *idle[MAX_DEPTH];
    unsigned nr_idle, done;
    struct slot slot[MAX_DEPTH];
};

static bool is_first(const struct plan *p)
{
    return p->pattern == FIRST;
}

static void start_course(struct image *m)
{
    for (unsigned i = 0; i < MAX_THREADS; i++)
        course_begin(&m->course[i], m->plan, i);
}

static int open_backend(const struct image *m, struct zqcow2_backend **be)
{
    unsigned flags = ZQCOW2_FILE_RDWR | (bench_direct ? ZQCOW2_FILE_DIRECT : 0u);

    bool ring = m->way == WAY_RING || m->way == WAY_UNCACHED;
    struct zqcow2_backend *file;
    int rc;

    if (m->way == WAY_UNCACHED)
        flags |= ZQCOW2_FILE_DONTCACHE;
    rc = ring ? zqcow2_uring_open(m->path, flags, NULL, be) :
                zqcow2_file_open(m->path, flags, NULL, be);

    if (rc == 0 && m->way == WAY_THREADS) {
        file = *be;
        rc = zqcow2_threads_wrap(file, 2, NULL, be);
    }
    return rc;
}

static void open_image(struct image *m)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_backend *be;
    int rc = open_backend(m, &be);

    o.flags = ZQCOW2_OPEN_RDWR;
    o.resolve = zqcow2_resolve_file;
    if (rc == 0)
        rc = zqcow2_resolver_new(m->path, NULL, &m->resolver);
    o.resolve_arg = m->resolver;
    if (rc == 0)
        rc = zqcow2_open(be, &o, &m->img, NULL);
    if (rc == 0)
        rc = zqcow2_queue_open(m->img, MAX_DEPTH, &m->queue);
    if (rc < 0)
        bench_die("open", rc);
    start_course(m);
}

static void close_image(struct image *m)
{
    int rc = zqcow2_queue_close(m->queue);

    if (rc == 0)
        rc = zqcow2_close(m->img);
    if (rc < 0)
        bench_die("close", rc);
    zqcow2_resolver_free(m->resolver);
}

/* Of a plain image the clusters that will be overwritten, as an overlay would have copied them. */
static void fill_places(struct image *m)
{
    for (unsigned i = 0; i < m->plan->ops; i++) {
        uint64_t at = course_next(&m->course[0]) / KiB(64) * KiB(64);
        int rc = zqcow2_write(m->img, bench_buffer(0, KiB(64)), KiB(64), at, 0);

        if (rc < 0)
            bench_die("fill", rc);
    }
    zqcow2_flush(m->img);
}

static void fill(struct image *m)
{
    uint64_t first =
        m->plan->pattern == OVERWRITE || is_plain(m->plan) ? 0 : CONV_ZONES * ZONE_BYTES;

    for (uint64_t at = 0; at < m->plan->zones * ZONE_BYTES; at += MiB(1)) {
        int rc = zqcow2_write(m->img, bench_buffer(0, MiB(1)), MiB(1), first + at, 0);
        if (rc < 0)
            bench_die("fill", rc);
    }
    zqcow2_flush(m->img);
}

static void *begin(const struct plan *p, const char *path, enum way way)
{
    struct image *m = calloc(1, sizeof(*m));

    m->plan = p;
    m->path = path;
    m->way = way;
    files_make(p, path, false);
    open_image(m);
    if (must_fill(p) && is_plain(p) && p->pattern == OVERWRITE)
        fill_places(m);
    else if (must_fill(p))
        fill(m);
    return m;
}

static void end(void *self)
{
    struct image *m = self;

    close_image(m);
    files_remove(m->plan, m->path);
    free(m);
}

static void renew(struct image *m)
{
    if (is_plain(m->plan))
        start_course(m);
    if (!m->plan->fresh)
        return;
    close_image(m);
    files_make(m->plan, m->path, true);
    open_image(m);
}

static bool anywhere(const struct plan *p)
{
    return p->pattern == OVERWRITE || p->pattern == SCATTER;
}

/* Where on the device: sequential zones lie behind the conventional ones. */
static uint64_t place(struct image *m, unsigned thread)
{
    uint64_t at = course_next(&m->course[thread]);

    return anywhere(m->plan) || is_first(m->plan) || is_plain(m->plan) ?
               at :
               at + CONV_ZONES * ZONE_BYTES;
}

/* ---- one request after the other ---- */

static int one_call(struct image *m, char *buf, uint64_t at)
{
    const struct plan *p = m->plan;
    uint64_t zone = at / ZONE_BYTES * ZONE_BYTES;

    if (p->pattern == READ)
        return zqcow2_read(m->img, buf, p->bytes, at);
    if (anywhere(p) || is_first(p) || p->fresh)
        return zqcow2_write(m->img, buf, p->bytes, at, 0);
    return zqcow2_append(m->img, buf, p->bytes, &zone, 0);
}

static void call_loop(void *self, unsigned thread)
{
    struct image *m = self;
    char *buf = bench_buffer(thread, m->plan->bytes);

    for (unsigned i = 0; i < m->plan->ops; i++) {
        int rc = one_call(m, buf, place(m, thread));
        if (rc < 0)
            bench_die("call", rc);
    }
}

static double calls_chunk(void *self)
{
    struct image *m = self;

    renew(m);
    return bench_threads(m->plan, call_loop, m);
}

static void *calls_begin(const struct plan *p, const char *path)
{
    return begin(p, path, WAY_FILE);
}

static void *ring_begin(const struct plan *p, const char *path)
{
    return begin(p, path, WAY_RING);
}

static void *uncached_begin(const struct plan *p, const char *path)
{
    return begin(p, path, WAY_UNCACHED);
}

static void *threads_begin(const struct plan *p, const char *path)
{
    return begin(p, path, WAY_THREADS);
}

static void *alone_begin(const struct plan *p, const char *path)
{
    struct plan alone = *p;
    struct image *m;

    alone.levels = 0;
    m = begin(&alone, path, WAY_FILE);
    m->own = alone;
    m->plan = &m->own;
    start_course(m);
    return m;
}

const struct side lib_alone = {"no layers", alone_begin, calls_chunk, end};
const struct side lib_calls = {"library calls", calls_begin, calls_chunk, end};
const struct side lib_calls_ring = {"calls, io_uring", ring_begin, calls_chunk, end};
const struct side lib_calls_threads = {"calls, threads", threads_begin, calls_chunk, end};

/* ---- many in flight ---- */

static void request_done(void *arg, const struct zqcow2_result *res)
{
    struct slot *s = arg;

    if (res->ret < 0)
        bench_die("request", res->ret);
    s->image->idle[s->image->nr_idle++] = s;
    s->image->done++;
}

static void set_request(struct image *m, struct zqcow2_request *r, struct slot *s)
{
    const struct plan *p = m->plan;
    uint64_t at = place(m, 0);

    s->iov = (struct iovec){bench_buffer((unsigned)(s - m->slot), p->bytes), p->bytes};
    *r = (struct zqcow2_request){.size = sizeof(*r),
                                 .op = ZQCOW2_OP_READ,
                                 .offset = at,
                                 .iov = &s->iov,
                                 .iovcnt = 1,
                                 .done = request_done,
                                 .arg = s};
    if (p->pattern == READ)
        return;
    r->op = anywhere(p) ? ZQCOW2_OP_WRITE : ZQCOW2_OP_APPEND;
    if (r->op == ZQCOW2_OP_APPEND)
        r->offset = at / ZONE_BYTES * ZONE_BYTES;
}

static void queue_loop(struct image *m)
{
    const struct plan *p = m->plan;
    struct zqcow2_request batch[MAX_DEPTH];
    unsigned begun = 0;

    m->nr_idle = m->done = 0;
    for (unsigned i = 0; i < p->depth; i++) {
        m->slot[i].image = m;
        m->idle[m->nr_idle++] = &m->slot[i];
    }
    while (m->done < p->ops) {
        unsigned n = 0;
        int rc = 0;

        while (m->nr_idle && begun + n < p->ops)
            set_request(m, &batch[n++], m->idle[--m->nr_idle]);
        if (n)
            rc = zqcow2_queue_submit(m->queue, batch, n);
        if (n && rc != (int)n)
            bench_die("submit", rc);
        begun += n;
        zqcow2_queue_wait(m->queue, 1, -1);
    }
}

static double queue_chunk(void *self)
{
    struct image *m = self;
    double start;

    renew(m);
    start = bench_now();
    queue_loop(m);
    return bench_now() - start;
}

const struct side lib_queue_ring = {"queue, io_uring", ring_begin, queue_chunk, end};
const struct side lib_queue_uncached = {"ring, DONTCACHE", uncached_begin, queue_chunk, end};
const struct side lib_queue_file = {"queue, file", calls_begin, queue_chunk, end};
