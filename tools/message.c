/* SPDX-License-Identifier: MIT */
/* Messages to people: errors, the library's log, sizes in words, progress. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "json.h"
#include "tool.h"

void zt_put(FILE *out, const char *text)
{
    static const char codes[] = "\a\b\t\n\v\f\r", letters[] = "abtnvfr";
    const unsigned char *s = (const unsigned char *)text;

    while (*s) {
        unsigned n = zt_utf8_length(s);
        const char *code = strchr(codes, *s);

        if (code)
            fprintf(out, "\\%c", letters[code - codes]);
        else if (n == 0 || *s < 0x20 || *s == 0x7f)
            fprintf(out, "\\x%02x", *s);
        else if (n == 2 && s[0] == 0xc2 && s[1] < 0xa0) /* the control characters of ISO 8859 */
            fprintf(out, "\\u%04x", s[1]);
        else
            fwrite(s, 1, n, out);
        s += n ? n : 1;
    }
}

void zt_vline(FILE *out, const char *prefix, const char *fmt, va_list ap)
{
    char *text = NULL;
    int n = vasprintf(&text, fmt, ap);

    flockfile(out);
    fputs(prefix, out);
    zt_put(out, n < 0 ? fmt : text);
    fputc('\n', out);
    funlockfile(out);
    if (n >= 0)
        free(text);
}

void zt_line(FILE *out, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    zt_vline(out, "", fmt, ap);
    va_end(ap);
}

static _Thread_local char last_error[512];

void zt_error(const char *fmt, ...)
{
    va_list ap;

    fflush(stdout); /* keeps both streams in order where they share a file */
    va_start(ap, fmt);
    vsnprintf(last_error, sizeof(last_error), fmt, ap);
    va_end(ap);
    va_start(ap, fmt);
    zt_vline(stderr, "zqcow2: ", fmt, ap);
    va_end(ap);
}

const char *zt_last_error(void)
{
    return last_error;
}

static void log_line(void *ctx, int level, const char *text)
{
    (void)ctx;
    zt_error("%s: %s", level <= ZQCOW2_LOG_ERROR ? "error" : "warning", text);
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
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
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

bool zt_progress_arg(const char *text, unsigned *form)
{
    *form = ZT_PROGRESS_BAR;
    if (!text || !strcmp(text, "bar"))
        return true;
    *form = ZT_PROGRESS_PERCENT;
    if (!strcmp(text, "percent"))
        return true;
    zt_error("--progress: '%s' is not one of bar, percent", text);
    return false;
}

void zt_progress_start(struct zt_progress *p, const char *what, uint64_t total, unsigned form)
{
    p->what = what;
    p->total = total;
    p->percent = form == ZT_PROGRESS_PERCENT;
    p->on = p->percent || (form && isatty(STDERR_FILENO) == 1);
    p->shown = false;
    p->next = p->percent ? 0 : zt_now() + 0.5;
    if (p->percent && total)
        zt_progress_at(p, 0);
}

/* In steps of one percent or more, as qemu-img. */
static void show_percent(struct zt_progress *p, uint64_t done)
{
    double percent = p->total ? 100.0 * (double)done / (double)p->total : 100.0;

    if (percent < p->next)
        return;
    p->next = percent + 1;
    p->shown = true;
    printf("    (%.2f/100%%)\r", percent);
    fflush(stdout);
}

void zt_progress_at(struct zt_progress *p, uint64_t done)
{
    char text[32], all[32];

    if (p->on && p->percent)
        show_percent(p, done);
    if (!p->on || p->percent || zt_now() < p->next)
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

void zt_progress_done(struct zt_progress *p)
{
    if (p->on && p->percent) {
        p->next = 0;
        show_percent(p, p->total);
    }
}

void zt_progress_end(struct zt_progress *p)
{
    if (p->shown && p->percent)
        putchar('\n');
    else if (p->shown)
        fputs("\r\033[K", stderr);
    p->shown = false;
}

int zt_progress_piece(void *progress, uint64_t done, uint64_t total)
{
    struct zt_progress *p = progress;

    p->total = total;
    zt_progress_at(p, done);
    return zt_signal() != NULL;
}
