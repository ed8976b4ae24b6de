/* SPDX-License-Identifier: MIT */
/*
 * Names that must be unique: of bitmaps, and the IDs of snapshots. A name ends at its first zero
 * byte, as in programs that keep it as a string. Memory is bounded by what the file has: a name in
 * a hole is empty.
 */
#ifndef ZQ_CHECK_NAMES_H
#define ZQ_CHECK_NAMES_H

#include <stdbool.h>

#include "base/mem.h"

struct zq_name {
    uint64_t record, text; /* where both lie in the file */
    uint64_t pos;          /* of the bytes in zq_names.bytes */
    uint32_t len;          /* up to the first zero byte */
    uint32_t size, room;   /* as stored, and up to the next record, padding included */
    bool again;            /* a record before this one has the same name */
};

struct zq_names {
    struct zq_name *v; /* sorted by zq_names_sort() */
    size_t nr, v_room;
    uint8_t *bytes;
    size_t used, bytes_room;
};

/* Takes over a copy of n->len bytes; n->pos is set here. -ENOMEM. */
int zq_names_add(struct zq_names *names, const struct zqcow2_hooks *hooks, struct zq_name *n,
                 const void *bytes);
/* By name, and by place where names are equal; sets `again`. */
void zq_names_sort(struct zq_names *names);
/* Of sorted names. */
bool zq_names_have(const struct zq_names *names, const void *bytes, size_t len);
/* Leaves an empty list. */
void zq_names_free(struct zq_names *names, const struct zqcow2_hooks *hooks);

static inline const uint8_t *zq_names_bytes(const struct zq_names *names, const struct zq_name *n)
{
    /* If all names are empty, there are no bytes: 0 must not be added to NULL. */
    return n->pos ? names->bytes + n->pos : names->bytes;
}

#endif
