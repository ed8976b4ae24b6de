/* SPDX-License-Identifier: MIT */
/*
 * The short way of a request about which there is nothing to decide: a read of committed data, the
 * next write of an open zone, an overwrite where there is no write pointer; and the host has the
 * bytes in one piece, as is known without asking the file. The rules are those of read.c, write.c
 * and data.c; whatever is not plain takes the long way. Of the operation only the members that op.h
 * names for it are used; zone is ZQ_NO_ZONE where there is no write pointer.
 */
#include "base/report.h"
#include "engine/core.h"

/* Kept out of the hot way, which needs fewer registers without it. */
#define SLOWER __attribute__((noinline))

/* One buffer, no flags, sectors of the device, in one I/O. */
static inline bool is_plain(const struct zq_core *c, struct zq_op *op)
{
    const struct zqcow2_request *r = &op->req;

    if (r->op > ZQCOW2_OP_APPEND || r->flags || r->iovcnt != 1 || r->offset >= c->size)
        return false;
    op->length = r->iov->iov_len;
    return op->length && !((op->length | r->offset) % ZQ_SECTOR) &&
           zq_io_is_whole(&c->x, op->length);
}

/* ---- sequential zones ---- */

static inline bool find_host(const struct zq_core *c, const struct zq_op *op, uint64_t guest,
                             uint64_t *host)
{
    const struct zq_run *run = zq_runs_find(&c->map.runs[op->zone], guest);

    if (!run || op->length > run->guest + run->len - guest)
        return false;
    *host = run->host + (guest - run->guest);
    return true;
}

static inline bool may_read(const struct zq_core *c, const struct zq_op *op)
{
    const struct zq_zone *z = &c->zones.v[op->zone];

    return op->req.offset < z->wp && op->length <= z->wp - op->req.offset &&
           z->forced != ZQCOW2_ZONE_OFFLINE;
}

/* Nobody before it (E1), nothing to open, close, wait for (R2, R6, R8) or refuse. */
static inline bool may_write(const struct zq_core *c, const struct zq_op *op)
{
    const struct zq_zone *z = &c->zones.v[op->zone];
    const struct zq_live *l = z->live;
    uint64_t start = zq_zone_start(&c->zones.g, op->zone);
    bool append = op->req.op == ZQCOW2_OP_APPEND;

    if (c->dead || !c->writable || !zq_state_is_open(z->state) || z->next == start || !l)
        return false;
    if (!zq_list_empty(&l->admission) || l->failed || l->punching || l->closing)
        return false;
    if (append && op->req.offset != start)
        return false;
    return !zq_zone_check_write(&c->zones, op->zone, op->req.offset, op->length, append);
}

static inline bool admit_to_zone(struct zq_core *c, struct zq_op *op, uint64_t *host)
{
    if (op->req.op == ZQCOW2_OP_READ)
        return may_read(c, op) && find_host(c, op, op->req.offset, host);
    if (!may_write(c, op) || !find_host(c, op, c->zones.v[op->zone].next, host))
        return false;
    zq_zone_reserve(&c->zones, op->zone, &op->r, op->length);
    return true;
}

/* ---- where there is no write pointer ---- */

static SLOWER bool admit_anywhere(struct zq_core *c, struct zq_op *op, uint64_t *host)
{
    uint64_t end = c->zoned ? zq_zone_start(&c->zones.g, c->zones.g.conventional) : c->size;
    bool write = op->req.op != ZQCOW2_OP_READ;
    struct zq_extent e;

    op->zone = ZQ_NO_ZONE;
    if (op->req.op == ZQCOW2_OP_APPEND || op->length > end - op->req.offset)
        return false;
    if (write && (c->dead || !c->writable))
        return false;
    if (!zq_map_peek(&c->map, op->req.offset, op->length, &e) || e.len < op->length)
        return false;
    *host = e.host;
    return e.type == ZQ_EXT_DATA && (e.own || !write);
}

/* Gather and reserve in one: what is left to do is to move the bytes. */
static inline bool admit(struct zq_core *c, struct zq_op *op, uint64_t *host)
{
    if (!is_plain(c, op))
        return false;
    op->zone = zq_zone_of(&c->zones, op->req.offset);
    if (!c->zoned || op->zone < c->zones.g.conventional)
        return admit_anywhere(c, op, host);
    return admit_to_zone(c, op, host);
}

/* ---- on its way and back ---- */

static inline void set_io(struct zq_core *c, struct zq_op *op, uint64_t host)
{
    op->io.pub.kind = op->req.op == ZQCOW2_OP_READ ? ZQCOW2_IO_READ : ZQCOW2_IO_WRITE;
    op->io.pub.iovcnt = 1;
    op->io.pub.offset = host;
    op->io.pub.length = op->length;
    op->io.pub.iov = op->req.iov;
    c->nr_ops++;
}

static inline void answer(struct zq_core *c, struct zq_op *op, int rc, uint64_t offset)
{
    op->res = (struct zqcow2_result){rc, 0, offset};
    op->finished = true;
    c->nr_ops--;
    if (!zq_list_empty(&c->drain_waiters))
        zq_wake(&c->ready, &c->drain_waiters);
}

/* A dead image acknowledges nothing more (R11). */
static inline int checked(const struct zq_core *c, int rc)
{
    return rc == 0 && c->dead ? ZQCOW2_EDEAD : rc;
}

/* Others are to be answered, too, or first: it goes on as one of write.c's. */
static SLOWER void commit_in_line(struct zq_core *c, struct zq_op *op, int rc)
{
    struct zq_list out, *n;

    zq_zone_write_await(c, op, op->r.end - op->length);
    zq_list_init(&out);
    zq_zone_data_done(&c->zones, op->zone, &op->r, rc, &out);
    while ((n = zq_list_pop(&out)))
        zq_op_ready(zq_container(n, struct zq_op, r.link));
}

/* The bytes have moved, or not. True: answered. */
static inline bool complete(struct zq_core *c, struct zq_op *op, int rc)
{
    uint64_t offset = 0;

    if (op->req.op != ZQCOW2_OP_READ) {
        if (c->dead) /* it acknowledges nothing more (R11) */
            rc = rc < 0 ? rc : ZQCOW2_EDEAD;
        if (op->zone != ZQ_NO_ZONE) {
            if (rc < 0 || !zq_zone_commit_first(&c->zones, op->zone, &op->r)) {
                commit_in_line(c, op, rc);
                return false;
            }
            if (op->req.op == ZQCOW2_OP_APPEND)
                offset = op->r.end - op->length;
        }
    }
    answer(c, op, rc, offset);
    return true;
}

static void io_done(struct zq_io *io, int ret)
{
    struct zq_op *op = zq_container(io, struct zq_op, io);

    if (complete(op->core, op, ret))
        op->finish(op);
}

/* Past the lists of I/O, with the mutex dropped for it. */
static inline void move_now(struct zq_core *c, struct zq_op *op)
{
    int rc;

    zq_io_alone_begin(&c->x, &op->io);
    zq_core_unlock(c);
    rc = zq_io_alone_run(&c->x, &op->io);
    zq_core_lock(c);
    zq_io_alone_end(&c->x, &op->io);
    (void)complete(c, op, rc);
    if (!zq_list_empty(&c->ready))
        zq_engine_run(c);
}

bool zq_op_directly(struct zq_core *c, struct zq_op *op, bool now)
{
    uint64_t host;

    if (!admit(c, op, &host))
        return false;
    set_io(c, op, host);
    if (now) {
        move_now(c, op);
        return true;
    }
    op->core = c;
    op->finished = false;
    op->io.bounce = NULL;
    op->io.slow = false;
    op->io.complete = io_done;
    zq_io_start_data(&c->x, &op->io);
    return true;
}
