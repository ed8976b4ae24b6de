/* SPDX-License-Identifier: MIT */
/* Compares references with refcounts, and repairs what differs. */
#ifndef ZQ_CHECK_CHECK_H
#define ZQ_CHECK_CHECK_H

#include "device/backend.h"
#include "format/zone_ext.h"

/* Of the backing file of an image with zones: it has the same. */
struct zq_below {
    struct zq_geometry g;
    uint8_t *pointers; /* its write-pointer table, each entry checked */
};

/*
 * What zqcow2_check() does of one image, without taking the lock. Also called by a writable open of
 * an image that was not closed cleanly (flags: REPAIR_LEAKS for a zoned one, REPAIR for a plain
 * DIRTY one). No leak is freed while h->unknown_ext or h->unknown_autoclear. Memory: through hooks,
 * bounded by the file's size. below: NULL, or what an image with zones stands on (S12).
 */
int zq_check(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks,
             const struct zqcow2_check_options *opt, const struct zq_below *below,
             struct zqcow2_check_result *res, struct zqcow2_error *err);

/*
 * Before all else of a repair that may drop entries: l1_size and nb_snapshots, where they are wrong
 * beyond doubt and the image could not be read for them. *done: how many were set right. What it
 * cannot judge stays, for zq_check() to report.
 */
int zq_check_fix_header(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks,
                        const struct zqcow2_check_options *opt, uint64_t *done);

#endif
