/* SPDX-License-Identifier: MIT */
/*
 * Bitmaps of an image in use.
 *
 * A change has the image for itself, as a snapshot does (N8): it drains, so that no request is
 * between its mark and its data; takes clusters as others do, and has a round count them; and lets
 * zq_bitmap_edit_change() work on the file without the mutex.
 *
 * A list, and a look at ranges, run beside requests. They count as operations, so no change comes
 * between; what the file has stays as it is meanwhile, and marks are looked at under the mutex.
 */
#include <errno.h>

#include "ops/bitmap.h"
#include "base/report.h"
#include "bitmap/walk.h"
#include "ops/bitmap_room.h"
#include "ops/flush.h"
#include "ops/request.h"
#include "round/round.h"
#include "space/admit.h"
#include "space/transfer.h"
#include "space/unmap.h"

/* ---- changes ---- */

enum { E_BEGIN, E_DRAIN, E_ALONE, E_PREPARE, E_ROOM, E_COUNTED, E_CHANGE, E_CHANGED, E_DONE };

struct change {
    struct zq_op op;
    struct zq_bitmap_edit *e;
    uint8_t phase;
    bool holds; /* nothing else is admitted because of it */
    struct zq_drain drain;
    struct zq_bitmap_room room;
};

static struct change *self(struct zq_op *op)
{
    return zq_container(op, struct change, op);
}

static void prepare_work(struct zq_io *io)
{
    io->ret = zq_bitmap_edit_prepare(self(zq_container(io, struct zq_op, io))->e);
}

static void change_work(struct zq_io *io)
{
    io->ret = zq_bitmap_edit_change(self(zq_container(io, struct zq_op, io))->e);
}

/* Only another operation that has the image for itself makes it wait here. */
static int begin(struct zq_core *c, struct change *x)
{
    int rc = zq_op_admit(c, &x->op);

    if (rc)
        return rc;
    c->exclusive = x->holds = true;
    if (!c->writable)
        return -EROFS;
    return c->dead ? ZQCOW2_EDEAD : c->sealed ? ZQCOW2_ECORRUPT : 0;
}

/*
 * Behind the switch's barrier: nothing durable names the old clusters. In memory all of it changes
 * in one hold of the mutex, so that no request is marked in a bitmap that has gone.
 */
static void adopt(struct zq_core *c, struct change *x)
{
    struct zq_bitmap_edit *e = x->e;

    zq_assert_k(N8, c->exclusive && c->nr_ops == 1);
    zq_bitmap_edit_adopt(e);
    zq_bitmap_room_adopt(c, &x->room, &e->s);
}

/*
 * Nobody knows what a failed write of the header has left (K9). An error before that leaves the
 * bitmaps as they are: nothing in the file names what was written.
 */
static int changed(struct zq_core *c, struct change *x)
{
    int rc = x->op.rc;

    zq_assert_k(N8, x->holds && c->exclusive && c->nr_ops == 1);
    x->phase = E_DONE;
    if (rc == 0)
        adopt(c, x);
    else if (x->e->s.begun)
        zq_core_die(c, rc);
    return rc;
}

/*
 * Room is taken behind the work that says how much; and the change begins when a round has counted
 * it, so that a table is never named before it is counted (K1).
 */
static int change_phase(struct zq_core *c, struct change *x)
{
    int rc;

    if (x->holds) /* not before: another one may hold the image, and its work reads this */
        c->bitmaps.bounds.file_size = c->alloc.file_size;
    switch (x->phase) {
    case E_BEGIN: rc = begin(c, x); break;
    case E_DRAIN: rc = zq_drain(c, &x->op, &x->drain); break;
    case E_ALONE: rc = zq_settle(c, &x->op); break;
    case E_PREPARE: x->phase++; return zq_op_call(c, &x->op, prepare_work);
    case E_ROOM:
        zq_mark_by_dirty(c);
        rc = zq_bitmap_room_take(c, &x->op, &x->room, &x->e->s);
        break;
    case E_COUNTED: rc = zq_settle(c, &x->op); break;
    case E_CHANGE:
        x->e->s.sector0 = c->sector0;
        x->phase++;
        return zq_op_call(c, &x->op, change_work);
    default: return changed(c, x);
    }
    if (rc == 0)
        x->phase++;
    return rc;
}

/* An error of what a phase waited for ends it; that of the change is judged. */
static int change_step(struct zq_core *c, struct zq_op *op)
{
    struct change *x = self(op);
    int rc = 0;

    while (rc == 0 && x->phase != E_DONE)
        rc = op->rc < 0 && x->phase != E_CHANGED ? op->rc : change_phase(c, x);
    return rc;
}

/*
 * The image is everybody's again. What was taken and is not named goes back; where the header may
 * name it, the image is dead, and the next open finds out.
 */
static void change_release(struct zq_core *c, struct zq_op *op)
{
    struct change *x = self(op);

    zq_drain_leave(c, &x->drain);
    zq_bitmap_room_leave(c, &x->room, &x->e->s);
    zq_release_mapping(c, op);
    if (!x->holds)
        return;
    zq_assert_k(N8, c->exclusive && zq_core_is_held(c));
    zq_bitmap_edit_free(x->e); /* by the bitmaps that it was made for: a hand-over may follow */
    c->exclusive = false;
    zq_wake(&c->ready, &c->gate_waiters);
}

int zq_bitmap_edit_run(struct zq_core *c, struct zq_bitmap_edit *e)
{
    struct change x = {.op.core = c, .e = e};

    e->s.b = &c->bitmaps;
    e->s.h = &c->hdr;
    zq_bitmap_room_init(&x.room);
    return zq_op_run_alone(c, &x.op, change_step, change_release, NULL);
}

/* ---- looking ---- */

enum { L_BEGIN, L_LOADED, L_NEXT, L_READ, L_DONE };

/*
 * One operation for both kinds of look: all bitmaps, counted; or one, whose ranges the caller gets.
 * Either goes through nodes, and each node is one read of the file at most.
 */
struct look {
    struct zq_op op;
    struct zqcow2_error *err;
    struct zq_bitmaps own; /* of an image that is open for reading */
    struct zq_bitmaps *b;
    struct zq_bitmap_walk walk;
    uint8_t phase;
    bool counted;
    struct zq_bitmap_list *list; /* or */
    struct zq_bitmap_look *look;
    uint32_t index; /* of the bitmap at work */
};

static struct look *looking(struct zq_op *op)
{
    return zq_container(op, struct look, op);
}

static void load_work(struct zq_io *io)
{
    struct look *l = looking(zq_container(io, struct zq_op, io));

    io->ret = zq_bitmaps_load(&l->own, l->op.core->hdr.bitmaps_offset, false, l->err);
}

static void read_work(struct zq_io *io)
{
    io->ret = zq_bitmap_walk_read(&looking(zq_container(io, struct zq_op, io))->walk);
}

/*
 * An image that is open for writing has them in memory, where a change waits for this operation to
 * end. A reader loads its own: nobody changes them.
 */
static int begin_look(struct zq_core *c, struct look *l)
{
    int rc = zq_op_admit(c, &l->op);

    if (rc)
        return rc;
    l->phase = L_LOADED;
    l->b = &c->bitmaps;
    if (c->writable)
        return 0;
    l->b = &l->own;
    l->own.be = c->bitmaps.be;
    l->own.hooks = c->bitmaps.hooks;
    l->own.bounds = c->bitmaps.bounds;
    l->own.device = c->bitmaps.device;
    return c->hdr.bitmaps_offset ? zq_op_call(c, &l->op, load_work) : 0;
}

/* ---- of all of them ---- */

/* Callbacks come without a lock, when bitmaps may have gone: they get copies. */
static int copy_names(struct zq_core *c, struct look *l)
{
    struct zq_bitmap_list *to = l->list;
    uint64_t pos = 0;

    for (uint32_t i = 0; i < l->b->nr; i++)
        to->names_bytes += l->b->v[i].r.name_bytes + 1;
    to->nr = l->b->nr;
    if (!to->nr)
        return 0;
    to->v = zq_zalloc_array(&c->hooks, to->nr, sizeof(*to->v));
    to->names = zq_zalloc(&c->hooks, to->names_bytes);
    if (!to->v || !to->names)
        return -ENOMEM;
    for (uint32_t i = 0; i < to->nr; i++) {
        const struct zq_bitmap *m = &l->b->v[i];

        to->v[i] = (struct zq_bitmap_facts){.r = m->r, .name = pos, .lost = m->lost};
        memcpy(to->names + pos, zq_bitmap_name(l->b, m), m->r.name_bytes);
        pos += m->r.name_bytes + 1;
    }
    return 0;
}

/*
 * Of the node, which has been joined. The last bit of the device may stand for less than the others
 * do: a caller that adds up what it has to copy gets the right sum.
 */
static void count(struct look *l, uint64_t to)
{
    const struct zq_bitmap *m = l->walk.m;
    uint32_t bits = m->r.granularity_bits;
    uint64_t *dirty = &l->list->v[l->index].dirty;

    *dirty += zq_bitmap_walk_count(&l->walk) << bits;
    if (to == zq_bitmap_size(l->b, m) && zq_bitmap_walk_find(&l->walk, to - 1, to, true) < to)
        *dirty -= (to << bits) - l->b->device;
}

/* ---- of one ---- */

/*
 * A range that goes on in the next node stays one: a caller copies as few pieces as possible.
 * True: there is no room for more.
 */
static bool add_range(struct zq_bitmap_look *k, uint64_t offset, uint64_t end)
{
    struct zqcow2_dirty_range *last = k->nr ? &k->out[k->nr - 1] : NULL;

    if (last && last->offset + last->length == offset) {
        last->length += end - offset;
        return false;
    }
    if (k->nr == k->max)
        return true;
    k->out[k->nr++] = (struct zqcow2_dirty_range){offset, end - offset};
    return false;
}

/*
 * A range begins at the byte that was asked for at the earliest, though its mark stands for bytes
 * before that, too. True: there is no room for more.
 */
static bool collect(struct look *l, uint64_t from, uint64_t to)
{
    struct zq_bitmap_look *k = l->look;
    uint32_t bits = l->walk.m->r.granularity_bits;

    from = zq_max(from, k->from >> bits);
    while ((from = zq_bitmap_walk_find(&l->walk, from, to, true)) < to) {
        uint64_t end = zq_bitmap_walk_find(&l->walk, from, to, false);

        if (add_range(k, zq_max(from << bits, k->from), zq_min(end << bits, l->b->device)))
            return true;
        from = end;
    }
    return false;
}

/* ---- node by node ---- */

/* The next bitmap that can be read, or none: what is marked in one that is lost says nothing. */
static int enter(struct look *l)
{
    while (l->index < l->b->nr && l->b->v[l->index].lost)
        l->index++;
    if (l->index >= l->b->nr) {
        l->phase = L_DONE;
        return 0;
    }
    l->phase = L_NEXT;
    return zq_bitmap_walk_begin(&l->walk, l->b, &l->b->v[l->index], 0);
}

/* The node that the byte `from` lies in comes first. */
static int enter_one(struct look *l)
{
    const struct zq_bitmap *m = zq_bitmaps_find(l->b, l->look->name);

    if (!m)
        return zq_fail(l->err, -ENOENT, "no bitmap has this name");
    if (m->lost)
        return zq_fail(l->err, ZQCOW2_ECORRUPT,
                       "the bitmap is inconsistent, because the image was not closed");
    l->index = (uint32_t)(m - l->b->v);
    l->phase = l->look->max && l->look->from < l->b->device ? L_NEXT : L_DONE;
    return zq_bitmap_walk_begin(&l->walk, l->b, m, l->look->from >> m->r.granularity_bits);
}

/*
 * The node is in memory, of this moment: requests may have marked some of it while it was read, and
 * that is in it. What they mark from now on belongs to the next look.
 */
static int take_node(struct look *l)
{
    uint64_t from, to;

    zq_assert(l->phase == L_NEXT || l->phase == L_READ);
    zq_bitmap_walk_join(&l->walk, &from, &to);
    l->phase = L_NEXT;
    if (l->look && collect(l, from, to))
        l->phase = L_DONE;
    if (l->list)
        count(l, to);
    l->walk.node++;
    return 0;
}

/* The mutex is held from here to the answer, unless the node has to be read. */
static int next_node(struct zq_core *c, struct look *l)
{
    zq_assert(zq_core_is_held(c));
    zq_bitmap_walk_skip(&l->walk);
    if (l->walk.node < l->walk.nodes) {
        if (zq_bitmap_walk_is_known(&l->walk))
            return take_node(l);
        l->phase = L_READ;
        return zq_op_call(c, &l->op, read_work);
    }
    l->index++;
    if (l->list)
        return enter(l);
    l->phase = L_DONE;
    return 0;
}

static int look_step(struct zq_core *c, struct zq_op *op)
{
    struct look *l = looking(op);
    int rc = op->rc;

    while (rc == 0 && l->phase != L_DONE) {
        switch (l->phase) {
        case L_BEGIN: rc = begin_look(c, l); break;
        case L_LOADED:
            rc = l->list ? copy_names(c, l) : enter_one(l);
            if (rc == 0 && l->list)
                rc = enter(l);
            break;
        case L_NEXT: rc = next_node(c, l); break;
        default: rc = take_node(l);
        }
    }
    return rc;
}

static void look_release(struct zq_core *c, struct zq_op *op)
{
    struct look *l = looking(op);

    zq_assert(zq_core_is_held(c));
    zq_bitmap_walk_end(&l->walk);
    zq_bitmaps_close(&l->own);
}

int zq_bitmap_list_run(struct zq_core *c, struct zq_bitmap_list *list)
{
    struct look l = {.op.core = c, .err = list->err, .list = list};

    return zq_op_run_alone(c, &l.op, look_step, look_release, NULL);
}

void zq_bitmap_list_free(struct zq_core *c, struct zq_bitmap_list *l)
{
    if (l->v)
        zq_free(&c->hooks, l->v, l->nr * sizeof(*l->v));
    if (l->names)
        zq_free(&c->hooks, l->names, l->names_bytes);
}

int zq_bitmap_look_run(struct zq_core *c, struct zq_bitmap_look *look)
{
    struct look l = {.op.core = c, .err = look->err, .look = look};

    return zq_op_run_alone(c, &l.op, look_step, look_release, NULL);
}
