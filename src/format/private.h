/* SPDX-License-Identifier: MIT */
/*
 * Where extensions of ours go in the header of an image that has been made. Each has as many bytes
 * as a feature name, so that it can take the place of one. No I/O, no allocation.
 */
#ifndef ZQ_FORMAT_PRIVATE_H
#define ZQ_FORMAT_PRIVATE_H

#include "format/header.h"

#define ZQ_PRIVATE_EXT  40u /* bytes of the extension's data */
#define ZQ_PRIVATE_ROOM (8u + ZQ_PRIVATE_EXT)

/*
 * ZQ_PRIVATE_ROOM bytes of the header's first sector, from *pos on: where an older one of the type
 * is, or in place of a feature name, or of nothing behind the last extension; the name of a backing
 * file that lies there moves by as much. Nothing behind the sector changes. False: there is no
 * room.
 */
bool zq_private_room(uint8_t sector[ZQ_SECTOR], const struct zq_header *h, uint32_t type,
                     uint64_t *pos);
/* An extension, whose data is all 0. */
void zq_private_put(uint8_t at[ZQ_PRIVATE_ROOM], uint32_t type);

#endif
