/* SPDX-License-Identifier: MIT */
/* A backend that counts calls and bytes by kind, notes where reads went, and can forget data. */
#ifndef TALLY_H
#define TALLY_H

#include <stdbool.h>
#include "rig/heap_fault.h"
#include "rig/store.h"

#define TALLY_READS 4096u
#define TALLY_HELD  64u

struct tally {
    struct store store;
    struct heap heap;
    struct zqcow2_hooks hooks;
    uint64_t calls[ZQCOW2_IO_TRUNCATE + 1], bytes[ZQCOW2_IO_TRUNCATE + 1];
    uint64_t forget; /* writes of at least so many bytes are counted and dropped; 0: none */
    uint64_t data;   /* bytes of those */
    struct {
        uint64_t off, len;
    } read[TALLY_READS];
    bool async; /* reads and writes are held until somebody polls */
    struct zqcow2_io *held[TALLY_HELD];
    unsigned nr_held, kicks;
    uint64_t allocates; /* of tables; counted among all calls */
    struct zqcow2_image *img;
};

void tally_init(struct tally *t);
/* Fails the test on leaks of memory. */
void tally_free(struct tally *t);
void tally_reset(struct tally *t);
uint64_t tally_calls(const struct tally *t); /* of all kinds */
struct zqcow2_backend *tally_backend(struct tally *t);
void tally_create(struct tally *t, const struct zqcow2_create_options *o);
void tally_open(struct tally *t, const struct zqcow2_open_options *o);
void tally_close(struct tally *t);

/* Fails the test unless the calls since the last tally_reset() were these. */
#define tally_expect(t, writes, flushes) tally_judge(t, writes, flushes, __FILE__, __LINE__)
void tally_judge(const struct tally *t, uint64_t writes, uint64_t flushes, const char *file,
                 int line);

#endif
