/* SPDX-License-Identifier: MIT */
/* An incremental backup: what a bitmap says has changed, as an overlay of the last backup. */
#ifndef ZT_MOVE_SINCE_H
#define ZT_MOVE_SINCE_H

#include "disk.h"
#include "output.h"

struct zt_since {
    const char *bitmap;                   /* of the disk; NULL: a whole disk is copied */
    const char *backing, *backing_format; /* the last backup */
    unsigned progress;                    /* zt_progress_form */
};

/* Writes `to`, with the zones of the last backup, so that it is as `from`. False after reporting.
 */
bool zt_since(const struct zt_since *since, struct zt_disk *from, struct zt_output *to, bool force);

#endif
