/* SPDX-License-Identifier: MIT */
/* Raw files and images behind one face: what is where, and its bytes. */
#include <errno.h>
#include <string.h>

#include "disk.h"

bool zt_disk_format(const char *option, const char *text, const char **format)
{
    *format = text;
    if (!strcmp(text, "raw") || !strcmp(text, "qcow2"))
        return true;
    zt_error("%s: must be raw or qcow2, not '%s'", option, text);
    return false;
}

bool zt_disk_zoned(const struct zt_disk *d)
{
    return (d->img || d->dev) && (d->info.flags & ZQCOW2_INFO_ZONED);
}

/* A file whose first bytes are not those of qcow2 is raw, as for qemu-img. */
static int probe(struct zt_disk *d)
{
    char magic[4];
    int rc = d->format ? 0 : zqcow2_backend_read(d->be, magic, sizeof(magic), 0);

    if (rc == 0 && !d->format)
        d->format = memcmp(magic, "QFI\xfb", sizeof(magic)) ? "raw" : "qcow2";
    return rc;
}

/* The device of a raw file ends with its last sector, the rest of which is zeros. */
static int raw_info(struct zt_disk *d)
{
    uint64_t bytes;
    int rc = d->target.share ? 0 : zqcow2_backend_lock(d->be, ZQCOW2_LOCK_SHARED);

    if (rc == 0)
        rc = zqcow2_backend_length(d->be, &bytes);
    if (rc == 0)
        d->info.virtual_size = (bytes + ZT_SECTOR - 1) / ZT_SECTOR * ZT_SECTOR;
    if (rc == 0)
        rc = zt_device_open(d->target.path, false, d->target.share, &d->dev);
    if (rc == 0 && d->dev)
        zt_device_info(d->dev, &d->info);
    return rc;
}

static void close_raw(struct zt_disk *d)
{
    zt_device_close(d->dev);
    d->dev = NULL;
    zqcow2_backend_close(d->be);
    d->be = NULL;
}

bool zt_disk_open(struct zt_disk *d)
{
    int rc = zt_backend_open(&d->target, 0, &d->be);

    if (rc < 0) {
        zt_backend_error(&d->target, rc);
        return false;
    }
    d->img = NULL;
    d->dev = NULL;
    d->info = (struct zqcow2_info)ZQCOW2_INFO_INIT;
    rc = probe(d);
    if (rc == 0 && !strcmp(d->format, "raw"))
        rc = raw_info(d);
    if (rc < 0) {
        zt_backend_error(&d->target, rc);
    } else if (!strcmp(d->format, "raw") && d->target.snapshot) {
        zt_error("%s: --snapshot: a raw file has none", d->target.path);
        rc = -EINVAL;
    } else if (d->dev && zt_device_odd(d->dev)) {
        zt_error("%s: %s", d->target.path, zt_device_odd(d->dev));
        rc = -EINVAL;
    }
    if (rc == 0 && !strcmp(d->format, "raw"))
        return true;
    close_raw(d);
    d->img = rc == 0 ? zt_open(&d->target, 0) : NULL;
    if (d->img && !zt_info(&d->target, d->img, &d->info)) {
        (void)zt_close(&d->target, d->img, 1);
        d->img = NULL;
    }
    return d->img != NULL;
}

int zt_disk_close(struct zt_disk *d, int status)
{
    close_raw(d);
    return d->img ? zt_close(&d->target, d->img, status) : status;
}

/* The holes of a sparse file are zeros that need not be read. */
static int raw_status(struct zt_disk *d, uint64_t off, uint64_t len, struct zqcow2_extent *s)
{
    uint64_t begin, end, to = off + len;
    int rc = zqcow2_backend_data(d->be, off, &begin, &end);

    s->kind = ZQCOW2_BLOCK_DATA;
    s->host = off;
    if (rc < 0 && rc != -EOPNOTSUPP)
        return rc;
    if (rc == 0 && (begin == end || begin / ZT_SECTOR * ZT_SECTOR > off)) {
        s->kind = ZQCOW2_BLOCK_ZERO;
        end = begin == end ? to : begin / ZT_SECTOR * ZT_SECTOR;
    } else if (rc == 0) {
        end = (end + ZT_SECTOR - 1) / ZT_SECTOR * ZT_SECTOR;
    }
    s->length = rc == 0 && end < to ? end - off : len;
    return 0;
}

/*
 * In a zone with bytes that nobody can read, or that have not been written: how many there are from
 * `off` on; else 0. An image knows all but the offline ones itself.
 */
static int unread(struct zt_disk *d, uint64_t off, uint64_t *hidden, uint64_t *shown)
{
    struct zqcow2_zone z;
    uint32_t nr = 1;
    uint64_t end;
    int rc;

    *hidden = 0;
    *shown = UINT64_MAX;
    if (!zt_disk_zoned(d))
        return 0;
    rc = zt_disk_report(d, off, &z, &nr);
    if (rc < 0)
        return rc;
    end = z.start + (z.type == ZQCOW2_ZONE_CONVENTIONAL ? z.length : z.capacity);
    if (z.type == ZQCOW2_ZONE_SEQWRITE_REQ && z.write_pointer < end)
        end = z.write_pointer;
    if (z.state == ZQCOW2_ZONE_OFFLINE)
        end = z.start;
    if (d->img && z.state != ZQCOW2_ZONE_OFFLINE)
        return 0;
    *hidden = off < end ? 0 : z.start + z.length - off;
    *shown = end - off;
    return 0;
}

static int find_status(struct zt_disk *d, uint64_t off, uint64_t len, struct zqcow2_extent *s)
{
    uint64_t most = off < d->info.virtual_size ? d->info.virtual_size - off : 0, hidden, shown;
    int rc;

    *s = (struct zqcow2_extent)ZQCOW2_EXTENT_INIT;
    s->kind = ZQCOW2_BLOCK_UNALLOCATED;
    s->host = UINT64_MAX;
    s->length = len;
    if (!most)
        return 0;
    len = len < most ? len : most;
    rc = unread(d, off, &hidden, &shown);
    if (rc < 0)
        return rc;
    if (hidden) {
        s->length = len < hidden ? len : hidden;
        return 0;
    }
    len = len < shown ? len : shown;
    return d->img ? zqcow2_block_status(d->img, off, len, s) : raw_status(d, off, len, s);
}

/*
 * A long extent is asked for in pieces. To find its end some file systems visit each of its pages,
 * so it is looked for once.
 */
int zt_disk_status(struct zt_disk *d, uint64_t off, uint64_t len, struct zqcow2_extent *s)
{
    uint64_t past = off - d->known_at;
    int rc = 0;

    if (off < d->known_at || past >= d->known.length) {
        rc = find_status(d, off, len, &d->known);
        d->known_at = off;
        past = 0;
    }
    *s = d->known;
    s->length -= past;
    if (s->host != UINT64_MAX)
        s->host += past;
    if (s->length > len)
        s->length = len;
    if (rc < 0)
        d->known.length = 0;
    return rc;
}

bool zt_extent_zero(const struct zqcow2_extent *s)
{
    return s->kind == ZQCOW2_BLOCK_UNALLOCATED || s->kind == ZQCOW2_BLOCK_ZERO;
}

int zt_disk_report(struct zt_disk *d, uint64_t off, struct zqcow2_zone *zones, uint32_t *nr)
{
    return d->img ? zqcow2_zone_report(d->img, off, zones, nr) :
                    zt_device_report(d->dev, off, zones, nr);
}

int zt_disk_read(struct zt_disk *d, void *buf, size_t len, uint64_t off)
{
    return d->img ? zqcow2_read(d->img, buf, len, off) : zqcow2_backend_read(d->be, buf, len, off);
}

size_t zt_nonzero(const uint8_t *buf, size_t len)
{
    /* All bytes are as the first if each is as the one before it. */
    if (!buf[0] && !memcmp(buf, buf + 1, len - 1))
        return len;
    for (size_t at = 0; at < len; at += ZT_SECTOR) {
        size_t n = len - at < ZT_SECTOR ? len - at : ZT_SECTOR;

        if (buf[at] || memcmp(buf + at, buf + at + 1, n - 1))
            return at;
    }
    return len;
}
