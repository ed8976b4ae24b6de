/* SPDX-License-Identifier: MIT */
/*
 * Compares the library with bare loops, and with qemu-img where it is installed: the same pattern
 * on the same file system, the sides taking turns (A B B A) in small chunks, so that what else the
 * machine does meets both. What counts is the median of the ratios of neighbouring chunks.
 *
 * bench [-s] [-d] [-n CHUNKS] [-r ROW] [DIRECTORY]   -s: short, -d: O_DIRECT, -r: rows of this text
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "bench.h"

#define MAX_CHUNKS 101u

static bool is_short;
static unsigned given_chunks;
static const char *only = "", *dir = ".";
bool bench_direct;
const char *bench_aio = "threads";

static double clock_seconds(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

double bench_now(void)
{
    return clock_seconds(CLOCK_MONOTONIC);
}

void bench_die(const char *what, int rc)
{
    fprintf(stderr, "bench: %s: %s (%d)\n", what, rc < 0 ? zqcow2_strerror(rc) : "failed", rc);
    exit(1);
}

char *bench_buffer(unsigned slot, size_t bytes)
{
    static char *all;
    size_t room = bytes > KiB(64) ? MiB(1) : KiB(64);

    if (!all) {
        if (posix_memalign((void **)&all, 4096, MiB(1) * MAX_DEPTH / 4))
            bench_die("memory", -12);
        for (size_t i = 0; i < MiB(1) * MAX_DEPTH / 4; i++)
            all[i] = (char)(i * 2654435761u >> 13);
    }
    return all + slot * room % (MiB(1) * MAX_DEPTH / 4);
}

void bench_below(char *buf, size_t size, const char *path, unsigned level)
{
    if (level)
        snprintf(buf, size, "%s.%u", path, level);
    else
        snprintf(buf, size, "%s", path);
}

/* ---- the course ---- */

void course_begin(struct course *c, const struct plan *p, unsigned thread)
{
    *c = (struct course){.plan = p, .rng = 88172645463325252ull + thread, .thread = thread};
}

static uint64_t draw(struct course *c)
{
    c->rng ^= c->rng << 13;
    c->rng ^= c->rng >> 7;
    c->rng ^= c->rng << 17;
    return c->rng;
}

uint64_t course_next(struct course *c)
{
    const struct plan *p = c->plan;
    uint64_t k = c->done++, zone, pos;

    if (is_plain(p))
        return k * p->step % (p->zones * ZONE_BYTES);
    if (p->pattern == SCATTER) /* an odd factor: each place once */
        return (k * 5003 * KiB(64) + draw(c) % 16 * p->bytes) % (p->zones * ZONE_BYTES);
    if (p->pattern == FIRST)
        return k % MANY_ZONES * MANY_BYTES;
    if (p->pattern != APPEND)
        return draw(c) % (p->zones * ZONE_BYTES / p->bytes) * p->bytes;
    zone = p->threads > 1 ? c->thread : k % p->zones;
    pos = (p->threads > 1 ? k : k / p->zones) * p->bytes;
    return (zone + p->zones * (pos / ZONE_BYTES)) * ZONE_BYTES + pos % ZONE_BYTES;
}

/* ---- threads ---- */

struct hand {
    void (*work)(void *self, unsigned thread);
    void *self;
    unsigned thread;
    pthread_barrier_t *line;
};

static void *hand(void *arg)
{
    struct hand *h = arg;

    pthread_barrier_wait(h->line);
    h->work(h->self, h->thread);
    return NULL;
}

double bench_threads(const struct plan *p, void (*work)(void *self, unsigned thread), void *self)
{
    pthread_t thread[MAX_THREADS];
    struct hand h[MAX_THREADS];
    pthread_barrier_t line;
    double start;

    if (p->threads <= 1) {
        start = bench_now();
        work(self, 0);
        return bench_now() - start;
    }
    pthread_barrier_init(&line, NULL, p->threads + 1);
    for (unsigned i = 0; i < p->threads; i++) {
        h[i] = (struct hand){work, self, i, &line};
        if (pthread_create(&thread[i], NULL, hand, &h[i]))
            bench_die("thread", -11);
    }
    pthread_barrier_wait(&line);
    start = bench_now();
    for (unsigned i = 0; i < p->threads; i++)
        pthread_join(thread[i], NULL);
    pthread_barrier_destroy(&line);
    return bench_now() - start;
}

/* ---- one row ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* The q-th quantile of v, which it sorts. */
static double quantile(double *v, unsigned n, double q)
{
    qsort(v, n, sizeof(*v), compare);
    return v[(unsigned)((double)(n - 1) * q + 0.5)];
}

/* What both sides took, chunk by chunk; cpu: of the whole process, the kernel's share included. */
struct times {
    double wall[MAX_CHUNKS], cpu[MAX_CHUNKS];
};

static double median_ratio(const double *a, const double *b, unsigned n)
{
    double ratio[MAX_CHUNKS];

    for (unsigned i = 0; i < n; i++)
        ratio[i] = a[i] / b[i];
    return quantile(ratio, n, 0.5);
}

static void print_row(const struct plan *p, const struct side *a, const struct side *b,
                      struct times *ta, struct times *tb, unsigned n)
{
    double us = 1e6 / p->ops / p->threads, ratio[MAX_CHUNKS], low, mid, high;
    char target[16] = "", cpu[16] = "";

    if (a != &qemu_side)
        snprintf(cpu, sizeof(cpu), "%.2f", median_ratio(ta->cpu, tb->cpu, n));
    for (unsigned i = 0; i < n; i++)
        ratio[i] = ta->wall[i] / tb->wall[i];
    low = quantile(ratio, n, 0.25);
    mid = quantile(ratio, n, 0.5);
    high = quantile(ratio, n, 0.75);
    if (p->target > 0)
        snprintf(target, sizeof(target), "%s %.2f", mid >= p->target ? "ok" : "BELOW", p->target);
    printf("| %-34s | %-14s | %8.2f | %-16s | %8.2f | %6.2f | %5.2f-%-6.2f | %6s | %-10s |\n",
           p->title, a->name, quantile(ta->wall, n, 0.5) * us, b->name,
           quantile(tb->wall, n, 0.5) * us, mid, low, high, cpu, target);
    fflush(stdout);
}

static void turn(const struct side *side, void *self, unsigned nr, struct times *t)
{
    unsigned i = nr ? nr - 1 : 0;
    double cpu = clock_seconds(CLOCK_PROCESS_CPUTIME_ID);

    t->wall[i] = side->chunk(self);
    t->cpu[i] = clock_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
}

/*
 * A and B take turns; B is the library. The first turn of each only warms up. The side that comes
 * second finds other pages and caches than who came first, so they change places each time.
 */
static void row(const struct plan *given, const struct side *a, const struct side *b)
{
    struct plan p = *given;
    struct times ta, tb;
    char path_a[600], path_b[600];
    void *sa, *sb;

    if (!strstr(p.title, only))
        return;
    if (given_chunks)
        p.chunks = given_chunks;
    else if (is_short)
        p.chunks = p.chunks > 20 ? 9 : 3;
    p.chunks = p.chunks < MAX_CHUNKS ? p.chunks : MAX_CHUNKS;
    snprintf(path_a, sizeof(path_a), "%s/bench-a.img", dir);
    snprintf(path_b, sizeof(path_b), "%s/bench-b.img", dir);
    sa = a->begin(&p, path_a);
    sb = b->begin(&p, path_b);
    for (unsigned i = 0; i <= p.chunks; i++) {
        if (i % 2)
            turn(b, sb, i, &tb);
        turn(a, sa, i, &ta);
        if (i % 2 == 0)
            turn(b, sb, i, &tb);
    }
    a->end(sa);
    b->end(sb);
    print_row(&p, a, b, &ta, &tb, p.chunks);
}

/* ---- the table ---- */

/* Of an image with zones that stands on no other. */
#define ZONED(...) \
    { \
        __VA_ARGS__, .step = 0, .levels = 0, .subclusters = false \
    }

static const struct plan bare[] = {
    ZONED("4 KiB append, QD1", APPEND, 4096, 1, 1, 1, 41, 2048, 0.90, false),
    ZONED("64 KiB append, QD1", APPEND, 65536, 1, 1, 1, 31, 256, 0.95, false),
    ZONED("1 MiB append, QD1", APPEND, 1 << 20, 1, 1, 1, 31, 16, 0.95, false),
    ZONED("4 KiB random read, QD1", READ, 4096, 1, 1, 1, 41, 8192, 0.85, false),
    ZONED("4 KiB append, 2 threads, 2 zones", APPEND, 4096, 1, 2, 2, 41, 2048, 0.90, false),
    ZONED("4 KiB overwrite, conventional, QD1", OVERWRITE, 4096, 1, 1, 1, 31, 4096, 0, false),
    ZONED("4 KiB first write, conventional, QD1", SCATTER, 4096, 1, 1, 2, 9, 256, 0, false),
};
static const struct plan deep[] = {
    ZONED("4 KiB random read, QD32", READ, 4096, 32, 1, 1, 41, 8192, 0.90, false),
    ZONED("4 KiB append, 8 zones, QD32", APPEND, 4096, 32, 1, 8, 41, 2048, 0.85, false),
    ZONED("64 KiB append, QD32", APPEND, 65536, 32, 1, 1, 31, 256, 0, false),
};
static const struct plan blocking[] = {
    ZONED("4 KiB first write to a zone, QD1", FIRST, 4096, 1, 1, 1, 61, 32, 0.67, false),
    ZONED("4 KiB append, 4 threads, 4 zones", APPEND, 4096, 1, 4, 4, 41, 1024, 0, false),
    ZONED("4 KiB random read, 4 threads", READ, 4096, 1, 4, 1, 41, 2048, 0, false),
};
/* The target is to be no slower; what is above 1 makes up for rows below. */
static const struct plan queued[] = {
    ZONED("4 KiB write, fresh image, QD32", APPEND, 4096, 32, 1, 1, 15, 8192, 1.0, true),
    ZONED("64 KiB write, fresh image, QD32", APPEND, 65536, 32, 1, 1, 15, 2048, 1.0, true),
    ZONED("4 KiB append, 8 zones, QD32", APPEND, 4096, 32, 1, 8, 41, 2048, 0, false),
    ZONED("4 KiB overwrite, conventional, QD32", OVERWRITE, 4096, 32, 1, 1, 31, 4096, 0, false),
    ZONED("64 KiB overwrite, conv., QD32", OVERWRITE, 65536, 32, 1, 1, 31, 512, 0, false),
};
/* Run these by name, in a control group with a third of their 768 MiB. */
static const struct plan larger[] = {
    ZONED("768 MiB in 64 KiB writes, QD32", APPEND, 65536, 32, 1, 1, 5, 12288, 0, true),
    ZONED("768 MiB, 4 KiB random reads, QD32", READ, 4096, 32, 1, 3, 9, 8192, 0, false),
};
static const struct plan against_qemu[] = {
    ZONED("4 KiB write, fresh image, QD1", APPEND, 4096, 1, 1, 1, 7, 8192, 8.0, true),
    ZONED("64 KiB write, fresh image, QD1", APPEND, 65536, 1, 1, 1, 7, 2048, 2.5, true),
    ZONED("4 KiB scattered read, QD1", READ, 4096, 1, 1, 1, 7, 20000, 3.0, false),
};
static const struct plan against_qemu_deep[] = {
    ZONED("4 KiB write, fresh image, QD32", APPEND, 4096, 32, 1, 1, 7, 8192, 2.5, true),
    ZONED("64 KiB write, fresh image, QD32", APPEND, 65536, 32, 1, 1, 7, 2048, 1.2, true),
    ZONED("4 KiB scattered read, QD32", READ, 4096, 32, 1, 1, 7, 20000, 2.0, false),
};

/* Each fixed place once: 4 KiB more than 37 MiB, round and round. */
#define STEP (MiB(37) + 4096)
#define LAYERS(title_, pattern_, ops_, step_, levels_, ...) \
    { \
        .title = title_, .pattern = pattern_, .bytes = 4096, .depth = 1, .threads = 1, .zones = 2, \
        .chunks = 15, .ops = ops_, .step = step_, .levels = levels_, __VA_ARGS__ \
    }

static const struct plan layers[] = {
    LAYERS("4 KiB append to inherited zones", APPEND, 2048, 0, 1, .target = 0),
    LAYERS("4 KiB write, fresh overlay", APPEND, 8192, 4096, 1, .fresh = true),
    LAYERS("4 KiB overwrite of own data", OVERWRITE, 2000, STEP, 1, .target = 0),
    LAYERS("4 KiB read, 1 level below", READ, 20000, STEP, 1, .target = 0),
    LAYERS("4 KiB read, 4 levels below", READ, 20000, STEP, 4, .target = 0),
};
static const struct plan layers_qemu[] = {
    LAYERS("4 KiB write, fresh overlay", APPEND, 8192, 4096, 1, .fresh = true, .target = 1.5),
    LAYERS("4 KiB overwrite of own data", OVERWRITE, 2000, STEP, 1, .target = 1.5),
    LAYERS("4 KiB read, 1 level below", READ, 20000, STEP, 1, .target = 1.5),
    LAYERS("4 KiB read, 4 levels below", READ, 20000, STEP, 4, .target = 1.5),
    LAYERS("4 KiB first write, subclusters", SCATTER, 2000, STEP, 0, .fresh = true,
           .subclusters = true, .target = 1.5),
    LAYERS("the same in an overlay", SCATTER, 2000, STEP, 1, .fresh = true, .subclusters = true,
           .target = 1.5),
    LAYERS("4 KiB overwrite, subclusters", OVERWRITE, 2000, STEP, 0, .subclusters = true,
           .target = 1.5),
};

#define EACH(p, table) \
    for (const struct plan *p = table; p < table + sizeof(table) / sizeof(*table); p++)

static void heading(const char *what)
{
    printf("\n%s\n\n| %-34s | %-14s | %8s | %-16s | %8s | %6s | %-12s | %6s | %-10s |\n", what,
           "pattern", "against", "us", "library", "us", "ratio", "quartiles", "cpu", "target");
    printf("|---|---|---|---|---|---|---|---|---|\n");
}

static void rows_bare(void)
{
    heading("Against bare loops (ratio: the library's throughput over theirs)");
    EACH(p, bare)
    row(p, &raw_calls, &lib_calls);
    if (!ring_works()) {
        printf("\nNo io_uring here: rows with 32 requests in flight are left out.\n");
        return;
    }
    EACH(p, deep)
    row(p, &raw_ring, &lib_queue_ring);
}

/* What blocking calls cost on the asynchronous backends. */
static void rows_calls(void)
{
    heading("Blocking calls, against the library's own file backend");
    EACH(p, blocking)
    {
        if (ring_works())
            row(p, &lib_calls, &lib_calls_ring);
        row(p, &lib_calls, &lib_calls_threads);
    }
}

/* Many requests in flight. */
static void rows_queued(void)
{
    if (!ring_works())
        return;
    heading("Queues over io_uring, against the library's own file backend");
    EACH(p, queued)
    row(p, &lib_queue_file, &lib_queue_ring);
    if (!*only)
        return;
    EACH(p, larger)
    row(p, &lib_queue_ring, &lib_queue_uncached);
}

static void rows_layers(void)
{
    heading("Overlays, against the same image without a backing file");
    EACH(p, layers)
    row(p, &lib_alone, &lib_calls);
}

static bool aio_works(const char *aio)
{
    char cmd[900];

    snprintf(cmd, sizeof(cmd),
             "cd '%s' && qemu-img create -q -f qcow2 bench-a.img 1M && "
             "qemu-img bench -f qcow2 -t writeback -c 1 -i %s bench-a.img >/dev/null 2>&1; "
             "rc=$?; rm -f bench-a.img; exit $rc",
             dir, aio);
    return system(cmd) == 0;
}

/* The best of either side is what counts; the table shows all. */
static void rows_qemu(void)
{
    static const char *const modes[] = {"threads", "io_uring"};
    char what[120];

    for (unsigned i = 0; i < 2; i++) {
        bench_aio = modes[i];
        if (system("qemu-img --version >/dev/null 2>&1") != 0 || !aio_works(bench_aio))
            continue;
        snprintf(what, sizeof(what), "Against qemu-img bench, aio=%s, on qcow2 without zones",
                 bench_aio);
        heading(what);
        EACH(p, against_qemu)
        row(p, &qemu_side, &lib_calls);
        EACH(p, against_qemu_deep)
        {
            row(p, &qemu_side, &lib_queue_file);
            if (ring_works())
                row(p, &qemu_side, &lib_queue_ring);
        }
        snprintf(what, sizeof(what), "Layers against qemu-img bench, aio=%s, both without zones",
                 bench_aio);
        heading(what);
        EACH(p, layers_qemu)
        row(p, &qemu_side, &lib_calls);
    }
}

static void rows_once(void)
{
    double open_us, report_us, own, host;
    unsigned calls, runs = is_short ? 3 : 9;

    if (*only && strcmp(only, "once"))
        return;
    once_open_report(dir, runs, &open_us, &report_us);
    printf("\nopen of 65,536 zones: %.0f us, full report: %.0f us (%s: 3000 us for both)\n",
           open_us, report_us, open_us + report_us <= 3000 ? "ok" : "ABOVE");
    once_reset(dir, runs, &own, &host, &calls);
    printf("reset of a full 256 MiB zone and its flush: %.0f us own time (%s: 50 us), %.0f us in "
           "%u host calls\n",
           own, own <= 50 ? "ok" : "ABOVE", host, calls);
}

int main(int argc, char **argv)
{
    int c;

    while ((c = getopt(argc, argv, "sdn:r:")) != -1) {
        switch (c) {
        case 's': is_short = true; break;
        case 'd': bench_direct = true; break;
        case 'n': given_chunks = (unsigned)atoi(optarg); break;
        case 'r': only = optarg; break;
        default: return 2;
        }
    }
    if (optind < argc)
        dir = argv[optind];
    rows_bare();
    rows_calls();
    rows_queued();
    rows_layers();
    rows_qemu();
    rows_once();
    return 0;
}
