/* SPDX-License-Identifier: MIT */
/* The driver's parameters of a disk, and whether an image fits a disk that exists. */
#include "ublk/params.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <zqcow2/device.h>

#include "serve/geometry.h"

#define SECTOR 512u

static uint32_t at_most(uint64_t v, uint32_t max)
{
    return v < max ? (uint32_t)v : max;
}

void ublk_params_fill(struct ublk_params *p, const struct serve_image *image, bool read_only,
                      uint32_t max_io)
{
    const struct zqcow2_info *i = &image->info;
    struct zqcow2_io_limits l = ZQCOW2_IO_LIMITS_INIT;

    zqcow2_get_io_limits(image->img, &l);
    *p = (struct ublk_params){.len = sizeof(*p), .types = UBLK_PARAM_BASIC};
    p->basic.attrs = UBLK_ATTR_VOLATILE_CACHE | UBLK_ATTR_FUA;
    if (read_only)
        p->basic.attrs |= UBLK_ATTR_READ_ONLY;
    p->basic.logical_bs_shift = serve_shift(l.block_size);
    p->basic.physical_bs_shift = p->basic.io_min_shift = serve_shift(l.physical_block);
    p->basic.io_opt_shift = serve_shift(l.optimal_io);
    p->basic.max_sectors = max_io / SECTOR;
    p->basic.dev_sectors = i->virtual_size / SECTOR;
    if (i->zone_size) {
        /* No discard part: the kernel's splitting of long write zeroes minds no zones. */
        p->types |= UBLK_PARAM_ZONED;
        p->basic.chunk_sectors = (uint32_t)(i->zone_size / SECTOR);
        p->zoned.max_open_zones = at_most(i->max_open_zones, i->nr_zones);
        p->zoned.max_active_zones = at_most(i->max_active_zones, i->nr_zones);
        p->zoned.max_append_sectors = serve_largest_append(i, max_io) / SECTOR;
    } else if (!read_only) {
        p->types |= UBLK_PARAM_DISCARD;
        p->discard.granularity = l.discard_granularity;
        p->discard.max_sectors = serve_sectors(l.max_discard);
        p->discard.max_write_zeroes_sectors = serve_sectors(l.max_zeroes);
        p->discard.max_segments = 1;
    }
}

const char *ublk_params_difference(const struct ublk_params *a, const struct ublk_params *b)
{
    uint32_t known = UBLK_PARAM_BASIC | UBLK_PARAM_DISCARD | UBLK_PARAM_ZONED;

    if (a->basic.dev_sectors != b->basic.dev_sectors)
        return "size";
    if ((a->types ^ b->types) & UBLK_PARAM_ZONED ||
        a->basic.chunk_sectors != b->basic.chunk_sectors)
        return "size of a zone";
    if (a->types & UBLK_PARAM_ZONED &&
        memcmp(&a->zoned, &b->zoned, offsetof(__typeof__(a->zoned), reserved)))
        return "limits of zones";
    if ((a->types ^ b->types) & known || a->basic.attrs != b->basic.attrs ||
        a->basic.logical_bs_shift != b->basic.logical_bs_shift ||
        a->basic.max_sectors != b->basic.max_sectors)
        return "kind of requests";
    if (a->types & UBLK_PARAM_DISCARD && a->discard.granularity != b->discard.granularity)
        return "granularity of discards";
    return NULL;
}

int ublk_params_check(const struct serve_image *image, struct serve_report *report)
{
    const struct zqcow2_info *i = &image->info;
    const char *path = image->opt->target.path;

    if (!i->zone_size)
        return 0;
    if (i->virtual_size % i->zone_size) {
        serve_report_failure(report,
                             "%s: the last zone is short; Linux needs a size that is a "
                             "multiple of the zone size",
                             path);
        return -EINVAL;
    }
    if (i->zone_size / SECTOR > UINT32_MAX || i->zone_size < SECTOR) {
        serve_report_failure(report, "%s: Linux does not support zones of this size", path);
        return -EINVAL;
    }
    return 0;
}
