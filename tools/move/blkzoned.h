/* SPDX-License-Identifier: MIT */
/* A zoned block device, by the kernel's interface: its zones, and writes in their order. */
#ifndef ZT_MOVE_BLKZONED_H
#define ZT_MOVE_BLKZONED_H

#include "tool.h"

struct zt_device;

enum zt_device_op { ZT_DEVICE_RESET, ZT_DEVICE_CLOSE, ZT_DEVICE_FINISH };

/* Does this system have such devices? */
bool zt_device_known(void);
/*
 * *d is NULL if the file is not a zoned block device. A device that the system uses, by a mount for
 * example, is -EBUSY, unless `share`. Negated errno, or 0.
 */
int zt_device_open(const char *path, bool write, bool share, struct zt_device **d);
void zt_device_close(struct zt_device *d); /* NULL is allowed */
/* NULL, or what no image can have of these zones. */
const char *zt_device_odd(const struct zt_device *d);
/* Sizes, zones and limits. */
void zt_device_info(const struct zt_device *d, struct zqcow2_info *info);
/* As zqcow2_zone_report(). */
int zt_device_report(struct zt_device *d, uint64_t off, struct zqcow2_zone *zones, uint32_t *nr);
int zt_device_do(struct zt_device *d, enum zt_device_op op, uint64_t off, uint64_t len);
/* All of it or an error. `off` and `len` are multiples of the block size, buf of 4096. */
int zt_device_write(struct zt_device *d, const void *buf, size_t len, uint64_t off);
int zt_device_flush(struct zt_device *d);

#endif
