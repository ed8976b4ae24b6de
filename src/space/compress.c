/* SPDX-License-Identifier: MIT */
/*
 * Clusters that are written compressed: packed into memory first, because only then it is known how
 * much room they need; then they get it, and go there; they are linked like any other new cluster,
 * when all of them is in the file (K2). A request has one of its clusters in memory at a time.
 */
#include <errno.h>
#include "space/compress.h"
#include "base/report.h"
#include "format/codec.h"
#include "space/fill.h"
#include "space/packed.h"
#include "space/transfer.h"

enum { C_PACKED = 1, C_WRITTEN };

/* The device's last cluster may be short: behind it zeros are stored. */
static void pack_work(struct zq_io *io)
{
    struct zq_op *op = zq_container(io, struct zq_op, io);
    struct zq_fill *f = zq_fill_last(op);
    struct zq_packed *p = &f->kept->old;
    uint64_t n = zq_min(f->bytes, op->length - op->pos);
    size_t size;

    zq_iov_copy_in(op, p->in, n);
    memset(p->in + n, 0, (size_t)(f->bytes - n));
    io->ret = zq_compress(&op->core->hooks, (enum zq_compression)p->compression, p->level, p->in,
                          (size_t)f->bytes, p->out, (size_t)(f->bytes - ZQ_SECTOR), &size);
    p->size = zq_align_up(size, ZQ_SECTOR);
    memset(p->out + size, 0, (size_t)(p->size - size));
}

static int begin(struct zq_core *c, struct zq_op *op, uint64_t guest, const struct zq_extent *old,
                 int level)
{
    struct zq_fill *f = zq_fill_new(c, op, guest, old);
    int rc;

    zq_assert_k(R12, c->marked);
    if (!f)
        return -ENOMEM;
    f->kept->old.compression = c->hdr.compression_type;
    f->kept->old.level = level;
    rc = zq_packed_room(c, &f->kept->old, f->bytes, f->bytes);
    if (rc < 0)
        return rc;
    f->phase = C_PACKED;
    zq_cache_release(&c->cache, &op->g);
    return zq_op_work(c, op, pack_work, zq_cost_of(f->bytes, ZQ_COST_PACK));
}

/* Room for it in the file. What is too far behind for an entry is not compressed. */
static int find_place(struct zq_core *c, struct zq_op *op, struct zq_fill *f, uint64_t size)
{
    struct zq_place p = {.bytes = 0};
    int rc = zq_packing_find(&c->alloc, &op->g, size, &p);

    if (rc)
        return rc;
    f->kept->old.size = zq_l2_may_pack(&c->map.form, p.host + size) ? size : 0;
    if (!f->kept->old.size)
        return 0;
    f->host = p.host;
    f->packed = size;
    zq_packing_take(&c->alloc, &p);
    return 0;
}

static int find_cluster(struct zq_core *c, struct zq_op *op, struct zq_fill *f)
{
    struct zq_found found;
    int rc = zq_alloc_find(&c->alloc, &op->g, 1, &found);

    if (rc)
        return rc;
    f->host = found.cluster << c->cluster_bits;
    rc = zq_alloc_cover(&c->alloc, &op->g, f->host + f->bytes);
    if (rc == 0)
        zq_alloc_take(&c->alloc, &found, 1);
    return rc;
}

static int write_out(struct zq_core *c, struct zq_op *op, struct zq_fill *f)
{
    const struct zq_packed *p = &f->kept->old;
    int rc = zq_map_table(&c->map, &op->g, f->guest);

    if (rc == 0 && p->size)
        rc = find_place(c, op, f, p->size);
    if (rc == 0 && !p->size)
        rc = find_cluster(c, op, f);
    if (rc)
        return rc;
    f->in_place = false;
    f->phase = C_WRITTEN;
    zq_count_slice(c, op, f->guest);
    zq_cache_release(&c->cache, &op->g);
    return zq_op_data_io(c, op, ZQCOW2_IO_WRITE, f->packed ? p->out : p->in, f->host,
                         f->packed ? f->packed : f->bytes);
}

int zq_compress_step(struct zq_core *c, struct zq_op *op, uint64_t guest,
                     const struct zq_extent *old, int level)
{
    struct zq_fill *f;
    int rc = op->rc < 0 ? op->rc : c->dead ? ZQCOW2_EDEAD : 0;

    if (rc < 0)
        return rc;
    if (!zq_compress_is_begun(op))
        return begin(c, op, guest, old, level);
    f = zq_fill_last(op);
    zq_assert_k(R14, f->guest == guest);
    if (f->phase == C_PACKED)
        return write_out(c, op, f);
    zq_fill_set_made(c, op, f);
    return 0;
}

bool zq_compress_is_futile(const struct zq_op *op)
{
    const struct zq_fill *f;

    if (!zq_compress_is_begun(op) || op->rc < 0)
        return false;
    f = zq_container(op->fills.prev, const struct zq_fill, link);
    return f->phase == C_PACKED && !f->kept->old.size;
}
