/* SPDX-License-Identifier: MIT */
/*
 * The table of persistent zone states, for an image that has none (R15): clusters for it are taken
 * and filled with zeros, and a round names it in the header. Only then is anything stored in it,
 * which takes another round. An operation that comes meanwhile waits for the one that makes it.
 */
#include <errno.h>
#include "ops/state_table.h"
#include "base/report.h"
#include "round/round.h"
#include "space/admit.h"
#include "space/transfer.h"

enum { T_TABLE, T_ZEROS, T_NAMED, T_DONE };

/* Of the states; all of it is written. */
static uint64_t states_bytes(const struct zq_core *c)
{
    return zq_align_up(zq_states_bytes(c->zones.g.nr_zones), (uint64_t)1 << c->cluster_bits);
}

/*
 * With what lies behind the states: the descriptor extensions, of which no zone has one yet (R16).
 * What is in those clusters is not read before it is written.
 */
static uint64_t table_bytes(const struct zq_core *c)
{
    return states_bytes(c) +
           zq_align_up(zq_descriptors_bytes(c->hdr.descriptor_size, c->zones.g.nr_zones),
                       (uint64_t)1 << c->cluster_bits);
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
static int take_room(struct zq_core *c, struct zq_op *op, struct zq_making *m)
{
    size_t zeros = (size_t)states_bytes(c);
    uint8_t probe[ZQ_SECTOR];
    struct zq_found found;
    int rc;

    memcpy(probe, c->sector0, sizeof(probe));
    if (!zq_states_put(probe, &c->hdr, (uint64_t)1 << c->cluster_bits, c->zones.g.nr_zones))
        return ZQCOW2_EFEATURE;
    rc = zq_may_allocate(c, op);
    if (rc == 0)
        rc = find_room(c, op, &found);
    if (rc)
        return rc;
    m->zeros = zq_alloc(&c->hooks, 4096, zeros);
    m->freed = zq_record_new(&c->alloc);
    if (!m->zeros || !m->freed)
        return -ENOMEM;
    memset(m->zeros, 0, zeros);
    zq_alloc_take(&c->alloc, &found, (uint32_t)(table_bytes(c) >> c->cluster_bits));
    zq_cache_release(&c->cache, &op->g);
    c->new_states.host = found.cluster << c->cluster_bits;
    return 0;
}

/*
 * The zeros are in the file before the round that names them begins: it captures only what is
 * whole.
 */
static int table_phase(struct zq_core *c, struct zq_op *op, struct zq_making *m)
{
    struct zq_new_states *n = &c->new_states;
    int rc;

    switch (m->phase) {
    case T_TABLE:
        rc = n->host ? 0 : take_room(c, op, m); /* a round that stopped has left a whole one */
        if (rc)
            return rc;
        op->round = 0; /* what comes next waits for a round of its own */
        m->phase = n->whole ? T_NAMED : T_ZEROS;
        return 0;
    case T_ZEROS:
        m->phase = T_NAMED;
        return zq_op_io(c, op, ZQCOW2_IO_WRITE, m->zeros, n->host, states_bytes(c));
    default:
        zq_assert_k(R15, m->phase == T_NAMED && (n->host || c->zones.states_at));
        n->whole = n->host;
        rc = zq_round_wait(c, op);
        if (rc == 0)
            m->phase = T_DONE;
        return rc;
    }
}

/* One maker at a time. It keeps its place while it waits, so those behind it hold nothing. */
int zq_state_table_have(struct zq_core *c, struct zq_op *op, struct zq_making *m)
{
    struct zq_new_states *n = &c->new_states;

    if (n->maker && n->maker != op)
        return zq_op_park(c, op, &n->waiters);
    if (!n->maker && c->zones.states_at)
        return 0;
    n->maker = op;
    while (m->phase < T_DONE) {
        int rc = op->rc < 0 ? op->rc : c->dead ? ZQCOW2_EDEAD : table_phase(c, op, m);

        if (rc)
            return rc;
    }
    zq_state_table_leave(c, op, m);
    return 0;
}

/* The next one finds the table, or makes it. Clusters whose zeros failed are given back. */
void zq_state_table_leave(struct zq_core *c, struct zq_op *op, struct zq_making *m)
{
    struct zq_new_states *n = &c->new_states;

    zq_assert_k(R15, zq_core_is_held(c));
    if (n->maker == op) {
        if (n->host && !n->whole) {
            m->freed->cluster = n->host >> c->cluster_bits;
            m->freed->count = table_bytes(c) >> c->cluster_bits;
            zq_alloc_quarantine(&c->alloc, m->freed, false);
            m->freed = NULL;
            n->host = 0;
            c->want_janitor = true;
        }
        n->maker = NULL;
        zq_wake(&c->ready, &n->waiters);
    }
    zq_free(&c->hooks, m->zeros, states_bytes(c));
    zq_record_drop(&c->alloc, m->freed);
    m->zeros = NULL;
    m->freed = NULL;
}
