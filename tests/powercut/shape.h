/* SPDX-License-Identifier: MIT */
/*
 * A reader and checker of qcow2 images, written from the public specification and docs/SPEC.md. It
 * shares nothing with the library.
 */
#ifndef POWERCUT_SHAPE_H
#define POWERCUT_SHAPE_H

#include "store.h"

#include <stdbool.h>

#define SHAPE_SNAPS 8

struct shape_snap {
    uint64_t l1_off, l1_n, size;
    char name[16];
};

struct shape {
    const struct store *st;
    uint64_t cl, size, l1_off, l1_n, rt_off, rt_cl, incompat, compat, autoclear;
    unsigned cb, version, rorder;
    unsigned l2_bits; /* of the bytes of an L2 entry: 3, or 4 with subclusters */
    unsigned snaps;
    struct shape_snap snap[SHAPE_SNAPS];
    uint64_t snap_off, snap_end;
    /* zones; nz is 0 without */
    unsigned layout;
    uint64_t nz, conv, zone, cap, max_active, table, ext_zoned;
    bool little, mark;
    /* what answers for what is not mapped; both NULL: zeros */
    const struct shape *below;
    const struct store *below_raw;
    char text[200]; /* the first thing that is wrong */
};

struct shape_count {
    uint64_t corruptions, leaks, tolerated;
};

/* False, and text, if the image makes no sense. */
bool shape_open(struct shape *s, const struct store *st);
/* Counts every reference. text has the first corruption. */
void shape_check(struct shape *s, struct shape_count *n);
/* The pointer of a sequential zone, from its start to its start + capacity; *full as stored. */
uint64_t shape_wp(const struct shape *s, uint64_t zone, bool *full);
void shape_set_wp(const struct shape *s, struct store *st, uint64_t zone, uint64_t wp);
uint64_t shape_zone_len(const struct shape *s, uint64_t zone);
uint64_t shape_zone_cap(const struct shape *s, uint64_t zone);
/* snap < 0: the active disk, which ends at its write pointers. False: a cluster is bad. */
bool shape_read(struct shape *s, int snap, void *buf, uint64_t len, uint64_t off);
/* The position of the refcount of a cluster of the file: a byte, and a bit in it; 0: none. */
uint64_t shape_ref_at(const struct shape *s, uint64_t cluster, unsigned *bit);
uint64_t shape_ref(const struct shape *s, uint64_t cluster);
/* The offset of the L2 entry of the active disk; 0: no table. Its bitmap is the word behind it. */
uint64_t shape_l2_at(const struct shape *s, uint64_t guest);

#endif
