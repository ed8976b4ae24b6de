/* SPDX-License-Identifier: MIT */
/* A blocking backend over another that counts calls and keeps a log of what changed the file. */
#ifndef RIG_BE_RECORD_H
#define RIG_BE_RECORD_H

#include <stdbool.h>
#include "rig/store.h"

struct record_entry {
    uint32_t kind; /* zqcow2_io_kind, never READ */
    int ret;
    uint64_t offset, length;
    uint8_t *data; /* WRITE only */
};

struct record {
    struct rig_be under;
    pthread_mutex_t lock;
    bool keep;      /* entries too, not only figures */
    uint64_t limit; /* so many calls since the last reset are enough: the program ends; 0: none */
    char what[160]; /* what it says then */
    uint64_t calls[ZQCOW2_IO_TRUNCATE + 1], bytes[ZQCOW2_IO_TRUNCATE + 1];
    struct record_entry *log;
    size_t nr, room;
};

void record_init(struct record *r, struct rig_be under);
void record_reset(struct record *r); /* forgets figures and log */
void record_free(struct record *r);
struct rig_be record_be(struct record *r);
/* Does the first n entries of the log again on `to`. */
void record_replay(const struct record *r, size_t n, struct store *to);

#endif
