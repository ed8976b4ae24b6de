/* SPDX-License-Identifier: MIT */
/* Where zoned block devices are not known: there are none. */
#include <errno.h>

#include "blkzoned.h"

bool zt_device_known(void)
{
    return false;
}

int zt_device_open(const char *path, bool write, bool share, struct zt_device **d)
{
    (void)path;
    (void)write;
    (void)share;
    *d = NULL;
    return 0;
}

void zt_device_close(struct zt_device *d)
{
    (void)d;
}

const char *zt_device_odd(const struct zt_device *d)
{
    (void)d;
    return NULL;
}

void zt_device_info(const struct zt_device *d, struct zqcow2_info *info)
{
    (void)d;
    (void)info;
}

int zt_device_report(struct zt_device *d, uint64_t off, struct zqcow2_zone *zones, uint32_t *nr)
{
    (void)d;
    (void)off;
    (void)zones;
    (void)nr;
    return -ENOSYS;
}

int zt_device_do(struct zt_device *d, enum zt_device_op op, uint64_t off, uint64_t len)
{
    (void)d;
    (void)op;
    (void)off;
    (void)len;
    return -ENOSYS;
}

int zt_device_write(struct zt_device *d, const void *buf, size_t len, uint64_t off)
{
    (void)d;
    (void)buf;
    (void)len;
    (void)off;
    return -ENOSYS;
}

int zt_device_flush(struct zt_device *d)
{
    (void)d;
    return -ENOSYS;
}
