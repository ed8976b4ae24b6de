/* SPDX-License-Identifier: MIT */
/* The images on which workloads are crashed: small, and each with something of its own. */
#include <string.h>

#include "crash.h"

#define K         1024u
#define SCRAMBLES ZQCOW2_SIMDISK_DISCARD_SCRAMBLES

const struct crash_geometry crash_geometries[] = {
    {.name = "c512",
     .cluster = 512,
     .size = 14 * K,
     .zone_size = 4 * K,
     .capacity = 4 * K,
     .conventional = 1,
     .refbits = 16,
     .block = 1024,
     .weight = 100,
     .prologue = ""},
    {.name = "c512used",
     .cluster = 512,
     .size = 14 * K,
     .zone_size = 4 * K,
     .capacity = 3 * K,
     .conventional = 1,
     .max_open = 1,
     .max_active = 2,
     .refbits = 16,
     .block = 512,
     .discard = SCRAMBLES,
     .weight = 100,
     .prologue = "abope"},
    {.name = "c512r1",
     .cluster = 512,
     .size = 14 * K,
     .zone_size = 4 * K,
     .capacity = 3 * K,
     .conventional = 1,
     .max_open = 2,
     .max_active = 2,
     .refbits = 1,
     .block = 512,
     .weight = 100,
     .prologue = "ab"},
    {.name = "c512r64",
     .cluster = 512,
     .size = 28 * K,
     .zone_size = 8 * K,
     .capacity = 8 * K,
     .conventional = 1,
     .refbits = 64,
     .block = 1536,
     .weight = 60,
     .prologue = "a"},
    {.name = "c1kodd",
     .cluster = 1024,
     .size = 28 * K,
     .zone_size = 8 * K,
     .capacity = 5 * K + 512,
     .conventional = 1,
     .max_open = 1,
     .max_active = 2,
     .refbits = 16,
     .block = 1536,
     .discard = SCRAMBLES,
     .extent = 2 * K,
     .weight = 100,
     .prologue = "ao"},
    {.name = "c4k",
     .cluster = 4096,
     .size = 56 * K,
     .zone_size = 16 * K,
     .capacity = 12 * K + 512,
     .conventional = 1,
     .max_open = 1,
     .max_active = 2,
     .refbits = 16,
     .block = 2560,
     .weight = 100,
     .prologue = "ap"},
    {.name = "c4kv7",
     .cluster = 4096,
     .size = 56 * K,
     .zone_size = 16 * K,
     .capacity = 16 * K,
     .conventional = 1,
     .max_open = 2,
     .max_active = 2,
     .refbits = 8,
     .layout = ZQCOW2_LAYOUT_V7,
     .block = 4096,
     .atomic = 4096,
     .weight = 60,
     .prologue = "a"},
    {.name = "c4kold",
     .cluster = 4096,
     .size = 56 * K,
     .zone_size = 16 * K,
     .capacity = 8 * K,
     .conventional = 1,
     .refbits = 16,
     .layout = ZQCOW2_LAYOUT_48B,
     .block = 3584,
     .sim_flags = ZQCOW2_SIMDISK_NO_ZERO | ZQCOW2_SIMDISK_NO_DISCARD,
     .weight = 60,
     .prologue = "abo"},
    {.name = "c64k",
     .cluster = 64 * K,
     .size = 224 * K,
     .zone_size = 64 * K,
     .capacity = 64 * K,
     .conventional = 1,
     .max_open = 1,
     .max_active = 2,
     .refbits = 16,
     .block = 2048,
     .atomic = ZQCOW2_SIMDISK_ATOMIC,
     .weight = 8,
     .prologue = "b"},
    {.name = "c64kodd",
     .cluster = 64 * K,
     .size = 448 * K,
     .zone_size = 128 * K,
     .capacity = 64 * K + 1536,
     .conventional = 1,
     .refbits = 16,
     .block = 2560,
     .weight = 6,
     .discard = SCRAMBLES,
     .prologue = "ao"},
    /* One cluster of refcount table reaches 2 MiB, and the prologue leaves little of that. */
    {.name = "grow",
     .cluster = 512,
     .size = 2148 * K,
     .zone_size = 1024 * K,
     .capacity = 1024 * K,
     .refbits = 64,
     .block = 2048,
     .extent = 16 * K,
     .weight = 4,
     .fill = 922 * K,
     .prologue = "AB"},
    /* The write-pointer table has three sectors, and the zones in use do not share one. */
    {.name = "wide",
     .cluster = 512,
     .size = 129 * K + 512,
     .zone_size = K,
     .capacity = K,
     .conventional = 1,
     .b = 70,
     .max_open = 1,
     .max_active = 1,
     .refbits = 16,
     .block = 512,
     .weight = 40,
     .prologue = "a"},
    {.name = "plain512",
     .cluster = 512,
     .size = 24 * K,
     .refbits = 16,
     .block = 512,
     .discard = SCRAMBLES,
     .weight = 100,
     .prologue = "o"},
    {.name = "plain4k",
     .cluster = 4096,
     .size = 64 * K,
     .refbits = 2,
     .block = 512,
     .weight = 100,
     .prologue = "op"},
    {.name = "shared4k",
     .cluster = 4096,
     .size = 64 * K,
     .refbits = 16,
     .block = 512,
     .snapshot = true,
     .weight = 60,
     .discard = SCRAMBLES,
     .prologue = "opopo"},
    {.name = "c512a4k",
     .cluster = 512,
     .size = 14 * K,
     .zone_size = 4 * K,
     .capacity = 3 * K,
     .conventional = 1,
     .max_open = 1,
     .max_active = 2,
     .refbits = 16,
     .block = 512,
     .io_align = 4 * K,
     .weight = 60,
     .prologue = "abo"},
    {.name = "c1ka4k",
     .cluster = K,
     .size = 28 * K,
     .zone_size = 8 * K,
     .capacity = 5 * K + 512,
     .conventional = 1,
     .refbits = 16,
     .block = 1536,
     .io_align = 4 * K,
     .max_iov = 3,
     .discard = SCRAMBLES,
     .extent = 2 * K,
     .weight = 60,
     .prologue = "ao"},
    {.name = "c4ki1",
     .cluster = 4096,
     .size = 56 * K,
     .zone_size = 16 * K,
     .capacity = 12 * K + 512,
     .conventional = 1,
     .max_open = 1,
     .max_active = 2,
     .refbits = 16,
     .max_iov = 1,
     .block = 2560,
     .weight = 60,
     .discard = SCRAMBLES,
     .prologue = "ap"},
    {.name = "c4ki2",
     .cluster = 4096,
     .size = 56 * K,
     .zone_size = 16 * K,
     .capacity = 16 * K,
     .conventional = 1,
     .refbits = 16,
     .max_iov = 2,
     .block = 4096 + 512,
     .weight = 60,
     .prologue = "ao"},
    /* Every cluster of the zones is shared with a snapshot. */
    {.name = "zshared4k",
     .cluster = 4096,
     .size = 56 * K,
     .zone_size = 16 * K,
     .capacity = 12 * K + 512,
     .conventional = 1,
     .max_open = 1,
     .max_active = 2,
     .refbits = 16,
     .block = 2560,
     .snapshot = true,
     .weight = 60,
     .discard = SCRAMBLES,
     .prologue = "aboB"},
    /* Clusters that share host clusters, and straddle them: none is written in place. */
    {.name = "zpacked1k",
     .cluster = K,
     .size = 28 * K,
     .zone_size = 8 * K,
     .capacity = 5 * K + 512,
     .conventional = 1,
     .max_open = 1,
     .max_active = 2,
     .refbits = 16,
     .block = 1536,
     .io_align = 4 * K,
     .max_iov = 3,
     .packed = true,
     .weight = 60,
     .discard = SCRAMBLES,
     .prologue = "aoabp"},
    {.name = "zpacked4k",
     .cluster = 4096,
     .size = 56 * K,
     .zone_size = 16 * K,
     .capacity = 12 * K + 512,
     .conventional = 1,
     .max_open = 2,
     .max_active = 3,
     .refbits = 16,
     .block = 2560,
     .packed = true,
     .weight = 60,
     .prologue = "aaopB"},
    {.name = "zpackshared",
     .cluster = 4096,
     .size = 56 * K,
     .zone_size = 16 * K,
     .capacity = 12 * K + 512,
     .conventional = 1,
     .refbits = 16,
     .block = 2560,
     .packed = true,
     .snapshot = true,
     .weight = 60,
     .discard = SCRAMBLES,
     .prologue = "aabop"},
    {.name = "lazy4k",
     .cluster = 4096,
     .size = 64 * K,
     .refbits = 16,
     .block = 512,
     .lazy = true,
     .weight = 60,
     .prologue = "o"},
    /* Overlays: new clusters keep what a source has, and nothing of it is unmasked. */
    {.name = "over512",
     .cluster = 512,
     .size = 24 * K,
     .refbits = 16,
     .block = 512,
     .discard = SCRAMBLES,
     .weight = 60,
     .source = "raw",
     .prologue = "opopop"},
    {.name = "over4k",
     .cluster = 4096,
     .size = 64 * K,
     .refbits = 16,
     .block = 512,
     .discard = SCRAMBLES,
     .weight = 100,
     .source = "qcow2",
     .prologue = "opopopopop"},
    {.name = "over4kraw",
     .cluster = 4096,
     .size = 63 * K,
     .refbits = 2,
     .block = 512,
     .io_align = 4096,
     .weight = 60,
     .source = "raw",
     .prologue = "opopopopop"},
    /* The same with zones: inherited and own lives, pointers inside clusters. */
    {.name = "zover1k",
     .cluster = K,
     .size = 28 * K,
     .zone_size = 8 * K,
     .capacity = 5 * K + 512,
     .conventional = 1,
     .max_open = 1,
     .max_active = 2,
     .refbits = 16,
     .block = 1536,
     .extent = 2 * K,
     .weight = 100,
     .discard = SCRAMBLES,
     .source = "qcow2",
     .prologue = "aopB"},
    {.name = "zover4k",
     .cluster = 4096,
     .size = 56 * K,
     .zone_size = 16 * K,
     .capacity = 12 * K + 512,
     .conventional = 1,
     .max_open = 2,
     .max_active = 2,
     .refbits = 16,
     .block = 2560,
     .weight = 100,
     .source = "qcow2",
     .prologue = "aabop"},
    {.name = "zover4kv7",
     .cluster = 4096,
     .size = 56 * K,
     .zone_size = 16 * K,
     .capacity = 16 * K,
     .conventional = 1,
     .max_open = 2,
     .max_active = 2,
     .refbits = 8,
     .layout = ZQCOW2_LAYOUT_V7,
     .block = 3584,
     .io_align = 4096,
     .weight = 60,
     .discard = SCRAMBLES,
     .source = "qcow2",
     .prologue = "arih"},
    /* Two sources: the middle one inherits a life, and has one of its own. */
    {.name = "zover2",
     .cluster = K,
     .size = 28 * K,
     .zone_size = 8 * K,
     .capacity = 5 * K + 512,
     .conventional = 1,
     .max_active = 3,
     .refbits = 16,
     .block = 1536,
     .extent = 2 * K,
     .weight = 100,
     .discard = SCRAMBLES,
     .source = "qcow2",
     .prologue = "abeop|akbpe"},
};
const unsigned crash_ngeometries = sizeof(crash_geometries) / sizeof(crash_geometries[0]);
_Static_assert(sizeof(crash_geometries) / sizeof(crash_geometries[0]) <= MAX_WORLDS,
               "one more world");

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

void open_options(const struct crash_geometry *g, struct zqcow2_open_options *o, bool rw)
{
    *o = (struct zqcow2_open_options)ZQCOW2_OPEN_OPTIONS_INIT;
    o->flags = rw ? ZQCOW2_OPEN_RDWR : 0;
    o->cache_bytes = 1; /* the least there is */
    o->extent_bytes = g->extent;
    o->resolve = g->source ? source_resolve : NULL;
    o->resolve_arg = (void *)(uintptr_t)g; /* it is only read */
}

static int create(struct zqcow2_simdisk *disk, const struct crash_geometry *g,
                  struct zqcow2_error *err)
{
    struct zqcow2_create_options o = ZQCOW2_CREATE_OPTIONS_INIT;
    struct zqcow2_backend *be;
    int rc = zqcow2_simdisk_backend(disk, &be);

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
    o.flags = g->lazy ? ZQCOW2_CREATE_LAZY_REFCOUNTS : 0;
    o.backing_name = g->source ? "source" : NULL;
    o.backing_format = g->source;
    o.resolve = g->source ? source_resolve : NULL;
    o.resolve_arg = (void *)(uintptr_t)g;
    if (g->layout == ZQCOW2_LAYOUT_V7 || g->layout == ZQCOW2_LAYOUT_48B)
        o.max_append_bytes = (uint32_t)(g->capacity / 2);
    rc = zqcow2_create(be, &o, err);
    zqcow2_backend_close(be);
    return rc;
}

struct zqcow2_simdisk *crash_geometry_create(const struct crash_geometry *g, uint64_t seed,
                                             bool async, char *why, size_t room)
{
    struct zqcow2_simdisk_options o = ZQCOW2_SIMDISK_OPTIONS_INIT;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_simdisk *disk;
    int rc;

    o.seed = seed;
    o.atomic_write = g->atomic;
    o.flags = g->sim_flags | (async ? ZQCOW2_SIMDISK_ASYNC : 0);
    o.discard = g->discard;
    o.io_align = g->io_align;
    o.max_iov = g->max_iov;
    rc = zqcow2_simdisk_new(&o, &disk);
    if (rc == 0) {
        rc = create(disk, g, &err);
        if (rc == 0)
            return disk;
        zqcow2_simdisk_free(disk);
    }
    snprintf(why, room, "create: %s (%s)", zqcow2_strerror(rc), err.text);
    return NULL;
}
