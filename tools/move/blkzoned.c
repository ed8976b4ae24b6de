/* SPDX-License-Identifier: MIT */
/*
 * Zoned block devices of Linux. Sequential zones are written with O_DIRECT: the page cache would
 * not keep the order.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/blkzoned.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "blkzoned.h"

#define REPORTED 1024u /* zones that the kernel is asked for at a time */

struct zt_device {
    int fd;
    uint64_t size, zone_size;
    uint32_t block_size, max_open, max_active;
    uint32_t nr_zones, nr_conventional;
    uint64_t capacity; /* of a sequential zone */
    const char *odd;
};

bool zt_device_known(void)
{
    return true;
}

/* ---- zones ---- */

static uint64_t pointer_of(const struct blk_zone *b)
{
    switch (b->cond) {
    case BLK_ZONE_COND_NOT_WP:
    case BLK_ZONE_COND_EMPTY: return b->start * ZT_SECTOR;
    case BLK_ZONE_COND_FULL: return (b->start + b->len) * ZT_SECTOR;
    case BLK_ZONE_COND_READONLY:
    case BLK_ZONE_COND_OFFLINE: return UINT64_MAX;
    default: return b->wp * ZT_SECTOR;
    }
}

static void take_zone(struct zqcow2_zone *z, const struct blk_zone *b, uint32_t flags)
{
    *z = (struct zqcow2_zone){.start = b->start * ZT_SECTOR,
                              .length = b->len * ZT_SECTOR,
                              .write_pointer = pointer_of(b),
                              .type = b->type,
                              .state = b->cond};
    z->capacity = flags & BLK_ZONE_REP_CAPACITY ? b->capacity * ZT_SECTOR : z->length;
}

int zt_device_report(struct zt_device *d, uint64_t off, struct zqcow2_zone *zones, uint32_t *nr)
{
    uint32_t most = *nr < REPORTED ? *nr : REPORTED;
    struct blk_zone_report *r;
    int rc = 0;

    if (off >= d->size)
        return -EINVAL;
    r = calloc(1, sizeof(*r) + most * sizeof(r->zones[0]));
    if (!r)
        return -ENOMEM;
    r->sector = off / d->zone_size * d->zone_size / ZT_SECTOR;
    r->nr_zones = most;
    if (ioctl(d->fd, BLKREPORTZONE, r) < 0)
        rc = -errno;
    *nr = rc == 0 && r->nr_zones <= most ? r->nr_zones : 0;
    if (rc == 0 && !*nr)
        rc = -EIO; /* there are zones up to the end */
    for (uint32_t i = 0; rc == 0 && i < *nr; i++)
        take_zone(&zones[i], &r->zones[i], r->flags);
    free(r);
    return rc;
}

int zt_device_do(struct zt_device *d, enum zt_device_op op, uint64_t off, uint64_t len)
{
    static const unsigned long requests[] = {
        [ZT_DEVICE_RESET] = BLKRESETZONE,
        [ZT_DEVICE_CLOSE] = BLKCLOSEZONE,
        [ZT_DEVICE_FINISH] = BLKFINISHZONE,
    };
    struct blk_zone_range range = {off / ZT_SECTOR, len / ZT_SECTOR};

    return ioctl(d->fd, requests[op], &range) < 0 ? -errno : 0;
}

/* ---- geometry ---- */

/* One number below the device's queue in sysfs; 0 if it is not there. */
static uint32_t limit_of(const struct stat *st, const char *name)
{
    char path[128];
    unsigned value = 0;
    FILE *f;

    snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/queue/%s", major(st->st_rdev),
             minor(st->st_rdev), name);
    f = fopen(path, "re");
    if (!f)
        return 0;
    if (fscanf(f, "%u", &value) != 1)
        value = 0;
    fclose(f);
    return value;
}

static const char *judge_zone(struct zt_device *d, const struct zqcow2_zone *z)
{
    uint64_t left = d->size - z->start, length = left < d->zone_size ? left : d->zone_size;
    bool sequential = z->type == ZQCOW2_ZONE_SEQWRITE_REQ;

    if (z->length != length)
        return "its zones have several sizes";
    if (z->type != ZQCOW2_ZONE_CONVENTIONAL && !sequential)
        return "it has zones that are neither conventional nor sequential";
    if (!sequential && d->nr_conventional < d->nr_zones)
        return "it has conventional zones behind sequential ones";
    if (sequential && !d->capacity)
        d->capacity = z->capacity;
    if (sequential && z->capacity != (d->capacity < length ? d->capacity : length))
        return "its zones have several capacities";
    d->nr_conventional += !sequential;
    d->nr_zones++;
    return NULL;
}

/* Visits all zones; what is odd about them is no error here. */
static int judge(struct zt_device *d)
{
    struct zqcow2_zone *zones = calloc(REPORTED, sizeof(*zones));
    int rc = zones ? 0 : -ENOMEM;
    uint32_t nr;

    for (uint64_t off = 0; rc == 0 && off < d->size && !d->odd;) {
        nr = REPORTED;
        rc = zt_device_report(d, off, zones, &nr);
        for (uint32_t i = 0; rc == 0 && i < nr && !d->odd; i++) {
            d->odd = zones[i].start == off ? judge_zone(d, &zones[i]) : "its zones leave gaps";
            off += zones[i].length;
        }
    }
    free(zones);
    return rc;
}

/* 1: it is zoned. */
static int measure(struct zt_device *d)
{
    struct stat st;
    uint64_t bytes;
    uint32_t sectors = 0;
    int block;

    if (fstat(d->fd, &st) < 0)
        return -errno;
    if (!S_ISBLK(st.st_mode) || ioctl(d->fd, BLKGETZONESZ, &sectors) < 0 || !sectors)
        return 0;
    if (ioctl(d->fd, BLKGETSIZE64, &bytes) < 0 || ioctl(d->fd, BLKSSZGET, &block) < 0)
        return -errno;
    d->size = bytes;
    d->zone_size = (uint64_t)sectors * ZT_SECTOR;
    d->block_size = (uint32_t)block;
    d->max_open = limit_of(&st, "max_open_zones");
    d->max_active = limit_of(&st, "max_active_zones");
    return 1;
}

static bool is_device(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

int zt_device_open(const char *path, bool write, bool share, struct zt_device **d)
{
    struct zt_device *n;
    int rc;

    *d = NULL;
    if (!is_device(path))
        return 0;
    n = calloc(1, sizeof(*n));
    if (!n)
        return -ENOMEM;
    n->fd = open(path, (write ? O_RDWR | O_DIRECT : O_RDONLY) | (share ? 0 : O_EXCL) | O_CLOEXEC);
    rc = n->fd < 0 ? -errno : measure(n);
    if (rc > 0) {
        rc = judge(n);
        if (rc == 0) {
            *d = n;
            return 0;
        }
    }
    zt_device_close(n);
    return rc;
}

void zt_device_close(struct zt_device *d)
{
    if (d && d->fd >= 0)
        close(d->fd);
    free(d);
}

const char *zt_device_odd(const struct zt_device *d)
{
    return d->odd;
}

void zt_device_info(const struct zt_device *d, struct zqcow2_info *info)
{
    info->virtual_size = d->size;
    info->zone_size = d->zone_size;
    info->zone_capacity = d->capacity;
    info->nr_zones = d->nr_zones;
    info->nr_conventional = d->nr_conventional;
    info->max_open_zones = d->max_open;
    info->max_active_zones = d->max_active;
    info->block_size = d->block_size;
    info->flags = ZQCOW2_INFO_ZONED;
}

/* ---- data ---- */

int zt_device_write(struct zt_device *d, const void *buf, size_t len, uint64_t off)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = pwrite(d->fd, (const char *)buf + done, len - done, (off_t)(off + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (size_t)n;
    }
    return 0;
}

int zt_device_flush(struct zt_device *d)
{
    return fdatasync(d->fd) < 0 ? -errno : 0;
}
