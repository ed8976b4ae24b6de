/* SPDX-License-Identifier: MIT */
/* Sectors that say what they are, and the shape of a device. */
#include <stdio.h>
#include <string.h>

#include "power_model.h"

#define MAGIC 0x5a43524153483131u

uint64_t zone_start(const struct shape *s, uint32_t zone)
{
    return zone * s->zone_size;
}

uint64_t zone_length(const struct shape *s, uint32_t zone)
{
    uint64_t rest = s->size - zone_start(s, zone);
    return rest < s->zone_size ? rest : s->zone_size;
}

uint64_t zone_room(const struct shape *s, uint32_t zone)
{
    uint64_t len = zone_length(s, zone);
    return zone >= s->conventional && s->capacity < len ? s->capacity : len;
}

static uint64_t blend(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9fb21c651e98df25u;
    return h ^ (h >> 29);
}

void stamp(uint8_t *buf, uint64_t len, uint32_t zone, uint32_t life, uint64_t address, uint32_t req)
{
    for (uint64_t at = 0; at < len; at += SECTOR) {
        uint64_t w[SECTOR / 8] = {MAGIC, (uint64_t)zone << 32 | life, address + at, req};

        w[4] = blend(blend(blend(MAGIC, w[1]), w[2]), w[3]);
        for (unsigned i = 5; i < SECTOR / 8; i++)
            w[i] = (w[4] & ~UINT64_C(0xffff)) | i; /* each its own, and yet it can be packed */
        memcpy(buf + at, w, SECTOR);
    }
}

const char *describe(const uint8_t *sector, char *buf, size_t room)
{
    static const uint8_t zeros[SECTOR];
    uint8_t again[SECTOR];
    uint64_t w[5];

    memcpy(w, sector, sizeof(w));
    stamp(again, SECTOR, (uint32_t)(w[1] >> 32), (uint32_t)w[1], w[2], (uint32_t)w[3]);
    if (!memcmp(sector, zeros, SECTOR))
        snprintf(buf, room, "zeros");
    else if (w[0] != MAGIC || memcmp(sector, again, SECTOR))
        snprintf(buf, room, "%s %016llx %016llx", w[0] == MAGIC ? "torn stamp" : "foreign bytes",
                 (unsigned long long)w[0], (unsigned long long)w[1]);
    else
        snprintf(buf, room, "zone %u life %u address 0x%llx request %u", (unsigned)(w[1] >> 32),
                 (unsigned)w[1], (unsigned long long)w[2], (unsigned)w[3]);
    return buf;
}
