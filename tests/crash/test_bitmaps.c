/* SPDX-License-Identifier: MIT */
/*
 * Images with persistent bitmaps that are written, closed and opened again, while bitmaps are
 * added, removed, cleared, enabled and disabled: bitmap_steps.h with these steps.
 */
#include <string.h>

#include "crash/bitmap_steps.h"

enum { WRITE, ZEROES, DISCARD, RESET, FINISH, FLUSH, REOPEN, ADD, REMOVE, CLEAR, ENABLE, DISABLE };

/* Clusters that are covered whole; the last one may be short. All of the range counts as asked. */
static int discard(struct world *w, struct step *s, uint64_t at, uint64_t len)
{
    uint64_t per = w->shape->cluster / SECTOR;

    for (uint64_t c = (at + per - 1) / per * per; c < at + len; c += per) {
        uint64_t end = c + per < SECTORS ? c + per : SECTORS;

        if (end <= at + len)
            memset(s->d.holds + c, 0, (size_t)(end - c));
    }
    bitmap_ask(s, at, len);
    return zqcow2_discard(w->img, len * SECTOR, at * SECTOR, 0);
}

/* Where a write of up to *len sectors may go: anywhere, or at a pointer. */
static uint64_t place(struct world *w, const struct step *s, uint64_t *len)
{
    uint64_t zone = bitmap_draw(w, SECTORS / ZONE), end = (zone + 1) * ZONE, at;

    *len = 1 + bitmap_draw(w, bitmap_draw(w, 4) ? 12 : 200);
    if (w->shape->zoned && zone >= CONV) {
        at = s->d.wp[zone];
    } else {
        end = w->shape->zoned ? CONV * ZONE : SECTORS;
        at = bitmap_draw(w, end);
    }
    *len = *len < end - at ? *len : end - at;
    return at;
}

static int change(struct world *w, struct step *s)
{
    uint64_t len, at = place(w, s, &len), zone = at / ZONE;
    bool sequential = w->shape->zoned && zone >= CONV;
    int rc;

    if (!len)
        return 0;
    if (s->kind == DISCARD)
        return sequential ? 0 : discard(w, s, at, len);
    rc = bitmap_write(w, s, at, len, s->kind == WRITE ? (uint8_t)(w->steps % 100 + 1) : 0);
    if (sequential)
        s->d.wp[zone] += len;
    return rc;
}

static int manage(struct world *w, struct step *s)
{
    uint64_t zone = CONV + bitmap_draw(w, SECTORS / ZONE - CONV), start = zone * ZONE,
             *wp = &s->d.wp[zone];

    if (!w->shape->zoned)
        return 0;
    if (s->kind == FINISH) {
        bitmap_ask(s, *wp, start + ZONE - *wp);
        *wp = start + ZONE;
        return zqcow2_zone_finish(w->img, start * SECTOR, ZONE * SECTOR, 0);
    }
    return bitmap_reset_zone(w, s, zone);
}

static int edit(struct world *w, struct step *s)
{
    unsigned i = (unsigned)bitmap_draw(w, BITMAPS);
    struct bitmap *b = &s->b[i];

    if (!b->exists && s->kind != ADD)
        s->kind = ADD;
    switch (s->kind) {
    case ADD:
        if (b->exists)
            return zqcow2_bitmap_add(w->img, bitmap_names[i], 512, 0, NULL) == -17 ? 0 : -1;
        *b = (struct bitmap){.exists = true, .bits = (unsigned)bitmap_draw(w, 4)};
        b->enabled = bitmap_draw(w, 4);
        bitmap_rebase(b, s->d.holds);
        return zqcow2_bitmap_add(w->img, bitmap_names[i], (uint64_t)SECTOR << b->bits,
                                 b->enabled ? 0 : ZQCOW2_BITMAP_ADD_DISABLED, NULL);
    case REMOVE: b->exists = false; return zqcow2_bitmap_remove(w->img, bitmap_names[i], NULL);
    case CLEAR:
        bitmap_rebase(b, s->d.holds);
        return zqcow2_bitmap_clear(w->img, bitmap_names[i], NULL);
    case ENABLE: b->enabled = true; return zqcow2_bitmap_enable(w->img, bitmap_names[i], NULL);
    default: b->enabled = false; return zqcow2_bitmap_disable(w->img, bitmap_names[i], NULL);
    }
}

static int act(struct world *w, struct step *s)
{
    switch (s->kind) {
    case WRITE:
    case ZEROES:
    case DISCARD: return change(w, s);
    case RESET:
    case FINISH: return manage(w, s);
    case FLUSH: return zqcow2_flush(w->img);
    case REOPEN: return bitmap_reopen(w, s);
    default: return edit(w, s);
    }
}

static int choose(struct world *w)
{
    static const int kinds[] = {WRITE,   WRITE,  WRITE,  WRITE,  WRITE,  ZEROES,
                                DISCARD, RESET,  FINISH, FLUSH,  REOPEN, ADD,
                                ADD,     REMOVE, CLEAR,  ENABLE, DISABLE};

    if (w->steps == 1)
        return ADD;
    return kinds[bitmap_draw(w, sizeof(kinds) / sizeof(*kinds))];
}

static const struct kind kind = {"bitmaps", SECTORS, 18, 150, 5, choose, act};

int main(void)
{
    return bitmap_steps_main(&kind);
}
