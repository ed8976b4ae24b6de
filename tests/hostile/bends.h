/* SPDX-License-Identifier: MIT */
/* What a bend of an image is, and who must refuse it. */
#ifndef HOSTILE_BENDS_H
#define HOSTILE_BENDS_H

#include "unit/pic.h"

#define MiB(n) ((uint64_t)(n) << 20)

enum base { PLAIN, SNAP, Z44, Z48B, Z56, ZV7 };

/* What an offset of a bend counts from. */
enum place { HEADER, ZONED, L1, RT, BLOCK, WP, L2, SNAPSHOT, CUT };

/* Which calls must refuse it. */
enum who {
    OPEN, /* both ways of opening */
    RDWR, /* opening for writing; reading works */
    PART, /* the same, but the first read fails */
    USE,  /* the first read of what is bent */
    CHECK /* only check: opening for reading works */
};

struct poke {
    enum place place;
    unsigned at, width;
    uint64_t value;
};

struct bend {
    const char *name;
    enum base base;
    struct poke poke[3];
    enum who who;
    int code;
    const char *text[3]; /* field, value, offset */
};

extern const struct bend bends[];
extern const size_t nr_bends;

void bend_base(struct pic *p, enum base base); /* not bent yet */
uint64_t bend_place(struct pic *p, enum place where);
void bend_image(struct pic *p, const struct bend *b);

#endif
