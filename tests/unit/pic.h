/* SPDX-License-Identifier: MIT */
/*
 * A picture: an image in memory that a test makes by hand, byte by byte. It shares no code with
 * the library but the public calls; fields are found where the format says they are.
 */
#ifndef UNIT_PIC_H
#define UNIT_PIC_H

#include <stdbool.h>
#include <zqcow2/backend.h>

#define PIC_COPIED     (1ull << 63)
#define PIC_COMPRESSED (1ull << 62)

struct pic {
    struct zqcow2_backend *be;
    uint64_t cluster, l1, rt, wp; /* sizes and offsets in the file; wp 0: no zones */
    uint64_t zoned, mark;         /* of the extensions' data */
    uint32_t refcount_bits, l1_entries;
    struct zqcow2_error err; /* of the last call */
    struct zqcow2_check_result res;
    char found[4096]; /* texts of the last check, each ending in a newline */
};

/* A new image. Any failure fails the test. */
void pic_make(struct pic *p, const struct zqcow2_create_options *o);
/* An image from a file; gz or not. False: there is none. */
bool pic_load(struct pic *p, const char *path);
/* Finds the tables again, after a bend moved them. */
void pic_find(struct pic *p);
void pic_free(struct pic *p);

uint64_t pic_length(struct pic *p);
uint64_t pic_get(struct pic *p, uint64_t off, unsigned width); /* big-endian, 1 to 8 bytes */
void pic_put(struct pic *p, uint64_t off, unsigned width, uint64_t value);
void pic_zero(struct pic *p, uint64_t off, uint64_t len);
void pic_cut(struct pic *p, uint64_t length);     /* the file's end moves, either way */
uint8_t *pic_bytes(struct pic *p, uint64_t *len); /* a copy, to be freed */

uint64_t pic_refcount(struct pic *p, uint64_t cluster_offset);
void pic_set_refcount(struct pic *p, uint64_t cluster_offset, uint64_t value);
/* n clusters at the end of the file, refcount 1. */
uint64_t pic_alloc(struct pic *p, unsigned n);
/* Where the L2 entry of a guest offset lies; makes the table when it is missing. */
uint64_t pic_l2(struct pic *p, uint64_t guest);
/* Maps a guest cluster to a new host cluster, full of `fill`; returns its offset. */
uint64_t pic_map(struct pic *p, uint64_t guest, int fill);
/* Copies the active L1 as snapshot table entry 0 and raises refcounts as the format wants it. */
uint64_t pic_snapshot(struct pic *p);
/* Lets the library take one. */
void pic_take(struct pic *p, const char *name);

int pic_open(struct pic *p, uint32_t flags); /* opens, closes; the text is in p->err */
int pic_check(struct pic *p, uint32_t flags);
/* Runs check and compares figures; what it found must hold both texts. */
void pic_finds(struct pic *p, uint64_t corruptions, uint64_t leaks, uint64_t warnings,
               const char *a, const char *b);

#endif
