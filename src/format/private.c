/* SPDX-License-Identifier: MIT */
/* Finds room for extensions of ours in the first sector of a header. */
#include "format/private.h"

#define HEAD 8u /* of an extension: type, length */
#define ROOM ZQ_PRIVATE_ROOM
#define NAME 48u /* bytes of a feature name: as many as ROOM */

_Static_assert(ROOM == NAME, "the extension takes the place of a feature name");

/* The first extension of the type that begins in the sector; *next: behind the last one. */
static bool find(const uint8_t *sector, const struct zq_header *h, uint32_t type, uint64_t *pos)
{
    for (*pos = h->header_length; *pos + HEAD <= ZQ_SECTOR;) {
        uint32_t t = zq_be32(sector + *pos);

        if (t == type)
            return true;
        if (t == ZQ_EXT_END)
            return false;
        *pos += HEAD + zq_align_up(zq_be32(sector + *pos + 4), 8);
    }
    return false;
}

static void put_head(uint8_t *at, uint32_t type, uint32_t len)
{
    zq_put_be32(at, type);
    zq_put_be32(at + 4, len);
}

/* ROOM bytes from *pos on; behind them a shorter list of feature names, or the end mark. */
bool zq_private_room(uint8_t sector[ZQ_SECTOR], const struct zq_header *h, uint32_t type,
                     uint64_t *pos)
{
    uint64_t end = h->backing_offset ? zq_min(h->backing_offset, ZQ_SECTOR) : ZQ_SECTOR;
    uint32_t names;

    /* One that ends behind the sector was moved there, and counts for nothing. */
    if (find(sector, h, type, pos) && *pos + ROOM <= ZQ_SECTOR)
        return *pos + ROOM <= end && zq_be32(sector + *pos + 4) == ZQ_PRIVATE_EXT;
    if (find(sector, h, ZQ_EXT_FEATURE_NAMES, pos)) {
        names = zq_be32(sector + *pos + 4);
        if (names < NAME || *pos + ROOM + HEAD > end)
            return false;
        put_head(sector + *pos + ROOM, ZQ_EXT_FEATURE_NAMES, names - NAME);
        return true;
    }
    if (!find(sector, h, ZQ_EXT_END, pos) || *pos + ROOM + HEAD > end)
        return false;
    for (unsigned i = HEAD; i < ROOM + HEAD; i++) {
        if (sector[*pos + i])
            return false;
    }
    return true;
}

void zq_private_put(uint8_t at[ZQ_PRIVATE_ROOM], uint32_t type)
{
    put_head(at, type, ZQ_PRIVATE_EXT);
    memset(at + HEAD, 0, ZQ_PRIVATE_EXT);
}
