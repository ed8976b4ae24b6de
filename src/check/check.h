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

#endif
