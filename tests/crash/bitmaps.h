/* SPDX-License-Identifier: MIT */
/* The bitmaps of a small device: what the library says, and what a model knows. */
#ifndef CRASH_BITMAPS_H
#define CRASH_BITMAPS_H

#include <stdbool.h>
#include <zqcow2/bitmap.h>

#define SECTOR  512u
#define SECTORS 640u /* of the device */

struct found {
    bool exists, enabled, lost;
    uint64_t granularity, bytes;
    bool marked[SECTORS];
};

/* What a model knows of one of them. */
struct bitmap {
    bool exists, enabled;
    unsigned bits;         /* of the granularity */
    bool asked[SECTORS];   /* for a change, while it was enabled */
    bool free[SECTORS];    /* the same while it was disabled */
    uint8_t base[SECTORS]; /* when it was added or cleared */
};

/* Bytes of these sectors are to change. */
void bitmaps_ask(struct bitmap *b, unsigned n, uint64_t at, uint64_t len);
/* It is new, or cleared, while the device holds this. */
void bitmap_rebase(struct bitmap *b, const uint8_t *holds);
/* Was anything in the sector's granule asked for? */
bool bitmap_asked(const struct bitmap *b, uint64_t sector);
/* Can *f be that bitmap, if the device has so many sectors, which read as `got`? */
bool bitmap_fits(const struct found *f, const struct bitmap *b, const uint8_t *got,
                 uint64_t sectors);
/*
 * Looks for these names, and reads what is marked by a few ranges at a time. 0; an error of the
 * library; or 1: a range is wrong, or they do not add up to what the list says.
 */
int bitmaps_look(struct zqcow2_image *img, const char *const *names, unsigned n, struct found *f);
/* The first byte of each of its *n sectors. 0 or an error. */
int bitmaps_content(struct zqcow2_image *img, uint8_t got[SECTORS], uint64_t *n);

#endif
