/* SPDX-License-Identifier: MIT */
/* Compares references with refcounts, and repairs what differs. */
#ifndef ZQ_CHECK_CHECK_H
#define ZQ_CHECK_CHECK_H

#include "device/backend.h"

/*
 * What zqcow2_check() does, without taking the lock. Also called by a writable open of an image
 * that was not closed cleanly (flags: REPAIR_LEAKS for a zoned one, REPAIR for a plain DIRTY one).
 * No leak is freed while h->unknown_ext or h->unknown_autoclear. Memory: through hooks, bounded by
 * the file's size.
 */
int zq_check(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks,
             const struct zqcow2_check_options *opt, struct zqcow2_check_result *res,
             struct zqcow2_error *err);

#endif
