/* SPDX-License-Identifier: MIT */
/* Writes of the verb io with any offset and length: the library has sectors. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "io.h"

/* In a sequential zone the sectors around a range cannot be written again. */
static bool widens(const struct zt_io *io, uint64_t len, uint64_t off)
{
    return (off % ZT_SECTOR || len % ZT_SECTOR) && !(io->info.flags & ZQCOW2_INFO_ZONED) &&
           off <= io->info.virtual_size && len <= io->info.virtual_size - off;
}

/* What the first and the last sector hold beside the range. */
static int read_ends(struct zt_io *io, uint8_t *buf, uint64_t span, uint64_t from)
{
    int rc = zqcow2_read(io->img, buf, ZT_SECTOR, from);

    if (rc < 0 || span == ZT_SECTOR)
        return rc;
    return zqcow2_read(io->img, buf + span - ZT_SECTOR, ZT_SECTOR, from + span - ZT_SECTOR);
}

int zt_io_write_bytes(struct zt_io *io, const uint8_t *bytes, uint64_t len, uint64_t off,
                      unsigned flags)
{
    uint64_t lead = off % ZT_SECTOR;
    uint64_t span = (lead + len + ZT_SECTOR - 1) / ZT_SECTOR * ZT_SECTOR;
    uint8_t *buf;
    int rc;

    if (!len || !widens(io, len, off))
        return zqcow2_write(io->img, bytes, (size_t)len, off, flags);
    buf = zt_buffer((size_t)span);
    if (!buf)
        return -ENOMEM;
    rc = read_ends(io, buf, span, off - lead);
    if (rc == 0) {
        memcpy(buf + lead, bytes, (size_t)len);
        rc = zqcow2_write(io->img, buf, (size_t)span, off - lead, flags);
    }
    free(buf);
    return rc;
}

/* The whole sectors in the range: [*begin, *end); false: none. */
static bool whole_sectors(uint64_t len, uint64_t off, uint64_t *begin, uint64_t *end)
{
    *begin = (off + ZT_SECTOR - 1) / ZT_SECTOR * ZT_SECTOR;
    *end = (off + len) / ZT_SECTOR * ZT_SECTOR;
    return *begin < *end;
}

int zt_io_zero_bytes(struct zt_io *io, uint64_t len, uint64_t off, unsigned flags)
{
    static const uint8_t zeros[2 * ZT_SECTOR];
    unsigned plain = flags & ZQCOW2_FUA;
    uint64_t begin, end;
    int rc = 0;

    if (!widens(io, len, off))
        return zqcow2_write_zeroes(io->img, len, off, flags);
    if (flags & ZQCOW2_NO_FALLBACK)
        return -EOPNOTSUPP;
    if (!whole_sectors(len, off, &begin, &end))
        return zt_io_write_bytes(io, zeros, len, off, plain);
    rc = zqcow2_write_zeroes(io->img, end - begin, begin, flags);
    if (rc == 0 && off < begin)
        rc = zt_io_write_bytes(io, zeros, begin - off, off, plain);
    if (rc == 0 && end < off + len)
        rc = zt_io_write_bytes(io, zeros, off + len - end, end, plain);
    return rc;
}

int zt_io_discard_bytes(struct zt_io *io, uint64_t len, uint64_t off)
{
    uint64_t begin, end;

    if (!widens(io, len, off))
        return zqcow2_discard(io->img, len, off, 0);
    return whole_sectors(len, off, &begin, &end) ? zqcow2_discard(io->img, end - begin, begin, 0) :
                                                   0;
}
