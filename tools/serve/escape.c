/* SPDX-License-Identifier: MIT */
/* Any text in one line or word. */
#include "serve/escape.h"

#include <stdbool.h>
#include <string.h>

void serve_put_escaped(FILE *f, const char *text, const char *also)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;

        if (c == '\\' || c < 0x20 || strchr(also, c))
            fprintf(f, "\\%03o", c);
        else
            putc(c, f);
    }
}

static bool octal(char c)
{
    return c >= '0' && c <= '7';
}

void serve_unescape(char *text)
{
    char *to = text;

    while (*text) {
        if (text[0] == '\\' && octal(text[1]) && octal(text[2]) && octal(text[3])) {
            *to++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
            text += 4;
        } else {
            *to++ = *text++;
        }
    }
    *to = '\0';
}
