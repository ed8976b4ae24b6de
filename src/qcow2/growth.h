/* SPDX-License-Identifier: MIT */
/* Growth of the refcount table (R9). */
#ifndef ZQ_QCOW2_GROWTH_H
#define ZQ_QCOW2_GROWTH_H

#include "qcow2/host.h"

/* Parks until the refcount table covers more, or returns what hinders it. */
int zq_growth_wait(struct zq_alloc *a, struct zq_gather *g);
/* Where the header says what the table is: as of the table that has been written. */
void zq_growth_patch(const struct zq_alloc *a, uint8_t *sector0);
/* The header points to the new table for good. */
void zq_growth_switch(struct zq_alloc *a);
/* The round that was to switch stopped: the table stays as written, another round will. */
void zq_growth_stop(struct zq_alloc *a, int rc);
void zq_growth_drop(struct zq_alloc *a);

#endif
