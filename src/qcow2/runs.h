/* SPDX-License-Identifier: MIT */
/*
 * The runs of one zone: which of its guest ranges lie where in the file, so that a mapping is
 * arithmetic and not a look into an L2 table. A cache of what L2 says: only clusters that may be
 * written in place. Sorted by guest offset; neighbours that are one range in both spaces are one.
 */
#ifndef ZQ_QCOW2_RUNS_H
#define ZQ_QCOW2_RUNS_H

#include "base/mem.h"

struct zq_run {
    uint64_t guest, host, len;
};

struct zq_runs {
    struct zq_run *v;
    uint32_t n, cap;
};

/* The run that holds guest, or NULL. */
const struct zq_run *zq_runs_find(const struct zq_runs *r, uint64_t guest);
/* Best effort: without memory, or in a zone of very many pieces, L2 has to be asked again. */
void zq_runs_add(struct zq_runs *r, const struct zqcow2_hooks *h, uint64_t guest, uint64_t host,
                 uint64_t len);
void zq_runs_remove(struct zq_runs *r, uint64_t guest, uint64_t end);
void zq_runs_free(struct zq_runs *r, const struct zqcow2_hooks *h);
/* Of n zones, and their array. */
void zq_runs_close(struct zq_runs *r, uint32_t n, const struct zqcow2_hooks *h);

#endif
