/* SPDX-License-Identifier: MIT */
/*
 * Which clusters the entries of a table name: the numbers of its entries, in the order of what they
 * name. Four bytes per entry, so that a table of any size can be asked "does one of you lie here?".
 */
#ifndef ZQ_QCOW2_INDEX_H
#define ZQ_QCOW2_INDEX_H

#include <stdbool.h>
#include <stdint.h>
#include "base/mem.h"

struct zq_index {
    uint32_t *order; /* of the entries that are not 0, by offset, ascending */
    uint32_t n, room;
};

/* Room for every entry of the table. -ENOMEM. */
int zq_index_build(struct zq_index *x, const struct zqcow2_hooks *h, const uint64_t *table,
                   uint64_t entries);
void zq_index_free(struct zq_index *x, const struct zqcow2_hooks *h);
/* True: entries *a and *b name the same cluster. */
bool zq_index_twice(const struct zq_index *x, const uint64_t *table, uint32_t *a, uint32_t *b);
/* Is what an entry names in [host, host + len), of whole clusters? Which: *i (may be NULL). */
bool zq_index_hit(const struct zq_index *x, const uint64_t *table, uint64_t host, uint64_t len,
                  uint32_t *i);
/* table[i] = entry. */
void zq_index_set(struct zq_index *x, uint64_t *table, uint32_t i, uint64_t entry);

#endif
