/* SPDX-License-Identifier: MIT */
/*
 * Makes new clusters whole and lets them replace what a guest range maps to: allocation,
 * copy-on-write, decompression. The range belongs to the write meanwhile (R14); the L2 entry is
 * set last, when everything it will point to has been written (K2).
 */
#include <errno.h>
#include "base/report.h"
#include "engine/core.h"
#include "format/codec.h"

enum { F_OLD, F_UNPACK, F_BLANK, F_HEAD, F_TAIL, F_START, F_DATA, F_LINK };

bool zq_range_owned(const struct zq_core *c, uint64_t guest, uint64_t bytes)
{
    for (const struct zq_list *n = c->owners.next; n != &c->owners; n = n->next) {
        const struct zq_fill *f = zq_container(n, const struct zq_fill, owned);
        if (zq_ranges_overlap(guest, bytes, f->guest, f->bytes))
            return true;
    }
    return false;
}

static bool has_content(const struct zq_extent *e)
{
    return e->type == ZQ_EXT_DATA || e->type == ZQ_EXT_COMPRESSED;
}

static void free_buffers(struct zq_core *c, struct zq_fill *f)
{
    zq_free(&c->hooks, f->buf, (size_t)1 << c->cluster_bits);
    zq_free(&c->hooks, f->packed, f->packed_len);
    f->buf = f->packed = NULL;
}

static int take_memory(struct zq_core *c, struct zq_fill *f)
{
    size_t size = (size_t)1 << c->cluster_bits;

    f->packed_len = 0;
    f->freed = zq_zalloc(&c->hooks, sizeof(*f->freed));
    if (!f->freed)
        return -ENOMEM;
    if (!has_content(&f->old))
        return 0;
    if (f->old.type == ZQ_EXT_COMPRESSED)
        zq_compressed_range(f->old.entry, c->cluster_bits, &f->packed_host, &f->packed_len);
    f->buf = zq_alloc(&c->hooks, 4096, size);
    f->packed = zq_alloc(&c->hooks, 4096, f->packed_len);
    return !f->buf || (f->packed_len && !f->packed) ? -ENOMEM : 0;
}

static void give_up_memory(struct zq_core *c, struct zq_fill *f)
{
    free_buffers(c, f);
    zq_free(&c->hooks, f->freed, sizeof(*f->freed));
    f->freed = NULL;
}

/* What must be kept is kept a cluster at a time; what is merely new goes in longer runs. */
static uint64_t like_clusters(const struct zq_core *c, const struct zq_extent *old, uint64_t guest,
                              uint64_t bytes)
{
    uint64_t size = (uint64_t)1 << c->cluster_bits;

    if (old->type != ZQ_EXT_UNALLOC)
        return size;
    bytes = zq_min(bytes, zq_round_up(old->len, size));
    return zq_min(bytes, zq_map_slice_end(&c->map, guest) - guest);
}

int zq_fill_begin(struct zq_core *c, struct zq_op *op, uint64_t guest, uint64_t bytes,
                  const struct zq_extent *old)
{
    struct zq_fill *f = &op->fill;
    struct zq_found found;
    uint32_t n;
    int rc;

    bytes = like_clusters(c, old, guest, bytes);
    if (zq_range_owned(c, guest, bytes))
        return zq_cache_park(&c->cache, &op->g, &c->owner_waiters);
    rc = zq_map_table(&c->map, &op->g, guest);
    if (rc == 0)
        rc = zq_alloc_find(&c->alloc, &op->g, (uint32_t)(bytes >> c->cluster_bits), &found);
    if (rc)
        return rc;
    n = (uint32_t)zq_min(bytes >> c->cluster_bits, found.count);
    rc = zq_alloc_cover(&c->alloc, &op->g, (found.cluster + n) << c->cluster_bits);
    if (rc)
        return rc;
    f->old = *old;
    rc = take_memory(c, f);
    if (rc < 0) {
        give_up_memory(c, f);
        return rc;
    }
    f->guest = guest;
    f->bytes = (uint64_t)n << c->cluster_bits;
    f->host = found.cluster << c->cluster_bits;
    f->head = 0;
    f->tail = f->bytes;
    f->data_len = 0;
    f->virgin = zq_alloc_is_virgin(&c->alloc, f->host);
    zq_alloc_take(&c->alloc, &found, n);
    zq_cache_release(&c->cache, &op->g);
    zq_list_push(&c->owners, &f->owned);
    f->active = true;
    op->fill_phase = F_OLD;
    op->rc = 0;
    return 0;
}

static void fill_end(struct zq_core *c, struct zq_op *op)
{
    struct zq_fill *f = &op->fill;

    free_buffers(c, f);
    zq_list_del(&f->owned);
    zq_wake(&c->ready, &c->owner_waiters);
    f->active = false;
}

static int fill_fail(struct zq_core *c, struct zq_op *op, int rc)
{
    struct zq_fill *f = &op->fill;

    f->freed->cluster = f->host >> c->cluster_bits;
    f->freed->count = f->bytes >> c->cluster_bits;
    f->freed->punch = true;
    zq_alloc_quarantine(&c->alloc, f->freed, false);
    f->freed = NULL;
    fill_end(c, op);
    zq_janitor_kick(c);
    return rc;
}

static void unpack_work(struct zq_io *io)
{
    struct zq_op *op = zq_container(io, struct zq_op, io);
    struct zq_core *c = op->core;

    io->ret = zq_decompress(&c->hooks, (enum zq_compression)c->hdr.compression_type, op->fill.packed,
                            op->fill.packed_len, op->fill.buf, (size_t)1 << c->cluster_bits);
}

static int read_old(struct zq_core *c, struct zq_op *op)
{
    struct zq_fill *f = &op->fill;
    uint64_t size = (uint64_t)1 << c->cluster_bits;
    bool pads = f->head || f->tail < f->bytes;

    if (!pads || !has_content(&f->old))
        return 0;
    if (f->old.type == ZQ_EXT_COMPRESSED)
        return zq_op_io(c, op, ZQCOW2_IO_READ, f->packed, f->packed_host, f->packed_len);
    return zq_op_io(c, op, ZQCOW2_IO_READ, f->buf, zq_round_down(f->old.host, size), size);
}

/* Zeros where nothing will be written: only needed where somebody has written before. */
static int blank(struct zq_core *c, struct zq_op *op)
{
    struct zq_fill *f = &op->fill;

    if (f->virgin || has_content(&f->old) || (!f->head && f->tail == f->bytes))
        return 0;
    return zq_op_io(c, op, ZQCOW2_IO_ZERO, NULL, f->host, f->bytes);
}

static int write_kept(struct zq_core *c, struct zq_op *op, uint64_t from, uint64_t to)
{
    struct zq_fill *f = &op->fill;

    if (from == to || !has_content(&f->old))
        return 0;
    return zq_op_io(c, op, ZQCOW2_IO_WRITE, f->buf + from, f->host + from, to - from);
}

static int link_new(struct zq_core *c, struct zq_op *op)
{
    struct zq_fill *f = &op->fill;
    struct zq_slice *s;
    int rc = zq_map_slice(&c->map, &op->g, f->guest, &s);

    if (rc == 0)
        rc = zq_cache_writable(&c->cache, &op->g, s, NULL);
    if (rc)
        return rc;
    zq_map_owned(&c->map, f->old.type == ZQ_EXT_UNALLOC ? 0 : f->old.entry, f->freed);
    zq_map_link(&c->map, s, f->guest, f->host, (uint32_t)(f->bytes >> c->cluster_bits));
    if (f->freed->count)
        zq_alloc_quarantine(&c->alloc, f->freed, true);
    else
        zq_free(&c->hooks, f->freed, sizeof(*f->freed));
    f->freed = NULL;
    zq_cache_release(&c->cache, &op->g);
    fill_end(c, op);
    return 0;
}

static int run_phase(struct zq_core *c, struct zq_op *op)
{
    struct zq_fill *f = &op->fill;

    switch (op->fill_phase) {
    case F_OLD:
        return read_old(c, op);
    case F_UNPACK:
        return f->packed && (f->head || f->tail < f->bytes) ? zq_op_work(c, op, unpack_work) : 0;
    case F_BLANK:
        return blank(c, op);
    case F_HEAD:
        return write_kept(c, op, 0, f->head);
    case F_TAIL:
        return write_kept(c, op, f->tail, f->bytes);
    case F_START:
        zq_transfer_begin(op, f->data_kind, f->host + f->head, f->data_len);
        return 0;
    case F_DATA:
        return zq_transfer_step(c, op);
    default:
        return link_new(c, op);
    }
}

/* Each phase either starts something (ZQ_WAIT, come again when it is done) or is over at once. */
int zq_fill_step(struct zq_core *c, struct zq_op *op)
{
    while (op->fill.active) {
        int rc = op->rc < 0 ? op->rc : c->dead ? ZQCOW2_EDEAD : run_phase(c, op);

        if (rc < 0)
            return fill_fail(c, op, rc);
        if (rc == ZQ_WAIT) {
            /* One io a phase, but for the data, which may need several. */
            if (op->fill_phase < F_DATA)
                op->fill_phase++;
            return ZQ_WAIT;
        }
        if (op->fill_phase < F_LINK)
            op->fill_phase++;
    }
    return 0;
}
