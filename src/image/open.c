/* SPDX-License-Identifier: MIT */
/*
 * Opens an image: every table that the header names is checked before anything relies on it, and
 * what open will allocate is known from checked values before the first allocation.
 *
 * The order matters for a writer: lock, flush, header, recovery, header again, tables. Nothing is
 * read into the core before recovery is over, since that may rewrite all of it. From then on what
 * was read is taken for what is on disk, which the flush has made true.
 */
#include <errno.h>
#include <inttypes.h>
#include "base/report.h"
#include "format/entry.h"
#include "format/snapshot.h"
#include "check/check.h"
#include "image/image.h"
#include "ops/request.h"
#include "space/unmap.h"
#include "check/overlap.h"
#include "image/opening.h"

#define OPEN_FLAGS \
    ((uint32_t)(ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_NOLOCK | ZQCOW2_OPEN_UPGRADE | ZQCOW2_OPEN_BORROW | \
                ZQCOW2_OPEN_NO_BACKING | ZQCOW2_OPEN_INACTIVE | ZQCOW2_OPEN_ID_FIRST))

#define DEFAULT_CACHE  (8u << 20)
#define DEFAULT_EXTENT (16u << 20)

/* ---- header ---- */

/*
 * A header field lies in one sector, so a crash leaves the old or the new header. The barrier comes
 * before anything else is written: what follows relies on the new bits.
 */
static int write_sector0(struct opening *o)
{
    int rc = zq_be_write(o->be, o->sector0, sizeof(o->sector0), 0);

    return rc < 0 ? rc : zq_be_flush(o->be);
}

/*
 * Bit 5, if the caller asked for it. Autoclear bits say that optional data, such as bitmaps, agrees
 * with the image; a program that does not maintain that data must clear them before it writes
 * (qcow2 specification, autoclear_features). Both are one write.
 */
static int update_header(struct opening *o)
{
    uint64_t kept = (o->h.states_offset ? ZQ_AUTOCLEAR_STATES : 0) |
                    (o->h.copies ? ZQ_AUTOCLEAR_COPIES : 0) |
                    (o->h.bitmaps_offset ? ZQ_AUTOCLEAR_BITMAPS : 0);
    bool raw = zq_opening_has_data_file(o) && !o->g.layout; /* kept so by overwrite.c (D1) */
    bool upgrade = o->bit_missing && (o->opt.flags & ZQCOW2_OPEN_UPGRADE);

    if (raw)
        kept |= o->h.autoclear & ZQ_AUTOCLEAR_RAW_DATA;
    if (o->bit_missing && !upgrade)
        return zq_fail(o->err, ZQCOW2_EFEATURE,
                       "zoned, but incompatible feature bit 5 is clear: upgrade it before writing");
    if (!upgrade && o->h.autoclear == kept)
        return 0;
    if (upgrade) {
        o->h.incompat |= ZQ_INCOMPAT_ZONED;
        o->bit_missing = false;
    }
    zq_put_be64(o->sector0 + ZQ_HDR_INCOMPAT, o->h.incompat);
    zq_put_be64(o->sector0 + ZQ_HDR_AUTOCLEAR, kept);
    o->h.autoclear = kept;
    return write_sector0(o);
}

/* The mark counts only in sector 0 (mark_offset 0: there is none that can be set atomically). */
static bool was_in_use(const struct opening *o)
{
    return (o->h.incompat & ZQ_INCOMPAT_DIRTY) ||
           (o->h.mark_offset && o->sector0[o->h.mark_offset]);
}

/*
 * R12: only an image that was not closed cleanly is walked. Under the mark a crash leaves only
 * leaks, which are freed; with the DIRTY bit (lazy refcounts) counts may be too low, too, and are
 * rebuilt. A corruption beyond that did not come from a crash, and a writer must not go on. The
 * header is read again, because a repair may have moved the refcount table.
 */
int zq_opening_recover(struct opening *o)
{
    struct zqcow2_check_options opt = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    int rc;

    if (!was_in_use(o))
        return 0;
    opt.flags = ZQCOW2_CHECK_REPAIR_LEAKS;
    if (o->h.incompat & ZQ_INCOMPAT_DIRTY)
        opt.flags |= ZQCOW2_CHECK_REPAIR;
    rc = zq_check(o->be, &o->hooks, &opt, NULL, &res, o->err);
    if (rc < 0)
        return rc;
    if (res.corruptions > res.corruptions_fixed)
        return zq_fail(o->err, ZQCOW2_ECORRUPT,
                       "not closed cleanly, and check finds %" PRIu64 " corruptions",
                       res.corruptions - res.corruptions_fixed);
    zq_log(&o->hooks, ZQCOW2_LOG_INFO, "recovered: %" PRIu64 " leaked clusters freed",
           res.leaks_fixed);
    return zq_opening_header(o);
}

/*
 * The table is checked as a whole before any zone exists: which of the two codes its entries use
 * shows only when all are seen. padded: tables are read and written in whole sectors.
 */
static int load_zones(struct opening *o, struct zq_core *c)
{
    uint8_t *table;
    int rc = zq_opening_pointers(o, &table);

    if (rc == 0) {
        const struct zq_zones_params p = {
            &o->g, &c->hooks, &c->ready, table, (enum zqcow2_rules)o->opt.rules, &c->events};

        c->seq_start = o->flat ? c->size : zq_geometry_start(&o->g, o->g.conventional);
        rc = zq_zones_open(&c->zones, &p);
    }
    zq_free(&o->hooks, table, zq_pointers_bytes(&o->g));
    return rc;
}

int zq_opening_states(struct opening *o, uint8_t **table)
{
    size_t bytes = (size_t)zq_states_bytes(o->h.states_zones);
    int rc;

    *table = NULL;
    if (!o->h.states_offset)
        return 0;
    *table = zq_zalloc(&o->hooks, bytes);
    if (!*table)
        return -ENOMEM;
    rc = zq_be_read(o->be, *table, bytes, o->h.states_offset);
    for (uint32_t i = 0; rc == 0 && i < o->g.nr_zones; i++) {
        if (!zq_states_valid(&o->g, i, (*table)[i]))
            rc =
                zq_fail(o->err, ZQCOW2_ECORRUPT,
                        "stored state of zone %" PRIu32 " at byte %" PRIu64 " is 0x%02x: not valid",
                        i, o->h.states_offset + i, (*table)[i]);
    }
    return rc;
}

/*
 * R15, R16: a crash may leave a zone marked as closed and empty that is written, and one with an
 * extension that is reset. A reader passes over such marks. A writer removes them for good before
 * anything else: a pointer that changes is durable before the table is, and would give back to a
 * void mark the zone that it was of.
 */
static int drop_void_marks(struct opening *o, const struct zq_core *c, uint8_t *table)
{
    bool any = false;
    int rc;

    for (uint32_t i = 0; i < o->g.nr_zones; i++) {
        uint8_t holds = zq_stored_holds(table[i], c->zones.v[i].state == ZQCOW2_ZONE_EMPTY);

        any |= holds != table[i];
        table[i] = holds;
    }
    if (!any || !o->rdwr)
        return 0;
    rc = zq_be_write(o->be, table, (size_t)zq_states_bytes(o->h.states_zones), o->h.states_offset);
    return rc < 0 ? rc : zq_be_flush(o->be);
}

/* Of a layer, or a flat image, they are not in force: zones are read whatever others may do. */
static void keep_states(struct zq_core *c, const uint8_t *table)
{
    for (uint32_t i = 0; i < c->zones.g.nr_zones; i++)
        c->zones.v[i].stored = table[i];
}

static int load_states(struct opening *o, struct zq_core *c)
{
    uint8_t *table;
    int rc = zq_opening_states(o, &table);

    if (rc == 0 && table)
        rc = drop_void_marks(o, c, table);
    if (rc == 0 && table && (o->layer || o->flat))
        keep_states(c, table);
    else if (rc == 0 && table)
        zq_states_load(&c->zones, o->h.states_offset, table);
    zq_free(&o->hooks, table, zq_states_bytes(o->h.states_zones));
    return rc;
}

static int no_blocks(const struct opening *o, const char *what, uint64_t value)
{
    return zq_fail(o->err, -EINVAL,
                   "block_size %" PRIu32 ": the %s %" PRIu64 " is not a multiple of it",
                   o->opt.block_size, what, value);
}

/*
 * Whole blocks must do for each request that a zone or the device calls for: filling a zone to its
 * capacity, continuing at its write pointer, an append of the largest size.
 */
static int check_blocks(struct opening *o, const struct zq_core *c)
{
    const struct zq_geometry *g = &o->g;

    if (c->size & c->block_mask)
        return no_blocks(o, "size", c->size);
    if (!c->zoned)
        return 0;
    if (g->zone_size & c->block_mask)
        return no_blocks(o, "zone size", g->zone_size);
    if (g->capacity & c->block_mask)
        return no_blocks(o, "zone capacity", g->capacity);
    if (zq_geometry_max_append(g) <= c->block_mask)
        return zq_fail(o->err, -EINVAL, "block_size %" PRIu32 ": the largest append is %" PRIu32,
                       o->opt.block_size, zq_geometry_max_append(g));
    for (uint32_t i = g->conventional; i < g->nr_zones; i++) {
        if (c->zones.v[i].wp & c->block_mask)
            return zq_fail(o->err, -EINVAL,
                           "block_size %" PRIu32 ": the write pointer 0x%" PRIx64
                           " of zone %" PRIu32 " is not a multiple of it",
                           o->opt.block_size, c->zones.v[i].wp, i);
    }
    return 0;
}

/* ---- the core ---- */

/* What is fixed after open; zq_image_info() adds what may change. */
static void set_info(struct opening *o, struct zq_core *c)
{
    c->info_flags = (c->zoned ? ZQCOW2_INFO_ZONED : 0) | (o->rdwr ? 0 : ZQCOW2_INFO_READ_ONLY) |
                    (o->bit_missing ? ZQCOW2_INFO_NO_ZONED_BIT : 0) |
                    (c->hdr.compat & ZQ_COMPAT_LAZY_REFCOUNTS ? ZQCOW2_INFO_LAZY_REFCOUNTS : 0) |
                    (c->hdr.nb_snapshots ? ZQCOW2_INFO_SNAPSHOTS : 0) |
                    (c->hdr.stored_size != c->size ? ZQCOW2_INFO_SIZE_CUT : 0) |
                    (c->hdr.backing_offset && !c->hdr.backing_len ? ZQCOW2_INFO_EMPTY_BACKING : 0) |
                    (c->hdr.backing_len ? ZQCOW2_INFO_BACKING : 0) |
                    (was_in_use(o) && !o->rdwr ? ZQCOW2_INFO_DIRTY : 0);
    if (c->zoned && c->zones.nr_active > c->zones.max_active)
        c->info_flags |= ZQCOW2_INFO_OVER_ACTIVE;
}

/*
 * Only the members that nothing has to be loaded for. `marked` starts true if there is no mark to
 * set: then no operation waits for the mark's round. Under the mutex: queues may be open (H1).
 */
static void set_core(struct opening *o, struct zq_core *c)
{
    zq_core_lock(c);
    c->writable = o->rdwr;
    c->want_mark = c->want_flags = c->leaked = c->swept = false;
    c->round.done = 0;
    c->x.alone = zq_io_is_alone(&c->x);
    zq_core_set_straight(c);
    c->zoned = o->g.layout != ZQCOW2_LAYOUT_NONE;
    c->hdr = o->h;
    c->size = c->seq_start = o->h.virtual_size;
    c->cluster_bits = o->h.cluster_bits;
    c->block_mask = (o->opt.block_size ? o->opt.block_size : ZQ_SECTOR) - 1;
    c->extent_bytes = o->opt.extent_bytes ? o->opt.extent_bytes : DEFAULT_EXTENT;
    /* DIRTY is never set on a zoned image: other programs' repair would free the table (R12). */
    c->marks_dirty = !c->zoned && (o->h.compat & ZQ_COMPAT_LAZY_REFCOUNTS);
    c->marked = !c->marks_dirty && !o->h.mark_offset;
    memcpy(c->sector0, o->sector0, ZQ_SECTOR);
    c->bitmaps.be = o->be;
    c->bitmaps.hooks = &c->hooks;
    c->bitmaps.bounds = (struct zq_bounds){zq_form_of(&o->h), o->file_size};
    c->bitmaps.device = o->h.virtual_size;
    c->bitmaps.arg = &c->alloc;
    zq_core_unlock(c);
}

/* They stay while the image is inactive, and another activation may find others. */
static int keep_names(const struct opening *o, struct zq_core *c)
{
    struct zqcow2_backing *names = NULL, *old;

    if (o->backing.name[0] || o->backing.data_file[0]) {
        names = zq_alloc(&o->hooks, _Alignof(struct zqcow2_backing), sizeof(*names));
        if (!names)
            return -ENOMEM;
        *names = o->backing;
    }
    zq_core_lock(c);
    old = c->backing;
    c->backing = names;
    zq_core_unlock(c);
    zq_free(&o->hooks, old, sizeof(*old));
    return 0;
}

/* A call that goes past the loop's lists needs both files to allow it: it finds out on the way. */
static int set_data_file(struct opening *o, struct zq_core *c)
{
    int rc = zq_opening_data_file(o, c, 0, &c->data_file);

    zq_core_lock(c);
    if (rc == 0)
        c->x.next = c->data = &c->data_file.x;
    c->x.alone &= c->data->alone;
    zq_core_set_straight(c);
    zq_core_unlock(c);
    return rc;
}

/*
 * The order: parts before what checks them, zones before their blocks are checked. On failure the
 * core is left half-built, and zq_core_close_parts() takes it: each part is closed by its own
 * close, which a zeroed part survives.
 */
static int build_parts(struct opening *o, struct zq_core *c)
{
    const struct zq_parts parts = {.x = &c->x,
                                   .cache = &c->cache,
                                   .alloc = &c->alloc,
                                   .map = &c->map,
                                   .cache_bytes =
                                       o->opt.cache_bytes ? o->opt.cache_bytes : DEFAULT_CACHE,
                                   .nr_zones = o->g.layout ? o->g.nr_zones : 0};
    int rc = keep_names(o, c);

    if (rc == 0 && zq_opening_has_data_file(o))
        rc = set_data_file(o, c);
    if (rc == 0)
        rc = zq_opening_tables(o, &parts);
    if (rc == 0 && o->rdwr)
        rc = zq_opening_trust(o, c);
    if (rc == 0 && c->zoned)
        rc = load_zones(o, c);
    if (rc == 0 && c->zoned)
        rc = load_states(o, c);
    if (rc == 0)
        rc = check_blocks(o, c);
    if (rc == 0)
        rc = zq_opening_sources(o, c);
    if (rc == 0 && o->rdwr && o->h.bitmaps_offset)
        rc = zq_opening_bitmaps(o, c);
    if (c->source) /* in zones up to the end, for no cluster may be missing below a pointer (S12) */
        c->map.masked_below = c->zoned ? c->size : c->source->size;
    if (rc == 0)
        set_info(o, c);
    return rc;
}

int zq_opening_read(struct opening *o)
{
    int rc = 0;

    /*
     * What the last writer left in the host's cache is not durable yet, but from here on the
     * entries that we read are taken for what is on disk (R1, R2, R5).
     */
    if (o->rdwr)
        rc = zq_be_flush(o->be);
    if (rc == 0)
        rc = zq_opening_header(o);
    if (rc == 0 && o->rdwr)
        rc = zq_opening_recover(o);
    if (rc == 0 && o->rdwr)
        rc = update_header(o);
    if (rc == 0 && o->opt.snapshot)
        rc = zq_opening_snapshot(o);
    if (o->layer) { /* from here on it is only read */
        o->rdwr = false;
        o->opt.flags &= ~(uint32_t)ZQCOW2_OPEN_RDWR;
    }
    return rc;
}

int zq_opening_build(struct opening *o, struct zq_core *c)
{
    int rc;

    set_core(o, c);
    rc = build_parts(o, c);
    if (rc < 0)
        zq_core_close_parts(c);
    return rc;
}

/* The names of the header are there, and what it says of zones; nothing else. */
static int build_inactive(struct opening *o, struct zqcow2_image *img)
{
    struct zq_core *c = &img->core;
    int rc = keep_names(o, c);

    set_core(o, c);
    zq_core_lock(c);
    c->zones.g = o->g;
    c->alloc.file_size = o->file_size;
    set_info(o, c);
    zq_image_rest(img);
    c->activity = ZQ_INACTIVE;
    memset(&c->zones, 0, sizeof(c->zones));
    memset(&c->alloc, 0, sizeof(c->alloc));
    zq_core_unlock(c);
    return rc;
}

/* From here on what was loaded belongs to the image, and one call gives all of it back. */
static int build_image(struct opening *o, struct zqcow2_image **out)
{
    bool inactive = o->opt.flags & ZQCOW2_OPEN_INACTIVE;
    struct zqcow2_image *img;
    int rc = zq_image_new(o, &img);

    if (rc < 0)
        return rc;
    if (inactive) {
        rc = build_inactive(o, img);
    } else {
        rc = zq_opening_build(o, &img->core);
        zq_core_lock(&img->core);
        if (rc == 0)
            zq_image_wake(img);
        zq_core_unlock(&img->core);
    }
    if (rc < 0)
        zq_image_free(img);
    else
        *out = img;
    return rc;
}

/*
 * Options are refused before the backend is claimed: a caller's mistake leaves no trace on the
 * file.
 */
static int take_options(struct opening *o, const struct zqcow2_open_options *opt)
{
    int rc = 0;

    if (opt)
        rc = zq_copy_sized(&o->opt, sizeof(o->opt), opt,
                           offsetof(struct zqcow2_open_options, cache_bytes));
    if (rc == 0)
        rc = zq_check_unknown(o->err, o->opt.flags, OPEN_FLAGS, o->opt.reserved);
    if (rc == 0 && o->opt.rules > ZQCOW2_RULES_ZNS)
        rc = zq_fail(o->err, -EINVAL, "rules: %" PRIu32 " is unknown", o->opt.rules);
    if (rc == 0 && o->opt.block_size && o->opt.block_size != 512 && o->opt.block_size != 4096)
        rc = zq_fail(o->err, -EINVAL, "block_size %" PRIu32 ": must be 0, 512 or 4096",
                     o->opt.block_size);
    if (rc == 0 && o->opt.snapshot && o->opt.flags & ZQCOW2_OPEN_RDWR)
        rc = zq_fail(o->err, -EINVAL, "a snapshot requires a read-only open");
    if (rc == 0 && o->opt.snapshot && o->opt.flags & ZQCOW2_OPEN_INACTIVE)
        rc = zq_fail(o->err, -EINVAL, "a snapshot cannot be opened inactive");
    if (rc == 0 && o->opt.backing_format)
        rc = zq_check_format(o->err, o->opt.backing_format);
    if (rc == 0)
        rc = zq_take_hooks(o->err, &o->hooks, o->opt.hooks);
    return rc;
}

static int open_as(struct opening *o, const struct zqcow2_open_options *opt,
                   struct zqcow2_image **out)
{
    bool inactive;
    int rc;

    zq_clear_error(o->err);
    rc = take_options(o, opt);
    if (rc < 0)
        return zq_fail_rc(o->err, rc);
    o->rdwr = o->opt.flags & ZQCOW2_OPEN_RDWR;
    if (o->rdwr && (o->opt.flags & ZQCOW2_OPEN_NO_BACKING))
        return zq_fail(o->err, -EINVAL, "NO_BACKING requires a read-only open");
    inactive = o->opt.flags & ZQCOW2_OPEN_INACTIVE;
    rc = zq_be_enter(o->be, o->rdwr, !inactive && !(o->opt.flags & ZQCOW2_OPEN_NOLOCK), o->err);
    if (rc < 0)
        return zq_fail_rc(o->err, rc);
    rc = inactive ? zq_opening_header(o) : zq_opening_read(o);
    if (rc == 0)
        rc = build_image(o, out);
    if (rc < 0)
        (void)zq_be_leave(o->be);
    return rc < 0 ? zq_fail_rc(o->err, rc) : 0;
}

int zq_image_open(struct zqcow2_backend *be, const struct zqcow2_open_options *opt,
                  struct zqcow2_image **out, struct zqcow2_error *err)
{
    struct opening o = {.be = be, .opt = ZQCOW2_OPEN_OPTIONS_INIT, .err = err};

    return open_as(&o, opt, out);
}

int zq_image_open_flat(struct zqcow2_backend *be, const struct zqcow2_open_options *opt,
                       struct zqcow2_image **out, struct zqcow2_error *err)
{
    struct opening o = {.be = be, .opt = ZQCOW2_OPEN_OPTIONS_INIT, .err = err, .flat = true};

    return open_as(&o, opt, out);
}

int zq_image_open_layer(struct zqcow2_backend *be, const struct zqcow2_open_options *opt,
                        struct zqcow2_image **out, struct zqcow2_error *err)
{
    struct opening o = {.be = be, .opt = ZQCOW2_OPEN_OPTIONS_INIT, .err = err, .layer = true};

    return open_as(&o, opt, out);
}
