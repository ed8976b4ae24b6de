/* SPDX-License-Identifier: MIT */
/* Clusters for other tables and another directory of bitmaps, and what becomes of the old ones. */
#include "ops/bitmap_room.h"

#include <errno.h>

#include "base/report.h"
#include "space/reclaim.h"

void zq_bitmap_room_init(struct zq_bitmap_room *r)
{
    zq_list_init(&r->freed);
    r->row = (struct zq_row){0};
}

/* Before the change, which cannot be undone for a lack of memory: one for each range. */
static int take_records(struct zq_core *c, struct zq_bitmap_room *r,
                        const struct zq_bitmap_switch *s)
{
    for (uint64_t i = 0; i < s->nr_old; i++) {
        struct zq_freed *f = zq_record_new(&c->alloc);

        if (!f)
            return -ENOMEM;
        zq_list_push(&r->freed, &f->link);
    }
    return 0;
}

int zq_bitmap_room_take(struct zq_core *c, struct zq_op *op, struct zq_bitmap_room *r,
                        struct zq_bitmap_switch *s)
{
    int rc = zq_list_empty(&r->freed) ? take_records(c, r, s) : 0;

    zq_assert(c->exclusive && zq_core_is_held(c));
    if (rc == 0)
        rc = zq_row_take(c, op, &r->row, s->clusters, "the tables of the bitmaps", s->err);
    s->host = r->row.host;
    s->b->bounds.file_size = c->alloc.file_size;
    return rc;
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
    zq_row_leave(c, &r->row, s->begun);
    for (struct zq_list *n; (n = zq_list_pop(&r->freed));)
        zq_record_drop(&c->alloc, zq_container(n, struct zq_freed, link));
}
