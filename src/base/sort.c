/* SPDX-License-Identifier: MIT */
/*
 * Heap sort: in place, and no input makes it slow. What is sorted comes from image files, which may
 * be made to hit the worst case of a faster one.
 */
#include "base/sort.h"

#include <stdint.h>
#include <string.h>

struct heap {
    uint8_t *base;
    size_t size;
    bool (*less)(const void *a, const void *b, const void *arg);
    const void *arg;
};

static uint8_t *at(const struct heap *h, size_t i)
{
    return h->base + i * h->size;
}

static void swap(const struct heap *h, size_t i, size_t j)
{
    uint8_t tmp[ZQ_SORT_MAX];

    memcpy(tmp, at(h, i), h->size);
    memcpy(at(h, i), at(h, j), h->size);
    memcpy(at(h, j), tmp, h->size);
}

/* Restores the heap of the first n elements where only `root` may be smaller than a child. */
static void sift_down(const struct heap *h, size_t root, size_t n)
{
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && h->less(at(h, child), at(h, child + 1), h->arg))
            child++;
        if (!h->less(at(h, root), at(h, child), h->arg))
            return;
        swap(h, root, child);
    }
}

void zq_sort(void *base, size_t n, size_t size,
             bool (*less)(const void *a, const void *b, const void *arg), const void *arg)
{
    const struct heap h = {base, size, less, arg};

    for (size_t i = n / 2; i-- > 0;)
        sift_down(&h, i, n);
    for (size_t i = n; i-- > 1;) {
        swap(&h, 0, i);
        sift_down(&h, 0, i);
    }
}
