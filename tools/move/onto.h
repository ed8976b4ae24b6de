/* SPDX-License-Identifier: MIT */
/* A copy that stands on a backing file, and has only what differs from it. */
#ifndef ZT_MOVE_ONTO_H
#define ZT_MOVE_ONTO_H

#include "disk.h"
#include "output.h"

struct zt_onto {
    const char *backing, *format; /* of the copy, as they are stored; NULL: not given */
    unsigned progress;            /* zt_progress_form */
};

/* opt: of the copy, without a backing file. False after reporting, and nothing is left then. */
bool zt_onto(const struct zt_onto *c, struct zt_disk *from, struct zt_output *to,
             const struct zqcow2_create_options *opt, bool force);

#endif
