/* SPDX-License-Identifier: MIT */
/*
 * Turns the header cluster into a checked struct zq_header, and a new image's struct into bytes.
 *
 * Every field is checked here, against the file's size and the other fields, and once: what is in a
 * struct zq_header needs no second look. A refusal names the field, its value and its offset.
 */
#include "format/header.h"

#include <inttypes.h>

#include "base/bytes.h"
#include "base/report.h"
#include "format/copies.h"
#include "format/snapshot.h"
#include "format/states.h"

#define MAX_SNAPSHOTS  65536u
#define MAX_EXTENSIONS 512u /* keeps the search for doubles short */

#define KNOWN_INCOMPAT \
    (ZQ_INCOMPAT_DIRTY | ZQ_INCOMPAT_CORRUPT | ZQ_INCOMPAT_DATA_FILE | ZQ_INCOMPAT_COMPRESSION | \
     ZQ_INCOMPAT_EXTENDED_L2 | ZQ_INCOMPAT_ZONED)
#define KNOWN_AUTOCLEAR \
    (ZQ_AUTOCLEAR_BITMAPS | ZQ_AUTOCLEAR_RAW_DATA | ZQ_AUTOCLEAR_STATES | ZQ_AUTOCLEAR_COPIES)

/* Every refusal of a field has one form, so that people and tests find the same three things. */
static int bad(struct zqcow2_error *err, const char *field, uint64_t value, uint64_t off,
               const char *why)
{
    return zq_fail(err, ZQCOW2_ECORRUPT, "%s %" PRIu64 " (0x%" PRIx64 ") at byte %" PRIu64 ": %s",
                   field, value, value, off, why);
}

/* Valid, but not supported: other programs can use the image, so it is not called corrupt. */
static int lacking(struct zqcow2_error *err, const char *field, uint64_t value, uint64_t off,
                   const char *what)
{
    return zq_fail(err, ZQCOW2_EFEATURE,
                   "%s %" PRIu64 " (0x%" PRIx64 ") at byte %" PRIu64 ": %s not supported", field,
                   value, value, off, what);
}

int zq_header_peek(const uint8_t *buf, size_t len, uint32_t *cluster_bits, struct zqcow2_error *err)
{
    uint32_t version, bits;

    if (len < 8)
        return zq_fail(err, ZQCOW2_ENOTQCOW2, "file length %zu: too short for a qcow2 file", len);
    if (zq_be32(buf) != ZQ_MAGIC)
        return zq_fail(err, ZQCOW2_ENOTQCOW2, "magic 0x%08" PRIx32 " at byte 0: not a qcow2 file",
                       zq_be32(buf));
    version = zq_be32(buf + 4);
    if (version != 2 && version != 3)
        return zq_fail(err, ZQCOW2_ENOTQCOW2, "version %" PRIu32 " at byte 4: must be 2 or 3",
                       version);
    if (len < (version == 2 ? 72 : 104))
        return bad(err, "file length", len, 0, "ends inside the header");
    bits = zq_be32(buf + 20);
    if (bits < 9 || bits > 21)
        return bad(err, "cluster_bits", bits, 20, "must be 9 to 21");
    *cluster_bits = bits;
    return 0;
}

/* ---- extensions ---- */

struct ext {
    uint32_t type, len, data; /* data: its offset in the file */
};

/* The bytes between the header and the backing name, or the end of the cluster. */
struct ext_area {
    const uint8_t *buf;
    uint64_t start, end;
    uint64_t file_size;
};

/*
 * 1: *e is the extension at *pos, which moves behind it; 0: the end marker. Each has 8 bytes of
 * type and length and is padded to 8; the padding of the last may lie beyond the area. The length
 * is judged whatever the type: QEMU refuses an end marker whose length does not fit, too.
 */
static int next_ext(const struct ext_area *a, uint64_t *pos, struct ext *e,
                    struct zqcow2_error *err)
{
    if (*pos + 8 > a->end)
        return bad(err, "header extension area", a->end, *pos, "ends without an end marker");
    e->type = zq_be32(a->buf + *pos);
    e->len = zq_be32(a->buf + *pos + 4);
    e->data = (uint32_t)*pos + 8;
    if (e->len > a->end - e->data)
        return zq_fail(err, ZQCOW2_ECORRUPT,
                       "header extension 0x%08" PRIx32 " at byte %" PRIu64 ": length %" PRIu32
                       " exceeds the extension area, which ends at %" PRIu64,
                       e->type, *pos, e->len, a->end);
    if (e->type == ZQ_EXT_END)
        return 0;
    *pos = zq_align_up(e->data + (uint64_t)e->len, 8);
    return 1;
}

static bool find_ext(const struct ext_area *a, uint32_t type, struct ext *e)
{
    uint64_t pos = a->start;

    for (unsigned n = 0; n < MAX_EXTENSIONS && next_ext(a, &pos, e, NULL) == 1; n++) {
        if (e->type == type)
            return true;
    }
    return false;
}

/* Twice is refused: which of the two counts would depend on the program that reads it. */
static bool seen_before(const struct ext_area *a, const struct ext *e)
{
    struct ext first = {0};

    return find_ext(a, e->type, &first) && first.data != e->data;
}

static int take_mark(struct zq_header *h, const struct ext *e, struct zqcow2_error *err)
{
    if (e->len != 8)
        return bad(err, "mark extension length", e->len, e->data - 4, "must be 8");
    /* Another program may have moved it to where it cannot be rewritten with the header. */
    if (e->data + e->len <= ZQ_SECTOR)
        h->mark_offset = e->data;
    return 0;
}

static int take_features(const struct ext *e, struct zqcow2_error *err)
{
    if (e->len % ZQ_FEATURE_BYTES)
        return bad(err, "feature name table length", e->len, e->data - 4,
                   "must be a multiple of 48");
    return 0;
}

/*
 * Without its autoclear bit the extension is stale: a program that did not maintain it has changed
 * the image, and the clusters that it names may have other owners now. Its length is judged all the
 * same, as QEMU does.
 */
static int take_bitmaps(struct zq_header *h, const struct ext *e, struct zqcow2_error *err)
{
    if (e->len != 24)
        return bad(err, "bitmaps extension length", e->len, e->data - 4, "must be 24");
    if (!(h->autoclear & ZQ_AUTOCLEAR_BITMAPS))
        return 0;
    h->bitmaps_offset = e->data;
    h->bitmaps_len = e->len;
    return 0;
}

/* Version 2 has no feature bits: other programs would not know that they must keep away. */
static int take_zoned(struct zq_header *h, const struct ext *e, struct zqcow2_error *err)
{
    if (h->version < 3)
        return bad(err, "zoned extension in a file of version", h->version, e->data - 8,
                   "needs version 3");
    h->zoned_offset = e->data;
    h->zoned_len = e->len;
    return 0;
}

static int take_backing_format(struct zq_header *h, const struct ext *e, struct zqcow2_error *err)
{
    if (e->len > ZQ_MAX_BACKING_FORMAT)
        return bad(err, "backing format length", e->len, e->data - 4, "must be at most 15");
    h->backing_format_offset = e->data;
    h->backing_format_len = e->len;
    return 0;
}

/* As with a backing file, a zero byte would make the name in a message another one. */
static int take_data_file(struct zq_header *h, const struct ext_area *a, const struct ext *e,
                          struct zqcow2_error *err)
{
    if (!(h->incompat & ZQ_INCOMPAT_DATA_FILE))
        return bad(err, "incompatible_features", h->incompat, ZQ_HDR_INCOMPAT,
                   "an external data file is named but its bit 2 is clear");
    if (e->len > ZQ_MAX_BACKING_NAME)
        return bad(err, "data file name length", e->len, e->data - 4, "must be at most 1023");
    if (memchr(a->buf + e->data, 0, e->len))
        return bad(err, "data file name length", e->len, e->data - 4,
                   "the name contains a zero byte");
    h->data_name_offset = e->data;
    h->data_name_len = e->len;
    return 0;
}

static int take_ext(struct zq_header *h, const struct ext_area *a, const struct ext *e,
                    struct zqcow2_error *err)
{
    switch (e->type) {
    case ZQ_EXT_STATES:
        return zq_states_take(h, a->buf + e->data, e->len, e->data, a->file_size, err);
    case ZQ_EXT_COPIES: return zq_copies_take(h, a->buf + e->data, e->len, e->data, err);
    case ZQ_EXT_MARK: return take_mark(h, e, err);
    case ZQ_EXT_FEATURE_NAMES: return take_features(e, err);
    case ZQ_EXT_BITMAPS: return take_bitmaps(h, e, err);
    case ZQ_EXT_ZONED: return take_zoned(h, e, err);
    case ZQ_EXT_DATA_FILE: return take_data_file(h, a, e, err);
    case ZQ_EXT_CRYPTO:
        return bad(err, "crypt_method", h->crypt_method, 32,
                   "an encryption header is present but nothing is encrypted");
    case ZQ_EXT_BACKING_FORMAT: return take_backing_format(h, e, err);
    default: h->unknown_ext = true; return 0;
    }
}

/* Of ours one may be where another program has moved it, which counts for nothing. */
static bool is_private(uint32_t type)
{
    return type == ZQ_EXT_STATES || type == ZQ_EXT_COPIES;
}

static int parse_exts(struct zq_header *h, const struct ext_area *a, struct zqcow2_error *err)
{
    uint64_t pos = a->start;
    struct ext e = {0};
    int rc;

    for (unsigned n = 0; (rc = next_ext(a, &pos, &e, err)) == 1; n++) {
        if (n == MAX_EXTENSIONS)
            return bad(err, "number of header extensions", n + 1, e.data - 8, "more than 512");
        if (!is_private(e.type) && seen_before(a, &e))
            return bad(err, "header extension", e.type, e.data - 8, "occurs twice");
        rc = take_ext(h, a, &e, err);
        if (rc < 0)
            return rc;
        /* Without a model it means no zones, yet a table may be its own. */
        if (e.type == ZQ_EXT_ZONED && (!e.len || !a->buf[e.data]))
            h->unknown_ext = true;
    }
    return rc;
}

/* ---- features ---- */

/* The name that the image itself gives to an incompatible feature, else "". */
static void feature_name(const struct ext_area *a, unsigned bit, char *out, size_t room)
{
    struct ext e = {0};

    out[0] = '\0';
    if (!find_ext(a, ZQ_EXT_FEATURE_NAMES, &e))
        return;
    for (uint32_t i = 0; i + ZQ_FEATURE_BYTES <= e.len; i += ZQ_FEATURE_BYTES) {
        const uint8_t *f = a->buf + e.data + i;
        if (f[0] == 0 && f[1] == bit) {
            zq_printable(out, room, f + 2, ZQ_FEATURE_BYTES - 2);
            return;
        }
    }
}

/* The specification requires that unknown incompatible bits stop any use, reading as well. */
static int check_unknown_bits(const struct zq_header *h, const struct ext_area *a,
                              struct zqcow2_error *err)
{
    uint64_t unknown = h->incompat & ~KNOWN_INCOMPAT;
    char name[ZQ_FEATURE_BYTES];
    unsigned bit;

    if (!unknown)
        return 0;
    bit = zq_ctz(unknown);
    feature_name(a, bit, name, sizeof(name));
    return zq_fail(err, ZQCOW2_EFEATURE,
                   "incompatible_features 0x%" PRIx64 " at byte %d: unknown bit %u%s%s%s%s",
                   h->incompat, ZQ_HDR_INCOMPAT, bit, name[0] ? " \"" : "", name,
                   name[0] ? "\"" : "", unknown & (unknown - 1) ? " and more" : "");
}

static int check_features(const struct zq_header *h, const struct ext_area *a, bool rdwr,
                          struct zqcow2_error *err)
{
    int rc = check_unknown_bits(h, a, err);

    if (rc < 0)
        return rc;
    if (h->incompat & ZQ_INCOMPAT_EXTENDED_L2 && h->cluster_bits < ZQ_EXTENDED_CLUSTER_BITS)
        return bad(err, "cluster_bits", h->cluster_bits, 20,
                   "extended L2 entries need at least 14");
    if (rdwr && (h->incompat & ZQ_INCOMPAT_CORRUPT))
        return bad(err, "incompatible_features", h->incompat, ZQ_HDR_INCOMPAT,
                   "the image is marked corrupt: check and repair it before writing");
    return 0;
}

static int check_crypt(const struct zq_header *h, struct zqcow2_error *err)
{
    if (!h->crypt_method)
        return 0;
    if (h->crypt_method > 2)
        return bad(err, "crypt_method", h->crypt_method, 32, "unknown encryption method");
    return lacking(err, "crypt_method", h->crypt_method, 32,
                   h->crypt_method == 1 ? "AES encryption is" : "LUKS encryption is");
}

static int check_compression(const struct zq_header *h, struct zqcow2_error *err)
{
    if (!(h->incompat & ZQ_INCOMPAT_COMPRESSION)) {
        if (h->compression_type)
            return bad(err, "compression_type", h->compression_type, 104,
                       "is set but incompatible feature bit 3 is clear");
        return 0;
    }
    if (!h->compression_type)
        return bad(err, "compression_type", 0, 104, "is 0 but incompatible feature bit 3 is set");
    if (h->compression_type != 1)
        return lacking(err, "compression_type", h->compression_type, 104,
                       "this compression type is");
    return 0;
}

/* A zero byte would make the name that a message shows another one than the name that is opened. */
static int check_backing(const struct zq_header *h, const uint8_t *buf, size_t len,
                         struct zqcow2_error *err)
{
    if (!h->backing_offset)
        return 0;
    if (h->backing_len > ZQ_MAX_BACKING_NAME)
        return bad(err, "backing_file_size", h->backing_len, 16, "must be at most 1023");
    if (h->backing_offset < h->header_length || h->backing_offset > len ||
        h->backing_len > len - h->backing_offset)
        return bad(err, "backing_file_offset", h->backing_offset, 8,
                   "the name must lie in the first cluster, behind the header");
    if (memchr(buf + h->backing_offset, 0, h->backing_len))
        return bad(err, "backing_file_offset", h->backing_offset, 8,
                   "the name contains a zero byte");
    return 0;
}

/*
 * What cannot be with a data file: a snapshot would need clusters of its own in it (D3), and a raw
 * one must have all of the data itself (D1).
 */
static int check_data_file(const struct zq_header *h, struct zqcow2_error *err)
{
    if (!(h->incompat & ZQ_INCOMPAT_DATA_FILE))
        return 0;
    if (h->nb_snapshots)
        return lacking(err, "nb_snapshots", h->nb_snapshots, 60,
                       "an external data file beside snapshots is");
    if (h->stored_size > ZQ_MAX_DATA_SIZE)
        return bad(err, "size", h->stored_size, 24, "must be at most 2^56 with a data file");
    if (h->backing_len && h->autoclear & ZQ_AUTOCLEAR_RAW_DATA)
        return lacking(err, "autoclear_features", h->autoclear, ZQ_HDR_AUTOCLEAR,
                       "a raw external data file beside a backing file is");
    return 0;
}

/* ---- tables that the header points to ---- */

/* end: of the file, or of its last cluster where a table may end behind the file. */
static int check_table(const struct zq_header *h, const char *field, unsigned at, uint64_t offset,
                       uint64_t bytes, uint64_t end, struct zqcow2_error *err)
{
    if (!offset && bytes)
        return bad(err, field, offset, at, "points at the header");
    if (offset & (((uint64_t)1 << h->cluster_bits) - 1))
        return bad(err, field, offset, at, "is not aligned to a cluster");
    if (offset >= ZQ_MAX_HOST_OFFSET)
        return bad(err, field, offset, at, "must be below 2^56");
    if (offset > end || bytes > end - offset)
        return bad(err, field, offset, at, "the table runs past the end of the file");
    return 0;
}

/* By stored_size: an L1 table that covers it covers the whole sectors of it, too. */
static int check_l1(const struct zq_header *h, uint64_t file_size, struct zqcow2_error *err)
{
    unsigned l2_bits = h->cluster_bits - 3;
    uint64_t clusters;

    if (h->l1_entries > ZQ_MAX_L1_BYTES / 8)
        return bad(err, "l1_size", h->l1_entries, 36, "the L1 table is larger than 32 MiB");
    clusters = zq_div_up(h->stored_size, (uint64_t)1 << h->cluster_bits);
    if (zq_div_up(clusters, (uint64_t)1 << l2_bits) > h->l1_entries)
        return bad(err, "l1_size", h->l1_entries, 36, "the L1 table does not cover the size");
    return check_table(h, "l1_table_offset", 40, h->l1_offset, (uint64_t)h->l1_entries * 8,
                       file_size, err);
}

int zq_header_judge_rt(const struct zq_header *h, uint64_t file_size, struct zqcow2_error *err)
{
    uint64_t cluster = (uint64_t)1 << h->cluster_bits;
    uint64_t bytes = (uint64_t)h->rt_clusters << h->cluster_bits;

    if (!h->rt_clusters || bytes > ZQ_MAX_RT_BYTES)
        return bad(err, "refcount_table_clusters", h->rt_clusters, ZQ_HDR_RT_CLUSTERS,
                   "must be at least 1 and at most 8 MiB");
    /* A file may end in the middle of a cluster; the rest of the table is then zeros. */
    return check_table(
        h, "refcount_table_offset", ZQ_HDR_RT_OFFSET, h->rt_offset, bytes,
        file_size > UINT64_MAX - cluster ? file_size : zq_align_up(file_size, cluster), err);
}

int zq_header_judge_snapshots(const struct zq_header *h, uint64_t file_size,
                              struct zqcow2_error *err)
{
    if (!h->nb_snapshots)
        return 0;
    if (h->nb_snapshots > MAX_SNAPSHOTS)
        return bad(err, "nb_snapshots", h->nb_snapshots, 60, "more than 65536");
    return check_table(h, "snapshots_offset", ZQ_HDR_SNAPSHOTS, h->snapshots_offset,
                       (uint64_t)h->nb_snapshots * ZQ_SNAPSHOT_FIXED, file_size, err);
}

/*
 * What is in the clusters of the disk shows without refcounts and without snapshots. A writer would
 * take what these protect for free.
 */
static int check_tables(struct zq_header *h, uint64_t file_size, bool rdwr,
                        struct zqcow2_error *err)
{
    struct zqcow2_error why;

    h->rt_wrong = zq_header_judge_rt(h, file_size, &why) < 0;
    if (rdwr && (h->rt_wrong || zq_header_judge_snapshots(h, file_size, &why) < 0))
        return zq_fail(err, ZQCOW2_ECORRUPT, "%s: check and repair the image before writing",
                       why.text);
    h->snapshots_wrong =
        h->nb_snapshots && check_table(h, "snapshots_offset", ZQ_HDR_SNAPSHOTS, h->snapshots_offset,
                                       ZQ_SNAPSHOT_FIXED, file_size, NULL) < 0;
    h->snapshots_bytes = (uint64_t)h->nb_snapshots * ZQ_SNAPSHOT_FIXED;
    return 0;
}

/* ---- the whole ---- */

/* Of both versions; version 3 then replaces the last two. */
static void load_fields(struct zq_header *h, const uint8_t *b)
{
    h->version = zq_be32(b + 4);
    h->backing_offset = zq_be64(b + ZQ_HDR_BACKING);
    h->backing_len = h->backing_offset ? zq_be32(b + 16) : 0;
    h->cluster_bits = zq_be32(b + 20);
    h->stored_size = zq_be64(b + 24);
    h->virtual_size = zq_align_down(h->stored_size, ZQ_SECTOR); /* what others make of it */
    h->crypt_method = zq_be32(b + 32);
    h->l1_entries = zq_be32(b + 36);
    h->l1_offset = zq_be64(b + 40);
    h->rt_offset = zq_be64(b + ZQ_HDR_RT_OFFSET);
    h->rt_clusters = zq_be32(b + ZQ_HDR_RT_CLUSTERS);
    h->nb_snapshots = zq_be32(b + 60);
    h->snapshots_offset = zq_be64(b + ZQ_HDR_SNAPSHOTS);
    h->refcount_order = 4;
    h->header_length = 72;
}

/* The compression type, at byte 104, is optional: a shorter header means 0. */
static int load_version3(struct zq_header *h, const uint8_t *b, size_t len,
                         struct zqcow2_error *err)
{
    h->incompat = zq_be64(b + ZQ_HDR_INCOMPAT);
    h->compat = zq_be64(b + ZQ_HDR_COMPAT);
    h->autoclear = zq_be64(b + ZQ_HDR_AUTOCLEAR);
    h->refcount_order = zq_be32(b + 96);
    h->header_length = zq_be32(b + 100);
    h->unknown_autoclear = (h->autoclear & ~KNOWN_AUTOCLEAR) != 0;
    if (h->header_length < 104 || h->header_length % 8 || h->header_length > 1u << h->cluster_bits)
        return bad(err, "header_length", h->header_length, 100,
                   "must be a multiple of 8 from 104 to the cluster size");
    if (h->header_length > len)
        return bad(err, "header_length", h->header_length, 100, "exceeds the length of the file");
    if (h->header_length > 104)
        h->compression_type = b[ZQ_HDR_COMPRESSION];
    return 0;
}

int zq_header_parse(struct zq_header *h, const uint8_t *buf, size_t len, uint64_t file_size,
                    bool rdwr, struct zqcow2_error *err)
{
    struct ext_area area = {buf, 0, len, file_size};
    uint32_t bits;
    int rc;

    *h = (struct zq_header){0};
    rc = zq_header_peek(buf, len, &bits, err);
    if (rc < 0)
        return rc;
    load_fields(h, buf);
    if (h->version == 3)
        rc = load_version3(h, buf, len, err);
    if (rc < 0)
        return rc;
    h->backing_stray = h->backing_offset && !h->backing_len && h->backing_offset < h->header_length;
    if (h->backing_stray)
        h->backing_offset = 0; /* no name can be there, and there is none: QEMU opens it, too */
    area.start = h->header_length;
    if (h->backing_offset)
        area.end = zq_min(h->backing_offset, area.end);
    if ((rc = check_features(h, &area, rdwr, err)) < 0 || (rc = check_crypt(h, err)) < 0 ||
        (rc = check_backing(h, buf, len, err)) < 0 || (rc = check_compression(h, err)) < 0)
        return rc;
    if (h->refcount_order > 6)
        return bad(err, "refcount_order", h->refcount_order, 96, "must be 0 to 6");
    if (h->stored_size > ZQ_MAX_VIRTUAL_SIZE)
        return bad(err, "size", h->stored_size, 24, "must be at most 2^62");
    if ((rc = check_tables(h, file_size, rdwr, err)) < 0 || (rc = parse_exts(h, &area, err)) < 0 ||
        (rc = check_data_file(h, err)) < 0)
        return rc;
    rc = check_l1(h, file_size, err);
    h->l1_wrong = rc < 0;
    return rc;
}

/*
 * The name is where the sector says: it may have moved within it since `h` was parsed, to make room
 * for an extension.
 */
void zq_header_backing(const struct zq_header *h, const uint8_t *buf, struct zqcow2_backing *b)
{
    zq_assert(h->backing_len < sizeof(b->name));
    *b = (struct zqcow2_backing)ZQCOW2_BACKING_INIT;
    memcpy(b->name, buf + zq_header_name_at(buf), h->backing_len);
    if (h->backing_len)
        memcpy(b->format, buf + h->backing_format_offset, h->backing_format_len);
    memcpy(b->data_file, buf + h->data_name_offset, h->data_name_len);
}
