/* SPDX-License-Identifier: MIT */
/*
 * Requests: checked, begun on the fast path or in phases, and ended. What the loop must ask of the
 * layers above it is here, too.
 *
 * Every operation ends in op_end(), on the fast path in zq_op_over(): nr_ops counts what has begun
 * and not ended, and close and drains rely on it. All that a request can be refused for without a
 * zone is checked before its first step.
 */
#include <errno.h>
#include "ops/request.h"
#include "base/report.h"
#include "ops/block_status.h"
#include "ops/describe.h"
#include "ops/fast.h"
#include "ops/flush.h"
#include "ops/note.h"
#include "ops/overwrite.h"
#include "ops/read.h"
#include "ops/set_state.h"
#include "ops/zone_manage.h"
#include "ops/zone_write.h"
#include "round/round.h"
#include "space/admit.h"
#include "space/fill.h"
#include "space/reclaim.h"
#include "space/unmap.h"

/* A zone's error names the zone; a zone call has set it already. Else only an append says where. */
static uint64_t result_offset(const struct zq_core *c, const struct zq_op *op, int rc)
{
    unsigned kind = op->req.op;

    if (rc == 0)
        return kind == ZQCOW2_OP_APPEND ? op->res.offset : 0;
    if (kind >= ZQCOW2_OP_ZONE_OPEN && kind <= ZQCOW2_OP_ZONE_RESET)
        return op->res.offset;
    if (rc > ZQCOW2_EZONE_BOUNDARY || rc < ZQCOW2_EZONE_STATE)
        return 0;
    return kind == ZQCOW2_OP_READ ? op->res.offset :
                                    zq_align_down(op->req.offset, c->zones.g.zone_size);
}

/*
 * The one end of an operation that began in phases: what its kind holds is released before its
 * result is visible. The caller may free op in finish(), so nothing follows that.
 */
static void op_end(struct zq_core *c, struct zq_op *op, int rc)
{
    zq_assert(zq_core_is_held(c) && rc <= 0);
    zq_assert(!op->fill && zq_list_empty(&op->g.wait.link)); /* nothing is under way for it */
    zq_cache_release(&c->cache, &op->g);
    zq_assert_k(K11, zq_cache_holds_nothing(&op->g)); /* nor of a source's cache */
    if (op->release)
        op->release(c, op);
    op->res.ret = rc;
    op->res.offset = result_offset(c, op, rc);
    if (rc < 0)
        zq_note_failure(c, op, rc);
    else if (c->events.no_space)
        zq_note_success(c, op);
    zq_assert(!op->has_turn && zq_list_empty(&op->fills) && zq_list_empty(&op->made) &&
              zq_list_empty(&op->spare) && !op->g.reserved);
    zq_op_over(c, op);
    op->finish(op);
}

/* Nothing else can be done now: gives clusters back, or begins the round that is wanted. */
static bool idle(struct zq_core *c)
{
    bool kicked;

    zq_assert(zq_core_is_held(c) && zq_list_empty(&c->ready) && zq_list_empty(&c->x.done));
    kicked = c->want_janitor && zq_janitor_kick(c);
    c->want_janitor = false;
    if (!kicked && !zq_list_empty(&c->alloc.room_waiters))
        kicked = zq_make_room(c);
    if (kicked || !zq_round_needed(c))
        return kicked;
    zq_round_start(c);
    return true;
}

const struct zq_upper zq_request_upper = {.end = op_end, .idle = idle};

/* No rounds, no janitor: there are no parts to look at (H1). */
static bool stay_idle(struct zq_core *c)
{
    zq_assert_k(H1, c->activity != ZQ_ACTIVE);
    return false;
}

const struct zq_upper zq_inactive_upper = {.end = op_end, .idle = stay_idle};

int zq_op_admit(struct zq_core *c, struct zq_op *op)
{
    zq_assert_k(H1, c->exclusive || c->activity == ZQ_ACTIVE);
    if (c->exclusive && c->activity != ZQ_INACTIVE)
        return zq_op_park(c, op, &c->gate_waiters);
    c->nr_ops++;
    if (c->activity == ZQ_ACTIVE)
        return 0;
    op->release = NULL; /* it has taken nothing, and there is nothing to give it back to */
    return ZQCOW2_EINACTIVE;
}

/* False: the sum of the segments does not fit into 64 bits. */
static bool io_length(const struct zq_op *op, uint64_t *len)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < op->req.iovcnt; i++) {
        if (zq_add_overflows(sum, op->req.iov[i].iov_len, &sum))
            return false;
    }
    *len = sum;
    return true;
}

/*
 * SET_STATE changes memory only, unless the state is to stay, and DRAIN nothing for the caller:
 * both are allowed in an image that takes no writes.
 */
static bool writes(const struct zqcow2_request *r)
{
    switch (r->op) {
    case ZQCOW2_OP_READ:
    case ZQCOW2_OP_FLUSH:
    case ZQCOW2_OP_DRAIN:
    case ZQCOW2_OP_BLOCK_STATUS:
    case ZQCOW2_OP_ZONE_GET_DESCRIPTORS: return false;
    case ZQCOW2_OP_ZONE_SET_STATE: return r->length & ZQCOW2_ZONE_PERSIST;
    default: return true;
    }
}

static bool is_descriptor_op(unsigned kind)
{
    return kind == ZQCOW2_OP_ZONE_SET_DESCRIPTOR || kind == ZQCOW2_OP_ZONE_GET_DESCRIPTORS;
}

/*
 * The whole extension of one zone, or those of the zones from one on. Other rules than those of ZNS
 * have no state for an empty zone that is to keep something.
 */
static int check_descriptors(const struct zq_core *c, struct zq_op *op)
{
    uint64_t size = c->zones.g.descriptor_size, left;

    if (!io_length(op, &op->length) || op->req.offset >= c->size || !op->length || !size)
        return -EINVAL;
    left = c->zones.g.nr_zones - zq_zone_of(&c->zones, op->req.offset);
    if (op->req.op == ZQCOW2_OP_ZONE_SET_DESCRIPTOR)
        return op->length == size && c->zones.rules == ZQCOW2_RULES_ZNS ? 0 : -EINVAL;
    return op->length % size || op->length / size > left ? -EINVAL : 0;
}

/* Range and alignment: the first of the checks, whatever the zones say. */
static int check_range(const struct zq_core *c, struct zq_op *op)
{
    const struct zqcow2_request *r = &op->req;
    bool buffers = r->op <= ZQCOW2_OP_APPEND;
    /* Status is of what is stored, and a run of that may end within a block. */
    uint32_t mask = r->op == ZQCOW2_OP_BLOCK_STATUS ? ZQ_SECTOR - 1 : c->block_mask;
    uint64_t end;

    if (r->op == ZQCOW2_OP_FLUSH || r->op == ZQCOW2_OP_DRAIN)
        return 0;
    if (r->op == ZQCOW2_OP_ZONE_SET_STATE)
        return r->offset < c->size ? 0 : -EINVAL;
    if (is_descriptor_op(r->op))
        return check_descriptors(c, op);
    op->length = r->length;
    if (buffers && !io_length(op, &op->length))
        return -EINVAL;
    if (!buffers && r->op != ZQCOW2_OP_BLOCK_STATUS)
        op->req.iovcnt = 0;
    if (!op->length || (op->length | r->offset) & mask)
        return -EINVAL;
    if (zq_add_overflows(r->offset, op->length, &end) || r->offset >= c->size)
        return -EINVAL;
    /* An append's offset only names its zone; what does not fit there is a zone error. */
    return end > c->size && r->op != ZQCOW2_OP_APPEND ? -EINVAL : 0;
}

/* What an operation of a kind does, and what it gives back at its end. */
struct kind {
    zq_step *step;
    zq_release *release;
};

/*
 * A write is judged by where it begins: one that crosses into sequential zones is refused by its
 * step.
 */
static struct kind kind_of(const struct zq_core *c, const struct zqcow2_request *r)
{
    static const struct kind zone_write = {zq_step_zone_write, zq_release_mapping};
    static const struct kind overwrite = {zq_step_write, zq_release_overwrite};
    bool sequential = r->offset >= c->seq_start;

    switch (r->op) {
    case ZQCOW2_OP_READ: return (struct kind){zq_step_read, NULL};
    case ZQCOW2_OP_WRITE:
    case ZQCOW2_OP_WRITE_ZEROES: return sequential ? zone_write : overwrite;
    case ZQCOW2_OP_APPEND: return zone_write;
    case ZQCOW2_OP_DISCARD: return overwrite;
    case ZQCOW2_OP_FLUSH: return (struct kind){zq_step_flush, NULL};
    case ZQCOW2_OP_DRAIN: return (struct kind){zq_step_drain, zq_release_drain};
    case ZQCOW2_OP_ZONE_SET_STATE: return (struct kind){zq_step_set_state, zq_release_set_state};
    case ZQCOW2_OP_BLOCK_STATUS: return (struct kind){zq_step_block_status, NULL};
    case ZQCOW2_OP_ZONE_SET_DESCRIPTOR:
        return (struct kind){zq_step_set_descriptor, zq_release_descriptors};
    case ZQCOW2_OP_ZONE_GET_DESCRIPTORS:
        return (struct kind){zq_step_get_descriptors, zq_release_descriptors};
    default: return (struct kind){zq_step_manage, zq_release_mapping};
    }
}

static bool is_zone_op(unsigned kind)
{
    return (kind >= ZQCOW2_OP_ZONE_OPEN && kind <= ZQCOW2_OP_ZONE_SET_STATE) ||
           is_descriptor_op(kind);
}

/* A sequential zone has its bytes written: its zeros are never only marked. */
static int check_zeroes(const struct zq_core *c, const struct zq_op *op)
{
    if (op->req.op != ZQCOW2_OP_WRITE_ZEROES)
        return -EINVAL;
    return op->req.flags & ZQCOW2_NO_FALLBACK && op->req.offset >= c->seq_start ? -EOPNOTSUPP : 0;
}

/* Compressed are whole clusters of a write; a data file cannot have them (D3). */
static int check_compress(const struct zq_core *c, const struct zq_op *op)
{
    uint64_t rest = ((uint64_t)1 << c->cluster_bits) - 1, end = op->req.offset + op->length;

    if (op->req.op != ZQCOW2_OP_WRITE || (op->req.offset & rest) || (end & rest && end != c->size))
        return -EINVAL;
    return c->map.form.external ? -EOPNOTSUPP : 0;
}

static int check_flags(const struct zq_core *c, const struct zq_op *op)
{
    int rc = op->req.flags & ZQCOW2_COMPRESS ? check_compress(c, op) : 0;

    return rc == 0 && op->req.flags & (ZQCOW2_NO_UNMAP | ZQCOW2_NO_FALLBACK) ? check_zeroes(c, op) :
                                                                               rc;
}

/*
 * What can be refused without a zone. A dead image returns EDEAD here, before a zone is looked at
 * (R11).
 */
static int check_request(const struct zq_core *c, struct zq_op *op)
{
    unsigned kind = op->req.op;
    int rc;

    zq_assert(kind <= ZQCOW2_OP_ZONE_GET_DESCRIPTORS); /* zq_request_check_form() */
    if (op->req.flags & ~(ZQCOW2_FUA | ZQCOW2_COMPRESS | ZQCOW2_NO_UNMAP | ZQCOW2_NO_FALLBACK))
        return -EINVAL;
    if (!c->zoned && (kind == ZQCOW2_OP_APPEND || is_zone_op(kind)))
        return ZQCOW2_ENOTZONED;
    rc = check_range(c, op);
    if (rc == 0 && op->req.flags & ~ZQCOW2_FUA)
        rc = check_flags(c, op);
    if (rc < 0)
        return rc;
    if (!writes(&op->req))
        return 0;
    if (!c->writable)
        return -EROFS;
    return c->dead ? ZQCOW2_EDEAD : c->sealed ? ZQCOW2_ECORRUPT : 0;
}

/*
 * What comes while another has the image for itself waits, and counts as not begun: nobody waits
 * for it (N8). It is checked when it begins.
 */
static int step_first(struct zq_core *c, struct zq_op *op)
{
    struct kind kind;
    int rc;

    rc = zq_op_admit(c, op);
    if (rc == ZQCOW2_EINACTIVE && (op->req.op == ZQCOW2_OP_FLUSH || op->req.op == ZQCOW2_OP_DRAIN))
        return 0; /* all is durable that was acknowledged (H2) */
    if (rc)
        return rc;
    rc = check_request(c, op);
    if (rc < 0)
        return rc;
    zq_assert_k(K9, !writes(&op->req) || (c->writable && !c->sealed));
    kind = kind_of(c, &op->req); /* now: whom it waited for may have moved seq_start */
    op->step = kind.step;
    op->release = kind.release;
    return op->step(c, op);
}

static void begin_in_phases(struct zq_core *c, struct zq_op *op)
{
    zq_op_reset(c, op, step_first, NULL);
    op->r.rc = 0;
    zq_op_step(op);
}

/* op is finished on return, or under way: finish() may have run already. */
void zq_op_begin(struct zq_core *c, struct zq_op *op)
{
    zq_assert(zq_core_is_held(c));
    if (!zq_fast_start(c, op))
        begin_in_phases(c, op);
}

/*
 * Works until op is finished, in portions; the caller has begun one. A thread that carried out all
 * I/O itself has not polled: if nobody else does, it looks once, so that the image's own I/O gets
 * on however many calls follow.
 */
static void work(struct zq_core *c, struct zq_op *op)
{
    c->waiters++;
    zq_loop_run(c, op);
    while (!op->finished)
        zq_loop_wait(c, op, -1);
    zq_assert(zq_core_is_held(c) && c->waiters);
    c->waiters--;
    while (zq_loop_is_due(c) && !zq_loop_is_heard(c))
        zq_loop_wait(c, NULL, 0);
    zq_loop_pass_on(c);
    if (c->be->ops.poll && c->x.called && !c->polling && zq_io_awaited(&c->x) &&
        !zq_loop_is_heard(c))
        zq_loop_wait(c, NULL, 0);
    zq_loop_hand_over(c);
}

/* Others can go on now, or may have to be looked for. */
static bool has_work(const struct zq_core *c)
{
    return !zq_list_empty(&c->ready) || (c->be->ops.submit && zq_io_awaited(&c->x));
}

static void run_in_phases(struct zq_core *c, struct zq_op *op)
{
    zq_loop_begin(c);
    op->attended = true;
    if (c->x.alone) /* it has been refused by the fast path */
        begin_in_phases(c, op);
    else
        zq_op_begin(c, op);
    work(c, op);
}

/* The thread that waits for it may sleep while another one runs the loop. */
static void blocking_finish(struct zq_op *op)
{
    zq_loop_wake_others(op->core);
}

int zq_op_run_alone(struct zq_core *c, struct zq_op *op, zq_step *step, zq_release *release,
                    struct zq_snap *what)
{
    op->finish = blocking_finish;
    op->attended = true;
    op->req.op = ZQCOW2_OP_FLUSH; /* a kind whose result names no zone */
    zq_core_lock(c);
    zq_loop_begin(c);
    zq_op_reset(c, op, step, release);
    op->own.snapshot.what = what;
    zq_op_step(op);
    work(c, op);
    zq_core_unlock(c);
    return op->res.ret;
}

static inline void end_here(struct zq_core *c, struct zq_op *op)
{
    if (!op->finished || has_work(c)) {
        zq_loop_begin(c);
        work(c, op);
    }
}

/* Its time is measured, or the fast path must not block, or has refused it. */
static __attribute__((noinline)) void run_otherwise(struct zq_core *c, struct zq_op *op)
{
    uint64_t begun = c->timed ? zq_tally_now() : 0;

    if (begun && c->x.alone && zq_fast_run(c, op))
        end_here(c, op);
    else
        run_in_phases(c, op);
    if (begun)
        zq_tally_time(&c->tally, op, begun);
}

int zq_op_run_blocking(struct zq_core *c, struct zq_op *op)
{
    op->finish = blocking_finish;
    zq_core_lock(c);
    if (c->straight && zq_fast_run(c, op))
        end_here(c, op);
    else
        run_otherwise(c, op);
    zq_tally_add(&c->tally, op);
    zq_core_unlock(c);
    return op->res.ret;
}
