/* SPDX-License-Identifier: MIT */
/*
 * Clusters in a row, for tables that an operation makes while it has the image for itself. One
 * record takes them back if they are not used, or else what they replace.
 */
#ifndef ZQ_SPACE_ROW_H
#define ZQ_SPACE_ROW_H

#include "loop/core.h"

struct zq_row {
    uint64_t host, clusters; /* host 0: none is taken */
    struct zq_freed *freed;  /* NULL: none is, or the caller has used it */
};

/*
 * Takes n clusters, once; a round has to count them before the file names them. Under the mark, or
 * the dirty bit in its place (N9): what a crash leaves is then looked for. As a step: may wait.
 * -EFBIG: so many are not to be had in a row; *err says that it is `what` that takes them. n 0:
 * only waits for the mark.
 */
int zq_row_take(struct zq_core *c, struct zq_op *op, struct zq_row *row, uint64_t n,
                const char *what, struct zqcow2_error *err);
/* However it has ended. used: the file names the clusters, or may. */
void zq_row_leave(struct zq_core *c, struct zq_row *row, bool used);

#endif
