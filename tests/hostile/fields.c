/* SPDX-License-Identifier: MIT */
/* Walks the metadata of a sound image. */
#include "hostile/fields.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HOST 0x00fffffffffffe00ull

uint64_t bytes_get(const struct bytes *b, uint64_t at, unsigned width)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < width; i++)
        v = v << 8 | (at < b->len && i < b->len - at ? b->b[at + i] : 0);
    return v;
}

void bytes_put(struct bytes *b, uint64_t at, unsigned width, uint64_t value)
{
    for (unsigned i = width; i-- > 0; value >>= 8) {
        if (at + i < b->len)
            b->b[at + i] = (uint8_t)value;
    }
}

static void add(struct fields *f, const struct bytes *b, enum group g, uint64_t at, unsigned width)
{
    if (at + width > b->len)
        return;
    if (f->n[g] == f->room[g]) {
        f->room[g] = f->room[g] ? f->room[g] * 2 : 64;
        f->f[g] = realloc(f->f[g], f->room[g] * sizeof(struct field));
        assert_non_null(f->f[g]);
    }
    f->f[g][f->n[g]++] = (struct field){at, width};
}

static uint64_t cluster_of(const struct bytes *b)
{
    return 1ull << bytes_get(b, 20, 4);
}

bool find_extension(const struct bytes *b, uint32_t type, uint64_t *at)
{
    uint64_t pos = bytes_get(b, 4, 4) == 2 ? 72 : bytes_get(b, 100, 4);

    for (uint64_t t; pos < cluster_of(b) && (t = bytes_get(b, pos, 4)) != 0;) {
        *at = pos + 8;
        if (t == type)
            return true;
        pos += 8 + (bytes_get(b, pos + 4, 4) + 7) / 8 * 8;
    }
    return false;
}

void each_snapshot(const struct bytes *b, void (*fn)(void *arg, uint64_t at), void *arg)
{
    uint64_t at = bytes_get(b, 64, 8), n = bytes_get(b, 60, 4);

    for (; n > 0 && at + 40 <= b->len; n--) {
        fn(arg, at);
        at += 40 + bytes_get(b, at + 36, 4) + bytes_get(b, at + 12, 2) + bytes_get(b, at + 14, 2);
        at = (at + 7) / 8 * 8;
    }
}

/* The entries that are not 0, and one that is: what never held anything may be damaged, too. */
static void add_table(struct fields *f, const struct bytes *b, enum group g, uint64_t at,
                      uint64_t entries)
{
    bool zero = false;

    for (uint64_t i = 0; i < entries; i++) {
        if (bytes_get(b, at + i * 8, 8) || !zero)
            add(f, b, g, at + i * 8, 8);
        zero |= !bytes_get(b, at + i * 8, 8);
    }
}

static void add_mapping(struct fields *f, const struct bytes *b, uint64_t l1, uint64_t entries,
                        enum group in_l1, enum group in_l2)
{
    add_table(f, b, in_l1, l1, entries);
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t l2 = bytes_get(b, l1 + i * 8, 8) & HOST;

        if (l2)
            add_table(f, b, in_l2, l2, cluster_of(b) / 8);
    }
}

static void add_header(struct fields *f, const struct bytes *b)
{
    static const unsigned fields[][2] = {{36, 4}, {40, 8}, {48, 8}, {56, 4}, {60, 4}, {64, 8},
                                         {72, 8}, {80, 8}, {88, 8}, {96, 4}, {24, 8}};
    uint64_t mark;

    for (int i = 0; i < 11; i++) {
        if (fields[i][0] < 72 || bytes_get(b, 4, 4) == 3)
            add(f, b, F_HEADER, fields[i][0], fields[i][1]);
    }
    if (find_extension(b, 0x7a71326d, &mark))
        add(f, b, F_HEADER, mark, 1);
}

/* What says how all the rest is to be read. */
static void add_format(struct fields *f, const struct bytes *b)
{
    static const unsigned fields[][2] = {{0, 4},  {4, 4},  {8, 8},   {16, 4}, {20, 4},
                                         {32, 4}, {96, 4}, {100, 4}, {104, 1}};
    uint64_t pos = bytes_get(b, 4, 4) == 2 ? 72 : bytes_get(b, 100, 4);

    for (int i = 0; i < 9; i++)
        add(f, b, F_FORMAT, fields[i][0], fields[i][1]);
    for (bool last = false; !last && pos < cluster_of(b);) {
        uint64_t len = bytes_get(b, pos + 4, 4);

        last = !bytes_get(b, pos, 4);
        add(f, b, F_EXTENSION, pos, 4);
        add(f, b, F_EXTENSION, pos + 4, 4);
        for (uint64_t i = 0; !last && i < len && i < 64; i += 4)
            add(f, b, F_EXTENSION, pos + 8 + i, 4);
        pos += 8 + (len + 7) / 8 * 8;
    }
}

static void add_refcounts(struct fields *f, const struct bytes *b)
{
    uint64_t rt = bytes_get(b, 48, 8), entries = bytes_get(b, 56, 4) * cluster_of(b) / 8;
    unsigned bits = bytes_get(b, 4, 4) == 2 ? 16 : 1u << bytes_get(b, 96, 4);

    add_table(f, b, F_REFTABLE, rt, entries);
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t block = bytes_get(b, rt + i * 8, 8) & HOST;
        uint64_t used = b->len / cluster_of(b) * bits / 8 + 1;

        for (uint64_t k = 0; block && k < cluster_of(b) && k < used; k++)
            add(f, b, F_REFBLOCK, block + k, 1);
    }
}

struct snapshots {
    struct fields *f;
    const struct bytes *b;
};

static void add_snapshot(void *arg, uint64_t at)
{
    static const unsigned fields[][2] = {{0, 8}, {8, 4}, {12, 2}, {14, 2}, {36, 4}};
    struct snapshots *s = arg;

    for (int i = 0; i < 5; i++)
        add(s->f, s->b, F_SNAPSHOT, at + fields[i][0], fields[i][1]);
    add_mapping(s->f, s->b, bytes_get(s->b, at, 8), bytes_get(s->b, at + 8, 4), F_SNAP_L1,
                F_SNAP_L2);
}

static void add_bitmaps(struct fields *f, const struct bytes *b)
{
    static const unsigned fields[][2] = {{0, 8},  {8, 4},  {12, 4}, {16, 1},
                                         {17, 1}, {18, 2}, {20, 4}};
    uint64_t ext, dir;

    if (!find_extension(b, 0x23852875, &ext))
        return;
    for (unsigned i = 0; i < 24; i += 8)
        add(f, b, F_BITMAP, ext + i, i ? 8 : 4);
    dir = bytes_get(b, ext + 16, 8);
    for (uint64_t n = bytes_get(b, ext, 4); n > 0; n--) {
        for (int i = 0; i < 7; i++)
            add(f, b, F_BITMAP, dir + fields[i][0], fields[i][1]);
        add_table(f, b, F_BITMAP, bytes_get(b, dir, 8), bytes_get(b, dir + 8, 4));
        dir += (24 + bytes_get(b, dir + 18, 2) + bytes_get(b, dir + 20, 4) + 7) / 8 * 8;
    }
}

static void add_zones(struct fields *f, const struct bytes *b)
{
    uint64_t ext, len, table, n;

    if (!find_extension(b, 0x007a6264, &ext))
        return;
    len = bytes_get(b, ext - 4, 4);
    table = bytes_get(b, ext + (len == 44 ? 24 : len == 56 ? 48 : 40), 8);
    n = bytes_get(b, ext + (len == 56 ? 24 : 4), 4);
    for (uint64_t i = 0; i < n && i < 64; i++)
        add(f, b, F_ZONES, table + i * 8, 8);
}

/* Tables that the active disk has, too, count as its own. */
static void drop_shared(struct fields *f)
{
    size_t out = 0;

    for (size_t i = 0; i < f->n[F_SNAP_L2]; i++) {
        bool shared = false;

        for (size_t k = 0; k < f->n[F_L2] && !shared; k++)
            shared = f->f[F_L2][k].at == f->f[F_SNAP_L2][i].at;
        if (!shared)
            f->f[F_SNAP_L2][out++] = f->f[F_SNAP_L2][i];
    }
    f->n[F_SNAP_L2] = out;
}

void fields_find(struct fields *f, const struct bytes *b)
{
    struct snapshots s = {f, b};

    memset(f, 0, sizeof(*f));
    add_header(f, b);
    add_format(f, b);
    add_mapping(f, b, bytes_get(b, 40, 8), bytes_get(b, 36, 4), F_L1, F_L2);
    add_zones(f, b);
    add_refcounts(f, b);
    each_snapshot(b, add_snapshot, &s);
    drop_shared(f);
    add_bitmaps(f, b);
}

void fields_free(struct fields *f)
{
    for (int g = 0; g < F_GROUPS; g++)
        free(f->f[g]);
}

uint64_t fields_rng(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

static uint64_t any_offset(const struct bytes *b, uint64_t *s)
{
    uint64_t cluster = 1ull << bytes_get(b, 20, 4);
    const uint64_t tables[] = {bytes_get(b, 40, 8), bytes_get(b, 48, 8), bytes_get(b, 64, 8),
                               bytes_get(b, bytes_get(b, 48, 8), 8),
                               bytes_get(b, bytes_get(b, 40, 8), 8) & HOST};

    if (fields_rng(s) % 3 == 0)
        return tables[fields_rng(s) % 5];
    return fields_rng(s) % (b->len / cluster + 3) * cluster;
}

uint64_t fields_value(const struct fields *f, const struct bytes *b, uint64_t *s, uint64_t old,
                      unsigned width)
{
    static const uint64_t flags[] = {0, 0, 0, PIC_COPIED, PIC_COPIED, PIC_COMPRESSED, 1};
    enum group g = (enum group)(fields_rng(s) % F_DAMAGES);
    const struct field *other = f->n[g] ? &f->f[g][fields_rng(s) % f->n[g]] : &f->f[F_HEADER][0];

    switch (fields_rng(s) % 10) {
    case 0: return 0;
    case 1: return fields_rng(s) % 3 ? fields_rng(s) % 64 : UINT64_MAX;
    case 2:
    case 3: return old ^ 1ull << fields_rng(s) % (width * 8);
    case 4: return old + (fields_rng(s) % 2 ? 512 : fields_rng(s) % 2 ? 1 : (uint64_t)-1);
    case 5: return bytes_get(b, other->at, other->width);
    case 6: return fields_rng(s);
    default: return any_offset(b, s) | flags[fields_rng(s) % 7];
    }
}
