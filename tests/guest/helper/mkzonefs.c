/* SPDX-License-Identifier: MIT */
/* Makes a zonefs: every sequential zone empty, a super block at the start of the first zone. */
#include "helper.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define SUPER_BYTES 4096u

/* Offsets in the super block, little-endian, as the kernel's zonefs documentation gives them. */
enum { AT_MAGIC = 0, AT_CRC = 4, AT_UUID = 72, AT_FEATURES = 88 };

static void put_le32(unsigned char *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(v >> 8 * i);
}

/* The kernel's crc32_le: reflected polynomial, no final inversion. */
static uint32_t crc32_le(uint32_t crc, const unsigned char *p, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320u : crc >> 1;
    }
    return crc;
}

static int write_super(struct zg_dev *d)
{
    unsigned char *sb = zg_buffer(SUPER_BYTES);

    put_le32(sb + AT_MAGIC, 0x5a4f4653);
    for (int i = 0; i < 16; i++)
        sb[AT_UUID + i] = (unsigned char)(0x11 * (i + 1));
    put_le32(sb + AT_CRC, crc32_le(~0u, sb, SUPER_BYTES));
    return zg_pwrite(d->fd, sb, SUPER_BYTES, 0);
}

int zg_mkzonefs(int argc, char **argv)
{
    struct blk_zone_range all;
    struct zg_dev d;
    int rc;

    if (argc != 1 || zg_open_dev(&d, argv[0]))
        return 2;
    all.sector = 0;
    all.nr_sectors = d.zone_sectors * d.nr_zones;
    rc = ioctl(d.fd, BLKRESETZONE, &all) ? -errno : write_super(&d);
    if (!rc && fsync(d.fd))
        rc = -errno;
    if (rc)
        fprintf(stderr, "zqguest: mkzonefs: %s: %s\n", argv[0], strerror(-rc));
    return rc != 0;
}
