/* SPDX-License-Identifier: MIT */
/*
 * Images with persistent bitmaps that get other sizes, and of which snapshots are applied, between
 * writes: bitmap_steps.h with these steps. A bitmap also marks all that is new of a device that has
 * grown, and, where it is enabled, all of a device that a snapshot was applied to. Neither makes a
 * bitmap inconsistent.
 */
#include <string.h>

#include "crash/bitmap_steps.h"

enum { WRITE, ZEROES, RESET, REOPEN, GROW, SHRINK, TAKE, APPLY, ADD, CLEAR, TURN };

static int change(struct world *w, struct step *s)
{
    uint64_t zone = bitmap_draw(w, s->d.size / ZONE + !w->shape->zoned), end = (zone + 1) * ZONE;
    bool sequential = w->shape->zoned && zone >= CONV;
    uint64_t len = 1 + bitmap_draw(w, bitmap_draw(w, 4) ? 12 : 200), at;
    int rc;

    if (!w->shape->zoned)
        end = s->d.size;
    at = sequential ? s->d.wp[zone] : bitmap_draw(w, w->shape->zoned ? end : s->d.size);
    len = len < end - at ? len : end - at;
    if (!len)
        return 0;
    rc = bitmap_write(w, s, at, len, s->kind == WRITE ? (uint8_t)(w->steps % 100 + 1) : 0);
    if (sequential)
        s->d.wp[zone] += len;
    return rc;
}

/* What is new is marked, also by bitmaps that are disabled, and what is cut off is forgotten. */
static void model_size(struct step *s, uint64_t to)
{
    uint64_t from = s->d.size;

    for (unsigned i = 0; i < BITMAPS; i++) {
        struct bitmap *b = &s->b[i];
        uint64_t gone = (to + (1u << b->bits) - 1) >> b->bits << b->bits;

        for (uint64_t k = from; k < to; k++)
            b->asked[k] = b->exists;
        for (uint64_t k = gone; k < SECTORS; k++)
            b->asked[k] = b->free[k] = false;
    }
    s->d.size = to;
    for (uint64_t k = to < from ? to : from; k < SECTORS; k++)
        s->d.holds[k] = 0;
    for (uint64_t z = 0; z < SECTORS / ZONE; z++) {
        if (z * ZONE >= to)
            s->d.wp[z] = z * ZONE;
    }
}

static int resize(struct world *w, struct step *s)
{
    uint64_t from = s->d.size, most = SECTORS - from, to;
    int rc = 0;

    to = s->kind == GROW ? from + bitmap_draw(w, most + 1) : 1 + bitmap_draw(w, from);
    if (w->shape->zoned) {
        to = (to + ZONE - 1) / ZONE * ZONE;
        to = to < (CONV + 1) * ZONE ? (CONV + 1) * ZONE : to;
    }
    for (uint64_t z = to / ZONE; rc == 0 && w->shape->zoned && z < from / ZONE; z++)
        rc = bitmap_reset_zone(w, s, z);
    model_size(s, to);
    s->changes |= to > from && !w->shape->zoned; /* zeros are written */
    return rc < 0 ? rc : zqcow2_resize(w->img, to * SECTOR, ZQCOW2_RESIZE_SHRINK, NULL);
}

static int snapshot(struct world *w, struct step *s)
{
    struct zqcow2_snapshot n = ZQCOW2_SNAPSHOT_INIT;
    int rc = 0;

    n.name = "kept";
    if (s->kind == TAKE) {
        if (s->taken)
            rc = zqcow2_snapshot_delete(w->img, n.name, NULL);
        s->taken = true;
        s->kept = s->d;
        return rc < 0 ? rc : zqcow2_snapshot_take(w->img, &n, NULL);
    }
    if (!s->taken)
        return 0;
    model_size(s, s->kept.size);
    s->d = s->kept;
    bitmaps_ask(s->b, BITMAPS, 0, s->d.size);
    return zqcow2_snapshot_apply(w->img, n.name, NULL);
}

/* What is not there yet is as nothing that is written. */
static void rebase(struct bitmap *b, const struct device *d)
{
    uint8_t holds[SECTORS];

    memset(holds, 255, sizeof(holds));
    memcpy(holds, d->holds, (size_t)d->size);
    bitmap_rebase(b, holds);
}

static int edit(struct world *w, struct step *s)
{
    unsigned i = (unsigned)bitmap_draw(w, BITMAPS);
    struct bitmap *b = &s->b[i];

    if (!b->exists) {
        *b = (struct bitmap){.exists = true, .bits = (unsigned)bitmap_draw(w, 4)};
        b->enabled = bitmap_draw(w, 4);
        rebase(b, &s->d);
        return zqcow2_bitmap_add(w->img, bitmap_names[i], (uint64_t)SECTOR << b->bits,
                                 b->enabled ? 0 : ZQCOW2_BITMAP_ADD_DISABLED, NULL);
    }
    if (s->kind == TURN) {
        b->enabled = !b->enabled;
        return b->enabled ? zqcow2_bitmap_enable(w->img, bitmap_names[i], NULL) :
                            zqcow2_bitmap_disable(w->img, bitmap_names[i], NULL);
    }
    rebase(b, &s->d);
    return zqcow2_bitmap_clear(w->img, bitmap_names[i], NULL);
}

static int act(struct world *w, struct step *s)
{
    switch (s->kind) {
    case WRITE:
    case ZEROES: return change(w, s);
    case RESET:
        return w->shape->zoned ?
                   bitmap_reset_zone(w, s, CONV + bitmap_draw(w, s->d.size / ZONE - CONV)) :
                   zqcow2_flush(w->img);
    case REOPEN: return bitmap_reopen(w, s);
    case GROW:
    case SHRINK: return resize(w, s);
    case TAKE:
    case APPLY: return snapshot(w, s);
    default: return edit(w, s);
    }
}

static int choose(struct world *w)
{
    static const int kinds[] = {WRITE,  WRITE, WRITE, WRITE, ZEROES, RESET, REOPEN, GROW,
                                SHRINK, GROW,  TAKE,  APPLY, ADD,    CLEAR, TURN};

    if (w->steps == 1 && w->seed % 2)
        return ADD;
    return kinds[bitmap_draw(w, sizeof(kinds) / sizeof(*kinds))];
}

static const struct kind kind = {"bitmap_sizes", SECTORS / 2, 12, 120, 0, choose, act};

int main(void)
{
    return bitmap_steps_main(&kind);
}
