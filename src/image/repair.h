/* SPDX-License-Identifier: MIT */
/*
 * Mending what a scan found. Order within a round (R13): raise refcounts, barrier, fix entries,
 * barrier, lower refcounts; a crash between any two writes leaves what a next repair mends.
 */
#ifndef ZQ_IMAGE_REPAIR_H
#define ZQ_IMAGE_REPAIR_H

#include "image/walk.h"

/* flags: zqcow2_check_flag. *changed: something was written, the scan is out of date. */
int zq_repair_round(struct zq_scan *s, unsigned flags, bool *changed);
/* Clears DIRTY, CORRUPT and our mark: nothing is left that they could warn of. */
int zq_repair_finish(struct zq_scan *s);
/*
 * A repair of refcounts that could not be completed, because they are too narrow or because tables
 * overlap: sets CORRUPT, so that nobody allocates by them.
 */
int zq_repair_give_up(struct zq_scan *s);

/*
 * Writes a new refcount table and all blocks behind the end of the file and switches to it. No
 * refcount gets lower than it was; the old table and blocks become leaks.
 */
int zq_rebuild_refcounts(struct zq_scan *s, bool *changed);

#endif
