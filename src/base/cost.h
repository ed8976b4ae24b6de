/* SPDX-License-Identifier: MIT */
/*
 * What work costs, in units of about 10 ns. It is counted and never measured: what a call does
 * depends on no clock, and a test can count it, too. Only what may be long has a cost (E7).
 */
#ifndef ZQ_BASE_COST_H
#define ZQ_BASE_COST_H

#include <stdint.h>

/* What one call of an event loop may do: about 1 ms. Tests are built with less, too. */
#ifndef ZQ_PORTION
#define ZQ_PORTION 100000
#endif

enum zq_cost {
    ZQ_COST_LOOK = 1,       /* at a zone or a table that needs nothing */
    ZQ_COST_STEP = 20,      /* of an operation */
    ZQ_COST_ZONE = 30,      /* that changes its state */
    ZQ_COST_SLICE = 500,    /* of a table */
    ZQ_COST_RECORD = 10,    /* of clusters that are given up */
    ZQ_COST_SEARCH = 20000, /* of free clusters, in one hold of the mutex */
    ZQ_COST_CALL = 500,     /* of the host */
    /* of each KiB */
    ZQ_COST_ZEROS = 16,
    ZQ_COST_UNPACK = 500,
    ZQ_COST_PACK = 3000
};

static inline uint32_t zq_cost_of(uint64_t bytes, enum zq_cost each)
{
    return (uint32_t)(bytes >> 10) * each + ZQ_COST_STEP;
}

#endif
