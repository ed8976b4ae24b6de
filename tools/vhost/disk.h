/* SPDX-License-Identifier: MIT */
/* The served image as a virtio-blk device: features, config space, identification. */
#ifndef ZQ_TOOLS_VHOST_DISK_H
#define ZQ_TOOLS_VHOST_DISK_H

#include <stdbool.h>

#include <zqcow2/zqcow2.h>

#include "serve/image.h"
#include "vhost/wire.h"

#define VHOST_SIZE_MAX (1u << 20) /* bytes of a descriptor */
#define VHOST_SEG_MAX  126u       /* descriptors of data in a request */
#define VHOST_RANGES   16u        /* of a discard or a write of zeros */

struct vhost_disk {
    struct zqcow2_image *img;
    const struct zqcow2_info *info;
    const struct serve_faults *faults; /* NULL: none */
    char id[BLK_ID_BYTES];
    bool read_only;
    uint16_t queues;
    uint64_t acked; /* features; changes only while no queue runs */
    bool lost;      /* atomic: the next flush must fail, for a server before has lost something */
};

/* `path` is where the identification comes from. */
void vhost_disk_init(struct vhost_disk *d, const char *path);
uint64_t vhost_disk_features(const struct vhost_disk *d);
uint64_t vhost_disk_protocol(const struct vhost_disk *d);
bool vhost_disk_has(const struct vhost_disk *d, unsigned feature);
void vhost_disk_config(const struct vhost_disk *d, struct blk_config *c);
/* Bytes, the largest that the device takes. */
uint32_t vhost_disk_largest_append(const struct vhost_disk *d);

#endif
