/* SPDX-License-Identifier: MIT */
/* Draws operations: mostly sensible ones, and every kind of mistake now and then. */
#include <errno.h>
#include "rig/gen.h"
#include "rig/rng.h"

/* One draw in hand: its own numbers, so that leaving out other operations does not change it. */
struct dice {
    const struct model *m;
    uint64_t rng;
};

static uint64_t roll(struct dice *d, uint64_t n)
{
    return rng_below(&d->rng, n);
}

/* Half of all operations fall on five zones, so that zones fill up and limits bite. */
static uint32_t any_zone(struct dice *d)
{
    uint32_t nr = d->m->nr;

    if (roll(d, 2))
        return (uint32_t)((d->m->g.conventional + roll(d, 5)) % nr);
    return (uint32_t)roll(d, nr);
}

static uint64_t at_most(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Small, or up to 64 KiB, or in whole clusters. */
static uint64_t any_len(struct dice *d)
{
    switch (roll(d, 8)) {
    case 0: return at_most(GEN_MAX_BYTES, d->m->g.cluster * (1 + roll(d, 4)));
    case 1:
    case 2: return 512 * (1 + roll(d, 128));
    default: return 512 * (1 + roll(d, 8));
    }
}

/* Now and then exactly what is left of the zone, or one sector more. */
static uint64_t len_for(struct dice *d, uint32_t i, uint64_t most)
{
    const struct model_zone *z = &d->m->zone[i];
    uint64_t left = model_zone_limit(d->m, i) - z->wp, len = any_len(d);

    if (i >= d->m->g.conventional && left && roll(d, 6) == 0)
        len = left + (roll(d, 4) ? 0 : 512);
    return at_most(len, most);
}

/* At the write pointer, or at a place that somebody could mistake for it. */
static uint64_t off_for(struct dice *d, uint32_t i)
{
    uint64_t start = d->m->g.zone_size * i, len = model_zone_end(d->m, i) - start;
    uint64_t wp = d->m->zone[i].wp;

    if (i < d->m->g.conventional)
        return start + roll(d, len / 512) * 512;
    switch (roll(d, 24)) {
    case 0: return start;
    case 1: return wp + 512;
    case 2: return wp > start ? wp - 512 : wp;
    case 3: return start + roll(d, len / 512) * 512;
    default: return wp;
    }
}

static void draw_write(struct dice *d, struct gen_op *op)
{
    uint32_t i = any_zone(d);
    bool zeroes = op->kind == ZQCOW2_OP_WRITE_ZEROES;

    op->off = op->kind == ZQCOW2_OP_APPEND ? d->m->g.zone_size * i : off_for(d, i);
    /* Zeros need no buffer, so they may be as long as a zone. */
    op->len = len_for(d, i, zeroes ? UINT64_MAX : GEN_MAX_BYTES);
    if (zeroes && roll(d, 8) == 0)
        op->len = 512 * (1 + roll(d, d->m->g.zone_size / 512));
}

static void draw_read(struct dice *d, struct gen_op *op)
{
    uint32_t i = any_zone(d);
    uint64_t start = d->m->g.zone_size * i, wp = d->m->zone[i].wp;

    op->len = at_most(any_len(d) * (1 + roll(d, 3)), GEN_MAX_BYTES);
    op->off = start + roll(d, d->m->g.zone_size / 512) * 512;
    if (roll(d, 2)) /* around the write pointer */
        op->off = wp - at_most(wp - start, roll(d, 16) * 512);
    if (op->off + op->len > d->m->g.size && roll(d, 16))
        op->len = 512;
}

/* Crossing from conventional zones into others may be refused in two ways: not drawn. */
static void draw_discard(struct dice *d, struct gen_op *op)
{
    uint64_t run = d->m->g.zone_size * d->m->g.conventional;
    uint32_t i = any_zone(d);

    op->off = d->m->g.zone_size * i;
    op->len = 512;
    if (d->m->zone[i].forced)
        op->off = run ? 0 : d->m->g.size;
    if (op->off < run) {
        op->off = roll(d, run / 512) * 512;
        op->len = at_most(any_len(d) * (1 + roll(d, 4)), run - op->off);
    }
}

static void draw_manage(struct dice *d, struct gen_op *op)
{
    uint64_t zs = d->m->g.zone_size, size = d->m->g.size;
    uint64_t form = roll(d, 64);

    op->off = zs * any_zone(d);
    op->len = zs;
    if (form == 0) {
        op->off = 0;
        op->len = size;
    } else if (form < 8) {
        op->len = zs * (1 + roll(d, 4));
    } else if (form == 8) {
        op->off += 512;
    } else if (form == 9) {
        op->len = roll(d, 2) ? zs + 512 : zs - 512;
    }
    if (form >= 1 && form < 8 && op->off == 0 && op->len >= size)
        op->len = zs; /* "all" by accident */
    if (op->off + op->len > size && roll(d, 8))
        op->len = op->off < size ? size - op->off : 512;
}

static void draw_set_state(struct dice *d, struct gen_op *op)
{
    static const unsigned states[] = {ZQCOW2_ZONE_RDONLY, ZQCOW2_ZONE_OFFLINE};
    const struct model *m = d->m;
    uint32_t i = any_zone(d);

    op->state = states[roll(d, 2)];
    /* Mostly heal, so that the device does not die away. */
    for (uint32_t k = 0; k < m->nr && roll(d, 4); k++, i = (i + 1) % m->nr) {
        if (m->zone[i].forced) {
            op->state = m->zone[i].forced;
            break;
        }
    }
    op->off = m->g.zone_size * i + roll(d, 16) * 512;
    if (op->off >= m->g.size)
        op->off = m->g.zone_size * i;
    if (roll(d, 32) == 0)
        op->state = (unsigned)roll(d, 13);
    /* Behind the name of a backing file such a header has no room for it. */
    if (roll(d, 3) == 0 && !(m->g.layers && m->g.cluster == 512))
        op->state |= ZQCOW2_ZONE_PERSIST;
    /* What is stored is to be healed for good, too. */
    if (op->state & ZQCOW2_ZONE_PERSIST && m->zone[i].stored && roll(d, 4))
        op->state = ZQCOW2_ZONE_NOT_WP | ZQCOW2_ZONE_PERSIST;
    else if (op->state & ZQCOW2_ZONE_PERSIST && roll(d, 3) == 0)
        op->state = ZQCOW2_ZONE_CLOSED | ZQCOW2_ZONE_PERSIST;
}

/* Spoils an operation's arguments. */
static void spoil(struct dice *d, struct gen_op *op)
{
    switch (roll(d, 6)) {
    case 0: op->off += 1 + roll(d, 511); break;
    case 1: op->len = op->len > 512 ? op->len - 1 - roll(d, 511) : 0; break;
    case 2: op->off = d->m->g.size + roll(d, 4) * 512; break;
    case 3:
        op->off = d->m->g.size - 512;
        op->len = 1024;
        break;
    case 4: op->off = -(1 + roll(d, 4)) * 512; break;
    default: op->len = 0; break;
    }
}

static int any_kind(struct dice *d)
{
    static const struct {
        int kind;
        unsigned weight;
    } mix[] = {
        {ZQCOW2_OP_WRITE, 300},         {ZQCOW2_OP_APPEND, 200},    {ZQCOW2_OP_READ, 160},
        {ZQCOW2_OP_WRITE_ZEROES, 50},   {ZQCOW2_OP_DISCARD, 20},    {ZQCOW2_OP_FLUSH, 12},
        {ZQCOW2_OP_DRAIN, 2},           {ZQCOW2_OP_ZONE_OPEN, 60},  {ZQCOW2_OP_ZONE_CLOSE, 50},
        {ZQCOW2_OP_ZONE_FINISH, 40},    {ZQCOW2_OP_ZONE_RESET, 70}, {GEN_REOPEN, 2},
        {ZQCOW2_OP_ZONE_SET_STATE, 12}, {GEN_COMPARE, 3},
    };
    uint64_t left = roll(d, 981);
    unsigned k = 0;

    while (left >= mix[k].weight && k + 1 < sizeof(mix) / sizeof(*mix))
        left -= mix[k++].weight;
    return mix[k].kind;
}

struct gen_op gen_draw(const struct model *m, uint64_t seed, uint64_t n)
{
    struct dice d = {m, rng_mix(seed) ^ rng_mix(n + 1)};
    struct gen_op op = {.kind = any_kind(&d), .tag = n + 1};

    if (op.kind == ZQCOW2_OP_READ)
        draw_read(&d, &op);
    else if (op.kind == ZQCOW2_OP_DISCARD)
        draw_discard(&d, &op);
    else if (op.kind <= ZQCOW2_OP_WRITE_ZEROES)
        draw_write(&d, &op);
    else if (op.kind == ZQCOW2_OP_ZONE_SET_STATE)
        draw_set_state(&d, &op);
    else if (op.kind >= ZQCOW2_OP_ZONE_OPEN && op.kind <= ZQCOW2_OP_ZONE_RESET)
        draw_manage(&d, &op);
    else
        return op;
    if (op.kind != ZQCOW2_OP_READ && op.kind != ZQCOW2_OP_DISCARD && roll(&d, 24) == 0)
        op.flags = ZQCOW2_FUA;
    if (op.kind != ZQCOW2_OP_ZONE_SET_STATE && roll(&d, 50) == 0)
        spoil(&d, &op);
    if (op.kind == ZQCOW2_OP_WRITE_ZEROES && roll(&d, 3) == 0)
        op.flags |= ZQCOW2_NO_UNMAP;
    return op;
}

int gen_model(struct model *m, const struct gen_op *op, void *buf, uint64_t *off)
{
    *off = op->off;
    switch (op->kind) {
    case ZQCOW2_OP_READ: return model_read(m, buf, op->len, op->off);
    case ZQCOW2_OP_WRITE: return model_write(m, buf, op->len, op->off);
    case ZQCOW2_OP_APPEND: return model_append(m, buf, op->len, off);
    case ZQCOW2_OP_WRITE_ZEROES: return model_write(m, NULL, op->len, op->off);
    case ZQCOW2_OP_DISCARD: return model_discard(m, op->len, op->off);
    case ZQCOW2_OP_FLUSH:
    case ZQCOW2_OP_DRAIN: return 0;
    case ZQCOW2_OP_ZONE_SET_STATE: return model_set_state(m, op->off, op->state);
    case GEN_REOPEN: model_reopen(m); return 0;
    case GEN_COMPARE: return 0;
    }
    return model_manage(m, op->kind, op->off, op->len, off);
}
