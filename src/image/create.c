/* SPDX-License-Identifier: MIT */
/*
 * Lays out and writes a new, empty image; the header's sector comes last and makes it one.
 *
 * Whatever stops this before, a full host or a crash, leaves a file that no program takes for an
 * image. Tables get space behind them now (R10): a round that writes them must not find the host
 * full.
 */
#include "image/create.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/report.h"
#include "format/codec.h"
#include "format/reftable.h"
#include "format/zone_ext.h"
#include "image/inherit.h"
#include "image/new_data.h"
#include "image/preallocate.h"

#define DEFAULT_CLUSTER_SIZE  65536u
#define DEFAULT_REFCOUNT_BITS 16u
#define DEFAULT_MAX_APPEND    65536u
#define CHUNK                 65536u /* tables are composed and written in pieces of this size */

static const uint32_t known_flags = ZQCOW2_CREATE_LAZY_REFCOUNTS | ZQCOW2_CREATE_FORCE |
                                    ZQCOW2_CREATE_EXTENDED_L2 | ZQCOW2_CREATE_DATA_FILE_RAW |
                                    ZQCOW2_CREATE_ZSTD | ZQCOW2_CREATE_EMPTY;

/* Everything that is decided before the first byte is written. */
struct plan {
    struct zq_header h;
    struct zq_geometry g;    /* g.layout NONE: a plain image */
    struct zq_reftable refs; /* behind the header; what is behind it belongs to the image, too */
    uint64_t tables_end;     /* of all but what is preallocated, which lies behind it */
    uint64_t bytes;          /* of the new file; each cluster has refcount 1 */
    uint8_t zoned[ZQ_ZONE_EXT_MAX];
    struct zq_preallocation pre;
    struct zqcow2_backing backing;
    struct zq_inherit below;
    struct zq_new_data data;
    uint8_t *buf; /* CHUNK bytes */
};

/* option: as the command spells it, so that its user sees which argument was wrong. */
static int refuse(struct zqcow2_error *err, const char *option, uint64_t value, const char *why)
{
    return zq_fail(err, -EINVAL, "%s %" PRIu64 ": %s", option, value, why);
}

/* ---- options ---- */

static bool check_size(const struct zqcow2_create_options *o)
{
    uint64_t size = o->virtual_size;

    if (o->flags & ZQCOW2_CREATE_EMPTY)
        return !size && !o->zone_size;
    return size && size % ZQ_SECTOR == 0 && size <= ZQ_MAX_VIRTUAL_SIZE;
}

/*
 * The limits are those of the qcow2 specification: clusters of 512 bytes to 2 MiB, refcounts of 2^0
 * to 2^6 bits. An L1 table above 32 MiB would be valid, but other programs refuse it, and so does
 * open.
 */
static int plan_clusters(struct plan *p, const struct zqcow2_create_options *o,
                         struct zqcow2_error *err)
{
    uint32_t cluster = o->cluster_size ? o->cluster_size : DEFAULT_CLUSTER_SIZE;
    uint32_t bits = o->refcount_bits ? o->refcount_bits : DEFAULT_REFCOUNT_BITS;
    struct zq_form form;
    uint64_t l2_tables;

    if (!zq_is_pow2(cluster) || cluster < 512 || cluster > 2u << 20)
        return refuse(err, "cluster_size", cluster, "must be a power of two, 512 to 2 MiB");
    if (!zq_is_pow2(bits) || bits > 64)
        return refuse(err, "refcount_bits", bits, "must be 1, 2, 4, 8, 16, 32 or 64");
    if (!check_size(o))
        return refuse(err, "size", o->virtual_size,
                      o->virtual_size || !o->zone_size ? "must be a multiple of 512, 512 to 2^62" :
                                                         "a device with zones has bytes");
    p->h.cluster_bits = zq_ctz(cluster);
    p->h.refcount_order = zq_ctz(bits);
    p->h.virtual_size = o->virtual_size;
    if (o->flags & ZQCOW2_CREATE_EXTENDED_L2) {
        if (p->h.cluster_bits < ZQ_EXTENDED_CLUSTER_BITS)
            return refuse(err, "cluster_size", cluster, "extended_l2 needs at least 16 KiB");
        p->h.incompat |= ZQ_INCOMPAT_EXTENDED_L2;
    }
    if (o->flags & ZQCOW2_CREATE_ZSTD) {
        p->h.incompat |= ZQ_INCOMPAT_COMPRESSION;
        p->h.compression_type = ZQ_ZSTD;
    }
    form = zq_form_of(&p->h);
    l2_tables = zq_l1_needed(&form, o->virtual_size);
    if (zq_table_bytes(l2_tables) > ZQ_MAX_L1_BYTES)
        return refuse(err, "size", o->virtual_size,
                      "needs an L1 table above 32 MiB: choose a larger cluster_size");
    p->h.l1_entries = (uint32_t)l2_tables;
    return 0;
}

/* Where the usual 64 KiB does not fit, the largest that does, and no limit where none fits. */
static uint32_t default_max_append(const struct zq_geometry *g)
{
    uint64_t most = g->capacity > 2 * ZQ_SECTOR ? g->capacity - 2 * ZQ_SECTOR : 0;

    if (g->layout == ZQCOW2_LAYOUT_44)
        return 0;
    return (uint32_t)zq_min(most, DEFAULT_MAX_APPEND);
}

/*
 * 0 selects a default for capacity, layout and max_append only; for max_open and max_active, and
 * for the number of conventional zones, it is a value of its own: no limit, and none.
 */
static int plan_zones(struct plan *p, const struct zqcow2_create_options *o,
                      struct zqcow2_error *err)
{
    struct zq_geometry *g = &p->g;
    const char *why;
    int rc;

    g->device_size = o->virtual_size;
    g->zone_size = o->zone_size;
    g->capacity = o->zone_capacity ? o->zone_capacity : o->zone_size;
    g->conventional = o->conventional_zones;
    g->max_open = o->max_open_zones;
    g->max_active = o->max_active_zones;
    g->layout = o->layout ? o->layout : ZQCOW2_LAYOUT_44;
    g->max_append = o->max_append_bytes ? o->max_append_bytes : default_max_append(g);
    p->h.incompat |= ZQ_INCOMPAT_ZONED;
    zq_entry_code_new(g);
    rc = zq_geometry_check_new(g, 1u << p->h.cluster_bits, err);
    if (rc < 0)
        return rc;
    why = zq_descriptor_refused(o->descriptor_extension, g->nr_zones);
    p->h.descriptor_size = g->descriptor_size = o->descriptor_extension;
    return why ? refuse(err, "zone.descriptor_extension", o->descriptor_extension, why) : 0;
}

/* An option that has no effect is a mistake of the caller: it must not be dropped in silence. */
static int refuse_zone_options(const struct zqcow2_create_options *o, struct zqcow2_error *err)
{
    static const char why[] = "requires zone.size: without it the image has no zones";

    if (o->zone_capacity)
        return refuse(err, "zone.capacity", o->zone_capacity, why);
    if (o->conventional_zones)
        return refuse(err, "zone.conventional_zones", o->conventional_zones, why);
    if (o->max_open_zones)
        return refuse(err, "zone.max_open_zones", o->max_open_zones, why);
    if (o->max_active_zones)
        return refuse(err, "zone.max_active_zones", o->max_active_zones, why);
    if (o->max_append_bytes)
        return refuse(err, "zone.max_append_bytes", o->max_append_bytes, why);
    if (o->layout)
        return refuse(err, "zone.layout", o->layout, why);
    if (o->descriptor_extension)
        return refuse(err, "zone.descriptor_extension", o->descriptor_extension, why);
    return 0;
}

/* Descriptor extensions stand beside the stored states, which say what zones have one (R16). */
static bool has_states(const struct plan *p, const struct zqcow2_create_options *o)
{
    return p->below.states || o->descriptor_extension;
}

/* Before it is opened: what cannot be stored is not. */
static int check_backing(const struct zqcow2_create_options *o, size_t room,
                         struct zqcow2_error *err)
{
    const char *name = o->backing_name, *format = o->backing_format;

    if (!name)
        return format ? zq_fail(err, -EINVAL, "backing_format: there is no backing_name") : 0;
    if (o->zone_size && !o->resolve)
        return zq_fail(err, -EINVAL, "backing_name: an image with zones needs resolve to open it");
    if ((format || !o->resolve) && zq_check_format(err, format) < 0)
        return -EINVAL;
    if (!name[0] || strlen(name) > room)
        return zq_fail(err, -EINVAL, "backing_name: must have 1 to %zu bytes", room);
    return 0;
}

/*
 * The name is stored as it is given: only a resolver gives it a meaning (S2). The format is stored
 * with it, because an open never guesses one. It has to fit into the header cluster behind the
 * extensions.
 */
static int plan_backing(struct plan *p, const struct zqcow2_create_options *o,
                        struct zqcow2_error *err)
{
    int rc =
        check_backing(o, zq_header_room(p->h.cluster_bits, o->zone_size, has_states(p, o)), err);

    if (rc < 0 || !o->backing_name)
        return rc;
    strcpy(p->backing.name, o->backing_name);
    strcpy(p->backing.format, o->backing_format ? o->backing_format : "qcow2");
    return 0;
}

/*
 * What reads a raw data file without the image sees all of it: nothing may be elsewhere, and what
 * lies beyond a write pointer is not zeros in it (D1).
 */
static int plan_data_file(struct plan *p, const struct zqcow2_create_options *o,
                          struct zqcow2_error *err)
{
    const char *name = o->data_file;
    bool raw = o->flags & ZQCOW2_CREATE_DATA_FILE_RAW;

    if (!name)
        return raw ? refuse(err, "data_file_raw", 1, "requires data_file") : 0;
    if (!name[0] || strlen(name) >= sizeof(p->backing.data_file))
        return zq_fail(err, -EINVAL, "data_file: must have 1 to 1023 bytes");
    if (!o->resolve)
        return zq_fail(err, -EINVAL, "data_file: needs resolve to open it");
    if (o->virtual_size > ZQ_MAX_DATA_SIZE)
        return refuse(err, "size", o->virtual_size, "must be at most 2^56 with a data file");
    if (raw && o->backing_name)
        return refuse(err, "data_file_raw", 1, "not with a backing file");
    if (raw && o->zone_size)
        return refuse(err, "data_file_raw", 1,
                      "not with zones: the file does not contain zeros beyond the write pointers");
    strcpy(p->backing.data_file, name);
    p->h.incompat |= ZQ_INCOMPAT_DATA_FILE;
    p->h.autoclear |= raw ? ZQ_AUTOCLEAR_RAW_DATA : 0;
    if (!zq_header_fits(p->h.cluster_bits, o->zone_size, has_states(p, o), &p->backing))
        return zq_fail(err, -EINVAL, "data_file: the name does not fit into the first cluster");
    return 0;
}

/* Everything that the caller can get wrong is refused here, before the backend is touched. */
static int plan_options(struct plan *p, const struct zqcow2_create_options *o,
                        struct zqcow2_error *err)
{
    int rc = plan_clusters(p, o, err);

    if (rc == 0)
        rc = zq_check_unknown(err, o->flags, known_flags, 0);
    if (rc == 0)
        rc = plan_backing(p, o, err);
    if (rc == 0)
        rc = plan_data_file(p, o, err);
    if (rc < 0)
        return rc;
    if (o->flags & ZQCOW2_CREATE_LAZY_REFCOUNTS) {
        /* Its dirty bit makes other zoned programs free the write-pointer table. */
        if (o->zone_size)
            return refuse(err, "lazy_refcounts", 1, "only for images without zones");
        p->h.compat |= ZQ_COMPAT_LAZY_REFCOUNTS;
    }
    return o->zone_size ? plan_zones(p, o, err) : refuse_zone_options(o, err);
}

/* o: what is not given is set to what the backing file has. */
static int make_plan(struct plan *p, struct zqcow2_backend *be, struct zqcow2_create_options *o,
                     const struct zqcow2_hooks *hooks, struct zqcow2_error *err)
{
    int rc = check_backing(o, sizeof(p->backing.name) - 1, err);

    if (rc == 0)
        rc = zq_inherit_begin(&p->below, be, o, hooks, err);
    if (rc == 0)
        rc = plan_options(p, o, err);
    return rc < 0 ? rc : zq_preallocation_plan(&p->pre, &p->h, &p->g, o, err);
}

/* ---- layout: header, refcounts, write pointers, states, descriptors, L1, L2 tables ---- */

/* R15, R16: the table of states, if there is one, and behind it that of descriptor extensions. */
static uint64_t plan_states(struct plan *p)
{
    uint64_t cluster = (uint64_t)1 << p->h.cluster_bits;
    uint64_t bytes = zq_align_up(zq_states_bytes(p->g.nr_zones), cluster);

    if (!p->below.states && !p->h.descriptor_size)
        return 0;
    p->h.autoclear |= ZQ_AUTOCLEAR_STATES;
    p->h.states_zones = p->g.nr_zones;
    return (bytes +
            zq_align_up(zq_descriptors_bytes(p->h.descriptor_size, p->g.nr_zones), cluster)) >>
           p->h.cluster_bits;
}

/*
 * The refcount table counts all clusters of the new file, itself and its blocks included; how many
 * blocks that takes depends on its own size, which zq_reftable_plan() solves. The tables of the
 * image lie in one piece at the start of the file, and the first data follows them.
 */
static int plan_layout(struct plan *p, struct zqcow2_error *err)
{
    unsigned bits = p->h.cluster_bits;
    uint64_t cluster = (uint64_t)1 << bits;
    uint64_t wp = zq_div_up(zq_entries_bytes(p->g.nr_zones), cluster);
    uint64_t states = plan_states(p);
    uint64_t l1 = zq_div_up(zq_table_bytes(p->h.l1_entries), cluster);
    struct zq_reftable *t = &p->refs;

    *t = (struct zq_reftable){bits, p->h.refcount_order, .base = 1,
                              .behind = wp + states + l1 + zq_preallocation_clusters(&p->pre)};
    if (zq_reftable_plan(t) < 0)
        return refuse(err, "refcount_bits", 1u << p->h.refcount_order,
                      "the refcount table would exceed 8 MiB");
    p->h.rt_offset = cluster;
    p->h.rt_clusters = (uint32_t)zq_reftable_clusters(t);
    p->g.table_offset = zq_reftable_end(t) << bits;
    p->h.l1_offset = p->g.table_offset + ((wp + states) << bits);
    if (states) {
        p->h.states_offset = p->g.table_offset + (wp << bits);
        p->h.descriptors_offset =
            zq_descriptors_behind(&p->h, p->h.states_offset, p->h.states_zones);
    }
    p->tables_end = p->h.l1_offset + (l1 << bits);
    zq_preallocation_place(&p->pre, p->tables_end);
    p->bytes = p->tables_end + (zq_preallocation_clusters(&p->pre) << bits);
    return 0;
}

/* ---- writing: whole clusters, so that the host has the space for what will change (R10) ---- */

/* Real writes, not a hole: a later write into a hole could find the host without space (R10). */
static int write_zeros(struct zqcow2_backend *be, struct plan *p, uint64_t from, uint64_t to)
{
    int rc = 0;

    memset(p->buf, 0, CHUNK);
    while (from < to && rc == 0) {
        uint64_t n = zq_min(to - from, CHUNK);

        rc = zq_be_write(be, p->buf, (size_t)n, from);
        from += n;
    }
    return rc;
}

/* Blocks follow the table, and count all of the new file as in use. */
static int write_refcounts(struct zqcow2_backend *be, struct plan *p)
{
    uint64_t all = zq_reftable_bytes(&p->refs), n;
    int rc = 0;

    for (uint64_t done = 0; done < all && rc == 0; done += n) {
        n = zq_min(all - done, CHUNK);
        zq_reftable_compose(&p->refs, NULL, done, p->buf, n);
        rc = zq_be_write(be, p->buf, (size_t)n, p->h.rt_offset + done);
    }
    return rc;
}

/*
 * Zones are EMPTY, their entries at their starts, or as those of the backing file (S12). The
 * table's last cluster is written to its end.
 */
static int write_zones(struct zqcow2_backend *be, struct plan *p)
{
    for (uint32_t done = 0; done < p->g.nr_zones;) {
        uint32_t n = (uint32_t)zq_min(p->g.nr_zones - done, CHUNK / ZQ_ENTRY);
        int rc;

        for (uint32_t i = 0; i < n; i++) {
            struct zq_entry e = {.wp = zq_geometry_start(&p->g, done + i)};

            if (p->below.pointers)
                zq_inherit_zone(&p->below, done + i, &e);
            zq_entry_encode(&p->g, done + i, e.wp, e.finished, p->buf + zq_entries_bytes(i));
        }
        rc = zq_be_write(be, p->buf, (size_t)zq_entries_bytes(n),
                         p->g.table_offset + zq_entries_bytes(done));
        if (rc < 0)
            return rc;
        done += n;
    }
    return write_zeros(be, p, p->g.table_offset + zq_entries_bytes(p->g.nr_zones),
                       p->h.states_offset ? p->h.states_offset : p->h.l1_offset);
}

/* R15: what the backing file stores of its zones holds for the new image from its first open on. */
static int write_states(struct zqcow2_backend *be, struct plan *p)
{
    uint64_t at = p->h.states_offset;

    if (!at)
        return 0;
    for (uint32_t done = 0; done < p->g.nr_zones;) {
        uint32_t n = (uint32_t)zq_min(p->g.nr_zones - done, CHUNK);
        int rc;

        for (uint32_t i = 0; i < n; i++)
            p->buf[i] = zq_inherit_state(&p->below, done + i);
        rc = zq_be_write(be, p->buf, n, at);
        if (rc < 0)
            return rc;
        done += n;
        at += n;
    }
    return write_zeros(be, p, at,
                       p->h.descriptors_offset ? p->h.descriptors_offset : p->h.l1_offset);
}

/*
 * R16: those of the backing file, beside the states that say where there is one. What no zone has
 * stays a hole: it is written by a request, which a full host refuses, and by no round (R10).
 */
static int write_descriptors(struct zqcow2_backend *be, struct plan *p)
{
    uint32_t size = p->h.descriptor_size, n = size ? CHUNK / size : 0;
    int rc = 0;

    for (uint32_t done = 0; rc == 0 && p->below.states && size && done < p->g.nr_zones; done += n) {
        n = (uint32_t)zq_min(n, p->g.nr_zones - done);
        rc = zq_inherit_descriptors(&p->below, done, n, p->buf);
        if (rc == 0)
            rc = zq_be_write(be, p->buf, (size_t)n * size,
                             p->h.descriptors_offset + (uint64_t)done * size);
    }
    return rc;
}

/* Entries of L1 from number i on, as many as fit in the buffer. */
static uint64_t compose_l1(struct plan *p, uint64_t i)
{
    uint64_t n = zq_min(p->h.l1_entries - i, zq_table_count(CHUNK));

    for (uint64_t k = 0; k < n; k++)
        zq_table_put(p->buf, k, zq_preallocation_l1(&p->pre, i + k));
    return n;
}

static int write_l1(struct zqcow2_backend *be, struct plan *p)
{
    uint64_t end = p->h.l1_offset + zq_table_bytes(p->h.l1_entries);
    int rc = 0;

    for (uint64_t i = 0, n; i < p->h.l1_entries && rc == 0; i += n) {
        n = compose_l1(p, i);
        rc = zq_be_write(be, p->buf, (size_t)zq_table_bytes(n), p->h.l1_offset + zq_table_bytes(i));
    }
    return rc < 0 ? rc : write_zeros(be, p, end, p->tables_end);
}

/*
 * Until its first sector is there, the file is not an image. So the barrier before that sector
 * covers all tables and the rest of the header, and the one behind it makes the success durable
 * (R9).
 */
static int write_header(struct zqcow2_backend *be, struct plan *p)
{
    size_t cluster = (size_t)1 << p->h.cluster_bits;
    size_t len = cluster < ZQ_HEADER_BYTES ? cluster : ZQ_HEADER_BYTES;
    int rc = 0;

    memset(p->buf, 0, len);
    if (p->g.layout)
        p->h.zoned_len = zq_zone_ext_build(&p->g, p->zoned);
    /*
     * The in-use mark is clear: an empty image has nothing that an open would have to recover
     * (R12).
     */
    zq_header_build(&p->h, p->buf, len, p->zoned, &p->backing);
    if (len > ZQ_SECTOR)
        rc = zq_be_write(be, p->buf + ZQ_SECTOR, len - ZQ_SECTOR, ZQ_SECTOR);
    if (rc < 0 || (rc = zq_be_flush(be)) < 0)
        return rc;
    rc = zq_be_write(be, p->buf, ZQ_SECTOR, 0);
    return rc < 0 ? rc : zq_be_flush(be);
}

/*
 * An old image must be gone for good before its clusters are written over: with its header still on
 * disk, a crash would leave an old image with parts of a new one in it. What truncate adds reads as
 * zeros.
 */
static int make_room(struct zqcow2_backend *be, const struct plan *p, uint64_t old_bytes)
{
    int rc = 0;

    if (old_bytes && ((rc = zq_be_truncate(be, 0)) < 0 || (rc = zq_be_flush(be)) < 0))
        return rc;
    return zq_be_truncate(be, p->bytes);
}

static int write_tables(struct zqcow2_backend *be, struct plan *p, struct zqcow2_error *err)
{
    int rc = zq_preallocation_space(&p->pre, p->data.be ? p->data.be : be, err);

    if (rc < 0 || (rc = write_refcounts(be, p)) < 0 || (rc = write_zones(be, p)) < 0 ||
        (rc = write_states(be, p)) < 0 || (rc = write_descriptors(be, p)) < 0 ||
        (rc = write_l1(be, p)) < 0)
        return rc;
    return zq_preallocation_tables(&p->pre, be, p->buf, CHUNK);
}

/* If it fails, the host gets back what would not be used: an error here costs space alone. */
static int write_all(struct zqcow2_backend *be, struct plan *p, uint64_t old_bytes,
                     struct zqcow2_error *err)
{
    int rc = make_room(be, p, old_bytes);

    if (rc < 0)
        return rc;
    rc = write_tables(be, p, err);
    if (rc == 0)
        rc = write_header(be, p);
    if (rc < 0 && p->pre.mode)
        (void)zq_be_truncate(be, 0);
    if (rc < 0 && p->data.anew)
        (void)zq_be_truncate(p->data.be, 0);
    return rc;
}

/*
 * The length is asked under the lock: before it, another program could still be creating an image.
 */
static int create_locked(struct zqcow2_backend *be, const struct zqcow2_create_options *o,
                         const struct zqcow2_hooks *hooks, struct plan *p, struct zqcow2_error *err)
{
    uint64_t bytes;
    int rc = zq_be_length(be, &bytes);

    if (rc < 0)
        return zq_fail_rc(err, rc);
    if (bytes && !(o->flags & ZQCOW2_CREATE_FORCE))
        return zq_fail(err, -EEXIST, "the backend already holds %" PRIu64 " bytes", bytes);
    p->buf = zq_alloc(hooks, 4096, CHUNK);
    if (!p->buf)
        return zq_fail_rc(err, -ENOMEM);
    if (o->data_file)
        rc = zq_new_data_begin(&p->data, be, o, hooks, err);
    if (rc == 0)
        rc = write_all(be, p, bytes, err);
    zq_free(hooks, p->buf, CHUNK);
    return rc < 0 ? zq_fail_rc(err, rc) : 0;
}

static int write_image(struct zqcow2_backend *be, const struct zqcow2_create_options *o,
                       const struct zqcow2_hooks *hooks, struct plan *p, struct zqcow2_error *err)
{
    int rc = zq_be_enter(be, true, true, err), unlock;

    if (rc < 0)
        return rc;
    rc = create_locked(be, o, hooks, p, err);
    unlock = zq_be_leave(be);
    return rc < 0 || unlock >= 0 ? rc : zq_fail_rc(err, unlock);
}

/* p is on the stack and owns what it inherits, and buf only within create_locked(). */
int zq_create(struct zqcow2_backend *be, const struct zqcow2_create_options *opt,
              struct zqcow2_error *err)
{
    struct zqcow2_create_options o;
    struct zqcow2_hooks hooks;
    struct plan p = {0};
    int rc;

    if (err)
        *err = (struct zqcow2_error){0};
    rc = zq_copy_sized(&o, sizeof(o), opt, offsetof(struct zqcow2_create_options, hooks));
    if (rc < 0)
        return zq_fail_rc(err, rc);
    if ((rc = zq_take_hooks(err, &hooks, o.hooks)) < 0)
        return rc;
    rc = make_plan(&p, be, &o, &hooks, err);
    if (rc == 0)
        rc = plan_layout(&p, err);
    if (rc == 0)
        rc = write_image(be, &o, &hooks, &p, err);
    zq_new_data_end(&p.data);
    zq_inherit_end(&p.below);
    return rc;
}
