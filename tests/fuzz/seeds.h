/* SPDX-License-Identifier: MIT */
/* The sound images that an input starts from, each under a number that follows from its name. */
#ifndef FUZZ_SEEDS_H
#define FUZZ_SEEDS_H

#include "hostile/fields.h"

struct seed {
    char name[64];
    uint16_t id;
    struct bytes bytes;
    struct fields fields;
};

extern struct seed *fuzz_seeds;
extern size_t fuzz_nr_seeds;

/* Built by the library, recorded in the tree, and those of $ZQ_FUZZ_IMAGES; made once. */
void seeds_make(void);
/* The one of this number, or else some one. */
const struct seed *seed_of(uint16_t id);

#endif
