/* SPDX-License-Identifier: MIT */
/*
 * An input: the number of a seed (2 bytes), records of what is changed in it, a byte 0, and the
 * tail, which is the target's own. Numbers are little-endian; values are bytes as they go into the
 * file. A record is
 *
 *     1  group, index (2 bytes), n, n bytes     a field by its name
 *     2  offset (6 bytes), n, n bytes           any place
 *     3  length (6 bytes)                       where the file ends
 */
#ifndef FUZZ_INPUT_H
#define FUZZ_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fuzz/disk.h"
#include "fuzz/seeds.h"

#define INPUT_RECORDS 64u
#define INPUT_VALUE   32u

enum record_kind { REC_END, REC_FIELD, REC_PLACE, REC_LENGTH };

struct record {
    uint8_t kind, group, n;
    uint16_t index;
    uint64_t at;
    uint8_t value[INPUT_VALUE];
};

struct input {
    uint16_t seed;
    unsigned nr;
    struct record rec[INPUT_RECORDS];
    const uint8_t *tail;
    size_t tail_len;
};

/* What is cut off or makes no sense ends the records; every input is one. */
void input_parse(struct input *in, const uint8_t *data, size_t size);
/* The bytes written; at most room. Records that do not fit are left out. */
size_t input_write(const struct input *in, uint8_t *out, size_t room);
/* The field that a record names, with the seed's number of them as the modulus; NULL: none. */
const struct field *input_field(const struct seed *s, const struct record *r);
/* The seed with the records put into it; the tail is the caller's. */
void input_apply(const struct input *in, struct disk *d);
void input_print(const struct input *in); /* for people */

#endif
