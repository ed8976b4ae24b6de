/* SPDX-License-Identifier: MIT */
/*
 * Makes new clusters whole and lets them replace what a guest range maps to: allocation,
 * copy-on-write, decompression. The L2 entry is set last, when everything it will point to has been
 * written (K2).
 */
#include <errno.h>
#include "space/fill.h"
#include "base/report.h"
#include "format/codec.h"
#include "space/copyup.h"
#include "space/packed.h"
#include "space/transfer.h"

enum {
    F_OLD,
    F_UNPACK,
    F_BLANK,
    F_BELOW_HEAD,
    F_HEAD,
    F_BELOW_TAIL,
    F_TAIL,
    F_START,
    F_DATA,
    F_MADE
};

/* Content in this image. What a source has is not in the extent: see is_below(). */
static bool has_content(const struct zq_extent *e)
{
    return e->type == ZQ_EXT_DATA || e->type == ZQ_EXT_COMPRESSED;
}

static void free_kept(struct zq_core *c, struct zq_fill *f)
{
    if (!f->kept)
        return;
    zq_packed_free(c, &f->kept->packed);
    zq_free(&c->hooks, f->kept->buf, f->kept->room);
    zq_free(&c->hooks, f->kept, sizeof(*f->kept));
    f->kept = NULL;
}

static void free_fill(struct zq_core *c, struct zq_fill *f)
{
    free_kept(c, f);
    zq_record_drop(&c->alloc, f->freed);
    zq_stock_put(&c->fills, &c->hooks, f, sizeof(*f));
}

/* The record is taken now, when nothing has changed yet (I13). */
static struct zq_fill *new_fill(struct zq_core *c, const struct zq_extent *old)
{
    struct zq_fill *f = zq_stock_take(&c->fills, &c->hooks, sizeof(*f));

    if (!f)
        return NULL;
    f->old = *old;
    f->freed = zq_record_new(&c->alloc);
    if (f->freed)
        return f;
    free_fill(c, f);
    return NULL;
}

/* What must be kept is kept a cluster at a time; what is merely new goes in longer runs. */
static uint64_t like_clusters(const struct zq_core *c, const struct zq_extent *old, uint64_t guest,
                              uint64_t bytes)
{
    uint64_t size = (uint64_t)1 << c->cluster_bits;

    if (old->type != ZQ_EXT_UNALLOC)
        return size;
    bytes = zq_min(bytes, zq_align_up(old->len, size));
    return zq_min(bytes, zq_map_slice_end(&c->map, guest) - guest);
}

void zq_count_slice(struct zq_core *c, struct zq_op *op, uint64_t guest)
{
    if (guest < op->slices_upto)
        return;
    op->slices++;
    op->slices_upto = zq_map_slice_end(&c->map, guest);
}

int zq_fill_prepare(struct zq_core *c, struct zq_op *op, uint64_t guest, uint64_t bytes,
                    const struct zq_extent *old)
{
    struct zq_found found;
    struct zq_fill *f;
    uint32_t n;
    int rc;

    zq_assert(bytes && ((guest | bytes) & (((uint64_t)1 << c->cluster_bits) - 1)) == 0);
    zq_assert_k(R12, c->marked);
    bytes = like_clusters(c, old, guest, bytes);
    rc = zq_map_table(&c->map, &op->g, guest);
    if (rc == 0)
        rc = zq_alloc_find(&c->alloc, &op->g, (uint32_t)(bytes >> c->cluster_bits), &found);
    if (rc)
        return rc;
    n = (uint32_t)zq_min(bytes >> c->cluster_bits, found.count);
    rc = zq_alloc_cover(&c->alloc, &op->g, (found.cluster + n) << c->cluster_bits);
    if (rc)
        return rc;
    f = new_fill(c, old);
    if (!f)
        return -ENOMEM;
    f->guest = guest;
    f->bytes = (uint64_t)n << c->cluster_bits;
    f->host = found.cluster << c->cluster_bits;
    f->tail = f->bytes;
    f->virgin = zq_alloc_is_virgin(&c->alloc, f->host);
    zq_alloc_take(&c->alloc, &found, n);
    zq_cache_release(&c->cache, &op->g);
    zq_list_push(&op->fills, &f->link);
    zq_count_slice(c, op, guest);
    return 0;
}

/* What is kept of it is a source's. */
static bool is_below(const struct zq_fill *f)
{
    return f->kept && f->kept->buf;
}

static bool has_pads(const struct zq_fill *f)
{
    return f->head || f->tail < f->bytes;
}

/* A cluster that the request covers whole keeps nothing, and reads nothing from a source (S5). */
int zq_fill_keep(struct zq_core *c, struct zq_fill *f, uint64_t head, uint64_t tail)
{
    bool below = f->old.type == ZQ_EXT_UNALLOC && zq_map_masks(&c->map, f->guest);

    zq_assert(head <= tail && tail <= f->bytes);
    f->head = head;
    f->tail = tail;
    if (!has_pads(f) || !(below || has_content(&f->old)))
        return 0;
    f->kept = zq_zalloc(&c->hooks, sizeof(*f->kept));
    if (!f->kept)
        return -ENOMEM;
    return below ? zq_copyup_alloc(c, f->kept) :
                   zq_packed_alloc(c, &f->kept->packed, NULL, &f->old.l2);
}

/* What the request covers whole, and what reads as zeros anyway, needs its own bytes only. */
static uint8_t first_phase(const struct zq_fill *f)
{
    if (f->kept)
        return is_below(f) ? F_BELOW_HEAD : F_OLD;
    return has_pads(f) && !f->virgin ? F_BLANK : F_START;
}

void zq_fill_start(struct zq_op *op)
{
    struct zq_fill *f;

    zq_assert(!op->fill && !zq_list_empty(&op->fills));
    f = zq_container(zq_list_pop(&op->fills), struct zq_fill, link);
    f->phase = first_phase(f);
    op->fill = f;
    op->rc = 0;
}

/* The new clusters were never linked: they may go once no write to them is in flight. */
static void give_back(struct zq_core *c, struct zq_fill *f)
{
    f->freed->cluster = f->host >> c->cluster_bits;
    f->freed->count = f->bytes >> c->cluster_bits;
    f->freed->punch = true;
    zq_alloc_quarantine(&c->alloc, f->freed, false);
    f->freed = NULL;
    free_fill(c, f);
    c->want_janitor = true;
}

void zq_fills_drop(struct zq_core *c, struct zq_op *op)
{
    zq_list_splice(&op->fills, &op->made);
    for (struct zq_list *n; (n = zq_list_pop(&op->fills));)
        give_back(c, zq_container(n, struct zq_fill, link));
}

static void unpack_work(struct zq_io *io)
{
    struct zq_op *op = zq_container(io, struct zq_op, io);

    io->ret = zq_packed_inflate(op->core, &op->fill->kept->packed);
}

/* The whole cluster, though only its ends are kept: one read instead of two. */
static int read_old(struct zq_core *c, struct zq_op *op)
{
    struct zq_fill *f = op->fill;
    const struct zq_packed *p = &f->kept->packed;
    uint64_t size = (uint64_t)1 << c->cluster_bits;

    if (f->old.type == ZQ_EXT_COMPRESSED)
        return zq_op_io(c, op, ZQCOW2_IO_READ, p->in, p->host, p->len);
    return zq_op_io(c, op, ZQCOW2_IO_READ, p->out, zq_align_down(f->old.host, size), size);
}

/* Zeros where nothing will be written: needed only where something was written before. */
static int blank(struct zq_core *c, struct zq_op *op)
{
    struct zq_fill *f = op->fill;

    return f->kept ? 0 : zq_op_io(c, op, ZQCOW2_IO_ZERO, NULL, f->host, f->bytes);
}

static int read_below(struct zq_core *c, struct zq_op *op, uint64_t from, uint64_t to)
{
    const struct zq_fill *f = op->fill;

    return from == to || !is_below(f) ? 0 : zq_copyup_step(c, op, f->guest + from, f->guest + to);
}

static int write_kept(struct zq_core *c, struct zq_op *op, uint64_t from, uint64_t to)
{
    struct zq_fill *f = op->fill;
    uint8_t *bytes;

    if (from == to || !f->kept)
        return 0;
    if (is_below(f) && !f->kept->found && f->virgin)
        return 0; /* zeros on zeros */
    bytes = is_below(f) ? f->kept->buf : f->kept->packed.out + from;
    return zq_op_io(c, op, ZQCOW2_IO_WRITE, bytes, f->host + from, to - from);
}

static int run_phase(struct zq_core *c, struct zq_op *op)
{
    struct zq_fill *f = op->fill;

    zq_assert(f->head <= f->tail && f->tail <= f->bytes && f->phase < F_MADE);
    switch (f->phase) {
    case F_OLD: return read_old(c, op);
    case F_UNPACK: return f->kept->packed.in ? zq_op_work(c, op, unpack_work) : 0;
    case F_BLANK: return blank(c, op);
    case F_BELOW_HEAD: return read_below(c, op, 0, f->head);
    case F_BELOW_TAIL: return read_below(c, op, f->tail, f->bytes);
    case F_HEAD: return write_kept(c, op, 0, f->head);
    case F_TAIL: return write_kept(c, op, f->tail, f->bytes);
    case F_START: zq_transfer_begin(op, f->data_kind, f->host + f->head, f->data_len); return 0;
    default: return zq_transfer_step(c, op);
    }
}

/* op->rc: of the I/O that the last phase started. */
static int error_of(const struct zq_core *c, const struct zq_op *op)
{
    return op->rc < 0 ? op->rc : c->dead ? ZQCOW2_EDEAD : 0;
}

/* Others start one io at most. */
static bool takes_several(const struct zq_fill *f)
{
    return f->phase >= F_DATA || f->phase == F_BELOW_HEAD || f->phase == F_BELOW_TAIL;
}

/* Each phase either starts something (ZQ_WAIT, come again when it is done) or is over at once. */
int zq_fill_step(struct zq_core *c, struct zq_op *op)
{
    while (op->fill) {
        struct zq_fill *f = op->fill;
        int rc = error_of(c, op);

        if (rc == 0)
            rc = run_phase(c, op);
        if (rc < 0) {
            zq_copyup_drop(op);
            op->fill = NULL;
            give_back(c, f);
            return rc;
        }
        if (rc == 0 || !takes_several(f))
            f->phase++;
        if (rc == ZQ_WAIT)
            return rc;
        if (f->phase == F_MADE) {
            free_kept(c, f);
            zq_list_push(&op->made, &f->link);
            op->fill = NULL;
        }
    }
    return 0;
}

/*
 * The one moment at which the guest sees the new clusters. The old ones enter the quarantine in the
 * same hold, so they never lack an owner (R5).
 */
int zq_fill_link(struct zq_core *c, struct zq_op *op)
{
    struct zq_fill *f = zq_fill_made(op);
    struct zq_slice *s;
    int rc = error_of(c, op);

    zq_assert_k(K2, f->phase == F_MADE && !op->xfer.moving); /* all of it is in the file */
    if (rc == 0)
        rc = zq_map_slice(&c->map, &op->g, f->guest, &s);
    if (rc == 0)
        rc = zq_cache_writable(&c->cache, &op->g, s, NULL);
    if (rc)
        return rc;
    zq_list_del(&f->link);
    zq_map_owned(&c->map, &f->old.l2, f->freed);
    zq_map_link(&c->map, s, f->guest, f->host, (uint32_t)(f->bytes >> c->cluster_bits));
    if (f->freed->count) {
        zq_alloc_quarantine(&c->alloc, f->freed, true);
        f->freed = NULL;
    }
    zq_cache_release(&c->cache, &op->g);
    free_fill(c, f);
    return 0;
}

int zq_fill_replace(struct zq_core *c, struct zq_op *op)
{
    int rc = zq_fill_step(c, op);

    return rc || !zq_fill_made(op) ? rc : zq_fill_link(c, op);
}

int zq_fill_own(struct zq_core *c, struct zq_op *op, uint64_t guest, uint64_t head,
                const struct zq_extent *old)
{
    uint64_t size = (uint64_t)1 << c->cluster_bits;
    int rc = zq_fill_prepare(c, op, guest, size, old);

    zq_assert_k(S8, head && head < size);
    if (rc == 0)
        rc = zq_fill_keep(c, zq_fill_last(op), head, size);
    if (rc)
        return rc;
    zq_fill_start(op);
    return zq_fill_replace(c, op);
}
