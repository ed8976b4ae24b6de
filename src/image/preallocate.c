/* SPDX-License-Identifier: MIT */
/*
 * Maps every cluster of a new device, in the order of the device, and gets their space from the
 * host. What truncate() has added reads as zeros, so the device does, too. No write has to allocate
 * then; in a sequential zone what is mapped lies beyond the write pointer, as if it had been mapped
 * ahead (R4).
 */
#include "image/preallocate.h"

#include <errno.h>
#include <inttypes.h>

#include "base/report.h"
#include "format/l2entry.h"

#define PIECE ((uint64_t)64 << 20) /* bytes between two calls of progress */

/* A cluster with content would hide that of the backing file; one that only has a place does not.
 */
static int check_backing(const struct zqcow2_create_options *o, struct zqcow2_error *err)
{
    if (!o->backing_name)
        return 0;
    if (o->zone_size)
        return zq_fail(err, -EINVAL, "preallocation: not for zones with a backing file");
    if (!(o->flags & ZQCOW2_CREATE_EXTENDED_L2))
        return zq_fail(err, -EINVAL, "preallocation: with a backing file, extended_l2 is required");
    return 0;
}

/* No write gets behind the capacity of a zone: nothing is mapped there. */
static void plan_data(struct zq_preallocation *p, const struct zq_geometry *g)
{
    unsigned bits = p->form.cluster_bits;
    uint64_t cluster = (uint64_t)1 << bits, last;

    p->clusters = p->mapped = p->flat = zq_div_up(p->size, cluster);
    if (!g->layout || g->capacity == g->zone_size)
        return;
    p->in_zone = g->zone_size >> bits;
    p->below_capacity = zq_div_up(g->capacity, cluster);
    p->flat = g->conventional * p->in_zone;
    last = p->clusters - (g->nr_zones - 1) * p->in_zone;
    p->mapped = p->flat + (g->nr_zones - g->conventional - 1) * p->below_capacity +
                zq_min(last, p->below_capacity);
}

/* Raw: a program that writes the data file by itself writes the device (D1). */
int zq_preallocation_plan(struct zq_preallocation *p, const struct zq_header *h,
                          const struct zq_geometry *g, const struct zqcow2_create_options *o,
                          struct zqcow2_error *err)
{
    bool raw = h->autoclear & ZQ_AUTOCLEAR_RAW_DATA;
    int rc = o->preallocation ? check_backing(o, err) : 0;

    if (o->preallocation > ZQCOW2_PREALLOCATE_FULL)
        return zq_fail(err, -EINVAL, "preallocation %" PRIu32 ": must be 0 to 3", o->preallocation);
    if (rc < 0 || (!o->preallocation && !raw))
        return rc;
    p->form = zq_form_of(h);
    p->mode = o->preallocation;
    p->elsewhere = h->incompat & ZQ_INCOMPAT_DATA_FILE;
    /* As QEMU has it; a write to a sequential zone takes clusters with content only. */
    p->hollow = p->form.extended && !raw && !g->layout;
    p->size = h->virtual_size;
    p->tables = h->l1_entries;
    p->progress = o->progress;
    p->progress_arg = o->progress_arg;
    plan_data(p, g);
    if (zq_preallocation_clusters(p) >= ZQ_MAX_HOST_OFFSET >> h->cluster_bits)
        return zq_fail(err, -EINVAL, "preallocation: the file would exceed 2^56 bytes");
    return 0;
}

uint64_t zq_preallocation_clusters(const struct zq_preallocation *p)
{
    return p->tables + (p->elsewhere ? 0 : p->mapped);
}

void zq_preallocation_place(struct zq_preallocation *p, uint64_t at)
{
    p->l2_offset = at;
    p->data_offset = p->elsewhere ? 0 : at + (p->tables << p->form.cluster_bits);
}

uint64_t zq_preallocation_l1(const struct zq_preallocation *p, uint64_t i)
{
    return p->tables ? zq_l1_set_own(p->l2_offset + (i << p->form.cluster_bits), true) : 0;
}

/*
 * How many clusters from number i on are alike, and where the first of them lies; UINT64_MAX: they
 * are not mapped.
 */
static uint64_t alike(const struct zq_preallocation *p, uint64_t i, uint64_t *host)
{
    uint64_t zone = i < p->flat ? 0 : (i - p->flat) / p->in_zone;
    uint64_t in = i - p->flat - zone * p->in_zone;

    *host = UINT64_MAX;
    if (i >= p->flat && in >= p->below_capacity)
        return zq_min(p->in_zone - in, p->clusters - i);
    *host = p->elsewhere ? i : i < p->flat ? i : p->flat + zone * p->below_capacity + in;
    *host = p->data_offset + (*host << p->form.cluster_bits);
    return zq_min(i < p->flat ? p->flat - i : p->below_capacity - in, p->clusters - i);
}

/* ---- progress ---- */

static bool has_space(const struct zq_preallocation *p)
{
    return p->mode >= ZQCOW2_PREALLOCATE_FALLOC;
}

static int advance(struct zq_preallocation *p, uint64_t bytes)
{
    uint64_t clusters = (has_space(p) ? p->mapped : 0) + p->tables;
    uint64_t total = clusters << p->form.cluster_bits;

    p->done = zq_min(p->done + bytes, total);
    return p->progress && p->progress(p->progress_arg, p->done, total) ? -ECANCELED : 0;
}

/* ---- the host's space ---- */

typedef int space_fn(struct zqcow2_backend *be, uint64_t off, uint64_t len);

/* Nothing is written behind the end of the device in a data file. */
static int each_piece(struct zq_preallocation *p, struct zqcow2_backend *data, uint64_t host,
                      uint64_t bytes, space_fn *fn)
{
    uint64_t end = host + bytes, n;
    int rc = 0;

    if (p->elsewhere)
        end = zq_min(end, p->size);
    for (; host < end && rc == 0; host += n) {
        n = zq_min(end - host, PIECE);
        rc = fn(data, host, n);
        if (rc == 0)
            rc = advance(p, fn == zq_be_allocate && p->mode == ZQCOW2_PREALLOCATE_FULL ? 0 : n);
    }
    return rc;
}

static int each_run(struct zq_preallocation *p, struct zqcow2_backend *data, space_fn *fn)
{
    uint64_t host;
    int rc = 0;

    if (!p->elsewhere)
        return each_piece(p, data, p->data_offset, p->mapped << p->form.cluster_bits, fn);
    for (uint64_t i = 0, n; i < p->clusters && rc == 0; i += n) {
        n = alike(p, i, &host);
        if (host != UINT64_MAX)
            rc = each_piece(p, data, host, n << p->form.cluster_bits, fn);
    }
    return rc < 0 ? rc : zq_be_flush(data);
}

/* Full: the host is asked first, so that it refuses at once and not when it has been filled. */
int zq_preallocation_space(struct zq_preallocation *p, struct zqcow2_backend *data,
                           struct zqcow2_error *err)
{
    bool full = p->mode == ZQCOW2_PREALLOCATE_FULL;
    int rc = has_space(p) ? each_run(p, data, zq_be_allocate) : 0;

    if (full && (rc == 0 || rc == -EOPNOTSUPP))
        rc = each_run(p, data, zq_be_write_zeros);
    if (rc == -ENOSPC)
        return zq_fail(err, rc, "preallocation: the host has no room for %" PRIu64 " bytes",
                       p->mapped << p->form.cluster_bits);
    if (rc == -EOPNOTSUPP)
        return zq_fail(err, rc, "preallocation falloc: not supported here; full is");
    return rc;
}

/* ---- tables: one array of entries, a cluster each ---- */

static void link_run(const struct zq_preallocation *p, uint64_t host, uint8_t *entry, uint64_t n)
{
    zq_l2_link(&p->form, entry, host, (uint32_t)n);
    for (uint64_t k = 0; p->hollow && k < n; k++)
        zq_l2_unlink_part(&p->form, zq_l2_at(&p->form, entry, k), 0,
                          (uint64_t)1 << p->form.cluster_bits, false);
}

/* n entries from number `first` on; those behind the device are empty. */
static void compose(const struct zq_preallocation *p, uint64_t first, uint8_t *buf, uint64_t n)
{
    uint64_t end = zq_min(first + n, p->clusters), host;

    for (uint64_t i = first, part; i < end; i += part) {
        part = zq_min(alike(p, i, &host), end - i);
        if (host != UINT64_MAX)
            link_run(p, host, zq_l2_at(&p->form, buf, i - first), part);
    }
}

int zq_preallocation_tables(struct zq_preallocation *p, struct zqcow2_backend *be, uint8_t *buf,
                            uint64_t room)
{
    uint64_t all, n;
    int rc = 0;

    if (!p->tables) /* nor is the form set */
        return 0;
    all = p->tables << zq_l2_table_bits(&p->form);
    for (uint64_t i = 0; i < all && rc == 0; i += n) {
        n = zq_min(all - i, room >> zq_l2_entry_bits(&p->form));
        memset(buf, 0, (size_t)room);
        compose(p, i, buf, n);
        rc = zq_be_write(be, buf, (size_t)zq_l2_bytes(&p->form, n),
                         p->l2_offset + zq_l2_bytes(&p->form, i));
        if (rc == 0)
            rc = advance(p, zq_l2_bytes(&p->form, n));
    }
    return rc;
}
