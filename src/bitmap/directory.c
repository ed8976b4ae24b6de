/* SPDX-License-Identifier: MIT */
/*
 * The directory of bitmaps. Other programs have written it: every size is judged before memory is
 * taken for it, and an entry that nobody has written ends the reading.
 */
#include <errno.h>
#include <inttypes.h>

#include "base/report.h"
#include "base/sort.h"
#include "bitmap/bitmap.h"

static int bad(struct zqcow2_error *err, const char *what, uint64_t value, uint64_t at,
               const char *why)
{
    return zq_fail(err, ZQCOW2_ECORRUPT, "%s %" PRIu64 " at byte %" PRIu64 ": %s", what, value, at,
                   why);
}

/* ---- the extension ---- */

static bool in_file(const struct zq_bitmaps *b, uint64_t offset, uint64_t bytes)
{
    return offset && !zq_host_misplaced(&b->bounds, offset) &&
           bytes <= b->bounds.file_size - offset;
}

/* Nothing may lie on a table that the image itself uses: a bitmap's clusters are written. */
static bool on_table(const struct zq_bitmaps *b, uint64_t offset, uint64_t bytes)
{
    return b->is_table && b->is_table(b->arg, offset, zq_align_up(bytes, zq_bitmaps_cluster(b)));
}

static int judge_place(const struct zq_bitmaps *b, const struct zq_bitmaps_place *p, uint64_t at,
                       struct zqcow2_error *err)
{
    if (!p->nr || p->nr > ZQ_MAX_BITMAPS)
        return bad(err, "nb_bitmaps", p->nr, at, "must be 1 to 65535");
    if (p->reserved)
        return bad(err, "reserved field of the bitmaps extension", p->reserved, at + 4,
                   "must be 0");
    if (p->bytes > ZQ_MAX_BITMAP_IO || p->bytes < (uint64_t)p->nr * ZQ_BITMAP_FIXED)
        return bad(err, "bitmap_directory_size", p->bytes, at + 8, "does not fit the bitmaps");
    if (!in_file(b, p->offset, p->bytes))
        return bad(err, "bitmap_directory_offset", p->offset, at + 16, "not a place in the file");
    if (on_table(b, p->offset, p->bytes))
        return bad(err, "bitmap_directory_offset", p->offset, at + 16, "lies on another table");
    return 0;
}

/* ---- entries ---- */

static int judge_kind(const struct zq_bitmap_record *r, uint64_t at, struct zqcow2_error *err)
{
    if (r->flags & ~ZQ_BITMAP_KNOWN)
        return bad(err, "bitmap flags", r->flags, at + ZQ_BITMAP_FLAGS, "an unknown bit is set");
    if (r->type != ZQ_BITMAP_TRACKING)
        return bad(err, "bitmap type", r->type, at + 16, "must be 1");
    if (r->granularity_bits < ZQ_MIN_GRANULARITY || r->granularity_bits > ZQ_MAX_GRANULARITY)
        return bad(err, "bitmap granularity_bits", r->granularity_bits, at + 17, "must be 9 to 31");
    if (!r->name_bytes || r->name_bytes > ZQ_MAX_BITMAP_NAME)
        return bad(err, "bitmap name_size", r->name_bytes, at + 18, "must be 1 to 1023");
    return 0;
}

/* A bitmap that does not hold may be of a device that had another size. */
static int judge_table(const struct zq_bitmaps *b, const struct zq_bitmap_record *r, uint64_t at,
                       struct zqcow2_error *err)
{
    uint64_t bytes = zq_table_bytes(r->table_entries);
    uint64_t need = zq_bitmap_entries(zq_bitmap_bits(b->device, r->granularity_bits),
                                      b->bounds.form.cluster_bits);

    if (bytes > ZQ_MAX_BITMAP_IO)
        return bad(err, "bitmap_table_size", r->table_entries, at + 8, "more than 64 MiB");
    if (!(r->flags & ZQ_BITMAP_IN_USE) && r->table_entries != need)
        return bad(err, "bitmap_table_size", r->table_entries, at + 8, "does not fit the device");
    if (bytes && !in_file(b, r->table_offset, bytes))
        return bad(err, "bitmap_table_offset", r->table_offset, at, "not a place in the file");
    if (bytes && on_table(b, r->table_offset, bytes))
        return bad(err, "bitmap_table_offset", r->table_offset, at, "lies on another table");
    return 0;
}

/* Entry number i, which begins at *pos in the file; *pos: behind it. */
static int read_entry(struct zq_bitmaps *b, uint64_t *pos, uint64_t end, struct zq_bitmap_record *r,
                      struct zqcow2_error *err)
{
    uint8_t raw[ZQ_BITMAP_FIXED];
    uint64_t at = *pos;
    int rc;

    if (end - at < sizeof(raw))
        return bad(err, "bitmap directory entry", at, at, "runs past the directory's end");
    rc = zq_be_read(b->be, raw, sizeof(raw), at);
    if (rc < 0)
        return rc;
    zq_bitmap_record_read(raw, r);
    rc = judge_kind(r, at, err);
    if (rc == 0)
        rc = judge_table(b, r, at, err);
    if (rc < 0)
        return rc;
    if (r->bytes > end - at)
        return bad(err, "bitmap directory entry", at, at, "runs past the directory's end");
    *pos += r->bytes;
    return 0;
}

/*
 * First without memory for them: then each has been written by somebody, and memory is bounded by
 * what the file has.
 */
static int walk(struct zq_bitmaps *b, const struct zq_bitmaps_place *p, struct zqcow2_error *err)
{
    uint64_t pos = p->offset, end = p->offset + p->bytes;
    struct zq_bitmap_record r;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < p->nr; i++) {
        if (b->v) {
            b->v[i].at = pos - p->offset;
            b->nr = i + 1;
        }
        rc = read_entry(b, &pos, end, b->v ? &b->v[i].r : &r, err);
    }
    if (rc == 0 && pos != end)
        rc = bad(err, "bitmap_directory_size", p->bytes, p->offset, "more than its entries have");
    return rc;
}

/* ---- names ---- */

/* Names have no end of their own, and sort by their bytes. */
static int compare(const struct zq_bitmaps *b, uint32_t i, uint32_t k)
{
    const struct zq_bitmap *x = &b->v[i], *y = &b->v[k];
    uint32_t n = (uint32_t)zq_min(x->r.name_bytes, y->r.name_bytes);
    int c = memcmp(zq_bitmap_name(b, x), zq_bitmap_name(b, y), n);

    return c ? c : x->r.name_bytes < y->r.name_bytes ? -1 : x->r.name_bytes > y->r.name_bytes;
}

static bool less(const void *a, const void *b, const void *arg)
{
    return compare(arg, *(const uint32_t *)a, *(const uint32_t *)b) < 0;
}

/* Other programs refuse an image in which two bitmaps have one name; a zero byte would hide it. */
static int judge_names(const struct zq_bitmaps *b, struct zqcow2_error *err)
{
    uint32_t *order = zq_zalloc_array(b->hooks, b->nr, sizeof(*order));
    int rc = order ? 0 : -ENOMEM;

    for (uint32_t i = 0; rc == 0 && i < b->nr; i++) {
        const struct zq_bitmap *m = &b->v[i];

        order[i] = i;
        if (memchr(zq_bitmap_name(b, m), 0, m->r.name_bytes))
            rc = bad(err, "bitmap name", i, b->dir_offset + m->at, "contains a zero byte");
    }
    if (rc == 0)
        zq_sort(order, b->nr, sizeof(*order), less, b);
    for (uint32_t i = 1; rc == 0 && i < b->nr; i++) {
        if (!compare(b, order[i - 1], order[i]))
            rc = bad(err, "bitmap name", order[i], b->dir_offset + b->v[order[i]].at,
                     "another bitmap has it, too");
    }
    zq_free(b->hooks, order, b->nr * sizeof(*order));
    return rc;
}

/* ---- what is to be kept ---- */

/* For messages: what a terminal may take of it, and of a long name the beginning. */
void zq_bitmap_show_name(const struct zq_bitmaps *b, const struct zq_bitmap *m,
                         char out[ZQ_BITMAP_SHOWN])
{
    uint32_t n = (uint32_t)zq_min(m->r.name_bytes, ZQ_BITMAP_SHOWN - 1);

    for (uint32_t i = 0; i < n; i++) {
        unsigned c = zq_bitmap_name(b, m)[i];

        out[i] = (char)(c < 32 || c > 126 ? '?' : c);
    }
    out[n] = 0;
}

/* Unknown extra data says what a program that does not know it would make wrong. */
static int keep_one(struct zq_bitmaps *b, struct zq_bitmap *m, uint64_t *tables,
                    struct zqcow2_error *err)
{
    char name[ZQ_BITMAP_SHOWN];

    if (!zq_bitmap_is_kept(m))
        return 0;
    zq_bitmap_show_name(b, m, name);
    if (m->r.extra_bytes && !(m->r.flags & ZQ_BITMAP_EXTRA_OK))
        return zq_fail(err, ZQCOW2_EFEATURE,
                       "bitmap \"%s\" is enabled and has extra data of an unknown kind: its marks "
                       "cannot be kept",
                       name);
    *tables += zq_table_bytes(m->r.table_entries);
    if (*tables > ZQ_MAX_KEPT_TABLES)
        return zq_fail(err, ZQCOW2_EFEATURE,
                       "bitmap \"%s\" is enabled, and the tables of all enabled bitmaps exceed "
                       "64 MiB: its marks cannot be kept",
                       name);
    return zq_dirty_open(&m->dirty, b->hooks, zq_bitmap_size(b, m), b->bounds.form.cluster_bits);
}

static int keep_all(struct zq_bitmaps *b, struct zqcow2_error *err)
{
    uint64_t tables = 0;
    int rc = 0;

    for (uint32_t i = 0; rc == 0 && i < b->nr; i++)
        rc = keep_one(b, &b->v[i], &tables, err);
    return rc;
}

/* ---- all of it ---- */

/* The second walk fills in what the first has judged. */
static int read_all(struct zq_bitmaps *b, const struct zq_bitmaps_place *p,
                    struct zqcow2_error *err)
{
    int rc;

    b->dir_bytes = p->bytes;
    b->dir_offset = p->offset;
    b->dir_room = zq_align_up(p->bytes, ZQ_SECTOR);
    b->dir = zq_alloc(b->hooks, 1, b->dir_room);
    b->v = zq_zalloc_array(b->hooks, p->nr, sizeof(*b->v));
    b->room = b->v ? p->nr : 0;
    if (!b->dir || !b->v)
        return -ENOMEM;
    rc = zq_be_read(b->be, b->dir, (size_t)b->dir_room, p->offset);
    if (rc == 0)
        rc = walk(b, p, err);
    for (uint32_t i = 0; rc == 0 && i < b->nr; i++)
        b->v[i].lost = b->v[i].r.flags & ZQ_BITMAP_IN_USE;
    return rc < 0 ? rc : judge_names(b, err);
}

int zq_bitmaps_load(struct zq_bitmaps *b, uint64_t ext, bool keep, struct zqcow2_error *err)
{
    uint8_t raw[ZQ_BITMAPS_EXT];
    struct zq_bitmaps_place p;
    int rc = zq_be_read(b->be, raw, sizeof(raw), ext);

    if (rc < 0)
        return rc;
    p = zq_bitmaps_place_read(raw);
    rc = judge_place(b, &p, ext, err);
    if (rc == 0)
        rc = walk(b, &p, err);
    if (rc == 0)
        rc = read_all(b, &p, err);
    if (rc == 0 && keep)
        rc = keep_all(b, err);
    if (rc == 0)
        zq_bitmaps_count(b);
    return rc;
}

/* A set that is open says that the image is open for writing: of a reader nothing is kept. */
void zq_bitmaps_count(struct zq_bitmaps *b)
{
    b->keeps = false;
    b->ready = true;
    for (uint32_t i = 0; i < b->nr; i++) {
        const struct zq_bitmap *m = &b->v[i];

        if (!m->dirty.v || !zq_bitmap_is_kept(m))
            continue;
        b->keeps = true;
        b->ready &= m->flagged;
    }
}

struct zq_bitmap *zq_bitmaps_find(const struct zq_bitmaps *b, const char *name)
{
    size_t n = strlen(name);

    for (uint32_t i = 0; i < b->nr; i++) {
        if (b->v[i].r.name_bytes == n && !memcmp(zq_bitmap_name(b, &b->v[i]), name, n))
            return &b->v[i];
    }
    return NULL;
}

void zq_bitmaps_close(struct zq_bitmaps *b)
{
    for (uint32_t i = 0; i < b->nr; i++) {
        struct zq_bitmap *m = &b->v[i];

        zq_dirty_close(&m->dirty);
        zq_free(b->hooks, m->table, zq_table_bytes(m->r.table_entries));
    }
    if (b->v)
        zq_free(b->hooks, b->v, b->room * sizeof(*b->v));
    if (b->dir)
        zq_free(b->hooks, b->dir, b->dir_room);
    if (b->holes)
        zq_free(b->hooks, b->holes, b->holes_room * sizeof(*b->holes));
    b->v = NULL;
    b->dir = NULL;
    b->holes = NULL;
    b->nr = b->room = 0;
    b->keeps = false;
}
