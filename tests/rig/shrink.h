/* SPDX-License-Identifier: MIT */
/* Cuts a failing list of operations down to few. */
#ifndef RIG_SHRINK_H
#define RIG_SHRINK_H

#include <stdbool.h>
#include <stdint.h>

/* Drops parts of list[] while fails() says that the rest fails, too; returns how many are left. */
uint64_t shrink(uint64_t *list, uint64_t nr, unsigned seconds,
                bool (*fails)(void *arg, const uint64_t *list, uint64_t nr), void *arg);

#endif
