/* SPDX-License-Identifier: MIT */
/*
 * States that the embedding program sets: in memory, or to stay (R15).
 *
 * The first state that is to stay gives the image its table: clusters for it are taken and filled
 * with zeros, and a round names it in the header. Only then are states stored in it, which takes
 * another round. An operation that comes meanwhile waits for the one that makes the table.
 */
#include <errno.h>
#include "ops/set_state.h"
#include "base/report.h"
#include "round/round.h"
#include "space/admit.h"
#include "space/transfer.h"
#include "space/unmap.h"

enum { T_TABLE, T_ZEROS, T_NAMED, T_SET, T_DURABLE };

static bool persists(const struct zq_op *op)
{
    return op->req.length & ZQCOW2_ZONE_PERSIST;
}

/* A request has no member for the state: it is in length, with PERSIST as a flag beside it. */
static uint64_t state_of(const struct zq_op *op)
{
    return op->req.length & ~(uint64_t)ZQCOW2_ZONE_PERSIST;
}

/*
 * CLOSED is for empty zones under the rules of ZNS: elsewhere no zone can be closed at its start.
 */
static int check(const struct zq_core *c, const struct zq_op *op, uint32_t zone)
{
    switch (state_of(op)) {
    case ZQCOW2_ZONE_RDONLY:
    case ZQCOW2_ZONE_OFFLINE:
    case ZQCOW2_ZONE_NOT_WP: break;
    case ZQCOW2_ZONE_CLOSED:
        if (persists(op) && c->zones.rules == ZQCOW2_RULES_ZNS)
            break;
        return -EINVAL;
    default: return -EINVAL;
    }
    return zone < c->zones.g.conventional ? ZQCOW2_EZONE_STATE : 0;
}

/* ---- the table ---- */

static uint64_t table_bytes(const struct zq_core *c)
{
    return zq_align_up(zq_states_bytes(c->zones.g.nr_zones), (uint64_t)1 << c->cluster_bits);
}

static int find_room(struct zq_core *c, struct zq_op *op, struct zq_found *f)
{
    uint32_t want = (uint32_t)(table_bytes(c) >> c->cluster_bits);
    int rc = zq_alloc_find_row(&c->alloc, &op->g, want, f);

    if (rc)
        return rc;
    return zq_alloc_cover(&c->alloc, &op->g, (f->cluster + want) << c->cluster_bits);
}

/*
 * What can fail comes first: whether the header has room for the table's place, clusters, memory.
 * When the clusters are taken, new_states.host says so, and leave_table() gives them back if it
 * comes to that.
 */
static int take_room(struct zq_core *c, struct zq_op *op)
{
    size_t bytes = (size_t)table_bytes(c);
    uint8_t probe[ZQ_SECTOR];
    struct zq_found found;
    int rc;

    memcpy(probe, c->sector0, sizeof(probe));
    if (!zq_states_put(probe, &c->hdr, bytes, c->zones.g.nr_zones))
        return ZQCOW2_EFEATURE;
    rc = zq_may_allocate(c, op);
    if (rc == 0)
        rc = find_room(c, op, &found);
    if (rc)
        return rc;
    op->own.state.zeros = zq_alloc(&c->hooks, 4096, bytes);
    op->own.state.freed = zq_record_new(&c->alloc);
    if (!op->own.state.zeros || !op->own.state.freed)
        return -ENOMEM;
    memset(op->own.state.zeros, 0, bytes);
    zq_alloc_take(&c->alloc, &found, (uint32_t)(bytes >> c->cluster_bits));
    zq_cache_release(&c->cache, &op->g);
    c->new_states.host = found.cluster << c->cluster_bits;
    return 0;
}

/*
 * The zeros are in the file before the round that names them begins: it captures only what is
 * whole.
 */
static int table_phase(struct zq_core *c, struct zq_op *op)
{
    struct zq_new_states *n = &c->new_states;
    int rc;

    switch (op->own.state.phase) {
    case T_TABLE:
        rc = n->host ? 0 : take_room(c, op); /* a round that stopped has left a whole one */
        if (rc)
            return rc;
        op->round = 0; /* what comes next waits for a round of its own */
        op->own.state.phase = n->whole ? T_NAMED : T_ZEROS;
        return 0;
    case T_ZEROS:
        op->own.state.phase = T_NAMED;
        return zq_op_io(c, op, ZQCOW2_IO_WRITE, op->own.state.zeros, n->host, table_bytes(c));
    default:
        zq_assert_k(R15, op->own.state.phase == T_NAMED && (n->host || c->zones.states_at));
        n->whole = n->host;
        rc = zq_round_wait(c, op);
        if (rc == 0)
            op->own.state.phase = T_SET;
        return rc;
    }
}

/* One maker at a time. It keeps its place while it waits, so those behind it hold nothing. */
static int have_table(struct zq_core *c, struct zq_op *op)
{
    struct zq_new_states *n = &c->new_states;

    /* Where nothing is stored, there is nothing to remove. */
    if (!n->maker && (c->zones.states_at || state_of(op) == ZQCOW2_ZONE_NOT_WP)) {
        op->own.state.phase = T_SET;
        return 0;
    }
    if (n->maker && n->maker != op)
        return zq_op_park(c, op, &n->waiters);
    n->maker = op;
    while (op->own.state.phase < T_SET) {
        int rc = op->rc < 0 ? op->rc : c->dead ? ZQCOW2_EDEAD : table_phase(c, op);

        if (rc)
            return rc;
    }
    return 0;
}

/* The next one finds the table, or makes it. Clusters whose zeros failed are given back. */
static void leave_table(struct zq_core *c, struct zq_op *op)
{
    struct zq_new_states *n = &c->new_states;

    if (n->maker == op) {
        if (n->host && !n->whole) {
            op->own.state.freed->cluster = n->host >> c->cluster_bits;
            op->own.state.freed->count = table_bytes(c) >> c->cluster_bits;
            zq_alloc_quarantine(&c->alloc, op->own.state.freed, false);
            op->own.state.freed = NULL;
            n->host = 0;
            c->want_janitor = true;
        }
        n->maker = NULL;
        zq_wake(&c->ready, &n->waiters);
    }
    zq_free(&c->hooks, op->own.state.zeros, table_bytes(c));
    zq_record_drop(&c->alloc, op->own.state.freed);
    op->own.state.zeros = NULL;
    op->own.state.freed = NULL;
}

/* ---- states ---- */

/* Of a zone that holds nothing: it counts as active from now on. */
static int close_empty(struct zq_core *c, uint32_t zone)
{
    const struct zq_verdict needs = {0, ZQCOW2_ZONE_CLOSED, true, false, true};
    struct zq_zone *z = &c->zones.v[zone];
    uint32_t victim;
    int rc = 0;

    if (z->forced || z->next != zq_geometry_start(&c->zones.g, zone))
        return ZQCOW2_EZONE_STATE;
    if (zq_state_is_open(z->state))
        zq_zone_do_close(&c->zones, zone);
    if (z->state == ZQCOW2_ZONE_EMPTY)
        rc = zq_zones_room(&c->zones, zone, &needs, &victim);
    if (rc < 0)
        return rc;
    zq_zone_set_state(&c->zones, zone, ZQCOW2_ZONE_CLOSED);
    zq_zone_store(&c->zones, zone, ZQCOW2_ZONE_NOT_WP | ZQ_STORED_CLOSED);
    return 0;
}

/* As the write pointer says, now and after the next open. */
static void normal(struct zq_core *c, uint32_t zone)
{
    struct zq_zone *z = &c->zones.v[zone];
    bool at_start = z->next == zq_geometry_start(&c->zones.g, zone);

    if (z->forced)
        zq_zone_force(&c->zones, zone, z->forced);
    if (z->state == ZQCOW2_ZONE_CLOSED && at_start)
        zq_zone_set_state(&c->zones, zone, ZQCOW2_ZONE_EMPTY);
    zq_zone_store(&c->zones, zone, 0);
}

/*
 * The states in memory and those to be stored change in one hold of the mutex; a round writes them.
 */
static int store(struct zq_core *c, uint32_t zone, uint8_t state)
{
    struct zq_zone *z = &c->zones.v[zone];

    if (state == ZQCOW2_ZONE_CLOSED)
        return close_empty(c, zone);
    if (state == ZQCOW2_ZONE_NOT_WP) {
        normal(c, zone);
        return 0;
    }
    if (z->forced != state)
        zq_zone_force(&c->zones, zone, state);
    zq_zone_store(&c->zones, zone, (uint8_t)((z->stored & ~ZQ_STORED_FORCED) | state));
    return 0;
}

/*
 * In its turn and drained, like any change of a zone: writes that were submitted before still see
 * the zone as it was. A dead image still takes states that are not to stay.
 */
static int set(struct zq_core *c, struct zq_op *op, uint32_t zone)
{
    uint8_t state = (uint8_t)state_of(op);
    int rc = zq_turn_take(c, op, zone); /* even if nothing is forced now: an earlier one may wait */

    if (rc == 0 && !c->dead)
        rc = zq_await_drained(c, op, zone);
    if (rc == 0 && persists(op))
        rc = c->dead ? ZQCOW2_EDEAD : store(c, zone, state);
    else if (rc == 0 && (state != ZQCOW2_ZONE_NOT_WP || c->zones.v[zone].forced))
        zq_zone_force(&c->zones, zone, state);
    if (rc)
        return rc;
    zq_turn_leave(c, op);
    op->round = 0;
    op->own.state.phase = T_DURABLE;
    return 0;
}

int zq_step_set_state(struct zq_core *c, struct zq_op *op)
{
    uint32_t zone = zq_zone_of(&c->zones, op->req.offset);
    int rc = check(c, op, zone);

    if (rc == 0 && op->own.state.phase < T_SET && persists(op))
        rc = have_table(c, op);
    if (rc)
        return rc;
    if (op->own.state.phase < T_DURABLE) {
        leave_table(c, op);
        rc = set(c, op, zone);
    }
    return rc || !persists(op) ? rc : zq_round_wait(c, op);
}

void zq_release_set_state(struct zq_core *c, struct zq_op *op)
{
    leave_table(c, op);
    zq_release_mapping(c, op);
}
