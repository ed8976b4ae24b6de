/* SPDX-License-Identifier: MIT */
/*
 * What lies between a copy and the place that it is written to. A target that does not get its name
 * last is no image until it is complete: the magic is missing from its header.
 */
#ifndef ZT_MOVE_STAGED_H
#define ZT_MOVE_STAGED_H

#include "tool.h"

struct zt_staging {
    bool no_sync;  /* what is written becomes durable when the system likes */
    bool nameless; /* the magic of an image is kept back; who reads here finds it */
    bool *changed; /* set when anything is written; NULL: nobody asks */
};

/* On success *be owns inner; on failure the caller keeps it. */
int zt_stage(struct zqcow2_backend *inner, const struct zt_staging *how,
             struct zqcow2_backend **be);
/* Makes an image of a nameless one, which is complete, durable and closed. */
int zt_name_image(const struct zt_target *t, bool no_sync);

#endif
