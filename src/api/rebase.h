/* SPDX-License-Identifier: MIT */
/* What the parts of a rebase share. */
#ifndef ZQ_API_REBASE_H
#define ZQ_API_REBASE_H

#include <zqcow2/chain.h>

#include "api/zones_below.h"

#define ZQ_REBASE_PIECE (1u << 20) /* bytes that are read and compared at once */

struct rebase {
    struct zqcow2_rebase_options opt;
    struct zqcow2_hooks hooks;
    struct zqcow2_error *err;
    struct zqcow2_backing to;
    struct zqcow2_image *img;
    struct zqcow2_info info;    /* of it */
    struct zqcow2_image *below; /* empty, in memory, on the new chain; NULL: there is none */
    uint8_t *now, *then;        /* what is read, and what would be: a piece and a cluster each */
};

int zq_rebase_report(const struct rebase *r, uint64_t done);
/* Maps what the zones inherit and would not inherit alike from the new chain. */
int zq_rebase_zones(struct rebase *r);
/* EFEATURE: a zone inherits what the new chain does not have, by the write pointers. */
int zq_rebase_check_zones(struct rebase *r);

#endif
