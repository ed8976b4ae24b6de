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
    bool filled;
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

    unlink(q->path);
    free(q);
}

static void run(const char *command)
{
    if (system(command) != 0)
        bench_die(command, 0);
}

static void make_image(struct qemu *q)
{
    char cmd[800];

    unlink(q->path);
    snprintf(cmd, sizeof(cmd), "qemu-img create -q -f qcow2 '%s' %llu", q->path,
             (unsigned long long)(q->plan->zones * ZONE_BYTES));
    run(cmd);
    if (q->plan->pattern == APPEND)
        return;
    snprintf(cmd, sizeof(cmd),
             "qemu-img bench -q -f qcow2 -t writeback -w -c %llu -d 1 -s 1M '%s' >/dev/null",
             (unsigned long long)(q->plan->zones * ZONE_BYTES / MiB(1)), q->path);
    run(cmd);
    q->filled = true;
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

    if (!q->filled)
        make_image(q);
    snprintf(cmd, sizeof(cmd),
             "qemu-img bench -f qcow2 -t %s %s -c %u -d %u -s %zu -S %llu -i %s '%s'",
             bench_direct ? "none" : "writeback", p->pattern == READ ? "" : "-w", p->ops, p->depth,
             p->bytes, (unsigned long long)step, bench_aio, q->path);
    return timed(cmd);
}

const struct side qemu_side = {"qemu-img bench", begin, chunk, end};
