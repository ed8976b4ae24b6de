/* SPDX-License-Identifier: MIT */
/* Compresses what a FULL zone maps, while the image is in use (C5). */
#ifndef ZQ_OPS_COMPACT_H
#define ZQ_OPS_COMPACT_H

#include "loop/core.h"

struct zq_compacting {
    uint64_t guest; /* in: a cluster of a sequential zone */
    int level;      /* in: of the codec; 0: its default */
    uint8_t *buf;   /* in: room for a cluster */
    uint64_t next;  /* out: where to go on; the end of the zone if it is not FULL */
    uint64_t bytes; /* out: of the cluster's data in the file; 0: it was left as it is */
    bool data;      /* out: the cluster had data that might have been compressed */
};

/* One cluster. Blocks. An error has changed nothing. */
int zq_compact_run(struct zq_core *c, struct zq_compacting *what);

#endif
