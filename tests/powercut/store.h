/* SPDX-License-Identifier: MIT */
/*
 * A sparse file in memory. Copies share their pages until one of them is written, so that an image
 * of a power cut costs its table of pages and what differs.
 */
#ifndef POWERCUT_STORE_H
#define POWERCUT_STORE_H

#include <stddef.h>
#include <stdint.h>

struct store {
    struct page **map;
    size_t pages;
    uint64_t size;
};

void store_free(struct store *s);
void store_copy(struct store *to, const struct store *from); /* to is empty or a store */
void store_read(const struct store *s, void *buf, size_t len, uint64_t off);
void store_write(struct store *s, const void *buf, size_t len, uint64_t off);
void store_fill(struct store *s, int byte, uint64_t len, uint64_t off);
void store_resize(struct store *s, uint64_t size);
/* The page of 4096 bytes at off was never written: it reads as zeros. */
int store_hole(const struct store *s, uint64_t off);
void store_save(const struct store *s, const char *path);
int store_load(struct store *s, const char *path);

uint64_t get_be(const struct store *s, uint64_t off, unsigned bytes);
void put_be(struct store *s, uint64_t off, unsigned bytes, uint64_t value);

/* splitmix64: the random numbers of a run, and the content of its sectors. */
uint64_t mix(uint64_t *state);
uint64_t below(uint64_t *state, uint64_t n); /* 0 .. n - 1 */
int odds(uint64_t *state, uint64_t n);       /* true once in n */

void *need(void *ptr); /* ends the program if memory is short */

#endif
