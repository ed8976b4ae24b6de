/* SPDX-License-Identifier: MIT */
/* What is asked for, completed with what the disk is like that is copied or measured. */
#include "shape.h"

static uint32_t least(uint64_t a, uint64_t b)
{
    return (uint32_t)(a < b ? a : b);
}

/* The image may have no limit, and the copy less capacity: the largest then that can be stored. */
static uint32_t append_limit(const struct zqcow2_info *i, const struct zqcow2_create_options *o)
{
    uint64_t capacity = o->zone_capacity ? o->zone_capacity : o->zone_size;

    return capacity > 1024 ? least(i->max_append_bytes, capacity - 1024) : 0;
}

/* Only an image has a layout, and says so. */
static void take_layout(const bool *given, const struct zqcow2_info *i,
                        struct zqcow2_create_options *o)
{
    if (!given[ZT_O_LAYOUT] && i->layout != ZQCOW2_LAYOUT_V3)
        o->layout = i->layout;
    if (!given[ZT_O_MAX_APPEND] && o->layout == i->layout && i->layout != ZQCOW2_LAYOUT_44)
        o->max_append_bytes = append_limit(i, o);
}

/* What -o leaves open of a disk that has zones: theirs. */
static void take_zones(const bool *given, const struct zqcow2_info *i,
                       struct zqcow2_create_options *o)
{
    bool same_size = o->zone_size == i->zone_size;

    if (!given[ZT_O_CAPACITY] && same_size)
        o->zone_capacity = i->zone_capacity;
    if (!given[ZT_O_DESCRIPTOR] && same_size)
        o->descriptor_extension = i->descriptor_extension;
    if (!given[ZT_O_CONVENTIONAL] && same_size)
        o->conventional_zones = i->nr_conventional;
    if (!given[ZT_O_MAX_OPEN])
        o->max_open_zones = i->max_open_zones;
    if (!given[ZT_O_MAX_ACTIVE])
        o->max_active_zones = i->max_active_zones;
    if (i->layout)
        take_layout(given, i, o);
}

struct zqcow2_create_options zt_copy_options(const struct zt_image_options *image,
                                             const struct zqcow2_info *disk)
{
    struct zqcow2_create_options o = zt_create_options(image);

    o.virtual_size = disk->virtual_size;
    o.flags |= disk->virtual_size ? 0u : ZQCOW2_CREATE_EMPTY;
    o.zone_size = zt_image_zone_size(image, disk->zone_size);
    if (o.zone_size && disk->flags & ZQCOW2_INFO_ZONED)
        take_zones(image->given, disk, &o);
    if (o.zone_size && !o.cluster_size)
        o.cluster_size = least(o.zone_size, 65536);
    return o;
}

/* The rules are the library's: it creates the image in memory. */
bool zt_can_create(const char *name, const struct zqcow2_create_options *opt)
{
    struct zqcow2_create_options how = *opt;
    struct zqcow2_error err = {0, ""};
    struct zqcow2_backend *be;
    int rc = zqcow2_mem_open(0, zt_hooks(), &be);

    how.preallocation = ZQCOW2_PREALLOCATE_OFF;
    if (rc == 0) {
        rc = zqcow2_create(be, &how, &err);
        zqcow2_backend_close(be);
    }
    if (rc < 0)
        zt_error("%s: %s", name, zt_reason(rc, &err));
    return rc == 0;
}
