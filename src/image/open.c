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
#include "ops/shutdown.h"
#include "space/unmap.h"
#include "check/overlap.h"
#include "image/opening.h"

#define OPEN_FLAGS \
    ((uint32_t)(ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_NOLOCK | ZQCOW2_OPEN_UPGRADE | ZQCOW2_OPEN_BORROW))

#define DEFAULT_CACHE  (8u << 20)
#define DEFAULT_EXTENT (16u << 20)

/* ---- header ---- */

static int parse_cluster(struct opening *o, uint32_t cluster_bits)
{
    uint64_t size = (uint64_t)1 << cluster_bits;
    size_t len = (size_t)zq_min(size, o->file_size);
    uint8_t *buf = zq_zalloc(&o->hooks, size);
    int rc = buf ? zq_be_read(o->be, buf, len, 0) : -ENOMEM;

    if (rc == 0)
        rc = zq_header_parse(&o->h, buf, len, o->file_size, o->rdwr, o->err);
    if (rc == 0 && (o->h.zoned_offset || (o->h.incompat & ZQ_INCOMPAT_ZONED)))
        rc = zq_zone_ext_parse(&o->g, &o->h, buf + o->h.zoned_offset, o->h.zoned_len, o->file_size,
                               &o->bit_missing, o->err);
    zq_free(&o->hooks, buf, size);
    return rc;
}

static int read_header(struct opening *o)
{
    uint32_t cluster_bits;
    int rc = zq_be_length(o->be, &o->file_size);

    if (rc == 0)
        rc = zq_be_read(o->be, o->sector0, sizeof(o->sector0), 0);
    if (rc == 0)
        rc = zq_header_peek(o->sector0, (size_t)zq_min(o->file_size, sizeof(o->sector0)),
                            &cluster_bits, o->err);
    if (rc == 0)
        rc = parse_cluster(o, cluster_bits);
    if (rc == 0)
        rc = zq_overlap_check(&o->h, o->g.layout ? &o->g : NULL, 0, o->err);
    return rc;
}

static int write_sector0(struct opening *o)
{
    int rc = zq_be_write(o->be, o->sector0, sizeof(o->sector0), 0);

    return rc < 0 ? rc : zq_be_flush(o->be);
}

/* Bit 5, when the caller asked for it; autoclear bits of data that we do not keep in step. */
static int update_header(struct opening *o)
{
    bool upgrade = o->bit_missing && (o->opt.flags & ZQCOW2_OPEN_UPGRADE);

    if (o->bit_missing && !upgrade)
        return zq_fail(o->err, ZQCOW2_EFEATURE,
                       "zoned, but incompatible feature bit 5 is clear: upgrade it before writing");
    if (!upgrade && !o->h.autoclear)
        return 0;
    if (upgrade) {
        o->h.incompat |= ZQ_INCOMPAT_ZONED;
        o->bit_missing = false;
    }
    zq_put_be64(o->sector0 + ZQ_HDR_INCOMPAT, o->h.incompat);
    zq_put_be64(o->sector0 + ZQ_HDR_AUTOCLEAR, 0);
    o->h.autoclear = 0;
    return write_sector0(o);
}

static bool was_in_use(const struct opening *o)
{
    return (o->h.incompat & ZQ_INCOMPAT_DIRTY) ||
           (o->h.mark_offset && o->sector0[o->h.mark_offset]);
}

/* R12: only an image that was not closed cleanly is walked. */
static int recover(struct opening *o)
{
    struct zqcow2_check_options opt = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    int rc;

    if (!was_in_use(o))
        return 0;
    opt.flags = ZQCOW2_CHECK_REPAIR_LEAKS;
    if (o->h.incompat & ZQ_INCOMPAT_DIRTY)
        opt.flags |= ZQCOW2_CHECK_REPAIR;
    rc = zq_check(o->be, &o->hooks, &opt, &res, o->err);
    if (rc < 0)
        return rc;
    if (res.corruptions > res.corruptions_fixed)
        return zq_fail(o->err, ZQCOW2_ECORRUPT,
                       "not closed cleanly, and check finds %" PRIu64 " corruptions",
                       res.corruptions - res.corruptions_fixed);
    zq_log(&o->hooks, ZQCOW2_LOG_INFO, "recovered: %" PRIu64 " leaked clusters freed",
           res.leaks_fixed);
    return read_header(o);
}

/* ---- tables ---- */

typedef const char *read_entry(const struct zq_bounds *b, uint64_t raw, uint64_t *host);

static int check_entry(struct opening *o, const char *name, uint64_t offset, uint64_t i,
                       uint64_t raw, read_entry *read)
{
    const struct zq_bounds b = {zq_form_of(&o->h), o->file_size};
    struct zq_area area = {name, 0, (uint64_t)1 << o->h.cluster_bits};
    const char *why = read(&b, raw, &area.offset);

    if (why)
        return zq_fail(o->err, ZQCOW2_ECORRUPT,
                       "%s entry %" PRIu64 " (0x%" PRIx64 ") at byte %" PRIu64 ": %s", name, i, raw,
                       offset + zq_table_bytes(i), why);
    return zq_overlap_check_area(&o->h, o->g.layout ? &o->g : NULL, &area, o->err);
}

static int load_table(struct opening *o, const char *name, struct zq_memtable *t, read_entry *read)
{
    size_t bytes = (size_t)zq_table_bytes(t->entries);
    int rc = bytes ? zq_be_read(o->be, t->v, bytes, t->offset) : 0;

    for (uint64_t i = 0; rc == 0 && i < t->entries; i++) {
        t->v[i] = zq_table_get(t->v, i);
        if (t->v[i])
            rc = check_entry(o, name, t->offset, i, t->v[i], read);
    }
    return rc;
}

static int load_zones(struct opening *o, struct zq_core *c)
{
    size_t bytes = (size_t)zq_entries_bytes(o->g.nr_zones);
    size_t padded = (size_t)zq_round_up(bytes, ZQ_SECTOR);
    uint8_t *table = zq_zalloc(&o->hooks, padded);
    int rc = table ? zq_be_read(o->be, table, padded, o->g.table_offset) : -ENOMEM;

    if (rc == 0)
        rc = zq_entry_code_detect(&o->g, table, o->err);
    if (rc == 0) {
        const struct zq_zones_params p = {&o->g, &c->hooks, &c->ready, table};

        c->seq_start = zq_zone_start(&o->g, o->g.conventional);
        rc = zq_zones_open(&c->zones, &p);
    }
    zq_free(&o->hooks, table, padded);
    return rc;
}

/* ---- the core ---- */

/* Only writers need refcounts: an image whose refcounts are damaged can still be read. */
static int open_alloc(struct opening *o, struct zq_core *c)
{
    const struct zq_alloc_params p = {
        .cache = &c->cache,
        .cluster_bits = o->h.cluster_bits,
        .refcount_order = o->h.refcount_order,
        .table_offset = o->h.rt_offset,
        .table_entries =
            o->rdwr ? zq_table_count((uint64_t)o->h.rt_clusters << o->h.cluster_bits) : 0,
        .file_size = o->file_size};

    return zq_alloc_open(&c->alloc, &p);
}

static int open_map(struct opening *o, struct zq_core *c)
{
    const struct zq_map_params p = {.cache = &c->cache,
                                    .alloc = &c->alloc,
                                    .form = zq_form_of(&o->h),
                                    .l1_offset = o->h.l1_offset,
                                    .l1_entries = o->h.l1_entries,
                                    .nr_zones = c->zoned ? o->g.nr_zones : 0,
                                    .zone_bits = o->g.zone_bits,
                                    .first_seq_zone = o->g.conventional};

    return zq_map_open(&c->map, &p);
}

static void set_fixed(const struct opening *o, struct zq_alloc *a, enum zq_fixed which,
                      uint64_t offset, uint64_t bytes)
{
    bytes = zq_round_up(bytes, (uint64_t)1 << o->h.cluster_bits);
    a->fixed[which] = (struct zq_host_range){offset, bytes};
}

static void set_all_fixed(const struct opening *o, struct zq_alloc *a)
{
    const struct zq_header *h = &o->h;

    set_fixed(o, a, ZQ_FIXED_HEADER, 0, 1);
    set_fixed(o, a, ZQ_FIXED_L1, h->l1_offset, zq_table_bytes(h->l1_entries));
    set_fixed(o, a, ZQ_FIXED_REFCOUNTS, h->rt_offset, (uint64_t)h->rt_clusters << h->cluster_bits);
    set_fixed(o, a, ZQ_FIXED_POINTERS, o->g.table_offset, zq_entries_bytes(o->g.nr_zones));
    set_fixed(o, a, ZQ_FIXED_SNAPSHOTS, h->snapshots_offset,
              (uint64_t)h->nb_snapshots * ZQ_SNAPSHOT_FIXED);
}

static int load_tables(struct opening *o, struct zq_core *c)
{
    int rc = load_table(o, "L1", &c->map.l1, zq_l1_read);

    if (rc == 0 && o->rdwr)
        rc = load_table(o, "refcount table", &c->alloc.refs.table, zq_rt_read);
    return rc < 0 || !o->rdwr ? rc : zq_opening_trust(o, c);
}

static void set_info(struct opening *o, struct zq_core *c)
{
    c->info_flags = (c->zoned ? ZQCOW2_INFO_ZONED : 0) | (o->rdwr ? 0 : ZQCOW2_INFO_READ_ONLY) |
                    (o->bit_missing ? ZQCOW2_INFO_NO_ZONED_BIT : 0) |
                    (c->hdr.compat & ZQ_COMPAT_LAZY_REFCOUNTS ? ZQCOW2_INFO_LAZY_REFCOUNTS : 0) |
                    (c->hdr.nb_snapshots ? ZQCOW2_INFO_SNAPSHOTS : 0) |
                    (c->hdr.stored_size != c->size ? ZQCOW2_INFO_SIZE_CUT : 0) |
                    (c->hdr.backing_offset ? ZQCOW2_INFO_EMPTY_BACKING : 0) |
                    (was_in_use(o) && !o->rdwr ? ZQCOW2_INFO_DIRTY : 0);
    if (c->zoned && c->zones.nr_active > c->zones.max_active)
        c->info_flags |= ZQCOW2_INFO_OVER_ACTIVE;
}

static void set_core(struct opening *o, struct zq_core *c)
{
    c->hooks = o->hooks;
    c->be = o->be;
    c->borrowed = o->opt.flags & ZQCOW2_OPEN_BORROW;
    c->writable = o->rdwr;
    c->sealed = !o->rdwr;
    c->zoned = o->g.layout != ZQCOW2_LAYOUT_NONE;
    c->hdr = o->h;
    c->size = c->seq_start = o->h.virtual_size;
    c->cluster_bits = o->h.cluster_bits;
    c->extent_bytes = o->opt.extent_bytes ? o->opt.extent_bytes : DEFAULT_EXTENT;
    /* DIRTY is never set on a zoned image: other programs' repair would free the table (R12). */
    c->lazy = !c->zoned && (o->h.compat & ZQ_COMPAT_LAZY_REFCOUNTS);
    c->marked = !c->lazy && !o->h.mark_offset;
    memcpy(c->sector0, o->sector0, ZQ_SECTOR);
}

static int build_core(struct opening *o, struct zq_core *c)
{
    uint32_t slice = (uint32_t)zq_min(4096, (uint64_t)1 << o->h.cluster_bits);
    uint64_t cache = o->opt.cache_bytes ? o->opt.cache_bytes : DEFAULT_CACHE;
    int rc;

    set_core(o, c);
    c->upper = &zq_request_upper;
    rc = zq_core_init(c);
    if (rc == 0)
        rc = zq_cache_init(&c->cache, &c->x, &c->ready, slice, cache);
    if (rc == 0)
        rc = open_alloc(o, c);
    if (rc == 0)
        rc = open_map(o, c);
    if (rc < 0)
        return rc;
    set_all_fixed(o, &c->alloc);
    rc = load_tables(o, c);
    if (rc == 0 && c->zoned)
        rc = load_zones(o, c);
    if (rc == 0)
        set_info(o, c);
    return rc;
}

static int init_locks(struct zq_core *c)
{
    pthread_condattr_t attr;
    int rc = pthread_mutex_init(&c->mutex, NULL);

    if (rc)
        return -rc;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    rc = pthread_cond_init(&c->cond, &attr);
    pthread_condattr_destroy(&attr);
    if (rc)
        pthread_mutex_destroy(&c->mutex);
    return -rc;
}

static void free_image(struct zqcow2_image *img)
{
    struct zqcow2_hooks hooks = img->core.hooks;

    zq_core_fini(&img->core);
    pthread_cond_destroy(&img->core.cond);
    pthread_mutex_destroy(&img->core.mutex);
    zq_free(&hooks, img, sizeof(*img));
}

static int build_image(struct opening *o, struct zqcow2_image **out)
{
    struct zqcow2_image *img = zq_zalloc(&o->hooks, sizeof(*img));
    int rc = img ? init_locks(&img->core) : -ENOMEM;

    if (rc < 0) {
        zq_free(&o->hooks, img, sizeof(*img));
        return rc;
    }
    rc = build_core(o, &img->core);
    if (rc < 0)
        free_image(img);
    else
        *out = img;
    return rc;
}

static int open_locked(struct opening *o, struct zqcow2_image **out)
{
    int rc = 0;

    /*
     * What the last writer left in the host's cache is not durable yet, but from here on the
     * entries that we read are taken for what is on disk (R1, R2, R5).
     */
    if (o->rdwr)
        rc = zq_be_flush(o->be);
    if (rc == 0)
        rc = read_header(o);
    if (rc == 0 && o->rdwr)
        rc = recover(o);
    if (rc == 0 && o->rdwr)
        rc = update_header(o);
    return rc < 0 ? rc : build_image(o, out);
}

int zq_image_open(struct zqcow2_backend *be, const struct zqcow2_open_options *opt,
                  struct zqcow2_image **out, struct zqcow2_error *err)
{
    struct opening o = {.be = be, .opt = ZQCOW2_OPEN_OPTIONS_INIT, .err = err};
    bool lock;
    int rc = 0;

    if (err)
        memset(err, 0, sizeof(*err));
    if (opt)
        rc = zq_copy_sized(&o.opt, sizeof(o.opt), opt,
                           offsetof(struct zqcow2_open_options, cache_bytes));
    if (rc == 0)
        rc = zq_check_unknown(err, o.opt.flags, OPEN_FLAGS, o.opt.reserved);
    if (rc == 0)
        rc = zq_take_hooks(err, &o.hooks, o.opt.hooks);
    if (rc < 0)
        return zq_fail_rc(err, rc);
    o.rdwr = o.opt.flags & ZQCOW2_OPEN_RDWR;
    lock = !(o.opt.flags & ZQCOW2_OPEN_NOLOCK);
    rc = zq_be_enter(be, o.rdwr, lock, err);
    if (rc < 0)
        return zq_fail_rc(err, rc);
    rc = open_locked(&o, out);
    if (rc < 0)
        (void)zq_be_leave(be, lock);
    return rc < 0 ? zq_fail_rc(err, rc) : 0;
}

/* ---- closing ---- */

static void shutdown_finish(struct zq_op *op)
{
    pthread_cond_broadcast(&op->core->cond);
}

/* Runs like an operation, but is none of the caller's kinds. */
static int run_shutdown(struct zq_core *c)
{
    struct zq_op op = {.finish = shutdown_finish};

    zq_op_reset(c, &op, zq_step_shutdown, zq_release_mapping);
    op.req.op = ZQCOW2_OP_FLUSH;
    c->nr_ops++;
    zq_op_ready(&op);
    zq_loop_run(c);
    while (!op.finished)
        zq_loop_wait(c, -1);
    return op.res.ret;
}

int zq_image_close(struct zqcow2_image *img)
{
    struct zq_core *c = &img->core;
    struct zqcow2_backend *be = c->be;
    bool borrowed = c->borrowed;
    int rc = 0;

    zq_core_lock(c);
    if (c->nr_ops > c->janitor_running || !zq_list_empty(&c->doorbells) || c->runners ||
        c->sleepers || c->polling) {
        zq_core_unlock(c);
        return -EBUSY;
    }
    if (c->writable)
        rc = run_shutdown(c);
    while (c->x.in_flight || c->janitor_running)
        zq_loop_wait(c, -1);
    zq_core_unlock(c);
    if (rc < 0 && c->dead && be->ops.invalidate)
        be->ops.invalidate(be->self);
    free_image(img);
    (void)zq_be_leave(be, true);
    if (!borrowed)
        zqcow2_backend_close(be);
    return rc;
}

void zq_image_info(struct zqcow2_image *img, struct zqcow2_info *i)
{
    struct zq_core *c = &img->core;
    const struct zq_geometry *g = &c->zones.g;

    zq_core_lock(c);
    i->virtual_size = c->size;
    i->file_size = c->alloc.file_size;
    i->incompatible_features = zq_be64(c->sector0 + ZQ_HDR_INCOMPAT);
    if (c->hdr.version < 3)
        i->incompatible_features = 0;
    i->compatible_features = c->hdr.compat;
    i->autoclear_features = c->hdr.autoclear;
    i->block_size = ZQ_SECTOR;
    i->cluster_size = 1u << c->cluster_bits;
    i->refcount_bits = 1u << c->hdr.refcount_order;
    i->version = c->hdr.version;
    i->compression_type = c->hdr.compression_type;
    i->flags = c->info_flags | (c->dead ? ZQCOW2_INFO_DEAD : 0) |
               (c->alloc.corrupt ? ZQCOW2_INFO_READ_ONLY : 0);
    if (c->zoned) {
        i->zone_size = g->zone_size;
        i->zone_capacity = g->capacity;
        i->nr_zones = g->nr_zones;
        i->nr_conventional = g->conventional;
        i->max_open_zones = g->max_open;
        i->max_active_zones = g->max_active;
        i->open_zones = c->zones.nr_open;
        i->active_zones = c->zones.nr_active;
        i->max_append_bytes = zq_geometry_max_append(g);
        i->layout = g->layout;
    }
    zq_core_unlock(c);
}
