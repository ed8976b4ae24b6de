/* SPDX-License-Identifier: MIT */
/*
 * calls [-n ROUNDS] [-m MIB] DIRECTORY: how long one call of a backend takes, as a distribution.
 *
 * An event loop keeps 32 requests in flight and calls poll() when the descriptor says so. Each
 * poll() is one sample, and each batch of submit() with its kick(); waiting is none. For the file
 * backend each read or write is one. The backends take turns, round by round. Other programs make
 * the times longer, but neither the CPU time of a call nor the number of calls in which the thread
 * slept. DIRECTORY takes MIB, 64 by default.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <zqcow2/backend.h>

#define DEPTH   32u
#define THREADS 4u

enum way { WAY_FILE, WAY_THREADS, WAY_RING, WAYS };
static const char *const way_names[] = {"file", "threads", "io_uring"};

static const struct row {
    const char *name;
    uint32_t kind;
    size_t bytes;
    bool cold;
} rows[] = {
    {"4 KiB buffered write", ZQCOW2_IO_WRITE, 4096, false},
    {"64 KiB buffered write", ZQCOW2_IO_WRITE, 64 << 10, false},
    {"1 MiB buffered write", ZQCOW2_IO_WRITE, 1 << 20, false},
    {"4 MiB buffered write", ZQCOW2_IO_WRITE, 4 << 20, false},
    {"64 KiB cold read", ZQCOW2_IO_READ, 64 << 10, true},
    {"64 KiB cached read", ZQCOW2_IO_READ, 64 << 10, false},
    {"1 MiB cached read", ZQCOW2_IO_READ, 1 << 20, false},
    {"4 MiB cached read", ZQCOW2_IO_READ, 4 << 20, false},
};

struct slot {
    struct zqcow2_io io; /* first */
    struct iovec iov;
    atomic_bool idle;
};

struct moment {
    uint64_t wall, cpu;
    long slept;
};

static struct samples {
    uint32_t *wall, *cpu; /* ns */
    size_t n, room, slept;
} samples[WAYS];
static struct slot slots[DEPTH];
static char *memory;
static size_t file_bytes = 64 << 20;
static char path[512];

static void die(const char *what, int rc)
{
    fprintf(stderr, "bench_calls: %s: %s\n", what, strerror(-rc));
    remove(path);
    exit(1);
}

static uint64_t read_clock(clockid_t clock)
{
    struct timespec t;

    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct moment now(void)
{
    struct rusage u;
    struct moment m;

    getrusage(RUSAGE_THREAD, &u);
    m.slept = u.ru_nvcsw;
    m.cpu = read_clock(CLOCK_THREAD_CPUTIME_ID);
    m.wall = read_clock(CLOCK_MONOTONIC);
    return m;
}

static void sample(enum way way, struct moment since)
{
    struct samples *s = &samples[way];
    uint64_t wall = read_clock(CLOCK_MONOTONIC), cpu = read_clock(CLOCK_THREAD_CPUTIME_ID);

    if (s->n == s->room) {
        s->room = s->room ? s->room * 2 : 4096;
        s->wall = realloc(s->wall, s->room * sizeof(*s->wall));
        s->cpu = realloc(s->cpu, s->room * sizeof(*s->cpu));
        if (!s->wall || !s->cpu)
            die("memory", -ENOMEM);
    }
    s->wall[s->n] = (uint32_t)(wall - since.wall);
    s->cpu[s->n++] = (uint32_t)(cpu - since.cpu);
    s->slept += now().slept > since.slept;
}

static void request_done(struct zqcow2_io *io, int ret)
{
    if (ret < 0)
        die("request", ret);
    atomic_store(&((struct slot *)io)->idle, true);
}

/* Also before writes: pages of the last round may still be under writeback. */
static void settle(bool cold)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd < 0 || fdatasync(fd) < 0)
        die(path, -errno);
    if (cold)
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
}

static struct zqcow2_backend *open_way(enum way way)
{
    struct zqcow2_backend *inner = NULL, *be = NULL;
    int rc = way == WAY_RING ? zqcow2_uring_open(path, ZQCOW2_FILE_RDWR, NULL, &be) :
                               zqcow2_file_open(path, ZQCOW2_FILE_RDWR, NULL, &inner);

    if (rc == 0 && way == WAY_THREADS)
        rc = zqcow2_threads_wrap(inner, THREADS, NULL, &be);
    if (rc == -ENOSYS)
        return NULL;
    if (rc < 0)
        die(path, rc);
    return be ? be : inner;
}

/* Places of the file in an order that no readahead follows. */
static uint64_t place(const struct row *r, size_t i)
{
    return i * 7919 % (file_bytes / r->bytes) * r->bytes;
}

static void blocking(struct zqcow2_backend *be, const struct row *r, size_t ops)
{
    for (size_t i = 0; i < ops; i++) {
        struct iovec iov = {memory + i % DEPTH * r->bytes, r->bytes};
        struct moment since = now();
        int rc = r->kind == ZQCOW2_IO_READ ? zqcow2_backend_readv(be, &iov, 1, place(r, i)) :
                                             zqcow2_backend_writev(be, &iov, 1, place(r, i));
        if (rc < 0)
            die("call", rc);
        sample(WAY_FILE, since);
    }
}

static void submit(struct zqcow2_backend *be, const struct row *r, unsigned s, uint64_t at)
{
    struct slot *slot = &slots[s];
    int rc;

    slot->iov = (struct iovec){memory + s * r->bytes, r->bytes};
    slot->io = (struct zqcow2_io){.kind = r->kind,
                                  .iovcnt = 1,
                                  .offset = at,
                                  .length = r->bytes,
                                  .iov = &slot->iov,
                                  .done = request_done};
    atomic_store(&slot->idle, false);
    rc = zqcow2_backend_submit(be, &slot->io);
    if (rc < 0)
        die("submit", rc);
}

static void wait_and_poll(struct zqcow2_backend *be, enum way way)
{
    struct pollfd p = {way == WAY_RING ? zqcow2_backend_fd(be) : -1, POLLIN, 0};
    struct moment since;

    if (way != WAY_RING) {
        nanosleep(&(struct timespec){0, 20000}, NULL);
        return;
    }
    (void)poll(&p, 1, 1000);
    since = now();
    (void)zqcow2_backend_poll(be, 0);
    sample(way, since);
}

static void queued(struct zqcow2_backend *be, const struct row *r, size_t ops, enum way way)
{
    size_t begun = 0;

    for (unsigned i = 0; i < DEPTH; i++)
        atomic_store(&slots[i].idle, true);
    for (;;) {
        unsigned n = 0, idle = 0;
        struct moment since = now();

        for (unsigned i = 0; i < DEPTH; i++) {
            if (!atomic_load(&slots[i].idle))
                continue;
            idle++;
            if (begun < ops) {
                submit(be, r, i, place(r, begun++));
                n++;
            }
        }
        if (idle == DEPTH && n == 0)
            return;
        zqcow2_backend_kick(be);
        if (n)
            sample(way, since);
        wait_and_poll(be, way);
    }
}

static void one_round(const struct row *r, enum way way)
{
    struct zqcow2_backend *be;
    size_t ops = file_bytes / r->bytes;

    settle(r->cold);
    be = open_way(way);
    if (!be)
        return;
    if (zqcow2_backend_claim(be) < 0)
        die("claim", -EBUSY);
    if (way == WAY_FILE)
        blocking(be, r, ops);
    else
        queued(be, r, ops, way);
    zqcow2_backend_close(be);
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static double at(const uint32_t *sorted, size_t n, double part)
{
    size_t i = (size_t)(part * (double)n);

    return sorted[i < n ? i : n - 1] / 1000.0;
}

static void report(const struct row *r, enum way way)
{
    struct samples *s = &samples[way];

    if (!s->n)
        return;
    qsort(s->wall, s->n, sizeof(*s->wall), compare);
    qsort(s->cpu, s->n, sizeof(*s->cpu), compare);
    printf("| %-22s | %-8s | %6zu | %7.1f | %7.1f | %7.1f | %8.1f | %7.1f | %7.1f | %5zu |\n",
           r->name, way_names[way], s->n, at(s->wall, s->n, 0.5), at(s->wall, s->n, 0.99),
           at(s->wall, s->n, 0.999), at(s->wall, s->n, 1), at(s->cpu, s->n, 0.999),
           at(s->cpu, s->n, 1), s->slept);
    s->n = s->slept = 0;
}

static void make_file(const char *dir)
{
    int fd;

    snprintf(path, sizeof(path), "%s/bench-calls.%ld", dir, (long)getpid());
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        die(path, -errno);
    for (size_t n = 0; n < file_bytes; n += 1 << 20)
        if (pwrite(fd, memory, 1 << 20, (off_t)n) != 1 << 20)
            die(path, -errno);
    close(fd);
}

int main(int argc, char **argv)
{
    unsigned rounds = 5;
    int opt;

    while ((opt = getopt(argc, argv, "n:m:")) >= 0) {
        if (opt == 'n')
            rounds = (unsigned)atoi(optarg);
        else if (opt == 'm')
            file_bytes = (size_t)atoi(optarg) << 20;
        else
            return 2;
    }
    if (optind + 1 != argc || !rounds || file_bytes < 4 << 20)
        return 2;
    memory = malloc((size_t)DEPTH * (4 << 20));
    if (!memory)
        die("memory", -ENOMEM);
    memset(memory, 0xa5, (size_t)DEPTH * (4 << 20));
    make_file(argv[optind]);
    printf("| %-22s | %-8s | %6s | %7s | %7s | %7s | %8s | %7s | %7s | %5s |\n",
           "pattern, 32 in flight", "backend", "calls", "p50, us", "p99", "p99.9", "max",
           "cpu .999", "cpu max", "slept");
    printf("|---|---|---|---|---|---|---|---|---|---|\n");
    for (const struct row *r = rows; r < rows + sizeof(rows) / sizeof(rows[0]); r++) {
        for (unsigned i = 0; i < rounds * WAYS; i++)
            one_round(r, (enum way)(i % WAYS));
        for (unsigned w = 0; w < WAYS; w++)
            report(r, (enum way)w);
    }
    remove(path);
    return 0;
}
