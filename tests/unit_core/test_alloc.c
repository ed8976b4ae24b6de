/* SPDX-License-Identifier: MIT */
/*
 * Host clusters, random histories: who gets them, that they are counted once they are taken, and
 * how they come back (R5). ZQ_SEED is the first history, ZQ_SEEDS how many: each has another size
 * of clusters and width of refcounts.
 */
#include "unit_core/alloc_world.h"

#define EXTENTS 160u

struct history {
    struct world w;
    struct {
        uint64_t cluster;
        uint32_t count;
    } held[EXTENTS];
    unsigned nr_held;
};

static void check_found(struct world *w, const struct zq_found *f, uint32_t want)
{
    uint32_t slice_refs = w->cache.slice_bytes * 8 >> w->order;

    expect(w, f->count >= 1 && f->count <= want);
    expect(w, f->cluster + f->count <= CLUSTERS);
    expect(w, f->cluster % slice_refs == f->index && f->index + f->count <= slice_refs); /* E3 */
    expect(w, f->slice->pins);
    expect(w, (f->cluster + f->count) << w->bits <= w->dev.length); /* R4 */
    for (uint64_t c = f->cluster; c < f->cluster + f->count; c++) {
        expect(w, c >= USED && w->refs[c] == 0);
        expect(w, count_at(w, f->slice->data, c % slice_refs) == 0);
    }
}

static uint64_t lowest_free(const struct world *w)
{
    uint64_t c = 0;

    while (c < CLUSTERS && w->refs[c])
        c++;
    return c;
}

/* ---- the operations ---- */

static void take(struct history *h, uint32_t want)
{
    struct world *w = &h->w;
    struct zq_gather g = fresh();
    struct zq_found f;
    uint32_t n;

    if (h->nr_held == EXTENTS)
        return;
    expect(w, find(w, &g, want, &f) == 0);
    check_new_blocks(w);
    check_found(w, &f, want);
    if (want == 1)
        expect(w, f.cluster == lowest_free(w));
    n = 1 + (uint32_t)rng_below(&w->rng, f.count);
    zq_alloc_take(&w->alloc, &f, n);
    zq_cache_release(&w->cache, &g);
    for (uint32_t i = 0; i < n; i++)
        w->refs[f.cluster + i] = 1;
    h->held[h->nr_held].cluster = f.cluster;
    h->held[h->nr_held++].count = n;
    expect(w, !zq_alloc_is_virgin(&w->alloc, (f.cluster + n - 1) << w->bits));
}

/* Into the quarantine: the refcount stays until it is lowered. */
static void give_back(struct history *h)
{
    struct world *w = &h->w;
    struct zq_freed *f = zq_zalloc(&w->hooks, sizeof(*f)), *last;
    bool linked = rng_below(&w->rng, 2);
    uint64_t total = 0;
    unsigned k;

    assert_non_null(f);
    if (!h->nr_held) {
        zq_free(&w->hooks, f, sizeof(*f));
        return;
    }
    k = (unsigned)rng_below(&w->rng, h->nr_held);
    f->cluster = h->held[k].cluster;
    f->count = h->held[k].count;
    w->x.data_seq++;
    zq_alloc_quarantine(&w->alloc, f, linked);
    last = zq_container(w->alloc.quarantine[linked].prev, struct zq_freed, link);
    expect(w, last->cluster + last->count == h->held[k].cluster + h->held[k].count);
    expect(w, last->after_round == (linked ? w->alloc.rounds + 1 : 0));
    expect(w, last->after_io == w->x.data_seq);
    h->held[k] = h->held[--h->nr_held];
    for (int q = 0; q < 2; q++) {
        for (struct zq_list *n = w->alloc.quarantine[q].next; n != &w->alloc.quarantine[q];
             n = n->next)
            total += zq_container(n, struct zq_freed, link)->count;
    }
    for (unsigned i = 0; i < h->nr_held; i++)
        total += h->held[i].count;
    for (uint64_t c = USED; c < CLUSTERS; c++)
        total -= w->refs[c] && c % w->block_refs; /* blocks lie where their range begins */
    expect(w, total == 0);                        /* no cluster is lost on its way */
}

static void lower(struct world *w)
{
    struct zq_gather g = fresh();
    struct zq_freed *f;
    struct zq_list *n = zq_list_pop(&w->alloc.quarantine[rng_below(&w->rng, 2)]);
    int rc;

    if (!n)
        return;
    f = zq_container(n, struct zq_freed, link);
    for (uint64_t c = f->cluster; c < f->cluster + f->count; c++)
        w->refs[c]--;
    zq_list_init(&g.wait.link);
    while ((rc = zq_alloc_lower(&w->alloc, &g, f)) == ZQ_WAIT)
        wait_for(w, &g);
    expect(w, rc == 0 && f->count == 0);
    zq_cache_release(&w->cache, &g);
    zq_free(&w->hooks, f, sizeof(*f));
}

static void clusters_are_taken_and_come_back(void **state)
{
    uint64_t first = rig_env("ZQ_SEED", 1), n = rig_env("ZQ_SEEDS", 42);
    static struct history h;
    struct world *w = &h.w;
    unsigned blocks = 0;

    (void)state;
    for (uint64_t seed = first; seed < first + n; seed++) {
        memset(&h, 0, sizeof(h));
        alloc_begin(w, seed);
        for (unsigned k = 0; k < 400; k++) {
            uint64_t what = rng_below(&w->rng, 10);

            if (what < 6)
                take(&h, what < 3 ? 1 : 1 + (uint32_t)rng_below(&w->rng, 30));
            else if (what < 8)
                give_back(&h);
            else
                lower(w);
            check_refs(w);
            if (rng_below(&w->rng, 40) == 0)
                write_back(w);
        }
        for (unsigned b = 1; b < w->alloc.refs.table.entries; b++)
            blocks += w->known_table[b] != 0;
        alloc_end(w);
    }
    printf("allocation: %" PRIu64 " histories, %u new refcount blocks\n", n, blocks);
    assert_true(n < 42 || blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clusters_are_taken_and_come_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
