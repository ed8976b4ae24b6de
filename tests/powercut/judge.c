/* SPDX-License-Identifier: MIT */
/* Whether the contract of docs/DESIGN.md holds in what a power cut left. */
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void judge_observe(struct run *r, const struct store *st, struct shape *s)
{
    memset(s, 0, sizeof(*s));
    run_below(r, s);
    if (!shape_open(s, st) || !shape_read(s, -1, r->content, r->w.size, 0))
        fail(r, st, "it cannot be read: %s", s->text);
    if (s->size != r->w.size || s->nz != r->m.nz)
        fail(r, st, "the device has another size");
    for (uint64_t i = s->conv; i < s->nz; i++)
        r->wp[i] = shape_wp(s, i, &r->full[i]);
}

void judge_snapshots(struct run *r, struct shape *s)
{
    if (s->snaps != r->snaps)
        fail(r, s->st, "%u snapshots instead of %u", s->snaps, r->snaps);
    for (unsigned i = 0; i < s->snaps; i++) {
        if (!shape_read(s, (int)i, r->other, r->w.size, 0))
            fail(r, s->st, "snapshot %s cannot be read: %s", s->snap[i].name, s->text);
        if (content_sum(r->other, r->w.size) != r->snap_sum[i])
            fail(r, s->st, "snapshot %s reads otherwise", s->snap[i].name);
        r->c->snap_reads++;
    }
}

void judge(struct run *r, const struct store *st, bool thorough)
{
    struct shape s;
    struct shape_count n;
    char text[200];

    world_count(r);
    judge_observe(r, st, &s);
    shape_check(&s, &n);
    if (n.corruptions && !(s.incompat & 1))
        fail(r, st, "%llu corruptions: %s", (unsigned long long)n.corruptions, s.text);
    if (!r->w.lazy && !s.mark && n.leaks > r->leaks && !(s.incompat & 1))
        fail(r, st, "%llu leaks without the mark", (unsigned long long)n.leaks);
    if (!model_match(&r->m, r->content, r->wp, r->full, text))
        fail(r, st, "%s", text);
    if (r->snaps && (thorough || odds(&r->judge_rng, 3)))
        judge_snapshots(r, &s);
    judge_others(r, st, &s, thorough);
    if (thorough || odds(&r->judge_rng, 12))
        judge_revive(r, st);
}

void judge_point(void *run)
{
    struct run *r = run;
    struct store st = {NULL, 0, 0};

    if (r->cut_in && --r->cut_in == 0) {
        if (!r->killing) {
            disk_cut(&r->disk, &r->cut, &r->judge_rng);
            judge(r, &r->cut, true);
        }
        r->disk.off = true;
        return;
    }
    if (!r->cap || !odds(&r->judge_rng, r->point_odds))
        return;
    r->cap--;
    r->c->points++;
    for (unsigned i = 0; i < r->variants; i++) {
        disk_cut(&r->disk, &st, &r->judge_rng);
        if (r->phase == PHASE_REPAIR)
            judge_repair(r, &st);
        else
            judge(r, &st, false);
    }
    store_free(&st);
}

/*
 * Whole clusters behind a pointer. A clean close unmaps them; what a power cut left there stays
 * until its zone is used again.
 */
static uint64_t mapped_behind(struct run *r, struct shape *s, uint64_t *where)
{
    uint64_t found = 0;

    for (uint64_t i = s->conv; i < s->nz; i++) {
        uint64_t at = (r->wp[i] + s->cl - 1) & ~(s->cl - 1);

        for (; !r->full[i] && at < i * s->zone + shape_zone_len(s, i); at += s->cl) {
            uint64_t l2 = shape_l2_at(s, at);

            if (l2 && get_be(s->st, l2, 8) & ~1ull) {
                *where = at;
                found++;
            }
        }
    }
    return found;
}

void judge_clean(struct run *r, const struct store *st, const char *when)
{
    struct shape s;
    struct shape_count n;
    uint64_t where = 0;

    judge_observe(r, st, &s);
    shape_check(&s, &n);
    if (n.leaks <= r->leaks)
        n.leaks = 0; /* the seed's own, which no mark calls for */
    if (n.corruptions || n.leaks || n.tolerated || s.mark || s.incompat & 3)
        fail(r, st, "%s: %llu corruptions, %llu leaks, %llu flags, mark %d, incompatible %llx: %s",
             when, (unsigned long long)n.corruptions, (unsigned long long)n.leaks,
             (unsigned long long)n.tolerated, s.mark, (unsigned long long)s.incompat, s.text);
    if (!r->was_cut && mapped_behind(r, &s, &where))
        fail(r, st, "%s: a cluster is mapped behind the pointer at 0x%llx", when,
             (unsigned long long)where);
    if (r->snaps)
        judge_snapshots(r, &s);
    r->c->closes++;
}
