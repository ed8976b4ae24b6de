/* SPDX-License-Identifier: MIT */
/* What is done in a history: requests, and calls during which there are more. */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <zqcow2/change.h>

#include "crash/history.h"

const char *const history_bitmaps[BITMAPS] = {"a", "b"};

/* ---- acts ---- */

static struct act *begin_act(struct history *h, enum kind kind)
{
    struct act *a = &h->act[h->acts + 1];

    must(h, h->acts + 1 < ACTS, "too many acts", 0);
    memset(a, 0, offsetof(struct act, data));
    a->kind = kind;
    a->history = h;
    a->size = h->now.size;
    memcpy(a->bitmap, h->act[h->acts].bitmap, sizeof(a->bitmap));
    a->begun = zqcow2_simdisk_position(h->disk);
    a->since = ++h->clock;
    h->acts++;
    h->done[kind]++;
    return a;
}

static void end_act(struct history *h, struct act *a)
{
    a->ended = zqcow2_simdisk_position(h->disk);
    a->until = ++h->clock;
}

static unsigned number(const struct history *h, const struct act *a)
{
    return (unsigned)(a - h->act);
}

/* ---- requests ---- */

static void request_done(void *arg, const struct zqcow2_result *res)
{
    struct act *a = arg;

    must(a->history, res->ret == 0, "request", res->ret);
    end_act(a->history, a);
}

static void submit(struct history *h, struct act *a)
{
    static const uint16_t ops[] = {ZQCOW2_OP_WRITE, ZQCOW2_OP_ZONE_RESET, ZQCOW2_OP_ZONE_FINISH,
                                   ZQCOW2_OP_FLUSH};
    struct zqcow2_request req = {.size = sizeof(req), .op = ops[a->kind]};
    struct zqcow2_result res;
    int rc;

    req.flags = a->fua ? ZQCOW2_FUA : 0;
    req.offset = (uint64_t)a->at * SECTOR;
    req.length = (uint64_t)(a->kind == WRITE ? a->len : ZONE) * SECTOR;
    if (a->kind == WRITE && !a->value)
        req.op = ZQCOW2_OP_WRITE_ZEROES;
    memset(a->data, a->value, (size_t)a->len * SECTOR);
    a->iov = (struct iovec){a->data, (size_t)a->len * SECTOR};
    req.iov = &a->iov;
    req.iovcnt = a->kind == WRITE && a->value;
    req.done = request_done;
    req.arg = a;
    if (!h->queue) {
        rc = zqcow2_run(h->img, &req, &res);
        must(h, rc == 0, "request", rc);
        end_act(h, a);
    } else {
        must(h, zqcow2_queue_submit(h->queue, &req, 1) == 1, "submit", 0);
    }
}

static void put(struct history *h, struct act *a, uint32_t at, uint32_t len)
{
    a->at = at;
    a->len = len;
    a->value = draw(h, 6) ? (uint8_t)(number(h, a) % 250 + 1) : 0;
    memset(h->now.v + at, a->value, len);
    bitmaps_ask(a->bitmap, BITMAPS, at, len);
    submit(h, a);
}

static void change_zone(struct history *h, uint32_t zone, uint32_t chance)
{
    uint32_t at = zone * ZONE, wp = h->now.wp[zone], most = h->shape->capacity - wp, len;
    struct act *a;

    if (chance == 0 || most == 0) {
        a = begin_act(h, RESET);
        bitmaps_ask(a->bitmap, BITMAPS, at, wp);
        memset(h->now.v + at, 0, ZONE);
        h->now.wp[zone] = 0;
    } else if (chance == 1) {
        a = begin_act(h, FINISH);
        bitmaps_ask(a->bitmap, BITMAPS, at + wp, h->shape->capacity - wp);
        h->now.wp[zone] = (uint8_t)h->shape->capacity;
    } else {
        a = begin_act(h, WRITE);
        len = 1 + (uint32_t)draw(h, draw(h, 3) ? 9 : ZONE);
        len = len < most ? len : most;
        a->fua = draw(h, 8) == 0;
        h->now.wp[zone] = (uint8_t)(wp + len);
        put(h, a, at + wp, len);
        return;
    }
    a->at = at;
    a->fua = draw(h, 4) == 0;
    submit(h, a);
}

/* Which of two such writes comes first is nobody's promise, not even that of a disk. */
static bool overlaps_another(const struct history *h, uint32_t at, uint32_t len)
{
    for (unsigned i = 1; i <= h->acts; i++) {
        const struct act *a = &h->act[i];

        if (a->kind == WRITE && !a->until && a->at < at + len && at < a->at + a->len)
            return true;
    }
    return false;
}

static void overwrite(struct history *h)
{
    uint32_t end = h->shape->layout ? CONV * ZONE : h->limit, at = (uint32_t)draw(h, end),
             len = 1 + (uint32_t)draw(h, draw(h, 3) ? 9 : ZONE);
    struct act *a;

    len = len < end - at ? len : end - at;
    if (overlaps_another(h, at, len))
        return;
    a = begin_act(h, WRITE);
    a->fua = draw(h, 8) == 0;
    put(h, a, at, len);
}

/* It touches nothing from h->limit on. */
static void one_request(struct history *h)
{
    uint32_t zones = h->limit / ZONE, zone = zones ? (uint32_t)draw(h, zones) : 0;

    if (draw(h, 12) == 0)
        submit(h, begin_act(h, FLUSH));
    else if (h->overwrites)
        overwrite(h);
    else if (is_sequential(h, zone * ZONE))
        change_zone(h, zone, (uint32_t)draw(h, 9));
    else
        overwrite(h);
}

/* During a call. A few acts stay free for those that follow. */
void submit_some(struct history *h)
{
    if (zqcow2_queue_pending(h->queue) == DEPTH || h->acts + 60 > ACTS)
        return;
    one_request(h);
    h->among++;
}

static void requests(struct history *h)
{
    uint32_t n = 1 + (uint32_t)draw(h, 4);

    h->limit = h->now.size;
    while (n-- && h->acts + 50 < ACTS) {
        while (h->queue && zqcow2_queue_pending(h->queue) == DEPTH)
            (void)zqcow2_queue_wait(h->queue, 1, -1);
        one_request(h);
    }
    if (h->queue && draw(h, 2))
        (void)zqcow2_queue_poll(h->queue, 0);
}

/* ---- calls ---- */

static void call_begins(struct history *h, bool requests_meanwhile)
{
    h->limit = h->now.size;
    h->during = h->queue && requests_meanwhile;
}

/* rc: that of the call; with: an error that has changed nothing, as those of what does not fit. */
static void call_ends(struct history *h, struct act *a, int rc, int with)
{
    h->during = false;
    must(h, rc == 0 || rc == with || rc == ZQCOW2_EFEATURE || rc == -EOVERFLOW, "call", rc);
    end_act(h, a);
    a->refused = rc < 0;
}

static void take(struct history *h)
{
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    struct act *a = begin_act(h, TAKE);
    struct zqcow2_simdisk *copy;
    struct zqcow2_image *img;
    unsigned i = number(h, a);
    char text[16];

    s.name = name_of(i, text);
    s.date_sec = i;
    call_begins(h, true);
    call_ends(h, a, zqcow2_snapshot_take(h->img, &s, NULL), 0);
    if (a->refused)
        return;
    must(h, zqcow2_simdisk_clone(h->disk, &copy) == 0, "clone", 0);
    img = open_plainly(h, copy, false, text);
    read_content(h, img, &a->content);
    judge_taken(h, i, &a->content);
    must(h, zqcow2_close(img) == 0, "close", 0);
    zqcow2_simdisk_free(copy);
    h->taken[i] = true;
}

static unsigned some_snapshot(struct history *h)
{
    unsigned from = (unsigned)draw(h, ACTS);

    for (unsigned i = 0; i < ACTS; i++) {
        if (h->taken[(from + i) % ACTS])
            return (from + i) % ACTS;
    }
    return 0;
}

static void drop(struct history *h)
{
    unsigned which = some_snapshot(h);
    struct act *a;
    char text[16];

    if (!which)
        return;
    a = begin_act(h, DELETE);
    a->which = which;
    h->taken[which] = false;
    call_begins(h, true);
    call_ends(h, a, zqcow2_snapshot_delete(h->img, name_of(which, text), NULL), 0);
}

/* They are marked from act i on, whatever they hold: it is not what they held. */
static void mark_all(struct history *h, unsigned i, uint32_t from, uint32_t end)
{
    for (; i <= h->acts && from < end; i++) {
        for (unsigned k = 0; k < BITMAPS; k++) {
            struct bitmap *b = &h->act[i].bitmap[k];

            memset(b->base + from, NEVER, end - from);
            memset(b->free + from, false, end - from);
        }
    }
}

/* What was submitted meanwhile goes to the new disk. */
static void applied(struct history *h, unsigned i)
{
    h->now = h->act[i].content;
    mark_all(h, i, 0, h->now.size);
    for (; i <= h->acts; i++) {
        struct act *a = &h->act[i];

        a->size = h->now.size;
        bitmaps_ask(a->bitmap, BITMAPS, 0, h->now.size);
        if (a->kind == WRITE)
            memset(h->now.v + a->at, a->value, a->len);
    }
}

/*
 * Refused while requests are in flight, of which one may have come before the call looks. What
 * comes meanwhile cannot know the pointers.
 */
static void apply(struct history *h)
{
    unsigned which = some_snapshot(h);
    struct act *a;
    char text[16];
    int rc;

    if (!which)
        return;
    if (draw(h, 4))
        settle(h);
    a = begin_act(h, APPLY);
    a->which = which;
    a->content = h->act[which].content;
    call_begins(h, draw(h, 2));
    h->overwrites = true;
    h->limit = h->limit < a->content.size ? h->limit : a->content.size;
    rc = zqcow2_snapshot_apply(h->img, name_of(which, text), NULL);
    h->overwrites = false;
    call_ends(h, a, rc, -EBUSY);
    if (!a->refused)
        applied(h, number(h, a));
}

static uint32_t another_size(struct history *h)
{
    if (h->shape->layout)
        return (uint32_t)(CONV + 1 + draw(h, ZONES - CONV)) * ZONE;
    return (uint32_t)(SECTORS / 4 + draw(h, SECTORS * 3 / 4)) + 1;
}

/* Those submitted meanwhile have left alone what lies beyond h->limit. */
static void undo_resize(struct history *h, struct act *a)
{
    for (unsigned i = number(h, a); i <= h->acts; i++) {
        h->act[i].size = a[-1].size;
        for (unsigned k = 0; k < BITMAPS; k++)
            memcpy(h->act[i].bitmap[k].asked + h->limit, a[-1].bitmap[k].asked + h->limit,
                   SECTORS - h->limit);
    }
}

static void resize(struct history *h)
{
    struct act *a = begin_act(h, RESIZE);
    uint32_t before = h->now.size, size = another_size(h), flags = 0;
    int rc;

    if (size < before)
        flags = ZQCOW2_RESIZE_SHRINK | (h->shape->layout ? ZQCOW2_RESIZE_DISCARD : 0);
    a->size = size;
    call_begins(h, true);
    h->limit = size < before ? size : before;
    bitmaps_ask(a->bitmap, BITMAPS, h->limit, SECTORS - h->limit); /* zones are also reset */
    rc = zqcow2_resize(h->img, (uint64_t)size * SECTOR, flags, NULL);
    call_ends(h, a, rc, 0);
    if (a->refused) {
        undo_resize(h, a);
        return;
    }
    for (unsigned i = number(h, a); i <= h->acts; i++)
        h->act[i].size = size;
    h->now.size = size;
    mark_all(h, number(h, a), before, size);
    for (uint32_t k = h->limit; k < SECTORS; k++)
        h->now.v[k] = h->now.wp[k / ZONE] = 0;
}

static int progress(void *history, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    among_calls(history);
    return 0;
}

static void compact(struct history *h)
{
    struct zqcow2_compact_options o = ZQCOW2_COMPACT_OPTIONS_INIT;
    struct act *a;

    if (!h->shape->layout)
        return;
    a = begin_act(h, COMPACT);
    o.progress = progress;
    o.progress_arg = h;
    call_begins(h, true);
    call_ends(h, a, zqcow2_compact(h->img, &o, NULL, NULL), 0);
}

/* What was in flight may have come before it, or behind: it says nothing of that. */
static void forget(struct history *h, const struct act *of, struct bitmap *b)
{
    for (unsigned i = 1; i <= h->acts; i++) {
        const struct act *a = &h->act[i];
        uint32_t len = a->kind == WRITE ? a->len : ZONE;

        if (a->kind > FINISH || (a->until && a->until < of->since))
            continue;
        memset(b->free + a->at, true, len * sizeof(*b->free));
        memset(b->asked + a->at, false, len * sizeof(*b->asked));
    }
}

/* fresh: it marks nothing then. */
static int edit(struct history *h, struct bitmap *b, const char *name, bool *fresh)
{
    *fresh = !b->exists;
    if (*fresh) {
        *b = (struct bitmap){.exists = true, .bits = (unsigned)draw(h, 4)};
        b->enabled = draw(h, 4);
        return zqcow2_bitmap_add(h->img, name, (uint64_t)SECTOR << b->bits,
                                 b->enabled ? 0 : ZQCOW2_BITMAP_ADD_DISABLED, NULL);
    }
    switch (draw(h, 5)) {
    case 0: b->exists = false; return zqcow2_bitmap_remove(h->img, name, NULL);
    case 1: b->enabled = true; return zqcow2_bitmap_enable(h->img, name, NULL);
    case 2: b->enabled = false; return zqcow2_bitmap_disable(h->img, name, NULL);
    default: *fresh = true; return zqcow2_bitmap_clear(h->img, name, NULL);
    }
}

/* Requests that are submitted meanwhile copy the bitmaps of the last act: they get the new ones. */
static void bitmap(struct history *h)
{
    unsigned which = (unsigned)draw(h, BITMAPS);
    struct act *a = begin_act(h, BITMAP);
    struct bitmap b = a->bitmap[which];
    struct content c;
    bool fresh;
    int rc;

    call_begins(h, true);
    rc = edit(h, &b, history_bitmaps[which], &fresh);
    call_ends(h, a, rc, 0);
    if (a->refused)
        return;
    if (fresh) {
        read_content(h, h->img, &c);
        bitmap_rebase(&b, c.v);
    }
    forget(h, a, &b);
    for (unsigned i = number(h, a); i <= h->acts; i++)
        h->act[i].bitmap[which] = b;
}

static void choose_amend(struct history *h, struct zqcow2_amend_options *o)
{
    static const uint32_t bits[] = {4, 8, 16, 32, 64};

    switch (draw(h, 4)) {
    case 0: o->refcount_bits = bits[draw(h, 5)]; break;
    case 1: o->version = h->shape->layout || draw(h, 2) ? 3 : 2; break;
    case 2:
        o->layout = h->shape->layout ? ZQCOW2_LAYOUT_44 : 0;
        o->refcount_bits = h->shape->layout ? 0 : 16;
        break;
    default:
        o->flags = h->shape->layout || draw(h, 2) ? ZQCOW2_AMEND_NO_LAZY_REFCOUNTS :
                                                    ZQCOW2_AMEND_LAZY_REFCOUNTS;
    }
    h->lazy |= o->flags & ZQCOW2_AMEND_LAZY_REFCOUNTS;
}

static void amend(struct history *h)
{
    struct zqcow2_amend_options o = ZQCOW2_AMEND_OPTIONS_INIT;
    struct act *a = begin_act(h, AMEND);
    struct zqcow2_backend *be;

    choose_amend(h, &o);
    o.resolve = resolve_below;
    o.resolve_arg = h;
    must(h, zqcow2_simdisk_backend(h->disk, &be) == 0, "backend", 0);
    call_ends(h, a, zqcow2_amend(be, &o, NULL), 0);
    zqcow2_backend_close(be);
}

static void reopen(struct history *h)
{
    struct act *a;

    settle(h);
    a = begin_act(h, REOPEN);
    close_live(h);
    end_act(h, a);
    if (draw(h, 3))
        amend(h);
    open_live(h);
}

/* Nothing is in flight: all that was acknowledged is there, and marked. */
static void look(struct history *h)
{
    struct found f[BITMAPS];
    struct content c;

    settle(h);
    read_content(h, h->img, &c);
    judge_content(h, &c, ++h->clock);
    must(h, bitmaps_look(h->img, history_bitmaps, BITMAPS, f) == 0, "list bitmaps", 0);
    for (unsigned i = 0; i < BITMAPS; i++) {
        const struct bitmap *b = &h->act[h->acts].bitmap[i];

        must(h, f[i].exists == b->exists && !f[i].lost, "bitmap is there", (long)i);
        for (uint32_t k = 0; b->exists && k < c.size; k++)
            must(h, !b->asked[k] || f[i].marked[k], "mark", (long)k);
    }
}

static void one_call(struct history *h)
{
    static void (*const calls[])(struct history * h) = {
        take,   take,   take,   take,   drop,   drop,    apply,   apply,  apply,  resize, resize,
        resize, bitmap, bitmap, bitmap, bitmap, compact, compact, reopen, reopen, reopen, look};

    calls[draw(h, sizeof(calls) / sizeof(*calls))](h);
}

/* ---- all of them ---- */

void history_run(struct history *h, unsigned n)
{
    open_live(h);
    while (n-- && h->acts + 50 < ACTS) {
        requests(h);
        one_call(h);
    }
    look(h);
    close_live(h);
}
