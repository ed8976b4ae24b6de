/* SPDX-License-Identifier: MIT */
/*
 * What lies below the images of a geometry, and beside them. A backing file that nothing changes is
 * bytes in memory; what can change is a file of the disk.
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

/* Of each geometry, the lowest first; each with its data file, if it has one. */
static struct {
    struct bytes v[MOST][MAX_FILES];
    unsigned n;
} sources[MAX_WORLDS];

/* The prologue runs on copies that are changed a little. */
static unsigned world_of(const struct crash_geometry *g)
{
    unsigned i = 0;

    while (i + 1 < crash_ngeometries && strcmp(crash_geometries[i].name, g->name))
        i++;
    return i;
}

/* The device's content, as the library reads it. */
static int read_device(struct disk *disk, uint8_t *to)
{
    struct zqcow2_open_options o;
    struct zqcow2_backend *be;
    struct zqcow2_image *img;
    int rc = disk_backend(disk, THE_IMAGE, &be);

    if (rc < 0)
        return rc;
    open_options(disk, &o, false);
    rc = zqcow2_open(be, &o, &img, NULL);
    if (rc < 0) {
        zqcow2_backend_close(be);
        return rc;
    }
    rc = zqcow2_read(img, to, disk->g->size, 0);
    zqcow2_close(img);
    return rc;
}

void source_forget(const struct crash_geometry *g)
{
    unsigned i = world_of(g);

    while (sources[i].n) {
        sources[i].n--;
        for (unsigned f = 0; f < MAX_FILES; f++)
            free(sources[i].v[sources[i].n][f].b);
    }
}

static int take_file(struct zqcow2_simdisk *file, struct bytes *to)
{
    to->len = zqcow2_simdisk_length(file);
    to->b = calloc(1, to->len + 1);
    return to->b ? zqcow2_simdisk_export(file, to->b, to->len, 0) : -ENOMEM;
}

static int take_device(struct disk *disk, struct bytes *to)
{
    to->len = disk->g->size;
    to->b = calloc(1, to->len);
    return to->b ? read_device(disk, to->b) : -ENOMEM;
}

/* The file that stands below, in the format of the geometry. */
static int take(struct disk *disk, const char *format, struct bytes *to)
{
    return strcmp(format, "raw") ? take_file(disk->file[THE_IMAGE], to) : take_device(disk, to);
}

int source_keep(const struct crash_geometry *g, struct disk *disk)
{
    unsigned i = world_of(g);
    struct bytes *s = sources[i].v[sources[i].n];
    int rc;

    if (sources[i].n == MOST)
        return -EINVAL;
    memset(s, 0, MAX_FILES * sizeof(*s));
    sources[i].n++;
    rc = take(disk, g->source, &s[THE_IMAGE]);
    if (rc == 0 && disk->file[DATA_FILE])
        rc = take_file(disk->file[DATA_FILE], &s[DATA_FILE]);
    return rc;
}

int source_put(struct disk *from, struct disk *to)
{
    struct bytes s = {NULL, 0};
    int rc = take(from, to->g->source, &s);

    if (rc == 0)
        rc = zqcow2_simdisk_import(to->file[BELOW], s.b, s.len, 0);
    free(s.b);
    if (rc < 0 || !to->file[DATA_BELOW])
        return rc;
    rc = take_file(from->file[DATA_FILE], &s);
    if (rc == 0)
        rc = zqcow2_simdisk_import(to->file[DATA_BELOW], s.b, s.len, 0);
    free(s.b);
    return rc;
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

/* At once: threads would be another story each time. */
static int submit_source(void *self, struct zqcow2_io *io)
{
    if (io->kind != ZQCOW2_IO_READ)
        return -EOPNOTSUPP;
    zqcow2_io_done(io, readv_source(self, io->iov, (int)io->iovcnt, io->offset));
    return 0;
}

static int open_source(unsigned world, unsigned file, uint32_t depth, struct zqcow2_backend **be)
{
    static const struct zqcow2_backend_ops ops = {
        .size = sizeof(ops), .length = length, .readv = readv_source, .submit = submit_source};

    if (!depth || depth > sources[world].n)
        return -ENOENT;
    return zqcow2_backend_new(&ops, &sources[world].v[sources[world].n - depth][file], NULL, be);
}

int source_resolve(void *arg, const char *name, const char *format, uint32_t depth,
                   struct zqcow2_backend **be, struct zqcow2_error *err)
{
    const uint32_t flags = ZQCOW2_RESOLVE_DATA_FILE | ZQCOW2_RESOLVE_WRITE | ZQCOW2_RESOLVE_CREATE;
    struct disk *d = arg;
    bool data = depth & ZQCOW2_RESOLVE_DATA_FILE;

    (void)name;
    (void)format;
    (void)err;
    depth &= ~flags;
    if (depth == 0 && data && d->g->data)
        return disk_backend(d, DATA_FILE, be);
    if (depth == 1 && d->g->commit)
        return disk_backend(d, data ? DATA_BELOW : BELOW, be);
    return open_source(world_of(d->g), data ? DATA_FILE : THE_IMAGE, depth - d->g->commit, be);
}

int source_resolve_below(void *arg, const char *name, const char *format, uint32_t depth,
                         struct zqcow2_backend **be, struct zqcow2_error *err)
{
    return source_resolve(arg, name, format, depth + 1, be, err);
}
