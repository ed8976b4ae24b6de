/* SPDX-License-Identifier: MIT */
/* The round's side of the cache: what is dirty is frozen, written, and clean or dirty again. */
#include "cache/cache.h"

#include "base/report.h"

/* A recount, for assertions. */
static uint32_t count_dirty(const struct zq_cache *c)
{
    uint32_t count = 0;

    for (int k = 0; k < ZQ_SLICE_KINDS; k++) {
        for (const struct zq_list *n = c->dirty[k].next; n != &c->dirty[k]; n = n->next)
            count++;
        for (const struct zq_list *n = c->round[k].next; n != &c->round[k]; n = n->next)
            count++;
    }
    return count;
}

bool zq_cache_has_dirty(const struct zq_cache *c)
{
    for (int k = 0; k < ZQ_SLICE_KINDS; k++) {
        if (!zq_list_empty(&c->dirty[k]))
            return true;
    }
    return false;
}

/* No copy is made: an operation that needs to change a frozen slice waits for its write. */
void zq_cache_capture(struct zq_cache *c)
{
    c->want_round = false;
    zq_assert(count_dirty(c) == c->nr_dirty);
    for (int k = 0; k < ZQ_SLICE_KINDS; k++) {
        zq_assert_k(K2, zq_list_empty(&c->round[k])); /* rounds run one at a time */
        for (struct zq_list *n = c->dirty[k].next; n != &c->dirty[k]; n = n->next) {
            struct zq_slice *s = zq_container(n, struct zq_slice, link);
            zq_assert(s->dirty && !s->in_round && !s->frozen);
            s->dirty = false;
            s->in_round = s->frozen = true;
        }
        zq_list_splice(&c->round[k], &c->dirty[k]);
    }
}

struct zq_slice *zq_cache_next_frozen(struct zq_cache *c, enum zq_slice_kind kind)
{
    struct zq_list *n = c->round[kind].next;
    struct zq_slice *s;

    if (n == &c->round[kind])
        return NULL;
    s = zq_container(n, struct zq_slice, link);
    if (!s->frozen || s->writing)
        return NULL;
    /* Being written: behind the others, so that the first one is always the next. */
    s->writing = true;
    zq_list_del(&s->link);
    zq_list_push(&c->round[kind], &s->link);
    return s;
}

void zq_cache_thaw(struct zq_cache *c, struct zq_slice *s)
{
    zq_assert_k(K2, s->in_round && s->frozen && s->writing);
    s->frozen = s->writing = false;
    zq_wake(c->ready, &c->frozen_waiters);
}

/* A slice that was changed after it had thawed is dirty for the next round and stays so. */
void zq_cache_round_done(struct zq_cache *c)
{
    for (int k = 0; k < ZQ_SLICE_KINDS; k++) {
        for (struct zq_list *n; (n = zq_list_pop(&c->round[k]));) {
            struct zq_slice *s = zq_container(n, struct zq_slice, link);
            zq_assert_k(K2, s->in_round && !s->frozen); /* all of it was written */
            s->in_round = false;
            zq_list_push(s->dirty ? &c->dirty[k] : &c->lru, &s->link);
            c->nr_dirty -= !s->dirty;
        }
    }
    zq_assert(count_dirty(c) == c->nr_dirty);
    zq_cache_shrink(c);
    zq_wake(c->ready, &c->room_waiters);
}

void zq_cache_round_stop(struct zq_cache *c, int rc)
{
    for (int k = 0; k < ZQ_SLICE_KINDS; k++) {
        for (struct zq_list *n = c->round[k].next; n != &c->round[k]; n = n->next) {
            struct zq_slice *s = zq_container(n, struct zq_slice, link);
            s->dirty = true;
            s->in_round = s->frozen = s->writing = false;
        }
        zq_list_splice(&c->dirty[k], &c->round[k]);
    }
    zq_assert_k(R10, count_dirty(c) == c->nr_dirty);
    c->want_round = false;
    zq_wake(c->ready, &c->frozen_waiters);
    zq_wake_with(c->ready, &c->room_waiters, rc);
}
