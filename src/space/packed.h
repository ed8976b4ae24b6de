/* SPDX-License-Identifier: MIT */
/*
 * A compressed cluster: its bytes in the file, and what they unpack to.
 */
#ifndef ZQ_SPACE_PACKED_H
#define ZQ_SPACE_PACKED_H

#include "loop/core.h"

/*
 * For the cluster of data that l2 holds, in the image itself (from NULL) or in a source: if it is
 * compressed, room for its bytes in the file, too.
 */
int zq_packed_alloc(struct zq_core *c, struct zq_packed *p, struct zq_source *from,
                    const struct zq_l2_entry *l2);
/* The two halves of that: where it is; and room, for what is not known yet. */
void zq_packed_find(struct zq_core *c, struct zq_packed *p, struct zq_source *from,
                    const struct zq_l2_entry *l2);
int zq_packed_room(struct zq_core *c, struct zq_packed *p, uint64_t in, uint64_t out);
void zq_packed_free(struct zq_core *c, struct zq_packed *p);
/* Of len bytes from guest on, how many does the cluster hold? */
static inline uint64_t zq_packed_part(const struct zq_packed *p, uint64_t guest, uint64_t len)
{
    uint64_t size = (uint64_t)1 << p->cluster_bits;

    return zq_min(len, size - (guest & (size - 1)));
}
/* Where guest's byte is, once the cluster is unpacked. */
static inline const uint8_t *zq_packed_at(const struct zq_packed *p, uint64_t guest)
{
    return p->out + (guest & (((uint64_t)1 << p->cluster_bits) - 1));
}
/* Unpacks p->in into p->out. Takes long: it runs without the mutex, as an io's work. */
int zq_packed_inflate(struct zq_core *c, const struct zq_packed *p);
static inline uint32_t zq_packed_cost(const struct zq_packed *p)
{
    return zq_cost_of((uint64_t)1 << p->cluster_bits, ZQ_COST_UNPACK);
}

#endif
