/* SPDX-License-Identifier: MIT */
#include "crash/bitmaps.h"

#include <string.h>

struct search {
    const char *const *names;
    unsigned n;
    struct found *f;
};

static void note(void *arg, const struct zqcow2_bitmap *m)
{
    const struct search *s = arg;

    for (unsigned i = 0; i < s->n; i++) {
        if (strcmp(m->name, s->names[i]) != 0)
            continue;
        s->f[i].exists = true;
        s->f[i].enabled = m->flags & ZQCOW2_BITMAP_ENABLED;
        s->f[i].lost = m->flags & ZQCOW2_BITMAP_INCONSISTENT;
        s->f[i].granularity = m->granularity;
        s->f[i].bytes = m->dirty_bytes;
    }
}

static int read_ranges(struct zqcow2_image *img, const char *name, struct found *f)
{
    struct zqcow2_info info = ZQCOW2_INFO_INIT;
    struct zqcow2_dirty_range r[3];
    uint64_t from = 0, sum = 0;

    if (zqcow2_get_info(img, &info) < 0)
        return 1;
    for (uint32_t n = 3; n == 3;) {
        int rc = zqcow2_bitmap_ranges(img, name, from, r, &n, NULL);

        if (rc < 0)
            return rc;
        for (uint32_t i = 0; i < n; i++) {
            if (!r[i].length || r[i].offset < from || r[i].offset % SECTOR ||
                r[i].length % SECTOR || r[i].offset + r[i].length > info.virtual_size)
                return 1;
            from = r[i].offset + r[i].length;
            sum += r[i].length;
            for (uint64_t k = r[i].offset / SECTOR; k < from / SECTOR; k++)
                f->marked[k] = true;
        }
    }
    return sum != f->bytes;
}

int bitmaps_look(struct zqcow2_image *img, const char *const *names, unsigned n, struct found *f)
{
    struct search s = {names, n, f};
    int rc;

    memset(f, 0, n * sizeof(*f));
    rc = zqcow2_bitmap_list(img, note, &s, NULL);
    for (unsigned i = 0; rc == 0 && i < n; i++) {
        if (f[i].exists && !f[i].lost)
            rc = read_ranges(img, names[i], &f[i]);
    }
    return rc;
}

/* ---- the model ---- */

void bitmaps_ask(struct bitmap *all, unsigned n, uint64_t at, uint64_t len)
{
    for (unsigned i = 0; i < n; i++) {
        struct bitmap *b = &all[i];

        for (uint64_t k = at; k < at + len; k++) {
            b->asked[k] |= b->exists && b->enabled;
            b->free[k] |= b->exists && !b->enabled;
        }
    }
}

void bitmap_rebase(struct bitmap *b, const uint8_t *holds)
{
    memset(b->asked, 0, sizeof(b->asked));
    memset(b->free, 0, sizeof(b->free));
    memcpy(b->base, holds, sizeof(b->base));
}

bool bitmap_asked(const struct bitmap *b, uint64_t sector)
{
    uint64_t first = sector >> b->bits << b->bits;

    for (uint64_t i = first; i < first + (1u << b->bits) && i < SECTORS; i++) {
        if (b->asked[i])
            return true;
    }
    return false;
}

bool bitmap_fits(const struct found *f, const struct bitmap *b, const uint8_t *got,
                 uint64_t sectors)
{
    if (f->exists != b->exists)
        return false;
    if (!f->exists || f->lost)
        return true;
    if (f->enabled != b->enabled || f->granularity != (uint64_t)SECTOR << b->bits)
        return false;
    for (uint64_t i = 0; i < sectors; i++) {
        if (got[i] != b->base[i] && !b->free[i] && !f->marked[i])
            return false;
    }
    return true;
}

int bitmaps_content(struct zqcow2_image *img, uint8_t got[SECTORS], uint64_t *n)
{
    static uint8_t data[SECTORS * SECTOR];
    struct zqcow2_info info = ZQCOW2_INFO_INIT;
    int rc = zqcow2_get_info(img, &info);

    *n = info.virtual_size / SECTOR;
    if (rc == 0)
        rc = zqcow2_read(img, data, (size_t)info.virtual_size, 0);
    for (uint64_t i = 0; i < *n; i++)
        got[i] = data[i * SECTOR];
    return rc;
}
