/* SPDX-License-Identifier: MIT */
/* Lets a request join a batch only if no timing can change its answer or another's. */
#include <stdlib.h>
#include <string.h>
#include "rig/batch.h"

void batch_init(struct batch *b, struct model *m)
{
    b->m = m;
    b->mark = calloc(m->nr, sizeof(*b->mark));
    if (!b->mark)
        abort();
    batch_begin(b);
}

void batch_free(struct batch *b)
{
    free(b->mark);
}

void batch_begin(struct batch *b)
{
    for (uint32_t i = 0; i < b->m->nr; i++) {
        const struct model_zone *z = &b->m->zone[i];
        bool open = z->state == ZQCOW2_ZONE_IMP_OPEN || z->state == ZQCOW2_ZONE_EXP_OPEN;

        b->mark[i] = (struct mark){.open = open && !z->forced,
                                   .wp = z->wp,
                                   .active = open || z->state == ZQCOW2_ZONE_CLOSED};
    }
    b->nr = 0;
}

/* Could this zone, too, be open and active without anybody being refused or closed? */
static bool room_for(const struct batch *b, uint32_t zone)
{
    const struct geometry *g = &b->m->g;
    uint32_t open = 0, active = 0;

    if (!g->max_open && !g->max_active)
        return true;
    for (uint32_t i = 0; i < b->m->nr; i++) {
        const struct mark *k = &b->mark[i];

        open += k->open || k->taken || i == zone;
        active += k->active || k->taken || i == zone;
    }
    return (!g->max_open || open <= g->max_open) && (!g->max_active || active <= g->max_active);
}

static bool overlaps(const struct batch *b, const struct gen_op *op)
{
    for (unsigned k = 0; k < b->nr; k++) {
        const struct gen_op *o = &b->op[k];

        if (o->kind <= ZQCOW2_OP_DISCARD && o->off < op->off + op->len && op->off < o->off + o->len)
            return true;
    }
    return false;
}

/* Overlapping something in flight is allowed only below where the write pointers already were. */
static bool may_read(struct batch *b, const struct gen_op *op)
{
    const struct geometry *g = &b->m->g;
    uint64_t end = op->off + op->len;
    uint32_t first = (uint32_t)(op->off / g->zone_size);
    uint32_t last = (uint32_t)((end - 1) / g->zone_size);

    if (first < g->conventional && overlaps(b, op))
        return false;
    for (uint32_t i = first; i <= last; i++) {
        if (b->mark[i].changed && (b->mark[i].reset || end > b->mark[i].wp))
            return false;
    }
    for (uint32_t i = first; i <= last; i++) {
        b->mark[i].read = true;
        if (b->mark[i].read_end < end)
            b->mark[i].read_end = end;
    }
    return true;
}

static bool may_change(struct batch *b, const struct gen_op *op)
{
    uint32_t i = (uint32_t)(op->off / b->m->g.zone_size);
    struct mark *k = &b->mark[i];
    bool reset = op->kind == ZQCOW2_OP_ZONE_RESET;

    if (i < b->m->g.conventional)
        return op->kind >= ZQCOW2_OP_ZONE_OPEN || !overlaps(b, op);
    if (k->read && (reset || k->read_end > k->wp))
        return false;
    if (op->kind != ZQCOW2_OP_DISCARD && op->kind != ZQCOW2_OP_ZONE_CLOSE && !reset) {
        if (!room_for(b, i))
            return false;
        k->taken = true;
    }
    k->changed = true;
    k->reset |= reset;
    return true;
}

static bool may_join(struct batch *b, const struct gen_op *op)
{
    const struct geometry *g = &b->m->g;

    if (b->nr == BATCH_MAX || op->kind == ZQCOW2_OP_DRAIN || op->kind > ZQCOW2_OP_ZONE_RESET)
        return false;
    if (op->kind == ZQCOW2_OP_FLUSH)
        return true;
    if (!op->len || op->off >= g->size || op->len > g->size - op->off || op->off % 512 ||
        op->len % 512)
        return false;
    if (op->kind == ZQCOW2_OP_READ)
        return may_read(b, op);
    if (op->kind >= ZQCOW2_OP_ZONE_OPEN && op->len > g->zone_size)
        return false;
    return may_change(b, op);
}

bool batch_join(struct batch *b, const struct gen_op *op)
{
    if (!may_join(b, op))
        return false;
    b->op[b->nr++] = *op;
    return true;
}
