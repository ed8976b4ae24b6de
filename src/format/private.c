/* SPDX-License-Identifier: MIT */
/* Finds room for extensions of ours in the first sector of a header. */
#include "format/private.h"

#include "base/bytes.h"

#define HEAD    8u /* of an extension: type, length */
#define ROOM    ZQ_PRIVATE_ROOM
#define NAME_AT 8u  /* in the header: the offset of a backing file's name; its length follows */
#define NAME    48u /* bytes of a feature name: as many as ROOM */

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

static bool is_blank(const uint8_t *sector, uint64_t from, uint64_t bytes)
{
    return from + bytes <= ZQ_SECTOR && zq_is_zeros(sector + from, (size_t)bytes);
}

/* The name of a backing file that lies behind the end mark makes room, if the sector has it. */
static void move_name(uint8_t *sector)
{
    uint64_t at = zq_be64(sector + NAME_AT), len = zq_be32(sector + NAME_AT + 8);

    if (at >= ZQ_SECTOR || !len || !is_blank(sector, at + len, ROOM))
        return;
    memmove(sector + at + ROOM, sector + at, (size_t)len);
    memset(sector + at, 0, ROOM);
    zq_put_be64(sector + NAME_AT, at + ROOM);
}

/* Where the name begins, or the sector ends. */
static uint64_t end_of(const uint8_t *sector)
{
    uint64_t at = zq_be64(sector + NAME_AT);

    return at ? zq_min(at, ZQ_SECTOR) : ZQ_SECTOR;
}

/* ROOM bytes from *pos on; behind them a shorter list of feature names, or the end mark. */
bool zq_private_room(uint8_t sector[ZQ_SECTOR], const struct zq_header *h, uint32_t type,
                     uint64_t *pos)
{
    uint32_t names;

    /* One that ends behind the sector was moved there, and counts for nothing. */
    if (find(sector, h, type, pos) && *pos + ROOM <= ZQ_SECTOR)
        return *pos + ROOM <= end_of(sector) && zq_be32(sector + *pos + 4) == ZQ_PRIVATE_EXT;
    if (find(sector, h, ZQ_EXT_FEATURE_NAMES, pos)) {
        names = zq_be32(sector + *pos + 4);
        if (names < NAME || *pos + ROOM + HEAD > end_of(sector))
            return false;
        put_head(sector + *pos + ROOM, ZQ_EXT_FEATURE_NAMES, names - NAME);
        return true;
    }
    if (!find(sector, h, ZQ_EXT_END, pos))
        return false;
    if (*pos + ROOM + HEAD > end_of(sector))
        move_name(sector);
    return *pos + ROOM + HEAD <= end_of(sector) && is_blank(sector, *pos + HEAD, ROOM);
}

void zq_private_put(uint8_t at[ZQ_PRIVATE_ROOM], uint32_t type)
{
    put_head(at, type, ZQ_PRIVATE_EXT);
    memset(at + HEAD, 0, ZQ_PRIVATE_EXT);
}
