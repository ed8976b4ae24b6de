/* SPDX-License-Identifier: MIT */
/* Batches of requests whose outcome is the same in whatever order they complete. */
#ifndef RIG_BATCH_H
#define RIG_BATCH_H

#include "rig/gen.h"

#define BATCH_MAX 16

/* What the batch in the making does to a zone. */
struct mark {
    bool open, active; /* before it */
    bool changed, taken, reset, read;
    uint64_t wp, read_end; /* wp: before it */
};

struct batch {
    struct model *m;
    struct mark *mark;
    struct gen_op op[BATCH_MAX];
    unsigned nr;
};

void batch_init(struct batch *b, struct model *m);
void batch_free(struct batch *b);
void batch_begin(struct batch *b);
/* True: op is in the batch now. The caller does it to the model at once. */
bool batch_join(struct batch *b, const struct gen_op *op);

#endif
