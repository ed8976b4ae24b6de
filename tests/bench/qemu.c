/* SPDX-License-Identifier: MIT */
/* The same pattern by `qemu-img bench`, on a qcow2 image without zones, by its own clock. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "bench.h"

struct qemu {
    const struct plan *plan;
    const char *path;
    bool below, made; /* what lies below, and all of it */
};

static void *begin(const struct plan *p, const char *path)
{
    struct qemu *q = calloc(1, sizeof(*q));

    q->plan = p;
    q->path = path;
    return q;
}

static void end(void *self)
{
    struct qemu *q = self;
    char path[640];

    for (unsigned level = 0; level <= q->plan->levels; level++) {
        bench_below(path, sizeof(path), q->path, level);
        unlink(path);
    }
    free(q);
}

static void run(const char *command)
{
    if (system(command) != 0)
        bench_die(command, 0);
}

/* The image so many levels below, empty. */
static void create(const struct qemu *q, unsigned level)
{
    const struct plan *p = q->plan;
    char path[640], below[640], source[700] = "", cmd[2000];

    bench_below(path, sizeof(path), q->path, level);
    bench_below(below, sizeof(below), q->path, level + 1);
    if (level < p->levels)
        snprintf(source, sizeof(source), "-F qcow2 -b \"$(realpath '%s')\"", below);
    unlink(path);
    snprintf(cmd, sizeof(cmd), "qemu-img create -q -f qcow2 %s %s '%s' %llu",
             p->subclusters ? "-o extended_l2=on,cluster_size=128k" : "", source, path,
             (unsigned long long)(p->zones * ZONE_BYTES));
    run(cmd);
}

/* From its start on, or 64 KiB at the end of each 32 MiB. */
static void put_data(const struct qemu *q, unsigned level, bool everywhere)
{
    uint64_t bytes = q->plan->zones * ZONE_BYTES, size = everywhere ? MiB(1) : KiB(64);
    uint64_t step = everywhere ? size : MiB(32);
    char path[640], cmd[900];

    bench_below(path, sizeof(path), q->path, level);
    snprintf(cmd, sizeof(cmd),
             "qemu-img bench -q -f qcow2 -t writeback -w -c %llu -d 1 -s %llu -S %llu -o %llu '%s' "
             ">/dev/null",
             (unsigned long long)(bytes / step), (unsigned long long)size, (unsigned long long)step,
             (unsigned long long)(step - size), path);
    run(cmd);
}

/* The files below a fresh image are made once. */
static void make_files(struct qemu *q)
{
    for (unsigned level = q->below ? 0 : q->plan->levels; level; level--) {
        create(q, level);
        put_data(q, level, level == q->plan->levels);
    }
    q->below = true;
    create(q, 0);
    if (must_fill(q->plan))
        put_data(q, 0, true);
    q->made = !q->plan->fresh;
}

/* "Run completed in 0.062 seconds." */
static double timed(const char *command)
{
    FILE *f = popen(command, "r");
    char line[300];
    double seconds = -1;

    while (f && fgets(line, sizeof(line), f)) {
        const char *at = strstr(line, "completed in ");
        if (at)
            seconds = strtod(at + strlen("completed in "), NULL);
    }
    if (!f || pclose(f) != 0 || seconds < 0)
        bench_die(command, 0);
    return seconds;
}

/* Scattered: a step that is not a power of two, as far as the image reaches and round again. */
static double chunk(void *self)
{
    struct qemu *q = self;
    const struct plan *p = q->plan;
    uint64_t step = p->pattern == READ ? MiB(37) + p->bytes : p->bytes;
    char cmd[900];

    if (is_plain(p))
        step = p->step;
    if (!q->made)
        make_files(q);
    snprintf(cmd, sizeof(cmd),
             "qemu-img bench -f qcow2 -t %s %s -c %u -d %u -s %zu -S %llu -i %s '%s'",
             bench_direct ? "none" : "writeback", p->pattern == READ ? "" : "-w", p->ops, p->depth,
             p->bytes, (unsigned long long)step, bench_aio, q->path);
    return timed(cmd);
}

const struct side qemu_side = {"qemu-img bench", begin, chunk, end};
