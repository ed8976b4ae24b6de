/* SPDX-License-Identifier: MIT */
/* A blocking backend over another whose n-th call fails. */
#ifndef RIG_BE_FAULT_H
#define RIG_BE_FAULT_H

#include <stdbool.h>
#include "rig/store.h"

enum fault_kind {
    FAULT_NONE,
    FAULT_EIO,
    FAULT_ENOSPC,  /* only of calls that take space; others do not count */
    FAULT_NO_ROOM, /* the same, but that barriers need none */
    FAULT_READ,    /* EIO, only of reads; others do not count */
    FAULT_SHORT    /* a read or write does its first half, then fails with EIO */
};

struct fault {
    struct rig_be under;
    struct fault *plan; /* whose plan and counts are used: its own, or those of another file's */
    pthread_mutex_t lock;
    enum fault_kind kind;
    uint64_t calls;   /* since the plan was made */
    uint64_t fail_at; /* counted from 1; 0: none */
    bool for_ever;
    uint64_t limit; /* so many calls of one plan are enough: the program ends; 0: none */
    uint64_t failed, failed_flushes; /* flushes: since the backend was made */
};

void fault_init(struct fault *f, struct rig_be under);
void fault_plan(struct fault *f, enum fault_kind kind, uint64_t fail_at, bool for_ever);
struct rig_be fault_be(struct fault *f);

#endif
