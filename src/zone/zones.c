/* SPDX-License-Identifier: MIT */
/*
 * Zones in memory: counts and limits, reservations, commits, states, reports. Keeps K4-K7.
 *
 * Every change of a state goes through zq_zone_set_state(), which alone keeps the counts and the
 * list of implicitly open zones. The array of zones and the live parts belong to zq_zones; a
 * reservation belongs to its operation and is linked here from reserve to commit.
 */
#include "zone/zones.h"

#include <errno.h>
#include "base/bytes.h"
#include "base/report.h"

/* ---- life ---- */

static uint32_t effective_limit(const struct zq_geometry *g, uint32_t limit)
{
    return !limit || limit >= g->nr_zones - g->conventional ? UINT32_MAX : limit;
}

static void load_zone(struct zq_zones *zs, uint32_t i, const uint8_t *raw)
{
    struct zq_zone *z = &zs->v[i];
    struct zq_entry e = {0};

    memcpy(z->raw, raw, ZQ_ENTRY);
    if (i < zs->g.conventional) {
        z->state = ZQCOW2_ZONE_NOT_WP;
        z->wp = z->next = zq_geometry_start(&zs->g, i);
        return;
    }
    zq_entry_decode(&zs->g, i, raw, &e);
    z->wp = z->next = z->high = z->captured = e.wp;
    z->finished = e.finished;
    z->state = e.full                               ? ZQCOW2_ZONE_FULL :
               e.wp == zq_geometry_start(&zs->g, i) ? ZQCOW2_ZONE_EMPTY :
                                                      ZQCOW2_ZONE_CLOSED;
    if (z->state == ZQCOW2_ZONE_CLOSED)
        zs->disk_active = ++zs->nr_active;
}

static void recount(const struct zq_zones *zs, uint32_t in_state[ZQ_NR_STATES])
{
    memset(in_state, 0, ZQ_NR_STATES * sizeof(*in_state));
    for (uint32_t i = 0; i < zs->g.nr_zones; i++)
        in_state[zq_zone_state(&zs->v[i])]++;
}

int zq_zones_open(struct zq_zones *zs, const struct zq_zones_params *p)
{
    const struct zq_geometry *g = &zs->g;

    zs->g = *p->geometry;
    zs->rules = p->rules;
    zs->hooks = p->hooks;
    zs->ready = p->ready;
    zs->events = p->events;
    zs->nr_sectors = (uint32_t)zq_div_up(zq_entries_bytes(g->nr_zones), ZQ_SECTOR);
    memcpy(zs->tail, p->table + (size_t)(zs->nr_sectors - 1) * ZQ_SECTOR, ZQ_SECTOR);
    zs->max_open = effective_limit(g, g->max_open);
    zs->max_active = effective_limit(g, g->max_active);
    zs->max_append = zq_geometry_max_append(g);
    zs->lru_head = zs->lru_tail = zs->closing = ZQ_NO_ZONE;
    zq_list_init(&zs->closing_waiters);
    zq_list_init(&zs->punch);
    zs->v = zq_zalloc_array(zs->hooks, g->nr_zones, sizeof(*zs->v));
    zs->dirty = zq_zalloc(zs->hooks, zs->nr_sectors);
    zs->in_round = zq_zalloc(zs->hooks, zs->nr_sectors);
    zs->states_dirty = zq_zalloc(zs->hooks, zs->nr_sectors);
    zs->states_in_round = zq_zalloc(zs->hooks, zs->nr_sectors);
    if (!zs->v || !zs->dirty || !zs->in_round || !zs->states_dirty || !zs->states_in_round)
        return -ENOMEM;
    for (uint32_t i = 0; i < g->nr_zones; i++)
        load_zone(zs, i, p->table + zq_entries_bytes(i));
    recount(zs, zs->in_state);
    return 0;
}

void zq_zones_close(struct zq_zones *zs)
{
    for (uint32_t i = 0; zs->v && i < zs->g.nr_zones; i++)
        zq_free(zs->hooks, zs->v[i].live, sizeof(struct zq_live));
    zq_free(zs->hooks, zs->v, zs->g.nr_zones * sizeof(*zs->v));
    zq_free(zs->hooks, zs->dirty, zs->nr_sectors);
    zq_free(zs->hooks, zs->in_round, zs->nr_sectors);
    zq_free(zs->hooks, zs->states_dirty, zs->nr_sectors);
    zq_free(zs->hooks, zs->states_in_round, zs->nr_sectors);
    zs->v = NULL;
    zs->dirty = zs->in_round = zs->states_dirty = zs->states_in_round = NULL;
}

/* List heads have to stay where they are. */
void zq_zones_replace(struct zq_zones *zs, struct zq_zones *with)
{
    zq_assert(zq_list_empty(&zs->closing_waiters) && !zs->is_dirty);
    zq_zones_close(zs);
    *zs = *with;
    zq_list_init(&zs->closing_waiters);
    zq_list_init(&zs->punch);
    *with = (struct zq_zones){.v = NULL};
}

/*
 * What zone i is in memory goes on, in *with. If the file has it FULL no more, because it got
 * longer, it is what an open would find (G2).
 */
static void keep_zone(struct zq_zones *zs, struct zq_zones *with, uint32_t i)
{
    struct zq_zone *now = &zs->v[i], *then = &with->v[i], found = *then;

    *then = *now;
    now->live = NULL;
    if (now->state != ZQCOW2_ZONE_FULL || found.state == ZQCOW2_ZONE_FULL)
        return;
    then->wp = then->next = then->captured = then->high = found.wp;
    memcpy(then->raw, found.raw, ZQ_ENTRY);
    then->finished = 0;
    then->state = found.state;
    zs->nr_active++;
}

/* Zones that are there keep their live parts; the rest goes with *with, as it was in *zs. */
void zq_zones_resize(struct zq_zones *zs, struct zq_zones *with)
{
    struct zq_zones old;
    uint32_t nr = (uint32_t)zq_min(zs->g.nr_zones, with->g.nr_zones);

    zq_assert(zq_list_empty(&zs->closing_waiters) && !zs->is_dirty);
    for (uint32_t i = 0; i < nr; i++)
        keep_zone(zs, with, i);
    for (uint32_t i = nr; i < with->g.nr_zones; i++)
        with->v[i].ahead = 1; /* a device that was larger may have left something */
    for (uint32_t i = nr; i < zs->g.nr_zones; i++) {
        zq_assert_k(G1, zs->v[i].state == ZQCOW2_ZONE_EMPTY);
        if (zs->v[i].live)
            zq_list_del(&zs->v[i].live->punch);
    }
    old = *zs;
    *zs = *with;
    zs->nr_open = old.nr_open;
    zs->nr_active = old.nr_active;
    zs->lru_head = old.lru_head;
    zs->lru_tail = old.lru_tail;
    zs->closing_waiters = old.closing_waiters; /* heads stay where they are */
    zs->punch = old.punch;
    zs->states_at = old.states_at;
    recount(zs, zs->in_state);
    *with = old;
    zq_zones_close(with);
}

struct zq_live *zq_zone_live(struct zq_zones *zs, uint32_t i)
{
    struct zq_live *l = zs->v[i].live;

    if (l)
        return l;
    l = zq_zalloc(zs->hooks, sizeof(*l));
    if (!l)
        return NULL;
    zq_assert(i < zs->g.nr_zones);
    zq_list_init(&l->admission);
    zq_list_init(&l->reserved);
    zq_list_init(&l->drained);
    zq_list_init(&l->punch);
    l->index = i;
    zs->v[i].live = l;
    return l;
}

static bool is_idle(const struct zq_zone *z)
{
    return !z->live || zq_list_empty(&z->live->reserved);
}

bool zq_zones_counted(const struct zq_zones *zs)
{
    uint32_t open = 0, active = 0, in_state[ZQ_NR_STATES];

    if (zs->g.nr_zones > 1024)
        return true;
    for (uint32_t i = 0; i < zs->g.nr_zones; i++) {
        open += zq_state_is_open(zs->v[i].state);
        active += zq_state_is_active(zs->v[i].state);
    }
    recount(zs, in_state);
    return open == zs->nr_open && active == zs->nr_active &&
           !memcmp(in_state, zs->in_state, sizeof(in_state));
}

uint32_t zq_zones_in(const struct zq_zones *zs, uint32_t states)
{
    uint32_t n = 0;

    for (uint32_t s = 0; s < ZQ_NR_STATES; s++)
        n += states >> s & 1 ? zs->in_state[s] : 0;
    return n;
}

bool zq_zones_valid(const struct zq_zones *zs, uint32_t i)
{
    const struct zq_zone *z = &zs->v[i];
    uint64_t start = zq_geometry_start(&zs->g, i), end = zq_zone_end(zs, i);
    bool idle = is_idle(z);

    if (z->wp < start || z->wp > z->next || z->next > end)
        return false; /* K4 */
    if (z->state == ZQCOW2_ZONE_EMPTY && (z->wp != start || !idle))
        return false; /* K6 */
    if (z->state == ZQCOW2_ZONE_FULL && (z->wp != end || !idle))
        return false;
    return zs->nr_open <= zs->nr_active; /* K5 */
}

void zq_zones_wake_all(struct zq_zones *zs)
{
    zq_list_splice(zs->ready, &zs->closing_waiters);
    for (uint32_t i = 0; i < zs->g.nr_zones; i++) {
        struct zq_live *l = zs->v[i].live;
        if (l)
            zq_list_splice(zs->ready, &l->drained);
    }
}

/* ---- states and counts ---- */

static void lru_remove(struct zq_zones *zs, uint32_t i)
{
    struct zq_zone *z = &zs->v[i];

    zq_assert(z->state == ZQCOW2_ZONE_IMP_OPEN && zs->lru_head != ZQ_NO_ZONE);
    if (z->lru_prev == ZQ_NO_ZONE)
        zs->lru_head = z->lru_next;
    else
        zs->v[z->lru_prev].lru_next = z->lru_next;
    if (z->lru_next == ZQ_NO_ZONE)
        zs->lru_tail = z->lru_prev;
    else
        zs->v[z->lru_next].lru_prev = z->lru_prev;
}

static void lru_append(struct zq_zones *zs, uint32_t i)
{
    struct zq_zone *z = &zs->v[i];

    z->lru_next = ZQ_NO_ZONE;
    z->lru_prev = zs->lru_tail;
    if (zs->lru_tail == ZQ_NO_ZONE)
        zs->lru_head = i;
    else
        zs->v[zs->lru_tail].lru_next = i;
    zs->lru_tail = i;
}

void zq_zone_set_state(struct zq_zones *zs, uint32_t i, uint8_t state)
{
    struct zq_zone *z = &zs->v[i];
    uint8_t old = z->state;

    if (old == state)
        return;
    zq_assert(i >= zs->g.conventional && i < zs->g.nr_zones && !z->forced);
    if (old == ZQCOW2_ZONE_IMP_OPEN)
        lru_remove(zs, i);
    if (state == ZQCOW2_ZONE_IMP_OPEN)
        lru_append(zs, i);
    zs->nr_open += zq_state_is_open(state);
    zs->nr_open -= zq_state_is_open(old);
    zs->nr_active += zq_state_is_active(state);
    zs->nr_active -= zq_state_is_active(old);
    zs->in_state[old]--;
    zs->in_state[state]++;
    z->state = state;
    zq_assert_k(K5, zs->in_state[ZQCOW2_ZONE_EXP_OPEN] <= zs->nr_open);
    zq_assert_k(K5, zs->nr_open <= zs->nr_active);
    zq_assert_k(K5, !zq_state_is_open(state) || zs->nr_open <= zs->max_open);
    /* An image may be found above its limit, and activates no more zones then. */
    zq_assert_k(K5, !zq_state_is_active(state) || zq_state_is_active(old) ||
                        zs->nr_active <= zs->max_active);
}

/* The zone has a state that the caller may not have asked for. */
static void announce(struct zq_zones *zs, uint32_t i)
{
    const struct zqcow2_event event = {.kind = ZQCOW2_EVENT_ZONE,
                                       .offset = zq_geometry_start(&zs->g, i),
                                       .state = zq_zone_state(&zs->v[i])};

    zq_event_add(zs->events, &event);
}

int zq_zone_check_write(const struct zq_zones *zs, uint32_t i, uint64_t off, uint64_t len,
                        bool append)
{
    const struct zq_zone *z = &zs->v[i];
    uint64_t start = zq_geometry_start(&zs->g, i), length = zq_geometry_length(&zs->g, i);
    uint64_t end = start + zq_min(length, zs->g.capacity);
    uint8_t state = zq_zone_state(z);
    int rc = zq_state_is_open(state) ? 0 : zq_fsm(zs->rules, state, ZQ_ACT_WRITE, false).rc;

    if (rc)
        return rc;
    if (z->next == end)
        return ZQCOW2_EZONE_FULL;
    if (len > length || off + len > start + length)
        return ZQCOW2_EZONE_BOUNDARY;
    if (!append && off != z->next)
        return ZQCOW2_EZONE_WP;
    if (len > end - z->next)
        return ZQCOW2_EZONE_BOUNDARY;
    return append && len > zs->max_append ? -EINVAL : 0;
}

/* The least recently written IMP_OPEN zone but the target; never an EXP_OPEN one. */
static uint32_t pick_victim(const struct zq_zones *zs, uint32_t target)
{
    uint32_t i = zs->lru_head;

    while (i != ZQ_NO_ZONE && i == target)
        i = zs->v[i].lru_next;
    return i;
}

int zq_zones_room(const struct zq_zones *zs, uint32_t i, const struct zq_verdict *v,
                  uint32_t *victim)
{
    *victim = ZQ_NO_ZONE;
    if (v->needs_active && zs->nr_active >= zs->max_active)
        return ZQCOW2_EZONE_ACTIVE;
    if (!v->needs_open || zs->nr_open < zs->max_open)
        return 0;
    *victim = pick_victim(zs, i);
    return *victim == ZQ_NO_ZONE ? ZQCOW2_EZONE_OPEN : 0;
}

bool zq_zone_begin_open(struct zq_zones *zs, uint32_t i)
{
    struct zq_zone *z = &zs->v[i];

    z->opening = !z->forced && z->state == ZQCOW2_ZONE_CLOSED;
    return z->opening;
}

void zq_zone_do_close(struct zq_zones *zs, uint32_t i)
{
    struct zq_zone *z = &zs->v[i];
    bool at_start = z->next == zq_geometry_start(&zs->g, i);

    zq_assert(zq_state_is_open(z->state));
    zq_zone_set_state(zs, i, zq_fsm(zs->rules, z->state, ZQ_ACT_CLOSE, at_start).state);
}

void zq_zone_do_finish(struct zq_zones *zs, uint32_t i)
{
    struct zq_zone *z = &zs->v[i];

    zq_assert_k(K6, is_idle(z) && z->wp == z->next);
    zq_table_touch(zs, i);
    z->wp = z->next = zq_zone_end(zs, i);
    z->finished = 1;
    zq_zone_unmark(zs, i);
    zq_zone_set_state(zs, i, ZQCOW2_ZONE_FULL);
    announce(zs, i);
    zq_table_mark(zs, i);
}

void zq_zone_do_reset(struct zq_zones *zs, uint32_t i, uint64_t io_seq)
{
    struct zq_zone *z = &zs->v[i];

    zq_assert_k(K6, is_idle(z) && z->wp == z->next);
    zq_table_touch(zs, i);
    z->wp = z->next = zq_geometry_start(&zs->g, i);
    /* A running round must not store the old life's pointer any more. */
    z->captured = z->wp;
    z->finished = 0;
    z->ahead = 1;
    zq_zone_store(zs, i, z->stored & ZQ_STORED_FORCED);
    z->live->reset_io = io_seq;
    zq_zone_set_state(zs, i, ZQCOW2_ZONE_EMPTY);
    zq_table_mark(zs, i);
    zq_list_del(&z->live->punch);
    zq_list_push(&zs->punch, &z->live->punch);
}

void zq_zone_force(struct zq_zones *zs, uint32_t i, uint8_t state)
{
    struct zq_zone *z = &zs->v[i];

    if (zq_state_is_open(z->state))
        zq_zone_do_close(zs, i); /* a closed zone with data stays active (R7) */
    zs->in_state[zq_zone_state(z)]--;
    /* NOT_WP is 0: back to what the write pointer says, as is the same state again. */
    z->forced = z->forced == state ? 0 : state;
    zs->in_state[zq_zone_state(z)]++;
    if (z->forced)
        announce(zs, i);
}

/* ---- reservations ---- */

void zq_zone_reserve(struct zq_zones *zs, uint32_t i, struct zq_reservation *r, uint64_t len)
{
    struct zq_zone *z = &zs->v[i];

    if (z->state == ZQCOW2_ZONE_IMP_OPEN && zs->lru_tail != i) {
        lru_remove(zs, i);
        lru_append(zs, i);
    }
    zq_assert_k(K4, len && len <= zq_zone_end(zs, i) - z->next);
    zq_assert_k(K6, zq_state_is_open(z->state));
    zq_assert_k(K7, !z->live->failed); /* nothing behind a write that failed (R8) */
    z->next += len;
    r->end = z->next;
    r->done = false;
    r->rc = 0;
    zq_list_push(&z->live->reserved, &r->link);
}

void zq_zones_capture(struct zq_zones *zs, uint32_t sector)
{
    uint32_t i = (uint32_t)zq_max(sector * 64, zs->g.conventional);
    uint32_t end = (uint32_t)zq_min((uint64_t)(sector + 1) * 64, zs->g.nr_zones);

    zq_assert_k(K2, zs->in_round[sector] == ZQ_TAKEN);
    zs->in_round[sector] = ZQ_CAPTURED;
    for (; i < end; i++) {
        struct zq_zone *z = &zs->v[i];

        z->captured = z->wp;
        z->high = zq_max(z->high, z->captured);
    }
}

/* Few writes change more than the pointer: it is out of line, so that the others pay nothing. */
static __attribute__((noinline)) void commit_state(struct zq_zones *zs, uint32_t i)
{
    zq_zone_unmark(zs, i);
    if (zs->v[i].wp == zq_zone_end(zs, i)) {
        zq_zone_set_state(zs, i, ZQCOW2_ZONE_FULL);
        announce(zs, i);
    }
}

static void commit(struct zq_zones *zs, uint32_t i, uint64_t end)
{
    struct zq_zone *z = &zs->v[i];

    zq_assert_k(K7, end > z->wp && end <= z->next);
    zq_table_touch(zs, i);
    z->wp = end;
    zq_table_mark(zs, i);
    if (z->stored || end == zq_zone_end(zs, i))
        commit_state(zs, i);
}

static void drained(struct zq_zones *zs, uint32_t i)
{
    struct zq_zone *z = &zs->v[i];
    struct zq_live *l = z->live;

    if (l->failed) {
        z->next = z->wp;
        l->failed = false;
    }
    zq_list_splice(zs->ready, &l->drained);
    if (l->closing)
        zq_list_splice(zs->ready, &zs->closing_waiters);
}

void zq_zone_data_done(struct zq_zones *zs, uint32_t i, struct zq_reservation *r, int rc,
                       struct zq_list *out)
{
    struct zq_live *l = zs->v[i].live;

    zq_assert_k(K7, !r->done && !zq_list_empty(&l->reserved));
    r->done = true;
    if (rc < 0) {
        l->failed = true;
        for (struct zq_list *n = &r->link; n != &l->reserved; n = n->next) {
            struct zq_reservation *behind = zq_container(n, struct zq_reservation, link);
            if (!behind->rc)
                behind->rc = rc;
        }
    }
    while (!zq_list_empty(&l->reserved)) {
        struct zq_reservation *head = zq_container(l->reserved.next, struct zq_reservation, link);
        if (!head->done)
            break;
        zq_list_del(&head->link);
        if (!head->rc)
            commit(zs, i, head->end);
        zq_list_push(out, &head->link);
    }
    if (zq_list_empty(&l->reserved))
        drained(zs, i);
    zq_assert_k(K4 - K6, zq_zones_valid(zs, i));
}

bool zq_zone_commit_first(struct zq_zones *zs, uint32_t i, struct zq_reservation *r)
{
    struct zq_live *l = zs->v[i].live;
    const struct zq_list *second = r->link.next;

    if (l->reserved.next != &r->link || l->failed)
        return false;
    if (second != &l->reserved && zq_container(second, const struct zq_reservation, link)->done)
        return false;
    zq_list_del(&r->link);
    commit(zs, i, r->end);
    if (zq_list_empty(&l->reserved) && (l->closing || !zq_list_empty(&l->drained)))
        drained(zs, i);
    zq_assert_k(K4 - K6, zq_zones_valid(zs, i));
    return true;
}

/* ---- report ---- */

void zq_zone_fill_report(const struct zq_zones *zs, uint32_t i, struct zqcow2_zone *out)
{
    const struct zq_zone *z = &zs->v[i];

    memset(out, 0, sizeof(*out));
    out->start = zq_geometry_start(&zs->g, i);
    out->length = zq_geometry_length(&zs->g, i);
    out->capacity = zq_geometry_capacity(&zs->g, i);
    out->type = i < zs->g.conventional ? ZQCOW2_ZONE_CONVENTIONAL : ZQCOW2_ZONE_SEQWRITE_REQ;
    out->state = zq_zone_state(z);
    out->attributes = zq_zone_is_described(z) ? ZQCOW2_ZONE_DESCRIBED : 0;
    out->write_pointer = z->wp;
    if (out->state == ZQCOW2_ZONE_FULL)
        out->write_pointer = out->start + out->length;
    else if (z->forced)
        out->write_pointer = UINT64_MAX;
}
