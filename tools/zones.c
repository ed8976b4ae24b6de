/* SPDX-License-Identifier: MIT */
/* Names of states and layouts, and the walk over the zones of an image. */
#include <errno.h>
#include <stdlib.h>

#include "tool.h"

#define CHUNK 1024u /* zones in one report */

const char *zt_state_name(unsigned state)
{
    static const char *const names[16] = {
        [ZQCOW2_ZONE_NOT_WP] = "NOT_WP",     [ZQCOW2_ZONE_EMPTY] = "EMPTY",
        [ZQCOW2_ZONE_IMP_OPEN] = "IMP_OPEN", [ZQCOW2_ZONE_EXP_OPEN] = "EXP_OPEN",
        [ZQCOW2_ZONE_CLOSED] = "CLOSED",     [ZQCOW2_ZONE_RDONLY] = "READ_ONLY",
        [ZQCOW2_ZONE_FULL] = "FULL",         [ZQCOW2_ZONE_OFFLINE] = "OFFLINE",
    };

    return state < ZT_COUNT(names) && names[state] ? names[state] : "unknown";
}

const char *zt_type_name(unsigned type)
{
    return type == ZQCOW2_ZONE_CONVENTIONAL ? "conventional" : "sequential";
}

const char *zt_layout_name(uint32_t layout)
{
    switch (layout) {
    case ZQCOW2_LAYOUT_V3:
        return "v3";
    case ZQCOW2_LAYOUT_V7:
        return "v7";
    case ZQCOW2_LAYOUT_44:
        return "44";
    case ZQCOW2_LAYOUT_48B:
        return "48b";
    case ZQCOW2_LAYOUT_56:
        return "56";
    default:
        return NULL;
    }
}

int zt_each_zone(struct zqcow2_image *img, const struct zqcow2_info *info, uint64_t off,
                 uint64_t count, void (*fn)(void *arg, uint64_t index, const struct zqcow2_zone *z),
                 void *arg)
{
    struct zqcow2_zone *zones = zt_buffer(CHUNK * sizeof(*zones));
    int rc = zones ? 0 : -ENOMEM;

    while (rc == 0 && count) {
        uint32_t nr = count < CHUNK ? (uint32_t)count : CHUNK;

        rc = zqcow2_zone_report(img, off, zones, &nr);
        for (uint32_t i = 0; rc == 0 && i < nr; i++)
            fn(arg, zones[i].start / info->zone_size, &zones[i]);
        if (rc < 0 || nr == 0)
            break;
        count -= nr;
        off = zones[nr - 1].start + zones[nr - 1].length;
        if (off >= info->virtual_size)
            break;
    }
    free(zones);
    return rc;
}
