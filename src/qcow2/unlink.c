/* SPDX-License-Identifier: MIT */
/*
 * Unlinks guest clusters. Clusters that an entry lets go of are handed to the caller as a record
 * for the quarantine, in the same hold of the mutex: the map never lowers a refcount itself (R5).
 */
#include "base/report.h"
#include "qcow2/map_int.h"

/* Where the part of [guest, end) ends that lies in the cluster of guest. */
static uint64_t part_end(const struct zq_map *m, uint64_t guest, uint64_t end)
{
    return zq_min(end, ((guest >> m->cluster_bits) + 1) << m->cluster_bits);
}

static bool keeps(const struct zq_map *m, const uint8_t *entry, enum zq_unlink leave)
{
    return leave == ZQ_LEAVE_PLACE && zq_l2_has_place(&m->form, entry);
}

/* A whole cluster, which the entry lets go of. */
static bool goes(const struct zq_map *m, const uint8_t *entry, uint64_t guest, uint64_t end,
                 enum zq_unlink leave)
{
    return end - guest == (uint64_t)1 << m->cluster_bits && !keeps(m, entry, leave);
}

/* Without subclusters, an entry that names a cluster has its content unless it says zeros. */
static bool hides(const struct zq_map *m, const uint8_t *entry, uint64_t guest,
                  enum zq_unlink leave)
{
    return leave != ZQ_LEAVE_NOTHING &&
           (zq_map_masks(m, guest) || (!m->form.extended && keeps(m, entry, leave)));
}

static uint32_t clusters(const struct zq_map *m, uint64_t bytes)
{
    return (uint32_t)(bytes >> m->cluster_bits);
}

/* Whole clusters, of which nothing is left, as usual. */
static bool is_plain(const struct zq_map *m, uint64_t guest, uint64_t end, enum zq_unlink leave)
{
    return !((guest | end) & (((uint64_t)1 << m->cluster_bits) - 1)) &&
           (leave == ZQ_LEAVE_NOTHING || (leave == ZQ_LEAVE_ZEROS && !zq_map_masks(m, guest)));
}

/* Does the entry hold nothing for [guest, end) of its cluster, and hide what is below? */
static bool is_unlinked(const struct zq_map *m, const uint8_t *entry, uint64_t guest, uint64_t end,
                        enum zq_unlink leave)
{
    uint64_t skew = guest & (((uint64_t)1 << m->cluster_bits) - 1);
    bool hide = hides(m, entry, guest, leave);

    if (!goes(m, entry, guest, end, leave))
        return zq_l2_is_unlinked_part(&m->form, entry, skew, skew + end - guest, hide);
    return hide ? zq_l2_is_zero(&m->form, entry) : zq_l2_is_empty(&m->form, entry);
}

bool zq_map_is_unlinked(const struct zq_map *m, const struct zq_slice *s, uint64_t guest,
                        uint64_t end, enum zq_unlink leave)
{
    const uint8_t *entry = zq_map_entry(m, s, guest);
    uint64_t stop = part_end(m, guest, end);

    if (is_plain(m, guest, end, leave))
        return zq_l2_count_empty(&m->form, entry, clusters(m, end - guest)) ==
               clusters(m, end - guest);
    while (guest < end && is_unlinked(m, entry, guest, stop, leave)) {
        guest = stop;
        stop = part_end(m, guest, end);
        entry += zq_l2_bytes(&m->form, 1);
    }
    return guest >= end;
}

static void unlink_one(const struct zq_map *m, uint8_t *entry, uint64_t guest, uint64_t end,
                       enum zq_unlink leave)
{
    uint64_t skew = guest & (((uint64_t)1 << m->cluster_bits) - 1);
    bool hide = hides(m, entry, guest, leave);

    zq_assert_k(S4, leave == ZQ_LEAVE_NOTHING || zq_map_may_unlink(m, guest));
    if (!goes(m, entry, guest, end, leave))
        zq_l2_unlink_part(&m->form, entry, skew, skew + end - guest, hide);
    else if (hide)
        zq_l2_set_zero(&m->form, entry);
    else
        zq_l2_clear(&m->form, entry);
}

static void unlink_all(const struct zq_map *m, struct zq_slice *s, uint64_t guest, uint64_t end,
                       enum zq_unlink leave)
{
    bool changes = !zq_map_is_unlinked(m, s, guest, end, leave);
    uint8_t *entry = zq_map_entry(m, s, guest);

    if (changes && is_plain(m, guest, end, leave)) {
        zq_l2_clear_all(&m->form, entry, clusters(m, end - guest));
        guest = end;
    }
    for (uint64_t next; changes && guest < end;
         guest = next, entry = zq_l2_at(&m->form, entry, 1)) {
        next = part_end(m, guest, end);
        unlink_one(m, entry, guest, next, leave);
    }
    if (changes)
        zq_cache_dirty(m->cache, s);
}

/*
 * Where the stretch ends that begins at guest, and what is let go with it: nothing of a part of a
 * cluster, or of one that keeps its place. Its entries have been judged.
 */
static uint64_t stretch_end(const struct zq_map *m, const struct zq_slice *s, uint64_t guest,
                            uint64_t end, enum zq_unlink leave, struct zq_freed *held)
{
    const uint8_t *entry = zq_map_entry(m, s, guest);
    uint32_t n = (uint32_t)((end - guest) >> m->cluster_bits);
    uint64_t stop = part_end(m, guest, end);

    held->count = 0;
    if (!goes(m, entry, guest, stop, leave))
        return stop;
    n = zq_map_count_like(m, entry, guest, n, held);
    zq_assert_k(K13, n);
    return guest + ((uint64_t)n << m->cluster_bits);
}

uint64_t zq_map_unlink(struct zq_map *m, struct zq_slice *s, uint64_t guest, uint64_t end,
                       enum zq_unlink leave, struct zq_freed *freed)
{
    struct zq_runs *runs = zq_map_runs_of(m, guest);
    struct zq_freed held = {.count = 0};
    uint64_t at = guest;

    zq_assert_k(K11, s->pins && !s->frozen);
    freed->count = 0;
    end = zq_min(end, zq_map_slice_end(m, guest));
    for (uint64_t next; at < end; at = next) {
        next = stretch_end(m, s, at, end, leave, &held);
        if (held.count && freed->count)
            break;
        if (held.count)
            *freed = held;
        unlink_all(m, s, at, next, leave);
    }
    if (runs)
        zq_runs_remove(runs, guest, at);
    return at;
}

uint32_t zq_map_count_runs(const struct zq_map *m, const struct zq_slice *s, uint64_t guest,
                           uint64_t end, enum zq_unlink leave)
{
    struct zq_freed held;
    uint32_t n = 0;

    while (guest < end) {
        guest = stretch_end(m, s, guest, end, leave, &held);
        n += held.count > 0;
    }
    return n ? n : 1; /* it wants a record all the same */
}
