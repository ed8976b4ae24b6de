/* SPDX-License-Identifier: MIT */
/* Reads L2 entries of 64 bits. Reference: the qcow2 specification, section "Cluster mapping". */
#include "format/l2entry.h"

#include "base/report.h"

#define COMPRESSED ((uint64_t)1 << 62)
#define ZERO       ((uint64_t)1 << 0) /* version 3 */

/* The byte range of a compressed cluster, in whole sectors. */
static void compressed_range(uint64_t raw, uint32_t cluster_bits, uint64_t *host, uint64_t *len)
{
    unsigned shift = 62 - (cluster_bits - 8);
    uint64_t more = raw >> shift & (((uint64_t)1 << (cluster_bits - 8)) - 1);

    *host = raw & (((uint64_t)1 << shift) - 1);
    *len = (more + 1) * ZQ_SECTOR - *host % ZQ_SECTOR;
}

/*
 * COPIED is ignored here: a compressed cluster is never written in place. Check reports the flag.
 */
static const char *read_compressed(const struct zq_bounds *b, uint64_t raw, struct zq_l2_entry *e)
{
    e->type = ZQ_EXT_COMPRESSED;
    e->copied = false;
    compressed_range(raw, b->form.cluster_bits, &e->host, &e->len);
    /* A file may end in the middle of the last sector. */
    if (e->host >= ZQ_MAX_HOST_OFFSET ||
        zq_align_down(e->host + e->len - 1, ZQ_SECTOR) >= b->file_size)
        return "compressed data runs past the end of the file";
    return NULL;
}

/*
 * *e is filled in even if the entry is refused: check counts what such an entry seems to point to.
 * In version 2, bit 0 is reserved; from 3 on it says that the cluster reads as zeros, allocated or
 * not.
 */
static const char *read_entry(const struct zq_bounds *b, uint64_t raw, struct zq_l2_entry *e)
{
    uint64_t known = ZQ_OFFSET_MASK | ZQ_OFLAG_COPIED;

    if (!raw) {
        *e = (struct zq_l2_entry){.type = ZQ_EXT_UNALLOC};
        return NULL;
    }
    if (raw & COMPRESSED)
        return read_compressed(b, raw, e);
    e->host = raw & ZQ_OFFSET_MASK;
    e->len = e->host ? (uint64_t)1 << b->form.cluster_bits : 0;
    e->type = raw & ZERO ? ZQ_EXT_ZERO : e->host ? ZQ_EXT_DATA : ZQ_EXT_UNALLOC;
    e->copied = raw & ZQ_OFLAG_COPIED;
    if (b->form.version >= 3)
        known |= ZERO;
    if (raw & ~known)
        return "reserved bits are set";
    if (e->host)
        return zq_host_misplaced(b, e->host);
    return e->copied ? "COPIED is set without a cluster" : NULL;
}

const char *zq_l2_read(const struct zq_bounds *b, const uint8_t *entry, struct zq_l2_entry *e)
{
    return read_entry(b, zq_be64(entry), e);
}

/*
 * What continues an entry has the same bits, and the next cluster of the file if the entry has one.
 * So it need not be read: it is as sound as the first if its cluster lies in the file.
 */
uint64_t zq_l2_follow(const struct zq_bounds *b, const uint8_t *entry, uint64_t end,
                      const struct zq_l2_entry *first)
{
    uint64_t raw = zq_be64(entry), step = 0, n = 1, most;
    unsigned bits = b->form.cluster_bits;

    if (first->type == ZQ_EXT_COMPRESSED)
        end = zq_min(end, (uint64_t)1 << bits);
    most = ((end - 1) >> bits) + 1;
    if (first->host) {
        uint64_t room = zq_min(b->file_size, ZQ_MAX_HOST_OFFSET) - first->host;

        step = (uint64_t)1 << bits;
        most = zq_min(most, ((room - 1) >> bits) + 1);
    }
    for (; n < most; n++) {
        entry += zq_l2_bytes(&b->form, 1);
        raw += step;
        if (zq_be64(entry) != raw)
            break;
    }
    return zq_min(end, n << bits);
}

void zq_l2_set_own(const struct zq_form *f, uint8_t *entry, bool own)
{
    uint64_t raw = zq_be64(entry);

    (void)f;
    zq_put_be64(entry, (raw & ~ZQ_OFLAG_COPIED) | (own ? ZQ_OFLAG_COPIED : 0));
}

void zq_l2_set_host(const struct zq_form *f, uint8_t *entry, uint64_t host)
{
    (void)f;
    zq_put_be64(entry, (zq_be64(entry) & ZERO) | host | ZQ_OFLAG_COPIED);
}

bool zq_l2_is_zero(const struct zq_form *f, const uint8_t *entry)
{
    return zq_l2_has_zero(f) && zq_be64(entry) == ZERO;
}

void zq_l2_set_zero(const struct zq_form *f, uint8_t *entry)
{
    zq_assert(zq_l2_has_zero(f));
    (void)f;
    zq_put_be64(entry, ZERO);
}

bool zq_l2_says_copied(const struct zq_form *f, const uint8_t *entry)
{
    (void)f;
    return zq_be64(entry) & ZQ_OFLAG_COPIED;
}
