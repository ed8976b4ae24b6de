/* SPDX-License-Identifier: MIT */
/* What the parts of a commit share. */
#ifndef ZQ_API_COMMIT_H
#define ZQ_API_COMMIT_H

#include <zqcow2/chain.h>

#include "image/image.h"

#define ZQ_COMMIT_PIECE (1u << 20) /* bytes that are moved at once */

struct commit {
    struct zqcow2_commit_options opt;
    struct zqcow2_hooks hooks;
    struct zqcow2_error *err;
    struct zqcow2_image *img; /* a layer: nothing below it is open */
    struct zqcow2_info info;  /* of it */
    struct zqcow2_backing what;
    struct zqcow2_backend *be;  /* of a raw backing file; NULL: it is not open */
    struct zqcow2_image *below; /* NULL: a raw file */
    uint8_t *buf;               /* ZQ_COMMIT_PIECE bytes */
    uint8_t *plan;              /* what is done to each zone; NULL: there are none */
    uint64_t done;              /* bytes of the device that need nothing more */
};

/* Moves what the layer maps in [at, end), and adds to done, at which the caller may stop it. */
int zq_commit_range(struct commit *m, uint64_t at, uint64_t end);
/* Both are open: refuses zones that differ, and such as cannot become what the layer has. */
int zq_commit_plan_zones(struct commit *m);
/* All zones, and then their stored states. */
int zq_commit_zones(struct commit *m);

#endif
