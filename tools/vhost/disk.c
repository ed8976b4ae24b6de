/* SPDX-License-Identifier: MIT */
/* The served image as a virtio-blk device. */
#include "vhost/disk.h"

#include <endian.h>
#include <string.h>

#include <zqcow2/device.h>
#include "serve/geometry.h"

#define SECTOR           512u
#define BIT(n)           (1ull << (n))
#define MAX_APPEND_BYTES (1u << 24)

void vhost_disk_init(struct vhost_disk *d, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t n = strlen(name);

    memset(d->id, 0, sizeof(d->id));
    memcpy(d->id, name, n < sizeof(d->id) ? n : sizeof(d->id));
}

/*
 * Of an image with zones neither discard, which virtio forbids there, nor zeros: Linux sends those
 * to any offset.
 */
uint64_t vhost_disk_features(const struct vhost_disk *d)
{
    uint64_t f = BIT(VIRTIO_F_VERSION_1) | BIT(VHOST_F_PROTOCOL_FEATURES) |
                 BIT(VIRTIO_F_INDIRECT_DESC) | BIT(VIRTIO_F_EVENT_IDX) | BIT(BLK_F_SIZE_MAX) |
                 BIT(BLK_F_SEG_MAX) | BIT(BLK_F_BLK_SIZE) | BIT(BLK_F_TOPOLOGY) | BIT(BLK_F_FLUSH) |
                 BIT(BLK_F_MQ);

    if (d->info->zone_size)
        f |= BIT(BLK_F_ZONED);
    else if (!d->read_only)
        f |= BIT(BLK_F_DISCARD) | BIT(BLK_F_WRITE_ZEROES);
    return d->read_only ? f | BIT(BLK_F_RO) : f;
}

/*
 * What is in flight is not kept for an image with zones: a write or append that was done again
 * would not come to the same.
 */
uint64_t vhost_disk_protocol(const struct vhost_disk *d)
{
    uint64_t f = BIT(VHOST_PROTOCOL_MQ) | BIT(VHOST_PROTOCOL_REPLY_ACK) |
                 BIT(VHOST_PROTOCOL_BACKEND_REQ) | BIT(VHOST_PROTOCOL_CONFIG) |
                 BIT(VHOST_PROTOCOL_RESET_DEVICE) | BIT(VHOST_PROTOCOL_MEM_SLOTS);

    return d->info->zone_size ? f : f | BIT(VHOST_PROTOCOL_INFLIGHT_SHMFD);
}

bool vhost_disk_has(const struct vhost_disk *d, unsigned feature)
{
    return d->acked & BIT(feature);
}

uint32_t vhost_disk_largest_append(const struct vhost_disk *d)
{
    return serve_largest_append(d->info, MAX_APPEND_BYTES);
}

static uint32_t limit(const struct zqcow2_info *i, uint32_t zones)
{
    uint32_t there = serve_zones(i);

    return zones < there ? zones : there;
}

static void fill_zones(const struct vhost_disk *d, struct blk_config *c)
{
    const struct zqcow2_info *i = d->info;

    c->zone_sectors = htole32((uint32_t)(i->zone_size / SECTOR));
    c->max_open_zones = htole32(limit(i, i->max_open_zones));
    c->max_active_zones = htole32(limit(i, i->max_active_zones));
    c->max_append_sectors = htole32(vhost_disk_largest_append(d) / SECTOR);
    c->write_granularity = htole32(i->block_size);
    c->model = BLK_HOST_MANAGED;
}

static void fill_discard(const struct zqcow2_io_limits *l, struct blk_config *c)
{
    c->max_discard_sectors = htole32(serve_sectors(l->max_discard));
    c->max_write_zeroes_sectors = htole32(serve_sectors(l->max_zeroes));
    c->max_discard_seg = c->max_write_zeroes_seg = htole32(VHOST_RANGES);
    c->discard_sector_alignment = htole32(l->discard_granularity / SECTOR);
    c->write_zeroes_may_unmap = (l->flags & ZQCOW2_LIMITS_UNMAP) != 0;
}

void vhost_disk_config(const struct vhost_disk *d, struct blk_config *c)
{
    struct zqcow2_io_limits l = ZQCOW2_IO_LIMITS_INIT;
    uint32_t block = d->info->block_size;

    zqcow2_get_io_limits(d->img, &l);
    *c = (struct blk_config){.capacity = htole64(serve_size(d->info) / SECTOR),
                             .size_max = htole32(VHOST_SIZE_MAX),
                             .seg_max = htole32(VHOST_SEG_MAX),
                             .blk_size = htole32(block),
                             .physical_block_exp = serve_shift(l.physical_block / block),
                             .min_io_size = htole16((uint16_t)(l.physical_block / block)),
                             .opt_io_size = htole32(l.optimal_io / block),
                             .num_queues = htole16(d->queues)};
    if (d->info->zone_size)
        fill_zones(d, c);
    else if (!d->read_only)
        fill_discard(&l, c);
}
