/* SPDX-License-Identifier: MIT */
/* How recorded requests to a device are written down, and compared with what was answered. */
#ifndef RECORDED_H
#define RECORDED_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORDED_MAX 80000 /* bytes in one text */

/* "0f 5a*512": bytes in hex; "*n" stands for n times the byte before it. Returns how many. */
static inline size_t recorded_bytes(const char *text, uint8_t *to)
{
    size_t n = 0;

    for (char *end = (char *)text; *end;) {
        char pair[3] = { end[0], end[1], 0 };
        if (*end == ' ') {
            end++;
        } else if (*end == '*') {
            size_t more = strtoul(end + 1, &end, 10) - 1;
            memset(to + n, to[n - 1], more);
            n += more;
        } else {
            to[n++] = (uint8_t)strtoul(pair, NULL, 16);
            end += 2;
        }
    }
    return n;
}

/* 0, or 1 having said which byte differs. */
static inline int recorded_differ(const char *what, const uint8_t *got, const uint8_t *want,
                                  size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (got[i] != want[i])
            return printf("%s: byte %zu is %02x, not %02x\n", what, i, got[i], want[i]), 1;
    }
    return 0;
}

static inline void put(uint8_t *p, uint64_t v, int bytes) /* little-endian, on any host */
{
    for (; bytes--; v >>= 8)
        *p++ = (uint8_t)v;
}

static inline uint64_t get(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    while (bytes--)
        v = v << 8 | p[bytes];
    return v;
}

#endif
