/* SPDX-License-Identifier: MIT */
/*
 * A zoned image as bytes of the store, read as the qcow2 specification and SPEC.md say and by no
 * code of the library: what a crash at this moment would leave. Layout 44 only.
 */
#ifndef RIG_RAW_H
#define RIG_RAW_H

#include <stdbool.h>
#include "rig/store.h"

#define RAW_COPIED     (1ull << 63)
#define RAW_COMPRESSED (1ull << 62)

struct raw {
    struct store *s;
    uint64_t cluster, size, l1, l1_entries, rt, rt_entries;
    unsigned ref_bits;
    uint64_t mark, table; /* in the file; 0: there is none */
    uint64_t zone_size, capacity;
    uint32_t nr_zones, conventional;
    uint64_t *extra; /* clusters with one more owner that is not looked at: a snapshot */
    unsigned nr_extra;
    char why[160]; /* of raw_sound() */
};

/* Reads the header. False: it is none. */
bool raw_find(struct raw *w, struct store *s);
uint64_t raw_get(struct raw *w, uint64_t off, unsigned bytes);
void raw_put(struct raw *w, uint64_t off, unsigned bytes, uint64_t value);
/* Where the L2 entry of a guest offset lies; 0: there is no table. */
uint64_t raw_l2_at(struct raw *w, uint64_t guest);
/* Where a guest cluster's data lies; 0: nowhere. */
uint64_t raw_host(struct raw *w, uint64_t guest);
uint64_t raw_refcount(struct raw *w, uint64_t host);
void raw_set_refcount(struct raw *w, uint64_t host, uint64_t value);
/* The entry of a sequential zone. */
uint64_t raw_wp(struct raw *w, uint32_t zone);
uint64_t raw_zone_end(const struct raw *w, uint32_t zone); /* of its capacity */
/* [guest, guest + len) as the mapping has it, write pointers or not. */
void raw_read(struct raw *w, uint8_t *buf, uint64_t len, uint64_t guest);
/*
 * A snapshot's reference to what is at guest: refcounts rise and COPIED falls, of the data, or of
 * the L2 table and all below it. Not while the image is open.
 */
void raw_share(struct raw *w, uint64_t guest, bool table);
/* Is every reference counted (K1)? */
bool raw_sound(struct raw *w);

#endif
