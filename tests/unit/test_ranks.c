/* SPDX-License-Identifier: MIT */
/*
 * What is claimed twice stays with the highest rank: the active disk, then snapshots, then bitmaps;
 * refcounts are the lowest, since they can be counted anew. Whatever one record of a lower rank
 * says, every byte that a higher one could read before a repair reads the same after it. The reader
 * is this file's own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "unit/pic.h"

#define KiB(n)  ((uint64_t)(n) << 10)
#define MiB(n)  ((uint64_t)(n) << 20)
#define CLUSTER 4096u
#define SIZE    MiB(8)
#define ZONE    KiB(512)
#define HOST    0x00fffffffffffe00ull

static uint64_t rng(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    *s ^= *s << 17;
    return *s;
}

/* ---- the reader ---- */

struct view {
    uint8_t *b;
    uint64_t len, l1, wp; /* wp 0: no zones */
    uint32_t entries;
};

static uint64_t get(const struct view *v, uint64_t off, unsigned width)
{
    uint64_t n = 0;

    for (unsigned i = 0; i < width; i++)
        n = n << 8 | (off + i < v->len ? v->b[off + i] : 0);
    return n;
}

/* What a guest cluster is made of; compressed data is compared as it is stored. */
enum kind { UNREADABLE, ZEROS, PLAIN, PACKED };
struct piece {
    enum kind kind;
    uint64_t host, len;
};

static struct piece packed(const struct view *v, uint64_t e)
{
    uint64_t host = e & ((1ull << 58) - 1), sectors = (e >> 58 & 15) + 1;
    struct piece p = {PACKED, host, sectors * 512 - host % 512};

    if (host + p.len - 512 >= v->len)
        p.kind = UNREADABLE;
    return p;
}

static bool nowhere(const struct view *v, uint64_t e, uint64_t reserved)
{
    return e & reserved || (e & HOST) % CLUSTER || (e & HOST) >= v->len;
}

static struct piece find(const struct view *v, uint64_t guest)
{
    uint64_t n = guest / CLUSTER, per = CLUSTER / 8, e;

    if (n / per >= v->entries || !(e = get(v, v->l1 + n / per * 8, 8)))
        return (struct piece){ZEROS, 0, 0};
    if (nowhere(v, e, 0x7f000000000001ffull) || !(e & HOST))
        return (struct piece){UNREADABLE, 0, 0};
    e = get(v, (e & HOST) + n % per * 8, 8);
    if (e & PIC_COMPRESSED)
        return packed(v, e);
    if (nowhere(v, e, 0x3f000000000001feull))
        return (struct piece){UNREADABLE, 0, 0};
    if (e & 1 || !(e & HOST))
        return (struct piece){ZEROS, 0, 0};
    return (struct piece){PLAIN, e & HOST, CLUSTER};
}

/* How much of a cluster lies below its zone's write pointer. */
static uint64_t below_wp(const struct view *v, uint64_t guest)
{
    uint64_t zone = guest / ZONE, wp;

    if (!v->wp || zone == 0)
        return CLUSTER;
    wp = get(v, v->wp + zone * 8, 8);
    return wp <= guest ? 0 : wp - guest < CLUSTER ? wp - guest : CLUSTER;
}

static unsigned byte_of(const struct view *v, const struct piece *p, uint64_t i)
{
    return p->kind == ZEROS || p->host + i >= v->len ? 0 : v->b[p->host + i];
}

static bool same(const struct view *a, const struct view *b, uint64_t guest)
{
    struct piece x = find(a, guest), y = find(b, guest);
    uint64_t n = x.kind == PACKED ? x.len : CLUSTER;

    if (n > below_wp(a, guest))
        n = below_wp(a, guest);
    if (x.kind == UNREADABLE || !n)
        return below_wp(a, guest) == below_wp(b, guest);
    if (y.kind == UNREADABLE || (x.kind == PACKED) != (y.kind == PACKED) || x.len > y.len + CLUSTER)
        return false;
    if ((x.kind == ZEROS && y.kind == ZEROS) ||
        (x.kind != ZEROS && y.kind != ZEROS && x.host + n <= a->len && y.host + n <= b->len &&
         !memcmp(a->b + x.host, b->b + y.host, n)))
        return below_wp(a, guest) == below_wp(b, guest);
    for (uint64_t i = 0; i < n; i++) {
        if (byte_of(a, &x, i) != byte_of(b, &y, i))
            return false;
    }
    return below_wp(a, guest) == below_wp(b, guest);
}

static void view_active(struct view *v, struct pic *p)
{
    v->b = pic_bytes(p, &v->len);
    v->l1 = get(v, 40, 8);
    v->entries = (uint32_t)get(v, 36, 4);
    v->wp = p->wp;
}

static void view_snapshot(struct view *v, const struct view *active, uint64_t table)
{
    *v = *active;
    v->wp = 0;
    v->l1 = get(v, table, 8);
    v->entries = (uint32_t)get(v, table + 8, 4);
}

/* ---- the image ---- */

struct image {
    struct pic p;
    uint64_t ext, dir, bits; /* the bitmaps extension's data, the directory, the table; or 0 */
    uint64_t snap, snap_l1;
    uint32_t snap_entries;
};

static void write_some(struct pic *p, uint64_t *s, bool zoned)
{
    static uint8_t data[KiB(64)];
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;

    o.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_BORROW;
    assert_int_equal(zqcow2_open(p->be, &o, &img, &p->err), 0);
    for (int i = 0; i < 12; i++) {
        uint64_t at = rng(s) % 16 * ZONE, len = (1 + rng(s) % 32) * 2048;

        memset(data, (int)(rng(s) % 255 + 1), sizeof(data));
        if (zoned && at && rng(s) % 2)
            (void)zqcow2_zone_reset(img, at, ZONE, 0);
        if (zqcow2_write(img, data, len, at, 0) != 0)
            assert_int_equal(zqcow2_append(img, data, len, &at, 0), 0);
    }
    assert_int_equal(zqcow2_close(img), 0);
}

/* What a crash leaves: pointers that are behind what is mapped. */
static void lag(struct pic *p, uint64_t *s)
{
    for (uint64_t z = 1; z < 16; z++) {
        uint64_t wp = pic_get(p, p->wp + z * 8, 8), start = z * ZONE;

        if (rng(s) % 2 && wp > start)
            pic_put(p, p->wp + z * 8, 8, start + rng(s) % ((wp - start) / 512) * 512);
    }
}

static void add_packed(struct pic *p)
{
    uint64_t host = pic_alloc(p, 2), entry = PIC_COMPRESSED | 1ull << 58;

    pic_put(p, host + 512, 8, 0x1122334455667788);
    pic_put(p, host + CLUSTER, 8, 0x99aabbccddeeff00);
    pic_put(p, pic_l2(p, KiB(400)), 8, entry | (host + 512));
    pic_put(p, pic_l2(p, KiB(404)), 8, entry | (host + CLUSTER - 256));
    pic_set_refcount(p, host, 2);
}

static void add_bitmap(struct image *m)
{
    struct pic *p = &m->p;
    uint64_t at = pic_get(p, 100, 4), data;

    while (pic_get(p, at, 4))
        at += 8 + (pic_get(p, at + 4, 4) + 7) / 8 * 8;
    m->dir = pic_alloc(p, 1);
    m->bits = pic_alloc(p, 1);
    data = pic_alloc(p, 1);
    m->ext = at + 8;
    pic_put(p, at, 4, 0x23852875);
    pic_put(p, at + 4, 4, 24);
    pic_put(p, at + 8, 4, 1);
    pic_put(p, at + 16, 8, 32);
    pic_put(p, at + 24, 8, m->dir);
    pic_put(p, 88, 8, 1);
    pic_put(p, m->dir, 8, m->bits);
    pic_put(p, m->dir + 8, 4, 2);
    pic_put(p, m->dir + 12, 4, 1); /* in use, so that the table may have any size */
    pic_put(p, m->dir + 16, 4, 1 << 24 | 16 << 16 | 4);
    pic_put(p, m->bits, 8, data);
}

static void make(struct image *m, uint64_t *s)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    bool zoned = rng(s) % 2;

    memset(m, 0, sizeof(*m));
    o.virtual_size = SIZE;
    o.zone_size = zoned ? ZONE : 0;
    o.conventional_zones = zoned;
    o.cluster_size = CLUSTER;
    o.refcount_bits = 2u << rng(s) % 4;
    pic_make(&m->p, &o);
    write_some(&m->p, s, zoned);
    m->snap = pic_snapshot(&m->p);
    m->snap_l1 = pic_get(&m->p, m->snap, 8);
    m->snap_entries = (uint32_t)pic_get(&m->p, m->snap + 8, 4);
    write_some(&m->p, s, zoned);
    pic_find(&m->p);
    if (zoned) {
        lag(&m->p, s);
    } else if (pic_get(&m->p, m->p.l1, 8) & PIC_COPIED) {
        add_packed(&m->p);
    }
    if (!zoned && rng(s) % 2)
        add_bitmap(m);
    if (pic_check(&m->p, 0) != 0 || m->p.res.corruptions || m->p.res.leaked_clusters)
        fail_msg("not sound to begin with: %s%s", m->p.err.text, m->p.found);
}

/* ---- the damage ---- */

enum rank { NOTHING, SNAPSHOT, BITMAP, REFCOUNTS };

static void bend(struct pic *p, uint64_t *s, uint64_t at, unsigned width)
{
    uint64_t old = pic_get(p, at, width), cluster = rng(s) % (pic_length(p) / CLUSTER + 2);
    uint64_t bit = 1ull << rng(s) % (width * 8);

    switch (rng(s) % 8) {
    case 0: pic_put(p, at, width, rng(s)); break;
    case 1: pic_put(p, at, width, rng(s) % 3 ? rng(s) % 64 : UINT64_MAX); break;
    case 2:
    case 3: pic_put(p, at, width, old ^ bit); break;
    case 4: pic_put(p, at, width, cluster * CLUSTER | rng(s) % 4 << 62 | rng(s) % 2); break;
    default: pic_put(p, at, width, cluster * CLUSTER | (rng(s) & PIC_COPIED));
    }
}

static void bend_snapshot(struct image *m, uint64_t *s)
{
    static const unsigned fields[][2] = {{0, 8}, {0, 8}, {0, 8}, {8, 4}, {12, 2}, {14, 2}, {36, 4}};
    uint64_t n = rng(s) % 7, i = rng(s) % m->snap_entries, at = m->snap_l1 + i * 8;
    uint64_t l2 = pic_get(&m->p, at, 8) & HOST;

    switch (rng(s) % 8) {
    case 0:
        bend(&m->p, s, 64, 8); /* where the table is */
        break;
    case 1: bend(&m->p, s, 60, 4); break;
    case 2:
    case 3: bend(&m->p, s, m->snap + fields[n][0], fields[n][1]); break;
    case 4:
    case 5: bend(&m->p, s, at, 8); break;
    default:
        if (l2 && l2 != (pic_get(&m->p, m->p.l1 + i * 8, 8) & HOST)) /* its own */
            bend(&m->p, s, l2 + rng(s) % (CLUSTER / 8) * 8, 8);
    }
}

static void bend_bitmap(struct image *m, uint64_t *s)
{
    const uint64_t at[][2] = {{m->ext, 4},  {m->ext + 8, 8}, {m->ext + 16, 8}, {m->dir, 8},
                              {m->dir, 8},  {m->dir + 8, 4}, {m->dir + 20, 4}, {m->dir + 18, 2},
                              {m->bits, 8}, {m->bits, 8},    {m->bits + 8, 8}, {m->bits + 16, 8}};
    uint64_t n = rng(s) % 12;

    bend(&m->p, s, at[n][0], (unsigned)at[n][1]);
}

static void bend_refcounts(struct image *m, uint64_t *s)
{
    uint64_t block = pic_get(&m->p, m->p.rt, 8);

    if (rng(s) % 2)
        bend(&m->p, s, m->p.rt + rng(s) % 4 * 8, 8);
    else
        bend(&m->p, s, block + rng(s) % 64 * 8, 8);
}

static void damage(struct image *m, uint64_t *s, enum rank rank)
{
    if (rank == SNAPSHOT)
        bend_snapshot(m, s);
    else if (rank == BITMAP && m->ext)
        bend_bitmap(m, s);
    else if (rank == REFCOUNTS)
        bend_refcounts(m, s);
}

/* ---- the property ---- */

static const char *const names[] = {"nothing", "a snapshot's record", "a bitmap's record",
                                    "the refcounts"};

static uint64_t compared;

static void expect_same(const struct view *a, const struct view *b, const char *whose,
                        unsigned long long seed, unsigned flags, const char *found)
{
    for (uint64_t guest = 0; guest < SIZE; guest += CLUSTER, compared++) {
        if (!same(a, b, guest))
            fail_msg("ZQ_SEED=%llu, repair %u: 0x%llx of %s reads otherwise: %s", seed, flags,
                     (unsigned long long)guest, whose, found);
    }
}

/* Space that is free after a repair is free: a writer changes what it writes, and nothing else. */
static void expect_room(struct image *m, const struct view *before, unsigned long long seed)
{
    static uint8_t data[CLUSTER];
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;
    struct view after;
    int rc = 0;

    o.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_BORROW;
    if (m->p.wp || zqcow2_open(m->p.be, &o, &img, NULL) != 0)
        return;
    for (uint64_t i = 0; i < 24 && rc == 0; i++)
        rc = zqcow2_write(img, data, CLUSTER, KiB(256) + i * CLUSTER, 0);
    if (rc)
        fail_msg("ZQ_SEED=%llu: write: %s", seed, zqcow2_strerror(rc));
    assert_int_equal(zqcow2_close(img), 0);
    view_active(&after, &m->p);
    for (uint64_t guest = 0; guest < SIZE; guest += CLUSTER) {
        if ((guest < KiB(256) || guest >= KiB(352)) && !same(before, &after, guest))
            fail_msg("ZQ_SEED=%llu: a write elsewhere changes 0x%llx", seed,
                     (unsigned long long)guest);
    }
    free(after.b);
}

static void one(unsigned long long seed)
{
    static const unsigned degrees[] = {ZQCOW2_CHECK_REPAIR_LEAKS, ZQCOW2_CHECK_REPAIR,
                                       ZQCOW2_CHECK_REPAIR_ALL};
    uint64_t s = (uint64_t)seed * 0x9e3779b97f4a7c15ull + 1;
    enum rank rank = (enum rank)(rng(&s) % 4);
    unsigned flags = degrees[rng(&s) % 3];
    struct view before, after, a, b;
    int opened, writable;
    bool repaired;
    struct image m;

    make(&m, &s);
    damage(&m, &s, rank);
    opened = pic_open(&m.p, 0);
    view_active(&before, &m.p);
    (void)pic_check(&m.p, flags);
    repaired = m.p.res.corruptions == m.p.res.corruptions_fixed ||
               (flags != ZQCOW2_CHECK_REPAIR_LEAKS && rank != REFCOUNTS);
    view_active(&after, &m.p);
    expect_same(&before, &after, "the active disk", seed, flags, m.p.found);
    if (rank != SNAPSHOT) {
        view_snapshot(&a, &before, m.snap);
        view_snapshot(&b, &after, m.snap);
        expect_same(&a, &b, "the snapshot", seed, flags, m.p.found);
    }
    writable = pic_open(&m.p, ZQCOW2_OPEN_RDWR);
    if (opened == 0 && pic_open(&m.p, 0) != 0)
        fail_msg("ZQ_SEED=%llu, %s damaged, repair %u: opens no longer: %s", seed, names[rank],
                 flags, m.p.err.text);
    /* what is wrong with a snapshot stays, and is no danger; refcounts that stay wrong are one */
    if (writable == 0 && repaired)
        expect_room(&m, &before, seed);
    free(before.b);
    free(after.b);
    pic_free(&m.p);
}

static void test_ranks(void **state)
{
    const char *seed = getenv("ZQ_SEED"), *count = getenv("ZQ_COUNT");
    unsigned long long first = seed ? strtoull(seed, NULL, 0) : 1;
    unsigned long long n = count ? strtoull(count, NULL, 0) : seed ? 1 : 2000;

    (void)state;
    for (unsigned long long i = 0; i < n; i++)
        one(first + i);
    printf("ranks: %llu damages, %llu clusters read before and after repair\n", n,
           (unsigned long long)compared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
