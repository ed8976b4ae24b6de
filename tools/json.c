/* SPDX-License-Identifier: MIT */
/* Writes JSON. Bytes that are no UTF-8 (file names may hold any) become U+FFFD. */
#include <inttypes.h>
#include <stddef.h>

#include "json.h"

unsigned zt_utf8_length(const unsigned char *s)
{
    static const struct {
        unsigned char mask, lead, low, high; /* bounds of the second byte */
        unsigned length;
    } forms[] = {
        {0x80, 0x00, 0x00, 0xff, 1}, {0xff, 0xe0, 0xa0, 0xbf, 3}, {0xff, 0xed, 0x80, 0x9f, 3},
        {0xff, 0xf0, 0x90, 0xbf, 4}, {0xff, 0xf4, 0x80, 0x8f, 4}, {0xfe, 0xc0, 0xff, 0x00, 0},
        {0xe0, 0xc0, 0x80, 0xbf, 2}, {0xf0, 0xe0, 0x80, 0xbf, 3}, {0xfc, 0xf0, 0x80, 0xbf, 4},
    };

    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if ((s[0] & forms[i].mask) != forms[i].lead)
            continue;
        if (forms[i].length > 1 && (s[1] < forms[i].low || s[1] > forms[i].high))
            return 0;
        for (unsigned k = 2; k < forms[i].length; k++) {
            if ((s[k] & 0xc0) != 0x80)
                return 0;
        }
        return forms[i].length;
    }
    return 0;
}

static void put_string(FILE *out, const char *text)
{
    const unsigned char *s = (const unsigned char *)text;

    fputc('"', out);
    while (*s) {
        unsigned n = zt_utf8_length(s);

        if (n == 0)
            fputs("\\ufffd", out);
        else if (*s == '"' || *s == '\\')
            fprintf(out, "\\%c", *s);
        else if (*s < 0x20)
            fprintf(out, "\\u%04x", *s);
        else
            fwrite(s, 1, n, out);
        s += n ? n : 1;
    }
    fputc('"', out);
}

static void put_line(struct zt_json *j)
{
    fputc('\n', j->out);
    for (unsigned i = 0; i < j->depth; i++)
        fputs("    ", j->out);
}

static void begin_value(struct zt_json *j, const char *key)
{
    if (j->filled)
        fputc(',', j->out);
    if (j->depth)
        put_line(j);
    j->filled = 1;
    if (key) {
        put_string(j->out, key);
        fputs(": ", j->out);
    }
}

void zt_json_open(struct zt_json *j, const char *key, char bracket)
{
    begin_value(j, key);
    fputc(bracket, j->out);
    j->depth++;
    j->filled = 0;
}

void zt_json_close(struct zt_json *j, char bracket)
{
    int filled = j->filled;

    j->depth--;
    if (filled)
        put_line(j);
    fputc(bracket, j->out);
    j->filled = 1;
    if (j->depth == 0)
        fputc('\n', j->out);
}

void zt_json_u64(struct zt_json *j, const char *key, uint64_t value)
{
    begin_value(j, key);
    fprintf(j->out, "%" PRIu64, value);
}

void zt_json_bool(struct zt_json *j, const char *key, bool value)
{
    begin_value(j, key);
    fputs(value ? "true" : "false", j->out);
}

void zt_json_str(struct zt_json *j, const char *key, const char *value)
{
    begin_value(j, key);
    if (value)
        put_string(j->out, value);
    else
        fputs("null", j->out);
}

void zt_json_bitmap_begin(struct zt_json *j, const struct zqcow2_bitmap *b)
{
    zt_json_open(j, NULL, '{');
    zt_json_open(j, "flags", '[');
    if (b->flags & ZQCOW2_BITMAP_INCONSISTENT)
        zt_json_str(j, NULL, "in-use");
    if (b->flags & ZQCOW2_BITMAP_ENABLED)
        zt_json_str(j, NULL, "auto");
    zt_json_close(j, ']');
    zt_json_str(j, "name", b->name);
    zt_json_u64(j, "granularity", b->granularity);
}

void zt_json_bitmap(struct zt_json *j, const struct zqcow2_bitmap *b)
{
    zt_json_bitmap_begin(j, b);
    if (!(b->flags & ZQCOW2_BITMAP_INCONSISTENT))
        zt_json_u64(j, "dirty-bytes", b->dirty_bytes);
    zt_json_close(j, '}');
}
