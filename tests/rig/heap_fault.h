/* SPDX-License-Identifier: MIT */
/* Allocator hooks that count, fail the n-th allocation, and know every live block. */
#ifndef RIG_HEAP_FAULT_H
#define RIG_HEAP_FAULT_H

#include <pthread.h>
#include <stdbool.h>
#include <zqcow2/zqcow2.h>

struct heap {
    pthread_mutex_t lock;
    uint64_t calls;   /* allocations asked for since the plan was made */
    uint64_t fail_at; /* this call fails, counted from 1; 0: none */
    bool for_ever;    /* and every later one */
    uint64_t failed;  /* how many did */
    uint64_t live, live_bytes, peak_bytes;
    struct block *blocks;
    char error[160]; /* the first misuse: a free of the wrong size, twice, or of nothing */
};

void heap_init(struct heap *h);
void heap_destroy(struct heap *h); /* frees what leaked, too */
void heap_plan(struct heap *h, uint64_t fail_at, bool for_ever);
struct zqcow2_hooks heap_hooks(struct heap *h);
/* NULL, or what is wrong: a misuse, or blocks that are still live. */
const char *heap_verdict(struct heap *h);

#endif
