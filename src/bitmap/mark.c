/* SPDX-License-Identifier: MIT */
/*
 * Marking, and the flag that must be durable before the first mark counts (B1).
 *
 * The flag is what makes marks in memory enough: once it is durable, a power loss takes all that
 * the bitmap says, and nobody is misled. So it is written once after an open, before the first
 * data, and no mark costs I/O.
 */
#include "base/report.h"
#include "bitmap/bitmap.h"

static bool must_flag(const struct zq_bitmap *m)
{
    return m->dirty.v && zq_bitmap_is_kept(m) && !m->flagged;
}

/*
 * Of bytes beyond the end, which a device that grows has for a moment, nothing is marked.
 */
int zq_bitmaps_mark(struct zq_bitmaps *b, uint64_t from, uint64_t len)
{
    int rc = 0;

    zq_assert_k(B1, b->ready && len);
    for (uint32_t i = 0; rc == 0 && i < b->nr; i++) {
        struct zq_bitmap *m = &b->v[i];
        uint32_t bits = m->r.granularity_bits;

        if (m->dirty.v && zq_bitmap_is_kept(m))
            rc = zq_dirty_set(&m->dirty, from >> bits, ((from + len - 1) >> bits) + 1);
    }
    return rc;
}

/* What the fast path asks: it may neither wait nor take memory. */
bool zq_bitmaps_have(const struct zq_bitmaps *b, uint64_t from, uint64_t len)
{
    if (!b->ready)
        return false;
    for (uint32_t i = 0; i < b->nr; i++) {
        const struct zq_bitmap *m = &b->v[i];
        uint32_t bits = m->r.granularity_bits;

        if (m->dirty.v && zq_bitmap_is_kept(m) &&
            !zq_dirty_has(&m->dirty, from >> bits, ((from + len - 1) >> bits) + 1))
            return false;
    }
    return true;
}

/*
 * One sector at a time: the flags of an entry never cross the end of one. Other entries are as they
 * are in the file.
 */
uint32_t zq_bitmaps_compose(const struct zq_bitmaps *b, uint64_t *cursor, uint8_t *buf,
                            uint32_t max, uint64_t *at)
{
    uint64_t first = UINT64_MAX;

    zq_assert(max >= ZQ_SECTOR);
    for (; *cursor < b->nr; ++*cursor) {
        const struct zq_bitmap *m = &b->v[*cursor];
        uint64_t flags = m->at + ZQ_BITMAP_FLAGS, sector = zq_align_down(flags, ZQ_SECTOR);

        if (!must_flag(m))
            continue;
        if (first != UINT64_MAX && sector != first)
            break;
        if (first == UINT64_MAX)
            memcpy(buf, b->dir + sector, ZQ_SECTOR);
        first = sector;
        zq_put_be32(buf + (flags - sector), m->r.flags | ZQ_BITMAP_IN_USE);
    }
    *at = b->dir_offset + first;
    return first == UINT64_MAX ? 0 : ZQ_SECTOR;
}

/* The directory in memory is what the file has again. */
void zq_bitmaps_flagged(struct zq_bitmaps *b)
{
    for (uint32_t i = 0; i < b->nr; i++) {
        struct zq_bitmap *m = &b->v[i];

        if (!must_flag(m))
            continue;
        m->flagged = true;
        m->r.flags |= ZQ_BITMAP_IN_USE;
        zq_bitmap_record_put(b->dir + m->at, &m->r);
    }
    zq_bitmaps_count(b);
}
