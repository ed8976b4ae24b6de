/* SPDX-License-Identifier: MIT */
/*
 * Compresses one cluster of a FULL zone in place of what it was.
 *
 * The operation has the zone's turn, so the zone stays FULL and its mapping what it is: a reset
 * waits for one cluster, and finds the old one or the new one (C5). Readers need no turn: each has
 * looked up the old cluster, which stays until it is past (R5), or finds the new one. All else is
 * as for any compressed write: the new cluster is whole in the file before it is linked (K2), and
 * the old one is lowered by a later round.
 */
#include "ops/compact.h"
#include "base/report.h"
#include "ops/request.h"
#include "space/admit.h"
#include "space/compress.h"
#include "space/fill.h"
#include "space/transfer.h"
#include "space/unmap.h"

enum { P_BEGIN, P_ZONE, P_READ, P_PACK, P_LINK, P_DONE };

struct compact {
    struct zq_op op;
    struct zq_compacting *what;
    struct zq_extent old;
    struct iovec iov; /* the cluster's bytes, as a request would bring them */
    uint8_t phase;
};

static struct compact *self(struct zq_op *op)
{
    return zq_container(op, struct compact, op);
}

static uint64_t cluster_bytes(const struct zq_core *c)
{
    return (uint64_t)1 << c->cluster_bits;
}

/* Up to `next` nothing is done. */
static void pass_over(struct compact *p, uint64_t next)
{
    zq_assert(next > p->what->guest);
    p->what->next = next;
    p->phase = P_DONE;
}

/* Behind the gate the device keeps its size; in front of it, it may have become smaller. */
static int begin(struct zq_core *c, struct compact *p)
{
    struct zq_op *op = &p->op;
    int rc = zq_op_admit(c, op);

    if (rc)
        return rc;
    op->req.offset = p->what->guest;
    op->req.flags = ZQCOW2_COMPRESS;
    op->req.iov = &p->iov;
    op->req.iovcnt = 1;
    op->length = p->iov.iov_len;
    p->phase = P_ZONE;
    if (!c->writable)
        return -EROFS;
    if (op->req.offset >= c->size)
        pass_over(p, UINT64_MAX);
    return c->dead ? ZQCOW2_EDEAD : c->sealed ? ZQCOW2_ECORRUPT : 0;
}

/* A zone that may be written again is not worth it, and one that is offline has nothing to read. */
static bool is_cold(const struct zq_zone *z)
{
    return zq_zone_state(z) == ZQCOW2_ZONE_FULL && z->forced != ZQCOW2_ZONE_OFFLINE;
}

static bool is_whole(const struct zq_core *c, const struct zq_extent *e)
{
    return e->l2.data == 0 && e->l2.data_end == cluster_bytes(c);
}

/* What snapshots have, too, stays: it would have to be kept for them as well. */
static int look_up(struct zq_core *c, struct compact *p)
{
    uint64_t size = cluster_bytes(c), guest = p->what->guest;
    int rc;

    zq_map_forget(&c->map, guest, guest + size);
    rc = zq_map_lookup(&c->map, &p->op.g, guest, size, &p->old);
    if (rc)
        return rc;
    p->what->data = p->old.type == ZQ_EXT_DATA && p->old.l2.copied && is_whole(c, &p->old);
    if (!p->what->data) {
        pass_over(p, guest + size);
        return 0;
    }
    zq_cache_release(&c->cache, &p->op.g);
    p->phase = P_READ;
    return zq_op_data_io(c, &p->op, ZQCOW2_IO_READ, p->what->buf, p->old.l2.host, size);
}

static int take_zone(struct zq_core *c, struct compact *p)
{
    uint32_t zone = zq_zone_of(&c->zones, p->what->guest);
    const struct zq_zone *z = &c->zones.v[zone];
    int rc;

    if (!is_cold(z) && !p->op.has_turn) {
        pass_over(p, zq_geometry_start(&c->zones.g, zone) + zq_geometry_length(&c->zones.g, zone));
        return 0;
    }
    rc = zq_turn_take(c, &p->op, zone);
    if (rc == 0)
        rc = zq_await_drained(c, &p->op, zone);
    if (rc)
        return rc;
    if (is_cold(z))
        return look_up(c, p);
    pass_over(p, zq_geometry_start(&c->zones.g, zone) + zq_geometry_length(&c->zones.g, zone));
    return 0;
}

/* What does not get smaller stays where it is. */
static int pack(struct zq_core *c, struct compact *p)
{
    int rc = zq_may_allocate(c, &p->op);

    zq_assert_k(E1, p->op.has_turn && is_cold(&c->zones.v[p->op.zone]));
    if (rc == 0 && zq_compress_is_futile(&p->op)) {
        pass_over(p, p->what->guest + cluster_bytes(c));
        return 0;
    }
    if (rc == 0)
        rc = zq_compress_step(c, &p->op, p->what->guest, &p->old, p->what->level);
    if (rc == 0)
        p->phase = P_LINK;
    return rc;
}

/* A look-up, of a reader too, may have reminded the zone of a run. */
static int link_made(struct zq_core *c, struct compact *p)
{
    uint64_t bytes = zq_fill_made(&p->op)->packed, guest = p->what->guest;
    int rc;

    zq_map_forget(&c->map, guest, guest + cluster_bytes(c));
    rc = zq_fill_link(c, &p->op);
    if (rc)
        return rc;
    p->what->bytes = bytes ? bytes : cluster_bytes(c);
    pass_over(p, p->what->guest + cluster_bytes(c));
    return 0;
}

static int step(struct zq_core *c, struct zq_op *op)
{
    struct compact *p = self(op);
    int rc = op->rc < 0 ? op->rc : 0;

    while (rc == 0 && p->phase != P_DONE) {
        switch (p->phase) {
        case P_BEGIN: rc = begin(c, p); break;
        case P_ZONE: rc = take_zone(c, p); break;
        case P_READ: p->phase = P_PACK; break;
        case P_PACK: rc = pack(c, p); break;
        default: rc = link_made(c, p);
        }
    }
    return rc;
}

int zq_compact_run(struct zq_core *c, struct zq_compacting *what)
{
    struct compact p = {.op.core = c, .what = what, .iov = {what->buf, (size_t)cluster_bytes(c)}};

    zq_assert(!(what->guest & (cluster_bytes(c) - 1)) && what->guest >= c->seq_start);
    what->bytes = 0;
    what->data = false;
    return zq_op_run_alone(c, &p.op, step, zq_release_mapping, NULL);
}
