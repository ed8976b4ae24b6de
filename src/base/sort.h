/* SPDX-License-Identifier: MIT */
/* Sorting in place, without the memory that qsort() may take behind the hooks' back. */
#ifndef ZQ_BASE_SORT_H
#define ZQ_BASE_SORT_H

#include <stdbool.h>
#include <stddef.h>

#define ZQ_SORT_MAX 64u

/* n elements of `size` bytes (at most ZQ_SORT_MAX), in O(n log n). */
void zq_sort(void *base, size_t n, size_t size,
             bool (*less)(const void *a, const void *b, const void *arg), const void *arg);

#endif
