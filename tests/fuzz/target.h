/* SPDX-License-Identifier: MIT */
/*
 * What a target is. libFuzzer and the plain driver both call LLVMFuzzerTestOneInput(), which each
 * target has, and the mutator, which is mutate.c, or none.
 */
#ifndef FUZZ_TARGET_H
#define FUZZ_TARGET_H

#include "fuzz/input.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t room, unsigned seed);
size_t LLVMFuzzerCustomCrossOver(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size,
                                 uint8_t *out, size_t room, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t room); /* libFuzzer's, or the driver's */

/* The target's: which groups of fields it changes, as bits, and whether it reads a tail. */
struct fuzz_target {
    unsigned groups;
    bool tail;
};
extern const struct fuzz_target fuzz_target;

/* An image on a disk that counts. */
struct world {
    struct disk disk;
    struct zqcow2_hooks hooks;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    struct zqcow2_error err;
    struct zqcow2_check_result res;
    char found[2048]; /* what the last check found */
};

void world_begin(struct world *w, const struct input *in);
void world_copy(struct world *w, const struct world *from); /* the file alone */
void world_end(struct world *w);                            /* nothing may be left */
int world_open(struct world *w, uint32_t flags);
int world_close(struct world *w);
int world_check(struct world *w, uint32_t flags);
struct zqcow2_info world_info(struct world *w);
/* Every zone, against the others, info and the limits of the format. */
void world_zones(struct world *w);
/* Every extent that block status reports, up to `most`, against reads and the file's bytes. */
void world_read(struct world *w, unsigned most);

#endif
