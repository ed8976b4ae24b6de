/* SPDX-License-Identifier: MIT */
/* The model of history.h: of sectors the versions, of sequential zones the lives. */
#include <string.h>

#include "crash/history.h"

/* A sequential zone: what a life of it holds. */
struct zone {
    unsigned life;
    uint32_t wp;
    uint8_t v[ZONE];
};

/* Up to act n, without it; what was acknowledged before `sure` is there. */
struct view {
    const struct history *h;
    unsigned n;
    uint64_t sure;
    bool exact; /* a zone holds no beginning of what was written, but all of it */
};

static bool is_durable_on_return(enum kind kind)
{
    return kind == APPLY || kind == RESIZE;
}

static bool covers_others(enum kind kind)
{
    return kind == FLUSH || kind == TAKE || kind == DELETE || kind == APPLY || kind == RESIZE ||
           kind == REOPEN;
}

static bool has_ended(const struct history *h, const struct act *a)
{
    return a->until && a->ended <= h->cut && !a->refused;
}

static bool is_secured(const struct view *v, const struct act *a)
{
    if (a->until && a->until < v->sure)
        return true;
    return (a->fua || is_durable_on_return(a->kind)) && has_ended(v->h, a);
}

/* The acts that had begun, and what was flushed. */
static struct view view_at(const struct history *h, uint64_t sure, bool exact)
{
    struct view v = {h, 1, sure, exact};

    while (v.n <= h->acts && (h->act[v.n].begun < h->cut || h->cut == UINT64_MAX))
        v.n++;
    for (unsigned i = 0; i < v.n; i++) {
        const struct act *a = &h->act[i];

        if (covers_others(a->kind) && has_ended(h, a) && a->since > v.sure)
            v.sure = a->since;
    }
    return v;
}

/* ---- sizes ---- */

static bool size_allowed(const struct view *v, uint32_t size)
{
    bool any = false;

    for (unsigned i = 0; i < v->n; i++) {
        const struct act *a = &v->h->act[i];

        if (i && (!is_durable_on_return(a->kind) || a->refused))
            continue;
        if (i == 0 || has_ended(v->h, a))
            any = false;
        any |= a->size == size;
    }
    return any;
}

/* ---- sectors that may be overwritten ---- */

/* Which of them act i writes: from *at to before the end that is returned; got->size: see below. */
static uint32_t sectors_of(const struct view *v, unsigned i, const struct content *got,
                           uint32_t *at)
{
    const struct act *a = &v->h->act[i];
    uint32_t before = i ? v->h->act[i - 1].size : 0;

    *at = 0;
    if (a->refused)
        return 0;
    if (a->kind == WRITE) {
        *at = a->at;
        return a->at + a->len;
    }
    if (a->kind == APPLY)
        return SECTORS;
    if (a->kind != RESIZE || (!has_ended(v->h, a) && got->size != a->size))
        return 0; /* a size that is not there yet has changed nothing */
    *at = before < a->size ? before : a->size;
    return SECTORS;
}

static uint8_t value_of(const struct act *a, uint32_t k)
{
    return a->kind == WRITE ? a->value : a->kind == APPLY ? a->content.v[k] : 0;
}

static void judge_sectors(const struct view *v, const struct content *got)
{
    const struct history *h = v->h;
    uint64_t floor[SECTORS] = {0}; /* what was over before it cannot be seen */
    bool good[SECTORS] = {false};
    uint32_t at, end;

    for (unsigned i = 1; i < v->n; i++) {
        end = is_secured(v, &h->act[i]) ? sectors_of(v, i, got, &at) : 0;
        for (uint32_t k = at; k < end; k++)
            floor[k] = h->act[i].since > floor[k] ? h->act[i].since : floor[k];
    }
    for (uint32_t k = 0; k < got->size; k++)
        good[k] = !floor[k] && got->v[k] == h->first[k];
    for (unsigned i = 1; i < v->n; i++) {
        const struct act *a = &h->act[i];

        end = sectors_of(v, i, got, &at);
        for (uint32_t k = at; k < end; k++)
            good[k] |= got->v[k] == value_of(a, k) && (!a->until || a->until > floor[k]);
    }
    for (uint32_t k = 0; k < got->size; k++)
        must(h, good[k] || is_sequential(h, k), "sector", (long)k);
}

/* ---- sequential zones ---- */

static bool is_of(const struct view *v, unsigned i, uint32_t z)
{
    const struct act *a = &v->h->act[i];
    uint32_t before = v->h->act[i - 1].size, least = before < a->size ? before : a->size;

    if (a->refused)
        return false;
    if (a->kind == WRITE || a->kind == RESET || a->kind == FINISH)
        return a->at / ZONE == z;
    return a->kind == APPLY || (a->kind == RESIZE && z >= least / ZONE);
}

static void change(const struct history *h, unsigned i, uint32_t zone, struct zone *z)
{
    const struct act *a = &h->act[i];

    if (a->kind == WRITE) {
        memset(z->v + a->at % ZONE, a->value, a->len);
        z->wp = a->at % ZONE + a->len;
    } else if (a->kind == FINISH) {
        z->wp = h->shape->capacity;
    } else {
        *z = (struct zone){.life = i};
        if (a->kind == APPLY) {
            memcpy(z->v, a->content.v + (size_t)zone * ZONE, ZONE);
            z->wp = a->content.wp[zone];
        }
    }
}

/* What lies behind the pointer reads as zeros. */
static bool fits(const struct view *v, const struct zone *got, const struct zone *of,
                 const struct zone *least)
{
    static const uint8_t zeros[ZONE];

    if (got->wp > of->wp || memcmp(got->v, of->v, got->wp) != 0 ||
        memcmp(got->v + got->wp, zeros, ZONE - got->wp) != 0)
        return false;
    if (v->exact)
        return got->wp == of->wp;
    return of->life != least->life || got->wp >= least->wp;
}

static bool zone_allowed(const struct view *v, uint32_t zone, const struct zone *got)
{
    const struct history *h = v->h;
    struct zone now = {.wp = h->first_wp[zone]}, least;
    unsigned low = 0;

    memcpy(now.v, h->first + (size_t)zone * ZONE, ZONE);
    for (unsigned i = 1; i < v->n; i++) {
        if (is_of(v, i, zone) && is_secured(v, &h->act[i]))
            low = i;
    }
    least = now;
    if (low == 0 && fits(v, got, &now, &least))
        return true;
    for (unsigned i = 1; i < v->n; i++) {
        if (!is_of(v, i, zone))
            continue;
        change(h, i, zone, &now);
        if (i == low)
            least = now;
        if (i >= low && fits(v, got, &now, &least))
            return true;
    }
    return false;
}

static void judge_zones(const struct view *v, const struct content *got)
{
    struct zone z;

    for (uint32_t i = CONV; i < got->size / ZONE; i++) {
        z.wp = got->wp[i];
        memcpy(z.v, got->v + (size_t)i * ZONE, ZONE);
        must(v->h, zone_allowed(v, i, &z), "zone", (long)i);
    }
}

/* ---- all of it ---- */

bool is_same(const struct content *a, const struct content *b)
{
    return a->size == b->size && memcmp(a->v, b->v, a->size) == 0 &&
           memcmp(a->wp, b->wp, sizeof(a->wp)) == 0;
}

/* The act that was applying a snapshot, or 0. */
static unsigned applying(const struct view *v)
{
    for (unsigned i = 1; i < v->n; i++) {
        const struct act *a = &v->h->act[i];

        if (a->kind == APPLY && !a->refused && !has_ended(v->h, a))
            return i;
    }
    return 0;
}

/* All of the snapshot, and perhaps what was submitted behind act i. */
static bool is_applied(const struct view *v, unsigned i, const struct content *got)
{
    struct content want = v->h->act[i].content;

    while (++i < v->n) {
        const struct act *a = &v->h->act[i];

        for (uint32_t k = a->at; a->kind == WRITE && k < a->at + a->len; k++)
            want.v[k] = got->v[k] == a->value ? a->value : want.v[k];
    }
    return is_same(got, &want);
}

/* A snapshot that is being applied is there whole, or not at all. */
static void judge_view(struct view *v, const struct content *got)
{
    const struct history *h = v->h;
    unsigned at = applying(v);

    if (at && is_applied(v, at, got))
        return;
    v->n = at ? at : v->n;
    must(h, size_allowed(v, got->size), "size", (long)got->size);
    judge_sectors(v, got);
    if (h->shape->layout)
        judge_zones(v, got);
}

void judge_content(const struct history *h, const struct content *got, uint64_t sure)
{
    struct view v = view_at(h, sure, sure != 0);

    judge_view(&v, got);
}

void judge_taken(const struct history *h, unsigned i, const struct content *got)
{
    judge_content(h, got, h->act[i].since);
}

void judge_list(const struct history *h, const bool *there)
{
    for (uint32_t i = 1; i <= h->acts; i++) {
        bool must_be = false, may_be = false;

        for (uint32_t k = 1; k <= h->acts && h->act[k].begun < h->cut; k++) {
            const struct act *a = &h->act[k];

            if (a->refused)
                continue;
            if (a->kind == TAKE && k == i) {
                may_be = true;
                must_be = has_ended(h, a);
            } else if (a->kind == DELETE && a->which == i) {
                must_be = false;
                may_be = may_be && !has_ended(h, a);
            }
        }
        must(h, there[i] ? may_be : !must_be, "a snapshot is there or not", (long)i);
    }
}

/* ---- bitmaps ---- */

static bool changes_bitmaps(const struct act *a)
{
    return !a->refused && (a->kind == BITMAP || a->kind == APPLY || a->kind == RESIZE);
}

/* With all that was asked for before the next act that changes bitmaps. */
static unsigned last_with(const struct history *h, unsigned i)
{
    while (i < h->acts && !changes_bitmaps(&h->act[i + 1]))
        i++;
    return i;
}

/* Has anything been asked for since they were stored, by a close? */
static bool was_changed(const struct history *h)
{
    bool changed = false;

    for (unsigned i = 1; i <= h->acts && h->act[i].begun < h->cut; i++) {
        const struct act *a = &h->act[i];

        if (a->kind == REOPEN && has_ended(h, a))
            changed = false;
        changed |= a->kind == WRITE || a->kind == RESET || a->kind == FINISH || a->kind == APPLY ||
                   a->kind == RESIZE;
    }
    return changed;
}

/* Of the act that may have been under way: the device has its size, and not that from before. */
static bool is_resized(const struct history *h, const struct act *a, const struct content *got)
{
    return is_durable_on_return(a->kind) && a[-1].size != a->size && got->size == a->size &&
           a->begun < h->cut;
}

void judge_bitmaps(struct history *h, struct zqcow2_image *img, const struct content *got)
{
    struct found f[BITMAPS];
    unsigned last = 0, next;
    int rc = bitmaps_look(img, history_bitmaps, BITMAPS, f);

    must(h, rc == 0, "list bitmaps", rc);
    for (unsigned i = 1; i <= h->acts; i++) {
        if (changes_bitmaps(&h->act[i]) && has_ended(h, &h->act[i]))
            last = i;
    }
    last = last_with(h, last);
    next = last < h->acts && h->act[last + 1].begun < h->cut ? last_with(h, last + 1) : last;
    if (next != last && is_resized(h, &h->act[last + 1], got))
        last = next;
    for (unsigned i = 0; i < BITMAPS; i++) {
        must(h,
             bitmap_fits(&f[i], &h->act[last].bitmap[i], got->v, got->size) ||
                 bitmap_fits(&f[i], &h->act[next].bitmap[i], got->v, got->size),
             "bitmap", (long)i);
        must(h, !f[i].lost || was_changed(h), "a bitmap is lost without a change", (long)i);
        h->held += f[i].exists && !f[i].lost;
    }
}
