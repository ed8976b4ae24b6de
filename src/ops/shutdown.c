/* SPDX-License-Identifier: MIT */
/*
 * Shuts an image down without leaks (R4, R5), and marks it clean (R12).
 *
 * The mark is cleared last, behind a barrier that follows everything else: an image without it is
 * trusted by the next open and not walked.
 */
#include <errno.h>
#include "ops/shutdown.h"
#include "base/report.h"
#include "ops/truncate.h"
#include "round/round.h"
#include "space/admit.h"
#include "space/reclaim.h"
#include "space/transfer.h"

/*
 * BITMAPS finds out what clusters the file lacks for what was marked, and ROOM takes them; STORE
 * writes them when a round has counted them (B2).
 * AHEAD unmaps what no write pointer has reached. FLUSH and EMPTY repeat until a round leaves
 * nothing dirty and the janitor nothing to free: freeing makes refcounts dirty again. CUT makes the
 * file shorter. CLEAN and CLEAN_FLUSH clear the mark.
 */
enum {
    S_BITMAPS,
    S_ROOM,
    S_AHEAD,
    S_FLUSH,
    S_EMPTY,
    S_STORE,
    S_CUT,
    S_CUT_FLUSH,
    S_CLEAN,
    S_CLEAN_FLUSH,
    S_DONE
};

/* ---- bitmaps ---- */

static void prepare_work(struct zq_io *io)
{
    io->ret = zq_bitmaps_prepare_store(&zq_container(io, struct zq_op, io)->core->bitmaps);
}

static void store_work(struct zq_io *io)
{
    io->ret = zq_bitmaps_store(&zq_container(io, struct zq_op, io)->core->bitmaps);
}

/* Nothing else runs: what was marked does not change any more. */
static int begin_to_store(struct zq_core *c, struct zq_op *op)
{
    zq_assert_k(B2, c->nr_ops == 1u + c->janitor_running);
    op->own.shutdown.phase = S_AHEAD;
    if (!zq_bitmaps_must_store(&c->bitmaps))
        return 0;
    op->own.shutdown.phase = S_ROOM;
    c->exclusive = true;
    c->bitmaps.bounds.file_size = c->alloc.file_size;
    return zq_op_call(c, op, prepare_work);
}

/*
 * One at a time, wherever there is one: a bitmap's clusters need not lie together. Under the mark,
 * or the dirty bit in its place: what a crash leaves of them are leaks.
 */
static int take_room(struct zq_core *c, struct zq_op *op)
{
    struct zq_bitmaps *b = &c->bitmaps;
    int rc = 0;

    while (rc == 0 && b->filled < b->nr_holes) {
        uint64_t left = b->nr_holes - b->filled;
        struct zq_found f;

        zq_mark_by_dirty(c);
        rc = zq_may_allocate(c, op);
        if (rc == 0)
            rc = zq_alloc_find(&c->alloc, &op->g, (uint32_t)zq_min(left, UINT32_MAX), &f);
        if (rc == 0)
            rc = zq_alloc_cover(&c->alloc, &op->g, (f.cluster + 1) << c->cluster_bits);
        if (rc)
            break;
        zq_alloc_take(&c->alloc, &f, 1);
        zq_cache_release(&c->cache, &op->g);
        zq_bitmaps_fill(b, f.cluster << c->cluster_bits);
    }
    if (rc == 0)
        op->own.shutdown.phase = S_AHEAD;
    return rc;
}

/* ---- the end ---- */

/*
 * An image that has leaked keeps its mark, so that the next open looks for the leaks. Version 2 may
 * have the mark, but has no bits.
 */
static int write_clean(struct zq_core *c, struct zq_op *op)
{
    uint64_t incompat = c->hdr.version >= 3 ? zq_be64(c->sector0 + ZQ_HDR_INCOMPAT) : 0;
    bool in_use = c->hdr.mark_offset && c->sector0[c->hdr.mark_offset];

    zq_assert_k(R12, !zq_alloc_has_quarantined(&c->alloc) && !zq_cache_has_dirty(&c->cache));
    if (c->leaked || (!in_use && !(incompat & ZQ_INCOMPAT_DIRTY)))
        return 0;
    if (in_use)
        c->sector0[c->hdr.mark_offset] = 0;
    if (c->hdr.version >= 3)
        zq_put_be64(c->sector0 + ZQ_HDR_INCOMPAT, incompat & ~ZQ_INCOMPAT_DIRTY);
    return zq_op_io(c, op, ZQCOW2_IO_WRITE, c->sector0, 0, ZQ_SECTOR);
}

static int shutdown_phase(struct zq_core *c, struct zq_op *op)
{
    int rc;

    switch (op->own.shutdown.phase) {
    case S_BITMAPS: return begin_to_store(c, op);
    case S_ROOM: return take_room(c, op);
    case S_AHEAD:
        rc = zq_unmap_ahead(c, op, &op->own.shutdown.ahead);
        if (rc)
            return rc;
        zq_map_drop_fresh(&c->map);
        op->own.shutdown.phase = S_FLUSH;
        return 0;
    case S_FLUSH:
        op->round = 0;
        op->own.shutdown.phase = S_EMPTY;
        return zq_round_wait(c, op);
    case S_EMPTY:
        rc = zq_round_wait(c, op);
        if (rc)
            return rc;
        if (c->janitor_running) /* it ends by itself: nothing else is in flight */
            return zq_op_park(c, op, &c->drain_waiters);
        if (zq_alloc_has_quarantined(&c->alloc) || zq_cache_has_dirty(&c->cache)) {
            zq_janitor_kick(c);
            op->own.shutdown.phase = S_FLUSH;
            return c->janitor_running ? zq_op_park(c, op, &c->drain_waiters) : 0;
        }
        /* Unmapping what lies ahead has given nothing back of a data file: the holes do. */
        if (c->map.form.external && zq_janitor_kick(c))
            return zq_op_park(c, op, &c->drain_waiters);
        op->own.shutdown.phase = S_STORE;
        return 0;
    case S_STORE:
        op->own.shutdown.phase = S_CUT;
        return zq_bitmaps_must_store(&c->bitmaps) ? zq_op_call(c, op, store_work) : 0;
    case S_CUT:
        c->exclusive = true;
        rc = zq_truncate_step(c, op, &op->own.shutdown.cut);
        if (rc == 0)
            op->own.shutdown.phase = S_CUT_FLUSH;
        return rc;
    case S_CUT_FLUSH:
        op->own.shutdown.phase = S_CLEAN;
        return c->x.unbarriered ? zq_op_io(c, op, ZQCOW2_IO_FLUSH, NULL, 0, 0) : 0;
    case S_CLEAN: op->own.shutdown.phase = S_CLEAN_FLUSH; return write_clean(c, op);
    default:
        zq_assert(op->own.shutdown.phase == S_CLEAN_FLUSH);
        op->own.shutdown.phase = S_DONE;
        return c->x.unbarriered ? zq_op_io(c, op, ZQCOW2_IO_FLUSH, NULL, 0, 0) : 0;
    }
}

/* An error ends it: the image closes all the same, and keeps its mark. */
int zq_step_shutdown(struct zq_core *c, struct zq_op *op)
{
    int rc = 0;

    for (;;) {
        if (op->own.shutdown.phase == S_DONE && !c->dead)
            return zq_barrier_error(op->rc);
        if (op->own.shutdown.phase == S_CLEAN && op->rc < 0 && !c->dead)
            return zq_barrier_error(op->rc);
        if (op->rc < 0 || c->dead)
            return op->rc < 0 ? op->rc : ZQCOW2_EDEAD;
        rc = shutdown_phase(c, op);
        if (rc)
            return rc;
    }
}
