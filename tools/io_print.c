/* SPDX-License-Identifier: MIT */
/* How the verb io says things: in the forms of qemu-io. */
#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "io.h"

void zt_io_say(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    zt_vline(stdout, "", fmt, ap);
    va_end(ap);
}

bool zt_io_size(const char *text, uint64_t *value)
{
    if (zt_parse_size(text, value))
        return true;
    zt_io_say("'%s' is not an offset or length", text);
    return false;
}

bool zt_io_byte(const char *text, uint8_t *value)
{
    uint64_t v;

    if (!zt_parse_u64(text, &v) || v > 255) {
        zt_io_say("%s is not a valid pattern byte", text);
        return false;
    }
    *value = (uint8_t)v;
    return true;
}

int zt_io_failed(struct zt_io *io, const char *what, int rc, uint64_t off)
{
    char text[192];

    io->target.failure = rc;
    zt_io_say("%s failed: %s", what, zt_zone_reason(io->img, rc, off, text, sizeof(text)));
    return -1;
}

bool zt_io_bad_option(const char *command)
{
    zt_io_say("%s: option -%c is unknown, or lacks its value", command, optopt);
    return false;
}

char *zt_io_amount(char *buf, size_t room, double value)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned unit = 0;
    char *point;
    size_t n;

    while (unit + 1 < ZT_COUNT(units) && value >= 1024.0) {
        value /= 1024.0;
        unit++;
    }
    snprintf(buf, room, "%.*f", unit ? 3 : 6, value);
    point = strchr(buf, '.');
    if (point[1 + strspn(point + 1, "0")] == '\0')
        *point = '\0';
    n = strlen(buf);
    snprintf(buf + n, room - n, " %s", units[unit]);
    return buf;
}

static char *duration(char *buf, size_t room, double seconds, bool whole)
{
    unsigned s = (unsigned)seconds;

    if (whole || s >= 60)
        snprintf(buf, room, "%u:%02u:%05.2f", s / 3600, s / 60 % 60, seconds - s / 60 * 60);
    else
        snprintf(buf, room, "%05.2f sec", seconds);
    return buf;
}

void zt_io_print(const struct zt_io_result *r)
{
    double seconds = r->seconds > 1e-9 ? r->seconds : 1e-9;
    char size[64], rate[64], time[64];

    duration(time, sizeof(time), seconds, r->machine);
    if (r->machine) {
        printf("%" PRIu64 ",1,%s,%.3f,%.3f\n", r->length, time, (double)r->length / seconds,
               1.0 / seconds);
        return;
    }
    printf("%s %" PRIu64 "/%" PRIu64 " bytes at offset %" PRIu64 "\n", r->verb, r->length,
           r->length, r->offset);
    printf("%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n",
           zt_io_amount(size, sizeof(size), (double)r->length), time,
           zt_io_amount(rate, sizeof(rate), (double)r->length / seconds), 1.0 / seconds);
}

void zt_io_dump(const uint8_t *bytes, uint64_t length, uint64_t offset)
{
    for (uint64_t row = 0; row < length; row += 16) {
        uint64_t n = length - row < 16 ? length - row : 16;

        printf("%08" PRIx64 ":  ", offset + row);
        for (uint64_t i = 0; i < n; i++)
            printf("%02x ", bytes[row + i]);
        putchar(' ');
        for (uint64_t i = 0; i < n; i++)
            putchar(isalnum(bytes[row + i]) ? bytes[row + i] : '.');
        putchar('\n');
    }
}
