/* SPDX-License-Identifier: MIT */
/*
 * Other fields in the header of an image at rest, and the tables that have another form with them.
 *
 * New tables are written behind the end of the file, where nothing points to; then one sector of
 * the header switches to all of them. The new refcounts do not count the tables that the old header
 * names, so neither a crash before the switch nor one after it leaves a cluster that leaks.
 */
#ifndef ZQ_CHECK_AMEND_H
#define ZQ_CHECK_AMEND_H

#include "check/repair.h"
#include "format/renaming.h"

struct zq_amend {
    uint32_t version, refcount_order;
    uint32_t layout; /* of the zones; ZQCOW2_LAYOUT_NONE: there are none */
    bool lazy, raw;  /* lazy refcounts; a raw data file */
    bool trial;      /* only refuses what would be refused, except for zero clusters */
};

/*
 * The backend is entered, recovered and flushed; h is its header. EFEATURE: the image holds what it
 * could not hold then. ECORRUPT: a check finds something wrong. An image that is what it should be
 * is not written.
 */
int zq_amend(struct zqcow2_backend *be, const struct zqcow2_hooks *hooks, const struct zq_header *h,
             const struct zq_amend *to, struct zqcow2_error *err);

#endif
