/* SPDX-License-Identifier: MIT */
/* Makes, bends and reads images in memory for the tests of formats and of check. */
#include "unit/pic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include <cmocka.h>

void pic_find(struct pic *p)
{
    uint64_t at = pic_get(p, 100, 4);

    p->cluster = 1ull << pic_get(p, 20, 4);
    p->l1_entries = (uint32_t)pic_get(p, 36, 4);
    p->l1 = pic_get(p, 40, 8);
    p->rt = pic_get(p, 48, 8);
    p->refcount_bits = pic_get(p, 4, 4) == 2 ? 16 : 1u << pic_get(p, 96, 4);
    p->zoned = p->mark = p->wp = 0;
    for (uint64_t type; (type = pic_get(p, at, 4)) != 0;) {
        if (type == 0x007a6264)
            p->zoned = at + 8;
        if (type == 0x7a71326d)
            p->mark = at + 8;
        at += 8 + (pic_get(p, at + 4, 4) + 7) / 8 * 8;
    }
    if (p->zoned) {
        uint64_t len = pic_get(p, p->zoned - 4, 4);
        p->wp = pic_get(p, p->zoned + (len == 44 ? 24 : len == 56 ? 48 : 40), 8);
    }
}

void pic_make(struct pic *p, const struct zqcow2_create_options *o)
{
    memset(p, 0, sizeof(*p));
    assert_int_equal(zqcow2_mem_open(0, NULL, &p->be), 0);
    if (zqcow2_create(p->be, o, &p->err) != 0)
        fail_msg("create: %s", p->err.text);
    pic_find(p);
}

bool pic_load(struct pic *p, const char *path)
{
    static uint8_t piece[65536];
    gzFile f = gzopen(path, "rb");
    uint64_t off = 0;
    int n;

    memset(p, 0, sizeof(*p));
    if (!f)
        return false;
    assert_int_equal(zqcow2_mem_open(0, NULL, &p->be), 0);
    while ((n = gzread(f, piece, sizeof(piece))) > 0) {
        assert_int_equal(zqcow2_backend_write(p->be, piece, (size_t)n, off), 0);
        off += (uint64_t)n;
    }
    gzclose(f);
    pic_find(p);
    return true;
}

void pic_free(struct pic *p)
{
    zqcow2_backend_close(p->be);
    p->be = NULL;
}

uint64_t pic_length(struct pic *p)
{
    uint64_t len;

    assert_int_equal(zqcow2_backend_length(p->be, &len), 0);
    return len;
}

uint64_t pic_get(struct pic *p, uint64_t off, unsigned width)
{
    uint8_t b[8];
    uint64_t v = 0;

    assert_int_equal(zqcow2_backend_read(p->be, b, width, off), 0);
    for (unsigned i = 0; i < width; i++)
        v = v << 8 | b[i];
    return v;
}

void pic_put(struct pic *p, uint64_t off, unsigned width, uint64_t value)
{
    uint8_t b[8];

    for (unsigned i = width; i-- > 0; value >>= 8)
        b[i] = (uint8_t)value;
    assert_int_equal(zqcow2_backend_write(p->be, b, width, off), 0);
}

void pic_zero(struct pic *p, uint64_t off, uint64_t len)
{
    static const uint8_t zeros[4096];

    for (; len; off += 1, len -= 1) {
        size_t n = len < sizeof(zeros) ? (size_t)len : sizeof(zeros);
        assert_int_equal(zqcow2_backend_write(p->be, zeros, n, off), 0);
        off += n - 1;
        len -= n - 1;
    }
}

uint8_t *pic_bytes(struct pic *p, uint64_t *len)
{
    uint8_t *b;

    *len = pic_length(p);
    b = malloc(*len ? *len : 1);
    assert_non_null(b);
    assert_int_equal(zqcow2_backend_read(p->be, b, *len, 0), 0);
    return b;
}

void pic_cut(struct pic *p, uint64_t length)
{
    uint64_t old;
    uint8_t *b = pic_bytes(p, &old);
    struct zqcow2_backend *be;

    assert_int_equal(zqcow2_mem_open(length, NULL, &be), 0);
    assert_int_equal(zqcow2_backend_write(be, b, old < length ? old : length, 0), 0);
    zqcow2_backend_close(p->be);
    p->be = be;
    free(b);
}

/* ---- clusters ---- */

static uint64_t refcount_place(struct pic *p, uint64_t cluster_offset, uint64_t *bit)
{
    uint64_t per_block = p->cluster * 8 / p->refcount_bits, n = cluster_offset / p->cluster;
    uint64_t block = pic_get(p, p->rt + n / per_block * 8, 8);

    if (!block)
        fail_msg("no refcount block covers 0x%llx", (unsigned long long)cluster_offset);
    *bit = n % per_block * p->refcount_bits;
    return block + *bit / 8;
}

uint64_t pic_refcount(struct pic *p, uint64_t cluster_offset)
{
    uint64_t bit, at = refcount_place(p, cluster_offset, &bit);

    if (p->refcount_bits >= 8)
        return pic_get(p, at, p->refcount_bits / 8);
    return pic_get(p, at, 1) >> bit % 8 & ((1u << p->refcount_bits) - 1);
}

void pic_set_refcount(struct pic *p, uint64_t cluster_offset, uint64_t value)
{
    uint64_t bit, at = refcount_place(p, cluster_offset, &bit);

    if (p->refcount_bits < 8) {
        uint64_t mask = ((1ull << p->refcount_bits) - 1) << bit % 8;
        pic_put(p, at, 1, (pic_get(p, at, 1) & ~mask) | value << bit % 8);
    } else {
        pic_put(p, at, p->refcount_bits / 8, value);
    }
}

uint64_t pic_alloc(struct pic *p, unsigned n)
{
    uint64_t at = (pic_length(p) + p->cluster - 1) / p->cluster * p->cluster;

    for (unsigned i = 0; i < n; i++) {
        pic_zero(p, at + i * p->cluster, p->cluster);
        pic_set_refcount(p, at + i * p->cluster, 1);
    }
    return at;
}

uint64_t pic_l2(struct pic *p, uint64_t guest)
{
    uint64_t n = guest / p->cluster, entries = p->cluster / 8, slot = p->l1 + n / entries * 8;
    uint64_t table = pic_get(p, slot, 8) & 0x00fffffffffffe00ull;

    if (!table) {
        table = pic_alloc(p, 1);
        pic_put(p, slot, 8, table | PIC_COPIED);
    }
    return table + n % entries * 8;
}

uint64_t pic_map(struct pic *p, uint64_t guest, int fill)
{
    uint64_t at = pic_l2(p, guest), host = pic_alloc(p, 1);
    uint8_t *data = malloc(p->cluster);

    assert_non_null(data);
    memset(data, fill, p->cluster);
    assert_int_equal(zqcow2_backend_write(p->be, data, p->cluster, host), 0);
    free(data);
    pic_put(p, at, 8, host | PIC_COPIED);
    return host;
}

/* Everything that the table reaches gets one more owner, and loses COPIED. */
static void share(struct pic *p, uint64_t table, uint64_t entries, bool l1)
{
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t e = pic_get(p, table + i * 8, 8), host = e & 0x00fffffffffffe00ull;

        if (!host)
            continue;
        pic_put(p, table + i * 8, 8, e & ~PIC_COPIED);
        pic_set_refcount(p, host, pic_refcount(p, host) + 1);
        if (l1)
            share(p, host, p->cluster / 8, false);
    }
}

uint64_t pic_snapshot(struct pic *p)
{
    unsigned n = (unsigned)((p->l1_entries * 8ull + p->cluster - 1) / p->cluster);
    uint64_t copy = pic_alloc(p, n), table = pic_alloc(p, 1);

    share(p, p->l1, p->l1_entries, true);
    for (uint32_t i = 0; i < p->l1_entries; i++)
        pic_put(p, copy + i * 8ull, 8, pic_get(p, p->l1 + i * 8ull, 8));
    pic_put(p, table, 8, copy);
    pic_put(p, table + 8, 4, p->l1_entries);
    pic_put(p, table + 12, 2, 1); /* id "1", name "s" */
    pic_put(p, table + 14, 2, 1);
    pic_put(p, table + 36, 4, 16);
    pic_put(p, table + 48, 8, pic_get(p, 24, 8));
    pic_put(p, table + 56, 2, '1' << 8 | 's');
    pic_put(p, 60, 4, 1);
    pic_put(p, 64, 8, table);
    return table;
}

void pic_take(struct pic *p, const char *name)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_snapshot s = ZQCOW2_SNAPSHOT_INIT;
    struct zqcow2_image *img;

    o.flags = ZQCOW2_OPEN_BORROW | ZQCOW2_OPEN_RDWR;
    s.name = name;
    assert_int_equal(zqcow2_open(p->be, &o, &img, &p->err), 0);
    assert_int_equal(zqcow2_snapshot_take(img, &s, &p->err), 0);
    assert_int_equal(zqcow2_close(img), 0);
}

/* ---- calls ---- */

int pic_open(struct pic *p, uint32_t flags)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img = NULL;
    int rc;

    o.flags = flags | ZQCOW2_OPEN_BORROW;
    p->err = (struct zqcow2_error){0};
    rc = zqcow2_open(p->be, &o, &img, &p->err);
    if (rc == 0)
        assert_int_equal(zqcow2_close(img), 0);
    return rc;
}

static void keep_text(void *arg, int kind, const char *text)
{
    static const char *const names[] = {"?", "warning", "leak", "corruption", "repaired"};
    struct pic *p = arg;
    size_t n = strlen(p->found);

    snprintf(p->found + n, sizeof(p->found) - n, "%s: %s\n", names[kind], text);
}

int pic_check(struct pic *p, uint32_t flags)
{
    struct zqcow2_check_options o = ZQCOW2_CHECK_OPTIONS_INIT;

    o.flags = flags;
    o.found = keep_text;
    o.arg = p;
    p->found[0] = '\0';
    p->err = (struct zqcow2_error){0};
    p->res = (struct zqcow2_check_result)ZQCOW2_CHECK_RESULT_INIT;
    return zqcow2_check(p->be, &o, &p->res, &p->err);
}

void pic_finds(struct pic *p, uint64_t corruptions, uint64_t leaks, uint64_t warnings,
               const char *a, const char *b)
{
    if (pic_check(p, 0) != 0)
        fail_msg("check could not run: %s", p->err.text);
    if (p->res.corruptions != corruptions || p->res.leaked_clusters != leaks ||
        p->res.warnings != warnings || !strstr(p->found, a) || !strstr(p->found, b))
        fail_msg("want %d corruptions, %d leaks, %d warnings, \"%s\", \"%s\"; have %d, %d, %d:\n%s",
                 (int)corruptions, (int)leaks, (int)warnings, a, b, (int)p->res.corruptions,
                 (int)p->res.leaked_clusters, (int)p->res.warnings, p->found);
}
