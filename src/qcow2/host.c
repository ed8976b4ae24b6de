/* SPDX-License-Identifier: MIT */
/*
 * The file as a place for clusters: how long it is, what in it is never free, what leaves it.
 *
 * file_size is what the file is known to cover, and falls only where its end is cut (tail.c);
 * `virgin` is where nothing was ever written, so that clusters behind it need no zeros. Records in
 * the quarantine belong to it until the janitor takes them.
 */
#include "qcow2/host.h"

#include <errno.h>
#include "base/report.h"
#include "base/sort.h"

bool zq_alloc_is_virgin(const struct zq_alloc *a, uint64_t host)
{
    return host >= a->virgin;
}

void zq_alloc_touch(struct zq_alloc *a, uint64_t host, uint64_t len)
{
    zq_assert(len && ((host | len) & (((uint64_t)1 << a->refs.cluster_bits) - 1)) == 0);
    a->virgin = zq_max(a->virgin, host + len);
}

/* The first one that ends behind host. */
static uint32_t first_area(const struct zq_alloc *a, uint64_t host)
{
    uint32_t low = 0, high = a->nr_areas;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if (a->areas[mid].offset + a->areas[mid].bytes <= host)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

uint64_t zq_alloc_before_areas(const struct zq_alloc *a, uint64_t host, uint64_t len)
{
    uint32_t i = first_area(a, host);

    if (i == a->nr_areas || a->areas[i].offset >= host + len)
        return len;
    return a->areas[i].offset > host ? a->areas[i].offset - host : 0;
}

uint64_t zq_alloc_behind_areas(const struct zq_alloc *a, uint64_t host, uint64_t len)
{
    for (uint32_t i = first_area(a, host); i < a->nr_areas && a->areas[i].offset < host + len; i++)
        host = a->areas[i].offset + a->areas[i].bytes;
    return host;
}

int zq_alloc_open_areas(struct zq_alloc *a, uint32_t n)
{
    const struct zqcow2_hooks *h = a->cache->x->hooks;
    struct zq_host_range *areas;

    if (n <= a->areas_room)
        return 0;
    areas = zq_zalloc_array(h, n, sizeof(*areas));
    if (!areas)
        return -ENOMEM;
    if (a->nr_areas)
        memcpy(areas, a->areas, a->nr_areas * sizeof(*areas));
    zq_free(h, a->areas, a->areas_room * sizeof(*areas));
    a->areas = areas;
    a->areas_room = n;
    return 0;
}

void zq_alloc_add_area(struct zq_alloc *a, uint64_t offset, uint64_t bytes)
{
    zq_assert(a->nr_areas < a->areas_room);
    a->areas[a->nr_areas++] = (struct zq_host_range){offset, bytes};
}

static bool area_less(const void *a, const void *b, const void *arg)
{
    (void)arg;
    return ((const struct zq_host_range *)a)->offset < ((const struct zq_host_range *)b)->offset;
}

/* What overlaps or touches becomes one, so that the ends ascend, too. */
void zq_alloc_sort_areas(struct zq_alloc *a)
{
    uint32_t out = 0;

    zq_sort(a->areas, a->nr_areas, sizeof(*a->areas), area_less, NULL);
    for (uint32_t i = 1; i < a->nr_areas; i++) {
        struct zq_host_range *last = &a->areas[out];
        const struct zq_host_range *next = &a->areas[i];

        if (next->offset <= last->offset + last->bytes)
            last->bytes =
                zq_max(last->offset + last->bytes, next->offset + next->bytes) - last->offset;
        else
            a->areas[++out] = *next;
    }
    a->nr_areas = a->nr_areas ? out + 1 : 0;
}

bool zq_alloc_is_named(const struct zq_alloc *a, uint64_t host, uint64_t len)
{
    return zq_index_hit(&a->l1->index, a->l1->v, host, len, NULL) ||
           zq_index_hit(&a->refs.table.index, a->refs.table.v, host, len, NULL);
}

bool zq_alloc_is_table(const struct zq_alloc *a, uint64_t host, uint64_t len)
{
    return zq_alloc_is_fixed(a, host, len) || zq_alloc_is_named(a, host, len) ||
           zq_alloc_before_areas(a, host, len) < len; /* no place behind them either */
}

bool zq_alloc_is_known(struct zq_alloc *a, uint64_t host, uint64_t len)
{
    if (!a->corrupt && zq_alloc_is_table(a, host, len)) {
        a->corrupt = true;
        a->corrupt_at = host;
    }
    return a->corrupt;
}

#define COVER_MIN (1u << 20)
#define COVER_MAX (256u << 20)

/*
 * A file that is large already gets longer by a sixteenth, in powers of two: few calls, however
 * many allocations. What is left over is a hole at its end.
 */
static uint64_t cover_ahead(uint64_t end)
{
    uint64_t step = (uint64_t)1 << zq_log2(zq_max(end / 16, COVER_MIN));

    return end < 8 * COVER_MIN ? end : zq_align_up(end, zq_min(step, COVER_MAX));
}

static void start_cover(struct zq_alloc *a, uint64_t end)
{
    a->covering = end;
    zq_io_prep(&a->cover, ZQCOW2_IO_TRUNCATE, end, 0);
    zq_io_start(a->cache->x, &a->cover);
}

/*
 * Searches for runs have passed over what was too short or not aligned: it counts now. Searches for
 * one cluster pass over nothing.
 */
static void set_refused(struct zq_alloc *a, uint64_t end)
{
    zq_assert(end > a->file_size);
    a->refused = end;
    a->next_run = zq_min(a->next_run, a->next_one);
    a->left_out = 0;
}

/* Halfway between what the file has and what it cannot have; 0: nothing lies between. */
static uint64_t between(const struct zq_alloc *a)
{
    uint64_t has = a->file_size >> a->refs.cluster_bits;
    uint64_t n = (a->refused >> a->refs.cluster_bits) - has;

    return n > 1 ? (has + n / 2) << a->refs.cluster_bits : 0;
}

/*
 * What to try instead of `covering`, which the host refuses; 0: nothing. A file that cannot have
 * what is left over may have what is wanted. If not, it becomes as long as it can, since most of
 * what is wanted is a wish: a long run, or an aligned one. But who has wanted what was known to be
 * refused can do with no less.
 */
static uint64_t cover_less(struct zq_alloc *a)
{
    if (a->covering > a->cover_end)
        return a->cover_end;
    if (a->covering >= a->refused)
        return 0;
    set_refused(a, a->covering);
    return between(a);
}

/*
 * What others have given up may serve those who wait: that takes a round and the janitor, which may
 * need the slices and the token that they hold (E2). The janitor itself cannot wait for that.
 */
static void await_room(struct zq_alloc *a, int ret)
{
    struct zq_list waiters, *n;

    zq_list_init(&waiters);
    zq_list_splice(&waiters, &a->cover_waiters);
    a->shortage = ret;
    while ((n = zq_list_pop(&waiters))) {
        struct zq_gather *g = zq_container(n, struct zq_gather, wait.link);

        if (g->patient)
            zq_cache_release(a->cache, g);
        else
            g->wait.rc = ret;
        zq_list_push(g->patient ? &a->room_waiters : a->cache->ready, n);
    }
}

static void cover_done(struct zq_io *io, int ret)
{
    struct zq_alloc *a = zq_container(io, struct zq_alloc, cover);
    bool known = a->covering >= a->refused;
    uint64_t next = 0;

    if (ret == 0) {
        a->file_size = zq_max(a->file_size, a->covering);
        next = a->covering < a->cover_end ? between(a) : 0;
    } else if (zq_is_no_space(ret)) {
        next = cover_less(a);
        ret = known ? ret : 0;
    }
    if (a->file_size >= a->refused)
        a->refused = UINT64_MAX;
    if (next) {
        start_cover(a, next);
        return;
    }
    a->covering = 0;
    if (zq_is_no_space(ret))
        await_room(a, ret);
    else
        zq_wake_with(a->cache->ready, &a->cover_waiters, ret);
}

uint64_t zq_alloc_before_refused(const struct zq_alloc *a, uint64_t cluster)
{
    uint64_t end = a->refused >> a->refs.cluster_bits; /* of the first one that is not there */

    return end > cluster + 1 ? end - cluster - 1 : 0;
}

int zq_alloc_cover(struct zq_alloc *a, struct zq_gather *g, uint64_t end)
{
    zq_assert((end & (((uint64_t)1 << a->refs.cluster_bits) - 1)) == 0);
    if (end <= a->file_size)
        return 0;
    if (!a->covering) {
        a->cover_end = end;
        a->cover.complete = cover_done;
        start_cover(a, cover_ahead(end));
    }
    return zq_cache_park(a->cache, g, &a->cover_waiters);
}

struct zq_freed *zq_record_new(struct zq_alloc *a)
{
    return zq_stock_take(&a->records, a->cache->x->hooks, sizeof(struct zq_freed));
}

void zq_record_drop(struct zq_alloc *a, struct zq_freed *f)
{
    zq_stock_put(&a->records, a->cache->x->hooks, f, sizeof(*f));
}

/* Does f lie right behind the list's last record, and wait for the same round? */
static bool joins(const struct zq_list *q, const struct zq_freed *f)
{
    const struct zq_freed *last = zq_container(q->prev, const struct zq_freed, link);

    return !zq_list_empty(q) && f->cluster == last->cluster + last->count &&
           f->after_round == last->after_round && f->punch == last->punch &&
           f->external == last->external;
}

static void enqueue(struct zq_alloc *a, struct zq_freed *f, bool linked)
{
    struct zq_list *q = &a->quarantine[linked];
    struct zq_freed *last;

    zq_assert_k(R5, f->count);
    f->after_round = linked ? a->rounds + 1 : 0;
    if (joins(q, f)) {
        last = zq_container(q->prev, struct zq_freed, link);
        last->count += f->count;
        last->after_io = f->after_io;
        zq_record_drop(a, f);
        return;
    }
    zq_list_push(q, &f->link);
}

void zq_alloc_quarantine(struct zq_alloc *a, struct zq_freed *f, bool linked)
{
    f->external = false;
    f->after_io = a->cache->x->data_seq;
    enqueue(a, f, linked);
}

void zq_alloc_quarantine_external(struct zq_alloc *a, struct zq_freed *f, uint64_t after_io)
{
    f->external = f->punch = true;
    f->after_io = after_io;
    enqueue(a, f, true);
}
