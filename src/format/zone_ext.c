/* SPDX-License-Identifier: MIT */
/* Reads and writes every revision of the zoned extension and of the write-pointer table. */
#include "format/zone_ext.h"

#include <errno.h>
#include <inttypes.h>

#include "base/bytes.h"
#include "base/report.h"

#define HOST_MANAGED 1
#define WRAP         ((uint64_t)1 << 32) /* layout v7 first stored zone starts modulo this */
#define STATE_SHIFT  60
#define STATE_EMPTY  1u
#define STATE_CLOSED 4u
#define STATE_FULL   14u
#define MAX_APPEND   (UINT32_MAX - 4095u)

uint32_t zq_geometry_max_append(const struct zq_geometry *g)
{
    uint64_t limit = g->max_append ? g->max_append : MAX_APPEND;

    limit = zq_min(limit, g->capacity) & ~(uint64_t)(ZQ_SECTOR - 1);
    return (uint32_t)zq_max(limit, ZQ_SECTOR);
}

/* ---- the extension's fields ---- */

/* Byte offsets of the fields in one revision; NONE: not stored. size_width: of zone size, capacity.
 */
#define NONE 0xffu
struct fields {
    uint16_t layout;
    uint8_t len, size_width;
    uint8_t zone_size, capacity, conventional, nr_zones, max_active, max_open, max_append;
    uint8_t table_size, table_offset;
};

static const struct fields layout_44 = {
    ZQCOW2_LAYOUT_44, 44, 8, 8, 16, 32, 4, 36, 40, NONE, NONE, 24};
static const struct fields layout_48b = {
    ZQCOW2_LAYOUT_48B, 48, 8, 8, 16, 24, 4, 28, 32, 36, NONE, 40};
static const struct fields layout_56 = {ZQCOW2_LAYOUT_56, 56, 8, 4, 12, 20, 24, 28, 32, 36, 40, 48};
static const struct fields layout_v7 = {ZQCOW2_LAYOUT_V7, 48, 4, 4, 8, 12, 16, 20, 24, 28, 32, 40};
static const struct fields layout_v3 = {ZQCOW2_LAYOUT_V3, 48, 4, 4, 8, 12, 16, 20, 24, 28, 40, 32};

/* For images that are created; pick() finds the layout of one that is read. */
static const struct fields *fields_of(uint32_t layout)
{
    switch (layout) {
    case ZQCOW2_LAYOUT_48B: return &layout_48b;
    case ZQCOW2_LAYOUT_56: return &layout_56;
    case ZQCOW2_LAYOUT_V7: return &layout_v7;
    case ZQCOW2_LAYOUT_V3: return &layout_v3;
    default: return &layout_44;
    }
}

/* What a refusal needs to say where a field lies. */
struct source {
    const struct zq_header *h; /* for offsets in the file, the device's size and bit 5 */
    const struct fields *f;
    struct zqcow2_error *err;
};

static int bad(const struct source *s, const char *field, uint64_t value, unsigned at,
               const char *why)
{
    return zq_fail(s->err, ZQCOW2_ECORRUPT,
                   "zoned extension: %s %" PRIu64 " (0x%" PRIx64 ") at byte %" PRIu32 ": %s", field,
                   value, value, s->h->zoned_offset + at, why);
}

/* The last zone may be short. */
static bool zones_fit(uint64_t device, uint64_t zone_size, uint32_t nr_zones)
{
    return zone_size && zq_div_up(device, zone_size) == nr_zones;
}

/*
 * Three revisions have 48 bytes. The feature bit and the redundant fields distinguish them; each
 * reading must also divide the device into the stored number of zones.
 */
static const struct fields *pick_48(const struct zq_header *h, const uint8_t *d)
{
    uint64_t table_size = (uint64_t)zq_be32(d + 16) * 8;

    if (h->incompat & ZQ_INCOMPAT_ZONED && zq_is_pow2(zq_be64(d + 8)) &&
        zones_fit(h->virtual_size, zq_be64(d + 8), zq_be32(d + 4)))
        return &layout_48b;
    if (zq_be64(d + 32) == table_size)
        return &layout_v7;
    return zq_be64(d + 40) == table_size ? &layout_v3 : NULL;
}

static const struct fields *pick(const struct zq_header *h, const uint8_t *d, uint32_t len)
{
    if (len == 44)
        return &layout_44;
    if (len == 56)
        return &layout_56;
    return len == 48 ? pick_48(h, d) : NULL;
}

/* Early revisions store sizes in 32 bits, which limits zones to less than 4 GiB. */
static uint64_t get_size(const struct fields *f, const uint8_t *d, unsigned at)
{
    return f->size_width == 8 ? zq_be64(d + at) : zq_be32(d + at);
}

/* Every field as it is stored; check_zones() and its callers judge them. */
static void load(struct zq_geometry *g, const struct fields *f, const uint8_t *d)
{
    g->layout = f->layout;
    g->zone_size = get_size(f, d, f->zone_size);
    g->capacity = get_size(f, d, f->capacity);
    g->conventional = zq_be32(d + f->conventional);
    g->nr_zones = zq_be32(d + f->nr_zones);
    g->max_active = zq_be32(d + f->max_active);
    g->max_open = zq_be32(d + f->max_open);
    g->table_offset = zq_be64(d + f->table_offset);
    if (f->max_append != NONE)
        g->max_append = zq_be32(d + f->max_append);
    if (f->layout == ZQCOW2_LAYOUT_V3) /* counts sectors there */
        g->max_append =
            (uint32_t)zq_min((uint64_t)g->max_append * ZQ_SECTOR, UINT32_MAX & ~(ZQ_SECTOR - 1));
}

/*
 * At least one sequential zone: without any there is nothing that the extension could describe. A
 * zone of less than a cluster could not own its clusters.
 */
static int check_zones(const struct zq_geometry *g, const struct source *s)
{
    const struct fields *f = s->f;

    if (!zq_is_pow2(g->zone_size) || g->zone_size < (uint64_t)1 << s->h->cluster_bits)
        return bad(s, "zone_size", g->zone_size, f->zone_size,
                   "must be a power of two and at least a cluster");
    if (!g->capacity || g->capacity > g->zone_size || g->capacity % ZQ_SECTOR)
        return bad(s, "zone_capacity", g->capacity, f->capacity,
                   "must be a multiple of 512, 512 to the zone size");
    if (!g->nr_zones || g->nr_zones > ZQ_MAX_ZONES)
        return bad(s, "nr_zones", g->nr_zones, f->nr_zones, "must be 1 to 2^20");
    if (!zones_fit(g->device_size, g->zone_size, g->nr_zones))
        return bad(s, "nr_zones", g->nr_zones, f->nr_zones,
                   "does not divide the device into zones of this size");
    if (g->conventional >= g->nr_zones)
        return bad(s, "conventional_zones", g->conventional, f->conventional,
                   "must be less than nr_zones");
    if (g->max_open && g->max_active && g->max_open > g->max_active)
        return bad(s, "max_open_zones", g->max_open, f->max_open, "exceeds max_active_zones");
    if (f->size_width == 4 || f == &layout_56) {
        if (g->device_size >> 59) /* bit 59 is the type flag of an entry */
            return bad(s, "nr_zones", g->nr_zones, f->nr_zones,
                       "this layout needs a device below 2^59 bytes");
    }
    return 0;
}

static int check_table(const struct zq_geometry *g, const struct source *s, const uint8_t *d,
                       uint64_t file_size)
{
    uint64_t bytes = zq_entries_bytes(g->nr_zones), cluster = (uint64_t)1 << s->h->cluster_bits;
    const struct fields *f = s->f;

    if (f->table_size != NONE && zq_be64(d + f->table_size) != bytes)
        return bad(s, "table_size", zq_be64(d + f->table_size), f->table_size,
                   "is not 8 times nr_zones");
    if (!g->table_offset || g->table_offset % cluster)
        return bad(s, "table_offset", g->table_offset, f->table_offset,
                   "must be a multiple of the cluster size and not 0");
    if (g->table_offset >= ZQ_MAX_HOST_OFFSET)
        return bad(s, "table_offset", g->table_offset, f->table_offset, "must be below 2^56");
    if (g->table_offset > file_size || bytes > file_size - g->table_offset)
        return bad(s, "table_offset", g->table_offset, f->table_offset,
                   "the write-pointer table runs past the end of the file");
    return 0;
}

/* v3 to v7 could be written without the bit; the others never were. */
static int check_bit(const struct source *s, bool *bit_missing)
{
    *bit_missing = !(s->h->incompat & ZQ_INCOMPAT_ZONED);
    if (!*bit_missing || s->f == &layout_v7 || s->f == &layout_v3)
        return 0;
    return zq_fail(s->err, ZQCOW2_ECORRUPT,
                   "incompatible_features 0x%" PRIx64 " at byte %d: a zoned extension of %" PRIu32
                   " bytes at byte %" PRIu32 " but bit 5 is clear",
                   s->h->incompat, ZQ_HDR_INCOMPAT, s->h->zoned_len, s->h->zoned_offset);
}

static int pick_layout(struct source *s, const uint8_t *d, uint32_t len)
{
    if (len != 44 && len != 48 && len != 56)
        return zq_fail(s->err, ZQCOW2_EFEATURE,
                       "zoned extension at byte %" PRIu32 ": length %" PRIu32
                       ": must be 44, 48 or 56",
                       s->h->zoned_offset, len);
    if (d[0] > HOST_MANAGED)
        return zq_fail(s->err, ZQCOW2_EFEATURE,
                       "zoned extension: model %u at byte %" PRIu32
                       ": only 1 (host-managed) is supported",
                       d[0], s->h->zoned_offset);
    /* One flipped bit would leave the write-pointer table without an owner, and repair would free
     * it. */
    if (!d[0] && s->h->incompat & ZQ_INCOMPAT_ZONED)
        return bad(s, "model", 0, 0, "must be 1 because incompatible feature bit 5 is set");
    s->f = pick(s->h, d, len);
    if (!s->f && d[0])
        return zq_fail(s->err, ZQCOW2_ECORRUPT,
                       "zoned extension at byte %" PRIu32
                       ": 48 bytes that match no known layout (size %" PRIu64 ")",
                       s->h->zoned_offset, s->h->virtual_size);
    return 0;
}

int zq_zone_ext_parse(struct zq_geometry *g, const struct zq_header *h, const uint8_t *data,
                      uint32_t len, uint64_t file_size, bool *bit_missing, struct zqcow2_error *err)
{
    struct source s = {h, NULL, err};
    int rc;

    *g = (struct zq_geometry){.device_size = h->virtual_size};
    *bit_missing = false;
    if (!h->zoned_offset) {
        if (h->incompat & ZQ_INCOMPAT_ZONED)
            return zq_fail(err, ZQCOW2_ECORRUPT,
                           "incompatible_features 0x%" PRIx64
                           " at byte %d: bit 5 is set but there is no zoned extension",
                           h->incompat, ZQ_HDR_INCOMPAT);
        return 0;
    }
    rc = pick_layout(&s, data, len);
    if (rc < 0 || data[0] != HOST_MANAGED) /* 0: not zoned, the rest is ignored */
        return rc;
    if (zq_be32(data) & 0xffffff)
        return bad(&s, "reserved field", zq_be32(data) & 0xffffff, 1, "must be 0");
    load(g, s.f, data);
    if ((rc = check_zones(g, &s)) < 0 || (rc = check_table(g, &s, data, file_size)) < 0 ||
        (rc = check_bit(&s, bit_missing)) < 0)
        return rc;
    g->zone_bits = zq_ctz(g->zone_size);
    return 0;
}

/* ---- a new image ---- */

static int refuse(struct zqcow2_error *err, const char *option, uint64_t value, const char *why)
{
    return zq_fail(err, -EINVAL, "%s %" PRIu64 ": %s", option, value, why);
}

/* The other layouts can be read, but not created. The limits of an append: docs/SPEC.md. */
static int check_new_layout(const struct zq_geometry *g, struct zqcow2_error *err)
{
    bool v7 = g->layout == ZQCOW2_LAYOUT_V7;

    if (!v7 && g->layout != ZQCOW2_LAYOUT_44 && g->layout != ZQCOW2_LAYOUT_48B &&
        g->layout != ZQCOW2_LAYOUT_56)
        return refuse(err, "zone.layout", g->layout, "only 44, 48b, 56 and v7 can be created");
    if (v7 && g->zone_size >= WRAP)
        return refuse(err, "zone.size", g->zone_size, "layout v7 stores sizes below 4 GiB only");
    if ((v7 || g->layout == ZQCOW2_LAYOUT_56) && g->device_size >> 59)
        return refuse(err, "size", g->device_size, "layouts v7 and 56 need a size below 2^59");
    if (!g->max_append)
        return 0;
    if (g->layout == ZQCOW2_LAYOUT_44)
        return refuse(err, "zone.max_append_bytes", g->max_append, "layout 44 cannot store it");
    if (g->max_append % ZQ_SECTOR)
        return refuse(err, "zone.max_append_bytes", g->max_append, "must be a multiple of 512");
    if ((uint64_t)g->max_append + ZQ_SECTOR >= g->capacity)
        return refuse(err, "zone.max_append_bytes", g->max_append,
                      "must be more than 512 below the capacity");
    return 0;
}

int zq_geometry_check_new(struct zq_geometry *g, uint32_t cluster_size, struct zqcow2_error *err)
{
    uint64_t nr_zones;

    if (!zq_is_pow2(g->zone_size) || g->zone_size < cluster_size)
        return refuse(err, "zone.size", g->zone_size,
                      "must be a power of two and at least cluster_size");
    if (!g->capacity || g->capacity > g->zone_size || g->capacity % ZQ_SECTOR)
        return refuse(err, "zone.capacity", g->capacity,
                      "must be a multiple of 512, 512 to zone.size");
    nr_zones = zq_div_up(g->device_size, g->zone_size);
    if (!nr_zones || nr_zones > ZQ_MAX_ZONES)
        return refuse(err, "zone.size", g->zone_size, "must divide the size into 1 to 2^20 zones");
    if (g->conventional >= nr_zones)
        return refuse(err, "zone.conventional_zones", g->conventional,
                      "must be less than the number of zones");
    if (g->max_open && g->max_active && g->max_open > g->max_active)
        return refuse(err, "zone.max_open_zones", g->max_open, "exceeds zone.max_active_zones");
    g->nr_zones = (uint32_t)nr_zones;
    g->zone_bits = zq_ctz(g->zone_size);
    return check_new_layout(g, err);
}

/* ---- an image that changes ---- */

bool zq_geometry_resize(const struct zq_geometry *g, uint64_t size, struct zq_geometry *out)
{
    uint64_t nr = zq_div_up(size, g->zone_size);
    const struct fields *f = fields_of(g->layout);

    if (size % ZQ_SECTOR || nr <= g->conventional || nr > ZQ_MAX_ZONES)
        return false;
    if ((f->size_width == 4 || f == &layout_56) && size >> 59)
        return false;
    *out = *g;
    out->device_size = size;
    out->nr_zones = (uint32_t)nr;
    return true;
}

void zq_zone_ext_move(uint8_t *data, const struct zq_geometry *g)
{
    const struct fields *f = fields_of(g->layout);

    zq_put_be32(data + f->nr_zones, g->nr_zones);
    if (f->table_size != NONE)
        zq_put_be64(data + f->table_size, zq_entries_bytes(g->nr_zones));
    zq_put_be64(data + f->table_offset, g->table_offset);
}

/* ---- what create writes ---- */

static void put_size(const struct fields *f, uint8_t *d, unsigned at, uint64_t v)
{
    if (f->size_width == 8)
        zq_put_be64(d + at, v);
    else
        zq_put_be32(d + at, (uint32_t)v);
}

uint32_t zq_zone_ext_build(const struct zq_geometry *g, uint8_t out[ZQ_ZONE_EXT_MAX])
{
    const struct fields *f = fields_of(g->layout);

    memset(out, 0, ZQ_ZONE_EXT_MAX);
    out[0] = HOST_MANAGED;
    put_size(f, out, f->zone_size, g->zone_size);
    put_size(f, out, f->capacity, g->capacity);
    zq_put_be32(out + f->conventional, g->conventional);
    zq_put_be32(out + f->nr_zones, g->nr_zones);
    zq_put_be32(out + f->max_active, g->max_active);
    zq_put_be32(out + f->max_open, g->max_open);
    if (f->max_append != NONE)
        zq_put_be32(out + f->max_append,
                    f == &layout_v3 ? g->max_append / ZQ_SECTOR : g->max_append);
    if (f->table_size != NONE)
        zq_put_be64(out + f->table_size, zq_entries_bytes(g->nr_zones));
    zq_put_be64(out + f->table_offset, g->table_offset);
    return f->len;
}

/* ---- entries ---- */

static uint64_t entry_load(const struct zq_entry_code *c, const uint8_t raw[ZQ_ENTRY])
{
    return c->big_endian ? zq_be64(raw) : zq_le64(raw);
}

/* The states that a v3 entry may carry: none, EMPTY, the open ones, CLOSED, FULL. */
static bool state_known(unsigned state)
{
    return state <= STATE_CLOSED || state == STATE_FULL;
}

/* Older programs read start + capacity of a short last zone, or a finish, as not yet full. */
static bool full_is_next_start(const struct zq_geometry *g, uint32_t zone, bool finished)
{
    if (g->layout == ZQCOW2_LAYOUT_44 || g->layout == ZQCOW2_LAYOUT_48B)
        return false;
    return finished || zq_geometry_length(g, zone) < g->zone_size;
}

uint64_t zq_entry_word(const struct zq_geometry *g, const uint8_t raw[ZQ_ENTRY])
{
    return entry_load(&g->code, raw);
}

/*
 * The flag says that a zone is conventional, and must agree with the extension: an entry that
 * differs is damaged or in another code.
 */
int zq_entry_decode(const struct zq_geometry *g, uint32_t zone, const uint8_t raw[ZQ_ENTRY],
                    struct zq_entry *e)
{
    uint64_t v = entry_load(&g->code, raw), flag = (uint64_t)1 << g->code.flag_bit;
    uint64_t start = zq_geometry_start(g, zone), full = start + zq_geometry_capacity(g, zone);

    if (!(v & flag) != (zone >= g->conventional))
        return ZQCOW2_ECORRUPT;
    v &= ~flag;
    if (g->code.state_bits) {
        if (!state_known((unsigned)(v >> STATE_SHIFT)))
            return ZQCOW2_ECORRUPT;
        v &= ((uint64_t)1 << STATE_SHIFT) - 1;
    }
    /* v7 computed its first entries in 32 bits: such a zone has never been written. */
    if (g->layout == ZQCOW2_LAYOUT_V7 && v == start % WRAP)
        v = start;
    if (v < start || v > start + g->zone_size || v % ZQ_SECTOR)
        return ZQCOW2_ECORRUPT;
    if (zone < g->conventional) {
        *e = (struct zq_entry){start, false, false};
        return 0;
    }
    e->full = v >= full;
    e->finished = v == start + g->zone_size;
    e->wp = e->full ? full : v;
    return 0;
}

void zq_entry_encode(const struct zq_geometry *g, uint32_t zone, uint64_t wp, bool finished,
                     uint8_t raw[ZQ_ENTRY])
{
    uint64_t start = zq_geometry_start(g, zone), full = start + zq_geometry_capacity(g, zone);
    bool sequential = zone >= g->conventional, is_full = sequential && (finished || wp >= full);
    uint64_t v = sequential ? wp : start | (uint64_t)1 << g->code.flag_bit;

    if (is_full)
        v = full_is_next_start(g, zone, finished) ? start + g->zone_size : full;
    if (g->code.state_bits && sequential)
        v |= (uint64_t)(is_full     ? STATE_FULL :
                        wp == start ? STATE_EMPTY :
                                      STATE_CLOSED)
             << STATE_SHIFT;
    if (g->code.big_endian)
        zq_put_be64(raw, v);
    else
        zq_put_le64(raw, v);
}

void zq_entry_code_new(struct zq_geometry *g)
{
    bool big = g->layout == ZQCOW2_LAYOUT_44 || g->layout == ZQCOW2_LAYOUT_48B;

    g->code = (struct zq_entry_code){.big_endian = big, .flag_bit = big ? 63 : 59};
}

/* In the order of preference: the little-endian machines came first and are nearly all. */
static const struct zq_entry_code candidates[] = {
    {.big_endian = true, .flag_bit = 63},
    {.flag_bit = 59},
    {.flag_bit = 59, .state_bits = true},
    {.big_endian = true, .flag_bit = 59},
    {.big_endian = true, .flag_bit = 59, .state_bits = true},
};

static bool may_have(const struct zq_geometry *g, const struct zq_entry_code *c)
{
    bool new_style = g->layout == ZQCOW2_LAYOUT_44 || g->layout == ZQCOW2_LAYOUT_48B;

    return new_style == (c->flag_bit == 63) && (!c->state_bits || g->layout == ZQCOW2_LAYOUT_V3);
}

/* nr_zones: all entries are valid under g->code. */
static uint32_t first_misfit(const struct zq_geometry *g, const uint8_t *table)
{
    struct zq_entry e;
    uint32_t i = 0;

    while (i < g->nr_zones && zq_entry_decode(g, i, table + zq_entries_bytes(i), &e) == 0)
        i++;
    return i;
}

int zq_entry_code_detect(struct zq_geometry *g, const uint8_t *table, struct zqcow2_error *err)
{
    struct zq_entry_code best = {0};
    uint32_t best_zone = 0;
    bool any = false;

    for (size_t i = 0; i < sizeof(candidates) / sizeof(candidates[0]); i++) {
        uint32_t zone;

        if (!may_have(g, &candidates[i]))
            continue;
        g->code = candidates[i];
        zone = first_misfit(g, table);
        if (zone == g->nr_zones)
            return 0;
        if (!any || zone > best_zone) {
            best = g->code;
            best_zone = zone;
        }
        any = true;
    }
    /* The code that got furthest stays, so that check can go on from there. */
    g->code = best;
    return zq_fail(err, ZQCOW2_ECORRUPT,
                   "write-pointer table: zone %" PRIu32 " has 0x%016" PRIx64 " at byte %" PRIu64
                   ": not a position in this zone (0x%" PRIx64 " to 0x%" PRIx64 ")",
                   best_zone, entry_load(&best, table + zq_entries_bytes(best_zone)),
                   g->table_offset + zq_entries_bytes(best_zone), zq_geometry_start(g, best_zone),
                   zq_geometry_start(g, best_zone) + g->zone_size);
}
