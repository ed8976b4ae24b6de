/* SPDX-License-Identifier: MIT */
/* Every field of an image's metadata, found by the format's document and not by the library. */
#ifndef HOSTILE_FIELDS_H
#define HOSTILE_FIELDS_H

#include "unit/pic.h"

/* What a field belongs to: where it is damaged, what ranks above it must read the same. */
enum group {
    F_HEADER,
    F_L1,
    F_L2,
    F_ZONES, /* write pointers */
    F_REFTABLE,
    F_REFBLOCK,
    F_SNAPSHOT, /* a record of the table */
    F_SNAP_L1,
    F_SNAP_L2, /* tables that the active disk does not have */
    F_BITMAP,  /* extension, directory, table */
    F_DAMAGES, /* those above leave the format what it was */
    F_FORMAT = F_DAMAGES,
    F_EXTENSION, /* all of them, in words of 4 bytes */
    F_GROUPS
};

struct field {
    uint64_t at;
    unsigned width;
};

struct fields {
    struct field *f[F_GROUPS];
    size_t n[F_GROUPS], room[F_GROUPS];
};

/* A file's bytes; outside of them everything is 0. */
struct bytes {
    uint8_t *b;
    uint64_t len;
};

uint64_t bytes_get(const struct bytes *b, uint64_t at, unsigned width);
void bytes_put(struct bytes *b, uint64_t at, unsigned width, uint64_t value);

/* Calls fn with each snapshot's record; stops at one that lies outside of the file. */
void each_snapshot(const struct bytes *b, void (*fn)(void *arg, uint64_t at), void *arg);
/* *at: the data of the extension of this type. */
bool find_extension(const struct bytes *b, uint32_t type, uint64_t *at);

void fields_find(struct fields *f, const struct bytes *b);
void fields_free(struct fields *f);

uint64_t fields_rng(uint64_t *s); /* *s is not 0 */
/* A value that a field of this width might hold: near the old one, another's, an offset, any. */
uint64_t fields_value(const struct fields *f, const struct bytes *b, uint64_t *s, uint64_t old,
                      unsigned width);

#endif
