/* SPDX-License-Identifier: MIT */
/* Builds small images with a little in everything, and loads others from files. */
#include "hostile/bases.h"

#include <glob.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "hostile/fields.h"

#define KiB(n) ((uint64_t)(n) << 10)
#define MiB(n) ((uint64_t)(n) << 20)

static void write_some(struct pic *p, uint64_t *s, uint64_t size, uint64_t zone)
{
    static uint8_t data[KiB(64)];
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_image *img;

    o.flags = ZQCOW2_OPEN_RDWR | ZQCOW2_OPEN_BORROW;
    assert_int_equal(zqcow2_open(p->be, &o, &img, &p->err), 0);
    for (int i = 0; i < 12; i++) {
        uint64_t at = fields_rng(s) % (size / zone) * zone, len = (1 + fields_rng(s) % 16) * 1024;

        memset(data, (int)(fields_rng(s) % 255 + 1), sizeof(data));
        if (at && i % 4 == 3)
            (void)zqcow2_zone_reset(img, at, zone, 0);
        if (zqcow2_write(img, data, len, at, 0) != 0)
            assert_int_equal(zqcow2_append(img, data, len, &at, 0), 0);
    }
    assert_int_equal(zqcow2_close(img), 0);
}

static void make(uint32_t cluster, uint32_t bits, bool zoned, base_fn *keep)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    uint64_t s = cluster * 64ull + bits * 2 + zoned, zone = KiB(64);
    struct pic p;
    char name[64];

    o.virtual_size = MiB(1);
    o.zone_size = zoned ? zone : 0;
    o.conventional_zones = zoned;
    o.cluster_size = cluster;
    o.refcount_bits = bits;
    pic_make(&p, &o);
    write_some(&p, &s, MiB(1), zone);
    if (bits > 1 && cluster >= 4096) {
        pic_snapshot(&p);
        write_some(&p, &s, MiB(1), zone);
        pic_find(&p);
    }
    snprintf(name, sizeof(name), "built-in %u %u %d", cluster, bits, zoned);
    keep(&p, name);
}

void bases_make(base_fn *keep)
{
    for (uint32_t cluster = 512; cluster <= 4096; cluster *= 8) {
        for (uint32_t bits = 1; bits <= 64; bits *= 4) {
            make(cluster, bits, false, keep);
            make(cluster, bits, true, keep);
        }
    }
}

void bases_load(const char *pattern, base_fn *keep)
{
    glob_t g;

    if (glob(pattern, 0, NULL, &g) != 0)
        return;
    for (size_t i = 0; i < g.gl_pathc; i++) {
        const char *slash = strrchr(g.gl_pathv[i], '/');
        struct pic p;

        if (pic_load(&p, g.gl_pathv[i]))
            keep(&p, slash ? slash + 1 : g.gl_pathv[i]);
    }
    globfree(&g);
}
