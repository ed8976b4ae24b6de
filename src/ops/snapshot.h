/* SPDX-License-Identifier: MIT */
/*
 * Snapshots of an image in use: what the work on the file needs around it (N8).
 */
#ifndef ZQ_OPS_SNAPSHOT_H
#define ZQ_OPS_SNAPSHOT_H

#include "loop/core.h"
#include "snapshot/snapshot.h"

/* Does *s, whose first members the caller has set; it ends with zq_snap_free(). */
int zq_snapshot_run(struct zq_core *c, struct zq_snap *s);

#endif
