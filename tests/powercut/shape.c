/* SPDX-License-Identifier: MIT */
#include "shape.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define ADDRESS 0x00fffffffffffe00u
#define COPIED  (1ull << 63)
#define PACKED  (1ull << 62)

/* What a cluster is used for: tables may share it with nothing. */
enum { USE_DATA = 1, USE_L2 = 2, USE_META = 4 };

struct walk {
    struct shape *s;
    struct shape_count *n;
    uint32_t *refs;
    uint8_t *use;
    uint64_t clusters; /* of the file */
};

__attribute__((format(printf, 2, 3))) static void say(struct shape *s, const char *form, ...)
{
    va_list args;

    if (s->text[0])
        return;
    va_start(args, form);
    vsnprintf(s->text, sizeof(s->text), form, args);
    va_end(args);
}

/* ---- the header ---- */

static unsigned layout_of(const struct store *st, uint64_t at, uint64_t len, uint64_t size)
{
    uint64_t z = get_be(st, at + 8, 8), n = get_be(st, at + 16, 4);

    if (len == 44 || len == 56)
        return (unsigned)len;
    if (z && !(z & (z - 1)) && get_be(st, at + 4, 4) == (size + z - 1) / z)
        return 48;
    return get_be(st, at + 32, 8) == 8 * n ? 7 : 3;
}

static void zoned_ext(struct shape *s, uint64_t at, uint64_t len)
{
    const struct store *st = s->st;

    s->layout = layout_of(st, at, len, s->size);
    s->ext_zoned = at;
    switch (s->layout) {
    case 44:
    case 48:
        s->nz = get_be(st, at + 4, 4);
        s->zone = get_be(st, at + 8, 8);
        s->cap = get_be(st, at + 16, 8);
        s->conv = get_be(st, at + (len == 44 ? 32 : 24), 4);
        s->max_active = get_be(st, at + (len == 44 ? 36 : 28), 4);
        s->table = get_be(st, at + (len == 44 ? 24 : 40), 8);
        break;
    case 56:
        s->nz = get_be(st, at + 24, 4);
        s->zone = get_be(st, at + 4, 8);
        s->cap = get_be(st, at + 12, 8);
        s->conv = get_be(st, at + 20, 4);
        s->max_active = get_be(st, at + 28, 4);
        s->table = get_be(st, at + 48, 8);
        break;
    default: /* v7 */
        s->nz = get_be(st, at + 16, 4);
        s->zone = get_be(st, at + 4, 4);
        s->cap = get_be(st, at + 8, 4);
        s->conv = get_be(st, at + 12, 4);
        s->max_active = get_be(st, at + 20, 4);
        s->table = get_be(st, at + 40, 8);
        break;
    }
    s->little = s->layout == 56 || s->layout == 7;
}

static void extensions(struct shape *s)
{
    uint64_t at = s->version == 2 ? 72 : get_be(s->st, 100, 4);

    while (at + 8 <= s->cl) {
        uint64_t type = get_be(s->st, at, 4), len = get_be(s->st, at + 4, 4);

        if (!type)
            break;
        if (type == 0x7a71326d)
            s->mark = at + 8 < 512 && get_be(s->st, at + 8, 1) == 1;
        if (type == 0x007a6264 && get_be(s->st, at + 8, 1) == 1)
            zoned_ext(s, at + 8, len);
        at += 8 + (len + 7) / 8 * 8;
    }
}

static void snapshots(struct shape *s)
{
    uint64_t at = s->snap_off;

    for (unsigned i = 0; i < s->snaps && i < SHAPE_SNAPS; i++) {
        struct shape_snap *p = &s->snap[i];
        uint64_t id = get_be(s->st, at + 12, 2), name = get_be(s->st, at + 14, 2);
        uint64_t extra = get_be(s->st, at + 36, 4), end;

        p->l1_off = get_be(s->st, at, 8);
        p->l1_n = get_be(s->st, at + 8, 4);
        p->size = extra >= 16 ? get_be(s->st, at + 48, 8) : s->size;
        store_read(s->st, p->name, name < 15 ? name : 15, at + 40 + extra + id);
        end = at + 40 + extra + id + name;
        at = (end + 7) / 8 * 8;
        s->snap_end = end;
    }
}

bool shape_open(struct shape *s, const struct store *st)
{
    const struct shape *below = s->below;
    const struct store *raw = s->below_raw;

    memset(s, 0, sizeof(*s));
    s->st = st;
    s->below = below;
    s->below_raw = raw;
    s->version = (unsigned)get_be(st, 4, 4);
    s->cb = (unsigned)get_be(st, 20, 4);
    if (get_be(st, 0, 4) != 0x514649fb || s->cb < 9 || s->cb > 21) {
        say(s, "no header");
        return false;
    }
    s->cl = 1ull << s->cb;
    s->size = get_be(st, 24, 8);
    s->l1_n = get_be(st, 36, 4);
    s->l1_off = get_be(st, 40, 8);
    s->rt_off = get_be(st, 48, 8);
    s->rt_cl = get_be(st, 56, 4);
    s->snaps = (unsigned)get_be(st, 60, 4);
    s->snap_off = get_be(st, 64, 8);
    s->rorder = 4;
    if (s->version == 3) {
        s->incompat = get_be(st, 72, 8);
        s->compat = get_be(st, 80, 8);
        s->autoclear = get_be(st, 88, 8);
        s->rorder = (unsigned)get_be(st, 96, 4);
    }
    extensions(s);
    snapshots(s);
    s->l2_bits = s->incompat >> 4 & 1 ? 4 : 3;
    if (s->rorder > 6 || s->snaps > SHAPE_SNAPS || s->l1_n > 1 << 22)
        say(s, "a header field is out of range");
    if (s->incompat >> 5 & 1 && !s->nz)
        say(s, "zoned without an extension");
    return !s->text[0];
}

/* ---- zones ---- */

uint64_t shape_zone_len(const struct shape *s, uint64_t zone)
{
    uint64_t start = zone * s->zone;

    return s->size - start < s->zone ? s->size - start : s->zone;
}

uint64_t shape_zone_cap(const struct shape *s, uint64_t zone)
{
    uint64_t len = shape_zone_len(s, zone);

    return zone < s->conv || len < s->cap ? len : s->cap;
}

static uint64_t entry_of(const struct shape *s, uint64_t zone)
{
    uint64_t be = get_be(s->st, s->table + zone * 8, 8);

    return s->little ? __builtin_bswap64(be) : be;
}

uint64_t shape_wp(const struct shape *s, uint64_t zone, bool *full)
{
    uint64_t wp = entry_of(s, zone), end = zone * s->zone + shape_zone_cap(s, zone);

    if (s->layout == 7 && wp == (zone * s->zone & 0xffffffff))
        wp = zone * s->zone;
    *full = wp >= end;
    return wp > end ? end : wp;
}

void shape_set_wp(const struct shape *s, struct store *st, uint64_t zone, uint64_t wp)
{
    put_be(st, s->table + zone * 8, 8, s->little ? __builtin_bswap64(wp) : wp);
}

static void check_zones(struct walk *w)
{
    struct shape *s = w->s;
    uint64_t active = 0, flag = s->little ? 1ull << 59 : 1ull << 63;

    for (uint64_t i = 0; i < s->nz; i++) {
        uint64_t e = entry_of(s, i), start = i * s->zone;
        bool full;

        if (i < s->conv ? e != (start | flag) : (e < start || e > start + s->zone || e % 512)) {
            say(s, "zone %llu: pointer 0x%llx", (unsigned long long)i, (unsigned long long)e);
            w->n->corruptions++;
            continue;
        }
        if (i >= s->conv && shape_wp(s, i, &full) > start && !full)
            active++;
    }
    if (s->max_active && active > s->max_active) {
        say(s, "%llu active zones", (unsigned long long)active);
        w->n->corruptions++;
    }
}

/* ---- refcounts ---- */

uint64_t shape_ref_at(const struct shape *s, uint64_t cluster, unsigned *bit)
{
    uint64_t width = 1ull << s->rorder, per = s->cl * 8 / width, block;

    *bit = 0;
    if (cluster / per >= s->rt_cl * s->cl / 8)
        return 0;
    block = get_be(s->st, s->rt_off + cluster / per * 8, 8) & ~511ull;
    if (!block)
        return 0;
    *bit = width < 8 ? (unsigned)(cluster % per * width % 8) : 0;
    return block + cluster % per * width / 8;
}

uint64_t shape_ref(const struct shape *s, uint64_t cluster)
{
    unsigned bit, width = 1u << s->rorder;
    uint64_t at = shape_ref_at(s, cluster, &bit);

    if (!at)
        return 0;
    if (width >= 8)
        return get_be(s->st, at, width / 8);
    return get_be(s->st, at, 1) >> bit & ((1u << width) - 1);
}

static void bad(struct walk *w, const char *what, uint64_t at, uint64_t value)
{
    say(w->s, "%s at 0x%llx: 0x%llx", what, (unsigned long long)at, (unsigned long long)value);
    w->n->corruptions++;
}

/* Another reference to [off, off + len) of the file. */
static void bump(struct walk *w, uint64_t off, uint64_t len, int use, const char *what)
{
    struct shape *s = w->s;

    if (!len)
        return;
    for (uint64_t c = off >> s->cb; c <= (off + len - 1) >> s->cb; c++) {
        if (c >= w->clusters) {
            bad(w, what, c << s->cb, s->st->size);
            return;
        }
        if (w->refs[c] && ((w->use[c] | use) != use || use == USE_META))
            bad(w, "two things on one cluster", c << s->cb, (uint64_t)use);
        w->refs[c]++;
        w->use[c] |= (uint8_t)use;
    }
}

static void packed(struct walk *w, uint64_t at, uint64_t e)
{
    unsigned x = 62 - (w->s->cb - 8);
    uint64_t off = e & ((1ull << x) - 1), sectors = ((e & (PACKED - 1)) >> x) + 1;
    uint64_t end = (off & ~511ull) + sectors * 512;

    if (e & COPIED)
        bad(w, "COPIED on a compressed cluster", at, e);
    if ((end - 512) >= w->s->st->size)
        bad(w, "a compressed cluster ends behind the file", at, e);
    else
        bump(w, off, end - off, USE_DATA, "a compressed cluster outside the file");
}

/* Of subclusters: bit n of the lower half: it has data; of the upper half: it reads as zeros. */
static uint64_t bitmap_at(const struct shape *s, uint64_t entry)
{
    return s->l2_bits == 4 ? get_be(s->st, entry + 8, 8) : 0;
}

static void bitmap(struct walk *w, uint64_t at, uint64_t e)
{
    uint64_t map = bitmap_at(w->s, at);

    if (map & map >> 32 & UINT32_MAX || (map && e & PACKED) ||
        (map & UINT32_MAX && !(e & ADDRESS)) || (w->s->l2_bits == 4 && !(e & PACKED) && e & 1))
        bad(w, "subclusters", at, map);
}

/* Entries of a table that are zeros can be stepped over in pages. */
static bool step(const struct shape *s, uint64_t table, uint64_t *i)
{
    uint64_t at = table + (*i << s->l2_bits), page = 4096 >> s->l2_bits;

    if (at % 4096 || !store_hole(s->st, at) || *i + page > s->cl >> s->l2_bits)
        return false;
    *i += page - 1;
    return true;
}

static void walk_l2(struct walk *w, uint64_t table)
{
    struct shape *s = w->s;

    for (uint64_t i = 0; i < s->cl >> s->l2_bits; i++) {
        if (step(s, table, &i))
            continue;
        uint64_t at = table + (i << s->l2_bits), e = get_be(s->st, at, 8), off = e & ADDRESS;

        bitmap(w, at, e);
        if (!e)
            continue;
        if (e & PACKED) {
            packed(w, at, e);
            continue;
        }
        if (e & 0x3f000000000001feu || (s->version == 2 && e & 1) || off % s->cl ||
            off >= (s->st->size ? s->st->size : 1) || (!off && e & COPIED)) {
            bad(w, "L2 entry", at, e);
            continue;
        }
        if (!off)
            continue;
        bump(w, off, s->cl, USE_DATA, "data outside the file");
    }
}

static void walk_l1(struct walk *w, uint64_t at, uint64_t n)
{
    struct shape *s = w->s;

    bump(w, at, n * 8, USE_META, "an L1 table outside the file");
    for (uint64_t i = 0; i < n; i++) {
        uint64_t e = get_be(s->st, at + i * 8, 8), off = e & ADDRESS;

        if (e & 0x7f000000000001ffu || off % s->cl || off >= s->st->size) {
            bad(w, "L1 entry", at + i * 8, e);
            continue;
        }
        if (!off)
            continue;
        bump(w, off, s->cl, USE_L2, "an L2 table outside the file");
        walk_l2(w, off);
    }
}

/*
 * COPIED of an entry of the active disk. Where one reference is left, a power cut may have kept
 * them apart, under the mark; where there are more, a write would change them all.
 */
static void copied(struct walk *w, uint64_t at, uint64_t entry)
{
    uint64_t c = (entry & ADDRESS) >> w->s->cb;

    if (entry & PACKED || !c || c >= w->clusters || !!(entry & COPIED) == (shape_ref(w->s, c) == 1))
        return;
    if (w->s->mark && w->refs[c] == 1)
        w->n->tolerated++;
    else
        bad(w, "COPIED is wrong", at, entry);
}

static void walk_copied(struct walk *w)
{
    struct shape *s = w->s;

    for (uint64_t i = 0; i < s->l1_n; i++) {
        uint64_t e = get_be(s->st, s->l1_off + i * 8, 8), table = e & ADDRESS;

        copied(w, s->l1_off + i * 8, e);
        for (uint64_t j = 0; table && j < s->cl >> s->l2_bits; j++)
            if (!step(s, table, &j))
                copied(w, table + (j << s->l2_bits), get_be(s->st, table + (j << s->l2_bits), 8));
    }
}

static void walk_blocks(struct walk *w)
{
    struct shape *s = w->s;

    bump(w, s->rt_off, s->rt_cl * s->cl, USE_META, "the refcount table outside the file");
    for (uint64_t i = 0; i < s->rt_cl * s->cl / 8; i++) {
        uint64_t e = get_be(s->st, s->rt_off + i * 8, 8);

        if (e % s->cl || e >> 56 || e >= s->st->size)
            bad(w, "refcount table entry", s->rt_off + i * 8, e);
        else if (e)
            bump(w, e, s->cl, USE_META, "a refcount block outside the file");
    }
}

static void compare(struct walk *w)
{
    struct shape *s = w->s;
    uint64_t per = s->cl * 8 >> s->rorder, n = s->rt_cl * s->cl / 8 * per;

    for (uint64_t c = 0; c < w->clusters || c < n; c++) {
        unsigned bit;
        uint64_t at = c < w->clusters || c % 4096 ? 1 : shape_ref_at(s, c, &bit);

        if (at && at % 4096 == 0 && per % 512 == 0 && store_hole(s->st, at)) {
            c += (512ull >> (s->rorder > 3 ? s->rorder - 3 : 0)) - 1; /* at most a page of them */
            continue;
        }
        uint64_t is = shape_ref(s, c), refs = c < w->clusters ? w->refs[c] : 0;

        if (c >= w->clusters && c % per == 0 && !get_be(s->st, s->rt_off + c / per * 8, 8)) {
            c += per - 1; /* no block */
            continue;
        }
        if (is < refs)
            bad(w, "refcount below the references", c << s->cb, is << 32 | refs);
        if (is > refs)
            w->n->leaks++;
    }
}

void shape_check(struct shape *s, struct shape_count *n)
{
    uint64_t clusters = (s->st->size + s->cl - 1) >> s->cb;
    struct walk w = {s, n, need(calloc(clusters + 1, 4)), need(calloc(clusters + 1, 1)), clusters};

    memset(n, 0, sizeof(*n));
    s->text[0] = 0;
    bump(&w, 0, s->cl, USE_META, "no header");
    walk_blocks(&w);
    if (s->nz)
        bump(&w, s->table, s->nz * 8, USE_META, "the write pointers outside the file");
    walk_l1(&w, s->l1_off, s->l1_n);
    if (s->snaps)
        bump(&w, s->snap_off, s->snap_end - s->snap_off, USE_META, "no snapshot table");
    for (unsigned i = 0; i < s->snaps; i++)
        walk_l1(&w, s->snap[i].l1_off, s->snap[i].l1_n);
    compare(&w);
    walk_copied(&w);
    if (s->nz)
        check_zones(&w);
    free(w.refs);
    free(w.use);
}

/* ---- content ---- */

static uint64_t l2_at(const struct shape *s, uint64_t l1, uint64_t n, uint64_t guest)
{
    unsigned per = s->cb - s->l2_bits; /* bits of the entries of a table */
    uint64_t i = guest >> (s->cb + per), table;

    table = i < n ? get_be(s->st, l1 + i * 8, 8) & ADDRESS : 0;
    return table ? table + ((guest >> s->cb & ((1ull << per) - 1)) << s->l2_bits) : 0;
}

uint64_t shape_l2_at(const struct shape *s, uint64_t guest)
{
    return l2_at(s, s->l1_off, s->l1_n, guest);
}

static bool unpack(struct shape *s, uint64_t e, uint8_t *out)
{
    unsigned x = 62 - (s->cb - 8);
    uint64_t off = e & ((1ull << x) - 1),
             end = (off & ~511ull) + (((e & (PACKED - 1)) >> x) + 1) * 512;
    uint8_t *in = need(malloc((size_t)(end - off)));
    z_stream z;
    int rc;

    store_read(s->st, in, (size_t)(end - off), off);
    memset(&z, 0, sizeof(z));
    z.next_in = in;
    z.avail_in = (unsigned)(end - off);
    z.next_out = out;
    z.avail_out = (unsigned)s->cl;
    rc = inflateInit2(&z, -12);
    if (rc == Z_OK)
        rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    free(in);
    if (z.avail_out)
        say(s, "compressed cluster 0x%llx does not unpack: %d", (unsigned long long)e, rc);
    return z.avail_out == 0;
}

/* What lies below [guest, guest + len), which is not mapped. */
static bool read_below(struct shape *s, uint8_t *out, uint64_t len, uint64_t guest)
{
    memset(out, 0, len);
    if (s->below_raw)
        store_read(s->below_raw, out, len, guest);
    else if (s->below)
        return shape_read((struct shape *)s->below, -1, out, len, guest);
    return true;
}

static bool read_units(struct shape *s, uint8_t *out, uint64_t host, uint64_t map, uint64_t guest)
{
    uint64_t unit = s->cl / 32;
    bool ok = true;

    for (unsigned i = 0; i < 32 && ok; i++) {
        uint8_t *to = out + i * unit;

        if (map >> i & 1)
            store_read(s->st, to, unit, host + i * unit);
        else if (map >> (i + 32) & 1)
            memset(to, 0, unit);
        else
            ok = read_below(s, to, unit, guest + i * unit);
    }
    return ok;
}

static bool read_cluster(struct shape *s, int snap, uint8_t *out, uint64_t guest)
{
    uint64_t at = snap < 0 ? shape_l2_at(s, guest) :
                             l2_at(s, s->snap[snap].l1_off, s->snap[snap].l1_n, guest);
    uint64_t e = at ? get_be(s->st, at, 8) : 0;

    if (e & PACKED)
        return unpack(s, e, out);
    if (at && s->l2_bits == 4)
        return read_units(s, out, e & ADDRESS, bitmap_at(s, at), guest);
    if (e & 1)
        memset(out, 0, s->cl);
    else if (e & ADDRESS)
        store_read(s->st, out, s->cl, e & ADDRESS);
    else
        return read_below(s, out, s->cl, guest);
    return true;
}

/* Cuts what lies beyond the write pointer of its zone. */
static void cut(const struct shape *s, uint8_t *out, uint64_t guest)
{
    uint64_t zone = guest / s->zone, wp;
    bool full;

    if (zone < s->conv || zone >= s->nz)
        return;
    wp = shape_wp(s, zone, &full);
    if (wp < guest + s->cl)
        memset(out + (wp > guest ? wp - guest : 0), 0, s->cl - (wp > guest ? wp - guest : 0));
}

bool shape_read(struct shape *s, int snap, void *buf, uint64_t len, uint64_t off)
{
    uint8_t *out = buf, *one = need(malloc(s->cl));
    bool ok = true;

    while (len && ok) {
        uint64_t guest = off & ~(s->cl - 1), at = off - guest;
        uint64_t n = s->cl - at < len ? s->cl - at : len;

        memset(one, 0, s->cl);
        if (guest < (snap < 0 ? s->size : s->snap[snap].size))
            ok = read_cluster(s, snap, one, guest);
        if (s->nz && snap < 0)
            cut(s, one, guest);
        memcpy(out, one + at, n);
        out += n;
        off += n;
        len -= n;
    }
    free(one);
    return ok;
}
