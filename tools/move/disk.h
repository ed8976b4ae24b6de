/* SPDX-License-Identifier: MIT */
/*
 * A disk that is compared, measured or copied: a raw file, a block device, with its zones if it has
 * any, or an image with all that it stands on.
 */
#ifndef ZT_MOVE_DISK_H
#define ZT_MOVE_DISK_H

#include "blkzoned.h"
#include "tool.h"

#define ZT_CHUNK (2u << 20) /* bytes that are compared or copied at a time */

struct zt_disk {
    struct zt_target target;
    const char *format;         /* "raw" or "qcow2"; NULL: what the first bytes say */
    struct zqcow2_image *img;   /* NULL: raw */
    struct zqcow2_backend *be;  /* raw */
    struct zt_device *dev;      /* raw: its zones; NULL: it has none */
    struct zqcow2_info info;    /* raw: virtual_size only */
    struct zqcow2_extent known; /* the last status, from known_at on */
    uint64_t known_at;
};

/* Takes the value of `option`; false after reporting that it is no format. */
bool zt_disk_format(const char *option, const char *text, const char **format);
/* Opens for reading; false after reporting, and there is nothing to close then. */
bool zt_disk_open(struct zt_disk *d);
int zt_disk_close(struct zt_disk *d, int status); /* as zt_close() */
bool zt_disk_zoned(const struct zt_disk *d);
/*
 * As zqcow2_block_status(), of raw files too. What cannot be read (offline zones) and what lies
 * behind the end of the disk is unallocated, so that nobody reads it. For one thread at a time.
 */
int zt_disk_status(struct zt_disk *d, uint64_t off, uint64_t len, struct zqcow2_extent *s);
/* Does nothing of this extent need to be read? It is zeros. */
bool zt_extent_zero(const struct zqcow2_extent *s);
/* As zqcow2_zone_report(). */
int zt_disk_report(struct zt_disk *d, uint64_t off, struct zqcow2_zone *zones, uint32_t *nr);
int zt_disk_read(struct zt_disk *d, void *buf, size_t len, uint64_t off);
/* Of the first sector with a byte other than zero; `len`: there is none. */
size_t zt_nonzero(const uint8_t *buf, size_t len);

#endif
