/* SPDX-License-Identifier: MIT */
/*
 * A new first sector for the header of an image that has been made.
 *
 * One sector is all that a crash leaves whole, so all that belongs together is composed into the
 * first one: the header, each extension, and where the name is. The name may lie behind it, where
 * neither the old name nor an old extension is: it is written before the sector that points at it.
 * The list of feature names, which is for messages only, is shortened where it would take the room.
 */
#include "format/renaming.h"

#include "base/report.h"

#define HEAD    8u  /* of an extension: type, length; and the whole of the end mark */
#define FEATURE 48u /* bytes of a feature name */

struct composing {
    const struct zq_header *h;
    const uint8_t *buf;
    const struct zq_amended *to;            /* NULL: only the backing file changes */
    const struct zq_bitmaps_place *bitmaps; /* from now on; NULL: as they are */
    struct zq_renaming *out;
    size_t pos;             /* in the new sector */
    size_t old_end;         /* behind the old end mark */
    size_t features;        /* where the old list is, 0: there is none */
    uint32_t feature_bytes; /* how long it is */
};

static size_t padded(size_t bytes)
{
    return (size_t)zq_align_up(bytes, 8);
}

static void put_head(uint8_t *at, uint32_t type, size_t len)
{
    zq_put_be32(at, type);
    zq_put_be32(at + 4, (uint32_t)len);
}

/*
 * What another program has moved behind the first sector counts for nothing there, and must not
 * count again because it returns: what is ours is left out, and a mark is cleared.
 */
static bool is_kept(const struct composing *c, uint32_t type, size_t data, size_t len)
{
    if (type == ZQ_EXT_BACKING_FORMAT || type == ZQ_EXT_FEATURE_NAMES)
        return false;
    if (type == ZQ_EXT_BITMAPS && c->to && c->to->version < 3)
        return false; /* there is no bit that could say that they hold */
    if (type == ZQ_EXT_BITMAPS && c->bitmaps)
        return false;
    return (type != ZQ_EXT_STATES && type != ZQ_EXT_COPIES) || data + len <= ZQ_SECTOR;
}

static bool keep(struct composing *c, uint32_t type, size_t data, size_t len)
{
    uint8_t *to = c->out->sector0 + c->pos;
    const uint8_t *from = c->buf + data;

    if (type == ZQ_EXT_ZONED && c->to && c->to->zoned) {
        from = c->to->zoned;
        len = c->to->zoned_len;
    }
    if (c->pos + HEAD + padded(len) + HEAD > ZQ_SECTOR)
        return false;
    put_head(to, type, len);
    memcpy(to + HEAD, from, len);
    if (type == ZQ_EXT_MARK) {
        c->out->mark_offset = (uint32_t)(c->pos + HEAD);
        if (data + len > ZQ_SECTOR)
            to[HEAD] = 0;
    }
    c->pos += HEAD + padded(len);
    return true;
}

/* All extensions but the format and the list of feature names. The header has been parsed. */
static bool keep_all(struct composing *c)
{
    size_t at = c->h->header_length;

    for (;;) {
        uint32_t type = zq_be32(c->buf + at), len = zq_be32(c->buf + at + 4);

        at += HEAD;
        if (type == ZQ_EXT_END)
            break;
        if (type == ZQ_EXT_FEATURE_NAMES && (!c->to || c->to->version >= 3)) {
            c->features = at;
            c->feature_bytes = len;
        }
        if (is_kept(c, type, at, len) && !keep(c, type, at, len))
            return false;
        at += padded(len);
    }
    c->old_end = at;
    return true;
}

/* As many feature names as leave `rest` bytes for what follows; then the end mark. */
static void put_features(struct composing *c, size_t rest)
{
    size_t used = c->pos + HEAD + HEAD + rest, n;

    if (c->features && used + FEATURE <= ZQ_SECTOR) {
        n = (size_t)zq_min(c->feature_bytes / FEATURE, (ZQ_SECTOR - used) / FEATURE) * FEATURE;
        put_head(c->out->sector0 + c->pos, ZQ_EXT_FEATURE_NAMES, n);
        memcpy(c->out->sector0 + c->pos + HEAD, c->buf + c->features, n);
        c->pos += HEAD + n;
    }
    put_head(c->out->sector0 + c->pos, ZQ_EXT_END, 0);
    c->pos += HEAD;
}

static bool put_format(struct composing *c, const char *format)
{
    size_t len = strlen(format);

    if (c->pos + HEAD + padded(len) + HEAD > ZQ_SECTOR)
        return false;
    put_head(c->out->sector0 + c->pos, ZQ_EXT_BACKING_FORMAT, len);
    memcpy(c->out->sector0 + c->pos + HEAD, format, len);
    c->pos += HEAD + padded(len);
    return true;
}

/* In the header cluster, behind its first sector, beside all that the old header points to. */
static uint64_t find_place(const struct composing *c, size_t n)
{
    uint64_t at = zq_align_up(zq_max(c->old_end, ZQ_SECTOR), ZQ_SECTOR);
    uint64_t old = zq_header_name_at(c->buf), old_end = old + c->h->backing_len;

    n = (size_t)zq_align_up(n, ZQ_SECTOR);
    if (old && at < old_end && old < at + n)
        at = zq_align_up(old_end, ZQ_SECTOR);
    return at + n <= (uint64_t)1 << c->h->cluster_bits ? at : 0;
}

/* In the sector, if it has room beside all feature names, or nowhere else. */
static bool put_name(struct composing *c, const char *name)
{
    size_t n = strlen(name), list = c->features ? HEAD + c->feature_bytes : 0;
    uint64_t at = find_place(c, n);
    bool inside = c->pos + list + HEAD + n <= ZQ_SECTOR || !at;

    if (inside && c->pos + HEAD + n > ZQ_SECTOR)
        return false;
    put_features(c, inside ? n : 0);
    if (inside) {
        at = c->pos;
        memcpy(c->out->sector0 + c->pos, name, n);
    } else {
        c->out->name_at = at;
        memcpy(c->out->name, name, n);
    }
    zq_put_be64(c->out->sector0 + 8, at);
    zq_put_be32(c->out->sector0 + 16, (uint32_t)n);
    return true;
}

static bool is_raw(const struct zq_header *h)
{
    return h->incompat & ZQ_INCOMPAT_DATA_FILE && h->autoclear & ZQ_AUTOCLEAR_RAW_DATA;
}

/*
 * A program that writes an image clears the autoclear bits of what it does not maintain. A raw data
 * file stays one: what the device reads as does not change.
 */
static uint64_t kept_bits(const struct zq_header *h)
{
    return (h->states_offset ? ZQ_AUTOCLEAR_STATES : 0) | (h->copies ? ZQ_AUTOCLEAR_COPIES : 0) |
           (is_raw(h) ? ZQ_AUTOCLEAR_RAW_DATA : 0) | (h->bitmaps_offset ? ZQ_AUTOCLEAR_BITMAPS : 0);
}

static void put_amended(struct composing *c)
{
    uint8_t *to = c->out->sector0;

    zq_put_be32(to + ZQ_HDR_VERSION, c->to->version);
    zq_header_put_rt(to + ZQ_HDR_RT_OFFSET, c->to->rt_offset, c->to->rt_clusters);
    if (c->to->version < 3)
        return;
    zq_put_be64(to + ZQ_HDR_INCOMPAT, c->to->incompat);
    zq_put_be64(to + ZQ_HDR_COMPAT, c->to->compat);
    zq_put_be64(to + ZQ_HDR_AUTOCLEAR, c->to->autoclear);
    zq_put_be32(to + ZQ_HDR_REFCOUNT_ORDER, c->to->refcount_order);
    zq_put_be32(to + ZQ_HDR_LENGTH, (uint32_t)c->pos);
}

/* What version 2 has no fields for is 0 in a header that gets them. */
static void put_fields(struct composing *c)
{
    uint8_t *to = c->out->sector0;
    uint32_t old = c->h->header_length;

    c->pos = old;
    if (c->to && c->to->version != c->h->version)
        c->pos = c->to->version < 3 ? ZQ_HEADER_V2 : ZQ_HEADER_V3;
    memcpy(to, c->buf, (size_t)zq_min(old, c->pos));
    zq_put_be64(to + 8, 0);
    zq_put_be32(to + 16, 0);
    if (c->to)
        put_amended(c);
    else if (c->h->version >= 3)
        zq_put_be64(to + ZQ_HDR_AUTOCLEAR, kept_bits(c->h));
}

int zq_header_may_rename(const struct zq_header *h, const struct zqcow2_backing *to,
                         struct zqcow2_error *err)
{
    if (is_raw(h) && to->name[0])
        return zq_fail(err, ZQCOW2_EFEATURE,
                       "a raw data file holds all data, so the image cannot have a backing file");
    return 0;
}

/* Another directory of bitmaps, or none. */
static bool put_bitmaps(struct composing *c)
{
    const struct zq_bitmaps_place *p = c->bitmaps;
    uint8_t *to = c->out->sector0 + c->pos, *bits = c->out->sector0 + ZQ_HDR_AUTOCLEAR;
    uint64_t others = zq_be64(c->buf + ZQ_HDR_AUTOCLEAR) & ~ZQ_AUTOCLEAR_BITMAPS;

    if (!p)
        return true;
    zq_put_be64(bits, others | (p->nr ? ZQ_AUTOCLEAR_BITMAPS : 0));
    if (!p->nr)
        return true;
    if (c->pos + HEAD + ZQ_BITMAPS_EXT + HEAD > ZQ_SECTOR)
        return false;
    put_head(to, ZQ_EXT_BITMAPS, ZQ_BITMAPS_EXT);
    zq_bitmaps_place_put(to + HEAD, p);
    c->pos += HEAD + ZQ_BITMAPS_EXT;
    return true;
}

static int recompose(struct composing *c, const struct zqcow2_backing *to, const char *what,
                     struct zqcow2_error *err)
{
    bool fits = c->h->header_length + HEAD <= ZQ_SECTOR;

    zq_assert(strlen(to->name) <= ZQ_MAX_BACKING_NAME);
    *c->out = (struct zq_renaming){.name_at = 0};
    if (fits) {
        put_fields(c);
        fits = keep_all(c) && put_bitmaps(c);
    }
    if (fits && !to->name[0])
        put_features(c, 0);
    else if (fits)
        fits = (!to->format[0] || put_format(c, to->format)) && put_name(c, to->name);
    return fits ? 0 : zq_fail(err, ZQCOW2_EFEATURE, "the header has no room for %s", what);
}

int zq_header_rename(const struct zq_header *h, const uint8_t *buf, const struct zqcow2_backing *to,
                     struct zq_renaming *out, struct zqcow2_error *err)
{
    struct composing c = {.h = h, .buf = buf, .out = out};

    if (zq_header_may_rename(h, to, err) < 0)
        return ZQCOW2_EFEATURE;
    return recompose(&c, to, "the name of another backing file", err);
}

int zq_header_amend(const struct zq_header *h, const uint8_t *buf,
                    const struct zqcow2_backing *backing, const struct zq_amended *to,
                    struct zq_renaming *out, struct zqcow2_error *err)
{
    struct composing c = {.h = h, .buf = buf, .to = to, .out = out};

    return recompose(&c, backing, "its fields in another form", err);
}

int zq_header_put_bitmaps(const struct zq_header *h, const uint8_t *buf,
                          const struct zq_bitmaps_place *p, struct zq_renaming *out,
                          struct zqcow2_error *err)
{
    struct composing c = {.h = h, .buf = buf, .out = out, .bitmaps = p};
    struct zqcow2_backing now;

    zq_header_backing(h, buf, &now);
    return recompose(&c, &now, "bitmaps", err);
}
