/* SPDX-License-Identifier: MIT */
/*
 * The backing file of a geometry: what the prologue has left, as an image or as bare bytes. It lies
 * in memory, and no crash reaches it: it is never written.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zqcow2/backend.h>

#include "crash.h"

static struct {
    uint8_t *b;
    uint64_t len;
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

int source_keep(const struct crash_geometry *g, struct zqcow2_simdisk *disk)
{
    unsigned i = (unsigned)(g - crash_geometries);
    bool raw = !strcmp(g->source, "raw");

    if (sources[i].b)
        return 0;
    sources[i].len = raw ? g->size : zqcow2_simdisk_length(disk);
    sources[i].b = calloc(1, sources[i].len);
    if (!sources[i].b)
        return -ENOMEM;
    return raw ? read_device(g, disk, sources[i].b) :
                 zqcow2_simdisk_export(disk, sources[i].b, sources[i].len, 0);
}

static int length(void *self, uint64_t *bytes)
{
    *bytes = sources[(const struct crash_geometry *)self - crash_geometries].len;
    return 0;
}

static int readv_source(void *self, const struct iovec *iov, int cnt, uint64_t off)
{
    unsigned s = (unsigned)((const struct crash_geometry *)self - crash_geometries);

    for (int i = 0; i < cnt; off += iov[i++].iov_len) {
        uint64_t n = off < sources[s].len ? sources[s].len - off : 0;

        n = n < iov[i].iov_len ? n : iov[i].iov_len;
        memset(iov[i].iov_base, 0, iov[i].iov_len);
        memcpy(iov[i].iov_base, sources[s].b + off, n);
    }
    return 0;
}

int source_resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    static const struct zqcow2_backend_ops ops = {
        .size = sizeof(ops), .length = length, .readv = readv_source};

    (void)name;
    (void)format;
    (void)depth;
    (void)err;
    return zqcow2_backend_new(&ops, arg, NULL, be);
}
