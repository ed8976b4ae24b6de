/* SPDX-License-Identifier: MIT */
/*
 * Makes clusters whole and lets a guest range map to them: allocation, copy-on-write,
 * decompression; or units of a cluster that is there, which have no content yet. The L2 entry is
 * set last, when everything it will point to has been written (K2).
 */
#include <errno.h>
#include "space/fill.h"
#include "base/report.h"
#include "format/codec.h"
#include "space/copyup.h"
#include "space/packed.h"
#include "space/transfer.h"

enum {
    F_BLANK,
    F_OLD,
    F_UNPACK,
    F_OLD_HEAD,
    F_OLD_TAIL,
    F_BELOW_HEAD,
    F_HEAD,
    F_BELOW_TAIL,
    F_TAIL,
    F_START,
    F_DATA,
    F_MADE
};

static void free_kept(struct zq_core *c, struct zq_fill *f)
{
    if (!f->kept)
        return;
    zq_packed_free(c, &f->kept->old);
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

/* ---- what is kept ---- */

/* Old content in front of what is written: up to here; it begins at old.l2.data. */
static uint64_t old_head_end(const struct zq_fill *f)
{
    return zq_min(f->old.l2.data_end, f->keep_head == ZQ_KEEP_OLD ? f->head : f->from);
}

/* Old content behind it: from here up to old.l2.data_end. */
static uint64_t old_tail(const struct zq_fill *f)
{
    return zq_max(f->old.l2.data, f->keep_tail == ZQ_KEEP_OLD ? f->tail : f->to);
}

/* Must old content be copied into a new cluster? */
static bool keeps_old(const struct zq_fill *f)
{
    return !f->in_place && (f->old.l2.data < old_head_end(f) || old_tail(f) < f->old.l2.data_end);
}

static bool keeps(const struct zq_fill *f, enum zq_keep what)
{
    return f->keep_head == what || f->keep_tail == what;
}

static enum zq_keep keeper_of(const struct zq_core *c, uint64_t guest, enum zq_extent_type type)
{
    if (type == ZQ_EXT_DATA || type == ZQ_EXT_COMPRESSED)
        return ZQ_KEEP_OLD;
    return zq_map_reads_zeros(&c->map, guest, type) ? ZQ_KEEP_ZEROS : ZQ_KEEP_BELOW;
}

/* The unit that the request ends in need not be like the one that it begins in. */
static int find_kept(struct zq_core *c, struct zq_op *op, struct zq_fill *f)
{
    uint64_t unit = zq_l2_unit_bytes(&c->map.form);
    struct zq_extent e;
    int rc = 0;

    f->from = zq_align_down(f->head, unit);
    f->to = zq_align_up(f->tail, unit);
    if (f->from < f->head)
        f->keep_head = keeper_of(c, f->guest, f->old.type);
    if (f->to == f->tail)
        return 0;
    e = f->old;
    if (f->to - f->from > unit && e.l2.used && e.type != ZQ_EXT_COMPRESSED)
        rc = zq_map_lookup(&c->map, &op->g, f->guest + f->tail - 1, 1, &e);
    f->keep_tail = keeper_of(c, f->guest, e.type);
    return rc;
}

static int new_kept(struct zq_core *c, struct zq_fill *f)
{
    int rc = 0;

    if (!keeps_old(f) && !keeps(f, ZQ_KEEP_BELOW))
        return 0;
    f->kept = zq_zalloc(&c->hooks, sizeof(*f->kept));
    if (!f->kept)
        return -ENOMEM;
    if (keeps_old(f))
        rc = zq_packed_alloc(c, &f->kept->old, NULL, &f->old.l2);
    return rc == 0 && keeps(f, ZQ_KEEP_BELOW) ? zq_copyup_alloc(c, f->kept) : rc;
}

/* ---- beforehand ---- */

/* What must be kept is kept a cluster at a time; what is merely new goes in longer runs. */
static uint64_t like_clusters(const struct zq_core *c, const struct zq_extent *old, uint64_t guest,
                              uint64_t bytes)
{
    uint64_t size = (uint64_t)1 << c->cluster_bits;

    if (old->l2.used)
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

/*
 * Units of a cluster that is there; or clusters of a data file, where each has its place, which
 * nobody else takes (D1).
 */
static int find_room(struct zq_core *c, struct zq_op *op, struct zq_fill *f)
{
    f->in_place = true;
    f->host = c->map.form.external ? f->guest : f->old.l2.host;
    if (c->map.form.external)
        return 0; /* it covers the device */
    return zq_alloc_cover(&c->alloc, &op->g, f->host + f->bytes);
}

static int find_new(struct zq_core *c, struct zq_op *op, struct zq_fill *f, struct zq_found *found)
{
    uint64_t wanted = f->bytes >> c->cluster_bits, n;
    int rc = zq_alloc_find(&c->alloc, &op->g, (uint32_t)wanted, found);

    if (rc)
        return rc;
    n = zq_min(wanted, found->count);
    f->bytes = n << c->cluster_bits;
    f->host = found->cluster << c->cluster_bits;
    f->virgin = zq_alloc_is_virgin(&c->alloc, f->host);
    return zq_alloc_cover(&c->alloc, &op->g, f->host + f->bytes);
}

/* All that the fill needs; what is found is taken in the same hold of the mutex. */
static int find_all(struct zq_core *c, struct zq_op *op, struct zq_fill *f, uint64_t at,
                    uint64_t end, struct zq_found *found)
{
    int rc = zq_map_table(&c->map, &op->g, f->guest);

    f->bytes = like_clusters(c, &f->old, f->guest,
                             zq_align_up(end, (uint64_t)1 << c->cluster_bits) - f->guest);
    if (rc == 0)
        rc = c->map.form.external || zq_fill_has_room(&f->old) ? find_room(c, op, f) :
                                                                 find_new(c, op, f, found);
    f->head = at - f->guest;
    f->tail = zq_min(end - f->guest, f->bytes);
    if (rc == 0)
        rc = find_kept(c, op, f);
    if (rc)
        return rc;
    f->freed = zq_record_new(&c->alloc); /* now, when nothing has changed yet (I13) */
    return f->freed ? new_kept(c, f) : -ENOMEM;
}

int zq_fill_prepare(struct zq_core *c, struct zq_op *op, uint64_t at, uint64_t end,
                    const struct zq_extent *old)
{
    struct zq_fill *f = zq_stock_take(&c->fills, &c->hooks, sizeof(*f));
    struct zq_found found;
    int rc;

    zq_assert(at < end);
    zq_assert_k(R12, c->marked);
    if (!f)
        return -ENOMEM;
    f->guest = zq_align_down(at, (uint64_t)1 << c->cluster_bits);
    f->old = *old;
    rc = find_all(c, op, f, at, end, &found);
    if (rc) {
        free_fill(c, f);
        return rc;
    }
    if (!f->in_place)
        zq_alloc_take(&c->alloc, &found, (uint32_t)(f->bytes >> c->cluster_bits));
    zq_cache_release(&c->cache, &op->g);
    zq_list_push(&op->fills, &f->link);
    zq_count_slice(c, op, f->guest);
    return 0;
}

struct zq_fill *zq_fill_new(struct zq_core *c, struct zq_op *op, uint64_t guest,
                            const struct zq_extent *old)
{
    struct zq_fill *f = zq_stock_take(&c->fills, &c->hooks, sizeof(*f));

    if (!f)
        return NULL;
    f->guest = guest;
    f->old = *old;
    f->bytes = f->tail = f->to = (uint64_t)1 << c->cluster_bits;
    f->in_place = true;
    f->freed = zq_record_new(&c->alloc);
    f->kept = zq_zalloc(&c->hooks, sizeof(*f->kept));
    if (f->freed && f->kept) {
        zq_list_push(&op->fills, &f->link);
        return f;
    }
    free_fill(c, f);
    return NULL;
}

void zq_fill_set_made(struct zq_core *c, struct zq_op *op, struct zq_fill *f)
{
    zq_list_del(&f->link);
    f->phase = F_MADE;
    free_kept(c, f);
    zq_list_push(&op->made, &f->link);
}

/* What the request covers whole, and what reads as zeros anyway, needs its own bytes only. */
static uint8_t first_phase(const struct zq_fill *f)
{
    if (keeps(f, ZQ_KEEP_ZEROS) && !f->virgin)
        return F_BLANK;
    if (keeps_old(f))
        return F_OLD;
    return keeps(f, ZQ_KEEP_BELOW) ? F_BELOW_HEAD : F_START;
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
    uint64_t bytes = f->packed ? f->packed : f->bytes;

    if (f->in_place) {
        free_fill(c, f);
        return;
    }
    f->freed->cluster = f->host >> c->cluster_bits;
    f->freed->count = ((f->host + bytes - 1) >> c->cluster_bits) - f->freed->cluster + 1;
    f->freed->punch = !f->packed; /* others are in the cluster of a compressed one */
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

    io->ret = zq_packed_inflate(op->core, &op->fill->kept->old);
}

/*
 * All of it, though only its ends may be kept: one read instead of two. No more: the file may end
 * behind the last unit that has content.
 */
static int read_old(struct zq_core *c, struct zq_op *op)
{
    const struct zq_fill *f = op->fill;
    uint64_t data = f->old.l2.data;
    const struct zq_packed *p;

    if (!keeps_old(f))
        return 0;
    p = &f->kept->old;
    if (f->old.l2.type == ZQ_EXT_COMPRESSED)
        return zq_op_data_io(c, op, ZQCOW2_IO_READ, p->in, p->host, p->len);
    return zq_op_data_io(c, op, ZQCOW2_IO_READ, p->out + data, f->old.l2.host + data,
                         f->old.l2.data_end - data);
}

static int unpack_old(struct zq_core *c, struct zq_op *op)
{
    const struct zq_kept *k = op->fill->kept;

    return k && k->old.in ? zq_op_work(c, op, unpack_work, zq_packed_cost(&k->old)) : 0;
}

static int write_old(struct zq_core *c, struct zq_op *op, uint64_t from, uint64_t to)
{
    const struct zq_fill *f = op->fill;

    if (!keeps_old(f) || from >= to)
        return 0;
    return zq_op_data_io(c, op, ZQCOW2_IO_WRITE, f->kept->old.out + from, f->host + from,
                         to - from);
}

static int read_below(struct zq_core *c, struct zq_op *op, uint64_t from, uint64_t to)
{
    return zq_copyup_step(c, op, op->fill->guest + from, op->fill->guest + to);
}

static int write_below(struct zq_core *c, struct zq_op *op, uint64_t from, uint64_t to)
{
    const struct zq_fill *f = op->fill;

    if (!f->kept->found && f->virgin)
        return 0; /* zeros on zeros */
    return zq_op_data_io(c, op, ZQCOW2_IO_WRITE, f->kept->buf, f->host + from, to - from);
}

/* Content of a source. */
static int keep_below(struct zq_core *c, struct zq_op *op)
{
    const struct zq_fill *f = op->fill;
    bool head = f->keep_head == ZQ_KEEP_BELOW, tail = f->keep_tail == ZQ_KEEP_BELOW;

    switch (f->phase) {
    case F_BELOW_HEAD: return head ? read_below(c, op, f->from, f->head) : 0;
    case F_HEAD: return head ? write_below(c, op, f->from, f->head) : 0;
    case F_BELOW_TAIL: return tail ? read_below(c, op, f->tail, f->to) : 0;
    default: return tail ? write_below(c, op, f->tail, f->to) : 0;
    }
}

/* A place that zeros have kept keeps its space, which a later write must find (NO_UNMAP). */
static int blank(struct zq_core *c, struct zq_op *op)
{
    const struct zq_fill *f = op->fill;
    bool kept = f->in_place && f->old.type == ZQ_EXT_ZERO;

    return zq_op_data_io(c, op, kept ? ZQ_IO_ALLOCATE : ZQCOW2_IO_ZERO, NULL, f->host + f->from,
                         f->to - f->from);
}

static int run_phase(struct zq_core *c, struct zq_op *op)
{
    struct zq_fill *f = op->fill;

    zq_assert(f->head <= f->tail && f->tail <= f->bytes && f->phase < F_MADE);
    switch (f->phase) {
    case F_BLANK: return blank(c, op);
    case F_OLD: return read_old(c, op);
    case F_UNPACK: return unpack_old(c, op);
    case F_OLD_HEAD: return write_old(c, op, f->old.l2.data, old_head_end(f));
    case F_OLD_TAIL: return write_old(c, op, old_tail(f), f->old.l2.data_end);
    case F_START: zq_transfer_begin(op, f->data_kind, f->host + f->head, f->data_len); return 0;
    case F_DATA: return zq_transfer_step(c, op);
    default: return keep_below(c, op);
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
            zq_fill_set_made(c, op, f);
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
    if (!f->in_place)
        zq_map_owned(&c->map, &f->old.l2, f->freed);
    if (f->packed)
        zq_map_link_packed(&c->map, s, f->guest, f->host, f->packed);
    else
        zq_map_link_part(&c->map, s, f->guest, f->host, f->from, f->to);
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
    int rc = zq_fill_prepare(c, op, guest + head, guest + size, old);

    zq_assert_k(S8, head && head < size);
    if (rc)
        return rc;
    zq_fill_start(op);
    return zq_fill_replace(c, op);
}
