/* SPDX-License-Identifier: MIT */
/* Clusters for other tables and another directory of bitmaps, and what becomes of the old ones. */
#include "ops/bitmap_room.h"

#include <errno.h>

#include "base/report.h"
#include "space/admit.h"
#include "space/reclaim.h"

void zq_bitmap_room_init(struct zq_bitmap_room *r)
{
    zq_list_init(&r->freed);
    r->taken = false;
}

/*
 * Before the change, which cannot be undone for a lack of memory: one for each range, and one in
 * case that what is taken is not used. */
static int take_records(struct zq_core *c, struct zq_bitmap_room *r,
                        const struct zq_bitmap_switch *s)
{
    for (uint64_t i = 0; i <= s->nr_old; i++) {
        struct zq_freed *f = zq_record_new(&c->alloc);

        if (!f)
            return -ENOMEM;
        zq_list_push(&r->freed, &f->link);
    }
    return 0;
}

/*
 * In a row, and counted by a round before the change begins: a table and a directory must be in one
 * piece, and one record takes them back. Under the mark, or the dirty bit in its place (N9): what a
 * crash leaves is then looked for.
 */
static int take_clusters(struct zq_core *c, struct zq_op *op, struct zq_bitmap_room *r,
                         struct zq_bitmap_switch *s)
{
    uint64_t want = s->clusters;
    struct zq_found f;
    int rc = zq_may_allocate(c, op);

    if (rc || !want)
        return rc;
    rc = want > UINT32_MAX ? -EFBIG : zq_alloc_find_row(&c->alloc, &op->g, (uint32_t)want, &f);
    if (rc == -EFBIG)
        return zq_fail(s->err, rc, "the tables of the bitmaps take too many clusters in a row");
    if (rc == 0)
        rc = zq_alloc_cover(&c->alloc, &op->g, (f.cluster + want) << c->cluster_bits);
    if (rc)
        return rc;
    zq_assert_k(B3, !r->taken && f.count >= want);
    zq_alloc_take(&c->alloc, &f, (uint32_t)want);
    zq_cache_release(&c->cache, &op->g);
    s->host = f.cluster << c->cluster_bits;
    r->taken = true;
    s->b->bounds.file_size = c->alloc.file_size;
    return 0;
}

int zq_bitmap_room_take(struct zq_core *c, struct zq_op *op, struct zq_bitmap_room *r,
                        struct zq_bitmap_switch *s)
{
    int rc = zq_list_empty(&r->freed) ? take_records(c, r, s) : 0;

    zq_assert(c->exclusive && zq_core_is_held(c));
    return rc < 0 ? rc : take_clusters(c, op, r, s);
}

/* Through the quarantine, whose janitor waits for readers of the file that may be on their way. */
static void give_back(struct zq_core *c, struct zq_bitmap_room *r, uint64_t offset, uint64_t bytes)
{
    struct zq_freed *f = zq_container(zq_list_pop(&r->freed), struct zq_freed, link);

    zq_assert_k(B3, bytes && offset);
    f->cluster = offset >> c->cluster_bits;
    f->count = bytes >> c->cluster_bits;
    f->punch = true;
    zq_alloc_quarantine(&c->alloc, f, false);
    c->want_janitor = true;
}

/*
 * A header that was composed anew has its extensions in other places, and rounds go on writing the
 * in-use mark and the states there. Where the header's parts are now, and what of it bitmaps
 * change. */
static void adopt_header(struct zq_core *c, const struct zq_bitmap_switch *s)
{
    struct zq_header *h = &c->hdr;
    const struct zq_header *n = &s->new_h;

    zq_assert_k(B3, s->begun && !n->bitmaps_offset == !s->nr);
    memcpy(c->sector0, s->header.sector0, ZQ_SECTOR);
    h->autoclear = n->autoclear;
    h->mark_offset = n->mark_offset;
    h->bitmaps_offset = n->bitmaps_offset;
    h->bitmaps_len = n->bitmaps_len;
    h->backing_offset = n->backing_offset;
    h->backing_format_offset = n->backing_format_offset;
    h->data_name_offset = n->data_name_offset;
    h->zoned_offset = n->zoned_offset;
}

void zq_bitmap_room_adopt(struct zq_core *c, struct zq_bitmap_room *r,
                          const struct zq_bitmap_switch *s)
{
    const struct zq_bitmaps *b = &c->bitmaps;

    adopt_header(c, s);
    c->alloc.fixed[ZQ_FIXED_BITMAPS] =
        (struct zq_host_range){b->dir_offset, zq_align_up(b->dir_bytes, zq_bitmaps_cluster(b))};
    r->taken = false;
    for (uint64_t i = 0; i < s->nr_old; i++)
        give_back(c, r, s->old[i].offset, s->old[i].bytes);
    zq_core_guard(c);
}

/*
 * What was taken and is not named goes back; where the header may name it, the image is dead, and
 * the next open finds out.
 */
void zq_bitmap_room_leave(struct zq_core *c, struct zq_bitmap_room *r,
                          const struct zq_bitmap_switch *s)
{
    if (r->taken && !s->begun)
        give_back(c, r, s->host, s->clusters << c->cluster_bits);
    for (struct zq_list *n; (n = zq_list_pop(&r->freed));)
        zq_record_drop(&c->alloc, zq_container(n, struct zq_freed, link));
}
