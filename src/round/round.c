/* SPDX-License-Identifier: MIT */
/*
 * Rounds: metadata goes to the disk as it was at one capture, stage by stage, with a barrier
 * behind each stage that wrote something. Keeps K1-K3, K8, K9; the reasons are in DESIGN.md.
 *
 * Rounds run one at a time, as a machine that pump() drives from the completion of its own I/O: it
 * takes no thread and is no operation. What the capture took is frozen until it is written, so a
 * stage may be written in any order and in as many pieces as there are I/Os. All errors end in
 * round_end(), when nothing is in flight any more.
 */
#include <errno.h>
#include "base/report.h"
#include "qcow2/growth.h"
#include "round/round.h"
#include "round/walk.h"

/* ---- waiting ---- */

int zq_round_wait(struct zq_core *c, struct zq_op *op)
{
    struct zq_round *r = &c->round;

    zq_assert(zq_core_is_held(c) && op->round <= c->alloc.rounds + 1);
    if (op->round && r->done >= op->round) {
        op->round = 0;
        return 0;
    }
    if (op->rc < 0 || c->dead) { /* the operation that saw it happen gets the cause */
        op->round = 0;
        return op->rc < 0 ? op->rc : ZQCOW2_EDEAD;
    }
    if (!op->round) {
        op->round = c->alloc.rounds + 1;
        r->wanted = true;
    }
    return zq_op_park(c, op, &r->waiters);
}

/* ---- stages: the next write of each ---- */

/* The buffer belongs to this I/O: what it was composed from may change while it is written. */
static void prep_buf(struct zq_round_io *w, uint64_t at, uint32_t bytes)
{
    zq_io_prep_buf(&w->io, ZQCOW2_IO_WRITE, w->buf, at, bytes);
}

/* Written from where it lies: it is frozen until write_done() thaws it. */
static bool next_slice(struct zq_core *c, struct zq_round_io *w, enum zq_slice_kind kind)
{
    struct zq_slice *s = zq_cache_next_frozen(&c->cache, kind);

    if (!s)
        return false;
    zq_assert_k(K2, s->frozen && s->writing && s->kind == kind);
    w->slice = s;
    zq_io_prep_buf(&w->io, ZQCOW2_IO_WRITE, s->data, s->host, c->cache.slice_bytes);
    return true;
}

/* False, too, if the portion is used up before one is found: start_writes() sees to that. */
static bool next_pointers(struct zq_core *c, struct zq_round_io *w, enum zq_table_stage stage)
{
    uint32_t n = 0;
    uint64_t at;

    while (!n && c->left > 0 && c->round.sector < c->zones.nr_sectors)
        n = zq_table_compose(&c->zones, stage, &c->round.sector, w->buf, ZQ_ROUND_BUF, &at,
                             &c->left);
    if (n)
        prep_buf(w, at, n);
    return n > 0;
}

/* L1, refcount table. */
static bool next_sectors(struct zq_core *c, struct zq_round_io *w, struct zq_memtable *t)
{
    uint64_t at;
    uint32_t n = zq_memtable_compose(t, &c->round.cursor, w->buf, ZQ_ROUND_BUF, &at);

    if (n)
        prep_buf(w, at, n);
    return n > 0;
}

static bool next_header(struct zq_core *c, struct zq_round_io *w)
{
    memcpy(w->buf, c->sector0, ZQ_SECTOR);
    prep_buf(w, 0, ZQ_SECTOR);
    return true;
}

/*
 * sector0 is what the file will have: header, marks and the switch of a table are all composed from
 * it.
 */
static void set_incompat(struct zq_core *c, uint64_t bit)
{
    uint8_t *at = c->sector0 + ZQ_HDR_INCOMPAT;

    zq_put_be64(at, zq_be64(at) | bit);
}

/*
 * Marks an image that was found corrupt, if the header has the field, for those that open it next.
 * The mark says that leaks may be found after a crash; DIRTY says the same, and counts may be low.
 */
static bool next_in_use(struct zq_core *c, struct zq_round_io *w)
{
    bool mark = c->want_mark && !c->marked, corrupt;

    corrupt = c->alloc.corrupt && !c->corrupt_marked && c->hdr.version >= 3;
    if (c->round.cursor++)
        return false;
    c->round.mark = mark;
    if (!mark && !corrupt)
        return false;
    if (corrupt)
        set_incompat(c, ZQ_INCOMPAT_CORRUPT);
    if (mark && c->hdr.mark_offset)
        c->sector0[c->hdr.mark_offset] = 1;
    if (mark && c->marks_dirty)
        set_incompat(c, ZQ_INCOMPAT_DIRTY);
    return next_header(c, w);
}

/* B1: then the flags of bitmaps, each in a sector of the directory. */
static bool next_flags(struct zq_core *c, struct zq_round_io *w)
{
    uint64_t at;
    uint32_t n = c->round.flags ?
                     zq_bitmaps_compose(&c->bitmaps, &c->round.bitmap, w->buf, ZQ_ROUND_BUF, &at) :
                     0;

    if (n)
        prep_buf(w, at, n);
    return n > 0;
}

static bool next_mark(struct zq_core *c, struct zq_round_io *w)
{
    return next_in_use(c, w) || next_flags(c, w);
}

/*
 * The header's sector, or the sectors of the table: one round never writes both, for while a table
 * grows no block is linked, and the new table is whole in the file already (R9).
 */
static bool next_table(struct zq_core *c, struct zq_round_io *w)
{
    struct zq_refs *r = &c->alloc.refs;

    if (c->alloc.growth.switching) {
        if (c->round.cursor++)
            return false;
        zq_growth_patch(&c->alloc, c->sector0);
        return next_header(c, w);
    }
    return r->table.frozen && next_sectors(c, w, &r->table);
}

/*
 * L1 and L2 share a stage without a barrier between them: a new L2 table is in the file, as zeros
 * or as a copy, before it is linked in L1 (R10), so neither order points to garbage.
 */
static bool next_l2(struct zq_core *c, struct zq_round_io *w)
{
    struct zq_map *m = &c->map;

    if (m->l1.frozen && next_sectors(c, w, &m->l1))
        return true;
    return next_slice(c, w, ZQ_SLICE_L2);
}

/*
 * The header, or sectors of the table: a table that is not named yet has none. Its clusters are
 * counted and its zeros written, behind the barrier of META at the latest (R15).
 */
static bool next_states(struct zq_core *c, struct zq_round_io *w)
{
    struct zq_round *r = &c->round;
    uint64_t at;

    if (c->new_states.naming) {
        if (r->cursor++)
            return false;
        (void)zq_states_put(c->sector0, &c->hdr, c->new_states.host, c->zones.g.nr_zones);
        return next_header(c, w);
    }
    if (!c->zoned || !zq_states_compose(&c->zones, &r->sector, w->buf, &at, &c->left))
        return false;
    prep_buf(w, at, ZQ_SECTOR);
    return true;
}

/*
 * False: the stage has nothing more to write. What belongs to a stage, and why: the table in
 * DESIGN.md.
 */
static bool next_write(struct zq_core *c, struct zq_round_io *w)
{
    w->slice = NULL;
    switch (c->round.stage) {
    case ZQ_ST_MARK: return next_mark(c, w);
    case ZQ_ST_META: return next_slice(c, w, ZQ_SLICE_REFS) || next_pointers(c, w, ZQ_TABLE_RESETS);
    case ZQ_ST_TABLE: return next_table(c, w);
    case ZQ_ST_L2: return next_l2(c, w);
    case ZQ_ST_FULL: return c->round.full_first && next_pointers(c, w, ZQ_TABLE_FULL);
    case ZQ_ST_WP: return next_pointers(c, w, ZQ_TABLE_REST);
    case ZQ_ST_STATES: return next_states(c, w);
    default: return false;
    }
}

/* ---- stages: begin and end ---- */

/* In one hold of the mutex: all parts are of one moment, or K1-K3 would compare two. */
static void capture(struct zq_core *c)
{
    zq_assert_k(K2, !c->map.l1.frozen && !c->alloc.refs.table.frozen && !c->alloc.growth.switching);
    c->alloc.rounds++;
    zq_cache_capture(&c->cache);
    zq_memtable_freeze(&c->map.l1);
    c->round.flags = c->want_flags;
    c->round.bitmap = 0;
    c->alloc.growth.switching = c->alloc.growth.whole;
    zq_memtable_freeze(&c->alloc.refs.table);
    c->alloc.refs.table.frozen |= c->alloc.growth.switching;
    c->new_states.naming = c->new_states.whole;
    if (c->zoned) {
        zq_table_capture(&c->zones);
        zq_states_capture(&c->zones);
    }
}

static void enter_stage(struct zq_core *c, enum zq_stage stage)
{
    struct zq_round *r = &c->round;

    zq_assert_k(K1 - K3, stage == r->stage + 1 && !r->in_flight); /* each behind the one before */
    r->stage = stage;
    r->cursor = 0;
    r->sector = 0;
    r->wrote = r->barrier = r->data_barrier = false;
}

/* From now on there is a table, of zones that are as they would be without it. */
static void states_named(struct zq_core *c)
{
    struct zq_new_states *n = &c->new_states;
    uint64_t bytes = zq_states_bytes(c->zones.g.nr_zones), cluster = (uint64_t)1 << c->cluster_bits;

    zq_assert_k(R15, n->whole && n->host && !c->zones.states_at);
    c->zones.states_at = n->host;
    c->hdr.autoclear |= ZQ_AUTOCLEAR_STATES;
    c->alloc.fixed[ZQ_FIXED_STATES] = (struct zq_host_range){n->host, zq_align_up(bytes, cluster)};
    c->hdr.descriptors_offset = zq_descriptors_behind(&c->hdr, n->host, c->zones.g.nr_zones);
    bytes = zq_descriptors_bytes(c->hdr.descriptor_size, c->zones.g.nr_zones);
    c->alloc.fixed[ZQ_FIXED_DESCRIBED] =
        (struct zq_host_range){c->hdr.descriptors_offset, zq_align_up(bytes, cluster)};
    n->host = 0;
    n->whole = n->naming = false;
}

static void bitmaps_flagged(struct zq_core *c)
{
    zq_bitmaps_flagged(&c->bitmaps);
    c->want_flags = c->round.flags = false;
}

/* All writes of the stage, and its barrier if it has one, are done. */
static void leave_stage(struct zq_core *c)
{
    zq_assert_k(K2, !c->round.wrote || c->round.barrier);
    zq_assert_k(K9, !c->round.rc && !c->round.in_flight);
    switch (c->round.stage) {
    case ZQ_ST_MARK:
        c->marked |= c->round.mark;
        if (c->round.flags)
            bitmaps_flagged(c);
        c->corrupt_marked = zq_be64(c->sector0 + ZQ_HDR_INCOMPAT) & ZQ_INCOMPAT_CORRUPT;
        break;
    case ZQ_ST_TABLE:
        if (c->alloc.growth.switching)
            zq_growth_switch(&c->alloc);
        if (c->alloc.refs.table.frozen)
            zq_refs_thaw(&c->alloc.refs);
        break;
    case ZQ_ST_L2:
        if (c->map.l1.frozen)
            zq_map_thaw(&c->map);
        break;
    case ZQ_ST_STATES:
        if (c->new_states.naming)
            states_named(c);
        break;
    default: break;
    }
}

/* Waiters for this round get its error; those after its capture wait for the next. */
static void fail_waiters(struct zq_core *c, int rc)
{
    struct zq_list waiters, *n;

    zq_list_init(&waiters);
    zq_list_splice(&waiters, &c->round.waiters);
    while ((n = zq_list_pop(&waiters))) {
        struct zq_op *op = zq_container(n, struct zq_op, g.wait.link);

        if (op->round > c->alloc.rounds) {
            zq_list_push(&c->round.waiters, n);
            continue;
        }
        op->g.wait.rc = rc;
        zq_op_ready(op);
    }
}

/*
 * The host has no space for a write of this round (R10). All that the capture took is dirty again,
 * and the next round begins anew. What this one has composed may be on disk or not.
 */
static void round_stop(struct zq_core *c, enum zq_stage at)
{
    struct zq_round *r = &c->round;

    if (at == ZQ_ST_MARK)
        c->want_mark = false; /* for the next operation that needs it */
    zq_memtable_stop(&c->map.l1);
    zq_memtable_stop(&c->alloc.refs.table);
    if (c->alloc.growth.switching)
        zq_growth_stop(&c->alloc, r->rc);
    c->new_states.naming = false;
    zq_cache_round_stop(&c->cache, r->rc);
    zq_wake_with(&c->ready, &c->alloc.room_waiters, r->rc);
    fail_waiters(c, r->rc);
}

/*
 * Three ends: dead, because nobody knows what is on disk (K9); stopped for lack of space, to be
 * tried again (R10); or done, which ripens the quarantine.
 */
static void round_end(struct zq_core *c)
{
    struct zq_round *r = &c->round;
    enum zq_stage at = r->stage;

    zq_assert_k(K9, !r->in_flight && (at == ZQ_ST_END || r->rc < 0));
    r->stage = ZQ_ST_IDLE;
    if (r->fatal) {
        zq_wake_with(&c->ready, &r->waiters, zq_barrier_error(r->rc));
        zq_core_die(c, r->rc);
        return;
    }
    if (r->rc < 0) {
        round_stop(c, at);
        return;
    }
    zq_assert_k(K2, !c->map.l1.frozen && !c->alloc.refs.table.frozen);
    r->done = c->alloc.rounds;
    zq_cache_round_done(&c->cache);
    zq_assert_k(K5, !c->zoned || zq_zones_counted(&c->zones));
    zq_wake(&c->ready, &r->waiters);
    c->want_janitor = true;
}

/* ---- the machine ---- */

static void pump(struct zq_core *c);

/* No operation: it has no result, and nothing waits for it. */
static int step_round(struct zq_core *c, struct zq_op *op)
{
    zq_assert_k(E7, c->round.paused && op == &c->round.op);
    c->round.paused = false;
    pump(c);
    return ZQ_WAIT;
}

/* A fatal error is the one that is reported. */
static void round_failed(struct zq_core *c, int ret, bool fatal)
{
    struct zq_round *r = &c->round;

    if (!r->rc || (fatal && !r->fatal))
        r->rc = ret;
    r->fatal |= fatal;
}

/* A slice stays frozen if its write failed: the stop or death decides what becomes of it. */
static void write_done(struct zq_io *io, int ret)
{
    struct zq_round_io *w = zq_container(io, struct zq_round_io, io);
    struct zq_core *c = w->round->core;

    zq_assert(zq_core_is_held(c) && w->busy && c->round.in_flight);
    w->busy = false;
    c->round.in_flight--;
    if (ret < 0)
        round_failed(c, ret, !zq_is_no_space(ret));
    else if (w->slice)
        zq_cache_thaw(&c->cache, w->slice);
    pump(c);
}

/* Whatever its error: after a failed barrier nobody knows what is on disk (K9). */
static void barrier_done(struct zq_io *io, int ret)
{
    struct zq_core *c = zq_container(io, struct zq_round, flush)->core;

    c->round.in_flight--;
    if (ret < 0)
        round_failed(c, ret, true);
    pump(c);
}

/* What completes from now on is not covered: the flag falls when the barrier is submitted. */
static void start_flush(struct zq_core *c, struct zq_iox *x)
{
    struct zq_round *r = &c->round;

    zq_assert_k(K2, !r->in_flight && !r->barrier);
    r->in_flight++;
    x->unbarriered = false;
    r->flush.complete = barrier_done;
    zq_io_prep(&r->flush, ZQCOW2_IO_FLUSH, 0, 0);
    zq_io_start(x, &r->flush);
}

/*
 * D2: what the metadata of later stages points to is durable first. Of a data file with a barrier
 * of its own, for whose end pump() waits before it goes on to the image's. What is written to it
 * while that one runs came behind the capture: none follows.
 */
static bool start_data_barrier(struct zq_core *c)
{
    struct zq_round *r = &c->round;

    if (r->stage != ZQ_ST_META || c->data == &c->x || r->data_barrier || r->barrier ||
        !c->data->unbarriered)
        return false;
    start_flush(c, c->data);
    return r->data_barrier = true;
}

static bool start_barrier(struct zq_core *c)
{
    struct zq_round *r = &c->round;

    if (r->barrier || !(r->wrote || (r->stage == ZQ_ST_META && c->x.unbarriered)))
        return false;
    start_flush(c, &c->x);
    return r->barrier = r->asked = true;
}

/* Without the mutex. */
static void length_work(struct zq_io *io)
{
    struct zq_core *c = zq_container(io, struct zq_round, flush)->core;
    uint64_t has = 0;

    io->ret = zq_be_length(c->be, &has);
    if (io->ret == 0 && has < c->round.length)
        io->ret = -EIO;
    if (io->ret == 0 && c->data != &c->x)
        io->ret = zq_be_length(c->data->be, &has);
    if (io->ret == 0 && c->data != &c->x && has < c->size)
        io->ret = -EIO;
}

/*
 * A barrier notices that another program truncated the file. A flush with nothing to write has no
 * barrier and asks for the length instead: durable data may be gone.
 */
static bool start_length(struct zq_core *c)
{
    struct zq_round *r = &c->round;

    if (r->asked || zq_list_empty(&r->waiters))
        return false;
    r->asked = true;
    r->in_flight++;
    r->length = c->alloc.file_size;
    r->flush.complete = barrier_done;
    zq_io_prep(&r->flush, ZQ_IO_WORK, 0, 0);
    r->flush.work = length_work;
    r->flush.cost = ZQ_COST_CALL;
    zq_io_start(&c->x, &r->flush);
    return true;
}

/*
 * After an error none is started: what has been composed may be on disk, the rest is not. False:
 * there may be more, but the portion is used up.
 */
static bool start_writes(struct zq_core *c)
{
    struct zq_round *r = &c->round;

    for (unsigned i = 0; i < ZQ_ROUND_IOS && !r->rc; i++) {
        struct zq_round_io *w = &r->io[i];

        if (w->busy)
            continue;
        if (c->left <= 0)
            return zq_round_pause(c);
        if (!next_write(c, w))
            return c->left > 0 || zq_round_pause(c);
        w->busy = r->wrote = true;
        w->io.complete = write_done;
        r->in_flight++;
        zq_io_start(&c->x, &w->io);
    }
    return true;
}

/* Writes of the stage and its barrier. True: they are over. */
static bool write_stage(struct zq_core *c)
{
    struct zq_round *r = &c->round;

    if ((!r->barrier && !start_writes(c)) || r->in_flight)
        return false;
    if (r->rc < 0)
        return true;
    if (r->stage == ZQ_ST_END)
        return !start_length(c);
    return !start_data_barrier(c) && !start_barrier(c);
}

/* The next phase, as far as it goes without waiting. False: it does not, or the round is over. */
static bool next_phase(struct zq_core *c)
{
    struct zq_round *r = &c->round;

    if (r->phase == ZQ_PH_WRITE) {
        if (!write_stage(c))
            return false;
        zq_round_enter(r, r->rc < 0 || r->stage == ZQ_ST_END ? ZQ_PH_END : ZQ_PH_LEAVE);
        return true;
    }
    if (!zq_round_walk(c))
        return false;
    switch (r->phase) {
    case ZQ_PH_ENTER:
        r->full_first = r->stage == ZQ_ST_FULL && c->zoned && zq_table_full_first(&c->zones);
        zq_round_enter(r, ZQ_PH_WRITE);
        return true;
    case ZQ_PH_LEAVE:
        leave_stage(c);
        enter_stage(c, r->stage + 1);
        zq_round_enter(r, ZQ_PH_ENTER);
        return true;
    default: round_end(c); return false;
    }
}

/* Stage by stage. An empty stage is skipped with its barrier. */
static void pump(struct zq_core *c)
{
    while (!c->round.paused && next_phase(c))
        continue;
}

/* A dead image starts none: nothing that it wrote could be trusted (K9). */
bool zq_round_needed(const struct zq_core *c)
{
    return !zq_round_is_running(c) && !c->dead &&
           (c->round.wanted || c->cache.want_round || c->alloc.want_switch);
}

/*
 * The requests for a round are cleared by the capture: what is asked for later needs another one.
 */
void zq_round_start(struct zq_core *c)
{
    struct zq_round *r = &c->round;

    zq_assert_k(K9, zq_core_is_held(c) && !c->dead && !zq_round_is_running(c) && !r->in_flight);
    r->wanted = c->cache.want_round = c->alloc.want_switch = false;
    r->fatal = r->asked = false;
    r->rc = 0;
    r->paused = false;
    zq_op_reset(c, &r->op, step_round, NULL);
    capture(c);
    enter_stage(c, ZQ_ST_MARK);
    zq_round_enter(r, ZQ_PH_ENTER);
    pump(c);
}
