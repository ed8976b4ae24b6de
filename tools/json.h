/* SPDX-License-Identifier: MIT */
/* A JSON writer: one value after the other, commas and indentation by itself. */
#ifndef ZT_JSON_H
#define ZT_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <zqcow2/bitmap.h>

struct zt_json {
    FILE *out;
    unsigned depth;
    int filled; /* the innermost object or array has a member already */
};

/* key: NULL inside an array and at the top. open, close: '{' '}' or '[' ']'. */
void zt_json_open(struct zt_json *j, const char *key, char bracket);
void zt_json_close(struct zt_json *j, char bracket);
void zt_json_u64(struct zt_json *j, const char *key, uint64_t value);
void zt_json_bool(struct zt_json *j, const char *key, bool value);
void zt_json_str(struct zt_json *j, const char *key, const char *value); /* NULL: null */

/* How many bytes the UTF-8 character at s takes; 0: none is there. */
unsigned zt_utf8_length(const unsigned char *s);
/* An object that is still open: what `qemu-img info --output=json` says of a bitmap. */
void zt_json_bitmap_begin(struct zt_json *j, const struct zqcow2_bitmap *b);
/* The same, and how much is marked. */
void zt_json_bitmap(struct zt_json *j, const struct zqcow2_bitmap *b);

#endif
