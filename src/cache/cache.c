/* SPDX-License-Identifier: MIT */
/*
 * Keeps slices of L2 tables and refcount blocks: pin, load, dirty, freeze, evict.
 *
 * A slice is in one list, spare, lru, dirty or round; one that was forgotten is in none until its
 * load and its pins are over. All slices, and their memory, belong to the cache; a pin only keeps
 * one where it is. Of n slices at most n - ZQ_MAX_PINS are dirty, so that a gather with the token
 * always finds its slots without waiting for a round (E2).
 */
#include "cache/cache.h"

#include <errno.h>
#include <string.h>
#include "base/bytes.h"
#include "base/report.h"

/* Each slice begins at a multiple of its size: the bits that differ reach the middle in any case.
 */
static uint32_t hash_of(const struct zq_cache *c, uint64_t host)
{
    return (uint32_t)((host * 0x9e3779b97f4a7c15ull) >> 32) & c->hash_mask;
}

static void free_slice(struct zq_cache *c, struct zq_slice *s)
{
    zq_free(c->x->hooks, s->data, c->slice_bytes);
    zq_free(c->x->hooks, s, sizeof(*s));
}

void zq_cache_fini(struct zq_cache *c)
{
    if (!c->hash)
        return;
    for (struct zq_list *n; (n = zq_list_pop(&c->spare));)
        free_slice(c, zq_container(n, struct zq_slice, link));
    for (uint32_t i = 0; i <= c->hash_mask; i++) {
        for (struct zq_slice *s = c->hash[i], *next; s; s = next) {
            next = s->chain;
            free_slice(c, s);
        }
    }
    zq_free(c->x->hooks, c->hash, ((size_t)c->hash_mask + 1) * sizeof(*c->hash));
    c->hash = NULL;
}

/* ---- the table of slices ---- */

static struct zq_slice *find(struct zq_cache *c, uint64_t host)
{
    struct zq_slice *s = c->hash[hash_of(c, host)];

    while (s && s->host != host)
        s = s->chain;
    return s;
}

static void unhash(struct zq_cache *c, struct zq_slice *s)
{
    struct zq_slice **p = &c->hash[hash_of(c, s->host)];

    zq_assert(find(c, s->host) == s);
    while (*p != s)
        p = &(*p)->chain;
    *p = s->chain;
    zq_list_del(&s->link);
}

static void enter(struct zq_cache *c, struct zq_slice *s, uint64_t host, enum zq_slice_kind kind)
{
    struct zq_slice **p = &c->hash[hash_of(c, host)];

    zq_assert(host % c->slice_bytes == 0 && !find(c, host));
    s->host = host;
    s->kind = (uint8_t)kind;
    s->judged = 0;
    s->chain = *p;
    *p = s;
    zq_list_push(&c->lru, &s->link);
}

static struct zq_slice *evict(struct zq_cache *c)
{
    for (struct zq_list *n = c->lru.next; n != &c->lru; n = n->next) {
        struct zq_slice *s = zq_container(n, struct zq_slice, link);
        zq_assert_k(K2, !s->dirty && !s->in_round);
        if (!s->pins && !s->loading) {
            unhash(c, s);
            return s;
        }
    }
    return NULL;
}

static struct zq_slice *new_slice(struct zq_cache *c)
{
    struct zq_slice *s = zq_zalloc(c->x->hooks, sizeof(*s));

    if (!s)
        return NULL;
    s->data = zq_alloc(c->x->hooks, (size_t)zq_min(c->slice_bytes, 4096), c->slice_bytes);
    if (!s->data) {
        zq_free(c->x->hooks, s, sizeof(*s));
        return NULL;
    }
    s->cache = c;
    zq_list_init(&s->waiters);
    zq_list_init(&s->link);
    c->nr_slices++;
    return s;
}

int zq_cache_init(struct zq_cache *c, struct zq_iox *x, struct zq_list *ready, uint32_t slice_bytes,
                  uint64_t cache_bytes)
{
    uint64_t n = zq_max(cache_bytes / slice_bytes, ZQ_MIN_SLICES);
    uint32_t buckets = 16;

    n = zq_min(n, 1u << 24);
    while (buckets < n)
        buckets *= 2;
    c->x = x;
    c->ready = ready;
    c->slice_bytes = slice_bytes;
    c->max_slices = (uint32_t)n;
    c->hash_mask = buckets - 1;
    zq_list_init(&c->lru);
    zq_list_init(&c->spare);
    zq_list_init(&c->token_waiters);
    zq_list_init(&c->slot_waiters);
    zq_list_init(&c->room_waiters);
    zq_list_init(&c->frozen_waiters);
    zq_list_init(&c->claim_waiters);
    zq_list_init(&c->reserve_waiters);
    for (int k = 0; k < ZQ_SLICE_KINDS; k++) {
        zq_list_init(&c->dirty[k]);
        zq_list_init(&c->round[k]);
    }
    c->hash = zq_zalloc_array(x->hooks, buckets, sizeof(*c->hash));
    while (c->hash && c->nr_slices < ZQ_MIN_SLICES) {
        struct zq_slice *s = new_slice(c);

        if (!s)
            return -ENOMEM;
        zq_list_push(&c->spare, &s->link);
    }
    return c->hash ? 0 : -ENOMEM;
}

/* One more slot; NULL: it has its size, and without memory that is the size that it has now. */
static struct zq_slice *grow(struct zq_cache *c)
{
    struct zq_slice *s = c->nr_slices < c->max_slices ? new_slice(c) : NULL;

    if (!s)
        c->max_slices = (uint32_t)zq_min(c->max_slices, c->nr_slices);
    return s;
}

/* A free slot: a new one while there is room, else the oldest clean one; NULL: wait. */
static struct zq_slice *take_slot(struct zq_cache *c)
{
    struct zq_list *n = zq_list_pop(&c->spare);
    struct zq_slice *s = n ? zq_container(n, struct zq_slice, link) : grow(c);

    return s ? s : evict(c);
}

/* Can so many more be dirty, beside what is reserved, and one gather's pins still find slots? */
static bool has_room(struct zq_cache *c, unsigned more)
{
    while (c->nr_dirty + c->reserved + more > c->nr_slices - ZQ_MAX_PINS) {
        struct zq_slice *s = grow(c);

        if (!s)
            return false;
        zq_list_push(&c->spare, &s->link);
    }
    return true;
}

/* The clean ones stand in the order of their last use. */
static inline void touch(struct zq_cache *c, struct zq_slice *s)
{
    if (s->dirty || s->in_round || c->lru.prev == &s->link)
        return;
    zq_list_del(&s->link);
    zq_list_push(&c->lru, &s->link);
}

struct zq_slice *zq_cache_peek(struct zq_cache *c, uint64_t host)
{
    struct zq_slice *s = find(c, host);

    if (!s || s->loading)
        return NULL;
    c->hits++;
    touch(c, s);
    return s;
}

/* ---- gathering ---- */

/* A forgotten slice is a free slot once it has no pins and no load. */
static void retire(struct zq_cache *c, struct zq_slice *s)
{
    if (!s->forgotten || s->pins || s->loading)
        return;
    zq_assert_k(K2, !s->dirty && !s->in_round);
    s->forgotten = false;
    zq_list_push(&c->spare, &s->link);
}

static void drop_pin(struct zq_cache *c, struct zq_slice *s)
{
    zq_assert_k(K11, s->pins);
    s->pins--;
    retire(c, s);
}

static void drop_pins(struct zq_cache *c, struct zq_gather *g)
{
    for (unsigned i = 0; i < g->npins; i++)
        drop_pin(c, g->pin[i]);
    g->npins = g->stale = 0;
}

static void take_out(struct zq_cache *c, struct zq_gather *g, unsigned i)
{
    unsigned last = --g->npins;

    zq_assert_k(K11, i <= last && g->npins < ZQ_MAX_PINS);
    drop_pin(c, g->pin[i]);
    g->pin[i] = g->pin[last];
    g->stale = (g->stale & ~(1u << i)) | (g->stale >> last & 1) << i;
    g->stale &= ~(1u << last);
}

/* Room for one more: what an earlier pass pinned and this one has not asked for goes. */
static void drop_stale(struct zq_cache *c, struct zq_gather *g)
{
    for (unsigned i = g->npins; i-- && g->npins == ZQ_MAX_PINS;) {
        if (g->stale >> i & 1)
            take_out(c, g, i);
    }
}

/* Pins it for g, unless it is pinned already. */
static void hold(struct zq_cache *c, struct zq_gather *g, struct zq_slice *s)
{
    for (unsigned i = 0; i < g->npins; i++) {
        if (g->pin[i] == s) {
            g->stale &= ~(1u << i);
            return;
        }
    }
    drop_stale(c, g);
    zq_assert(g->npins < ZQ_MAX_PINS);
    g->pin[g->npins++] = s;
    s->pins++;
}

/* If it is free, the first that has to wait gets it. */
static bool take_token(struct zq_cache *c, struct zq_gather *g)
{
    if (!c->token) {
        zq_assert_k(E2, !g->token);
        c->token = g;
        g->token = c;
    }
    return c->token == g;
}

int zq_cache_park(struct zq_cache *c, struct zq_gather *g, struct zq_list *on)
{
    if (!take_token(c, g))
        drop_pins(c, g);
    zq_assert(zq_list_empty(&g->wait.link)); /* it waits for one thing at a time */
    zq_assert_k(K11, !g->npins || c->token == g);
    zq_list_push(on, &g->wait.link);
    return ZQ_WAIT;
}

/* For what there is too little of: the token's holder waits until there is more, others for it. */
static int park_starved(struct zq_cache *c, struct zq_gather *g, struct zq_list *on)
{
    g->starved = take_token(c, g);
    return zq_cache_park(c, g, g->starved ? on : &c->token_waiters);
}

/* E2: no other gather takes what the token's holder waits for. */
static bool is_held_off(const struct zq_cache *c, const struct zq_gather *g)
{
    return c->token && c->token != g && c->token->starved;
}

void zq_cache_unpin(struct zq_cache *c, struct zq_gather *g, struct zq_slice *s)
{
    for (unsigned i = 0; i < g->npins; i++) {
        if (g->pin[i] == s) {
            take_out(c, g, i);
            return;
        }
    }
}

void zq_cache_release(struct zq_cache *c, struct zq_gather *g)
{
    struct zq_list *next;

    drop_pins(c, g);
    g->loads = 0;
    if (c->token != g)
        return;
    g->starved = false;
    g->token = NULL;
    next = zq_list_pop(&c->token_waiters);
    c->token = next ? zq_container(next, struct zq_gather, wait.link) : NULL;
    if (!next)
        return;
    c->token->token = c;
    zq_list_push(c->ready, next);
}

/* No look-up finds it from now on. Holders and waiters may still release it. */
static void forget(struct zq_cache *c, struct zq_slice *s)
{
    unhash(c, s);
    s->forgotten = true;
    retire(c, s);
}

static void load_done(struct zq_io *io, int ret)
{
    struct zq_slice *s = zq_container(io, struct zq_slice, io);
    struct zq_cache *c = s->cache;

    zq_assert(s->loading && !s->dirty && !s->in_round);
    s->loading = false;
    zq_wake_with(c->ready, &s->waiters, ret);
    zq_wake(c->ready, &c->slot_waiters);
    if (ret < 0 && !s->forgotten)
        forget(c, s);
    else
        retire(c, s);
}

/* The token's holder pins what is loaded for it, so it is still there when the holder runs. */
static int wait_for_load(struct zq_cache *c, struct zq_gather *g, struct zq_slice *s)
{
    if (take_token(c, g))
        hold(c, g, s);
    return zq_cache_park(c, g, &s->waiters);
}

void zq_cache_blank(struct zq_cache *c, enum zq_slice_kind kind, uint64_t host, uint64_t len)
{
    struct zq_blank *b = &c->blank[kind];

    zq_assert(len / c->slice_bytes <= ZQ_MAX_BLANK && len % c->slice_bytes == 0);
    b->host = host;
    b->nr = (uint32_t)(len / c->slice_bytes);
    memset(b->untouched, 0xff, sizeof(b->untouched));
}

/* True, once: it is a slice of zeros. */
static bool take_blank(struct zq_cache *c, uint64_t host, enum zq_slice_kind kind)
{
    struct zq_blank *b = &c->blank[kind];
    uint64_t i = (host - b->host) / c->slice_bytes, bit = (uint64_t)1 << i % 64;

    if (host < b->host || i >= b->nr || !(b->untouched[i / 64] & bit))
        return false;
    b->untouched[i / 64] &= ~bit;
    return true;
}

static void start_load(struct zq_cache *c, struct zq_slice *s)
{
    c->loads++;
    s->loading = true;
    s->io.complete = load_done;
    zq_io_prep_buf(&s->io, ZQCOW2_IO_READ, s->data, s->host, c->slice_bytes);
    zq_io_start(c->x, &s->io);
}

/* Brings a slice into the cache: 0 when that takes no I/O, else ZQ_WAIT. */
static int load(struct zq_cache *c, struct zq_gather *g, uint64_t host, enum zq_slice_kind kind,
                struct zq_slice **out)
{
    bool others = c->token && c->token != g;
    struct zq_slice *s;

    /* Without the token it may load as much as it can pin, and no more: loads are bounded. */
    if (is_held_off(c, g) || (others && g->loads >= ZQ_MAX_PINS))
        return zq_cache_park(c, g, &c->token_waiters);
    drop_stale(c, g);
    s = take_slot(c);
    if (!s)
        return park_starved(c, g, &c->slot_waiters);
    g->loads += others;
    enter(c, s, host, kind);
    if (take_blank(c, host, kind)) {
        memset(s->data, 0, c->slice_bytes);
        hold(c, g, s);
        *out = s;
        return 0;
    }
    start_load(c, s);
    return wait_for_load(c, g, s);
}

int zq_cache_pin(struct zq_cache *c, struct zq_gather *g, uint64_t host, enum zq_slice_kind kind,
                 struct zq_slice **out)
{
    struct zq_slice *s = find(c, host);

    if (!s)
        return load(c, g, host, kind, out);
    if (s->loading)
        return wait_for_load(c, g, s);
    c->hits++;
    *out = s;
    hold(c, g, s);
    touch(c, s);
    return 0;
}

/* ---- room beforehand ---- */

/* What one step may want at once must find room beside all that is reserved. */
static bool can_reserve(const struct zq_cache *c, uint32_t n)
{
    return c->nr_dirty + c->reserved + n + ZQ_MAX_DIRTIED <= c->nr_slices - ZQ_MAX_PINS;
}

/* More slots, where no number of rounds would make room. False: there is no memory. */
static bool grow_for(struct zq_cache *c, uint32_t n)
{
    uint32_t least = c->reserved + n + ZQ_MAX_DIRTIED + ZQ_MAX_PINS;
    uint32_t most = c->max_slices > least ? c->max_slices : least;

    while (!can_reserve(c, n) && c->nr_slices < most) {
        struct zq_slice *s = new_slice(c);

        if (!s)
            return c->nr_slices >= least;
        zq_list_push(&c->spare, &s->link);
    }
    return true;
}

static uint32_t most_reserved(const struct zq_cache *c)
{
    uint32_t most = ZQ_RESERVE_BYTES / c->slice_bytes;

    if (most + ZQ_MAX_DIRTIED + ZQ_MAX_PINS < c->max_slices)
        most = c->max_slices - ZQ_MAX_DIRTIED - ZQ_MAX_PINS;
    return most;
}

static void pass_claim(struct zq_cache *c)
{
    struct zq_list *next = zq_list_pop(&c->claim_waiters);

    c->claim = next ? zq_container(next, struct zq_gather, wait.link) : NULL;
    if (next)
        zq_list_push(c->ready, next);
}

/* A wait for other operations: it holds nothing meanwhile. */
static int park_claim(struct zq_cache *c, struct zq_gather *g, struct zq_list *on)
{
    zq_cache_release(c, g);
    zq_assert(zq_list_empty(&g->wait.link));
    zq_list_push(on, &g->wait.link);
    return ZQ_WAIT;
}

int zq_cache_reserve(struct zq_cache *c, struct zq_gather *g, uint32_t slices)
{
    uint32_t n = (uint32_t)zq_min(slices, most_reserved(c));

    zq_assert_k(E2, !g->reserved && !g->npins);
    if (!n)
        return 0;
    if (c->claim && c->claim != g)
        return park_claim(c, g, &c->claim_waiters);
    c->claim = g;
    if (c->reserved + n > most_reserved(c))
        return park_claim(c, g, &c->reserve_waiters);
    if (!grow_for(c, n))
        return c->reserved ? park_claim(c, g, &c->reserve_waiters) : -ENOMEM;
    if (!can_reserve(c, n)) {
        c->want_round = true;
        return park_starved(c, g, &c->room_waiters);
    }
    g->reserved = n;
    c->reserved += n;
    pass_claim(c);
    return 0;
}

static void use_reserve(struct zq_cache *c, struct zq_gather *g, uint32_t n)
{
    n = (uint32_t)zq_min(n, g->reserved);
    g->reserved -= n;
    c->reserved -= n;
}

void zq_cache_unreserve(struct zq_cache *c, struct zq_gather *g)
{
    if (c->claim == g)
        pass_claim(c);
    else if (!g->reserved)
        return;
    use_reserve(c, g, g->reserved);
    zq_cache_shrink(c);
    zq_wake(c->ready, &c->reserve_waiters);
}

void zq_cache_shrink(struct zq_cache *c)
{
    while (c->nr_slices > c->max_slices && can_reserve(c, 1)) {
        struct zq_list *n = zq_list_pop(&c->spare);
        struct zq_slice *s = n ? zq_container(n, struct zq_slice, link) : evict(c);

        if (!s)
            return;
        free_slice(c, s);
        c->nr_slices--;
    }
}

int zq_cache_writable(struct zq_cache *c, struct zq_gather *g, struct zq_slice *a,
                      struct zq_slice *b)
{
    unsigned more = (unsigned)(!a->dirty && !a->in_round) +
                    (unsigned)(b && b != a && !b->dirty && !b->in_round);

    zq_assert_k(K11, a->pins && (!b || b->pins));
    if (a->frozen || (b && b->frozen))
        return zq_cache_park(c, g, &c->frozen_waiters);
    if (is_held_off(c, g))
        return zq_cache_park(c, g, &c->token_waiters);
    if (!has_room(c, more - (unsigned)zq_min(more, g->reserved))) {
        c->want_round = true;
        return park_starved(c, g, &c->room_waiters);
    }
    use_reserve(c, g, more);
    return 0;
}

void zq_cache_dirty(struct zq_cache *c, struct zq_slice *s)
{
    zq_assert_k(K2, !s->frozen && !s->loading && !s->forgotten);
    if (s->dirty)
        return;
    s->dirty = true;
    if (s->in_round)
        return;
    c->nr_dirty++;
    zq_assert_k(E2, c->nr_dirty + c->reserved <= c->nr_slices - ZQ_MAX_PINS);
    zq_list_del(&s->link);
    zq_list_push(&c->dirty[s->kind], &s->link);
}

void zq_cache_forget(struct zq_cache *c, uint64_t host, uint64_t len)
{
    for (uint64_t at = host; at < host + len; at += c->slice_bytes) {
        struct zq_slice *s = find(c, at);

        if (s && !s->dirty && !s->in_round)
            forget(c, s);
    }
}

void zq_cache_forget_all(struct zq_cache *c)
{
    struct zq_list *n, *next;

    for (n = c->lru.next; n != &c->lru; n = next) {
        next = n->next;
        zq_assert(!zq_container(n, struct zq_slice, link)->pins);
        forget(c, zq_container(n, struct zq_slice, link));
    }
    for (int k = 0; k < ZQ_SLICE_KINDS; k++)
        c->blank[k].nr = 0;
}

void zq_cache_wake_all(struct zq_cache *c)
{
    zq_wake(c->ready, &c->token_waiters);
    zq_wake(c->ready, &c->slot_waiters);
    zq_wake(c->ready, &c->room_waiters);
    zq_wake(c->ready, &c->frozen_waiters);
    zq_wake(c->ready, &c->claim_waiters);
    zq_wake(c->ready, &c->reserve_waiters);
}
