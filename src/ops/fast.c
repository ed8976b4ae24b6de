/* SPDX-License-Identifier: MIT */
/*
 * The fast path of requests that need no decision: a read of committed data, the next write of an
 * open zone, an overwrite outside sequential zones, if the bytes lie in one piece of the file and
 * its location is known without reading. It keeps the rules of read.c, zone_write.c and
 * overwrite.c; every other request takes the slow path. It uses only the members of the operation
 * that op.h names for it; a write that commits together with others continues as one of
 * zone_write.c.
 */
#include "ops/fast.h"
#include "base/report.h"
#include "ops/note.h"
#include "ops/zone_write.h"
#include "space/fill.h"

/* The common case is one piece of code in each function; the rare cases are out of line. */
#define INLINE   inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))

/* One buffer, no flags, whole blocks of the device. */
static inline bool is_simple(const struct zq_core *c, struct zq_op *op)
{
    const struct zqcow2_request *r = &op->req;

    if (r->op > ZQCOW2_OP_APPEND || r->flags || r->iovcnt != 1 || r->offset >= c->size)
        return false;
    op->length = r->iov->iov_len;
    return op->length && !((op->length | r->offset) & c->block_mask);
}

/* ---- where the bytes are ---- */

/* Where the bytes are: in the image's file, or in that of a source. */
struct place {
    struct zq_iox *x;
    uint64_t host;
};

/* Can a call that blocks on the image's backend read there as well? */
static inline bool suits(const struct zq_core *c, const struct zq_iox *x)
{
    return !c->x.alone || x->alone;
}

/* A read of what the image does not map, if a source has all of it. */
static bool find_in_source(struct zq_core *c, const struct zq_op *op, struct place *to)
{
    struct zq_walk w = zq_walk_from(c->source, op->req.offset, op->length);

    if (!zq_walk_peek(&w) || !w.at || w.e.type != ZQ_EXT_DATA || w.e.len < op->length)
        return false;
    to->x = w.at->data;
    to->host = w.e.host;
    return suits(c, to->x) && zq_io_is_whole(to->x, to->host, op->req.iov);
}

/* What an L2 table says that is in memory. */
static NOINLINE bool find_mapped(struct zq_core *c, const struct zq_op *op, struct place *to)
{
    bool write = op->req.op != ZQCOW2_OP_READ;
    struct zq_extent e;

    if (!zq_map_peek(&c->map, op->req.offset, op->length, &e) || e.len < op->length)
        return false;
    if (!write && e.type == ZQ_EXT_UNALLOC)
        return c->source && find_in_source(c, op, to);
    to->x = c->data;
    to->host = e.host;
    return (write ? zq_extent_in_place(&e) : e.type == ZQ_EXT_DATA) &&
           zq_io_is_whole(to->x, e.host, op->req.iov);
}

/* Nothing is left to say to any bitmap (B1). */
static NOINLINE bool may_change(const struct zq_core *c, uint64_t from, uint64_t len)
{
    return !c->sealed && zq_bitmaps_have(&c->bitmaps, from, len);
}

/* ---- sequential zones ---- */

/* By remembered runs only: a look-up in L2 could need a slice that is not in memory. */
static INLINE bool find_host(struct zq_core *c, const struct zq_op *op, uint64_t guest,
                             struct place *to)
{
    const struct zq_run *run = zq_runs_find(&c->map.runs[op->zone], guest);

    if (!run || op->length > run->guest + run->len - guest)
        return false;
    zq_assert(guest - run->guest < run->len);
    to->x = c->data;
    to->host = run->host + (guest - run->guest);
    return zq_io_is_whole(to->x, to->host, op->req.iov);
}

/* Below the committed pointer only (I5). A read-only zone may be read, as on the slow path. */
static inline bool may_read(const struct zq_core *c, const struct zq_op *op)
{
    const struct zq_zone *z = &c->zones.v[op->zone];

    return op->req.offset < z->wp && op->length <= z->wp - op->req.offset &&
           z->forced != ZQCOW2_ZONE_OFFLINE;
}

/* First in the queue (E1); nothing to open, close, wait for (R2, R6, R8) or refuse. */
static INLINE bool may_write(const struct zq_core *c, const struct zq_op *op)
{
    const struct zq_zone *z = &c->zones.v[op->zone];
    const struct zq_live *l = z->live;
    uint64_t start = zq_geometry_start(&c->zones.g, op->zone);
    bool append = op->req.op == ZQCOW2_OP_APPEND, takes;

    if (!zq_state_is_open(z->state) || z->next == start || !l)
        return false;
    if (!zq_list_empty(&l->admission) || l->failed || l->punching || l->closing)
        return false;
    if (append && op->req.offset != start)
        return false;
    takes = zq_zone_takes(&c->zones, op->zone, op->req.offset, op->length, append);
    zq_assert_k(
        K4, takes == !zq_zone_check_write(&c->zones, op->zone, op->req.offset, op->length, append));
    return takes;
}

static INLINE bool reserve(struct zq_core *c, struct zq_op *op, struct place *to)
{
    if (!may_write(c, op) || !find_host(c, op, c->zones.v[op->zone].next, to))
        return false;
    zq_zone_reserve(&c->zones, op->zone, &op->r, op->length);
    zq_assert_k(K4, zq_zones_valid(&c->zones, op->zone));
    return true;
}

static NOINLINE bool reserve_guarded(struct zq_core *c, struct zq_op *op, struct place *to)
{
    return may_change(c, c->zones.v[op->zone].next, op->length) && reserve(c, op, to);
}

static INLINE bool admit_to_zone(struct zq_core *c, struct zq_op *op, struct place *to)
{
    op->zone = zq_zone_of(&c->zones, op->req.offset);
    if (op->req.op == ZQCOW2_OP_READ)
        return may_read(c, op) &&
               (find_host(c, op, op->req.offset, to) || (c->source && find_mapped(c, op, to)));
    return c->guarded ? reserve_guarded(c, op, to) : reserve(c, op, to);
}

/* ---- where there is no write pointer ---- */

static NOINLINE bool find_guarded(struct zq_core *c, const struct zq_op *op, struct place *to)
{
    return may_change(c, op->req.offset, op->length) && find_mapped(c, op, to);
}

static NOINLINE bool admit_anywhere(struct zq_core *c, const struct zq_op *op, struct place *to)
{
    if (op->req.op == ZQCOW2_OP_APPEND || op->length > c->seq_start - op->req.offset)
        return false;
    if (op->req.op != ZQCOW2_OP_READ && c->guarded)
        return find_guarded(c, op, to);
    return find_mapped(c, op, to);
}

/* Gather and reserve in one: what is left to do is to move the bytes. */
static INLINE bool admit(struct zq_core *c, struct zq_op *op, struct place *to)
{
    if (c->exclusive || !is_simple(c, op))
        return false;
    return op->req.offset < c->seq_start ? admit_anywhere(c, op, to) : admit_to_zone(c, op, to);
}

/* ---- on its way and back ---- */

/* What the backend sees. */
static inline void set_io(struct zq_op *op, uint64_t host)
{
    zq_assert((host | op->length) % ZQ_SECTOR == 0);
    op->io.pub.kind = op->req.op == ZQCOW2_OP_READ ? ZQCOW2_IO_READ : ZQCOW2_IO_WRITE;
    op->io.pub.iovcnt = 1;
    op->io.pub.offset = host;
    op->io.pub.length = op->length;
    op->io.pub.iov = op->req.iov;
}

/* The bytes have moved, or not. True: answered. */
static inline bool complete(struct zq_core *c, struct zq_op *op, int rc)
{
    uint64_t offset = 0;

    zq_assert(zq_core_is_held(c));
    if (op->req.op != ZQCOW2_OP_READ) {
        rc = zq_acknowledged(c, rc);
        if (op->req.offset < c->seq_start) {
            if (rc < 0)
                zq_note_failure(c, op, rc);
        } else if (!zq_write_commits_now(c, op, rc)) {
            zq_write_done(c, op, rc);
            return false;
        } else {
            zq_assert_k(K7, c->zones.v[op->zone].wp == op->r.end);
            offset = op->req.op == ZQCOW2_OP_APPEND ? op->r.end - op->length : 0;
        }
    }
    op->res = (struct zqcow2_result){rc, 0, offset};
    zq_op_over(c, op);
    return true;
}

/* Under the mutex, in the loop. */
static void io_done(struct zq_io *io, int ret)
{
    struct zq_op *op = zq_container(io, struct zq_op, io);

    if (complete(op->core, op, ret))
        op->finish(op);
}

bool zq_fast_start(struct zq_core *c, struct zq_op *op)
{
    struct place to;

    if (!admit(c, op, &to))
        return false;
    op->core = c;
    op->finished = false;
    c->nr_ops++;
    set_io(op, to.host);
    op->io.in_pieces = false;
    op->io.skip = 0;
    op->io.seg = NULL;
    op->io.complete = io_done;
    zq_io_start_whole(to.x, &op->io);
    return true;
}

/*
 * The mutex is dropped for the one call. What admit() found stays true meanwhile: the flight list
 * keeps the clusters (R5), and the reservation keeps the place in the zone (K7).
 */
bool zq_fast_run(struct zq_core *c, struct zq_op *op)
{
    struct place to;
    int rc;

    zq_assert(c->x.alone);
    if (!admit(c, op, &to))
        return false;
    c->nr_ops++;
    set_io(op, to.host);
    zq_io_alone_begin(to.x, &op->io);
    zq_core_unlock(c);
    rc = zq_io_alone_run(to.x, &op->io);
    zq_core_lock(c);
    zq_io_alone_end(to.x, &op->io);
    (void)complete(c, op, rc);
    return true;
}
