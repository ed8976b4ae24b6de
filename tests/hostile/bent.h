/* SPDX-License-Identifier: MIT */
/*
 * An image as bytes, to be bent, and the memory that an open of it takes. The program defines
 * BYTES, how long its file is, before it includes this.
 */
#ifndef HOSTILE_BENT_H
#define HOSTILE_BENT_H

#include <stdint.h>
#include <stdlib.h>
#include <zqcow2/zqcow2.h>

#define CLUSTER 4096u
#define MOST    (3u << 20) /* of memory, for all of an open image; the cache has 1 MiB */

static uint8_t file[BYTES];
static size_t used, most;

static void *count_alloc(void *ctx, size_t align, size_t size)
{
    (void)ctx;
    used += size;
    most = used > most ? used : most;
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void count_free(void *ctx, void *p, size_t size)
{
    (void)ctx;
    used -= size;
    free(p);
}

static struct zqcow2_hooks hooks(void)
{
    struct zqcow2_hooks h = ZQCOW2_HOOKS_INIT;

    h.alloc = count_alloc;
    h.free = count_free;
    return h;
}

static uint64_t get(uint64_t at, unsigned n)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < n; i++)
        v = v << 8 | file[at + i];
    return v;
}

static void put(uint64_t at, unsigned n, uint64_t v)
{
    while (n--) {
        file[at + n] = (uint8_t)v;
        v >>= 8;
    }
}

#endif
