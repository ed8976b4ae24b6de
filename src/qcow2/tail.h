/* SPDX-License-Identifier: MIT */
/* The end of the file: how far clusters are in use, and refcount blocks that count nothing there.
 */
#ifndef ZQ_QCOW2_TAIL_H
#define ZQ_QCOW2_TAIL_H

#include "qcow2/host.h"

/* A search for the last cluster in use, downwards. All 0: not begun. */
struct zq_tail {
    bool begun;
    uint64_t at;   /* no cluster from this one on is in use, except blocks that count themselves */
    uint64_t end;  /* of the last one that is: bytes */
    uint32_t gone; /* blocks that were dropped: their clusters become free by a round */
};

/*
 * Nothing else allocates or gives back meanwhile, and no round runs. Blocks behind the last cluster
 * in use that count nothing else leave the refcount table, and their clusters go to the quarantine.
 * 0, ZQ_WAIT, -ENOMEM or an I/O error. What was dropped by then stays dropped.
 */
int zq_tail_find(struct zq_alloc *a, struct zq_gather *g, struct zq_tail *t);
/*
 * Is there anything behind `end` that the file can do without? No table lies there that the image
 * names, whatever its refcount says.
 */
bool zq_tail_is_loose(const struct zq_alloc *a, uint64_t end);
/* The file ends here from now on. */
void zq_tail_cut(struct zq_alloc *a, uint64_t end);

#endif
