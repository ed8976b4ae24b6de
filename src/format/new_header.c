/* SPDX-License-Identifier: MIT */
/*
 * The header of a new image as bytes. What is rewritten in place lies in the first sector, in front
 * of the names, which may be long. No I/O, no allocation.
 */
#include <string.h>

#include "base/report.h"
#include "format/header.h"
#include "format/states.h"
#include "format/zone_ext.h"

static const struct {
    uint8_t type, bit;
    const char *name;
} features[] = {
    {0, 0, "dirty bit"},           {0, 1, "corrupt bit"},
    {0, 2, "external data file"},  {0, 3, "compression type"},
    {0, 4, "extended L2 entries"}, {0, 5, "zoned format"},
    {1, 0, "lazy refcounts"},      {2, 0, "bitmaps"},
    {2, 1, "raw external data"},
};
#define NR_FEATURES (sizeof(features) / sizeof(features[0]))

static size_t put_ext(uint8_t *buf, size_t pos, uint32_t type, uint32_t len)
{
    zq_put_be32(buf + pos, type);
    zq_put_be32(buf + pos + 4, len);
    return pos + 8;
}

/* For programs that do not know a bit: they can name it when they refuse the image. */
static size_t put_features(uint8_t *buf, size_t pos)
{
    pos = put_ext(buf, pos, ZQ_EXT_FEATURE_NAMES, NR_FEATURES * ZQ_FEATURE_BYTES);
    for (size_t i = 0; i < NR_FEATURES; i++, pos += ZQ_FEATURE_BYTES) {
        buf[pos] = features[i].type;
        buf[pos + 1] = features[i].bit;
        memcpy(buf + pos + 2, features[i].name, strlen(features[i].name));
    }
    return pos;
}

static void put_fields(const struct zq_header *h, uint8_t *b)
{
    zq_put_be32(b, ZQ_MAGIC);
    zq_put_be32(b + 4, 3);
    zq_put_be32(b + 20, h->cluster_bits);
    zq_put_be64(b + 24, h->virtual_size);
    zq_put_be32(b + 36, h->l1_entries);
    zq_put_be64(b + 40, h->l1_offset);
    zq_put_be64(b + ZQ_HDR_RT_OFFSET, h->rt_offset);
    zq_put_be32(b + ZQ_HDR_RT_CLUSTERS, h->rt_clusters);
    zq_put_be64(b + ZQ_HDR_INCOMPAT, h->incompat);
    zq_put_be64(b + ZQ_HDR_COMPAT, h->compat);
    zq_put_be64(b + ZQ_HDR_AUTOCLEAR, h->autoclear);
    zq_put_be32(b + 96, h->refcount_order);
    zq_put_be32(b + 100, ZQ_HEADER_V3);
    b[ZQ_HDR_COMPRESSION] = (uint8_t)h->compression_type;
}

/* Behind the end mark. */
static void put_backing_name(struct zq_header *h, uint8_t *buf, size_t pos, const char *name)
{
    h->backing_len = (uint32_t)strlen(name);
    h->backing_offset = pos;
    memcpy(buf + pos, name, h->backing_len);
    zq_put_be64(buf + 8, pos);
    zq_put_be32(buf + 16, h->backing_len);
}

static size_t put_backing_format(uint8_t *buf, size_t pos, const char *format)
{
    uint32_t len = (uint32_t)strlen(format);

    pos = put_ext(buf, pos, ZQ_EXT_BACKING_FORMAT, len);
    memcpy(buf + pos, format, len);
    return (size_t)zq_align_up(pos + len, 8);
}

/* The header, the mark, a format of at most 8 bytes, the end mark, and what else there is. */
static size_t before_name(bool zoned, bool states)
{
    return ZQ_HEADER_V3 + 16u + 16u + 8u + (zoned ? 8u + ZQ_ZONE_EXT_MAX : 0) +
           (states ? ZQ_STATES_ROOM : 0);
}

size_t zq_header_room(uint32_t cluster_bits, bool zoned, bool states)
{
    return (size_t)zq_min(ZQ_MAX_BACKING_NAME,
                          ((size_t)1 << cluster_bits) - before_name(zoned, states));
}

/* An extension with its padding. */
static size_t ext_bytes(size_t len)
{
    return 8 + (size_t)zq_align_up(len, 8);
}

bool zq_header_fits(uint32_t cluster_bits, bool zoned, bool states, const struct zqcow2_backing *b)
{
    size_t data = strlen(b->data_file), bytes = before_name(zoned, states) + strlen(b->name);

    return bytes + (data ? ext_bytes(data) : 0) <=
           zq_min(ZQ_HEADER_BYTES, (uint64_t)1 << cluster_bits);
}

/* Of the data file: the extension is the name. */
static size_t put_data_name(struct zq_header *h, uint8_t *buf, size_t pos, const char *name)
{
    h->data_name_len = (uint32_t)strlen(name);
    h->data_name_offset = (uint32_t)put_ext(buf, pos, ZQ_EXT_DATA_FILE, h->data_name_len);
    memcpy(buf + h->data_name_offset, name, h->data_name_len);
    return pos + ext_bytes(h->data_name_len);
}

void zq_header_build(struct zq_header *h, uint8_t *buf, size_t len, const uint8_t *zoned_data,
                     const struct zqcow2_backing *backing)
{
    size_t pos = ZQ_HEADER_V3, name = strlen(backing->name);

    h->version = 3;
    h->header_length = ZQ_HEADER_V3;
    put_fields(h, buf);
    /* The mark comes first: it is rewritten in place and must share sector 0 with the header. */
    pos = put_ext(buf, pos, ZQ_EXT_MARK, 8);
    h->mark_offset = (uint32_t)pos;
    pos += 8;
    if (h->states_offset) {
        zq_states_build(buf + pos, h, h->states_offset, h->states_zones);
        pos += ZQ_STATES_ROOM;
    }
    if (h->incompat & ZQ_INCOMPAT_ZONED) {
        pos = put_ext(buf, pos, ZQ_EXT_ZONED, h->zoned_len);
        h->zoned_offset = (uint32_t)pos;
        memcpy(buf + pos, zoned_data, h->zoned_len);
        pos = (size_t)zq_align_up(pos + h->zoned_len, 8);
    }
    if (name)
        pos = put_backing_format(buf, pos, backing->format);
    if (backing->data_file[0])
        pos = put_data_name(h, buf, pos, backing->data_file);
    if (pos + 8 + NR_FEATURES * ZQ_FEATURE_BYTES + 8 + name <= len)
        pos = put_features(buf, pos);
    zq_assert(pos + 8 + name <= len);
    pos = put_ext(buf, pos, ZQ_EXT_END, 0);
    if (name)
        put_backing_name(h, buf, pos, backing->name);
}
