/* SPDX-License-Identifier: MIT */
/*
 * What a resize does to zones: their tables move, and change with the size, in one sector (G1).
 * All under the image's mutex, unless it says otherwise, and while nothing else is in progress.
 */
#ifndef ZQ_OPS_RESIZE_ZONES_H
#define ZQ_OPS_RESIZE_ZONES_H

#include "loop/core.h"

/* The tables of zones: write pointers, persistent states, descriptor extensions. */
#define ZQ_ZONE_TABLES 3u

struct zq_resize_zones {
    struct zq_geometry g;  /* as it will be */
    struct zq_zones zones; /* these, as an open would find them */
    struct zq_runs *runs;  /* of each of them, empty */
    uint8_t *pointers, *states;
    struct zq_host_range old[ZQ_ZONE_TABLES]; /* whole clusters; bytes 0: there is none */
    struct zq_freed *freed[ZQ_ZONE_TABLES];
    uint64_t bytes[ZQ_ZONE_TABLES]; /* of the new ones: whole clusters, one behind the other */
    uint64_t table[ZQ_ZONE_TABLES]; /* where they will be, from `place` on */
};

/*
 * May the device have this size? Takes all memory that the change needs. EINVAL, EFEATURE, EFBIG,
 * EZONE_STATE: a zone that would be cut off is not empty; EZONE_ACTIVE (G2); ENOMEM. Whatever it
 * returns, z is to be left.
 */
int zq_resize_zones_judge(struct zq_core *c, struct zq_resize_zones *z, uint64_t size,
                          struct zqcow2_error *err);
/* Of the new tables, together. */
uint64_t zq_resize_zones_bytes(const struct zq_resize_zones *z);
/* They will lie at host. */
void zq_resize_zones_place(struct zq_resize_zones *z, uint64_t host);
/* n of their bytes from `at` on, which lie in one cluster. Without the mutex. */
int zq_resize_zones_compose(const struct zq_core *c, const struct zq_resize_zones *z, uint64_t at,
                            uint8_t *buf, uint64_t n);
/* Names them in the header's first sector, with the size of the device. */
void zq_resize_zones_switch(const struct zq_core *c, const struct zq_resize_zones *z,
                            uint8_t sector0[ZQ_SECTOR]);
/* The switch is durable: the image has the new zones, and the old tables are given back. */
void zq_resize_zones_adopt(struct zq_core *c, struct zq_resize_zones *z);
void zq_resize_zones_leave(struct zq_core *c, struct zq_resize_zones *z);

#endif
