/* SPDX-License-Identifier: MIT */
/*
 * Zones that have changed, but not by a request of the guest: a list of those that changed last,
 * each once, oldest first. It has its memory from the first change on, so that an image in which
 * nothing changes like that has none of it, and no other change of a zone costs anything.
 */
#ifndef ZQ_ZONE_CHANGES_H
#define ZQ_ZONE_CHANGES_H

#include <stdbool.h>
#include <stdint.h>
#include <zqcow2/zqcow2.h>

#define ZQ_CHANGES 511u /* NVMe ZNS: as many fit into a Changed Zone List */

struct zq_change {
    uint64_t seq;
    uint32_t zone;
};

struct zq_changes {
    uint64_t seq;  /* of the last change */
    uint64_t lost; /* of the last change that is not in the list; 0: none */
    uint32_t n;
    bool armed;          /* the next one is an event */
    struct zq_change *v; /* owned; NULL: nothing has changed, or there was no memory */
};

/* True: it is to be an event. Without memory, the next read is an overflow. */
bool zq_changes_add(struct zq_changes *c, const struct zqcow2_hooks *h, uint32_t zone);
/* Any zone may have. */
bool zq_changes_all(struct zq_changes *c);
/* The zones changed after `since`, in no order; at most nr. -EOVERFLOW, -EINVAL. Arms. */
int zq_changes_read(struct zq_changes *c, uint64_t *since, uint64_t *zones, uint32_t *nr);
void zq_changes_close(struct zq_changes *c, const struct zqcow2_hooks *h);

#endif
