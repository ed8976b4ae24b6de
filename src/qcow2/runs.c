/* SPDX-License-Identifier: MIT */
/* A zone's runs: find by binary search, add with merging, remove. */
#include "qcow2/runs.h"

#include <string.h>
#include "base/bytes.h"
#include "base/report.h"

#define MAX_RUNS 1024u

/* The first run that ends behind guest. */
static uint32_t position(const struct zq_runs *r, uint64_t guest)
{
    uint32_t lo = 0, hi = r->n;

    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (r->v[mid].guest + r->v[mid].len <= guest)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const struct zq_run *zq_runs_find(const struct zq_runs *r, uint64_t guest)
{
    const struct zq_run *last;
    uint32_t i;

    if (!r->n)
        return NULL;
    last = &r->v[r->n - 1];
    if (guest >= last->guest) /* where a zone is written, and all of one in a single run */
        return guest - last->guest < last->len ? last : NULL;
    i = position(r, guest);
    return r->v[i].guest <= guest ? &r->v[i] : NULL;
}

static int reserve_one(struct zq_runs *r, const struct zqcow2_hooks *h)
{
    uint32_t cap = r->cap ? r->cap * 2 : 4;
    struct zq_run *v;

    if (r->n < r->cap)
        return 0;
    if (cap > MAX_RUNS) {
        r->n = 0; /* it is a cache: begin again */
        return 0;
    }
    v = zq_alloc(h, _Alignof(struct zq_run), cap * sizeof(*v));
    if (!v)
        return -1;
    if (r->n)
        memcpy(v, r->v, r->n * sizeof(*v));
    zq_free(h, r->v, r->cap * sizeof(*v));
    r->v = v;
    r->cap = cap;
    return 0;
}

static bool joins(const struct zq_run *a, const struct zq_run *b)
{
    return a->guest + a->len == b->guest && a->host + a->len == b->host;
}

void zq_runs_add(struct zq_runs *r, const struct zqcow2_hooks *h, uint64_t guest, uint64_t host,
                 uint64_t len)
{
    struct zq_run run = {guest, host, len};
    uint32_t i;

    zq_runs_remove(r, guest, guest + len);
    if (reserve_one(r, h))
        return;
    i = position(r, guest);
    zq_assert(len && (i == r->n || guest + len <= r->v[i].guest)); /* none overlaps another */
    if (i && joins(&r->v[i - 1], &run)) {
        r->v[--i].len += len;
    } else {
        memmove(r->v + i + 1, r->v + i, (r->n - i) * sizeof(run));
        r->v[i] = run;
        r->n++;
    }
    if (i + 1 < r->n && joins(&r->v[i], &r->v[i + 1])) {
        r->v[i].len += r->v[i + 1].len;
        memmove(r->v + i + 1, r->v + i + 2, (r->n - i - 2) * sizeof(run));
        r->n--;
    }
}

void zq_runs_remove(struct zq_runs *r, uint64_t guest, uint64_t end)
{
    uint32_t i = position(r, guest), keep = i;

    if (!r->n)
        return;
    if (i < r->n && r->v[i].guest < guest) {
        /* Keep its head; a tail behind `end` is forgotten, L2 still knows it. */
        r->v[i].len = guest - r->v[i].guest;
        keep = ++i;
    }
    while (i < r->n && r->v[i].guest < end)
        i++;
    zq_assert(keep <= i && i <= r->n);
    memmove(r->v + keep, r->v + i, (r->n - i) * sizeof(*r->v));
    r->n -= i - keep;
}

void zq_runs_free(struct zq_runs *r, const struct zqcow2_hooks *h)
{
    zq_free(h, r->v, r->cap * sizeof(*r->v));
    memset(r, 0, sizeof(*r));
}

void zq_runs_close(struct zq_runs *r, uint32_t n, const struct zqcow2_hooks *h)
{
    for (uint32_t i = 0; r && i < n; i++)
        zq_runs_free(&r[i], h);
    zq_free(h, r, n * sizeof(*r));
}
