/* SPDX-License-Identifier: MIT */
/*
 * The backing files of a geometry: what the prologue has left, as images or as bare bytes. They lie
 * in memory, and no crash reaches them: they are never written.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zqcow2/backend.h>

#include "crash.h"

#define MOST 2u

struct bytes {
    uint8_t *b;
    uint64_t len;
};

/* Of each geometry, the lowest first. */
static struct {
    struct bytes v[MOST];
    unsigned n;
} sources[MAX_WORLDS];

/* The device's content, as the library reads it. */
static int read_device(const struct crash_geometry *g, struct zqcow2_simdisk *disk, uint8_t *to)
{
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    int rc = zqcow2_simdisk_backend(disk, &be);

    if (rc < 0)
        return rc;
    rc = zqcow2_open(be, NULL, &img, NULL);
    if (rc < 0) {
        zqcow2_backend_close(be);
        return rc;
    }
    rc = zqcow2_read(img, to, g->size, 0);
    zqcow2_close(img);
    return rc;
}

void source_forget(const struct crash_geometry *g)
{
    unsigned i = (unsigned)(g - crash_geometries);

    while (sources[i].n)
        free(sources[i].v[--sources[i].n].b);
}

int source_keep(const struct crash_geometry *g, struct zqcow2_simdisk *disk)
{
    unsigned i = (unsigned)(g - crash_geometries);
    struct bytes *s = &sources[i].v[sources[i].n];
    bool raw = !strcmp(g->source, "raw");

    if (sources[i].n == MOST)
        return -EINVAL;
    s->len = raw ? g->size : zqcow2_simdisk_length(disk);
    s->b = calloc(1, s->len);
    if (!s->b)
        return -ENOMEM;
    sources[i].n++;
    return raw ? read_device(g, disk, s->b) : zqcow2_simdisk_export(disk, s->b, s->len, 0);
}

static int length(void *self, uint64_t *bytes)
{
    *bytes = ((const struct bytes *)self)->len;
    return 0;
}

static int readv_source(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    const struct bytes *s = self;

    for (int i = 0; i < cnt; off += iov[i++].iov_len) {
        uint64_t n = off < s->len ? s->len - off : 0;

        n = n < iov[i].iov_len ? n : iov[i].iov_len;
        memset(iov[i].iov_base, 0, iov[i].iov_len);
        if (n)
            memcpy(iov[i].iov_base, s->b + off, n);
    }
    return 0;
}

int source_resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    static const struct zqcow2_backend_ops ops = {
        .size = sizeof(ops), .length = length, .readv = readv_source};
    unsigned i = (unsigned)((const struct crash_geometry *)arg - crash_geometries);

    (void)name;
    (void)format;
    (void)err;
    if (depth > sources[i].n)
        return -ENOENT;
    return zqcow2_backend_new(&ops, &sources[i].v[sources[i].n - depth], NULL, be);
}
