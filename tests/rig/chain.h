/* SPDX-License-Identifier: MIT */
/* Chains of images in memory: made, opened with a resolver that watches, and what they read as. */
#ifndef RIG_CHAIN_H
#define RIG_CHAIN_H

#include "rig/heap_fault.h"
#include "rig/rig.h"

#define LAYERS  4u
#define SIZE    MiB(2)
#define NAME_AT 160u

/* The files of a chain, [0] the image; each is named by its number. */
struct chain {
    struct store store[LAYERS];
    uint64_t size[LAYERS];
    unsigned nr;
    uint32_t cluster; /* of the image; 16384 everywhere: with subclusters */
    bool raw_end;     /* the last one is raw */
    unsigned threads; /* of each backend; 0: it blocks */
    unsigned opened;  /* by the resolver */
    int fail;         /* what the resolver returns instead */
    bool polled;      /* it gives backends that must be polled */
    int read_error;   /* of all sources */
    bool foreign;     /* a source was read by another thread than `self` */
    bool own;         /* ... by `self` */
    pthread_t self;
    uint8_t *want; /* SIZE bytes */
    struct heap heap;
    struct zqcow2_hooks hooks;
    struct zqcow2_error err;
};

extern uint64_t chain_rng;

uint32_t chain_below(uint32_t n);
void chain_bytes(uint8_t *to, uint64_t len);
struct zqcow2_backend *chain_backend(struct store *s);
/* Its backing file, and the format of it. */
void chain_name(struct store *s, const char *name, const char *format);
void chain_make(struct chain *c, unsigned nr, bool raw_end);
/* Fails the test if memory was lost. */
void chain_free(struct chain *c);
struct zqcow2_open_options chain_options(struct chain *c);
int chain_open(struct chain *c, const struct zqcow2_open_options *opt, struct zqcow2_image **img);
struct zqcow2_image *chain_must_open(struct chain *c, uint64_t cache);
void chain_compare(struct chain *c, const uint8_t *got, uint64_t off, uint64_t len, unsigned seed);
/* All of the device at once, and pieces of it. */
void chain_read(struct chain *c, uint64_t cache, unsigned seed);

#endif
