/* SPDX-License-Identifier: MIT */
/* What the files of the map share: entries of a slice, and runs of zones. */
#ifndef ZQ_QCOW2_MAP_INT_H
#define ZQ_QCOW2_MAP_INT_H

#include "qcow2/map.h"

static inline uint32_t zq_map_index(const struct zq_map *m, uint64_t guest)
{
    return (uint32_t)(guest >> m->cluster_bits) & ((1u << m->slice_bits) - 1);
}

static inline uint8_t *zq_map_entry(const struct zq_map *m, const struct zq_slice *s,
                                    uint64_t guest)
{
    return zq_l2_at(&m->form, s->data, zq_map_index(m, guest));
}

static inline struct zq_runs *zq_map_runs_of(const struct zq_map *m, uint64_t guest)
{
    uint64_t zone;

    if (!m->runs)
        return NULL;
    zone = guest >> m->zone_bits;
    /* What a smaller device has cut off has none. */
    return zone >= m->first_seq_zone && zone < m->nr_runs ? &m->runs[zone] : NULL;
}

/*
 * How many entries, at most n, from that of guest on, are like the first and follow on, and what
 * they hold together in the file. 0: the first one is none.
 */
uint32_t zq_map_count_like(const struct zq_map *m, const uint8_t *entry, uint64_t guest, uint32_t n,
                           struct zq_freed *held);

#endif
