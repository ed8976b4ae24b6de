/* SPDX-License-Identifier: MIT */
#include "run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct revived {
    struct run *r;
    const struct store *from;
    struct zqcow2_image *img;
    uint8_t *want; /* the device, as it should be */
    uint64_t *wp;
    bool *full;
    uint64_t rng;
};

static bool is_limit(int rc)
{
    return rc == ZQCOW2_EZONE_ACTIVE || rc == ZQCOW2_EZONE_OPEN;
}

static void revive_zone(struct revived *v, struct zone *z, uint64_t i)
{
    uint8_t sector[512];
    uint64_t off = z->start;
    int rc;

    switch (below(&v->rng, 4)) {
    case 0:
        rc = zqcow2_zone_reset(v->img, z->start, z->len, 0);
        if (!rc) {
            memset(v->want + z->start, 0, z->len);
            v->wp[i] = z->start;
            v->full[i] = false;
        }
        break;
    case 1:
        rc = zqcow2_zone_finish(v->img, z->start, z->len, 0);
        v->full[i] = v->full[i] || !rc;
        break;
    default:
        if (v->full[i])
            return;
        stamp(sector, 0x4e4e, i);
        rc = zqcow2_append(v->img, sector, 512, &off, 0);
        if (rc)
            break;
        if (off != v->wp[i])
            fail(v->r, v->from, "after the cut: an append went to 0x%llx", (unsigned long long)off);
        memcpy(v->want + off, sector, 512);
        v->wp[i] += 512;
        v->full[i] = v->wp[i] == z->start + z->cap;
        break;
    }
    if (rc && !is_limit(rc))
        fail(v->r, v->from, "after the cut: zone %llu: %s", (unsigned long long)i,
             zqcow2_strerror(rc));
}

static void revive_plain(struct revived *v, uint64_t start, uint64_t len)
{
    uint64_t cl = v->r->w.cluster, n = len / cl, at = start + below(&v->rng, len / 512) * 512;
    uint8_t sector[512];
    int rc;

    stamp(sector, 0x4e4f, at);
    rc = zqcow2_write(v->img, sector, 512, at, 0);
    memcpy(v->want + at, sector, 512);
    if (!rc && n) {
        at = start + below(&v->rng, n) * cl;
        rc = odds(&v->rng, 2) ? zqcow2_discard(v->img, cl, at, 0) :
                                zqcow2_write_zeroes(v->img, cl, at, 0);
        memset(v->want + at, 0, cl);
    }
    if (rc)
        fail(v->r, v->from, "after the cut: a write at 0x%llx: %s", (unsigned long long)at,
             zqcow2_strerror(rc));
}

static void use(struct revived *v)
{
    struct model *m = &v->r->m;

    if (!m->nz) {
        revive_plain(v, 0, m->size);
        return;
    }
    for (unsigned n = 0; n < 6; n++) {
        uint64_t i = below(&v->rng, n < 3 && m->nz > 8 ? 8 : m->nz);

        if (m->zones[i].seq)
            revive_zone(v, &m->zones[i], i);
        else
            revive_plain(v, m->zones[i].start, m->zones[i].len);
    }
}

static void compare(struct revived *v, const struct store *st)
{
    struct run *r = v->r;

    judge_clean(r, st, "closed after the cut");
    for (uint64_t off = 0; off < r->w.size; off += 512)
        if (memcmp(v->want + off, r->content + off, 512))
            fail(r, v->from, "after the cut: sector 0x%llx holds something else",
                 (unsigned long long)off);
    for (uint64_t i = 0; i < r->m.nz; i++)
        if (r->m.zones[i].seq &&
            (v->full[i] != r->full[i] || (!v->full[i] && v->wp[i] != r->wp[i])))
            fail(r, v->from, "after the cut: zone %llu: the pointer is 0x%llx instead of 0x%llx",
                 (unsigned long long)i, (unsigned long long)r->wp[i], (unsigned long long)v->wp[i]);
}

static void *dup_of(const void *p, size_t n)
{
    return memcpy(need(malloc(n + 1)), p, n);
}

/* Takes what judge_observe() has seen, and leaves it as it was. */
void judge_revive(struct run *r, const struct store *st)
{
    struct zqcow2_open_options o = run_options(r, ZQCOW2_OPEN_RDWR);
    struct revived v = {.r = r, .from = st, .rng = mix(&r->judge_rng)};
    struct zqcow2_error err = {0, ""};
    struct disk_limits lim = r->w.lim;
    bool was_cut = r->was_cut;
    struct disk d;
    int rc;

    lim.async = false;
    lim.caps = 0;
    v.want = dup_of(r->content, r->w.size);
    v.wp = dup_of(r->wp, r->m.nz * 8);
    v.full = dup_of(r->full, r->m.nz);
    disk_init(&d, st, &lim, 1);
    d.quiet = true;
    if (zqcow2_open(disk_backend(&d), &o, &v.img, &err))
        fail(r, st, "open for writing after the cut: %s", err.text);
    use(&v);
    rc = zqcow2_close(v.img);
    if (rc)
        fail(r, st, "close after the cut: %s", zqcow2_strerror(rc));
    r->was_cut = true;
    compare(&v, &d.now);
    r->was_cut = was_cut;
    disk_free(&d);
    r->c->revived++;
    free(v.want);
    free(v.wp);
    free(v.full);
    {
        struct shape s;

        judge_observe(r, st, &s);
    }
}
