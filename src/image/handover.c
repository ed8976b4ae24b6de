/* SPDX-License-Identifier: MIT */
/*
 * An image gives its file to another program, and takes it back: hand-over.
 *
 *   inactivate   alone; drained and settled; shut down as by a close, so the file is clean and all
 *                of it durable; then the parts are closed, and at last the lock is given up (H2)
 *   activate     the lock; then the file is read as by an open, and the parts are built anew
 *
 * Both are operations that have the image for themselves, and do what blocks in the caller's
 * thread. While parts come or go, other threads may run the loop, and find nothing to do (H1).
 */
#include <errno.h>
#include <inttypes.h>
#include "base/report.h"
#include "image/image.h"
#include "image/opening.h"
#include "ops/flush.h"
#include "ops/note.h"
#include "ops/request.h"
#include "ops/shutdown.h"
#include "space/transfer.h"
#include "space/unmap.h"

enum { H_BEGIN, H_DRAIN, H_SETTLE, H_SHUTDOWN, H_LEAVE, H_BUILT, H_DONE };

struct handover {
    struct zq_op op;
    struct zqcow2_image *img;
    struct zqcow2_error *err;
    uint8_t phase;
    bool holds; /* nothing else is admitted because of it */
    struct zq_drain drain;
    struct opening o; /* of an activation */
};

static struct handover *self(struct zq_op *op)
{
    return zq_container(op, struct handover, op);
}

static void release(struct zq_core *c, struct zq_op *op)
{
    struct handover *h = self(op);

    zq_drain_leave(c, &h->drain);
    if (c->activity == ZQ_ACTIVE)
        zq_release_mapping(c, op);
    if (!h->holds)
        return;
    zq_assert_k(H1, c->exclusive && c->activity != ZQ_CHANGING);
    c->exclusive = c->activity != ZQ_ACTIVE;
    zq_wake(&c->ready, &c->gate_waiters);
}

/* ---- inactive ---- */

/* A dead image has nothing that another program may rely on: closing it drops the host's cache. */
static int begin_to_leave(struct zq_core *c, struct handover *h)
{
    int rc = zq_op_admit(c, &h->op);

    if (rc == ZQCOW2_EINACTIVE) {
        h->phase = H_DONE;
        return 0;
    }
    if (rc)
        return rc;
    c->exclusive = h->holds = true;
    h->phase = H_DRAIN;
    if (h->img->opt.snapshot)
        return zq_fail(h->err, -EINVAL, "a snapshot is open, which another program may delete");
    if (c->dead)
        return ZQCOW2_EDEAD;
    return c->writable && c->sealed ? ZQCOW2_ECORRUPT : 0;
}

/* Nobody knows what an error has left of the file: no write may follow. */
static int shut_down(struct zq_core *c, struct handover *h)
{
    int rc = c->writable ? zq_step_shutdown(c, &h->op) : 0;

    if (rc == ZQ_WAIT)
        return rc;
    if (rc < 0)
        zq_core_die(c, rc);
    h->phase = H_LEAVE;
    return rc;
}

static void leave_work(struct zq_io *io)
{
    struct zq_core *c = zq_container(io, struct zq_op, io)->core;

    zq_core_close_parts(c);
    (void)zq_be_unlock(c->be); /* as a close does; the lock ends with the backend at the latest */
    io->ret = 0;
}

static int leave(struct zq_core *c, struct handover *h)
{
    zq_assert_k(H2, !zq_cache_has_dirty(&c->cache) && c->nr_ops == 1 && !c->janitor_running);
    h->phase = H_DONE;
    zq_image_rest(h->img);
    c->activity = ZQ_CHANGING;
    return zq_op_call(c, &h->op, leave_work);
}

static int leave_step(struct zq_core *c, struct zq_op *op)
{
    struct handover *h = self(op);
    int rc = 0;

    while (rc == 0) {
        switch (h->phase) {
        case H_BEGIN: rc = begin_to_leave(c, h); break;
        case H_DRAIN:
            rc = op->rc < 0 ? op->rc : zq_drain(c, op, &h->drain);
            if (rc == 0)
                h->phase = H_SETTLE;
            break;
        case H_SETTLE:
            rc = op->rc < 0 ? op->rc : zq_settle(c, op);
            if (rc == 0)
                h->phase = H_SHUTDOWN;
            break;
        case H_SHUTDOWN: rc = shut_down(c, h); break;
        case H_LEAVE: rc = leave(c, h); break;
        default:
            zq_assert(h->phase == H_DONE);
            c->activity = ZQ_INACTIVE;
            return 0;
        }
    }
    return rc;
}

int zq_image_inactivate(struct zqcow2_image *img, struct zqcow2_error *err)
{
    struct handover h = {.op.core = &img->core, .img = img, .err = err};
    int rc;

    zq_clear_error(err);
    rc = zq_op_run_alone(&img->core, &h.op, leave_step, release, NULL);
    return rc < 0 ? zq_fail_rc(err, rc) : 0;
}

/* ---- active again ---- */

/* What a device model has built on stays: whether there are zones, and their size. */
static int check_same(const struct handover *h)
{
    const struct opening *o = &h->o;
    uint64_t now = o->g.layout == ZQCOW2_LAYOUT_NONE ? 0 : o->g.zone_size;

    if (now == h->img->info.zone_size)
        return 0;
    return zq_fail(h->err, -ESTALE,
                   "another image is in the file: its zones have %" PRIu64
                   " bytes, those of the image that was opened %" PRIu64,
                   now, h->img->info.zone_size);
}

/* Nothing of the file is trusted that was read before it was locked. */
static void enter_work(struct zq_io *io)
{
    struct handover *h = self(zq_container(io, struct zq_op, io));
    struct zq_core *c = h->op.core;
    struct opening *o = &h->o;
    int rc = 0;

    if (!(o->opt.flags & ZQCOW2_OPEN_NOLOCK))
        rc = zq_be_relock(c->be, o->rdwr, h->err);
    if (rc == 0)
        rc = zq_opening_read(o);
    if (rc == 0)
        rc = check_same(h);
    if (rc == 0)
        rc = zq_opening_build(o, c);
    if (rc < 0)
        (void)zq_be_unlock(c->be);
    io->ret = rc;
}

static int begin_to_enter(struct zq_core *c, struct handover *h)
{
    int rc = zq_op_admit(c, &h->op);

    if (rc == ZQ_WAIT)
        return rc;
    h->phase = H_DONE;
    if (rc == 0) /* it is active */
        return 0;
    h->op.release = release;
    h->holds = true;
    h->phase = H_BUILT;
    c->activity = ZQ_CHANGING;
    return zq_op_call(c, &h->op, enter_work);
}

static int enter_step(struct zq_core *c, struct zq_op *op)
{
    struct handover *h = self(op);
    int rc = h->phase == H_BEGIN ? begin_to_enter(c, h) : 0;

    if (rc || h->phase == H_DONE)
        return rc;
    zq_assert_k(H1, c->activity == ZQ_CHANGING && c->nr_ops == 1);
    if (op->rc == 0) {
        if (c->zoned) /* the other program may have changed any of them */
            zq_note_all_zones(c);
        zq_image_wake(h->img);
    } else {
        c->activity = ZQ_INACTIVE;
        c->writable = false; /* it may have got that far: a close would write (H2) */
    }
    return op->rc;
}

int zq_image_activate(struct zqcow2_image *img, struct zqcow2_error *err)
{
    struct handover h = {
        .op.core = &img->core,
        .img = img,
        .err = err,
        .o = {.be = img->core.be, .opt = img->opt, .err = err, .hooks = img->core.hooks}};
    int rc;

    zq_clear_error(err);
    h.o.rdwr = img->opt.flags & ZQCOW2_OPEN_RDWR;
    rc = zq_op_run_alone(&img->core, &h.op, enter_step, release, NULL);
    return rc < 0 ? zq_fail_rc(err, rc) : 0;
}
