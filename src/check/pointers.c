/* SPDX-License-Identifier: MIT */
/*
 * Where lost write pointers go. Behind the last cluster that is mapped, so that no data is lost;
 * what was never written below it reads as zeros. Over a backing file nothing but clusters that are
 * mapped from the zone's start on without a gap are the zone's for sure: what is not mapped may be
 * of a life that a reset has ended, and its bytes in the backing file must not return (S14).
 */
#include "check/repair.h"

#include <errno.h>
#include <inttypes.h>

#include "base/sort.h"

static bool is_lost(const struct zq_scan *s, uint32_t zone)
{
    struct zq_entry e;

    return zq_entry_decode(&s->g, zone, s->wp + zq_entries_bytes(zone), &e) < 0;
}

/* ---- over a backing file ---- */

static int note_whole(struct zq_scan *s, void *arg, uint64_t index, uint64_t at, uint8_t *entry)
{
    const struct zq_form form = zq_scan_form(s);
    uint64_t guest = zq_scan_guest(s, arg, index), zone = guest >> s->g.zone_bits;
    struct zq_target t;

    (void)at;
    zq_l2_target(s, arg, index, entry, &t);
    if (guest < s->g.device_size && guest == s->use[zone].whole && !t.why &&
        (t.len || t.outside || zq_l2_is_zero(&form, entry)))
        s->use[zone].whole += zq_scan_cluster(s);
    return 0;
}

static bool by_index(const void *pa, const void *pb, const void *arg)
{
    const struct zq_l2 *a = pa, *b = pb;

    (void)arg;
    return a->index < b->index;
}

/* Each active table once, in the order of the device. */
static int find_whole(struct zq_scan *s)
{
    size_t n = s->nr_active_l2s;
    struct zq_l2 *l2s = n ? zq_zalloc_array(s->hooks, n, sizeof(*l2s)) : NULL;
    int rc = l2s || !n ? 0 : -ENOMEM;

    for (uint32_t i = 0; i < s->g.nr_zones; i++)
        s->use[i].whole = zq_geometry_start(&s->g, i);
    if (l2s) {
        memcpy(l2s, s->l2s, n * sizeof(*l2s));
        zq_sort(l2s, n, sizeof(*l2s), by_index, NULL);
    }
    for (size_t i = 0; l2s && i < n && rc == 0; i++)
        rc = zq_walk_l2(s, l2s[i].offset, note_whole, &l2s[i]);
    zq_free(s->hooks, l2s, n * sizeof(*l2s));
    return rc;
}

static uint64_t above_source(struct zq_scan *s, uint32_t zone)
{
    uint64_t start = zq_geometry_start(&s->g, zone);

    if (s->use[zone].whole == start)
        zq_found(s, ZQCOW2_FOUND_REPAIRED, 1,
                 "zone %" PRIu32
                 ": nothing is mapped at its start, so it is now empty; data that it "
                 "may have had in the backing file is still there",
                 zone);
    return s->use[zone].whole;
}

/* ---- the repair ---- */

static int set_pointer(struct zq_scan *s, uint32_t zone)
{
    uint64_t start = zq_geometry_start(&s->g, zone);
    uint64_t end = start + zq_geometry_capacity(&s->g, zone);
    uint64_t to = s->h.backing_len ? above_source(s, zone) : s->use[zone].top;
    uint8_t *raw = s->wp + zq_entries_bytes(zone);

    zq_entry_encode(&s->g, zone, zq_max(start, zq_min(to, end)), false, raw);
    return zq_scan_write(s, raw, ZQ_ENTRY, s->g.table_offset + zq_entries_bytes(zone));
}

int zq_repair_pointers(struct zq_scan *s, uint64_t *fixed)
{
    bool known = !s->h.backing_len;
    int rc = 0;

    for (uint32_t i = 0; s->g.layout && i < s->g.nr_zones && rc == 0; i++) {
        if (!is_lost(s, i) || zq_scan_lower(s, s->g.table_offset + zq_entries_bytes(i)))
            continue;
        if (!known)
            rc = find_whole(s);
        known = true;
        if (rc == 0)
            rc = set_pointer(s, i);
        *fixed += rc == 0;
    }
    return rc;
}

/* What was stored is unknown: the state is the one that follows from the write pointer. */
int zq_repair_states(struct zq_scan *s, uint64_t *fixed)
{
    for (uint32_t i = 0; s->states && i < s->g.nr_zones; i++) {
        uint64_t at = s->h.states_offset + i;
        int rc;

        if (zq_states_valid(&s->g, i, s->states[i]) || zq_scan_lower(s, at))
            continue;
        s->states[i] = 0;
        rc = zq_scan_write(s, &s->states[i], 1, at);
        if (rc < 0)
            return rc;
        (*fixed)++;
    }
    return 0;
}
