/* SPDX-License-Identifier: MIT */
/* Makes the image of a geometry, and says how it is opened. */
#include <string.h>

#include "crash.h"

uint64_t draw(uint64_t *rng)
{
    uint64_t x = *rng += 0x9e3779b97f4a7c15u;

    x = (x ^ (x >> 31)) * 0x7fb5d329728ea185u;
    x = (x ^ (x >> 27)) * 0x81dadef4bc2dd44du;
    return x ^ (x >> 33);
}

void fill_shape(struct shape *s, const struct crash_geometry *g)
{
    *s = (struct shape){.size = g->size,
                        .zone_size = g->zone_size,
                        .capacity = g->capacity,
                        .conventional = g->conventional,
                        .max_active = g->max_active};
    if (!g->zone_size) {
        s->zone_size = s->capacity = g->size;
        s->conventional = 1;
    }
    s->zones = (uint32_t)((s->size + s->zone_size - 1) / s->zone_size);
}

bool is_layered(const struct crash_geometry *g)
{
    return g->source || g->data;
}

const char *letters_of(const struct crash_geometry *g)
{
    if (g->zone_size)
        return g->commit ? LETTERS_ZONED LETTER_COMMIT : LETTERS_ZONED;
    return g->commit ? LETTERS_PLAIN LETTER_COMMIT : LETTERS_PLAIN;
}

void open_options(struct disk *disk, struct zqcow2_open_options *o, bool rw)
{
    const struct crash_geometry *g = disk->g;

    *o = (struct zqcow2_open_options)ZQCOW2_OPEN_OPTIONS_INIT;
    o->flags = rw ? ZQCOW2_OPEN_RDWR : 0;
    o->cache_bytes = 1; /* the least there is */
    o->extent_bytes = g->extent;
    o->resolve = is_layered(g) ? source_resolve : NULL;
    o->resolve_arg = disk;
}

static int create(struct disk *disk, struct zqcow2_error *err)
{
    const struct crash_geometry *g = disk->g;
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be;
    int rc = disk_backend(disk, THE_IMAGE, &be);

    if (rc < 0)
        return rc;
    o.virtual_size = g->size;
    o.zone_size = g->zone_size;
    o.zone_capacity = g->capacity;
    o.conventional_zones = g->conventional;
    o.max_open_zones = g->max_open;
    o.max_active_zones = g->max_active;
    o.cluster_size = g->cluster;
    o.refcount_bits = g->refbits;
    o.layout = g->layout;
    o.flags = (g->lazy ? ZQCOW2_CREATE_LAZY_REFCOUNTS : 0) |
              (g->extended ? ZQCOW2_CREATE_EXTENDED_L2 : 0) |
              (g->data_raw && !g->source ? ZQCOW2_CREATE_DATA_FILE_RAW : 0);
    o.backing_name = g->source ? "source" : NULL;
    o.backing_format = g->source;
    o.data_file = g->data ? "data" : NULL;
    o.resolve = is_layered(g) ? source_resolve : NULL;
    o.resolve_arg = disk;
    if (g->layout == ZQCOW2_LAYOUT_V7 || g->layout == ZQCOW2_LAYOUT_48B)
        o.max_append_bytes = (uint32_t)(g->capacity / 2);
    rc = zqcow2_create(be, &o, err);
    zqcow2_backend_close(be);
    return rc;
}

/* What there is beside the image. */
static unsigned files_of(const struct crash_geometry *g)
{
    bool data_below = g->commit && g->data && strcmp(g->source, "raw");

    return (g->data ? 1u << DATA_FILE : 0) | (g->commit ? 1u << BELOW : 0) |
           (data_below ? 1u << DATA_BELOW : 0);
}

struct disk *crash_geometry_create(const struct crash_geometry *g, struct disk *below, bool async,
                                   char *why, size_t room)
{
    struct zqcow2_simdisk_options o = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_error err = {0, ""};
    struct disk *disk;
    int rc;

    o.seed = 1;
    o.atomic_write = g->atomic;
    o.flags = g->sim_flags | (async ? ZQCOW2_SIMDISK_ASYNC : 0);
    o.discard = g->discard;
    o.io_align = g->io_align;
    o.max_iov = g->max_iov;
    rc = disk_new(&o, g, files_of(g), &disk);
    if (rc == 0) {
        if (g->commit)
            rc = source_put(below, disk);
        if (rc == 0)
            rc = create(disk, &err);
        if (rc == 0)
            return disk;
        disk_free(disk);
    }
    snprintf(why, room, "create: %s (%s)", zqcow2_strerror(rc), err.text);
    return NULL;
}
