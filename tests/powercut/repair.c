/* SPDX-License-Identifier: MIT */
/* Repair on a disk that loses power: what could be read stays, and another repair ends the work. */
#include "run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void damage_count(const struct shape *s, struct store *st, uint64_t cluster, uint64_t *g)
{
    unsigned bit, width = 1u << s->rorder;
    uint64_t at = shape_ref_at(s, cluster, &bit), is = shape_ref(s, cluster), to;

    if (!at)
        return;
    to = odds(g, 2) ? 0 : is + 1;
    if (width < 64 && to >> width)
        to = 0;
    if (width >= 8)
        put_be(st, at, width / 8, to);
    else
        put_be(st, at, 1, (get_be(st, at, 1) & ~(((1ull << width) - 1) << bit)) | to << bit);
}

/* Counts and flags only: what can be read stays. */
static void damage(struct run *r, struct store *st)
{
    struct store from = {NULL, 0, 0};
    struct shape s = {0};
    uint64_t *g = &r->judge_rng, n = below(g, 8);

    store_copy(&from, st);
    run_below(r, &s);
    if (!shape_open(&s, &from))
        fail(r, st, "damage: %s", s.text);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t at = shape_l2_at(&s, below(g, s.size)), e;

        if (odds(g, 2)) {
            damage_count(&s, st, below(g, (st->size >> s.cb) + 1), g);
            continue;
        }
        e = at ? get_be(st, at, 8) : 0;
        if (e & 0x00fffffffffffe00u && !(e >> 62 & 1))
            put_be(st, at, 8, e ^ 1ull << 63);
    }
    store_free(&from);
}

static int run_repair(struct run *r, struct disk *d, struct zqcow2_check_result *res)
{
    static const uint32_t flags[] = {ZQCOW2_CHECK_REPAIR_ALL, ZQCOW2_CHECK_REPAIR};
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_backend *be = disk_backend(d);
    int rc;

    o.flags = flags[r->w.seed % 2];
    rc = zqcow2_check(be, &o, res, &err);
    zqcow2_backend_close(be);
    return rc;
}

static void unchanged(struct run *r, const struct store *st, struct shape *s, const char *when)
{
    judge_observe(r, st, s);
    if (memcmp(r->content, r->m.init, r->w.size))
        fail(r, st, "%s: the device reads otherwise", when);
    for (uint64_t i = s->conv; i < s->nz; i++)
        if (r->full[i] != r->m.zones[i].filled || (!r->full[i] && r->wp[i] != r->m.zones[i].next))
            fail(r, st, "%s: zone %llu has another pointer", when, (unsigned long long)i);
    judge_snapshots(r, s);
}

static void sound(struct run *r, const struct store *st, const char *when)
{
    struct shape s;
    struct shape_count n;

    unchanged(r, st, &s, when);
    shape_check(&s, &n);
    if (n.corruptions || n.leaks || n.tolerated || s.mark)
        fail(r, st, "%s: %llu corruptions, %llu leaks, %llu flags, mark %d: %s", when,
             (unsigned long long)n.corruptions, (unsigned long long)n.leaks,
             (unsigned long long)n.tolerated, s.mark, s.text);
}

void judge_repair(struct run *r, const struct store *st)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct disk_limits lim = r->w.lim;
    struct shape s;
    struct disk d;
    int rc;

    world_count(r);
    unchanged(r, st, &s, "repair interrupted");
    if (!odds(&r->judge_rng, 3))
        return;
    lim.async = false;
    disk_init(&d, st, &lim, 1);
    d.quiet = true;
    rc = run_repair(r, &d, &res);
    if (rc)
        fail(r, st, "the second repair: %s", zqcow2_strerror(rc));
    sound(r, &d.now, "the second repair");
    disk_free(&d);
}

void repair(struct run *r, struct store *st)
{
    struct zqcow2_check_result res = ZQCOW2_CHECK_RESULT_INIT;
    struct disk_limits lim = r->w.lim;
    struct disk *d = &r->disk;
    int rc;

    lim.async = false;
    damage(r, st);
    disk_init(d, st, &lim, mix(&r->rng));
    d->lock = &r->lock;
    d->point = judge_point;
    d->arg = r;
    r->phase = PHASE_REPAIR;
    r->cut_in = 0;
    rc = run_repair(r, d, &res);
    if (rc)
        fail(r, st, "repair: %s", zqcow2_strerror(rc));
    sound(r, &d->now, "repair");
    store_copy(st, &d->now);
    disk_free(d);
    r->c->repairs++;
}
