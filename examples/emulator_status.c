/* SPDX-License-Identifier: MIT */
/*
 * For device models: which NVMe and virtio-blk status answers a request that the library failed.
 * The program shows that the table is total: no value of `int` is left without an answer.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zqcow2/zqcow2.h>

/* NVMe: status code type in the upper byte, status code in the lower one. */
enum nvme_status {
    NVME_OK = 0x000,
    NVME_INVALID_FIELD = 0x002,
    NVME_INTERNAL = 0x006,
    NVME_WRITE_PROTECTED = 0x020,
    NVME_CAPACITY_EXCEEDED = 0x081,
    NVME_NOT_READY = 0x082,
    NVME_ZONE_BOUNDARY = 0x1b8,
    NVME_ZONE_FULL,
    NVME_ZONE_READ_ONLY,
    NVME_ZONE_OFFLINE,
    NVME_ZONE_INVALID_WRITE,
    NVME_ZONE_TOO_MANY_ACTIVE,
    NVME_ZONE_TOO_MANY_OPEN,
    NVME_ZONE_INVALID_TRANSITION
};

enum virtio_status {
    VIRTIO_OK,
    VIRTIO_IOERR,
    VIRTIO_UNSUPP,
    VIRTIO_ZONE_INVALID_CMD,
    VIRTIO_ZONE_UNALIGNED_WP,
    VIRTIO_ZONE_OPEN_RESOURCE,
    VIRTIO_ZONE_ACTIVE_RESOURCE
};

struct status {
    int rc;
    enum nvme_status nvme;
    enum virtio_status virtio;
};

static const struct status table[] = {
    {ZQCOW2_EZONE_BOUNDARY, NVME_ZONE_BOUNDARY, VIRTIO_ZONE_INVALID_CMD},
    {ZQCOW2_EZONE_FULL, NVME_ZONE_FULL, VIRTIO_ZONE_INVALID_CMD},
    {ZQCOW2_EZONE_RDONLY, NVME_ZONE_READ_ONLY, VIRTIO_ZONE_INVALID_CMD},
    {ZQCOW2_EZONE_OFFLINE, NVME_ZONE_OFFLINE, VIRTIO_ZONE_INVALID_CMD},
    {ZQCOW2_EZONE_WP, NVME_ZONE_INVALID_WRITE, VIRTIO_ZONE_UNALIGNED_WP},
    {ZQCOW2_EZONE_OPEN, NVME_ZONE_TOO_MANY_OPEN, VIRTIO_ZONE_OPEN_RESOURCE},
    {ZQCOW2_EZONE_ACTIVE, NVME_ZONE_TOO_MANY_ACTIVE, VIRTIO_ZONE_ACTIVE_RESOURCE},
    {ZQCOW2_EZONE_STATE, NVME_ZONE_INVALID_TRANSITION, VIRTIO_ZONE_INVALID_CMD},
    {ZQCOW2_ENOTQCOW2, NVME_INTERNAL, VIRTIO_IOERR},
    {ZQCOW2_ENOTZONED, NVME_INVALID_FIELD, VIRTIO_UNSUPP},
    {ZQCOW2_EFEATURE, NVME_INTERNAL, VIRTIO_IOERR},
    {ZQCOW2_ECORRUPT, NVME_INTERNAL, VIRTIO_IOERR},
    {ZQCOW2_EDEAD, NVME_INTERNAL, VIRTIO_IOERR},
    {ZQCOW2_EINACTIVE, NVME_NOT_READY, VIRTIO_IOERR}, /* the guest should not be running */
    {-EINVAL, NVME_INVALID_FIELD, VIRTIO_IOERR},      /* outside the device, unaligned, length 0 */
    {-ENOSPC, NVME_CAPACITY_EXCEEDED, VIRTIO_IOERR},
    {-EDQUOT, NVME_CAPACITY_EXCEEDED, VIRTIO_IOERR},
    {-EROFS, NVME_WRITE_PROTECTED, VIRTIO_IOERR},
    {-ENOMEM, NVME_NOT_READY, VIRTIO_IOERR}, /* the guest may try again */
    {-EOPNOTSUPP, NVME_INVALID_FIELD, VIRTIO_UNSUPP},
};
#define ROWS (sizeof(table) / sizeof(table[0]))

/* What to report to the guest. An error without a row is an I/O error: no guest mistake is hidden
 * so. */
static struct status status_of(int rc)
{
    const struct status ok = {0, NVME_OK, VIRTIO_OK}, bad = {rc, NVME_INTERNAL, VIRTIO_IOERR};

    if (rc >= 0)
        return ok;
    for (size_t i = 0; i < ROWS; i++) {
        if (table[i].rc == rc)
            return table[i];
    }
    return bad;
}

static int has_row(int rc)
{
    for (size_t i = 0; i < ROWS; i++) {
        if (table[i].rc == rc)
            return 1;
    }
    return 0;
}

/* Every error that the library knows by name has a row; every failure is one for the guest too. */
static int check_total(void)
{
    int bad = 0;

    for (int rc = -20000; rc < 0; rc++) {
        struct status s = status_of(rc);
        int own = rc <= -10000 && strcmp(zqcow2_strerror(rc), "unknown error") != 0;

        if (s.nvme == NVME_OK || s.virtio == VIRTIO_OK || (own && !has_row(rc))) {
            fprintf(stderr, "%d (%s) has no answer\n", rc, zqcow2_strerror(rc));
            bad++;
        }
    }
    /* The zone errors stay apart for an NVMe guest: no two share a status. */
    for (size_t i = 0; i < 8; i++) {
        for (size_t j = 0; j < i; j++)
            bad += table[i].nvme == table[j].nvme;
    }
    return bad;
}

int main(void)
{
    for (size_t i = 0; i < ROWS; i++)
        printf("%6d  NVMe type %u status %02Xh  virtio %u  %s\n", table[i].rc, table[i].nvme >> 8,
               table[i].nvme & 0xffu, (unsigned)table[i].virtio, zqcow2_strerror(table[i].rc));
    return check_total() ? 1 : 0;
}
