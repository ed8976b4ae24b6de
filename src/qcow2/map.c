/* SPDX-License-Identifier: MIT */
/*
 * Looks up and links guest clusters, and judges the entries that say where they are.
 */
#include "qcow2/map_int.h"

#include <errno.h>
#include "base/report.h"

#define MAX_UNTOUCHED (1u << 20) /* bytes */

/* Of all slices of L2 tables, in the order of what they map. */
static uint64_t slice_number(const struct zq_map *m, uint64_t guest)
{
    return guest >> (m->slice_bits + m->cluster_bits);
}

static uint64_t slices_of(const struct zq_map *m, uint64_t tables)
{
    return tables << (m->span_bits - m->cluster_bits - m->slice_bits);
}

static size_t untouched_bytes(const struct zq_map *m)
{
    return (size_t)zq_div_up(slices_of(m, m->l1.entries), 8);
}

int zq_map_open(struct zq_map *m, const struct zq_map_params *p)
{
    m->cache = p->cache;
    m->alloc = p->alloc;
    m->hooks = p->cache->x->hooks;
    m->form = p->form;
    m->cluster_bits = p->form.cluster_bits;
    m->span_bits = zq_l2_span_bits(&m->form);
    m->slice_bits = zq_ctz(m->cache->slice_bytes) - zq_l2_entry_bits(&m->form);
    m->zone_bits = p->zone_bits;
    m->first_seq_zone = p->first_seq_zone;
    m->nr_runs = p->nr_zones;
    m->alloc->l1 = &m->l1;
    zq_list_init(&m->fresh.waiters);
    m->runs = m->nr_runs ? zq_zalloc_array(m->hooks, m->nr_runs, sizeof(*m->runs)) : NULL;
    if (m->nr_runs && !m->runs)
        return -ENOMEM;
    return zq_memtable_open(&m->l1, m->hooks, p->l1_entries, p->l1_offset);
}

void zq_map_close(struct zq_map *m)
{
    if (!m->cache)
        return;
    zq_map_replace_runs(m, NULL, 0);
    zq_free(m->hooks, m->untouched, untouched_bytes(m));
    zq_record_drop(m->alloc, m->fresh.freed);
    zq_free(m->hooks, m->fresh.copy, (size_t)1 << m->cluster_bits);
    zq_memtable_close(&m->l1);
    m->cache = NULL;
}

/* ---- where things are ---- */

static uint64_t l1_index(const struct zq_map *m, uint64_t guest)
{
    uint64_t index = guest >> m->span_bits;

    zq_assert(index < m->l1.entries);
    return index;
}

/* Where in the file the slice lies that holds guest's entry; the table exists. */
static uint64_t slice_host(const struct zq_map *m, uint64_t guest)
{
    uint64_t table = zq_entry_host(m->l1.v[l1_index(m, guest)]);
    uint64_t entry = zq_l2_bytes(&m->form, guest >> m->cluster_bits); /* and tables before it */

    zq_assert(table);
    return table + (entry & (((uint64_t)1 << m->cluster_bits) - m->cache->slice_bytes));
}

uint64_t zq_map_slice_end(const struct zq_map *m, uint64_t guest)
{
    return zq_align_down(guest, (uint64_t)1 << (m->slice_bits + m->cluster_bits)) +
           ((uint64_t)1 << (m->slice_bits + m->cluster_bits));
}

static bool is_untouched(const struct zq_map *m, uint64_t guest)
{
    uint64_t n = slice_number(m, guest);

    return m->untouched && m->untouched[n / 8] >> n % 8 & 1;
}

static void set_untouched(struct zq_map *m, uint64_t n, bool untouched)
{
    uint8_t bit = (uint8_t)(1u << n % 8);

    if (m->untouched)
        m->untouched[n / 8] = (uint8_t)((m->untouched[n / 8] & ~bit) | (untouched ? bit : 0));
}

static inline bool may_hold(const struct zq_map *m, uint64_t guest)
{
    return m->l1.v[l1_index(m, guest)] && !is_untouched(m, guest);
}

bool zq_map_may_hold(const struct zq_map *m, uint64_t guest, uint64_t *next)
{
    bool table = m->l1.v[l1_index(m, guest)] != 0;

    *next = table ? zq_map_slice_end(m, guest) : ((guest >> m->span_bits) + 1) << m->span_bits;
    return may_hold(m, guest);
}

const struct zq_run *zq_map_run(const struct zq_map *m, uint64_t guest)
{
    const struct zq_runs *r = zq_map_runs_of(m, guest);

    return r ? zq_runs_find(r, guest) : NULL;
}

/* ---- entries, and judging them ---- */

static struct zq_bounds bounds(const struct zq_map *m)
{
    return (struct zq_bounds){m->form, m->alloc->file_size};
}

/* In a data file a cluster lies where it lies on the device, and nowhere else (D1). */
static bool is_misplaced(const struct zq_map *m, const struct zq_l2_entry *l2, uint64_t guest)
{
    return m->form.external && l2->len && l2->host != zq_align_down(guest, l2->len);
}

uint32_t zq_map_count_like(const struct zq_map *m, const uint8_t *entry, uint64_t guest, uint32_t n,
                           struct zq_freed *held)
{
    const struct zq_bounds b = bounds(m);
    struct zq_l2_entry l2;

    held->count = 0;
    if (zq_l2_read(&b, entry, &l2) || is_misplaced(m, &l2, guest))
        return 0;
    n = (uint32_t)(zq_l2_follow(&b, entry, (uint64_t)n << m->cluster_bits, &l2) >> m->cluster_bits);
    zq_map_owned(m, &l2, held);
    if (held->count)
        held->count += n - 1;
    return n;
}

static bool on_table(const struct zq_map *m, const struct zq_freed *held)
{
    uint64_t host = held->cluster << m->cluster_bits, len = held->count << m->cluster_bits;

    return len &&
           (zq_alloc_is_fixed(m->alloc, host, len) || zq_alloc_is_named(m->alloc, host, len));
}

/* n entries of the slice, from that of guest on: by themselves, and by all tables. */
static bool are_sound(const struct zq_map *m, const struct zq_slice *s, uint64_t guest, uint32_t n)
{
    uint32_t i = zq_map_index(m, guest), end = i + n;
    struct zq_freed held;

    for (; i < end; i += n, guest += (uint64_t)n << m->cluster_bits) {
        n = zq_map_count_like(m, zq_l2_at(&m->form, s->data, i), guest, end - i, &held);
        if (!n || on_table(m, &held))
            return false;
    }
    return true;
}

/*
 * Once for a slice, and again when there is a new table: what is linked meanwhile was allocated,
 * and so is no table. With an unsound entry in it each request judges what it needs.
 */
static bool judge(const struct zq_map *m, struct zq_slice *s, uint64_t guest)
{
    guest = zq_align_down(guest, (uint64_t)1 << (m->slice_bits + m->cluster_bits));
    if (!are_sound(m, s, guest, 1u << m->slice_bits))
        return false;
    s->judged = m->alloc->tables;
    return true;
}

static inline bool is_judged(const struct zq_map *m, struct zq_slice *s, uint64_t guest)
{
    return s->judged == m->alloc->tables || judge(m, s, guest);
}

int zq_map_check(const struct zq_map *m, struct zq_slice *s, uint64_t guest, uint64_t end)
{
    uint32_t n = (uint32_t)(((end - 1) >> m->cluster_bits) - (guest >> m->cluster_bits)) + 1;

    return is_judged(m, s, guest) || are_sound(m, s, guest, n) ? 0 : ZQCOW2_ECORRUPT;
}

/* ---- looking up ---- */

/* How far a stretch of like bytes is followed: in one slice, which is sound so far. */
static int reach(const struct zq_map *m, struct zq_slice *s, uint64_t guest, uint64_t len,
                 uint64_t *end)
{
    *end = zq_map_slice_end(m, guest);
    /* A zone remembers all of a run; elsewhere only what was asked for is needed. */
    *end = zq_min(*end, zq_map_runs_of(m, guest) ? ((guest >> m->zone_bits) + 1) << m->zone_bits :
                                                   guest + len);
    if (is_judged(m, s, guest))
        return 0;
    /* one cluster at a time */
    *end = zq_min(*end, zq_align_down(guest, 1ull << m->cluster_bits) + (1ull << m->cluster_bits));
    return are_sound(m, s, guest, 1) ? 0 : ZQCOW2_ECORRUPT;
}

/*
 * Of an empty entry: as far as those behind it in the slice are empty as well. There is nothing to
 * judge in one, so this is all that a level of a chain costs which does not have the bytes.
 */
static void empty_in(const struct zq_map *m, const struct zq_slice *s, uint64_t guest, uint64_t len,
                     struct zq_extent *e)
{
    uint64_t size = (uint64_t)1 << m->cluster_bits, skew = guest & (size - 1);

    if (skew + len > size) {
        uint64_t n = zq_min(zq_div_up(skew + len, size), UINT32_MAX);

        n = zq_map_count_empty(m, s, guest, (uint32_t)n);
        len = zq_min(len, (n << m->cluster_bits) - skew);
    }
    *e = (struct zq_extent){.type = ZQ_EXT_UNALLOC, .len = len};
}

/* Of any other entry. */
static int full_in(struct zq_map *m, struct zq_slice *s, const uint8_t *entry, uint64_t guest,
                   uint64_t len, struct zq_extent *e)
{
    uint64_t skew = guest & (((uint64_t)1 << m->cluster_bits) - 1), end;
    const struct zq_bounds b = bounds(m);
    struct zq_runs *runs = zq_map_runs_of(m, guest);
    struct zq_l2_stretch like;
    int rc = reach(m, s, guest, len, &end);

    if (rc)
        return rc;
    like.first = &e->l2;
    if (zq_l2_stretch(&b, entry, skew, end - guest, &like))
        return ZQCOW2_ECORRUPT;
    e->type = e->l2.type;
    e->own = e->type == ZQ_EXT_DATA && e->l2.copied;
    e->host = e->l2.len ? e->l2.host + skew : 0;
    e->len = zq_min(len, like.bytes);
    if (runs && zq_extent_in_place(e))
        zq_runs_add(runs, m->hooks, guest - like.before, e->host - like.before,
                    like.before + like.bytes);
    return 0;
}

static inline int extent_in(struct zq_map *m, struct zq_slice *s, uint64_t guest, uint64_t len,
                            struct zq_extent *e)
{
    const uint8_t *entry = zq_map_entry(m, s, guest);
    int rc = 0;

    if (zq_l2_is_empty(&m->form, entry))
        empty_in(m, s, guest, len, e);
    else
        rc = full_in(m, s, entry, guest, len, e);
    zq_assert_k(E3, rc || (e->len && guest + e->len <= zq_map_slice_end(m, guest)));
    return rc;
}

static int lookup_slice(struct zq_map *m, struct zq_gather *g, uint64_t guest, uint64_t len,
                        struct zq_extent *e)
{
    struct zq_slice *s;
    int rc;

    if (m->l1.v[l1_index(m, guest)] == ZQ_L1_WRONG)
        return ZQCOW2_ECORRUPT;
    rc = zq_map_slice(m, g, guest, &s);
    return rc ? rc : extent_in(m, s, guest, len, e);
}

/* Where nothing is held. */
static void nothing(const struct zq_map *m, uint64_t guest, uint64_t len, struct zq_extent *e)
{
    uint64_t next;

    (void)zq_map_may_hold(m, guest, &next);
    *e = (struct zq_extent){.type = ZQ_EXT_UNALLOC, .len = zq_min(len, next - guest)};
}

bool zq_map_peek(struct zq_map *m, uint64_t guest, uint64_t len, struct zq_extent *e)
{
    struct zq_slice *s;

    if (!may_hold(m, guest)) {
        nothing(m, guest, len, e);
        return true;
    }
    s = zq_cache_peek(m->cache, slice_host(m, guest));
    return s && !extent_in(m, s, guest, len, e);
}

int zq_map_lookup(struct zq_map *m, struct zq_gather *g, uint64_t guest, uint64_t len,
                  struct zq_extent *e)
{
    const struct zq_run *run = zq_map_run(m, guest);

    if (run) {
        uint64_t skew = guest - run->guest;

        zq_assert(skew < run->len && len);
        e->type = ZQ_EXT_DATA;
        e->own = true;
        e->host = run->host + skew;
        e->len = zq_min(len, run->len - skew);
        return 0;
    }
    if (!may_hold(m, guest)) {
        nothing(m, guest, len, e);
        return 0;
    }
    return lookup_slice(m, g, guest, len, e);
}

/* ---- slices ---- */

/* Where it would take too much, or there is no memory, slices of new tables are read as others. */
void zq_map_watch_untouched(struct zq_map *m)
{
    if (!m->untouched && untouched_bytes(m) <= MAX_UNTOUCHED)
        m->untouched = zq_zalloc(m->hooks, untouched_bytes(m));
}

void zq_map_set_untouched(struct zq_map *m, uint64_t index)
{
    for (uint64_t n = slices_of(m, index); n < slices_of(m, index + 1); n++)
        set_untouched(m, n, true);
}

int zq_map_slice(struct zq_map *m, struct zq_gather *g, uint64_t guest, struct zq_slice **s)
{
    uint64_t host = slice_host(m, guest);
    bool untouched = is_untouched(m, guest);
    int rc;

    if (untouched)
        zq_cache_blank(m->cache, ZQ_SLICE_L2, host, m->cache->slice_bytes);
    rc = zq_cache_pin(m->cache, g, host, ZQ_SLICE_L2, s);
    if (rc == 0 && untouched)
        set_untouched(m, slice_number(m, guest), false);
    return rc;
}

/* ---- changing entries ---- */

uint32_t zq_map_count_empty(const struct zq_map *m, const struct zq_slice *s, uint64_t guest,
                            uint32_t n)
{
    n = (uint32_t)zq_min(n, (1u << m->slice_bits) - zq_map_index(m, guest));
    return zq_l2_count_empty(&m->form, zq_map_entry(m, s, guest), n);
}

/* For assertions: what an entry is about to name is there. */
static bool is_covered(const struct zq_map *m, uint64_t guest, uint64_t host, uint64_t bytes)
{
    return m->form.external ? host == guest : host && host + bytes <= m->alloc->file_size;
}

void zq_map_link(struct zq_map *m, struct zq_slice *s, uint64_t guest, uint64_t host, uint32_t n)
{
    struct zq_runs *runs = zq_map_runs_of(m, guest);

    zq_assert_k(E3, n && zq_map_index(m, guest) + n <= 1u << m->slice_bits);
    zq_assert(((guest | host) & (((uint64_t)1 << m->cluster_bits) - 1)) == 0);
    zq_assert_k(K1, is_covered(m, guest, host, (uint64_t)n << m->cluster_bits));
    zq_l2_link(&m->form, zq_map_entry(m, s, guest), host, n);
    zq_cache_dirty(m->cache, s);
    if (runs)
        zq_runs_add(runs, m->hooks, guest, host, (uint64_t)n << m->cluster_bits);
}

void zq_map_link_part(struct zq_map *m, struct zq_slice *s, uint64_t guest, uint64_t host,
                      uint64_t from, uint64_t to)
{
    uint64_t size = (uint64_t)1 << m->cluster_bits, end;
    struct zq_runs *runs = zq_map_runs_of(m, guest);

    zq_assert_k(E3, from < to && guest + to <= zq_map_slice_end(m, guest));
    zq_assert(((guest | host) & (size - 1)) == 0);
    zq_assert_k(K1, is_covered(m, guest, host, zq_align_up(to, size)));
    for (uint64_t at = from; at < to; at = end) {
        uint64_t cluster = zq_align_down(at, size);

        end = zq_min(to, cluster + size);
        zq_l2_link_part(&m->form, zq_map_entry(m, s, guest + cluster), host + cluster, at - cluster,
                        end - cluster);
    }
    zq_cache_dirty(m->cache, s);
    if (runs)
        zq_runs_add(runs, m->hooks, guest + from, host + from, to - from);
}

void zq_map_owned(const struct zq_map *m, const struct zq_l2_entry *l2, struct zq_freed *freed)
{
    bool counted = l2->len && !m->form.external; /* clusters of a data file are not (D3) */

    freed->punch = l2->copied;
    freed->cluster = l2->host >> m->cluster_bits;
    freed->count = counted ? ((l2->host + l2->len - 1) >> m->cluster_bits) - freed->cluster + 1 : 0;
}

void zq_map_replace_l1(struct zq_map *m, struct zq_memtable *l1)
{
    zq_assert_k(K2, !m->l1.is_dirty && !m->l1.frozen && !m->fresh.busy && !m->fresh.ready);
    zq_free(m->hooks, m->untouched, untouched_bytes(m));
    m->untouched = NULL;
    zq_memtable_move(&m->l1, l1);
}

void zq_map_replace_runs(struct zq_map *m, struct zq_runs *runs, uint32_t n)
{
    zq_runs_close(m->runs, m->nr_runs, m->hooks);
    m->runs = runs;
    m->nr_runs = n;
}

void zq_map_thaw(struct zq_map *m)
{
    zq_memtable_thaw(&m->l1);
    zq_wake(m->cache->ready, &m->cache->frozen_waiters);
}
