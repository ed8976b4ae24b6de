/* SPDX-License-Identifier: MIT */
/*
 * The image that a run begins with. Snapshots, compressed clusters and qcow2 sources are made by
 * qemu-img and qemu-io; those of zoned images, too, which look like plain ones while the feature
 * bit is clear.
 */
#include "run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FEATURES 79 /* the low byte of the incompatible features */

__attribute__((format(printf, 2, 3))) static void shell(struct run *r, const char *form, ...)
{
    char cmd[900];
    va_list args;
    int n = snprintf(cmd, sizeof(cmd), "cd '%s' && ", r->folder);

    va_start(args, form);
    n += vsnprintf(cmd + n, sizeof(cmd) - (size_t)n, form, args);
    va_end(args);
    snprintf(cmd + n, sizeof(cmd) - (size_t)n, " >out 2>&1");
    if (system(cmd)) {
        snprintf(cmd, sizeof(cmd), "cat '%s/out'", r->folder);
        fail(r, NULL, "%s", system(cmd) ? "no output" : "a command of the seed");
    }
}

static char *file(struct run *r, const char *name, char path[300])
{
    snprintf(path, 300, "%s/%s", r->folder, name);
    return path;
}

static int resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    struct run *r = arg;
    static const struct disk_limits plain = {.io_align = 1, .buf_align = 1, .tear = 512};

    (void)name;
    (void)format;
    (void)err;
    if (depth != 1)
        return -2;
    if (!r->below_disk.lim.tear) {
        disk_init(&r->below_disk, &r->below, &plain, 1);
        r->below_disk.quiet = r->below_disk.read_only = true;
    }
    *be = disk_backend(&r->below_disk);
    return 0;
}

struct zqcow2_open_options run_options(struct run *r, uint32_t flags)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;

    o.flags = flags;
    o.rules = r->w.zns ? ZQCOW2_RULES_ZNS : ZQCOW2_RULES_LINUX;
    o.cache_bytes = r->w.cache;
    o.extent_bytes = r->w.extent;
    if (r->w.below) {
        o.resolve = resolve;
        o.resolve_arg = r;
    }
    return o;
}

/* ---- the image ---- */

static void create(struct run *r, struct store *st, enum below source)
{
    static const struct disk_limits plain = {.io_align = 1, .buf_align = 1, .tear = 512};
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be;
    struct zqcow2_error err;
    struct disk d;

    o.virtual_size = r->w.size;
    o.cluster_size = r->w.cluster;
    o.refcount_bits = r->w.rbits;
    if (r->w.zoned) {
        o.zone_size = r->w.zone;
        o.zone_capacity = r->w.cap;
        o.conventional_zones = r->w.conv;
        o.max_open_zones = r->w.max_open;
        o.max_active_zones = r->w.max_active;
        o.layout = r->w.layout;
    }
    o.flags = (r->w.lazy ? ZQCOW2_CREATE_LAZY_REFCOUNTS : 0u) |
              (r->w.wide ? ZQCOW2_CREATE_EXTENDED_L2 : 0u);
    if (source) {
        o.backing_name = source == BELOW_RAW ? "below.raw" : "below.qcow2";
        o.backing_format = source == BELOW_RAW ? "raw" : "qcow2";
    }
    if (source && r->w.zoned) { /* what its pointers are is inherited */
        o.resolve = resolve;
        o.resolve_arg = r;
    }
    disk_init(&d, NULL, &plain, 1);
    d.quiet = true;
    be = disk_backend(&d);
    if (zqcow2_create(be, &o, &err))
        fail(r, NULL, "create: %s", err.text);
    zqcow2_backend_close(be);
    store_copy(st, &d.now);
    disk_free(&d);
}

static void some_writes(struct run *r, uint64_t *g, bool packed)
{
    char cmd[700], part[60];
    unsigned n = 1 + (unsigned)below(g, 5);

    snprintf(cmd, sizeof(cmd), "qemu-io -f qcow2");
    for (unsigned i = 0; i < n; i++) {
        uint64_t clusters = r->w.size / r->w.cluster, at, len;

        if (!clusters)
            break;
        at = below(g, clusters);
        len = 1 + below(g, clusters - at < 6 ? clusters - at : 6);
        snprintf(part, sizeof(part), " -c 'write %s-P %u %llu %llu'", packed ? "-c " : "",
                 1 + (unsigned)below(g, 250), (unsigned long long)(at * r->w.cluster),
                 (unsigned long long)(len * r->w.cluster));
        strncat(cmd, part, sizeof(cmd) - strlen(cmd) - 1);
    }
    shell(r, "{ %s image || :; }", cmd); /* a compressed write onto another is refused */
}

/* Pointers over what was written, within the limits. */
static void set_pointers(struct run *r, struct store *st, uint64_t *g)
{
    struct shape s = {0};
    uint64_t active = 0;

    if (!shape_open(&s, st))
        fail(r, st, "the first image: %s", s.text);
    for (uint64_t i = s.conv; i < s.nz; i++) {
        uint64_t start = i * s.zone, cap = shape_zone_cap(&s, i), n = below(g, cap / 512 + 1);
        bool is_active = n && n < cap / 512;

        if (is_active && s.max_active && active >= s.max_active)
            continue;
        active += is_active;
        if (n == cap / 512 && s.little)
            shape_set_wp(&s, st, i, start + s.zone); /* FULL, as these layouts have it */
        else
            shape_set_wp(&s, st, i, start + n * 512);
    }
}

static void by_qemu(struct run *r, struct store *st, uint64_t *g)
{
    char path[300];

    if (r->w.zoned)
        put_be(st, FEATURES, 1, get_be(st, FEATURES, 1) & 0xdf);
    store_save(st, file(r, "image", path));
    if (r->w.packed)
        some_writes(r, g, true);
    if (!r->w.packed || odds(g, 2))
        some_writes(r, g, false);
    if (r->w.snaps) {
        shell(r, "{ qemu-img snapshot -c one image || :; }"); /* a refcount may be too narrow */
        some_writes(r, g, false);
        if (r->w.rbits > 2 && odds(g, 2))
            shell(r, "{ qemu-img snapshot -c two image || :; }");
    }
    if (r->w.packed && !r->w.zoned) /* compressed writes leave some */
        shell(r, "{ qemu-img check -r leaks image || :; }");
    if (store_load(st, path))
        exit(2);
    if (r->w.zoned) {
        put_be(st, FEATURES, 1, get_be(st, FEATURES, 1) | 0x20);
        set_pointers(r, st, g);
    }
}

/* ---- the source ---- */

static void make_plain_below(struct run *r)
{
    uint64_t size = r->w.size * 3 / 4 / r->w.cluster * r->w.cluster, g = r->w.seed;
    uint8_t sector[512];
    char path[300];

    store_resize(&r->below, size);
    for (uint64_t off = 0; off < size; off += 512)
        if (!odds(&g, 4)) {
            stamp(sector, 0xbe10000 + off / 512, 0);
            store_write(&r->below, sector, 512, off);
        }
    if (r->folder)
        store_save(&r->below, file(r, "below.raw", path));
    if (r->w.below == BELOW_RAW)
        return;
    shell(r, "qemu-img convert -O qcow2 %s %s below.raw below.qcow2", odds(&g, 2) ? "-c" : "",
          odds(&g, 3) ? "-o extended_l2=on" : "");
    if (store_load(&r->below, file(r, "below.qcow2", path)) ||
        !shape_open(&r->below_shape, &r->below))
        exit(2);
}

/* qemu-img, which reads the image that stands on it later, must not see its zones. */
static void make_zoned_below(struct run *r, uint64_t *g)
{
    struct store shown = {NULL, 0, 0};
    char path[300];

    create(r, &r->below, BELOW_NONE);
    r->w.packed = odds(g, 2);
    by_qemu(r, &r->below, g);
    r->w.packed = false;
    store_copy(&shown, &r->below);
    put_be(&shown, FEATURES, 1, get_be(&shown, FEATURES, 1) & 0xdf);
    store_save(&shown, file(r, "below.qcow2", path));
    store_free(&shown);
    if (!shape_open(&r->below_shape, &r->below))
        fail(r, &r->below, "the source: %s", r->below_shape.text);
}

void run_below(struct run *r, struct shape *s)
{
    s->below = r->w.below == BELOW_QCOW2 ? &r->below_shape : NULL;
    s->below_raw = r->w.below == BELOW_RAW ? &r->below : NULL;
}

static void remember_snapshots(struct run *r, struct store *st)
{
    struct shape s = {0};
    struct shape_count n;

    run_below(r, &s);
    if (!shape_open(&s, st))
        fail(r, st, "the first image: %s", s.text);
    r->snaps = s.snaps;
    shape_check(&s, &n);
    if (n.corruptions && r->folder && r->w.snaps) { /* qemu-img stopped at a full refcount */
        r->w.snaps = r->w.packed = false;
        seed_make(r, st);
        return;
    }
    if (n.corruptions)
        fail(r, st, "the first image: %s", s.text);
    r->leaks = n.leaks;
    for (unsigned i = 0; i < s.snaps; i++) {
        if (!shape_read(&s, (int)i, r->content, r->w.size, 0))
            fail(r, st, "snapshot at the start: %s", s.text);
        r->snap_sum[i] = content_sum(r->content, r->w.size);
    }
}

void seed_make(struct run *r, struct store *st)
{
    uint64_t g = r->w.seed ^ 0x5eed;

    if (!r->folder) {
        r->w.snaps = r->w.packed = false;
        r->w.below = r->w.below && !r->w.zoned ? BELOW_RAW : BELOW_NONE;
    }
    if (r->w.below && r->w.zoned)
        make_zoned_below(r, &g);
    else if (r->w.below)
        make_plain_below(r);
    create(r, st, r->w.below);
    if (r->w.snaps || r->w.packed)
        by_qemu(r, st, &g);
    remember_snapshots(r, st);
}
