/* SPDX-License-Identifier: MIT */
/* Reads an image's metadata from the bytes of the store, and counts its references. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "rig/raw.h"

#define OFFSET    0x00fffffffffffe00ull
#define EXT_MARK  0x7a71326du
#define EXT_ZONED 0x007a6264u

uint64_t raw_get(struct raw *w, uint64_t off, unsigned bytes)
{
    uint8_t b[8];
    uint64_t v = 0;

    store_get(w->s, b, bytes, off);
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | b[i];
    return v;
}

void raw_put(struct raw *w, uint64_t off, unsigned bytes, uint64_t value)
{
    uint8_t b[8];

    for (unsigned i = bytes; i-- > 0; value >>= 8)
        b[i] = (uint8_t)value;
    store_put(w->s, b, bytes, off);
}

static void find_zones(struct raw *w, uint64_t data)
{
    w->nr_zones = (uint32_t)raw_get(w, data + 4, 4);
    w->zone_size = raw_get(w, data + 8, 8);
    w->capacity = raw_get(w, data + 16, 8);
    w->table = raw_get(w, data + 24, 8);
    w->conventional = (uint32_t)raw_get(w, data + 32, 4);
}

bool raw_find(struct raw *w, struct store *s)
{
    uint64_t at;

    w->s = s;
    if (raw_get(w, 0, 4) != 0x514649fb)
        return false;
    w->cluster = 1ull << raw_get(w, 20, 4);
    w->size = raw_get(w, 24, 8);
    w->l1_entries = raw_get(w, 36, 4);
    w->l1 = raw_get(w, 40, 8);
    w->rt = raw_get(w, 48, 8);
    w->rt_entries = raw_get(w, 56, 4) * w->cluster / 8;
    w->ref_bits = 1u << raw_get(w, 96, 4);
    w->mark = w->table = 0;
    for (at = raw_get(w, 100, 4); raw_get(w, at, 4);) {
        uint64_t type = raw_get(w, at, 4), len = raw_get(w, at + 4, 4);

        if (type == EXT_MARK)
            w->mark = at + 8;
        if (type == EXT_ZONED)
            find_zones(w, at + 8);
        at += 8 + (len + 7) / 8 * 8;
    }
    return true;
}

/* ---- the mapping ---- */

static uint64_t l1_at(const struct raw *w, uint64_t guest)
{
    return w->l1 + guest / w->cluster / (w->cluster / 8) * 8;
}

uint64_t raw_l2_at(struct raw *w, uint64_t guest)
{
    uint64_t table = raw_get(w, l1_at(w, guest), 8) & OFFSET;

    return table ? table + guest / w->cluster % (w->cluster / 8) * 8 : 0;
}

uint64_t raw_host(struct raw *w, uint64_t guest)
{
    uint64_t at = raw_l2_at(w, guest), entry = at ? raw_get(w, at, 8) : 0;

    return entry & (RAW_COMPRESSED | 1) ? 0 : entry & OFFSET;
}

void raw_read(struct raw *w, uint8_t *buf, uint64_t len, uint64_t guest)
{
    for (uint64_t n; len; buf += n, guest += n, len -= n) {
        uint64_t skew = guest % w->cluster, host = raw_host(w, guest - skew);

        n = len < w->cluster - skew ? len : w->cluster - skew;
        if (host)
            store_get(w->s, buf, (size_t)n, host + skew);
        else
            memset(buf, 0, (size_t)n);
    }
}

/* ---- refcounts ---- */

/* Widths of 8 to 64 bits. */
static uint64_t refcount_at(struct raw *w, uint64_t host)
{
    uint64_t per = w->cluster * 8 / w->ref_bits, n = host / w->cluster;
    uint64_t block = n / per < w->rt_entries ? raw_get(w, w->rt + n / per * 8, 8) : 0;

    return block ? block + n % per * (w->ref_bits / 8) : 0;
}

uint64_t raw_refcount(struct raw *w, uint64_t host)
{
    uint64_t at = refcount_at(w, host);

    return at ? raw_get(w, at, w->ref_bits / 8) : 0;
}

void raw_set_refcount(struct raw *w, uint64_t host, uint64_t value)
{
    raw_put(w, refcount_at(w, host), w->ref_bits / 8, value);
}

static void share_cluster(struct raw *w, uint64_t host)
{
    raw_set_refcount(w, host, raw_refcount(w, host) + 1);
    w->extra = realloc(w->extra, (w->nr_extra + 1) * sizeof(*w->extra));
    if (!w->extra)
        abort();
    w->extra[w->nr_extra++] = host;
}

/* The entry at `at`, of a table or of data. */
static uint64_t share_entry(struct raw *w, uint64_t at)
{
    uint64_t entry = raw_get(w, at, 8);

    if (!(entry & OFFSET))
        return 0;
    raw_put(w, at, 8, entry & ~RAW_COPIED);
    share_cluster(w, entry & OFFSET);
    return entry & OFFSET;
}

void raw_share(struct raw *w, uint64_t guest, bool table)
{
    uint64_t at = table ? share_entry(w, l1_at(w, guest)) : raw_l2_at(w, guest);

    for (uint64_t i = 0; i < (table ? w->cluster / 8 : 1); i++)
        share_entry(w, at + i * 8);
}

/* ---- write pointers ---- */

uint64_t raw_wp(struct raw *w, uint32_t zone)
{
    return raw_get(w, w->table + zone * 8ull, 8);
}

uint64_t raw_zone_end(const struct raw *w, uint32_t zone)
{
    uint64_t start = zone * w->zone_size, end = start + w->capacity;

    return end < w->size ? end : w->size;
}

/* ---- is it sound? ---- */

struct count {
    uint32_t *refs;
    uint64_t n;
};

static void count(const struct raw *w, struct count *c, uint64_t host, uint64_t bytes)
{
    for (uint64_t i = host / w->cluster; i < (host + bytes + w->cluster - 1) / w->cluster; i++) {
        if (i < c->n)
            c->refs[i]++;
    }
}

static void count_table(struct raw *w, struct count *c, uint64_t table)
{
    for (uint64_t i = 0; i < w->cluster / 8; i++) {
        uint64_t entry = raw_get(w, table + i * 8, 8);

        if (entry & OFFSET && !(entry & RAW_COMPRESSED))
            count(w, c, entry & OFFSET, w->cluster);
    }
}

static void count_all(struct raw *w, struct count *c)
{
    count(w, c, 0, 1);
    count(w, c, w->l1, w->l1_entries * 8);
    count(w, c, w->rt, w->rt_entries * 8);
    count(w, c, w->table, w->nr_zones * 8ull);
    for (uint64_t i = 0; i < w->rt_entries; i++) {
        if (raw_get(w, w->rt + i * 8, 8))
            count(w, c, raw_get(w, w->rt + i * 8, 8), w->cluster);
    }
    for (uint64_t i = 0; i < w->l1_entries; i++) {
        uint64_t table = raw_get(w, w->l1 + i * 8, 8) & OFFSET;

        if (table) {
            count(w, c, table, w->cluster);
            count_table(w, c, table);
        }
    }
    for (unsigned i = 0; i < w->nr_extra; i++)
        count(w, c, w->extra[i], 1);
}

bool raw_sound(struct raw *w)
{
    struct count c = {.n = w->s->length / w->cluster + 64};
    bool sound = true;

    c.refs = calloc(c.n, sizeof(*c.refs));
    if (!c.refs)
        abort();
    count_all(w, &c);
    for (uint64_t i = 0; i < c.n && sound; i++) {
        uint64_t counted = c.refs[i] ? raw_refcount(w, i * w->cluster) : 0;

        if (counted >= c.refs[i])
            continue;
        snprintf(w->why, sizeof(w->why), "cluster at %#llx: refcount %llu, %u references",
                 (unsigned long long)(i * w->cluster), (unsigned long long)counted, c.refs[i]);
        sound = false;
    }
    free(c.refs);
    return sound;
}
