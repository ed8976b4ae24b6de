/* SPDX-License-Identifier: MIT */
/* Asks the sources of an image, from the top of the chain down, until one has the bytes. */
#include "qcow2/source.h"

#include "base/report.h"

/* What reads as zeros beyond the end of a file is data all the same: of its last sector. */
static void look_raw(const struct zq_source *s, struct zq_walk *w)
{
    w->e = (struct zq_extent){
        .type = ZQ_EXT_DATA, .host = w->guest, .len = zq_min(w->e.len, s->size - w->guest)};
}

/*
 * Is there anyone to ask? One that ends before says zeros, as do all below it (S3); with zones it
 * has no right answer.
 */
static bool is_asked(struct zq_walk *w)
{
    if (w->at && w->guest >= w->at->size && !w->at->pointers)
        w->at = NULL;
    if (w->at)
        w->depth = w->at->depth;
    return w->at;
}

/* ---- zones ---- */

uint64_t zq_source_pointer(const struct zq_source *s, uint64_t guest)
{
    uint32_t zone = (uint32_t)(guest >> s->g.zone_bits);
    struct zq_entry e;

    if (guest >= s->size)
        return 0;
    if (zone < s->g.conventional)
        return zq_geometry_start(&s->g, s->g.conventional);
    (void)zq_entry_decode(&s->g, zone, s->pointers + zq_entries_bytes(zone), &e);
    return e.wp;
}

/* S12: is the source the one that it was, and how far may it be asked? */
static bool is_written(const struct zq_source *s, struct zq_walk *w)
{
    uint64_t end = s->pointers ? zq_source_pointer(s, w->guest) : UINT64_MAX;

    if (w->guest >= end)
        return false;
    w->e.len = zq_min(w->e.len, end - w->guest);
    return true;
}

int zq_walk(struct zq_walk *w, struct zq_gather *g)
{
    while (is_asked(w)) {
        struct zq_source *s = w->at;
        uint64_t len;
        int rc = 0;

        if (!is_written(s, w)) {
            if (!s->stale->depth)
                *s->stale = (struct zq_stale){s->depth, w->guest};
            return ZQCOW2_ECORRUPT;
        }
        len = zq_min(w->e.len, s->size - w->guest);
        if (s->raw) {
            look_raw(s, w);
            return 0;
        }
        rc = zq_map_lookup(&s->map, g, w->guest, len, &w->e);
        if (rc == ZQ_WAIT)
            return rc;
        zq_cache_release(&s->cache, g);
        if (rc || w->e.type != ZQ_EXT_UNALLOC)
            return rc;
        w->at = s->next;
    }
    return 0;
}

bool zq_walk_peek(struct zq_walk *w)
{
    while (is_asked(w)) {
        struct zq_source *s = w->at;
        uint64_t len;

        if (!is_written(s, w))
            return false;
        len = zq_min(w->e.len, s->size - w->guest);
        if (s->raw) {
            look_raw(s, w);
            return true;
        }
        if (!zq_map_peek(&s->map, w->guest, len, &w->e))
            return false;
        if (w->e.type != ZQ_EXT_UNALLOC)
            return true;
        w->at = s->next;
    }
    return true;
}

void zq_walk_drop(struct zq_walk *w, struct zq_gather *g)
{
    if (w->at && !w->at->raw)
        zq_cache_release(&w->at->cache, g);
    w->at = NULL;
}

void zq_data_file_close(struct zq_data_file *d)
{
    struct zqcow2_backend *be = d->x.be;

    if (!d->opened)
        return;
    zq_assert(!d->x.in_flight);
    zq_iox_fini(&d->x);
    (void)zq_be_leave(be);
    zqcow2_backend_close(be);
    d->opened = false;
}

static void close_one(struct zq_source *s)
{
    const struct zqcow2_hooks *hooks = s->x.hooks;

    zq_data_file_close(&s->data_file);
    zq_map_close(&s->map);
    zq_alloc_close(&s->alloc);
    zq_cache_fini(&s->cache);
    zq_iox_fini(&s->x);
    zq_free(hooks, s->pointers, zq_pointers_bytes(&s->g));
    zq_free(hooks, s, sizeof(*s));
}

void zq_sources_close(struct zq_source *s)
{
    while (s) {
        struct zq_source *next = s->next;
        struct zqcow2_backend *be = s->x.be;

        zq_assert(!s->x.in_flight);
        close_one(s);
        (void)zq_be_leave(be);
        zqcow2_backend_close(be);
        s = next;
    }
}
