/* SPDX-License-Identifier: MIT */
/* Random operations: what the n-th of a seed means depends on the model's state. */
#ifndef RIG_GEN_H
#define RIG_GEN_H

#include "rig/model.h"

enum { GEN_REOPEN = 100, GEN_COMPARE };

#define GEN_MAX_BYTES (256u << 10)

struct gen_op {
    int kind; /* zqcow2_op, or one of the above */
    unsigned flags, state;
    uint64_t off, len, tag;
};

struct gen_op gen_draw(const struct model *m, uint64_t seed, uint64_t n);
/* Does op to the model; buf: its data, or where read data goes. *off: result offset. */
int gen_model(struct model *m, const struct gen_op *op, void *buf, uint64_t *off);

#endif
