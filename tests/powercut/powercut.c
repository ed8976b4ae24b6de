/* SPDX-License-Identifier: MIT */
/*
 * An adversary of the library: many worlds, each an image on a disk that loses power. It knows the
 * public headers, the qcow2 specification and docs/SPEC.md, and shares no code with the library or
 * with the other tests.
 *
 *   powercut [--seed N] [--runs N] [--seconds N] [--cap POINTS] [--only WORDS] [--one]
 *            [--trace]
 *
 * Each run is a process of its own, so that a crash or an endless loop is a failure of its seed.
 * --one runs a seed in this process; --trace
 * as well, and prints its requests. --only: words that force a choice, such as plain,snaps,queue.
 */
#include "run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct args {
    uint64_t seed, runs, seconds, cap;
    const char *only;
    bool one, trace;
};

void fail(struct run *r, const struct store *st, const char *form, ...)
{
    static const char *const phases[] = {"open", "run", "close", "repair"};
    char path[64];
    va_list args;

    printf("FAILED seed %llu, while it is in %s: ", (unsigned long long)r->w.seed,
           phases[r->phase]);
    va_start(args, form);
    vprintf(form, args);
    va_end(args);
    printf("\n");
    world_print(&r->w);
    if (st) {
        snprintf(path, sizeof(path), "powercut-%llu.qcow2", (unsigned long long)r->w.seed);
        store_save(st, path);
        printf("  the image: %s\n", path);
    }
    fflush(stdout);
    _exit(1);
}

/* ---- one generation: the image is opened, used, and loses its power or is closed ---- */

static void settle(struct run *r, const struct store *st)
{
    struct shape s;

    judge_observe(r, st, &s);
    model_settle(&r->m, r->content, r->wp, r->full);
}

static void plug_in(struct run *r, const struct store *st)
{
    disk_init(&r->disk, st, &r->w.lim, mix(&r->rng));
    r->disk.lock = &r->lock;
    r->disk.point = judge_point;
    r->disk.arg = r;
}

static bool open_image(struct run *r)
{
    struct zqcow2_open_options o = run_options(r, ZQCOW2_OPEN_RDWR);
    struct zqcow2_backend *be = disk_backend(&r->disk);
    struct zqcow2_error err = {0, ""};

    r->phase = PHASE_OPEN;
    r->dead = false;
    if (r->w.fault != FAULT_NONE && odds(&r->rng, 4))
        r->disk.fault = (struct disk_fault){
            1u << ZQCOW2_IO_WRITE | 1u << ZQCOW2_IO_ZERO | 1u << ZQCOW2_IO_TRUNCATE,
            r->w.fault == FAULT_NOSPC ? -28 : -5, (unsigned)below(&r->rng, 8), 1};
    if (zqcow2_open(be, &o, &r->img, &err)) {
        if (!r->disk.off && !r->disk.failed)
            fail(r, &r->disk.now, "open for writing: %s", err.text);
        zqcow2_backend_close(be);
        return false;
    }
    r->phase = PHASE_RUN;
    if (r->killed && !r->disk.off) { /* what it found is durable by now */
        settle(r, &r->disk.now);
        r->killed = false;
    }
    if (zqcow2_queue_open(r->img, 8, &r->q))
        fail(r, NULL, "no queue");
    return true;
}

/* True: the image was closed and the disk goes on. */
static bool close_image(struct run *r)
{
    int rc;

    r->disk.fault.times = 0;
    if (zqcow2_queue_close(r->q))
        fail(r, NULL, "the queue does not close");
    r->phase = PHASE_CLOSE;
    rc = zqcow2_close(r->img);
    if (r->disk.off)
        return false;
    if (rc && !r->dead)
        fail(r, &r->disk.now, "close: %s", zqcow2_strerror(rc));
    if (rc)
        return false;
    model_flushed(&r->m, r->m.clock);
    judge_clean(r, &r->disk.now, "closed");
    return true;
}

/* Something kills the program. The next generation goes on with what the host's cache holds. */
static void kill_now(struct run *r)
{
    disk_kill(&r->disk);
    judge(r, &r->disk.now, true);
    r->killed = r->was_cut = true;
    r->c->kills++;
}

/* The power fails now, if it did not before. The next generation begins with what is left. */
static void power_cut(struct run *r)
{
    struct store st = {NULL, 0, 0};

    if (r->disk.off && r->killing) {
        kill_now(r);
        return;
    }
    r->killed = false;
    pthread_mutex_lock(&r->lock);
    if (!r->disk.off) {
        disk_cut(&r->disk, &r->cut, &r->judge_rng);
        judge(r, &r->cut, true);
    }
    store_copy(&st, &r->cut);
    pthread_mutex_unlock(&r->lock);
    disk_free(&r->disk);
    r->was_cut = true;
    r->c->cuts++;
    settle(r, &st);
    if (r->w.repair && odds(&r->rng, 2)) {
        repair(r, &st);
        settle(r, &st);
    }
    plug_in(r, &st);
    store_free(&st);
}

static void generation(struct run *r)
{
    r->cut_in = odds(&r->rng, 2) ? 0 : 1 + below(&r->rng, r->w.steps * 6);
    /* What a failed flush has lost would be seen, and not be durable: nothing repairs that. */
    r->killing = odds(&r->rng, 3) && r->w.fault != FAULT_FLUSH;
    if (!open_image(r)) {
        power_cut(r);
        return;
    }
    drive(r);
    if (!close_image(r) || odds(&r->rng, 2))
        power_cut(r);
}

/* ---- one run ---- */

static void add_zones(struct run *r, const struct store *st)
{
    struct shape s = {0};

    run_below(r, &s);
    if (!shape_open(&s, st))
        fail(r, st, "the first image: %s", s.text);
    for (uint64_t i = 0; i < s.nz; i++)
        model_zone(&r->m, i * s.zone, shape_zone_len(&s, i), shape_zone_cap(&s, i), i >= s.conv);
}

static void run_free(struct run *r)
{
    disk_free(&r->disk);
    if (r->below_disk.lim.tear)
        disk_free(&r->below_disk);
    model_free(&r->m);
    store_free(&r->cut);
    store_free(&r->below);
    free(r->wp);
    free(r->full);
    free(r->content);
    free(r->other);
    free(r->live);
}

static void run(uint64_t seed, const struct args *a, struct counts *c, const char *folder)
{
    struct run r = {.c = c, .folder = folder, .rng = seed * 3 + 1, .judge_rng = seed * 7 + 5};
    struct store st = {NULL, 0, 0};

    pthread_mutex_init(&r.lock, NULL);
    r.trace = a->trace;
    r.cap = a->cap;
    world_pick(&r.w, seed, a->only);
    r.point_odds = 2 + (unsigned)below(&r.rng, r.w.size > 1000000 ? 30 : 8);
    r.variants = 2 + (unsigned)below(&r.rng, 4);
    r.content = need(malloc(r.w.size));
    r.other = need(malloc(r.w.size));
    r.live = need(malloc(r.w.size));
    model_init(&r.m, r.w.size, r.w.cluster);
    seed_make(&r, &st);
    add_zones(&r, &st);
    r.wp = need(calloc(r.m.nz + 1, 8));
    r.full = need(calloc(r.m.nz + 1, 1));
    r.was_cut = r.w.packed || r.w.snaps;
    settle(&r, &st);
    plug_in(&r, &st);
    store_free(&st);
    for (unsigned i = 0; i < r.w.depth; i++)
        generation(&r);
    c->failed_io += r.disk.failed;
    run_free(&r);
    pthread_mutex_destroy(&r.lock);
}

/* True: it passed. */
static bool run_apart(uint64_t seed, const struct args *a, struct counts *c, const char *folder)
{
    struct rlimit cpu = {240, 250};
    int status;
    pid_t pid;

    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        setrlimit(RLIMIT_CPU, &cpu);
        alarm(900); /* asleep for good */
        run(seed, a, c, folder);
        exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        exit(2);
    if (WIFSIGNALED(status)) {
        struct world w;

        printf("FAILED seed %llu: signal %d\n", (unsigned long long)seed, WTERMSIG(status));
        world_pick(&w, seed, a->only);
        world_print(&w);
    }
    return status == 0;
}

static void print_counts(const struct counts *c, uint64_t runs, uint64_t failed)
{
    for (unsigned d = 0; d < N_DIMS; d++)
        printf("%-22s %10llu\n", dim_name(d), (unsigned long long)c->dim[d]);
    printf("powercut: %llu runs, %llu power cuts gone on from, %llu points, %llu requests\n",
           (unsigned long long)runs, (unsigned long long)c->cuts, (unsigned long long)c->points,
           (unsigned long long)c->requests);
    printf(
        "  %llu checks, %llu read by the library, %llu revived, %llu closed clean, %llu repairs, "
        "%llu dead, %llu without space\n  %llu snapshots read, %llu qemu-img checks, %llu "
        "snapshots by qemu-img, %llu killed\n",
        (unsigned long long)c->checks, (unsigned long long)c->reads, (unsigned long long)c->revived,
        (unsigned long long)c->closes, (unsigned long long)c->repairs, (unsigned long long)c->dead,
        (unsigned long long)c->stopped, (unsigned long long)c->snap_reads,
        (unsigned long long)c->qemu_checks, (unsigned long long)c->qemu_snaps,
        (unsigned long long)c->kills);
    printf("powercut: %llu states checked, %llu violations\n", (unsigned long long)c->states,
           (unsigned long long)failed);
}

static void parse(struct args *a, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        uint64_t value = i + 1 < argc ? strtoull(argv[i + 1], NULL, 0) : 0;

        if (!strcmp(argv[i], "--one") || !strcmp(argv[i], "--trace")) {
            a->one = true;
            a->trace = a->trace || argv[i][2] == 't';
            continue;
        }
        if (i + 1 == argc) {
            fprintf(stderr, "usage: powercut [--seed N] [--runs N] [--seconds N] [--only WORDS] "
                            "[--one] [--trace]\n");
            exit(2);
        }
        if (!strcmp(argv[i], "--seed"))
            a->seed = value;
        if (!strcmp(argv[i], "--runs"))
            a->runs = value;
        if (!strcmp(argv[i], "--seconds"))
            a->seconds = value;
        if (!strcmp(argv[i], "--cap"))
            a->cap = value;
        if (!strcmp(argv[i], "--only"))
            a->only = argv[i + 1];
        i++;
    }
}

int main(int argc, char **argv)
{
    struct args a = {.seed = 1, .runs = 1};
    char folder[] = "/tmp/powercut-XXXXXX", line[80];
    struct counts *c =
        mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t n = 0, failed = 0;
    time_t begin = time(NULL);
    const char *qemu = NULL;

    setvbuf(stdout, NULL, _IOLBF, 0);
    parse(&a, argc, argv);
    if (c == MAP_FAILED || !mkdtemp(folder))
        return 2;
    if (!system("command -v qemu-img >/dev/null && command -v qemu-io >/dev/null"))
        qemu = folder;
    else
        printf("no qemu-img: no snapshots, no compressed clusters, no qcow2 sources\n");
    if (a.one)
        run(a.seed, &a, c, qemu);
    for (; !a.one && (a.seconds ? time(NULL) - begin < (time_t)a.seconds : n < a.runs); n++)
        failed += !run_apart(a.seed + n, &a, c, qemu);
    print_counts(c, n, failed);
    snprintf(line, sizeof(line), "rm -r '%s'", folder);
    return system(line) || failed || !c->states ? 1 : 0;
}
