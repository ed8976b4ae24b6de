/* SPDX-License-Identifier: MIT */
/* The image of the library's sides, and the backing files below it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "bench.h"

#define PATH_BYTES 640

static void set_geometry(const struct plan *p, struct zqcow2_create_options *o)
{
    o->virtual_size = p->pattern == FIRST ? MANY_BYTES * MANY_ZONES : ZONE_BYTES * NR_ZONES;
    if (is_plain(p)) {
        o->virtual_size = p->zones * ZONE_BYTES;
        return;
    }
    o->zone_size = p->pattern == FIRST ? MANY_BYTES : ZONE_BYTES;
    o->conventional_zones = p->pattern == FIRST ? 0 : CONV_ZONES;
}

/* The file so many levels below, empty. With one below it, it is as long, and has its zones. */
static void create(const struct plan *p, const char *image, unsigned level)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    char path[PATH_BYTES], below[PATH_BYTES];
    struct zqcow2_resolver *resolver;
    struct zqcow2_backend *be;
    int rc;

    bench_below(path, sizeof(path), image, level);
    bench_below(below, sizeof(below), image, level + 1);
    unlink(path);
    rc = zqcow2_resolver_new(path, NULL, &resolver);
    if (rc == 0)
        rc = zqcow2_file_open(path, ZQCOW2_FILE_RDWR | ZQCOW2_FILE_CREATE, NULL, &be);
    if (rc < 0)
        bench_die(path, rc);
    if (p->subclusters) {
        o.flags |= ZQCOW2_CREATE_EXTENDED_L2;
        o.cluster_size = KiB(128);
    }
    if (level < p->levels) {
        o.backing_name = strrchr(below, '/') ? strrchr(below, '/') + 1 : below;
        o.backing_format = "qcow2";
        o.resolve = zqcow2_resolve_file;
        o.resolve_arg = resolver;
    } else {
        set_geometry(p, &o);
    }
    rc = zqcow2_create(be, &o, NULL);
    if (rc < 0)
        bench_die("create", rc);
    zqcow2_backend_close(be);
    zqcow2_resolver_free(resolver);
}

/*
 * The lowest file has data everywhere, so that an overlay copies up and reads to the bottom; with
 * zones, the beginning of each zone, so that the overlay's pointers are inherited. A file between
 * has a little in each part of its tables, and so no look-up ends at a table that is missing.
 */
static int put_data(const struct plan *p, struct zqcow2_image *img, bool lowest)
{
    uint64_t size = lowest && is_plain(p) ? MiB(1) : KiB(64), step = lowest ? MiB(1) : MiB(32);
    uint64_t end = is_plain(p) ? p->zones * ZONE_BYTES : NR_ZONES * ZONE_BYTES;
    int rc = 0;

    if (!is_plain(p)) {
        size = 4096;
        step = ZONE_BYTES;
    }
    for (uint64_t at = 0; at < end && rc == 0; at += step)
        rc = zqcow2_write(img, bench_buffer(0, size), size, is_plain(p) ? at + step - size : at, 0);
    return rc;
}

static void fill_below(const struct plan *p, const char *image, unsigned level)
{
    struct zqcow2_open_options o = ZQCOW2_OPEN_OPTIONS_INIT;
    struct zqcow2_resolver *resolver;
    struct zqcow2_image *img;
    struct zqcow2_backend *be;
    char path[PATH_BYTES];
    int rc;

    bench_below(path, sizeof(path), image, level);
    rc = zqcow2_resolver_new(path, NULL, &resolver);
    o.flags = ZQCOW2_OPEN_RDWR;
    o.resolve = zqcow2_resolve_file;
    o.resolve_arg = resolver;
    if (rc == 0)
        rc = zqcow2_file_open(path, ZQCOW2_FILE_RDWR, NULL, &be);
    if (rc == 0)
        rc = zqcow2_open(be, &o, &img, NULL);
    if (rc == 0)
        rc = put_data(p, img, level == p->levels);
    if (rc == 0)
        rc = zqcow2_close(img);
    if (rc < 0)
        bench_die(path, rc);
    zqcow2_resolver_free(resolver);
}

void files_make(const struct plan *p, const char *path, bool top)
{
    for (unsigned level = top ? 0 : p->levels; level; level--) {
        create(p, path, level);
        fill_below(p, path, level);
    }
    create(p, path, 0);
}

void files_remove(const struct plan *p, const char *path)
{
    char file[PATH_BYTES];

    for (unsigned level = 0; level <= p->levels; level++) {
        bench_below(file, sizeof(file), path, level);
        unlink(file);
    }
}
