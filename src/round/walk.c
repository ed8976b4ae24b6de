/* SPDX-License-Identifier: MIT */
/*
 * Passes of a round over the zones, which may be a million: some sectors of a table at a time, and
 * other operations in between when a portion is used up (E7).
 */
#include "round/walk.h"
#include "base/report.h"

void zq_round_enter(struct zq_round *r, uint8_t phase)
{
    r->phase = phase;
    r->sector = r->states_sector = 0;
}

bool zq_round_pause(struct zq_core *c)
{
    zq_assert_k(E7, !c->round.paused);
    c->round.paused = true;
    zq_op_ready(&c->round.op);
    return false;
}

/* True: it is over. */
static bool walk(struct zq_core *c, zq_table_pass *pass, uint32_t *at, uint64_t sectors,
                 uint32_t chunk)
{
    while (*at < sectors) {
        if (c->left <= 0)
            return zq_round_pause(c);
        pass(&c->zones, *at, &c->left);
        *at += chunk;
    }
    return true;
}

static bool walk_pointers(struct zq_core *c, zq_table_pass *pass)
{
    return walk(c, pass, &c->round.sector, c->zones.nr_sectors, ZQ_TABLE_CHUNK);
}

static bool walk_states(struct zq_core *c, zq_table_pass *pass)
{
    uint64_t sectors = c->zones.states_at ? zq_states_bytes(c->zones.g.nr_zones) / ZQ_SECTOR : 0;

    return walk(c, pass, &c->round.states_sector, sectors, ZQ_TABLE_CHUNK / 8);
}

/* An image that dies keeps its tables as they are. */
bool zq_round_walk(struct zq_core *c)
{
    struct zq_round *r = &c->round;

    if (!c->zoned || r->fatal)
        return true;
    if (r->phase == ZQ_PH_ENTER)
        return r->stage != ZQ_ST_FULL || walk_pointers(c, zq_table_weigh);
    if (r->phase == ZQ_PH_LEAVE && r->stage == ZQ_ST_META)
        return walk_pointers(c, zq_table_resets_durable);
    if (r->phase == ZQ_PH_LEAVE)
        return r->stage != ZQ_ST_FULL || !r->wrote || walk_pointers(c, zq_table_full_durable);
    if (r->rc < 0)
        return walk_pointers(c, zq_table_round_stop) && walk_states(c, zq_states_round_stop);
    return walk_pointers(c, zq_table_round_done) && walk_states(c, zq_states_round_done);
}
