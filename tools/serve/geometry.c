/* SPDX-License-Identifier: MIT */
/* The geometry of a served image, in words. */
#include "serve/geometry.h"

#include <inttypes.h>

uint32_t serve_largest_append(const struct zqcow2_info *info, uint32_t max_io)
{
    uint32_t bytes = info->max_append_bytes < max_io ? info->max_append_bytes : max_io;

    return bytes / info->block_size * info->block_size;
}

uint32_t serve_sectors(uint64_t bytes)
{
    uint64_t n = bytes / ZT_SECTOR;

    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

uint8_t serve_shift(uint32_t n)
{
    uint8_t shift = 0;

    while (n > 1) {
        n >>= 1;
        shift++;
    }
    return shift;
}

/* Exact, unlike zt_human(): scripts read these lines. */
static const char *size_text(char *buf, size_t room, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned u = 0;

    while (bytes >= 1024 && bytes % 1024 == 0 && u < 6) {
        bytes /= 1024;
        u++;
    }
    snprintf(buf, room, "%" PRIu64 " %s", bytes, units[u]);
    return buf;
}

void serve_put_geometry(FILE *out, const struct zqcow2_info *info, bool read_only, uint32_t append)
{
    const char *ro = read_only ? ", read-only" : "";
    char a[32], b[32], blocks[64] = "";

    if (info->block_size != ZT_SECTOR)
        snprintf(blocks, sizeof(blocks), ", blocks of %s",
                 size_text(a, sizeof(a), info->block_size));
    fprintf(out, "  %s, ", size_text(a, sizeof(a), info->virtual_size));
    if (!info->zone_size) {
        fprintf(out, "not zoned%s%s\n", ro, blocks);
        return;
    }
    fprintf(out,
            "host-managed%s%s: %" PRIu32 " zones of %s, capacity %s, %" PRIu32 " conventional\n",
            ro, blocks, info->nr_zones, size_text(a, sizeof(a), info->zone_size),
            size_text(b, sizeof(b), info->zone_capacity), info->nr_conventional);
    fprintf(out, "  max open %" PRIu32 ", max active %" PRIu32 " (0: no limit), ",
            info->max_open_zones, info->max_active_zones);
    fprintf(out, "largest append %s\n", size_text(a, sizeof(a), append));
}
