/* SPDX-License-Identifier: MIT */
/* Messages to people: errors, the library's log, sizes in words, progress. */
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tool.h"

void zt_error(const char *fmt, ...)
{
    va_list ap;

    fflush(stdout); /* keeps both streams in order where they share a file */
    fputs("zqcow2: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

static void log_line(void *ctx, int level, const char *text)
{
    (void)ctx;
    fprintf(stderr, "zqcow2: %s: %s\n", level <= ZQCOW2_LOG_ERROR ? "error" : "warning", text);
}

const struct zqcow2_hooks *zt_hooks(void)
{
    static const struct zqcow2_hooks hooks = {
        .size = sizeof(struct zqcow2_hooks),
        .log = log_line,
    };

    return &hooks;
}

char *zt_human(char *buf, size_t room, uint64_t bytes)
{
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    unsigned unit = 0;

    while (unit + 1 < ZT_COUNT(units) && bytes >> (10 * (unit + 1)))
        unit++;
    snprintf(buf, room, "%.4g %s", (double)bytes / (double)((uint64_t)1 << (10 * unit)),
             units[unit]);
    return buf;
}

double zt_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

void zt_progress_start(struct zt_progress *p, const char *what, uint64_t total, bool wanted)
{
    p->what = what;
    p->total = total;
    p->on = wanted && isatty(STDERR_FILENO) == 1;
    p->shown = false;
    p->next = zt_now() + 0.5;
}

void zt_progress_at(struct zt_progress *p, uint64_t done)
{
    char text[32], all[32];

    if (!p->on || zt_now() < p->next)
        return;
    p->next = zt_now() + 0.2;
    p->shown = true;
    fprintf(stderr, "\r%s: %s", p->what, zt_human(text, sizeof(text), done));
    if (p->total)
        fprintf(stderr, " of %s (%.0f %%)", zt_human(all, sizeof(all), p->total),
                100.0 * (double)done / (double)p->total);
    fputs("\033[K", stderr);
    fflush(stderr);
}

void zt_progress_end(struct zt_progress *p)
{
    if (p->shown)
        fputs("\r\033[K", stderr);
    p->shown = false;
}
